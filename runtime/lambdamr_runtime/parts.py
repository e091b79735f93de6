"""Output parts: lists of pairs, pickled, back to back; a table of their lengths and checksums."""

import io
import pickle
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from lambdamr_runtime.errors import CorruptObject, ResultNotSerializable
from lambdamr_runtime.formats import Format
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.limits import KIB
from lambdamr_runtime.outputs import PartFile, Written
from lambdamr_runtime.pairs import Pair
from lambdamr_runtime.serialize import load_value
from lambdamr_runtime.stopwatch import Stopwatch
from lambdamr_runtime.store import PART_BYTES, Store
from lambdamr_runtime.work import TaskEnv

PART_PAIRS = 10_000
"""Most pairs in one block of an output part."""

FIRST_PART_PAIRS = 64
"""Pairs of the first block of a part, whose size says how many the next ones may have."""

PART_BLOCK_BYTES = 256 * KIB
"""Blocks of a part are cut so that they come to at most about so many bytes."""

_PART_BLOCK = struct.Struct("<QI")
"""A row of the table of a part's blocks: length and checksum."""


class Part:
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
        yield load_value(bytes(block))
