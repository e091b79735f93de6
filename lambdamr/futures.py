"""Futures of tasks, and sequences of them.

A Future is a `concurrent.futures.Future`: the standard library's `wait` and `as_completed` work on
it, and its rules hold. Its job's tracker resolves it; the future itself asks nobody.
"""

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, InvalidStateError
from concurrent.futures import Future as _BaseFuture
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast, overload

from lambdamr.packing import packed_data, packed_future
from lambdamr_runtime.errors import JobFailed

if TYPE_CHECKING:
    from lambdamr.tracked import TrackedStage

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

    # Without the future's lock where it has ended: a wait for many looks at each of them, and
    # Ctrl-C between the lock and its block would leave it locked, and the poller stuck.
    def done(self) -> bool:
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED)

    def cancelled(self) -> bool:
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def result(self, timeout: float | None = None) -> Any:
        """Return the task's value, or raise its exception.

        Raises:  TimeoutError: not done in time; the task goes on.
                 CancelledError: it was cancelled.
        """
        left = self._stage.help_until(self.done, timeout)
        if self._state == FINISHED and self._exception is None:
            return self._result
        return super().result(left)

    def take(self, timeout: float | None = None) -> Any:
        """Return the task's value and forget it, for the last one who wants it; raises as `result`.

        What a long iteration has yielded would stay in memory else.
        """
        value = self.result(timeout)
        with self._condition:
            self._result = None
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the task's exception, None if it has a value; raises as `result` otherwise."""
        left = self._stage.help_until(self.done, timeout)
        if self._state == FINISHED:
            return self._exception
        return super().exception(left)

    def running(self) -> bool:
        """Whether the task is known to run: of a job with more than one chunk nobody here knows
        which have begun, so it is False for them all.
        """
        return super().running() or (not self.done() and self._stage.is_running())

    def cancel(self) -> bool:
        return self._stage.cancel(self)

    def mark_cancelled(self) -> bool:
        """Cancel at this client only; called by the tracker, which sees to the rest.

        Unlike the standard library's `cancel`, of several callers one is the one, those that wait
        are told at once, and callbacks are left to `call_back`: the tracker counts before them.

        Returns:  False where it has ended already.
        """
        with self._condition:
            if self.done():
                return False
            self._state = CANCELLED
            self.set_running_or_notify_cancel()
            self._condition.notify_all()
            return True

    def call_back(self) -> None:
        """Call the callbacks, after `mark_cancelled`."""
        self._invoke_callbacks()  # type: ignore[attr-defined]  # typeshed leaves it out

    def remember_frames(self, frames: dict[str, Any] | None) -> None:
        """Keep the remote frames for `traceback`; called by the tracker alone."""
        self._frames = frames

    def settle(self, value: Any, error: BaseException | None, stats: TaskStats, log: bytes) -> None:
        """Resolve; called by the tracker alone.

        Raises:  InvalidStateError: it has ended already.
        """
        self._stats = stats
        self._log = log
        if error is not None:
            self.fail(error)
        else:
            self.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Resolve with an error, CancelledError included; raises as `settle`."""
        if not isinstance(error, CancelledError):
            self.set_exception(error)
        elif self.mark_cancelled():
            self.call_back()
        else:
            raise InvalidStateError(f"{self!r} has ended")

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
        if state == "pending" and self.running():
            state = "running"
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
        return self._values()

    def _values(self) -> list[Any]:
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

    def __await__(self) -> Generator[Any, None, list[Any]]:
        """`await futures` is what `result()` returns or raises, without blocking the event loop.

        Cancelling the await cancels no task, as one that awaits need not be the only one.
        """
        return self._awaited().__await__()

    async def _awaited(self) -> list[Any]:
        import asyncio  # only a program that awaits has it

        stop_on_error = not self._return_exceptions
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        left = len(self)
        lock = threading.Lock()

        def one_is_done(future: _BaseFuture[Any]) -> None:
            nonlocal left
            with lock:
                left -= 1
                is_last = left == 0
            if is_last or (stop_on_error and _has_failed(future)):
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody awaits
                    loop.call_soon_threadsafe(over.set)

        for future in self._futures:
            future.add_done_callback(one_is_done)
        while not self._is_over(stop_on_error):
            if not self._help_once(stop_on_error):
                await over.wait()
            await asyncio.sleep(0)
        return self._values()

    def _help_once(self, stop_on_error: bool) -> bool:
        """Inside a task: run nested chunks for a moment; False where there are none to run."""
        stage = next((future._stage for future in self._futures if future._stage.helps), None)
        if stage is not None:
            stage.help_until(lambda: self._is_over(stop_on_error), HELP_PAUSE_S)
        return stage is not None

    def stats(self) -> list[TaskStats | None]:
        """Return how each task ran; None for those not done."""
        return [future.stats for future in self._futures]

    def counts(self) -> dict[str, int]:
        """Return how many futures are done, failed, cancelled and pending (or running)."""
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
        deadline = None if timeout is None else monotonic() + timeout
        while not self._is_over(stop_on_error):
            left = None if deadline is None else max(0.0, deadline - monotonic())
            wait_for(self._futures, left, stop_on_error, self._progress)
            if deadline is None or monotonic() < deadline or self._is_over(stop_on_error):
                continue
            missing = sum(not future.done() for future in self._futures)
            raise TimeoutError(
                f"{missing} of {len(self)} tasks of job {self.job_id} were not done within "
                f"{timeout} s; they go on."
            )

    def _is_over(self, stop_on_error: bool) -> bool:
        """Whether all are done, or one has failed (if *stop_on_error*)."""
        undone = False
        for future in self._futures:
            if not future.done():
                undone = True
                if not stop_on_error:
                    return False
            elif stop_on_error and _has_failed(future):
                return True
        return not undone


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
    Raises:   TypeError: something is no future of lambdamr.
    """
    listed = _listed(futures)
    begun = monotonic()
    _help(listed, timeout, return_when)
    left = None if timeout is None else max(0.0, timeout - (monotonic() - begun))
    return concurrent.futures.wait(listed, left, return_when)


def as_completed(futures: Iterable[Future], timeout: float | None = None) -> Iterator[Future]:
    """Yield futures as they end, as `concurrent.futures.as_completed`.

    Raises:  TypeError: something is no future of lambdamr. TimeoutError: not all ended in time.
    """
    return _as_completed(_listed(futures), timeout)


def _as_completed(listed: list[Future], timeout: float | None) -> Iterator[Future]:
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

    Raises:  the first exception; TimeoutError; TypeError: something is no future of lambdamr.
    """
    listed = futures if isinstance(futures, Futures) else Futures(_listed(futures))
    return listed.result(timeout)


def _listed(futures: Iterable[Future]) -> list[Future]:
    """Return what was given to wait for as a list.

    Raises:  TypeError: it holds something else than our futures.
    """
    if isinstance(futures, Future) or not isinstance(futures, Iterable):
        raise TypeError(f"Expected an iterable of lambdamr futures, got {_shown(futures)}.")
    listed = list(futures)
    for each in listed:
        if not isinstance(each, Future):
            raise TypeError(f"Expected lambdamr futures, got {_shown(each)}.")
    return listed


def _shown(given: object) -> str:
    """Return what was given in place of futures, and what to do about it."""
    shown = repr(given)
    text = f"{shown[:80]}{'…' if len(shown) > 80 else ''} ({type(given).__name__})"
    if isinstance(given, Future):
        return f"{text}: put it in a list"
    if isinstance(given, Futures):
        return f"{text}: join several as [*first, *second]"
    if isinstance(given, _BaseFuture):
        return f"{text}: wait for futures of others with concurrent.futures"
    return f"{text}: futures are what submit and map return"


def _help(futures: Sequence[Future], timeout: float | None, return_when: str) -> None:
    """Run nested chunks in this task until what is waited for has come."""

    def is_over() -> bool:
        done = [future for future in futures if future.done()]
        if return_when == concurrent.futures.FIRST_COMPLETED and done:
            return True
        if return_when == concurrent.futures.FIRST_EXCEPTION:
            return len(done) == len(futures) or any(map(_has_raised, done))
        return len(done) == len(futures)

    for stage in {id(future._stage): future._stage for future in futures}.values():
        timeout = stage.help_until(is_over, timeout)


def _has_failed(future: _BaseFuture[Any]) -> bool:
    return future.cancelled() or future.exception() is not None


def _has_raised(future: Future) -> bool:
    return not future.cancelled() and future.exception() is not None


def _exception(future: Future) -> BaseException | None:
    return CancelledError() if future.cancelled() else future.exception()


def _value_or_exception(future: Future) -> Any:
    error = _exception(future)
    return error if error is not None else future.result()


def _state(future: Future) -> str:
    if not future.done():
        return "pending"
    if future.cancelled():
        return "cancelled"
    return "failed" if future.exception() is not None else "done"


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
