"""The entry points on AWS Lambda: the worker, and the supervisor of what fails.

    client, worker ── Invoke(Event) ──▶ worker(event, context)
                                           │ raises, is killed, is never run
                                           ▼ on-failure destination
                                        supervisor(record, context) ── Invoke(Event) ──▶ worker

The environment has LAMBDAMR_ROOT, where everything lies, and LAMBDAMR_WORKER, whom to invoke.
Importing this module forks the process for tasks, so that it is ready when the first event comes.
"""

import json
import os
import sys
import time
from typing import Any, Protocol

from lambdamr_runtime.child import Settings
from lambdamr_runtime.invoker import Invoker
from lambdamr_runtime.memory_limit import task_memory_mb
from lambdamr_runtime.sandbox import Sandbox
from lambdamr_runtime.wire import Event

Payload = dict[str, Any]
"""Any: JSON, which the decoders of the records check."""


class LambdaContext(Protocol):
    """What is used of the context of an invocation."""

    def get_remaining_time_in_millis(self) -> int: ...


class LambdaLink:
    """AWS Lambda as this worker sees it; obeys Surroundings."""

    def __init__(self, invoker: Invoker, context: LambdaContext) -> None:
        self._invoker = invoker
        self._context = context

    def invoke(self, events: bytes) -> None:
        self._invoker.invoke_all(events.splitlines())

    def take(self, job: bytes) -> bytes:  # noqa: ARG002 - the protocol's
        return b""  # what waits for a place, AWS has

    def is_gone(self) -> bool:
        return False

    def remaining_s(self) -> float:
        return self._context.get_remaining_time_in_millis() / 1000


def worker(event: Payload, context: LambdaContext) -> None:
    """Run one event to its end.

    Raises:  whatever kept it from that: AWS sends it to the supervisor.
    """
    decoded = Event.decode(json.dumps(event).encode())
    _log(f"job {decoded.job} stage {decoded.stage} lane {decoded.lo} cursor {decoded.cursor}")
    _sandbox.run(decoded, LambdaLink(_invoker, context))


def supervisor(record: Payload, _: LambdaContext) -> None:
    """Repair what a failed invocation of a worker left undone.

    Raises:  whatever kept it from that: AWS tries it twice more.
    """
    from lambdamr_runtime.clock import SystemClock
    from lambdamr_runtime.store import open_store
    from lambdamr_runtime.supervisor import Failure, supervise
    from lambdamr_runtime.tails import log_tail

    failure = Failure.decode(record)
    tail = log_tail(os.environ["LAMBDAMR_WORKER"], failure.request)
    verdict = supervise(
        record,
        open_store(os.environ["LAMBDAMR_ROOT"]),
        lambda event: _invoker.invoke(event.encode()),
        SystemClock(),
        tail,
    )
    _log(f"{failure.condition} {failure.error_type} {failure.request}: {verdict.value}")


def _log(line: str) -> None:
    sys.stdout.write(f"lambdamr {line}\n")


def _settings() -> Settings:
    """Return how tasks run in this sandbox, which is its process's own."""
    scratch = os.path.join(os.environ.get("TMPDIR", "/tmp"), f"lambdamr-{os.getpid()}")
    return Settings(
        root=os.environ["LAMBDAMR_ROOT"],
        name=os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", "worker"),
        scratch=scratch,
        memory_mb=task_memory_mb(int(os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"])),
        workers=0,
        slice_s=float("inf"),
        steals=True,
        born_s=time.time(),
    )


_invoker = Invoker(os.environ["LAMBDAMR_WORKER"])
_sandbox = Sandbox(_settings())
if os.environ.get("_HANDLER", "").endswith(".worker"):
    _sandbox.start()
