"""What the store tells of jobs, for whoever only looks: nothing is run, launched or taken over.

Values of the user are never unpickled here, so a look works without their modules.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lambdamr.ownership import is_alive
from lambdamr.tracked import Spent
from lambdamr_runtime import serialize
from lambdamr_runtime.barrier import Report, read_end
from lambdamr_runtime.chunk import StageRun
from lambdamr_runtime.errors import JobNotFound, LambdamrError
from lambdamr_runtime.keys import JOBS, JobKeys, is_job_id, last_number
from lambdamr_runtime.references import read_outcome
from lambdamr_runtime.store import Store, local_path
from lambdamr_runtime.wire import CLIENT, Frame, FrameKind, Manifest, StageKind

if TYPE_CHECKING:
    from lambdamr_runtime.store import ObstoreStore

LAST = "last"
"""Stands for the newest job."""

SECOND_CHARS = 15
"""Of an id, the second in which the job was made; what follows is random."""


class State(enum.StrEnum):
    """How far a job is."""

    RUNNING = "running"
    ABANDONED = "abandoned"
    """It has not ended, and the client whose workers ran it is gone."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNREADABLE = "unreadable"
    """Of another release or Python, or never launched."""

    @property
    def is_over(self) -> bool:
        return self in (State.DONE, State.FAILED, State.CANCELLED)


@dataclass(frozen=True, slots=True)
class TaskLook:
    """A task that has ended."""

    stage: str
    task: int
    error: str
    """Type and message in one line; empty of one with a value."""
    log: str


@dataclass(slots=True)
class StageLook:
    """A stage, as its outcomes tell it."""

    run: StageRun
    ended: int = 0
    """Tasks with an outcome."""
    failed: int = 0
    """Without those that were cancelled."""
    open_lanes: int = 0
    """Lanes with a chunk that has no outcome."""
    silent_lanes: int = 0
    """Lanes without any outcome: not begun, or in their first chunk."""
    spent: Spent = field(default_factory=Spent)
    peak_mb: float = 0.0
    values: list[Any] = field(default_factory=list)
    """What map, reduce and final tasks made: records of ours."""
    tasks: list[TaskLook] = field(default_factory=list)
    """Those that failed or printed something, in order."""

    @property
    def name(self) -> str:
        return self.run.stage.name


@dataclass(frozen=True, slots=True)
class JobLook:
    """A job at this moment."""

    manifest: Manifest
    state: State
    end: Report | None
    stages: list[StageLook]

    @property
    def seconds(self) -> float | None:
        """From submission to the end; None of a job that has not ended."""
        if not self.state.is_over or self.end is None:
            return None
        ended = self.end.ended_s or max(stage.spent.last_s for stage in self.stages)
        return max(0.0, ended - self.manifest.created_s)


@dataclass(frozen=True, slots=True)
class JobSummary:
    """A job in a list."""

    job: str
    state: State
    name: str = ""
    """Names of its stages."""
    created_s: float = 0.0
    tasks: int = 0
    ended: int = 0
    """Tasks with an outcome; of a job that is done, all."""
    seconds: float | None = None
    reason: str = ""
    has_all: bool = False
    """Whether all its results are there: the report of a map may come a moment later."""
    has_failures: bool = False
    """Whether it has failed, or tasks of it had before it was cancelled: leaving `with Executor()`
    by the exception of a task cancels the rest."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is to come any more that anybody waits for."""
        return self.state.is_over or self.state is State.UNREADABLE or self.has_all


def job_ids(store: "ObstoreStore") -> list[str]:
    """Return the ids of all jobs, the newest first."""
    return sorted(filter(is_job_id, store.folders(JOBS)), reverse=True)


def find_job(store: "ObstoreStore", text: str) -> str:
    """Return the job that a text names: its id, the beginning of one id alone, or "last".

    Raises:  JobNotFound: none or several.
    """
    if is_job_id(text) and store.exists(JobKeys(text).manifest):
        return text
    known = job_ids(store)
    found = [job for job in known if text and job.startswith(text)]
    if text == LAST and known:
        second = known[0][:SECOND_CHARS]
        found = [job for job in known if job.startswith(second)]
        found = [max(found, key=lambda job: summary(store, job).created_s)]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} jobs begin with {text!r}" if found else f"There is no job {text!r}"
    raise JobNotFound(f"{what} under {store.root}. `lambdamr jobs` lists them; check --root.")


def summary(store: Store, job: str) -> JobSummary:
    """Return how far a job is, with few requests."""
    try:
        manifest = _manifest(store, job)
    except (FileNotFoundError, LambdamrError) as error:
        return JobSummary(job, State.UNREADABLE, reason=str(error))
    end = read_end(store, JobKeys(job))
    state = _state(store, manifest, end)
    tasks = sum(stage.tasks for stage in manifest.stages)
    ended = tasks if state is State.DONE else _ended(store, manifest)
    return JobSummary(
        job,
        state,
        " + ".join(stage.name for stage in manifest.stages),
        manifest.created_s,
        tasks,
        ended,
        max(0.0, end.ended_s - manifest.created_s) if end is not None and end.ended_s else None,
        end.reason if end is not None else "",
        ended == tasks and not manifest.ends_with_report,
        state is State.FAILED or (state is State.CANCELLED and _has_failures(store, manifest)),
    )


def look(store: Store, job: str) -> JobLook:
    """Read all outcomes of a job.

    Raises:  JobNotFound; RuntimeMismatch, CorruptObject: it cannot be read.
    """
    try:
        manifest = _manifest(store, job)
    except FileNotFoundError:
        raise JobNotFound(
            f"There is no job {job!r} under {store.root}. `lambdamr jobs` lists them."
        ) from None
    stages = [_stage(store, manifest, index) for index in range(len(manifest.stages))]
    end = read_end(store, JobKeys(job))
    return JobLook(manifest, _state(store, manifest, end), end, stages)


def _manifest(store: Store, job: str) -> Manifest:
    key = JobKeys(job).manifest
    return Manifest.decode(store.get(key), key)


def _state(store: Store, manifest: Manifest, end: Report | None) -> State:
    if end is not None:
        return State(end.status)
    if local_path(store.root) is not None and not is_alive(store.root, manifest.owner):
        return State.ABANDONED
    return State.RUNNING


def _ended(store: Store, manifest: Manifest) -> int:
    """Return how many tasks have an outcome, by the names of the outcomes alone."""
    count = 0
    for index in range(len(manifest.stages)):
        run = StageRun.of(manifest, index)
        for entry in store.list(run.keys.all_outcomes):
            count += len(run.plan.tasks_of(last_number(entry.key)))
    return count


def _has_failures(store: Store, manifest: Manifest) -> bool:
    runs = (StageRun.of(manifest, index) for index in range(len(manifest.stages)))
    return any(True for run in runs for _ in store.list(run.keys.failures))


def _stage(store: Store, manifest: Manifest, index: int) -> StageLook:
    run = StageRun.of(manifest, index)
    found = StageLook(run)
    chunks = sorted(last_number(entry.key) for entry in store.list(run.keys.all_outcomes))
    for chunk in chunks:
        key = run.keys.outcome(run.plan.group_of(chunk), chunk)
        outcome, frames = read_outcome(store, key)
        found.ended += outcome.count
        found.failed += outcome.failed if outcome.worker != CLIENT else 0
        found.spent.add(outcome)
        found.peak_mb = max(found.peak_mb, outcome.peak_mb)
        for task, frame in zip(run.plan.tasks_of(chunk), frames, strict=True):
            if frame.kind is FrameKind.VALUE and run.stage.kind in _OURS:
                found.values.append(serialize.loads(frame.payload))
            found.tasks += _task(run.stage.name, task, frame, key)
    missing = set(range(run.plan.chunks)).difference(chunks)
    found.open_lanes = len({chunk % run.plan.lanes for chunk in missing})
    found.silent_lanes = run.plan.lanes - len({chunk % run.plan.lanes for chunk in chunks})
    return found


_OURS = (StageKind.MAP, StageKind.REDUCE, StageKind.FINAL)


def _task(stage: str, task: int, frame: Frame, source: str) -> Iterator[TaskLook]:
    error = ""
    if frame.kind is FrameKind.ERROR:
        record = serialize.load_error(frame.payload, source)
        error = f"{record.type_name}: {record.message}".partition("\n")[0]
    if error or frame.log:
        yield TaskLook(stage, task, error, frame.log.decode("utf-8", "backslashreplace"))
