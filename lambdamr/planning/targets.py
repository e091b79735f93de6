"""Where a job is planned for: this machine, or functions in an AWS account."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambdamr_runtime.limits import CONCURRENCY, FREE_SHARE, PLANNED_MEMORY_MB

if TYPE_CHECKING:
    from lambdamr.backend import Backend
    from lambdamr.config import Config
    from lambdamr.deployment import Deployment

LOCAL = "local"
AWS = "aws"


@dataclass(frozen=True, slots=True)
class Target:
    """A place, as far as a plan must know it."""

    where: str
    """LOCAL or AWS."""
    workers: int
    """Tasks at a time."""
    width: int
    """Most lanes of a stage."""
    memory_mb: int
    region: str = ""
    architecture: str = ""

    @property
    def is_aws(self) -> bool:
        return self.where == AWS

    def __str__(self) -> str:
        if not self.is_aws:
            return f"this machine, {self.workers} workers"
        return (
            f"AWS Lambda in {self.region}, {self.memory_mb:,} MB ({self.architecture}), "
            f"{self.width:,} lanes at a time"
        )


def target_of(backend: "Backend", on: str | None, config: "Config") -> Target:
    """Return the target that a plan is made for.

    Args:    on: "local" or "aws"; None: where the backend runs its jobs.
    Raises:  ValueError: another name.
    """
    deployed: Deployment | None = getattr(backend, "deployment", None)
    rehearsed: Target | None = getattr(backend, "target", None)
    if on not in (None, LOCAL, AWS):
        raise ValueError(f'on must be "local", "aws" or None, got {on!r}')
    if rehearsed is not None and on in (None, rehearsed.where):
        return rehearsed
    if on == AWS and deployed is None:
        return assumed_target(config)
    if deployed is None or on == LOCAL:
        return Target(LOCAL, backend.workers, backend.width, backend.memory_mb)
    return deployed_target(deployed, backend.width)


def deployed_target(deployed: "Deployment", width: int) -> Target:
    """Return the target that a deployed runtime is."""
    return Target(AWS, width, width, deployed.memory_mb, deployed.region, deployed.architecture)


def assumed_target(config: "Config") -> Target:
    """Return the deployment of the user's profile, or one as `lambdamr deploy-runtime` makes it."""
    from lambdamr.deployment import load_profile
    from lambdamr.prices import DEFAULT_REGION

    width = int(CONCURRENCY * FREE_SHARE)
    deployed = load_profile()
    if deployed is not None:
        return deployed_target(deployed, width)
    memory_mb = config.memory_mb or PLANNED_MEMORY_MB
    return Target(AWS, width, width, memory_mb, config.region or DEFAULT_REGION, "x86_64")
