"""The work of map and reduce tasks.

    split ─ records ─▶ mapper ─ pairs ─▶ dictionary ─ partitions ─▶ shuffle object      (Map)
                                           │ full: sorted run ▶ temporary file ▶ merge ┘
    group indexes ─▶ slices ─▶ dictionary ─ sorted keys ─▶ reducer ─ pairs ─▶ part      (Reduce)
                       └ too large: merge, block by block ──┘

Both stay within their share of the worker's memory, whatever the data: see `memory.Room`.
"""

import io
import pickle
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from operator import ne
from types import GeneratorType
from typing import Any

from lambdamr_runtime.errors import CorruptObject, ResultNotSerializable
from lambdamr_runtime.formats import Format
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.limits import KIB, MIB
from lambdamr_runtime.memory import SPILL_SHARE, Room
from lambdamr_runtime.opening import opened
from lambdamr_runtime.outputs import PartFile, Written
from lambdamr_runtime.pairs import Mapper, Pair, add, as_pair, checked, mapped, pair_batches
from lambdamr_runtime.records import Reader
from lambdamr_runtime.reducers import Combined, Reducer, States, collect
from lambdamr_runtime.runs import Hot, Keying, Merger, Run, RunFile, Whole
from lambdamr_runtime.serialize import Dumps, code_dumps
from lambdamr_runtime.shuffle import (
    FIRST_BLOCK_PAIRS,
    Block,
    BlockWriter,
    Slice,
    SliceIdentity,
    column_span,
    compressor,
    decode_column,
    decode_contents,
    decode_front,
    encode_columns,
    encode_front,
    front_bytes,
    missing_slice,
    slice_of,
)
from lambdamr_runtime.stopwatch import Phases, Stopwatch
from lambdamr_runtime.store import PART_BYTES, STAMP_BYTES, Store, open_store
from lambdamr_runtime.wire import Stage
from lambdamr_runtime.work import TaskEnv

PART_PAIRS = 10_000
"""Most pairs in one block of an output part."""

FIRST_PART_PAIRS = 64
"""Pairs of the first block of a part, whose size says how many the next ones may have."""

PART_BLOCK_BYTES = 256 * KIB
"""Blocks of a part are cut so that they come to at most about so many bytes."""

GROUPED_FACTOR = 2
GROUPED_PAIR_BYTES = 170
"""A partition is grouped in a dictionary if so many times its bytes and so much per pair fit in the
room. Measured per pair of distinct keys, values in lists: 180 bytes for short words, 194 for ints,
310 for 100-byte texts. It is an estimate: memory is watched while it is done."""

FRONT_BYTES = 64 * KIB
"""The first read of a slice that is merged; a front is 44 bytes per block."""

FETCH_BYTES = 4 * MIB
"""Most bytes of blocks fetched with one request by a merge."""

_PART_BLOCK = struct.Struct("<QI")
"""A row of the table of a part's blocks: length and checksum."""

Group = tuple[Any, Iterator[Any]]
"""A key and its values, to be read once."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a map task made: the value of its frame."""

    slices: tuple[Slice, ...]
    """One per partition; none in a job without reducer."""
    bytes_read: int
    records: int
    emitted: int
    """Pairs that the mapper yielded."""
    bad_records: int = 0
    """Records that could not be read and were skipped."""
    part: str = ""
    """Key of the output part, in a job without reducer."""
    size: int = 0
    """Bytes of the part."""
    blocks: bytes = b""
    """Table of the part's blocks, for `part_blocks`."""
    spilled_runs: int = 0
    spilled_bytes: int = 0
    """Written to temporary files."""
    phases: Phases = field(default_factory=Phases)
    file: Written | None = None
    """The part in the format of output=, where that is given and this stage writes the parts."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """What a reduce task made: the value of its frame."""

    part: str
    """Key of the output part."""
    size: int
    """Bytes of the part."""
    pairs_read: int
    keys: int
    output_pairs: int
    blocks: bytes = b""
    """Table of the part's blocks, for `part_blocks`."""
    spilled_bytes: int = 0
    """Written to temporary files, over all passes of a merge."""
    phases: Phases = field(default_factory=Phases)
    file: Written | None = None
    """The part in the format of output=, where that is given."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a task uses its memory."""

    spill_share: float = SPILL_SHARE
    """Of the worker's memory above what is taken when a task begins."""
    merge_width: int | None = None
    """Most runs merged at a time, >= 2; None: as many as fit."""
    compress: bool = False
    """Whether shuffle objects are compressed. What stays on the worker's disk never is."""


@dataclass(frozen=True, slots=True)
class Map:
    """Read a split, call the mappers, write one shuffle object.

    The task's argument is a sequence of splits where there is a reader, else of items.
    """

    mappers: tuple[Mapper, ...]
    """Fused: each one gets every pair of the one before it as its record."""
    reader: Reader | None
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    combine: Reducer = collect
    """What the dictionary holds: for a plain reducer, its values."""
    keying: Keying = field(default_factory=Keying)
    tuning: Tuning = field(default_factory=Tuning)
    form: Format | None = None
    """Of output=, in a job without reducer."""

    def run(self, env: TaskEnv, task: int, arg: Any) -> Mapped:
        watch = Stopwatch("map")
        source = _Source(self.reader, arg)
        records = chain.from_iterable(watch.within("read", source.batches()))
        stream, last = mapped(self.mappers, records)
        if not env.stage.partitions:
            return self._write_part(env, task, source, stream, watch)
        with (
            Room(env.memory_mb, self.tuning.spill_share) as room,
            _Shuffling(self, env, task, room, watch) as out,
        ):
            while batch := list(islice(stream, room.step)):
                out.add(checked(batch, last), last)
            key = env.stage_keys(env.index).shuffle(task, env.execution)
            slices = out.write(key)
        return Mapped(
            slices=slices,
            bytes_read=source.bytes_read,
            records=source.records,
            emitted=out.emitted,
            bad_records=source.bad_records,
            spilled_runs=out.spills,
            spilled_bytes=out.spilled_bytes,
            phases=watch.phases(),
        )

    def _write_part(
        self, env: TaskEnv, task: int, source: "_Source", stream: Iterator[Any], watch: Stopwatch
    ) -> Mapped:
        """A job without reducer: the pairs in their order are the output."""
        part = _Part(env, task, watch, self.form)
        size = part.write(pair_batches(stream, self.mappers[-1], part.step))
        return Mapped(
            slices=(),
            bytes_read=source.bytes_read,
            records=source.records,
            emitted=part.pairs,
            bad_records=source.bad_records,
            part=part.key,
            size=size,
            blocks=bytes(part.table),
            phases=watch.phases(),
            file=part.file,
        )


class _Shuffling:
    """The dictionary of a map task, its spills, and the shuffle object they become."""

    def __init__(self, work: Map, env: TaskEnv, task: int, room: Room, watch: Stopwatch) -> None:
        self._combine = work.combine
        self._keying = work.keying
        self._env = env
        self._task = task
        self._room = room
        self._watch = watch
        self._dumps = pair_dumps(env)
        self._partitions = env.stage.partitions
        self._states = self._combine.states()
        self._nan: tuple[Any, ...] = ()
        """The NaN that stands for all, once there is one."""
        self._held = 0
        """Pairs added since the dictionary was empty, or last shortened."""
        self._shorten_at = SHORTEN_PAIRS
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

    def add(self, batch: list[Pair], mapper: Mapper) -> None:
        """Add pairs; spill if that fills the room."""
        interrupted = self._watch.enter("combine")
        self._add(batch, mapper)
        self.emitted += len(batch)
        self._held += len(batch)
        if isinstance(self._combine, Combined) and self._held >= self._shorten_at:
            self._shorten()
        if self._room.is_full(self._weight):
            self._spill()
        self._watch.enter(interrupted)

    def _add(self, batch: list[Pair], mapper: Mapper) -> None:
        """Add pairs, every NaN under one key: a dictionary keeps NaN objects apart.

        Only keys that are new can be the first NaN: looking at these costs 25 ns each.
        """
        states = self._states
        if self._nan:
            batch = self._with_one_nan(batch)
        before = len(states)
        add(self._combine, states, batch, mapper)
        if self._nan or len(states) == before:
            return
        found = _nans_of(list(islice(reversed(states), len(states) - before)))
        if found:
            for key in found:
                del states[key]
            self._nan = (found[-1],)
            pairs = [pair for pair in batch if _is_nan(pair[0])]
            add(self._combine, states, self._with_one_nan(pairs), mapper)

    def _with_one_nan(self, batch: list[Pair]) -> list[Pair]:
        (nan,) = self._nan
        return [(nan, pair[1]) if _is_nan(pair[0]) else pair for pair in batch]

    def write(self, key: str) -> tuple[Slice, ...]:
        """Write the shuffle object, unless it is empty, and return its slices."""
        slices: list[Slice] = []
        if self._file is not None and self._states:
            self._spill()
        if not self.emitted:
            return (missing_slice(self._task, self._env.execution),) * self._partitions
        self._watch.enter("write")
        parts = self._spilled_parts(slices) if self._file else self._parts(slices)
        put_parts(self._env.store, key, self._watch.within("sort", parts))
        return tuple(slices)

    @property
    def _weight(self) -> int:
        return self._held if self._combine.by_value else len(self._states)

    def _shorten(self) -> None:
        """Let the user's combiner shorten the lists; again when there are twice as many values."""
        keys = list(self._states)
        shortened = self._combine.settled(keys, list(self._states.values()))
        self._states.update(zip(keys, shortened, strict=True))
        self._held = len(keys)
        self._shorten_at = max(SHORTEN_PAIRS, 2 * self._held)

    def _buckets(self) -> list[list[Any]]:
        """Return the keys of each partition, in order of first sight."""
        keys = list(self._states)
        buckets: list[list[Any]] = [[] for _ in range(self._partitions)]
        if self._partitions == 1 and self._keying.partitioner is None:
            return [keys]
        for key, partition in zip(
            keys, self._keying.partitions(keys, self._partitions), strict=True
        ):
            buckets[partition].append(key)
        return buckets

    def _spill(self) -> None:
        """Write the dictionary as one sorted run per partition, and begin an empty one."""
        self._watch.enter("sort")
        if self._file is None:
            self._file = RunFile()
        file, weight = self._file, self._weight
        buckets = self._buckets()
        for partition in range(self._partitions):
            bucket, buckets[partition] = buckets[partition], []
            writer = self._writer(file.write, offset=file.end)
            self._encode(bucket, writer)
            self._runs[partition].append(Run(writer.blocks, file.read, "a spilled run"))
        self._states = self._combine.states()
        self._held = 0
        self.spills += 1
        self._room.emptied(weight)

    def _encode(self, bucket: list[Any], writer: BlockWriter) -> None:
        keys, states = self._keying.ordered(self._states, bucket, self._combine)
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
        identity = _identity(self._env, self._env.index, self._task, self._env.execution, partition)
        front = encode_front(identity, blocks)
        length = len(front) + sum(block.length for block in blocks)
        return front, slice_of(front, identity, at, length)

    def __enter__(self) -> "_Shuffling":
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


SHORTEN_PAIRS = 100_000
"""Values that a map task holds before the user's combiner first shortens them."""

ENCODE_KEYS = 4096
"""Keys given to a block writer at a time."""


class _Source:
    """The records of a map task, and the account of what was read."""

    def __init__(self, reader: Reader | None, arg: Sequence[Any]) -> None:
        self._reader = reader
        self._arg = arg
        self.bytes_read = 0
        self.records = 0
        self.bad_records = 0

    def batches(self) -> Iterator[Sequence[Any]]:
        """Yield the records, many at a time."""
        if self._reader is None:
            self.records = len(self._arg)
            yield self._arg
            return
        for split, store in opened(self._arg, open_store):
            stream = self._reader.read(split, store)
            yield from stream.batches()
            self.bytes_read += stream.owned_bytes
            self.records += stream.records
            self.bad_records += stream.bad_records


@dataclass(frozen=True, slots=True)
class Reduce:
    """Read one partition of the stage before, call the reducer per key, write an output part."""

    reducer: Callable[[Any, Iterator[Any]], Any] | Reducer
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    keying: Keying = field(default_factory=Keying)
    tuning: Tuning = field(default_factory=Tuning)
    form: Format | None = None
    """Of output=."""

    @property
    def combine(self) -> Reducer:
        """What a dictionary of this task holds: for a plain reducer, the values."""
        return self.reducer if isinstance(self.reducer, Reducer) else collect

    def run(self, env: TaskEnv, task: int, arg: Any) -> Reduced:  # noqa: ARG002 - the protocol's
        watch = Stopwatch("fetch")
        with (
            Room(env.memory_mb, self.tuning.spill_share) as room,
            _Partition(self, env, task, room, watch) as partition,
        ):
            part = _Part(env, task, watch, self.form)
            groups = watch.within("merge", partition.groups())
            size = part.write(self._blocks(groups, part, watch))
        return Reduced(
            part=part.key,
            size=size,
            blocks=bytes(part.table),
            pairs_read=partition.pairs_read,
            keys=partition.keys,
            output_pairs=part.pairs,
            spilled_bytes=partition.spilled_bytes,
            phases=watch.phases(),
            file=part.file,
        )

    def _blocks(
        self, groups: Iterator[Whole | Hot], part: "_Part", watch: Stopwatch
    ) -> Iterator[list[Pair]]:
        """Yield the output pairs, some at a time."""
        watch.enter("reduce")
        if isinstance(self.reducer, Reducer):
            for group in groups:
                yield self._finished(group, self.reducer)
            return
        pairs = self._pairs(groups, self.reducer)
        while block := list(islice(pairs, part.step())):
            yield block

    def _finished(self, group: Whole | Hot, reducer: Reducer) -> list[Pair]:
        if isinstance(group, Hot):
            return [(group.key, list(chain.from_iterable(group.pieces)))]
        values = map(reducer.finish, group.states) if reducer.finishes else group.states
        return list(zip(group.keys, values, strict=True))

    def _pairs(
        self, groups: Iterator[Whole | Hot], reducer: Callable[[Any, Iterator[Any]], Any]
    ) -> Iterator[Pair]:
        for key, values in _each(groups):
            result = reducer(key, values)
            if isinstance(result, GeneratorType):
                for pair in result:
                    yield as_pair(pair, reducer)
            else:
                yield key, result


def _each(groups: Iterator[Whole | Hot]) -> Iterator[Group]:
    for group in groups:
        if isinstance(group, Hot):
            yield group.key, chain.from_iterable(group.pieces)
        else:
            yield from zip(group.keys, map(iter, group.states), strict=True)


class _Partition:
    """One partition as a reduce task reads it."""

    def __init__(
        self, work: Reduce, env: TaskEnv, partition: int, room: Room, watch: Stopwatch
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
        """Return all states in a dictionary, or None if they do not fit."""
        needed = sum(
            piece.length * GROUPED_FACTOR + piece.pairs * GROUPED_PAIR_BYTES for piece in slices
        )
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
                self._combine.merge(states, zip(keys, found, strict=True))
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
            _identity(self._env, stage, piece.task, piece.execution, self._partition),
            self._env.stage_keys(stage).shuffle(piece.task, piece.execution),
        )

    def __enter__(self) -> "_Partition":
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


def _identity(env: TaskEnv, stage: int, task: int, execution: str, partition: int) -> SliceIdentity:
    job = env.manifest
    return SliceIdentity(job.job, job.stages[stage].name, task, execution, partition)


def group_columns(mapped: Sequence[tuple[int, Mapped | None]], partitions: int) -> bytes:
    """Return the shuffle index of a group of map tasks, column-major.

    Args:  mapped: (task, what it made, or None if it failed for good), all with *partitions*.
    """
    rows = [
        [missing_slice(task)] * partitions if made is None else made.slices for task, made in mapped
    ]
    return encode_columns(rows)


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


# --- output parts -----------------------------------------------------------------------------


class _Part:
    """An output part being written: pickled lists of pairs, back to back, streamed to the store."""

    def __init__(self, env: TaskEnv, partition: int, watch: Stopwatch, form: Format | None) -> None:
        self._env = env
        self._watch = watch
        self._form = form
        self._file: PartFile | None = None
        if form is not None and not form.is_pickle:
            key = JobKeys(env.manifest.job).file(partition, env.execution, form.suffix)
            self._file = PartFile(env.store, key, form)
        self._checksum = 0
        self.file: Written | None = None
        """The same pairs in the format of output=, once they are written."""
        self._step = FIRST_PART_PAIRS
        self._what = "The reducer's results" if env.index else "The mapper's pairs"
        self.key = JobKeys(env.manifest.job).part(partition, env.execution)
        self.pairs = 0
        self.table = bytearray()

    def step(self) -> int:
        """Return how many pairs the next block should have."""
        return self._step

    def write(self, batches: Iterable[Sequence[Pair]]) -> int:
        """Write all pairs and return the size of the part."""
        size = put_parts(self._env.store, self.key, self._blocks(batches))
        if self._file is not None:
            self.file = self._file.close()
        elif self._form is not None:
            self.file = Written(self.key, self.pairs, size, self._checksum)
        return size

    def _blocks(self, batches: Iterable[Sequence[Pair]]) -> Iterator[bytes]:
        for pairs in batches:
            at = 0
            while at < len(pairs):
                stop = min(at + self._step, len(pairs))
                yield self._block(pairs[at:stop])
                at = stop

    def _block(self, pairs: Sequence[Pair]) -> bytes:
        interrupted = self._watch.enter("write")
        try:
            data = self._env.dumps(pairs)
        except Exception as error:
            raise ResultNotSerializable(
                f"{self._what} cannot be pickled ({type(error).__name__}: {error}). "
                "Return plain data, or what can be pickled."
            ) from error
        self.pairs += len(pairs)
        if self._file is not None:
            self._file.add(pairs)
        elif self._form is not None:
            self._checksum = zlib.crc32(data, self._checksum)
        self.table += _PART_BLOCK.pack(len(data), zlib.crc32(data))
        fitting = PART_BLOCK_BYTES * len(pairs) // len(data)
        self._step = max(1, min(PART_PAIRS, 2 * self._step, fitting))
        self._watch.enter(interrupted)
        return data


def put_parts(store: Store, key: str, parts: Iterator[bytes]) -> int:
    """Write an object, with one request where it is small, and return its size."""
    held: list[bytes] = []
    size = 0
    for part in parts:
        held.append(part)
        size += len(part)
        if size > PART_BYTES:
            first = b"".join(held)
            held.clear()
            return store.put_stream(key, chain((first,), parts))
    store.put(key, b"".join(held))
    return size


def read_part(data: bytes, source: str) -> Iterator[Pair]:
    """Yield the pairs of an output part that is known to be sound.

    Raises:  CorruptObject: it is none.
    """
    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        try:
            block = pickle.load(stream)
        except (pickle.UnpicklingError, EOFError) as error:
            raise CorruptObject(f"{source} is not an output part: {error}") from error
        yield from block


def part_blocks(
    read: Callable[[int, int], bytes], table: bytes, source: str
) -> Iterator[list[Pair]]:
    """Yield the blocks of an output part, each verified before it is unpickled.

    Args:    read: (offset, length) -> bytes. table: of the blocks, as the task returned it.
    Raises:  CorruptObject: the part is not what was written.
    """
    held, at, start = b"", 0, 0  # held[start:] are the bytes from *at* on
    for length, checksum in _PART_BLOCK.iter_unpack(table):
        left = len(held) - start
        if left < length:
            held = held[start:] + read(at + left, max(PART_BYTES, length - left))
            start = 0
        block = memoryview(held)[start : start + length]
        if len(block) != length or zlib.crc32(block) != checksum:
            raise CorruptObject(
                f"{source} is damaged: the block at byte {at} has {len(block)} bytes with checksum "
                f"{zlib.crc32(block)}, written were {length} with {checksum}."
            )
        at += length
        start += length
        yield pickle.loads(block)
