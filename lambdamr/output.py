"""The output of a map_reduce: where its files go, and what is refused before launch.

map_reduce(..., output="s3://b/counts", format="csv") ─▶ Output ─ Final ─▶ a stage of its own
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import unquote

from lambdamr_runtime.formats import SUFFIXES, WITH_COLUMNS, Format
from lambdamr_runtime.outputs import Final, open_destination
from lambdamr_runtime.store import Store, local_path

_GLOB = re.compile(r"[*?[]")
_UNUSABLE = re.compile(r"#\d+$|[\x00-\x1f\x7f]")
"""Names of local files that the object store layer cannot hold."""


@dataclass(frozen=True, slots=True)
class Output:
    """What Executor.map_reduce was given for its output, checked for itself."""

    folder: str
    """An absolute local path or a URI; with one object, what holds it."""
    form: Format
    single: str = ""
    """Name of the one object; empty: a folder of parts."""
    overwrite: bool = False

    @property
    def work(self) -> Final:
        """What the finalizer does."""
        return Final(self.folder, self.form, self.single, self.overwrite)

    @property
    def uri(self) -> str:
        return f"{self.folder.rstrip('/')}/{self.single}".rstrip("/")

    def check(self, uris: Sequence[str], objects: Iterable[str], store: Store) -> None:
        """Refuse what would harm: what is there already, or is read by the job itself.

        Args:    uris, objects: what the job was given to read, and the URIs of what it reads.
                 store: of the job.
        Raises:  ValueError: naming the first thing found. PermissionError: nothing can be written.
        """
        self._check_inputs(uris, objects)
        path = local_path(self.folder)
        if path is None:
            folder = open_destination(self.folder, store)
            if self.single:
                there = folder.store.exists(folder.key(self.single))
                found = iter([self.single] if there else [])
            else:
                found = folder.names()
            self.work.refuse(next(([name] for name in found), []))
            return
        self._check_local(path)

    def _check_inputs(self, uris: Sequence[str], objects: Iterable[str]) -> None:
        own = _resolved(self.uri)
        name = own if self.single else f"{own}/{self.work.name_of(0)}"
        for uri in uris:
            if _reads(uri, name):
                raise ValueError(
                    f"output={self.uri!r} lies within the input {uri!r}: the next run would read "
                    "it. Write to another folder."
                )
        for each in objects:
            found = _resolved(each)
            if found == own or (not self.single and found.startswith(f"{own}/")):
                raise ValueError(
                    f"The input {each!r} lies within output={self.uri!r}. Write to another folder."
                )

    def _check_local(self, path: str) -> None:
        if os.path.lexists(path) and not os.path.isdir(path):
            raise ValueError(f"output={self.uri!r}: {path!r} is no folder, but a file.")
        if os.path.isdir(path):
            target = os.path.join(path, self.single)
            if self.single and os.path.isdir(target):
                raise ValueError(
                    f"output={target!r} is a folder. With single_file=True, name the file."
                )
            self.work.refuse(sorted(os.listdir(path)))
        there = _existing(path)
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(f"output={self.uri!r} cannot be written: no access to {there!r}.")


def as_output(
    output: "str | os.PathLike[str] | None",
    form: str,
    columns: Sequence[str] | None,
    overwrite: bool,
    single_file: bool,
) -> Output | None:
    """Return what the options of map_reduce ask for; None without output=.

    Raises:  ValueError, TypeError: options that do not go together, or no output at all.
    """
    if form not in SUFFIXES:
        raise ValueError(f"format must be one of {tuple(SUFFIXES)}, got {form!r}")
    if output is None:
        if form != "pickle" or columns is not None or overwrite or single_file:
            raise ValueError("format=, columns=, overwrite= and single_file= go with output= alone")
        return None
    names = _columns(form, columns)
    if single_file and form == "pickle":
        raise ValueError(
            "single_file=True does not go with format='pickle': take 'jsonl', 'csv' or 'text'."
        )
    location = _location(output)
    if not single_file:
        return Output(location, Format(form, names), "", overwrite)
    folder, _, name = location.rpartition("/")
    if not name or folder.endswith(":/"):
        raise ValueError(f"single_file=True needs the name of a file, got output={output!r}")
    return Output(folder or "/", Format(form, names), name, overwrite)


def _columns(form: str, columns: Sequence[str] | None) -> tuple[str, ...]:
    if columns is None:
        return ()
    if form not in WITH_COLUMNS:
        raise ValueError(f"columns= goes with format= {' or '.join(WITH_COLUMNS)}, got {form!r}")
    names = tuple(columns)
    if isinstance(columns, str) or not names or not all(isinstance(n, str) for n in names):
        raise TypeError(f"columns must be a list of names, got {columns!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"columns must differ, got {columns!r}")
    return names


def _location(output: "str | os.PathLike[str]") -> str:
    """Return an absolute local path or a URI, without a slash at its end unless it was given."""
    text = os.fspath(output)
    if not text:
        raise ValueError("output must be a URI or a path, got an empty one")
    if isinstance(output, str) and "://" in text:
        scheme, _, rest = text.partition("://")
        if scheme.lower() != "file":
            if not rest.strip("/"):
                raise ValueError(f"output={text!r} names no bucket")
            return text
        text = "/" + unquote(rest.partition("/")[2])
    end = "/" if text.endswith("/") else ""
    path = os.path.abspath(text)
    for name in path.split("/"):
        if _UNUSABLE.search(name):
            raise ValueError(
                f"output={text!r}: the object store layer cannot hold the name {name!r} (control "
                "characters, or '#' and a number at its end). Take another."
            )
    return path + end


def _existing(path: str) -> str:
    """Return the nearest folder above a path, or itself, that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _resolved(uri: str) -> str:
    """Return a URI or path in the one form in which two that are the same are equal."""
    path = local_path(uri) if "://" not in uri or uri.startswith("file://") else None
    return (os.path.realpath(path) if path is not None else uri).rstrip("/")


def _reads(uri: str, name: str) -> bool:
    """Whether an input reads the object *name*: a folder or prefix that holds it, or a glob."""
    is_local = "://" not in uri or uri.startswith("file://")
    if _GLOB.search(uri) and not (is_local and os.path.exists(uri)):
        return _glob_reads(uri, name)
    holder = _resolved(uri)
    holds = os.path.isdir(holder) if is_local else uri.endswith("/") or uri.count("/") == 2
    return name == holder or (holds and name.startswith(f"{holder}/"))


def _glob_reads(pattern: str, name: str) -> bool:
    cut = _GLOB.split(pattern, maxsplit=1)[0].rfind("/") + 1
    root = _resolved(pattern[:cut] or ".")
    if not name.startswith(f"{root}/"):
        return False
    wanted, found = pattern[cut:].split("/"), name[len(root) + 1 :].split("/")
    if pattern.endswith("/") or "**" in wanted:
        return True
    return len(wanted) == len(found) and all(map(fnmatchcase, found, wanted))
