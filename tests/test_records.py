"""Laws of splits: every byte in one record, every record in one split."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdamr_runtime.blocks import BATCH_BYTES, LOOK_AHEAD_BYTES
from lambdamr_runtime.errors import CorruptInput, InputChanged
from lambdamr_runtime.records import Lines, RecordStream
from lambdamr_runtime.splits import Split
from lambdamr_runtime.texts import SPLITTABLE_ENCODINGS
from tests.splitting import KEY, CountingStore, cut, read_all, stored


def expected_lines(data: bytes) -> list[bytes]:
    """Return what the lines are, written without regard to the reader."""
    found = data.split(b"\n")
    last = found.pop()
    ended = [line[:-1] if line[-1:] == b"\r" else line for line in found]
    return ended if last == b"" else [*ended, last]


def expected_text(text: str) -> list[str]:
    found = text.removeprefix("\ufeff").split("\n")
    last = found.pop()
    ended = [line[:-1] if line[-1:] == "\r" else line for line in found]
    return ended if last == "" else [*ended, last]


NOT_NEWLINES = [b"\x0b\x0c\x1c\x1d\x1e", "\x85\u2028\u2029".encode()]
"""What str.splitlines or bytes.splitlines ends a line at."""

MULTIBYTE = ["é".encode(), "😀".encode(), "\ufeff".encode()]

PARTS = st.sampled_from(
    [b"\n", b"\r\n", b"\r", b"a", b"bc", b"\0", b"x" * 23, *NOT_NEWLINES, *MULTIBYTE]
)
TEXTS = st.lists(PARTS, max_size=30).map(b"".join)
BROKEN = [b"\n", b"\r\n", b"a", b"0", b"\x81", b"\x8f", b"\xa2", b"\xff", b"\xe3\x81", b"\x810\x81"]
SIZES = st.integers(min_value=1, max_value=40)


@given(data=st.binary(max_size=80) | TEXTS, split_bytes=SIZES, block_bytes=SIZES)
@settings(max_examples=600, deadline=None)
def test_lines_of_bytes_are_those_of_the_file(
    data: bytes, split_bytes: int, block_bytes: int
) -> None:
    """Any bytes, any split and block size: the splits' records are the file's, each byte once."""
    reader = Lines(encoding=None, block_bytes=block_bytes)
    assert read_all(data, split_bytes, reader) == expected_lines(data)


@given(data=TEXTS, split_bytes=SIZES, block_bytes=SIZES)
@settings(max_examples=600, deadline=None)
def test_lines_of_text_are_those_of_the_file(
    data: bytes, split_bytes: int, block_bytes: int
) -> None:
    """Multibyte text cut anywhere, NULs, a BOM, \\r, and line ends that only splitlines knows."""
    reader = Lines(block_bytes=block_bytes)
    assert read_all(data, split_bytes, reader) == expected_text(data.decode())


@given(
    text=st.text(alphabet="\r\na表ソ能\0", max_size=40),
    encoding=st.sampled_from(["shift_jis", "gb18030", "euc_jp"]),
    split_bytes=SIZES,
    block_bytes=SIZES,
)
@settings(max_examples=300, deadline=None)
def test_east_asian_text_is_cut_anywhere(
    text: str, encoding: str, split_bytes: int, block_bytes: int
) -> None:
    """Shift-JIS (with 0x5C in characters), GB18030 and EUC-JP are split by bytes and come back."""
    data = text.encode(encoding, "ignore")
    reader = Lines(encoding=encoding, block_bytes=block_bytes)
    assert read_all(data, split_bytes, reader) == expected_text(data.decode(encoding))


@given(
    text=st.text(alphabet="\r\nab\u0a0aé😀\0\u2028\ufeff", max_size=40),
    encoding=st.sampled_from(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "cp037"]),
    block_bytes=SIZES,
)
@settings(max_examples=300, deadline=None)
def test_encodings_that_hide_newlines_are_read_whole(
    text: str, encoding: str, block_bytes: int
) -> None:
    """UTF-16 and its like are one split, decoded across block edges; U+0A0A is no newline."""
    data = text.encode(encoding, "ignore")
    reader = Lines(encoding=encoding, block_bytes=block_bytes)
    assert not reader.splittable
    bom = "\ufeff" if encoding in ("utf-16", "utf-32") else ""  # theirs is gone by decoding
    assert read_all(data, max(1, len(data)), reader) == expected_text(bom + data.decode(encoding))


@given(
    data=st.lists(st.sampled_from(BROKEN), max_size=30).map(b"".join),
    encoding=st.sampled_from(["utf-8", "ascii", "gb18030", "euc_jp", "shift_jis", "big5"]),
    split_bytes=SIZES,
    block_bytes=SIZES,
)
@settings(max_examples=400, deadline=None)
def test_replaced_text_does_not_depend_on_the_splits(
    data: bytes, encoding: str, split_bytes: int, block_bytes: int
) -> None:
    """With errors='replace' a line of broken text is what it is by itself, for every split size."""
    reader = Lines(encoding, "replace", block_bytes)
    expected = [line.decode(encoding, "replace") for line in expected_lines(data)]
    assert read_all(data, split_bytes, reader) == expected


@pytest.mark.parametrize("encoding", sorted(SPLITTABLE_ENCODINGS))
def test_splittable_encodings_keep_their_newline_to_themselves(encoding: str) -> None:
    """No character but \\n is encoded with a byte 0x0A (nor any but \\r with 0x0D), nor decoded."""
    text = "".join(map(chr, range(0x20000)))
    data = text.encode(encoding, "ignore")
    assert (data.count(b"\n"), data.count(b"\r")) == (1, 1)
    for head in (b"", b"\x81", b"\x8f", b"\x8f\xa2", b"\x810", b"\x810\x81"):
        for last in range(256):
            for end in "\r\n":
                decoded = decoded_or_empty(head + bytes([last]) + end.encode(), encoding)
                assert decoded.endswith(end) or not decoded
                assert decoded[:-1].count(end) == (last == ord(end)) or not decoded


def decoded_or_empty(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return ""


@pytest.mark.parametrize("split_bytes", [1, 4, 100])
def test_a_handler_that_refuses_names_the_offset(split_bytes: int) -> None:
    """With surrogatepass, broken bytes that are no surrogates are CorruptInput all the same."""
    reader = Lines(errors="surrogatepass")
    assert read_all(b"a\n\xed\xa0\x80\r\nb", split_bytes, reader) == ["a", "\ud800", "b"]
    with pytest.raises(CorruptInput, match="at offset 7 "):
        read_all(b"a\n\xed\xa0\x80\nb\xff\n", split_bytes, reader)


def test_30_000_lines_in_6_splits_are_30_000_records() -> None:
    """Lithops reads 30,003: a record at a split's edge belongs to one split only."""
    data = b"".join(b"line %d of the file\n" % number for number in range(30_000))
    records = read_all(data, -(-len(data) // 6), Lines())
    assert records == [f"line {number} of the file" for number in range(30_000)]


@pytest.mark.parametrize("split_bytes", [1, 3, 7, 100])
def test_no_final_newline_keeps_the_last_byte(split_bytes: int) -> None:
    """Lithops loses the last byte of a file that does not end in a newline."""
    assert read_all(b"one\ntwo\nthree", split_bytes, Lines()) == ["one", "two", "three"]


def test_300_kb_lines_come_back_whole() -> None:
    """Lithops returns 2,200,019 of these 2,400,040 bytes; Corral stops at a line of 64 KB."""
    lines = [f"{number}" * 300_000 + "abcd" for number in range(8)]
    data = "".join(line + "\n" for line in lines).encode()
    assert len(data) == 2_400_040
    assert read_all(data, 100_000, Lines(block_bytes=64 * 1024)) == lines


@pytest.mark.parametrize(("data", "lines"), [(b"x", ["x"]), (b"\n", [""])])
def test_an_object_of_one_byte_is_one_record(data: bytes, lines: list[str]) -> None:
    """Lithops plans no split for it."""
    assert read_all(data, 1, Lines()) == lines


@pytest.mark.parametrize("data", [b"abc\n" * 8, b"a" * 32, b"abcdefg\n" * 4])
def test_a_multiple_of_the_block_size_asks_for_no_empty_range(data: bytes) -> None:
    """MARLA asks for a range behind the end, which S3 refuses with 416."""
    inner, etag = stored(data)
    store = CountingStore(inner)
    for split in cut(len(data), 16, etag):
        list(Lines(block_bytes=8).read(split, store))
    assert all(length > 0 and start + length <= len(data) for start, length in store.ranges)


def test_a_chunk_without_a_newline_ends() -> None:
    """MARLA's job never ends; here the line's owner reads on and the other splits own nothing."""
    data = b"x" * 50 + b"\ny\n"
    store, etag = stored(data)
    records = [list(Lines().read(split, store)) for split in cut(len(data), 10, etag)]
    assert records == [["x" * 50], [], [], [], [], ["y"]]


def test_a_file_without_newlines_is_not_read_once_per_split() -> None:
    """Its owner reads it, every other split looks through its own range: twice the file at most."""
    data = b"x" * 1_000_000
    inner, etag = stored(data)
    store = CountingStore(inner)
    splits = cut(len(data), 10_000, etag)
    streams = [Lines().read(split, store) for split in splits]
    assert [len(list(stream)) for stream in streams] == [1, *[0] * 99]
    assert sum(stream.owned_bytes for stream in streams) == len(data)
    assert store.read_bytes <= 2.1 * len(data)


def test_ordinary_lines_are_read_about_once() -> None:
    """Finding the edges costs each split a short look behind and one ahead."""
    data = b"some words of a line\n" * 100_000
    inner, etag = stored(data)
    store = CountingStore(inner)
    splits = cut(len(data), len(data) // 4 + 1, etag)
    assert sum(len(list(Lines().read(split, store))) for split in splits) == 100_000
    assert len(store.ranges) == 4
    assert store.read_bytes <= len(data) + 3 * (LOOK_AHEAD_BYTES + 1)


def test_a_block_is_decoded_in_pieces_of_whole_lines() -> None:
    """A large block comes in several lists, none empty, and a line longer than a piece is whole."""
    lines = ["short", "x" * (3 * BATCH_BYTES), *(f"line {n}" for n in range(20_000))]
    store, etag = stored("".join(line + "\n" for line in lines).encode())
    size = store.head(KEY).size
    batches = list(Lines().read(Split("memory://", KEY, 0, size, size, etag), store).batches())
    assert len(batches) > 2
    assert all(batches)
    assert [line for batch in batches for line in batch] == lines


def test_a_bom_is_dropped_at_offset_0_only() -> None:
    """utf-8 and utf-8-sig are the same here; a BOM further on is a character of its line."""
    data = "\ufeffa\n\ufeffb\n".encode()
    for encoding in ("utf-8", "utf-8-sig", "UTF8"):
        assert read_all(data, 4, Lines(encoding)) == ["a", "\ufeffb"]
    assert read_all(data, 4, Lines(None)) == [b"\xef\xbb\xbfa", b"\xef\xbb\xbfb"]


def test_a_file_of_a_bom_alone_has_no_lines() -> None:
    """Its three bytes are accounted for all the same."""
    assert read_all("\ufeff".encode(), 2, Lines()) == []


@pytest.mark.parametrize("split_bytes", [1, 5, 100])
def test_undecodable_text_names_file_offset_and_bytes(split_bytes: int) -> None:
    """The offset counts from the file's start, wherever the split begins."""
    with pytest.raises(
        CorruptInput, match=re.escape(r"input.txt is not utf-8 text: bytes b'\xff'")
    ):
        read_all(b"good\nlines\nb\xffd\n", split_bytes, Lines())
    with pytest.raises(CorruptInput, match="at offset 12 "):
        read_all(b"good\nlines\nb\xffd\n", split_bytes, Lines())


@pytest.mark.parametrize("block_bytes", [1000, 1_000_000])
def test_the_offset_is_right_far_into_a_block(block_bytes: int) -> None:
    """Blocks are decoded in pieces, and the offset is still the file's."""
    data = b"twenty bytes a line\n" * 20_000
    reader = Lines(block_bytes=block_bytes)
    with pytest.raises(CorruptInput, match="at offset 300003 "):
        read_all(data[:300_003] + b"\xff" + data[300_004:], len(data), reader)


@pytest.mark.parametrize("block_bytes", [1, 3, 4, 100])
def test_undecodable_utf_16_names_the_offset(block_bytes: int) -> None:
    """A cut-off surrogate is found at its offset, for blocks of any size."""
    data = "ab\n".encode("utf-16-le") + b"\x00\xdc" + "c".encode("utf-16-le")
    with pytest.raises(CorruptInput, match="at offset 6 "):
        read_all(data, len(data), Lines("utf-16-le", block_bytes=block_bytes))


def test_a_cut_encoding_that_cannot_be_cut_is_refused() -> None:
    """A split of a part of a UTF-16 object is an error of the planner, not wrong lines."""
    store, etag = stored("a\nb\n".encode("utf-16-le"))
    with pytest.raises(ValueError, match=r"utf-16-le text cannot be cut at a byte.*\[0, 4\)"):
        Lines("utf-16-le").read(Split("memory://", KEY, 0, 4, 8, etag), store)


def test_an_object_that_was_replaced_is_input_changed() -> None:
    """The etag of the plan is asked for with every read."""
    store, etag = stored(b"a\nb\n")
    store.put(KEY, b"c\nd\n")
    with pytest.raises(InputChanged):
        list(Lines().read(Split("memory://", KEY, 0, 4, 4, etag), store))


def test_an_object_that_shrank_or_went_is_input_changed() -> None:
    """Without an etag, the size tells; an object that is gone is no missing file."""
    store, _ = stored(b"a\nb\n")
    with pytest.raises(
        InputChanged, match="had 9 bytes when the job was planned and ends now at 4"
    ):
        list(Lines().read(Split("memory://", KEY, 0, 9, 9, ""), store))
    store.delete([KEY])
    with pytest.raises(InputChanged, match="is gone"):
        list(Lines().read(Split("memory://", KEY, 0, 4, 4, ""), store))


@pytest.mark.parametrize(
    ("encoding", "errors", "message"),
    [("utf-99", "strict", "utf-99"), ("hex", "strict", "hex"), ("utf-8", "sloppy", "sloppy")],
)
def test_unknown_encodings_and_handlers_are_refused(
    encoding: str, errors: str, message: str
) -> None:
    """At once, where the user wrote them, with the value and what to give."""
    with pytest.raises(ValueError, match=rf"{message}.*Give"):
        Lines(encoding, errors)


def test_a_block_of_no_bytes_is_refused() -> None:
    """A reader that would never come to an end cannot be made."""
    with pytest.raises(ValueError, match="block_bytes must be >= 1, got 0"):
        Lines(block_bytes=0)


def test_the_account_grows_batch_by_batch() -> None:
    """Before the end, the stream has counted what was begun; after it, all."""
    store, etag = stored(b"a\nb\n")
    stream: RecordStream = Lines().read(Split("memory://", KEY, 0, 4, 4, etag), store)
    assert (stream.records, stream.owned_bytes) == (0, 0)
    assert list(stream) == ["a", "b"]
    assert (stream.records, stream.owned_bytes) == (2, 4)
