"""A map_reduce job: planned, followed, and its result."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from time import monotonic
from typing import TYPE_CHECKING, Any

from lambdamr.backend import Backend, RemoteBackend
from lambdamr.futures import Futures, Progress, as_completed
from lambdamr.submission import StageDraft
from lambdamr_runtime.errors import CorruptObject, DuplicateKey, JobFailed, ReceiptMismatch
from lambdamr_runtime.stopwatch import PHASES
from lambdamr_runtime.wire import StageKind

if TYPE_CHECKING:
    from pandas import DataFrame

    from lambdamr.output import Output
    from lambdamr.tracked import TrackedJob
    from lambdamr_runtime.barrier import Report, Totals
    from lambdamr_runtime.mapreduce import Mapped, Reduced
    from lambdamr_runtime.outputs import Placed
    from lambdamr_runtime.records import Reader
    from lambdamr_runtime.reducers import Reducer
    from lambdamr_runtime.splits import Split
    from lambdamr_runtime.work import Work

SHOWN_S = 0.005
"""A phase that took less is not worth a word in a report."""

ITEM_TASKS_PER_LANE = 4
"""Map tasks per lane over the items of an iterable."""


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """How pairs are combined, partitioned and kept in memory; fields as of Executor.map_reduce."""

    partitions: int | None
    """None: planned."""
    combiner: "Callable[[Any, Any], Any] | Reducer | None" = None
    partitioner: Callable[[Any, int], int] | None = None
    sort_key: Callable[[Any], Any] | None = None
    spill_share: float | None = None
    merge_width: int | None = None
    compress: bool | None = None

    def __post_init__(self) -> None:
        for fn in (self.partitioner, self.sort_key):
            if fn is not None and not callable(fn):
                raise TypeError(f"partitioner and sort_key must be callable, got {fn!r}")
        if self.spill_share is not None and not 0 < self.spill_share <= 1:
            raise ValueError(f"spill_share must be above 0 and at most 1, got {self.spill_share}")
        if self.merge_width is not None and self.merge_width < 2:
            raise ValueError(f"merge_width must be >= 2, got {self.merge_width}")


@dataclass(frozen=True, slots=True)
class StageLimits:
    """Limits of every task; fields as of Executor.map_reduce."""

    retries: int = 0
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    timeout_s: float | None = None


def map_reduce_drafts(
    mappers: tuple[Callable[[Any], Any], ...],
    inputs: object,
    reducer: "Callable[[Any, Any], Any] | Reducer | None",
    backend: "Backend",
    options: KeyOptions,
    limits: StageLimits,
    output: "Output | None" = None,
) -> list[StageDraft]:
    """Plan the stages of a map_reduce: a map, a reduce with a reducer, a final with an output.

    Raises:  InvalidInput: an input cannot be used. TypeError: a function cannot be called.
             ValueError: options that do not go together, an output that cannot be written.
    """
    from lambdamr_runtime.mapreduce import Map, Reduce
    from lambdamr_runtime.memory import SPILL_SHARE
    from lambdamr_runtime.runs import Keying
    from lambdamr_runtime.shuffling import Tuning

    _check_functions(mappers, reducer)
    combine = _combine(reducer, options)
    keying = Keying(options.partitioner, options.sort_key)
    tuning = Tuning(
        options.spill_share or SPILL_SHARE,
        options.merge_width,
        _compresses(options.compress, backend.store.root),
    )
    planned = _planned_inputs(inputs, backend, combine)
    args = planned.args
    if isinstance(backend, RemoteBackend):
        backend.check_access(planned.objects, [] if output is None else [output.uri])
    if output is not None:
        output.check(planned.uris, planned.objects, backend.store)

    def draft(name: str, kind: StageKind, work: "Work", tasks: int, **more: Any) -> StageDraft:
        return StageDraft(
            name,
            kind,
            work,
            tasks,
            1,
            timeout_s=limits.timeout_s,
            retries=limits.retries,
            max_failures=0,
            memory_mb=backend.memory_mb,
            **more,
        )

    partitions = 0 if reducer is None else options.partitions or planned.partitions(backend)
    form = output.form if output is not None else None
    map_form = form if reducer is None else None
    mapping = Map(mappers, planned.reader, limits.retry_on, combine, keying, tuning, map_form)
    drafts = [
        draft(
            "map",
            StageKind.MAP,
            mapping,
            len(args),
            args=args,
            partitions=partitions,
            input_bytes=planned.input_bytes,
        )
    ]
    if reducer is not None:
        reducing = Reduce(reducer, limits.retry_on, keying, tuning, form)
        drafts.append(draft("reduce", StageKind.REDUCE, reducing, partitions if args else 0))
    if output is not None:
        # Without a time limit: what a task may take says nothing about the copies of all parts.
        drafts.append(replace(draft("final", StageKind.FINAL, output.work, 1), timeout_s=None))
    return drafts


def _compresses(asked: bool | None, root: str) -> bool:
    """Return whether shuffle objects are compressed: unless told, where they go over a network."""
    from lambdamr_runtime.store import local_path

    return local_path(root) is None if asked is None else bool(asked)


def _check_functions(mappers: tuple[object, ...], reducer: object) -> None:
    for fn in mappers if reducer is None else (*mappers, reducer):
        if not callable(fn):
            raise TypeError(f"mapper and reducer must be callable, got {fn!r}")
    if not mappers:
        raise ValueError("map_reduce() needs at least one mapper, got none")


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The input of a job, cut into tasks."""

    args: list[list[Any]]
    """Splits or items of each map task."""
    reader: "Reader | None" = None
    """None: the arguments are items."""
    uris: tuple[str, ...] = ()
    """As the caller gave them."""

    @property
    def splits(self) -> "list[Split]":
        return [split for splits in self.args for split in splits] if self.reader else []

    @property
    def input_bytes(self) -> int:
        return sum(split.hi - split.lo for split in self.splits)

    def partitions(self, backend: "Backend") -> int:
        """Return how many partitions are planned for it."""
        from lambdamr.planners import partitions_for

        return partitions_for(self.input_bytes, len(self.args), backend.workers, backend.memory_mb)

    @property
    def objects(self) -> list[str]:
        """URIs of the objects that are read, sorted."""
        return sorted({split.uri for split in self.splits})


def _planned_inputs(inputs: object, backend: "Backend", combine: "Reducer") -> _Inputs:
    from lambdamr.inputs import Input, as_input

    source = as_input(inputs)
    if isinstance(source, Input):
        lanes = _planned_lanes(backend.workers, combine)
        return _Inputs([*source.tasks(lanes, backend.memory_mb)], source.reader, source.uris)
    return _Inputs(_item_tasks(source, backend.workers))


def _planned_lanes(width: int, combine: "Reducer") -> int:
    """Return for how many lanes splits are planned: half as many splits where tasks combine.

    Each task writes every key it has met, so a key costs as often as there are tasks: with 135,000
    keys in 64 MB, 8 tasks write 713,000 states and take 1.34 s, 4 tasks 555,000 and 1.05 s.
    """
    return max(1, width // 2) if not combine.by_value else width


def _combine(reducer: object, options: KeyOptions) -> "Reducer":
    """Return what the dictionary of a map task holds."""
    from lambdamr_runtime.reducers import Reducer, collect, combining

    if options.combiner is None:
        return reducer if isinstance(reducer, Reducer) else collect
    if reducer is None or isinstance(reducer, Reducer):
        raise ValueError("combiner= goes with a reducer(key, values) of your own alone")
    return combining(options.combiner)


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
    if totals.output_pairs:
        yield f"wrote {totals.output_pairs:,} pairs, {totals.output_bytes:,} bytes"
    if totals.file_pairs:
        yield f"output: {totals.file_pairs:,} pairs, {totals.file_bytes:,} bytes"
    if totals.spilled_bytes:
        yield f"spilled {totals.spilled_runs:,} runs, {totals.spilled_bytes:,} bytes"
    phases = ((name, getattr(totals, f"{name}_s")) for name in PHASES)
    spent = [f"{name} {seconds:.2f}" for name, seconds in phases if seconds >= SHOWN_S]
    if spent:
        yield f"seconds: {' · '.join(spent)}"
    if totals.failed:
        yield f"{totals.failed:,} failed"


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

    def done(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self._job.is_over

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of the job; whether it has come."""
        deadline = None if timeout is None else monotonic() + timeout
        if self._progress is not None:
            self._progress(self._job.stages, timeout, stop_on_error=True)
        is_over = self._job.wait(None if deadline is None else max(0.0, deadline - monotonic()))
        if is_over and self._final is not None and self._state() != "done":
            from lambdamr_runtime.outputs import withdraw

            withdraw(self._job.backend.store, self._job.keys)
        return is_over

    def result(self, timeout: float | None = None) -> dict[Any, Any]:
        """Return the output as a dict.

        Raises:  what made the job fail: the exception of a task, ReceiptMismatch or JobFailed.
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

        read = partial(self._job.backend.store.get_range, part.part)
        try:
            yield from part_blocks(read, part.blocks, part.part)
        except FileNotFoundError as error:
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

    def _parts(self, timeout: float | None) -> "list[Reduced | Mapped]":
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
