r"""Rows of CSV as records.

A quoted field may hold newlines, so that only a read from the start tells which newline ends a row:
CSV objects are read whole unless the caller promises that there are none.

    quoted newlines      texts ─ csv.reader over the whole object ─▶ rows
    none                 runs of lines ─ csv.reader per run ─▶ rows;  a run with a bad row: per line
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from lambdamr_runtime.blocks import BLOCK_BYTES, Content
from lambdamr_runtime.compression import INFER
from lambdamr_runtime.errors import CorruptInput
from lambdamr_runtime.limits import MIB
from lambdamr_runtime.records import Batch, RecordStream, check_reading
from lambdamr_runtime.splits import Split
from lambdamr_runtime.store import Ranges
from lambdamr_runtime.texts import (
    SPLITTABLE_ENCODINGS,
    bad_record,
    bytes_lines,
    check_error_handler,
    check_on_bad_record,
    encoding_name,
    line_by_line,
    line_text,
    raise_undecodable,
    raw_lines,
    text_lines,
    text_of,
    whole_texts,
)

if TYPE_CHECKING:
    from _csv import Reader

BATCH_ROWS = 1000
"""Rows that are handed on at a time."""

FIELD_CHARS = 16 * MIB
"""Longest CSV field. Python's csv module stops at 131,072 characters, which real columns exceed;
without a limit, a stray quote makes one field of the rest of an object."""

_UNDECODED = re.compile("[\udc80-\udcff]")
"""What the handler surrogateescape makes of bytes that the encoding does not have."""

Fields = list[Any]
"""One row: str, or float where the dialect converts unquoted fields."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How CSV fields are separated and quoted: the parameters of csv.reader, whose words they are.

    strict is True here unless it is asked for: a stray quote is a bad row, not a guess.
    """

    delimiter: str = ","
    quotechar: str | None = '"'
    escapechar: str | None = None
    doublequote: bool = True
    skipinitialspace: bool = False
    quoting: int = csv.QUOTE_MINIMAL
    strict: bool = True

    @classmethod
    def of(cls, dialect: Any, **parameters: Any) -> "Dialect":
        """Return what csv.reader(file, dialect, **parameters) would go by; Any: as there.

        Raises:  ValueError, TypeError: csv.reader refuses them.
        """
        try:
            found = csv.reader((), dialect, **{"strict": True, **parameters}).dialect
        except csv.Error as error:
            raise ValueError(
                f"dialect={dialect!r} with {parameters} is no CSV dialect: {error}. "
                f"Named ones are {', '.join(csv.list_dialects())}."
            ) from error
        return cls(
            found.delimiter,
            found.quotechar,
            found.escapechar,
            bool(found.doublequote),
            bool(found.skipinitialspace),
            found.quoting,
            bool(found.strict),
        )

    def reader(self, lines: Iterator[str]) -> "Reader":
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quotechar,
            escapechar=self.escapechar,
            doublequote=self.doublequote,
            skipinitialspace=self.skipinitialspace,
            quoting=self.quoting,  # type: ignore[arg-type]  # typed as a literal
            strict=self.strict,
        )


@dataclass(frozen=True, slots=True)
class Csv:
    """Rows of CSV: dicts by column name, as csv.DictReader gives them, or tuples.

    Empty rows are none. Unlike csv.DictReader, a row with more or fewer fields than there are
    columns is bad, not filled up.

    Raises:  ValueError: as Lines; columns or header that cannot be meant.
    """

    header: bool | tuple[str, ...] = True
    """True: the first row names the columns. Names: they do, and the first row is data. False:
    there are no names, and rows are tuples."""
    columns: tuple[str | int, ...] | None = None
    """What of each row is wanted, in this order: names, or indices from 0; None: all."""
    tuples: bool = False
    dialect: Dialect = field(default_factory=Dialect)
    quoted_newlines: bool = True
    """False promises that no field holds a newline: then objects are split."""
    encoding: str = "utf-8"
    errors: str = "strict"
    block_bytes: int = BLOCK_BYTES
    compression: str | None = INFER
    on_bad_record: str = "raise"
    """Or "skip": a row that cannot be decoded or parsed, or has another number of fields than
    there are columns, is left out and counted. A bad header is always raised."""

    def __post_init__(self) -> None:
        check_reading(self.block_bytes, self.compression)
        object.__setattr__(self, "encoding", encoding_name(self.encoding))
        check_error_handler(self.errors)
        check_on_bad_record(self.on_bad_record, self.encoding)
        if isinstance(self.header, tuple):
            _Layout.of(self.header, self)
        elif not self.header and any(isinstance(column, str) for column in self.columns or ()):
            raise ValueError(
                f"columns={self.columns!r} names columns, but header=False says that they have no "
                "names. Give indices, or the names as header=[...]."
            )

    @property
    def splittable(self) -> bool:
        return not self.quoted_newlines and self.encoding in SPLITTABLE_ENCODINGS

    @property
    def reads_empty(self) -> bool:
        return False

    def read(self, split: Split, store: Ranges) -> RecordStream:
        """Return the rows that the split owns; the header is owned by the first split.

        Raises:  as Lines.read; CorruptInput: a bad row or header.
        """
        csv.field_size_limit(max(csv.field_size_limit(), FIELD_CHARS))
        content = Content(split, store, self.block_bytes, self.compression)
        if self.splittable:
            return RecordStream(self._line_batches(content), content)
        content.check_whole("CSV that may hold quoted newlines")
        return RecordStream(self._whole_batches(content), content)

    # --- rows that may span lines ---------------------------------------------------------------
    def _whole_batches(self, content: Content) -> Iterator[Batch]:
        texts = _Texts(self, content)
        reader = self.dialect.reader(texts.lines())
        layout = self._layout(content, reader, texts.is_broken)
        rows: list[Fields] = []
        bad = 0
        while True:  # a bad row ends the loop over the reader, which can go on behind it
            try:
                for row in reader:
                    if layout.fits(row) and not texts.is_broken(row):
                        rows.append(row)
                    elif row:
                        bad += self._refused(content, f"line {reader.line_num}", layout, row)
                    if len(rows) == BATCH_ROWS:
                        yield Batch(layout.records(rows), texts.taken_bytes(), bad)
                        rows, bad = [], 0
                break
            except (csv.Error, ValueError) as error:
                if self.on_bad_record == "raise":
                    place = f"line {reader.line_num}"
                    raise bad_record(content, "CSV", place, error) from error
                bad += 1
        yield Batch(layout.records(rows), texts.taken_bytes(), bad)

    def _layout(
        self,
        content: Content,
        rows: Iterator[Fields],
        is_broken: Callable[[Fields], bool] = lambda _: False,
    ) -> "_Layout":
        """Return the layout of an object, its header taken from *rows* if it has one."""
        if self.header is not True:
            return _Layout.of(self.header or None, self)
        try:
            names = next(rows, None)
        except (csv.Error, ValueError) as error:
            raise bad_record(content, "CSV", "its header", error) from error
        if names is None:
            return _Layout.of(None, self)  # an object without any row
        if is_broken(names):
            raise bad_record(content, "CSV", "its header", "it cannot be decoded", repr(names))
        try:
            return _Layout.of(names, self)
        except ValueError as error:
            raise CorruptInput(f"The header of {content.uri} cannot be used: {error}") from error

    def _refused(self, content: Content, place: str, layout: "_Layout", row: Fields) -> int:
        """Count a bad row, or raise CorruptInput for it."""
        if self.on_bad_record == "raise":
            raise bad_record(content, "CSV", place, layout.complaint(row), repr(row))
        return 1

    # --- rows that are lines --------------------------------------------------------------------
    def _line_batches(self, content: Content) -> Iterator[Batch]:
        layout: _Layout | None = None
        for start, found in content.line_runs():
            at, run = start, found
            if layout is None:
                head = next(raw_lines(run)) if at == 0 else b""
                if self.header is True:
                    layout = self._header_layout(head or content.first_line(), content)
                    yield Batch([], len(head))
                    at, run = at + len(head), run[len(head) :]
                else:
                    layout = _Layout.of(self.header or None, self)
            if run:
                yield self._batch(run, at, content, layout)

    def _header_layout(self, head: bytes, content: Content) -> "_Layout":
        text = line_text(bytes_lines(head)[0], 0, self.encoding, self.errors, content)
        is_bom = not text and not head.endswith(b"\n")
        return self._layout(content, self.dialect.reader(iter(() if is_bom else (text,))))

    def _batch(self, run: bytes, at: int, content: Content, layout: "_Layout") -> Batch:
        """Return the rows of lines. If all is well with them they are parsed at once.

        A row that does not end with its line is bad: it must be so wherever a run ends.
        """
        try:
            lines = text_lines(text_of(run, at, self.encoding))
            rows = list(self.dialect.reader(iter(lines)))
            if len(rows) == len(lines) and all(map(layout.fits_or_empty, rows)):
                return Batch(layout.records([row for row in rows if row]), len(run))
        except (csv.Error, ValueError):  # UnicodeDecodeError among them
            pass
        parse = self._parser(content, layout)
        records, bad = line_by_line(run, at, parse, self.on_bad_record == "skip")
        return Batch(records, len(run), bad)

    def _parser(self, content: Content, layout: "_Layout") -> Callable[[bytes, int], list[Any]]:
        def parse(raw: bytes, at: int) -> list[Any]:
            line = line_text(raw, at, self.encoding, self.errors, content)
            try:
                rows = list(self.dialect.reader(iter((line,))))
            except (csv.Error, ValueError) as error:
                raise bad_record(content, "CSV", content.place(at), error, line) from error
            rows = [row for row in rows if row]
            for row in rows:
                if not layout.fits(row):
                    reason = layout.complaint(row)
                    raise bad_record(content, "CSV", content.place(at), reason, line)
            return layout.records(rows)

        return parse


class _Texts:
    """The lines of a whole object for csv.reader, and how many bytes were read for them."""

    def __init__(self, reader: Csv, content: Content) -> None:
        self._reader = reader
        self._content = content
        self._fed = 0
        self._has_broken = False

    def lines(self) -> Iterator[str]:
        r"""Return the lines with their ends; \n ends a line and nothing else."""
        return chain.from_iterable(io.StringIO(text, newline="\n") for text in self._texts())

    def taken_bytes(self) -> int:
        """Return the bytes that were read since this was last asked."""
        fed, self._fed = self._fed, 0
        return fed

    def is_broken(self, row: Fields) -> bool:
        """Whether a row holds bytes that could not be decoded and are to be skipped."""
        return self._has_broken and any(
            isinstance(value, str) and _UNDECODED.search(value) for value in row
        )

    def _texts(self) -> Iterator[str]:
        encoding, errors = self._reader.encoding, self._reader.errors
        if encoding not in SPLITTABLE_ENCODINGS:
            for text, size in whole_texts(self._content, encoding, errors):
                self._fed += size
                yield text
            return
        for at, run in self._content.line_runs():
            self._fed += len(run)
            try:
                yield text_of(run, at, encoding)
            except UnicodeDecodeError as error:
                if errors == "strict" and self._reader.on_bad_record == "raise":
                    raise_undecodable(self._content, encoding, error, at)
                yield "".join(self._broken_lines(run, at))

    def _broken_lines(self, run: bytes, at: int) -> Iterator[str]:
        r"""Yield the lines of a run, each decoded by itself, with their ends.

        A line that is to be skipped may be a part of a row: its bytes are kept, marked, and the
        row is skipped.
        """
        encoding, errors = self._reader.encoding, self._reader.errors
        for raw in raw_lines(run):
            body = raw.rstrip(b"\r\n")
            end = raw[len(body) :].decode()
            try:
                yield line_text(body, at, encoding, errors, self._content) + end
            except CorruptInput:
                if self._reader.on_bad_record == "raise":
                    raise
                self._has_broken = True
                yield body.decode("ascii", "surrogateescape") + end
            at += len(raw)


class _Layout:
    """What the fields of a row are, and what is wanted of them."""

    def __init__(
        self, names: Sequence[str] | None, indices: tuple[int, ...] | None, as_dicts: bool
    ) -> None:
        self._width = None if names is None else len(names)
        self._needed = max(indices or (-1,)) + 1
        self._indices = indices
        self._names = names
        self._as_dicts = as_dicts

    @classmethod
    def of(cls, names: Sequence[str] | None, reader: Csv) -> "_Layout":
        """Return the layout of rows with these columns; None: they have no names.

        Raises:  ValueError: a name is there twice, or a wanted column is not.
        """
        columns = reader.columns
        if names is None:
            known = tuple(column for column in columns or () if isinstance(column, int))
            return cls(None, None if columns is None else known, as_dicts=False)
        if not names:
            raise ValueError("it is empty. Give the names of the columns as header=[...].")
        indices = None if columns is None else tuple(_index(column, names) for column in columns)
        wanted = names if indices is None else [names[index] for index in indices]
        if not reader.tuples and len(set(wanted)) < len(wanted):
            twice = next(name for name in wanted if wanted.count(name) > 1)
            raise ValueError(
                f"it has the column {twice!r} twice, so a dict cannot hold a row. Give other names "
                "as header=[...], choose columns=, or take tuples=True."
            )
        return cls(names, indices, not reader.tuples)

    def fits(self, row: Fields) -> bool:
        if self._width is not None:
            return len(row) == self._width
        return len(row) >= max(1, self._needed)

    def fits_or_empty(self, row: Fields) -> bool:
        return not row or self.fits(row)

    def complaint(self, row: Fields) -> str:
        if self._width is not None and len(row) != self._width:
            return f"{len(row)} fields, {self._width} columns"
        if len(row) < self._needed:
            return f"{len(row)} fields, columns= needs {self._needed}"
        return "it cannot be decoded"

    def records(self, rows: list[Fields]) -> list[Any]:
        """Return what a mapper gets of rows that fit."""
        names = self._names or ()
        if self._indices is None:
            if not self._as_dicts:
                return [*map(tuple, rows)]
            return [dict(zip(names, row, strict=True)) for row in rows]
        indices = self._indices
        if len(indices) == 1:
            chosen: list[tuple[Any, ...]] = [(row[indices[0]],) for row in rows]
        elif indices:
            chosen = [*map(itemgetter(*indices), rows)]
        else:
            chosen = [() for _ in rows]
        if not self._as_dicts:
            return chosen
        wanted = [names[index] for index in indices]
        return [dict(zip(wanted, row, strict=True)) for row in chosen]


def _index(column: str | int, names: Sequence[str]) -> int:
    """Return the index of a wanted column."""
    if isinstance(column, int):
        if 0 <= column < len(names):
            return column
        raise ValueError(f"columns= wants column {column}, and there are {len(names)}.")
    if column not in names:
        raise ValueError(f"columns= wants {column!r}, and there are {', '.join(map(repr, names))}.")
    return names.index(column)
