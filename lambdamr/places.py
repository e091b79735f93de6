"""Where jobs run and are stored: this machine, a deployed runtime, or the worker around a task."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambdamr.config import load_config

if TYPE_CHECKING:
    from lambdamr.backend import Backend
    from lambdamr.deployment import Deployment


@dataclass(frozen=True, slots=True)
class Place:
    """What an executor was told of the place of its jobs; fields as of Executor."""

    kind: str | None
    """The name of a backend; None: decide yourself."""
    root: str
    is_placed: bool
    """Whether the root was given to the executor itself."""
    workers: int | None
    memory_mb: int
    """0: none given."""
    concurrency: int | None
    keep_days: float

    def backend(self) -> "Backend":
        """Return a backend there.

        Raises:  RuntimeMismatch: AWS is asked for, but nothing is deployed that fits this client.
        """
        from lambdamr_runtime import context

        worker = context.current()
        if worker is not None and not self.is_placed:
            from lambdamr.nested import NestedBackend

            return NestedBackend(worker, self.memory_mb or worker.memory_mb)
        deployment = self.deployment()
        if deployment is not None:
            from lambdamr.aws.backend import AwsBackend

            return AwsBackend(deployment, self.concurrency or self.workers, self.memory_mb)
        from lambdamr.local import LocalBackend

        workers, width = self.local_size()
        return LocalBackend(self.root, workers, self.memory_mb, width, self.keep_days)

    def local_size(self) -> tuple[int, int]:
        """Return workers and width of the embedded backend."""
        from lambdamr.local import usable_cores
        from lambdamr_runtime.limits import LANES_PER_WORKER

        workers = self.workers or usable_cores()
        return workers, self.concurrency or workers * LANES_PER_WORKER

    def deployment(self) -> "Deployment | None":
        """Return the runtime that is used; None: this machine.

        Raises:  RuntimeMismatch: AWS is asked for, but nothing is deployed.
        """
        from lambdamr.deployment import load_profile

        if self.root.startswith("s3://") and self.kind != "local":
            from lambdamr.aws.backend import deployment_at

            return deployment_at(self.root)
        if self.kind == "local" or (self.is_placed and self.kind != "aws"):
            return None
        deployment = load_profile()
        if deployment is None and self.kind == "aws":
            from lambdamr_runtime.errors import RuntimeMismatch

            raise RuntimeMismatch("No runtime is deployed. Run `lambdamr deploy-runtime`.")
        return deployment


def default_root() -> str:
    """Return where jobs are looked for: where an executor that is told nothing stores them."""
    config = load_config()
    if config.backend == "local" or config.root.startswith("s3://"):
        return config.root
    from lambdamr.deployment import load_profile

    deployment = load_profile()
    return deployment.root if deployment is not None else config.root
