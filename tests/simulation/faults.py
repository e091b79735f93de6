"""What goes wrong in one history: rates drawn from its seed, and the dice that are thrown."""

import enum
from dataclasses import dataclass
from random import Random


class Fate(enum.Enum):
    """What becomes of one request."""

    FINE = enum.auto()
    CRASH_BEFORE = enum.auto()
    CRASH_AFTER = enum.auto()
    GHOST = enum.auto()
    """The process ends before, and what it wrote lands some time later."""
    REFUSED = enum.auto()
    """503: nothing is done, the caller gets an error."""
    ANSWER_LOST = enum.auto()
    """It is done, and the caller gets an error."""
    REPEATED = enum.auto()
    """The client library repeats it after a lost answer: of a create, the second one fails."""
    CONFLICT = enum.auto()
    """409 to a create: nothing is stored, and the caller gets an error."""
    STALL = enum.auto()
    """The process is frozen for a while."""
    ZOMBIE = enum.auto()
    """It is frozen and given up; it wakes up later and goes on."""


DEADLY = frozenset({Fate.CRASH_BEFORE, Fate.CRASH_AFTER, Fate.GHOST, Fate.ZOMBIE})


@dataclass(slots=True)
class Rates:
    """Probabilities, per request, launch or record."""

    crash: float = 0.0
    mislead: float = 0.0
    """Of writes: an answer that is lost, repeated or a conflict."""
    refuse: float = 0.0
    stall: float = 0.0
    zombie: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    drop: float = 0.0
    """An event is never run; the platform tells so."""
    lose: float = 0.0
    """An event is never run, and nobody tells."""
    throttle: float = 0.0
    record_lost: float = 0.0
    unclean: float = 0.0
    """A chunk leaves its process in need of replacement."""


KINDS = tuple(Rates.__slots__)
RARE = {"refuse": 0.1, "lose": 0.15, "record_lost": 0.2}
"""Kinds that excuse much, and so hide much: only a part of the histories has them."""

PER_REQUEST = {"crash": 0.02, "mislead": 0.05, "refuse": 0.004, "stall": 0.02, "zombie": 0.01}
PER_EVENT = {"duplicate": 0.3, "delay": 0.3, "drop": 0.1, "lose": 0.1, "throttle": 0.2}
HIGHEST = {**PER_REQUEST, **PER_EVENT, "record_lost": 0.3, "unclean": 0.2}


class Nature:
    """The dice of one history.

    Args:  quiet: nothing goes wrong.
    """

    def __init__(self, random: Random, *, quiet: bool = False) -> None:
        self.random = random
        self.rates = Rates()
        self.latency_s = random.choice((0.005, 0.02, 0.1, 0.5))
        """Mean of a request."""
        self.deaths_left = random.choice((0, 1, 1, 2, 2, 2, 3, 6))
        self.client_deaths_left = 0
        self.client_death = 0.0
        """Probability per request of a client."""
        self.skews = False
        if quiet:
            return
        share = random.choice((0.15, 0.4, 0.7))
        for kind in KINDS:
            if random.random() < RARE.get(kind, share):
                setattr(self.rates, kind, HIGHEST[kind] * random.random())
        if random.random() < 0.15:
            self.client_deaths_left = 1
            self.client_death = 0.1 * random.random()
        self.skews = random.random() < 0.2
        self._any = sum(getattr(self.rates, kind) for kind in PER_REQUEST)

    def latency(self) -> float:
        """Return how long a request takes: mostly short, sometimes long."""
        return self.random.expovariate(1.0) * self.latency_s

    def happens(self, kind: str) -> bool:
        rate: float = getattr(self.rates, kind)
        return rate > 0.0 and self.random.random() < rate

    def fate(self, verb: str, writes: bool) -> Fate:
        """Return what becomes of a request of a worker or supervisor."""
        rates = self.rates
        dice = self.random.random()
        if dice >= rates.crash + rates.mislead + rates.refuse + rates.stall + rates.zombie:
            return Fate.FINE
        if dice < rates.crash:
            return self._deadly(writes)
        dice -= rates.crash
        if dice < rates.mislead:
            return self._misleading(verb) if writes else Fate.FINE
        dice -= rates.mislead
        if dice < rates.refuse:
            return Fate.REFUSED
        if dice - rates.refuse < rates.stall:
            return Fate.STALL
        return self._dies(Fate.ZOMBIE)

    def client_fate(self, verb: str, writes: bool) -> Fate:
        """Return what becomes of a request of a client."""
        if self.client_deaths_left and self.random.random() < self.client_death:
            self.client_deaths_left -= 1
            return self.random.choice((Fate.CRASH_BEFORE, Fate.CRASH_AFTER))
        if writes and self.happens("mislead"):
            return self._misleading(verb)
        return Fate.REFUSED if self.happens("refuse") else Fate.FINE

    def _deadly(self, writes: bool) -> Fate:
        if not writes:
            return self._dies(Fate.CRASH_BEFORE)
        return self._dies(
            self.random.choice((Fate.CRASH_BEFORE, Fate.CRASH_AFTER, Fate.CRASH_AFTER, Fate.GHOST))
        )

    def _dies(self, fate: Fate) -> Fate:
        if not self.deaths_left:
            return Fate.FINE
        self.deaths_left -= 1
        return fate

    def _misleading(self, verb: str) -> Fate:
        if verb != "create":
            return Fate.REPEATED
        return self.random.choice((Fate.ANSWER_LOST, Fate.REPEATED, Fate.CONFLICT))
