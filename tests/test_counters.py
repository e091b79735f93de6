"""Mappers that return Counters: their elements are counted in the dictionary of the task."""

import collections
import collections as other_name
import gc
import math
import sys
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lambdamr
from lambdamr import reducers
from lambdamr.inlining import inline
from lambdamr_runtime.errors import InvalidPairs
from lambdamr_runtime.inlined import MANY_PAIRS, QUIET_PAIRS, Counts
from lambdamr_runtime.memory import MAX_STEP, Room
from lambdamr_runtime.reducers import Reducer
from tests.shuffled import ENOUGH_MB, NOTHING_MB, Shuffled

Words = list[str]
Counted = Callable[[Words], Any]

TIMEOUT_S = 60


# --- mappers of all shapes ------------------------------------------------------------------------
def of_a_list(words: Words) -> Any:
    return Counter(words)


def of_items(words: Words) -> Any:
    """A docstring is no statement of the mapper."""
    return Counter(words).items()


def of_an_attribute(words: Words) -> Any:
    return collections.Counter(words).items()


def of_another_name(words: Words) -> Any:
    return other_name.Counter(words)


def of_a_generator(words: Words) -> Any:
    return Counter(word for word in words if word != "b")


def of_letters(words: Words) -> Any:
    return Counter("".join(words))


def of_a_tuple(words: Words) -> Any:
    return Counter(tuple(words))


def of_a_mapping(words: Words) -> Any:
    return Counter(dict.fromkeys(words, 7))


def of_another_counter(words: Words) -> Any:
    return Counter(Counter(words))


def of_nothing(words: Words) -> Any:
    return Counter(None)


def with_branches(words: Words) -> Any:
    if not words:
        return []
    if words[0] == "a":
        return {}
    if len(words) == 2:
        return Counter(words[1:])
    return Counter(map(str.upper, words)).items()


def with_defaults(words: Words, step: int = 2, *, more: tuple[str, ...] = ("m",)) -> Any:
    return Counter([*words[::step], *more])


def with_scopes(words: Words) -> Any:
    """Functions keep their own returns, and with its own body."""

    def inner(word: str) -> str:
        return word * 2

    with suppress(IndexError):
        words[0] = words[0]
    counts = words
    return Counter([inner(word) for word in counts])


def closing(seen: Words) -> Counted:
    def closed(words: Words) -> Any:
        seen.extend(words)
        return Counter(words)

    return closed


class Tally(Counter[str]):
    """Not a Counter, and not counted as one."""

    def items(self) -> Any:
        return [(key, 2 * count) for key, count in super().items()]


class tallies:  # noqa: N801 - it stands for a module
    Counter = Tally


def of_a_kind_of_its_own(words: Words) -> Any:
    return tallies.Counter(words).items()


MAPPERS: list[Counted] = [
    of_a_list,
    of_items,
    of_an_attribute,
    of_another_name,
    of_a_generator,
    of_letters,
    of_a_tuple,
    of_a_mapping,
    of_another_counter,
    of_nothing,
    with_branches,
    with_defaults,
    with_scopes,
    closing([]),
    of_a_kind_of_its_own,
    lambda words: Counter(words),
]
MAPPERS += [(lambda words: Counter(words[1:])), (lambda words: Counter(words[:1]).items())]


@pytest.mark.parametrize("mapper", MAPPERS, ids=[f"{n}" for n in range(len(MAPPERS))])
@settings(deadline=None)  # the first parses this file
@given(
    tasks=st.lists(st.lists(st.lists(st.sampled_from("abc")), max_size=5), min_size=1, max_size=3),
    memory_mb=st.sampled_from([ENOUGH_MB, NOTHING_MB]),
    partitions=st.integers(1, 3),
)
def test_a_counter_equals_a_dictionary(
    mapper: Counted, tasks: list[list[Words]], memory_mb: int, partitions: int
) -> None:
    """Whatever the Counter is made of, and whether it is spilled at once or not at all."""
    job = Shuffled(reducers.sum, partitions, memory_mb, inlines=True)
    expected: Counter[str] = Counter()
    for task in tasks:
        for words in task:
            pairs = mapper(words)
            expected.update(dict(pairs.items() if isinstance(pairs, dict) else pairs))
    assert dict(job.run(tasks, mapper)) == expected


@given(st.lists(st.integers(0, 3 * QUIET_PAIRS), max_size=6))
def test_each_element_is_a_pair(sizes: list[int]) -> None:
    """What is emitted is told as by a mapper that yields (element, 1)."""
    job = Shuffled(reducers.sum, inlines=True)
    records = [[n % 100 for n in range(size)] for size in sizes]
    found = job.run([records], lambda numbers: Counter(numbers))
    assert job.mapped[0].emitted == sum(count for _, count in found) == sum(sizes)


@pytest.mark.parametrize("memory_mb", [ENOUGH_MB, NOTHING_MB])
@pytest.mark.parametrize("left", [1000, 31])
def test_every_nan_is_one_key(memory_mb: int, left: int) -> None:
    """In one Counter, in several, behind a spill, and beside those of mappings."""

    def numbers(n: int) -> Any:
        elements = [float("nan"), math.nan, float(n % 3), float("nan")]
        return Counter(dict.fromkeys(elements, 1) if n > left else elements)

    job = Shuffled(reducers.sum, memory_mb=memory_mb, inlines=True)
    found = {repr(key): count for key, count in job.run([range(60)] * 2, numbers)}
    assert found == {"nan": 360, "0.0": 40, "1.0": 40, "2.0": 40}


def test_the_first_of_equal_keys_is_kept() -> None:
    """What is counted at once does not overtake what is left to be added."""
    records: list[Any] = [{True: 1}, [1], [2.0], {2: 1}, [2]]
    found = Shuffled(reducers.sum, inlines=True).run([records], lambda record: Counter(record))
    assert repr(found) == "[(True, 2), (2.0, 3)]"
    found = Shuffled(reducers.sum, inlines=True).run([[[1], [True]]], lambda each: Counter(each))
    assert repr(found) == "[(1, 2)]"


class Restarting:
    """An iterator that begins again when it has ended."""

    def __init__(self) -> None:
        self._left = 2

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._left -= 1
        if self._left < 0:
            self._left = 2
            raise StopIteration
        return "a"


def test_iterators_are_left_alone() -> None:
    """They are counted by the mapper's own Counter: one need not end, nor fit in memory."""
    job = Shuffled(reducers.sum, inlines=True)
    assert job.run([range(2)], lambda _: Counter(Restarting())) == [("a", 4)]
    assert job.mapped[0].emitted == 2


def test_lambdas_in_defaults_of_lambdas() -> None:
    """Each is rewritten as itself."""
    outer = lambda words, inner=lambda word, y="k": Counter([y, word]): Counter(inner(words))  # noqa: E731
    (inner,) = outer.__defaults__ or ()
    assert Shuffled(reducers.sum, inlines=True).run([["ab", "b"]], inner) == [
        ("ab", 1),
        ("b", 1),
        ("k", 2),
    ]
    assert dict(Shuffled(reducers.sum, inlines=True).run([["ab"]], outer)) == {"ab": 1, "k": 1}


def test_a_counter_of_an_enclosing_function() -> None:
    """Where it was imported does not matter."""

    def enclosing() -> Counted:
        from collections import Counter

        return lambda words: Counter(words)

    assert Shuffled(reducers.sum, inlines=True).run([[["a", "a"]]], enclosing()) == [("a", 2)]


def test_dictionaries_are_known_to_garbage_collection() -> None:
    """Else each key that comes is asked whether it must be."""
    assert gc.is_tracked(reducers.sum.states())
    assert reducers.sum.states() == {}


class Looks:
    """A dictionary, and how many elements were counted between two looks at the memory."""

    def __init__(self) -> None:
        self.states: dict[Any, Any] = {}
        self.pairs: list[int] = []

    def unite_nans(self, before: int) -> None:
        assert 0 <= before <= len(self.states)

    def count(self, pairs: int) -> None:
        self.pairs.append(pairs)


def counting_of(
    mapper: Callable[..., Any], looks: Looks, room: Room
) -> tuple[Counts, Callable[..., Any]]:
    """Return what counts for a mapper, and the mapper that has it counted."""
    inlined = inline(mapper, reducers.sum)
    assert inlined is not None
    bound = inlined.bound_to(mapper)
    assert bound is not None
    counts = Counts(looks, room)
    return counts, counts.mapper(bound, mapper)


@pytest.mark.parametrize(("keys", "most"), [(1, MANY_PAIRS), (1 << 20, MAX_STEP)])
def test_memory_is_looked_at_more_often_where_keys_are_new(keys: int, most: int) -> None:
    """Small Counters are many to a look, as pairs are."""
    looks = Looks()
    with Room(0, 0.5) as room:
        room.step = MAX_STEP
        counts, counting = counting_of(of_a_list, looks, room)
        for n in range(0, 300_000, 10):
            assert counting([m % keys for m in range(n, n + 10)]) == {}
        counts.look()
    assert sum(looks.pairs) == 300_000 > MANY_PAIRS
    assert most <= max(looks.pairs) < most + 10


def test_memory_is_looked_at_behind_the_mapper() -> None:
    """Then what it counted is freed."""
    words: list[weakref.ref[Any]] = []

    class Word:
        """Equal to every other one."""

        def __init__(self, number: int) -> None:
            self._number = number // 2

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Word) and self._number == other._number

        def __hash__(self) -> int:
            return self._number

    class Freed(Looks):
        def count(self, pairs: int) -> None:
            super().count(pairs)
            assert sum(word() is not None for word in words) == len(self.states) == MAX_STEP // 2

    def words_of(n: int) -> Any:
        made = [Word(number) for number in range(n)]
        words.extend(map(weakref.ref, made))
        return Counter(made)

    looks = Freed()
    with Room(0, 0.5) as room:
        _, counting = counting_of(words_of, looks, room)
        counting(MAX_STEP)
    assert looks.pairs == [MAX_STEP]


def test_what_was_counted_is_looked_at_before_pairs_follow() -> None:
    """They may fill the memory, and a spill empty the dictionary."""
    looks = Looks()
    with Room(0, 0.5) as room:
        room.step = MAX_STEP
        _, counting = counting_of(of_a_list, looks, room)
        assert counting(["a", "b"]) == {}
        assert looks.pairs == []
        assert counting({"a": 3}) == {"a": 3}
        assert looks.pairs == [2]
        assert counting(["a"]) == {"a": 1}


def test_only_the_last_mapper_counts() -> None:
    """The Counter of another one is pairs, which are records of the next."""

    def sizes(pair: tuple[str, int]) -> Any:
        return Counter([pair[1]])

    found = Shuffled(reducers.sum, inlines=True).run([[list("abcab"), list("a")]], of_items, sizes)
    assert found == [(1, 2), (2, 2)]


# --- what is left alone ---------------------------------------------------------------------------
def guarded(words: Words) -> Any:
    try:
        return Counter(words)
    except TypeError:
        return []


def within(words: Words) -> Any:
    with suppress(TypeError):
        return Counter(words)


def with_more(words: Words) -> Any:
    more = {"more": 1}
    return Counter(words, **more)


def over_lines(words: Words) -> Any:
    """Its call has the line of the name, with `count` it had that of what it begins with."""
    # fmt: off
    return (
        collections
        .Counter(words)
    )
    # fmt: on


def in_parentheses(words: Words) -> Any:
    # fmt: off
    return (
        tallies.Counter)(words)
    # fmt: on


def starred(words: Words) -> Any:
    return Counter(*[words])


def of_a_variable(words: Words) -> Any:
    counts = Counter(words)
    return counts  # noqa: RET504 - it is not written out


def listed(words: Words) -> Any:
    return list(Counter(words).items())


def of_the_most_common(words: Words) -> Any:
    return Counter(words).most_common(3)


def sometimes(words: Words) -> Any:
    if words:
        return Counter(words)
    return [("none", 0.5)]


def sometimes_nothing(words: Words) -> Any:
    if not words:
        return None
    return Counter(words)


def yielding(words: Words) -> Iterator[Any]:
    yield from Counter(words).items()


def asks_for_names(words: Words) -> Any:
    return Counter(locals())


class Above:
    def words(self) -> Words:
        return ["a"]


class Below(Above):
    def count(self) -> Any:
        return Counter(super().words())


LEFT_ALONE: list[Callable[..., Any]] = [
    guarded,
    within,
    with_more,
    over_lines,
    in_parentheses,
    starred,
    of_a_variable,
    listed,
    of_the_most_common,
    sometimes,
    sometimes_nothing,
    yielding,
    asks_for_names,
    Below.count,
    Counter,
    partial(of_a_list),
]


@pytest.mark.parametrize("mapper", LEFT_ALONE, ids=lambda each: getattr(each, "__name__", "?"))
def test_what_is_left_alone(mapper: Callable[..., Any]) -> None:
    """What returns something else too, or would tell the difference."""
    assert inline(mapper, reducers.sum) is None


@pytest.mark.parametrize(
    "reducer", [reducers.count, reducers.mean, reducers.max, reducers.collect, reducers.top(2)]
)
def test_other_reducers_are_left_alone(reducer: Reducer) -> None:
    """They do not add counts."""
    assert inline(of_a_list, reducer) is None


# --- errors ---------------------------------------------------------------------------------------
def of_lists(words: Words) -> Any:
    return Counter([words])


def of_a_number(words: Words) -> Any:
    return Counter(len(words))  # type: ignore[call-overload]


def falls_off(words: Words) -> Any:  # noqa: RET503 - as mappers may
    if not words:
        return Counter(words)


def fails(words: Words) -> Any:
    if "b" in words:
        raise ValueError("no b")
    return Counter(words)


@pytest.mark.parametrize("mapper", [of_lists, of_a_number, fails])
def test_errors_are_those_of_the_mapper(mapper: Counted) -> None:
    """As they are without all this, and their traceback has the line."""
    with pytest.raises((TypeError, ValueError)) as expected:
        mapper(["a", "b"])
    with pytest.raises(expected.type) as caught:
        Shuffled(reducers.sum, inlines=True).run([[["a"], ["a", "b"]]], mapper)
    assert str(caught.value) == str(expected.value)
    frames = traceback.extract_tb(caught.value.__traceback__)
    lines = [(frame.filename, frame.lineno) for frame in frames if frame.name == mapper.__name__]
    (frame,) = [
        frame
        for frame in traceback.extract_tb(expected.value.__traceback__)
        if frame.name == mapper.__name__
    ]
    assert lines == [(frame.filename, frame.lineno)]


def test_a_mapper_that_returns_nothing() -> None:
    """It is named."""
    with pytest.raises(InvalidPairs, match="falls_off returned None"):
        Shuffled(reducers.sum, inlines=True).run([[["a"]]], falls_off)


# --- in a job -------------------------------------------------------------------------------------
def test_a_job_counts(executor: lambdamr.Executor) -> None:
    """The worker runs what the client has made, of a function of any name or none."""

    def names() -> Iterable[str]:
        return (name for name in sys._getframe(1).f_code.co_varnames if name[0] == ".")

    def counting(n: int) -> Any:
        return Counter([*names(), n % 2])

    job = executor.map_reduce(counting, range(10), reducers.sum)
    assert job.result(TIMEOUT_S) == {".count": 10, 0: 5, 1: 5}
    assert job.report().stages["map"].emitted == 20
    job = executor.map_reduce(counting, range(10), lambda _, counts: sum(counts))
    assert job.result(TIMEOUT_S) == {0: 5, 1: 5}
    lines = executor.map_reduce(
        lambda line: Counter([*names(), *line.split()]), ["a b a", "b"], reducers.sum
    )
    assert lines.result(TIMEOUT_S) == {".count": 2, "a": 2, "b": 2}
