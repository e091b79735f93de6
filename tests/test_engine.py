"""MapReduce equals a dictionary: whatever the keys, the memory, the runs and the merges."""

import math
import random
from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any
from unittest import mock

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdamr import reducers
from lambdamr_runtime import partitions as partitions_module
from lambdamr_runtime.canonical import canonical, partition_of, partitions_of
from lambdamr_runtime.errors import BadKey, CorruptObject, InvalidPairs, UnstableKey
from lambdamr_runtime.reducers import Reducer, combining
from lambdamr_runtime.runs import Keying
from tests.shuffled import ENOUGH_MB, NOTHING_MB, Shuffled, plain

texts = st.text(max_size=3)
ints = st.integers(-5, 5)
keys = st.one_of(
    texts,
    ints,
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False),
    st.tuples(texts, ints),
    st.binary(max_size=2),
    st.dates(date(2000, 1, 1), date(2000, 1, 9)),
    st.frozensets(ints, max_size=2),
    st.fractions(0, 2, max_denominator=3),
)
one_kind = st.sampled_from(
    [texts, ints, st.binary(max_size=1), st.tuples(texts, ints), st.floats(-2, 2), keys]
)
values = st.integers(-9, 9)


@st.composite
def some_tasks(draw: Any, value: Any = values) -> list[list[tuple[Any, Any]]]:
    """Pairs of a few tasks, their keys of one kind or of all."""
    pairs = st.lists(st.tuples(draw(one_kind), value), max_size=12)
    return draw(st.lists(pairs, min_size=1, max_size=5))  # type: ignore[no-any-return]


memories = st.sampled_from([ENOUGH_MB, NOTHING_MB])
widths = st.sampled_from([2, 3, None])


def shown(key: Any) -> str:
    """Return what tells 1 from True and 1.0."""
    return repr(sorted(key)) if isinstance(key, frozenset) else repr(key)


@given(some_tasks(), st.integers(1, 4), memories, widths, st.booleans())
@settings(max_examples=150, deadline=None)
def test_grouping_is_that_of_a_dictionary(
    tasks: list[list[Any]], partitions: int, memory_mb: int, width: int | None, compress: bool
) -> None:
    """Keys, values and their order are a dictionary's, be all in memory or every pair spilled."""
    job = Shuffled(lambda _, values: list(values), partitions, memory_mb, width, compress=compress)
    found = job.run(tasks)
    expected = plain(tasks)
    assert dict(found) == expected
    assert len(found) == len(expected)
    first_seen = {key: key for key in expected}
    assert [shown(key) for key, _ in found] == [shown(first_seen[key]) for key, _ in found]


@given(some_tasks(), st.integers(1, 4), memories)
@settings(max_examples=50, deadline=None)
def test_parts_are_sorted_and_partitioned(
    tasks: list[list[Any]], partitions: int, memory_mb: int
) -> None:
    """A part holds the keys of its partition, in canonical order."""
    job = Shuffled(lambda _, values: len(list(values)), partitions, memory_mb)
    job.run(tasks)
    for partition, part in enumerate(job.parts()):
        found = [key for key, _ in part]
        assert found == sorted(found, key=canonical)
        assert {partition_of(key, partitions) for key in found} <= {partition}


PLAIN: dict[str, tuple[Reducer, Callable[[list[Any]], Any]]] = {
    "sum": (reducers.sum, sum),
    "count": (reducers.count, len),
    "min": (reducers.min, min),
    "max": (reducers.max, max),
    "mean": (reducers.mean, lambda values: sum(values) / len(values)),
    "collect": (reducers.collect, list),
    "unique": (reducers.unique, lambda values: list(dict.fromkeys(values))),
    "top": (reducers.top(3), lambda values: sorted(values, reverse=True)[:3]),
    "fold": (reducers.fold(lambda a, b: a + b), sum),
}
"""Reducers and their plain definitions over the list of a key's values."""


@given(some_tasks(), st.sampled_from(sorted(PLAIN)), st.integers(1, 3), memories, widths)
@settings(max_examples=200, deadline=None)
def test_reducers_are_their_plain_definitions(
    tasks: list[list[Any]], name: str, partitions: int, memory_mb: int, width: int | None
) -> None:
    """Combining on the map side, spilling and merging change no value."""
    reducer, definition = PLAIN[name]
    found = Shuffled(reducer, partitions, memory_mb, width).run(tasks)
    expected = {key: definition(values) for key, values in plain(tasks).items()}
    assert dict(found) == expected
    assert len(found) == len(expected)


@given(some_tasks(), st.sampled_from(sorted(PLAIN)), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_long_slices_are_merged_to_what_a_dictionary_holds(
    tasks: list[list[Any]], name: str, partitions: int
) -> None:
    """Which way a partition that fits is grouped changes neither keys, their order nor values."""
    reducer, _ = PLAIN[name]
    grouped = Shuffled(reducer, partitions, ENOUGH_MB).run(tasks)
    with (
        mock.patch.multiple(partitions_module, CACHED_PAIRS=0, LONG_SLICE_PAIRS=0),
        mock.patch.object(partitions_module.Partition, "_in_memory", return_value=iter(())),
    ):
        merged = Shuffled(reducer, partitions, ENOUGH_MB).run(tasks)
    assert merged == grouped
    assert [shown(key) for key, _ in merged] == [shown(key) for key, _ in grouped]


@given(some_tasks(st.text(max_size=2)), st.integers(1, 3), memories, widths)
@settings(max_examples=50, deadline=None)
def test_folds_keep_the_order_of_values(
    tasks: list[list[Any]], partitions: int, memory_mb: int, width: int | None
) -> None:
    """fold(op) needs an associative op, not a commutative one."""
    found = Shuffled(reducers.fold(lambda a, b: a + b), partitions, memory_mb, width).run(tasks)
    assert dict(found) == {key: "".join(values) for key, values in plain(tasks).items()}


@given(some_tasks(), memories, widths)
@settings(max_examples=50, deadline=None)
def test_a_combiner_of_the_user_changes_no_result(
    tasks: list[list[Any]], memory_mb: int, width: int | None
) -> None:
    """A plain reducer gets combined values, and comes to the same."""
    for combiner in (lambda _, values: sum(values), reducers.sum):
        combine = combining(combiner)
        job = Shuffled(lambda _, values: sum(values), 2, memory_mb, width, combine=combine)
        assert dict(job.run(tasks)) == {k: sum(values) for k, values in plain(tasks).items()}


def test_combined_pairs_are_what_travels() -> None:
    """One state per key and task is written, and the receipt counts these."""
    job = Shuffled(reducers.sum)
    job.run([[("a", 1)] * 1000 + [("b", 1)], [("a", 1)]])
    assert [made.emitted for made in job.mapped] == [1001, 1]
    assert [piece.pairs for made in job.mapped for piece in made.slices] == [2, 1]
    assert [made.pairs_read for made in job.reduced] == [3]
    job = Shuffled(lambda _, values: sum(values), combine=combining(lambda _, values: sum(values)))
    assert job.run([[("a", 1)] * 1000]) == [("a", 1000)]
    assert [made.pairs_read for made in job.reduced] == [1]


@pytest.mark.parametrize("memory_mb", [ENOUGH_MB, NOTHING_MB])
def test_every_nan_is_one_key(memory_mb: int) -> None:
    """NaN objects, which a dictionary keeps apart, are one key, the last of the numbers."""
    nans = [(float("nan"), 1), (1, 2), (float("nan"), 3), ("a", 0), (Decimal("NaN"), 4)]
    for reducer, expected in ((reducers.sum, 16), (lambda _, values: sum(values), 16)):
        found = Shuffled(reducer, memory_mb=memory_mb).run([nans, nans])
        assert [repr(key) for key, _ in found] == ["1", "nan", "'a'"]
        assert found[1][1] == expected
    values = [(float("nan") if n % 3 else math.nan, n) for n in range(2_000)]
    found = Shuffled(lambda _, values: list(values), memory_mb=memory_mb).run(
        [values[:900], values]
    )
    assert [found[0][1], len(found)] == [[*range(900), *range(2_000)], 1]


@pytest.mark.parametrize("memory_mb", [ENOUGH_MB, NOTHING_MB])
def test_nan_values(memory_mb: int) -> None:
    """NaN is the smallest and the largest only of NaNs, no part of a top, and once in unique."""
    nan = float("nan")
    tasks = [[("x", nan), ("x", 2.0), ("y", nan)], [("x", 1.0), ("x", float("nan")), ("y", nan)]]

    def run(reducer: Reducer) -> dict[str, Any]:
        return dict(Shuffled(reducer, memory_mb=memory_mb).run(tasks))

    assert run(reducers.min)["x"] == 1.0
    assert run(reducers.max)["x"] == 2.0
    assert math.isnan(run(reducers.min)["y"])
    assert run(reducers.top(5)) == {"x": [2.0, 1.0], "y": []}
    assert [len(found) for found in run(reducers.unique).values()] == [3, 1]


def test_means_are_exact() -> None:
    """The sum of ints is exact before it is divided; other numbers stay what they are."""
    big = 2**70
    assert Shuffled(reducers.mean).run([[("x", big), ("x", 1)], [("x", -big)]]) == [("x", 1 / 3)]
    assert Shuffled(reducers.mean).run([[("x", Fraction(1, 3))]]) == [("x", Fraction(1, 3))]


def test_ties_and_distinct_values_are_the_first() -> None:
    """Of equal values the first seen stands for all."""
    tasks: list[Any] = [[("x", 1), ("x", True)], [("x", 1.0)]]
    for reducer in (reducers.min, reducers.max):
        assert repr(Shuffled(reducer).run(tasks)) == "[('x', 1)]"
    assert repr(Shuffled(reducers.unique).run(tasks)) == "[('x', [1])]"
    assert repr(Shuffled(reducers.top(2)).run(tasks)) == "[('x', [1, True])]"


def test_a_sum_changes_none_of_the_mappers_objects() -> None:
    """Values are added, never in place."""
    numpy = pytest.importorskip("numpy")
    row = numpy.array([1, 2])
    [(_, total)] = Shuffled(reducers.sum).run([[("x", row), ("x", row), ("x", row)]])
    assert (row.tolist(), total.tolist()) == ([1, 2], [3, 6])


def test_reducers_can_be_called() -> None:
    """A reducer reduces a list of values by itself, as any reducer does."""
    for reducer, definition in PLAIN.values():
        assert reducer("key", iter([3, 1, 3])) == definition([3, 1, 3])


def test_wrong_reducers_are_refused() -> None:
    """What is no reducer or combiner is refused when it is made."""
    with pytest.raises(ValueError, match="n >= 1, got 0"):
        reducers.top(0)
    with pytest.raises(TypeError, match="a function of two values"):
        reducers.fold(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mean cannot be a combiner"):
        combining(reducers.mean)
    with pytest.raises(TypeError, match="combiner must be a function"):
        combining(3)  # type: ignore[arg-type]


# --- mappers ----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 9), max_size=30), st.lists(st.integers(0, 3), max_size=3))
@settings(max_examples=50, deadline=None)
def test_mappers_are_fused_in_order(records: list[int], kinds: list[int]) -> None:
    """Generators, lists, dicts and iterators chain: each gets the pairs of the one before."""

    def generator(pair: Any) -> Iterator[Any]:
        yield pair[0] + 1, pair[1]
        yield pair[0], 1

    chain: list[Callable[[Any], Any]] = [
        generator,
        lambda pair: [(pair[0], 2), [pair[0] + 1, 3]],
        lambda pair: {pair[0]: pair[1]},
        lambda pair: iter([pair]),
    ]
    expected: list[Any] = [(record, 1) for record in records]
    for kind in kinds:
        results = (chain[kind](pair) for pair in expected)
        listed = (result.items() if isinstance(result, dict) else result for result in results)
        expected = [tuple(pair) for result in listed for pair in result]
    mappers = [lambda record: [(record, 1)], *(chain[kind] for kind in kinds)]
    found = Shuffled(reducers.collect).run([records], *mappers)
    assert dict(found) == plain([expected])


@pytest.mark.parametrize(
    "bad", ["ab", b"ab", {1, 2}, 7, None, (1,), (1, 2, 3), [1, 2, 3]], ids=repr
)
@pytest.mark.parametrize("chained", [False, True])
def test_what_is_no_pair_is_named(bad: Any, chained: bool) -> None:
    """A string of two characters is no pair, though it unpacks as one."""

    def careless(_: Any) -> Iterator[Any]:
        yield "good", 1
        yield bad

    mappers = [careless, lambda pair: [pair]] if chained else [careless]
    for reducer in (reducers.sum, reducers.count, reducers.collect, reducers.mean):
        with pytest.raises(InvalidPairs, match=r"careless yielded .*no \(key, value\) pair"):
            Shuffled(reducer).run([[1]], *mappers)


@pytest.mark.parametrize("bad", ["ab", b"ab", 7, None], ids=repr)
def test_what_holds_no_pairs_is_named(bad: Any) -> None:
    """A mapper that returns neither pairs nor an iterator says what it returned."""
    with pytest.raises(InvalidPairs, match="<lambda> returned "):
        Shuffled(reducers.sum).run([[1]], lambda _: bad)


def test_keys_that_cannot_be_keys_are_named() -> None:
    """An unhashable key and one without an order are told apart from errors of the values."""
    with pytest.raises(BadKey, match=r"\[1\] \(list\) cannot be a key"):
        Shuffled(reducers.sum).run([[("a", 1), ([1], 2)]])
    with pytest.raises(UnstableKey):
        Shuffled(reducers.sum).run([[(object(), 2)]])
    with pytest.raises(TypeError, match="unsupported operand"):
        Shuffled(reducers.sum).run([[("a", "text")]])


@pytest.mark.parametrize("key", [pandas.NA, pandas.NaT, np.datetime64("NaT")])
@pytest.mark.parametrize("memory_mb", [ENOUGH_MB, NOTHING_MB])
def test_keys_that_cannot_tell_whether_they_equal_themselves_are_named(
    key: Any, memory_mb: int
) -> None:
    """What is missing in a table is refused by its type, beside NaN too; a sort key may stand for
    it.
    """
    tasks = [[(1, 1), (key, 1), (math.nan, 1), (key, 2), (math.nan, 2)]]
    with pytest.raises(UnstableKey, match="cannot be a key"):
        Shuffled(reducers.sum, 2, memory_mb).run(tasks)
    keying = Keying(sort_key=lambda key: "missing" if key is pandas.NA else str(key))
    found = Shuffled(reducers.sum, 1, memory_mb, keying=keying).run(
        [[(1, 1), (pandas.NA, 1), (math.nan, 1), (pandas.NA, 2), (math.nan, 2)]]
    )
    assert [(str(key), value) for key, value in found] == [("1", 1), ("<NA>", 3), ("nan", 3)]


def test_a_mapper_that_raises_stop_iteration_loses_nothing() -> None:
    """It fails the task: taken for the end of the records it would drop the rest of them."""
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        Shuffled(reducers.sum).run([[1, 2]], lambda _: next(iter([])))


# --- partitioner and sort key -------------------------------------------------------------------


class Version:
    """A key that hashes and compares, but of whose order nobody else knows."""

    def __init__(self, text: str) -> None:
        self.parts = tuple(map(int, text.split(".")))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)


@pytest.mark.parametrize("memory_mb", [ENOUGH_MB, NOTHING_MB])
def test_a_sort_key_stands_for_the_key(memory_mb: int) -> None:
    """Keys of any type are grouped, ordered and partitioned by what it returns."""
    pairs = [(Version(text), text) for text in ("1.10", "1.9", "1.10", "1.2")]
    keying = Keying(sort_key=lambda version: version.parts)
    for reducer in (lambda _, values: list(values), reducers.collect):
        job = Shuffled(reducer, 3, memory_mb, keying=keying)
        found = job.run([pairs, pairs])
        assert sorted((key.parts, values) for key, values in found) == [
            ((1, 2), ["1.2"] * 2),
            ((1, 9), ["1.9"] * 2),
            ((1, 10), ["1.10"] * 4),
        ]
        for part in job.parts():
            assert [key.parts for key, _ in part] == sorted(key.parts for key, _ in part)


def test_a_partitioner_says_where_keys_go() -> None:
    """Parts are then what the user wants: ranges, say."""
    keying = Keying(partitioner=lambda key, partitions: key * partitions // 10)
    job = Shuffled(reducers.count, 3, keying=keying)
    found = job.run([[(key, None) for key in range(10)]])
    assert [key for key, _ in found] == list(range(10))
    assert [len(part) for part in job.parts()] == [4, 3, 3]


@pytest.mark.parametrize("wrong", [3, -1, None, "0", 0.5])
def test_a_partition_that_is_none_is_named(wrong: Any) -> None:
    """A partitioner's result is a number of a partition."""
    keying = Keying(partitioner=lambda key, _: wrong)
    with pytest.raises(InvalidPairs, match=r"partitioner returned .* an int from 0 to 2"):
        Shuffled(reducers.count, 3, keying=keying).run([[("a", 1)]])


@given(one_kind.flatmap(st.lists), st.integers(1, 9))
def test_partitions_of_many_are_those_of_each(found: list[Any], partitions: int) -> None:
    """The loop over many keys is the function for one."""
    assert partitions_of(found, partitions) == [partition_of(key, partitions) for key in found]
    found = [*found, "\ud800"]
    assert partitions_of(found, partitions) == [partition_of(key, partitions) for key in found]


# --- merges -----------------------------------------------------------------------------------


def test_what_a_reducer_leaves_is_skipped() -> None:
    """A reducer that reads one value, none, or stops in the middle disturbs no later key."""
    tasks = [[(number % 7, value) for number in range(70)] for value in range(4)]
    expected = plain(tasks)
    for memory_mb in (ENOUGH_MB, NOTHING_MB):
        for count in (0, 1, 13):
            job = Shuffled(
                lambda _, values, count=count: [
                    x for x, _ in zip(values, range(count), strict=False)
                ],  # type: ignore[misc]
                2,
                memory_mb,
                merge_width=2,
            )
            assert dict(job.run(tasks)) == {key: expected[key][:count] for key in expected}


def test_values_can_be_read_late_only_as_far_as_they_are() -> None:
    """`values` is read once; kept for later it never yields another key's."""
    kept: list[Iterator[Any]] = []

    def keep(key: Any, values: Iterator[Any]) -> int:
        found = [value for old in kept for value in old]
        assert set(found) <= {key - 1}
        kept[:] = [values]
        return next(values)  # type: ignore[no-any-return]

    tasks = [[(number // 10, number // 10) for number in range(100)]] * 3
    job = Shuffled(keep, 1, NOTHING_MB, merge_width=2)
    assert job.run(tasks) == [(number, number) for number in range(10)]


def test_generator_reducers_yield_pairs_while_values_stream() -> None:
    """Any number of pairs per key, in any memory."""

    def twice(key: Any, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            yield key, value
            yield [key, -value]

    tasks = [[("a", 1), ("b", 2)], [("a", 3)]]
    for memory_mb in (ENOUGH_MB, NOTHING_MB):
        found = Shuffled(twice, 1, memory_mb).run(tasks)
        assert found == [("a", 1), ("a", -1), ("a", 3), ("a", -3), ("b", 2), ("b", -2)]
    with pytest.raises(InvalidPairs, match="yielded 'ab'"):
        Shuffled(lambda *_: (pair for pair in ["ab"])).run(tasks)


@pytest.mark.parametrize("memory_mb", [ENOUGH_MB, NOTHING_MB])
def test_many_runs_are_merged_in_passes(memory_mb: int) -> None:
    """400 pairs in as many runs, two at a time: order and number of values stay."""
    chosen = random.Random(7)
    tasks = [[(chosen.randrange(20), (task, n)) for n in range(100)] for task in range(4)]
    job = Shuffled(lambda _, values: list(values), 2, memory_mb, merge_width=2)
    assert dict(job.run(tasks)) == plain(tasks)
    if memory_mb == NOTHING_MB:
        assert [made.spilled_runs for made in job.mapped] == [100] * 4
        assert all(made.spilled_bytes for made in job.reduced)


def test_large_values_make_small_blocks() -> None:
    """Blocks stay near their size in bytes, so that a merge of many runs fits."""
    job = Shuffled(lambda _, values: sum(map(len, values)), 1, NOTHING_MB, merge_width=2)
    tasks = [[(n % 3, b"x" * 50_000) for n in range(30)]] * 3
    assert dict(job.run(tasks)) == {0: 1_500_000, 1: 1_500_000, 2: 1_500_000}


@pytest.mark.parametrize("memory_mb", [ENOUGH_MB, NOTHING_MB])
def test_compressed_pairs_are_the_same_in_fewer_bytes(memory_mb: int) -> None:
    """Compression changes the size of shuffle objects, and no result; a merge of blocks that
    shrink to nothing still plans with what they hold.
    """
    tasks = [[(f"key-{n % 50}", "x" * 2_000) for n in range(200)] for _ in range(3)]
    found, sizes = [], []
    for compress in (False, True):
        job = Shuffled(reducers.collect, 2, memory_mb, compress=compress)
        found.append(job.run(tasks))
        sizes.append(sum(piece.length for made in job.mapped for piece in made.slices))
    assert found[0] == found[1]
    assert sizes[1] < sizes[0] / 10


@pytest.mark.parametrize("memory_mb", [ENOUGH_MB, NOTHING_MB])
@pytest.mark.parametrize("compress", [False, True])
def test_a_damaged_shuffle_object_is_noticed(memory_mb: int, compress: bool) -> None:
    """Whichever byte a merge or a grouping reads, it is never believed when damaged."""
    tasks = [[(n, "value") for n in range(9)], [(n, "other") for n in range(9)]]
    job = Shuffled(lambda _, values: list(values), 1, memory_mb, compress=compress)
    job.map(tasks)
    key = job.shuffle_key(1)
    data = job.store.get(key)
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 1
        job.store.put(key, bytes(damaged))
        with pytest.raises(CorruptObject, match=key):
            job.reduce()
    for cut in (0, 10, len(data) - 1):
        job.store.put(key, data[:cut])
        with pytest.raises(CorruptObject, match=key):
            job.reduce()
    job.store.delete([key])
    with pytest.raises(CorruptObject, match="is gone"):
        job.reduce()


def test_phases_add_up() -> None:
    """Every phase has its seconds, none more than the task took."""
    job = Shuffled(lambda _, values: len(list(values)), 1, NOTHING_MB)
    job.run([[(n, n) for n in range(300)]])
    mapped, reduced = job.mapped[0].phases, job.reduced[0].phases
    assert min(mapped.map, mapped.combine, mapped.sort, mapped.write) > 0
    assert min(reduced.fetch, reduced.merge, reduced.reduce, reduced.write) > 0
    assert mapped.reduce == mapped.fetch == reduced.read == reduced.combine == 0
