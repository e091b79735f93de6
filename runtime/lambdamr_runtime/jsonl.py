"""JSON lines as records."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lambdamr_runtime.blocks import BLOCK_BYTES, Content
from lambdamr_runtime.compression import INFER
from lambdamr_runtime.records import Batch, RecordStream, check_reading
from lambdamr_runtime.splits import Split
from lambdamr_runtime.store import Ranges
from lambdamr_runtime.texts import (
    SPLITTABLE_ENCODINGS,
    bad_record,
    check_error_handler,
    check_on_bad_record,
    encoding_name,
    line_by_line,
    line_text,
    text_lines,
    text_of,
)


@dataclass(frozen=True, slots=True)
class JsonLines:
    """One JSON value per line; blank lines are none.

    Raises:  ValueError: as Lines, or an encoding in which lines cannot be found by their bytes.
    """

    encoding: str = "utf-8"
    errors: str = "strict"
    block_bytes: int = BLOCK_BYTES
    compression: str | None = INFER
    on_bad_record: str = "raise"
    """Or "skip": a line that is not JSON, or cannot be decoded, is left out and counted."""

    def __post_init__(self) -> None:
        check_reading(self.block_bytes, self.compression)
        object.__setattr__(self, "encoding", encoding_name(self.encoding))
        if self.encoding not in SPLITTABLE_ENCODINGS:
            raise ValueError(
                f"JSON lines in {self.encoding} are not read: JSON is UTF-8. Convert the files, or "
                "read them with lambdamr.lines and json.loads."
            )
        check_error_handler(self.errors)
        check_on_bad_record(self.on_bad_record, self.encoding)

    @property
    def splittable(self) -> bool:
        return True

    @property
    def reads_empty(self) -> bool:
        return False

    def read(self, split: Split, store: Ranges) -> RecordStream:
        """Return the values of the lines that the split owns, as json.loads gives them.

        Raises:  as Lines.read; CorruptInput: a line that is not JSON.
        """
        content = Content(split, store, self.block_bytes, self.compression)
        runs = content.line_runs()
        return RecordStream((self._batch(run, at, content) for at, run in runs), content)

    def _batch(self, run: bytes, at: int, content: Content) -> Batch:
        try:
            text = text_of(run, at, self.encoding)
            return Batch(
                [json.loads(line) for line in text_lines(text) if _has_json(line)], len(run)
            )
        except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError among them
            parse = self._parser(content)
            values, bad = line_by_line(run, at, parse, self.on_bad_record == "skip")
            return Batch(values, len(run), bad)

    def _parser(self, content: Content) -> Callable[[bytes, int], list[Any]]:
        def parse(raw: bytes, at: int) -> list[Any]:
            line = line_text(raw, at, self.encoding, self.errors, content)
            if not _has_json(line):
                return []
            try:
                return [json.loads(line)]
            except (ValueError, RecursionError) as error:
                raise bad_record(content, "JSON", content.place(at), error, line) from error

        return parse


def _has_json(line: str) -> bool:
    return bool(line.strip(" \t\r"))
