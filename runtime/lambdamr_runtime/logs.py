"""What tasks log, and what they have written while they still run.

A task's stdout and stderr travel with its outcome. Whoever wants them earlier puts a marker for
the job; once its workers have seen that, they show the tail of each running task.
"""

import json
import logging
import sys
from collections.abc import Callable
from time import monotonic

from lambdamr_runtime.errors import CorruptObject
from lambdamr_runtime.frozen import frozen
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.process import Running
from lambdamr_runtime.store import Store
from lambdamr_runtime.wire import MALFORMED


def capture_logging() -> None:
    """Have what tasks log at INFO and above written to stderr, unless they configure logging.

    As a last resort, which any handler of the task's own takes the place of: `basicConfig` works
    as in a script.
    """
    handler = _ToStderr(logging.INFO)
    handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))  # what basicConfig writes too
    logging.lastResort = handler
    logging.getLogger().setLevel(logging.INFO)


class _ToStderr(logging.Handler):
    """Writes to whatever sys.stderr is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:  # a message that cannot be formatted is the user's, as in any handler
            self.handleError(record)


@frozen
class LiveLog:
    """The tail of what a running task has written."""

    task: int
    number: int
    """Tells tasks begun by one process apart."""
    size: int
    """Bytes written so far; the tail holds the last of them."""
    tail: bytes

    def encode(self) -> bytes:
        header = {"task": self.task, "number": self.number, "size": self.size}
        return json.dumps(header).encode() + b"\n" + self.tail

    @classmethod
    def decode(cls, data: bytes, source: str) -> "LiveLog":
        """Parse a stored tail.

        Raises:  CorruptObject: it is none.
        """
        header, _, tail = data.partition(b"\n")
        try:
            return cls(**json.loads(header), tail=tail)
        except MALFORMED as error:
            raise CorruptObject(f"{source} is not the log of a task: {error}") from error


class LogWatch:
    """Shows the log of the running task where somebody has asked for it.

    Args:  running: tells which task runs. peek: returns the size of its output and the tail.
           pause_s: between two looks whether anybody has asked.
    """

    def __init__(
        self,
        store: Store,
        running: Callable[[], Running | None],
        peek: Callable[[], tuple[int, bytes]],
        pause_s: float = 0.0,
    ) -> None:
        self._store = store
        self._running = running
        self._peek = peek
        self._pause_s = pause_s
        self._job = ""
        self._wanted = False
        """Whether the logs of that job are."""
        self._due_s = 0.0
        self._shown = (-1, -1)
        """(number, size) of what was shown last."""

    def look(self, job: str, stage: int, is_watched: Callable[[], bool] = lambda: True) -> None:
        """Show the log of the task that runs now, if it is wanted and has grown.

        Args:  is_watched: whether this stage of the job still runs.
        """
        running = self._running()
        if running is None or running.task < 0 or not self._is_wanted(job):
            return
        size, tail = self._peek()
        if (running.number, size) == self._shown or self._running() != running or not is_watched():
            return  # nothing new, or another task has begun whose output this may be
        log = LiveLog(running.task, running.number, size, tail)
        self._store.put(JobKeys(job).live_log(stage, running.chunk), log.encode())
        self._shown = (running.number, size)

    def _is_wanted(self, job: str) -> bool:
        if job != self._job:
            self._job, self._wanted, self._due_s = job, False, 0.0
        now_s = monotonic()
        if not self._wanted and now_s >= self._due_s:
            self._due_s = now_s + self._pause_s
            self._wanted = self._store.exists(JobKeys(job).logs_wanted)
        return self._wanted
