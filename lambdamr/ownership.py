"""Which clients live: a locked file each, so that nobody takes over or removes a running job."""

import contextlib
import os
import threading

from lambdamr_runtime.errors import StoreError
from lambdamr_runtime.store import local_path


class Ownership:
    """A locked file that says: this client lives, its unfinished jobs are being worked on."""

    def __init__(self, root: str, owner: str) -> None:
        self._path = owner_path(root, owner)
        self._lock = threading.Lock()
        self._descriptor = -1

    def hold(self) -> None:
        """Say that this client lives.

        It begins before the client stores anything: what is younger than its file may be its own.

        Raises:  StoreError: nothing can be written there.
        """
        with self._lock:
            if self._descriptor >= 0:
                return
            try:
                os.makedirs(os.path.dirname(self._path), exist_ok=True)
                self._descriptor = _locked(self._path)
            except OSError as error:
                raise StoreError(
                    f"Could not write {self._path}: {error.strerror}. Give root= or "
                    "LAMBDAMR_ROOT a directory that you may write to."
                ) from error

    def release(self) -> bool:
        """Give up the file; whether it was held."""
        with self._lock:
            if self._descriptor < 0:
                return False
            with contextlib.suppress(OSError):  # the directory may be gone
                os.unlink(self._path)
            os.close(self._descriptor)
            self._descriptor = -1
            return True


def oldest_client_s(root: str) -> float:
    """Return when the oldest of the living clients began, seconds since the epoch; infinite where
    none lives.
    """
    oldest = float("inf")
    folder = os.path.dirname(owner_path(root, ""))
    owners: list[str] = []
    with contextlib.suppress(OSError):
        owners = os.listdir(folder)
    for owner in owners:
        with contextlib.suppress(OSError):  # one that ends meanwhile hides no other
            if is_alive(root, owner):
                oldest = min(oldest, os.stat(os.path.join(folder, owner)).st_mtime)
    return oldest


def owner_path(root: str, owner: str) -> str:
    """Return the path of a client's lock file."""
    return os.path.join(local_path(root) or root, "owners", owner)


def is_alive(root: str, owner: str) -> bool:
    """Whether the client that submitted a job still runs, on this machine."""
    import fcntl  # POSIX only, as this backend is

    try:
        descriptor = os.open(owner_path(root, owner), os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):  # the last: it has no name
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(descriptor, owner_path(root, owner)):  # else a new one lies there by now
            os.unlink(owner_path(root, owner))
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def _locked(path: str) -> int:
    """Return the descriptor of a file that is locked and still the one of that name.

    Between the two, somebody may have found it unlocked, taken its maker for dead and removed it.
    """
    import fcntl  # POSIX only, as this backend is

    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_at(descriptor, path):
            return descriptor
        os.close(descriptor)


def _is_at(descriptor: int, path: str) -> bool:
    """Whether the file of a descriptor is the one that bears this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
