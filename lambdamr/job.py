"""A map_reduce job: planned, followed, and its result."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any

from lambdamr.futures import Futures, Progress
from lambdamr.submission import StageDraft
from lambdamr_runtime.errors import CorruptObject, DuplicateKey, JobFailed, ReceiptMismatch
from lambdamr_runtime.wire import StageKind

if TYPE_CHECKING:
    from lambdamr.backend import Backend
    from lambdamr.tracking import TrackedJob
    from lambdamr_runtime.barrier import Report, Totals
    from lambdamr_runtime.mapreduce import Reduced

ITEM_TASKS_PER_LANE = 4
"""Map tasks per lane over the items of an iterable."""


def map_reduce_drafts(
    mappers: tuple[Callable[[Any], Any], ...],
    inputs: object,
    reducer: Callable[[Any, Any], Any],
    backend: "Backend",
    *,
    partitions: int,
    retries: int,
    retry_on: tuple[type[BaseException], ...],
    timeout_s: float | None,
) -> list[StageDraft]:
    """Plan the two stages of a map_reduce.

    Raises:  InvalidInput: an input cannot be used. TypeError: a function cannot be called.
    """
    from lambdamr.inputs import Input, as_input
    from lambdamr_runtime.mapreduce import Map, Reduce

    for fn in (*mappers, reducer):
        if not callable(fn):
            raise TypeError(f"mapper and reducer must be callable, got {fn!r}")
    source = as_input(inputs)
    if isinstance(source, Input):
        args: list[list[Any]] = [*source.tasks(backend.workers, backend.memory_mb)]
        reader = source.reader
        input_bytes = sum(split.hi - split.lo for splits in args for split in splits)
    else:
        args, reader, input_bytes = _item_tasks(source, backend.workers), None, 0
    limits = {"timeout_s": timeout_s, "retries": retries, "max_failures": 0}
    return [
        StageDraft(
            "map",
            StageKind.MAP,
            Map(mappers, reader, retry_on),
            len(args),
            1,
            args,
            partitions=partitions,
            input_bytes=input_bytes,
            **limits,  # type: ignore[arg-type]  # a dict of mixed numbers
        ),
        StageDraft(
            "reduce",
            StageKind.REDUCE,
            Reduce(reducer, retry_on),
            partitions if args else 0,
            1,
            **limits,  # type: ignore[arg-type]  # a dict of mixed numbers
        ),
    ]


def _item_tasks(items: Sequence[Any], lanes: int) -> list[list[Any]]:
    size = max(1, -(-len(items) // (lanes * ITEM_TASKS_PER_LANE)))
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


@dataclass(frozen=True, slots=True, repr=False)
class JobReport:
    """What a job did; shown as text for reading."""

    job_id: str
    status: str
    reason: str
    seconds: float
    """From submission to the end."""
    stages: "dict[str, Totals]"
    """Totals by stage name."""

    def __repr__(self) -> str:
        lines = [f"job {self.job_id}: {self.status} in {self.seconds:.2f} s"]
        if self.reason:
            lines.append(f"  {self.reason}")
        for name, totals in self.stages.items():
            lines.append(f"  {name:<8}{totals.tasks:>8,} tasks {totals.task_seconds:>10.2f} s")
            lines += [f"    {text}" for text in _counts(totals)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape  # only a notebook asks for it

        return f"<pre>{escape(repr(self))}</pre>"


def _counts(totals: "Totals") -> Iterator[str]:
    if totals.records or totals.emitted or totals.bad_records:
        yield f"read {totals.bytes_read:,} bytes, {totals.records:,} records"
        if totals.bad_records:
            yield f"skipped {totals.bad_records:,} bad records"
        yield f"emitted {totals.emitted:,} pairs, wrote {totals.pairs_written:,}"
    if totals.pairs_read:
        yield f"read {totals.pairs_read:,} pairs of {totals.keys:,} keys"
        yield f"wrote {totals.output_pairs:,} pairs, {totals.output_bytes:,} bytes"
    if totals.failed:
        yield f"{totals.failed:,} failed"


class Job:
    """A running or ended map_reduce."""

    def __init__(self, tracked: "TrackedJob", progress: Progress | None) -> None:
        self._job = tracked
        self._progress = progress
        self.map_futures = Futures(tracked.stages[0].futures, progress=progress)
        """One future per map task; its value tells what the task wrote."""
        self.reduce_futures = Futures(tracked.stages[-1].futures, progress=progress)
        """One future per partition; its value names the output part."""

    @property
    def job_id(self) -> str:
        return self._job.manifest.job

    def done(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self._job.is_over

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of the job; whether it has come."""
        if self._progress is None:
            return self._job.wait(timeout)
        deadline = None if timeout is None else monotonic() + timeout
        self._progress(self._job.stages, timeout, stop_on_error=True)
        return self._job.wait(None if deadline is None else max(0.0, deadline - monotonic()))

    def result(self, timeout: float | None = None) -> dict[Any, Any]:
        """Return the output as a dict.

        Raises:  what made the job fail: the exception of a task, ReceiptMismatch or JobFailed.
                 CancelledError. TimeoutError: not done in time; the job goes on.
                 DuplicateKey: a reducer yielded a key twice.
        """
        result: dict[Any, Any] = {}
        for count, (key, value) in enumerate(self.items(timeout), 1):
            result[key] = value
            if len(result) < count:
                raise DuplicateKey(
                    f"Job {self.job_id} has the key {key!r} twice, so a dict cannot hold its "
                    "result. Read it with job.items()."
                )
        return result

    def items(self, timeout: float | None = None) -> Iterator[tuple[Any, Any]]:
        """Yield the output pairs, partition by partition, sorted by key in each; raises as
        `result`, at the first pair.
        """
        from zlib import crc32

        from lambdamr_runtime.mapreduce import read_part

        for part in self._parts(timeout):
            data = self._read(part.part)
            if len(data) != part.size or crc32(data) != part.checksum:
                raise CorruptObject(
                    f"{part.part} is damaged: {len(data)} bytes with checksum {crc32(data)}, "
                    f"written were {part.size} with {part.checksum}."
                )
            yield from read_part(data, part.part)

    def head(self, n: int = 5) -> list[tuple[Any, Any]]:
        """Return the first pairs of the output; raises as `result`."""
        return list(islice(self.items(), n))

    @property
    def outputs(self) -> list[str]:
        """URIs of the output parts, one per partition; raises as `result`."""
        return [f"{self._job.backend.store.root}/{part.part}" for part in self._parts(None)]

    def report(self) -> JobReport:
        """Wait for the end of the job, and return what it did. A failed job has a report too."""
        self.wait()
        end = self._job.end
        assert end is not None  # noqa: S101 - a job of several stages is over with its end
        names = [stage.name for stage in self._job.manifest.stages]
        return JobReport(
            self.job_id,
            end.status,
            end.reason,
            max(0.0, end.ended_s - self._job.manifest.created_s),
            dict(zip(names, end.stages, strict=False)),
        )

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
        rows = "".join(
            f"<tr><td>{stage.run.stage.name}</td><td style='text-align:right'>"
            f"{stage.resolved:,} / {len(stage.futures):,}</td></tr>"
            for stage in self._job.stages
        )
        return (
            f"<table><caption>lambdamr job {self.job_id}, {self._state()}</caption>{rows}</table>"
        )

    def _state(self) -> str:
        return self._job.end.status if self._job.end is not None else "running"

    def _read(self, part: str) -> bytes:
        try:
            return self._job.backend.store.get(part)
        except FileNotFoundError as error:
            raise CorruptObject(
                f"{part}, an output part of job {self.job_id}, is missing. Somebody deleted it; "
                "run the job again."
            ) from error

    def _parts(self, timeout: float | None) -> "list[Reduced]":
        if not self.wait(timeout):
            raise TimeoutError(f"Job {self.job_id} was not done within {timeout} s; it goes on.")
        end = self._job.end
        if end is not None and end.status == "cancelled":
            raise CancelledError
        if end is not None and end.status != "done":
            self._raise_failure(end)
        return [future.result() for future in self.reduce_futures]

    def _raise_failure(self, end: "Report") -> None:
        """Raise what a task raised, or else why the job failed."""
        from lambdamr_runtime.barrier import EndKind

        if end.kind is EndKind.RECEIPTS:
            raise ReceiptMismatch(f"Job {self.job_id} failed. {end.reason}")
        errors = [
            future.exception()
            for stage in self._job.stages
            for future in stage.futures
            if not future.cancelled()
        ]
        named = [error for error in errors if error is not None]
        causes = [error for error in named if not isinstance(error, JobFailed)]
        raise (causes or named or [JobFailed(f"Job {self.job_id} failed. {end.reason}")])[0]
