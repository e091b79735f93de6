"""Code by value where cloudpickle falls short: what it refuses, names, or changes on arrival.

cloudpickle                                                        here
───────────                                                        ────
a cached function of `__main__` is named: no worker has it         by value
so are NewType, ParamSpec and other names of typing                by value
cached_property (Python 3.11), weak dictionaries: refused          by value
a class with __slots__ loses them: its instances cannot come back  keeps them
a class that comes back overwrites the class that is there         stays as it is
"""

import functools
import io
import pickle
import sys
import typing
import weakref
from collections.abc import Callable
from typing import Any

import cloudpickle
from cloudpickle import cloudpickle as _internal

SMALL_BYTES = 1 << 20
"""Pickles up to this are searched for classes by value (0.1 us for a small one); larger ones are
loaded by `_Keeping` whatever they hold."""

_MARKER = b"_make_skeleton_"
"""In every pickle that holds a class by value."""


class CodePickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """cloudpickle's pickler, without its gaps."""

    def reducer_override(self, obj: Any) -> Any:
        reducer = _REDUCERS.get(type(obj))
        if reducer is not None:
            return reducer(obj)
        reduced = super().reducer_override(obj)
        return _with_slots(obj, reduced) if isinstance(obj, type) else reduced


def dumps_code(value: object) -> bytes:
    """Pickle a value, with the code of `__main__` and of notebooks by value."""
    stream = io.BytesIO()
    CodePickler(stream, pickle.HIGHEST_PROTOCOL).dump(value)
    return stream.getvalue()


def loads_keeping(data: bytes) -> Any:
    """Unpickle; a class by value that this process has already stays as it is here.

    Else a result would reset the attributes of its class to what they were in the worker.
    """
    if len(data) <= SMALL_BYTES and _MARKER not in data:
        return pickle.loads(data)
    return _Keeping(io.BytesIO(data)).load()


class _Keeping(pickle.Unpickler):
    """Takes the class that is there for one that comes by value under the same id."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self._kept: set[type] = set()

    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if found is _internal._make_skeleton_class:
            return functools.partial(self._make, found, 4)
        if found is _internal._make_skeleton_enum:
            return functools.partial(self._make, found, 5)
        return self._set_state if found is _internal._class_setstate else found

    def _make(self, make: Callable[..., type], place: int, *args: Any) -> type:
        """Return the class whose id is the argument at *place*, made only if it is new."""
        known: type | None = _internal._DYNAMIC_CLASS_TRACKER_BY_ID.get(args[place])
        if known is None:
            return make(*args)
        self._kept.add(known)
        return known

    def _set_state(self, cls: type, state: Any) -> type:
        if cls not in self._kept:
            _internal._class_setstate(cls, state)
        return cls


def _with_slots(cls: type, reduced: Any) -> Any:
    """Have a class that goes by value made with its slots: attributes cannot make them later."""
    slots = cls.__dict__.get("__slots__")
    if not isinstance(slots, (str, tuple, list, dict)):
        return reduced
    if not isinstance(reduced, tuple) or reduced[0] is not _internal._make_skeleton_class:
        return reduced
    make, (metaclass, name, bases, given, *rest), *state = reduced
    if typing.NamedTuple in bases:  # it makes its own, and takes none
        return reduced
    return make, (metaclass, name, bases, {**given, "__slots__": slots}, *rest), *state


# --- objects that pickle by name --------------------------------------------------------------
def _is_importable(obj: Any) -> bool:
    """Whether the object's name leads to it wherever its module can be imported."""
    module = getattr(obj, "__module__", None)
    name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
    if not module or not name or module == "__main__" or _goes_by_value(module):
        return False
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is obj


def _goes_by_value(module: str) -> bool:
    registered = cloudpickle.list_registry_pickle_by_value()
    return any(f"{module}.".startswith(f"{name}.") for name in registered)


def _unless_importable(reduce: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda obj: NotImplemented if _is_importable(obj) else reduce(obj)


def _reduce_cached(obj: Any) -> Any:
    return make_cached, (obj.__wrapped__, obj.cache_parameters())


def make_cached(fn: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """Make a function of `functools.lru_cache`; named by pickles, so it stays."""
    return functools.lru_cache(**parameters)(fn)


def _reduce_cached_property(obj: Any) -> Any:
    return make_cached_property, (obj.func, obj.attrname)


def make_cached_property(fn: Callable[[Any], Any], attribute: str | None) -> Any:
    """Make a `functools.cached_property`; named by pickles, so it stays."""
    made = functools.cached_property(fn)
    if attribute is not None:
        made.__set_name__(object, attribute)
    return made


def _reduce_weak(obj: Any) -> Any:
    return type(obj), (dict(obj),)


def make_typing(kind: str, module: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Make a NewType, ParamSpec and the like; named by pickles, so it stays."""
    made = getattr(typing, kind)(*args, **options)
    if kind != "TypeAliasType":  # its module is read-only, and nothing depends on it
        made.__module__ = module
    return made


def _reduce_new_type(obj: Any) -> Any:
    return make_typing, ("NewType", obj.__module__, (obj.__name__, obj.__supertype__), {})


def _reduce_param_spec(obj: Any) -> Any:
    options = {
        "bound": obj.__bound__,
        "covariant": obj.__covariant__,
        "contravariant": obj.__contravariant__,
    }
    return make_typing, ("ParamSpec", obj.__module__, (obj.__name__,), options)


def _reduce_type_var_tuple(obj: Any) -> Any:
    return make_typing, ("TypeVarTuple", obj.__module__, (obj.__name__,), {})


def _reduce_alias(obj: Any) -> Any:
    args = (obj.__name__, obj.__value__)
    return make_typing, (
        "TypeAliasType", obj.__module__, args, {"type_params": obj.__type_params__}
    )  # fmt: skip


_REDUCERS: dict[type, Callable[[Any], Any]] = {
    type(functools.lru_cache(abs)): _unless_importable(_reduce_cached),
    functools.cached_property: _reduce_cached_property,
    weakref.WeakKeyDictionary: _reduce_weak,
    weakref.WeakValueDictionary: _reduce_weak,
    typing.NewType: _unless_importable(_reduce_new_type),
    typing.ParamSpec: _unless_importable(_reduce_param_spec),
    typing.TypeVarTuple: _unless_importable(_reduce_type_var_tuple),
}
if sys.version_info >= (3, 12):
    _REDUCERS[typing.TypeAliasType] = _unless_importable(_reduce_alias)

NAMED_TYPES = tuple(_REDUCERS)
"""Types whose objects may pickle by their name in a module."""
