"""The user's own modules: found by reading source, packed, and put in place in a worker.

Modules are real files on sys.path; the worker is a process of its own that cannot see them.
"""

import ast
import concurrent.futures
import gc
import hashlib
import io
import json
import os
import subprocess
import sys
import textwrap
import types
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lambdamr.shipping import fileless, is_own, pack, reached
from lambdamr.sources import PARSED, imports_of
from lambdamr_runtime import modules as runtime_modules
from lambdamr_runtime.errors import ArgumentNotSerializable, CorruptObject
from lambdamr_runtime.modules import ShippedModules

RUNTIME = str(Path(runtime_modules.__file__).parents[1])

PRELUDE = """
import json, os, sys
from lambdamr_runtime.modules import ShippedModules
directory, *files = sys.argv[1:]
archives = [open(file, "rb").read() for file in files]
shas = [os.path.basename(file) for file in files]
shipped = ShippedModules(directory)
def install(n): shipped.install(archives[n], shas[n])
"""

Write = Callable[..., Path]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes the user's files; their folder is on sys.path."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.syspath_prepend(str(home))

    def write(name: str, content: str | bytes = "") -> Path:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else textwrap.dedent(content).encode()
        path.write_bytes(data)
        return path

    return write


def worker(tmp_path: Path, script: str, *archives: bytes) -> object:
    """Run a script in a process that sees the runtime and these archives; return what it prints."""
    cwd = tmp_path / "worker"
    cwd.mkdir(exist_ok=True)
    files = []
    for archive in archives:
        files.append(tmp_path / hashlib.sha256(archive).hexdigest())
        files[-1].write_bytes(archive)
    program = PRELUDE + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(cwd / "modules"), *map(str, files)],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": RUNTIME},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def entries(archive: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(archive)) as packed:
        return packed.namelist()


def zipped(**files: str) -> bytes:
    """Return a zip of any entries, unchecked: what pack would never write too."""
    return zipped_entries({f"{name}.py": source for name, source in files.items()})


def zipped_entries(files: dict[str, str]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, source in files.items():
            archive.writestr(name, source)
    return target.getvalue()


# --- whose module it is -----------------------------------------------------------------------
@pytest.mark.parametrize("name", ["os", "json", "json.decoder", "sys", "zipimport", "encodings"])
def test_the_standard_library_is_not_own(name: str) -> None:
    """Source, built-in and frozen modules of Python are never shipped."""
    assert not is_own(name)


@pytest.mark.parametrize("name", ["cloudpickle", "obstore.store", "pytest", "_pytest.fixtures"])
def test_installed_packages_are_not_own(name: str) -> None:
    """What lies in site-packages is on the worker already, or is installed there by name."""
    assert not is_own(name)


@pytest.mark.parametrize("name", ["__main__", "lambdamr.shipping", "lambdamr_runtime", "no_such"])
def test_main_lambdamr_and_the_missing_are_not_own(name: str) -> None:
    """`__main__` goes by value, lambdamr is part of the worker, the missing cannot be shipped."""
    assert not is_own(name)


def test_files_beside_the_script_are_own(own: Write) -> None:
    """Modules, packages and namespace packages anywhere else are the user's, imported or not."""
    own("ship_mod.py")
    own("ship_pkg/__init__.py")
    own("ship_pkg/sub.py")
    own("ship_ns/inner/deep.py")
    assert all(map(is_own, ["ship_mod", "ship_pkg", "ship_pkg.sub", "ship_ns", "ship_ns.inner"]))
    assert is_own("ship_ns.inner.deep")
    assert is_own(__name__)


def test_other_environments_are_not_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A site-packages folder of any environment counts as installed."""
    folder = tmp_path / "venv" / "lib" / "site-packages"
    folder.mkdir(parents=True)
    (folder / "ship_installed.py").write_text("")
    monkeypatch.syspath_prepend(str(folder))
    assert not is_own("ship_installed")
    assert pack(["ship_installed"]) == b""


def test_editable_installs_are_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that a finder of its own maps to a source tree is the user's."""
    source = tmp_path / "src" / "ship_editable.py"
    source.parent.mkdir()
    source.write_text("VALUE = 1")

    class Finder:
        @staticmethod
        def find_spec(name: str, path: object = None, target: object = None) -> object:
            from importlib.util import spec_from_file_location

            return spec_from_file_location(name, source) if name == "ship_editable" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    assert is_own("ship_editable")
    assert entries(pack(["ship_editable"])) == ["ship_editable.py"]


def test_modules_without_a_file_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module made in a notebook goes by value: reported, neither own nor shipped."""
    monkeypatch.setitem(sys.modules, "ship_made", types.ModuleType("ship_made"))
    assert fileless(["ship_made", "os", "sys", "_io", "pytest", "__main__", "no_such"]) == [
        "ship_made"
    ]
    assert not is_own("ship_made")
    assert pack(["ship_made"]) == b""


# --- what is reached ------------------------------------------------------------------------------
def test_imports_are_followed_without_importing(own: Write) -> None:
    """Every form of import leads on; nothing runs, and what is not imported stays at home."""
    own("ship_pkg/__init__.py", "from . import first\n")
    own("ship_pkg/first.py", "from .second import x\nimport os, json, cloudpickle, no_such\n")
    own("ship_pkg/second.py", "def f():\n    from . import third\n    import ship_far\n")
    own("ship_pkg/third.py", "import importlib\nimportlib.import_module('.fourth', 'ship_pkg')\n")
    own("ship_pkg/fourth.py", "raise SystemExit('imported')\n")
    own("ship_pkg/unused.py")
    own("ship_far.py", "try:\n    import ship_pkg.deep.leaf as leaf\nexcept ImportError: pass\n")
    own("ship_pkg/deep/__init__.py")
    own("ship_pkg/deep/leaf.py")
    assert reached(["ship_pkg.first"]) == [
        "ship_far",
        "ship_pkg",
        "ship_pkg.deep",
        "ship_pkg.deep.leaf",
        "ship_pkg.first",
        "ship_pkg.fourth",
        "ship_pkg.second",
        "ship_pkg.third",
    ]
    assert not [name for name in sys.modules if name.startswith("ship_pkg")]


def test_relative_imports_that_lead_out_of_the_package_lead_nowhere(own: Write) -> None:
    """They would fail when run; here they are passed over."""
    own("ship_pkg/__init__.py", "from ... import x\nfrom .. import y\n")
    assert reached(["ship_pkg"]) == ["ship_pkg"]


def test_imports_for_type_checkers_are_not_followed(own: Write) -> None:
    """What `if TYPE_CHECKING:` guards is not needed to run; its else branch is."""
    own(
        "ship_typed.py",
        """
        import typing
        if typing.TYPE_CHECKING:
            import ship_types
        else:
            import ship_real
        """,
    )
    own("ship_types.py")
    own("ship_real.py")
    assert reached(["ship_typed"]) == ["ship_real", "ship_typed"]


def test_star_imports_reach_what_all_lists(own: Write) -> None:
    """`from pkg import *` imports the submodules that `__all__` names."""
    own("ship_star.py", "from ship_pkg import *\n")
    own("ship_pkg/__init__.py", "__all__: list[str] = ['one']\n__all__ += ['two']\n")
    for name in ("one", "two", "three"):
        own(f"ship_pkg/{name}.py")
    assert reached(["ship_star"]) == ["ship_pkg", "ship_pkg.one", "ship_pkg.two", "ship_star"]


def test_sources_that_do_not_compile_are_shipped_unread(own: Write) -> None:
    """A file for another Python is shipped as it is, and fails only where it is imported."""
    own("ship_odd.py", "try:\n    import ship_old\nexcept SyntaxError:\n    pass\n")
    own("ship_old.py", "print 'old'\n")
    assert entries(pack(["ship_odd"])) == ["ship_odd.py", "ship_old.py"]


@pytest.mark.parametrize("others", [1, 5])
def test_sources_are_read_while_others_parse(own: Write, others: int) -> None:
    """Python counts the depth of all parsing in one number: parsing meanwhile upsets it."""
    own("ship_long.py", "x = [1, (2, [3])]\n" * 2000 + "import ship_far\n")
    own("ship_far.py")
    left = others

    def parse(phase: str, _: object) -> None:  # as another thread would, in the midst of ours
        nonlocal left
        if phase == "start" and left and sys._getframe(1).f_code is ast.parse.__code__:
            left -= 1
            ast.parse("x = 1")

    thresholds = gc.get_threshold()
    gc.set_threshold(100)
    gc.callbacks.append(parse)
    try:
        assert reached(["ship_long"]) == ["ship_far", "ship_long"]
    finally:
        gc.callbacks.remove(parse)
        gc.set_threshold(*thresholds)
    assert not left


def test_threads_that_read_sources_leave_the_warnings(own: Write) -> None:
    """Whichever thread begins and ends first: no filter stays but that of the sources."""
    names = [f"ship_{number}" for number in range(64)]
    for name in names:
        own(f"{name}.py", "text = '\\d'\nx = [1, (2, [3])]\n" * 100 + "import ship_far\n")
    own("ship_far.py")
    before, interval = list(warnings.filters), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            found = list(threads.map(lambda name: reached([name]), names))
    finally:
        sys.setswitchinterval(interval)
    assert found == [sorted(["ship_far", name]) for name in names]
    assert all_but_ours(warnings.filters) == all_but_ours(before)


def test_others_turn_warnings_off_and_on_while_sources_are_read(own: Write) -> None:
    """Who began to record warnings amid a parse, and ends behind it, puts back the program's."""
    own("ship_long.py", "x = [1, (2, [3])]\n" * 2000 + "text = '\\d'\n")
    recording: list[warnings.catch_warnings[None]] = []

    def record(phase: str, _: object) -> None:
        if phase == "start" and not recording:
            recording.append(warnings.catch_warnings())
            recording[0].__enter__()

    before, thresholds = list(warnings.filters), gc.get_threshold()
    gc.set_threshold(100)
    gc.callbacks.append(record)
    try:
        assert reached(["ship_long"]) == ["ship_long"]
    finally:
        gc.callbacks.remove(record)
        gc.set_threshold(*thresholds)
    assert recording
    recording[0].__exit__(None, None, None)
    assert all_but_ours(warnings.filters) == all_but_ours(before)


@pytest.mark.parametrize("action", ["error", "always"])
def test_bad_escapes_are_no_warnings_of_ours(
    own: Write, action: str, recwarn: pytest.WarningsRecorder
) -> None:
    """They are reported where the module is imported; here they are read past, errors or not."""
    own("ship_odd.py", "text = '\\d'\nimport ship_far\n")
    own("ship_far.py")
    warnings.simplefilter(action)  # type: ignore[arg-type]  # of those that it takes
    assert reached(["ship_odd"]) == ["ship_far", "ship_odd"]
    assert not recwarn.list


def all_but_ours(filters: Sequence[Any]) -> list[Any]:
    """Return the filters of warnings but for that of the sources that are read."""
    return [each for each in filters if getattr(each[3], "pattern", "") != PARSED]


def test_imports_inside_functions_pickled_by_value_are_found() -> None:
    """The bytecode of a function, and of functions in it, tells what it will import."""

    def task() -> None:
        import ship_a.b  # type: ignore[import-not-found]  # noqa: F401

        def inner() -> None:
            from ship_c import d  # type: ignore[import-not-found]  # noqa: F401

    assert imports_of(task.__code__) == {"ship_a.b", "ship_c", "ship_c.d"}
    relative = compile("from . import near", "<test>", "exec")
    assert imports_of(relative, "ship_pkg") == {"ship_pkg", "ship_pkg.near"}
    assert imports_of(worker.__code__) == frozenset()


# --- the archive ----------------------------------------------------------------------------------
def test_equal_files_make_equal_bytes(own: Write, tmp_path: Path) -> None:
    """Neither order, time nor the process that packs shows in the archive."""
    own("ship_a.py", "A = 1\n")
    path = own("ship_b.py", "B = 1\n")
    first = pack(["ship_a", "ship_b", "os"])
    os.utime(path, (1, 1))
    assert pack(["ship_b", "ship_a"]) == first
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from lambdamr.shipping import pack;"
        "sys.stdout.buffer.write(pack(['ship_b', 'ship_a']))"
    )
    again = subprocess.run(
        [sys.executable, "-c", program, str(path.parent)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"},
        cwd=tmp_path,
        capture_output=True,
        check=True,
    )
    assert again.stdout == first


def test_nothing_to_ship_is_no_bytes() -> None:
    """Functions that need no module of the user's carry none."""
    assert pack([]) == b""
    assert pack(["os", "cloudpickle", "__main__", "no_such"]) == b""


def test_an_archive_is_kept_until_a_file_changes(own: Write) -> None:
    """A repeated pack returns the same object; an edit, a new import included, is seen."""
    path = own("ship_a.py", "A = 1\n")
    own("ship_new.py")
    first = pack(["ship_a"])
    assert pack(["ship_a"]) is first
    assert pack(["ship_a", "os"]) is first
    path.write_text("import ship_new\n")
    os.utime(path, (1, 1))
    assert entries(pack(["ship_a"])) == ["ship_a.py", "ship_new.py"]


def test_a_new_file_in_an_included_package_is_seen(own: Write) -> None:
    """Data written between two submits goes with the second."""
    own("ship_pkg/__init__.py")
    assert entries(pack([], include=["ship_pkg"])) == ["ship_pkg/__init__.py"]
    path = own("ship_pkg/data.txt", "x")
    os.utime(path.parent, (1, 1))
    assert entries(pack([], include=["ship_pkg"])) == ["ship_pkg/__init__.py", "ship_pkg/data.txt"]


def test_an_included_package_is_whole(own: Write) -> None:
    """Modules, data and what its modules import go; caches and hidden folders do not."""
    own("ship_pkg/__init__.py")
    own("ship_pkg/plugin.py", "import ship_helper\n")
    own("ship_pkg/data/words.txt", "a b")
    own("ship_pkg/__pycache__/plugin.cpython-311.pyc", "")
    own("ship_pkg/.git/config", "")
    own("ship_helper.py")
    assert entries(pack([], include=("ship_pkg",))) == [
        "ship_helper.py",
        "ship_pkg/__init__.py",
        "ship_pkg/data/words.txt",
        "ship_pkg/plugin.py",
    ]


def test_an_installed_package_is_shipped_on_request() -> None:
    """include_modules takes what lies in site-packages, too."""
    assert pack(["iniconfig"]) == b""
    assert "iniconfig/__init__.py" in entries(pack([], include=["iniconfig"]))


def test_an_unknown_include_is_refused(own: Write) -> None:
    """The error names what cannot be found."""
    own("ship_pkg/__init__.py")
    with pytest.raises(ValueError, match=r"include_modules names 'ship_pkg\.nowhere'"):
        pack([], include=["ship_pkg.nowhere"])


def test_one_string_is_not_a_list_of_names() -> None:
    """A string is a sequence of letters, which nobody means."""
    with pytest.raises(TypeError, match=r"exclude_modules is a sequence .* Write \('os',\)"):
        pack([], exclude="os")


def test_excluded_names_stay_with_their_submodules(own: Write) -> None:
    """Excluding wins over reached and include, by whole names; what only it imports stays too."""
    own("ship_pkg/__init__.py", "from . import kept\n")
    own("ship_pkg/kept.py", "from .left import out\nimport ship_pkg.leftover\n")
    own("ship_pkg/leftover.py")
    own("ship_pkg/left/__init__.py", "import ship_far\n")
    own("ship_pkg/left/out.py")
    own("ship_pkg/left/data.txt")
    own("ship_far.py")
    kept = ["ship_pkg/__init__.py", "ship_pkg/kept.py", "ship_pkg/leftover.py"]
    assert entries(pack(["ship_pkg"], exclude=["ship_pkg.left"])) == kept
    assert entries(pack([], include=["ship_pkg"], exclude=["ship_pkg.left"])) == kept
    assert reached(["ship_pkg"], exclude=["ship_pkg.left"])[-1] == "ship_pkg.leftover"
    assert pack(["ship_pkg"], include=["ship_pkg"], exclude=["ship_pkg"]) == b""


@pytest.mark.parametrize("name", ["colorsys", "dill"])
def test_a_name_that_the_worker_needs_is_refused(own: Write, name: str) -> None:
    """A file of the user's that shadows Python or the runtime is an error, unless excluded."""
    loaded = {key: sys.modules.pop(key) for key in list(sys.modules) if key.split(".")[0] == name}
    try:
        own(f"{name}.py")
        own("ship_a.py", f"import {name}\n")
        with pytest.raises(ArgumentNotSerializable, match=f"{name!r}.*exclude_modules"):
            pack(["ship_a"])
        assert entries(pack(["ship_a"], exclude=[name])) == ["ship_a.py"]
    finally:
        sys.modules.update(loaded)


def test_a_module_whose_file_is_gone_is_an_error(own: Write, tmp_path: Path) -> None:
    """The error names the path and the way out; once it is back, it is shipped."""
    path = own("ship_gone.py")
    assert pack(["ship_gone"]) != b""
    module = types.ModuleType("ship_gone")
    module.__file__ = str(path)
    sys.modules["ship_gone"] = module
    try:
        path.rename(tmp_path / "aside")
        with pytest.raises(ArgumentNotSerializable, match=r"ship_gone\.py.*exclude_modules"):
            pack(["ship_gone"])
    finally:
        del sys.modules["ship_gone"]


# --- in the worker --------------------------------------------------------------------------------
def test_a_package_with_relative_imports_runs(own: Write, tmp_path: Path) -> None:
    """What was reached is enough to import, for packages, relative and nested imports."""
    own("ship_pkg/__init__.py", "from ship_pkg import sub\n")
    own("ship_pkg/sub.py", "from .deep.leaf import VALUE\nfrom . import other as o\n")
    own("ship_pkg/other.py", "def late():\n    import ship_late\n    return ship_late.VALUE\n")
    own("ship_pkg/deep/leaf.py", "from .. import other\nVALUE = 7\n")
    own("ship_late.py", "VALUE = 8\n")
    script = """
    install(0)
    from ship_pkg import sub
    print(json.dumps([sub.VALUE, sub.o.late()]))
    """
    assert worker(tmp_path, script, pack(["ship_pkg.sub"])) == [7, 8]


@pytest.mark.parametrize("encoding", ["latin-1", "shift_jis", "utf-8-sig"])
def test_sources_of_any_encoding_run(own: Write, tmp_path: Path, encoding: str) -> None:
    """Bytes travel: a coding cookie or a BOM means the same there, and its imports are found."""
    text = "日本" if encoding == "shift_jis" else "déjà"
    cookie = "" if encoding == "utf-8-sig" else f"# -*- coding: {encoding} -*-\n"
    own("ship_coded.py", f"{cookie}import ship_far\nTEXT = '{text}'\n".encode(encoding))
    own("ship_far.py", "")
    script = "install(0)\nimport ship_coded\nprint(json.dumps(ship_coded.TEXT))"
    assert worker(tmp_path, script, pack(["ship_coded"])) == text


def test_data_files_are_found_as_resources(own: Write, tmp_path: Path) -> None:
    """importlib.resources reads the data of an included package."""
    own("ship_pkg/__init__.py")
    own("ship_pkg/data/words.txt", "a b")
    script = """
    install(0)
    from importlib.resources import files
    print(json.dumps(files("ship_pkg").joinpath("data/words.txt").read_text()))
    """
    assert worker(tmp_path, script, pack([], include=["ship_pkg"])) == "a b"


def test_new_code_is_seen(own: Write, tmp_path: Path) -> None:
    """Versions replace each other in one process, back and forth; "" leaves nothing behind."""
    path = own("ship_pkg/mod.py", "VALUE = 1\n")
    first = pack(["ship_pkg.mod"])
    path.write_text("VALUE = 2  # edited\n")
    second = pack(["ship_pkg.mod"])
    script = """
    seen = []
    before = set(sys.modules), list(sys.path)
    for n in (0, 1, 0):
        install(n)
        from ship_pkg import mod
        seen.append(mod.VALUE)
    shipped.install(b"", "")
    left = [name for name in sys.modules if name.startswith("ship_")]
    cached = [path for path in sys.path_importer_cache if path.startswith(directory)]
    print(json.dumps([seen, left, cached, sys.path == before[1], shipped.sha]))
    """
    assert worker(tmp_path, script, first, second) == [[1, 2, 1], [], [], True, ""]


def test_a_namespace_that_stays_forgets_what_left(tmp_path: Path) -> None:
    """A namespace package with parts of the worker's keeps those, and only those."""
    part = tmp_path / "worker" / "ship_ns"
    part.mkdir(parents=True)
    (part / "theirs.py").write_text("VALUE = 0")
    first = zipped_entries({"ship_ns/mine.py": "VALUE = 1"})
    second = zipped_entries({"ship_ns/mine.py": "VALUE = 2"})
    script = """
    sys.path.append(os.getcwd())
    from ship_ns import theirs
    kept = theirs
    seen = []
    for n in (0, 1):
        install(n)
        from ship_ns import mine
        seen.append(mine.VALUE)
    shipped.uninstall()
    import ship_ns
    from ship_ns import theirs
    print(json.dumps([seen, theirs is kept, hasattr(ship_ns, "mine")]))
    """
    assert worker(tmp_path, script, first, second) == [[1, 2], True, False]


def test_a_shipped_module_shadows_one_of_the_workers(tmp_path: Path) -> None:
    """The user's `utils` is used while it is installed; the worker's own comes back after it."""
    theirs = tmp_path / "worker" / "utils"
    theirs.mkdir(parents=True)
    (theirs / "__init__.py").write_text("VALUE = 'theirs'")
    (theirs / "sub.py").write_text("")
    script = """
    sys.path.insert(0, os.getcwd())
    import utils, utils.sub
    kept = utils
    install(0)
    import utils
    seen = [utils.VALUE, "utils.sub" in sys.modules]
    shipped.uninstall()
    import utils
    print(json.dumps([seen, utils is kept, "utils.sub" in sys.modules]))
    """
    assert worker(tmp_path, script, zipped(utils="VALUE = 'ours'")) == [["ours", False], True, True]


def test_processes_share_a_folder(tmp_path: Path) -> None:
    """One directory serves many processes: the first unpacks, the others find it there."""
    archive = zipped(ship_a="VALUE = 1")
    script = """
    first, second = ShippedModules(directory), ShippedModules(directory)
    folder = os.path.join(directory, shas[0])
    first.install(archives[0], shas[0])
    made = os.stat(folder).st_ino
    second.install(archives[0], shas[0])
    print(json.dumps([os.listdir(directory) == [shas[0]], os.stat(folder).st_ino == made]))
    """
    assert worker(tmp_path, script, archive) == [True, True]


def test_importing_the_worker_side_loads_no_zipfile(tmp_path: Path) -> None:
    """Cold start: what unpacking needs is imported when there is something to unpack."""
    script = "print(json.dumps([m for m in ('zipfile', 'shutil', 'ast') if m in sys.modules]))"
    assert worker(tmp_path, script) == []


@pytest.mark.parametrize(
    "entry",
    ["../out.py", "/abs.py", "a/../../out.py", "a//b.py", "./a.py", "os.py", "obstore/__init__.py"],
)
def test_entries_that_pack_never_writes_are_refused(tmp_path: Path, entry: str) -> None:
    """An archive that would write elsewhere or displace Python is corrupt, and changes nothing."""
    shipped = ShippedModules(str(tmp_path / "modules"))
    before = list(sys.path)
    with pytest.raises(CorruptObject, match="never ships"):
        shipped.install(zipped_entries({"ship_a.py": "", entry: ""}), "abc")
    assert (shipped.sha, sys.path) == ("", before)
    assert list(tmp_path.rglob("*.py")) == []


@pytest.mark.parametrize("archive", [b"", b"no zip", zipped(ship_a="x" * 99)[:-30]])
def test_damaged_archives_are_corrupt(tmp_path: Path, archive: bytes) -> None:
    """What is no zip is named with its size; nothing is left on disk."""
    shipped = ShippedModules(str(tmp_path / "modules"))
    with pytest.raises(CorruptObject, match=rf"abc \({len(archive)} bytes\)"):
        shipped.install(archive, "abc")
    assert list(tmp_path.rglob("abc*")) == []


def test_a_sha_is_no_path(tmp_path: Path) -> None:
    """A folder is named by letters and digits only."""
    with pytest.raises(CorruptObject, match=r"'\.\./x' cannot be the sha"):
        ShippedModules(str(tmp_path)).install(zipped(ship_a=""), "../x")
