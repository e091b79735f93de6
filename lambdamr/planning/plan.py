"""What a job will do and cost: made from the packed job, before anything of it is stored."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lambdamr.planning.counting import Count, Kind, Side
from lambdamr.planning.estimating import Estimate, Range, estimate, known
from lambdamr.planning.shapes import JobShape, StageShape, shape_of_submission
from lambdamr.planning.showing import (
    charges_table,
    html_of,
    limits_table,
    requests_table,
    stages_table,
    text_of,
    totals_table,
)
from lambdamr.planning.targets import Target
from lambdamr_runtime.limits import MIB, PLANNED_MEMORY_MB
from lambdamr_runtime.store import local_path
from lambdamr_runtime.wire import StageKind

if TYPE_CHECKING:
    from lambdamr.prices import Prices
    from lambdamr.submission import Submission

UNKNOWN_TASK_S = Range(0.01, 1.0)
"""What a task of a function is taken for that nobody has measured."""

READ_BYTES_PER_S = Range(40 * MIB, 5 * MIB)
"""Input that a map task gets through on one vCPU, quick and slow: 64 MB of words in 1.5 s on two
cores, a fourth of that where the mapper does more."""

REDUCED_SHARE = Range(0.02, 1.0)
"""Bytes that reach the reducers, of those that were read: with a combiner, and without."""

SHOWN_RATE = 0.01
"""A rate below this share of its limit touches it in no way."""


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """What a job will do and cost. Shown as text and as HTML; `to_dict` has it all."""

    target: Target
    job: JobShape
    estimate: Estimate
    assumed: tuple[str, ...]
    """What the figures take for granted."""

    @property
    def tasks(self) -> int:
        return sum(shape.plan.tasks for shape in self.job.stages)

    @property
    def seconds(self) -> Range:
        """From the launch to the end."""
        return self.estimate.seconds

    @property
    def usd(self) -> Range:
        """What it costs; 0 on this machine."""
        return self.estimate.usd

    def requests(self, side: str | None = None) -> dict[str, int]:
        """Return the requests of a fault-free run by kind, without those that hang on time.

        Args:  side: "client" or "workers"; None: both.
        """
        return requests_by_kind(self.estimate.counts, side)

    def requests_for(self, what: str) -> int:
        """Return the requests for one purpose; see Count.what."""
        return sum(count.number for count in self.estimate.counts if count.what == what)

    @property
    def wire_bytes(self) -> dict[str, int]:
        """Bytes over the wire, as far as they are known before the run."""
        return wire_bytes(self.job)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return {
            "target": asdict(self.target),
            "stages": [
                {
                    "name": shape.name,
                    "kind": str(shape.kind),
                    "tasks": shape.plan.tasks,
                    "splits": shape.splits,
                    "chunks": shape.plan.chunks,
                    "lanes": shape.plan.lanes,
                    "groups": shape.plan.groups,
                    "waves": self.estimate.times[shape.name].waves,
                    "levels": self.estimate.times[shape.name].levels,
                    "input_bytes": shape.input_bytes,
                    "task_seconds": asdict(self.estimate.times[shape.name].tasks_s),
                    "seconds": asdict(self.estimate.times[shape.name].wall_s),
                }
                for shape in self.job.stages
            ],
            "bytes": self.wire_bytes,
            "assumed": list(self.assumed),
            **estimate_dict(self.estimate),
        }

    def __repr__(self) -> str:
        return text_of(self._title(), *self._tables())

    def _repr_html_(self) -> str:
        return html_of(self._title(), *self._tables())

    def _title(self) -> str:
        return f"plan of {self.job.name}: {self.tasks:,} tasks on {self.target}"

    def _tables(self) -> Iterator[tuple[str, list[list[str]]]]:
        yield "stages", stages_table(self.job, self.estimate)
        yield "totals", totals_table(self.estimate, self.wire_bytes, self.target)
        yield "requests", requests_table(self.estimate)
        if self.target.is_aws:
            yield "dollars", charges_table(self.estimate)
            yield "S3 limits per prefix", limits_table(self.estimate, SHOWN_RATE)
        yield "assumed", [[text] for text in self.assumed]


def plan_of(
    submission: "Submission",
    target: Target,
    prices: "Prices",
    *,
    root: str,
    known_keys: set[str],
    task_s: "float | tuple[float, float] | None" = None,
    keep_days: float = 0.0,
) -> Plan:
    """Return the plan of a packed job.

    Args:  root: of the store. known_keys: what the client need not store again.
           task_s: seconds of a task of the first stage, or (low, high).
    """
    near = not target.is_aws and local_path(root) is not None
    job = shape_of_submission(submission, root, known_keys, near=near)
    tasks_s, assumed = _task_seconds(job, target, task_s)
    made = estimate(job, target, prices, tasks_s, keep_days=keep_days)
    assumed += [f"{count.what}: {count.assumed}" for count in made.counts if count.assumed]
    return Plan(target, job, made, tuple(dict.fromkeys(assumed)))


def _task_seconds(
    job: JobShape, target: Target, task_s: "float | tuple[float, float] | None"
) -> tuple[dict[str, Range], list[str]]:
    """Return the seconds of all tasks of each stage, and what they rest on."""
    cpu = min(1.0, target.memory_mb / PLANNED_MEMORY_MB) if target.is_aws else 1.0
    found: dict[str, Range] = {}
    assumed: list[str] = []
    read = job.stages[0].input_bytes
    for index, shape in enumerate(job.stages):
        if index == 0 and task_s is not None:
            low, high = task_s if isinstance(task_s, tuple) else (task_s, task_s)
            found[shape.name] = Range(low, high).times(shape.plan.tasks)
            assumed.append(f"{shape.name}: {low:g}–{high:g} s a task, as given")
        else:
            found[shape.name], why = _unmeasured(shape, read, cpu)
            assumed += [f"{shape.name}: {why}"] if why else []
    return found, assumed


def _unmeasured(shape: StageShape, read: int, cpu: float) -> tuple[Range, str]:
    if shape.kind is StageKind.FINAL:
        return known(0.0), ""
    if read and shape.kind in (StageKind.MAP, StageKind.REDUCE):
        share = REDUCED_SHARE if shape.kind is StageKind.REDUCE else known(1.0)
        slow, quick = READ_BYTES_PER_S.high * cpu, READ_BYTES_PER_S.low * cpu
        seconds = Range(read * share.low / quick, read * share.high / slow)
        return seconds, f"{slow / MIB:.1f}–{quick / MIB:.0f} MiB/s a task"
    low, high = UNKNOWN_TASK_S.low, UNKNOWN_TASK_S.high
    why = f"{low:g}–{high:g} s a task; task_s= takes what you have measured"
    return UNKNOWN_TASK_S.times(shape.plan.tasks), why


def requests_by_kind(counts: "tuple[Count, ...]", side: str | None = None) -> dict[str, int]:
    """Return requests by kind, in the order of the kinds; none of number 0."""
    wanted = Side(side) if side is not None else None
    found = dict.fromkeys(map(str, Kind), 0)
    for count in counts:
        if wanted in (None, count.side):
            found[str(count.kind)] += count.number
    return {kind: number for kind, number in found.items() if number}


def wire_bytes(job: JobShape) -> dict[str, int]:
    """Return bytes over the wire: stored by the client, in events, fetched by workers, read."""
    events = sum(shape.plan.lanes for shape in job.stages)
    ride = job.manifest_bytes * 4 // 3 if job.rides_along else 0
    fetched = sum(
        shape.environments
        * (
            (shape.function_bytes if shape.function_stored else 0)
            + (shape.args_bytes if shape.args_stored and not shape.args_apart else 0)
            + (0 if job.rides_along else job.manifest_bytes)
        )
        + (shape.args_bytes if shape.args_apart else 0)
        for shape in job.stages
    )
    return {
        "stored by the client": job.manifest_bytes + job.stored_bytes,
        "events": events * (EVENT_OWN_BYTES + ride),
        "fetched by workers": fetched,
        "input": sum(shape.input_bytes for shape in job.stages),
    }


EVENT_OWN_BYTES = 300
"""An event without the manifest, about."""


def estimate_dict(made: Estimate) -> Mapping[str, Any]:
    """Return the part of a plan or a cost that both have, as plain data."""
    low, high = made.timed
    return {
        "seconds": asdict(made.seconds),
        "usd": asdict(made.usd),
        "requests": [asdict(count) for count in made.counts],
        "requests_over_time": {
            "low": [asdict(count) for count in low],
            "high": [asdict(count) for count in high],
        },
        "charges": [asdict(charge) for charge in made.charges],
        "rates": [asdict(rate) for rate in made.rates],
    }
