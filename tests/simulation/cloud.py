"""A simulated platform: it runs events in sandboxes, late, twice or not at all, and tells failures.

invoke ─▶ Delivery ─ delay, duplicate, loss ─▶ Sandbox ─ the real Worker ─▶ store, invoke
             ▲                                     │ ended, raised
             └────── the real supervise ◀─ record ─┘
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lambdamr.backend import Listener
from lambdamr_runtime.errors import InvocationFailed, LambdamrError
from lambdamr_runtime.supervisor import DROPPED, Verdict, supervise
from lambdamr_runtime.sweep import sweep
from lambdamr_runtime.wire import Death, DeathCause, Event, Manifest
from lambdamr_runtime.worker import Worker
from tests.simulation.faults import Fate
from tests.simulation.sandbox import Sandbox
from tests.simulation.scheduler import Killed, Process, VirtualClock
from tests.simulation.store import Objects, Request, SimulatedStore
from tests.simulation.world import Mortal, World

TRIES = 3
"""Of an invocation that is throttled, and of a supervisor that fails: then it is given up."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What runs: a mutant takes one rule out."""

    worker: Callable[..., Worker] = Worker
    store: Callable[[Objects, Request], SimulatedStore] = SimulatedStore
    supervise: Callable[..., Verdict] = supervise
    sweep: Callable[..., int] = sweep


@dataclass(slots=True, eq=False)
class Delivery:
    """An event on its way to a sandbox."""

    event: Event
    taken: bool = False
    """By a waiting task, or it began."""


class Cloud:
    """Runs events.

    Args:  is_pool: as the local backend's pool does it: sandboxes are few, a waiting task takes
           queued events, and a lost worker's event is queued again with its death.
    """

    def __init__(self, world: World, rules: Rules, *, is_pool: bool) -> None:
        self.world = world
        self.rules = rules
        self.is_pool = is_pool
        self.listener: Listener | None = None
        """Whom commits are hinted to."""
        self.lifetime_s = world.random.choice((8.0, 15.0, 60.0, 900.0))
        """Of an invocation; a pool's never end."""
        self.slice_s = world.random.choice((0.05, 1.0, 5.0))
        """How long a lane keeps a sandbox of a pool."""
        self.places = world.random.choice((1, 2, 3)) if is_pool else world.random.choice((4, 100))
        self.event_age_s = world.random.choice((5.0, 60.0, 3600.0))
        self.running = 0
        self.pending = 0
        """Deliveries, records and running invocations: 0 where nothing will happen any more."""
        self._queued: deque[Delivery] = deque()
        """Deliveries that are due and wait for a place, and in a pool all others."""
        self._idle: list[Sandbox] = []
        self.sandboxes: list[Sandbox] = []
        self.closed = False
        """A pool whose client is gone."""

    # --- launching ---------------------------------------------------------------
    def launch(self, event: Event, process: Process, mortal: Mortal) -> None:
        """Invoke, as the real invokers do: again where it is throttled or the answer is lost.

        Raises:  InvocationFailed.
        """
        world = self.world
        request = world.requester(process, mortal)
        if not event.expires and not self.is_pool:
            event = replace(event, expires=event.sent_s + self.event_age_s)
        if event.stage:
            world.check_order(event.job, event.stage)
        name = f"{event.stage}/{event.lo}-{event.hi}@{event.cursor}"
        for again in range(TRIES):
            if not self.is_pool and world.nature.happens("throttle"):
                world.scheduler.pause(world.nature.latency() * 2**again)
                continue
            try:
                request("invoke", name, lambda: self.accept(event, mortal.cursor), writes=True)
            except LambdamrError:  # 503, or the answer was lost
                world.log.multiplied += 1
                continue
            return
        raise InvocationFailed(f"{name} could not be invoked")

    def launch_all(self, events: Sequence[Event], process: Process, mortal: Mortal) -> None:
        """Invoke several: each is tried, whatever becomes of the others.

        Raises:  InvocationFailed: of the first that failed.
        """
        failed: list[InvocationFailed] = []
        for event in events:
            try:
                self.launch(event, process, mortal)
            except InvocationFailed as error:
                failed.append(error)
        if failed:
            raise failed[0]

    def accept(self, event: Event, cursor: int) -> None:
        """Take an event; what becomes of it is decided now.

        Args:  cursor: of the event for which this one takes over, if it does.
        """
        world = self.world
        if self.closed:
            return
        key = (event.job, event.stage)
        world.log.invoked[key] += 1
        world.log.handovers[key] += event.cursor > cursor
        if not self.is_pool and world.nature.happens("lose"):
            world.log.lost += 1
            return
        if not self.is_pool and world.nature.happens("drop"):
            self.failed(event, DROPPED, "", "", delay_s=world.random.choice((1.0, 30.0)))
            return
        self._deliver(event)
        if not self.is_pool and world.nature.happens("duplicate"):
            world.log.multiplied += 1
            self._deliver(event)

    def _deliver(self, event: Event) -> None:
        world = self.world
        delivery = Delivery(event)
        delay_s = world.nature.latency()
        if world.nature.happens("delay"):
            delay_s += world.random.choice((0.5, 3.0, 10.0, 40.0))
        self.pending += 1
        if self.is_pool:
            self._queued.append(delivery)
        world.scheduler.spawn(Process("delivery"), lambda: self._arrived(delivery), delay_s)

    def _arrived(self, delivery: Delivery) -> None:
        if delivery.taken:
            return
        if self.running >= self.places:
            if not self.is_pool:
                self._queued.append(delivery)
            return
        self._begin(delivery)

    def _begin(self, delivery: Delivery) -> None:
        """Run an event in this actor, and then what waited for the place."""
        delivery.taken = True
        if self.is_pool:
            self._queued.remove(delivery)
        self.running += 1
        try:
            self._sandbox().serve(delivery.event)
        finally:
            self.running -= 1
            self.pending -= 1
            self._refill()

    def _refill(self) -> None:
        if not self._queued or self.running >= self.places or self.closed:
            return
        delivery = self._queued[0]
        if not self.is_pool:
            self._queued.popleft()
        self.running += 1  # held until it begins
        self.world.scheduler.spawn(Process("delivery"), lambda: self._held(delivery))

    def _held(self, delivery: Delivery) -> None:
        self.running -= 1
        if not delivery.taken:
            self._begin(delivery)
        else:
            self._refill()

    def take(self, job: str) -> Event | None:
        """Give a queued event of a pool to a task that waits for its job."""
        found = next((each for each in self._queued if each.event.job == job), None)
        if found is None:
            return None
        self._queued.remove(found)
        found.taken = True
        self.pending -= 1
        return found.event

    def withdraw(self, job: str) -> bool:
        """Drop the queued events of a job."""
        found = [each for each in self._queued if each.event.job == job and not each.taken]
        if self.is_pool:
            for delivery in found:
                self._queued.remove(delivery)
                delivery.taken = True
                self.pending -= 1
        return False

    def _sandbox(self) -> Sandbox:
        if self._idle and self.world.random.random() < 0.8:
            return self._idle.pop()
        sandbox = Sandbox(self, f"worker-{next(self.world.numbers)}")
        self.sandboxes.append(sandbox)
        return sandbox

    def idle(self, sandbox: Sandbox) -> None:
        self._idle.append(sandbox)

    def close(self) -> None:
        """The client of a pool is gone, and its workers with it."""
        self.closed = True
        for delivery in self._queued:
            delivery.taken = True
            self.pending -= 1
        self._queued.clear()
        self._idle.clear()
        for sandbox in self.sandboxes:
            if not sandbox.process.dead:
                sandbox.gone = True
                self.world.scheduler.kill(sandbox.process)

    # --- failures ---------------------------------------------------------------
    def failed(
        self, event: Event, condition: str, kind: str, message: str, delay_s: float = 0.0
    ) -> None:
        """Tell of an invocation that failed."""
        world = self.world
        world.log.deaths += 1
        if self.closed:
            return
        if self.is_pool:
            execution = world.random.randbytes(8).hex()
            death = Death(DeathCause.LOST, f"the end of its worker ({kind})", execution=execution)
            self._deliver(replace(event, death=death))
            return
        if world.nature.happens("record_lost"):
            world.log.lost += 1
            return
        record = {
            "requestContext": {
                "condition": condition,
                "requestId": f"request-{next(world.numbers)}",
                "functionArn": "arn:worker",
            },
            "requestPayload": event,
            "responsePayload": {"errorType": kind, "errorMessage": message} if kind else None,
        }
        self._tell(record, delay_s)
        if world.nature.happens("duplicate"):
            world.log.multiplied += 1
            self._tell(record, delay_s + world.random.choice((1.0, 20.0)))

    def _tell(self, record: dict[str, Any], delay_s: float, tries: int = 1) -> None:
        self.pending += 1
        process = Process(f"supervisor-{next(self.world.numbers)}")
        self.world.scheduler.spawn(
            process, lambda: Supervisor(self, process, record, tries).run(), delay_s
        )


class Supervisor(Mortal):
    """One run of the supervisor; the platform repeats it where it fails."""

    def __init__(self, cloud: Cloud, process: Process, record: dict[str, Any], tries: int) -> None:
        self._cloud = cloud
        self._process = process
        self._record = record
        self._tries = tries
        self.cursor = record["requestPayload"].cursor

    def run(self) -> None:
        cloud, world = self._cloud, self._cloud.world
        request = world.requester(self._process, self)
        store = cloud.rules.store(world.objects, request)
        event = self._record["requestPayload"]
        try:
            cloud.rules.supervise(
                {**self._record, "requestPayload": _as_json(event)},
                store,
                lambda event: cloud.launch(event, self._process, self),
                VirtualClock(world.scheduler, self._process),
            )
        except Killed:
            self._again()
            raise
        except (LambdamrError, OSError):
            self._again()
        finally:
            cloud.pending -= 1

    def _again(self) -> None:
        if self._tries < TRIES:
            self._cloud.world.log.multiplied += 1  # it may have invoked before it failed
            self._cloud._tell(self._record, 60.0, self._tries + 1)
        else:
            self._cloud.world.log.lost += 1

    def fate(self, verb: str, writes: bool) -> Fate:
        fate = self._cloud.world.nature.fate(verb, writes)
        return Fate.STALL if fate is Fate.ZOMBIE else fate

    def stall(self, seconds: float, *, given_up: bool = False) -> None:
        self._process.stalled_until = self._cloud.world.scheduler.now_s + seconds

    def die(self) -> None:
        self._cloud.world.scheduler.kill(self._process)


def _as_json(event: Event) -> Any:
    """Any: JSON, as the platform gives it back."""
    import json

    return json.loads(event.encode())


def swept(
    cloud: Cloud, manifest: Manifest, store: SimulatedStore, launch: Callable[[Event], None]
) -> int:
    """Sweep a job, and count what that launches."""
    count = cloud.rules.sweep(store, manifest, launch, cloud.world.scheduler.now_s)
    cloud.world.log.swept += count
    return count
