"""Removing what earlier jobs left in a directory.

Only what bears a name of ours goes. A job's age is in its id: whole jobs go, with all their shuffle
objects, but never one that has not ended and whose client lives. Functions and data are shared
between jobs: they go when they have not been written for the age, nor since the oldest living
client began, because every client writes what it needs anew.
"""

import contextlib
import errno
import os
import shutil
import time

from lambdamr.config import absolute_root, load_config
from lambdamr.deleting import may_run
from lambdamr.ownership import oldest_client_s
from lambdamr_runtime.errors import StoreError
from lambdamr_runtime.keys import DATA, FUNCTIONS, JOBS, JobKeys, is_job_id, is_sha
from lambdamr_runtime.store import Store, local_path, open_store

DAY_S = 86_400.0


def clean(older_than_s: float | None = None, *, root: str | None = None) -> list[str]:
    """Remove ended and abandoned jobs that are older than so many seconds.

    Args:     older_than_s: None: the configured keep_days. root: None: as configured.
    Returns:  ids of the jobs that were removed, oldest first.
    Raises:   ValueError: a negative age, or a root that is no local directory. StoreError: the
              system refuses.
    """
    if older_than_s is not None and not older_than_s >= 0:
        raise ValueError(f"older_than_s must be >= 0, got {older_than_s}")
    config = load_config()
    age_s = config.keep_days * DAY_S if older_than_s is None else older_than_s
    place = absolute_root(root) if root else config.root
    _check_local(place)  # before a store is asked for credentials
    return clean_root(open_store(place), age_s)


def clean_daily(store: Store, keep_days: float) -> None:
    """Clean a directory unless somebody did so within a day."""
    marker = os.path.join(_folder(store), "cleaned")
    try:
        if time.time() - os.stat(marker).st_mtime < DAY_S:
            return
    except OSError:
        pass
    # A read-only or vanished directory is nobody's to clean.
    with contextlib.suppress(OSError, StoreError):
        with open(marker, "wb"):
            pass
        clean_root(store, keep_days * DAY_S)


def clean_root(store: Store, age_s: float) -> list[str]:
    """Remove the jobs of a directory store; see `clean`."""
    folder = _folder(store)
    if age_s >= time.time():  # nothing is that old, and no calendar goes back so far
        return []
    limit = time.strftime("%Y%m%d-%H%M%S-", time.gmtime(time.time() - age_s))
    with contextlib.suppress(FileNotFoundError):
        jobs = sorted(filter(is_job_id, os.listdir(os.path.join(folder, JOBS))))
        removed = [job for job in jobs if job < limit and not may_run(store, job)]
        for job in removed:
            remove_local(store, JobKeys(job))
        _remove_shared(folder, min(time.time() - age_s, oldest_client_s(store.root)))
        return removed
    return []


def remove_local(store: Store, keys: JobKeys) -> None:
    """Remove all of a job, directories and all.

    Raises:  StoreError: the system refuses.
    """
    folder = _folder(store)
    for prefix in (*keys.shuffle_prefixes, keys.prefix):
        path = os.path.join(folder, prefix)
        while os.path.lexists(path):
            try:
                shutil.rmtree(path)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTEMPTY):
                    continue  # somebody else removes it too, or writes there still
                raise StoreError(f"Could not delete {path}: {error.strerror}") from error


def _remove_shared(folder: str, before_s: float) -> None:
    for name in (FUNCTIONS, DATA):
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(os.path.join(folder, name)):
                with contextlib.suppress(FileNotFoundError):
                    if is_sha(entry.name) and entry.stat().st_mtime < before_s:
                        os.unlink(entry.path)


def _folder(store: Store) -> str:
    return _check_local(store.root)


def _check_local(root: str) -> str:
    """Return the path of a root that is a local directory.

    Raises:  ValueError: it is none.
    """
    path = local_path(root)
    if path is None:
        raise ValueError(f"{root} is no local directory; its lifecycle rules clean it.")
    return path
