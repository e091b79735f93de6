"""Deleting one job: all that is stored under its names, and nothing else.

A job that may run is deleted only by force: it is cancelled first. Workers that have begun see its
tombstone within seconds; unless this client's own pool knows that none has it any more, tombstone
and report stay behind, two small objects, so that none goes on and writes it anew. `lambdamr.clean`
and the lifecycle rules of a bucket remove them with their age.
"""

import time
from typing import TYPE_CHECKING

from lambdamr.config import absolute_root, load_config
from lambdamr.ownership import is_alive
from lambdamr_runtime.barrier import Report, end_job
from lambdamr_runtime.errors import JobNotFound, JobRunning, LambdamrError
from lambdamr_runtime.keys import JobKeys, is_job_id
from lambdamr_runtime.store import Store, local_path, open_store
from lambdamr_runtime.wire import Manifest

if TYPE_CHECKING:
    from lambdamr.tracked import TrackedJob

QUIET_S = 5.0
"""How long a forced deletion waits for the workers of this client to let go of the job."""

QUIET_LOOK_S = 0.005
"""Time between two looks whether they have."""


def delete(job_id: str, *, root: str | None = None, force: bool = False) -> None:
    """Remove all that is stored of a job; never what it wrote under output=, nor another job's.

    Args:    root: where the job is stored; None: as configured.
             force: delete it though it may be running; it is cancelled first.
    Raises:  JobNotFound. JobRunning: it has not ended, and its client may live.
    """
    store = open_store(absolute_root(root) if root else load_config().root)
    keys = JobKeys(job_id)
    if not is_job_id(job_id) or next(iter(store.list(keys.prefix)), None) is None:
        raise JobNotFound(
            f"There is no job {job_id!r} under {store.root}. Check the id, and root= or "
            "LAMBDAMR_ROOT."
        )
    running = may_run(store, job_id)
    if running:
        _check_forced(job_id, force)
        end_job(store, keys, Report("cancelled", "deleted", time.time()))
    _remove(store, keys, keep_end=running)


def delete_tracked(job: "TrackedJob", force: bool) -> None:
    """Delete a job that this client follows; see `delete`."""
    name, store = job.manifest.job, job.backend.store
    running = not job.is_over
    if running:
        _check_forced(name, force)
        job.poller.cancel_job(job)
    is_ours = job.backend.hints and job.manifest.owner == job.backend.owner
    if is_ours:
        running = not _is_quiet(job)
    elif not running and may_run(store, name):
        running = True
        _check_forced(name, force)
        end_job(store, job.keys, Report("cancelled", "deleted", time.time()))
    _remove(store, job.keys, keep_end=running)


def may_run(store: Store, job: str) -> bool:
    """Whether a job has not ended and its client may live; elsewhere than on this machine it need
    not live for that.
    """
    keys = JobKeys(job)
    try:
        if store.exists(keys.report):
            return False
        manifest = Manifest.decode(store.get(keys.manifest), keys.manifest)
    except (FileNotFoundError, LambdamrError):  # never launched, or of another release
        return False
    return local_path(store.root) is None or is_alive(store.root, manifest.owner)


def _check_forced(job: str, force: bool) -> None:
    if not force:
        raise JobRunning(
            f"Job {job} has not ended. Wait for it, or cancel it, or give force=True, which does."
        )


def _is_quiet(job: "TrackedJob") -> bool:
    """Wait until no worker of this client's pool has the job; whether that has come."""
    deadline = time.monotonic() + QUIET_S
    while job.backend.has_begun(job.manifest.job):
        if time.monotonic() > deadline:
            return False
        time.sleep(QUIET_LOOK_S)
    return True


def _remove(store: Store, keys: JobKeys, keep_end: bool) -> None:
    if not keep_end and local_path(store.root) is not None:
        from lambdamr.cleaning import remove_local  # directories and all

        remove_local(store, keys)
        return
    kept = {keys.cancelled, keys.report} if keep_end else set()
    for prefix in (*keys.shuffle_prefixes, keys.prefix):
        store.delete([entry.key for entry in store.list(prefix) if entry.key not in kept])
