"""The protocol with one rule taken out: what the simulation must notice.

A mutant is made of subclasses of what it mutates, handed in where the real one would be.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lambdamr_runtime.barrier import Barrier
from lambdamr_runtime.chunk import StageRun, Waited
from lambdamr_runtime.errors import StoreError
from lambdamr_runtime.outputs import Final, Placed, _Placing
from lambdamr_runtime.store import StoredObject
from lambdamr_runtime.supervisor import Verdict, supervise
from lambdamr_runtime.wire import Event, Manifest, Outcome
from lambdamr_runtime.work import TaskEnv
from lambdamr_runtime.worker import Worker
from tests.simulation.cloud import Rules
from tests.simulation.history import Case
from tests.simulation.jobs import Mutable
from tests.simulation.store import SimulatedStore


@dataclass(frozen=True, slots=True)
class Mutant:
    """One rule taken out."""

    rules: Rules = field(default_factory=Rules)
    mutable: Mutable = field(default_factory=Mutable)
    case: Case = field(default_factory=Case)
    """The histories that show it soonest."""
    start: int = 0
    """Seed of the first one to try: none before it shows it."""


# --- DESIGN 4: creates ---------------------------------------------------------------------------
class TrustingStore(SimulatedStore):
    """Believes the exception of a create, and does not read the winner."""

    def create(self, key: str, data: bytes, execution: str) -> bool:
        try:
            self.put_new(key, execution.encode() + b"\n" + data)
        except StoreError:
            return False
        return True


class OverwritingStore(SimulatedStore):
    """Puts outcomes, and does not create them."""

    def create(self, key: str, data: bytes, execution: str) -> bool:
        if "/outcomes/" not in key:
            return super().create(key, data, execution)
        self.put(key, execution.encode() + b"\n" + data)
        return True


_EXECUTION = re.compile(r"\.[0-9a-f]{16}(?=$|\.)")


def _nameless(key: str) -> str:
    return _EXECUTION.sub("", key) if "attempts/" not in key else key


class NamelessStore(SimulatedStore):
    """No execution ids in names: every execution of a task writes to the same keys."""

    def get(self, key: str) -> bytes:
        return super().get(_nameless(key))

    def view_range(self, key: str, start: int, length: int, etag: str = "") -> memoryview:
        return super().view_range(_nameless(key), start, length, etag)

    def put(self, key: str, data: bytes) -> None:
        super().put(_nameless(key), data)

    def copy(self, source: str, target: str) -> None:
        super().copy(_nameless(source), target)


class HastyStore(SimulatedStore):
    """Writes parts behind the outcome that names them."""

    _held: list[tuple[str, bytes]]

    def put(self, key: str, data: bytes) -> None:
        if _EXECUTION.search(key) and "attempts/" not in key:
            self._held = [*getattr(self, "_held", []), (key, data)]
        else:
            super().put(key, data)

    def create(self, key: str, data: bytes, execution: str) -> bool:
        won = super().create(key, data, execution)
        held, self._held = getattr(self, "_held", []), []
        for each in held:
            super().put(*each)
        return won


class UnrecordedStore(SimulatedStore):
    """Shows nobody which deaths are recorded: a record that comes twice is held against two."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return iter(()) if prefix.endswith("/attempts/") else super().list(prefix)


# --- DESIGN 6: launching and repairs -------------------------------------------------------------
class Forgetful(Worker):
    """A repair begins where its event says, and does not look for outcomes."""

    def _committed(self, run: StageRun, chunks: Sequence[int]) -> frozenset[int]:
        return frozenset()


class Skipping(Worker):
    """A repair goes on behind the chunk that died, not at the first one without outcome."""

    def run(self, event: Event) -> Event | None:
        if event.death is not None:
            event = replace(event.repaired(event.cursor + 1, 0), death=None)
        return super().run(event)


class Childless(Worker):
    """A repair never launches children."""

    def _launch_children(self, run: StageRun, event: Event) -> None:
        if not event.repair:
            super()._launch_children(run, event)


class Prolific(Worker):
    """A repair launches children whatever `launched/` shows."""

    def _launch_children(self, run: StageRun, event: Event) -> None:
        super()._launch_children(run, replace(event, repair=False))


# --- DESIGN 7: the barrier -----------------------------------------------------------------------
def with_barrier(kind: type[Barrier]) -> Callable[..., Worker]:
    class Mutated(Worker):
        def __init__(self, store: Any, clock: Any, host: Any, *rest: Any) -> None:
            super().__init__(store, clock, host, *rest)
            self._barrier = kind(store, self._launch, clock)

    return Mutated


class DeafBarrier(Barrier):
    """Repairs do not run the barrier."""

    def lane_ended(self, run: StageRun, group: int, repair: bool = False) -> bool:
        return False if repair else super().lane_ended(run, group, repair)


class Resigned(Worker):
    """Who finds an outcome already there does not run the barrier."""

    def run(self, event: Event) -> Event | None:
        self._has_lost = False
        return super().run(event)

    def _mark_winner(self, run: StageRun, chunk: int) -> None:
        self._has_lost = True
        super()._mark_winner(run, chunk)

    def _run_lane(self, run: StageRun, event: Event, waited: Waited) -> Event | None:
        barrier = self._barrier
        self._barrier = _Unless(barrier, self)  # type: ignore[assignment]
        try:
            return super()._run_lane(run, event, waited)
        finally:
            self._barrier = barrier


@dataclass(frozen=True, slots=True)
class _Unless:
    """A barrier that losers do not run."""

    barrier: Barrier
    worker: Resigned

    def lane_ended(self, run: StageRun, group: int, repair: bool = False) -> bool:
        return not self.worker._has_lost and self.barrier.lane_ended(run, group, repair)

    def chunk_failed(self, run: StageRun, outcome: Outcome, signature: str) -> bool:
        return self.barrier.chunk_failed(run, outcome, signature)


class TimidBarrier(Barrier):
    """Where `done` exists without `next`, repairs do not launch the next stage."""

    def _stage_ended(self, run: StageRun, repair: bool) -> bool:
        return super()._stage_ended(run, False)


class HastyBarrier(Barrier):
    """A group counts as complete when its first lane has ended."""

    def _is_complete(self, run: StageRun, group: int) -> bool:
        return True


# --- DESIGN 8: supervisor, sweep, finalizer ------------------------------------------------------
def supervise_one_chunk(
    record: Any, store: Any, invoke: Callable[[Event], None], *rest: Any
) -> Verdict:
    """Repair the chunk that died, and forget the rest of its lane."""

    def only(event: Event) -> None:
        run = StageRun.of(Manifest.decode(store.get(f"jobs/{event.job}/job.json"), ""), event.stage)
        chunks = run.plan.chunks_of(event.lo)
        if event.cursor < len(chunks):
            invoke(replace(event, only=(chunks[event.cursor],), cursor=0, hi=event.lo + 1))

    return supervise(record, store, only, *rest)


def supervise_namelessly(
    record: Any, store: Any, invoke: Callable[[Event], None], *rest: Any
) -> Verdict:
    """Give deaths no names: whoever records one that was told twice counts two."""

    def nameless(event: Event) -> None:
        assert event.death is not None
        invoke(replace(event, death=replace(event.death, execution="")))

    return supervise(record, store, nameless, *rest)


def supervise_nothing(*_: Any) -> Verdict:
    """Do nothing at all."""
    return Verdict.NOTHING


def sweep_nothing(*_: Any) -> int:
    """Do nothing at all."""
    return 0


class _Deaf(_Placing):
    def _look(self) -> None: ...


@dataclass(frozen=True, slots=True)
class DeafFinal(Final):
    """The finalizer does not stop on `cancelled`."""

    def run(self, env: TaskEnv, task: int, arg: Any) -> Placed:
        return _Deaf(self, env).run()


MUTANTS: dict[str, Mutant] = {
    "no read of the winner": Mutant(Rules(store=TrustingStore)),
    "outcomes overwritten": Mutant(Rules(store=OverwritingStore)),
    "no execution ids in names": Mutant(Rules(store=NamelessStore)),
    "parts behind the outcome": Mutant(Rules(store=HastyStore)),
    "barrier not run by repairs": Mutant(Rules(worker=with_barrier(DeafBarrier))),
    "barrier not run by losers": Mutant(Rules(worker=Resigned)),
    "no launch where next is missing": Mutant(Rules(worker=with_barrier(TimidBarrier))),
    "stage ended by its first lane": Mutant(Rules(worker=with_barrier(HastyBarrier))),
    "repairs launch no children": Mutant(Rules(worker=Childless)),
    "repairs launch children again": Mutant(Rules(worker=Prolific)),
    "repairs do not look for outcomes": Mutant(Rules(worker=Forgetful)),
    "repairs skip the chunk that died": Mutant(Rules(worker=Skipping)),
    "supervisor forgets the lane": Mutant(Rules(supervise=supervise_one_chunk)),
    "deaths without names": Mutant(Rules(supervise=supervise_namelessly)),
    "deaths told twice count twice": Mutant(Rules(store=UnrecordedStore)),
    "no supervisor": Mutant(Rules(supervise=supervise_nothing)),
    "no sweep": Mutant(Rules(sweep=sweep_nothing)),
    "finalizer deaf to a tombstone": Mutant(
        mutable=Mutable(final=DeafFinal),
        case=Case("map_reduce with output", cancels=True),
        start=1100,
    ),
}
