"""What the model must know of a job: numbers and sizes, from a packed job or from its manifest."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lambdamr.planning.reading import reads_of
from lambdamr_runtime.lanes import LanePlan
from lambdamr_runtime.limits import EVENT_BYTES
from lambdamr_runtime.mapreduce import Map, Reduce
from lambdamr_runtime.outputs import Final, is_same_store
from lambdamr_runtime.store import PART_BYTES, local_path
from lambdamr_runtime.wire import Manifest, Stage, StageKind

if TYPE_CHECKING:
    from lambdamr.submission import Footprint, StageDraft, Submission


@dataclass(frozen=True, slots=True)
class Placing:
    """What a finalizer copies, and where to."""

    files: int
    """Files of the stage before."""
    remote: bool
    """Whether the destination is an object store, whose requests count."""
    copied: bool
    """Whether the store copies by itself; else the bytes pass through the worker."""
    single: bool
    pieces: int
    """Ranged reads that all files take where they are streamed."""


@dataclass(frozen=True, slots=True)
class StageShape:
    """One stage."""

    name: str
    kind: StageKind
    plan: LanePlan
    environments: int
    """Processes that run its lanes: each fetches once what lanes share. Before the run, one for
    each lane: none is warm."""
    function_bytes: int = 0
    function_stored: bool = False
    args_bytes: int = 0
    args_stored: bool = False
    args_apart: int = 0
    """Chunks whose arguments take a request of their own."""
    references: int = 0
    """Objects fetched because arguments refer to them: outcomes of other tasks, data."""
    results_stored: int = 0
    """Chunks whose results have an object beside their outcome."""
    input_reads: int = 0
    """Ranged reads of input objects."""
    reads_are_known: bool = True
    """False where the mapper decides what it reads."""
    input_bytes: int = 0
    splits: int = 0
    """Parts of input objects, each read by itself; a task may have several."""
    writes: int = 0
    """Requests that write shuffle objects and output parts."""
    slices: int = 0
    """Slices of shuffle objects that the tasks read."""
    columns: int = 0
    """Group indexes that the tasks read."""
    placing: Placing | None = None
    """Of a finalizer."""


@dataclass(frozen=True, slots=True)
class JobShape:
    """A job."""

    name: str
    stages: tuple[StageShape, ...]
    manifest_bytes: int
    stored: int
    """Objects that the client writes before the manifest."""
    stored_bytes: int
    counted: bool
    """Whether the barrier reads what chunks add up to."""
    reported: bool
    """Whether the client reads the report: the job is over with it alone."""
    looks_first: bool = False
    """Whether workers look for an outcome before each chunk, as they do in a local directory."""

    @property
    def rides_along(self) -> bool:
        """Whether events carry the manifest, so that no worker fetches it."""
        return self.manifest_bytes <= EVENT_BYTES * 3 // 4


def shape_of_submission(
    submission: "Submission", root: str, known: set[str], *, near: bool
) -> JobShape:
    """Return the shape of a job that is packed but not launched.

    Args:  root: of the store. known: keys that this client need not store again.
           near: whether workers have the store as a local directory.
    """
    base = shape_of_manifest(submission.manifest, len(submission.encoded), near=near)
    stages = [
        _with_footprint(_with_work(shape, draft, root), footprint)
        for shape, draft, footprint in zip(
            base.stages, submission.drafts, submission.footprints, strict=True
        )
    ]
    objects = {key: len(data) for key, data in submission.objects if key not in known}
    return replace(
        base,
        stages=_linked(stages),
        stored=len(objects),
        stored_bytes=sum(objects.values()),
    )


def shape_of_manifest(manifest: Manifest, manifest_bytes: int, *, near: bool) -> JobShape:
    """Return what a manifest alone tells of a job.

    What it does not tell stands at its least: sizes of stored functions and arguments are 0, an
    input is read with one request per task.
    """
    stages = [_of_stage(stage) for stage in manifest.stages]
    several = len(stages) > 1
    objects = sum(each.args_stored for each in stages)
    functions = {stage.function for stage in manifest.stages if not stage.inline_function}
    return JobShape(
        name=" + ".join(stage.name for stage in manifest.stages),
        stages=_linked(stages),
        manifest_bytes=manifest_bytes,
        stored=objects + len(functions),
        stored_bytes=0,
        counted=several or manifest.stages[0].max_failures is not None,
        reported=manifest.ends_with_report,
        looks_first=near,
    )


def _of_stage(stage: Stage) -> StageShape:
    writes = stage.tasks if stage.kind in (StageKind.MAP, StageKind.REDUCE) else 0
    return StageShape(
        stage.name,
        stage.kind,
        stage.plan,
        environments=stage.plan.lanes,
        function_bytes=len(stage.inline_function),
        function_stored=not stage.inline_function,
        args_bytes=len(stage.inline_args),
        args_stored=stage.has_args and not stage.inline_args,
        input_reads=stage.tasks if stage.input_bytes else 0,
        input_bytes=stage.input_bytes,
        writes=writes,
    )


def _with_work(shape: StageShape, draft: "StageDraft", root: str) -> StageShape:
    """Add what the work of a stage tells: the reads of its input, the files it writes."""
    work = draft.work
    if isinstance(work, Map):
        tasks = draft.args or ()
        reads, known = reads_of(work.reader, tasks) if work.reader else (0, True)
        splits = sum(map(len, tasks)) if work.reader else 0
        shape = replace(shape, input_reads=reads, reads_are_known=known, splits=splits)
    if isinstance(work, (Map, Reduce)) and work.form is not None and not work.form.is_pickle:
        return replace(shape, writes=shape.writes + shape.plan.tasks)
    if isinstance(work, Final):
        remote = local_path(work.folder) is None
        copied = remote and is_same_store(work.folder, root)
        placing = Placing(0, remote, copied and not work.single, bool(work.single), 0)
        return replace(shape, placing=placing)
    return shape


def with_footprints(job: JobShape, footprints: "Sequence[Footprint]") -> JobShape:
    """Add what the client knows of a job that it has submitted itself; there are none of others."""
    if not footprints:
        return job
    stages = tuple(map(_with_footprint, job.stages, footprints))
    stored_bytes = sum(
        each.function_bytes * each.function_stored + each.args_bytes * each.args_stored
        for each in stages
    )
    return replace(job, stages=_linked(stages), stored_bytes=stored_bytes)


def _with_footprint(shape: StageShape, footprint: "Footprint") -> StageShape:
    return replace(
        shape,
        function_bytes=footprint.function_bytes,
        args_bytes=footprint.args_bytes,
        args_apart=footprint.args_apart,
        references=footprint.references,
    )


def _linked(stages: Sequence[StageShape]) -> tuple[StageShape, ...]:
    """Add what a stage reads of the one before it: as much as there can be."""
    linked: list[StageShape] = []
    for shape in stages:
        before = linked[-1] if linked else None
        if before is not None and shape.kind is StageKind.FOLD:
            shape = replace(shape, references=shape.references + before.plan.tasks)
        if before is not None and shape.kind is StageKind.REDUCE:
            tasks = shape.plan.tasks
            shape = replace(
                shape, columns=tasks * before.plan.groups, slices=tasks * before.plan.tasks
            )
        if before is not None and shape.placing is not None:
            files = before.plan.tasks
            shape = replace(shape, placing=replace(shape.placing, files=files, pieces=files))
        linked.append(shape)
    return tuple(linked)


def requests_to_write(size: int) -> int:
    """Return the requests that write an object of so many bytes: one, or those of an upload."""
    return 1 if size <= PART_BYTES else 2 + -(-size // PART_BYTES)
