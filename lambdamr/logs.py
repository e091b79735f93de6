"""What tasks write, while they still run: asked of their workers through the store.

Workers that are asked show the tail of each running task: every NEAR_LOOK_S seconds where jobs are
stored in a directory; elsewhere every TOMBSTONE_S, LOGS_WANTED_S after the question at the latest.
"""

from collections.abc import Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from lambdamr_runtime.keys import JobKeys, last_number
from lambdamr_runtime.limits import LOGS_WANTED_S, NEAR_LOOK_S, TOMBSTONE_S
from lambdamr_runtime.logs import LiveLog
from lambdamr_runtime.store import local_path

if TYPE_CHECKING:
    from lambdamr.futures import Future
    from lambdamr.tracked import TrackedStage
    from lambdamr_runtime.store import Store

OVERLAP = 256
"""Bytes by which the end of what was seen is found again in the last tail."""


def look_s(store: "Store") -> float:
    """Return how often workers show the logs of running tasks, seconds."""
    return TOMBSTONE_S if local_path(store.root) is None else NEAR_LOOK_S


def _answer_s(store: "Store") -> float:
    """Return how long a worker may take to see that it is asked, and to answer."""
    asked_s = LOGS_WANTED_S if local_path(store.root) is None else 0.0
    return asked_s + 3 * look_s(store)


def ask(store: "Store", keys: JobKeys) -> None:
    """Have the workers of a job show the logs of running tasks from now on."""
    if not store.exists(keys.logs_wanted):
        store.put(keys.logs_wanted, b"")


def shown_logs(store: "Store", keys: JobKeys, stage: int) -> Iterator[tuple[int, LiveLog]]:
    """Yield what workers have shown of the tasks of a stage: (chunk, log)."""
    for entry in list(store.list(keys.live_logs(stage))):
        chunk = last_number(entry.key)
        found = _shown(store, keys, stage, chunk)
        if found is not None:
            yield chunk, found


def running_log(stage: "TrackedStage", task: int) -> bytes:
    """Return the tail of what a task that is not done has written; b"" where it does not run."""
    job, store = stage.job, stage.job.backend.store
    ask(store, job.keys)
    future, chunk = stage.futures[task], stage.run.plan.chunk_of(task)
    deadline = monotonic() + _answer_s(store)
    while not future.done() and monotonic() < deadline:
        found = _shown(store, job.keys, stage.run.index, chunk)
        if found is not None and found.task == task:
            return found.tail
        job.changed.wait_for(future.done, look_s(store) / 4)
    return b""


def follow(futures: "Sequence[Future]") -> "Iterator[tuple[Future, str]]":
    """Yield what tasks write, piece by piece as it comes, until all are done.

    What a task has written comes in order; where it writes more between two looks than a tail
    holds, the middle is left out.

    Yields:  (future, text).
    """
    seen = {future: Seen() for future in futures}
    left = list(seen)
    for job in {id(future.stage.job): future.stage.job for future in left}.values():
        ask(job.backend.store, job.keys)
    while left:
        for future, log in _news(left):
            text = seen[future].running(log)
            if text:
                yield future, text
        for future in [future for future in left if future.done()]:
            left.remove(future)
            text = seen[future].ended(future.log)
            if text:
                yield future, text
        if left:
            job = left[0].stage.job
            job.changed.wait_for(left[0].done, look_s(job.backend.store))


class Seen:
    """What was yielded of one task."""

    def __init__(self) -> None:
        self._size = 0
        self._number = -1
        self._end = b""

    def running(self, log: LiveLog) -> str:
        """Return the whole lines that are new in the tail of a running task."""
        if log.number != self._number or log.size < self._size:
            self._size = 0  # it runs again, in another process
        new = log.tail[-(log.size - self._size) :] if log.size > self._size else b""
        new = new[: new.rfind(b"\n") + 1]
        if new:
            line_end = log.tail.rfind(b"\n") + 1
            self._number, self._size = log.number, log.size - len(log.tail) + line_end
            self._end = log.tail[max(0, line_end - OVERLAP) : line_end]
        return _text(new)

    def ended(self, log: bytes) -> str:
        """Return what is new in the log of a task that is done."""
        at = log.rfind(self._end) if self._end else -1
        return _text(log[at + len(self._end) :] if at >= 0 else log)


def _news(futures: "Sequence[Future]") -> "Iterator[tuple[Future, LiveLog]]":
    """Yield the tails that workers show of those among *futures* that run."""
    wanted = set(futures)
    for stage in {id(future.stage): future.stage for future in futures}.values():
        job, index = stage.job, stage.run.index
        for chunk, found in shown_logs(job.backend.store, job.keys, index):
            if chunk in stage.missing and stage.futures[found.task] in wanted:
                yield stage.futures[found.task], found


def _shown(store: "Store", keys: JobKeys, stage: int, chunk: int) -> LiveLog | None:
    key = keys.live_log(stage, chunk)
    try:
        return LiveLog.decode(store.get(key), key)
    except FileNotFoundError:
        return None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
