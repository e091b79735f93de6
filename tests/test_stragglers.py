"""Stragglers: tasks slower than a multiple of the median."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdamr.stats import TaskStats
from lambdamr.stragglers import find_stragglers


def took(*seconds: float | None) -> list[TaskStats | None]:
    """Stats of tasks that took so long; None stands for one that is not done."""
    return [None if s is None else TaskStats(s, 1, 0, 0.0, 1.0, "w") for s in seconds]


def test_the_slow_ones_are_named_slowest_first() -> None:
    """Tasks from three medians on are stragglers; those that are not done count for nothing."""
    found = find_stragglers(took(1.0, 9.0, 1.0, None, 2.0, 30.0, 1.0, 2.0, 2.9))
    assert [each.task for each in found] == [5, 1]
    assert (found[0].seconds, found[0].median_s, found[0].multiple) == (30.0, 2.0, 15.0)


def test_short_tasks_are_no_stragglers() -> None:
    """Ten times nothing is nothing: less than a second above the median is not reported."""
    assert find_stragglers(took(0.001, 0.001, 0.9)) == []
    assert len(find_stragglers(took(0.001, 0.001, 0.9), floor_s=0.0)) == 1


def test_a_median_of_nothing() -> None:
    """Where most tasks take no time at all the multiple is infinite, and no error."""
    (only,) = find_stragglers(took(0.0, 0.0, 0.0, 5.0))
    assert only.multiple == float("inf")


def test_tasks_that_were_not_run_are_left_out() -> None:
    """Cancelled tasks have stats, but no calls."""
    cancelled = TaskStats(0.0, 0, 0, 0.0, 0.0, "client")
    assert find_stragglers([cancelled] * 9 + took(5.0, 5.0, 5.0)) == []


def test_of_two_tasks_none_is_slow() -> None:
    """A median of two says nothing."""
    assert find_stragglers(took(0.1, 100.0)) == []


@pytest.mark.parametrize(("multiple", "floor_s"), [(0.5, 1.0), (3.0, -1.0), (float("nan"), 1.0)])
def test_options_out_of_range_are_refused(multiple: float, floor_s: float) -> None:
    """Every task is slower than half the median: that cannot be meant."""
    with pytest.raises(ValueError, match="must be >="):
        find_stragglers([], multiple, floor_s)


@given(st.lists(st.floats(0, 1e6), max_size=30), st.floats(1.0, 100.0))
def test_at_most_half_are_stragglers(seconds: list[float], multiple: float) -> None:
    """Whatever they took, less than half of the tasks can be slower than the median."""
    found = find_stragglers(took(*seconds), multiple)
    assert len(found) <= len(seconds) / 2
    assert all(each.seconds >= multiple * each.median_s for each in found)
