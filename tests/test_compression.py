"""Compressed objects: every member, every byte, and no silent end."""

import bz2
import gzip
import lzma
import random
import subprocess
import sys
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdamr_runtime.compression import TEXT_BYTES, Decompression, compression_of
from lambdamr_runtime.errors import CorruptInput
from lambdamr_runtime.limits import MIB
from lambdamr_runtime.records import FixedRecords, LineBlocks, Lines
from lambdamr_runtime.splits import Split
from tests.splitting import read_whole, stored, whole

Compress = Callable[[bytes], bytes]


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


COMPRESS: dict[str, Compress] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}
SUFFIXES = st.sampled_from(sorted(COMPRESS))
NAMES = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}


@given(
    parts=st.lists(st.lists(st.sampled_from([b"\n", b"a", b"\xc3\xa9\r\n"])).map(b"".join)),
    suffix=SUFFIXES,
    block_bytes=st.integers(1, 80),
)
@settings(max_examples=300, deadline=None)
def test_all_members_are_read(parts: list[bytes], suffix: str, block_bytes: int) -> None:
    """Concatenated files are one text, whatever the blocks; owned bytes are the compressed ones."""
    data = b"".join(map(COMPRESS[suffix], parts))
    text = b"".join(parts)
    key = f"dir/a{suffix}"
    assert b"".join(read_whole(data, key, LineBlocks(block_bytes))) == text
    assert b"\n".join(read_whole(data, key, Lines(None, block_bytes=block_bytes))) == text.replace(
        b"\r\n", b"\n"
    ).removesuffix(b"\n")
    assert read_whole(data, key, FixedRecords(1, block_bytes)) == [
        text[i : i + 1] for i in range(len(text))
    ]


@given(
    text=st.binary(min_size=1, max_size=60),
    suffix=SUFFIXES,
    cut_at=st.integers(0, 200),
    members=st.integers(0, 2),
    block_bytes=st.integers(1, 80),
)
@settings(max_examples=300, deadline=None)
def test_a_stream_that_ends_inside_a_member_is_corrupt(
    text: bytes, suffix: str, cut_at: int, members: int, block_bytes: int
) -> None:
    """Wherever it was cut off, and however many whole members come before."""
    member = COMPRESS[suffix](text)
    kept = member[: 1 + cut_at % (len(member) - 1)]
    split, store = whole(member * members + kept, f"a{suffix}")
    with pytest.raises(CorruptInput, match=rf"a{suffix} ends inside a {NAMES[suffix]} member"):
        list(LineBlocks(block_bytes).read(split, store))


@pytest.mark.parametrize("suffix", sorted(COMPRESS))
@pytest.mark.parametrize("block_bytes", [7, MIB])
def test_garbage_is_corrupt(suffix: str, block_bytes: int) -> None:
    """Behind a member as at the beginning; gzip(1) and bz2 would pass over it in silence."""
    for data in (b"no such stream", COMPRESS[suffix](b"a\n") + b"no such stream"):
        split, store = whole(data, f"a{suffix}")
        with pytest.raises(CorruptInput, match=f"no {NAMES[suffix]} stream, or is damaged"):
            list(LineBlocks(block_bytes).read(split, store))


@pytest.mark.parametrize("suffix", sorted(COMPRESS))
def test_a_flipped_byte_is_corrupt(suffix: str) -> None:
    """The checksums of the formats are checked."""
    compress = COMPRESS[suffix]
    if suffix == ".zst":
        compress = zstandard.ZstdCompressor(write_checksum=True).compress
    data = bytearray(compress(bytes(range(256)) * 10))
    data[-1 if suffix == ".zst" else len(data) * 2 // 3] ^= 0x55
    split, store = whole(bytes(data), f"a{suffix}")
    with pytest.raises(CorruptInput):
        list(LineBlocks().read(split, store))


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_zeros_behind_a_member_are_padding(suffix: str) -> None:
    """Tapes and block devices leave them; they are accounted for."""
    member = COMPRESS[suffix](b"a\n")
    assert read_whole(member + bytes(8) + member + bytes(12), f"a{suffix}", Lines()) == ["a", "a"]


def test_skippable_zstd_frames_are_skipped() -> None:
    """The format defines them as no content; pzstd writes them."""
    skippable = (0x184D2A50).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"hello"
    assert read_whole(skippable + zstd(b"a\n") + skippable + zstd(b"b"), "a.zst", Lines()) == [
        "a",
        "b",
    ]


@pytest.mark.parametrize("suffix", sorted(COMPRESS))
def test_a_bomb_is_decompressed_piece_by_piece(suffix: str) -> None:
    """64 MiB of zeros in a few KB never lie in memory at once."""
    data = COMPRESS[suffix](bytes(64 * MIB))
    sizes = [len(text) for _, text in Decompression(NAMES[suffix], "a").blocks(iter([(0, data)]))]
    assert sum(sizes) == 64 * MIB
    assert max(sizes) <= (TEXT_BYTES if suffix != ".zst" else 34 * MIB)


@pytest.mark.parametrize("suffix", sorted(COMPRESS))
@pytest.mark.parametrize("block_bytes", [1000, TEXT_BYTES])
def test_large_members_are_read_whole(suffix: str, block_bytes: int) -> None:
    """Larger than what a decompressor is given or returns at once, and ending anywhere in it."""
    texts = [random.Random(size).randbytes(size) for size in (5000, 1, 3000, 100_000)]
    texts += [bytes(size) for size in (TEXT_BYTES - 1, TEXT_BYTES, 2 * TEXT_BYTES + 1)]
    data = b"".join(map(COMPRESS[suffix], texts))
    assert b"".join(read_whole(data, f"a{suffix}", LineBlocks(block_bytes))) == b"".join(texts)


@pytest.mark.parametrize(
    ("key", "compression", "expected"),
    [
        ("a.GZ", "infer", "gzip"),
        ("a.txt.bz2", "infer", "bz2"),
        ("a.xz", "infer", "xz"),
        ("a.zst", "infer", "zstd"),
        ("gz", "infer", None),
        ("a.gz", None, None),
        ("a.gz", "zstd", "zstd"),
    ],
)
def test_the_suffix_tells_unless_the_caller_does(
    key: str, compression: str | None, expected: str | None
) -> None:
    """Whatever the letters' case; None reads the bytes as they are."""
    assert compression_of(key, compression) == expected


def test_compression_can_be_given() -> None:
    """For names that say nothing."""
    assert read_whole(gzip.compress(b"a\nb"), "a", Lines(compression="gzip")) == ["a", "b"]
    assert read_whole(b"a\nb", "a.gz", Lines(compression=None)) == ["a", "b"]


def test_an_unknown_compression_is_refused() -> None:
    """With the ones that are known."""
    with pytest.raises(ValueError, match=r"'lzo' is unknown. Give 'infer'.*'gzip', 'bz2'"):
        Lines(compression="lzo")


def test_a_part_of_a_compressed_object_is_refused() -> None:
    """It is an error of the planner, not wrong lines."""
    data = gzip.compress(b"a\nb\n")
    store, etag = stored(data, "a.gz")
    with pytest.raises(ValueError, match=r"gzip data cannot be cut at a byte"):
        Lines().read(Split("memory://", "a.gz", 0, 5, len(data), etag), store)


def test_an_offset_in_a_message_says_that_it_is_of_the_decompressed_data() -> None:
    """So that nobody looks for it in the compressed file."""
    split, store = whole(gzip.compress(b"good\nb\xffd\n"), "a.gz")
    with pytest.raises(CorruptInput, match="at offset 6 of the decompressed data"):
        list(Lines().read(split, store))


def test_utf_16_may_be_compressed() -> None:
    """Decompressed first, decoded then."""
    data = bz2.compress("a\r\né\n".encode("utf-16"))
    assert read_whole(data, "a.bz2", Lines("utf-16")) == ["a", "é"]


def test_modules_of_compressors_are_loaded_when_they_are_needed() -> None:
    """A cold start does not pay for zstandard, nor for bz2 and lzma."""
    code = (
        "import sys, lambdamr_runtime.records, lambdamr_runtime.compression as c\n"
        "print([m for m in ('zstandard', 'bz2', 'lzma') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_zlib_streams_without_a_gzip_header_are_no_gzip() -> None:
    """They are told apart, not guessed at."""
    split, store = whole(zlib.compress(b"a\n"), "a.gz")
    with pytest.raises(CorruptInput, match="no gzip stream"):
        list(Lines().read(split, store))
