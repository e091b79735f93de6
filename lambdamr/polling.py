"""How a client waits: when it looks at the store, and what it lists there.

Pure arithmetic, for the poller and for the model of what waiting costs.
"""

from collections.abc import Collection

from lambdamr_runtime.keys import StageKeys
from lambdamr_runtime.lanes import LanePlan
from lambdamr_runtime.limits import LIST_PAGE, POLL_FLOOR_S, POLL_MAX_S, POLL_SHARE

GROWTH = 1.5
"""Each pause is so many times the one before, up to its bound."""

QUIET_SHARE = 1.25
QUIET_S = 60.0
"""A job is at rest if nothing of it is committed for this share of a function's time and so
long."""


def next_pause(pause: float, elapsed_s: float) -> float:
    """Return the pause that follows one of *pause* seconds.

    It grows to max(POLL_FLOOR_S, POLL_SHARE of the elapsed time), at most POLL_MAX_S.
    """
    return min(POLL_MAX_S, pause * GROWTH, max(POLL_FLOOR_S, elapsed_s * POLL_SHARE))


def quiet_s(timeout_s: float) -> float:
    """Return how long a job may be quiet before its lanes are launched again."""
    return timeout_s * QUIET_SHARE + QUIET_S


def prefixes_to_list(
    keys: StageKeys, plan: LanePlan, missing: Collection[int], *, paged: bool
) -> list[str]:
    """Return what to list to find the outcomes of *missing* chunks, with the fewest requests.

    Either each group that is incomplete, or all outcomes at once, page by page: of 10,000 chunks
    in 28 groups the pages are 1 to 11. Known from the chunks that are not missing is how many
    outcomes there are at least.

    Args:  paged: whether a listing is requests for pages; a directory is read entry by entry.
    """
    groups = sorted({plan.group_of(chunk) for chunk in missing})
    if paged and pages(plan.chunks - len(missing)) < len(groups):
        return [keys.all_outcomes]
    return [keys.outcomes(group) for group in groups]


def pages(entries: int) -> int:
    """Return the requests that a listing of so many entries takes."""
    return max(1, -(-entries // LIST_PAGE))
