"""The one way to AWS's control plane: an operation, its arguments, its answer or an error of ours.

Everything in this package speaks to AWS through `Cloud`. Tests speak to an emulator through the
same class, or give a `Cloud` of their own.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from lambdamr.deploy.naming import Names
from lambdamr.deploy.refusals import ABSENT, code_of, translated
from lambdamr_runtime.clock import Clock, SystemClock
from lambdamr_runtime.errors import DeployError
from lambdamr_runtime.signing import session

ATTEMPTS = 6
"""Tries of a request that AWS throttles or does not answer."""

PATIENCE_S = 120.0
"""How long what was just made may take to be usable."""

Answer = dict[str, Any]
"""An answer of AWS, which is theirs to shape; it never travels past the function that reads it."""


class Cloud(Protocol):
    """AWS, as far as deploying needs it."""

    clock: Clock

    def uses_tls(self) -> bool:
        """Whether requests to S3 are encrypted; those to an emulator may not be."""

    def call(self, service: str, operation: str, /, **arguments: Any) -> Answer:
        """Do an operation, "create_function".

        Raises:  MissingPermission, DeployError: AWS refused it.
        """

    def find(self, service: str, operation: str, /, **arguments: Any) -> Answer | None:
        """Do one that looks at something; None where there is nothing.

        Raises:  MissingPermission, DeployError: AWS refused it.
        """

    def pages(self, service: str, operation: str, /, **arguments: Any) -> Iterator[Answer]:
        """Do one that lists; yields its pages, none where there is nothing to list in.

        Raises:  MissingPermission, DeployError: AWS refused it.
        """


class Aws:
    """`Cloud` over boto3."""

    def __init__(self, session: Any, region: str, clock: Clock | None = None) -> None:
        """Take a boto3 session; Any: it has no types."""
        self.region = region
        self.clock: Clock = clock or SystemClock()
        self._session = session
        self._clients: dict[str, Any] = {}

    def uses_tls(self) -> bool:
        return not str(self._client("s3").meta.endpoint_url).startswith("http:")

    def call(self, service: str, operation: str, /, **arguments: Any) -> Answer:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            client = self._client(service)
            answer: Answer = getattr(client, operation)(**arguments)
        except (BotoCoreError, ClientError) as error:
            raise translated(error, service, _camel(operation), _target(arguments)) from error
        return answer

    def find(self, service: str, operation: str, /, **arguments: Any) -> Answer | None:
        from botocore.exceptions import ClientError

        try:
            return self.call(service, operation, **arguments)
        except DeployError as error:
            cause = error.__cause__
            if isinstance(cause, ClientError) and code_of(cause) in ABSENT:
                return None
            raise

    def pages(self, service: str, operation: str, /, **arguments: Any) -> Iterator[Answer]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield from self._client(service).get_paginator(operation).paginate(**arguments)
        except ClientError as error:
            if code_of(error) not in ABSENT:
                raise translated(error, service, _camel(operation), _target(arguments)) from error
        except BotoCoreError as error:
            raise translated(error, service, _camel(operation), _target(arguments)) from error

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            from botocore.config import Config

            self._clients[service] = self._session.client(
                service,
                region_name=self.region,
                config=Config(retries={"mode": "standard", "total_max_attempts": ATTEMPTS}),
            )
        return self._clients[service]


def open_session(profile: str | None = None) -> Any:
    """Return a boto3 session of the user's credentials.

    Raises:  DeployError: there is no such profile.
    """
    from botocore.exceptions import BotoCoreError

    try:
        return session(profile)
    except BotoCoreError as error:
        raise translated(error, "session", "", "") from error


def identify(cloud: Cloud, deployment: str, region: str) -> Names:
    """Return the names of a deployment in the account of whoever asks.

    Raises:  DeployError: there are no usable credentials.
    """
    caller = cloud.call("sts", "get_caller_identity")
    partition = caller["Arn"].split(":")[1]
    return Names(deployment, region, caller["Account"], partition)


def until(
    clock: Clock, done: Callable[[], bool], what: str, patience_s: float = PATIENCE_S
) -> None:
    """Wait for something that AWS is doing, looking ever more rarely.

    Raises:  DeployError: it is not done in time.
    """
    deadline, pause_s = clock.monotonic() + patience_s, 0.05
    while not done():
        if clock.monotonic() > deadline:
            raise DeployError(
                f"{what} is not ready after {patience_s:.0f} s. Run the command again: it goes on "
                "where it stopped."
            )
        clock.sleep(pause_s * (0.5 + random.random()))
        pause_s = min(2 * pause_s, 3.0)


def _camel(operation: str) -> str:
    return "".join(word.capitalize() for word in operation.split("_"))


_TARGETS = (
    "FunctionName", "RoleName", "LayerName", "logGroupName", "logGroupNamePrefix", "Key", "Bucket",
)  # fmt: skip


def _target(arguments: dict[str, Any]) -> str:
    return next((str(arguments[name]) for name in _TARGETS if name in arguments), "AWS")
