"""The work of map and reduce tasks.

    split ─ records ─▶ mapper ─ pairs ─▶ dictionary ─ partitions ─▶ shuffle object      (Map)
                                           │ full: sorted run ▶ temporary file ▶ merge ┘
    group indexes ─▶ slices ─▶ dictionary ─ sorted keys ─▶ reducer ─ pairs ─▶ part      (Reduce)
                       └ too large: merge, block by block ──┘

Both stay within their share of the worker's memory, whatever the data: see `memory.Room`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from types import GeneratorType
from typing import Any

from lambdamr_runtime.adopting import Adopted
from lambdamr_runtime.formats import Format
from lambdamr_runtime.inlined import Inlined
from lambdamr_runtime.memory import Room
from lambdamr_runtime.opening import opened
from lambdamr_runtime.outputs import Written
from lambdamr_runtime.pairs import Mapper, Pair, as_pair, chained, mapped, pair_batches
from lambdamr_runtime.partitions import Partition
from lambdamr_runtime.parts import Part
from lambdamr_runtime.records import Reader
from lambdamr_runtime.reducers import Reducer, collect
from lambdamr_runtime.runs import Hot, Keying, Whole
from lambdamr_runtime.shuffle import Slice, encode_columns, missing_slice
from lambdamr_runtime.shuffling import Shuffling, Tuning
from lambdamr_runtime.stopwatch import Phases, Stopwatch
from lambdamr_runtime.store import open_store
from lambdamr_runtime.work import TaskEnv

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
    """Pairs that the mapper yielded; the elements of a Counter that were counted at once."""
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
class Map:
    """Read a split, call the mappers, write one shuffle object.

    The task's argument is a sequence of splits where there is a reader, else of items; or what an
    earlier job has made of them.
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
    inlined: Inlined | None = None
    """The last mapper with the adding of *combine* in it; None: it is called as it is."""

    def run(self, env: TaskEnv, task: int, arg: Any) -> Mapped:
        if isinstance(arg, Adopted):
            return arg.run(env, task)
        watch = Stopwatch("map")
        source = _Source(self.reader, arg)
        mapper = self.mappers[-1]
        read = chain.from_iterable(watch.within("read", source.batches()))
        records = chained(self.mappers, read)
        if not env.stage.partitions:
            return self._write_part(env, task, source, mapped(mapper, records), watch)
        with (
            Room(env.memory_mb, self.tuning.spill_share) as room,
            Shuffling(self, env, task, room, watch) as out,
        ):
            out.add(records, mapper, self.inlined)
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
        part = Part(env, task, watch, self.form)
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
            Partition(self, env, task, room, watch) as partition,
        ):
            part = Part(env, task, watch, self.form)
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
        self, groups: Iterator[Whole | Hot], part: Part, watch: Stopwatch
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


def group_columns(mapped: Sequence[tuple[int, Mapped | None]], partitions: int) -> bytes:
    """Return the shuffle index of a group of map tasks, column-major.

    Args:  mapped: (task, what it made, or None if it failed for good), all with *partitions*.
    """
    rows = [
        [missing_slice(task)] * partitions if made is None else made.slices for task, made in mapped
    ]
    return encode_columns(rows)
