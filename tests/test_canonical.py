"""The laws of keys: what is one key, in which order keys stand, where they go."""

import dataclasses
import enum
import itertools
import math
import os
import pickle
import random
import subprocess
import sys
from collections import Counter, namedtuple
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import total_ordering
from typing import Any
from uuid import UUID

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdamr_runtime.canonical import canonical, key_hash, natural_shape, partition_of
from lambdamr_runtime.errors import BadKey, UnstableKey

UTC = timezone.utc  # noqa: UP017 - the table of golden keys reads better in 3.11's short form
P = 2**61 - 1
"""The modulus of Python's numeric hash."""

Point = namedtuple("Point", "x y")


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    HI = "hi"


class OldWord(str, enum.Enum):  # noqa: UP042 - the kind before StrEnum is under test
    HI = "hi"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass(frozen=True)
class Place:
    name: str
    number: float
    note: str = dataclasses.field(default="", compare=False)


class Folded(str):
    """Text that equals other text by a rule of its own."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.lower() == other.lower()

    def __hash__(self) -> int:
        return hash(self.lower())


class Autumn(tzinfo):
    """A zone whose clocks go back from 3:00 to 2:00, every day."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        late = when is not None and (when.hour > 2 or (when.hour == 2 and when.fold == 1))
        return timedelta(hours=1 if late else 2)

    def dst(self, when: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, when: datetime | None) -> str:
        return "AUTUMN"


AUTUMN = Autumn()

GoldenEnum = enum.Enum("GoldenEnum", "RED BLUE", module="golden")
GoldenFlag = enum.Flag("GoldenFlag", "READ WRITE", module="golden")
GoldenRecord = dataclasses.make_dataclass(
    "GoldenRecord", ["name", "number"], frozen=True, namespace={"__module__": "golden"}
)
"""Classes whose module does not depend on how the tests are imported."""

GOLDEN: list[tuple[Any, int]] = [
    (0, 0),
    (1, 664533),
    (-1, 571389),
    (7, 382531),
    (1000, 31556),
    (2**61 - 1, 0),
    (-(2**63), 142778),
    (10**40, 913089),
    (0.1, 64247),
    (-2.5, 827756),
    (1e300, 633538),
    (math.inf, 658031),
    (-math.inf, 910590),
    (math.nan, 235617),
    (Decimal("0.1"), 4465),
    (Fraction(1, 3), 217531),
    (1j, 150823),
    ("", 0),
    ("a", 909053),
    ("the", 235434),
    ("key-1", 58299),
    ("\u00e9", 54756),
    ("\U0001f600", 20716),
    ("\udc80", 395276),
    ("x" * 100, 367406),
    (b"", 0),
    (b"a", 909053),
    (b"\x00\xff", 425231),
    (None, 605721),
    (date(2026, 1, 31), 409904),
    (datetime(2026, 1, 31, 12, 30, 1, 5), 537216),
    (datetime(2026, 1, 31, 12, 30, tzinfo=UTC), 932741),
    (timedelta(days=-1, seconds=1), 118023),
    (UUID(int=2**100), 239523),
    ((), 949899),
    ((1,), 723145),
    (("a", 1), 190),
    (("a", (1, None)), 630438),
    (frozenset(), 363535),
    (frozenset({"a", 2, None}), 196023),
    (GoldenEnum.RED, 897642),
    (GoldenFlag.READ, 236334),
    (GoldenRecord("a", 1), 90968),
]
"""(key, its partition of 1,000,000). Never to change: a job may span two releases."""

numbers = st.one_of(
    st.integers(),
    st.booleans(),
    st.floats(),
    st.fractions(),
    st.decimals(allow_nan=False),
    st.sampled_from([Decimal("NaN"), 2**53, float(2**53), 2**53 + 1, 10**400, Decimal("1E400")]),
    st.floats(width=64).map(np.float64),
    st.floats(width=32).map(np.float32),
    st.booleans().map(np.bool_),
    st.complex_numbers(),
    st.sampled_from(list(Level)),
)
small_numbers = st.builds(
    lambda value, kind: kind(value),
    st.sampled_from([-1, 0, 1, 2]),
    st.sampled_from([int, float, Decimal, Fraction, complex, np.float16, np.float64, np.complex64]),
)
numpy_integers = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(np.int64),
    st.integers(0, 2).map(np.uint8),
)
"""Apart, since `Decimal(1) == np.uint8(1)` is a TypeError, in sets and dicts as well."""
texts = st.text(st.characters(exclude_categories=()))
offsets = st.sampled_from([UTC, timezone(timedelta(hours=5)), AUTUMN])
leaves = st.one_of(
    numbers,
    small_numbers,
    texts,
    texts.map(lambda text: np.str_(text.rstrip("\0"))),  # numpy loses NULs at the end
    st.binary(max_size=3),
    st.integers(0, 2).map(("hi", Word.HI, OldWord.HI).__getitem__),
    st.none(),
    st.dates(),
    st.datetimes(),
    st.datetimes(datetime(2026, 1, 1), datetime(2026, 1, 2), timezones=offsets),
    st.timedeltas(),
    st.uuids(),
    st.sampled_from([*Color, *Right, Right.READ | Right.WRITE, Right(0)]),
    st.builds(Place, st.sampled_from("ab"), small_numbers, st.text(max_size=1)),
)
nested_keys = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple),
        st.builds(Point, inner, inner),
        st.frozensets(inner, max_size=3),
    ),
    max_leaves=4,
)
keys = st.one_of(nested_keys, numpy_integers, st.tuples(numpy_integers, leaves))
few_keys = st.one_of(small_numbers, st.tuples(small_numbers), st.frozensets(small_numbers))
"""Keys of many types that are often equal."""


def is_one_key(a: object, b: object) -> bool:
    """Whether a dict holds both to be one key."""
    return hash(a) == hash(b) and bool(a == b)


def exact_value(number: Any) -> Fraction | None:
    """The value of a finite real number."""
    plain = number.item() if isinstance(number, np.generic) else number
    try:
        return None if isinstance(plain, complex) else Fraction(plain)
    except (ValueError, OverflowError):  # NaN, infinity
        return None


@given(st.one_of(st.tuples(keys, keys), st.tuples(few_keys, few_keys)))
@settings(max_examples=400, deadline=None)
def test_equal_keys_meet(pair: tuple[object, object]) -> None:
    """Keys that are one key of a dict have one form and one partition, whatever their types."""
    a, b = pair
    try:
        one = is_one_key(a, b)
    except TypeError:  # numpy's integers and Decimal
        one = False
    if one:
        assert canonical(a) == canonical(b)
        assert partition_of(a, 1000) == partition_of(b, 1000)


@given(st.one_of(st.tuples(small_numbers, small_numbers), st.tuples(few_keys, few_keys)))
@settings(max_examples=300, deadline=None)
def test_other_keys_differ(pair: tuple[object, object]) -> None:
    """Forms are equal only for keys that are one key."""
    a, b = pair
    assert (canonical(a) == canonical(b)) == is_one_key(a, b)


@given(st.lists(keys, min_size=3, max_size=3))
@settings(max_examples=300, deadline=None)
def test_order_is_total(three: list[object]) -> None:
    """Any two keys of any types compare, one way or the other, and the order is transitive."""
    a, b, c = sorted(map(canonical, three))
    assert a <= b <= c
    assert a <= c
    for x, y in itertools.combinations((a, b, c), 2):
        assert (x < y) + (x == y) + (x > y) == 1


@given(keys)
@settings(max_examples=300, deadline=None)
def test_a_copy_is_the_same_key(key: object) -> None:
    """A key that has travelled by pickle has the form and the partition of the original."""
    copy = cloudpickle.loads(cloudpickle.dumps(key))
    assert canonical(copy) == canonical(key)
    assert partition_of(copy, 997) == partition_of(key, 997)


@given(keys, st.integers(1, 10**6))
@settings(max_examples=200, deadline=None)
def test_partitions_are_in_range(key: object, partitions: int) -> None:
    """A partition is one of those there are, and one partition takes everything."""
    assert 0 <= partition_of(key, partitions) < partitions
    assert partition_of(key, 1) == 0


@given(st.tuples(numbers, numbers))
@settings(max_examples=400, deadline=None)
def test_numbers_are_ordered_by_exact_value(pair: tuple[Any, Any]) -> None:
    """Real numbers stand in the order of their exact values, huge and infinite ones included."""
    a, b = map(exact_value, pair)
    if a is not None and b is not None:
        assert (canonical(pair[0]) < canonical(pair[1])) == (a < b)


def test_numbers_of_all_kinds_are_one() -> None:
    """One is one, whatever type holds it; minus zero is zero."""
    ones = [1, True, 1.0, Decimal("1.00"), Fraction(1), 1 + 0j, Level.LOW, np.int8(1), np.uint64(1)]
    ones += [np.float16(1), np.longdouble(1), np.bool_(True), np.complex64(1), np.clongdouble(1)]
    assert {canonical(one) for one in ones} == {canonical(1)}
    assert len({partition_of(one, 10**6) for one in ones}) == 1
    assert canonical(-0.0) == canonical(0) == canonical(Decimal("-0"))


def test_huge_numbers_are_compared_exactly() -> None:
    """A float is not rounded into an int beside it; exponents beyond floats keep their place."""
    rising: list[object] = [-math.inf, Decimal("-1E999999"), -(10**400), 2**53, 2**53 + 1]
    rising += [2.0**53 + 2, 1e308, 10**400, Decimal("1E999999"), math.inf, 1j, math.nan]
    forms = [canonical(number) for number in rising]
    assert forms == sorted(forms)
    assert len(set(forms)) == len(forms)
    assert canonical(Decimal("1E400")) == canonical(10**400)
    assert canonical(Decimal("Infinity")) == canonical(np.float32("inf")) == canonical(math.inf)
    assert canonical(Fraction(1, 3)) > canonical(Decimal("1E-999999"))


def test_long_doubles_keep_their_value() -> None:
    """A long double that no float holds is a key of its own, between its neighbours."""
    third = np.longdouble(1) / 3
    exact = Fraction(*third.as_integer_ratio())
    assert canonical(third) == canonical(exact)
    assert partition_of(third, 10**6) == partition_of(exact, 10**6)


def test_narrow_floats_go_by_exact_value() -> None:
    """np.float32(0.1) is not 0.1, though numpy says that it equals it: their hashes differ."""
    assert canonical(np.float32(0.1)) == canonical(float(np.float32(0.1)))
    assert canonical(np.float32(0.1)) != canonical(0.1)


def test_every_nan_is_one_key_after_all_numbers() -> None:
    """NaNs of all types are one key, which stands behind infinity and before text."""
    nans = [
        math.nan,
        -math.nan,
        float("nan"),
        Decimal("NaN"),
        np.float32("nan"),
        complex(0, math.nan),
    ]
    nans += [np.float64("nan"), np.longdouble("nan"), np.complex128(complex(math.nan, 1))]
    assert {canonical(nan) for nan in nans} == {canonical(math.nan)}
    assert len({partition_of(nan, 10**6) for nan in nans}) == 1
    assert canonical(math.inf) < canonical(1j) < canonical(math.nan) < canonical("")


@given(texts, texts)
def test_text_is_ordered_as_utf8(a: str, b: str) -> None:
    """The order of text is that of its UTF-8 with surrogatepass, lone surrogates included."""
    bytes_a, bytes_b = (text.encode("utf-8", "surrogatepass") for text in (a, b))
    assert (canonical(a) < canonical(b)) == (bytes_a < bytes_b)


def test_numpy_text_is_text() -> None:
    """Text and bytes of numpy are Python's; those that would travel changed are refused."""
    for plain in ("", "a", "a\0b", "\udc80"):
        assert canonical(np.str_(plain)) == canonical(plain)
        assert partition_of(np.str_(plain), 10**6) == partition_of(plain, 10**6)
    for data in (b"", b"a", b"a\0b"):
        assert canonical(np.bytes_(data)) == canonical(data)
        assert partition_of(np.bytes_(data), 10**6) == partition_of(data, 10**6)
    for lossy in (np.str_("a\0"), np.bytes_(b"a\0")):
        assert pickle.loads(pickle.dumps(lossy)) != lossy
        with pytest.raises(UnstableKey, match=r"numpy drops NULs .*Use str\(key\)"):
            canonical(lossy)


def test_enums() -> None:
    """Enums with a value type equal their values; plain enums go by class and name."""
    assert canonical(Word.HI) == canonical(OldWord.HI) == canonical("hi")
    assert (
        partition_of(Word.HI, 10**6) == partition_of(OldWord.HI, 10**6) == partition_of("hi", 10**6)
    )
    assert canonical(Color.RED) != canonical(Color.BLUE)
    assert canonical(Color.RED) != canonical(1)
    rights = [Right(0), Right.READ, Right.WRITE, Right.READ | Right.WRITE]
    assert len({canonical(right) for right in rights}) == 4


def test_tuples_and_sets() -> None:
    """A namedtuple is its tuple; a frozenset has no order; neither is the other."""
    assert canonical(Point(1, "a")) == canonical((1.0, "a"))
    assert canonical(frozenset("abc")) == canonical(frozenset("cba"))
    assert canonical(frozenset((1, "a", None))) == canonical(frozenset((None, True, "a")))
    assert canonical((1, 2)) != canonical(frozenset((1, 2)))
    assert canonical(()) < canonical((1,)) < canonical((1, 1)) < canonical((2,))


def test_dates_and_times() -> None:
    """A date is no datetime; naive is never aware; aware times are equal by instant."""
    noon = datetime(2026, 1, 1, 12)
    there = datetime(2026, 1, 1, 17, tzinfo=timezone(timedelta(hours=5)))
    assert canonical(there) == canonical(noon.replace(tzinfo=UTC))
    assert len({canonical(key) for key in (noon, noon.date(), there)}) == 3
    assert canonical(noon) == canonical(noon.replace(fold=1))
    assert canonical(datetime.min) < canonical(datetime.max)
    extreme = datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))
    assert canonical(extreme) < canonical(datetime.min.replace(tzinfo=UTC))


def test_times_that_happen_twice() -> None:
    """Python ignores the fold within a zone and equates such a time with none of another zone."""
    twice = datetime(2026, 1, 1, 2, 30, tzinfo=AUTUMN)
    assert is_one_key(twice, twice.replace(fold=1))
    assert canonical(twice) == canonical(twice.replace(fold=1))
    in_utc = datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
    assert twice != in_utc
    assert canonical(twice) != canonical(in_utc)


def test_frozen_dataclasses_go_by_class_and_compared_fields() -> None:
    """Fields that the class does not compare do not count; another class is another key."""
    other = dataclasses.make_dataclass("Other", [("name", str), ("number", float)], frozen=True)
    assert canonical(Place("a", 1, "x")) == canonical(Place("a", 1.0, "y"))
    assert canonical(Place("a", 1)) != canonical(Place("a", 2))
    assert canonical(Place("a", 1)) != canonical(other("a", 1))
    assert canonical(Place("a", 1)) != canonical(("a", 1))


def test_dataclasses_of_notebooks() -> None:
    """A dataclass that travelled by value is still known as one."""

    @dataclasses.dataclass(frozen=True, slots=True)
    class Local:
        x: int

    cls = cloudpickle.loads(cloudpickle.dumps(Local))
    assert canonical(cls(1)) == canonical(Local(1))


def test_subclasses_count_the_fields_that_their_equality_counts() -> None:
    """A subclass that inherits `__eq__` is compared by the fields of the class that made it."""

    @dataclasses.dataclass(frozen=True, eq=False)
    class Wider(Place):
        more: int = 0

    assert is_one_key(Wider("a", 1, more=1), Wider("a", 1, more=2))
    assert canonical(Wider("a", 1, more=1)) == canonical(Wider("a", 1, more=2))
    assert canonical(Wider("a", 1)) != canonical(Place("a", 1))


@total_ordering
@dataclasses.dataclass(frozen=True)
class Loose:
    """A frozen dataclass that writes its own equality."""

    x: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loose)

    def __lt__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0


@dataclasses.dataclass(unsafe_hash=True)
class Mutable:
    x: int


@pytest.mark.parametrize(
    "key",
    [
        object(),
        len,
        int,
        ...,
        range(3),
        time(12),
        memoryview(b"a"),
        np.datetime64("2026-01-01"),
        np.timedelta64(1, "s"),
        Folded("a"),
        Loose(1),
        Mutable(1),
        (1, object()),
        frozenset([len]),
    ],
)
def test_keys_without_a_form_are_refused(key: object) -> None:
    """A type whose equality nobody can know is refused by name, with what to do."""
    for refuse in (canonical, key_hash):
        with pytest.raises(UnstableKey, match=r"of type .*partitioner=.*sort_key="):
            refuse(key)
    with pytest.raises(UnstableKey):
        partition_of(key, 10)


@pytest.mark.parametrize("key", [[1], {}, {1}, bytearray(b"a"), (1, [2]), Decimal("sNaN")])
def test_unhashable_keys_are_refused(key: object) -> None:
    """What no dict takes is no key, be it only a part of one; the message names the part."""
    if key == (1, [2]):
        with pytest.raises(BadKey, match=r"\[2\] of type builtins.list .*tuple for a list"):
            canonical(key)
    with pytest.raises(BadKey):
        canonical(key)
    with pytest.raises(BadKey):
        partition_of(key, 10)


@pytest.mark.parametrize(("key", "partition"), GOLDEN, ids=map(str, range(len(GOLDEN))))
def test_golden_partitions(key: object, partition: int) -> None:
    """Partitions are the same in every release."""
    assert partition_of(key, 10**6) == partition


def test_partitions_do_not_depend_on_the_process() -> None:
    """Processes with different hash seeds agree on every partition."""
    program = (
        "from lambdamr_runtime.canonical import partition_of, canonical\n"
        "import uuid, datetime, decimal, enum, dataclasses, math\n"
        "E = enum.Enum('E', 'A B')\n"
        "D = dataclasses.make_dataclass('D', ['x'], frozen=True)\n"
        "keys = ['a', b'b', 3, 4.5, None, math.nan, ('a', 1), frozenset('abcdef'), E.A, D('x'),\n"
        "        uuid.UUID(int=7), datetime.date(2026, 1, 1), decimal.Decimal('0.1'), 'é\\udc80',\n"
        "        frozenset((None, 1, 'a', (E.B, D('y'))))]\n"
        "print([partition_of(key, 10**6) for key in keys], list(map(canonical, keys)))\n"
    )
    answers = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "4294967295")
    ]
    assert answers[0]
    assert len(set(answers)) == 1


SERIES: dict[str, list[object]] = {
    "consecutive": list(range(50_000)),
    "multiples of 1000": [1000 * i for i in range(50_000)],
    "multiples of 2**40": [i << 40 for i in range(50_000)],
    "tenths": [i / 10 for i in range(50_000)],
    "negative": [-i for i in range(50_000)],
    "numbered": [f"key-{i}" for i in range(50_000)],
    "padded": [f"{i:08d}" for i in range(50_000)],
    "bytes": [i.to_bytes(4, "big") for i in range(50_000)],
    "pairs": [(i, str(j)) for i in range(200) for j in range(250)],
}


@pytest.mark.parametrize("name", SERIES)
def test_partitions_are_even(name: str) -> None:
    """Regular keys spread over 1,000 partitions as evenly as random ones would."""
    counts = Counter(partition_of(key, 1000) for key in SERIES[name])
    expected = 50_000 / 1000
    chi_squared = sum((counts[i] - expected) ** 2 / expected for i in range(1000))
    assert chi_squared < 999 + 6 * math.sqrt(2 * 999)
    assert max(counts.values()) < 2 * expected


natural_columns: list[st.SearchStrategy[Any]] = [
    st.text(st.characters(exclude_categories=()), max_size=3),
    st.binary(max_size=3),
    st.one_of(st.integers(), st.floats(allow_nan=False)),
]


@given(st.sampled_from([*natural_columns, st.tuples(*natural_columns)]), st.data())
@settings(max_examples=200, deadline=None)
def test_natural_order_is_canonical_order(column: st.SearchStrategy[Any], data: Any) -> None:
    """Where keys have a natural shape, sorting them as they are is sorting by form."""
    some = data.draw(st.lists(column, min_size=1, max_size=8))
    assert natural_shape(some)
    assert list(map(canonical, sorted(some))) == sorted(map(canonical, some))


@given(st.lists(keys, max_size=4))
@settings(max_examples=200, deadline=None)
def test_a_shape_is_only_given_where_it_holds(some: list[Any]) -> None:
    """Whatever the keys: if they have a shape, both orders are one."""
    if natural_shape(some):
        assert list(map(canonical, sorted(some))) == sorted(map(canonical, some))


def test_natural_shapes() -> None:
    """Exact types only, tuples of one length only, no NaN; nothing for no keys."""
    assert natural_shape(["a", "\udc80"]) == "s"
    assert natural_shape([b"a"]) == "b"
    assert natural_shape([1, 2.5, -0.0, math.inf]) == "n"
    assert natural_shape([("a", 1), ("b", 2.0)]) == "(sn)"
    assert natural_shape({((), (b"a",))}) == "(()(b))"
    without: list[list[object]] = [[], [None], [1, "a"], [math.nan], [True], [Word.HI], [1j]]
    without += [[(1,), (1, 2)], [(1,), ("a",)], [(math.nan,)], [Point(1, 2)], [(1, None)]]
    for some in without:
        assert natural_shape(some) == ""


def test_sorting_mixed_keys_is_stable_under_shuffling() -> None:
    """However mixed keys arrive, they leave in one order: frozensets and NaN too."""
    mixed: list[object] = [None, 1, 2.5, math.nan, "a", b"a", (1,), (math.nan,), Color.RED, 1j]
    mixed += [frozenset("ab"), frozenset("bc"), frozenset(), date(2026, 1, 1), UUID(int=1)]
    mixed += [datetime(2026, 1, 1), timedelta(1), Place("a", 1), ("a", None), (None, "a")]
    expected = list(map(canonical, sorted(mixed, key=canonical)))
    for seed in range(20):
        random.Random(seed).shuffle(mixed)
        assert list(map(canonical, sorted(mixed, key=canonical))) == expected
