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
from collections.abc import Callable, Collection, Iterable, Sequence
from enum import EnumType, Flag
from functools import lru_cache
from typing import Any, Final
from zlib import crc32

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

_UNIFORM: Final = frozenset({int, float, tuple})
"""Types whose keys are never text or bytes, and whose hash is found without their form."""

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

    The high bits of a hash: plain modulo would send all multiples of 1,000 to one partition of
    1,000. Text and bytes go by crc32, which needs no further mixing; what else there is by
    `key_hash`, mixed.

    Args:     partitions: >= 1.
    Returns:  0 <= partition < partitions.
    Raises:   UnstableKey, BadKey: as `canonical`.
    """
    if type(key) in _UNIFORM:
        return _mix(key_hash(key)) * partitions >> 64
    tag, payload = canonical(key)
    if tag in (TEXT, BYTES):
        return _payload_hash(payload) * partitions >> 32
    return _mix(_form_hash((tag, payload))) * partitions >> 64


def partitions_of(keys: Sequence[object], partitions: int) -> list[int]:
    """Return `partition_of` each key: text, bytes or ints alone, at a third of the time.

    Text: 0.13 us a key, beside 0.36 us for the hash of the int that its bytes make.
    """
    kinds = set(map(type, keys))
    if kinds == {str}:
        texts: Any = keys
        try:
            return [value * partitions >> 32 for value in map(crc32, map(str.encode, texts))]
        except UnicodeEncodeError:  # a surrogate
            pass
    elif kinds == {bytes}:
        raw: Any = keys
        return [value * partitions >> 32 for value in map(crc32, raw)]
    elif kinds == {int}:
        odd_1, odd_2, mask = _ODD_1, _ODD_2, _MASK
        return [
            (((value := number * odd_1) ^ (value >> 32)) * odd_2 & mask) * partitions >> 64
            for number in map(hash, keys)
        ]
    return [partition_of(key, partitions) for key in keys]


def key_hash(key: object) -> int:
    """Return a stable hash of a key, equal for equal keys; not mixed.

    Numbers have Python's documented numeric hash (modulo 2**61 - 1), text and bytes their crc32.
    """
    if type(key) is str:
        return _text_hash(key)
    if type(key) is int:
        return hash(key)
    if type(key) is bytes:
        return crc32(key)
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
    return crc32(text.encode("utf-8", "surrogatepass"))


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
        return crc32(payload)
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
    if issubclass(kind, numpy.character):
        form: _Form = _str_form if issubclass(kind, str) else _bytes_form
        return lambda key: _numpy_text_form(key, form)
    if issubclass(kind, numpy.bool_ | numpy.integer) and not issubclass(kind, numpy.timedelta64):
        return lambda key: _int_form(key.item())
    if issubclass(kind, numpy.floating):
        return _numpy_float_form
    return _numpy_complex_form if issubclass(kind, numpy.complexfloating) else _refuse


def _numpy_text_form(key: Any, form: _Form) -> Canonical:
    """Any: text or bytes of numpy, which lose the NULs at their end when they are pickled."""
    payload: Any
    tag, payload = form(key)
    if payload and payload[-1] in ("\0", 0):
        raise UnstableKey(
            f"{key!r:.80} of type numpy.{type(key).__name__} cannot be a key or a part of one: "
            "numpy drops NULs at its end when it travels. Use str(key) or bytes(key)."
        )
    return (tag, payload)


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
