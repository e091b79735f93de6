"""A map_reduce job: planned, followed, and its result."""

from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import CancelledError
from functools import partial
from itertools import chain, islice
from time import monotonic
from typing import TYPE_CHECKING, Any

from lambdamr.futures import Futures, Progress
from lambdamr.reports import JobReport, report_of
from lambdamr.waiting import as_completed
from lambdamr_runtime.errors import (
    CorruptObject,
    DuplicateKey,
    JobFailed,
    JobNotFound,
    JobTimeout,
    ReceiptMismatch,
)
from lambdamr_runtime.wire import StageKind

if TYPE_CHECKING:
    import os

    from pandas import DataFrame

    from lambdamr.failures import Failure
    from lambdamr.planning.cost import Cost
    from lambdamr.plots import Plot
    from lambdamr.tracked import TrackedJob
    from lambdamr_runtime.barrier import Report
    from lambdamr_runtime.mapreduce import Mapped, Reduced
    from lambdamr_runtime.outputs import Placed


class Job:
    """A running or ended map_reduce."""

    def __init__(self, tracked: "TrackedJob", progress: Progress | None) -> None:
        self._job = tracked
        self._progress = progress
        self.map_futures = Futures(tracked.stages[0].futures, progress=progress)
        """One future per map task; its value tells what the task wrote."""
        final = tracked.stages[-1].run.stage.kind is StageKind.FINAL
        self._final = tracked.stages[-1] if final else None
        writing = tracked.stages[-2 if final else -1]
        self.reduce_futures = Futures(writing.futures, progress=progress)
        """One future per partition; its value names the output part. Without a reducer these are
        the map tasks, each of which writes a part."""

    @property
    def job_id(self) -> str:
        return self._job.manifest.job

    @property
    def _may_fail(self) -> bool:
        """Whether the job may be done though map tasks have failed."""
        return bool(self._job.manifest.stages[0].max_failures)

    def done(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self._job.is_over

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of the job; whether it has come."""
        deadline = None if timeout is None else monotonic() + timeout
        if self._progress is not None:
            self._progress(self._job.stages, timeout, stop_on_error=not self._may_fail)
        is_over = self._job.wait(None if deadline is None else max(0.0, deadline - monotonic()))
        if is_over and self._final is not None and self._state() != "done":
            from lambdamr_runtime.outputs import withdraw

            withdraw(self._job.backend.store, self._job.keys)
        return is_over

    def result(self, timeout: float | None = None) -> dict[Any, Any]:
        """Return the output as a dict.

        With max_failures= the result is that of the map tasks which passed.

        Raises:  what made the job fail: the exception of a task, ReceiptMismatch, JobTimeout or
                 another JobFailed.
                 CancelledError. TimeoutError: not done in time; the job goes on.
                 DuplicateKey: a reducer yielded a key twice.
        """
        result: dict[Any, Any] = {}
        count = 0
        for pairs in self._blocks(timeout):
            result.update(pairs)
            count += len(pairs)
            if len(result) < count:
                raise DuplicateKey(
                    f"Job {self.job_id} has the key {self._first_repeated()!r} twice, so a dict "
                    "cannot hold its result. Read it with job.items()."
                )
        return result

    def _first_repeated(self) -> Any:
        """Return the first key of the output that is there a second time."""
        seen: set[Any] = set()
        for key, _ in self.items():
            if key in seen:
                return key
            seen.add(key)
        raise AssertionError("the caller has counted one")

    def items(self, timeout: float | None = None) -> Iterator[tuple[Any, Any]]:
        """Yield the output pairs, partition by partition, sorted by key in each; raises as
        `result`, at the first pair.
        """
        for pairs in self._blocks(timeout):
            yield from pairs

    def _blocks(self, timeout: float | None) -> Iterator[list[tuple[Any, Any]]]:
        """Yield the output pairs, some at a time."""
        for part in self._parts(timeout):
            yield from self._blocks_of(part)

    def _blocks_of(self, part: "Reduced | Mapped") -> Iterator[list[tuple[Any, Any]]]:
        from lambdamr_runtime.parts import part_blocks

        store = self._job.backend.store
        read = partial(store.get_range, part.part)
        try:
            yield from part_blocks(read, part.blocks, part.part)
        except FileNotFoundError as error:
            if not store.exists(self._job.keys.manifest):
                raise JobNotFound(
                    f"Job {self.job_id} was deleted, and its result with it. Run it again."
                ) from error
            raise CorruptObject(
                f"{part.part}, an output part of job {self.job_id}, is missing. Somebody deleted "
                "it; run the job again."
            ) from error

    def as_completed(
        self, timeout: float | None = None
    ) -> Iterator[tuple[int, Iterator[tuple[Any, Any]]]]:
        """Yield (partition, its pairs) as the reduce tasks end, in whatever order.

        What comes early is not the result yet: that the receipts of the whole job balance is known
        behind the last partition, where a job that failed raises as `result` does.

        Raises:  TimeoutError: not done in time; the job goes on.
        """
        deadline = None if timeout is None else monotonic() + timeout
        for future in as_completed(self.reduce_futures, timeout):
            if future.cancelled() or future.exception() is not None:
                if self._may_fail:
                    continue
                break
            part = future.result()
            yield future.task, chain.from_iterable(self._blocks_of(part))
        self._parts(None if deadline is None else max(0.0, deadline - monotonic()))

    def to_pandas(self, timeout: float | None = None) -> "DataFrame":
        """Return the output as a DataFrame with the columns "key" and "value"; raises as `result`.

        Raises:  ImportError: pandas is not installed.
        """
        try:
            from pandas import DataFrame  # an extra; half a second
        except ImportError as error:
            raise ImportError(
                "to_pandas() needs pandas, which is not installed. "
                "Run: pip install 'lambdamr[pandas]'"
            ) from error
        return DataFrame(list(self.items(timeout)), columns=["key", "value"])

    def head(self, n: int = 5) -> list[tuple[Any, Any]]:
        """Return the first pairs of the output; raises as `result`."""
        return list(islice(self.items(), n))

    @property
    def outputs(self) -> list[str]:
        """URIs of the objects under output=, or without it of the parts in the job's folder, one
        per partition; raises as `result`.
        """
        if self._final is not None:
            self._parts(None)
            placed: Placed = self._final.futures[0].result()
            return list(placed.uris)
        return [f"{self._job.backend.store.root}/{part.part}" for part in self._parts(None)]

    def report(self) -> JobReport:
        """Wait for the end of the job, and return what it did. A failed job has a report too."""
        self.wait()
        return report_of(self._job.stages)

    def plot(
        self,
        kind: str = "timeline",
        path: "str | os.PathLike[str] | None" = None,
        *,
        on: str | None = None,
    ) -> "Plot":
        """Wait for the end of the job, and draw where its time or money went.

        Args:    kind: "timeline", what each lane did and waited for; "histogram", how long the
                 tasks took; "cost", what each component cost.
                 path: also write the figure there; the suffix (.png, .svg, .pdf) says how.
                 on: "aws": what it would have cost there.
        Returns:  a matplotlib figure, which notebooks show.
        Raises:  ImportError: matplotlib is not installed (lambdamr[plots]).
                 ValueError: an unknown kind, or nothing to draw.
        """
        from lambdamr.plots import plot  # an extra, and half a second

        self.wait()
        return plot(self._job.stages, kind, path, on)

    def __await__(self) -> Generator[Any, None, dict[Any, Any]]:
        """`await job` is what `result()` returns or raises, without blocking the event loop.

        Cancelling the await does not cancel the job: others may wait for it. `cancel()` does.
        """
        return self._awaited().__await__()

    async def _awaited(self) -> dict[Any, Any]:
        import asyncio  # only a program that awaits has it

        from lambdamr.asynchronous import job_over, shown

        async with shown(self._job, self._progress):
            await job_over(self._job)
        if self._state() == "cancelled":  # asyncio would take it for the end of who awaits
            await asyncio.to_thread(self.wait)
            raise CancelledError
        return await asyncio.to_thread(self.result)  # the output is read from the store

    def cost(
        self,
        *,
        on: str | None = None,
        region: str | None = None,
        prices: Mapping[str, float] | None = None,
    ) -> "Cost":
        """Return what the job has cost so far, by component and stage; options as of `plan`."""
        from lambdamr.planning.cost import cost_of

        return cost_of(self._job, (on, region, prices))

    def failures(self, timeout: float | None = None) -> "list[Failure]":
        """Wait for the end of the job, and return which tasks failed: task, input, exception, log.

        Raises:  TimeoutError: not done in time; the job goes on.
        """
        from lambdamr.failures import failures_of

        self._wait_for_end(timeout)
        return failures_of(future for stage in self._job.stages for future in stage.futures)

    def retry_failed(self, timeout: float | None = None) -> "Job":
        """Run the job again, as a new one, with the same functions and inputs: map tasks that had
        a result are taken over, not run again.

        Returns:  the new job, whose result is that of all tasks; this one where nothing failed.
        Raises:   TimeoutError: not done in time. RuntimeError: after shutdown; then
                  `lambdamr.attach(job_id).retry_failed()`. ValueError: its output is placed.
        """
        from lambdamr.retrying import retry_job

        self._wait_for_end(timeout)
        if self._state() == "done" and not self.failures():
            return self
        return Job(retry_job(self._job), self._progress)

    def delete(self, *, force: bool = False) -> None:
        """Remove all that is stored of the job, but nothing under output=.

        Args:    force: cancel it, if it runs. Raises:  JobRunning: it runs, and no *force*.
        """
        from lambdamr.deleting import delete_tracked

        delete_tracked(self._job, force)

    def cancel(self) -> bool:
        """Cancel the job; False if it has ended already."""
        if self._job.is_over:
            return False
        self._job.poller.cancel_job(self._job)
        return True

    def __repr__(self) -> str:
        stages = ", ".join(
            f"{stage.run.stage.name} {stage.resolved}/{len(stage.futures)}"
            for stage in self._job.stages
        )
        return f"<lambdamr.Job {self.job_id} {self._state()}: {stages}>"

    def _repr_html_(self) -> str:
        from lambdamr.views import job_view, view_html  # only a notebook asks for it

        return view_html(job_view(self._job))

    def _ipython_display_(self) -> None:
        """Show the job where it can be updated in place; elsewhere IPython takes the HTML."""
        from lambdamr.notebook import is_kernel, show

        if not is_kernel():
            raise NotImplementedError
        show(self._job)

    def _state(self) -> str:
        return self._job.end.status if self._job.end is not None else "running"

    def _parts(self, timeout: float | None) -> "list[Reduced | Mapped]":
        self._wait_for_end(timeout)
        end = self._job.end
        if end is not None and end.status == "cancelled":
            raise CancelledError
        if end is not None and end.status != "done":
            self._raise_failure(end)
        has_value = (each for each in self.reduce_futures if each.exception() is None)
        return [future.result() for future in has_value]

    def _wait_for_end(self, timeout: float | None) -> None:
        if not self.wait(timeout):
            raise TimeoutError(f"Job {self.job_id} was not done within {timeout} s; it goes on.")

    def _raise_failure(self, end: "Report") -> None:
        """Raise what a task raised, or else why the job failed."""
        from lambdamr_runtime.barrier import EndKind

        if end.kind is EndKind.RECEIPTS:
            raise ReceiptMismatch(f"Job {self.job_id} failed. {end.reason}")
        if end.kind is EndKind.TIMEOUT:
            raise JobTimeout(f"Job {self.job_id} failed. {end.reason}")
        errors = [
            future.exception()
            for stage in self._job.stages
            for future in stage.futures
            if not future.cancelled()
        ]
        named = [error for error in errors if error is not None]
        causes = [error for error in named if not isinstance(error, JobFailed)]
        raise (causes or named or [JobFailed(f"Job {self.job_id} failed. {end.reason}")])[0]
