"""Futures of tasks, and sequences of them.

A Future is a `concurrent.futures.Future`: the standard library's `wait` and `as_completed` work on
it, and its rules hold. Its job's tracker resolves it; the future itself asks nobody.
"""

import concurrent.futures
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import Future as _BaseFuture
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, overload

from lambdamr.packing import packed_data, packed_future
from lambdamr_runtime.errors import JobFailed

if TYPE_CHECKING:
    from lambdamr.tracking import TrackedStage

HELP_PAUSE_S = 0.05
"""How long a waiting task waits for others before it looks for a nested chunk to run."""


class TaskStats(NamedTuple):
    """How one task ran."""

    seconds: float
    """In the task itself, all tries together."""
    tries: int
    """Calls of the function that the result took; 0 for a task that never ran."""
    attempt: int
    """Executions of its chunk that died before this one."""
    started_s: float
    """Seconds since the epoch at which its chunk began."""
    peak_mb: float
    """Peak memory of the process so far, MiB."""
    worker: str


class Future(_BaseFuture[Any]):
    """The result of one task.

    `cancel()` succeeds unless the task has ended or is known to run; the result of a cancelled
    task never counts, even if a worker is too far to be stopped.
    """

    def __init__(self, stage: "TrackedStage", task: int) -> None:
        super().__init__()
        self._stage = stage
        if stage.helps:
            self._waiters = HelpingWaiters(stage)
        self.task = task
        self._stats: TaskStats | None = None
        self._log = b""
        self._frames: dict[str, Any] | None = None

    @property
    def job_id(self) -> str:
        return self._stage.job_id

    @property
    def stats(self) -> TaskStats | None:
        """How the task ran; None until it is done."""
        return self._stats

    @property
    def traceback(self) -> TracebackType | None:
        """The remote traceback of a failed task, for a debugger; None where there is none."""
        if self._frames is None:
            return None
        from lambdamr_runtime.serialize import revive_traceback

        return revive_traceback(self._frames)

    def logs(self) -> str:
        """Return the tail of what the task wrote to stdout and stderr; empty until it is done."""
        return self._log.decode("utf-8", "backslashreplace")

    def result(self, timeout: float | None = None) -> Any:
        """Return the task's value, or raise its exception.

        Raises:  TimeoutError: not done in time; the task goes on.
                 CancelledError: it was cancelled.
        """
        left = self._stage.help_until(self.done, timeout)
        return super().result(left)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the task's exception, None if it has a value; raises as `result` otherwise."""
        left = self._stage.help_until(self.done, timeout)
        return super().exception(left)

    def running(self) -> bool:
        """Whether the task has begun, as far as this client knows."""
        return super().running() or (not self.done() and self._stage.is_running())

    def cancel(self) -> bool:
        return self._stage.cancel(self)

    def cancel_here(self) -> bool:
        """Cancel at this client only: the tracker has seen to the rest."""
        return super().cancel()

    def remember_frames(self, frames: dict[str, Any] | None) -> None:
        """Keep the remote frames for `traceback`; called by the tracker alone."""
        self._frames = frames

    def settle(self, value: Any, error: BaseException | None, stats: TaskStats, log: bytes) -> None:
        """Resolve; called by the tracker alone, once."""
        self._stats = stats
        self._log = log
        if isinstance(error, CancelledError):
            self.cancel_here()
            self.set_running_or_notify_cancel()
        elif error is not None:
            self.set_exception(error)
        else:
            self.set_result(value)

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio  # only a program that awaits has it

        if self._stage.helps:
            yield from self._help_between_events().__await__()
        return (yield from asyncio.wrap_future(self).__await__())

    async def _help_between_events(self) -> None:
        """Inside a task: run nested chunks in the event loop's thread until this is done."""
        import asyncio  # only a program that awaits has it

        while not self.done():
            self._stage.help_until(self.done, HELP_PAUSE_S)
            await asyncio.sleep(0)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """As an argument of a task: its value. Elsewhere: the same future, attached again."""
        return packed_future(self) or (
            _attached,
            (self._stage.root, self.job_id, self._stage.run.index, self.task),
        )

    def __repr__(self) -> str:
        state = super().__repr__().partition("state=")[2].rstrip(">") or "unknown"
        return f"<lambdamr.Future job={self.job_id} task={self.task} {state}>"


class HelpingWaiters(list[Any]):
    """Who waits for a nested future by means of the standard library.

    `concurrent.futures.wait` and `as_completed` append a waiter to this list of the future and
    then wait for its event. With one worker that would be for ever: so that wait helps.
    """

    def __init__(self, stage: "TrackedStage") -> None:
        super().__init__()
        self._stage = stage

    def append(self, waiter: Any) -> None:
        if type(waiter.event) is threading.Event:
            waiter.event = _HelpingEvent(self._stage)
        super().append(waiter)


class _HelpingEvent(threading.Event):
    """An event whose wait runs nested chunks."""

    def __init__(self, stage: "TrackedStage") -> None:
        super().__init__()
        self._stage = stage

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(self._stage.help_until(self.is_set, timeout))


def _attached(root: str, job: str, stage: int, task: int) -> Future:
    from lambdamr.attaching import attach_stage

    return attach_stage(job, root, stage)[task]


class Progress(Protocol):
    """Waits for stages with bars; see lambdamr.progress.wait_with_bars."""

    def __call__(
        self, stages: Sequence["TrackedStage"], timeout: float | None, stop_on_error: bool
    ) -> None: ...


class Futures(Sequence[Future]):
    """Futures of one call of `map`, in input order.

    Args:  return_exceptions: `result` gives exceptions as values.
           progress: shows a bar while waiting; None: never.
    """

    def __init__(
        self,
        futures: Sequence[Future],
        return_exceptions: bool = False,
        progress: "Progress | None" = None,
    ) -> None:
        self._futures = list(futures)
        self._return_exceptions = return_exceptions
        self._progress = progress

    @property
    def job_id(self) -> str:
        """The id of the job; "" for no futures at all."""
        return self._futures[0].job_id if self._futures else ""

    def __len__(self) -> int:
        return len(self._futures)

    @overload
    def __getitem__(self, index: int) -> Future: ...
    @overload
    def __getitem__(self, index: slice) -> "Futures": ...
    def __getitem__(self, index: int | slice) -> "Future | Futures":
        if isinstance(index, slice):
            return Futures(self._futures[index], self._return_exceptions, self._progress)
        return self._futures[index]

    def __iter__(self) -> Iterator[Future]:
        return iter(self._futures)

    def result(self, timeout: float | None = None) -> list[Any]:
        """Return all values in input order.

        Raises:  the first exception, as soon as a task has failed (unless return_exceptions).
                 TimeoutError: not all are done in time; they go on.
        """
        self._wait(timeout, stop_on_error=not self._return_exceptions)
        if self._return_exceptions:
            return [_value_or_exception(future) for future in self._futures]
        failed = [f for f in self._futures if f.done() and _has_failed(f)]
        if failed:
            own = (f for f in failed if not isinstance(_exception(f), JobFailed))
            return [next(own, failed[0]).result()]
        return [future.result() for future in self._futures]

    def exceptions(self, timeout: float | None = None) -> list[BaseException | None]:
        """Return each task's exception, None for a value, once all are done."""
        self._wait(timeout, stop_on_error=False)
        return [_exception(future) for future in self._futures]

    def wait(
        self, timeout: float | None = None, return_when: str = concurrent.futures.ALL_COMPLETED
    ) -> "concurrent.futures._base.DoneAndNotDoneFutures[Any]":
        """Wait as `concurrent.futures.wait` does; a timeout is no error."""
        return wait(self._futures, timeout, return_when)

    def as_completed(self, timeout: float | None = None) -> Iterator[Future]:
        """Yield the futures as they end."""
        return as_completed(self._futures, timeout)

    def done(self) -> bool:
        return all(future.done() for future in self._futures)

    def cancel(self) -> int:
        """Cancel what has not ended; the job gets a tombstone that its workers see.

        Returns:  how many futures were cancelled.
        """
        stages = {id(future._stage): future._stage for future in self._futures}
        for stage in stages.values():
            if stage.is_covered_by(self._futures):
                stage.cancel_job()
        return sum(future.cancelled() or future.cancel() for future in self._futures)

    def stats(self) -> list[TaskStats | None]:
        """Return how each task ran; None for those not done."""
        return [future.stats for future in self._futures]

    def counts(self) -> dict[str, int]:
        """Return how many futures are done, failed, cancelled and pending."""
        counts = dict.fromkeys(("done", "failed", "cancelled", "pending"), 0)
        for future in self._futures:
            counts[_state(future)] += 1
        return counts

    def __repr__(self) -> str:
        shown = ", ".join(f"{n} {state}" for state, n in self.counts().items() if n)
        return f"<lambdamr.Futures job={self.job_id or 'none'} {len(self)} tasks: {shown}>"

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td>{state}</td><td style='text-align:right'>{n:,}</td></tr>"
            for state, n in self.counts().items()
        )
        return (
            f"<table><caption>lambdamr job {self.job_id or 'none'}, {len(self):,} tasks</caption>"
            f"{cells}</table>"
        )

    def _wait(self, timeout: float | None, stop_on_error: bool) -> None:
        wait_for(self._futures, timeout, stop_on_error, self._progress)
        if stop_on_error and any(f.done() and _has_failed(f) for f in self._futures):
            return
        missing = sum(not future.done() for future in self._futures)
        if missing:
            raise TimeoutError(
                f"{missing} of {len(self)} tasks of job {self.job_id} were not done within "
                f"{timeout} s; they go on."
            )


def wait_for(
    futures: Sequence[Future],
    timeout: float | None,
    stop_on_error: bool,
    progress: "Progress | None" = None,
) -> None:
    """Wait until all are done, one has failed (if *stop_on_error*) or the time is over."""
    stages = {id(future._stage): future._stage for future in futures}
    if len(stages) == 1:
        stage = futures[0]._stage
        if stage.is_covered_by(futures):
            if progress is not None:
                progress([stage], timeout, stop_on_error)
            else:
                stage.wait(timeout, stop_on_error)
            return
    when = concurrent.futures.FIRST_EXCEPTION if stop_on_error else None
    wait(futures, timeout, when or concurrent.futures.ALL_COMPLETED)


def wait(
    futures: Iterable[Future],
    timeout: float | None = None,
    return_when: str = concurrent.futures.ALL_COMPLETED,
) -> "concurrent.futures._base.DoneAndNotDoneFutures[Any]":
    """Wait for futures, as `concurrent.futures.wait`; inside a task it runs nested chunks too.

    Returns:  (done, not_done), two sets.
    """
    listed = list(futures)
    begun = monotonic()
    _help(listed, timeout, return_when)
    left = None if timeout is None else max(0.0, timeout - (monotonic() - begun))
    return concurrent.futures.wait(listed, left, return_when)


def as_completed(futures: Iterable[Future], timeout: float | None = None) -> Iterator[Future]:
    """Yield futures as they end, as `concurrent.futures.as_completed`.

    Raises:  TimeoutError: not all ended in time.
    """
    listed = list(futures)
    deadline = None if timeout is None else monotonic() + timeout
    if not any(future._stage.helps for future in listed):
        completed = concurrent.futures.as_completed(listed, timeout)
        yield from cast("Iterator[Future]", completed)
        return
    while listed:
        left = None if deadline is None else max(0.0, deadline - monotonic())
        done, _ = wait(listed, left, concurrent.futures.FIRST_COMPLETED)
        if not done:
            raise TimeoutError(f"{len(listed)} futures unfinished")
        yield from (future for future in listed if future in done)
        listed = [future for future in listed if future not in done]


def get_all_results(
    futures: "Futures | Iterable[Future]", timeout: float | None = None
) -> list[Any]:
    """Return the values of futures, in order (PyWren's name).

    Raises:  the first exception; TimeoutError.
    """
    listed = futures if isinstance(futures, Futures) else Futures(list(futures))
    return listed.result(timeout)


def _help(futures: Sequence[Future], timeout: float | None, return_when: str) -> None:
    """Run nested chunks in this task until what is waited for has come."""
    enough = any if return_when == concurrent.futures.FIRST_COMPLETED else all
    for stage in {id(future._stage): future._stage for future in futures}.values():
        timeout = stage.help_until(lambda: enough(future.done() for future in futures), timeout)


def _has_failed(future: Future) -> bool:
    return future.cancelled() or _BaseFuture.exception(future) is not None


def _exception(future: Future) -> BaseException | None:
    return CancelledError() if future.cancelled() else _BaseFuture.exception(future)


def _value_or_exception(future: Future) -> Any:
    error = _exception(future)
    return error if error is not None else _BaseFuture.result(future)


def _state(future: Future) -> str:
    if not future.done():
        return "pending"
    if future.cancelled():
        return "cancelled"
    return "failed" if _BaseFuture.exception(future) is not None else "done"


@dataclass(frozen=True, slots=True)
class Data:
    """A stored object that travels as a reference; tasks see the object itself.

    Made by `executor.put`.
    """

    key: str
    size: int
    """Bytes, as stored."""
    modules: frozenset[str] = field(default=frozenset(), repr=False)
    """Names of modules that the object needs: shipped with the functions that get it."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        from lambdamr_runtime.references import load_data

        packed_data(self.modules)
        return load_data, (self.key,)
