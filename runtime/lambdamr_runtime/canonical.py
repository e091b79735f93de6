"""The one rule for keys: which are the same key, in which order they stand, where they go.

`canonical(key)` is a nested tuple (tag, payload). The tag names the kind of key; payloads of one
tag compare with each other, so that any two canonical forms do:

    tag        payload                       keys
    NONE       0                             None
    NUMBER     int, float, Fraction, Decimal every number with a value on the real line
    COMPLEX    (real, imaginary)             complex numbers off that line
    NAN        0                             every NaN: one key, the last of the numbers
    TEXT       str                           str, str enums
    BYTES      bytes                         bytes
    DATE       day number                    date
    NAIVE      microseconds                  datetime without an offset
    AWARE      (microseconds of UTC, zone)   datetime with one; zone "" but for PEP 495 times
    DURATION   microseconds                  timedelta
    UUID       int                           UUID
    TUPLE      (form, ...)                   tuples and namedtuples
    SET        (form, ...) sorted            frozensets
    ENUM       (class, form)                 plain enums by name, flags by value
    RECORD     (class, form, ...)            frozen dataclasses

The law: keys that a dict holds to be one (`a == b` and equal hashes) have equal forms, and other
keys have other forms, NaN excepted. So what counts for a type is the `__eq__` in effect, not its
name: a str subclass with an `__eq__` of its own has no form. (numpy breaks the law of dicts for
what a float32 rounds: `np.float32(0.1) == 0.1` with different hashes. The exact value decides.)

Order is numeric for numbers and by code point for text, which is that of UTF-8 with
surrogatepass. Classes go by module and qualified name.
"""

import sys
from collections.abc import Callable, Collection, Iterable
from enum import EnumType, Flag
from functools import lru_cache
from typing import Any, Final

from lambdamr_runtime.errors import BadKey, UnstableKey

Canonical = tuple[int, object]
"""(tag, payload); object stands for what the table above lists, in comparable kinds per tag."""

_Form = Callable[[Any], Canonical]
"""Any: the type that the form was looked up for."""

NONE: Final = 1
NUMBER: Final = 2
COMPLEX: Final = 3
NAN: Final = 4
TEXT: Final = 5
BYTES: Final = 6
DATE: Final = 7
NAIVE: Final = 8
AWARE: Final = 9
DURATION: Final = 10
UUID: Final = 11
TUPLE: Final = 12
SET: Final = 13
ENUM: Final = 14
RECORD: Final = 15

_NAN_FORM: Final[Canonical] = (NAN, 0)

_ODD_1: Final = 0x9E3779B97F4A7C15
_ODD_2: Final = 0xBF58476D1CE4E5B9
_MASK: Final = (1 << 64) - 1
"""64 bits; the odd constants are those of splitmix64."""

_DAY_S: Final = 86_400
_SECOND_US: Final = 1_000_000

_KNOWN_CLASSES: Final = 1024
"""Types whose form is remembered; bounded, since notebooks define classes again and again."""


def canonical(key: object) -> Canonical:
    """Return the form of a key by which keys are equal and in order; use it as a sort key.

    Raises:  UnstableKey: a type without a form. BadKey: an unhashable one. Both also for a part
             of a tuple, frozenset or dataclass.
    """
    kind: type = type(key)
    if kind is str:
        return (TEXT, key)
    if kind is int:
        return (NUMBER, key)
    if kind is bytes:
        return (BYTES, key)
    return _form_of(kind)(key)


def partition_of(key: object, partitions: int) -> int:
    """Return the partition of a key: the same in every process, on every machine, for good.

    The high bits of a mixed 64-bit hash: plain modulo would send all multiples of 1,000 to one
    partition of 1,000.

    Args:     partitions: >= 1.
    Returns:  0 <= partition < partitions.
    Raises:   UnstableKey, BadKey: as `canonical`.
    """
    if type(key) is str:
        try:
            value = hash(int.from_bytes(key.encode(), "little"))
        except UnicodeEncodeError:
            value = _text_hash(key)
    elif type(key) is int:
        value = hash(key)
    else:
        value = key_hash(key)
    value *= _ODD_1
    return (((value ^ (value >> 32)) * _ODD_2 & _MASK) * partitions) >> 64


def partitions_of(keys: Iterable[object], partitions: int) -> list[int]:
    """Return `partition_of` each key: text and ints in one loop, at two thirds of the time."""
    found: list[int] = []
    append = found.append
    from_bytes, odd_1, odd_2, mask = int.from_bytes, _ODD_1, _ODD_2, _MASK
    for key in keys:
        if type(key) is str:
            try:
                value = hash(from_bytes(key.encode(), "little")) * odd_1
            except UnicodeEncodeError:
                append(partition_of(key, partitions))
                continue
        elif type(key) is int:
            value = hash(key) * odd_1
        else:
            append(partition_of(key, partitions))
            continue
        append((((value ^ (value >> 32)) * odd_2 & mask) * partitions) >> 64)
    return found


def key_hash(key: object) -> int:
    """Return a stable hash of a key, equal for equal keys; not mixed.

    Numbers have Python's documented numeric hash (modulo 2**61 - 1), text and bytes the same
    hash of the number that their bytes make: 0.08 us, against 0.4 us for blake2b. (Of that,
    swapping two bytes 61 apart changes nothing: two keys may meet, no real series was skewed.)
    """
    if type(key) is str:
        return _text_hash(key)
    if type(key) is int:
        return hash(key)
    if type(key) is bytes:
        return _bytes_hash(key)
    if type(key) is float and key == key:
        return hash(key)
    if type(key) is tuple:
        return _fold(map(key_hash, key), TUPLE)
    return _form_hash(canonical(key))


def natural_shape(keys: Collection[object]) -> str:
    """Return the shape of keys whose own order is the canonical order; "" for all others.

    Keys of two collections with one shape also compare naturally with each other.

    Returns:  "s" all exactly str · "b" bytes · "n" int or float, no NaN · "(sn)" tuples of one
              length whose columns have these shapes.
    """
    kinds = set(map(type, keys))
    if kinds == {str}:
        return "s"
    if kinds == {bytes}:
        return "b"
    if kinds == {tuple}:
        return _tuple_shape(keys)
    if kinds and kinds <= {int, float}:
        has_nan = float in kinds and any(key != key for key in keys)
        return "" if has_nan else "n"
    return ""


def _tuple_shape(keys: Collection[Any]) -> str:
    """Any: exact tuples, which `natural_shape` has seen to."""
    lengths = set(map(len, keys))
    if len(lengths) != 1:
        return ""
    columns: list[str] = []
    for column in range(lengths.pop()):
        columns.append(natural_shape([key[column] for key in keys]))
        if not columns[-1]:
            return ""
    return f"({''.join(columns)})"


# --- hashes ---------------------------------------------------------------------------------


def _text_hash(text: str) -> int:
    return hash(int.from_bytes(text.encode("utf-8", "surrogatepass"), "little"))


def _bytes_hash(data: bytes) -> int:
    return hash(int.from_bytes(data, "little"))


def _mix(value: int) -> int:
    """Return 64 bits, each of which depends on all of *value*."""
    value *= _ODD_1
    return (value ^ (value >> 32)) * _ODD_2 & _MASK


def _fold(hashes: Iterable[int], seed: int) -> int:
    """Return one hash of several, in which their order counts."""
    total = seed
    for value in hashes:
        total = _mix(total ^ value)
    return total


def _form_hash(form: Canonical) -> int:
    """Return `key_hash` of the key that has this form."""
    tag, payload = form
    if tag == TUPLE:
        parts: Any = payload  # a tuple of forms, by the table of tags
        return _fold(map(_form_hash, parts), TUPLE)
    if tag in (NUMBER, TEXT, BYTES):
        return _payload_hash(payload)
    return _mix(_payload_hash(payload) ^ _mix(tag))


def _payload_hash(payload: object) -> int:
    if isinstance(payload, str):
        return _text_hash(payload)
    if isinstance(payload, bytes):
        return _bytes_hash(payload)
    if isinstance(payload, tuple):
        return _fold(map(_payload_hash, payload), len(payload))
    return hash(payload)  # a number other than NaN: stable by definition


# --- forms: one function per kind of key ------------------------------------------------------


@lru_cache(maxsize=_KNOWN_CLASSES)
def _form_of(kind: type) -> _Form:
    """Return the function that makes the form of keys of this type."""
    if kind.__module__ == "numpy":
        return _numpy_form(kind)
    if kind is type(None):
        return _none_form
    equality: object = kind.__eq__
    form = _BUILTIN_FORMS.get(equality) or _library_forms().get(equality)
    if form is not None:
        return form
    if equality is object.__eq__ and isinstance(kind, EnumType):
        return _enum_form(kind)
    return _record_form(kind) or _refuse


def _refuse(key: object) -> Canonical:
    """Raise the error for a key, or a part of one, that has no form."""
    import reprlib  # only a failing job needs it: a repr that is short and never raises

    what = f"{reprlib.repr(key)} of type {type(key).__module__}.{type(key).__qualname__}"
    try:
        hash(key)
    except TypeError as error:
        raise BadKey(
            f"{what} cannot be a key or a part of one: it is not hashable. Use an immutable "
            "key: a tuple for a list, a frozenset for a set, a frozen dataclass for an object."
        ) from error
    raise UnstableKey(
        f"{what} cannot be a key or a part of one: its type has no hash and order that are the "
        "same in every process. Give `partitioner=` and `sort_key=`, or use a key of numbers, "
        "text, bytes, dates, UUIDs, enums, or tuples, frozensets and frozen dataclasses of these."
    )


def _none_form(_: None) -> Canonical:
    return (NONE, 0)


def _int_form(key: int) -> Canonical:
    return (NUMBER, int.__int__(key))


def _float_form(key: float) -> Canonical:
    return (NUMBER, float.__float__(key)) if key == key else _NAN_FORM


def _decimal_form(key: Any) -> Canonical:
    """Any: Decimal, whose module is not loaded for those who do not use it."""
    if key.is_nan():
        return _NAN_FORM if key.is_qnan() else _refuse(key)  # a signaling NaN has no hash
    return (NUMBER, key)


def _fraction_form(key: object) -> Canonical:
    return (NUMBER, key)


def _complex_form(key: complex) -> Canonical:
    if key != key:
        return _NAN_FORM
    if key.imag == 0:
        return (NUMBER, key.real)
    return (COMPLEX, (key.real, key.imag))


def _str_form(key: str) -> Canonical:
    return (TEXT, str.__str__(key))


def _bytes_form(key: bytes) -> Canonical:
    return (BYTES, b"".join((key,)))


def _tuple_form(key: tuple[object, ...]) -> Canonical:
    return (TUPLE, tuple(map(canonical, tuple.__iter__(key))))


def _frozenset_form(key: frozenset[object]) -> Canonical:
    return (SET, tuple(sorted(map(canonical, frozenset.__iter__(key)))))


_BUILTIN_FORMS: Final[dict[object, _Form]] = {
    int.__eq__: _int_form,
    float.__eq__: _float_form,
    complex.__eq__: _complex_form,
    str.__eq__: _str_form,
    bytes.__eq__: _bytes_form,
    tuple.__eq__: _tuple_form,
    frozenset.__eq__: _frozenset_form,
}
"""By the `__eq__` in effect: a subclass that keeps it equals its base (bool, IntEnum, str enums,
namedtuples), one that overrides it is a type of its own."""


def _date_form(key: Any) -> Canonical:
    """Any: date; as for Decimal."""
    return (DATE, key.toordinal())


def _datetime_form(key: Any) -> Canonical:
    """Return the form of a datetime, by instant where it has an offset.

    Python compares times of one zone without their fold and hashes with fold 0, so fold 0 counts.
    A time whose offset depends on the fold (PEP 495) equals no time of another zone: its form
    names its zone.
    """
    local_us = _microseconds(
        key.toordinal(), key.hour * 3600 + key.minute * 60 + key.second, key.microsecond
    )
    first = key.replace(fold=0)
    offset = first.utcoffset()
    if offset is None:
        return (NAIVE, local_us)
    ambiguous = key.replace(fold=1).utcoffset() != offset
    zone = str(first.tzname()) if ambiguous else ""
    return (AWARE, (local_us - _duration_us(offset), zone))


def _duration_form(key: Any) -> Canonical:
    """Any: timedelta; as for Decimal."""
    return (DURATION, _duration_us(key))


def _uuid_form(key: Any) -> Canonical:
    """Any: UUID; as for Decimal."""
    return (UUID, key.int)


def _duration_us(duration: Any) -> int:
    """Any: timedelta; as for Decimal."""
    return _microseconds(duration.days, duration.seconds, duration.microseconds)


def _microseconds(days: int, seconds: int, microseconds: int) -> int:
    return (days * _DAY_S + seconds) * _SECOND_US + microseconds


_LIBRARY_FORMS: Final = (
    ("decimal", "Decimal", _decimal_form),
    ("fractions", "Fraction", _fraction_form),
    ("datetime", "date", _date_form),
    ("datetime", "datetime", _datetime_form),
    ("datetime", "timedelta", _duration_form),
    ("uuid", "UUID", _uuid_form),
)


def _library_forms() -> dict[object, _Form]:
    """Return the forms of types whose modules are loaded: no key can have another's type."""
    loaded = ((sys.modules.get(module), name, form) for module, name, form in _LIBRARY_FORMS)
    return {getattr(module, name).__eq__: form for module, name, form in loaded if module}


def _enum_form(kind: type) -> _Form:
    class_name = _class_name(kind)
    if issubclass(kind, Flag):
        return lambda key: (ENUM, (class_name, canonical(key.value)))
    return lambda key: (ENUM, (class_name, (TEXT, key.name)))


def _record_form(kind: type) -> _Form | None:
    """Return the form of a frozen dataclass, or None for a type that is none.

    The class that brought the `__eq__` in effect says which fields count; a hand-written `__eq__`
    may mean anything.
    """
    owner = next(base for base in kind.__mro__ if "__eq__" in vars(base))
    settings = vars(owner).get("__dataclass_params__")
    if settings is None or not (settings.eq and settings.frozen and _is_generated(owner.__eq__)):
        return None
    from dataclasses import fields  # loaded already: its user made the class

    class_name = _class_name(kind)
    names = [field.name for field in fields(owner) if field.compare]
    return lambda key: (RECORD, (class_name, *(canonical(getattr(key, name)) for name in names)))


def _is_generated(equality: object) -> bool:
    """Tell an `__eq__` that the dataclass decorator wrote from one of the user."""
    code = getattr(equality, "__code__", None)
    return code is not None and code.co_qualname.startswith("__create_fn__.")


def _class_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _numpy_form(kind: Any) -> _Form:
    """Return the form of a numpy scalar: that of the Python value it holds.

    Any: a numpy class; numpy is not imported for those who do not use it.
    """
    numpy = sys.modules["numpy"]
    if issubclass(kind, numpy.character):  # item() drops NULs at the end, which do count
        return _str_form if issubclass(kind, str) else _bytes_form
    if issubclass(kind, numpy.bool_ | numpy.integer) and not issubclass(kind, numpy.timedelta64):
        return lambda key: _int_form(key.item())
    if issubclass(kind, numpy.floating):
        return _numpy_float_form
    return _numpy_complex_form if issubclass(kind, numpy.complexfloating) else _refuse


def _numpy_float_form(key: Any) -> Canonical:
    """Any: a numpy float of any width; a long double holds values that no float does."""
    value = float(key)
    if value == key or key != key:
        return _float_form(value)
    from fractions import Fraction  # only long doubles come here

    return (NUMBER, Fraction(*key.as_integer_ratio()))


def _numpy_complex_form(key: Any) -> Canonical:
    """Any: a numpy complex of any width; as `_complex_form`."""
    if key != key:
        return _NAN_FORM
    real, imaginary = _numpy_float_form(key.real), _numpy_float_form(key.imag)
    return real if key.imag == 0 else (COMPLEX, (real[1], imaginary[1]))
