"""Tasks that took much longer than their siblings."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lambdamr.stats import TaskStats

SLOW_MULTIPLE = 3.0
"""A task is a straggler from this multiple of the median on."""

SLOW_FLOOR_S = 1.0
"""And only if it took so much longer than the median: nobody waits for less."""

FEWEST_TASKS = 3
"""Of fewer tasks none is slow: there is nothing to compare it with."""


@dataclass(frozen=True, slots=True)
class Straggler:
    """A task that was slow."""

    task: int
    seconds: float
    """In the task itself, all tries together."""
    median_s: float
    """What half of the tasks took at most."""
    tries: int
    attempt: int
    """As of TaskStats: a task that was tried again is slow for a reason."""
    worker: str

    @property
    def multiple(self) -> float:
        """How many times the median it took; infinite where that is 0."""
        return self.seconds / self.median_s if self.median_s else float("inf")


def find_stragglers(
    stats: "Iterable[TaskStats | None]",
    multiple: float = SLOW_MULTIPLE,
    floor_s: float = SLOW_FLOOR_S,
) -> list[Straggler]:
    """Return the tasks slower than a multiple of the median of those done, the slowest first.

    Args:    stats: of each task, in order; None where it is not done or was not run.
             multiple: of the median, >= 1.  floor_s: least seconds above the median, >= 0.
    Raises:  ValueError: multiple or floor_s out of its range.
    """
    from statistics import median  # 8 ms, which `import lambdamr` would pay

    if not multiple >= 1:
        raise ValueError(f"multiple must be >= 1, got {multiple}")
    if not floor_s >= 0:
        raise ValueError(f"floor_s must be >= 0, got {floor_s}")
    ran = [(task, each) for task, each in enumerate(stats) if each is not None and each.tries]
    if len(ran) < FEWEST_TASKS:
        return []
    middle = median(each.seconds for _, each in ran)
    least = max(multiple * middle, middle + floor_s)
    slow = [
        Straggler(task, each.seconds, middle, each.tries, each.attempt, each.worker)
        for task, each in ran
        if each.seconds >= least
    ]
    return sorted(slow, key=lambda straggler: -straggler.seconds)
