"""The bytes between map and reduce: slices of shuffle objects, and the index that finds them.

    shuffle object = the slices of one map task, back to back, partition by partition
    slice          = front · block · block · …          sorted by canonical key
    front          = fixed header · job · stage · one row per block
    block          = pickle of (keys, counts, values)   at most `block_pairs` values; or that as
                     one frame of zstd, which says so itself
    group index    = column · column · …                one per partition
    column         = one Slice row per task of the group · checksum

A chain of checksums covers every byte once: the index has that of the front, the front those of
the blocks. So a reader that holds a front can verify and merge block by block, and one that
holds the whole slice verifies all of it before it unpickles anything.

A key whose values do not fit in one block goes on in the next one. Pure functions, bytes in and
bytes out; offsets of an index count from its first byte, behind any stamp.
"""

import pickle
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from lambdamr_runtime.canonical import natural_shape
from lambdamr_runtime.errors import CorruptObject

MAGIC = b"LMR1"

BLOCK_PAIRS = 4096
"""Values per block unless told: blocks of small pairs come to some 50 KiB, and a merge of
hundreds of slices holds one block of each."""

BLOCK_BYTES = 128 * 1024
"""Blocks are cut so that they come to at most about so many bytes."""

FIRST_BLOCK_PAIRS = 4
"""Values of the first block, whose size says how many the next ones may have: a megabyte each, or
twenty bytes. A task's later runs begin with what its earlier ones have learnt."""

_SLICE = struct.Struct("<I8sQQQI")
_HEADER = struct.Struct("<4sIIQII8sIHH")
"""magic, checksum, front bytes, pairs, task, partition, execution, blocks, job and stage bytes."""
_CHECKED_FROM = 8
"""The checksum of a front covers what follows it."""
_BLOCK = struct.Struct("<QQIII16s")
"""Length, raw bytes, pairs, keys, checksum, shape."""
_SHAPE_BYTES = 16
"""Longest shape that a block row holds; keys of longer ones are compared by `canonical`."""
_ZSTD_FRAME = b"\x28\xb5\x2f\xfd"
"""What a compressed block begins with; a pickle begins with b"\\x80"."""

_CHECKSUM = struct.Struct("<I")
_EXECUTION_BYTES = 8

ROW_BYTES = _SLICE.size
"""A Slice in an index."""

NO_EXECUTION = "0" * 16
"""The execution in the row of a task that failed for good."""

Group = tuple[Any, list[Any]]
"""A key and its values, in (task, position) order. Any: the user's own types."""

Content = tuple[list[Any], list[int] | None, list[Any]]
"""What a block holds: keys, how many values each has (None: one), and all values in order."""


@dataclass(frozen=True, slots=True)
class SliceIdentity:
    """Whose slice it is: what a reader expects and the bytes must say."""

    job: str
    stage: str
    task: int
    execution: str
    """16 hex digits."""
    partition: int


@dataclass(frozen=True, slots=True)
class Slice:
    """Where the pairs of one task for one partition lie; a row of a group index.

    A missing slice has length 0: the task has no pairs for the partition, or failed for good.
    """

    task: int
    execution: str
    """16 hex digits; names the shuffle object."""
    offset: int
    """Bytes from the beginning of the shuffle object."""
    length: int
    """Bytes."""
    pairs: int
    """Values, over all keys."""
    checksum: int
    """crc32 of the front, which has the checksums of the blocks."""

    def pack(self) -> bytes:
        """Return ROW_BYTES bytes.

        Raises:  ValueError: the execution is not 16 hex digits.
        """
        return _SLICE.pack(
            self.task,
            _execution_bytes(self.execution),
            self.offset,
            self.length,
            self.pairs,
            self.checksum,
        )

    @classmethod
    def unpack(cls, row: bytes) -> "Slice":
        """Parse a row.

        Raises:  CorruptObject: not ROW_BYTES long, or pairs without bytes.
        """
        if len(row) != ROW_BYTES:
            raise CorruptObject(f"a row of a group index has {ROW_BYTES} bytes, not {len(row)}")
        task, execution, offset, length, pairs, checksum = _SLICE.unpack(row)
        if not length and pairs:
            raise CorruptObject(f"the index row of task {task} has {pairs} pairs in 0 bytes")
        return cls(task, execution.hex(), offset, length, pairs, checksum)


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a slice, as the front lists it."""

    offset: int
    """Bytes from the beginning of the slice."""
    length: int
    """Bytes."""
    raw_bytes: int
    """Of the pickle: more than *length* where the block is compressed."""
    pairs: int
    """Values."""
    keys: int
    checksum: int
    """crc32 of the block."""
    shape: str
    """`canonical.natural_shape` of its keys: two blocks of one shape merge in natural order.
    "" where keys need `canonical`."""


def missing_slice(task: int, execution: str = NO_EXECUTION) -> Slice:
    """Return the row of a task that has nothing for a partition."""
    return Slice(task, execution, 0, 0, 0, 0)


class BlockWriter:
    """Cuts sorted groups into blocks, and pickles and writes one after the other.

    Holds no more than the block that is being filled. Blocks are kept near BLOCK_BYTES, however
    large the values are: a merge holds one of each of its runs.

    Args:  write: takes the bytes of each block. dumps: pickles by value what plain pickle cannot,
           or would write as a reference to `__main__`. shape: of the keys, as `natural_shape`.
           block_pairs: most values in a block, >= 1. first_pairs: of the first block. offset:
           of the first block. compress: makes a zstd frame of a pickle; None: as it is.
    """

    def __init__(
        self,
        write: Callable[[bytes], object],
        dumps: Callable[[object], bytes],
        *,
        shape: Callable[[Collection[object]], str] = natural_shape,
        block_pairs: int = BLOCK_PAIRS,
        first_pairs: int = FIRST_BLOCK_PAIRS,
        offset: int = 0,
        compress: Callable[[bytes], bytes] | None = None,
    ) -> None:
        if block_pairs < 1:
            raise ValueError(f"block_pairs must be >= 1, got {block_pairs}")
        self._compress = compress
        self._write = write
        self._dumps = dumps
        self._shape = shape
        self._most = block_pairs
        self._limit = min(block_pairs, first_pairs)
        self._offset = offset
        self._keys: list[Any] = []
        self._counts: list[int] = []
        self._values: list[Any] = []
        self.blocks: list[Block] = []
        """What is written; complete after `close`."""

    @property
    def next_pairs(self) -> int:
        """How many values the next block may have, by the sizes so far."""
        return self._limit

    def add(self, keys: Sequence[Any], counts: Sequence[int] | None, values: Sequence[Any]) -> None:
        """Append groups: *counts* says how many of *values* each key has, None: one each.

        A key may go on in the next call, or come again with equal rank.
        """
        if counts is None:
            self._add_single(keys, values)
        else:
            self._add_several(keys, counts, values)

    def close(self) -> None:
        """Write what is left."""
        if self._values:
            self._emit()

    def _add_single(self, keys: Sequence[Any], values: Sequence[Any]) -> None:
        at = 0
        while at < len(keys):
            stop = at + self._limit - len(self._values)
            self._keys += keys[at:stop]
            self._counts += [1] * (len(self._keys) - len(self._counts))
            self._values += values[at:stop]
            at = stop
            if len(self._values) >= self._limit:
                self._emit()

    def _add_several(
        self, keys: Sequence[Any], counts: Sequence[int], values: Sequence[Any]
    ) -> None:
        ends = list(accumulate(counts))
        key = taken = 0
        while key < len(keys):
            most = taken + self._limit - len(self._values)
            whole = bisect_right(ends, most, key)  # keys [key, whole) fit
            stop = ends[whole - 1] if whole > key else min(most, ends[key])
            first = ends[key] - taken if whole > key else stop - taken
            last = max(whole, key + 1)
            self._keys += keys[key:last]
            self._counts += [first, *counts[key + 1 : last]]
            self._values += values[taken:stop]
            taken, key = stop, whole
            if len(self._values) >= self._limit or whole < len(keys):
                self._emit()

    def _emit(self) -> None:
        payload = self._encoded()
        raw_bytes = len(payload)
        if self._compress is not None:
            payload = self._compress(payload)
        row = Block(
            self._offset,
            len(payload),
            raw_bytes,
            len(self._values),
            len(self._keys),
            zlib.crc32(payload),
            _short(self._shape(self._keys)),
        )
        self._write(payload)
        self.blocks.append(row)
        self._offset += row.length
        fitting = BLOCK_BYTES * row.pairs // raw_bytes
        self._limit = max(1, min(self._most, 2 * self._limit, fitting))
        self._keys, self._counts, self._values = [], [], []

    def _encoded(self) -> bytes:
        """Pickle keys, counts and values side by side: a third of the time of pairs of lists.

        Counts are None where every key has one value, as after combining.
        """
        several = len(self._keys) < len(self._values)
        content = (self._keys, self._counts if several else None, self._values)
        try:
            payload = pickle.dumps(content, protocol=5)
        except Exception:  # pickle raises whatever __reduce__ raises; the serializer may manage
            return self._dumps(content)
        # A class of __main__ pickled by name would be looked up in the reader's own __main__.
        return self._dumps(content) if b"__main__" in payload else payload


def encode_slice(
    identity: SliceIdentity,
    grouped: Iterable[Group],
    *,
    dumps: Callable[[object], bytes],
    block_pairs: int = BLOCK_PAIRS,
) -> bytes:
    """Encode the pairs of one task for one partition, in memory.

    Args:     grouped: (key, values), sorted by canonical key, no key twice; a key without values
              leaves no trace. dumps, block_pairs: as of BlockWriter.
    Returns:  the slice; `slice_of` makes its row.
    Raises:   ValueError: block_pairs < 1, or an execution that is not 16 hex digits.
              What *dumps* raises for a key or value that cannot be pickled.
    """
    payloads: list[bytes] = []
    writer = BlockWriter(payloads.append, dumps, block_pairs=block_pairs)
    for key, values in grouped:
        if values:
            writer.add([key], [len(values)], values)
    writer.close()
    return b"".join((encode_front(identity, writer.blocks), *payloads))


def slice_of(data: bytes, identity: SliceIdentity, offset: int, length: int = 0) -> Slice:
    """Return the index row of an encoded slice that lies at *offset* of its shuffle object.

    Args:  data: the slice, or its front alone. length: of the slice; 0: that of *data*.
    """
    _, checksum, _, pairs, *_ = _HEADER.unpack_from(data)
    return Slice(identity.task, identity.execution, offset, length or len(data), pairs, checksum)


def decode_slice(data: bytes, identity: SliceIdentity, row: Slice, source: str) -> Iterator[Group]:
    """Verify a whole slice, then yield its groups in order.

    A key that spans blocks is yielded once per block, its values in order.

    Args:     data: exactly the bytes that *row* names. source: for messages: the object's key.
    Raises:   CorruptObject: at the call, before anything is unpickled, if length, magic,
              identity, pair count or a checksum differ. While iterating: what unpickling the
              user's keys and values raises.
    """
    contents = decode_contents(data, identity, row, source)
    return (group for content in contents for group in _groups(*content))


def decode_contents(
    data: bytes, identity: SliceIdentity, row: Slice, source: str
) -> Iterator[Content]:
    """Verify a whole slice, then yield what its blocks hold; as `decode_slice`, but faster."""
    if len(data) != row.length:
        raise _corrupt(source, identity, f"{len(data)} bytes long, {row.length} by the index")
    if not row.length:
        return iter(())
    blocks = decode_front(data, identity, row, source)
    for block in blocks:
        _check_block(_part(data, block), block, source)
    return (_content(_part(data, block), block, source) for block in blocks)


def front_bytes(data: bytes, source: str) -> int:
    """Return the size of the front that *data*, the first bytes of a slice, begins with.

    A reader of blocks fetches that much first. The figure is verified only by `decode_front`.

    Raises:  CorruptObject: too short to tell, or not a slice.
    """
    if len(data) < _HEADER.size or data[: len(MAGIC)] != MAGIC:
        raise CorruptObject(f"{source} does not hold a slice: it begins with {data[:16]!r}")
    size: int = _HEADER.unpack_from(data)[2]
    return size


def decode_front(
    data: bytes, identity: SliceIdentity, row: Slice, source: str
) -> tuple[Block, ...]:
    """Verify the front of a slice and return its blocks.

    Args:    data: the slice, or at least its front.
    Raises:  CorruptObject: magic, checksum, identity, pair count or length differ.
    """
    size = front_bytes(data, source)
    _, stored, _, pairs, *_ = _HEADER.unpack_from(data)
    checksum = zlib.crc32(memoryview(data)[_CHECKED_FROM:size])
    if not checksum == stored == row.checksum:
        raise _corrupt(
            source, identity, f"checksum {checksum}, stored {stored}, in the index {row.checksum}"
        )
    _check_identity(data, identity, source)
    blocks = _decode_blocks(data, size)
    counted = sum(block.pairs for block in blocks)
    if not counted == pairs == row.pairs:
        raise _corrupt(source, identity, f"{counted} pairs, {row.pairs} by the index")
    end = size + sum(block.length for block in blocks)
    if end != row.length:
        raise _corrupt(source, identity, f"blocks up to byte {end}, {row.length} by the index")
    return blocks


def decode_block(data: bytes, block: Block, source: str) -> Iterator[Group]:
    """Verify one block and yield its groups in order; raises as `decode_content`."""
    return _groups(*decode_content(data, block, source))


def decode_content(data: bytes, block: Block, source: str) -> Content:
    """Verify one block and return what it holds.

    Args:    data: exactly the bytes of the block.
    Raises:  CorruptObject: length, checksum or counts differ. What unpickling the user's keys
             and values raises.
    """
    _check_block(data, block, source)
    return _content(data, block, source)


# --- group indexes ----------------------------------------------------------------------------


def encode_columns(rows: Sequence[Sequence[Slice]]) -> bytes:
    """Encode the index of a group, column by column.

    Args:    rows: rows[i][p] is the slice of the group's i-th task for partition p.
    Raises:  ValueError: rows of different lengths.
    """
    try:
        columns = list(zip(*rows, strict=True))
    except ValueError as error:
        lengths = sorted({len(row) for row in rows})
        raise ValueError(
            f"every task of a group has one slice per partition, got rows of {lengths}"
        ) from error
    return b"".join(_encode_column(column) for column in columns)


def column_span(tasks: int, partition: int) -> tuple[int, int]:
    """Return (start, length) in bytes of one partition's column: one ranged read per reducer."""
    length = tasks * ROW_BYTES + _CHECKSUM.size
    return partition * length, length


def decode_column(data: bytes, tasks: int, source: str) -> list[Slice]:
    """Return the slices of one partition, by task as encoded.

    Raises:  CorruptObject: not the column of that many tasks, or damaged.
    """
    expected = column_span(tasks, 0)[1]
    if len(data) != expected:
        raise CorruptObject(
            f"{source}: a column of {tasks} tasks has {expected} bytes, this one {len(data)}"
        )
    body, (stored,) = data[: -_CHECKSUM.size], _CHECKSUM.unpack(data[-_CHECKSUM.size :])
    checksum = zlib.crc32(body)
    if checksum != stored:
        raise CorruptObject(f"{source}: a column has checksum {checksum}, stored is {stored}")
    return [Slice.unpack(body[at : at + ROW_BYTES]) for at in range(0, len(body), ROW_BYTES)]


def _encode_column(column: Sequence[Slice]) -> bytes:
    body = b"".join(row.pack() for row in column)
    return body + _CHECKSUM.pack(zlib.crc32(body))


# --- blocks -------------------------------------------------------------------------------------


def _short(shape: str) -> str:
    return shape if len(shape.encode()) <= _SHAPE_BYTES else ""


def _block_row(block: Block) -> bytes:
    return _BLOCK.pack(
        block.length,
        block.raw_bytes,
        block.pairs,
        block.keys,
        block.checksum,
        block.shape.encode(),
    )


def _decode_blocks(data: bytes, size: int) -> tuple[Block, ...]:
    """Parse the block rows of a front of *size* bytes, which is known to be sound."""
    count = _HEADER.unpack_from(data)[7]
    table = memoryview(data)[size - count * _BLOCK.size : size]
    rows = list(_BLOCK.iter_unpack(table))
    offsets = accumulate((row[0] for row in rows), initial=size)
    return tuple(
        Block(offset, length, raw_bytes, pairs, keys, checksum, shape.rstrip(b"\0").decode())
        for offset, (length, raw_bytes, pairs, keys, checksum, shape) in zip(
            offsets, rows, strict=False
        )
    )


def _part(data: bytes, block: Block) -> memoryview:
    return memoryview(data)[block.offset : block.offset + block.length]


def _check_block(data: bytes | memoryview, block: Block, source: str) -> None:
    if len(data) != block.length:
        raise CorruptObject(
            f"{source}: the block at byte {block.offset} has {len(data)} bytes, "
            f"its front says {block.length}"
        )
    checksum = zlib.crc32(data)
    if checksum != block.checksum:
        raise CorruptObject(
            f"{source}: the block at byte {block.offset} has checksum {checksum}, "
            f"its front says {block.checksum}"
        )


def _content(data: bytes | memoryview, block: Block, source: str) -> Content:
    if data[: len(_ZSTD_FRAME)] == _ZSTD_FRAME:
        data = _decompressed(data, block, source)
    keys, counts, values = pickle.loads(data)
    if len(keys) != block.keys or len(values) != block.pairs:
        raise CorruptObject(
            f"{source}: the block at byte {block.offset} holds {len(keys)} keys and "
            f"{len(values)} pairs, its front says {block.keys} and {block.pairs}"
        )
    return keys, counts, values


def compressor() -> Callable[[bytes], bytes]:
    """Return what compresses blocks: level 1, at 450 to 900 MB/s to a half or a sixth. Level 3 is
    a fifth slower, and no smaller by more than 3 %.
    """
    import zstandard  # not for local directories, where it costs more than it saves

    return zstandard.ZstdCompressor(level=1).compress


def _decompressed(data: bytes | memoryview, block: Block, source: str) -> bytes:
    import zstandard

    try:
        raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=block.raw_bytes)
    except zstandard.ZstdError as error:
        raise CorruptObject(
            f"{source}: the block at byte {block.offset} cannot be decompressed: {error}"
        ) from error
    if len(raw) != block.raw_bytes:
        raise CorruptObject(
            f"{source}: the block at byte {block.offset} holds {len(raw)} bytes, its front says "
            f"{block.raw_bytes}"
        )
    return raw


def _groups(keys: list[Any], counts: list[int] | None, values: list[Any]) -> Iterator[Group]:
    if counts is None:
        yield from zip(keys, ([value] for value in values), strict=True)
        return
    ends = accumulate(counts)
    for key, count, end in zip(keys, counts, ends, strict=True):
        yield key, values[end - count : end]


# --- fronts ---------------------------------------------------------------------------------------


def encode_front(identity: SliceIdentity, blocks: Sequence[Block]) -> bytes:
    """Return what stands in front of the blocks of a slice, whose offsets do not matter."""
    job, stage = identity.job.encode(), identity.stage.encode()
    rows = list(map(_block_row, blocks))
    pairs = sum(block.pairs for block in blocks)
    size = _HEADER.size + len(job) + len(stage) + len(rows) * _BLOCK.size
    header = _HEADER.pack(
        MAGIC,
        0,
        size,
        pairs,
        identity.task,
        identity.partition,
        _execution_bytes(identity.execution),
        len(rows),
        len(job),
        len(stage),
    )
    checked = b"".join((header[_CHECKED_FROM:], job, stage, *rows))
    return MAGIC + _CHECKSUM.pack(zlib.crc32(checked)) + checked


def _check_identity(data: bytes, identity: SliceIdentity, source: str) -> None:
    *_, task, partition, execution, _, job_bytes, stage_bytes = _HEADER.unpack_from(data)
    middle, end = _HEADER.size + job_bytes, _HEADER.size + job_bytes + stage_bytes
    job, stage = data[_HEADER.size : middle].decode(), data[middle:end].decode()
    found = SliceIdentity(job, stage, task, execution.hex(), partition)
    if found != identity:
        raise _corrupt(source, identity, f"the slice of {found}")


def _execution_bytes(execution: str) -> bytes:
    data = bytes.fromhex(execution)
    if len(data) != _EXECUTION_BYTES:
        raise ValueError(f"an execution is 16 hex digits, got {execution!r}")
    return data


def _corrupt(source: str, identity: SliceIdentity, found: str) -> CorruptObject:
    return CorruptObject(
        f"{source}: the slice of task {identity.task} ({identity.execution}) for partition "
        f"{identity.partition} is {found}"
    )
