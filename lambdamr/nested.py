"""The backend inside a task: the worker's own store and launches."""

from lambdamr.backend import Listener
from lambdamr_runtime.context import Context
from lambdamr_runtime.limits import LANES_PER_WORKER
from lambdamr_runtime.wire import Event


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
