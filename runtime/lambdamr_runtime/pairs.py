"""From mappers to batches of (key, value) pairs, without a Python frame per pair of our own."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import CO_GENERATOR
from itertools import chain, islice
from types import GeneratorType
from typing import Any

from lambdamr_runtime import reducers
from lambdamr_runtime.errors import BadKey, InvalidPairs
from lambdamr_runtime.reducers import Pairs, Reducer, States

CHAINED_PAIRS = 64
"""Pairs of one mapper that are checked together before the next mapper gets them."""

Pair = tuple[Any, Any]
Mapper = Callable[[Any], Any]


def chained(mappers: Sequence[Mapper], records: Iterable[Any]) -> Iterator[Any]:
    """Return what the last of the mappers gets: every pair of the one before it is a record."""
    for mapper in mappers[:-1]:
        records = chain.from_iterable(
            pair_batches(mapped(mapper, records), mapper, lambda: CHAINED_PAIRS)
        )
    return iter(records)


def mapped(mapper: Mapper, records: Iterable[Any]) -> Iterator[Any]:
    """Return the stream of what a mapper yields, not checked yet.

    Between a generator's yield and the stream there is C code only.
    """
    call = mapper if _is_generator_function(mapper) else _returning(mapper)
    return chain.from_iterable(map(call, records))


def checked(batch: list[Any], fn: Callable[..., Any]) -> list[Pair]:
    """Return the batch, all of it pairs: tuples of two, that is, as far as the kind tells.

    A string of two characters would unpack as well, so kinds are looked at; lengths are left to
    who unpacks (see `refuse`).

    Raises:  InvalidPairs: one is no pair.
    """
    if list(map(type, batch)).count(tuple) == len(batch):
        return batch
    return [pair if type(pair) is tuple else as_pair(pair, fn) for pair in batch]


def pair_batches(
    stream: Iterator[Any], fn: Callable[..., Any], step: Callable[[], int]
) -> Iterator[list[Pair]]:
    """Yield what *fn* yielded in batches of step() pairs, checked to the last of them."""
    while batch := list(islice(stream, step())):
        pairs = checked(batch, fn)
        if set(map(len, pairs)) != {2}:
            pairs = [as_pair(pair, fn) for pair in pairs]
        yield pairs


def as_pair(pair: object, fn: Callable[..., Any]) -> Pair:
    """Return a pair that may be a list or a namedtuple.

    Raises:  InvalidPairs: it is none.
    """
    if isinstance(pair, (tuple, list)) and len(pair) == 2:
        return pair[0], pair[1]
    raise InvalidPairs(f"{name_of(fn)} yielded {shown(pair)}, which is no (key, value) pair.")


def add(combine: Reducer, states: States, batch: list[Pair], fn: Mapper) -> None:
    """Add pairs to the dictionary.

    Raises:  InvalidPairs: a tuple is not of two. BadKey: a key is not hashable. What the values'
             own methods raise.
    """
    try:
        combine.add(states, batch)
    except Exception as error:
        _check(batch, fn)
        _note_failed_pair(error, combine)
        raise


def merge(combine: Reducer, states: States, pairs: Pairs) -> None:
    """Merge (key, state) pairs into the dictionary. Raises: what the values' own methods raise."""
    try:
        combine.merge(states, pairs)
    except Exception as error:
        _note_failed_pair(error, combine)
        raise


def _note_failed_pair(error: Exception, combine: Reducer) -> None:
    """Note on an error of a reducer which pair it was at: looked up in the frame that failed, so
    that a pair costs nothing.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != reducers.__file__:
        trace = trace.tb_next
    found = trace.tb_frame.f_locals if trace is not None else {}
    if "key" in found:
        value = found.get("value", found.get("state", found.get("more")))
        note_pair(error, combine, found["key"], value)


def note_pair(error: Exception, combine: Reducer, key: object, value: object) -> None:
    """Note on an error of a reducer which pair it was at."""
    name = type(combine).__name__.lower()
    advice = ""
    if isinstance(combine, reducers.Sum) and isinstance(error, TypeError):
        advice = " It adds to 0: for text, lists and the like take reducers.fold(operator.add)."
    note = f"reducers.{name} was at the key {shown(key)} with the value {shown(value)}."
    notes = [*getattr(error, "__notes__", ()), note + advice]
    object.__setattr__(error, "__notes__", notes)  # past the class's own, which may refuse


def _check(batch: list[Pair], fn: Mapper) -> None:
    """Raise what is wrong with the pairs of a batch, if anything is."""
    for pair in batch:
        key, _ = as_pair(pair, fn)
        check_key(key)


def check_key(key: object) -> None:
    """Raise BadKey for a key that is not hashable."""
    try:
        hash(key)
    except TypeError as unhashable:
        raise BadKey(f"{shown(key)} cannot be a key: {unhashable}.") from None


def _is_generator_function(fn: Mapper) -> bool:
    flags = getattr(getattr(fn, "__code__", None), "co_flags", 0)
    return bool(flags & CO_GENERATOR)


def _returning(mapper: Mapper) -> Mapper:
    """Return the mapper with its result looked at: a list of pairs, a dict or an iterator."""

    def call(record: Any) -> Iterable[Any]:
        try:
            result = mapper(record)
        except StopIteration as error:  # would end the stream, and the rest be lost
            raise RuntimeError(f"{name_of(mapper)} raised StopIteration") from error
        kind = type(result)
        if kind is list or kind is GeneratorType:
            return result  # type: ignore[no-any-return]  # a list of whatever, or a generator
        return _pairs_in(result, mapper)

    return call


def _pairs_in(result: Any, mapper: Mapper) -> Iterable[Any]:
    if isinstance(result, dict):
        return result.items()
    if result is None or isinstance(result, (str, bytes)) or not hasattr(result, "__iter__"):
        raise InvalidPairs(
            f"{name_of(mapper)} returned {shown(result)}. A mapper yields (key, value) pairs, "
            "or returns a list of pairs or a dict; an empty list for none."
        )
    return result  # type: ignore[no-any-return]  # it can be iterated


def name_of(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__qualname__", None) or type(fn).__qualname__


def shown(value: object) -> str:
    text = repr(value)
    return f"{text[:80]}{'…' if len(text) > 80 else ''} ({type(value).__name__})"
