"""What a client packs for the workers of a job: functions with their modules, arguments by chunk.

Bytes alone: what is in them is the serializer's.
"""

import struct
from collections.abc import Sequence
from zlib import crc32

from lambdamr_runtime.errors import CorruptObject
from lambdamr_runtime.frozen import frozen

MAX_ARGS_BYTES = 2**62
"""More than any packed arguments: what an index that is damaged may say."""


@frozen
class FunctionObject:
    """What `functions/{sha}` holds: pickled work and the modules shipped with it."""

    archive: bytes
    """A zip of the user's own modules; empty if there are none."""
    pickled: bytes

    def encode(self) -> bytes:
        return _OFFSET.pack(len(self.archive)) + self.archive + self.pickled

    @classmethod
    def decode(cls, data: bytes, source: str) -> "FunctionObject":
        """Parse a function object.

        Raises:  CorruptObject: it is shorter than it says.
        """
        size = _OFFSET.unpack_from(data)[0] if len(data) >= _OFFSET.size else len(data)
        end = _OFFSET.size + size
        if end >= len(data):
            raise CorruptObject(f"{source} is not a function object")
        return cls(data[_OFFSET.size : end], data[end:])


_OFFSET = struct.Struct("<Q")

_ARGS_ROW = struct.Struct("<QI")
"""End offset and checksum of a chunk's arguments."""


def pack_args(chunks: Sequence[bytes]) -> bytes:
    """Pack the arguments of all chunks: an index of end offsets and checksums, then the bytes.

    Offsets count from the first byte behind the index.
    """
    rows: list[bytes] = []
    total = 0
    for data in chunks:
        total += len(data)
        rows.append(_ARGS_ROW.pack(total, crc32(data)))
    return b"".join((*rows, *chunks))


def args_index_bytes(chunks: int) -> int:
    """Return the size of the index that begins packed arguments."""
    return chunks * _ARGS_ROW.size


def args_span(index: bytes, chunk: int, chunks: int) -> tuple[int, int]:
    """Return (start, length) of one chunk's arguments in the packed object.

    Raises:  CorruptObject: *index* is none of that many chunks.
    """
    base = args_index_bytes(chunks)
    if len(index) < base:
        raise CorruptObject(f"the index of {chunks} chunks' arguments has {len(index)} bytes")
    start = _ARGS_ROW.unpack_from(index, (chunk - 1) * _ARGS_ROW.size)[0] if chunk else 0
    end = _ARGS_ROW.unpack_from(index, chunk * _ARGS_ROW.size)[0]
    if not start <= end < MAX_ARGS_BYTES:
        raise CorruptObject(f"the index of arguments has chunk {chunk} at bytes {start} to {end}")
    return base + start, end - start


def checked_args(index: bytes, chunk: int, data: bytes, source: str) -> bytes:
    """Return the arguments of a chunk, which are those that were packed.

    Raises:  CorruptObject: they are not.
    """
    if crc32(data) != _ARGS_ROW.unpack_from(index, chunk * _ARGS_ROW.size)[1]:
        raise CorruptObject(
            f"{source}: the arguments of chunk {chunk} are damaged: the checksum of their "
            f"{len(data)} bytes differs"
        )
    return data
