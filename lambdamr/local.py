"""The embedded backend: worker processes on this machine over a directory.

    client process                                worker process (one of N)
    ──────────────                                ─────────────────────────
    invoke ─▶ queue ──── socket: RUN ───────────▶ lambdamr_runtime.handler (and its kept child)
    launch, take ◀────── socket: INVOKE, TAKE ─── lanes, next stages, nested jobs
    next event ◀──────── socket: ENDED ────────── (or its end: the worker died, the event is
    Listener ◀────────── pipe: hints ────────────  repaired by another one)

The workers run the same handler over the same keys as cloud functions. They are started as fresh
interpreters, so nothing here relies on fork or on a `__main__` guard, and they end with the
client: a job whose client is gone goes on when somebody attaches to it.
"""

import contextlib
import itertools
import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import lambdamr_runtime
from lambdamr.backend import Listener
from lambdamr.cleaning import clean_daily
from lambdamr.ownership import Ownership
from lambdamr.threads import Signal, start_thread
from lambdamr_runtime.channel import Channel, Verb
from lambdamr_runtime.keys import new_execution_id
from lambdamr_runtime.limits import HUGE_PAGES, PLANNED_MEMORY_MB
from lambdamr_runtime.store import Store, open_store
from lambdamr_runtime.wire import Death, DeathCause, Event

START_FAILURES = 3
"""So many workers in a row that end before they are ready, and the pool gives up."""

WORKER_END_S = 1.0
"""How long a worker may take to end its tasks' process, and itself, before it is killed."""

HINT_PIPE_BYTES = 1 << 20
"""Room for hints, where the system lets us ask for it."""

SETTLE_S = 0.25
"""How long a pool that is closed waits for its workers to end what they do by themselves."""

STDERR_BYTES = 4096
"""What is shown of the stderr of a worker that cannot start."""


_starting = threading.RLock()  # a signal's handler may fork between the hooks of another fork
"""Held while a worker is started: a process that another thread forks in between would keep the
pipe that `subprocess` waits on, and the worker's end of its socket: its death would go unseen."""

if hasattr(os, "register_at_fork"):  # a child has no thread that would release it
    os.register_at_fork(
        before=_starting.acquire,
        after_in_parent=_starting.release,
        after_in_child=_starting.release,
    )


def usable_cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _worker_environment() -> dict[str, str]:
    """Return the environment of a worker; other threads may change that of this process."""
    names = list(os.environ)
    return HUGE_PAGES | {name: value for name in names if (value := os.getenv(name)) is not None}


class LocalBackend:
    """A pool of worker processes and a directory store.

    Args:    root: the directory. workers: processes, >= 1. memory_mb: limit of each; 0: none.
             width: most lanes of a stage. keep_days: age at which stored jobs go.
    Raises:  OSError: this system cannot run it.
    """

    hints = True
    helps = False

    def __init__(
        self, root: str, workers: int, memory_mb: int, width: int, keep_days: float
    ) -> None:
        if not hasattr(os, "fork"):
            raise OSError(
                "The local backend needs a POSIX system (Linux, macOS, WSL); this is "
                f"{sys.platform}. Run lambdamr under WSL, or on AWS."
            )
        self.store: Store = open_store(root)
        self.owner = new_execution_id()
        self.workers = workers
        self.width = width
        self.memory_mb = memory_mb or PLANNED_MEMORY_MB
        self._limit_mb = memory_mb
        self._keep_days = keep_days
        self._ownership = Ownership(root, self.owner)
        self._ownership.hold()
        self._pool = _Pool(root, workers, memory_mb, self.owner)

    def connect(self, listener: Listener) -> None:
        self._pool.listener = listener

    def invoke(self, event: Event) -> None:
        self._pool.invoke(event)

    def check_memory(self, memory_mb: int) -> None:
        """Refuse a limit of a task that is more than that of the workers.

        Raises:  ValueError.
        """
        if 0 < self._limit_mb < memory_mb:
            raise ValueError(
                f"memory_mb={memory_mb}, but the workers of this executor have "
                f"{self._limit_mb} MB. Make it with Executor(memory_mb={memory_mb})."
            )

    def withdraw(self, job: str) -> bool:
        return self._pool.withdraw(job)

    def has_begun(self, job: str) -> bool:
        return self._pool.has_begun(job)

    def help(self, job: str) -> bool:  # noqa: ARG002 - the protocol's
        return False

    def close(self) -> None:
        try:
            self._pool.close()
        finally:
            if self._ownership.release():
                clean_daily(self.store, self._keep_days)


@dataclass(slots=True, eq=False)
class _Worker:
    """A worker process as the pool sees it."""

    process: "subprocess.Popen[bytes]"
    channel: Channel
    scratch: str
    ready: bool = False
    """Whether it has started."""
    event: Event | None = None
    """What it runs; None while it is idle."""
    jobs: set[str] = field(default_factory=set)
    """Jobs whose events it has begun or taken since it was idle."""


class _Pool:
    """Worker processes, the queue that they serve, and the thread that has to do with them.

    Only that thread starts workers and sends to them: Ctrl-C, which comes to the main thread, finds
    no event half sent, and none between a fork and whoever would hold it.
    """

    def __init__(self, root: str, workers: int, memory_mb: int, owner: str) -> None:
        self._root = root
        self._limit = workers
        self._memory_mb = memory_mb
        self._owner = owner
        self.listener: Listener | None = None
        self._lock = threading.RLock()
        self._quiet = Signal()
        """Notified when a worker has become idle."""
        self._queue: deque[Event] = deque()
        self._workers: list[_Worker] = []
        self._numbers = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._closing = False
        self._start_failures = 0
        self._wake_in, self._wake_out = os.pipe()
        self._hints_in, self._hints_out = os.pipe()
        self._partial_hint = b""
        os.set_blocking(self._hints_out, False)
        _widen(self._hints_out)
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._selector.register(self._hints_in, selectors.EVENT_READ)
        self._listening = threading.Lock()
        """Held until the thread has ended."""
        self._listening.acquire()
        self._thread = start_thread(self._listen, "lambdamr-pool")

    def invoke(self, event: Event) -> None:
        """Queue an event; the thread starts it if a worker is free or may be started."""
        with self._lock:
            if self._closing:
                raise RuntimeError(
                    "cannot schedule new futures: the workers of this executor have been stopped"
                )
            self._queue.append(event)
            if len(self._queue) == 1:  # else the thread knows, or waits for a worker
                os.write(self._wake_out, b"x")

    def withdraw(self, job: str) -> bool:
        """Drop the queued events of a job; False if one of its events has begun."""
        with self._lock:
            found = [event for event in self._queue if event.job == job]
            for event in found:
                self._queue.remove(event)
            return bool(found) and not self.has_begun(job)

    def has_begun(self, job: str) -> bool:
        with self._lock:
            return any(job in worker.jobs for worker in self._workers)

    def close(self) -> None:
        """Stop the workers, whatever they do, and the thread.

        A worker whose last result the client has seen still writes the job's report: that much
        patience costs nothing.
        """
        try:
            self._quiet.wait_for(self._is_quiet, SETTLE_S)
        finally:  # Ctrl-C ends the patience, not the stop
            with self._lock:
                if not self._closing:
                    os.write(self._wake_out, b"x")
                self._closing = True
                self._queue.clear()
        if threading.current_thread() is not self._thread:
            with self._listening:
                pass

    def _is_quiet(self) -> bool:
        return self._closing or not any(worker.event for worker in self._workers)

    # --- the thread's, under the lock ----------------------------------------------------------
    def _dispatch(self) -> None:
        while self._queue:
            worker = self._free_worker()
            if worker is None:
                return
            worker.event = event = self._queue.popleft()
            worker.jobs = {event.job}
            try:
                worker.channel.send(Verb.RUN, event.encode())
            except OSError:
                self._lost(worker)

    def _free_worker(self) -> _Worker | None:
        """Return an idle worker or a new one; None where all are busy, or none can be started."""
        idle = next((worker for worker in self._workers if worker.event is None), None)
        if idle is not None or len(self._workers) >= self._limit:
            return idle
        try:
            return self._start_worker()
        except OSError as error:
            if not self._workers:  # else one of those takes the event
                self._give_up(f"No worker process could be started: {error}.")
            return None

    def _start_worker(self) -> _Worker:
        """Raises:  OSError: none can be started."""
        if not sys.executable:
            raise OSError("sys.executable, the Python that would run it, is not set")
        scratch = tempfile.mkdtemp(prefix="lambdamr-")
        with _starting:
            return self._started(scratch)

    def _started(self, scratch: str) -> _Worker:
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(
                self._command(theirs.fileno(), scratch),
                pass_fds=(theirs.fileno(), self._hints_out),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env=_worker_environment(),
            )
        except OSError:
            ours.close()
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        finally:
            theirs.close()
        worker = _Worker(process, Channel(ours), scratch)
        self._workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, worker)
        return worker

    def _command(self, descriptor: int, scratch: str) -> list[str]:
        """Return the command of a worker: a fresh interpreter that sees no folder of the user's.

        The user's modules travel with the functions, as they do to the cloud.
        """
        home = os.path.dirname(os.path.dirname(lambdamr_runtime.__file__))
        start = (
            f"import sys; sys.path.append({home!r}); "
            "from lambdamr_runtime.handler import main; main(sys.argv[1])"
        )
        settings = {
            "root": self._root,
            "name": f"{os.getpid()}-{next(self._numbers)}",
            "scratch": scratch,
            "memory_mb": self._memory_mb,
            "workers": self._limit,
            "owner": self._owner,
            "hints": self._hints_out,
            "private": descriptor,
            "born_s": time.time(),
        }
        return [sys.executable, "-P", "-c", start, json.dumps(settings)]

    def _lost(self, worker: _Worker) -> None:
        """A worker is gone: another one repairs what it ran."""
        stderr = self._remove(worker)
        event, code = worker.event, worker.process.returncode
        if not worker.ready:
            self._start_failures += 1
        if event is None:
            return
        if self._start_failures >= START_FAILURES:
            self._start_failures = 0
            reason = (
                f"{START_FAILURES} worker processes in a row could not start, the last ended with "
                f"exit status {code}. {stderr}"
            )
            self._give_up(reason, event.job)
            return
        detail = f"the end of its worker (exit status {code})"
        death = Death(DeathCause.LOST, detail, execution=new_execution_id())
        self._queue.appendleft(replace(event, death=death))
        self._dispatch()

    def _give_up(self, reason: str, *jobs: str) -> None:
        """Fail these jobs and all that wait for a worker."""
        waiting = {event.job for event in self._queue}
        self._queue.clear()
        for job in waiting.union(jobs):
            self._tell_failed(job, reason)

    def _remove(self, worker: _Worker) -> str:
        """End a worker for good; returns what it wrote to stderr."""
        self._workers.remove(worker)
        self._selector.unregister(worker.channel)
        worker.channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(WORKER_END_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.process.pid, 9)
        worker.process.wait()
        assert worker.process.stderr is not None  # noqa: S101 - opened as a pipe
        os.set_blocking(worker.process.stderr.fileno(), False)
        text = (worker.process.stderr.read() or b"")[-STDERR_BYTES:].decode(errors="replace")
        worker.process.stderr.close()
        shutil.rmtree(worker.scratch, ignore_errors=True)
        return text

    def _tell_failed(self, job: str, reason: str) -> None:
        if self.listener is not None:
            self.listener.failed(job, reason)

    # --- the thread ----------------------------------------------------------------------------
    def _listen(self) -> None:
        try:
            while not self._closing:
                self._serve(self._selector.select())
        except Exception as error:  # a defect of ours: nobody may wait for what nobody serves
            with self._lock:
                self._closing = True
                begun = [job for worker in self._workers for job in worker.jobs]
                self._give_up(f"The pool of workers failed: {error!r}.", *begun)
        with self._lock:
            self._stop()

    def _serve(self, ready: "list[tuple[selectors.SelectorKey, int]]") -> None:
        with self._lock:
            if self._closing:
                return
            for key, _ in ready:
                if key.fd == self._wake_in:
                    os.read(self._wake_in, 4096)
                    self._dispatch()
                elif key.fd != self._hints_in and key.data in self._workers:
                    self._hear(key.data)
        if any(key.fd == self._hints_in for key, _ in ready):
            self._pass_hints()

    def _hear(self, worker: _Worker) -> None:
        message = worker.channel.receive()
        if message is None:
            self._lost(worker)
            return
        verb, body = message
        if verb is Verb.INVOKE:
            self._queue.extend(map(Event.decode, body.splitlines()))
            self._dispatch()
        elif verb is Verb.TAKE:
            with contextlib.suppress(OSError):  # it died: its own event will be repaired
                worker.channel.send(Verb.TAKEN, self._take(worker, body.decode()))
        elif verb is Verb.READY:
            worker.ready = True
            self._start_failures = 0
        else:
            if verb is Verb.FAILED and worker.event is not None:
                self._tell_failed(worker.event.job, body.decode())
            worker.event = None
            worker.jobs = set()
            self._dispatch()
            self._quiet.notify_all()

    def _take(self, worker: _Worker, job: str) -> bytes:
        for event in self._queue:
            if event.job == job:
                self._queue.remove(event)
                worker.jobs.add(job)
                return event.encode()
        return b""

    def _pass_hints(self) -> None:
        data = self._partial_hint + os.read(self._hints_in, HINT_PIPE_BYTES)
        whole, _, self._partial_hint = data.rpartition(b"\n")
        if self.listener is not None:
            for job, stage, chunk in _hints(whole):
                self.listener.committed(job, stage, chunk)

    def _stop(self) -> None:
        try:
            for worker in list(self._workers):
                self._remove(worker)
            for descriptor in (self._wake_in, self._wake_out, self._hints_in, self._hints_out):
                os.close(descriptor)
            self._selector.close()
        finally:
            self._listening.release()


def _hints(lines: bytes) -> Iterator[tuple[str, int, int]]:
    for line in lines.splitlines():
        job, stage, chunk = line.split()
        yield job.decode(), int(stage), int(chunk)


def _widen(descriptor: int) -> None:
    """Ask for a larger pipe, where the system has such a call."""
    import fcntl  # POSIX only, as this backend is

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, HINT_PIPE_BYTES)
