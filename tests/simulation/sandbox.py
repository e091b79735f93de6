"""A simulated worker: what the real sandbox and its kept child do, without processes.

A child's end is seen by its sandbox, which goes on with a fresh one and the child's death; the end
of the sandbox itself is seen by the platform.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lambdamr_runtime.barrier import Report, end_job
from lambdamr_runtime.context import Cache, Context
from lambdamr_runtime.errors import InvocationFailed, LambdamrError, StoreError
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.limits import (
    END_RESERVE_S,
    END_RESERVE_SHARE,
    INFRASTRUCTURE_RETRIES,
    LATE_SHARE,
    NEAR_LOOK_S,
    TOMBSTONE_S,
)
from lambdamr_runtime.modules import ShippedModules
from lambdamr_runtime.stealing import Stealer
from lambdamr_runtime.wire import Death, DeathCause, Event, Frame
from lambdamr_runtime.worker import Host, Worker
from tests.simulation.faults import Fate
from tests.simulation.scheduler import FOREVER, Killed, Process, VirtualClock
from tests.simulation.world import Mortal, Running

if TYPE_CHECKING:
    from tests.simulation.cloud import Cloud


ZOMBIE_S = 60.0
"""How long a sandbox that was given up may go on once it has woken up."""


class Child(Process):
    """The process that runs tasks."""

    sandbox: "Sandbox"


class Sandbox(Mortal):
    """One warm worker; obeys Watched."""

    def __init__(self, cloud: "Cloud", name: str) -> None:
        self._cloud = cloud
        self._world = cloud.world
        self._name = name
        self._spool: tuple[str, dict[int, Frame]] = ("", {})
        self.gone = False
        """Whether the sandbox itself has ended."""
        self._is_zombie = False
        self._event: Event | None = None
        """As it was delivered."""
        self._running: Running | None = None
        """As a child got it: behind the death of another one it is a repair."""
        self._begun_s = 0.0
        self._ends_s = FOREVER
        """When the platform ends the invocation."""
        self._soft_s = self._work_ends_s = FOREVER
        """When the sandbox ends the child, so that something is left to tell of it."""
        self._task_s = 0.0
        """When the running task began."""
        self._refusal: InvocationFailed | None = None
        self.running = (-1, -1, "")
        """Chunk, task and execution, as the watchdog sees them."""
        self.deadline_s = FOREVER
        """Of the running task."""
        self._death = (DeathCause.CRASH, "")
        self._fork()

    def _fork(self) -> None:
        """Make a fresh child."""
        world = self._world
        process = self.process = Child(self._name)
        process.sandbox = self
        if world.nature.skews and world.random.random() < 0.5:
            process.skew_s = world.random.choice((-86400.0, -30.0, 30.0, 86400.0))
        store = self._cloud.rules.store(world.objects, world.requester(process, self))
        clock = VirtualClock(world.scheduler, process)
        cache = Cache()
        near = self._cloud.is_pool

        def launch(events: Sequence[Event]) -> None:
            if self._running is not None:
                world.check_children(self._running, events)
            try:
                self._cloud.launch_all(events, process, self)
            except InvocationFailed as error:  # the child must not go on as if that were launched
                self._refusal = error
                world.scheduler.kill(process)
                raise Killed from None

        host = Host(
            launch, self._hint, self.remaining_s, self._salvage, self._clean,
            NEAR_LOOK_S if near else TOMBSTONE_S, near,
        )  # fmt: skip
        make = self._cloud.rules.worker
        self._worker = make(store, clock, host, self, ShippedModules(""), cache, self._name)

        def run_nested(event: Event) -> None:
            watched = NestedWatch(self, event)
            inner = replace(host, remaining_s=lambda: FOREVER, clean=lambda: True)
            nested = make(store, clock, inner, watched, ShippedModules(""), cache, self._name)
            try:
                nested.run(event)
            except (LambdamrError, OSError) as error:  # as the child does: nobody else ends it
                world.log.deaths += 1
                end_job(store, JobKeys(event.job), Report("failed", str(error), clock.time()))

        take = self._cloud.take if near else Stealer(store, clock).take
        process.context = Context(
            store, lambda event: launch((event,)), clock, take, run_nested, 2, "owner", bytes, cache
        )

    def serve(self, event: Event) -> None:
        """Run an event to its end, over the deaths of children, in the actor that calls."""
        world = self._world
        actor = world.scheduler.current
        assert actor is not None
        self._event = event
        rest: Event | None = event
        self._begun_s = world.scheduler.now_s
        self._limit_time()
        world.log.late += 0.0 < event.expires < world.scheduler.now_s + self.process.skew_s
        idle_deaths = 0
        while rest is not None:
            world.scheduler.move(actor, self.process)
            self._running = Running(rest, world.scheduler.now_s)
            try:
                following = self._worker.run(rest)
                if following is not None:  # the process is unclean: its threads go with it
                    world.scheduler.kill(self.process)
            except Killed:
                if self.gone or not self.process.dead or world.scheduler.ending:
                    raise
                following = self._mourned(rest)
                death = following.death if following is not None else None
                idle_deaths += death is not None and death.chunk < 0
                if idle_deaths > INFRASTRUCTURE_RETRIES:
                    self._raise(StoreError("children died while no task ran"))
                    following = None
            except (LambdamrError, OSError) as error:
                self._raise(error)
                following = None
            if self.process.dead:
                self._fork()
            rest = following
        self._event = None
        self._ends_s = self._soft_s = FOREVER
        if not self._is_zombie:
            self._cloud.idle(self)

    def _limit_time(self) -> None:
        self._ends_s = self._soft_s = FOREVER
        if not self._cloud.is_pool:
            whole_s = self._cloud.lifetime_s
            self._ends_s = self._begun_s + whole_s
            self._soft_s = self._ends_s - min(END_RESERVE_S, END_RESERVE_SHARE * whole_s)
            self._work_ends_s = self._soft_s

    def _raise(self, error: Exception) -> None:
        """The invocation ends by an error, which the platform tells of."""
        if not self._is_zombie:
            assert self._event is not None
            kind = type(error).__name__
            self._cloud.failed(self._event, "RetriesExhausted", kind, str(error))

    def _mourned(self, event: Event) -> Event | None:
        """Return the event that goes on behind a child's end; None if it was ended on purpose."""
        refusal, self._refusal = self._refusal, None
        death = self._autopsy()
        if refusal is not None:
            self._raise(refusal)
            return None
        return replace(event, death=death)

    def _autopsy(self) -> Death:
        chunk, task, execution = self.running
        cause, detail = self._death
        self._death = (DeathCause.CRASH, "")
        self._clear()
        return Death(cause, detail or "signal 9", chunk, task, execution)

    def _clear(self) -> None:
        self.running = (-1, -1, "")
        self.deadline_s = FOREVER

    # --- the worker's surroundings ---------------------------------------------------------------
    def remaining_s(self) -> float:
        if self._cloud.is_pool:
            return self._begun_s + self._cloud.slice_s - self._world.scheduler.now_s
        return self._work_ends_s - self._world.scheduler.now_s

    def _hint(self, job: str, stage: int, chunk: int) -> None:
        listener = self._cloud.listener
        if listener is not None and self._world.random.random() < 0.9:
            listener.committed(job, stage, chunk)

    def _salvage(self, execution: str) -> dict[int, Frame]:
        return dict(self._spool[1]) if self._spool[0] == execution else {}

    def _clean(self) -> bool:
        return not self._world.nature.happens("unclean")

    # --- what it shows of itself ---------------------------------------------------------------
    def begin_chunk(self, execution: str, tasks: int) -> None:
        self.process.check_alive()
        self._spool = (execution, {})

    def begin_task(self, chunk: int, task: int, timeout_s: float | None, execution: str) -> None:
        self.process.check_alive()
        now_s = self._task_s = self._world.scheduler.now_s
        self.running = (chunk, task, execution)
        self.deadline_s = now_s + timeout_s if timeout_s else FOREVER
        assert self._running is not None
        self._world.check_begun(self._running, chunk)

    def end_task(self, task: int, frame: Frame) -> None:
        self.process.check_alive()
        self._spool[1][task] = frame

    def end_chunk(self) -> None:
        self.process.check_alive()
        self._clear()

    def take_log(self) -> bytes:
        return b""

    def peak_mb(self) -> float:
        return 0.0

    # --- how it meets its fate ---------------------------------------------------------------
    def fate(self, verb: str, writes: bool) -> Fate:
        return self._world.nature.fate(verb, writes)

    def check_time(self) -> None:
        if self._world.scheduler.now_s > self._ends_s:
            self._time_out()
        if self._world.scheduler.now_s > self._soft_s:
            self._end_softly()

    def _end_softly(self) -> None:
        """End the child shortly before the platform ends all."""
        self._soft_s = FOREVER
        late_s = self._begun_s + LATE_SHARE * (self._work_ends_s - self._begun_s)
        if self._task_s > late_s:
            self.die_alone(DeathCause.LOST, "the end of the time, begun late")
        else:
            self._world.log.timeouts += 1
            self.die_alone(DeathCause.TIMEOUT, "it ran into the time limit of its function")
        raise Killed

    def _time_out(self) -> None:
        self._world.log.timeouts += 1
        message = f"Task timed out after {self._cloud.lifetime_s:.2f} seconds"
        self._vanish("Sandbox.Timedout", message)
        raise Killed

    def stall(self, seconds: float, *, given_up: bool = False) -> None:
        self.process.stalled_until = self._world.scheduler.now_s + seconds
        if given_up and not self._is_zombie:
            assert self._event is not None
            self._is_zombie = True
            self._ends_s = self.process.stalled_until + ZOMBIE_S
            self._soft_s = FOREVER
            self._cloud.failed(self._event, "RetriesExhausted", "Runtime.ExitError", "frozen")

    def die(self) -> None:
        """End the child, which the sandbox sees, or all of it, which the platform sees."""
        if self._world.random.random() < 0.5:
            self.die_alone(DeathCause.CRASH)
        else:
            self._vanish("Runtime.ExitError", "RequestId: x Error: Runtime exited")

    def die_alone(self, cause: DeathCause, detail: str = "") -> None:
        self._death = (cause, detail)
        self._world.log.deaths += 1
        self._world.scheduler.kill(self.process)

    def _vanish(self, kind: str, message: str) -> None:
        self.gone = True
        self._world.scheduler.kill(self.process)
        if self._is_zombie:
            self._world.log.unseen += 1
        else:
            assert self._event is not None
            self._cloud.failed(self._event, "RetriesExhausted", kind, message)

    # --- seen by tasks ---------------------------------------------------------------
    def spend(self, seconds: float) -> None:
        """Let a task take time, up to its limit or the invocation's."""
        scheduler = self._world.scheduler
        ends_s = min(self.deadline_s, self._soft_s, self._ends_s)
        if scheduler.now_s + seconds <= ends_s:
            scheduler.pause(seconds)
            return
        scheduler.pause(max(0.0, ends_s - scheduler.now_s))
        if ends_s == self.deadline_s:
            self.die_alone(DeathCause.TIMEOUT, "it ran over its time limit")
            raise Killed
        if ends_s == self._soft_s:
            self._end_softly()
        self._time_out()


class NestedWatch:
    """Tasks that a waiting task runs; the limits are those of the waiting one."""

    def __init__(self, sandbox: Sandbox, event: Event) -> None:
        self._sandbox = sandbox
        self._running = Running(event, sandbox._world.scheduler.now_s)

    def begin_chunk(self, execution: str, tasks: int) -> None: ...

    def begin_task(self, chunk: int, task: int, timeout_s: float | None, execution: str) -> None:
        self._sandbox._world.check_begun(self._running, chunk)

    def end_task(self, task: int, frame: Frame) -> None: ...
    def end_chunk(self) -> None: ...

    def take_log(self) -> bytes:
        return b""

    def peak_mb(self) -> float:
        return 0.0


__all__ = ["Child", "NestedWatch", "Sandbox", "Worker"]
