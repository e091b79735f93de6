"""Laws of chunks, lanes, groups and the launch tree, for any size of stage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdamr_runtime.lanes import (
    LanePlan,
    automatic_chunksize,
    children,
    split_lanes,
    tree_arity,
)
from lambdamr_runtime.limits import CLIENT_INVOKES, LIST_PAGE, MAX_CHUNK_TASKS, MAX_TREE_DEPTH

PLANS = st.builds(
    LanePlan,
    tasks=st.integers(0, 3000),
    chunksize=st.integers(1, 200),
    width=st.integers(1, 1500),
)
WIDE_PLANS = st.builds(
    LanePlan,
    tasks=st.integers(1, 10_000_000),
    chunksize=st.just(1),
    width=st.integers(1, 10_000),
)
LANES = st.integers(1, 10_000)


def launched(lanes: int) -> list[tuple[int, int]]:
    """Return (lane, depth) of every node of the tree that the client launches; its own are 1."""
    arity = tree_arity(lanes)
    pending = [(lo, hi, 1) for lo, hi in split_lanes(0, lanes, arity)]
    nodes = []
    while pending:
        lo, hi, depth = pending.pop()
        nodes.append((lo, depth))
        pending.extend((*child, depth + 1) for child in children(lo, hi, arity))
    return nodes


@given(PLANS)
def test_every_task_is_in_exactly_one_chunk(plan: LanePlan) -> None:
    """Chunks, in order, hold the tasks, in order; none is empty and chunk_of agrees."""
    held = [(chunk, task) for chunk in range(plan.chunks) for task in plan.tasks_of(chunk)]
    assert [task for _, task in held] == list(range(plan.tasks))
    assert all(plan.chunk_of(task) == chunk for chunk, task in held)
    assert all(len(plan.tasks_of(chunk)) > 0 for chunk in range(plan.chunks))


@given(PLANS)
def test_every_chunk_is_in_exactly_one_lane(plan: LanePlan) -> None:
    """Lanes share out the chunks; none is idle, and their lengths differ by at most one."""
    lanes = [list(plan.chunks_of(lane)) for lane in range(plan.lanes)] if plan.lanes else []
    assert sorted(chunk for lane in lanes for chunk in lane) == list(range(plan.chunks))
    assert all(lane == sorted(lane) for lane in lanes)
    lengths = {len(lane) for lane in lanes}
    assert 0 not in lengths
    assert max(lengths, default=0) - min(lengths, default=0) <= 1


@given(PLANS)
def test_there_are_as_many_lanes_as_chunks_and_width_allow(plan: LanePlan) -> None:
    """No more lanes than the width, no fewer than there is work for."""
    assert plan.lanes == min(plan.chunks, plan.width)


@given(PLANS)
def test_every_lane_is_in_exactly_one_group(plan: LanePlan) -> None:
    """Groups are blocks of neighbouring lanes that cover all of them, none empty."""
    groups = [plan.lanes_of(group) for group in range(plan.groups)]
    assert [lane for group in groups for lane in group] == list(range(plan.lanes))
    assert all(len(group) > 0 for group in groups)


@given(PLANS)
def test_every_chunk_is_in_exactly_one_group(plan: LanePlan) -> None:
    """chunks_in, lanes_of, chunks_of and group_of tell the same story."""
    groups = [plan.chunks_in(group) for group in range(plan.groups)]
    assert sorted(chunk for group in groups for chunk in group) == list(range(plan.chunks))
    for group, chunks in enumerate(groups):
        assert chunks == sorted(chunks)
        assert {plan.group_of(chunk) for chunk in chunks} == {group}
        lanes = plan.lanes_of(group)
        assert set(chunks) == {chunk for lane in lanes for chunk in plan.chunks_of(lane)}


@given(WIDE_PLANS)
def test_outcomes_of_a_group_fit_a_listing_page(plan: LanePlan) -> None:
    """One LIST shows a whole group, as long as one lane fits; beyond that a group is one lane."""
    per_lane = -(-plan.chunks // plan.lanes)
    if per_lane <= LIST_PAGE:
        assert plan.lanes_per_group * per_lane <= LIST_PAGE
    else:
        assert plan.lanes_per_group == 1


@given(st.integers(1, 10_000))
def test_groups_are_about_the_square_root_of_the_lanes(lanes: int) -> None:
    """With few chunks per lane, neither the groups nor the lanes in one are many."""
    plan = LanePlan(tasks=lanes, chunksize=1, width=lanes)
    assert plan.lanes_per_group <= 100
    assert plan.groups <= 100


@given(st.integers(1, 10_000_000), st.integers(1, 10_000))
def test_automatic_chunks_use_every_lane_and_stay_small(tasks: int, width: int) -> None:
    """Automatic chunks hold 1 to MAX_CHUNK_TASKS tasks and are many enough for the width."""
    chunksize = automatic_chunksize(tasks, width)
    assert 1 <= chunksize <= MAX_CHUNK_TASKS
    plan = LanePlan(tasks, chunksize, width)
    assert plan.lanes >= min(tasks, width) // 2


@given(LANES)
def test_the_tree_launches_every_lane_once(lanes: int) -> None:
    """Client and nodes together launch each lane exactly once, within the depth allowed."""
    nodes = launched(lanes)
    assert sorted(lane for lane, _ in nodes) == list(range(lanes))
    assert max(depth for _, depth in nodes) <= MAX_TREE_DEPTH


@given(LANES)
def test_the_client_launches_few(lanes: int) -> None:
    """The client makes at most CLIENT_INVOKES invocations, and one for one lane."""
    invokes = len(split_lanes(0, lanes, tree_arity(lanes)))
    assert 1 <= invokes <= min(lanes, CLIENT_INVOKES)


@given(st.integers(0, 5000), st.integers(0, 5000), st.integers(1, 200))
def test_a_split_covers_its_range_evenly(lo: int, count: int, parts: int) -> None:
    """Parts are adjacent, cover the range, are never empty, and differ by at most one."""
    cut = split_lanes(lo, lo + count, parts)
    assert [lane for a, b in cut for lane in range(a, b)] == list(range(lo, lo + count))
    assert len(cut) == min(parts, count)
    lengths = {b - a for a, b in cut}
    assert 0 not in lengths
    assert max(lengths, default=0) - min(lengths, default=0) <= 1


@given(st.integers(0, 5000), st.integers(1, 5000), st.integers(1, 200))
def test_children_own_all_but_their_parents_lane(lo: int, count: int, arity: int) -> None:
    """A node keeps its first lane; its at most *arity* children share the rest."""
    owned = children(lo, lo + count, arity)
    assert [lane for a, b in owned for lane in range(a, b)] == list(range(lo + 1, lo + count))
    assert len(owned) <= arity


def test_a_stage_without_tasks_has_nothing() -> None:
    """No tasks: no chunks, no lanes, no groups, nothing to launch."""
    plan = LanePlan(tasks=0, chunksize=1, width=4)
    assert (plan.chunks, plan.lanes, plan.groups) == (0, 0, 0)
    assert split_lanes(0, plan.lanes, tree_arity(plan.lanes)) == []


def test_wrong_arguments_are_refused_with_their_values() -> None:
    """Errors name what was given."""
    with pytest.raises(ValueError, match="parts must be >= 1, got 0"):
        split_lanes(0, 4, 0)
    with pytest.raises(ValueError, match=r"at least one lane, got \[3, 3\)"):
        children(3, 3, 2)
