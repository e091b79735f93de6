"""One history: what is stored, who acts, what happened, and what holds at any time."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

from lambdamr_runtime import keys
from lambdamr_runtime.chunk import StageRun
from lambdamr_runtime.errors import StoreError
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.wire import Event, Manifest
from tests.simulation.faults import DEADLY, Fate, Nature
from tests.simulation.scheduler import Killed, Process, Scheduler
from tests.simulation.store import Exists, Objects, Request, SimulatedStore

T = TypeVar("T")

MOST_STEPS = 60_000

ONCE = (
    "/outcomes/",
    "/launched/",
    "/groups/",
    "/done",
    "/next",
    "/job.json",
    "/report.json",
    "/cancelled",
)
"""Objects of a job that are written once, and stay."""


class Violated(AssertionError):
    """An invariant does not hold."""


def require(condition: object, text: str) -> None:
    if not condition:
        raise Violated(text)


@dataclass(slots=True)
class Log:
    """What happened."""

    requests: list[tuple[float, str, str, str]] = field(default_factory=list)
    """(time, process, verb, key)."""
    invoked: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Accepted launches, by job and stage."""
    handovers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Those that go on behind chunks that have been committed."""
    swept: int = 0
    """Events launched by sweeps."""
    late: int = 0
    """Events that were begun behind their age, and so as repairs."""
    multiplied: int = 0
    """Deliveries and launches that faults have added."""
    unseen: int = 0
    """Ends of sandboxes that had been given up, and what such left under output= on its way."""
    deaths: int = 0
    """Processes that ended, events that were dropped, invocations that raised."""
    timeouts: int = 0
    """Invocations that the platform ended."""
    refused: int = 0
    """Requests whose error the caller got."""
    lost: int = 0
    """Events and failure records that nobody will hear of any more."""
    created_s: dict[str, float] = field(default_factory=dict)
    """When objects that are written once were written."""
    bodies: dict[str, bytes] = field(default_factory=dict)
    """What objects that are written once held then."""


@dataclass(frozen=True, slots=True)
class Running:
    """An event while it runs."""

    event: Event
    begun_s: float


class World:
    """One history.

    Args:  quiet: nothing goes wrong.
    """

    def __init__(
        self,
        seed: int,
        store: Callable[[Objects, Request], SimulatedStore] = SimulatedStore,
        *,
        quiet: bool = False,
    ) -> None:
        self.random = Random(seed)
        keys.draw_from(self.random.randbytes)
        self.scheduler = Scheduler(self.random, MOST_STEPS)
        self.nature = Nature(self.random, quiet=quiet)
        self.objects = Objects(now_s=lambda: self.scheduler.now_s)
        self.log = Log()
        self.manifests: dict[str, Manifest] = {}
        self.calls: list[Any] = []
        """Arguments of the calls of the users' functions: a call's number is its token."""
        self.tries: Counter[Any] = Counter()
        self.numbers = itertools.count()
        self._complete: set[tuple[str, int]] = set()
        """Stages of which every chunk has an outcome, for good."""
        self.plain = store(self.objects, at_once)
        """The store as the checks see it: without time and faults."""

    # --- requests -------------------------------------------------------------------------------
    def requester(self, process: Process, mortal: "Mortal") -> Request:
        """Return what does the requests of a process."""
        scheduler, nature, log = self.scheduler, self.nature, self.log

        def request(verb: str, key: str, act: Callable[[], T], *, writes: bool = False) -> T:
            scheduler.pause(nature.latency())
            mortal.check_time()
            fate = mortal.fate(verb, writes)
            log.requests.append((scheduler.now_s, process.name, verb, key))
            if fate is Fate.FINE:
                return self._do(verb, key, act)
            log.requests.append((scheduler.now_s, process.name, fate.name, key))
            return self._faulty(fate, mortal, verb, key, act)

        return request

    def _do(self, verb: str, key: str, act: Callable[[], T]) -> T:
        if verb in ("get", "list", "head"):
            return act()
        existed = key in self.objects.data
        answer = act()
        self._written(verb, key, existed)
        return answer

    def _faulty(self, fate: Fate, mortal: "Mortal", verb: str, key: str, act: Callable[[], T]) -> T:
        if fate in (Fate.REFUSED, Fate.CONFLICT):
            self.log.refused += fate is Fate.REFUSED
            raise StoreError(f"Could not {verb} {key!r}: {fate.name}")
        if fate is Fate.STALL:
            mortal.stall(self.random.choice((1.0, 5.0, 20.0)))
            self.scheduler.pause(0.0)
            return self._do(verb, key, act)
        if fate is Fate.ZOMBIE:
            mortal.stall(self.random.choice((2.0, 10.0, 60.0)), given_up=True)
            self.scheduler.pause(0.0)
            return self._do(verb, key, act)
        if fate is Fate.GHOST:
            self.log.unseen += key.startswith("out/")
            self._later(verb, key, act)
        if fate in (Fate.CRASH_BEFORE, Fate.GHOST):
            mortal.die()
            raise Killed
        self._do(verb, key, act)
        if fate is Fate.CRASH_AFTER:
            mortal.die()
            raise Killed
        if fate is Fate.ANSWER_LOST:
            raise StoreError(f"Could not {verb} {key!r}: connection reset")
        self.log.multiplied += verb == "invoke"
        self.scheduler.pause(self.nature.latency())
        return self._do(verb, key, act)  # REPEATED

    def _later(self, verb: str, key: str, act: Callable[[], T]) -> None:
        """A request is under way when its process ends."""

        def land() -> None:
            try:
                self._do(verb, key, act)
            except (StoreError, FileNotFoundError):  # nobody is there to hear of it
                return

        self.scheduler.spawn(Process("ghost"), land, self.random.choice((0.1, 2.0, 20.0)))

    def _written(self, verb: str, key: str, existed: bool) -> None:
        """Check a write: what is created once stays as it is."""
        if not key.startswith("jobs/") or not any(part in key for part in ONCE):
            return
        self.log.created_s.setdefault(key, self.scheduler.now_s)
        data = self.objects.data.get(key)
        if not existed and data is not None:
            self.log.bodies[key] = data
            return
        require(data == self.log.bodies.get(key), f"{key} was rewritten by {verb}")

    # --- what must hold at any time ---------------------------------------------------------------
    def run_of(self, job: str, stage: int) -> StageRun:
        return StageRun.of(self.manifest(job), stage)

    def manifest(self, job: str) -> Manifest:
        found = self.manifests.get(job)
        if found is None:
            key = JobKeys(job).manifest
            found = self.manifests[job] = Manifest.decode(self.objects.data[key], key)
        return found

    def committed(self, job: str, stage: int) -> int:
        """Return how many chunks of a stage have an outcome."""
        run = self.run_of(job, stage)
        return sum(
            run.keys.outcome(run.plan.group_of(chunk), chunk) in self.objects.data
            for chunk in range(run.plan.chunks)
        )

    def check_order(self, job: str, stage: int) -> None:
        """A stage starts only when those before it are complete."""
        for index in range(stage):
            if (job, index) in self._complete:
                continue
            wanted = self.run_of(job, index).plan.chunks
            found = self.committed(job, index)
            require(found == wanted, f"stage {stage} starts with {found} of {wanted} of {index}")
            self._complete.add((job, index))

    def check_begun(self, running: "Running", chunk: int) -> None:
        """A task begins: its stage may, and no repair runs what had an outcome when it began."""
        event = running.event
        self.check_order(event.job, event.stage)
        if event.repair or event.death is not None:
            run = self.run_of(event.job, event.stage)
            key = run.keys.outcome(run.plan.group_of(chunk), chunk)
            committed_s = self.log.created_s.get(key, float("inf"))
            require(
                committed_s >= running.begun_s, f"a repair runs chunk {chunk}, which has an outcome"
            )

    def check_children(self, running: "Running", events: Iterable[Event]) -> None:
        """No repair launches children that had been launched when it began."""
        parent = running.event
        if not parent.repair and parent.death is None:
            return
        run = self.run_of(parent.job, parent.stage)
        marker = run.keys.launched(parent.lo, parent.hi)
        for event in events:
            is_child = (event.job, event.stage) == (parent.job, parent.stage)
            if is_child and parent.lo < event.lo < parent.hi:
                launched_s = self.log.created_s.get(marker, float("inf"))
                require(launched_s >= running.begun_s, f"a repair launches {marker} again")


class Mortal:
    """How a process meets its fate; a worker's sandbox, a supervisor, a client."""

    cursor = 0
    """Of the event whose rest it may launch."""

    def check_time(self) -> None:
        """End here if the time is up."""

    def fate(self, verb: str, writes: bool) -> Fate:
        raise NotImplementedError

    def stall(self, seconds: float, *, given_up: bool = False) -> None:
        """Be frozen; *given_up*: whoever watches takes it for dead."""
        raise NotImplementedError

    def die(self) -> None:
        raise NotImplementedError


def at_once(verb: str, key: str, act: Callable[[], T], *, writes: bool = False) -> T:
    return act()


_current: World | None = None


def enter(world: World | None) -> None:
    """Set the history that runs."""
    global _current
    _current = world


def current() -> World:
    assert _current is not None
    return _current


__all__ = ["DEADLY", "Exists", "Killed", "Mortal", "Violated", "World", "current", "enter"]
