r"""The formats of output files: from (key, value) pairs to bytes. Pure.

    jsonl   {"key": "the", "value": 4331}   the fields have the names of *columns*, where given
    csv     the,4331                        a header line of *columns*, where given
    text    the<tab>4331                    str() of both; without the tab where one is None
    pickle  lists of pairs, one pickle after the other: the job's own parts as they are

A key or value that is a tuple stands for several fields of a jsonl or csv row: ("a", 2024), 3 are
the fields a, 2024, 3. What a format cannot hold is UnwritablePair, never written some other way.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, time
from decimal import Decimal
from typing import Any, NoReturn
from uuid import UUID

from lambdamr_runtime.errors import UnwritablePair
from lambdamr_runtime.pairs import Pair, shown

SUFFIXES = {"pickle": ".pickle", "jsonl": ".jsonl", "csv": ".csv", "text": ".txt"}
"""The formats, and how the names of their files end."""

WITH_COLUMNS = ("jsonl", "csv")

_CELLS = (str, int, float, bool, type(None), Decimal, date, time, UUID)
"""What one cell of a CSV row may be; their subclasses too."""

_PLAIN = frozenset({str, int})
"""Cells of these very types need no look."""


@dataclass(frozen=True, slots=True)
class Format:
    """How pairs are written to files."""

    name: str
    """One of SUFFIXES."""
    columns: tuple[str, ...] = ()
    """Names of the fields; none: "key" and "value" in jsonl, no header in csv."""

    @property
    def suffix(self) -> str:
        return SUFFIXES[self.name]

    @property
    def is_pickle(self) -> bool:
        return self.name == "pickle"

    @property
    def header(self) -> bytes:
        """What every file begins with."""
        if self.name != "csv" or not self.columns:
            return b""
        return "".join(_csv_lines([self.columns])).encode()

    def encode(self, pairs: Sequence[Pair]) -> bytes:
        """Return the lines of pairs; not for pickle.

        Raises:  UnwritablePair: the format cannot hold one of them.
        """
        lines = _ENCODERS[self.name]
        try:
            return "".join(lines(pairs, self.columns)).encode()
        except (TypeError, ValueError, RecursionError):
            for pair in pairs:
                self._explain(pair, lines)
            raise

    def _explain(self, pair: Pair, lines: "Encoder") -> None:
        try:
            "".join(lines([pair], self.columns)).encode()
        except _WrongWidth as error:
            raise UnwritablePair(
                f"columns={list(self.columns)!r} does not fit the key {shown(pair[0])} with the "
                f"value {shown(pair[1])}: {error}. Give columns= a name per field; a tuple makes "
                "several."
            ) from error
        except (TypeError, ValueError, RecursionError) as error:
            raise UnwritablePair(
                f"format={self.name!r} cannot hold the key {shown(pair[0])} with the value "
                f"{shown(pair[1])}: {error}. {_ADVICE[self.name]}"
            ) from error


class _WrongWidth(ValueError):
    """A row has not as many fields as columns= names."""


Encoder = Callable[[Sequence[Pair], tuple[str, ...]], Iterable[str]]
"""(pairs, columns) -> lines, each with its end; raises TypeError, ValueError."""

_ADVICE = {
    "jsonl": "Yield str, numbers, None, lists and dicts of them, or take format='pickle'.",
    "csv": "Yield str, numbers, dates, None or tuples of them, or take format='jsonl'.",
    "text": "Yield what is one line as str(), or take format='jsonl'.",
}


def _text_lines(pairs: Sequence[Pair], _: tuple[str, ...]) -> Iterator[str]:
    for key, value in pairs:
        texts = [_line_of(each) for each in (key, value) if each is not None]
        if len(texts) == 2 and "\t" in texts[0]:
            raise ValueError("the key has a tab, which is what ends a key")
        yield "\t".join(texts) + "\n"


def _line_of(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        raise TypeError("bytes have no text; decode them")
    text = str(value)
    if "\n" in text or "\r" in text:
        raise ValueError("there is a line break in it")
    return text


def _json_lines(pairs: Sequence[Pair], columns: tuple[str, ...]) -> Iterator[str]:
    encode = json.JSONEncoder(
        ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_json_value
    ).encode
    for key, value in pairs:
        if columns:
            row = dict(zip(columns, _row(key, value, columns), strict=True))
            yield encode(row) + "\n"
        else:
            yield encode({"key": key, "value": value}) + "\n"


def _json_value(value: Any) -> Any:
    """Return what stands for a value that JSON has no form for."""
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if hasattr(value, "dtype") and not getattr(value, "shape", True):
        return value.item()  # a numpy scalar
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _csv_rows(pairs: Sequence[Pair], columns: tuple[str, ...]) -> list[str]:
    rows = [_row(key, value, columns) for key, value in pairs]
    for row in rows:
        for cell in row:
            if type(cell) not in _PLAIN and not isinstance(cell, _CELLS):
                if hasattr(cell, "dtype") and not getattr(cell, "shape", True):
                    continue  # a numpy scalar
                raise TypeError(f"{type(cell).__name__} is no cell of a table")
    return _csv_lines(rows)


def _csv_lines(rows: Iterable[Sequence[object]]) -> list[str]:
    r"""Return rows as lines that end with \n; a field with any line break is quoted.

    Before Python 3.13 a lone \r was quoted only where it belongs to the line's end: so that is
    \r\n for the writer.
    """
    lines = _Lines()
    csv.writer(lines, lineterminator="\r\n").writerows(rows)
    return lines


class _Lines(list[str]):
    """What csv.writer writes to: it calls once per row."""

    def write(self, row: str) -> None:
        self.append(f"{row[:-2]}\n")


def _row(key: object, value: object, columns: tuple[str, ...]) -> Sequence[object]:
    keys = key if isinstance(key, tuple) else (key,)
    values = value if isinstance(value, tuple) else (value,)
    row = (*keys, *values)
    if columns and len(row) != len(columns):
        _refuse_width(row, columns)
    return row


def _refuse_width(row: Sequence[object], columns: tuple[str, ...]) -> NoReturn:
    raise _WrongWidth(f"it makes {len(row)} fields, columns= names {len(columns)}")


_ENCODERS: dict[str, Encoder] = {"jsonl": _json_lines, "csv": _csv_rows, "text": _text_lines}
