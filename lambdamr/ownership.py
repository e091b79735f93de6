"""Which clients live: a locked file each, so that nobody takes over or removes a running job."""

import contextlib
import os
import threading

from lambdamr_runtime.store import local_path


class Ownership:
    """A locked file that says: this client lives, its unfinished jobs are being worked on."""

    def __init__(self, root: str, owner: str) -> None:
        self._path = owner_path(root, owner)
        self._lock = threading.Lock()
        self._descriptor = -1

    def hold(self) -> None:
        with self._lock:
            if self._descriptor < 0:
                import fcntl  # POSIX only, as this backend is

                os.makedirs(os.path.dirname(self._path), exist_ok=True)
                self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def release(self) -> bool:
        """Give up the file; whether it was held."""
        with self._lock:
            if self._descriptor < 0:
                return False
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            os.close(self._descriptor)
            self._descriptor = -1
            return True


def owner_path(root: str, owner: str) -> str:
    """Return the path of a client's lock file."""
    return os.path.join(local_path(root) or root, "owners", owner)


def is_alive(root: str, owner: str) -> bool:
    """Whether the client that submitted a job still runs, on this machine."""
    import fcntl  # POSIX only, as this backend is

    try:
        descriptor = os.open(owner_path(root, owner), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(owner_path(root, owner))
    return False
