"""Futures of tasks, and sequences of them.

A Future is a `concurrent.futures.Future`: the standard library's `wait` and `as_completed` work on
it, and its rules hold. Its job's tracker resolves it; the future itself asks nobody.
"""

import concurrent.futures
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, InvalidStateError
from concurrent.futures import Future as _BaseFuture
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, overload

from lambdamr.helping import HelpingWaiters
from lambdamr.packing import packed_future
from lambdamr.stats import TaskStats
from lambdamr.stragglers import SLOW_MULTIPLE, Straggler, find_stragglers
from lambdamr_runtime.errors import JobFailed

if TYPE_CHECKING:
    import os

    from lambdamr.failures import Failure
    from lambdamr.planning.cost import Cost
    from lambdamr.plots import Plot
    from lambdamr.reports import JobReport
    from lambdamr.tracked import TrackedStage

HELP_PAUSE_S = 0.05
"""How long a waiting task waits for others before it looks for a nested chunk to run."""


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
    def stage(self) -> "TrackedStage":
        """What the future belongs to, for the library's own use."""
        return self._stage

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

    @property
    def log(self) -> bytes:
        """The bytes behind `logs()` of a task that is done, for the library's own use."""
        return self._log

    def logs(self) -> str:
        """Return the tail of what the task wrote to stdout and stderr, its logging included.

        Of a running task: what it has written so far. Its worker is asked for that, which takes up
        to half a second, and on AWS up to 16 s the first time; empty of a task that does not run.
        """
        if not self.done():
            from lambdamr.logs import running_log  # only a task that runs needs it

            tail = running_log(self._stage, self.task)
            if not self.done():
                return tail.decode("utf-8", "backslashreplace")
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
        """Cancel the task; whether it is: False where it has ended, or is known to run."""
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

    @property
    def stages(self) -> "list[TrackedStage]":
        """What the futures belong to, for the library's own use."""
        return list({id(future.stage): future.stage for future in self._futures}.values())

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
        failed = [f for f in self._futures if f.done() and has_failed(f)]
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
        from lambdamr.waiting import wait

        return wait(self._futures, timeout, return_when)

    def as_completed(self, timeout: float | None = None) -> Iterator[Future]:
        """Yield the futures as they end."""
        from lambdamr.waiting import as_completed

        return as_completed(self._futures, timeout)

    def done(self) -> bool:
        return all(future.done() for future in self._futures)

    def cancel(self) -> int:
        """Cancel what has not ended; the job gets a tombstone that its workers see.

        Returns:  how many futures were cancelled.
        """
        for stage in self.stages:
            if stage.is_covered_by(self._futures):
                stage.cancel_job()
        return sum(future.cancelled() or future.cancel() for future in self._futures)

    def __await__(self) -> Generator[Any, None, list[Any]]:
        """`await futures` is what `result()` returns or raises, without blocking the event loop.

        Cancelling the await cancels no task, as one that awaits need not be the only one.
        """
        return self._awaited().__await__()

    async def _awaited(self) -> list[Any]:
        from lambdamr.asynchronous import all_done  # only a program that awaits has asyncio

        await all_done(self._futures, not self._return_exceptions, self._progress)
        return self._values()

    def failures(self, timeout: float | None = None) -> "list[Failure]":
        """Return what failed, once all are done: task, input, exception and log of each.

        Raises:  TimeoutError: not all are done in time; they go on.
        """
        from lambdamr.failures import failures_of

        self._wait(timeout, stop_on_error=False)
        return failures_of(self._futures)

    def retry_failed(self, timeout: float | None = None) -> "Futures":
        """Run again, as a new job, the tasks that ended without a value: those that failed, were
        cancelled or not run. The function and the arguments are those that were stored.

        Returns:  futures of all tasks, in input order: the new ones in the place of the failed.
        Raises:   TimeoutError: not all are done in time. RuntimeError: after shutdown; then
                  `lambdamr.attach(job_id).retry_failed()`. ValueError: tasks of a reduction.
        """
        from lambdamr.retrying import retry_calls

        self._wait(timeout, stop_on_error=False)
        places: dict[int, list[int]] = {}
        for place, future in enumerate(self._futures):
            if has_failed(future):
                places.setdefault(id(future._stage), []).append(place)
        futures = list(self._futures)
        for failed in places.values():
            tasks = [futures[place].task for place in failed]
            again = retry_calls(futures[failed[0]]._stage, tasks)
            for place, future in zip(failed, again, strict=True):
                futures[place] = future
        return Futures(futures, self._return_exceptions, self._progress)

    def stragglers(self, multiple: float = SLOW_MULTIPLE) -> "list[Straggler]":
        """Return the tasks, of those done, that took more than a multiple of the median (and at
        least a second more), the slowest first.
        """
        return find_stragglers(self.stats(), multiple)

    def delete(self, *, force: bool = False) -> None:
        """Remove all that is stored of their jobs; values that are here stay.

        Args:    force: cancel what runs. Raises:  JobRunning: something runs, and no *force*.
        """
        from lambdamr.deleting import delete_tracked

        for job in {id(stage.job): stage.job for stage in self.stages}.values():
            delete_tracked(job, force)

    def stats(self) -> list[TaskStats | None]:
        """Return how each task ran; None for those not done."""
        return [future.stats for future in self._futures]

    def report(self) -> "JobReport":
        """Wait for the end of all tasks, and return how they ran."""
        from lambdamr.reports import report_of  # few calls are asked for one

        self._wait(None, stop_on_error=False)
        return report_of(self.stages)

    def plot(
        self,
        kind: str = "timeline",
        path: "str | os.PathLike[str] | None" = None,
        *,
        on: str | None = None,
    ) -> "Plot":
        """Wait for the end of all tasks, and draw how they ran; as Job.plot."""
        from lambdamr.plots import plot  # an extra, and half a second

        self._wait(None, stop_on_error=False)
        return plot(self.stages, kind, path, on)

    def cost(
        self,
        *,
        on: str | None = None,
        region: str | None = None,
        prices: Mapping[str, float] | None = None,
    ) -> "Cost":
        """Return what the job has cost so far, by component; options as of `Executor.plan`.

        Raises:  ValueError: no futures at all, an unknown place, region or price.
        """
        from lambdamr.planning.cost import cost_of

        if not self._futures:
            raise ValueError("There are no futures, so there is no job that could cost anything.")
        return cost_of(self._futures[0].stage.job, (on, region, prices))

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
        from lambdamr.views import futures_view, view_html  # only a notebook asks for it

        return view_html(futures_view(self))

    def _ipython_display_(self) -> None:
        """Show all futures of a job where they can be updated in place; else IPython takes the
        HTML.
        """
        from lambdamr.notebook import is_kernel, show

        stages = self.stages
        if len(stages) != 1 or not stages[0].is_covered_by(self) or not is_kernel():
            raise NotImplementedError
        show(stages[0].job)

    def _wait(self, timeout: float | None, stop_on_error: bool) -> None:
        from lambdamr.waiting import wait_for

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
            elif stop_on_error and has_failed(future):
                return True
        return not undone


def has_failed(future: _BaseFuture[Any]) -> bool:
    """Whether a future that is done has an exception, or was cancelled."""
    return future.cancelled() or future.exception() is not None


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
