"""Which tasks took far longer than the others of their stage."""

from collections.abc import Mapping
from statistics import median
from typing import NamedTuple

FACTOR = 3.0
"""A task that took this multiple of the median is a straggler."""

LEAST_S = 0.5
"""What it must have taken beyond the median: below that nobody waits for it."""

LEAST_TASKS = 4
"""Of fewer tasks a median says little."""


class Straggler(NamedTuple):
    """A task that others waited for."""

    task: int
    seconds: float
    times_median: float


def stragglers(seconds: Mapping[int, float]) -> tuple[Straggler, ...]:
    """Return the stragglers among tasks, slowest first.

    Args:  seconds: of each task, by its number.
    """
    if len(seconds) < LEAST_TASKS:
        return ()
    middle = median(seconds.values())
    limit = max(FACTOR * middle, middle + LEAST_S)
    found = [
        Straggler(task, spent, spent / middle if middle else float("inf"))
        for task, spent in seconds.items()
        if spent > limit
    ]
    return tuple(sorted(found, key=lambda each: (-each.seconds, each.task)))
