"""Local files for workers that are elsewhere: copied under the root, once a day at most."""

import hashlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lambdamr_runtime.clock import Clock, SystemClock
from lambdamr_runtime.errors import InputChanged, InputNotFound
from lambdamr_runtime.keys import input_key
from lambdamr_runtime.limits import MIB
from lambdamr_runtime.store import local_path

if TYPE_CHECKING:
    from lambdamr_runtime.store import Store

READ_BYTES = 1 * MIB

RENEW_S = 24 * 3600
"""Age from which on a copy is put again: the bucket's lifecycle removes old ones."""


def upload(store: "Store", path: str | os.PathLike[str], clock: Clock | None = None) -> str:
    """Return a URI by which workers read a local file; see Executor.upload."""
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise InputNotFound(f"There is no file {path!r} to upload. Check the path.")
    if local_path(store.root) is not None:
        return path
    sha = _sha256(path)
    key = input_key(sha, os.path.basename(path))
    if not _is_fresh(store, key, clock or SystemClock()):
        store.put_stream(key, _blocks(path, sha))
    return f"{store.root.rstrip('/')}/{key}"


def _is_fresh(store: "Store", key: str, clock: Clock) -> bool:
    """Whether a copy is there, and will be for long."""
    try:
        return clock.time() - store.head(key).modified_s < RENEW_S
    except FileNotFoundError:
        return False


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _blocks(path: str, sha: str) -> Iterator[bytes]:
    """Yield what a file holds.

    Raises:  InputChanged: in the end, if that was not what has this sha256. The upload is given up
             then: later ones of what it was would take it for that.
    """
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            found.update(block)
            yield block
    if found.hexdigest() != sha:
        raise InputChanged(f"{path!r} was written to while it was uploaded. Upload it again.")
