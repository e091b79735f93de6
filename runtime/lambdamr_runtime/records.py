r"""Records of a split: how the bytes of an object become what a mapper gets.

    object   |aaaa\nbb\nccccccccccccccc\ndd\n|
    splits   |   0    |   1    |   2    |  3 |      split i covers [lo, hi)
    owned    |aaaa\nbb\nccccccccccccccc\n|    |      records that BEGIN in [lo, hi)

The owned records of a split are one run of bytes, from the first record start at or behind lo to
the first one at or behind hi. So the runs of all splits are the object, each byte once: the sum
of `RecordStream.owned_bytes` over the splits is the object's size.

Here are lines, blocks of lines and fixed-size records; tables.py has CSV, jsonl.py JSON,
files.py whole objects. A compressed object is one split, and its account is kept in compressed
bytes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from lambdamr_runtime.blocks import BATCH_BYTES, BLOCK_BYTES, Content
from lambdamr_runtime.compression import INFER, check_compression
from lambdamr_runtime.errors import CorruptInput
from lambdamr_runtime.splits import Split
from lambdamr_runtime.store import Ranges
from lambdamr_runtime.texts import (
    SPLITTABLE_ENCODINGS,
    bytes_lines,
    check_error_handler,
    check_on_bad_record,
    encoding_name,
    line_by_line,
    line_text,
    raise_undecodable,
    text_lines,
    text_of,
    whole_texts,
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some records in a row."""

    records: list[Any]  # Any: what the reader makes; lines are str or bytes
    raw_bytes: int
    """Bytes that they took in the object, terminators, BOM and skipped records included; of a
    compressed object the content says it."""
    bad: int = 0
    """Records among them that were skipped because they could not be read."""


class RecordStream:
    """The records of one split, to be read once, and the account of what was read.

    Once exhausted, `owned_bytes` is the size of the split's records in the object and `records`
    their number; before, both count the batches that were begun. `bad_records` were skipped.
    """

    __slots__ = ("_batches", "_content", "bad_records", "owned_bytes", "records")

    def __init__(self, batches: Iterator[Batch], content: Content | None = None) -> None:
        self._batches = batches
        self._content = content
        self.owned_bytes = 0
        self.records = 0
        self.bad_records = 0

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self.batches())

    def batches(self) -> Iterator[list[Any]]:
        """Yield the records in lists, none empty: the fastest way to read them."""
        for batch in self._batches:
            self.owned_bytes += batch.raw_bytes
            self._count_compressed()
            self.records += len(batch.records)
            self.bad_records += batch.bad
            if batch.records:
                yield batch.records
        self._count_compressed()

    def _count_compressed(self) -> None:
        taken = None if self._content is None else self._content.taken_bytes
        if taken is not None:
            self.owned_bytes = taken


class Reader(Protocol):
    """How the bytes of a split become records; a frozen dataclass that travels to the worker."""

    @property
    def splittable(self) -> bool:
        """Whether a split may be less than its object, if that is not compressed."""

    @property
    def compression(self) -> str | None:
        """As of compression.compression_of."""

    @property
    def reads_empty(self) -> bool:
        """Whether an empty object has a record, and so needs a split."""

    def read(self, split: Split, store: Ranges) -> RecordStream: ...


@dataclass(frozen=True, slots=True)
class Lines:
    r"""Lines of text. A line ends at `\n` (one `\r` before it is dropped) and nowhere else.

    A newline at the end of the object ends its last line and begins no further one. A BOM at
    offset 0 is dropped from text; lines of bytes are left as they are.

    Raises:  ValueError: Python knows no such encoding or error handler, or block_bytes < 1.
    """

    encoding: str | None = "utf-8"
    """Any text encoding of Python, kept by codecs.lookup's name; None gives lines of bytes."""
    errors: str = "strict"
    """As of bytes.decode; a line that does not decode strictly is handled by itself."""
    block_bytes: int = BLOCK_BYTES
    """Bytes of one ranged read."""
    compression: str | None = INFER
    on_bad_record: str = "raise"
    """Or "skip": a line that cannot be decoded is left out and counted."""

    def __post_init__(self) -> None:
        check_reading(self.block_bytes, self.compression)
        if self.encoding is not None:
            object.__setattr__(self, "encoding", encoding_name(self.encoding))
            check_error_handler(self.errors)
        check_on_bad_record(self.on_bad_record, self.encoding)

    @property
    def splittable(self) -> bool:
        return self.encoding is None or self.encoding in SPLITTABLE_ENCODINGS

    @property
    def reads_empty(self) -> bool:
        return False

    def read(self, split: Split, store: Ranges) -> RecordStream:
        """Return the lines that the split owns: str, or bytes where encoding is None.

        Raises:  ValueError: the split is not its whole object and the encoding or the compression
                 needs that. While reading, CorruptInput: bytes that the encoding does not have,
                 or that cannot be decompressed. InputChanged: the object is not the one that was
                 planned.
        """
        content = Content(split, store, self.block_bytes, self.compression)
        if self.splittable:
            runs = content.line_runs()
            return RecordStream((self._batch(run, at, content) for at, run in runs), content)
        content.check_whole(f"{self.encoding} text")
        texts = whole_texts(content, self.encoding or "", self.errors)
        return RecordStream(
            (Batch(text_lines(text) if text else [], size) for text, size in texts), content
        )

    def _batch(self, run: bytes, at: int, content: Content) -> Batch:
        """Return the lines of *run*, whole lines that begin at offset *at*."""
        if self.encoding is None:
            return Batch(bytes_lines(run), len(run))
        encoding, errors, skip = self.encoding, self.errors, self.on_bad_record == "skip"
        try:
            text = text_of(run, at, encoding)
        except UnicodeDecodeError as error:
            if errors == "strict" and not skip:
                raise_undecodable(content, encoding, error, at)
            lines, bad = line_by_line(
                run, at, lambda raw, at: [line_text(raw, at, encoding, errors, content)], skip
            )
            return Batch(lines, len(run), bad)
        return Batch(text_lines(text) if text else [], len(run))


@dataclass(frozen=True, slots=True)
class LineBlocks:
    r"""Blocks of bytes that hold whole lines, for mappers that work on many lines at once.

    Each block ends with a `\n`, but for the last of an object that does not end with one. A BOM
    is left where it is.
    """

    block_bytes: int = BLOCK_BYTES
    """Bytes of a record, about: longer by the rest of a line, shorter at a split's end, and where a
    split of a local file is cut evenly."""
    compression: str | None = INFER

    def __post_init__(self) -> None:
        check_reading(self.block_bytes, self.compression)

    @property
    def splittable(self) -> bool:
        return True

    @property
    def reads_empty(self) -> bool:
        return False

    def read(self, split: Split, store: Ranges) -> RecordStream:
        """Return the blocks of the lines that the split owns; raises as Lines.read."""
        content = Content(split, store, self.block_bytes, self.compression)
        blocks = content.line_blocks()
        return RecordStream((Batch([block], len(block)) for _, block in blocks), content)


@dataclass(frozen=True, slots=True)
class FixedRecords:
    """Records of a fixed number of bytes, one behind the other."""

    record_bytes: int
    block_bytes: int = BLOCK_BYTES
    compression: str | None = INFER
    on_bad_record: str = "raise"
    """Or "skip": bytes at the end that are no whole record are left out and counted as one."""

    def __post_init__(self) -> None:
        if self.record_bytes < 1:
            raise ValueError(f"record_bytes must be >= 1, got {self.record_bytes}")
        check_reading(self.block_bytes, self.compression)
        check_on_bad_record(self.on_bad_record, None)

    @property
    def splittable(self) -> bool:
        return True

    @property
    def reads_empty(self) -> bool:
        return False

    def read(self, split: Split, store: Ranges) -> RecordStream:
        """Return the records that begin in the split, as bytes.

        Raises:  as Lines.read; CorruptInput: bytes at the end that are no whole record.
        """
        content = Content(split, store, self.block_bytes, self.compression)
        if content.taken_bytes is not None:
            return RecordStream(self._batches(content, content.blocks()), content)
        start, stop = self._next_start(split.lo), min(self._next_start(split.hi), split.size)
        return RecordStream(self._batches(content, content.ranges(start, stop)))

    def _next_start(self, offset: int) -> int:
        return -(-offset // self.record_bytes) * self.record_bytes

    def _batches(
        self, content: Content, blocks: Iterator[tuple[int, bytes | memoryview]]
    ) -> Iterator[Batch]:
        width = self.record_bytes
        step = max(1, BATCH_BYTES // width) * width
        held: list[bytes | memoryview] = []
        held_bytes = end = 0
        for at, block in blocks:
            end = at + len(block)
            held.append(block)
            held_bytes += len(block)
            if held_bytes < width:
                continue
            run = b"".join(held)
            whole = len(run) // width * width
            for lo in range(0, whole, step):
                hi = min(lo + step, whole)
                yield Batch([run[i : i + width] for i in range(lo, hi, width)], hi - lo)
            held, held_bytes = [run[whole:]], len(run) - whole
        if held_bytes:
            yield self._ragged(content, end - held_bytes, held_bytes)

    def _ragged(self, content: Content, at: int, found: int) -> Batch:
        if self.on_bad_record == "raise":
            raise CorruptInput(
                f"{content.uri} ends with {found} bytes at {content.place(at)}, which are no whole "
                f"record of {self.record_bytes}. Check record_bytes=, or give "
                "on_bad_record='skip' to leave them out."
            )
        return Batch([], found, bad=1)


def check_reading(block_bytes: int, compression: str | None) -> None:
    """Raise ValueError for what no reader can be made with."""
    if block_bytes < 1:
        raise ValueError(f"block_bytes must be >= 1, got {block_bytes}")
    check_compression(compression)
