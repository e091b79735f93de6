"""Planners: sizes, lanes and memory in, splits and tasks out."""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdamr import planners
from lambdamr.planners import (
    MAX_TASK_SPLITS,
    MIN_SPLIT_BYTES,
    SPLITS_PER_LANE,
    Cut,
    grouped,
    planner_of,
    split_bytes_for,
)
from lambdamr_runtime.limits import MIB


@pytest.mark.parametrize(
    ("total_bytes", "lanes", "memory_mb", "expected"),
    [
        (0, 10, 1024, MIN_SPLIT_BYTES),
        (80 * MIB, 10, 1024, 2 * MIB),
        (80 * MIB + 1, 10, 1024, 2 * MIB + 1),
        (10**12, 10, 1024, 134_048_258),  # 746 rounds of ten
        (256 * MIB + 1, 2, 128, 26_843_546),  # nine splits become ten
        (10**12, 10, 128, 33_545_791),
        (10**12, 10, 2, 524_288),
        (10**12, 10, 0, MIN_SPLIT_BYTES),
    ],
)
def test_split_bytes_give_each_lane_a_few_splits(
    total_bytes: int, lanes: int, memory_mb: int, expected: int
) -> None:
    """Within the limits, and within a share of the memory."""
    assert SPLITS_PER_LANE == 4
    assert split_bytes_for(total_bytes, lanes, memory_mb) == expected


@pytest.mark.parametrize(
    ("input_bytes", "tasks", "lanes", "memory_mb", "expected"),
    [
        (0, 0, 2, 1024, 1),  # nothing to read
        (100, 1, 2, 1024, 1),  # no more reducers than mappers
        (100 * MIB, 8, 2, 1024, 2),
        (0, 8, 1000, 1024, 8),  # items, whose bytes nobody knows
        (10 * 1024 * MIB, 80, 2, 1024, 32),  # 80 would fit, but there are bounds
        (1024 * MIB, 32, 2, 256, 32),
        (10**12, 8000, 1000, 1769, 4313),
    ],
)
def test_partitions_are_planned_to_fit(
    input_bytes: int, tasks: int, lanes: int, memory_mb: int, expected: int
) -> None:
    """One per lane, fewer for small jobs, more for those that outgrow the reducers' memory."""
    assert planners.partitions_for(input_bytes, tasks, lanes, memory_mb) == expected


@pytest.mark.parametrize("planner", [planners.auto, planners.marla])
def test_planners_need_a_lane(planner: planners.Planner) -> None:
    """Zero lanes read nothing."""
    with pytest.raises(ValueError, match="lanes must be >= 1, got 0"):
        planner([1], 0, 128)


@pytest.mark.parametrize(
    ("sizes", "lanes", "expected"),
    [
        ([80 * MIB], 10, Cut(2 * MIB, 2 * MIB, 1)),
        ([100] * 1000, 10, Cut(MIN_SPLIT_BYTES, MIN_SPLIT_BYTES, 25)),
        ([0] * 10**6, 2, Cut(MIN_SPLIT_BYTES, MIN_SPLIT_BYTES, MAX_TASK_SPLITS)),
        ([], 2, Cut(MIN_SPLIT_BYTES, MIN_SPLIT_BYTES, 1)),
    ],
)
def test_auto_gives_lanes_alike_bytes_and_objects(
    sizes: list[int], lanes: int, expected: Cut
) -> None:
    """Small objects share tasks, but not all of them one."""
    assert planners.auto(sizes, lanes, 1024) == expected


@pytest.mark.parametrize(
    ("sizes", "lanes", "memory_mb", "per_mapper"),
    [
        ([50 * MIB] * 9, 10, 100, 1),  # the average fits, and there are lanes for all
        ([50 * MIB] * 10, 10, 100, 1),  # round(60 / 50)
        ([20 * MIB] * 10, 10, 100, 3),  # round(60 / 20)
        ([100 * MIB] * 3, 10, 100, 1),  # round(60 / 100)
        ([200 * MIB] * 3, 10, 100, 1),  # round(60 / 200) is none: at least one
        ([0] * 12, 10, 100, 12),
        ([], 1, 100, 1),
    ],
)
def test_biglambda_fills_sixty_percent_of_the_memory(
    sizes: list[int], lanes: int, memory_mb: int, per_mapper: int
) -> None:
    """One object per mapper if they fit and are few, else as many as the usable memory holds."""
    cut = planners.biglambda(sizes, lanes, memory_mb)
    assert (cut.split_bytes, cut.task_splits) == (None, per_mapper)
    tasks = grouped([(size, size) for size in sizes], cut)
    assert [len(task) for task in tasks[:-1]] == [per_mapper] * (len(tasks) - 1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 100 * MIB),
        ({"min_block_bytes": 150 * MIB}, 150 * MIB),
        ({"min_block_bytes": 150 * MIB, "max_block_bytes": 120 * MIB}, 120 * MIB),
        ({"min_block_bytes": 900 * MIB}, 300 * MIB),
        ({"max_block_bytes": 900 * MIB}, 100 * MIB),
        ({"max_block_bytes": 0}, 100 * MIB),
    ],
)
def test_marla_bounds_the_share_of_a_mapper(options: dict[str, int], expected: int) -> None:
    """Raised to the least block, then capped by the largest (if > 0) and 0.30 of the memory."""
    cut = planners.marla([600 * MIB, 400 * MIB], 10, 1000, **options)
    assert (cut.split_bytes, cut.task_bytes) == (expected, expected)


def test_marla_recomputes_the_mappers() -> None:
    """A block that the memory caps makes more mappers than were wanted."""
    cut = planners.marla([1000 * MIB], 2, 100)
    assert cut.split_bytes == 30 * MIB
    assert -(-1000 * MIB // cut.split_bytes) == 34


def test_fixed_cuts_as_it_is_told() -> None:
    """Whatever the lanes and the memory."""
    assert planners.fixed([5], 1, 1, split_bytes=7) == Cut(7, 7)
    with pytest.raises(ValueError, match="split_bytes must be >= 1, got 0"):
        planners.fixed([5], 1, 1, split_bytes=0)


@given(
    sizes=st.lists(st.integers(0, 20), max_size=30),
    task_bytes=st.integers(1, 40),
    task_splits=st.integers(1, 6),
)
@settings(max_examples=300, deadline=None)
def test_tasks_are_the_splits_in_order(sizes: list[int], task_bytes: int, task_splits: int) -> None:
    """Each split is in one task; none is empty, too long, or too large unless it is one split."""
    items = [((number, size), size) for number, size in enumerate(sizes)]
    tasks = grouped(items, Cut(None, task_bytes, task_splits))
    assert [item for task in tasks for item in task] == [item for item, _ in items]
    for task in tasks:
        assert 1 <= len(task) <= task_splits
        assert sum(size for _, size in task) <= task_bytes or len(task) == 1


def test_planners_are_chosen_by_name() -> None:
    """Or by split_bytes=, or given as functions; auto where nothing is said."""
    assert planner_of(None, None) is planner_of("auto", None) is planners.auto
    assert planner_of("biglambda", None) is planners.biglambda
    assert planner_of("marla", None) is planners.marla
    for name in (None, "fixed"):
        assert planner_of(name, 5)([100], 1, 1) == Cut(5, 5)
    own = partial(planners.marla, max_block_bytes=5)
    assert planner_of(own, None) is own


@pytest.mark.parametrize(
    ("planner", "split_bytes", "message"),
    [
        ("best", None, "planner='best' is unknown. Give 'auto', 'biglambda', 'marla'"),
        ("fixed", None, "needs split_bytes="),
        ("marla", 5, "Give one of the two"),
        (None, 0, "split_bytes must be >= 1, got 0"),
    ],
)
def test_planners_that_cannot_be_meant_are_refused(
    planner: str | None, split_bytes: int | None, message: str
) -> None:
    """With what could be."""
    with pytest.raises(ValueError, match=message):
        planner_of(planner, split_bytes)
