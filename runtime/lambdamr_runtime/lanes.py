"""Chunks, lanes, groups and the launch tree: pure arithmetic.

A stage of T tasks has C = ceil(T / chunksize) chunks and runs in L = min(C, width) lanes. Lane l
runs chunks l, l + L, l + 2L, … in order. Neighbouring lanes form groups, the unit that the
barrier counts. Lanes are launched by a tree: the node that owns [lo, hi) runs lane lo and
launches its children, who own the rest.
"""

import functools
import itertools
import math

from lambdamr_runtime.frozen import frozen
from lambdamr_runtime.limits import (
    CHUNKS_PER_LANE,
    CLIENT_INVOKES,
    LIST_PAGE,
    MAX_CHUNK_TASKS,
    MAX_TREE_DEPTH,
)


@frozen
class LanePlan:
    """How the chunks of one stage lie in lanes and groups."""

    tasks: int
    chunksize: int
    width: int
    """Most lanes at a time; >= 1."""

    @property
    def chunks(self) -> int:
        return -(-self.tasks // self.chunksize)

    @property
    def lanes(self) -> int:
        return min(self.chunks, self.width)

    @property
    def lanes_per_group(self) -> int:
        """About the square root of the lanes, fewer where a group would outgrow a listing page."""
        return _lanes_per_group(self.chunks, self.lanes)

    @property
    def groups(self) -> int:
        return -(-self.lanes // self.lanes_per_group)

    def tasks_of(self, chunk: int) -> range:
        """Return the tasks of a chunk."""
        first = chunk * self.chunksize
        return range(first, min(first + self.chunksize, self.tasks))

    def chunk_of(self, task: int) -> int:
        return task // self.chunksize

    def chunks_of(self, lane: int) -> range:
        """Return the chunks of a lane, in the order in which it runs them."""
        return range(lane, self.chunks, self.lanes)

    def group_of(self, chunk: int) -> int:
        return (chunk % self.lanes) // self.lanes_per_group

    def lanes_of(self, group: int) -> range:
        first = group * self.lanes_per_group
        return range(first, min(first + self.lanes_per_group, self.lanes))

    def chunks_in(self, group: int) -> list[int]:
        """Return the chunks of a group, sorted."""
        return sorted(chunk for lane in self.lanes_of(group) for chunk in self.chunks_of(lane))


@functools.lru_cache(64)
def _lanes_per_group(chunks: int, lanes: int) -> int:
    """Kept: whoever walks over the chunks of a stage asks for each of them."""
    if lanes == 0:
        return 1
    chunks_per_lane = -(-chunks // lanes)
    return max(1, min(math.isqrt(lanes - 1) + 1, LIST_PAGE // chunks_per_lane))


def automatic_chunksize(tasks: int, width: int) -> int:
    """Return tasks per chunk so that each lane gets about CHUNKS_PER_LANE chunks."""
    return max(1, min(MAX_CHUNK_TASKS, -(-tasks // (CHUNKS_PER_LANE * width))))


def tree_arity(lanes: int) -> int:
    """Return children per node: about the square root, so that a tree has two or three levels.

    Bounded by CLIENT_INVOKES as long as MAX_TREE_DEPTH levels of that arity suffice.
    """
    arity = max(2, math.isqrt(max(0, lanes - 1)) + 1)
    needed = math.ceil(lanes ** (1 / MAX_TREE_DEPTH)) if lanes else 2
    return max(min(arity, CLIENT_INVOKES), needed)


def split_lanes(lo: int, hi: int, parts: int) -> list[tuple[int, int]]:
    """Cut [lo, hi) into at most *parts* ranges that differ by at most one in length.

    Args:     lo, hi: lanes, half-open. parts: >= 1.
    Returns:  (lo, hi) pairs, sorted, disjoint, none empty; empty for an empty range.
    Raises:   ValueError: parts < 1.
    """
    if parts < 1:
        raise ValueError(f"parts must be >= 1, got {parts}")
    count = max(0, hi - lo)
    parts = min(parts, count)
    cuts = [lo + count * i // parts for i in range(parts + 1)] if parts else []
    return list(itertools.pairwise(cuts))


def children(lo: int, hi: int, arity: int) -> list[tuple[int, int]]:
    """Return the lanes launched by the node that owns [lo, hi): all but *lo* itself.

    Source: MARLA's doubling launch, generalised to any arity.

    Returns:  (lo, hi) pairs, sorted, disjoint; empty for a leaf.
    Raises:   ValueError: arity < 1 or an empty range.
    """
    if lo >= hi:
        raise ValueError(f"a node owns at least one lane, got [{lo}, {hi})")
    return split_lanes(lo + 1, hi, arity)
