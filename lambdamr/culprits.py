"""What of a function or an argument cannot be pickled, by the name that its author gave it.

Pickle says "cannot pickle '_thread.lock' object", and not where that lock is. This looks for it
once pickling has failed: among the variables and globals of a function, the attributes of an
object, the items of a collection, and into the first of these that is refused, down to what is
refused though all its parts are not.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from types import CodeType, FunctionType, MethodType
from typing import Any

Refuses = Callable[[object], bool]
"""Whether an object cannot be pickled."""

MOST_DEPTH = 6
MOST_PARTS = 1000
"""Of one object: where there are more, the rest is not looked at."""

_OURS = ("lambdamr.", "lambdamr_runtime.")


def culprit(value: object, refuses: Refuses) -> tuple[str, object] | None:
    """Return where in a value the refused object is, and the object; None where it is the value."""
    path: list[str] = []
    for _ in range(MOST_DEPTH):
        if _is_executor(value):
            break
        parts = islice(_parts(value), MOST_PARTS)
        found = next(((name, part) for name, part in parts if refuses(part)), None)
        if found is None:
            break
        name, value = found
        path += [name] if name else []
    return (", ".join(path) or "it", value) if path or _is_executor(value) else None


def told(place: str, refused: object) -> tuple[str, str]:
    """Return what a message says of a culprit, and what it advises: "" for nothing special."""
    if _is_executor(refused):
        return f": {place} is an Executor", "Create an executor inside the task"
    cls = type(refused)
    kind = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"
    return f": {place} is a {kind}", ""


def _is_executor(value: object) -> bool:
    from lambdamr.executor import Executor  # it imports this one, by and by

    return isinstance(value, Executor)


def _parts(value: Any) -> Iterator[tuple[str, object]]:
    """Yield what an object holds, and what its author calls that; "" has no name for them. Any:
    whatever the user passes.
    """
    if isinstance(value, FunctionType):
        yield from _variables(value)
    elif isinstance(value, MethodType):
        yield "its object", value.__self__
        yield "", value.__func__
    elif isinstance(value, partial):
        yield "", value.func
        yield from _parts((value.args, value.keywords))
    elif isinstance(value, Mapping):
        yield from ((f"its item {key!r:.50}", part) for key, part in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, part in enumerate(value):
            yield "" if isinstance(part, (list, tuple, Mapping)) else f"its item {index}", part
    elif type(value).__module__.startswith(_OURS):  # nobody who reads the message wrote it
        for _, part in _attributes(value):
            yield from (("", each) for each in (part if isinstance(part, tuple) else (part,)))
    elif not isinstance(value, type):
        yield from ((f"its attribute {name!r}", part) for name, part in _attributes(value))


def _variables(function: FunctionType) -> Iterator[tuple[str, object]]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        try:
            yield f"its variable {name!r}", cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for name in dict.fromkeys(_names(function.__code__)):
        if name in function.__globals__:
            yield f"its global {name!r}", function.__globals__[name]
    for part in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield "a default of it", part


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that a function looks up, and those defined in it do."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _attributes(value: Any) -> Iterator[tuple[str, object]]:
    if hasattr(type(value), "__dictoffset__") and type(value).__dictoffset__:
        yield from vars(value).items()
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if hasattr(value, name):
                yield name, getattr(value, name)
