"""Whole objects as files: what they hold is read when it is asked for."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambdamr_runtime.blocks import BLOCK_BYTES, Content, read_range
from lambdamr_runtime.compression import INFER, compression_of
from lambdamr_runtime.limits import MIB
from lambdamr_runtime.records import Batch, RecordStream, check_reading
from lambdamr_runtime.splits import Split
from lambdamr_runtime.store import Ranges

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_BYTES = 1 * MIB
"""Bytes that a file reads at least, but at its end; larger reads go to the store as they are."""


class InputFile(io.BufferedReader):
    """An object, opened for reading bytes: seekable, closed when the mapper has returned.

    `name` is its URI. Attributes and methods are those of open(path, "rb").
    """

    def __init__(self, raw: "_SeekableRaw") -> None:
        super().__init__(raw, BUFFER_BYTES)
        self.uri = raw.name
        """Of the object: s3://bucket/key or an absolute path."""


class _SeekableRaw(io.RawIOBase):
    """A position that reads and seeks; what lies there is the subclasses'."""

    mode = "rb"

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence)
        if base is None:
            if whence != io.SEEK_END:
                raise ValueError(f"whence must be 0, 1 or 2, got {whence}")
            base = self._size()
        if base + offset < 0:
            raise OSError(22, f"position {base + offset} lies before the beginning of {self.name}")
        self._at = base + offset
        return self._at

    def _size(self) -> int:
        raise NotImplementedError


class _RangedRaw(_SeekableRaw):
    """The bytes of an object: one ranged read per call."""

    def __init__(self, split: Split, store: Ranges) -> None:
        super().__init__(split.uri)
        self._split = split
        self._store = store

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")
        length = min(len(view), self._split.size - self._at)
        if length <= 0:
            return 0
        view[:length] = read_range(self._split, self._store, self._at, length)
        self._at += length
        return length

    def _size(self) -> int:
        return self._split.size


class _DecompressedRaw(_SeekableRaw):
    """What a compressed object holds. To seek back is to decompress it again from its start."""

    def __init__(self, split: Split, store: Ranges, compression: str) -> None:
        super().__init__(split.uri)
        self._source = (split, store, BLOCK_BYTES, compression)
        self._blocks = Content(*self._source).blocks()
        self._block_at = 0
        self._block = b""

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")
        if not len(view) or not self._reach(self._at):
            return 0
        start = self._at - self._block_at
        found = self._block[start : start + len(view)]
        view[: len(found)] = found
        self._at += len(found)
        return len(found)

    def _reach(self, position: int) -> bool:
        """Hold the block of a position; False if it lies behind the end."""
        if position < self._block_at:
            self._blocks = Content(*self._source).blocks()
            self._block_at, self._block = 0, b""
        while position >= self._block_at + len(self._block):
            following = next(self._blocks, None)
            if following is None:
                self._block_at, self._block = self._block_at + len(self._block), b""
                return False
            self._block_at, self._block = following
        return True

    def _size(self) -> int:
        at = self._block_at + len(self._block)
        while self._reach(at):
            at = self._block_at + len(self._block)
        return self._block_at

    def close(self) -> None:
        self._blocks = iter(())
        self._block = b""
        super().close()


@dataclass(frozen=True, slots=True)
class Objects:
    """One record per object, empty ones too: an InputFile.

    The account counts an object's bytes as read when it is handed over, whatever the mapper reads.
    """

    compression: str | None = INFER
    """A compressed object is a file of what it holds; None leaves it as it is."""

    def __post_init__(self) -> None:
        check_reading(BLOCK_BYTES, self.compression)

    @property
    def splittable(self) -> bool:
        return False

    @property
    def reads_empty(self) -> bool:
        return True

    def read(self, split: Split, store: Ranges) -> RecordStream:
        """Return the object as a file; reading it raises as Lines.read.

        Raises:  ValueError: the split is a part of an object.
        """
        Content(split, store, BLOCK_BYTES, None).check_whole("An object")
        return RecordStream(self._files(split, store))

    def _files(self, split: Split, store: Ranges) -> Iterator[Batch]:
        name = compression_of(split.key, self.compression)
        raw = _DecompressedRaw(split, store, name) if name else _RangedRaw(split, store)
        with InputFile(raw) as file:
            yield Batch([file], split.size)
