"""JSON lines: the values of a file, for every split size."""

import gzip
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdamr_runtime.errors import CorruptInput
from lambdamr_runtime.jsonl import JsonLines
from tests.splitting import read_all, read_counted, read_whole

SIZES = st.integers(min_value=1, max_value=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
BLANKS = st.sampled_from(["", " ", "\t \r"])


@given(
    values=st.lists(VALUES, max_size=8),
    blanks=st.lists(BLANKS, min_size=8, max_size=8),
    end=st.sampled_from(["\n", "\r\n"]),
    ascii_only=st.booleans(),
    split_bytes=SIZES,
    block_bytes=SIZES,
)
@settings(max_examples=300, deadline=None)
def test_values_are_those_of_the_file(
    values: list[object],
    blanks: list[str],
    end: str,
    ascii_only: bool,
    split_bytes: int,
    block_bytes: int,
) -> None:
    """Any split and block size, blank lines between them, escaped or plain text, a BOM."""
    lines = [json.dumps(value, ensure_ascii=ascii_only) for value in values]
    text = "\ufeff" + end.join(line + end + b for line, b in zip(lines, blanks, strict=False))
    reader = JsonLines(block_bytes=block_bytes)
    assert read_all(text.encode("utf-8", "surrogatepass"), split_bytes, reader) == values


BAD_LINES = [
    b"{",
    b"1,2",
    b"[1",
    b"1]",
    b"nul",
    b"\xff",
    b"\xa0",
    b"{'a': 1}",
    b'"\xc3"',
    b"\xef\xbb\xbf1",
]


@given(
    lines=st.lists(st.sampled_from([b"1", b'{"a": "b"}', b"", *BAD_LINES]), max_size=12),
    split_bytes=SIZES,
    block_bytes=SIZES,
)
@settings(max_examples=300, deadline=None)
def test_bad_lines_are_skipped_and_counted(
    lines: list[bytes], split_bytes: int, block_bytes: int
) -> None:
    """Any split size: the good values in order, the bad lines counted, every byte accounted for.

    "[1" and "1]" in neighbouring lines are two bad lines, not a value.
    """
    data = b"\n".join([b"0", *lines])
    reader = JsonLines(block_bytes=block_bytes, on_bad_record="skip")
    values, bad = read_counted(data, split_bytes, reader)
    assert values == [0, *(json.loads(line) for line in lines if line not in (b"", *BAD_LINES))]
    assert bad == sum(line in BAD_LINES for line in lines)


@pytest.mark.parametrize("split_bytes", [1, 6, 100])
def test_a_bad_line_is_named(split_bytes: int) -> None:
    """With its file, offset and beginning, and what can be done."""
    with pytest.raises(
        CorruptInput, match=re.escape("input.txt is no JSON at offset 6 (")
    ) as caught:
        read_all(b'{}\n[]\n{"a": b}\n', split_bytes, JsonLines())
    assert "'{\"a\": b}'" in str(caught.value)
    assert "on_bad_record='skip'" in str(caught.value)


def test_values_nested_too_deeply_are_bad() -> None:
    """Python's parser gives up on them; the job's other lines are read."""
    data = b"[" * 100_000 + b"]" * 100_000 + b"\n1\n"
    assert read_counted(data, len(data), JsonLines(on_bad_record="skip")) == ([1], 1)


def test_broken_text_can_be_replaced() -> None:
    """errors= is as of bytes.decode."""
    assert read_all(b'"a\xff"\n', 3, JsonLines(errors="replace")) == ["a\ufffd"]


def test_json_lines_may_be_compressed() -> None:
    """A bad line is named by its place in the decompressed data."""
    data = gzip.compress(b'{"a": 1}\n[') + gzip.compress(b"2]\n}")
    reader = JsonLines(on_bad_record="skip")
    assert read_whole(data, "a.jsonl.gz", reader) == [{"a": 1}, [2]]
    with pytest.raises(CorruptInput, match="at offset 13 of the decompressed data"):
        read_whole(data, "a.jsonl.gz", JsonLines())


def test_json_in_utf_16_is_refused() -> None:
    """JSON is UTF-8; other encodings whose lines can be found are taken as they are named."""
    with pytest.raises(ValueError, match="JSON is UTF-8"):
        JsonLines("utf-16")
    assert read_all('"é"\n'.encode("latin-1"), 2, JsonLines("latin-1")) == ["é"]
