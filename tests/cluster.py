"""Workers without processes: the real Worker over a memory store, with a virtual clock.

    invoke ─▶ queue ─ any event, in seeded order ─▶ Worker.run ─▶ store, invoke
                                    │ every store call and launch is a numbered point;
      repaired by another execution ◀ a crash there ends the execution, as kill -9 would

Several executions may be under way at once: each has a thread of its own, but only one runs at a
time, and the seed decides at every point which. So one seed is one history.

What must hold in every history is checked while it runs: no outcome is written twice, no stage is
launched before the one before it is complete.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from lambdamr.backend import Listener
from lambdamr.submission import Packing, StageDraft, Submission, prepare
from lambdamr_runtime import context
from lambdamr_runtime.barrier import Report, read_end, top_events
from lambdamr_runtime.chunk import StageRun
from lambdamr_runtime.clock import Clock
from lambdamr_runtime.context import Cache, Context
from lambdamr_runtime.errors import StoreError
from lambdamr_runtime.keys import JobKeys, last_number
from lambdamr_runtime.limits import INFRASTRUCTURE_RETRIES
from lambdamr_runtime.modules import ShippedModules
from lambdamr_runtime.parts import read_part
from lambdamr_runtime.references import read_outcome, value_of
from lambdamr_runtime.store import Store, open_store
from lambdamr_runtime.sweep import sweep
from lambdamr_runtime.wire import Death, DeathCause, Event, Frame, Manifest, Outcome, StageKind
from lambdamr_runtime.worker import Host, Worker
from tests.faulty_stores import InterceptedStore, Request, T

START_S = 1_790_000_000.0
OWN_MODULES = (
    "tests", "cluster", "test_damage", "test_joining", "test_output", "test_protocol",
    "test_supervisor",
)  # fmt: skip
"""Modules of the tests: imported here, so never shipped."""
ROOMY_MB = 8192
"""Of a worker that is the process of the tests, which may be large itself."""


class Crash(BaseException):
    """The process of an execution is gone. No Exception: nothing may handle it."""


class TooManyEvents(AssertionError):
    """A job does not end."""


class VirtualClock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = START_S

    def time(self) -> float:
        return self.now_s

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class MakeWorker(Protocol):
    """Makes the worker of one execution; a mutant, where a test has teeth."""

    def __call__(
        self,
        store: Store,
        clock: Clock,
        host: Host,
        watched: "Execution",
        modules: ShippedModules,
        cache: Cache,
        name: str,
        /,
    ) -> Worker: ...


@dataclass(frozen=True, slots=True)
class Point:
    """A place where an execution may crash."""

    number: int
    """Counted over all executions of a cluster, from 0."""
    after: bool
    """After the request took effect; else before."""


@dataclass(frozen=True, slots=True)
class Started:
    """A task that was begun."""

    stage: int
    chunk: int
    task: int
    committed: bool
    """Whether its chunk had an outcome already."""
    repair: bool
    """Whether a repair began it."""


@dataclass(slots=True)
class Log:
    """What happened in a cluster."""

    invoked: list[Event] = field(default_factory=list)
    repairs: list[Event] = field(default_factory=list)
    """Events that were queued again after a crash."""
    requests: list[Request] = field(default_factory=list)
    """Of workers, launches included."""
    started: list[Started] = field(default_factory=list)
    hints: list[tuple[str, int, int]] = field(default_factory=list)
    crashes: int = 0
    committed_at_crash: set[tuple[int, int]] = field(default_factory=set)
    """(stage, chunk) with an outcome when the last crash came."""
    handovers: int = 0
    calls: list[Any] = field(default_factory=list)
    """What tasks noted by `note`."""


_current: "Cluster | None" = None


def note(value: Any) -> None:
    """For tasks: leave a mark in the log of the cluster that runs them."""
    assert _current is not None
    _current.log.calls.append(value)


def spend(seconds: float) -> None:
    """For tasks: take time, on the virtual clock."""
    assert _current is not None
    _current.clock.sleep(seconds)


def die() -> None:
    """For tasks: end the process, as a segfault does."""
    assert _current is not None
    assert _current.acting is not None
    _current.acting.die(DeathCause.CRASH)


class Execution:
    """One event while it runs; obeys Watched. Dead after its crash: it can do nothing more."""

    def __init__(self, cluster: "Cluster", event: Event) -> None:
        self._cluster = cluster
        self.event = event
        self.dead = False
        self._cause = DeathCause.CRASH
        self._begun_s = cluster.clock.time()
        self._running = (-1, -1, "")
        """Chunk, task and execution, as a watchdog sees them."""
        self.store = InterceptedStore(cluster.store, self.point)
        self.context = Context(
            self.store, self.invoke, cluster.clock, lambda _: None, self._no_nesting, cluster.width
        )
        self._thread: threading.Thread | None = None
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self.ended = False
        self.error: BaseException | None = None

    # --- the worker's surroundings --------------------------------------------------------------
    def run(self) -> Event | None:
        """Run the event in this thread; returns the event to go on with, if any.

        Raises:  Crash, and what a worker must never raise.
        """
        cluster = self._cluster
        host = Host(self.launch, self._hint, self.remaining_s, cluster.salvage, cluster.clean)
        worker = cluster.make_worker(
            self.store, cluster.clock, host, self, ShippedModules(""), Cache(), "worker"
        )
        return worker.run(self.event)

    def launch(self, events: Sequence[Event]) -> None:
        for event in events:
            self.invoke(event)

    def invoke(self, event: Event) -> None:
        self.point(
            Request("invoke", f"{event.stage}/{event.lo}-{event.hi}@{event.cursor}"),
            lambda: self._cluster.invoke(event, self),
        )

    def remaining_s(self) -> float:
        return self._cluster.lifetime_s - (self._cluster.clock.time() - self._begun_s)

    def _hint(self, job: str, stage: int, chunk: int) -> None:
        self._cluster.hint(job, stage, chunk)

    def _no_nesting(self, event: Event) -> None:
        raise AssertionError("these jobs are not nested")

    # --- what it shows of itself ----------------------------------------------------------------
    def begin_chunk(self, execution: str, tasks: int) -> None:
        self._check_alive()
        self._cluster.spool = {execution: {}}

    def begin_task(self, chunk: int, task: int, timeout_s: float | None, execution: str) -> None:
        self._check_alive()
        self._running = (chunk, task, execution)
        if task >= 0:
            self._cluster.begun(self.event, chunk, task)
            if task in self._cluster.deadly:
                self.die(self._cluster.deadly[task])

    def end_task(self, task: int, frame: Frame) -> None:
        self._check_alive()
        self._cluster.spool.setdefault(self._running[2], {})[task] = frame

    def end_chunk(self) -> None:
        self._check_alive()
        self._running = (-1, -1, "")

    def death(self) -> Death:
        """Describe the end of this execution: as a watchdog beside it does, or the pool."""
        if not self._cluster.watchdog:
            return Death(DeathCause.LOST, "the end of its worker")
        return Death(self._cause, "what the watchdog saw", *self._running)

    def die(self, cause: DeathCause) -> None:
        """End here and now.

        Raises:  Crash: always.
        """
        self.dead = True
        self._cause = cause
        raise Crash

    def take_log(self) -> bytes:
        return b""

    def peak_mb(self) -> float:
        return 0.0

    # --- points ---------------------------------------------------------------------------------
    def point(self, request: Request, act: Callable[[], T], /) -> T:
        """Do one request, or crash before or after it; others may run before it."""
        self._pause()
        self._check_alive()
        number = len(self._cluster.log.requests)
        self._cluster.log.requests.append(request)
        self._crash_at(Point(number, after=False))
        if number in self._cluster.refused:
            raise StoreError(f"Could not {request.verb} {request.key!r}: 503")
        answer = act()
        self._cluster.check_request(request, answer)
        self._crash_at(Point(number, after=True))
        return answer

    def _crash_at(self, point: Point) -> None:
        self.dead = point in self._cluster.crashes
        self._check_alive()

    def _check_alive(self) -> None:
        if self.dead:
            raise Crash

    # --- one of several -------------------------------------------------------------------------
    def start(self) -> None:
        """Make the thread; it waits for its first step."""
        self._thread = threading.Thread(target=self._in_thread, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Let it run up to its next point, or its end."""
        context.enter(self.context)
        self._cluster.acting = self
        self._go.release()
        self._stopped.acquire()

    def _pause(self) -> None:
        if self._thread is not None:
            self._stopped.release()
            self._go.acquire()

    def _in_thread(self) -> None:
        self._go.acquire()
        try:
            rest = self.run()
            if rest is not None:
                self._cluster.queue.append(rest)
        except Crash:
            self._cluster.crashed(self)
        except BaseException as error:  # raised again by the scheduler
            self.error = error
        self.ended = True
        self._stopped.release()


class Cluster:
    """A store, a queue, and workers that run one event at a time; obeys Backend.

    Args:  width: most lanes of a stage.  crashes: points at which executions crash.
           at_once: executions under way at the same time.
    """

    owner = ""
    memory_mb = ROOMY_MB
    hints = False
    helps = False

    def __init__(
        self,
        width: int = 2,
        *,
        seed: int = 0,
        crashes: Sequence[Point] = (),
        at_once: int = 1,
        store: Store | None = None,
        make_worker: MakeWorker = Worker,
    ) -> None:
        global _current
        _current = self
        self.width = self.workers = width
        self.store: Store = store or open_store("memory://")
        self.clock = VirtualClock()
        self.random = random.Random(seed)
        self.crashes = frozenset(crashes)
        self.at_once = at_once
        self.make_worker = make_worker
        self.queue: list[Event] = []
        self.log = Log()
        self.spool: dict[str, dict[int, Frame]] = {}
        self.lifetime_s = float("inf")
        self.unclean = False
        """Whether every chunk leaves the process in need of replacement."""
        self.copies = 1
        """How often each event is delivered."""
        self.lost: frozenset[int] = frozenset()
        """Which invoked events, by number, never arrive."""
        self.refused: frozenset[int] = frozenset()
        """Which requests, by number, are refused; an event that fails so is repaired."""
        self.mourned = True
        """Whether somebody sees that an execution crashed, and repairs it."""
        self.deadly: dict[int, DeathCause] = {}
        """Tasks that end their process as they begin, and how."""
        self.acting: Execution | None = None
        self.listener: Listener | None = None
        self.watchdog = False
        """Whether somebody sees where an execution crashed."""
        self._outcomes: dict[str, bytes] = {}
        self._manifests: dict[str, Manifest] = {}

    # --- Backend --------------------------------------------------------------------------------
    def connect(self, listener: Listener) -> None:
        self.listener = listener

    def invoke(self, event: Event, by: Execution | None = None) -> None:
        self.check_order(event)
        number = len(self.log.invoked)
        self.log.invoked.append(event)
        if by is not None and event.cursor > 0:
            self.log.handovers += 1
        if number not in self.lost:
            self.queue += [event] * self.copies

    def withdraw(self, job: str) -> bool:
        return False

    def has_begun(self, job: str) -> bool:
        return False

    def help(self, job: str) -> bool:
        return False

    def close(self) -> None: ...

    # --- jobs -----------------------------------------------------------------------------------
    def prepare(self, *drafts: StageDraft) -> Submission:
        """Pack a job."""
        submission = prepare(drafts, Packing(exclude_modules=OWN_MODULES), self)
        self._manifests[submission.manifest.job] = submission.manifest
        return submission

    def launch(self, *drafts: StageDraft) -> Manifest:
        """Pack, store and launch a job."""
        return self.submit(self.prepare(*drafts))

    def submit(self, submission: Submission) -> Manifest:
        """Store and launch a packed job."""
        manifest = self._manifests[submission.manifest.job] = submission.manifest
        submission.store(self.store, set())
        for event in top_events(manifest, submission.encoded, 0, self.clock.time()):
            self.invoke(event)
        return manifest

    def know(self, manifest: Manifest) -> None:
        """Take a job that somebody else has packed and stored."""
        self._manifests[manifest.job] = manifest

    def sweep(self, manifest: Manifest) -> int:
        return sweep(self.store, manifest, self.invoke, self.clock.time())

    def run(self, *drafts: StageDraft) -> Manifest:
        """Launch a job and run all events."""
        manifest = self.launch(*drafts)
        self.run_all()
        return manifest

    # --- running --------------------------------------------------------------------------------
    def run_all(self, limit: int = 5000) -> None:
        """Run events, in the order of the seed, until none is left.

        Raises:  TooManyEvents: more than *limit* steps were not enough.
        """
        if self.at_once > 1:
            self._run_interleaved(limit * 20)
            return
        for _ in range(limit):
            if not self.queue:
                return
            self.run_one(self._take())
        raise TooManyEvents(f"{limit} events have not ended the job: {self.queue[:3]}")

    def run_one(self, event: Event) -> None:
        """Run one event to its end, here and now."""
        execution = Execution(self, event)
        context.enter(execution.context)
        self.acting = execution
        try:
            rest = execution.run()
        except Crash:
            self.crashed(execution)
        except StoreError:
            self.queue.append(event.repaired(0, 0))
        else:
            if rest is not None:
                self.queue.append(rest)

    def crashed(self, execution: Execution) -> None:
        """Do what the pool does when a worker is gone: have its event repaired."""
        self.log.crashes += 1
        self.log.committed_at_crash = {
            (index, chunk)
            for manifest in self._manifests.values()
            for index in range(len(manifest.stages))
            for chunk in self.committed(manifest, index)
        }
        if not self.mourned:
            return
        event = replace(execution.event, death=execution.death())
        self.log.repairs.append(event)
        self.queue.append(event)

    def _take(self) -> Event:
        return self.queue.pop(self.random.randrange(len(self.queue)))

    def _run_interleaved(self, limit: int) -> None:
        running: list[Execution] = []
        for _ in range(limit):
            while self.queue and len(running) < self.at_once:
                execution = Execution(self, self._take())
                execution.start()
                running.append(execution)
            if not running:
                return
            execution = self.random.choice(running)
            execution.step()
            if execution.ended:
                running.remove(execution)
            if execution.error is not None:
                raise execution.error
        raise TooManyEvents(f"{limit} steps have not ended the job")

    # --- seen by executions ---------------------------------------------------------------------
    def hint(self, job: str, stage: int, chunk: int) -> None:
        self.log.hints.append((job, stage, chunk))
        if self.listener is not None:
            self.listener.committed(job, stage, chunk)

    def salvage(self, execution: str) -> dict[int, Frame]:
        return self.spool.get(execution, {})

    def clean(self) -> bool:
        return not self.unclean

    def begun(self, event: Event, chunk: int, task: int) -> None:
        run = self.stage_run(event.job, event.stage)
        committed = self.store.exists(run.keys.outcome(run.plan.group_of(chunk), chunk))
        repair = event.repair or event.death is not None
        self.log.started.append(Started(event.stage, chunk, task, committed, repair))

    # --- what must hold -------------------------------------------------------------------------
    def check_order(self, event: Event) -> None:
        """A stage starts only when the one before it is complete."""
        if event.stage:
            run = self.stage_run(event.job, event.stage - 1)
            found = self.committed(run.manifest, event.stage - 1)
            assert found == set(range(run.plan.chunks)), "a stage was launched too early"

    def check_request(self, request: Request, answer: object) -> None:
        """An outcome is only ever created, and won once."""
        if "/outcomes/" in request.key and request.verb not in ("get", "list", "head"):
            assert request.verb == "create"
            if answer:
                assert request.key not in self._outcomes, f"{request.key} was won twice"
                self._outcomes[request.key] = self.store.get(request.key)

    def forget(self, key: str) -> None:
        """Somebody has deleted an outcome: it may be won once more."""
        self._outcomes.pop(key, None)

    def check_outcomes(self) -> None:
        """Outcomes are what they were when they were won."""
        for key, data in self._outcomes.items():
            assert self.store.get(key) == data, f"{key} was rewritten"

    def stage_run(self, job: str, index: int) -> StageRun:
        return StageRun.of(self._manifests[job], index)

    def committed(self, manifest: Manifest, index: int) -> set[int]:
        """Return the chunks of a stage that have an outcome."""
        run = StageRun.of(manifest, index)
        listed = (e for g in range(run.plan.groups) for e in self.store.list(run.keys.outcomes(g)))
        return {last_number(entry.key) for entry in listed}

    def end(self, manifest: Manifest) -> Report | None:
        return read_end(self.store, JobKeys(manifest.job))

    def has_report(self, manifest: Manifest) -> bool:
        return self.store.exists(JobKeys(manifest.job).report)

    def outcomes(self, manifest: Manifest, index: int = -1) -> list[tuple[Outcome, list[Frame]]]:
        """Return all outcomes of a stage, by chunk, with their frames."""
        run = StageRun.of(manifest, range(len(manifest.stages))[index])
        return [
            read_outcome(self.store, run.keys.outcome(run.plan.group_of(chunk), chunk))
            for chunk in range(run.plan.chunks)
        ]

    def values(self, manifest: Manifest, index: int = -1) -> list[Any]:
        """Return the values of a stage's tasks; an exception stands for a task that failed."""
        frames = [frame for _, found in self.outcomes(manifest, index) for frame in found]
        return [_value(frame) for frame in frames]

    def errors(self, manifest: Manifest) -> list[Exception]:
        """Return the errors of all tasks, of all stages, that have an outcome."""
        frames: list[Frame] = []
        for index in range(len(manifest.stages)):
            run = StageRun.of(manifest, index)
            for chunk in self.committed(manifest, index):
                key = run.keys.outcome(run.plan.group_of(chunk), chunk)
                frames += read_outcome(self.store, key)[1]
        return [value for value in map(_value, frames) if isinstance(value, Exception)]

    def output(self, manifest: Manifest) -> dict[Any, Any]:
        """Return what a map_reduce has made."""
        assert manifest.stages[-1].kind is StageKind.REDUCE
        parts = [reduced.part for reduced in self.values(manifest)]
        pairs = [pair for part in parts for pair in read_part(self.store.get(part), part)]
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    def invocations(self, stage: int) -> int:
        """Return how many executions of a stage were begun or are queued."""
        return sum(e.stage == stage for e in (*self.log.invoked, *self.log.repairs))

    def check_bound(self, manifest: Manifest) -> None:
        """Invocations of a stage stay within (INFRASTRUCTURE_RETRIES + 2) x lanes + handovers."""
        for index, stage in enumerate(manifest.stages):
            bound = (INFRASTRUCTURE_RETRIES + 2) * stage.plan.lanes + self.log.handovers
            assert self.invocations(index) <= bound

    def runs(self) -> Counter[tuple[int, int]]:
        """Return how often each (stage, task) was begun."""
        return Counter((each.stage, each.task) for each in self.log.started)

    def check_no_rerun(self, after_crash: bool) -> None:
        """No repair begins a task that has an outcome.

        Args:  after_crash: nor does anything else, if it had one at the crash. (With several,
               lanes may have been launched twice: one of them is no repair, and does not look.)
        """
        for each in self.log.started:
            assert not (each.committed and each.repair), each
            if after_crash and each.committed:
                assert (each.stage, each.chunk) not in self.log.committed_at_crash


def _value(frame: Frame) -> Any:
    try:
        return value_of(frame, "a frame")
    except Exception as error:
        return error
