"""The barrier without a driver: whoever sees that all is done takes the next step.

A lane that ends lists the outcomes of its group. If all are there it creates the group's marker;
whoever sees all markers creates `done`, launches the next stage and puts `next`, or writes the
report of the job. Everything may be repeated by anyone: creates are won once, and repeating is
the repair for everything.
"""

import enum
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lambdamr_runtime import serialize
from lambdamr_runtime.chunk import StageRun
from lambdamr_runtime.clock import Clock
from lambdamr_runtime.errors import CorruptObject
from lambdamr_runtime.frozen import frozen
from lambdamr_runtime.keys import JobKeys, last_number, new_execution_id
from lambdamr_runtime.lanes import split_lanes, tree_arity
from lambdamr_runtime.limits import EVENT_BYTES, SAME_FAILURES
from lambdamr_runtime.references import read_outcome
from lambdamr_runtime.store import Store, unstamped
from lambdamr_runtime.wire import (
    CLIENT,
    MALFORMED,
    OURS,
    Event,
    FrameKind,
    Manifest,
    Outcome,
    Stage,
    StageKind,
    as_record,
    sealed,
    unsealed,
)

if TYPE_CHECKING:
    from lambdamr_runtime.outputs import Written
    from lambdamr_runtime.stopwatch import Phases


@frozen
class Totals:
    """What the chunks of a group, a stage or a job add up to."""

    tasks: int = 0
    failed: int = 0
    task_seconds: float = 0.0
    bytes_read: int = 0
    """Raw bytes of the records that map tasks own."""
    records: int = 0
    emitted: int = 0
    """Pairs that mappers yielded."""
    pairs_written: int = 0
    """Pairs in shuffle objects."""
    pairs_read: int = 0
    """Pairs that reduce tasks read."""
    keys: int = 0
    output_pairs: int = 0
    output_bytes: int = 0
    file_pairs: int = 0
    """Pairs in files for output=: written by map or reduce tasks, placed by the finalizer."""
    file_bytes: int = 0
    bad_records: int = 0
    """Records that on_bad_record="skip" left out."""
    spilled_runs: int = 0
    """Runs that map tasks could not hold in memory."""
    spilled_bytes: int = 0
    """Written to temporary files, by map and reduce tasks."""
    retries: int = 0
    """Further calls of functions that had raised: retries= of the user."""
    deaths: int = 0
    """Executions of chunks that died before one of them committed: retries of ours."""
    read_s: float = 0.0
    map_s: float = 0.0
    combine_s: float = 0.0
    sort_s: float = 0.0
    write_s: float = 0.0
    fetch_s: float = 0.0
    merge_s: float = 0.0
    reduce_s: float = 0.0
    """Seconds of all tasks in each phase; see lambdamr_runtime.stopwatch.Phases."""

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(*map(operator.add, _VALUES(self), _VALUES(other)))

    def encode(self) -> bytes:
        return sealed(as_record(self))

    @classmethod
    def decode(cls, body: bytes, source: str) -> "Totals":
        """Parse the totals of a group.

        Raises:  CorruptObject: they are none.
        """
        try:
            return cls() + cls(**unsealed(body, source))
        except MALFORMED as error:
            raise CorruptObject(f"{source} does not hold totals: {error}") from error


_VALUES: Callable[[Totals], tuple[Any, ...]] = operator.attrgetter(*Totals.__match_args__)
"""Any: ints and floats, in the order of the fields."""


class EndKind(enum.Enum):
    """What a status alone does not tell of an end."""

    PLAIN = ""
    RECEIPTS = "receipts"
    """Failed: what was written and what was read differ."""
    TIMEOUT = "timeout"
    """Failed: the job ran over its time limit."""


@frozen
class Report:
    """The end of a job."""

    status: str
    """done, failed or cancelled."""
    reason: str = ""
    ended_s: float = 0.0
    stages: tuple[Totals, ...] = ()
    """Of the stages that are counted: all of a map_reduce, none of a map without max_failures."""
    kind: EndKind = EndKind.PLAIN

    def encode(self) -> bytes:
        stages = [as_record(totals) for totals in self.stages]
        return sealed({**as_record(self), "stages": stages, "kind": self.kind.value})

    @classmethod
    def decode(cls, stamped: bytes, source: str) -> "Report":
        try:
            record = unsealed(unstamped(stamped, source)[1], source)
            record["stages"] = tuple(Totals(**totals) for totals in record["stages"])
            record["kind"] = EndKind(record.get("kind", ""))
            return cls(**record)
        except MALFORMED as error:
            raise CorruptObject(f"{source} is not a report: {error}") from error


def top_events(manifest: Manifest, encoded: bytes, index: int, now_s: float) -> list[Event]:
    """Return the events that launch a stage: the children of the tree's root.

    Args:  encoded: the manifest as stored; it rides along where it is small.
    """
    lanes = manifest.stages[index].plan.lanes
    inline = encoded if len(encoded) <= EVENT_BYTES * 3 // 4 else b""
    return [
        Event(manifest.job, index, lo, hi, sent_s=now_s, manifest=inline)
        for lo, hi in split_lanes(0, lanes, tree_arity(lanes))
    ]


def end_job(store: Store, keys: JobKeys, report: Report) -> None:
    """End a job early: a tombstone that lanes see, the report, and nothing under output=."""
    execution = new_execution_id()
    store.create(keys.cancelled, report.encode(), execution)
    store.create(keys.report, report.encode(), execution)
    if store.exists(keys.placed):
        from lambdamr_runtime.outputs import withdraw  # few bad ends have output to remove

        withdraw(store, keys)


def overdue(manifest: Manifest, now_s: float) -> Report:
    """Return the end of a job that is over its time limit."""
    reason = f"It ran over its time limit of {manifest.timeout_s:g} s (job_timeout_s=)."
    return Report("failed", reason, now_s, kind=EndKind.TIMEOUT)


def end_overdue(store: Store, manifest: Manifest, now_s: float) -> bool:
    """End a job that is over its time limit, unless it has ended; whether it is over that."""
    if now_s < manifest.deadline_s:
        return False
    keys = JobKeys(manifest.job)
    if not store.exists(keys.report):
        end_job(store, keys, overdue(manifest, now_s))
    return True


def end_empty(store: Store, manifest: Manifest, now_s: float) -> None:
    """Write the report of a job without tasks: its client has to, or whoever looks later."""
    report = Report("done", "", now_s, (Totals(),) * len(manifest.stages))
    store.create(JobKeys(manifest.job).report, report.encode(), new_execution_id())


def finish_cancelled(store: Store, keys: JobKeys) -> None:
    """Write the report that a tombstone announces, if it is missing."""
    end_job(store, keys, Report.decode(store.get(keys.cancelled), keys.cancelled))


def repeat_bad_end(store: Store, run: StageRun) -> None:
    """Write the report of a job with a tombstone; who put that may have died in between.

    Called by a repair: so may a finalizer, between what it wrote and its look.
    """
    keys = JobKeys(run.manifest.job)
    finish_cancelled(store, keys)
    if run.stage.kind is StageKind.FINAL:
        from lambdamr_runtime.outputs import withdraw  # few jobs have one

        withdraw(store, keys, again=True)


def read_end(store: Store, keys: JobKeys) -> Report | None:
    """Return how a job ended, by its report or else its tombstone; None while it runs."""
    for key in (keys.report, keys.cancelled):
        try:
            return Report.decode(store.get(key), key)
        except FileNotFoundError:
            continue
    return None


class Barrier:
    """Counts chunks, groups and stages, and ends jobs.

    Args:  launch: launches events; raises if one cannot be launched.
    """

    def __init__(
        self,
        store: Store,
        launch: Callable[[Sequence[Event]], None],
        clock: Clock,
    ) -> None:
        self._store = store
        self._launch = launch
        self._clock = clock

    def chunk_failed(self, run: StageRun, outcome: Outcome, signature: str) -> bool:
        """Mark a chunk with failed tasks; ends the job where that is one too many, and says so."""
        marker = sealed({"tasks": outcome.failed, "signature": signature})
        self._store.create(run.keys.failed(outcome.chunk), marker, outcome.execution)
        reason = self._too_many(run)
        if reason:
            report = Report("failed", reason, self._clock.time())
            end_job(self._store, JobKeys(run.manifest.job), report)
        return bool(reason)

    def lane_ended(self, run: StageRun, group: int, repair: bool = False) -> bool:
        """Take every step that is due now that chunks of *group* are committed.

        Args:     repair: run by whoever repeats: markers that exist do not stop it.
        Returns:  whether this was the end of the job.
        """
        if not self._is_complete(run, group):
            return False
        if run.plan.groups > 1 or _is_counted(run.manifest):
            self._close_group(run, group)
            present = {last_number(o.key) for o in self._store.list(run.keys.groups)}
            if len(present) < run.plan.groups:
                return False
        return self._stage_ended(run, repair)

    def _is_complete(self, run: StageRun, group: int) -> bool:
        expected = run.plan.chunks_in(group)
        if len(expected) == 1 and run.plan.chunks == 1:
            return True  # the caller has just committed the only one
        found = {last_number(o.key) for o in self._store.list(run.keys.outcomes(group))}
        return found.issuperset(expected)

    def _close_group(self, run: StageRun, group: int) -> None:
        if self._store.exists(run.keys.group(group)):
            return
        body = self._group_body(run, group) if _is_counted(run.manifest) else b""
        self._store.create(run.keys.group(group), body, new_execution_id())

    def _group_body(self, run: StageRun, group: int) -> bytes:
        """Return the group's shuffle index (of a map stage), and its totals behind it."""
        from lambdamr_runtime.mapreduce import Mapped, group_columns  # 15 ms; a map never gets here

        totals = Totals()
        mapped: list[tuple[int, Mapped | None]] = []
        for chunk in run.plan.chunks_in(group):
            outcome, frames = read_outcome(self._store, run.keys.outcome(group, chunk))
            # A cancelled task fails a job only where another stage needs its value.
            wanted = outcome.worker != CLIENT or len(run.manifest.stages) > 1
            failed = outcome.failed if wanted else 0
            totals += Totals(tasks=outcome.count, failed=failed, deaths=outcome.attempt)
            for task, frame in zip(run.plan.tasks_of(chunk), frames, strict=True):
                totals += Totals(task_seconds=frame.seconds, retries=max(0, frame.tries - 1))
                value = None
                if frame.kind is FrameKind.VALUE and run.stage.kind in OURS:
                    value = serialize.loads(frame.payload)
                totals += totals_of(value)
                mapped.append((task, value if isinstance(value, Mapped) else None))
        columns = b""
        if run.stage.partitions:
            columns = group_columns(mapped, run.stage.partitions)
        return columns + totals.encode()

    def _stage_ended(self, run: StageRun, repair: bool) -> bool:
        """Launch the next stage or write the report; whether that was the end of the job."""
        if self._store.exists(JobKeys(run.manifest.job).cancelled):
            return False
        if run.index + 1 == len(run.manifest.stages):
            self.job_ended(run.manifest)
            return True
        totals = self._stage_totals(run)
        reason = _excess_of(run.stage, totals.failed)
        if reason:
            report = Report("failed", reason, self._clock.time())
            end_job(self._store, JobKeys(run.manifest.job), report)
            return True
        won = self._store.create(run.keys.done, b"", new_execution_id())
        if won or (repair and not self._store.exists(run.keys.next)):
            encoded = run.manifest.encode()
            events = top_events(run.manifest, encoded, run.index + 1, self._clock.time())
            if not won:
                events = [event.repaired(0, 0) for event in events]
            self._launch(events)
            self._store.create(run.keys.next, b"", new_execution_id())
        return False

    def job_ended(self, manifest: Manifest) -> None:
        """Write the report of a job whose stages are all complete."""
        stages: Sequence[Totals] = ()
        if _is_counted(manifest):
            runs = [StageRun.of(manifest, i) for i in range(len(manifest.stages))]
            stages = [self._stage_totals(run) for run in runs]
        excess = _excess(manifest, stages)
        reason = excess or _receipt_mismatch(manifest, stages)
        if reason:
            kind = EndKind.PLAIN if excess else EndKind.RECEIPTS
            report = Report("failed", reason, self._clock.time(), tuple(stages), kind)
            end_job(self._store, JobKeys(manifest.job), report)
            return
        report = Report("done", "", self._clock.time(), tuple(stages))
        self._store.create(JobKeys(manifest.job).report, report.encode(), new_execution_id())

    def _stage_totals(self, run: StageRun) -> Totals:
        totals = Totals()
        for group in range(run.plan.groups):
            key = run.keys.group(group)
            body = unstamped(self._store.get(key), key)[1]
            if run.stage.partitions:
                from lambdamr_runtime.shuffle import column_span  # as above

                start, length = column_span(_tasks_in(run, group), run.stage.partitions - 1)
                body = body[start + length :]
            totals += Totals.decode(body, key)
        return totals

    def _too_many(self, run: StageRun) -> str:
        """Return why the stage's failures end the job, or "" if they do not."""
        stage = run.stage
        if stage.max_failures is None and not stage.same_failures:
            return ""
        markers = list(self._store.list(run.keys.failures))
        if stage.max_failures is not None:
            failed = sum(self._marker(marker.key)["tasks"] for marker in markers)
            return _excess_of(stage, failed)
        first = [marker.key for marker in markers if last_number(marker.key) < SAME_FAILURES]
        if len(first) < SAME_FAILURES or run.plan.chunks <= SAME_FAILURES:
            return ""
        signatures = {self._marker(key)["signature"] for key in first}
        if len(signatures) > 1 or "" in signatures:
            return ""
        return (
            f"The first {SAME_FAILURES} chunks of {run.plan.chunks} all failed with "
            f"{signatures.pop()}; the others were not run. return_exceptions=True or "
            "max_failures= runs them all the same."
        )

    def _marker(self, key: str) -> dict[str, Any]:
        """Any: JSON of ours, two fields."""
        try:
            marker = unsealed(unstamped(self._store.get(key), key)[1], key)
            return {"tasks": int(marker["tasks"]), "signature": str(marker["signature"])}
        except MALFORMED as error:
            raise CorruptObject(f"{key} is not a failure marker: {error}") from error


def _is_counted(manifest: Manifest) -> bool:
    """Whether the barrier reads what chunks add up to: receipts and max_failures need it.

    Failure markers only end a job early: a lane may see the last outcome before its marker.
    """
    return len(manifest.stages) > 1 or manifest.stages[0].max_failures is not None


def _excess_of(stage: Stage, failed: int) -> str:
    """Return why so many failed tasks are too many, or "" where they are not."""
    if stage.max_failures is None or failed <= stage.max_failures:
        return ""
    return (
        f"{failed} tasks of stage {stage.name!r} failed, {stage.max_failures} are allowed "
        "(max_failures=)."
    )


def _excess(manifest: Manifest, stages: Sequence[Totals]) -> str:
    reasons = (
        _excess_of(stage, totals.failed)
        for stage, totals in zip(manifest.stages, stages, strict=False)
    )
    return next(filter(None, reasons), "")


def _tasks_in(run: StageRun, group: int) -> int:
    return sum(len(run.plan.tasks_of(chunk)) for chunk in run.plan.chunks_in(group))


def totals_of(value: object) -> Totals:
    """Return what the record of a map, reduce or final task adds up to."""
    from lambdamr_runtime.mapreduce import Mapped, Reduced  # as above
    from lambdamr_runtime.outputs import Placed

    if isinstance(value, Placed):
        return Totals(file_pairs=value.pairs, file_bytes=value.size)
    if isinstance(value, Mapped):
        return Totals(
            bytes_read=value.bytes_read,
            records=value.records,
            emitted=value.emitted,
            bad_records=value.bad_records,
            pairs_written=sum(piece.pairs for piece in value.slices),
            output_pairs=value.emitted if value.part else 0,
            output_bytes=value.size,
            **_of_file(value.file),
            spilled_runs=value.spilled_runs,
            spilled_bytes=value.spilled_bytes,
            **_seconds(value.phases),
        )
    if isinstance(value, Reduced):
        return Totals(
            pairs_read=value.pairs_read,
            keys=value.keys,
            output_pairs=value.output_pairs,
            output_bytes=value.size,
            **_of_file(value.file),
            spilled_bytes=value.spilled_bytes,
            **_seconds(value.phases),
        )
    return Totals()


def _of_file(file: "Written | None") -> dict[str, Any]:
    """Any: ints, which Totals has beside floats."""
    return {} if file is None else {"file_pairs": file.pairs, "file_bytes": file.size}


def _seconds(phases: "Phases") -> dict[str, Any]:
    """Any: floats, which Totals has beside ints."""
    return {f"{name}_s": getattr(phases, name) for name in phases.__slots__}


def _receipt_mismatch(manifest: Manifest, stages: Sequence[Totals]) -> str:
    """Return how written and read differ, or "" where every receipt balances."""
    for index, (stage, totals) in enumerate(zip(manifest.stages, stages, strict=False)):
        if stage.kind is StageKind.FINAL:
            made = stages[index - 1]
            if (totals.file_pairs, totals.file_bytes) != (made.file_pairs, made.file_bytes):
                return (
                    f"Receipts differ: tasks wrote {made.file_pairs} pairs, {made.file_bytes} "
                    f"bytes of output, placed were {totals.file_pairs}, {totals.file_bytes} bytes."
                )
        if stage.kind is not StageKind.MAP:
            continue
        read = stages[index + 1].pairs_read if stage.partitions else totals.pairs_written
        if totals.pairs_written != read:
            return (
                f"Receipts differ: map tasks wrote {totals.pairs_written} pairs, reduce tasks "
                f"read {read}."
            )
        if not totals.failed and totals.bytes_read != stage.input_bytes:
            return (
                f"Receipts differ: the inputs have {stage.input_bytes} bytes, the records read "
                f"{totals.bytes_read}."
            )
    return ""
