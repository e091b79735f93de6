"""What a job has cost: the model of the plan, fed with what its outcomes tell."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from lambdamr.config import load_config
from lambdamr.planning.asking import Where, place
from lambdamr.planning.counting import Count, Kind, Side
from lambdamr.planning.estimating import COMPONENTS, Estimate, Range, estimate, known, total
from lambdamr.planning.plan import estimate_dict, requests_by_kind, wire_bytes
from lambdamr.planning.shapes import (
    JobShape,
    Placing,
    StageShape,
    requests_to_write,
    shape_of_manifest,
    with_footprints,
)
from lambdamr.planning.showing import (
    charges_table,
    html_of,
    requests_table,
    stages_table,
    text_of,
    totals_table,
)
from lambdamr.planning.targets import Target, target_of
from lambdamr_runtime.blocks import BLOCK_BYTES
from lambdamr_runtime.mapreduce import Mapped, Reduced
from lambdamr_runtime.outputs import Placed, is_same_store
from lambdamr_runtime.store import local_path
from lambdamr_runtime.wire import CLIENT, Manifest, StageKind

if TYPE_CHECKING:
    from lambdamr.futures import Future
    from lambdamr.prices import Prices
    from lambdamr.submission import Footprint
    from lambdamr.tracked import Spent, TrackedJob, TrackedStage


@dataclass(frozen=True, slots=True, repr=False)
class Cost:
    """What a job has cost, by component and stage. Shown as text and as HTML."""

    job_id: str
    is_over: bool
    """False: seconds are those of the chunks that have ended, requests those of the whole job."""
    target: Target
    job: JobShape
    estimate: Estimate

    @property
    def usd(self) -> Range:
        """US dollars; 0 on this machine. What a task took is known, what it cost to start a process
        and to ask the store is not: hence the range.
        """
        return self.estimate.usd

    @property
    def seconds(self) -> Range:
        """From submission to the end; of one that runs, what it takes at the least."""
        return self.estimate.seconds

    def by_component(self) -> dict[str, Range]:
        """Return dollars by component of the bill."""
        found = {each: self._sum(component=each) for each in COMPONENTS}
        return found if self.target.is_aws else {}

    def by_stage(self) -> dict[str, Range]:
        """Return dollars by stage; "" has those of the job as a whole."""
        stages = dict.fromkeys(charge.stage for charge in self.estimate.charges)
        return {stage: self._sum(stage=stage) for stage in stages}

    def _sum(self, *, component: str | None = None, stage: str | None = None) -> Range:
        return total(
            charge.usd
            for charge in self.estimate.charges
            if component in (None, charge.component) and stage in (None, charge.stage)
        )

    def requests(self, side: str | None = None) -> dict[str, int]:
        """Return requests by kind, without those that hang on time; see Plan.requests."""
        return requests_by_kind(self.estimate.counts, side)

    def to_dict(self) -> dict[str, Any]:
        """Return the cost as plain data."""
        return {
            "job": self.job_id,
            "over": self.is_over,
            "target": asdict(self.target),
            "by_component": {name: asdict(usd) for name, usd in self.by_component().items()},
            "by_stage": {name: asdict(usd) for name, usd in self.by_stage().items()},
            "bytes": wire_bytes(self.job),
            **estimate_dict(self.estimate),
        }

    def __repr__(self) -> str:
        return text_of(self._title(), *self._tables())

    def _repr_html_(self) -> str:
        return html_of(self._title(), *self._tables())

    def _title(self) -> str:
        state = "" if self.is_over else " so far"
        return f"cost of job {self.job_id}{state}, on {self.target}"

    def _tables(self) -> Iterator[tuple[str, list[list[str]]]]:
        yield "stages", stages_table(self.job, self.estimate)
        yield "totals", totals_table(self.estimate, wire_bytes(self.job), self.target)
        yield "requests", requests_table(self.estimate)
        if self.target.is_aws:
            yield "dollars", charges_table(self.estimate)


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What is known of a stage that has begun."""

    spent: "Spent"
    values: list[Any]
    """What its map, reduce or final tasks made, as far as they have a value."""


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What is known of a job that has begun."""

    manifest: Manifest
    root: str
    is_over: bool
    seconds: float | None
    """From submission to the end, where that has come and is known."""
    stages: tuple[StageFacts, ...]
    footprints: "tuple[Footprint, ...]" = ()
    """Of a job that this client has submitted."""


def cost_of(job: "TrackedJob", where: Where = (None, None, None)) -> Cost:
    """Return what a job has cost so far.

    Args:    where: on, region and prices, as of Executor.plan; on="aws" tells what a job of this
             machine would have cost there.
    Raises:  ValueError: an unknown place, region or price.
    """
    target, prices = place(job.backend, where)
    is_there = target == target_of(job.backend, None, load_config())
    facts = JobFacts(
        job.manifest,
        job.backend.store.root,
        job.is_over,
        _seconds(job) if is_there else None,
        tuple(
            StageFacts(stage.spent, [future.result(0) for future in _with_values(stage)])
            for stage in job.stages
        ),
        job.footprints,
    )
    return cost_of_facts(facts, target, prices)


def cost_of_facts(job: JobFacts, target: Target, prices: "Prices") -> Cost:
    """Return what a job has cost so far at a target."""
    near = not target.is_aws and local_path(job.root) is not None
    shape = shape_of_manifest(job.manifest, len(job.manifest.encode()), near=near)
    shape = with_footprints(shape, job.footprints)
    facts = [
        _facts(each, stage, job.root) for each, stage in zip(shape.stages, job.stages, strict=True)
    ]
    stages = [_after(each, before) for each, before in zip(facts, [None, *facts], strict=False)]
    shape = replace(shape, stages=tuple(each.shape for each in stages))
    made = estimate(
        shape,
        target,
        prices,
        {
            each.name: known(stage.spent.seconds)
            for each, stage in zip(shape.stages, job.stages, strict=True)
        },
        seconds=job.seconds,
        stored_bytes=known(sum(each.stored_bytes for each in facts)),
        keep_days=load_config().keep_days,
        more=tuple(_repairs(shape, job)),
    )
    return Cost(job.manifest.job, job.is_over, target, shape, made)


@dataclass(frozen=True, slots=True)
class _Facts:
    """A stage as its outcomes tell it."""

    shape: StageShape
    slices: int = 0
    """Slices with pairs that its map tasks wrote."""
    files: tuple[int, ...] = ()
    """Bytes of the output files that its tasks wrote."""
    stored_bytes: int = 0


def _facts(shape: StageShape, stage: StageFacts, root: str) -> _Facts:
    spent = stage.spent
    workers = len(spent.workers - {CLIENT})
    shape = replace(
        shape,
        environments=min(workers, shape.environments) or shape.environments,
        results_stored=spent.results_stored,
    )
    if shape.kind is StageKind.FINAL:
        return _Facts(replace(shape, placing=_placing(stage.values, root)))
    if shape.kind in (StageKind.MAP, StageKind.REDUCE):
        return _of_values(shape, stage.values)
    return _Facts(shape)


def _with_values(stage: "TrackedStage") -> "list[Future]":
    """Return the futures of a map_reduce's stage that have a value."""
    if stage.run.stage.kind not in (StageKind.MAP, StageKind.REDUCE, StageKind.FINAL):
        return []
    return [
        each
        for each in stage.futures
        if each.done() and not each.cancelled() and each.exception(0) is None
    ]


def _of_values(shape: StageShape, values: list[Mapped | Reduced]) -> _Facts:
    """Return what map or reduce tasks wrote and read."""
    sizes: list[int] = []
    files: list[int] = []
    slices = reads = 0
    for value in values:
        if isinstance(value, Mapped):
            pieces = [piece for piece in value.slices if piece.length]
            slices += len(pieces)
            sizes += [pieces[-1].offset + pieces[-1].length] if pieces else []
            reads += max(1, -(-value.bytes_read // BLOCK_BYTES)) if shape.input_bytes else 0
        sizes += [value.size] if value.part else []
        if value.file is not None:
            files.append(value.file.size)
            sizes += [value.file.size] if value.file.key != value.part else []
    done = len(values) == shape.plan.tasks
    if done:
        shape = replace(shape, writes=sum(map(requests_to_write, sizes)), input_reads=reads)
    return _Facts(shape, slices if done else -1, tuple(files), sum(sizes))


def _placing(values: list[Placed], root: str) -> Placing | None:
    if not values:
        return None
    uris = values[0].uris
    remote = bool(uris) and local_path(uris[0]) is None
    single = not any("/part-" in uri for uri in uris)
    copied = remote and not single and is_same_store(uris[0], root)
    return Placing(len(uris), remote, copied, single, 0)


def _after(facts: _Facts, before: _Facts | None) -> _Facts:
    """Add what a stage read of the one before it."""
    shape = facts.shape
    if before is not None and shape.kind is StageKind.REDUCE and before.slices >= 0:
        shape = replace(shape, slices=before.slices)
    if before is not None and shape.placing is not None:
        pieces = sum(requests_to_write(size) for size in before.files if size)
        placing = replace(shape.placing, files=len(before.files), pieces=pieces)
        shape = replace(shape, placing=placing)
    return replace(facts, shape=shape)


def _seconds(job: "TrackedJob") -> float | None:
    """Return seconds from submission to the end, where the job is over and they are known."""
    if not job.is_over:
        return None
    ended = job.end.ended_s if job.end is not None else 0.0
    ended = ended or max((stage.spent.last_s for stage in job.stages), default=0.0)
    return max(0.0, ended - job.manifest.created_s) if ended else None


def _repairs(shape: JobShape, job: JobFacts) -> Iterator[Count]:
    """Yield the least that executions which died have cost beside their seconds."""
    for each, stage in zip(shape.stages, job.stages, strict=True):
        deaths = stage.spent.deaths
        if deaths:
            yield Count(each.name, Side.WORKERS, Kind.INVOKE, "repairs", deaths)
            yield Count(each.name, Side.WORKERS, Kind.PUT, "attempts", deaths)
            yield Count(each.name, Side.WORKERS, Kind.LIST, "in repairs", 3 * deaths)
            yield Count(each.name, Side.WORKERS, Kind.GET, "attempts", deaths)
