"""Actors that take turns on a virtual clock: who is due goes on, all in one thread.

An actor is a greenlet of a process. A process that is killed can do nothing more: its actors get
`Killed` at the point where they wait, and at every later one, whatever they catch in between.
"""

import heapq
import queue
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

import greenlet

from lambdamr_runtime import context
from lambdamr_runtime.context import Context

START_S = 1_790_000_000.0
FOREVER = float("inf")


class Killed(BaseException):
    """This process is gone. No Exception: nothing may handle it."""


class Stuck(AssertionError):
    """A history does not end."""


class Process:
    """What dies as one: a client, or a worker's process with all its threads."""

    def __init__(self, name: str, context: Context | None = None) -> None:
        self.name = name
        self.context = context
        """What its code finds as the worker that it runs in."""
        self.dead = False
        self.skew_s = 0.0
        """By how much its wall clock is wrong."""
        self.stalled_until = 0.0
        """Frozen until then, as a sandbox may be: nothing of it goes on."""
        self.actors: list[Actor] = []

    def check_alive(self) -> None:
        if self.dead:
            raise Killed


class Actor:
    """One thread of a process."""

    __slots__ = ("greenlet", "number", "process", "ticket")

    def __init__(self, process: Process, number: int) -> None:
        self.process = process
        self.number = number
        self.ticket = 0
        """Counts its wake-ups: one that is not the last arranged is stale."""
        self.greenlet: Any = None  # Any: the C extension has no types


class Scheduler:
    """The virtual clock and the actors.

    Args:  most_steps: wake-ups that a history may take.
    """

    def __init__(self, random: Random, most_steps: int) -> None:
        self.random = random
        self.now_s = START_S
        self.steps = 0
        self._most_steps = most_steps
        self._heap: list[tuple[float, int, Actor, int]] = []
        self._numbers = 0
        self._actors: set[Actor] = set()
        self._hub: Any = greenlet.getcurrent()
        self.current: Actor | None = None
        self.error: BaseException | None = None
        """What an actor raised that nobody expects."""
        self.ending = False
        """Whether the history is over, and its actors are only unwound."""

    @property
    def process(self) -> Process:
        """The process that runs now."""
        assert self.current is not None
        return self.current.process

    def spawn(self, process: Process, run: Callable[[], None], delay_s: float = 0.0) -> Actor:
        """Start an actor that calls *run* once the delay is over."""
        self._numbers += 1
        actor = Actor(process, self._numbers)
        actor.greenlet = greenlet.greenlet(lambda: self._live(actor, run), self._hub)
        self._actors.add(actor)
        process.actors.append(actor)
        self._arrange(actor, delay_s)
        return actor

    def pause(self, seconds: float) -> None:
        """Let others go on; returns when the time is over.

        Raises:  Killed: the process is gone.
        """
        actor = self.current
        assert actor is not None
        actor.process.check_alive()
        self._arrange(actor, seconds)
        self._next()
        actor.process.check_alive()
        while self.now_s < actor.process.stalled_until:
            self._arrange(actor, actor.process.stalled_until - self.now_s)
            self._next()
            actor.process.check_alive()

    def wait(self, seconds: float) -> None:
        """Wait to be woken, at most so long; FOREVER: however long it takes."""
        if seconds < FOREVER:
            self.pause(seconds)
            return
        actor = self.current
        assert actor is not None
        actor.process.check_alive()
        actor.ticket += 1
        self._next()
        actor.process.check_alive()

    def wake(self, actor: Actor) -> None:
        """End an actor's wait."""
        if actor in self._actors:
            self._arrange(actor, 0.0)

    def move(self, actor: Actor, process: Process) -> None:
        """Make an actor part of another process; the caller is that actor."""
        if actor.process is not process:
            actor.process.actors.remove(actor)
            actor.process = process
            process.actors.append(actor)
            context.enter(process.context)

    def kill(self, process: Process) -> None:
        """End a process; the caller may be part of it, and finds out at its next point."""
        process.dead = True
        for actor in process.actors:
            if actor is not self.current:
                self.wake(actor)

    def run(self) -> None:
        """Run actors until none has anything to do.

        Raises:  Stuck; what an actor raised.
        """
        while self._heap and self.error is None:
            actor = self._due()
            if actor is not None:
                self._enter(actor)
                actor.greenlet.switch()
        context.enter(None)
        self._end()
        if self.error is not None:
            raise self.error

    def _end(self) -> None:
        """Unwind what still waits: a greenlet that is only dropped ends in some later moment."""
        self._heap.clear()
        self.ending = True
        for actor in sorted(self._actors, key=lambda each: each.number):
            actor.process.dead = True
        while self._actors:
            actor = min(self._actors, key=lambda each: each.number)
            self._enter(actor)
            actor.greenlet.switch()
        self.current = None

    def _arrange(self, actor: Actor, seconds: float) -> None:
        self._numbers += 1
        actor.ticket += 1
        heapq.heappush(self._heap, (self.now_s + seconds, self._numbers, actor, actor.ticket))

    def _due(self) -> Actor | None:
        at_s, _, actor, ticket = heapq.heappop(self._heap)
        if ticket != actor.ticket or actor not in self._actors:
            return None
        self.now_s = max(self.now_s, at_s)
        self.steps += 1
        if self.steps > self._most_steps and self.error is None:
            self.error = Stuck(f"{self.steps} steps, {self.now_s - START_S:.0f} s")
        return actor

    def _next(self) -> None:
        """Go on with whoever is due: here, in another actor, or, if there is none, in the hub."""
        mine = self.current
        while self._heap and self.error is None:
            actor = self._due()
            if actor is None:
                continue
            if actor is mine:
                return
            self._enter(actor)
            actor.greenlet.switch()
            return
        self._hub.switch()

    def _enter(self, actor: Actor) -> None:
        self.current = actor
        context.enter(actor.process.context)

    def _live(self, actor: Actor, run: Callable[[], None]) -> None:
        try:
            actor.process.check_alive()
            run()
        except Killed:
            pass
        except BaseException as error:  # raised again by `run`
            self.error = self.error or error
        finally:
            self._actors.discard(actor)
            actor.process.actors.remove(actor)


class VirtualClock:
    """The clock of a process."""

    def __init__(self, scheduler: Scheduler, process: Process) -> None:
        self._scheduler = scheduler
        self._process = process

    def time(self) -> float:
        return self._scheduler.now_s + self._process.skew_s

    def monotonic(self) -> float:
        return self._scheduler.now_s

    def sleep(self, seconds: float) -> None:
        self._scheduler.pause(seconds)


class VirtualMachine(VirtualClock):
    """The machine of a client, and of a task that is one; obeys Machine."""

    def start(self, run: Callable[[], None], name: str) -> None:
        self._scheduler.spawn(self._process, run)

    def signal(self) -> "VirtualSignal":
        return VirtualSignal(self._scheduler)

    def news(self) -> "VirtualNews":
        return VirtualNews(self._scheduler)


class VirtualSignal:
    """What actors wait for: no lock, as nobody is interrupted between two points."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiting: list[Actor] = []

    def wait_for(self, is_over: Callable[[], bool], timeout: float | None) -> bool:
        deadline = FOREVER if timeout is None else self._scheduler.now_s + timeout
        while not is_over():
            left = deadline - self._scheduler.now_s
            if left <= 0:
                return False
            actor = self._scheduler.current
            assert actor is not None
            self._waiting.append(actor)
            try:
                self._scheduler.wait(left)
            finally:
                self._waiting.remove(actor)
        return True

    def notify_all(self) -> None:
        for actor in self._waiting:
            self._scheduler.wake(actor)


class VirtualNews:
    """A queue between actors; obeys News."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._items: deque[Any] = deque()
        self._reader: Actor | None = None

    def put(self, item: Any) -> None:
        self._items.append(item)
        if self._reader is not None:
            self._scheduler.wake(self._reader)

    def get(self, *, timeout: float) -> Any:
        if not self._items:
            self._reader = self._scheduler.current
            try:
                self._scheduler.wait(timeout)
            finally:
                self._reader = None
        return self.get_nowait()

    def get_nowait(self) -> Any:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()
