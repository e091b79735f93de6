"""Sorted runs outside of memory, and their merge.

    spill:   dictionary ─ sort ─▶ run · run · run      blocks in one temporary file
    merge:   a block of each run ─▶ all keys below the smallest last key are complete: one
             dictionary groups them ─ sort ─▶ out; then that last key, which may go on in the
             next blocks, as a stream; then the next blocks

Sorting what the dictionary holds finds the runs of the blocks (Timsort): half the time of a heap.
Runs are merged in (task, position) order, so that the values of a key come out in it.
"""

import errno
import os
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

from lambdamr_runtime.canonical import canonical, natural_shape, partition_of, partitions_of
from lambdamr_runtime.content import Block, BlockWriter, decode_content
from lambdamr_runtime.errors import InvalidPairs
from lambdamr_runtime.limits import MIB
from lambdamr_runtime.pairs import merge
from lambdamr_runtime.reducers import Reducer, States
from lambdamr_runtime.serialize import Dumps

DECODED_FACTOR = 18
"""Memory of a decoded block, values in lists, over its bytes; measured: 2.7 for 100-byte texts, 14
for short words with a count, 17 for pairs of ints."""

MAX_WIDTH = 256
"""Most runs merged at once: beyond it a round emits too little per block."""

COPY_BYTES = MIB
"""Bytes copied at a time from a temporary file."""


@dataclass(frozen=True, slots=True)
class Keying:
    """Which keys are one, in which order they stand and where they go."""

    partitioner: Callable[[Any, int], int] | None = None
    """(key, partitions) -> partition; None: by the hash of the canonical form."""
    sort_key: Callable[[Any], Any] | None = None
    """What stands for a key: equal for equal keys and for these alone, and with a canonical form.
    None: the key itself."""

    def rank(self, key: Any) -> Any:
        """Return what keys are compared and told apart by.

        Raises:  UnstableKey, BadKey: it has no canonical form.
        """
        return canonical(key if self.sort_key is None else self.sort_key(key))

    def shape(self, keys: Iterable[object]) -> str:
        """Return the shape of keys that are in their own order; "" for all others."""
        return "" if self.sort_key is not None else natural_shape(list(keys))

    def partitions(self, keys: Sequence[Any], count: int) -> list[int]:
        """Return the partition of each key.

        Raises:  InvalidPairs: a partitioner's result is none. UnstableKey, BadKey: as `rank`.
        """
        if self.partitioner is not None:
            return [self._asked(self.partitioner, key, count) for key in keys]
        if count == 1:
            return [0] * len(keys)
        if self.sort_key is not None:
            return [partition_of(self.sort_key(key), count) for key in keys]
        return partitions_of(keys, count)

    def _asked(self, partitioner: Callable[[Any, int], int], key: Any, count: int) -> int:
        found: Any = partitioner(key, count)  # Any: numpy's ints are ints too
        if hasattr(found, "__index__") and 0 <= found < count:
            return index(found)
        raise InvalidPairs(
            f"partitioner returned {found!r} for the key {key!r:.80}; it must return an int from 0 "
            f"to {count - 1}."
        )

    def ordered(
        self, states: States, keys: list[Any], combine: Reducer
    ) -> tuple[list[Any], list[Any]]:
        """Return (keys, states) in order; keys that only `==` keeps apart (NaN) are joined.

        Args:  keys: of *states*; those that may be equal in order of first sight.
        """
        if self.shape(keys):
            keys = sorted(keys)
            return keys, combine.settled(keys, list(map(states.__getitem__, keys)))
        ranks = list(map(self.rank, keys))
        order = sorted(range(len(keys)), key=ranks.__getitem__)
        firsts: list[Any] = []
        joined: list[Any] = []
        previous: object = None
        for at in order:
            state = states[keys[at]]
            if joined and ranks[at] == previous:
                joined[-1] = combine.join(joined[-1], state)
                continue
            previous = ranks[at]
            firsts.append(keys[at])
            joined.append(state)
        return firsts, combine.settled(firsts, joined)


@dataclass(frozen=True, slots=True)
class Run:
    """Sorted blocks somewhere, a key in more than one of them only where values are collected."""

    blocks: Sequence[Block]
    read: Callable[[int, int], bytes]
    """(offset, length) -> bytes, as the blocks count offsets."""
    source: str
    """For messages."""

    @property
    def raw_bytes(self) -> int:
        """Bytes of its blocks, uncompressed."""
        return sum(block.raw_bytes for block in self.blocks)


class RunFile:
    """One unnamed temporary file that holds runs; closed, it is gone."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)
        self._end = 0
        self.written = 0
        """Bytes, over all of its life."""

    def write(self, data: bytes) -> None:
        """Append.

        Raises:  OSError: naming the folder that is full.
        """
        view = memoryview(data)
        try:
            while view:
                count = os.pwrite(self._file.fileno(), view, self._end)
                self._end += count
                view = view[count:]
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise OSError(
                errno.ENOSPC,
                f"The temporary folder {tempfile.gettempdir()} is full: {self._end:,} bytes of "
                "sorted runs are in it. Give the worker more memory or temporary space, or make "
                "splits or partitions smaller (split_bytes=, reducers=)",
            ) from error
        self.written += len(data)

    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, offset)

    @property
    def end(self) -> int:
        """Offset of the next byte to be written."""
        return self._end

    def rewind(self) -> None:
        """Forget what is written, and its space."""
        os.ftruncate(self._file.fileno(), 0)
        self._end = 0

    def pieces(self) -> Iterator[bytes]:
        """Yield what is written, COPY_BYTES at a time."""
        for offset in range(0, self._end, COPY_BYTES):
            yield self.read(offset, min(COPY_BYTES, self._end - offset))

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True)
class Whole:
    """Keys that are complete, in order, and their states."""

    keys: list[Any]
    states: list[Any]


@dataclass(frozen=True, slots=True)
class Hot:
    """A key whose values may be more than memory holds: lists of them, to be taken before the
    merge goes on.
    """

    key: Any
    pieces: Iterator[list[Any]]


class Merger:
    """Merges runs.

    Args:  combine: what the states are; values that are collected are streamed. width: most runs
           at a time, >= 2; None: as many as room_bytes hold. files: makes the file for the passes
           before the last; one is enough for all of them.
    """

    def __init__(
        self,
        combine: Reducer,
        keying: Keying,
        dumps: Dumps,
        width: int | None,
        room_bytes: int,
    ) -> None:
        self._combine = combine
        self._keying = keying
        self._dumps = dumps
        self._width = width
        self._room_bytes = room_bytes
        self._file: RunFile | None = None
        self.passes = 0
        """Merges into temporary files."""

    def merge(self, runs: Sequence[Run]) -> Iterator[Whole | Hot]:
        """Yield the groups of *runs*, which are in (task, position) order, by key.

        Raises:  CorruptObject: a block is not what was written.
        """
        left = [run for run in runs if run.blocks]
        width = self._width or self._fitting(left)
        while len(left) > width:
            first, last = _cheapest(left, min(width, len(left) - width + 1))
            left[first:last] = [self._merged(left[first:last])]
            self.passes += 1
        return self._rounds(left)

    def write(self, groups: "Iterable[Whole | Hot]", writer: BlockWriter) -> None:
        """Write merged groups as blocks."""
        for group in groups:
            if isinstance(group, Hot):
                for values in group.pieces:
                    writer.add([group.key], [len(values)], values)
            else:
                writer.add(group.keys, *self._combine.packed(group.states))
        writer.close()

    @property
    def written(self) -> int:
        """Bytes written to temporary files."""
        return self._file.written if self._file else 0

    def close(self) -> None:
        """Give back the temporary file."""
        if self._file is not None:
            self._file.close()

    def _fitting(self, runs: Sequence[Run]) -> int:
        largest = max((block.raw_bytes for run in runs for block in run.blocks), default=1)
        return max(2, min(MAX_WIDTH, self._room_bytes // (largest * DECODED_FACTOR)))

    def _merged(self, runs: Sequence[Run]) -> Run:
        if self._file is None:
            self._file = RunFile()
        file = self._file
        writer = BlockWriter(file.write, self._dumps, shape=self._keying.shape, offset=file.end)
        self.write(self._rounds(runs), writer)
        return Run(writer.blocks, file.read, "a merged run")

    def _rounds(self, runs: Sequence[Run]) -> Iterator[Whole | Hot]:
        shapes = {block.shape for run in runs for block in run.blocks}
        rank = self._keying.rank if len(shapes) != 1 or "" in shapes else None
        streams = self._combine.streams
        cursors = [_Cursor(run, self._combine, rank) for run in runs]
        while cursors:
            frontier = min(
                (cursor.ranks[-1] for cursor in cursors if cursor.has_more), default=_NO_FRONTIER
            )
            whole = self._round(cursors, frontier, streams)
            if whole.keys:
                yield whole
            if streams and frontier is not _NO_FRONTIER:
                key, ahead = _first(cursors, frontier)
                pieces = _pieces(ahead, frontier)
                yield Hot(key, pieces)
                for _ in pieces:  # what the reducer left
                    pass
            cursors = [cursor for cursor in cursors if cursor.ready()]

    def _round(self, cursors: "Sequence[_Cursor]", frontier: Any, streams: bool) -> Whole:
        """Group what no later block can add to."""
        combine = self._combine
        states = combine.states()
        firsts: States = {}
        for cursor in cursors:
            ranks, keys, found = cursor.take(frontier, inclusive=not streams)
            merge(combine, states, zip(ranks, found, strict=True))
            if ranks is not keys:
                for rank, key in zip(ranks, keys, strict=True):
                    firsts.setdefault(rank, key)
        order = sorted(states)
        keys = list(map(firsts.__getitem__, order)) if firsts else order
        return Whole(keys, combine.settled(keys, list(map(states.__getitem__, order))))


_NO_FRONTIER: Any = object()
"""No run has more blocks: everything is complete."""


class _Cursor:
    """A run as far as it is merged: the block that is being taken from."""

    def __init__(self, run: Run, combine: Reducer, rank: Callable[[Any], Any] | None) -> None:
        self._run = run
        self._combine = combine
        self._rank = rank
        self._next = 0
        self._at = 0
        self._keys: list[Any] = []
        self._states: Sequence[Any] = ()
        self.ranks: list[Any] = []
        self._load()

    @property
    def has_more(self) -> bool:
        """Whether there are blocks behind this one."""
        return self._next < len(self._run.blocks)

    def ready(self) -> bool:
        """Go on to the next block if this one is used up; False at the end of the run."""
        while self._at >= len(self.ranks):
            if not self.has_more:
                return False
            self._load()
        return True

    def take(
        self, frontier: Any, inclusive: bool
    ) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
        """Take (ranks, keys, states) up to *frontier*; ranks are keys in natural order."""
        if frontier is _NO_FRONTIER:
            stop = len(self.ranks)
        else:
            bisect = bisect_right if inclusive else bisect_left
            stop = bisect(self.ranks, frontier, self._at)
        start, self._at = self._at, stop
        ranks = self.ranks[start:stop]
        keys = ranks if self._rank is None else self._keys[start:stop]
        return ranks, keys, self._states[start:stop]

    def first_key(self, rank: Any) -> tuple[Any] | None:
        """Return the next key, in a tuple, if it has that rank."""
        if self._at < len(self.ranks) and self.ranks[self._at] == rank:
            return (self._keys[self._at],)
        return None

    def take_equal(self, rank: Any) -> Iterator[Any]:
        """Take the states of one rank, over all blocks that go on with it."""
        while self.ready() and self.ranks[self._at] == rank:
            stop = bisect_right(self.ranks, rank, self._at)
            states = self._states[self._at : stop]
            self._at = stop
            yield from states

    def _load(self) -> None:
        block = self._run.blocks[self._next]
        self._next += 1
        data = self._run.read(block.offset, block.length)
        keys, counts, values = decode_content(data, block, self._run.source)
        self._keys = keys
        self._states = self._combine.unpacked(counts, values)
        self.ranks = keys if self._rank is None else list(map(self._rank, keys))
        self._at = 0


def _first(cursors: Sequence[_Cursor], rank: Any) -> tuple[Any, list[_Cursor]]:
    """Return the first-seen key of a rank, and the cursors that may have values of it."""
    for at, cursor in enumerate(cursors):
        found = cursor.first_key(rank)
        if found is not None:
            return found[0], list(cursors[at:])
    raise AssertionError("the frontier is the last key of a block")


def _pieces(cursors: Iterable[_Cursor], rank: Any) -> Iterator[Any]:
    for cursor in cursors:
        yield from cursor.take_equal(rank)


def _cheapest(runs: Sequence[Run], count: int) -> tuple[int, int]:
    """Return [first, last) of the *count* neighbouring runs with the fewest bytes."""
    sizes = [run.raw_bytes for run in runs]
    first = min(range(len(runs) - count + 1), key=lambda at: sum(sizes[at : at + count]))
    return first, first + count
