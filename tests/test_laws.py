"""The law of inputs, for every format with every encoding and compression at once: what the splits
of a file hold, one after the other, is what the file holds.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lambdamr_runtime.jsonl import JsonLines
from lambdamr_runtime.records import FixedRecords, LineBlocks, Lines, Reader
from lambdamr_runtime.tables import Csv
from tests.splitting import KEY, read_all, read_whole

ENCODINGS = ["utf-8", "utf-8-sig", "shift_jis", "gb18030", "latin-1", "utf-16", "utf-16-be"]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}
LINES = st.lists(
    st.sampled_from(["", "a", "é", "表ソ能", "\0", "x" * 30, "a\rb", "\x0b\x1c\x85", "\ufeff"]),
    max_size=12,
)
ENDS = st.lists(st.sampled_from(["\n", "\r\n"]), min_size=12, max_size=12)
SIZES = st.integers(1, 40)


def text_of(lines: list[str], ends: list[str], ended: bool) -> str:
    """Return lines with mixed ends, the last one without, unless it is ended."""
    text = "".join(line + end for line, end in zip(lines, ends, strict=False))
    return text if ended or not lines else text[: -len(ends[len(lines) - 1])]


def lines_of(text: str) -> list[str]:
    """Return the lines by their definition: an end is a newline, and one return before it."""
    found = text.split("\n")
    last = found.pop()
    return [line.removesuffix("\r") for line in found] + ([last] if last else [])


def read(data: bytes, reader: Reader, split_bytes: int, suffix: str, members: int) -> list[Any]:
    """Return what a reader reads of a file: compressed in several members, or in splits."""
    if suffix:
        cuts = [len(data) * member // members for member in range(members + 1)]
        pieces = [data[lo:hi] for lo, hi in pairwise(cuts)]
        return read_whole(b"".join(map(COMPRESS[suffix], pieces)), f"dir/a{suffix}", reader)
    if not reader.splittable:
        return read_whole(data, KEY, reader)
    return read_all(data, split_bytes, reader)


files = {
    "encoding": st.sampled_from(ENCODINGS),
    "suffix": st.sampled_from(["", "", *COMPRESS]),
    "members": st.integers(1, 4),
    "split_bytes": SIZES,
    "block_bytes": SIZES,
}


@given(lines=LINES, ends=ENDS, ended=st.booleans(), **files)
@settings(max_examples=500, deadline=None)
@example([], ["\n"] * 12, True, "utf-16", "", 1, 1, 1)
def test_lines(
    lines: list[str],
    ends: list[str],
    ended: bool,
    encoding: str,
    suffix: str,
    members: int,
    split_bytes: int,
    block_bytes: int,
) -> None:
    """Text of lines, the same as bytes, and in blocks."""
    data = text_of(lines, ends, ended).encode(encoding, "ignore")
    # What begins a file in UTF-8 and is a BOM goes; the codecs named utf-16 do so themselves.
    text = data.decode(encoding)
    text = text if encoding in ("utf-16", "utf-8-sig") else text.removeprefix("\ufeff")
    found = read(data, Lines(encoding, block_bytes=block_bytes), split_bytes, suffix, members)
    assert found == lines_of(text)
    plain = read(data, Lines(None, block_bytes=block_bytes), split_bytes, suffix, members)
    assert [line.decode("latin-1") for line in plain] == lines_of(data.decode("latin-1"))
    blocks = read(data, LineBlocks(block_bytes), split_bytes, suffix, members)
    assert b"".join(blocks) == data
    assert all(block.endswith(b"\n") for block in blocks[:-1])


@given(data=st.binary(max_size=200), record_bytes=st.integers(1, 30), **files)
@settings(max_examples=200, deadline=None)
def test_records(
    data: bytes,
    record_bytes: int,
    encoding: str,
    suffix: str,
    members: int,
    split_bytes: int,
    block_bytes: int,
) -> None:
    """Records of one size, whatever their bytes."""
    data = data[: len(data) // record_bytes * record_bytes]
    reader = FixedRecords(record_bytes, block_bytes)
    assert read(data, reader, split_bytes, suffix, members) == [
        data[at : at + record_bytes] for at in range(0, len(data), record_bytes)
    ]


FIELDS = st.sampled_from(["", "a", "é,", '"', "表ソ", "x" * 30, " ", "1"])
ROWS = st.lists(st.tuples(FIELDS, FIELDS), max_size=8)


@given(
    rows=ROWS,
    newlines=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
    quoted_newlines=st.booleans(),
    **files,
)
@settings(max_examples=400, deadline=None)
def test_rows(
    rows: list[tuple[str, str]],
    newlines: bool,
    end: str,
    quoted_newlines: bool,
    encoding: str,
    suffix: str,
    members: int,
    split_bytes: int,
    block_bytes: int,
) -> None:
    """CSV, as csv.DictReader reads it; newlines in fields only where objects are whole."""
    if newlines and quoted_newlines:
        rows = [(f"{left}\n", f"\r\n{right}") for left, right in rows]
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator=end).writerows([("k", "v"), *rows])
    data = out.getvalue().encode(encoding, "ignore")
    text = data.decode(encoding)
    reader = Csv(encoding=encoding, quoted_newlines=quoted_newlines, block_bytes=block_bytes)
    found = read(data, reader, split_bytes, suffix, members)
    assert found == list(csv.DictReader(io.StringIO(text, newline="")))


@given(
    values=st.lists(st.one_of(st.integers(), st.text(max_size=4), st.none()), max_size=8),
    ends=ENDS,
    ended=st.booleans(),
    suffix=files["suffix"],
    members=files["members"],
    split_bytes=SIZES,
    block_bytes=SIZES,
)
@settings(max_examples=200, deadline=None)
def test_values(
    values: list[Any],
    ends: list[str],
    ended: bool,
    suffix: str,
    members: int,
    split_bytes: int,
    block_bytes: int,
) -> None:
    """JSON lines, which are UTF-8."""
    data = text_of([json.dumps(value, ensure_ascii=False) for value in values], ends, ended)
    encoded = data.encode("utf-8", "surrogatepass")
    found = read(encoded, JsonLines(block_bytes=block_bytes), split_bytes, suffix, members)
    assert found == values
