"""Immutable records that cost little to define: a cold start defines twenty-five of them.

`@dataclass(frozen=True, slots=True)` compiles six functions for each class, 0.9 ms of CPU. Here the
methods are shared, and `__init__` alone is compiled, when the first record is made. All else is as
there: slots, equality by fields, hash, repr, pickling, `fields()` and `is_dataclass()`.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True)
def frozen(cls: type[_T]) -> type[_T]:
    """Make a class of immutable records from one with annotations; it has no base."""
    names = tuple(cls.__annotations__)
    body = {name: value for name, value in cls.__dict__.items() if name not in _OF_THE_FIRST}
    defaults = {name: body.pop(name) for name in names if name in body}

    def init(self: Any, *values: Any, **named: Any) -> None:
        made.__init__ = _compiled(made, names, defaults)  # from now on
        made.__init__(self, *values, **named)

    given = {"__slots__": names, "__match_args__": names, "__init__": init}
    made: Any = type(cls.__name__, (), {**_METHODS, **body, **given})
    made.__qualname__ = cls.__qualname__
    made.__dataclass_fields__ = _Fields(cls, defaults)
    return made  # type: ignore[no-any-return]  # it is cls with slots


def _compiled(cls: type, names: tuple[str, ...], defaults: dict[str, Any]) -> Callable[..., None]:
    """Return the `__init__` of a class, which sets each slot once."""
    known: dict[str, Any] = {f"_default_{name}": value for name, value in defaults.items()}
    known.update({f"_set_{name}": cls.__dict__[name].__set__ for name in names})
    parameters = [f"{it}=_default_{it}" if it in defaults else it for it in names]
    lines = [f" _set_{name}(self, {name})" for name in names]
    head = f"def __init__({', '.join(('self', *parameters))}):"
    # Compiled apart: by a text that it runs at a program's end Python forgets that Ctrl-C ended it.
    code = compile("\n".join((head, *lines)), f"<__init__ of {cls.__qualname__}>", "exec")
    exec(code, known)  # noqa: S102 - names of attributes alone, as dataclasses does
    made: Callable[..., None] = known["__init__"]
    return made


class _Fields:
    """The fields as dataclasses knows them, made for who asks."""

    def __init__(self, cls: type, defaults: dict[str, Any]) -> None:
        self._cls, self._defaults = cls, defaults

    def __get__(self, record: object, owner: type) -> Any:
        body = {"__annotations__": self._cls.__annotations__, **self._defaults}
        like: Any = dataclasses.dataclass(type(self._cls.__name__, (), body))
        return like.__dataclass_fields__


def _equal(self: Any, other: Any) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    return _values(self) == _values(other)


def _hash(self: Any) -> int:
    return hash(tuple(_values(self)))


def _repr(self: Any) -> str:
    pairs = zip(self.__slots__, _values(self), strict=True)
    return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"


def _refuse_set(self: object, name: str, value: object) -> None:  # noqa: ARG001 - Python's form
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: object, name: str) -> None:  # noqa: ARG001 - Python's form
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _values(self: Any) -> list[Any]:
    """Return the values of the fields; what is pickled, too."""
    return [getattr(self, name) for name in self.__slots__]


def _restore(self: Any, values: list[Any]) -> None:
    for name, value in zip(self.__slots__, values, strict=True):
        object.__setattr__(self, name, value)


_METHODS: dict[str, Any] = {
    "__eq__": _equal,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _refuse_set,
    "__delattr__": _refuse_delete,
    "__getstate__": _values,
    "__setstate__": _restore,
}

_OF_THE_FIRST = ("__dict__", "__weakref__")
"""What a class has for its instances, and one with slots has not."""

if TYPE_CHECKING:
    from dataclasses import replace as replace  # with the types of the fields
else:

    def replace(record: _T, **changes: Any) -> _T:
        """Return a record with some fields changed."""
        return type(record)(**{name: getattr(record, name) for name in record.__slots__} | changes)
