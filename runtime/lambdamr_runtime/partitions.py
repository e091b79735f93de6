"""The reduce side of a shuffle: one partition, grouped in a dictionary or merged block by block."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lambdamr_runtime.errors import CorruptObject
from lambdamr_runtime.limits import KIB, MIB
from lambdamr_runtime.memory import Room
from lambdamr_runtime.pairs import merge
from lambdamr_runtime.parts import PART_PAIRS
from lambdamr_runtime.reducers import States
from lambdamr_runtime.runs import Hot, Merger, Run, Whole
from lambdamr_runtime.shuffle import (
    Slice,
    SliceIdentity,
    column_span,
    decode_column,
    decode_contents,
    decode_front,
    front_bytes,
)
from lambdamr_runtime.shuffling import pair_dumps, slice_identity
from lambdamr_runtime.stopwatch import Stopwatch
from lambdamr_runtime.store import STAMP_BYTES, Store
from lambdamr_runtime.wire import Stage
from lambdamr_runtime.work import TaskEnv

if TYPE_CHECKING:
    from lambdamr_runtime.mapreduce import Reduce


GROUPED_FACTOR = 2
GROUPED_PAIR_BYTES = 170
"""A partition is grouped in a dictionary if so many times its bytes and so much per pair fit in the
room. Measured per pair of distinct keys, values in lists: 180 bytes for short words, 194 for ints,
310 for 100-byte texts. It is an estimate: memory is watched while it is done."""

CACHED_PAIRS = 64 * 1024
LONG_SLICE_PAIRS = 16 * 1024
"""A partition of more pairs, in slices of so many on average, is merged though it would fit: the
dictionary of a round of blocks is in the processor's cache. Sums of 250,000 keys in 4 slices took
0.49 us a pair in one dictionary and 0.22 merged, in 64 slices 0.62 and 0.35; of 20,000 keys in 200
slices 0.20 and 0.59."""

FRONT_BYTES = 64 * KIB
"""The first read of a slice that is merged; a front is 44 bytes per block."""

FETCH_BYTES = 4 * MIB
"""Most bytes of blocks fetched with one request by a merge."""


class Partition:
    """One partition as a reduce task reads it."""

    def __init__(
        self, work: "Reduce", env: TaskEnv, partition: int, room: Room, watch: Stopwatch
    ) -> None:
        self._combine = work.combine
        self._keying = work.keying
        self._env = env
        self._partition = partition
        self._room = room
        self._watch = watch
        self._merger = Merger(
            self._combine, self._keying, pair_dumps(env), work.tuning.merge_width, room.size
        )
        self.pairs_read = 0
        self.keys = 0

    @property
    def spilled_bytes(self) -> int:
        return self._merger.written

    def groups(self) -> Iterator[Whole | Hot]:
        """Yield the groups of the partition, sorted by key."""
        self._watch.enter("fetch")
        slices = _slices_of(self._env, self._partition)
        self._watch.enter("merge")
        states = self._grouped(slices)
        groups = self._merged(slices) if states is None else self._in_memory(states)
        for group in groups:
            self.keys += 1 if isinstance(group, Hot) else len(group.keys)
            yield group

    def _grouped(self, slices: Sequence[Slice]) -> States | None:
        """Return all states in a dictionary, or None if they are to be merged."""
        pairs = sum(piece.pairs for piece in slices)
        if pairs > max(CACHED_PAIRS, LONG_SLICE_PAIRS * len(slices)):
            return None
        needed = sum(piece.length for piece in slices) * GROUPED_FACTOR + pairs * GROUPED_PAIR_BYTES
        if needed > self._room.size:
            return None
        states = self._combine.states()
        self.pairs_read = 0
        for piece in slices:
            identity, source = self._named(piece)
            self._watch.enter("fetch")
            data = _stored(self._env.store, source, piece, 0, piece.length)
            self._watch.enter("merge")
            for keys, counts, values in decode_contents(data, identity, piece, source):
                self.pairs_read += len(values)
                found = self._combine.unpacked(counts, values)
                merge(self._combine, states, zip(keys, found, strict=True))
                if self._room.is_full(len(states)):
                    return None
        return states

    def _in_memory(self, states: States) -> Iterator[Whole]:
        keys, ordered = self._keying.ordered(states, list(states), self._combine)
        for at in range(0, len(keys), PART_PAIRS):
            stop = at + PART_PAIRS
            yield Whole(keys[at:stop], ordered[at:stop])

    def _merged(self, slices: Sequence[Slice]) -> Iterator[Whole | Hot]:
        most = self._room.size // (4 * len(slices) or 1)
        runs = [self._run(piece, min(FETCH_BYTES, most)) for piece in slices]
        self.pairs_read = sum(block.pairs for run in runs for block in run.blocks)
        return self._merger.merge(runs)

    def _run(self, piece: Slice, fetch_bytes: int) -> Run:
        """Return a slice as a run, its front verified."""
        identity, source = self._named(piece)
        ahead = _ReadAhead(self._env.store, source, piece, fetch_bytes, self._watch)
        data = ahead.read(0, min(FRONT_BYTES, piece.length))
        size = front_bytes(data, source)
        if size > len(data):
            data = ahead.read(0, min(size, piece.length))
        return Run(decode_front(data, identity, piece, source), ahead.read, source)

    def _named(self, piece: Slice) -> tuple[SliceIdentity, str]:
        stage = self._env.index - 1
        return (
            slice_identity(self._env, stage, piece.task, piece.execution, self._partition),
            self._env.stage_keys(stage).shuffle(piece.task, piece.execution),
        )

    def __enter__(self) -> "Partition":
        return self

    def __exit__(self, *_: object) -> None:
        self._merger.close()


class _ReadAhead:
    """Reads a slice front to back, several blocks with one request."""

    def __init__(
        self, store: Store, source: str, piece: Slice, fetch_bytes: int, watch: Stopwatch
    ) -> None:
        self._store = store
        self._source = source
        self._piece = piece
        self._fetch_bytes = fetch_bytes
        self._watch = watch
        self._at = 0
        self._held = b""

    def read(self, offset: int, length: int) -> bytes:
        start = offset - self._at
        if not 0 <= start <= start + length <= len(self._held):
            interrupted = self._watch.enter("fetch")
            self._held = b""
            wanted = min(max(length, self._fetch_bytes), self._piece.length - offset)
            self._held = _stored(self._store, self._source, self._piece, offset, wanted)
            self._at, start = offset, 0
            self._watch.enter(interrupted)
        if length == len(self._held):
            data, self._held = self._held, b""
            return data
        return self._held[start : start + length]


def _slices_of(env: TaskEnv, partition: int) -> list[Slice]:
    """Return the slices of one partition in task order: one ranged read per group."""
    stage: Stage = env.source
    keys = env.stage_keys(env.index - 1)
    plan = stage.plan
    slices: list[Slice] = []
    for group in range(plan.groups):
        tasks = sum(len(plan.tasks_of(chunk)) for chunk in plan.chunks_in(group))
        start, length = column_span(tasks, partition)
        source = keys.group(group)
        column = env.store.get_range(source, STAMP_BYTES + start, length)
        slices.extend(piece for piece in decode_column(column, tasks, source) if piece.length)
    return sorted(slices, key=lambda piece: piece.task)


def _stored(store: Store, source: str, piece: Slice, offset: int, length: int) -> bytes:
    try:
        return store.get_range(source, piece.offset + offset, length)
    except FileNotFoundError as error:
        raise CorruptObject(
            f"{source}, which map task {piece.task} wrote, is gone. Run the job again."
        ) from error
