"""The user's own modules in a worker: put in place for a function, gone before the next.

The archive that the client's `shipping.pack` made is unpacked into one folder per sha and goes to
the front of sys.path. A warm process is clean: on another sha every module from the old folder
leaves sys.modules first, so that new code is seen and old code is not.

A shipped module may have the name of one that the worker has imported from elsewhere (a user's
`utils`). The worker's is set aside while the shipped one is installed and comes back afterwards.
Names of the standard library and of what the runtime itself runs on are never taken over: the
client refuses to ship them, and so does this side.

Imported at cold start: zipfile and the rest are imported when there is something to unpack.
"""

import os
import sys
from collections.abc import Iterable
from types import ModuleType

from lambdamr_runtime.errors import CorruptObject

RUNTIME_NAMES = frozenset(
    {
        "lambdamr",
        "lambdamr_runtime",
        "boto3",
        "botocore",
        "cloudpickle",
        "dill",
        "obstore",
        "tblib",
        "zstandard",
    }
)
"""Top-level modules that the worker itself runs on."""


def is_reserved(name: str) -> bool:
    """Whether a module of that name would displace one that Python or the worker needs."""
    top = name.partition(".")[0]
    return top in RUNTIME_NAMES or top in sys.stdlib_module_names


class ShippedModules:
    """The shipped modules of this process: those of one archive, or none."""

    def __init__(self, directory: str) -> None:
        """Take the private directory that holds one folder per sha; it need not exist yet."""
        self._directory = os.path.abspath(directory)
        self._sha = ""
        self._archive = b""
        self._displaced: dict[str, ModuleType] = {}

    @property
    def sha(self) -> str:
        """The sha that is installed, or "" for none."""
        return self._sha

    @property
    def archive(self) -> bytes:
        """The archive that is installed, or b"" for none."""
        return self._archive

    def install(self, archive: bytes, sha: str) -> None:
        """Make the modules of an archive importable, and those of any other archive not.

        The sha that is installed already costs nothing; "" uninstalls.

        Args:    archive: what `shipping.pack` returned. sha: its name, letters and digits.
        Raises:  CorruptObject: the archive cannot be one of ours; nothing is installed then.
        """
        if sha == self._sha:
            return
        self.uninstall()
        if not sha:
            return
        folder = self._unpacked(archive, sha)
        self._displaced = _set_aside(_regular_names(folder))
        # Not importlib.invalidate_caches(): from Python 3.13 on its first call imports
        # importlib.metadata (35 ms of cold start), and only this folder has changed.
        _forget_finders(folder)
        sys.path.insert(0, folder)
        self._sha, self._archive = sha, archive

    def uninstall(self) -> None:
        """Remove what is installed from sys.modules and sys.path; bring back what it displaced."""
        if not self._sha:
            return
        folder = self._folder(self._sha)
        _forget_modules(folder)
        sys.path[:] = [entry for entry in sys.path if not _within(entry, folder)]
        _forget_finders(folder)
        for name, module in self._displaced.items():
            sys.modules.setdefault(name, module)
        self._displaced = {}
        self._sha, self._archive = "", b""

    def _folder(self, sha: str) -> str:
        return os.path.join(self._directory, sha)

    def _unpacked(self, archive: bytes, sha: str) -> str:
        """Return the folder of *sha*; it appears whole or not at all."""
        if not (sha.isascii() and sha.isalnum()):
            raise CorruptObject(f"{sha!r} cannot be the sha of shipped modules")
        folder = self._folder(sha)
        if os.path.isdir(folder):
            return folder
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        fresh = f"{folder}.{os.urandom(8).hex()}"
        try:
            _unpack(archive, fresh, sha)
            _rename_once(fresh, folder)
        finally:
            _remove(fresh)
        return folder


def _rename_once(fresh: str, folder: str) -> None:
    """Give *fresh* its name; a process that was quicker has put the same files there."""
    try:
        os.rename(fresh, folder)
    except OSError:
        if not os.path.isdir(folder):
            raise


def _remove(folder: str) -> None:
    if os.path.isdir(folder):
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


# --- the archive ----------------------------------------------------------------------------
def _unpack(archive: bytes, folder: str, sha: str) -> None:
    """Write the files of an archive below *folder*.

    Raises:  CorruptObject: not a zip, damaged, or an entry that `shipping.pack` never writes.
    """
    import io
    import zipfile
    import zlib

    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as entries:
            # What the archive says: ZipInfo.filename is cut at a NUL.
            _check_entries([info.orig_filename for info in entries.infolist()], sha)
            entries.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise CorruptObject(
            f"The archive of shipped modules {sha} ({len(archive)} bytes) cannot be unpacked: "
            f"{error}. Submit the job again."
        ) from error


def _check_entries(names: Iterable[str], sha: str) -> None:
    """Refuse names that leave the folder, or take over a module of Python or of the worker."""
    for name in names:
        top = name.partition("/")[0].partition(".")[0]
        if _escapes(name) or is_reserved(top):
            raise CorruptObject(
                f"The archive of shipped modules {sha} holds {name!r}, which lambdamr never "
                "ships. Submit the job again."
            )


def _escapes(name: str) -> bool:
    return "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/"))


# --- sys.modules ----------------------------------------------------------------------------
def _regular_names(folder: str) -> list[str]:
    """Return the top-level modules and packages in *folder*.

    A namespace package is none: its parts add up with those that the worker has elsewhere.
    """
    names = []
    for entry in os.scandir(folder):
        if entry.is_file() or any(name.startswith("__init__.") for name in os.listdir(entry.path)):
            names.append(entry.name.partition(".")[0])
    return names


def _set_aside(names: Iterable[str]) -> dict[str, ModuleType]:
    """Take modules of these names, and what is below them, out of sys.modules."""
    tops = frozenset(names)
    taken = [name for name in list(sys.modules) if name.partition(".")[0] in tops]
    return {name: sys.modules.pop(name) for name in taken}


def _forget_modules(folder: str) -> None:
    """Take every module that came from *folder* out of sys.modules and off its parent."""
    # Looked at before any leaves: a namespace package finds its path through its parent.
    gone = [name for name, module in list(sys.modules.items()) if _came_from(module, folder)]
    for name in gone:
        module = sys.modules.pop(name)
        parent, _, child = name.rpartition(".")
        # Where the parent stays (a namespace package with other parts), `from parent import
        # child` would go on finding the old module.
        attributes = _attributes(sys.modules.get(parent))
        if attributes.get(child) is module:
            del attributes[child]


def _came_from(module: object, folder: str) -> bool:
    """Whether a module's file, or all of a namespace package's folders, lie in *folder*."""
    facts = _attributes(module)
    file = facts.get("__file__")
    if isinstance(file, str):
        return _within(file, folder)
    try:
        # Any object may stand in sys.modules; a namespace package whose parent has left raises.
        places = list(facts.get("__path__") or ())  # type: ignore[call-overload]
    except (TypeError, KeyError, AttributeError):
        return False
    return bool(places) and all(_within(place, folder) for place in places)


def _attributes(module: object) -> dict[str, object]:
    """Return a module's own attributes, without running its __getattr__ or loading a lazy one."""
    try:
        attributes = object.__getattribute__(module, "__dict__")
    except AttributeError:
        return {}
    return attributes if isinstance(attributes, dict) else {}


def _forget_finders(folder: str) -> None:
    for entry in [entry for entry in sys.path_importer_cache if _within(entry, folder)]:
        del sys.path_importer_cache[entry]


def _within(path: object, folder: str) -> bool:
    return isinstance(path, str) and (path == folder or path.startswith(folder + os.sep))
