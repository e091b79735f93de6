"""Running again what has no result: a new job from the stored pieces of an earlier one.

Functions and arguments travel as the bytes that they were stored as: nothing of the user's is
loaded here.
"""

from collections.abc import Sequence
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING

from lambdamr.arguments import StoredArgs
from lambdamr.submission import Submission
from lambdamr_runtime import serialize
from lambdamr_runtime.errors import JobNotFound
from lambdamr_runtime.keys import StageKeys, function_key, new_job_id
from lambdamr_runtime.lanes import automatic_chunksize
from lambdamr_runtime.limits import INLINE_BYTES
from lambdamr_runtime.packed import FunctionObject, pack_args
from lambdamr_runtime.store import checked_sha
from lambdamr_runtime.wire import Manifest, Stage, StageKind
from lambdamr_runtime.work import Deferred

if TYPE_CHECKING:
    from lambdamr.futures import Future
    from lambdamr.tracked import TrackedJob, TrackedStage
    from lambdamr_runtime.store import Store


def retry_calls(stage: "TrackedStage", tasks: Sequence[int]) -> "Sequence[Future]":
    """Start a job that calls the function of a map again for some of its tasks.

    Returns:  their futures, in the order of *tasks*.
    Raises:   ValueError: the tasks are no calls of a map. RuntimeError: after shutdown.
    """
    job = stage.job
    if len(job.stages) > 1 or stage.run.stage.kind is not StageKind.CALL:
        raise ValueError(
            f"The tasks of stage {stage.run.stage.name!r} of job {stage.job_id} hang on others and "
            "cannot be run by themselves. Use retry_failed() of the whole job, or call it again."
        )
    stored = StoredArgs(job.backend.store, stage.run)
    plan = stage.run.plan
    chunks = {chunk: stored.packed(chunk) for chunk in {plan.chunk_of(task) for task in tasks}}
    args = [_again(stage, task, chunks[plan.chunk_of(task)]) for task in tasks]
    size = automatic_chunksize(len(tasks), job.backend.workers)
    first = replace(stage.run.stage, tasks=len(tasks), chunksize=size, has_args=True)
    return _start(job, [first], args).stages[0].futures


def retry_job(job: "TrackedJob") -> "TrackedJob":
    """Start a map_reduce anew, in which the map tasks that had a result are taken over.

    Raises:  ValueError: its output has been placed already. RuntimeError: after shutdown.
    """
    from lambdamr_runtime.adopting import Adopted

    _check_output(job)
    mapping = job.stages[0]
    stored = StoredArgs(job.backend.store, mapping.run)
    args: list[object] = []
    for future in mapping.futures:
        if future.cancelled() or future.exception(0) is not None:
            chunk = stored.packed(mapping.run.plan.chunk_of(future.task))
            args.append(_again(mapping, future.task, chunk))
        else:
            args.append(Adopted(mapping.job_id, mapping.run.stage.name, future.result(0)))
    return _start(job, [stage.run.stage for stage in job.stages], args)


def _again(stage: "TrackedStage", task: int, chunk: bytes) -> Deferred:
    plan = stage.run.plan
    return Deferred(chunk, task - plan.tasks_of(plan.chunk_of(task)).start)


def _start(job: "TrackedJob", stages: Sequence[Stage], args: Sequence[object]) -> "TrackedJob":
    """Start a job of the same functions; *args* are those of its first stage's tasks."""
    if job.engine is None:
        raise RuntimeError(f"Job {job.manifest.job} is followed by no executor.")
    store, width = job.backend.store, job.backend.width
    name = new_job_id(time())
    size = stages[0].chunksize
    packed = pack_args(
        [serialize.plain_dumps(args[at : at + size]) for at in range(0, len(args), size)]
    )
    functions = [_function(store, stage) for stage in stages]
    inline = sum(map(len, functions)) + len(packed) <= INLINE_BYTES
    objects: list[tuple[str, bytes]] = []
    made: list[Stage] = []
    for stage, function in zip(stages, functions, strict=True):
        own_args = packed if not made else b""
        if not inline:
            objects.append((function_key(stage.function), function))
            if own_args:
                objects.append((StageKeys(name, stage.name).args, own_args))
        made.append(
            replace(
                stage,
                width=width,
                inline_function=function if inline else b"",
                inline_args=own_args if inline else b"",
            )
        )
    manifest = Manifest(
        name, tuple(made), time(), job.backend.owner, timeout_s=job.manifest.timeout_s
    )
    submission = Submission(manifest, manifest.encode(), tuple(objects), (), job.modules)
    return job.engine.start(submission)


def _function(store: "Store", stage: Stage) -> bytes:
    """Return the function object of a stage."""
    if stage.inline_function:
        return stage.inline_function
    key = function_key(stage.function)
    try:
        return checked_sha(store.get(key), key)
    except FileNotFoundError:
        raise JobNotFound(
            f"{key}, the function of the job, is gone. Somebody deleted it; call it again."
        ) from None


def _check_output(job: "TrackedJob") -> None:
    """Refuse what the finalizer would refuse when all is done again."""
    last = job.stages[-1].run.stage
    if last.kind is not StageKind.FINAL or job.end is None or job.end.status != "done":
        return
    function = FunctionObject.decode(_function(job.backend.store, last), last.function)
    work = serialize.loads(function.pickled)
    if not work.overwrite:
        raise ValueError(
            f"Job {job.manifest.job} has placed its output in {work.folder!r}. Remove it before "
            "retry_failed(), or give map_reduce overwrite=True."
        )
