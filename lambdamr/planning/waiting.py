"""What hangs on time: looks at the store, by the client that waits and by the lanes that run.

0 ── 50 ms ── 75 ms ── … ── 2 s ── 2 s ── … ── 1 % of the elapsed time, at most 10 s ──▶ looks
"""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lambdamr.planning.counting import Count, Kind, Side
from lambdamr.polling import next_pause, pages
from lambdamr_runtime.limits import LOGS_WANTED_S, POLL_FIRST_S, TOMBSTONE_S

if TYPE_CHECKING:
    from lambdamr.planning.shapes import JobShape
    from lambdamr.prices import Prices
    from lambdamr_runtime.lanes import LanePlan

LOOKS_PER_PERIOD = 2
"""A running lane and the thread beside it both look for a tombstone every TOMBSTONE_S."""


def look_times(seconds: float) -> Iterator[float]:
    """Yield when a client looks that has nothing but the store to tell it of news, in *seconds*."""
    at = 0.0
    pause = POLL_FIRST_S
    while at <= seconds:
        yield at
        at += pause
        pause = next_pause(pause, at)


def client_looks(plan: "LanePlan", seconds: float) -> Counter[Kind]:
    """Return the requests of the looks at one stage that takes so long and whose chunks end evenly.

    Each look lists what is incomplete, and where there is no news asks for the report, the
    tombstone and the manifest. What it finds is not counted here. Every group counts as incomplete
    until the end, and every look as one without news: it is the most that looking costs.
    """
    found: Counter[Kind] = Counter()
    for at in look_times(seconds):
        present = int(plan.chunks * at / seconds) if seconds else 0
        if plan.chunks == 1:
            found[Kind.GET] += 1
        else:
            found[Kind.LIST] += min(plan.groups, pages(present))
        found[Kind.GET] += 2
        found[Kind.HEAD] += 1
    return found


def count_waiting(job: "JobShape", seconds: dict[str, float]) -> list[Count]:
    """Return the requests of a client that waits for a job from its launch to its end.

    Args:  seconds: of each stage, by name.
    """
    return [
        Count(shape.name, Side.CLIENT, kind, "looks while waiting", number)
        for shape in job.stages
        if shape.plan.tasks
        for kind, number in client_looks(shape.plan, seconds[shape.name]).items()
    ]


def count_tombstones(stage: str, running_s: float) -> Count:
    """Return the looks that lanes make while they run: for a cancellation, and whether logs are
    wanted.

    Args:  running_s: seconds of all lanes together.
    """
    looks = int(LOOKS_PER_PERIOD * running_s / TOMBSTONE_S) + int(running_s / LOGS_WANTED_S)
    return Count(stage, Side.WORKERS, Kind.HEAD, "tombstone, every 2 s; logs, every 10 s", looks)


def waiting_cost(plan: "LanePlan", seconds: float, prices: "Prices") -> float:
    """Return what a client's waiting for a stage costs in requests, US dollars.

    All that it does from the launch to the end: its looks, the outcomes that it reads, the report.
    """
    found = client_looks(plan, seconds)
    found[Kind.GET] += plan.chunks + 1
    return sum(
        number * (prices.put if kind.writes else prices.get) for kind, number in found.items()
    )
