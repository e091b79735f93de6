"""What a job did, told when it is over."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from lambdamr.timing import StageTiming, by_name, is_billed, timing_of
from lambdamr_runtime.barrier import Totals, totals_of
from lambdamr_runtime.stopwatch import PHASES
from lambdamr_runtime.wire import StageKind

if TYPE_CHECKING:
    from lambdamr.tracked import TrackedJob, TrackedStage

SHOWN_S = 0.005
"""A phase or a wait that took less is not worth a word in a report."""

SHOWN_STRAGGLERS = 3
"""So many of a stage are named."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What must be the same on both sides."""

    what: str
    made: int
    found: int

    @property
    def balances(self) -> bool:
        return self.made == self.found


@dataclass(frozen=True, slots=True, repr=False)
class JobReport:
    """What a job did; shown as text for reading, and in notebooks as a table."""

    job_id: str
    status: str
    """done, failed or cancelled; running of futures of which some are not done."""
    reason: str
    seconds: float
    """From submission to the end."""
    stages: dict[str, Totals]
    """Totals by stage name."""
    timing: dict[str, StageTiming]
    """How the tasks ran, by stage name."""
    receipts: tuple[Receipt, ...] = ()
    """What was checked before the job counted as done; none where it has nothing to check."""
    cost_usd: tuple[float, float] | None = None
    """US dollars, low and high, in the cloud; None without prices of its region. See Job.cost."""

    @property
    def partial(self) -> bool:
        """Whether the job is done without the data of tasks that failed: max_failures= of a
        map_reduce, or a map, allowed that.
        """
        return self.status == "done" and any(each.failed for each in self.stages.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, which JSON can hold."""
        return {**asdict(self), "partial": self.partial}

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write the report as one HTML file that needs nothing else."""
        from lambdamr.html import page  # few reports are written

        text = page(f"lambdamr job {self.job_id}", self._repr_html_())
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def __repr__(self) -> str:
        partial = ", partial" if self.partial else ""
        lines = [f"job {self.job_id}: {self.status}{partial} in {self.seconds:.2f} s"]
        if self.reason:
            lines.append(f"  {self.reason}")
        for name, totals in self.stages.items():
            lines.append(f"  {name:<8}{totals.tasks:>8,} tasks {totals.task_seconds:>10.2f} s")
            lines += [f"    {text}" for text in self.details(name)]
        lines += [f"  {text}" for text in self.conclusions()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from lambdamr.views import report_html  # only a notebook asks for it

        return report_html(self)

    def details(self, name: str) -> list[str]:
        """Return what is worth saying of a stage, a line each."""
        return [*_counts(self.stages[name]), *_waits(self.timing[name])]

    def conclusions(self) -> Iterator[str]:
        """Yield what is worth saying of the whole, a line each."""
        if self.receipts:
            wrong = [each for each in self.receipts if not each.balances]
            said = ", ".join(f"{each.found:,} {each.what}" for each in self.receipts)
            differ = "; ".join(
                f"{each.made:,} {each.what} made, {each.found:,} found" for each in wrong
            )
            yield f"receipts: {f'differ: {differ}' if wrong else f'{said}: all balance'}"
        if self.partial:
            failed = sum(each.failed for each in self.stages.values())
            yield f"partial: {failed:,} tasks failed, nothing of theirs is in the results"
        yield from _memory(self.timing.values())
        if self.cost_usd is not None:
            yield f"cost: ${self.cost_usd[0]:.2g} to ${self.cost_usd[1]:.2g}"


def _counts(totals: Totals) -> Iterator[str]:
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
    if totals.retries or totals.deaths:
        yield f"retries: {totals.retries:,} of the user's; processes lost: {totals.deaths:,}"
    if totals.failed:
        yield f"{totals.failed:,} failed"


def _waits(timing: StageTiming) -> Iterator[str]:
    said = []
    if timing.cold_starts and timing.cold_s >= SHOWN_S:
        said.append(f"{timing.cold_starts:,} cold starts of at most {timing.cold_s:.2f} s")
    if timing.queued_s >= SHOWN_S:
        said.append(f"queued {timing.queued_s:.2f} s at most")
    if said:
        yield f"waits: {' · '.join(said)}"
    if timing.stragglers:
        named = ", ".join(
            f"task {each.task:,} ({each.seconds:.2f} s, {each.multiple:.0f} × the median)"
            for each in timing.stragglers[:SHOWN_STRAGGLERS]
        )
        more = len(timing.stragglers) - SHOWN_STRAGGLERS
        yield f"stragglers: {named}{f' and {more:,} more' if more > 0 else ''}"


def _memory(timings: Iterable[StageTiming]) -> Iterator[str]:
    """Say what memory was used, and what less of it would cost."""
    largest = max(timings, key=lambda timing: timing.peak_mb, default=None)
    if largest is None or not largest.peak_mb:
        return
    text = f"memory: {largest.peak_mb:,.0f} MB of {largest.memory_mb:,} used"
    advised = largest.advised_mb
    if advised:
        # A function's share of a CPU goes with its memory, and it is billed by memory and time.
        saved = 1 - advised / largest.memory_mb
        text += f"; --memory {advised} would cost up to {100 * saved:.0f} % less where tasks wait"
    yield text


def report_of(stages: "Sequence[TrackedStage]") -> JobReport:
    """Return the report of stages, which are those of one job or those that futures belong to."""
    jobs = list({stage.job_id: stage.job for stage in stages}.values())
    names = by_name(stages)
    totals = {name: _totals(stage) for name, stage in names.items()}
    return JobReport(
        ", ".join(job.manifest.job for job in jobs),
        _status(jobs),
        " ".join(job.end.reason for job in jobs if job.end is not None and job.end.reason),
        max((_seconds(job) for job in jobs), default=0.0),
        totals,
        {name: timing_of(stage) for name, stage in names.items()},
        tuple(_receipts(list(names.values()), list(totals.values()))),
        _cost(jobs),
    )


def _cost(jobs: "Sequence[TrackedJob]") -> tuple[float, float] | None:
    """Return what jobs have cost; None where one ran on this machine, or has no known prices."""
    if not jobs or not all(map(is_billed, jobs)):
        return None
    from lambdamr.planning.cost import cost_of
    from lambdamr.prices import UnknownPrices

    try:
        spent = [cost_of(job).usd for job in jobs]
    except UnknownPrices:  # job.cost() says which to give
        return None
    return sum(each.low for each in spent), sum(each.high for each in spent)


def _status(jobs: "Sequence[TrackedJob]") -> str:
    if any(any(job.pending) for job in jobs):
        return "running"
    ends = {job.end.status for job in jobs if job.end is not None} - {"done"}
    return "failed" if "failed" in ends else next(iter(ends), "done")


def _seconds(job: "TrackedJob") -> float:
    """Return how long a job took; one without a report ended with its last chunk."""
    chunks = [ran.ended_s for stage in job.stages for ran in stage.chunk_stats()]
    ended = job.end.ended_s if job.end is not None and job.end.ended_s else max(chunks, default=0.0)
    return max(0.0, ended - job.manifest.created_s) if ended else 0.0


def _totals(stage: "TrackedStage") -> Totals:
    """Return what the report of the job says of a stage, else what this client has seen."""
    end = stage.job.end
    if end is not None and len(end.stages) > stage.run.index:
        return end.stages[stage.run.index]
    totals = Totals(tasks=stage.resolved)
    for future in stage.futures:
        stats = future.stats
        if stats is not None:
            totals += Totals(task_seconds=stats.seconds, retries=max(0, stats.tries - 1))
            totals += totals_of(stage.value_of_ours(future.task))
    deaths = sum(chunk.attempt for chunk in stage.chunk_stats())
    return replace(totals, failed=stage.failed, deaths=deaths)


def _receipts(stages: "Sequence[TrackedStage]", totals: Sequence[Totals]) -> Iterator[Receipt]:
    """Yield what the barrier has compared, of a job that came so far."""
    end = stages[0].job.end if stages else None
    if (
        end is None
        or len(end.stages) < len(stages)
        or stages[0].run.stage.kind is not StageKind.MAP
    ):
        return
    for index, (tracked, own) in enumerate(zip(stages, totals, strict=True)):
        stage = tracked.run.stage
        if stage.kind is StageKind.MAP and stage.input_bytes:
            yield Receipt("bytes of input", stage.input_bytes, own.bytes_read)
        if stage.kind is StageKind.MAP and stage.partitions:
            yield Receipt("pairs", own.pairs_written, totals[index + 1].pairs_read)
        if stage.kind is StageKind.FINAL:
            made = totals[index - 1]
            yield Receipt("pairs of output", made.file_pairs, own.file_pairs)
            yield Receipt("bytes of output", made.file_bytes, own.file_bytes)
