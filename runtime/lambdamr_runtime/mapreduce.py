"""The work of map and reduce tasks.

    split ─ records ─▶ mapper ─ pairs ─▶ dictionary ─ partitions ─▶ shuffle object      (Map)
    group indexes ─▶ slices ─▶ dictionary ─ sorted keys ─▶ reducer ─ pairs ─▶ part      (Reduce)

A partition is grouped in memory by its reduce task, and a split's pairs by its map task.
"""

import io
import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from types import GeneratorType
from typing import Any

from lambdamr_runtime.canonical import canonical, partition_of
from lambdamr_runtime.errors import BadKey, CorruptObject, InvalidPairs, ResultNotSerializable
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.records import Reader
from lambdamr_runtime.serialize import Dumps, code_dumps
from lambdamr_runtime.shuffle import (
    Slice,
    SliceIdentity,
    column_span,
    decode_column,
    decode_slice,
    encode_columns,
    encode_slice,
    missing_slice,
    slice_of,
)
from lambdamr_runtime.store import STAMP_BYTES, Store, open_store
from lambdamr_runtime.wire import Stage
from lambdamr_runtime.work import TaskEnv

PART_PAIRS = 10_000
"""Pairs in one pickled block of an output part."""

Pair = tuple[Any, Any]
Grouped = dict[Any, list[Any]]
"""Values by key, keys in the order in which they were first seen."""
Sorted = list[tuple[Any, list[Any]]]
"""(key, values) in canonical order."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a map task made: the value of its frame."""

    slices: tuple[Slice, ...]
    """One per partition."""
    bytes_read: int
    records: int
    emitted: int
    """Pairs that the mapper yielded."""


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


@dataclass(frozen=True, slots=True)
class Map:
    """Read a split, call the mappers, write one shuffle object.

    The task's argument is a sequence of splits where there is a reader, else of items.
    """

    mappers: tuple[Callable[[Any], Any], ...]
    """Fused: each one gets every pair of the one before it as its record."""
    reader: Reader | None
    retry_on: tuple[type[BaseException], ...] = (Exception,)

    def run(self, env: TaskEnv, task: int, arg: Any) -> Mapped:
        source = _Source(self.reader, arg)
        groups: Grouped = {}
        emitted = _group(self._pairs(source), groups)
        body, slices = _encode_partitions(groups, env, task)
        if body:
            env.store.put(env.stage_keys(env.index).shuffle(task, env.execution), body)
        return Mapped(slices, source.bytes_read, source.records, emitted)

    def _pairs(self, records: Iterable[Any]) -> Iterator[Pair]:
        stream: Iterable[Any] = records
        for mapper in self.mappers:
            stream = _mapped(mapper, stream)
        return iter(stream)


class _Source:
    """The records of a map task, and the account of what was read."""

    def __init__(self, reader: Reader | None, arg: Sequence[Any]) -> None:
        self._reader = reader
        self._arg = arg
        self.bytes_read = 0
        self.records = 0

    def __iter__(self) -> Iterator[Any]:
        if self._reader is None:
            self.records = len(self._arg)
            yield from self._arg
            return
        stores: dict[str, Store] = {}
        for split in self._arg:
            store = stores.setdefault(split.root, stores.get(split.root) or open_store(split.root))
            stream = self._reader.read(split, store)
            yield from stream
            self.bytes_read += stream.owned_bytes
            self.records += stream.records


@dataclass(frozen=True, slots=True)
class Reduce:
    """Read one partition of the stage before, call the reducer per key, write an output part."""

    reducer: Callable[[Any, Iterator[Any]], Any]
    retry_on: tuple[type[BaseException], ...] = (Exception,)

    def run(self, env: TaskEnv, task: int, arg: Any) -> Reduced:  # noqa: ARG002 - the protocol's
        groups: Grouped = {}
        pairs_read = 0
        for piece, content in _slices_of(env, task):
            pairs_read += piece.pairs
            for key, values in content:
                _merge(groups, key, values)
        ordered = _sorted(groups.items())
        part = io.BytesIO()
        output_pairs = 0
        for block in _batched(self._output(ordered), PART_PAIRS):
            output_pairs += len(block)
            part.write(_dump_pairs(block, env.dumps))
        key = JobKeys(env.manifest.job).part(task, env.execution)
        data = part.getvalue()
        env.store.put(key, data)
        return Reduced(key, len(data), pairs_read, len(ordered), output_pairs)

    def _output(self, ordered: Sorted) -> Iterator[Pair]:
        for key, values in ordered:
            result = self.reducer(key, iter(values))
            if isinstance(result, GeneratorType):
                for pair in result:
                    yield _checked(pair, self.reducer)
            else:
                yield key, result


def _batched(pairs: Iterator[Pair], size: int) -> Iterator[list[Pair]]:
    while block := list(itertools.islice(pairs, size)):
        yield block


def read_part(data: bytes, source: str) -> Iterator[Pair]:
    """Yield the pairs of an output part.

    Raises:  CorruptObject: it is not one.
    """
    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        try:
            block = pickle.load(stream)
        except (pickle.UnpicklingError, EOFError) as error:
            raise CorruptObject(f"{source} is not an output part: {error}") from error
        yield from block


def group_columns(mapped: Sequence[tuple[int, Mapped | None]], partitions: int) -> bytes:
    """Return the shuffle index of a group of map tasks, column-major.

    Args:  mapped: (task, what it made, or None if it failed for good), all with *partitions*.
    """
    rows = [
        [missing_slice(task)] * partitions if made is None else made.slices for task, made in mapped
    ]
    return encode_columns(rows)


def _slices_of(env: TaskEnv, partition: int) -> Iterator[tuple[Slice, Iterator[tuple[Any, Any]]]]:
    """Yield (slice, its groups) of one partition in task order: one ranged read per group and one
    per slice.
    """
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
    for piece in sorted(slices, key=lambda piece: piece.task):
        source = keys.shuffle(piece.task, piece.execution)
        data = _stored(env.store, source, piece)
        identity = _identity(env, env.index - 1, piece.task, piece.execution, partition)
        yield piece, decode_slice(data, identity, piece, source)


def _stored(store: Store, source: str, piece: Slice) -> bytes:
    try:
        return store.get_range(source, piece.offset, piece.length)
    except FileNotFoundError as error:
        raise CorruptObject(
            f"{source}, which map task {piece.task} wrote, is gone. Run the job again."
        ) from error


def _mapped(mapper: Callable[[Any], Any], records: Iterable[Any]) -> Iterator[Pair]:
    for record in records:
        result = mapper(record)
        if isinstance(result, dict):
            yield from result.items()
            continue
        if result is None or isinstance(result, (str, bytes)) or not hasattr(result, "__iter__"):
            raise InvalidPairs(
                f"{_name(mapper)} returned {_shown(result)}. A mapper yields (key, value) pairs, "
                "or returns a list of pairs or a dict; an empty list for none."
            )
        for pair in result:
            yield pair if type(pair) is tuple and len(pair) == 2 else _checked(pair, mapper)


def _checked(pair: object, fn: Callable[..., Any]) -> Pair:
    if isinstance(pair, (tuple, list)) and len(pair) == 2:
        return pair[0], pair[1]
    raise InvalidPairs(f"{_name(fn)} yielded {_shown(pair)}, which is no (key, value) pair.")


def _group(pairs: Iterator[Pair], groups: Grouped) -> int:
    """Add pairs to *groups*, and return how many there were."""
    count = 0
    nan: Any = None
    for key, value in pairs:
        count += 1
        try:
            groups[key].append(value)
        except KeyError:
            if key != key:  # a dict keeps NaN objects apart: the first stands for all
                key = nan = key if nan is None else nan
            groups.setdefault(key, []).append(value)
        except TypeError as error:
            raise BadKey(f"{_shown(key)} cannot be a key: {error}.") from error
    return count


def _merge(groups: Grouped, key: Any, values: list[Any]) -> None:
    known = groups.get(key)
    if known is None:
        groups[key] = values
    else:
        known.extend(values)


def _sorted(items: Iterable[tuple[Any, list[Any]]]) -> Sorted:
    """Sort groups by canonical key, and join those that only Python's `==` keeps apart (NaN)."""
    ranked = [(canonical(key), key, values) for key, values in items]
    ranked.sort(key=itemgetter(0))
    groups: Sorted = []
    previous: object = None
    for rank, key, values in ranked:
        if groups and rank == previous:
            groups[-1][1].extend(values)
        else:
            groups.append((key, values))
        previous = rank
    return groups


def _encode_partitions(groups: Grouped, env: TaskEnv, task: int) -> tuple[bytes, tuple[Slice, ...]]:
    """Return the shuffle object of a task and its slices, one per partition."""
    partitions = env.stage.partitions
    buckets: list[list[tuple[Any, list[Any]]]] = [[] for _ in range(partitions)]
    for key, values in groups.items():
        buckets[partition_of(key, partitions)].append((key, values))
    dumps = code_dumps(env.stage.serializer)
    body = bytearray()
    slices: list[Slice] = []
    for partition, bucket in enumerate(buckets):
        if not bucket:
            slices.append(missing_slice(task, env.execution))
            continue
        identity = _identity(env, env.index, task, env.execution, partition)
        data = _encoded(identity, _sorted(bucket), dumps)
        slices.append(slice_of(data, identity, len(body)))
        body += data
    return bytes(body), tuple(slices)


def _identity(env: TaskEnv, stage: int, task: int, execution: str, partition: int) -> SliceIdentity:
    job = env.manifest
    return SliceIdentity(job.job, job.stages[stage].name, task, execution, partition)


def _encoded(identity: SliceIdentity, groups: Sorted, dumps: Dumps) -> bytes:
    try:
        return encode_slice(identity, groups, dumps=dumps)
    except Exception as error:
        raise ResultNotSerializable(
            f"The mapper's pairs cannot be pickled ({type(error).__name__}: {error}). "
            "Yield plain data, or what can be pickled."
        ) from error


def _dump_pairs(block: Sequence[Pair], dumps: Dumps) -> bytes:
    try:
        return dumps(block)
    except Exception as error:
        raise ResultNotSerializable(
            f"The reducer's results cannot be pickled ({type(error).__name__}: {error}). "
            "Return plain data, or what can be pickled."
        ) from error


def _name(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", None) or type(fn).__qualname__


def _shown(value: object) -> str:
    text = repr(value)
    return f"{text[:80]}{'…' if len(text) > 80 else ''} ({type(value).__name__})"
