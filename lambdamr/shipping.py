"""The user's own modules, taken along with the functions and arguments that refer to them.

    names in a pickle ── reached ──▶ own modules ── pack ──▶ one zip, named by its hash
                                                               │
    worker: lambdamr_runtime.modules.ShippedModules.install ◀──┘

A module is the user's own if it lies outside the standard library and every site-packages folder.
Shipped are the modules that a pickle refers to, the packages around them, and every own module
that these import anywhere in their source, found by reading it: nothing is imported or run. Whole
packages are shipped only where `include_modules=` says so; imports that no source shows (plug-ins,
lazy attributes) and data files need that too.

What is shipped is the file as it is on disk: bytes, so that any source encoding survives.
Extension modules go as they are; on a worker of another platform they are not found.
"""

import functools
import io
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec, PathFinder

from lambdamr.sources import Stamp, current_stamp, file_imports, read_source, stamp_of
from lambdamr_runtime.errors import ArgumentNotSerializable
from lambdamr_runtime.modules import is_reserved

NEVER_OWN = frozenset({"__main__", "__mp_main__", "lambdamr", "lambdamr_runtime"})
"""Pickled by value, or part of every worker."""

LAMBDA_FOLDERS = ("/opt", "/var/lang", "/var/runtime", "/var/task")
"""Where AWS Lambda puts layers, Python and the deployed zip: every worker has these."""

ZIP_TIME = (1980, 1, 1, 0, 0, 0)
"""The first moment that a zip can express: equal files make equal archives."""

ARCHIVES_KEPT = 64
"""Archives kept for repeated submits; the oldest goes first."""


# --- whose module it is -----------------------------------------------------------------------
def is_own(module_name: str) -> bool:
    """Whether a module is the user's own: found here, outside of Python and of site-packages.

    The first regular module or package on the way down decides; where all are namespace
    packages, one folder of the user's makes it own. A package installed in editable mode is own;
    one linked into site-packages is not.
    """
    if module_name.partition(".")[0] in NEVER_OWN:
        return False
    module = None
    for name in _ancestry(module_name):
        module = _locate(name)
        if module is None:
            return False
        if module.file is not None:
            return not _is_library(module.file)
    return module is not None and not all(map(_is_library, module.folders))


def fileless(names: Iterable[str]) -> list[str]:
    """Return the modules among *names* that exist in this process only (`types.ModuleType(…)`).

    They cannot be shipped, and `reached` and `pack` leave them out: the serializer has to pickle
    them by value (`cloudpickle.register_pickle_by_value`).

    Returns:  their names, sorted.
    """
    return sorted(name for name in set(names) - NEVER_OWN if _is_fileless(name))


def _is_fileless(name: str) -> bool:
    module = sys.modules.get(name)
    if module is None or getattr(module, "__spec__", None) is not None:
        return False
    return not (getattr(module, "__file__", None) or getattr(module, "__path__", None))


@functools.lru_cache(maxsize=8192)
def _is_library(path: str) -> bool:
    """Whether a path lies in the standard library or a site-packages folder, links followed too."""
    for form in (os.path.abspath(path), os.path.realpath(path)):
        if form.startswith(_library_folders()):
            return True
        if not {"site-packages", "dist-packages"}.isdisjoint(form.split(os.sep)):
            return True
    return False


@functools.cache
def _library_folders() -> tuple[str, ...]:
    """Return the folders, each with a final separator, that hold Python and what is installed."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [*site.getsitepackages(), site.getusersitepackages()]
    paths.append(os.path.dirname(os.__file__))  # a zip, in the embeddable distributions
    if "LAMBDA_TASK_ROOT" in os.environ:  # a task that uses an executor itself
        paths += LAMBDA_FOLDERS
    forms = {form for path in paths for form in (os.path.abspath(path), os.path.realpath(path))}
    return tuple(sorted(os.path.join(form, "") for form in forms))


# --- where it lies ------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Module:
    """A module that can be imported here."""

    name: str
    file: str | None
    """Its source, extension or bytecode; None for a namespace package."""
    folders: tuple[str, ...] = ()
    """Where its submodules lie; empty for a plain module."""

    @property
    def entry(self) -> str:
        """The name of its file in an archive."""
        base = os.path.basename(self.file or "")
        if self.folders:
            return f"{self.name.replace('.', '/')}/{base}"
        parent, _, last = f"/{self.name.replace('.', '/')}".rpartition("/")
        if not base.startswith(f"{last}."):  # loaded from a file of another name
            base = last + os.path.splitext(base)[1]
        return f"{parent}/{base}".lstrip("/")


def _locate(name: str) -> _Module | None:
    """Find a module without importing anything; None for what is built in, fileless or missing."""
    if name in sys.modules:
        module = sys.modules[name]
        spec = getattr(module, "__spec__", None)
        if spec is not None and spec.name == name:
            return _from_spec(name, spec)
        file = getattr(module, "__file__", None)
        if spec is None and isinstance(file, str):
            return _Module(name, file, tuple(getattr(module, "__path__", ())))
        return None
    return _search(name)


def _search(name: str) -> _Module | None:
    """Ask the finders for a module that is not imported (importlib's find_spec imports parents)."""
    parent, _, _ = name.rpartition(".")
    path: Sequence[str] | None = None
    if parent:
        package = _locate(parent)
        if package is None or not package.folders:
            return None
        path = package.folders
    for finder in sys.meta_path:
        spec = _ask(finder, name, path)
        if spec is not None:
            return _from_spec(name, spec)
    return None


def _ask(finder: object, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """Return a finder's answer for a module whose parent lies in *path* but may not be imported."""
    if finder is PathFinder:
        # It looks in *path* for the last part of the name. Of the rest it makes the parent of a
        # namespace package, which it then wants in sys.modules.
        return PathFinder.find_spec(name.rpartition(".")[2], path)
    find_spec = getattr(finder, "find_spec", None)  # Python 3.11 bears finders without one
    try:
        found: ModuleSpec | None = find_spec and find_spec(name, path)
    except KeyError:  # it asks PathFinder by the full name, as pytest's does
        return None
    return found


def _from_spec(name: str, spec: ModuleSpec) -> _Module | None:
    folders = tuple(spec.submodule_search_locations or ())
    if spec.has_location and spec.origin:
        return _Module(name, spec.origin, folders)
    if folders and spec.origin is None:
        return _Module(name, None, folders)
    return None


def _ancestry(name: str) -> list[str]:
    """Return a dotted name's packages, outermost first, and itself: a.b.c → a, a.b, a.b.c."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


# --- what is reached ------------------------------------------------------------------------------
def reached(names: Iterable[str], exclude: Sequence[str] = ()) -> list[str]:
    """Return the user's own modules that are needed to import *names*.

    These modules themselves, the packages around them, and what they import, however deep.
    Modules of others, and names that are no module, lead nowhere.

    Args:     exclude: names left out, with their submodules; what only they import is not reached.
    Returns:  dotted names, sorted.
    Raises:   ArgumentNotSerializable: the file of a module cannot be read.
    """
    return [module.name for module in _reach(names, exclude)]


def foreign(names: Iterable[str], exclude: Sequence[str] = ()) -> frozenset[str]:
    """Return the top-level modules that *names* need of others: none of the user's own.

    What a module imports anywhere counts, in a `try` too.
    """
    own = _reach(names, exclude)
    needed = set(names).union(*map(_needs, own))
    return frozenset(
        top for top in {name.partition(".")[0] for name in needed} if top and not is_own(top)
    )


def _reach(names: Iterable[str], exclude: Sequence[str]) -> list[_Module]:
    """Return the modules behind `reached`, sorted by name."""
    found: dict[str, _Module] = {}
    seen: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        module = None if _excluded(name, exclude) or not is_own(name) else _locate(name)
        if module is not None:
            found[name] = module
            pending.extend(_ancestry(name))
            pending.extend(_needs(module))
    return [found[name] for name in sorted(found)]


def _needs(module: _Module) -> frozenset[str]:
    if module.file is None:
        return frozenset()
    return file_imports(module.file, module.name, is_package=bool(module.folders))


def _excluded(name: str, exclude: Sequence[str]) -> bool:
    return any(name == left_out or name.startswith(f"{left_out}.") for left_out in exclude)


# --- whole packages -------------------------------------------------------------------------------
def _whole(name: str, exclude: Sequence[str]) -> dict[str, str]:
    """Return every file of an included module or package, data files too, and its parents' own.

    Left out: `__pycache__`, hidden folders, what is excluded.

    Returns:  entry → path.
    Raises:   ValueError: no module of that name can be found.
    """
    found = [_locate(each) for each in _ancestry(name)]
    module = found[-1]
    if module is None:
        raise ValueError(
            f"include_modules names {name!r}, which cannot be found on sys.path "
            "(or has no file). Check its spelling, or add its folder to sys.path."
        )
    files = {each.entry: each.file for each in found if each is not None and each.file is not None}
    for folder in module.folders:
        for path in _files_below(folder):
            relative = os.path.relpath(path, folder).replace(os.sep, "/")
            files.setdefault(f"{name.replace('.', '/')}/{relative}", path)
    return {entry: path for entry, path in files.items() if not _excluded(_dotted(entry), exclude)}


def _files_below(folder: str) -> Iterator[str]:
    for current, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__" and name[0] != "."]
        yield from (os.path.join(current, name) for name in files)


def _dotted(entry: str) -> str:
    """Return an entry's name as exclude sees it: a/b.py → a.b, a/b/__init__.py → a.b."""
    folder, _, base = entry.rpartition("/")
    stem = base.partition(".")[0]
    parts = folder.split("/") if folder else []
    return ".".join(parts if stem == "__init__" else [*parts, stem])


def _imports_of_entry(entry: str, path: str) -> frozenset[str]:
    is_package = entry.rpartition("/")[2].startswith("__init__.")
    return file_imports(path, _dotted(entry), is_package=is_package)


# --- the archive ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Packed:
    """An archive, and what must be unchanged for it to hold still."""

    entries: tuple[str, ...]
    """The names of its files in it, sorted."""
    stamps: tuple[Stamp, ...]
    """One for each entry."""
    folders: tuple[Stamp, ...]
    """Of the folders that these files lie in: a change may mean a new file."""
    archive: bytes

    @property
    def is_current(self) -> bool:
        try:
            return all(current_stamp(stamp[0]) == stamp for stamp in self.stamps + self.folders)
        except OSError:
            return False


_packed: dict[object, _Packed] = {}
"""The last archives, by what was asked for."""


def pack(names: Iterable[str], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> bytes:
    """Return the zip of the user's own modules that *names* need.

    Deterministic: equal files give equal bytes. A repeated call costs one stat per file.

    Args:     names: modules that a pickle refers to, whoever's they are.
              include: modules and packages shipped whole, data files too; installed ones as well.
              exclude: modules and packages left out, with their submodules. Wins over include.
    Returns:  the archive; b"" if there is nothing to ship.
    Raises:   ValueError: an included module does not exist.
              TypeError: include or exclude is one string.
              ArgumentNotSerializable: a module has the name of one that Python or the worker
              needs there, or its file cannot be read.
    """
    # sys.path decides which file a name means.
    request = (frozenset(names), tuple(include), tuple(exclude), tuple(sys.path))
    packed = _packed.get(request)
    if packed is None or not packed.is_current:
        _check_names(include=include, exclude=exclude)
        packed = _pack(request[0], include, exclude)
        _packed.pop(request, None)
        _packed[request] = packed
        for oldest in list(_packed)[:-ARCHIVES_KEPT]:
            _packed.pop(oldest, None)
    return packed.archive


def _check_names(**options: Sequence[str]) -> None:
    for option, names in options.items():
        if isinstance(names, str):
            raise TypeError(
                f"{option}_modules is a sequence of names, got {names!r}. Write ({names!r},)."
            )


def _pack(names: Iterable[str], include: Sequence[str], exclude: Sequence[str]) -> _Packed:
    files: dict[str, str] = {}
    for name in include:
        files.update(_whole(name, exclude))
    needed = {need for entry, path in files.items() for need in _imports_of_entry(entry, path)}
    for module in _reach([*names, *needed], exclude):
        if module.file is not None:
            files[module.entry] = module.file
    _check_reserved(files)
    entries = tuple(sorted(files))
    stamps = tuple(stamp_of(files[entry]) for entry in entries)
    folders = tuple(map(stamp_of, sorted({os.path.dirname(path) for path in files.values()})))
    for packed in list(_packed.values()):
        if packed.entries == entries and packed.stamps == stamps:
            # The same files, asked for in other words or beside a new one: one copy is kept.
            return replace(packed, folders=folders)
    archive = _zipped({entry: files[entry] for entry in entries})
    return _Packed(entries, stamps, folders, archive)


def _check_reserved(files: dict[str, str]) -> None:
    for entry, path in files.items():
        top = entry.partition("/")[0].partition(".")[0]
        if is_reserved(top):
            raise ArgumentNotSerializable(
                f"Your module {top!r} ({path}) has the name of one that Python or the worker needs "
                "there, so it cannot be shipped. Rename it, or leave it out with "
                f"exclude_modules=({top!r},)."
            )


def _zipped(files: dict[str, str]) -> bytes:
    """Return the zip of entry → path; b"" for no files."""
    if not files:
        return b""
    import zipfile  # a third of what importing lambdamr.shipping would cost

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as entries:
        for entry, path in files.items():
            info = zipfile.ZipInfo(entry, ZIP_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3  # Unix, wherever the client runs
            info.external_attr = 0o644 << 16
            entries.writestr(info, read_source(path))
    return archive.getvalue()
