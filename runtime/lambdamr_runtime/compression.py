"""Compressed objects: streams of members, read to the end of the compressed bytes.

    compressed blocks ─▶ Decompression.blocks ─▶ blocks of what they hold

A gzip file may be several gzip files one behind the other, and so may the others: tools that write
in parallel or append make such files. A decompressor stops at the end of its first member.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from lambdamr_runtime.errors import CorruptInput
from lambdamr_runtime.limits import KIB, MIB

INFER = "infer"
"""The compression is told by the name's suffix, or there is none."""

SUFFIXES = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}

FEED_BYTES = 64 * KIB
"""Compressed bytes given to a decompressor at a time."""

TEXT_BYTES = 1 * MIB
"""Most bytes that a decompressor returns at a time, however well they were compressed."""

ZSTD_FEED_BYTES = 1 * KIB
"""zstd takes no such bound, and 1 KiB of it can hold 32 MiB of zeros."""


class Member(Protocol):
    """The decompressor of one member; bz2's and lzma's are such."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _GzipMember:
    def __init__(self) -> None:
        import zlib

        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        """Output that zlib holds back comes with the next input: there is some, the checksum."""
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


class _ZstdMember:
    """Overshoots max_length by what ZSTD_FEED_BYTES hold."""

    def __init__(self) -> None:
        import zstandard  # not in the standard library before 3.14, and few objects need it

        self._zstd = zstandard.ZstdDecompressor().decompressobj()
        self._held = b""

    @property
    def eof(self) -> bool:
        return self._zstd.eof

    @property
    def needs_input(self) -> bool:
        return not self._held

    @property
    def unused_data(self) -> bytes:
        return self._zstd.unused_data + self._held

    def decompress(self, data: bytes, max_length: int) -> bytes:
        data, at, found, texts = self._held + data, 0, 0, []
        while at < len(data) and found < max_length and not self._zstd.eof:
            texts.append(self._zstd.decompress(data[at : at + ZSTD_FEED_BYTES]))
            found += len(texts[-1])
            at += ZSTD_FEED_BYTES
        self._held = data[at:]
        return b"".join(texts)


def _bz2_member() -> Member:
    import bz2

    return bz2.BZ2Decompressor()


def _xz_member() -> Member:
    import lzma

    return lzma.LZMADecompressor(lzma.FORMAT_XZ)


@dataclass(frozen=True, slots=True)
class _Format:
    new_member: Callable[[], Member]
    padded: bool = False
    """Whether zero bytes may follow a member."""


_FORMATS = {
    "gzip": _Format(_GzipMember, padded=True),
    "bz2": _Format(_bz2_member),
    "xz": _Format(_xz_member, padded=True),
    "zstd": _Format(_ZstdMember),
}


def check_compression(compression: str | None) -> None:
    """Raise ValueError unless *compression* is one."""
    if compression not in (None, INFER, *_FORMATS):
        raise ValueError(
            f"compression={compression!r} is unknown. Give 'infer' (by the suffix), "
            f"{', '.join(map(repr, _FORMATS))}, or None to read the bytes as they are."
        )


def compression_of(key: str, compression: str | None) -> str | None:
    """Return how an object is compressed: as *compression* says, or its suffix."""
    if compression != INFER:
        return compression
    name = key.lower()
    return next((SUFFIXES[suffix] for suffix in SUFFIXES if name.endswith(suffix)), None)


class Decompression:
    """The members of one compressed object, and how far they were read."""

    def __init__(self, compression: str, uri: str) -> None:
        self._name = compression
        self._format = _FORMATS[compression]
        self._uri = uri
        self._member: Member | None = None
        self.taken_bytes = 0
        """Compressed bytes that were given to decompressors; at the end, the object's size."""

    def blocks(self, compressed: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        """Yield (offset among the decompressed bytes, some of these), none empty.

        Raises:  CorruptInput: no such stream, garbage behind a member, or an end inside of one.
        """
        at = 0
        for start, block in compressed:
            for lo in range(0, len(block), FEED_BYTES):
                piece = block[lo : lo + FEED_BYTES]
                self.taken_bytes = start + lo + len(piece)
                for text in self._texts(piece):
                    yield at, text
                    at += len(text)
        if self._member is not None:
            raise CorruptInput(
                f"{self._uri} ends inside a {self._name} member, after {self.taken_bytes} "
                "compressed bytes: it was cut off. Copy it again from where it came from."
            )

    def _texts(self, data: bytes) -> Iterator[bytes]:
        """Yield what *data*, the next compressed bytes, hold."""
        while True:
            if self._member is None:
                data = data.lstrip(b"\0") if self._format.padded else data
                if not data:
                    return
                self._member = self._format.new_member()
            text = self._decompressed(self._member, data)
            if text:
                yield text
            data = b""
            if self._member.eof:
                data, self._member = self._member.unused_data, None
            elif self._member.needs_input:
                return

    def _decompressed(self, member: Member, data: bytes) -> bytes:
        try:
            return member.decompress(data, TEXT_BYTES)
        except _errors_of(self._name) as error:
            raise CorruptInput(
                f"{self._uri} is no {self._name} stream, or is damaged, before compressed byte "
                f"{self.taken_bytes}: {error}. Check the file, or give compression=."
            ) from error


def _errors_of(compression: str) -> tuple[type[BaseException], ...]:
    """Return what the decompressor raises for bad bytes; its module is loaded by now."""
    if compression == "gzip":
        import zlib

        return (zlib.error,)
    if compression == "xz":
        import lzma

        return (lzma.LZMAError, EOFError)
    if compression == "zstd":
        import zstandard

        found: tuple[Any, ...] = (zstandard.ZstdError,)  # Any: typed by its C stub
        return found
    return (OSError, EOFError, ValueError)
