"""Inputs of a job: how the objects that URIs name are read, and cut into splits.

    lines("s3://b/logs/") ─▶ Input ─ objects() ─▶ [InputObject] ─ tasks() ─▶ [[Split]] ─▶ workers

What a URI may be stands in uris.py, how tasks are planned in planners.py.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lambdamr.planners import Planner, auto, grouped, planner_of
from lambdamr.uris import InputObject, OpenStore, Uri, names_something, objects_of
from lambdamr_runtime.blocks import BLOCK_BYTES
from lambdamr_runtime.compression import INFER, compression_of
from lambdamr_runtime.errors import InvalidInput
from lambdamr_runtime.files import Objects
from lambdamr_runtime.jsonl import JsonLines
from lambdamr_runtime.records import FixedRecords, LineBlocks, Lines, Reader
from lambdamr_runtime.splits import Split
from lambdamr_runtime.store import open_store
from lambdamr_runtime.tables import Csv, Dialect


@dataclass(frozen=True, slots=True)
class Input:
    """Objects and the way to read them; nothing is looked up before `objects()`."""

    uris: tuple[str, ...]
    """As given; paths of os.PathLike are absolute."""
    reader: Reader
    planner: Planner = auto

    def objects(self, open_root: OpenStore = open_store) -> list[InputObject]:
        """Return the objects that the URIs name: in the order of the URIs, sorted by key in each.

        Raises:  InputNotFound: a URI names nothing.
                 InvalidInput: two URIs name one object, or its name cannot be used.
        """
        found = [each for uri in self.uris for each in objects_of(uri, open_root)]
        _refuse_repeated(found)
        return found

    def tasks(
        self, lanes: int, memory_mb: int, open_root: OpenStore = open_store
    ) -> list[list[Split]]:
        """Return what each map task reads, for so many lanes of workers with so much memory.

        Raises:  as objects().
        """
        objects = self.objects(open_root)
        cut = self.planner([each.size for each in objects], lanes, memory_mb)
        splits = [split for each in objects for split in self._cut(each, cut.split_bytes)]
        return grouped([(split, split.hi - split.lo) for split in splits], cut)

    def _cut(self, each: InputObject, split_bytes: int | None) -> list[Split]:
        """Return the splits of an object: one if it can only be read from its start."""
        if not each.size and self.reader.reads_empty:
            return [Split(each.root, each.key, 0, 0, 0, each.etag)]
        can_cut = self.reader.splittable and not compression_of(each.key, self.reader.compression)
        return plan_splits([each], split_bytes if can_cut else None)


def lines(
    *uris: Uri | Iterable[Uri],
    encoding: str | None = "utf-8",
    errors: str = "strict",
    on_bad_record: str = "raise",
    compression: str | None = INFER,
    split_bytes: int | None = None,
    planner: str | Planner | None = None,
) -> Input:
    r"""Return the lines of text files as an input of map_reduce.

    A line ends at `\n` (one `\r` before it is dropped) and nowhere else; a BOM that begins a file
    is dropped.

    Args:     uris: URIs, local paths and globs, or lists of them; see lambdamr.uris.
              encoding: a text encoding of Python; None gives lines of bytes. Files whose encoding
              cannot be cut at bytes, such as utf-16, are one split each.
              errors: as of bytes.decode.
              on_bad_record: "raise", or "skip": leave out what cannot be read, and count it in
              the report of the job (`bad_records`).
              compression: "gzip", "bz2", "xz", "zstd", None, or "infer": by the suffix (.gz, .bz2,
              .xz, .zst). A compressed file is one split.
              split_bytes: most bytes per split; None plans them.
              planner: "auto", "biglambda", "marla", "fixed" (with split_bytes=), or a function;
              see lambdamr.planners.
    Returns:  the input; files are looked for when the job is planned.
    Raises:   ValueError: no URI, or an option that cannot be meant.
              TypeError: a URI that is neither str nor os.PathLike.
    """
    reader = Lines(encoding, errors, compression=compression, on_bad_record=on_bad_record)
    return _input("lines", uris, reader, split_bytes, planner)


def blocks(
    *uris: Uri | Iterable[Uri],
    block_bytes: int = BLOCK_BYTES,
    compression: str | None = INFER,
    split_bytes: int | None = None,
    planner: str | Planner | None = None,
) -> Input:
    """Return blocks of bytes that hold whole lines, for mappers that work on many at once.

    Args:     block_bytes: bytes of a block, about: it ends where a line ends. What makes a small
              object of each word is fastest with blocks that stay in the processor's cache, of
              512 KiB; tables with blocks of 8 MiB and more.
              others: as of `lines`.
    Raises:   as `lines`.
    """
    return _input("blocks", uris, LineBlocks(block_bytes, compression), split_bytes, planner)


def objects(
    *uris: Uri | Iterable[Uri],
    compression: str | None = INFER,
    planner: str | Planner | None = None,
) -> Input:
    """Return files: one record per object, a binary file that is open for reading.

    It is seekable and reads what is asked for, so that pandas, pyarrow or zipfile can read it; its
    `name` and `uri` say what it is. It is closed when the mapper has returned. Empty objects are
    records too.

    Args:     compression: as of `lines`: the file is what a compressed object holds; None leaves
              it as it is.
              others: as of `lines`.
    Raises:   as `lines`.
    """
    return _input("objects", uris, Objects(compression), None, planner)


def records(
    *uris: Uri | Iterable[Uri],
    record_bytes: int,
    on_bad_record: str = "raise",
    compression: str | None = INFER,
    split_bytes: int | None = None,
    planner: str | Planner | None = None,
) -> Input:
    """Return binary records of a fixed size, as bytes.

    Bytes at the end of an object that are no whole record are CorruptInput.

    Args:     on_bad_record: "skip" leaves such bytes out and counts them as one bad record.
              others: as of `lines`.
    Raises:   as `lines`.
    """
    reader = FixedRecords(record_bytes, compression=compression, on_bad_record=on_bad_record)
    return _input("records", uris, reader, split_bytes, planner)


def csv(
    *uris: Uri | Iterable[Uri],
    header: bool | Iterable[str] = True,
    columns: Iterable[str | int] | None = None,
    tuples: bool = False,
    dialect: Any = "excel",  # Any: as of csv.reader: a name, a class or an instance
    quoted_newlines: bool = True,
    encoding: str = "utf-8",
    errors: str = "strict",
    on_bad_record: str = "raise",
    compression: str | None = INFER,
    split_bytes: int | None = None,
    planner: str | Planner | None = None,
    **parameters: Any,  # Any: as of csv.reader
) -> Input:
    """Return the rows of CSV files: dicts by column, as csv.DictReader gives them, or tuples.

    Empty rows are left out. A row with more or fewer fields than there are columns is bad.

    Args:     header: True: the first row of each file names the columns. Names: they do, and the
              first row is data. False: there are no names, and rows are tuples.
              columns: what of each row is wanted, in this order: names, or indices from 0.
              tuples: rows as tuples, which are faster than dicts.
              dialect, parameters: as of csv.reader (delimiter=, quotechar=, escapechar=,
              doublequote=, skipinitialspace=, quoting=, strict=; strict is True by default).
              quoted_newlines: False promises that no field holds a newline: only then files are
              cut into splits.
              others: as of `lines`.
    Raises:   as `lines`. CorruptInput, in the job: a bad row, a header without a wanted column.
    """
    reader = Csv(
        header if isinstance(header, bool) else _names("header", header),
        None if columns is None else _names("columns", columns),
        tuples,
        Dialect.of(dialect, **parameters),
        quoted_newlines,
        encoding,
        errors,
        compression=compression,
        on_bad_record=on_bad_record,
    )
    return _input("csv", uris, reader, split_bytes, planner)


def jsonl(
    *uris: Uri | Iterable[Uri],
    encoding: str = "utf-8",
    errors: str = "strict",
    on_bad_record: str = "raise",
    compression: str | None = INFER,
    split_bytes: int | None = None,
    planner: str | Planner | None = None,
) -> Input:
    """Return the values of JSON lines files: one JSON value per line; blank lines are left out.

    Args:     as of `lines`.
    Raises:   as `lines`. CorruptInput, in the job: a line that is not JSON.
    """
    reader = JsonLines(encoding, errors, compression=compression, on_bad_record=on_bad_record)
    return _input("jsonl", uris, reader, split_bytes, planner)


def _input(
    call: str,
    uris: tuple[Uri | Iterable[Uri], ...],
    reader: Reader,
    split_bytes: int | None,
    planner: str | Planner | None,
) -> Input:
    named = tuple(_text_of(each) for item in uris for each in _flat(item))
    if not named:
        raise ValueError(
            f"{call}() was given no URI. Give a URI, a path, a glob or a list of them."
        )
    return Input(named, reader, planner_of(planner, split_bytes))


def _names(argument: str, names: Iterable[Any]) -> tuple[Any, ...]:
    """Return a sequence of columns; one str would be its letters."""
    if isinstance(names, str):
        raise ValueError(f"{argument}={names!r} is one str. Give a list of them.")
    return tuple(names)


_SPACE = re.compile(r"\s")
_PATH_SIGN = re.compile(r"[/*]|\.[A-Za-z]\w{0,4}$")


def as_input(inputs: object) -> Input | list[Any]:
    """Return what the argument `inputs` of map_reduce means.

    An Input is itself. A str or os.PathLike is `lines` of it. A list or tuple is `lines` of its
    elements if all are str and each names something: a URI (it begins with scheme://), an existing
    path, or a glob with a match. Any iterable of os.PathLike is `lines` of these. Any other
    iterable stands for its items, and so does `iter(items)` for a list of any str.

    Raises:  ValueError: of a list of str some name something and some do not, or none does but
             all look like paths.
             TypeError: not an iterable, or bytes.
    """
    if isinstance(inputs, Input):
        return inputs
    if isinstance(inputs, (str, os.PathLike)):
        return lines(inputs)
    if isinstance(inputs, (list, tuple)) and _are_uris(inputs):
        return lines(*inputs)
    if not isinstance(inputs, Iterable) or isinstance(inputs, (bytes, bytearray)):
        raise TypeError(
            f"inputs must be a URI, a path, a list of them, lambdamr.lines(...) or an iterable of "
            f"items, got {type(inputs).__name__}: {inputs!r}"
        )
    items = list(inputs)
    if items and all(isinstance(item, os.PathLike) for item in items):
        return lines(*items)
    return items


def plan_splits(objects: Sequence[InputObject], split_bytes: int | None) -> list[Split]:
    """Cut objects into splits: each byte of each object is in exactly one.

    Args:     split_bytes: most bytes of a split, >= 1; None makes one split per object.
    Returns:  splits in the order of the objects; those of one object differ by at most one byte.
              An empty object has none.
    Raises:   ValueError: split_bytes < 1.
    """
    if split_bytes is not None and split_bytes < 1:
        raise ValueError(f"split_bytes must be >= 1, got {split_bytes}")
    return [
        Split(each.root, each.key, lo, hi, each.size, each.etag)
        for each in objects
        for lo, hi in _cut(each.size, split_bytes or each.size)
    ]


def _cut(size: int, split_bytes: int) -> Iterator[tuple[int, int]]:
    parts = -(-size // split_bytes) if size else 0
    for part in range(parts):
        yield size * part // parts, size * (part + 1) // parts


def _flat(item: Uri | Iterable[Uri]) -> Iterable[Uri]:
    return (item,) if isinstance(item, (str, os.PathLike)) else item


def _text_of(uri: Uri) -> str:
    if isinstance(uri, str):
        return uri
    if isinstance(uri, os.PathLike):
        return os.path.join(os.getcwd(), os.fsdecode(uri))
    raise TypeError(f"A URI is a str or os.PathLike, got {type(uri).__name__}: {uri!r}")


def _are_uris(items: Sequence[object]) -> bool:
    """Return whether a list names inputs; see as_input."""
    if not items:
        return False
    if all(isinstance(item, os.PathLike) for item in items):
        return True
    named = missing = None
    for item in items:
        if not isinstance(item, str):
            return False
        if names_something(item):
            named = named or item
        elif missing is None:
            missing = item
    if named is not None and missing is not None:
        raise ValueError(
            f"inputs has {named!r}, which names an input, and {missing!r}, which is no URI and "
            "no existing file. Wrap paths in lambdamr.lines(...), or pass iter(items) to map the "
            "strings themselves."
        )
    if missing is not None and all(_looks_like_path(str(item)) for item in items):
        raise ValueError(
            f"inputs is a list of what looks like paths, but there is no {missing!r}. Check the "
            "paths, or pass iter(items) to map the strings themselves."
        )
    return missing is None


def _looks_like_path(text: str) -> bool:
    """Whether a string is hardly a record: no space, but a separator, a wildcard or a suffix."""
    return not _SPACE.search(text) and bool(_PATH_SIGN.search(text))


def _refuse_repeated(objects: Iterable[InputObject]) -> None:
    seen: set[str] = set()
    for each in objects:
        if each.uri in seen:
            raise InvalidInput(
                f"{each.uri} is named by two of the inputs and would be counted twice. "
                "Name it once, or check whether the globs overlap."
            )
        seen.add(each.uri)
