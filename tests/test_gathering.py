"""Keys that are counted again and again, moved together in memory."""

import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdamr import reducers
from lambdamr_runtime.gathering import (
    GROWTH,
    LEAST_KEYS,
    MOST_KEYS,
    MOST_LENGTH,
    PAIRS_PER_KEY,
    Gatherer,
    gather,
)
from lambdamr_runtime.runs import Keying
from tests.shuffled import Shuffled


class Text(str):
    """May be told from a str, unlike a copy."""

    __slots__ = ()


def words(count: int) -> dict[Any, Any]:
    return {f"word {number}": 1 for number in range(count)}


# --- what is moved --------------------------------------------------------------------------------
@pytest.mark.parametrize("of_bytes", [False, True])
@given(st.dictionaries(st.text(st.characters(exclude_categories=[])), st.integers()))
def test_counted_text_is_moved(of_bytes: bool, counts: dict[str, int]) -> None:
    """Nothing is lost, the most frequent keys are first, those that are as frequent in order."""
    states: dict[Any, int] = dict(counts)
    if of_bytes:
        states = {key.encode("utf-8", "surrogatepass"): value for key, value in counts.items()}
    expected = sorted(states.items(), key=lambda item: -item[1])
    gather(states)
    assert list(states.items()) == expected


def test_what_is_moved_are_copies_in_the_same_dictionary() -> None:
    """Those who hold the dictionary, or its methods, go on with it."""
    states = {sys.intern(word): count for word, count in words(10).items()}
    known_of, keys = states.get, list(states)
    gather(states)
    assert list(states) == keys
    assert not any(moved is key for moved, key in zip(states, keys, strict=True))
    assert known_of("word 3") == 1


@pytest.mark.parametrize(
    "states",
    [
        {},
        {"a long word": 1, "other": 2.0},
        {"a long word": 1, "other": True},
        {"a long word": 1, b"bytes": 2},
        {"a long word": 1, 5: 2},
        {Text("a long word"): 1, Text("other"): 2},
        {"a long word": [1], "other": [1, 2]},
        {"a long word": 1, "x" * MOST_LENGTH: 2},
    ],
)
def test_all_else_is_left_alone(states: dict[Any, Any]) -> None:
    """Other keys may be told from their copies, other values are no counts, and long keys would
    take as much memory again.
    """
    before = list(states)
    gather(states)
    assert len(states) == len(before)
    assert all(key is old for key, old in zip(states, before, strict=True))


# --- and when -------------------------------------------------------------------------------------
class Watched(dict[Any, Any]):
    """Counts how often its keys were moved."""

    moved = 0

    def clear(self) -> None:
        self.moved += 1
        super().clear()


@pytest.mark.parametrize("keys", [LEAST_KEYS, MOST_KEYS])
def test_keys_are_moved_once_enough_pairs_came(keys: int) -> None:
    """And again only behind many more keys, or in another dictionary."""
    states = Watched(words(keys))
    gatherer = Gatherer(states)
    gatherer.look(PAIRS_PER_KEY * keys - 1)
    assert states.moved == 0
    gatherer.look(PAIRS_PER_KEY * keys)
    gatherer.look(PAIRS_PER_KEY * keys + 1)
    assert states.moved == 1
    states.update(words(GROWTH * LEAST_KEYS))
    gatherer.look(PAIRS_PER_KEY * MOST_KEYS)
    assert states.moved == 1
    states.update(words(GROWTH * LEAST_KEYS + 1))
    gatherer.look(PAIRS_PER_KEY * MOST_KEYS)
    assert states.moved == (2 if keys == LEAST_KEYS else 1)
    gatherer.empty()
    gatherer.look(PAIRS_PER_KEY * MOST_KEYS)
    assert states.moved == (3 if keys == LEAST_KEYS else 2)


@pytest.mark.parametrize("keys", [0, LEAST_KEYS - 1, MOST_KEYS + 1])
def test_few_keys_and_very_many_stay_where_they_are(keys: int) -> None:
    """It would gain nothing."""
    states = Watched(words(keys))
    Gatherer(states).look(PAIRS_PER_KEY * keys)
    assert states.moved == 0


def counted(numbers: range) -> Any:
    return Counter([f"word {n % 1500}" for n in numbers])


def yielded(numbers: range) -> Any:
    for n in numbers:
        yield f"word {n % 1500}", 1


@pytest.mark.parametrize("mapper", [counted, yielded])
@pytest.mark.parametrize("inlines", [False, True])
def test_a_job_counts_as_before(mapper: Any, inlines: bool) -> None:
    """Behind the moving, and in what comes then."""
    records = [range(first, first + 40_000) for first in range(0, 400_000, 40_000)]
    job = Shuffled(reducers.sum, 2, inlines=inlines)
    expected = Counter(f"word {n % 1500}" for n in range(400_000))
    assert dict(job.run([records, records], mapper)) == {key: 2 * n for key, n in expected.items()}


def test_of_keys_that_are_made_equal_the_first_stands_for_all() -> None:
    """However often the others come."""

    def keys(n: int) -> Any:
        for number in range(1500):
            yield f"{'Word' if n == 0 else 'word'} {number}", 1

    job = Shuffled(reducers.sum, inlines=True, keying=Keying(sort_key=str.lower))
    found = job.run([range(200)], keys)
    assert len(found) == 1500
    assert all(key.startswith("Word") and count == 200 for key, count in found)
