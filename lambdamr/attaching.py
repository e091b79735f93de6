"""Back to jobs that were submitted earlier, by this process or another one."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from lambdamr.backend import RemoteBackend
from lambdamr.config import absolute_root
from lambdamr.executor import Executor
from lambdamr.futures import Futures
from lambdamr.job import Job
from lambdamr.ownership import is_alive
from lambdamr.places import default_root
from lambdamr.tracked import Launch, TrackedJob
from lambdamr_runtime.errors import JobNotFound
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.sweep import sweep
from lambdamr_runtime.wire import Manifest, StageKind

if TYPE_CHECKING:
    from lambdamr.engine import Engine

_executors: dict[str, Executor] = {}
"""The executor that follows attached jobs, by root."""
_lock = threading.Lock()
"""Held while a job is looked up and followed: of several threads that attach to it, one begins to
follow it, and all get the same futures."""


def attach(
    job_id: str, *, root: str | None = None, return_exceptions: bool = False
) -> "Futures | Job":
    """Return the futures, or the map_reduce job, of an earlier submission.

    A job whose client is gone goes on here: what it had committed stays, the rest is run by the
    workers of this process.

    Args:    root: where the job is stored; None: as configured.
             return_exceptions: `result()` of the futures gives exceptions as values. A job does
             not know how it was asked for when it was submitted: say it again here.
    Raises:  JobNotFound; RuntimeMismatch: made with another Python or release.
    """
    tracked, executor = _track(job_id, absolute_root(root) if root else default_root())
    bars = executor.bars()
    if tracked.manifest.stages[0].kind is StageKind.MAP:
        return Job(tracked, bars)
    return Futures(tracked.stages[-1].futures, return_exceptions, bars)


def attach_stage(job_id: str, root: str, stage: int) -> Futures:
    """Return the futures of one stage: how a future that was pickled comes back."""
    tracked, executor = _track(job_id, root)
    return Futures(tracked.stages[stage].futures, progress=executor.bars())


def _track(job_id: str, root: str) -> tuple[TrackedJob, Executor]:
    with _lock:
        executor = _executors.get(root)
        if executor is None:
            executor = _executors[root] = Executor(root=root)
        engine = executor.engine()
        return engine.poller.find(job_id) or _follow_stored(job_id, root, engine), executor


def _follow_stored(job_id: str, root: str, engine: "Engine") -> TrackedJob:
    """Follow a job that is known by its id alone."""
    store = engine.backend.store
    key = JobKeys(job_id).manifest
    try:
        data = store.get(key)
    except (FileNotFoundError, ValueError):  # not there, or no key at all
        raise JobNotFound(
            f"There is no job {job_id!r} under {root}. Check the id, and root= or LAMBDAMR_ROOT."
        ) from None
    manifest = Manifest.decode(data, key)
    tracked = TrackedJob(manifest, engine.backend, engine.poller)
    tracked.engine = engine
    follow(tracked)
    return tracked


def follow(job: TrackedJob) -> None:
    """Follow a job that somebody launched, and run it here once that client is gone."""
    backend = job.backend
    job.is_attached = True
    if isinstance(backend, RemoteBackend):
        job.take_over = backend.watch(job, is_new=False)
    else:
        job.take_over = _taking_over(job)
    job.launch = Launch.LAUNCHED
    job.poller.add(job)
    job.poller.look()


def _taking_over(job: TrackedJob) -> Callable[[], None]:
    """Return what runs a job here, as soon as its client is gone."""
    backend = job.backend

    def take_over() -> None:
        if not is_alive(backend.store.root, job.manifest.owner):
            sweep(backend.store, job.manifest, backend.invoke, job.poller.machine.time())
            job.take_over = None  # after a sweep that failed, the next look sweeps again

    return take_over
