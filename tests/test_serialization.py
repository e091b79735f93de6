"""What travels: code and values between the client and worker processes that see none of it.

Scripts run in a process of their own, as a user's would: their `__main__` exists nowhere else.
"""

import concurrent.futures
import dataclasses
import enum
import functools
import hashlib
import importlib
import importlib.util
import io
import json
import math
import os
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lambdamr
import lambdamr_runtime
from lambdamr_runtime.keys import JobKeys, data_key
from lambdamr_runtime.limits import INLINE_RESULT_BYTES, MIB, WHOLE_ARGS_BYTES
from lambdamr_runtime.packed import FunctionObject
from lambdamr_runtime.wire import Manifest

TIMEOUT_S = 60.0
"""A task that takes longer hangs."""

SOURCES = [str(Path(package.__path__[0]).parent) for package in (lambdamr, lambdamr_runtime)]
"""Where the library is imported from: all that a script needs on its path."""

Own = Callable[..., ModuleType]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Own]:
    """Return a function that writes the user's own files and imports the first of them."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.syspath_prepend(str(home))
    known = set(sys.modules)

    def write(files: dict[str, str | bytes]) -> ModuleType:
        for name, content in files.items():
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            text = content if isinstance(content, bytes) else textwrap.dedent(content).encode()
            path.write_bytes(text)
        importlib.invalidate_caches()
        first = next(iter(files)).removesuffix(".py").removesuffix("/__init__")
        return importlib.import_module(first.replace("/", "."))

    yield write
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(home)):
            del sys.modules[name]


@pytest.fixture
def alone(root: str) -> Iterator[lambdamr.Executor]:
    """One worker over a directory that holds nothing else."""
    with lambdamr.Executor(workers=1, root=root) as executor:
        yield executor


def stored(root: str, folder: str) -> list[Path]:
    return sorted(path for path in Path(root).glob(f"{folder}/**/*") if path.is_file())


def shipped(root: str, job_id: str) -> list[str]:
    """Return the files in the archive that travelled with the first stage of a job."""
    manifest = Manifest.decode(Path(root, JobKeys(job_id).manifest).read_bytes(), job_id)
    stage = manifest.stages[0]
    data = stage.inline_function or Path(root, "functions", stage.function).read_bytes()
    archive = FunctionObject.decode(data, job_id).archive
    return zipfile.ZipFile(io.BytesIO(archive)).namelist() if archive else []


def run_script(folder: Path, code: str, *arguments: str) -> Any:
    """Run a script of the user's in its own folder, and return what it prints, as JSON."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(code))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        env={**environment, "LAMBDAMR_ROOT": str(folder / "root")},
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


# --- functions ----------------------------------------------------------------------------------


def test_closures_and_lambdas(executor: lambdamr.Executor) -> None:
    """Functions made in functions travel with what they close over, and so do partial objects,
    bound methods and builtins.
    """

    def adder(n: int) -> Callable[[int], int]:
        return lambda x: x + n

    assert executor.map(adder(10), range(3)).result(TIMEOUT_S) == [10, 11, 12]
    assert executor.submit(functools.partial(pow, 2), 5).result(TIMEOUT_S) == 32
    assert executor.submit([3, 1, 2].index, 2).result(TIMEOUT_S) == 2
    assert executor.submit(math.hypot, 3, 4).result(TIMEOUT_S) == 5.0
    assert executor.submit("-".join, ["a", "b"]).result(TIMEOUT_S) == "a-b"


def test_recursion(executor: lambdamr.Executor) -> None:
    """A function that calls itself, and two that call each other, travel whole."""

    def factorial(n: int) -> int:
        return 1 if n <= 1 else n * factorial(n - 1)

    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    def odd(n: int) -> bool:
        return n != 0 and even(n - 1)

    assert executor.submit(factorial, 20).result(TIMEOUT_S) == math.factorial(20)
    assert executor.map(even, range(4)).result(TIMEOUT_S) == [True, False, True, False]


def test_functions_come_back(executor: lambdamr.Executor) -> None:
    """A task may return a function that it made."""

    def make(n: int) -> Callable[[int], int]:
        return lambda x: x * n

    assert executor.submit(make, 3).result(TIMEOUT_S)(14) == 42


def test_classes_of_a_function_come_back_as_themselves(executor: lambdamr.Executor) -> None:
    """Instances, enum members and the classes themselves: what comes back is of the client's own
    class, so isinstance, == and `is` hold.
    """

    class Base:
        def twice(self) -> int:
            return self.n * 2

        def __init__(self, n: int) -> None:
            self.n = n

    class Point(Base):
        def twice(self) -> int:
            return super().twice() + 1

    @dataclasses.dataclass(frozen=True)
    class Record:
        name: str
        inner: Any = None

    class Colour(enum.Enum):
        RED = 1

    point = executor.submit(lambda n: Point(n), 4).result(TIMEOUT_S)
    assert isinstance(point, Point)
    assert point.twice() == 9
    assert executor.submit(lambda p: p.twice(), point).result(TIMEOUT_S) == 9
    assert executor.submit(lambda: Record("a", [Record("b")])).result(TIMEOUT_S) == Record(
        "a", [Record("b")]
    )
    assert executor.submit(lambda c: c, Colour.RED).result(TIMEOUT_S) is Colour.RED
    assert executor.submit(lambda: Point).result(TIMEOUT_S) is Point


def test_exceptions_of_a_local_class_are_caught_by_it(executor: lambdamr.Executor) -> None:
    """An exception class of the client's, whatever its constructor takes, can be caught by name."""

    class Refused(Exception):
        def __init__(self, code: int, *, reason: str) -> None:
            super().__init__(f"{code}: {reason}")
            self.code = code

    def refuse() -> None:
        raise Refused(7, reason="closed")

    with pytest.raises(Refused, match="7: closed") as caught:
        executor.submit(refuse).result(TIMEOUT_S)
    assert caught.value.code == 7


MAIN = """
    import dataclasses, enum, json, sys
    import lambdamr

    SCALE = 10

    class Colour(enum.Enum):
        RED = 1

    @dataclasses.dataclass
    class Point:
        x: int
        colour: Colour = Colour.RED

        def scaled(self):
            return Point(scale(self.x))

    class Refused(Exception):
        pass

    def scale(n):
        return n * SCALE

    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    def main(n):
        return Point(n).scaled()

    def refuse():
        raise Refused("no")

    found = {}
    with lambdamr.Executor(workers=2) as executor:
        point = executor.submit(main, 4).result()
        found["isinstance"] = isinstance(point, Point)
        found["value"] = point.x
        found["enum"] = point.colour is Colour.RED
        found["equal"] = executor.submit(lambda p: p, Point(1)).result() == Point(1)
        found["class"] = executor.submit(lambda: Point).result() is Point
        found["recursion"] = executor.submit(fibonacci, 10).result()
        found["function"] = executor.submit(lambda: main).result()(1).x
        try:
            executor.submit(refuse).result()
        except Refused as error:
            found["error"] = str(error)
        job = executor.map_reduce(
            lambda n: [(Colour.RED, Point(n))], range(4), lambda c, v: max(p.x for p in v)
        )
        found["map_reduce"] = job.result()[Colour.RED]
        SCALE = 100
        found["now"] = executor.submit(scale, 1).result()
    print(json.dumps(found))
"""


def test_everything_of_main_goes_and_comes_back(tmp_path: Path) -> None:
    """Lithops pickles results plainly: an instance of a script's own class cannot come back. Here
    functions and classes of `__main__` travel by value, both ways, as they are at the call.
    """
    assert run_script(tmp_path, MAIN) == {
        "isinstance": True,
        "value": 40,
        "enum": True,
        "equal": True,
        "class": True,
        "recursion": 55,
        "function": 10,
        "error": "no",
        "map_reduce": 3,
        "now": 100,
    }


def test_dill_on_request(tmp_path: Path) -> None:
    """serializer="dill" takes functions, classes and lambdas, in containers and closures too, and
    what only dill can pickle.
    """
    pytest.importorskip("dill")
    found = run_script(
        tmp_path,
        """
        import json
        import lambdamr

        class Point:
            def __init__(self, x):
                self.x = x

        def scale(n, by=10):
            return Point(n * by)

        def fibonacci(n):
            return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

        def counter():
            yield from range(5)

        found = {}
        with lambdamr.Executor(workers=1, serializer="dill") as executor:
            found["class"] = executor.submit(scale, 4).result().x
            found["recursion"] = executor.submit(fibonacci, 10).result()
            table = {"double": lambda n: n * 2, "list": [lambda n: n + 1]}
            found["lambdas"] = executor.submit(
                lambda t: [t["double"](5), t["list"][0](5)], table
            ).result()
            found["argument"] = executor.submit(lambda p: p.x, Point(3)).result()
            found["returned"] = executor.submit(lambda: (lambda n: n * 3)).result()(3)
            found["iterator"] = executor.submit(list, iter([1, 2])).result()
            found["own"] = executor.submit(lambda: __import__("json").dumps([1])).result()
            job = executor.map_reduce(
                lambda n: [(n % 2, Point(n))], range(4), lambda k, v: Point(sum(p.x for p in v))
            )
            found["map_reduce"] = sorted((k, p.x) for k, p in job.result().items())
        print(json.dumps(found))
        """,
    )
    assert found == {
        "class": 40,
        "recursion": 55,
        "lambdas": [10, 6],
        "argument": 3,
        "returned": 9,
        "iterator": [1, 2],
        "own": "[1]",
        "map_reduce": [[0, 2], [1, 4]],
    }


def test_dill_in_many_threads(root: str) -> None:
    """Dill turns sys.stdout aside while it pickles: afterwards it is the program's again."""
    pytest.importorskip("dill")
    before, interval = sys.stdout, sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with (
            lambdamr.Executor(workers=1, root=root, serializer="dill") as executor,
            concurrent.futures.ThreadPoolExecutor(8) as threads,
        ):
            data = threads.map(lambda number: executor.put([number, lambda: number]), range(64))
            assert len(list(data)) == 64
        assert sys.stdout is before
    finally:
        sys.setswitchinterval(interval)
        sys.stdout = before


def test_dill_ships_own_modules(own: Own, root: str) -> None:
    """With dill, too, the user's own modules travel: those named and those imported inside."""
    pytest.importorskip("dill")
    module = own({"dill_one.py": "def f(): return 1", "dill_two.py": "def g(): return 2"})

    def imports_inside() -> int:
        from dill_two import g  # type: ignore[import-not-found]  # written by this test

        result: int = g()
        return result

    with lambdamr.Executor(workers=1, root=root, serializer="dill") as executor:
        assert executor.submit(module.f).result(TIMEOUT_S) == 1
        assert executor.submit(lambda: module.f() + 1).result(TIMEOUT_S) == 2
        assert executor.submit(imports_inside).result(TIMEOUT_S) == 2


def test_what_cannot_be_pickled_is_named(executor: lambdamr.Executor) -> None:
    """The call itself raises ArgumentNotSerializable, naming the argument or the function."""
    lock = threading.Lock()
    with pytest.raises(lambdamr.ArgumentNotSerializable, match=r"arguments of task 2.*lock"):
        executor.map(str, [1, 2, lock], chunksize=2)
    with pytest.raises(lambdamr.ArgumentNotSerializable, match=r"function.*lock"):
        executor.submit(lambda: lock)
    with pytest.raises(lambdamr.ArgumentNotSerializable, match=r"object.*lock"):
        executor.put(lock)


def test_what_cannot_come_back_is_named(executor: lambdamr.Executor) -> None:
    """A result that cannot be pickled is ResultNotSerializable, and names its type."""

    with pytest.raises(lambdamr.ResultNotSerializable, match=r"returned a _thread\.lock"):
        executor.submit(threading.Lock).result(TIMEOUT_S)


# --- modules ------------------------------------------------------------------------------------


def test_a_module_is_shipped(own: Own, alone: lambdamr.Executor, root: str) -> None:
    """A function of the user's own module, an instance of its class as the only argument, and its
    classes among results: the module travels, and isinstance holds on return.
    """
    module = own({"shipped_one.py": "class Point:\n    x = 3\ndef make():\n    return Point()\n"})
    future = alone.submit(module.make)
    assert isinstance(future.result(TIMEOUT_S), module.Point)
    assert shipped(root, future.job_id) == ["shipped_one.py"]
    assert alone.submit(getattr, module.Point(), "x").result(TIMEOUT_S) == 3
    assert alone.submit(lambda: module.make().x).result(TIMEOUT_S) == 3
    assert alone.map(module.make, [], []).result(TIMEOUT_S) == []


def test_a_package_with_relative_imports(own: Own, alone: lambdamr.Executor, root: str) -> None:
    """A package travels with what it imports, relatively too, and without what it does not."""
    package = own(
        {
            "relative_pack/__init__.py": "from .middle import f",
            "relative_pack/middle.py": "from .deep import inner\ndef f(n): return inner.g(n)",
            "relative_pack/deep/__init__.py": "",
            "relative_pack/deep/inner.py": "from . import __name__ as name\n"
            "def g(n): return (name, n)",
            "relative_pack/unused.py": "raise RuntimeError",
        }
    )
    future = alone.submit(package.f, 1)
    assert future.result(TIMEOUT_S) == ("relative_pack.deep", 1)
    assert "relative_pack/unused.py" not in shipped(root, future.job_id)


def test_any_source_encoding(own: Own, alone: lambdamr.Executor) -> None:
    """A module in latin-1 arrives as it is on disk."""
    module = own(
        {"latin_source.py": "# -*- coding: latin-1 -*-\ndef f(): return 'é'".encode("latin-1")}
    )
    assert alone.submit(module.f).result(TIMEOUT_S) == "é"


def test_an_import_inside_a_function(own: Own, alone: lambdamr.Executor, root: str) -> None:
    """A module that only the body of a function imports is found there; standard library and
    installed packages are not shipped.
    """
    own(
        {
            "inside_one.py": "import inside_two, json, tqdm\ndef f(): return inside_two.X",
            "inside_two.py": "X = 5",
        }
    )

    def imports_inside() -> int:
        import csv  # noqa: F401 - of the standard library

        import inside_one  # type: ignore[import-not-found]  # written by this test

        result: int = inside_one.f()
        return result

    imports_inside.__module__ = "__main__"  # not of this file, which would travel too
    future = alone.submit(imports_inside)
    assert future.result(TIMEOUT_S) == 5
    assert shipped(root, future.job_id) == ["inside_one.py", "inside_two.py"]


def test_include_and_exclude(own: Own, root: str, tmp_path: Path) -> None:
    """include_modules ships what no source shows, data files too; exclude_modules leaves out."""
    module = own(
        {
            "plug_host.py": """
                import importlib, pkgutil
                def load(name): return importlib.import_module("plug_" + name).X
                def data(): return pkgutil.get_data("plug_ins", "words.txt")
                """,
            "plug_ins/__init__.py": "X = 1",
            "plug_ins/words.txt": "hello",
        }
    )
    plain = lambdamr.Executor(workers=1, root=root)
    with plain, pytest.raises(ModuleNotFoundError, match="plug_ins"):
        plain.submit(module.load, "ins").result(TIMEOUT_S)
    included = lambdamr.Executor(workers=1, root=root, include_modules=["plug_ins"])
    with included:
        assert included.submit(module.load, "ins").result(TIMEOUT_S) == 1
        assert included.submit(module.data).result(TIMEOUT_S) == b"hello"
    excluded = lambdamr.Executor(workers=1, root=root, exclude_modules=["plug_host"])
    with excluded, pytest.raises(ModuleNotFoundError, match="plug_host"):
        excluded.submit(module.load, "ins").result(TIMEOUT_S)
    missing = lambdamr.Executor(workers=1, root=root, include_modules=["no_such_module"])
    with missing, pytest.raises(ValueError, match="no_such_module"):
        missing.submit(abs, 1)


def test_an_edited_module_is_seen_by_the_next_call(own: Own, alone: lambdamr.Executor) -> None:
    """Edit, reload, call: the warm worker runs the new code, and the old one again if it is put
    back.
    """
    first = "def f(): return 'first'\n"
    module = own({"edited_one.py": first})
    assert alone.submit(module.f).result(TIMEOUT_S) == "first"
    pid = alone.submit(os.getpid).result(TIMEOUT_S)
    for text in ("second", "a third one", "first"):
        module = own({"edited_one.py": f"def f(): return {text!r}\n"})
        importlib.invalidate_caches()
        _forget_bytecode(module)
        importlib.reload(module)
        assert alone.submit(module.f).result(TIMEOUT_S) == text
        assert alone.submit(lambda m: m.f(), module).result(TIMEOUT_S) == text
    assert alone.submit(os.getpid).result(TIMEOUT_S) == pid


def _forget_bytecode(module: ModuleType) -> None:
    """Python takes a .pyc for current if time (in seconds) and size of the source are the same."""
    assert module.__file__ is not None
    Path(importlib.util.cache_from_source(module.__file__)).unlink(missing_ok=True)


def test_workers_see_no_folder_of_the_user(tmp_path: Path) -> None:
    """A module beside the script, or in a folder that the script put on sys.path, is not found by
    accident: only what travels is there.
    """
    (tmp_path / "beside.py").write_text("X = 1")
    (tmp_path / "added").mkdir()
    (tmp_path / "added" / "elsewhere.py").write_text("X = 1")
    found = run_script(
        tmp_path,
        """
        import importlib, json, os, sys
        sys.path.insert(0, os.path.abspath("added"))
        import beside, elsewhere
        import lambdamr

        def look(name):
            try:
                return importlib.import_module(name).X
            except ModuleNotFoundError:
                return "not found"

        with lambdamr.Executor(workers=1) as executor:
            names = ["beside", "elsewhere"]
            found = executor.map(look, names).result()
            path = executor.submit(lambda: sys.path).result()
            shipped = executor.submit(lambda: [beside.X, elsewhere.X]).result()
        print(json.dumps([found, [p for p in path if p.startswith(os.getcwd())], shipped]))
        """,
    )
    assert found == [["not found", "not found"], [], [1, 1]]


def test_results_of_own_classes_are_arguments(own: Own, alone: lambdamr.Executor) -> None:
    """A future, a reduction and put data bring the modules of their values along: the function
    that gets them need not know of these.
    """
    module = own(
        {
            "carried_one.py": """
                class Sum:
                    def __init__(self, n): self.n = n
                def join(sums): return Sum(sum(each.n for each in sums))
                """
        }
    )
    future = alone.submit(module.Sum, 5)
    assert alone.submit(lambda value: value.n, future).result(TIMEOUT_S) == 5
    data = alone.put(module.Sum(6))
    assert alone.submit(lambda value: value.n, data).result(TIMEOUT_S) == 6
    assert alone.submit(lambda: data.n).result(TIMEOUT_S) == 6  # type: ignore[attr-defined]  # the object itself
    sums = alone.map(module.Sum, range(10), chunksize=3)
    longest = alone.reduce(lambda values: max(values, key=lambda each: each.n), sums, arity=3)
    assert longest.result(TIMEOUT_S).n == 9


# --- large and small ----------------------------------------------------------------------------


def digest(data: bytes) -> tuple[int, bytes]:
    """Sizes and ends tell: hashing would take longer than the transfer."""
    return len(data), data[:8] + data[len(data) // 2 :][:8] + data[-8:]


LARGE = 200 * MIB


def large_bytes() -> bytes:
    block = os.urandom(MIB)
    return b"".join((block, bytes(LARGE - 2 * MIB), block))


def test_a_large_argument(alone: lambdamr.Executor, root: str) -> None:
    """200 MB in one argument arrive whole, by way of the store."""
    data = large_bytes()
    future = alone.submit(digest, data)
    assert future.result(TIMEOUT_S) == digest(data)
    assert Path(root, f"jobs/{future.job_id}/submit/args").stat().st_size >= LARGE


def test_a_large_closure(alone: lambdamr.Executor) -> None:
    """200 MB that a function closes over arrive whole."""
    data = large_bytes()
    assert alone.submit(lambda: digest(data)).result(TIMEOUT_S) == digest(data)


def test_one_upload_for_all_arguments(alone: lambdamr.Executor, root: str) -> None:
    """The arguments of all tasks of a map are one object, read piece by piece where it is large."""
    items = [bytes([n]) * (WHOLE_ARGS_BYTES // 8) for n in range(20)]
    futures = alone.map(digest, items, chunksize=3)
    assert futures.result(TIMEOUT_S) == [digest(item) for item in items]
    names = [str(path.relative_to(root)) for path in stored(root, f"jobs/{futures.job_id}")]
    assert [name for name in names if "args" in name] == [f"jobs/{futures.job_id}/map/args"]


def test_small_calls_ride_inline(alone: lambdamr.Executor, root: str) -> None:
    """A small call stores its manifest, its outcome and the report: no function, no arguments."""
    future = alone.submit(pow, 2, 10)
    assert future.result(TIMEOUT_S) == 1024
    alone.shutdown()
    job = f"jobs/{future.job_id}"
    assert stored(root, "functions") == []
    assert [str(path.relative_to(root)) for path in stored(root, job)] == [
        f"{job}/job.json",
        f"{job}/report.json",
        f"{job}/submit/outcomes/0/0",
    ]


def test_a_function_is_stored_once(alone: lambdamr.Executor, root: str) -> None:
    """The same large function in many calls is one object."""
    table = os.urandom(100_000)

    def look_up(n: int) -> int:
        return table[n]

    futures = [alone.submit(look_up, n) for n in range(5)]
    assert [future.result(TIMEOUT_S) for future in futures] == list(table[:5])
    assert len(stored(root, "functions")) == 1


@pytest.mark.parametrize("size", [INLINE_RESULT_BYTES // 2, INLINE_RESULT_BYTES + 1, 20 * MIB])
def test_results_of_any_size(alone: lambdamr.Executor, root: str, size: int) -> None:
    """Small results ride in the outcome, large ones in an object of their own; both come back."""
    future = alone.submit(bytes, size)
    assert future.result(TIMEOUT_S) == bytes(size)
    assert len(stored(root, f"jobs/{future.job_id}/submit/results")) == (size > INLINE_RESULT_BYTES)
    assert alone.submit(len, future).result(TIMEOUT_S) == size


def test_numpy_arrays(executor: lambdamr.Executor) -> None:
    """Arrays go and come back bit by bit, structured, strided and empty ones too."""
    numpy = pytest.importorskip("numpy")
    arrays = [
        numpy.arange(100_000, dtype="float64").reshape(100, 1000)[::2, ::-3],
        numpy.zeros((0, 3), dtype="int8"),
        numpy.array([(1, "a")], dtype=[("n", "i4"), ("t", "U3")]),
    ]
    back = executor.map(lambda array: array, arrays).result(TIMEOUT_S)
    assert all(
        numpy.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(arrays, back, strict=True)
    )
    means = executor.map(numpy.mean, arrays[:1]).result(TIMEOUT_S)
    assert means == [arrays[0].mean()]


# --- put ------------------------------------------------------------------------------------------


def test_put_is_stored_once(alone: lambdamr.Executor, root: str) -> None:
    """Equal objects have one place under data/, by their hash; tasks see the object itself."""
    value = {"a": list(range(1000))}
    first, second = alone.put(value), alone.put(dict(value))
    assert first == second
    (path,) = stored(root, "data")
    assert path.stat().st_size == first.size
    assert str(path.relative_to(root)) == data_key(hashlib.sha256(path.read_bytes()).hexdigest())
    assert alone.submit(lambda data: data["a"][-1], first).result(TIMEOUT_S) == 999
    assert alone.submit(type, first).result(TIMEOUT_S) is dict


def test_put_is_fetched_once_per_worker(alone: lambdamr.Executor, root: str) -> None:
    """All tasks of a warm worker get the same object: it is read from the store once, not again
    when its file has gone.
    """
    data = alone.put(list(range(1000)))

    def identity(value: list[int]) -> tuple[int, int]:
        return os.getpid(), id(value)

    first = alone.submit(identity, data).result(TIMEOUT_S)
    for path in stored(root, "data"):
        path.unlink()
    assert set(alone.map(identity, [data] * 10, chunksize=2).result(TIMEOUT_S)) == {first}


def test_put_data_lie_anywhere(executor: lambdamr.Executor) -> None:
    """A reference stands for its object in containers, closures, instances and keyword arguments;
    None and other empty values are no exception.
    """
    data: Any = executor.put([1, 2])
    nothing = executor.put(None)

    class Holder:
        def __init__(self, value: Any) -> None:
            self.value = value

    assert executor.submit(lambda d: d["k"][0] + [3], {"k": [data]}).result(TIMEOUT_S) == [1, 2, 3]
    assert executor.submit(lambda: [*data, 3]).result(TIMEOUT_S) == [1, 2, 3]
    assert executor.submit(lambda h: h.value, Holder(data)).result(TIMEOUT_S) == [1, 2]
    assert executor.submit(sorted, [3, 1], key=executor.put(abs)).result(TIMEOUT_S) == [1, 3]
    assert executor.submit(lambda n: n is None, nothing).result(TIMEOUT_S) is True
    assert executor.map(lambda a, b: (a, b), [data] * 2, [1, 2]).result(TIMEOUT_S) == [
        ([1, 2], 1),
        ([1, 2], 2),
    ]
    job = executor.map_reduce(lambda n: [(0, data[n])], [0, 1], lambda k, v: [*v, nothing])
    assert job.result(TIMEOUT_S) == {0: [1, 2, None]}


def test_put_of_a_local_class(executor: lambdamr.Executor) -> None:
    """Instances of a class defined here can be put, and a task that returns one returns an
    instance of the same class.
    """

    class Model:
        def __init__(self, weight: int) -> None:
            self.weight = weight

    model = executor.put(Model(7))
    assert executor.submit(lambda m: m.weight, model).result(TIMEOUT_S) == 7
    assert isinstance(executor.submit(lambda m: m, model).result(TIMEOUT_S), Model)


def test_put_takes_no_futures(executor: lambdamr.Executor) -> None:
    """A future is an argument, not data: put() says so."""
    with pytest.raises(ValueError, match="futures"):
        executor.put([executor.submit(abs, 1)])
