"""The backend inside a task: the worker's own store and launches."""

import logging
from typing import TYPE_CHECKING

from lambdamr.backend import Listener
from lambdamr_runtime.context import Context
from lambdamr_runtime.errors import LambdamrError
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.limits import LANES_PER_WORKER
from lambdamr_runtime.wire import Event

if TYPE_CHECKING:
    from lambdamr_runtime.barrier import Report
    from lambdamr_runtime.store import Store

logger = logging.getLogger(__name__)


class NestedBackend:
    """Runs the jobs of a task beside it, and in it while it waits.

    A waiting task takes queued chunks of its own job, so nested jobs end with a single worker too.
    """

    hints = False
    helps = True

    def __init__(self, context: Context, memory_mb: int) -> None:
        self._context = context
        self.store = context.store
        self.owner = context.owner
        self.workers = context.workers
        self.width = context.width or context.workers * LANES_PER_WORKER
        self.memory_mb = memory_mb

    def connect(self, listener: Listener) -> None: ...

    def invoke(self, event: Event) -> None:
        self._context.invoke(event)

    def withdraw(self, job: str) -> bool:
        while self._context.take(job) is not None:
            pass
        return False

    def has_begun(self, job: str) -> bool:  # noqa: ARG002 - the protocol's
        return False

    def help(self, job: str) -> bool:
        """Run one queued event in the thread that waits.

        Any thread of the task may, several at once too: the main one may be waiting for them.
        """
        event = self._context.take(job)
        if event is None:
            return False
        self._context.run(event)
        return True

    def close(self) -> None: ...


def end_failed(store: "Store", job: str, report: "Report") -> None:
    """Tell the task that follows a nested job, by its end in the store, that it cannot go on: the
    client, whose pool knows that, does not follow it.
    """
    from lambdamr.looking import summary
    from lambdamr_runtime.barrier import end_job

    try:
        if not summary(store, job).is_settled:
            end_job(store, JobKeys(job), report)
    except (LambdamrError, OSError) as error:  # the caller is the thread that serves all workers
        logger.warning("Could not end job %s, which failed (%s): %s", job, report.reason, error)
