"""What cannot be pickled is named as its author calls it."""

import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import lambdamr
from lambdamr.culprits import culprit

TIMEOUT_S = 60.0

SCRIPT = """
import threading

LOCK = threading.Lock()

def uses_global(item):
    with LOCK:
        return item

def uses_in_a_nested_function(item):
    def inner():
        with LOCK:
            return item
    return inner()

class Holder:
    def __init__(self):
        self.name = "holder"
        self.guard = threading.Lock()

    def method(self, item):
        return item
"""


def cases() -> dict[str, tuple[Callable[..., Any], str]]:
    """Return by name a function that cannot travel, and what is said of it."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(SCRIPT, names)  # noqa: S102 - what is imported would travel by its name
    lock, table = threading.Lock(), {"a": [1, threading.Lock()]}

    def uses_variable(item: object) -> object:
        return lock, item

    def uses_another(item: object) -> object:
        return uses_variable(item)

    nested = names["uses_in_a_nested_function"]
    method = names["Holder"]().method
    another = "its variable 'uses_variable', its variable 'lock' is a _thread.lock"
    item = "its variable 'table', its item 'a', its item 1 is a _thread.lock"
    return {
        "global": (names["uses_global"], "uses_global: its global 'LOCK' is a _thread.lock"),
        "global of a nested function": (nested, "its global 'LOCK' is a _thread.lock"),
        "variable": (uses_variable, "uses_variable: its variable 'lock' is a _thread.lock"),
        "variable of another function": (uses_another, another),
        "argument of a partial": (partial(pow, lock), "its item 0 is a _thread.lock"),
        "variable of a partial's function": (partial(uses_variable), "its variable 'lock'"),
        "attribute of a method's object": (method, "its object, its attribute 'guard' is"),
        "item of a variable": (lambda _: table, item),
        "default": (lambda _, key=lock: key, "a default of it is a _thread.lock"),
    }


@pytest.mark.parametrize("case", cases())
def test_what_holds_the_culprit_is_named(executor: lambdamr.Executor, case: str) -> None:
    """The variable, global, attribute or item, through other functions, partials and methods; the
    job that could not be packed leaves nothing behind.
    """
    function, said = cases()[case]
    with pytest.raises(lambdamr.ArgumentNotSerializable, match=re.escape(said)):
        executor.submit(function, 1)
    with pytest.raises(lambdamr.ArgumentNotSerializable, match=re.escape(said.split(": ")[-1])):
        executor.map_reduce(function, [1], None)
    assert executor.submit(abs, -1).result(TIMEOUT_S) == 1


def test_an_executor_is_made_inside_the_task(executor: lambdamr.Executor) -> None:
    """One that is captured or passed is named, and what to do instead."""
    advice = r"is an Executor .*\. Create an executor inside the task\."
    with pytest.raises(lambdamr.ArgumentNotSerializable, match=f"its variable 'executor' {advice}"):
        executor.submit(lambda: executor.submit(abs, 1))
    with pytest.raises(lambdamr.ArgumentNotSerializable, match=f"its item 1 {advice}"):
        executor.submit(max, 1, executor)
    with pytest.raises(lambdamr.ArgumentNotSerializable, match=f"the object: it {advice}"):
        executor.put(executor)


def test_the_search_ends() -> None:
    """In an object that holds itself, and with what is refused for no part of it."""
    ring: list[Any] = []
    ring.append(ring)
    place, found = culprit(ring, lambda _: True) or ("", None)
    assert (place, found) == ("", None)
    assert culprit({"a": ring}, lambda _: True) == ("its item 'a'", ring)
    assert culprit([1, 2], lambda _: False) is None
