"""Where the time of a map or reduce task goes; taken per batch or block, never per record."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TypeVar

_T = TypeVar("_T")

_END = object()


@dataclass(frozen=True, slots=True)
class Phases:
    """Seconds that a task spent in each phase; those of one task add up to its time."""

    read: float = 0.0
    """Reading and decoding records."""
    map: float = 0.0
    """The mappers."""
    combine: float = 0.0
    """Adding pairs to the dictionary."""
    sort: float = 0.0
    """Partitioning and sorting keys."""
    write: float = 0.0
    """Pickling, temporary files, the upload."""
    fetch: float = 0.0
    """Reading slices."""
    merge: float = 0.0
    """Grouping or merging what was fetched."""
    reduce: float = 0.0
    """The reducer."""


PHASES = tuple(Phases.__slots__)


@dataclass(slots=True)
class Stopwatch:
    """Attributes all time to one phase, from `enter` to the next `enter`."""

    _phase: str
    _since: float = field(default_factory=perf_counter)
    _seconds: dict[str, float] = field(default_factory=dict)

    def enter(self, phase: str) -> str:
        """Begin a phase, and return the one that it interrupts, to be entered again later."""
        now = perf_counter()
        interrupted = self._phase
        self._seconds[interrupted] = self._seconds.get(interrupted, 0.0) + now - self._since
        self._phase, self._since = phase, now
        return interrupted

    def within(self, phase: str, items: Iterable[_T]) -> Iterator[_T]:
        """Yield *items*, the making of each one counted to *phase*."""
        source = iter(items)
        while True:
            interrupted = self.enter(phase)
            try:
                item = next(source, _END)
            finally:
                self.enter(interrupted)
            if item is _END:
                return
            yield item  # type: ignore[misc]  # the sentinel has returned above

    def divide(self, phase: str, among: Sequence[str]) -> None:
        """Give the seconds of a phase to others in the proportion of what these have, or to the
        first of them where they have nothing.
        """
        self.enter(self._phase)
        seconds = self._seconds.pop(phase, 0.0)
        known = [self._seconds.get(name, 0.0) for name in among]
        whole = sum(known)
        shares = [part / whole for part in known] if whole else [1.0]
        for name, share in zip(among, shares, strict=False):
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds * share

    def phases(self) -> Phases:
        """Return the seconds so far."""
        self.enter(self._phase)
        return Phases(**self._seconds)
