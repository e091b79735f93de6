r"""Records of a split: text lines, read in blocks of an object.

    object   |aaaa\nbb\nccccccccccccccc\ndd\n|
    splits   |   0    |   1    |   2    |  3 |      split i covers [lo, hi)
    owned    |aaaa\nbb\nccccccccccccccc\n|    |      records that BEGIN in [lo, hi)

The owned records of a split are one run of bytes, from the first record start at or behind lo to
the first one at or behind hi. So the runs of all splits are the object, each byte once: the sum
of `RecordStream.owned_bytes` over the splits is the object's size.

    store ─ _blocks ─▶ _from_first_start ─▶ _until_last_end ─▶ _whole_lines ─ decode, split ─▶ Batch
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn, Protocol

from lambdamr_runtime.errors import CorruptInput, InputChanged
from lambdamr_runtime.limits import KIB, MIB
from lambdamr_runtime.store import Store

BLOCK_BYTES = 4 * MIB
"""Bytes of one ranged read."""

BATCH_BYTES = 64 * KIB
"""A block is decoded in pieces of about so many bytes: a piece, its text and its lines stay in the
processor's cache, and a task never holds the lines of a whole block. Measured per line of 50
bytes: 0.045 us at 64 and 256 KiB, 0.088 us at 4 MiB; with 6-byte lines 64 KiB is 20 % ahead."""

LOOK_AHEAD_BYTES = 64 * KIB
"""The read that reaches a split's end goes on so far, which saves most splits a second one; at
most LOOK_AHEAD_SHARE of the split, so that small splits do not read each other's bytes."""

LOOK_AHEAD_SHARE = 1 / 16

SHOWN_BYTES = 16
"""Undecodable bytes that a message shows."""

_SPLITTABLE_NAMES = """
    utf-8 ascii cp932 cp949 cp950 gb2312 gbk gb18030 big5 big5hkscs euc_jp euc_jis_2004
    euc_jisx0213 euc_kr shift_jis shift_jis_2004 shift_jisx0213
    iso8859-1 iso8859-2 iso8859-3 iso8859-4 iso8859-5 iso8859-6 iso8859-7 iso8859-8 iso8859-9
    iso8859-10 iso8859-11 iso8859-13 iso8859-14 iso8859-15 iso8859-16
    cp437 cp737 cp775 cp850 cp852 cp855 cp857 cp858 cp860 cp861 cp862 cp863 cp865 cp866 cp869
    cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 koi8-r koi8-t koi8-u
    kz1048 ptcp154 tis-620 hp-roman8 mac-cyrillic mac-greek mac-iceland mac-latin2 mac-roman
    mac-turkish
"""

SPLITTABLE_ENCODINGS = frozenset(_SPLITTABLE_NAMES.split())
r"""Encodings whose `\n` is the byte 0x0A and whose other characters never hold it, by the names
that codecs.lookup gives. Each is tested; others are read whole."""

_OWN_BOM = frozenset({"utf-16", "utf-32"})
"""Codecs that consume the BOM themselves: what follows it is text."""

_BOM = "\ufeff"


Block = tuple[int, bytes]
"""Bytes of an object behind the offset of the first of them."""


@dataclass(frozen=True, slots=True)
class Split:
    """A byte range of one object: it owns the records that begin in [lo, hi)."""

    root: str
    """Root of the object's store: a directory or s3://bucket."""
    key: str
    lo: int
    hi: int
    """Bytes, half-open, lo < hi <= size."""
    size: int
    """Bytes of the object."""
    etag: str
    """Of the object that was planned; empty where the store has none."""

    @property
    def uri(self) -> str:
        return f"{self.root.rstrip('/')}/{self.key}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Some records in a row."""

    records: list[Any]  # Any: what the reader makes; lines are str or bytes
    raw_bytes: int
    """Bytes that they took in the object, terminators and BOM included."""


class RecordStream:
    """The records of one split, to be read once, and the account of what was read.

    Once exhausted, `owned_bytes` is the size of the split's records in the object and `records`
    their number; before, both count the batches that were begun.
    """

    __slots__ = ("_batches", "owned_bytes", "records")

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self.owned_bytes = 0
        self.records = 0

    def __iter__(self) -> Iterator[Any]:
        return chain.from_iterable(self.batches())

    def batches(self) -> Iterator[list[Any]]:
        """Yield the records in lists, none empty: the fastest way to read them."""
        for batch in self._batches:
            self.owned_bytes += batch.raw_bytes
            self.records += len(batch.records)
            if batch.records:
                yield batch.records


class Reader(Protocol):
    """How the bytes of a split become records; a frozen dataclass that travels to the worker."""

    @property
    def splittable(self) -> bool:
        """Whether a split may be less than its object."""

    def read(self, split: Split, store: Store) -> RecordStream: ...


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

    def __post_init__(self) -> None:
        if self.block_bytes < 1:
            raise ValueError(f"block_bytes must be >= 1, got {self.block_bytes}")
        if self.encoding is not None:
            object.__setattr__(self, "encoding", _encoding_name(self.encoding))
            _check_error_handler(self.errors)

    @property
    def splittable(self) -> bool:
        return self.encoding is None or self.encoding in SPLITTABLE_ENCODINGS

    def read(self, split: Split, store: Store) -> RecordStream:
        """Return the lines that the split owns: str, or bytes where encoding is None.

        Raises:  ValueError: the split is not its whole object and the encoding needs that.
                 While reading, CorruptInput: bytes that the encoding does not have.
                 InputChanged: the object is not the one that was planned.
        """
        blocks = _blocks(split, store, self.block_bytes)
        if self.splittable:
            return RecordStream(self._split_batches(split, blocks))
        if split.hi - split.lo != split.size:
            raise ValueError(
                f"{self.encoding} text cannot be cut at a byte: {split.uri} of {split.size} bytes "
                f"needs one split, got [{split.lo}, {split.hi}). Plan with plan_splits(..., None)."
            )
        return RecordStream(self._whole_batches(split, blocks))

    def _split_batches(self, split: Split, blocks: Iterator[Block]) -> Iterator[Batch]:
        owned = _until_last_end(split, _from_first_start(split, blocks))
        for at, run in _whole_lines(owned):
            yield Batch(self._lines_of(run, at, split), len(run))

    def _lines_of(self, run: bytes, at: int, split: Split) -> list[Any]:
        """Return the lines of *run*, whole lines that begin at offset *at*.

        Text that decodes strictly is the same under every error handler. Other text is decoded
        line by line: codecs report a character that its line's end cuts off in one way at the end
        of the bytes and in another before it, and lines must not depend on where a run ends.
        """
        if self.encoding is None:
            return _bytes_lines(run)
        try:
            text = run.decode(self.encoding)
        except UnicodeDecodeError as error:
            if self.errors == "strict":
                _raise_corrupt(split, self.encoding, error, at)
            return list(self._broken_lines(run, at, split))
        if at == 0 and text.startswith(_BOM):
            text = text[1:]
            return _text_lines(text) if text else []
        return _text_lines(text)

    def _broken_lines(self, run: bytes, at: int, split: Split) -> Iterator[str]:
        """Yield the lines of a run that does not decode strictly, each decoded by itself."""
        encoding = self.encoding or ""
        for raw in _raw_lines(run):
            try:
                line = _bytes_lines(raw)[0].decode(encoding, self.errors)
            except UnicodeDecodeError as error:
                _raise_corrupt(split, encoding, error, at)
            yield line.removeprefix(_BOM) if at == 0 else line
            at += len(raw)

    def _whole_batches(self, split: Split, blocks: Iterator[Block]) -> Iterator[Batch]:
        """Yield the lines of an object whose encoding hides the newlines from a byte search."""
        held: list[str] = []
        for text, raw_bytes in self._decoded(split, blocks):
            cut = text.rfind("\n") + 1
            if not cut:
                held.append(text)
                yield Batch([], raw_bytes)
                continue
            held.append(text[:cut])
            lines = _text_lines("".join(held))
            held = [text[cut:]]
            yield Batch(lines, raw_bytes)
        last = "".join(held)
        yield Batch([last] if last else [], 0)

    def _decoded(self, split: Split, blocks: Iterator[Block]) -> Iterator[tuple[str, int]]:
        """Yield (text, bytes that were read for it), the BOM dropped."""
        encoding = self.encoding or ""
        decode = codecs.getincrementaldecoder(encoding)(self.errors).decode
        bom_expected = encoding not in _OWN_BOM
        for at, block in chain(blocks, ((split.size, b""),)):
            try:
                text = decode(block, not block)
            except UnicodeDecodeError as error:
                _raise_corrupt(split, encoding, error, at + len(block) - len(error.object))
            if bom_expected and text:
                bom_expected = False
                text = text.removeprefix(_BOM)
            yield text, len(block)


def _encoding_name(encoding: str) -> str:
    """Return the name codecs.lookup gives; utf-8-sig is utf-8, whose BOM is dropped anyway."""
    try:
        name = codecs.lookup(encoding).name
        b"a".decode(name, "ignore")
    except UnicodeError:
        pass
    except LookupError as error:
        raise ValueError(
            f"encoding={encoding!r} is no text encoding of Python: {error}. Give one of "
            "https://docs.python.org/3/library/codecs.html, or None for bytes."
        ) from error
    return "utf-8" if name == "utf-8-sig" else name


def _check_error_handler(errors: str) -> None:
    try:
        codecs.lookup_error(errors)
    except LookupError as error:
        raise ValueError(
            f"errors={errors!r} is no error handler. Give 'strict', 'replace', 'ignore', "
            "'backslashreplace', 'surrogateescape' or one that codecs.register_error knows."
        ) from error


def _raise_corrupt(split: Split, encoding: str, error: UnicodeDecodeError, base: int) -> NoReturn:
    """Raise CorruptInput; *base* is the offset in the object of the first byte that was given."""
    bad = error.object[error.start : max(error.end, error.start + 1)][:SHOWN_BYTES]
    raise CorruptInput(
        f"{split.uri} is not {encoding} text: bytes {bad!r} at offset {base + error.start} "
        f"({error.reason}). Give the right encoding=, or errors='replace'."
    ) from error


def _text_lines(text: str) -> list[str]:
    """Return the lines of non-empty text; never str.splitlines, which ends lines elsewhere too."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    if text.endswith("\n"):
        lines.pop()
    return lines


def _bytes_lines(run: bytes) -> list[bytes]:
    if b"\r" in run:
        run = run.replace(b"\r\n", b"\n")
    lines = run.split(b"\n")
    if run.endswith(b"\n"):
        lines.pop()
    return lines


def _raw_lines(run: bytes) -> Iterator[bytes]:
    """Yield the lines of a run with their terminators."""
    start = 0
    while start < len(run):
        end = run.find(b"\n", start) + 1 or len(run)
        yield run[start:end]
        start = end


def _blocks(split: Split, store: Store, block_bytes: int) -> Iterator[Block]:
    """Yield the object's bytes from lo - 1 (from 0 in the first split) to its end.

    Each block is one ranged read, made when it is asked for: who has seen enough stops asking.

    Raises:  InputChanged: the object is gone, shorter or another one.
    """
    at = max(split.lo - 1, 0)
    for length in _block_lengths(split, at, block_bytes):
        yield at, _read(split, store, at, length)
        at += length


def _block_lengths(split: Split, at: int, block_bytes: int) -> Iterator[int]:
    """Yield the lengths of the reads that cover [at, size): to hi and a little on, then the tail.

    The tail's reads begin small, for a line's rest, and double, for a line longer than that.
    """
    look_ahead = min(LOOK_AHEAD_BYTES, int((split.hi - split.lo) * LOOK_AHEAD_SHARE))
    near = min(split.hi + look_ahead, split.size)
    while at < near:
        length = min(block_bytes, near - at)
        yield length
        at += length
    tail = min(LOOK_AHEAD_BYTES, block_bytes)
    while at < split.size:
        length = min(tail, split.size - at)
        yield length
        at += length
        tail = min(2 * tail, block_bytes)


def _read(split: Split, store: Store, at: int, length: int) -> bytes:
    try:
        block = store.get_range(split.key, at, length, split.etag)
    except FileNotFoundError as error:
        raise InputChanged(
            f"{split.uri} was there when the job was planned and is gone. Run the job again."
        ) from error
    if len(block) != length:
        raise InputChanged(
            f"{split.uri} had {split.size} bytes when the job was planned and ends now at "
            f"{at + len(block)}. Run the job again."
        )
    return block


def _from_first_start(split: Split, blocks: Iterator[Block]) -> Iterator[Block]:
    r"""Yield the blocks from the first record start in [lo, hi) on; none if there is none.

    A record begins behind each `\n`, so the search goes over [lo - 1, hi - 1) and no further: an
    object without newlines is searched once, not once per split.
    """
    found = split.lo == 0
    for at, block in blocks:
        if found:
            yield at, block
            continue
        start = block.find(b"\n", 0, split.hi - 1 - at) + 1
        if start:
            found = True
            yield at + start, block[start:]
        elif at + len(block) >= split.hi - 1:
            return


def _until_last_end(split: Split, blocks: Iterator[Block]) -> Iterator[Block]:
    r"""Yield the blocks up to the end of the record that holds byte hi - 1: its `\n`, included."""
    for at, block in blocks:
        end = block.find(b"\n", max(split.hi - 1 - at, 0)) + 1
        if end:
            yield at, block[:end]
            return
        yield at, block


def _whole_lines(blocks: Iterator[Block]) -> Iterator[Block]:
    """Cut adjoining blocks anew: into runs of whole lines, of about BATCH_BYTES where that fits.

    A line that spans blocks is joined once, however many they are.
    """
    held: list[bytes] = []
    held_at = 0
    for at, block in blocks:
        start = 0
        if held:
            start = block.find(b"\n") + 1
            held.append(block[:start] if start else block)
            if not start:
                continue
            yield held_at, b"".join(held)
            held = []
        cut = block.rfind(b"\n") + 1
        yield from _pieces(at, block, start, cut)
        if max(start, cut) < len(block):
            held_at = at + max(start, cut)
            held = [block[max(start, cut) :]]
    if held:
        yield held_at, b"".join(held)


def _pieces(at: int, block: bytes, start: int, cut: int) -> Iterator[Block]:
    """Yield the lines in block[start:cut], which ends with a newline, in runs of BATCH_BYTES."""
    while start < cut:
        stop = block.find(b"\n", min(start + BATCH_BYTES, cut) - 1, cut) + 1
        yield at + start, block[start:stop]
        start = stop
