"""The map side of a shuffle: a dictionary, its spills, and the shuffle object they become."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from operator import ne
from typing import TYPE_CHECKING, Any

from lambdamr_runtime.content import FIRST_BLOCK_PAIRS, Block, BlockWriter, compressor
from lambdamr_runtime.errors import ResultNotSerializable
from lambdamr_runtime.gathering import Gatherer
from lambdamr_runtime.inlined import Counts, Inlined, Turns
from lambdamr_runtime.memory import SPILL_SHARE, Room
from lambdamr_runtime.pairs import Mapper, Pair, add, checked, mapped, merge
from lambdamr_runtime.parts import put_parts
from lambdamr_runtime.reducers import Combined
from lambdamr_runtime.runs import Merger, Run, RunFile
from lambdamr_runtime.serialize import Dumps, code_dumps
from lambdamr_runtime.shuffle import (
    Slice,
    SliceIdentity,
    encode_front,
    missing_slice,
    slice_of,
)
from lambdamr_runtime.stopwatch import Stopwatch
from lambdamr_runtime.work import TaskEnv

if TYPE_CHECKING:
    from lambdamr_runtime.mapreduce import Map


SHORTEN_PAIRS = 100_000
"""Values that a map task holds before the user's combiner first shortens them."""

FIRST_RECORDS = 128
"""Records of an inlined mapper before one goes the other way; then twice as many before two, and so
on, up to MOST_RECORDS."""

MOST_RECORDS = 4096

ENCODE_KEYS = 4096
"""Keys given to a block writer at a time."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a task uses its memory."""

    spill_share: float = SPILL_SHARE
    """Of the worker's memory above what is taken when a task begins."""
    merge_width: int | None = None
    """Most runs merged at a time, >= 2; None: as many as fit."""
    compress: bool = False
    """Whether shuffle objects are compressed. What stays on the worker's disk never is."""


class Shuffling:
    """The dictionary of a map task, its spills, and the shuffle object they become."""

    def __init__(self, work: "Map", env: TaskEnv, task: int, room: Room, watch: Stopwatch) -> None:
        self._combine = work.combine
        self._keying = work.keying
        self._env = env
        self._task = task
        self._room = room
        self._watch = watch
        self._dumps = pair_dumps(env)
        self._partitions = env.stage.partitions
        self.states = self._combine.states()
        """The dictionary; a spill empties it."""
        self._nan: tuple[Any, ...] = ()
        """The NaN that stands for all, once there is one."""
        self._held = 0
        """Pairs added since the dictionary was empty, or last shortened."""
        self._shorten_at = SHORTEN_PAIRS
        self._gatherer = Gatherer(self.states)
        self._block_pairs = FIRST_BLOCK_PAIRS
        self._compress = compressor() if work.tuning.compress else None
        self._merger = Merger(
            self._combine, self._keying, self._dumps, work.tuning.merge_width, room.size
        )
        self._file: RunFile | None = None
        self._runs: list[list[Run]] = [[] for _ in range(self._partitions)]
        self.emitted = 0
        self.spills = 0

    @property
    def spilled_bytes(self) -> int:
        return (self._file.written if self._file else 0) + self._merger.written

    def add(self, records: Iterator[Any], mapper: Mapper, inlined: Inlined | None = None) -> None:
        """Add the pairs of all records; spill whenever they fill the room.

        Args:    inlined: of the same mapper.
        Raises:  as pairs.add; what the mapper raises.
        """
        bound = inlined.bound_to(mapper) if inlined else None
        if inlined is None or bound is None:
            self._add_pairs(mapped(mapper, records), mapper)
        elif inlined.counts:
            counts = Counts(self, self._room)
            self._add_pairs(mapped(counts.mapper(bound, mapper), records), mapper)
            counts.look()
        else:
            self._take_turns(records, mapper, Turns(self, self._room, self._combine, bound))

    def _take_turns(self, records: Iterator[Any], mapper: Mapper, turns: Turns) -> None:
        """Let the mapper add its pairs itself.

        Some records take the way of a mapper that yields, which tells how the time of the others
        divides.
        """
        size = FIRST_RECORDS
        while True:
            interrupted = self._watch.enter("inlined")
            turns.add(islice(records, size))
            self._watch.enter(interrupted)
            first = list(islice(records, 1))
            if not first:
                break
            sample = chain(first, islice(records, size // FIRST_RECORDS - 1))
            self._add_pairs(mapped(mapper, sample), mapper)
            size = min(2 * size, MOST_RECORDS)
        self._watch.divide("inlined", ("map", "combine"))

    def _add_pairs(self, stream: Iterator[Any], mapper: Mapper) -> None:
        while batch := list(islice(stream, self._room.step)):
            pairs = checked(batch, mapper)
            interrupted = self._watch.enter("combine")
            self._add(pairs, mapper)
            self.count(len(pairs))
            self._watch.enter(interrupted)

    def count(self, pairs: int) -> None:
        """Count pairs that were added; spill if they fill the room."""
        self.emitted += pairs
        self._held += pairs
        if isinstance(self._combine, Combined) and self._held >= self._shorten_at:
            self._shorten()
        if self._keying.sort_key is None:  # of keys that it makes equal, the first stands for all
            self._gatherer.look(self._held)
        if self._room.is_full(self._weight):
            interrupted = self._watch.enter("sort")
            self._spill()
            self._watch.enter(interrupted)

    def unite_nans(self, before: int) -> None:
        """Put all NaNs among the keys behind the first *before* under one."""
        if found := self._nans_behind(before):
            self._nan = self._nan or (found[-1],)
            states = [(*self._nan, self.states.pop(key)) for key in reversed(found)]
            merge(self._combine, self.states, states)

    def _add(self, batch: list[Pair], mapper: Mapper) -> None:
        """Add pairs, every NaN under one key: a dictionary keeps NaN objects apart.

        Only keys that are new can be the first NaN: looking at these costs 25 ns each.
        """
        states = self.states
        if self._nan:
            batch = self._with_one_nan(batch)
        before = len(states)
        add(self._combine, states, batch, mapper)
        found = [] if self._nan else self._nans_behind(before)
        if found:
            for key in found:
                del states[key]
            self._nan = (found[-1],)
            pairs = [pair for pair in batch if _is_nan(pair[0])]
            add(self._combine, states, self._with_one_nan(pairs), mapper)

    def _nans_behind(self, before: int) -> list[Any]:
        """Return the NaNs among the keys behind the first *before*, the last one first."""
        new = len(self.states) - before
        return _nans_of(list(islice(reversed(self.states), new))) if new else []

    def _with_one_nan(self, batch: list[Pair]) -> list[Pair]:
        (nan,) = self._nan
        return [(nan, pair[1]) if _is_nan(pair[0]) else pair for pair in batch]

    def write(self, key: str) -> tuple[Slice, ...]:
        """Write the shuffle object, unless it is empty, and return its slices."""
        slices: list[Slice] = []
        self._watch.enter("sort")
        if self._file is not None and self.states:
            self._spill()
        if not self.emitted:
            return (missing_slice(self._task, self._env.execution),) * self._partitions
        self._watch.enter("write")
        parts = self._spilled_parts(slices) if self._file else self._parts(slices)
        put_parts(self._env.store, key, self._watch.within("sort", parts))
        return tuple(slices)

    @property
    def _weight(self) -> int:
        return self._held if self._combine.by_value else len(self.states)

    def _shorten(self) -> None:
        """Let the user's combiner shorten the lists; again when there are twice as many values."""
        keys = list(self.states)
        shortened = self._combine.settled(keys, list(self.states.values()))
        self.states.update(zip(keys, shortened, strict=True))
        self._held = len(keys)
        self._shorten_at = max(SHORTEN_PAIRS, 2 * self._held)

    def _buckets(self) -> list[list[Any]]:
        """Return the keys of each partition, in the order of the dictionary."""
        keys = list(self.states)
        if self._partitions == 1 and self._keying.partitioner is None:
            return [keys]
        buckets: list[list[Any]] = [[] for _ in range(self._partitions)]
        for key, partition in zip(
            keys, self._keying.partitions(keys, self._partitions), strict=True
        ):
            buckets[partition].append(key)
        return buckets

    def _spill(self) -> None:
        """Write the dictionary as one sorted run per partition, and empty it."""
        weight = self._weight
        self._write_runs()
        self.states.clear()
        self._held = 0
        self._gatherer.empty()
        self.spills += 1
        self._room.emptied(weight)

    def _write_runs(self) -> None:
        if self._file is None:
            self._file = RunFile()
        file = self._file
        buckets = self._buckets()
        for partition in range(self._partitions):
            bucket, buckets[partition] = buckets[partition], []
            writer = self._writer(file.write, offset=file.end)
            self._encode(bucket, writer)
            self._runs[partition].append(Run(writer.blocks, file.read, "a spilled run"))

    def _encode(self, bucket: list[Any], writer: BlockWriter) -> None:
        keys, states = self._keying.ordered(self.states, bucket, self._combine)
        self._watch.enter("write")
        for at in range(0, len(keys), ENCODE_KEYS):
            stop = at + ENCODE_KEYS
            writer.add(keys[at:stop], *self._combine.packed(states[at:stop]))
        writer.close()
        self._block_pairs = writer.next_pairs
        self._watch.enter("sort")

    def _writer(
        self,
        write: Callable[[bytes], object],
        *,
        offset: int = 0,
        compress: Callable[[bytes], bytes] | None = None,
    ) -> BlockWriter:
        return BlockWriter(
            write,
            self._dumps,
            shape=self._keying.shape,
            first_pairs=self._block_pairs,
            offset=offset,
            compress=compress,
        )

    def _parts(self, slices: list[Slice]) -> Iterator[bytes]:
        """Yield the bytes of the shuffle object from the dictionary; rows go to *slices*."""
        at = 0
        buckets = self._buckets()
        for partition in range(self._partitions):
            bucket, buckets[partition] = buckets[partition], []
            payloads: list[bytes] = []
            writer = self._writer(payloads.append, compress=self._compress)
            self._encode(bucket, writer)
            front, row = self._front(partition, writer.blocks, at)
            slices.append(row)
            at += row.length
            if row.length:
                yield front
                yield from payloads

    def _spilled_parts(self, slices: list[Slice]) -> Iterator[bytes]:
        """The same from the spilled runs: merged through a file, as the front comes first."""
        at = 0
        merged = RunFile()
        try:
            for partition in range(self._partitions):
                writer = self._writer(merged.write, compress=self._compress)
                self._watch.enter("merge")
                self._merger.write(self._merger.merge(self._runs[partition]), writer)
                self._watch.enter("write")
                front, row = self._front(partition, writer.blocks, at)
                slices.append(row)
                at += row.length
                if row.length:
                    yield front
                    yield from merged.pieces()
                merged.rewind()
        finally:
            merged.close()

    def _front(self, partition: int, blocks: Sequence[Block], at: int) -> tuple[bytes, Slice]:
        if not blocks:
            return b"", missing_slice(self._task, self._env.execution)
        identity = slice_identity(
            self._env, self._env.index, self._task, self._env.execution, partition
        )
        front = encode_front(identity, blocks)
        length = len(front) + sum(block.length for block in blocks)
        return front, slice_of(front, identity, at, length)

    def __enter__(self) -> "Shuffling":
        return self

    def __exit__(self, *_: object) -> None:
        self._merger.close()
        if self._file is not None:
            self._file.close()


def _nans_of(keys: list[Any]) -> list[Any]:
    try:
        found = any(map(ne, keys, keys))
    except (TypeError, ValueError):  # as of pandas.NA, which is neither equal nor not
        found = True
    return list(filter(_is_nan, keys)) if found else []


def _is_nan(key: Any) -> bool:
    try:
        return bool(key != key)
    except (TypeError, ValueError):
        return False  # a key that cannot tell, which `canonical` refuses by its type


def slice_identity(
    env: TaskEnv, stage: int, task: int, execution: str, partition: int
) -> SliceIdentity:
    """Return whose slice it is: that of an execution of a task of a stage, for one partition."""
    job = env.manifest
    return SliceIdentity(job.job, job.stages[stage].name, task, execution, partition)


def pair_dumps(env: TaskEnv) -> Dumps:
    """Return what pickles the mapper's pairs where plain pickle cannot."""
    dumps = code_dumps(env.stage.serializer)

    def pickled(content: object) -> bytes:
        try:
            return dumps(content)
        except Exception as error:
            raise ResultNotSerializable(
                f"The mapper's pairs cannot be pickled ({type(error).__name__}: {error}). "
                "Yield plain data, or what can be pickled."
            ) from error

    return pickled
