"""What cloudpickle refuses, names or overwrites travels by value all the same, both ways.

Scripts run in a process of their own: what is theirs exists in no module.
"""

import functools
import json
import os
import pickle
import subprocess
import sys
import textwrap
import typing
import weakref
from pathlib import Path
from typing import Any

import pytest

import lambdamr
from lambdamr_runtime import byvalue

TIMEOUT_S = 60.0
"""A program that takes longer hangs."""


def run_script(folder: Path, script: str) -> Any:
    """Return what a script printed, as JSON; nothing may come to stderr."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(script))
    ended = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "LAMBDAMR_ROOT": str(folder / "root")},
    )
    assert ended.stderr.decode() == ""
    return json.loads(ended.stdout)


DECORATED = """
    import contextlib, dataclasses, functools, json, typing, weakref
    import lambdamr

    P = typing.ParamSpec("P")
    R = typing.TypeVar("R")
    Ts = typing.TypeVarTuple("Ts")
    UserId = typing.NewType("UserId", int)
    known = weakref.WeakValueDictionary()

    def traced(fn: typing.Callable[P, R]) -> typing.Callable[P, R]:
        @functools.wraps(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return fn(*args, **kwargs)
        return call

    @functools.cache
    def fibonacci(n):
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    @functools.singledispatch
    def kind(value):
        return "object"

    @kind.register
    def _(value: int):
        return "int"

    class Circle:
        def __init__(self, radius):
            self.radius = radius

        @functools.cached_property
        def area(self):
            return 3 * self.radius ** 2

        @functools.lru_cache(maxsize=4)
        def scaled(self, factor):
            return self.radius * factor

    @traced
    def user(n: int, *more: typing.Unpack[Ts]) -> UserId:
        return UserId(n + len(known))

    def work(n):
        circle = Circle(n)
        return circle.area, circle.scaled(10), fibonacci(30), kind(n), user(n)

    with lambdamr.Executor(workers=1) as executor:
        value = executor.submit(work, 2).result()
        circle = executor.submit(Circle, 3).result()
        plain = executor.map(fibonacci, range(5)).result()
        back = executor.submit(lambda: fibonacci).result()
    print(json.dumps([value, type(circle) is Circle, circle.area, plain,
                      back(10), back.cache_parameters()["maxsize"]]))
"""


def test_decorated_functions_and_classes(tmp_path: Path) -> None:
    """Cached functions and properties, single dispatch, typed decorators: what scripts are made
    of.
    """
    assert run_script(tmp_path, DECORATED) == [
        [12, 20, 832040, "int", 2], True, 27, [0, 1, 1, 2, 3], 55, None,
    ]  # fmt: skip


SLOTS = """
    import dataclasses, json
    import lambdamr

    @dataclasses.dataclass(slots=True)
    class Point:
        x: int

    @dataclasses.dataclass(frozen=True, slots=True, weakref_slot=True)
    class Frozen:
        x: int

    class Base:
        __slots__ = ("__hidden",)

        def __init__(self, value):
            self.__hidden = value

        def shown(self):
            return self.__hidden

    class Derived(Base):
        __slots__ = {"more": "documented"}

    def work(n):
        derived = Derived(n)
        derived.more = n
        has_dict = [hasattr(each, "__dict__") for each in (Point(n), derived)]
        return Point(n), Frozen(n), derived, has_dict

    with lambdamr.Executor(workers=1) as executor:
        point, frozen, derived, has_dict = executor.submit(work, 3).result()
        again = executor.submit(lambda point: point, point).result()
    print(json.dumps([point == Point(3), frozen == Frozen(3), type(derived) is Derived,
                      derived.shown(), derived.more, has_dict, again == point]))
"""


def test_named_tuples_of_a_script_travel_both_ways(tmp_path: Path) -> None:
    """`typing.NamedTuple` makes slots of its own: classes of both makers come back as they were."""
    script = """
        import collections, json, typing
        import lambdamr

        class Point(typing.NamedTuple):
            x: int
            y: int = 2

        Pair = collections.namedtuple("Pair", "left right")

        def moved(point, pair):
            return point._replace(x=point.x + pair.left)

        with lambdamr.Executor(workers=1) as executor:
            found = executor.submit(moved, Point(1), Pair(10, 0)).result()
        print(json.dumps([type(found) is Point, found.x, found.y, found._asdict()]))
    """
    assert run_script(tmp_path, script) == [True, 11, 2, {"x": 11, "y": 2}]


def test_classes_with_slots_keep_them(tmp_path: Path) -> None:
    """Instances of slotted classes are made, changed and returned by tasks."""
    assert run_script(tmp_path, SLOTS) == [True, True, True, 3, 3, [False, False], True]


CLASS_STATE = """
    import enum, json
    import lambdamr

    class Point:
        made = 0

        def __init__(self, x):
            self.x = x

    class Odd(Exception):
        seen = []

    class Colour(enum.Enum):
        RED = 1

    init = Point.__init__

    def work(n):
        Point.made += 1
        Odd.seen.append(n)
        return Point(n), Colour.RED

    def fail():
        raise Odd("no")

    with lambdamr.Executor(workers=1) as executor:
        future = executor.submit(work, 1)
        Point.made = 100
        point, colour = future.result()
        error = executor.submit(fail).exception()
        found = [type(point) is Point, Point.made, Point.__init__ is init, type(error) is Odd,
                 Odd.seen, colour is Colour.RED]
        Point.made = 200
        found.append(executor.submit(lambda: Point.made).result())
        found.append(executor.submit(lambda point: point.made, Point(1)).result())
        job = executor.map_reduce(lambda n: [(n, Point(n))], range(3), None)
        found.append([value.x for _, value in job.items()])
        found.append(Point.made)
    print(json.dumps(found))
"""


def test_a_result_changes_nothing_of_its_class(tmp_path: Path) -> None:
    """A class that comes back with a result stays as it is here, whatever the task did to it; a
    task sees it as it was at the call.
    """
    assert run_script(tmp_path, CLASS_STATE) == [
        True, 100, True, True, [], True, 200, 200, [0, 1, 2], 200,
    ]  # fmt: skip


OWN_MODULE = """
    import functools

    class _Missing:
        def __reduce__(self):
            return "MISSING"

    MISSING = _Missing()

    @functools.lru_cache
    def double(n):
        return 2 * n
"""


def test_objects_named_in_own_modules(tmp_path: Path) -> None:
    """A cached function and a singleton pickle as names in the user's module: it is shipped."""
    (tmp_path / "own.py").write_text(textwrap.dedent(OWN_MODULE))
    found = run_script(
        tmp_path,
        """
        import json, lambdamr, own

        with lambdamr.Executor(workers=1) as executor:
            print(json.dumps([executor.submit(own.double, 4).result(),
                              executor.submit(lambda x: x, own.MISSING).result() is own.MISSING]))
        """,
    )
    assert found == [8, True]


@functools.lru_cache
def cached(n: int) -> int:
    return n


Named = typing.NewType("Named", int)


@pytest.mark.parametrize("named", [cached, Named])
def test_what_can_be_imported_is_named(named: object) -> None:
    """By value goes only what no worker could import."""
    assert pickle.loads(byvalue.dumps_code(named)) is named


def test_weak_dictionaries_hold_what_lives() -> None:
    """A weak dictionary arrives with what something else in the pickle holds."""
    held = functools.partial(abs)
    weak = weakref.WeakValueDictionary({"a": held, "b": functools.partial(min)})
    arrived, holder = pickle.loads(byvalue.dumps_code((weak, [held])))
    assert dict(arrived) == {"a": holder[0]}


def test_large_pickles_keep_classes(executor: lambdamr.Executor) -> None:
    """A result too large to be searched for classes arrives all the same."""
    data = executor.submit(bytes, 2 * byvalue.SMALL_BYTES).result()
    assert data == bytes(2 * byvalue.SMALL_BYTES)
