"""What a job did, told when it is over."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambdamr_runtime.stopwatch import PHASES

if TYPE_CHECKING:
    from lambdamr.tracked import TrackedJob
    from lambdamr_runtime.barrier import Totals

SHOWN_S = 0.005
"""A phase that took less is not worth a word in a report."""


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


def report_of(job: "TrackedJob") -> JobReport:
    """Return the report of a map_reduce that is over."""
    end = job.end
    assert end is not None  # noqa: S101 - a job of several stages is over with its end
    names = [stage.name for stage in job.manifest.stages]
    return JobReport(
        job.manifest.job,
        end.status,
        end.reason,
        max(0.0, end.ended_s - job.manifest.created_s),
        dict(zip(names, end.stages, strict=False)),
    )
