"""The bytes between map and reduce: slices of shuffle objects, and the index that finds them.

    shuffle object = the slices of one map task, back to back, partition by partition
    slice          = front · block · block · …          sorted by canonical key
    front          = fixed header · job · stage · one row per block
    block          = see content.py
    group index    = column · column · …                one per partition
    column         = one Slice row per task of the group · checksum

A chain of checksums covers every byte once: the index has that of the front, the front those of
the blocks. So a reader that holds a front can verify and merge block by block, and one that
holds the whole slice verifies all of it before it unpickles anything.

Pure functions, bytes in and bytes out; offsets of an index count from its first byte, behind any
stamp.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from lambdamr_runtime.content import (
    BLOCK_PAIRS,
    BLOCK_ROW_BYTES,
    Block,
    BlockWriter,
    Content,
    Group,
    block_row,
    check_block,
    content_of,
    decode_rows,
    groups_of,
)
from lambdamr_runtime.errors import CorruptObject

MAGIC = b"LMR1"


_SLICE = struct.Struct("<I8sQQQI")
_HEADER = struct.Struct("<4sIIQII8sIHH")
"""magic, checksum, front bytes, pairs, task, partition, execution, blocks, job and stage bytes."""
_CHECKED_FROM = 8
"""The checksum of a front covers what follows it."""


_CHECKSUM = struct.Struct("<I")
_EXECUTION_BYTES = 8

ROW_BYTES = _SLICE.size
"""A Slice in an index."""

NO_EXECUTION = "0" * 16
"""The execution in the row of a task that failed for good."""


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


def missing_slice(task: int, execution: str = NO_EXECUTION) -> Slice:
    """Return the row of a task that has nothing for a partition."""
    return Slice(task, execution, 0, 0, 0, 0)


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
    return (group for content in contents for group in groups_of(*content))


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
        check_block(_part(data, block), block, source)
    return (content_of(_part(data, block), block, source) for block in blocks)


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
    count = _HEADER.unpack_from(data)[7]
    blocks = decode_rows(memoryview(data)[size - count * BLOCK_ROW_BYTES : size], size)
    counted = sum(block.pairs for block in blocks)
    if not counted == pairs == row.pairs:
        raise _corrupt(source, identity, f"{counted} pairs, {row.pairs} by the index")
    end = size + sum(block.length for block in blocks)
    if end != row.length:
        raise _corrupt(source, identity, f"blocks up to byte {end}, {row.length} by the index")
    return blocks


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


def _part(data: bytes, block: Block) -> memoryview:
    return memoryview(data)[block.offset : block.offset + block.length]


# --- fronts ---------------------------------------------------------------------------------------


def encode_front(identity: SliceIdentity, blocks: Sequence[Block]) -> bytes:
    """Return what stands in front of the blocks of a slice, whose offsets do not matter."""
    job, stage = identity.job.encode(), identity.stage.encode()
    rows = list(map(block_row, blocks))
    pairs = sum(block.pairs for block in blocks)
    size = _HEADER.size + len(job) + len(stage) + len(rows) * BLOCK_ROW_BYTES
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
