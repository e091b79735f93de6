"""The child process that a sandbox keeps: it runs events until its parent is gone."""

import faulthandler
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from lambdamr_runtime import context
from lambdamr_runtime.barrier import Report, end_job
from lambdamr_runtime.channel import Channel, Verb
from lambdamr_runtime.chunk import StageRun
from lambdamr_runtime.clock import SystemClock
from lambdamr_runtime.context import Cache, Context
from lambdamr_runtime.errors import LambdamrError
from lambdamr_runtime.frozen import frozen
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.limits import (
    CACHE_BYTES,
    LOG_BYTES,
    LOGS_WANTED_S,
    MIB,
    NEAR_LOOK_S,
    SLICE_S,
    TOMBSTONE_S,
)
from lambdamr_runtime.logs import LogWatch, capture_logging
from lambdamr_runtime.memory import resident_bytes
from lambdamr_runtime.modules import ShippedModules
from lambdamr_runtime.process import (
    KEPT_THREAD,
    Hygiene,
    Output,
    ProgressPage,
    Spool,
    unnamed_file,
)
from lambdamr_runtime.stealing import Stealer
from lambdamr_runtime.store import Store, local_path, open_store
from lambdamr_runtime.wire import Event, Frame
from lambdamr_runtime.worker import Host, Worker

STACK_SIGNAL = signal.SIGUSR2
"""Makes the child write its Python stacks, even inside a C call that holds the GIL."""

STACK_PATIENCE_S = 1.0
"""How long the parent waits for that; used up only where the process cannot answer, or the machine
is overloaded."""

WORN_SHARE = 0.5
"""Of a stage's memory limit: what a process may hold before it runs the first task of it."""

STACK_LOOK_S = 0.01
"""Time between two looks for it."""


@frozen
class Settings:
    """How tasks run here."""

    root: str
    name: str
    """Of this worker."""
    scratch: str
    """A folder of its own: the tasks' temporary files, shipped modules."""
    memory_mb: int = 0
    """Limit of a task's process, MiB; 0: none."""
    workers: int = 1
    """Tasks that run at a time, here and elsewhere; 0: as many as the running stage has lanes."""
    owner: str = ""
    hints: int = -1
    """Descriptor to write hints of commits to; -1: none."""
    slice_s: float = SLICE_S
    """How long a lane keeps this worker where others may wait for it."""
    steals: bool = False
    """Whether a waiting task looks in the store for chunks of its nested jobs: no queue can be
    asked for them."""
    private: int = -1
    """Descriptor of the parent's own, which the child closes; -1: none."""
    born_s: float = 0.0
    """When the worker was started, seconds since the epoch; 0: the first event did not wait."""


class Shared:
    """What parent and child see both."""

    def __init__(self) -> None:
        self.page = ProgressPage()
        self.spool = Spool()
        self.output = Output()
        self.stack = unnamed_file()

    def ask_for_stack(self, pid: int) -> None:
        """Make the child write its stacks, and wait until they are there, or not much longer."""
        self.stack.truncate(0)
        self.stack.seek(0)
        os.kill(pid, STACK_SIGNAL)
        until = time.monotonic() + STACK_PATIENCE_S
        seen = -1
        while time.monotonic() < until:
            size = os.fstat(self.stack.fileno()).st_size
            if size and size == seen:
                return
            seen = size
            select.select((), (), (), STACK_LOOK_S)

    def take_stack(self) -> str:
        text = os.pread(self.stack.fileno(), LOG_BYTES, 0).decode("utf-8", "backslashreplace")
        self.stack.truncate(0)
        self.stack.seek(0)
        return text


def child_main(settings: Settings, shared: Shared, channel: Channel, alive: int) -> NoReturn:
    """Run events until the parent is gone; never returns into the parent's code."""
    try:
        os.setpgid(0, 0)
        _end_with_parent(alive)
        if settings.private >= 0:
            os.close(settings.private)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        shared.output.redirect()
        _forget_log_handlers()
        faulthandler.enable(shared.stack)
        faulthandler.register(STACK_SIGNAL, shared.stack, all_threads=True)
        os.makedirs(settings.scratch, exist_ok=True)
        _volunteer()
        # A process that a task forks is no worker: while it held the channel, the end of this one
        # in the midst of a message would go unnoticed.
        os.register_at_fork(after_in_child=channel.close)
        _Server(settings, shared, _Link(channel)).serve()
    except BaseException as error:  # the last line of the process: say what ended it
        import traceback

        os.write(2, "".join(traceback.format_exception(error)).encode())
        os._exit(1)
    os._exit(0)


def _end_with_parent(alive: int) -> None:
    """Have the system end this process group when the other end of a pipe closes.

    It does so by SIGIO, whose default is to end a process: a C call that holds the GIL is no
    obstacle, as it would be to a thread that watches.
    """
    import fcntl  # POSIX only, as the kept child is

    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(alive, fcntl.F_SETOWN, -os.getpid())
    fcntl.fcntl(alive, fcntl.F_SETFL, fcntl.fcntl(alive, fcntl.F_GETFL) | os.O_ASYNC)


def _forget_log_handlers() -> None:
    """What tasks log is theirs to keep; the parent's handlers would send it elsewhere."""
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.getLogger().handlers.clear()


def _volunteer() -> None:
    """Have the system, out of memory, end this process before its parent, which can tell of it."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:  # Linux only, and not everywhere
        pass


class _Server:
    """Runs events in this process, and what its tasks ask of it."""

    def __init__(self, settings: Settings, shared: Shared, link: "_Link") -> None:
        self._settings = settings
        self._shared = shared
        self._link = link
        self._store = open_store(settings.root)
        self._clock = SystemClock()
        self._modules = ShippedModules(os.path.join(settings.scratch, "modules"))
        self._near = local_path(settings.root) is not None
        self._look_s = NEAR_LOOK_S if self._near else TOMBSTONE_S
        capture_logging()
        logs_pause_s = 0.0 if self._near else LOGS_WANTED_S
        logs = LogWatch(self._store, shared.page.running, shared.output.peek, logs_pause_s)
        self._tombstones = _TombstoneWatch(self._store, link, shared.page, self._look_s, logs)
        self._hygiene = Hygiene(os.path.join(settings.scratch, "tmp"))
        self._cache = Cache(_cache_bytes(settings.memory_mb))
        self._fitting = _Fitting(shared.page)
        stealer = Stealer(self._store, self._clock)
        self._context = Context(
            self._store, link.invoke, self._clock, stealer.take if settings.steals else link.take,
            self._run_nested, settings.workers or 1, settings.owner,
            lambda: self._modules.archive, self._cache, settings.memory_mb,
        )  # fmt: skip
        context.enter(self._context)

    def serve(self) -> None:
        """Run events until the parent is gone."""
        link, turn = self._link, _Turn(self._shared.page, self._settings.slice_s)
        watched = _ProcessWatch(self._shared, self._hygiene)
        worker = self._worker(
            watched, turn.remaining_s, self._hygiene.restore, self._settings.born_s
        )
        link.tell(Verb.READY)
        while (message := link.channel.receive()) is not None:
            event = Event.decode(message[1])
            self._fitting.job = event.job
            self._tombstones.watch(event.job, event.stage)
            turn.begin()
            try:
                rest = worker.run(event)
            except _Worn:
                rest = event
            except Exception as error:  # not the user's, whose exceptions are results: end the job
                link.tell(Verb.FAILED, f"{type(error).__name__}: {error}".encode())
                continue
            finally:
                self._tombstones.watch("")
            link.tell(Verb.ENDED, rest.encode() if rest else b"")

    def _worker(
        self,
        watched: "_ProcessWatch | _NestedWatch",
        remaining_s: Callable[[], float],
        clean: Callable[[], bool],
        born_s: float = 0.0,
    ) -> Worker:
        host = Host(
            self._link.launch, _hinter(self._settings.hints), remaining_s,
            self._shared.spool.frames, clean, self._look_s, self._near, born_s,
            self._clock.time(), self._began,
        )  # fmt: skip
        return Worker(
            self._store, self._clock, host, watched, self._modules, self._cache, self._settings.name
        )

    def _began(self, run: StageRun) -> None:
        if not self._fitting.fit(run):
            return  # nested in what runs: the limits are those of the waiting task
        if not self._settings.workers:
            self._context.workers = self._context.width = run.stage.width

    def _run_nested(self, event: Event) -> None:
        """Run an event in a task that waits: several may, in threads and within each other."""
        nested = self._worker(_NestedWatch(self._shared), lambda: float("inf"), lambda: True)
        held = self._shared.output.take()
        try:
            nested.run(event)
        except (LambdamrError, OSError) as error:  # the event is taken: nobody else will end it
            reason = f"{type(error).__name__}: {error}"
            report = Report("failed", reason, self._clock.time())
            end_job(self._store, JobKeys(event.job), report)
        finally:
            self._shared.output.give_back(held)


class _Worn(Exception):
    """The process holds so much memory of earlier tasks that the limit of the next ones would be
    too little: they run in a fresh one.
    """


class _Fitting:
    """Fits the process to the stage whose event begins."""

    def __init__(self, page: ProgressPage) -> None:
        self.job = ""
        """That the running event is of; what runs nested in it is of others."""
        self._page = page
        self._has_run = False

    def fit(self, run: StageRun) -> bool:
        """Set the memory limit of a stage, unless it is of a nested job; whether that was so.

        Raises:  _Worn.
        """
        if run.manifest.job != self.job:
            return False
        limit_mb = run.stage.limit_mb
        if limit_mb and self._has_run and resident_bytes() > WORN_SHARE * limit_mb * MIB:
            raise _Worn
        self._has_run = True
        self._page.limit_memory(limit_mb)
        return True


class _Turn:
    """How long the running event keeps the worker: others may wait for it, or the platform."""

    def __init__(self, page: ProgressPage, slice_s: float) -> None:
        self._page = page
        self._slice_s = slice_s

    def begin(self) -> None:
        self._end = min(time.monotonic() + self._slice_s, self._page.ends())

    def remaining_s(self) -> float:
        return self._end - time.monotonic()


def _cache_bytes(memory_mb: int) -> int:
    """What is kept counts as the task's memory: a quarter of the limit, at most."""
    return min(CACHE_BYTES, memory_mb * MIB // 4) if memory_mb else CACHE_BYTES


def _hinter(descriptor: int) -> Callable[[str, int, int], None]:
    """Return the function that hints of a commit; a hint that finds the pipe full is dropped."""

    def hint(job: str, stage: int, chunk: int) -> None:
        if descriptor >= 0:
            try:
                os.write(descriptor, b"%b %d %d\n" % (job.encode(), stage, chunk))
            except (BlockingIOError, BrokenPipeError):  # the client polls the store all the same
                pass

    return hint


class _Link:
    """The child's way to ask its parent; any thread may."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def _check(self) -> None:
        """Before the lock, which a thread that is not in a fork may have held."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                "cannot schedule new futures: this process was forked by a task, and only the "
                "task's own process has a worker behind it. Call from there."
            )

    def invoke(self, event: Event) -> None:
        self.launch((event,))

    def launch(self, events: Sequence[Event]) -> None:
        """Launch several events, side by side where the parent can."""
        self._check()
        with self._lock:
            self.channel.send(Verb.INVOKE, b"\n".join(event.encode() for event in events))
            self.channel.receive()

    def take(self, job: str) -> Event | None:
        self._check()
        with self._lock:
            self.channel.send(Verb.TAKE, job.encode())
            message = self.channel.receive()
        return Event.decode(message[1]) if message and message[1] else None

    def tell(self, verb: Verb, body: bytes = b"") -> None:
        with self._lock:
            self.channel.send(verb, body)


class _TombstoneWatch:
    """A thread that sees that the running job is cancelled, or the parent dead."""

    def __init__(
        self,
        store: Store,
        link: _Link,
        page: ProgressPage,
        look_s: float,
        logs: LogWatch,
    ) -> None:
        self._store = store
        self._link = link
        self._page = page
        self._look_s = look_s
        self._logs = logs
        self._watched = ("", 0)
        """Job and stage, both at once: the thread reads them while they change."""
        self._parent = os.getppid()
        self._tick = threading.Event()
        threading.Thread(target=self._run, name=KEPT_THREAD, daemon=True).start()

    def watch(self, job: str, stage: int = 0) -> None:
        """Watch this job from now on; "": none."""
        self._page.beat()
        self._watched = (job, stage)

    def _is_watched(self, watched: tuple[str, int]) -> bool:
        return watched is self._watched

    def _run(self) -> None:
        told: tuple[str, int] | None = None
        while not self._tick.wait(self._look_s):
            self._page.beat()
            if os.getppid() != self._parent:
                os.killpg(0, signal.SIGKILL)
            watched = self._watched
            job, stage = watched
            if not job or watched is told:
                continue
            try:
                if self._store.exists(JobKeys(job).cancelled) and watched is self._watched:
                    self._link.tell(Verb.CANCELLED, job.encode())
                    told = watched
                self._logs.look(job, stage, partial(self._is_watched, watched))
            except LambdamrError as error:  # the running task sees a broken store by itself
                sys.stderr.write(f"lambdamr: cannot look for a cancellation: {error}\n")


class _ProcessWatch:
    """What the child shows of its tasks."""

    def __init__(self, shared: Shared, hygiene: Hygiene) -> None:
        self._shared = shared
        self._hygiene = hygiene
        self._spools = False
        shared.page.resume()

    def begin_chunk(self, execution: str, tasks: int) -> None:
        self._hygiene.begin()
        self._spools = tasks > 1
        if self._spools:
            self._shared.spool.begin(execution)

    def begin_task(self, chunk: int, task: int, timeout_s: float | None, execution: str) -> None:
        self._shared.page.begin(chunk, task, timeout_s or float("inf"), execution)

    def end_task(self, task: int, frame: Frame) -> None:
        if self._spools:
            self._shared.spool.add(task, frame)

    def end_chunk(self) -> None:
        self._shared.page.end()

    def take_log(self) -> bytes:
        return self._shared.output.take()

    def peak_mb(self) -> float:
        return _peak_mb()


class _NestedWatch:
    """Tasks that a waiting task runs: the limits are those of the waiting one."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def begin_chunk(self, execution: str, tasks: int) -> None: ...
    def begin_task(
        self, chunk: int, task: int, timeout_s: float | None, execution: str
    ) -> None: ...
    def end_task(self, task: int, frame: Frame) -> None: ...
    def end_chunk(self) -> None: ...

    def take_log(self) -> bytes:
        return self._shared.output.take()

    def peak_mb(self) -> float:
        return _peak_mb()


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
