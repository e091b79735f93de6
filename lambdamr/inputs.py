"""Inputs of a job: which objects the URIs name, and how these are cut into splits.

    lines("s3://b/logs/") ─▶ Input ─ objects() ─▶ [InputObject] ─ tasks() ─▶ [[Split]] ─▶ workers

What a URI may be:

    s3://bucket/key          one object; the key is taken as it stands, nothing is unquoted
    s3://bucket/prefix/      every object under the prefix; so does s3://bucket
    file:///dir/name         a local path, percent-decoded
    dir/name                 a local path; a directory means every file in it, at every depth
    s3://b/*/part-[0-9]?     a glob: * ? [ ] match within one name, ** any number of directories.
                             A leading dot is nothing special. [[] is a [ that is not a glob.

A local path that exists is taken literally, whatever characters it has.
"""

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote

from lambdamr.planners import Planner, auto, grouped, planner_of
from lambdamr_runtime.blocks import BLOCK_BYTES
from lambdamr_runtime.compression import INFER, compression_of
from lambdamr_runtime.errors import InputNotFound, InvalidInput, StoreError
from lambdamr_runtime.files import Objects
from lambdamr_runtime.jsonl import JsonLines
from lambdamr_runtime.records import FixedRecords, LineBlocks, Lines, Reader
from lambdamr_runtime.splits import Split
from lambdamr_runtime.store import Store, StoredObject, open_store
from lambdamr_runtime.tables import Csv, Dialect

Uri = str | os.PathLike[str]
"""A URI or a local path; an os.PathLike is always a local path."""

OpenStore = Callable[[str], Store]
"""Opens the store of a root, as lambdamr_runtime.store.open_store does."""

_URI = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://([^/]*)/?(.*)", re.DOTALL)
_GLOB = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True)
class InputObject:
    """One object that a job reads."""

    root: str
    """Root of its store: a directory or s3://bucket."""
    key: str
    size: int
    """Bytes."""
    etag: str

    @property
    def uri(self) -> str:
        return f"{self.root.rstrip('/')}/{self.key}"


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
        found = [each for uri in self.uris for each in _objects_of(uri, open_root)]
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

    Args:     uris: URIs, local paths and globs, or lists of them; see the top of this module.
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

    Args:     block_bytes: bytes of a block, about: it ends where a line ends.
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


def as_input(inputs: object) -> Input | list[Any]:
    """Return what the argument `inputs` of map_reduce means.

    An Input is itself. A str or os.PathLike is `lines` of it. A list or tuple is `lines` of its
    elements if all are os.PathLike, or all are str and each names something: a URI (it begins
    with scheme://), an existing path, or a glob with a match. Any other iterable stands for its
    items, and so does `iter(items)` for any items.

    Raises:  ValueError: of a list of str some name something and some do not.
             TypeError: not an iterable.
    """
    if isinstance(inputs, Input):
        return inputs
    if isinstance(inputs, (str, os.PathLike)):
        return lines(inputs)
    if isinstance(inputs, (list, tuple)) and _are_uris(inputs):
        return lines(*inputs)
    if not isinstance(inputs, Iterable):
        raise TypeError(
            f"inputs must be a URI, a path, a list of them, lambdamr.lines(...) or an iterable of "
            f"items, got {type(inputs).__name__}: {inputs!r}"
        )
    return list(inputs)


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
        if _names_something(item):
            named = named or item
        elif missing is None:
            missing = item
    if named is not None and missing is not None:
        raise ValueError(
            f"inputs has {named!r}, which names an input, and {missing!r}, which is no URI and "
            "no existing file. Wrap paths in lambdamr.lines(...), or pass iter(items) to map the "
            "strings themselves."
        )
    return missing is None


def _names_something(text: str) -> bool:
    if _URI.match(text):
        return True
    if not text or "\0" in text:
        return False
    return os.path.exists(text) or (bool(_GLOB.search(text)) and _matches_files(text))


def _matches_files(pattern: str) -> bool:
    found = glob.iglob(pattern, recursive=True, include_hidden=True)
    return any(os.path.isfile(path) for path in found)


def _refuse_repeated(objects: Iterable[InputObject]) -> None:
    seen: set[str] = set()
    for each in objects:
        if each.uri in seen:
            raise InvalidInput(
                f"{each.uri} is named by two of the inputs and would be counted twice. "
                "Name it once, or check whether the globs overlap."
            )
        seen.add(each.uri)


def _objects_of(uri: str, open_root: OpenStore) -> list[InputObject]:
    scheme, host, path = _parsed(uri)
    if not scheme:
        return _local_objects(path, open_root)
    if scheme != "file":
        return _remote_objects(uri, open_root)
    if host not in ("", "localhost"):
        raise InvalidInput(
            f"{uri} names the host {host!r}. Write file:///path for a file of this machine."
        )
    return _local_objects("/" + unquote(path), open_root)


def _parsed(uri: str) -> tuple[str, str, str]:
    """Return (scheme, host or bucket, path without its first slash); a local path has no scheme."""
    parts = _URI.match(uri)
    return (parts[1].lower(), parts[2], parts[3]) if parts else ("", "", uri)


def _local_objects(path: str, open_root: OpenStore) -> list[InputObject]:
    """Return the files of a path: itself, those under a directory, or those of a glob."""
    if os.path.isfile(path):
        return _in_store(os.path.dirname(path), [os.path.basename(path)], open_root)
    if os.path.isdir(path):
        root, keys = path, _files_under(path)
    elif _GLOB.search(path):
        root, pattern = _literal_part(path)
        keys = _files_matching(root, pattern)
    else:
        raise InputNotFound(f"There is no file {_absolute(path)!r}. Check the path.")
    if not keys:
        raise InputNotFound(f"No file is in, or matches, {_absolute(path)!r}. Check the path.")
    return _in_store(root, keys, open_root)


def _absolute(path: str) -> str:
    return os.path.join(os.getcwd(), path)


def _literal_part(path: str) -> tuple[str, str]:
    """Split a glob into the directories before its first wildcard and the rest.

    A glob that ends in / stands for everything under what it matches.
    """
    cut = _GLOB.split(path, 1)[0].rfind("/") + 1
    return path[:cut], path[cut:] + "**" if path.endswith("/") else path[cut:]


def _files_matching(root: str, pattern: str) -> list[str]:
    """Return the files under *root* that match, relative to it, sorted; directories are no match.

    glob.glob does it where only the directories that match are to be listed; but with ** it
    would go round where a link leads back, and find files many times.
    """
    wanted = pattern.split("/")
    if not os.path.isdir(root or "."):
        return []
    if "**" in wanted:
        found = [key for key in _files_under(root) if _match(key.split("/"), wanted)]
    else:
        found = glob.glob(pattern, root_dir=root or ".", include_hidden=True)
    return sorted(key for key in found if not os.path.isdir(os.path.join(root, key)))


def _files_under(root: str) -> list[str]:
    """Return every file under a directory, at any depth, relative to it, sorted.

    Links to directories are followed, except back to a directory that holds them.
    """
    root = root or "."
    found = _walk(root, (os.path.realpath(root),))
    return sorted(os.path.relpath(path, root) for path in found)


def _walk(directory: str, above: tuple[str, ...]) -> Iterator[str]:
    """Yield what is no directory under *directory*; *above*: its real path and its holders'."""
    for entry in os.scandir(directory):
        if not entry.is_dir():
            yield entry.path
            continue
        real = os.path.realpath(entry.path)
        if real not in above:
            yield from _walk(entry.path, (*above, real))


def _in_store(directory: str, keys: Iterable[str], open_root: OpenStore) -> list[InputObject]:
    """Return the files of a directory as objects of the store whose root it is."""
    root = os.path.realpath(directory or ".")
    store = open_root(root)
    return [_object(root, _local_head(store, root, key)) for key in keys]


def _local_head(store: Store, root: str, key: str) -> StoredObject:
    """Look up a file. obstore's local store has no keys for some names that file systems allow."""
    if not os.path.isfile(os.path.join(root, key)):
        raise InvalidInput(
            f"{key!r} in {root} is no regular file, but a link that leads nowhere or a device. "
            "Remove it, or name the other files by a glob."
        )
    try:
        return store.head(key)
    except (StoreError, ValueError) as error:
        raise InvalidInput(
            f"The file {key!r} in {root} has a name that the object store layer cannot hold "
            "(control characters, '#' and a number at its end, '..', or no UTF-8). Rename it, or "
            "name the other files by a glob."
        ) from error


def _remote_objects(uri: str, open_root: OpenStore) -> list[InputObject]:
    """Return the objects of a key, a prefix (it ends in /) or a glob, sorted by key."""
    scheme, bucket, path = _parsed(uri)
    root = f"{scheme}://{bucket}"
    if "//" in f"/{path}":
        raise InvalidInput(
            f"{uri} has an empty name between two slashes, which the object store layer cannot "
            "hold. Remove a slash, or copy the object to another key."
        )
    try:
        found = _stored_objects(open_root(root), path)
    except FileNotFoundError:
        found = []
    except ValueError as error:
        raise InvalidInput(
            f"{uri!r} is a name that the object store layer cannot hold: {error}. "
            "Copy the object to another key."
        ) from error
    if not found:
        raise InputNotFound(
            f"No object is named by {uri}. Check the bucket and the name; "
            "a prefix ends in '/', and * does not go beyond one."
        )
    return [_object(root, each) for each in sorted(found, key=lambda each: each.key)]


def _stored_objects(store: Store, path: str) -> list[StoredObject]:
    if _GLOB.search(path):
        prefix, pattern = _literal_part(path)
        wanted = pattern.split("/")
        return [each for each in store.list(prefix) if _fits(each, prefix, wanted)]
    if not path or path.endswith("/"):
        return list(store.list(path))
    return [store.head(path)]


def _fits(each: StoredObject, prefix: str, pattern: Sequence[str]) -> bool:
    return _match(each.key[len(prefix) :].split("/"), pattern)


def _match(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the names of a path match the parts of a glob one by one; ** takes any."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_match(names[skip:], pattern[1:]) for skip in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _match(names[1:], pattern[1:])


def _object(root: str, stored: StoredObject) -> InputObject:
    return InputObject(root, stored.key, stored.size, stored.etag)
