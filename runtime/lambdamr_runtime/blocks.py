r"""The bytes that a reader reads: ranged reads, decompressed, cut where lines begin and end.

    store ─ Content.blocks ─▶ from_first_start ─▶ until_last_end ─▶ whole_lines ─▶ runs of lines
                                                                 └▶ large_lines ─▶ blocks of lines
    local file ─ LineEnds ─▶ one read for each block ────────────────────────────▶ large ones

Reads run ahead of the computing: while a block is worked on, the next READS_AHEAD are on their way,
but not from a local directory, of which the kernel reads ahead.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice, pairwise

from lambdamr_runtime.compression import Decompression, compression_of
from lambdamr_runtime.errors import InputChanged
from lambdamr_runtime.limits import KIB, MIB
from lambdamr_runtime.splits import Split
from lambdamr_runtime.store import Ranges, local_etag, local_path

BLOCK_BYTES = 2 * MIB
"""Bytes of one ranged read. Two in flight at 25 ms and 80 MB/s a request give 12.1 M words/s and a
peak of 50 MB; 1 MiB 8.0 M and 39 MB, 4 MiB 15.8 M (more than a function's network) and 62 MB."""

BATCH_BYTES = 64 * KIB
"""A block is decoded in pieces of about so many bytes: a piece, its text and its lines stay in the
processor's cache, and a task never holds the lines of a whole block. Measured per line of 50
bytes: 0.045 us at 64 and 256 KiB, 0.088 us at 4 MiB; with 6-byte lines 64 KiB is 20 % ahead."""

LOOK_AHEAD_BYTES = 64 * KIB
"""The read that reaches a split's end goes on so far, which saves most splits a second one; at
most LOOK_AHEAD_SHARE of the split, so that small splits do not read each other's bytes."""

LOOK_AHEAD_SHARE = 1 / 16

READS_AHEAD = 2
"""Ranged reads in flight while a block is worked on. With the one that is worked on, three blocks
are held. Words of 128 MB a second, 25 ms and 80 MB/s a request: 5.1 million without, 11.6 with it.
On a local directory its threads took 0.07 s of CPU per 256 MB, and gained nothing."""

AHEAD_BYTES = 256 * KIB
"""Fewer bytes are read block by block: the threads that read ahead cost 0.3 ms."""

LARGE_BYTES = 1 * MIB
"""Blocks of a local file that are as large are not copied behind the reading: 20 ms of 32 MB."""

Block = tuple[int, bytes]
"""Bytes of an object behind the offset of the first of them."""

View = tuple[int, memoryview]
"""The same, not copied from where they were read to."""

SEARCH_BYTES = 4 * KIB
"""Bytes of a view that are searched at a time: most lines are shorter."""


class Content:
    """What a split's reader reads: bytes of the object or, where it is compressed, what it holds.

    Args:    compression: as of compression.compression_of.
    Raises:  ValueError: a part of a compressed object, which can only be read from its beginning.
    """

    def __init__(
        self, split: Split, store: Ranges, block_bytes: int, compression: str | None
    ) -> None:
        self.split = split
        self.uri = split.uri
        self._store = store
        self._block_bytes = block_bytes
        name = compression_of(split.key, compression)
        self._decompression = Decompression(name, split.uri) if name else None
        if self._decompression is not None:
            self.check_whole(f"{name} data")

    @property
    def taken_bytes(self) -> int | None:
        """Compressed bytes that were read so far; None of an object that is not compressed."""
        return None if self._decompression is None else self._decompression.taken_bytes

    def check_whole(self, what: str) -> None:
        """Raise ValueError if the split is a part of its object."""
        split = self.split
        if not split.is_whole:
            raise ValueError(
                f"{what} cannot be cut at a byte: {split.uri} of {split.size} bytes needs one "
                f"split, got [{split.lo}, {split.hi}). Plan with plan_splits(..., None)."
            )

    def place(self, offset: int) -> str:
        """Say where a byte of the content is."""
        held = " of the decompressed data" if self._decompression is not None else ""
        return f"offset {offset}{held}"

    def blocks(self) -> Iterator[Block]:
        """Yield the content of a split that is a whole object.

        Raises:  InputChanged: the object is gone, shorter or another one.
                 CorruptInput: it cannot be decompressed.
        """
        views = self.ranges(0, self.split.size)
        blocks = ((at, bytes(view)) for at, view in views)
        return blocks if self._decompression is None else self._decompression.blocks(blocks)

    def line_runs(self) -> Iterator[Block]:
        """Yield the lines that the split owns, in runs of about BATCH_BYTES; raises as blocks()."""
        return whole_lines(self.line_views())

    def line_views(self) -> Iterator[View]:
        """Yield the bytes of the lines that the split owns; raises as blocks()."""
        if self._decompression is not None:
            return ((at, memoryview(block)) for at, block in self.blocks())
        return _until_last_end(self.split, _from_first_start(self.split, self._around()))

    def line_blocks(self) -> Iterator[Block]:
        """Yield the lines that the split owns, in blocks of about the bytes of a read.

        Raises:  as blocks().
        """
        is_large = self._block_bytes >= LARGE_BYTES and self._decompression is None
        ends = LineEnds.of(self.split) if is_large else None
        if ends is None:
            yield from large_lines(self.line_views(), self._block_bytes)
        else:
            with ends:
                yield from self._uncopied(ends)

    def _uncopied(self, ends: "LineEnds") -> Iterator[Block]:
        """Yield the blocks of a local file, each of them as it is read: alike in size, and no more
        than ranges() would read.
        """
        split = self.split
        start = max(split.lo - 1, 0)
        at = ends.first(start, split.hi - 1) if split.lo else 0
        if at is None:
            return
        size = split.hi - start
        count = -(-size // self._block_bytes)
        edges = (start + size * part // count for part in range(count))
        for edge, following in pairwise(edges):
            cut = ends.last(max(at, edge), following)
            if cut is not None:
                yield at, _bytes_of(self._view(at, cut - at))
                at = cut
        end = ends.first(max(at, split.hi - 1), split.size) or split.size
        yield at, _bytes_of(self._view(at, end - at))

    def first_line(self) -> bytes:
        """Return the first line of the object with its end, whatever part the split is."""
        held = b""
        length = LOOK_AHEAD_BYTES
        while b"\n" not in held and len(held) < self.split.size:
            length = min(length, self.split.size - len(held))
            held += self._view(len(held), length)
            length = len(held)
        return held[: held.find(b"\n") + 1 or len(held)]

    def ranges(self, start: int, stop: int, beyond: int = 0) -> Iterator[View]:
        """Yield bytes [start, stop) of the object as they are stored, read ahead where that helps.

        Args:  beyond: so many bytes more come with the last read.
        """
        step = self._block_bytes
        spans = (
            (at, step if at + step < stop else stop + beyond - at)
            for at in range(start, stop, step)
        )
        is_near = local_path(self.split.root) is not None
        if is_near or stop - start <= max(step, AHEAD_BYTES):
            return ((at, self._view(at, length)) for at, length in spans)
        return _read_ahead(self._view, spans)

    def _around(self) -> Iterator[View]:
        """Yield the object's bytes from lo - 1 (from 0 in the first split) to its end.

        To hi and a little on they are read ahead; the little comes with the read that has hi - 1,
        so that how many reads there are hangs on the split alone. The tail's reads are made when
        they are asked for, as few splits need one; they begin small, for a line's rest, and
        double, for a line longer than that.
        """
        split = self.split
        look_ahead = min(LOOK_AHEAD_BYTES, int((split.hi - split.lo) * LOOK_AHEAD_SHARE))
        at = min(split.hi + look_ahead, split.size)
        yield from self.ranges(max(split.lo - 1, 0), split.hi, at - split.hi)
        tail = min(LOOK_AHEAD_BYTES, self._block_bytes)
        while at < split.size:
            length = min(tail, split.size - at)
            yield at, self._view(at, length)
            at += length
            tail = min(2 * tail, self._block_bytes)

    def _view(self, at: int, length: int) -> memoryview:
        return read_range(self.split, self._store, at, length)


class LineEnds:
    """Where lines end in a local file: looked for in the file itself, a few KiB at a time.

    A context manager: it holds a descriptor.
    """

    def __init__(self, file: int) -> None:
        self._file = file

    @classmethod
    def of(cls, split: Split) -> "LineEnds | None":
        """Open the object of a split; None where it is no local file, or not the planned one."""
        folder = local_path(split.root)
        if folder is None:
            return None
        try:
            file = os.open(f"{folder}/{split.key}", os.O_RDONLY)
        except (OSError, ValueError):  # what there is to say, who reads it says
            return None
        if local_etag(os.fstat(file)) == split.etag.strip('"'):
            return cls(file)
        os.close(file)
        return None

    def __enter__(self) -> "LineEnds":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def first(self, start: int, stop: int) -> int | None:
        """Return where the first line ends that ends in [start, stop); None if none does."""
        for at in range(start, stop, SEARCH_BYTES):
            found = self._bytes(at, min(at + SEARCH_BYTES, stop)).find(b"\n")
            if found >= 0:
                return at + found + 1
        return None

    def last(self, start: int, stop: int) -> int | None:
        """Return where the last line ends that ends in [start, stop); None if none does."""
        for at in range(stop, start, -SEARCH_BYTES):
            low = max(at - SEARCH_BYTES, start)
            found = self._bytes(low, at).rfind(b"\n")
            if found >= 0:
                return low + found + 1
        return None

    def _bytes(self, start: int, stop: int) -> bytes:
        return os.pread(self._file, stop - start, start)


def read_range(split: Split, store: Ranges, at: int, length: int) -> memoryview:
    """Return *length* bytes of a split's object from *at* on.

    Raises:  InputChanged: the object is gone, shorter or another one.
    """
    try:
        block = store.view_range(split.key, at, length, split.etag)
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


def _bytes_of(view: memoryview) -> bytes:
    """Return what a view is of, or a copy where that is no bytes, or not all of them."""
    whole = view.obj
    return whole if isinstance(whole, bytes) and len(whole) == len(view) else bytes(view)


def _read_ahead(
    read: Callable[[int, int], memoryview], spans: Iterator[tuple[int, int]]
) -> Iterator[View]:
    """Yield (offset, bytes) of each (offset, length), READS_AHEAD of them in flight.

    No thread outlives the generator: who stops early closes it, which waits for those reads.
    """
    from concurrent.futures import ThreadPoolExecutor  # small objects never get here

    pool = ThreadPoolExecutor(READS_AHEAD, thread_name_prefix="lambdamr-read")
    try:
        first = islice(spans, READS_AHEAD)
        flying = deque((at, pool.submit(read, at, length)) for at, length in first)
        while flying:
            at, reading = flying.popleft()
            block = reading.result()
            flying.extend((at, pool.submit(read, at, length)) for at, length in islice(spans, 1))
            yield at, block
    finally:
        pool.shutdown(cancel_futures=True)


def _from_first_start(split: Split, blocks: Iterator[View]) -> Iterator[View]:
    r"""Yield the blocks from the first record start in [lo, hi) on; none if there is none.

    A record begins behind each `\n`, so the search goes over [lo - 1, hi - 1) and no further: an
    object without newlines is searched once, not once per split.
    """
    found = split.lo == 0
    for at, block in blocks:
        if found:
            yield at, block
            continue
        start = _line_end(block, 0, split.hi - 1 - at)
        if start:
            found = True
            yield at + start, block[start:]
        elif at + len(block) >= split.hi - 1:
            return


def _until_last_end(split: Split, blocks: Iterator[View]) -> Iterator[View]:
    r"""Yield the blocks up to the end of the record that holds byte hi - 1: its `\n`, included."""
    for at, block in blocks:
        end = _line_end(block, max(split.hi - 1 - at, 0), len(block))
        if end:
            yield at, block[:end]
            return
        yield at, block


def whole_lines(blocks: Iterator[View]) -> Iterator[Block]:
    """Cut adjoining blocks anew: into runs of whole lines, of about BATCH_BYTES where that fits.

    A line that spans blocks is joined once, however many they are.
    """
    held: list[bytes | memoryview] = []
    held_at = 0
    for at, block in blocks:
        start = 0
        if held:
            start = _line_end(block, 0, len(block))
            held.append(block[:start] if start else block)
            if not start:
                continue
            yield held_at, b"".join(held)
            held = []
        cut = max(start, _last_line_end(block))
        yield from _pieces(at, block, start, cut)
        if cut < len(block):
            held_at, held = at + cut, [bytes(block[cut:])]  # a view would keep the whole block
    if held:
        yield held_at, b"".join(held)


def large_lines(blocks: Iterator[View], block_bytes: int) -> Iterator[Block]:
    """Join adjoining blocks: into runs of whole lines of about *block_bytes*, or one line more."""
    held: list[bytes | memoryview] = []
    held_at = held_bytes = 0
    for at, block in blocks:
        if not held:
            held_at = at
        held_bytes += len(block)
        cut = 0 if held_bytes < block_bytes else _last_line_end(block)
        if not cut:
            held.append(block)
            continue
        run = b"".join((*held, block[:cut]))
        held, held_bytes = [bytes(block[cut:])], len(block) - cut  # as above
        yield held_at, run
        held_at = at + cut
    rest = b"".join(held)
    if rest:
        yield held_at, rest


def _pieces(at: int, block: memoryview, start: int, cut: int) -> Iterator[Block]:
    """Yield the lines in block[start:cut], which ends with a newline, in runs of BATCH_BYTES."""
    while start < cut:
        stop = _line_end(block, min(start + BATCH_BYTES, cut) - 1, cut)
        yield at + start, bytes(block[start:stop])
        start = stop


def _line_end(block: memoryview, start: int, stop: int) -> int:
    """Return where the first line that ends in block[start:stop] ends; 0 if none does."""
    stop = min(stop, len(block))
    for at in range(start, stop, SEARCH_BYTES):
        found = bytes(block[at : min(at + SEARCH_BYTES, stop)]).find(b"\n") + 1
        if found:
            return at + found
    return 0


def _last_line_end(block: memoryview) -> int:
    """Return where the last line that ends in the block ends; 0 if none does."""
    for at in range(len(block), 0, -SEARCH_BYTES):
        start = max(at - SEARCH_BYTES, 0)
        found = bytes(block[start:at]).rfind(b"\n") + 1
        if found:
            return start + found
    return 0
