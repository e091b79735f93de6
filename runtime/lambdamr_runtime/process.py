"""What keeps a warm process clean, and what its watchdog may see of it.

Everything here is shared by a kept child process (which runs tasks) and its parent (which
watches): files without a name and a page of shared memory, made before the fork.
"""

import _signal  # type: ignore[import-not-found]  # has no stub
import contextlib
import gc
import logging
import mmap
import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from io import FileIO, TextIOWrapper
from typing import Any
from zlib import crc32

from lambdamr_runtime.frozen import frozen
from lambdamr_runtime.limits import LOG_BYTES, OUTPUT_BYTES
from lambdamr_runtime.wire import Frame, decode_frames, encode_frames

KEPT_THREAD = "lambdamr-tombstone"
"""The one thread of a worker's process that outlives its tasks."""

NESTED_PATIENCE_S = 0.2
"""How long the thread of a nested executor may take to end after its task."""


@frozen
class Running:
    """The task that a process runs."""

    number: int
    """Counts the tasks begun by the process and its predecessors."""
    chunk: int
    task: int
    deadline: float
    """On the monotonic clock, seconds; infinite for a task without a time limit."""
    execution: str
    began_s: float = 0.0
    """Seconds since the epoch."""
    limit_s: float = float("inf")
    """How long it may run: the deadline, from its start."""


def unnamed_file() -> FileIO:
    """Return a new file in the temporary folder that ends with the process.

    tempfile does the same, and loads bz2, lzma and random first: 6 ms of a cold start.
    """
    try:
        folder = os.environ.get("TMPDIR") or "/tmp"
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    except (AttributeError, OSError):  # Linux only, and not on every file system
        import tempfile

        return tempfile.TemporaryFile(buffering=0)
    return FileIO(descriptor, "r+b")


class ProgressPage:
    """One page of shared memory that says which task runs; a write costs about a microsecond.

    Its reader may look while its writer writes, or has died halfway. So a row has a checksum, and
    is written in turn to one of two places: the row before stands until the next one is whole. All
    else is one word, which a processor writes at once.
    """

    _ROW = struct.Struct("<Qqqd16sdd")
    _SUM = struct.Struct("<I")
    _PLACES = (64, 192)
    _BEAT, _ENDS, _MEMORY = 0, 1, 2  # 8 bytes each

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._words = memoryview(self._page)[: self._PLACES[0]].cast("d")
        self._number = 0
        self.end()
        self.limit(float("inf"))

    def begin(self, chunk: int, task: int, limit_s: float, execution: str) -> None:
        """Say that a task runs, and how long it may; infinite without a limit."""
        self._number += 1
        deadline = time.monotonic() + limit_s
        stamp = execution.encode()
        row = self._ROW.pack(self._number, chunk, task, deadline, stamp, time.time(), limit_s)
        row += self._SUM.pack(crc32(row))
        at = self._PLACES[self._number % 2]
        self._page[at : at + len(row)] = row

    def end(self) -> None:
        """Say that no task runs."""
        self.begin(-1, -1, float("inf"), "")

    def running(self) -> Running | None:
        """Return the running task, or None between tasks."""
        number, chunk, task, deadline, stamp, began, limit_s = self._last()
        if chunk < 0:
            return None
        execution = stamp.rstrip(b"\0").decode()
        return Running(number, chunk, task, deadline, execution, began, limit_s)

    def _last(self) -> tuple[Any, ...]:
        """Return the row that was written last."""
        before: tuple[Any, ...] = ()
        while True:
            rows = [self._ROW.unpack(row) for row in map(self._row, self._PLACES) if row]
            last = max(rows, default=())
            # Of one place alone: the writer may have been there and gone on since that was read.
            if len(rows) == len(self._PLACES) or (last and last == before):
                return last
            before = last

    def _row(self, at: int) -> bytes:
        """Return the row at a place; b"" unless it is whole."""
        end = at + self._ROW.size
        row = self._page[at:end]
        (checksum,) = self._SUM.unpack_from(self._page, end)
        return row if crc32(row) == checksum else b""

    def beat(self) -> None:
        """Say that threads of the process run: none can while a C call holds the GIL."""
        self._words[self._BEAT] = time.monotonic()

    def beaten_s(self) -> float:
        """Return when that was last said, on the monotonic clock."""
        return self._words[self._BEAT]

    def limit_memory(self, limit_mb: int) -> None:
        """Say how much memory the process may use for what it runs, MiB; 0: as much as ever."""
        self._words[self._MEMORY] = limit_mb

    def memory_mb(self) -> int:
        return int(self._words[self._MEMORY])

    def limit(self, ends: float) -> None:
        """Say until when the running event may last, on the monotonic clock."""
        self._words[self._ENDS] = ends

    def ends(self) -> float:
        """Return until when the running event may last, on the monotonic clock."""
        return self._words[self._ENDS]

    def resume(self) -> None:
        """Count on from what an earlier process wrote."""
        self._number = self._last()[0]

    def bury(self) -> None:
        """Say that no task runs, in place of a process that has died: called by its parent. Else
        the next process, until it begins its first task, would pass the dead one's time limit.
        """
        self.resume()
        self.end()


class Spool:
    """Frames of the chunk that runs, kept outside the process that makes them."""

    _ROW = struct.Struct("<qQ")
    _EXECUTION_BYTES = 16

    def __init__(self) -> None:
        self._file = unnamed_file()

    def begin(self, execution: str) -> None:
        """Start a chunk: what was kept of another one goes."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(execution.encode())

    def add(self, task: int, frame: Frame) -> None:
        data = encode_frames((frame,))
        self._file.write(self._ROW.pack(task, len(data)) + data)

    def frames(self, execution: str) -> dict[int, Frame]:
        """Return the frames that *execution* finished; none if another one wrote last."""
        self._file.seek(0)
        data = self._file.read()
        at = self._EXECUTION_BYTES
        frames: dict[int, Frame] = {}
        if data[:at] != execution.encode():
            return frames
        while at + self._ROW.size <= len(data):
            task, size = self._ROW.unpack_from(data, at)
            at += self._ROW.size
            if at + size > len(data):
                break  # the process died while it wrote this one
            frames[task] = decode_frames(data[at : at + size], 1, "the spool")[0]
            at += size
        return frames


class Output:
    """stdout and stderr of the process, caught at the file descriptors so that C prints too."""

    def __init__(self) -> None:
        self._file = unnamed_file()
        self._fd = self._file.fileno()
        os.set_blocking(self._fd, True)

    def redirect(self) -> None:
        """Point descriptors 1 and 2 and sys.stdout and sys.stderr here, for good."""
        import fcntl  # POSIX only, as the kept child is

        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | os.O_APPEND)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        for descriptor, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(self._fd, descriptor)
            stream = TextIOWrapper(
                open(descriptor, "wb", buffering=0, closefd=False),
                encoding="utf-8",
                errors="backslashreplace",
                write_through=True,
            )
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)

    def take(self) -> bytes:
        """Return the tail of what was written since the last call, LOG_BYTES at most."""
        size = os.fstat(self._fd).st_size
        if not size:
            return b""
        with self._untrimmed() if size > OUTPUT_BYTES else contextlib.nullcontext():
            size = os.fstat(self._fd).st_size
            tail = os.pread(self._fd, LOG_BYTES, max(0, size - LOG_BYTES))
            os.ftruncate(self._fd, 0)
        return tail

    def peek(self) -> tuple[int, bytes]:
        """Return how many bytes were written since the last `take`, and the tail of them."""
        size = os.fstat(self._fd).st_size
        return size, os.pread(self._fd, LOG_BYTES, max(0, size - LOG_BYTES))

    def trim(self) -> None:
        """Free the disk of what no tail will hold: a task may print without end.

        Called by the parent. What is there once the child has taken that is of the next task, so
        both hold a lock: one of POSIX, which the end of a process releases.
        """
        if not self._is_large():
            return
        with contextlib.suppress(BlockingIOError), self._untrimmed(waits=False):
            if self._is_large() and not _punch_hole(
                self._fd, os.fstat(self._fd).st_size - 2 * LOG_BYTES
            ):
                os.ftruncate(self._fd, 0)

    def _is_large(self) -> bool:
        status = os.fstat(self._fd)
        return min(status.st_size, status.st_blocks * 512) > OUTPUT_BYTES

    @contextlib.contextmanager
    def _untrimmed(self, waits: bool = True) -> Iterator[None]:
        """Hold the lock.

        Raises:  BlockingIOError: another process does, and this one does not wait.
        """
        import fcntl  # POSIX only, as the kept child is

        fcntl.lockf(self._fd, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def give_back(self, taken: bytes) -> None:
        """Put what was taken in front again; nothing may have been written since."""
        if taken:
            os.write(self._fd, taken)


def _punch_hole(descriptor: int, length: int) -> bool:
    """Free the first bytes of a file, which stays as long as it is; whether the system can."""
    import ctypes  # 8 ms, and only a task that prints megabytes needs it

    keep_size_and_punch = 0x01 | 0x02
    try:
        fallocate = ctypes.CDLL(None).fallocate
    except AttributeError:  # Linux only
        return False
    start, end = ctypes.c_int64(0), ctypes.c_int64(length)
    return bool(fallocate(descriptor, keep_size_and_punch, start, end) == 0)


class Hygiene:
    """Restores what one chunk may have changed before the next one begins.

    Args:  scratch: the folder that tasks see as their temporary one; emptied after every chunk.
    """

    def __init__(self, scratch: str) -> None:
        self._scratch = scratch
        os.makedirs(scratch, exist_ok=True)  # tempfile passes over a folder that is missing
        os.environ["TMPDIR"] = scratch
        if "tempfile" in sys.modules:  # it remembers the folder of before
            sys.modules["tempfile"].tempdir = None  # type: ignore[attr-defined]  # any module
        self._cwd = os.getcwd()
        self._environment = dict(os.environ)
        self._encoded = dict(_encoded_environment())
        self._umask = os.umask(0o022)
        os.umask(self._umask)
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        self._recursion = sys.getrecursionlimit()
        self._signals = _handlers()
        self._threads = threading.active_count()
        self._root_logger = logging.getLogger()
        self._logging = (list(self._root_logger.handlers), self._root_logger.level)

    def begin(self) -> None:
        """Draw random seeds anew: forked and warm processes would all draw the same numbers."""
        for name in ("random", "numpy.random"):
            module: Any = sys.modules.get(name)  # Any: its functions
            if module is not None:  # who imports it later, draws anew by that
                module.seed()

    def restore(self) -> bool:
        """Clean up, and say whether the process may go on: not with a thread or a child left, or
        with signals handled otherwise.
        """
        os.umask(self._umask)
        sys.stdin, sys.stdout, sys.stderr = self._streams
        sys.setrecursionlimit(self._recursion)
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0)  # else an alarm ends the next task
        logger = self._root_logger
        if (logger.handlers, logger.level) != self._logging:
            logger.handlers[:] = self._logging[0]
            logger.setLevel(self._logging[1])
        with contextlib.suppress(OSError):  # the folder of the start may be gone: stay
            os.chdir(self._cwd)
        if _encoded_environment() != self._encoded:
            os.environ.clear()
            os.environ.update(self._environment)
        self._empty_scratch()
        if _has_children() or _handlers() != self._signals:
            return False
        return threading.active_count() <= self._threads or not _foreign_threads()

    def _empty_scratch(self) -> None:
        try:
            entries = list(_entries(self._scratch))
        except FileNotFoundError:
            os.makedirs(self._scratch, exist_ok=True)
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                import shutil  # 2 ms, and most tasks leave no folders

                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from entries


def _handlers() -> list[object]:
    """Return what handles the signals that end a process or that its watch uses.

    `signal.getsignal` makes enums of what this returns: 2 us each instead of 0.05.
    """
    return [_signal.getsignal(number) for number in _SIGNALS]


_SIGNALS = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD, signal.SIGUSR1,
    signal.SIGUSR2,
)  # fmt: skip


def _encoded_environment() -> Mapping[Any, Any]:
    """Return what os.environ holds, undecoded where it says so: compared 20 times as fast."""
    encoded: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
    return encoded


def _has_children() -> bool:
    """Whether processes that a task started still run; those that have ended are reaped."""
    if not hasattr(os, "waitid"):
        return False
    try:
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG) is not None:
            pass
    except ChildProcessError:
        return False
    return True


def _foreign_threads() -> bool:
    """Whether a thread runs that a task started; those of nested executors end in a moment."""
    kept = (threading.main_thread().name, KEPT_THREAD)
    left = [thread for thread in threading.enumerate() if thread.name not in kept]
    for thread in left:
        if thread.name.startswith("lambdamr-"):
            thread.join(NESTED_PATIENCE_S)
    return any(thread.is_alive() for thread in left)
