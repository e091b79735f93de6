"""CSV: the rows that csv.DictReader gives, for every split size where objects may be cut."""

import csv
import gzip
import io
import re
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lambdamr_runtime.errors import CorruptInput
from lambdamr_runtime.tables import Csv, Dialect
from tests.splitting import read_all, read_counted, read_whole

SIZES = st.integers(min_value=1, max_value=40)
PLAIN = st.text(alphabet='ab ,;"é\t\u2028', max_size=5)
WITH_NEWLINES = st.text(alphabet='ab,;"é\r\n', max_size=5)
BOMS = st.sampled_from(["", "\ufeff"])
DIALECTS: dict[str, dict[str, Any]] = {
    "excel": {},
    "tab": {"dialect": "excel-tab"},
    "unix": {"dialect": "unix"},
    "semicolon": {"delimiter": ";", "quotechar": "'"},
    "escaped": {"quoting": csv.QUOTE_NONE, "escapechar": "\\"},
    "doubled off": {"doublequote": False, "escapechar": "\\"},
}


def written(rows: list[list[str]], bom: str = "", end: str = "\n", **dialect: Any) -> bytes:
    """Return rows as csv.writer writes them."""
    out = io.StringIO(newline="")
    csv.writer(out, **{"lineterminator": end, **dialect}).writerows(rows)
    return (bom + out.getvalue()).encode()


def dialect_of(options: dict[str, Any]) -> Dialect:
    return Dialect.of(**{"dialect": "excel", **options})


def expected(data: bytes, **options: Any) -> list[dict[Any, Any]]:
    """Return what csv.DictReader gives."""
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), **options))


def rows_of(field: st.SearchStrategy[str]) -> st.SearchStrategy[list[list[str]]]:
    return st.lists(st.lists(field, min_size=2, max_size=2), max_size=8)


# --- the law -------------------------------------------------------------------------------------


@given(
    rows=rows_of(PLAIN),
    options=st.sampled_from(list(DIALECTS.values())),
    bom=BOMS,
    end=st.sampled_from(["\n", "\r\n"]),
    has_final_newline=st.booleans(),
    split_bytes=SIZES,
    block_bytes=SIZES,
)
@settings(max_examples=400, deadline=None)
def test_rows_are_those_of_the_file(
    rows: list[list[str]],
    options: dict[str, Any],
    bom: str,
    end: str,
    has_final_newline: bool,
    split_bytes: int,
    block_bytes: int,
) -> None:
    """Any split and block size, dialect, line end and BOM: as csv.DictReader, the header once."""
    data = written([["k", "välue"], *rows], bom, end, **options)
    data = data if has_final_newline else data.removesuffix(end.encode())
    reader = Csv(dialect=dialect_of(options), quoted_newlines=False, block_bytes=block_bytes)
    found = read_all(data, split_bytes, reader)
    assert found == expected(data, **options)
    whole = Csv(dialect=dialect_of(options), block_bytes=block_bytes)
    assert read_whole(data, "a.csv", whole) == found


@given(rows=rows_of(WITH_NEWLINES), bom=BOMS, block_bytes=SIZES)
@settings(max_examples=300, deadline=None)
def test_quoted_newlines_are_kept(rows: list[list[str]], bom: str, block_bytes: int) -> None:
    r"""Whole objects, whatever the blocks: \n, \r\n and \r in fields stay what they are."""
    data = written([["k", "new\nline"], *rows], bom, "\r\n")
    found = read_whole(data, "a.csv", Csv(block_bytes=block_bytes))
    assert found == expected(data)
    assert [[*row.values()] for row in found] == rows


GOOD_ROWS = {b"1,2": ("1", "2"), b'"3","4"': ("3", "4"), b'5",6': ('5"', "6")}
BAD_ROWS = [b"1", b'"1', b"1,2,3", b'"1,2', b'"1"x,2', b"\xff,2", b'1,"\xe9"', b"1\r,2", b"\xa0,1"]


@given(
    lines=st.lists(st.sampled_from([*GOOD_ROWS, b"", *BAD_ROWS]), max_size=12),
    split_bytes=SIZES,
    block_bytes=SIZES,
)
@settings(max_examples=400, deadline=None)
def test_bad_rows_are_skipped_and_counted(
    lines: list[bytes], split_bytes: int, block_bytes: int
) -> None:
    """Any split size: good rows in order, bad ones counted, every byte accounted for.

    A quote that its line does not close is one bad row, wherever a run of lines ends.
    """
    data = b"\n".join([b"a,b", b"0,0", *lines])
    reader = Csv(tuples=True, quoted_newlines=False, block_bytes=block_bytes, on_bad_record="skip")
    rows, bad = read_counted(data, split_bytes, reader)
    assert rows == [("0", "0"), *(GOOD_ROWS[line] for line in lines if line in GOOD_ROWS)]
    assert bad == sum(line in BAD_ROWS for line in lines)


@pytest.mark.parametrize("block_bytes", [1, 7, 1000])
def test_bad_rows_of_a_whole_object_are_skipped_and_counted(block_bytes: int) -> None:
    """Undecodable bytes in a row of several lines make that row bad, and no other."""
    data = b'a,b\n1,2\n1,"\xff\nx"\n3\n"x"y,1\n\n5,6\n"open'
    reader = Csv(tuples=True, block_bytes=block_bytes, on_bad_record="skip")
    assert read_counted(data, len(data), reader) == ([("1", "2"), ("5", "6")], 4)


# --- headers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("split_bytes", [1, 3, 8, 100])
def test_names_can_be_given(split_bytes: int) -> None:
    """Then the first row is data; without names, rows are tuples of any length."""
    data = b"1,2\n3,4\n"
    named = Csv(header=("x", "y"), quoted_newlines=False)
    assert read_all(data, split_bytes, named) == [{"x": "1", "y": "2"}, {"x": "3", "y": "4"}]
    bare = Csv(header=False, quoted_newlines=False)
    assert read_all(data + b"5\n", split_bytes, bare) == [("1", "2"), ("3", "4"), ("5",)]


def test_a_header_longer_than_several_splits_is_read_by_all() -> None:
    """And owned by the first; its size is no limit."""
    name = "n" * 200_000
    data = f"{name},b\n1,2\n3,4\n".encode()
    reader = Csv(quoted_newlines=False)
    assert read_all(data, 100_001, reader) == [{name: "1", "b": "2"}, {name: "3", "b": "4"}]


@pytest.mark.parametrize("data", [b"", b"\xef\xbb\xbf", b"a,b", b"a,b\r\n"])
def test_a_file_without_rows_has_none(data: bytes) -> None:
    """Empty, of a BOM alone, or of a header alone."""
    for quoted_newlines in (True, False):
        assert read_whole(data, "a", Csv(quoted_newlines=quoted_newlines)) == []


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"a,a", "the column 'a' twice"),
        (b"", "it is empty"),
        (b"a,b", "columns= wants 'c', and there are 'a', 'b'"),
        (b'"a', "is no CSV at"),
        (b"\xff", r"is no CSV at its header|is not utf-8 text: bytes b'\\xff'"),
    ],
)
@pytest.mark.parametrize("quoted_newlines", [True, False])
@pytest.mark.parametrize("on_bad_record", ["raise", "skip"])
def test_a_bad_header_is_corrupt(
    header: bytes, message: str, quoted_newlines: bool, on_bad_record: str
) -> None:
    """It is never skipped: without it no row means anything."""
    reader = Csv(
        columns=("c",) if b"b" in header else None,
        quoted_newlines=quoted_newlines,
        on_bad_record=on_bad_record,
    )
    with pytest.raises(CorruptInput, match=message):
        read_whole(header + b"\n", "a.csv", reader)


def test_columns_of_one_name_can_be_tuples() -> None:
    """Only a dict cannot hold them."""
    assert read_whole(b"a,a\n1,2\n", "a", Csv(tuples=True)) == [("1", "2")]
    assert read_whole(b"a,a,b\n1,2,3\n", "a", Csv(columns=("b",))) == [{"b": "3"}]


# --- columns, fields, dialects -------------------------------------------------------------------


@pytest.mark.parametrize("quoted_newlines", [True, False])
@pytest.mark.parametrize(
    ("columns", "expected_tuple"),
    [(("c", "a"), ("3", "1")), (("b",), ("2",)), ((2, "a"), ("3", "1")), ((), ())],
)
def test_columns_are_chosen_in_the_order_asked_for(
    quoted_newlines: bool, columns: tuple[str | int, ...], expected_tuple: tuple[str, ...]
) -> None:
    """By name or index; dicts have these keys only."""
    data = b"a,b,c\n1,2,3\n"
    as_tuples = Csv(columns=columns, tuples=True, quoted_newlines=quoted_newlines)
    assert read_whole(data, "a", as_tuples) == [expected_tuple]
    names = [column if isinstance(column, str) else "abc"[column] for column in columns]
    as_dicts = Csv(columns=columns, quoted_newlines=quoted_newlines)
    (row,) = read_whole(data, "a", as_dicts)
    assert [*row.items()] == [*zip(names, expected_tuple, strict=True)]


@pytest.mark.parametrize("quoted_newlines", [True, False])
def test_rows_without_a_wanted_column_are_bad(quoted_newlines: bool) -> None:
    """Where there is no header, the columns asked for say how long a row must be."""
    reader = Csv(header=False, columns=(1,), quoted_newlines=quoted_newlines, on_bad_record="skip")
    assert read_counted(b"1,2\n3\n4,5,6\n", 100, reader) == ([("2",), ("5",)], 1)


@pytest.mark.parametrize(
    ("data", "quoted_newlines", "message"),
    [
        (b"a,b\n1,2\n3\n", True, "is no CSV at line 3 (1 fields, 2 columns): \"['3']\""),
        (b"a,b\n1,2\n3\n", False, "is no CSV at offset 8 (1 fields, 2 columns): '3'"),
        (b'a,b\n1,"2\n', True, "is no CSV at line 2 (unexpected end of data)"),
        (b'a,b\n1,"2\n', False, "is no CSV at offset 4 (unexpected end of data)"),
        (b"a,b\n1,\xff\n", True, r"is not utf-8 text: bytes b'\xff' at offset 6"),
        (b"a,b\n1,\xff\n", False, r"is not utf-8 text: bytes b'\xff' at offset 6"),
    ],
)
def test_a_bad_row_is_named(data: bytes, quoted_newlines: bool, message: str) -> None:
    """With its place, what is wrong, and what it is; csv.DictReader would fill it up."""
    with pytest.raises(CorruptInput, match=re.escape(message)):
        read_whole(data, "a.csv", Csv(quoted_newlines=quoted_newlines))


def test_long_fields_are_read() -> None:
    """Python's csv module stops at 131,072 characters."""
    data = b"a\n" + b"x" * 300_000 + b"\n"
    for quoted_newlines in (True, False):
        reader = Csv(quoted_newlines=quoted_newlines)
        assert read_whole(data, "a.csv", reader) == [{"a": "x" * 300_000}]


def test_numbers_can_be_converted() -> None:
    """As of csv.QUOTE_NONNUMERIC; what is no number is a bad row."""
    dialect = Dialect.of("excel", quoting=csv.QUOTE_NONNUMERIC)
    for quoted_newlines in (True, False):
        reader = Csv(
            header=False,
            dialect=dialect,
            quoted_newlines=quoted_newlines,
            on_bad_record="skip",
        )
        assert read_counted(b'"a",1.5\nx,2\n', 100, reader) == ([("a", 1.5)], 1)


def test_csv_in_utf_16_is_read_whole() -> None:
    """As spreadsheets export it; quoted newlines or not."""
    data = 'a\tb\r\né\t"x\r\ny"\r\n'.encode("utf-16")
    for quoted_newlines in (True, False):
        reader = Csv(
            encoding="utf-16",
            dialect=Dialect.of("excel-tab"),
            quoted_newlines=quoted_newlines,
        )
        assert not reader.splittable
        assert read_whole(data, "a", reader) == [{"a": "é", "b": "x\r\ny"}]


def test_broken_text_can_be_replaced() -> None:
    """errors= is as of bytes.decode, in rows of one line and of several."""
    data = b'a,b\n\xff,"x\n\xff"\n'
    assert read_whole(data, "a", Csv(tuples=True, errors="replace")) == [("\ufffd", "x\n\ufffd")]


@pytest.mark.parametrize("quoted_newlines", [True, False])
def test_csv_may_be_compressed(quoted_newlines: bool) -> None:
    """Member after member; the header is that of the first."""
    data = gzip.compress(b"a,b\n1,") + gzip.compress(b"2\n3,4")
    reader = Csv(quoted_newlines=quoted_newlines)
    assert read_whole(data, "a.csv.gz", reader) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_a_stray_quote_can_be_tolerated() -> None:
    """strict=False is as of csv.reader; without it, it is a bad row."""
    lenient = Csv(header=False, dialect=Dialect.of("excel", strict=False))
    assert read_whole(b'"a"b,c\n', "a", lenient) == [("ab", "c")]
    with pytest.raises(CorruptInput, match="expected after"):
        read_whole(b'"a"b,c\n', "a", Csv(header=False))


def test_dialects_are_those_of_the_csv_module() -> None:
    """A name, a class, an instance of csv.Sniffer's, or single parameters."""

    class Semicolons(csv.excel):
        delimiter = ";"

    assert Dialect.of("excel") == Dialect()
    assert Dialect.of(Semicolons) == Dialect.of(Semicolons()) == Dialect(delimiter=";")
    assert Dialect.of("excel-tab", quotechar="'") == Dialect(delimiter="\t", quotechar="'")
    with pytest.raises(ValueError, match=r"'pipes'.*Named ones are excel"):
        Dialect.of("pipes")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"header": ("a", "a")}, "the column 'a' twice"),
        ({"header": ("a",), "columns": ("b",)}, "wants 'b'"),
        ({"header": ("a",), "columns": (1,)}, "wants column 1, and there are 1"),
        ({"header": False, "columns": ("b",)}, "header=False says that they have no names"),
        ({"on_bad_record": "ignore"}, "must be 'raise' or 'skip', got 'ignore'"),
        ({"on_bad_record": "skip", "encoding": "utf-16"}, "cannot tell where"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    """At once, where the user wrote them."""
    with pytest.raises(ValueError, match=message):
        Csv(**options)


@given(data=st.lists(st.sampled_from([b"a", b",", b'"', b"\n", b"\r\n", b"\xff"]), max_size=20))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_accounted_for(data: list[bytes]) -> None:
    """Rows good and bad, whole or cut: the bytes of all are the file's."""
    body = b"".join(data)
    assume(body)
    for quoted_newlines, split_bytes in ((True, len(body)), (False, 3)):
        reader = Csv(header=False, quoted_newlines=quoted_newlines, on_bad_record="skip")
        read_counted(body, split_bytes, reader)
