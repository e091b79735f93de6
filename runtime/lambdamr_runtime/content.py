"""The blocks of a shuffle: how sorted groups are cut into them, and what one holds.

    block = pickle of (keys, counts, values)   at most `block_pairs` values; or that as one frame
                                               of zstd, which says so itself

A key whose values do not fit in one block goes on in the next one.
"""

import pickle
import struct
import zlib
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from lambdamr_runtime.canonical import natural_shape
from lambdamr_runtime.errors import CorruptObject

BLOCK_PAIRS = 4096
"""Values per block unless told: blocks of small pairs come to some 50 KiB, and a merge of
hundreds of slices holds one block of each."""

BLOCK_BYTES = 128 * 1024
"""Blocks are cut so that they come to at most about so many bytes."""

FIRST_BLOCK_PAIRS = 4
"""Values of the first block, whose size says how many the next ones may have: a megabyte each, or
twenty bytes. A task's later runs begin with what its earlier ones have learnt."""

_BLOCK = struct.Struct("<QQIII16s")
"""Length, raw bytes, pairs, keys, checksum, shape."""

BLOCK_ROW_BYTES = _BLOCK.size
_SHAPE_BYTES = 16
"""Longest shape that a block row holds; keys of longer ones are compared by `canonical`."""
_ZSTD_FRAME = b"\x28\xb5\x2f\xfd"
"""What a compressed block begins with; a pickle begins with b"\\x80"."""


Group = tuple[Any, list[Any]]
"""A key and its values, in (task, position) order. Any: the user's own types."""

Content = tuple[list[Any], list[int] | None, list[Any]]
"""What a block holds: keys, how many values each has (None: one), and all values in order."""


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


def decode_block(data: bytes, block: Block, source: str) -> Iterator[Group]:
    """Verify one block and yield its groups in order; raises as `decode_content`."""
    return groups_of(*decode_content(data, block, source))


def decode_content(data: bytes, block: Block, source: str) -> Content:
    """Verify one block and return what it holds.

    Args:    data: exactly the bytes of the block.
    Raises:  CorruptObject: length, checksum or counts differ. What unpickling the user's keys
             and values raises.
    """
    check_block(data, block, source)
    return content_of(data, block, source)


def _short(shape: str) -> str:
    return shape if len(shape.encode()) <= _SHAPE_BYTES else ""


def block_row(block: Block) -> bytes:
    """Return the BLOCK_ROW_BYTES of a front's row."""
    return _BLOCK.pack(
        block.length,
        block.raw_bytes,
        block.pairs,
        block.keys,
        block.checksum,
        block.shape.encode(),
    )


def decode_rows(table: bytes | memoryview, first: int) -> tuple[Block, ...]:
    """Parse the rows of blocks that lie back to back from offset *first* on."""
    rows = list(_BLOCK.iter_unpack(table))
    offsets = accumulate((row[0] for row in rows), initial=first)
    return tuple(
        Block(offset, length, raw_bytes, pairs, keys, checksum, shape.rstrip(b"\0").decode())
        for offset, (length, raw_bytes, pairs, keys, checksum, shape) in zip(
            offsets, rows, strict=False
        )
    )


def check_block(data: bytes | memoryview, block: Block, source: str) -> None:
    """Raise CorruptObject where the length or the checksum of a block differ."""
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


def content_of(data: bytes | memoryview, block: Block, source: str) -> Content:
    """Return what a block holds that is known to be sound; raises as `decode_content`."""
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


def groups_of(keys: list[Any], counts: list[int] | None, values: list[Any]) -> Iterator[Group]:
    """Yield the groups of what a block holds."""
    if counts is None:
        yield from zip(keys, ([value] for value in values), strict=True)
        return
    ends = accumulate(counts)
    for key, count, end in zip(keys, counts, ends, strict=True):
        yield key, values[end - count : end]
