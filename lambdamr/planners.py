"""Planners: how inputs are cut into splits, and how many of these a task reads.

    sizes of the objects, lanes, memory ─ planner ─▶ Cut ─ grouped ─▶ tasks of splits

A planner is a pure function of (sizes, lanes, memory_mb); `functools.partial` sets its options:
`lambdamr.lines(uri, planner=partial(planners.marla, max_block_bytes=8 * MIB))`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from lambdamr_runtime.limits import KIB, MIB

MIN_SPLIT_BYTES = 128 * KIB
"""Below this the request outweighs the reading, even where lanes are free."""

MAX_SPLIT_BYTES = 128 * MIB
"""Above this a repeated task repeats too much: it is some 5 s of a mapper that looks at lines."""

SPLITS_PER_LANE = 4
"""Splits per lane: enough for fast lanes to take work from slow ones."""

MEMORY_SHARE = 1 / 4
"""A split is no larger than this share of a worker's memory."""

MAX_TASK_SPLITS = 1000
"""Most splits that one task reads: small objects cost a request each."""

PARTITION_SHARE = 1 / 8
"""A partition is planned for no more input than this share of a worker's memory: grouped in a
dictionary, small pairs take four times their bytes, and half of the memory is theirs."""

PARTITIONS_PER_LANE = 16
"""Most partitions per lane that are planned: what is larger is merged."""

BIGLAMBDA_MEMORY_SHARE = 0.6
"""BigLambda's usable share of a mapper's memory."""

MARLA_MEMORY_SHARE = 0.30
"""MARLA's share of a mapper's memory for its block."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cut:
    """How objects become splits, and neighbouring splits a task."""

    split_bytes: int | None
    """Most bytes of a split, >= 1; None leaves every object whole."""
    task_bytes: int
    """Splits share a task up to so many bytes; a larger one is a task by itself."""
    task_splits: int = MAX_TASK_SPLITS
    """Most splits of a task, >= 1."""


Planner = Callable[[Sequence[int], int, int], Cut]
"""(sizes of the objects in bytes, lanes >= 1, memory_mb of a worker) -> Cut."""


def auto(sizes: Sequence[int], lanes: int, memory_mb: int) -> Cut:
    """Give each lane SPLITS_PER_LANE tasks, alike in bytes and in objects.

    Raises:  ValueError: lanes < 1.
    """
    split_bytes = split_bytes_for(sum(sizes), lanes, memory_mb)
    share = -(-len(sizes) // (SPLITS_PER_LANE * lanes))
    return Cut(split_bytes, split_bytes, min(max(1, share), MAX_TASK_SPLITS))


def split_bytes_for(total_bytes: int, lanes: int, memory_mb: int) -> int:
    """Return bytes per split so that each lane gets SPLITS_PER_LANE of them.

    Never below MIN_SPLIT_BYTES; never above MAX_SPLIT_BYTES, nor above MEMORY_SHARE of a worker's
    memory as long as that is not below the minimum. Where these make more splits, every lane gets
    as many: 5 on 2 lanes take as long as 6.

    Raises:  ValueError: lanes < 1.
    """
    if lanes < 1:
        raise ValueError(f"lanes must be >= 1, got {lanes}")
    wanted = -(-total_bytes // (SPLITS_PER_LANE * lanes))
    most = max(MIN_SPLIT_BYTES, min(MAX_SPLIT_BYTES, int(memory_mb * MIB * MEMORY_SHARE)))
    if wanted <= most:
        return max(MIN_SPLIT_BYTES, wanted)
    rounds = -(-total_bytes // (most * lanes))
    return max(MIN_SPLIT_BYTES, -(-total_bytes // (rounds * lanes)))


def partitions_for(input_bytes: int, tasks: int, lanes: int, memory_mb: int) -> int:
    """Return the partitions of a job for which none is given.

    As many as lanes, but no more than map tasks; more where the input, all of it in pairs, would
    not fit in the memory of so many reducers.

    Args:     tasks: of the map stage. lanes: >= 1.
    """
    fitting = -(-input_bytes // max(1, int(memory_mb * MIB * PARTITION_SHARE)))
    return max(1, min(lanes, tasks), min(fitting, PARTITIONS_PER_LANE * lanes))


def fixed(sizes: Sequence[int], lanes: int, memory_mb: int, *, split_bytes: int) -> Cut:  # noqa: ARG001 - a planner's signature
    """Cut into splits of at most so many bytes; smaller objects share a task up to that.

    Raises:  ValueError: split_bytes < 1.
    """
    if split_bytes < 1:
        raise ValueError(f"split_bytes must be >= 1, got {split_bytes}")
    return Cut(split_bytes, split_bytes)


def biglambda(sizes: Sequence[int], lanes: int, memory_mb: int) -> Cut:
    """Leave objects whole, as many per mapper as its usable memory holds on average.

    One per mapper where the average object fits and there are fewer objects than lanes; else
    round(usable / average), at least one. Usable is 0.6 of the memory.
    Source: BigLambda's compute_batch_size.
    """
    usable = BIGLAMBDA_MEMORY_SHARE * memory_mb * MIB
    average = sum(sizes) / max(1, len(sizes))
    if average <= usable and len(sizes) < lanes:
        return Cut(None, max(1, sum(sizes)), 1)
    per_mapper = round(usable / average) if average else len(sizes)
    return Cut(None, max(1, sum(sizes)), max(1, per_mapper))


def marla(
    sizes: Sequence[int],
    lanes: int,
    memory_mb: int,
    *,
    min_block_bytes: int = MIB,
    max_block_bytes: int = 0,
) -> Cut:
    """Give each mapper a block of bytes: all bytes over the mappers, within bounds.

    Raised to *min_block_bytes*, then capped by *max_block_bytes* if that is > 0 and by 0.30 of the
    memory; the number of mappers follows from the block. Source: MARLA's coordinator.

    Args:     lanes: the mappers wanted.
    Raises:   ValueError: lanes < 1.
    """
    if lanes < 1:
        raise ValueError(f"lanes must be >= 1, got {lanes}")
    block = max(-(-sum(sizes) // lanes), min_block_bytes, 1)
    if max_block_bytes > 0:
        block = min(block, max_block_bytes)
    block = max(1, min(block, int(MARLA_MEMORY_SHARE * memory_mb * MIB)))
    return Cut(block, block)


NAMED: dict[str, Planner] = {"auto": auto, "biglambda": biglambda, "marla": marla}
"""Planners that a name chooses; "fixed" is what split_bytes= chooses."""


def planner_of(planner: str | Planner | None, split_bytes: int | None) -> Planner:
    """Return the planner that the arguments planner= and split_bytes= of an input mean.

    Raises:  ValueError: an unknown name, split_bytes < 1, or the two contradict each other.
    """
    if split_bytes is not None:
        if planner not in (None, "fixed"):
            raise ValueError(
                f"split_bytes={split_bytes} belongs to planner='fixed', got planner={planner!r}. "
                "Give one of the two."
            )
        chosen = partial(fixed, split_bytes=split_bytes)
        chosen((), 1, 1)
        return chosen
    if planner is None:
        return auto
    if callable(planner):
        return planner
    if planner == "fixed":
        raise ValueError("planner='fixed' needs split_bytes=.")
    if planner not in NAMED:
        raise ValueError(
            f"planner={planner!r} is unknown. Give {', '.join(map(repr, NAMED))}, 'fixed', or a "
            "function (sizes, lanes, memory_mb) -> lambdamr.planners.Cut."
        )
    return NAMED[planner]


def grouped(items: Sequence[tuple[T, int]], cut: Cut) -> list[list[T]]:
    """Return the items in tasks: neighbours together, as far as the cut allows.

    Args:     items: (item, its bytes).
    Returns:  lists, none empty, whose concatenation is the items.
    """
    tasks: list[list[T]] = []
    room = 0
    for item, size in items:
        if tasks and size <= room and len(tasks[-1]) < cut.task_splits:
            tasks[-1].append(item)
            room -= size
        else:
            tasks.append([item])
            room = cut.task_bytes - size
    return tasks
