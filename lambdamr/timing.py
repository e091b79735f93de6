"""When and for how long: what the outcomes of a job say of its attempts."""

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambdamr.stats import ChunkStats
from lambdamr.stragglers import Straggler, find_stragglers
from lambdamr_runtime.limits import PLANNED_MEMORY_MB

if TYPE_CHECKING:
    from lambdamr.tracked import TrackedJob, TrackedStage
    from lambdamr_runtime.stopwatch import Phases
    from lambdamr_runtime.wire import Death

SIZES_MB = (256, 512, 1024, 1769, 2048, 3008, 4096, 6144, 8192, 10240)
"""Memory of a function that is worth advising."""

MARGIN = 2.0
"""Advised is room for this multiple of the peak: data of another day may be larger."""


@dataclass(frozen=True, slots=True)
class StageTiming:
    """How the tasks of one stage ran, as far as their outcomes tell."""

    seconds: float
    """From the first chunk's begin to the last one's end."""
    task_seconds: float
    """In all tasks together."""
    cold_starts: int
    """Events that waited for a process to start."""
    cold_s: float
    """The longest of these waits."""
    queued_s: float
    """The longest wait of an event for a free worker."""
    peak_mb: float
    """Peak memory of a process."""
    memory_mb: int
    """What a worker had, or where there was no limit what a function would have."""
    stragglers: tuple[Straggler, ...]

    @property
    def advised_mb(self) -> int:
        """The smallest memory that leaves room; 0 where that is no less than now."""
        enough = (size for size in SIZES_MB if size >= MARGIN * self.peak_mb)
        advised = next(enough, 0)
        return advised if self.peak_mb and advised < self.memory_mb else 0


def timing_of(stage: "TrackedStage") -> StageTiming:
    """Return how a stage ran."""
    chunks = stage.chunk_stats()
    stats = [future.stats for future in stage.futures]
    begin = min((chunk.started_s for chunk in chunks), default=0.0)
    cold = [chunk.cold_s for chunk in chunks if chunk.cold_s > 0]
    return StageTiming(
        seconds=max((chunk.ended_s for chunk in chunks), default=begin) - begin,
        task_seconds=sum(each.seconds for each in stats if each is not None),
        cold_starts=len(cold),
        cold_s=max(cold, default=0.0),
        queued_s=max((chunk.queued_s for chunk in chunks), default=0.0),
        peak_mb=max((chunk.peak_mb for chunk in chunks), default=0.0),
        memory_mb=stage.run.stage.memory_mb or PLANNED_MEMORY_MB,
        stragglers=tuple(find_stragglers(stats)),
    )


def by_name(stages: "Sequence[TrackedStage]") -> "dict[str, TrackedStage]":
    """Return stages by their names, before which stands the job where there are several."""
    several = len({stage.job_id for stage in stages}) > 1
    return {
        f"{stage.job_id}/{stage.run.stage.name}" if several else stage.run.stage.name: stage
        for stage in stages
    }


def is_billed(job: "TrackedJob") -> bool:
    """Whether a job runs where it costs money."""
    return getattr(job.backend, "deployment", None) is not None


class SpanKind(enum.StrEnum):
    """What an attempt of a chunk did, in this order."""

    QUEUED = "queued"
    COLD = "cold start"
    READ = "read"
    RUN = "run"
    WRITE = "write"
    DIED = "died"
    """The attempt ended without an outcome; the whole of its last task is one span."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a lane's time."""

    stage: str
    lane: int
    chunk: int
    kind: SpanKind
    begin_s: float
    """Since the job was made."""
    seconds: float


def spans_of(job: "TrackedJob") -> list[Span]:
    """Return what the lanes of a job did and waited for, stage by stage."""
    return [span for stage in job.stages for span in _spans_of(stage)]


def _spans_of(stage: "TrackedStage") -> Iterator[Span]:
    name, plan = stage.run.stage.name, stage.run.plan
    origin = stage.job.manifest.created_s
    for chunk, ran in sorted(stage.ran.copy().items()):
        for death in _deaths(stage, chunk) if ran.attempt else ():
            if death.began_s:
                seconds = death.ended_s - death.began_s
                begin = death.began_s - origin
                yield Span(name, chunk % plan.lanes, chunk, SpanKind.DIED, begin, seconds)
        begin = ran.started_s - ran.cold_s - ran.queued_s - origin
        for kind, seconds in _pieces(stage, chunk, ran):
            if seconds > 0:
                yield Span(name, chunk % plan.lanes, chunk, kind, begin, seconds)
                begin += seconds


def _pieces(stage: "TrackedStage", chunk: int, ran: ChunkStats) -> Iterator[tuple[SpanKind, float]]:
    """Yield the pieces of one execution; reading and writing in between are drawn as one each."""
    found = [_phases(stage, task) for task in stage.run.plan.tasks_of(chunk)]
    phases = [each for each in found if each is not None]
    read = ran.load_s + sum(each.read + each.fetch for each in phases)
    write = ran.write_s + sum(each.write for each in phases)
    yield SpanKind.QUEUED, ran.queued_s
    yield SpanKind.COLD, ran.cold_s
    yield SpanKind.READ, read
    yield SpanKind.RUN, max(0.0, ran.seconds - read - write)
    yield SpanKind.WRITE, write


def _phases(stage: "TrackedStage", task: int) -> "Phases | None":
    """Return the phases of a map or reduce task; None of one that failed, or is a plain call."""
    value = stage.value_of_ours(task)
    phases: Phases | None = getattr(value, "phases", None)
    return phases


def _deaths(stage: "TrackedStage", chunk: int) -> "list[Death]":
    from lambdamr_runtime.attempts import load_history

    return load_history(stage.job.backend.store, stage.run.keys, chunk).deaths
