"""Reducers that combine in the mapper's dictionary as pairs arrive.

    mapper ─ pairs ─▶ add ─▶ {key: state} ─ shuffle ─▶ merge ─▶ {key: state} ─ finish ─▶ value

    reducer    state                    value
    sum        0 + v + v + …            the same, as the builtin adds
    count      number of values         the same
    min max    the value                the first of the smallest (largest); NaN only if all are
    mean       (sum, count)             sum / count: exact for ints, then rounded once
    collect    [v, …]                   the list, in (task, position) order
    unique     {v: None, …}             list of the distinct values, in order of first sight
    top(n)     [v, …]                   the n largest, largest first, the first of equals first
    fold(op)   op(op(v, v), v) …        the same; op must be associative

States of a key are merged in task order, so that every value is as the plain definition over the
key's values in (task, position) order gives it, except that additions of floats, and folds, are
bracketed by task.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, ClassVar

Pairs = Iterable[tuple[Any, Any]]
States = dict[Any, Any]
"""State by key, keys in the order in which they were first seen. Any: the user's own types."""

_NOTHING: Any = object()
_NAN = float("nan")


class Reducer:
    """How the values of a key become one; a frozen dataclass that travels to the workers.

    Called with (key, values) it reduces them by itself, as any reducer does.
    """

    finishes: ClassVar[bool] = True
    """Whether a state is not yet a value."""
    by_value: ClassVar[bool] = False
    """Whether the memory of a state grows with its values."""

    streams: ClassVar[bool] = False
    """Whether a state may be larger than memory and goes in pieces, one per block of a run."""

    def states(self) -> States:
        """Return an empty dictionary for `add` and `merge`.

        It is one that garbage collection knows, having held a list: of any other Python asks with
        each key and value whether it must be, 4 % of the time that counting words takes.
        """
        states: States = {0: []}
        states.clear()
        return states

    def add(self, states: States, pairs: Pairs) -> None:
        """Add (key, value) pairs."""
        raise NotImplementedError

    def merge(self, states: States, pairs: Pairs) -> None:
        """Add (key, state) pairs, whose values come after those added before."""
        for key, state in pairs:
            known = states.get(key, _NOTHING)
            states[key] = state if known is _NOTHING else self.join(known, state)

    def join(self, first: Any, second: Any) -> Any:
        """Return the state of the values of both, which may be changed."""
        raise NotImplementedError

    def finish(self, state: Any) -> Any:
        """Return the value that a state stands for."""
        return state

    def settled(self, keys: Sequence[Any], states: list[Any]) -> list[Any]:  # noqa: ARG002
        """Return the states as they are written: for those who combine by and by, combined."""
        return states

    def packed(self, states: Sequence[Any]) -> tuple[list[int] | None, list[Any]]:
        """Return (counts, values) of a block of the shuffle; counts None: one each."""
        return None, list(states)

    def unpacked(self, counts: Sequence[int] | None, values: Sequence[Any]) -> Sequence[Any]:
        """Return the states that a block holds."""
        if counts is None:
            return values
        raise ValueError("a block of several values per key, where states were written")

    def __call__(self, key: Any, values: Iterable[Any]) -> Any:  # noqa: ARG002 - a reducer's
        states = self.states()
        self.add(states, ((0, value) for value in values))
        return self.finish(states[0])


@dataclass(frozen=True, slots=True)
class Sum(Reducer):
    """0 + v + v + …, as the builtin: what cannot be added to 0 needs fold(operator.add)."""

    finishes: ClassVar[bool] = False

    def add(self, states: States, pairs: Pairs) -> None:
        known_of = states.get
        for key, value in pairs:
            states[key] = known_of(key, 0) + value  # not +=: it would change an array of the user

    merge = add

    def join(self, first: Any, second: Any) -> Any:
        return first + second


@dataclass(frozen=True, slots=True)
class Count(Reducer):
    """The number of values, whatever they are."""

    finishes: ClassVar[bool] = False

    def add(self, states: States, pairs: Pairs) -> None:
        known_of = states.get
        for key, _ in pairs:
            states[key] = known_of(key, 0) + 1

    def merge(self, states: States, pairs: Pairs) -> None:
        for key, state in pairs:
            states[key] = states.get(key, 0) + state

    def join(self, first: Any, second: Any) -> Any:
        return first + second


@dataclass(frozen=True, slots=True)
class Min(Reducer):
    """The first of the smallest values; NaN (what is not equal to itself) only if all are."""

    finishes: ClassVar[bool] = False

    def add(self, states: States, pairs: Pairs) -> None:
        known_of = states.get
        for key, value in pairs:
            known = known_of(key, _NOTHING)
            if known is _NOTHING or value < known or known != known:
                states[key] = value

    merge = add

    def join(self, first: Any, second: Any) -> Any:
        return second if second < first or first != first else first


@dataclass(frozen=True, slots=True)
class Max(Reducer):
    """The first of the largest values; NaN (what is not equal to itself) only if all are."""

    finishes: ClassVar[bool] = False

    def add(self, states: States, pairs: Pairs) -> None:
        known_of = states.get
        for key, value in pairs:
            known = known_of(key, _NOTHING)
            if known is _NOTHING or value > known or known != known:
                states[key] = value

    merge = add

    def join(self, first: Any, second: Any) -> Any:
        return second if second > first or first != first else first


@dataclass(frozen=True, slots=True)
class Mean(Reducer):
    """sum / count: of ints the exact sum, divided once; a Fraction stays a Fraction."""

    def add(self, states: States, pairs: Pairs) -> None:
        known_of = states.get
        for key, value in pairs:
            total, count = known_of(key, (0, 0))
            states[key] = (total + value, count + 1)

    def merge(self, states: States, pairs: Pairs) -> None:
        known_of = states.get
        for key, (more, number) in pairs:
            total, count = known_of(key, (0, 0))
            states[key] = (total + more, count + number)

    def join(self, first: Any, second: Any) -> Any:
        return (first[0] + second[0], first[1] + second[1])

    def finish(self, state: Any) -> Any:
        return state[0] / state[1]


@dataclass(frozen=True, slots=True)
class Collect(Reducer):
    """All values as a list, in (task, position) order; also how plain reducers get theirs."""

    finishes: ClassVar[bool] = False
    by_value: ClassVar[bool] = True
    streams: ClassVar[bool] = True

    def states(self) -> States:
        return defaultdict(list)

    def add(self, states: States, pairs: Pairs) -> None:
        for key, value in pairs:
            states[key].append(value)

    def merge(self, states: States, pairs: Pairs) -> None:
        known_of = states.get
        for key, values in pairs:
            known = known_of(key)
            if known is None:
                states[key] = values
            else:
                known.extend(values)

    def join(self, first: Any, second: Any) -> Any:
        first.extend(second)
        return first

    def packed(self, states: Sequence[Any]) -> tuple[list[int] | None, list[Any]]:
        values = list(chain.from_iterable(states))
        if len(values) == len(states):
            return None, values
        return list(map(len, states)), values

    def unpacked(self, counts: Sequence[int] | None, values: Sequence[Any]) -> Sequence[Any]:
        if counts is None:
            return [[value] for value in values]
        ends = accumulate(counts)
        return [values[end - count : end] for count, end in zip(counts, ends, strict=True)]


@dataclass(frozen=True, slots=True)
class Combined(Collect):
    """Values in lists that a combiner of the user shortens: combine(key, values) -> value."""

    combine: Callable[[Any, Iterable[Any]], Any]

    streams: ClassVar[bool] = False

    def settled(self, keys: Sequence[Any], states: list[Any]) -> list[Any]:
        combine = self.combine
        return [
            [combine(key, iter(values))] if len(values) > 1 else values
            for key, values in zip(keys, states, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Unique(Reducer):
    """The distinct values as a list, in order of first sight; every NaN is one value.

    Distinct as in a set: 1 and 1.0 are one value, the first that was seen.
    """

    by_value: ClassVar[bool] = True

    def states(self) -> States:
        return defaultdict(dict)

    def add(self, states: States, pairs: Pairs) -> None:
        for key, value in pairs:
            states[key].setdefault(value if value == value else _NAN)

    def merge(self, states: States, pairs: Pairs) -> None:
        for key, state in pairs:
            states[key] = self.join(states[key], state)

    def join(self, first: Any, second: Any) -> Any:
        for value in second:
            first.setdefault(value if value == value else _NAN)
        return first

    def finish(self, state: Any) -> Any:
        return list(state)


@dataclass(frozen=True, slots=True)
class Top(Reducer):
    """The n largest values, largest first, the first of equals first; NaN is left out.

    As sorted(values, reverse=True)[:n].
    """

    n: int

    by_value: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"top(n) needs n >= 1, got {self.n}")

    def states(self) -> States:
        return defaultdict(list)

    def add(self, states: States, pairs: Pairs) -> None:
        full = 2 * self.n + 14  # sorting twice the list half as often
        for key, value in pairs:
            state = states[key]
            if value == value:
                state.append(value)
                if len(state) > full:
                    self._cut(state)

    def merge(self, states: States, pairs: Pairs) -> None:
        for key, state in pairs:
            states[key] = self.join(states[key], state)

    def join(self, first: Any, second: Any) -> Any:
        first.extend(second)
        self._cut(first)
        return first

    def finish(self, state: Any) -> Any:
        self._cut(state)
        return state

    def _cut(self, state: list[Any]) -> None:
        state.sort(reverse=True)  # stable: the first of equals stays the first
        del state[self.n :]


@dataclass(frozen=True, slots=True)
class Fold(Reducer):
    """op(op(first, second), third) …, in (task, position) order."""

    op: Callable[[Any, Any], Any]

    finishes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not callable(self.op):
            raise TypeError(f"fold(op) needs a function of two values, got {self.op!r}")

    def add(self, states: States, pairs: Pairs) -> None:
        op, known_of = self.op, states.get
        for key, value in pairs:
            known = known_of(key, _NOTHING)
            states[key] = value if known is _NOTHING else op(known, value)

    merge = add

    def join(self, first: Any, second: Any) -> Any:
        return self.op(first, second)


sum = Sum()  # noqa: A001 - lambdamr.reducers.sum is its name; so for the others
count = Count()
min = Min()  # noqa: A001
max = Max()  # noqa: A001
mean = Mean()
collect = Collect()
unique = Unique()


def top(n: int) -> Reducer:
    """Return the reducer that keeps the n largest values, largest first; n >= 1."""
    return Top(n)


def fold(op: Callable[[Any, Any], Any]) -> Reducer:
    """Return the reducer that folds the values with an associative op(a, b)."""
    return Fold(op)


def combining(combiner: Callable[[Any, Iterable[Any]], Any]) -> Reducer:
    """Return how mappers combine for a plain reducer.

    Raises:  TypeError: not callable. ValueError: a reducer whose states are not values.
    """
    if not isinstance(combiner, Reducer):
        if not callable(combiner):
            raise TypeError(f"combiner must be a function (key, values) -> value, got {combiner!r}")
        return Combined(combiner)
    if combiner.finishes:
        raise ValueError(
            f"{type(combiner).__name__.lower()} cannot be a combiner: what it has before the end "
            "is no value. Use it as the reducer, or combine with sum, count, min, max or fold(op)."
        )
    return combiner
