"""The backend of a deployed runtime: S3 underneath, Lambda to run.

invoke ─ boto3, side by side ─▶ worker function ─▶ … ─▶ outcomes in the bucket ─▶ poller
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING, Any

from lambdamr import shipping
from lambdamr.aws import requirements
from lambdamr.aws.concurrency import usable_lanes
from lambdamr.aws.watching import Net, last_sign_s
from lambdamr.backend import Listener
from lambdamr.deployment import RECORD_KEY, Deployment
from lambdamr.polling import quiet_s
from lambdamr_runtime.errors import InvocationFailed, InvocationRefused, RuntimeMismatch
from lambdamr_runtime.invoker import is_transient
from lambdamr_runtime.limits import EVENT_AGE_S, INVOKES_AT_ONCE, MAX_TREE_DEPTH, RECURSION_GUARD
from lambdamr_runtime.memory_limit import task_memory_mb
from lambdamr_runtime.s3 import endpoint_of, s3_backend
from lambdamr_runtime.signing import help_with, session
from lambdamr_runtime.store import ObstoreStore, Store, hides_missing, open_store
from lambdamr_runtime.wire import Event

if TYPE_CHECKING:
    from lambdamr.submission import Submission
    from lambdamr.tracked import TrackedJob

TRIES = 8
"""Of an Invoke: boto3 pauses between them, jittered, up to 20 s."""


class AwsBackend:
    """Runs jobs on the functions of a deployment; obeys RemoteBackend.

    Args:    concurrency: most lanes of a stage; None: a share of what the account has free.
             memory_mb: that tasks are planned for; 0: what the functions have.
    Raises:  RuntimeMismatch: the deployed runtime is none for this client.
             ValueError: more memory than the functions have.
    """

    hints = False
    helps = False
    owner = ""

    def __init__(
        self, deployment: Deployment, concurrency: int | None = None, memory_mb: int = 0
    ) -> None:
        requirements.check_versions(deployment)
        requirements.check_memory(deployment, memory_mb)
        self.deployment = deployment
        backend = s3_backend(deployment.root, region=deployment.region)
        root = deployment.root
        self.store: Store = ObstoreStore(root, backend, hides_missing(root))
        self.client = lambda_client(deployment.region)
        self.width = usable_lanes(self.client, deployment.worker, concurrency)
        self.workers = self.width
        self.memory_mb = task_memory_mb(memory_mb or deployment.memory_mb)

    def connect(self, listener: Listener) -> None: ...

    def invoke(self, event: Event) -> None:
        """Launch an event.

        Raises:  InvocationRefused, InvocationFailed: naming what mends it.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        if not event.expires:
            event = replace(event, expires=event.sent_s + EVENT_AGE_S)
        try:
            self.client.invoke(
                FunctionName=self.deployment.worker,
                InvocationType="Event",
                Payload=event.encode(),
            )
        except ClientError as error:
            raise self._refused(error) from error
        except BotoCoreError as error:
            found = help_with(error)
            if found:
                raise InvocationRefused(found) from error
            raise InvocationFailed(f"AWS Lambda could not be reached: {error}") from error

    def invoke_all(self, events: Sequence[Event]) -> None:
        """Launch events side by side.

        Raises:  as invoke, of the first that failed.
        """
        if len(events) == 1:
            self.invoke(events[0])
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(INVOKES_AT_ONCE, thread_name_prefix="lambdamr-invoke") as pool:
            for launched in [pool.submit(self.invoke, event) for event in events]:
                launched.result()

    def check(self, submission: "Submission", exclude: Sequence[str]) -> None:
        """Refuse a job that would fail there.

        Raises:  RuntimeMismatch: it needs a package that is not deployed, or longer chains of
                 invocations than AWS allows.
        """
        needed = shipping.foreign(submission.modules, exclude)
        requirements.check_packages(self.deployment, needed, exclude)
        chain = len(submission.manifest.stages) * (MAX_TREE_DEPTH + 1)
        if not self.deployment.recursive and chain > RECURSION_GUARD:
            raise RuntimeMismatch(
                f"The job has {len(submission.manifest.stages)} stages, and AWS would stop it "
                f"after about {RECURSION_GUARD} invocations in a row: {self.deployment.worker} "
                "does not allow recursive calls. Run `lambdamr deploy-runtime`, or have "
                "RecursiveLoop=Allow set by somebody who may."
            )

    def check_memory(self, memory_mb: int) -> None:
        """Refuse a limit of a task that is more than the functions have.

        Raises:  ValueError: naming the command that gives them more.
        """
        requirements.check_memory(self.deployment, memory_mb)

    def check_access(self, reads: Iterable[str], writes: Iterable[str]) -> None:
        """Refuse inputs and outputs that the functions have no permission for.

        Raises:  InvalidInput.
        """
        requirements.check_access(self.deployment, reads, writes)

    def watch(self, job: "TrackedJob", is_new: bool) -> Callable[[], None]:
        """Return what is called at every look at a job that found nothing new."""
        since_s = time() if is_new else last_sign_s(self.store, job.manifest)
        return Net(job, self.invoke, time, quiet_s(self.deployment.timeout_s), since_s)

    def withdraw(self, job: str) -> bool:  # noqa: ARG002 - the protocol's
        return False

    def has_begun(self, job: str) -> bool:  # noqa: ARG002 - the protocol's
        return False

    def help(self, job: str) -> bool:  # noqa: ARG002 - the protocol's
        return False

    def close(self) -> None:
        self.client.close()

    def _refused(self, error: Any) -> InvocationFailed:
        """Return our error for boto3's."""
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        worker = self.deployment.worker
        if code == "ResourceNotFoundException":
            return InvocationRefused(
                f"There is no function {worker} in {self.deployment.region}. "
                "Run `lambdamr deploy-runtime`."
            )
        if code in ("AccessDeniedException", "AccessDenied"):
            return InvocationRefused(
                f"{error} Who runs jobs needs lambda:InvokeFunction on {worker}: "
                "`lambdamr doctor` shows the policy."
            )
        kind = InvocationFailed if is_transient(status) else InvocationRefused
        return kind(help_with(error) or f"{worker} could not be invoked: {error}")


def lambda_client(region: str) -> Any:
    """Return boto3's client of Lambda, with connections for as many launches as are made at once.

    Any: boto3 has no types.

    Raises:  InvocationRefused: there is no such profile, or no such region.
    """
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        max_pool_connections=INVOKES_AT_ONCE,
        connect_timeout=5,
        read_timeout=30,
        retries={"mode": "standard", "max_attempts": TRIES},
    )
    endpoint = endpoint_of("lambda", os.environ) or None
    try:
        return session().client("lambda", region, endpoint_url=endpoint, config=config)
    except BotoCoreError as error:
        raise InvocationRefused(help_with(error) or str(error)) from error


def deployment_at(root: str) -> Deployment:
    """Read the record of the runtime that is deployed at a root.

    Raises:  RuntimeMismatch: there is none.
    """
    try:
        return Deployment.decode(open_store(root).get(RECORD_KEY), f"{root}/{RECORD_KEY}")
    except FileNotFoundError:
        raise RuntimeMismatch(
            f"No runtime is deployed at {root}. Run `lambdamr deploy-runtime`, or give the root "
            "that it has printed."
        ) from None
