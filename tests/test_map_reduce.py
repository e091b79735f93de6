"""map_reduce end to end: real worker processes over a directory, against dictionaries."""

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import math
import os
import pickle
import re
import signal
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lambdamr
from lambdamr_runtime.canonical import canonical

TIMEOUT_S = 60.0
"""A job that takes longer hangs."""


def listed(key: Any, values: Iterator[Any]) -> list[Any]:
    return list(values)


def total(key: Any, values: Iterator[int]) -> int:
    return sum(values)


def words(line: str) -> list[tuple[str, int]]:
    return [(word, 1) for word in line.split()]


def line_itself(line: str) -> list[tuple[str, int]]:
    return [(line, 1)]


def pair_itself(pair: tuple[Any, Any]) -> list[tuple[Any, Any]]:
    return [pair]


@pytest.fixture(scope="module")
def one_lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lambdamr.Executor]:
    """One worker: the tasks of a stage run one after the other, in order."""
    root = str(tmp_path_factory.mktemp("one-lane"))
    with lambdamr.Executor(workers=1, root=root) as executor:
        yield executor


# --- against a dictionary -------------------------------------------------------------------------

KEYS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-9, max_value=9),
    st.fractions(max_denominator=4),
    st.text(max_size=3),
    st.sampled_from(["naïve", "日本", "\ud800", "a,b", "", "\0"]),
    st.binary(max_size=2),
    st.dates(),
    st.timedeltas(),
    st.uuids(),
    st.tuples(st.integers(0, 2), st.text(max_size=1)),
    st.frozensets(st.integers(0, 3), max_size=2),
)
MAPPERS: dict[str, Any] = {
    "list": lambda pairs: [tuple(pair) for pair in pairs],
    "generator": lambda pairs: (pair for pair in pairs),
    "dict": lambda pairs: dict(pairs),
    "lists": lambda pairs: [list(pair) for pair in pairs],
    "chain": (
        lambda pairs: [(n, pair) for n, pair in enumerate(pairs)],
        lambda numbered: {numbered[1][0]: numbered[1][1]},
    ),
}


def grouped(records: Iterable[Any], mapper: Any) -> dict[Any, list[Any]]:
    """What map_reduce means: a dictionary of lists."""
    mappers = mapper if isinstance(mapper, tuple) else (mapper,)
    stream: Iterable[Any] = records
    for each in mappers:
        made = map(each, stream)
        stream = [
            pair
            for pairs in made
            for pair in (pairs.items() if isinstance(pairs, dict) else map(tuple, pairs))
        ]
    groups: dict[Any, list[Any]] = {}
    for key, value in stream:
        groups.setdefault(key, []).append(value)
    return groups


@settings(max_examples=25, deadline=None)
@given(
    records=st.lists(st.lists(st.tuples(KEYS, st.integers(0, 9)), max_size=6), max_size=20),
    form=st.sampled_from(sorted(MAPPERS)),
    reducers=st.integers(1, 9),
)
def test_equals_a_dictionary(
    executor: lambdamr.Executor, records: list[Any], form: str, reducers: int
) -> None:
    """Whatever the keys, partitions and form of the mapper: the groups of a dictionary, values in
    the order of the records, and the key that was seen first.
    """
    mapper = MAPPERS[form]
    job = executor.map_reduce(mapper, iter(records), listed, reducers=reducers)
    result = job.result(TIMEOUT_S)
    expected = grouped(records, mapper)
    assert result == expected
    assert sorted(map(repr, result)) == sorted(map(repr, expected))


def test_output_is_sorted_within_each_partition(executor: lambdamr.Executor) -> None:
    """items() goes partition by partition, by canonical key in each; every key is in one part."""
    keys = [*range(40, 0, -1), "b", "a", None, 2.5, (1, "x"), b"z", frozenset({1})]
    job = executor.map_reduce(lambda key: [(key, 1)], iter(keys), total, reducers=3)
    parts = [[key for key, _ in read_part(path)] for path in outputs(job)]
    assert [len(parts), sum(map(len, parts))] == [3, len(keys)]
    assert all(part == sorted(part, key=canonical) and part for part in parts)
    assert [key for key, _ in job.items()] == [key for part in parts for key in part]


def test_one_partition_is_sorted_as_a_whole(executor: lambdamr.Executor) -> None:
    """With reducers=1 the whole output is in the order of the keys."""
    job = executor.map_reduce(lambda n: [(n * 7919 % 101, n)], range(101), total, reducers=1)
    assert [key for key, _ in job.items(TIMEOUT_S)] == list(range(101))


def test_more_partitions_than_keys(executor: lambdamr.Executor) -> None:
    """Partitions without a key make empty parts, and nothing else."""
    job = executor.map_reduce(lambda n: [(n % 2, n)], range(10), total, reducers=40)
    assert job.result(TIMEOUT_S) == {0: 20, 1: 25}
    assert len(job.outputs) == 40
    assert job.report().stages["reduce"].tasks == 40


def test_keys_are_spread_evenly(executor: lambdamr.Executor) -> None:
    """MARLA's ranges of first characters put most keys into few reducers; a hash does not, not
    even for keys that all begin alike or are multiples of the number of partitions.
    """
    keys = [f"user-{n}" for n in range(1_000)] + [n * 10 for n in range(1_000)]
    job = executor.map_reduce(lambda key: [(key, 1)], iter(keys), total, reducers=10)
    counts = [task.keys for task in job.reduce_futures.result(TIMEOUT_S)]
    assert sum(counts) == 2_000
    assert 150 < min(counts) <= max(counts) < 250


def test_no_pairs_at_all(executor: lambdamr.Executor) -> None:
    """A mapper that finds nothing makes an empty result, not an error."""
    job = executor.map_reduce(lambda n: [], range(10), total)
    assert job.result(TIMEOUT_S) == {}
    assert job.report().stages["map"].records == 10


@pytest.mark.parametrize("nothing", [[], (), iter(()), {}, range(0)], ids=type)
def test_no_items(executor: lambdamr.Executor, nothing: Iterable[Any]) -> None:
    """Empty inputs give an empty result: no task runs, and the job is done."""
    job = executor.map_reduce(pair_itself, nothing, total)
    assert job.result(TIMEOUT_S) == {}
    assert (job.report().status, job.outputs, job.done()) == ("done", [], True)


def test_keys_equal_in_python_are_one_key(executor: lambdamr.Executor) -> None:
    """1, 1.0, True and their like meet, and the reducer gets the one that was seen first."""
    keys = [True, 1, 1.0, decimal.Decimal(1), fractions.Fraction(1), -0.0, 0, 2]
    job = executor.map_reduce(
        lambda key: [(key, repr(key))], iter(keys), lambda k, v: (repr(k), list(v)), reducers=4
    )
    assert job.result(TIMEOUT_S) == {
        1: ("True", ["True", "1", "1.0", "Decimal('1')", "Fraction(1, 1)"]),
        0: ("-0.0", ["-0.0", "0"]),
        2: ("2", ["2"]),
    }


def test_nan_is_one_key(executor: lambdamr.Executor) -> None:
    """Every NaN is one key, in one task and over tasks, and its values keep their order."""

    def mapper(n: int) -> list[tuple[float, int]]:
        other = float("nan")
        return [(math.nan, 3 * n), (other, 3 * n + 1), (math.nan, 3 * n + 2)]

    result = executor.map_reduce(mapper, range(20), listed, reducers=3).result(TIMEOUT_S)
    assert list(result.values()) == [list(range(60))]
    assert all(math.isnan(key) for key in result)


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass(frozen=True)
class Place:
    country: str
    number: int


def test_keys_of_many_types(executor: lambdamr.Executor) -> None:
    """Enums, dataclasses, dates, instants and UUIDs are keys, and come back as themselves."""
    moment = datetime.datetime(2026, 7, 1, 12, tzinfo=datetime.UTC)
    same = moment.astimezone(datetime.timezone(datetime.timedelta(hours=2)))
    keys: list[Any] = [
        Colour.RED,
        Place("de", 1),
        datetime.date(2026, 7, 1),
        moment,
        datetime.datetime(2026, 7, 1, 12),
        uuid.UUID(int=7),
        frozenset({"a", 1}),
    ]
    job = executor.map_reduce(lambda key: [(key, 1)], [*keys, *keys, same], total, reducers=5)
    assert job.result(TIMEOUT_S) == {key: 3 if key == moment else 2 for key in keys}


def test_values_are_a_one_pass_iterator(executor: lambdamr.Executor) -> None:
    """Values can be read once, as an iterator; a second reading finds nothing."""

    def reducer(key: int, values: Iterator[int]) -> tuple[bool, int, list[int]]:
        return iter(values) is values, next(values), [*values, *values]

    job = executor.map_reduce(lambda n: [(0, n)], range(6), reducer)
    assert job.result(TIMEOUT_S) == {0: (True, 0, [1, 2, 3, 4, 5])}


def test_a_reducer_need_not_read_its_values(executor: lambdamr.Executor) -> None:
    """What a reducer leaves unread is counted as read: receipts balance."""
    job = executor.map_reduce(lambda n: [(n % 3, n)], range(30), lambda k, values: next(values))
    assert job.result(TIMEOUT_S) == {0: 0, 1: 1, 2: 2}
    assert job.report().stages["reduce"].pairs_read == 30


def test_a_generator_reducer_yields_pairs(executor: lambdamr.Executor) -> None:
    """A generator reducer yields any number of pairs per key, of other keys too."""

    def reducer(key: int, values: Iterator[int]) -> Iterator[tuple[str, int]]:
        for value in values:
            if value % 2:
                yield f"{key}-{value}", value

    job = executor.map_reduce(lambda n: [(n % 2, n)], range(6), reducer)
    assert job.result(TIMEOUT_S) == {"1-1": 1, "1-3": 3, "1-5": 5}


def test_a_repeated_key_is_refused_by_result_only(executor: lambdamr.Executor) -> None:
    """A key that is yielded twice does not fit in a dict: DuplicateKey names items(), which has
    both.
    """

    def reducer(key: int, values: Iterator[int]) -> Iterator[tuple[str, int]]:
        yield from (("same", value) for value in values)

    job = executor.map_reduce(lambda n: [(0, n)], range(3), reducer)
    with pytest.raises(lambdamr.DuplicateKey, match=r"'same' twice.*job\.items\(\)"):
        job.result(TIMEOUT_S)
    assert list(job.items()) == [("same", 0), ("same", 1), ("same", 2)]


def test_none_is_a_key_and_a_value(executor: lambdamr.Executor) -> None:
    """None is not confused with nothing, as key, value or result."""
    job = executor.map_reduce(lambda n: [(None, None)], range(3), lambda k, v: [*v].pop())
    assert job.result(TIMEOUT_S) == {None: None}


def test_values_of_locally_defined_classes(executor: lambdamr.Executor) -> None:
    """Values and results may be instances of a class that only the client's function knows."""

    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    def reducer(key: int, values: Iterator[Point]) -> Point:
        return Point(sum(value.x for value in values))

    result = executor.map_reduce(lambda n: [(n % 2, Point(n))], range(10), reducer).result(60)
    assert all(isinstance(point, Point) for point in result.values())
    assert {key: point.x for key, point in result.items()} == {0: 20, 1: 25}


def test_futures_are_items(executor: lambdamr.Executor) -> None:
    """The results of earlier tasks are the items, and never pass through the client."""
    futures = executor.map(lambda n: [("sum", n)], range(10))
    assert executor.map_reduce(lambda pairs: pairs, futures, total).result(TIMEOUT_S) == {"sum": 45}


def test_many_values_of_one_key(executor: lambdamr.Executor) -> None:
    """A key with more values than a block of the shuffle holds keeps them all, in order."""
    job = executor.map_reduce(
        lambda n: [("hot", n * 10_000 + i) for i in range(10_000)], range(4), listed
    )
    assert job.result(TIMEOUT_S) == {"hot": list(range(40_000))}


# --- text -----------------------------------------------------------------------------------------


def counted(texts: Iterable[bytes]) -> dict[str, int]:
    """Count lines as lambdamr defines them: they end at a line feed and nowhere else."""
    counts: collections.Counter[str] = collections.Counter()
    for data in texts:
        *lines, rest = data.removeprefix("\ufeff".encode()).decode().split("\n")
        counts.update(line.removesuffix("\r") for line in lines)
        counts.update([rest] if rest else [])
    return dict(counts)


TEXTS = {
    "final newline": b"one\ntwo\none\n",
    "no final newline": b"one\ntwo\none",
    "crlf": b"one\r\ntwo\r\none\r\n\r\n",
    "blank lines": b"\n\none\n\n\n",
    "other separators": "a\u2028b\x0bc\x85d\x1ce\rf\ng\n".encode(),
    "not ascii": "Ærø\nστίγμα\n日本語\nÆrø\n🙂".encode(),
    "commas": b"Smith, John\nDoe, Jane,\nSmith, John\n,\n",
    "bom": "\ufeffone\ntwo\n\ufeffone\n".encode(),
    "one byte": b"x",
    "no newline": b"y" * 1000,
    "long lines": b"z" * 300_000 + b"\n" + b"w" * 70_000 + b"\n" + b"z" * 300_000,
}


@settings(max_examples=20, deadline=None)
@given(
    files=st.lists(st.text("ab\n\r ,é\u2028🙂", max_size=40), min_size=1, max_size=4),
    split_bytes=st.integers(1, 50),
    reducers=st.integers(1, 5),
)
def test_any_text_in_any_splits(
    executor: lambdamr.Executor,
    tmp_path_factory: pytest.TempPathFactory,
    files: list[str],
    split_bytes: int,
    reducers: int,
) -> None:
    """Whatever the texts and the splits, the lines are those of the texts and the bytes add up."""
    folder = tmp_path_factory.mktemp("texts")
    texts = [text.encode() for text in files]
    for n, data in enumerate(texts):
        (folder / str(n)).write_bytes(data)
    inputs = lambdamr.lines(folder, split_bytes=split_bytes)
    job = executor.map_reduce(line_itself, inputs, total, reducers=reducers)
    assert job.result(TIMEOUT_S) == counted(texts)
    assert job.report().stages["map"].bytes_read == sum(map(len, texts))


@pytest.mark.parametrize("name", TEXTS)
def test_every_line_once(executor: lambdamr.Executor, tmp_path: Path, name: str) -> None:
    """Lithops duplicates lines at split edges and loses the last byte, MARLA breaks multibyte text
    and drops names outside ASCII, Corral cuts 64 KB lines: here each line counts once, whatever
    the splits.
    """
    data = TEXTS[name]
    path = tmp_path / "text"
    path.write_bytes(data)
    split_bytes = max(1, len(data) // 40)
    inputs = lambdamr.lines(path, split_bytes=split_bytes)
    job = executor.map_reduce(line_itself, inputs, total, reducers=3)
    assert job.result(TIMEOUT_S) == counted([data])
    totals = job.report().stages["map"]
    assert totals.bytes_read == len(data)
    assert totals.records == sum(counted([data]).values())
    assert totals.tasks == -(-len(data) // split_bytes)


def test_many_splits_read_each_line_once(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """Lithops read 30,000 lines in 6 splits as 30,003; here each is read once, for 6 and for 7."""
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"{n:05d}\n" for n in range(30_000)))
    for splits in (6, 7):
        inputs = lambdamr.lines(path, split_bytes=-(-180_000 // splits))
        job = executor.map_reduce(lambda line: [(int(line) % 10, line)], inputs, listed)
        result = job.result(TIMEOUT_S)
        assert sorted(n for found in result.values() for n in found) == [
            f"{n:05d}" for n in range(30_000)
        ]
        assert all(found == sorted(found) for found in result.values())
        assert job.report().stages["map"].tasks == splits


def test_several_files_and_globs(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """A directory, a glob, a list and lines() of several URIs name the same files; empty files
    count for nothing.
    """
    texts = {"a.txt": b"x y\n", "b.txt": b"y z", "sub/c.txt": b"z\nz\n", "sub/empty.txt": b""}
    for name, data in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in texts]
    forms: list[Any] = [
        str(tmp_path),
        tmp_path,
        f"file://{tmp_path}",
        f"{tmp_path}/**/*.txt",
        paths,
        [Path(path) for path in paths],
        lambdamr.lines(*paths),
    ]
    for form in forms:
        result = executor.map_reduce(words, form, total).result(TIMEOUT_S)
        assert result == {"x": 1, "y": 2, "z": 3}, form


def test_values_arrive_in_the_order_of_the_files(
    executor: lambdamr.Executor, tmp_path: Path
) -> None:
    """Values are in (task, position) order: files as they are named, lines as they stand."""
    for name in "ba":
        (tmp_path / name).write_text("".join(f"{name}{n}\n" for n in range(30)))
    inputs = lambdamr.lines(tmp_path / "b", tmp_path / "a", split_bytes=10)
    result = executor.map_reduce(lambda line: [(0, line)], inputs, listed).result(TIMEOUT_S)
    assert result == {0: [f"{name}{n}" for name in "ba" for n in range(30)]}


def test_more_than_a_thousand_inputs(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """BigLambda lists one page: over 1,000 objects its jobs never end, or miss some."""
    for n in range(1_050):
        (tmp_path / f"{n:04d}").write_text(f"{n}\n")
    job = executor.map_reduce(lambda line: [("sum", int(line))], str(tmp_path), total)
    assert job.result(TIMEOUT_S) == {"sum": sum(range(1_050))}
    assert job.report().stages["map"].records == 1_050


def test_other_encodings(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """latin-1 is split at bytes, utf-16 is read whole; encoding=None gives bytes."""
    (tmp_path / "latin").write_bytes("é\nü\né\n".encode("latin-1"))
    (tmp_path / "wide").write_bytes("é\nü\né\n".encode("utf-16"))
    (tmp_path / "raw").write_bytes(b"\xff\n\xfe\n\xff")
    lines = lambdamr.lines
    latin = lines(tmp_path / "latin", encoding="latin-1", split_bytes=2)
    wide = lines(tmp_path / "wide", encoding="utf-16", split_bytes=2)
    raw = lines(tmp_path / "raw", encoding=None, split_bytes=2)

    def count(inputs: Any) -> dict[Any, int]:
        return executor.map_reduce(line_itself, inputs, total).result(TIMEOUT_S)

    assert count(latin) == {"é": 2, "ü": 1}
    assert count(wide) == {"é": 2, "ü": 1}
    assert count(raw) == {b"\xff": 2, b"\xfe": 1}


def test_undecodable_text_is_named(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """BigLambda prints and swallows a bad line; here the job fails and names file and offset."""
    path = tmp_path / "bad.txt"
    path.write_bytes(b"good\n" * 20 + b"b\xffd\n" + b"good\n" * 20)
    job = executor.map_reduce(line_itself, lambdamr.lines(path, split_bytes=50), total)
    with pytest.raises(lambdamr.CorruptInput, match=r"bad\.txt .*\\xff.* at offset 101 ") as caught:
        job.result(TIMEOUT_S)
    assert "errors='replace'" in str(caught.value)
    assert job.report().status == "failed"
    replaced = lambdamr.lines(path, errors="replace", split_bytes=50)
    result = executor.map_reduce(line_itself, replaced, total).result(TIMEOUT_S)
    assert result == {"good": 40, "b\ufffdd": 1}


@pytest.mark.parametrize("missing", ["none.txt", "*.nothing", "file:///nowhere/at/all"])
def test_missing_input_is_refused_before_launch(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """InputNotFound is raised by the call itself: nothing is stored or launched."""
    monkeypatch.chdir(tmp_path)
    executor = lambdamr.Executor(workers=1, root=root)
    with executor, pytest.raises(lambdamr.InputNotFound):
        executor.map_reduce(line_itself, missing, total)
    assert not Path(root, "jobs").exists()


@pytest.mark.parametrize("name", ["wrong reducers", "no mapper", "no reducer", "no iterable"])
def test_wrong_arguments_are_refused(executor: lambdamr.Executor, name: str) -> None:
    """Wrong arguments are ValueError and TypeError, at the call."""
    calls: dict[str, tuple[type[Exception], Callable[[], object]]] = {
        "wrong reducers": (
            ValueError,
            lambda: executor.map_reduce(line_itself, [1], total, reducers=0),
        ),
        "no mapper": (TypeError, lambda: executor.map_reduce(3, [1], total)),  # type: ignore[arg-type]
        "no reducer": (TypeError, lambda: executor.map_reduce(line_itself, [1], "sum")),  # type: ignore[arg-type]
        "no iterable": (TypeError, lambda: executor.map_reduce(line_itself, 3, total)),  # type: ignore[arg-type]
    }
    error, call = calls[name]
    with pytest.raises(error):
        call()


# --- failures ---------------------------------------------------------------------------------


def returns_nothing(n: int) -> None: ...


def returns_text(n: int) -> str:
    return "ab"


def returns_a_pair(n: int) -> tuple[str, int]:
    return ("word", 1)


def yields_a_triple(n: int) -> Iterator[tuple[int, int, int]]:
    yield (1, 2, 3)


def returns_a_number(n: int) -> int:
    return 7


@pytest.mark.parametrize(
    ("mapper", "shown"),
    [
        (returns_nothing, r"returns_nothing returned None \(NoneType\)"),
        (returns_text, r"returns_text returned 'ab' \(str\)"),
        (returns_a_pair, r"returns_a_pair yielded 'word' \(str\)"),
        (yields_a_triple, r"yields_a_triple yielded \(1, 2, 3\) \(tuple\)"),
        (returns_a_number, r"returns_a_number returned 7 \(int\)"),
    ],
)
def test_what_is_no_pair_is_named(
    executor: lambdamr.Executor, mapper: Callable[[int], Any], shown: str
) -> None:
    """InvalidPairs names the mapper and what it returned or yielded."""
    job = executor.map_reduce(mapper, range(4), total)
    with pytest.raises(lambdamr.InvalidPairs, match=shown):
        job.result(TIMEOUT_S)


def test_what_a_reducer_yields_is_checked(executor: lambdamr.Executor) -> None:
    """A generator reducer that yields no pairs is named."""

    def reducer(key: int, values: Iterator[int]) -> Iterator[int]:
        yield from values

    job = executor.map_reduce(lambda n: [(n, n)], range(4), reducer)
    with pytest.raises(lambdamr.InvalidPairs, match=r"reducer yielded \d \(int\)"):
        job.result(TIMEOUT_S)


class Opaque:
    """Hashable by identity: no two processes agree."""


@pytest.mark.parametrize(
    ("key", "error", "shown"),
    [
        ([1], lambdamr.BadKey, r"\[1\]"),
        ((1, {2}), lambdamr.BadKey, r"\(1, \{2\}\)"),
        (Opaque(), lambdamr.UnstableKey, "Opaque"),
        ((1, Opaque()), lambdamr.UnstableKey, "Opaque"),
    ],
    ids=["list", "set in tuple", "object", "object in tuple"],
)
def test_keys_that_cannot_be(
    executor: lambdamr.Executor, key: Any, error: type[Exception], shown: str
) -> None:
    """Unhashable keys are BadKey, keys without a stable form UnstableKey; both name the key."""
    job = executor.map_reduce(lambda n: [(key, 1)], range(3), total)
    with pytest.raises(error, match=shown):
        job.result(TIMEOUT_S)


def explodes(n: Any) -> Any:
    raise ZeroDivisionError(f"at {n}")


def test_a_mapper_that_raises(executor: lambdamr.Executor) -> None:
    """Corral only logs a failed task and its output is silently wrong; here the job fails with the
    mapper's own exception, the remote traceback as its cause.
    """
    job = executor.map_reduce(
        lambda n: explodes(n) if n == 50 else [(n, 1)], range(100), total, reducers=4
    )
    with pytest.raises(ZeroDivisionError, match=r"^at 50$") as caught:
        job.result(TIMEOUT_S)
    assert isinstance(caught.value.__cause__, lambdamr.RemoteTraceback)
    assert "in explodes" in str(caught.value.__cause__)
    assert (
        "lambdamr_runtime" not in str(caught.value.__cause__).split("Traceback")[1].split("\n")[1]
    )
    report = job.report()
    assert report.status == "failed"
    assert "1 tasks of stage 'map' failed" in report.reason
    for read in (job.head, lambda: job.outputs, lambda: next(job.items())):
        with pytest.raises(ZeroDivisionError):
            read()


CANNOT_BE_REDUCED: dict[str, tuple[str, list[Any], type[Exception], str]] = {
    "text": ("sum", ["a", "b"], TypeError, r"'k' \(str\).*'[ab]'.*fold\(operator.add\)"),
    "mixed": ("max", [1, "b"], TypeError, r"'k' \(str\).*'b' \(str\)"),
    "between tasks": ("sum", [1.5, decimal.Decimal(1)], TypeError, "'k'.*Decimal"),
    "operation": ("fold", [1, 0], ZeroDivisionError, "'k'.*0"),
}


@pytest.mark.parametrize("case", CANNOT_BE_REDUCED)
@pytest.mark.parametrize("lanes", [1, 2])
def test_what_a_reducer_cannot_take_is_named(
    executor: lambdamr.Executor, case: str, lanes: int
) -> None:
    """The error is the operation's own; a note has reducer, key and value, whether they met in a
    map task or only in a reduce task.
    """
    name, values, kind, said = CANNOT_BE_REDUCED[case]
    reducer = getattr(lambdamr.reducers, name)
    reducer = reducer(divmod) if name == "fold" else reducer
    items = [values] if lanes == 1 else [[value] for value in values]
    job = executor.map_reduce(lambda values: [("k", value) for value in values], items, reducer)
    with pytest.raises(kind) as caught:
        job.result(TIMEOUT_S)
    told = rf"reducers\.{name} was at the key .*{said}"
    assert re.search(told, "\n".join(caught.value.__notes__))
    assert re.search(told, str(caught.value.__cause__))


@pytest.mark.parametrize("builtin", [sum, min, max])
def test_builtins_are_no_reducers(executor: lambdamr.Executor, builtin: Any) -> None:
    """They would be called with (key, values), of which they make something else, or an error."""
    with pytest.raises(TypeError, match=rf"Give lambdamr\.reducers\.{builtin.__name__}\."):
        executor.map_reduce(lambda n: [(n, n)], range(3), builtin)


def test_a_failure_ends_the_job_at_once(one_lane: lambdamr.Executor, tmp_path: Path) -> None:
    """After the first failed task the others are not run, and no reducer ever is."""
    seen = tmp_path / "seen"
    seen.touch()

    def mapper(n: int) -> list[tuple[int, int]]:
        with seen.open("a") as file:
            file.write(f"{n} ")
        return explodes(n)  # type: ignore[no-any-return]

    job = one_lane.map_reduce(mapper, range(1_000), lambda k, v: seen.write_text("reduced"))
    assert job.report().status == "failed"
    assert seen.read_text().split()[0] == "0"
    assert all(isinstance(f.exception(), lambdamr.JobFailed) for f in job.reduce_futures)


def test_a_reducer_that_raises(executor: lambdamr.Executor) -> None:
    """The reducer's own exception comes back, whichever partition it was in."""
    job = executor.map_reduce(
        lambda n: [(n, n)], range(20), lambda k, v: explodes(k) if k == 7 else 0, reducers=4
    )
    with pytest.raises(ZeroDivisionError, match="at 7") as caught:
        job.result(TIMEOUT_S)
    assert "in explodes" in str(caught.value.__cause__)
    assert job.report().status == "failed"


def test_retries_of_a_mapper(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """retries= runs a split again; what its failed tries emitted never counts."""

    def mapper(n: int) -> Iterator[tuple[str, int]]:
        yield "sum", n
        flag = tmp_path / str(n)
        if n == 3 and not flag.exists():
            flag.touch()
            raise OSError("flaky")

    job = executor.map_reduce(mapper, range(8), total, retries=1)
    assert job.result(TIMEOUT_S) == {"sum": 28}
    assert [stats.tries for stats in job.map_futures.stats() if stats].count(2) == 1


def test_pairs_that_cannot_be_pickled(executor: lambdamr.Executor) -> None:
    """A value that cannot travel fails the job, whether of a mapper or of a reducer."""
    job = executor.map_reduce(lambda n: [(n, threading.Lock())], range(3), listed)
    with pytest.raises(Exception, match=r"cannot pickle '_thread.lock' object") as mapped:
        job.result(TIMEOUT_S)
    assert isinstance(mapped.value, lambdamr.ResultNotSerializable)
    job = executor.map_reduce(lambda n: [(n, n)], range(3), lambda k, v: threading.Lock())
    with pytest.raises(lambdamr.ResultNotSerializable, match="reducer's results"):
        job.result(TIMEOUT_S)


@pytest.mark.parametrize("stage", ["map", "reduce"])
@pytest.mark.parametrize("victim", ["task", "worker"])
def test_a_killed_process_changes_nothing(
    executor: lambdamr.Executor, tmp_path: Path, stage: str, victim: str
) -> None:
    """A process that dies in the middle of a task is replaced, and the result is exact; Corral's
    retried reducer finds its inputs deleted.
    """
    flag = tmp_path / "killed"

    def die_once(key: int) -> None:
        if key == 5 and not flag.exists():
            flag.touch()
            os.kill(os.getpid() if victim == "task" else os.getppid(), signal.SIGKILL)
            signal.pause()

    def mapper(n: int) -> Iterator[tuple[int, int]]:
        yield n % 10, n
        if stage == "map":
            die_once(n)

    def reducer(key: int, values: Iterator[int]) -> int:
        if stage == "reduce":
            die_once(key)
        return sum(values)

    job = executor.map_reduce(mapper, range(100), reducer, reducers=4)
    assert job.result(TIMEOUT_S) == {key: sum(range(key, 100, 10)) for key in range(10)}
    assert flag.exists()
    report = job.report()
    assert report.stages["map"].pairs_written == report.stages["reduce"].pairs_read == 100


def test_a_process_that_always_dies_ends_the_job(executor: lambdamr.Executor) -> None:
    """PyWren waits for ever for a function that dies without a status; here it is TaskLost."""
    job = executor.map_reduce(lambda n: os._exit(3) if n == 2 else [(n, 1)], range(4), total)
    with pytest.raises(lambdamr.TaskLost, match="exit status 3"):
        job.result(TIMEOUT_S)


def test_a_changed_input_is_noticed(one_lane: lambdamr.Executor, tmp_path: Path) -> None:
    """A file that is rewritten while the job reads it gives InputChanged, never a mixture."""
    path = tmp_path / "text"
    path.write_text("old\n" * 100)

    def mapper(line: str) -> list[tuple[str, int]]:
        fresh = path.with_name("fresh")
        fresh.write_text("new\n" * 100)
        fresh.replace(path)
        return [(line, 1)]

    job = one_lane.map_reduce(mapper, lambdamr.lines(path, split_bytes=200), total)
    with pytest.raises(lambdamr.InputChanged, match="text"):
        job.result(TIMEOUT_S)


def test_a_removed_input_is_noticed(one_lane: lambdamr.Executor, tmp_path: Path) -> None:
    """So does one that is gone, or shorter, when its split is read."""
    first, second = tmp_path / "1", tmp_path / "2"
    first.write_text("a\n")
    second.write_text("b\n")

    def mapper(line: str) -> list[tuple[str, int]]:
        second.unlink()
        return [(line, 1)]

    job = one_lane.map_reduce(mapper, [first, second], total)
    with pytest.raises(lambdamr.InputChanged, match="2 was there when the job was planned"):
        job.result(TIMEOUT_S)


def stored_of(root: str, pattern: str) -> list[Path]:
    return sorted(Path(root).glob(pattern))


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "swap"])
def test_a_damaged_shuffle_object_is_never_counted(root: str, harm: str) -> None:
    """A reducer that finds other bytes than the mapper wrote fails the job with CorruptObject."""

    def damage() -> None:
        for path in stored_of(root, "shuffle/*/*/map/0.*"):
            if harm == "flip":
                flip_last_byte(path)
            elif harm == "cut":
                path.write_bytes(path.read_bytes()[:-1])
            elif harm == "swap":
                path.write_bytes(stored_of(root, "shuffle/*/*/map/1.*")[0].read_bytes())
            else:
                path.unlink()

    def mapper(n: int) -> list[tuple[str, int]]:
        if n == 3:  # the last task, of the only lane
            damage()
        return [("sum", 1)]

    with lambdamr.Executor(workers=1, root=root) as executor:
        job = executor.map_reduce(mapper, range(4), total)
        with pytest.raises(lambdamr.CorruptObject, match=r"shuffle/./.*/map/0\."):
            job.result(TIMEOUT_S)
        assert job.report().status == "failed"


def test_a_damaged_index_is_never_counted(root: str) -> None:
    """The index of a group is verified column by column before it is believed."""

    def reducer(key: int, values: Iterator[int]) -> int:
        (group,) = stored_of(root, "jobs/*/map/groups/0")
        data = bytearray(group.read_bytes())
        stamp, columns = 17, (data.rindex(b"{") - 17) // 2
        data[stamp + columns + 12] ^= 1  # in the column of partition 1, which is read next
        group.write_bytes(data)
        return sum(values)

    with lambdamr.Executor(workers=1, root=root) as executor:
        job = executor.map_reduce(lambda n: [(n, 1)], range(40), reducer, reducers=2)
        with pytest.raises(lambdamr.CorruptObject, match="map/groups/0: a column has checksum"):
            job.result(TIMEOUT_S)


def test_a_truncated_output_is_never_read(executor: lambdamr.Executor) -> None:
    """A part that has lost whole blocks at its end is CorruptObject, not a smaller result."""
    job = executor.map_reduce(lambda n: [(i, i) for i in range(25_000)], [0], total, reducers=1)
    job.wait(TIMEOUT_S)
    (path,) = outputs(job)
    with path.open("rb") as file:
        pickle.load(file)
        first_block = file.tell()
    os.truncate(path, first_block)
    with pytest.raises(lambdamr.CorruptObject, match="bytes"):
        job.result()


def test_a_removed_output_is_named(executor: lambdamr.Executor) -> None:
    """A part that is no longer there is CorruptObject with its key."""
    job = executor.map_reduce(lambda n: [(n, n)], range(4), total, reducers=1)
    job.wait(TIMEOUT_S)
    (path,) = outputs(job)
    path.unlink()
    with pytest.raises(lambdamr.CorruptObject, match=f"jobs/{job.job_id}/output/part-00000"):
        job.result()


# --- the job object -----------------------------------------------------------------------------


def outputs(job: lambdamr.Job) -> list[Path]:
    return [Path(uri) for uri in job.outputs]


def read_part(path: Path) -> list[tuple[Any, Any]]:
    """Read an output part as its format says: pickled lists of pairs, back to back."""
    pairs: list[tuple[Any, Any]] = []
    with path.open("rb") as file:
        while file.tell() < path.stat().st_size:
            pairs += pickle.load(file)
    return pairs


def test_the_report_is_exact(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """Bytes are those of the files, records their lines, pairs what was emitted and read, keys
    and output what is in the parts.
    """
    texts = {"a": "ä b\r\nb c\n", "b": "\ufeffc d e\n\n", "c": ""}
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
    job = executor.map_reduce(words, lambdamr.lines(tmp_path, split_bytes=3), total, reducers=3)
    assert job.result(TIMEOUT_S) == {"ä": 1, "b": 2, "c": 2, "d": 1, "e": 1}
    report = job.report()
    mapped, reduced = report.stages["map"], report.stages["reduce"]
    assert mapped.bytes_read == sum(len(text.encode()) for text in texts.values())
    assert (mapped.records, mapped.emitted, mapped.pairs_written) == (4, 7, 7)
    assert (reduced.tasks, reduced.pairs_read, reduced.keys, reduced.output_pairs) == (3, 7, 5, 5)
    assert reduced.output_bytes == sum(path.stat().st_size for path in outputs(job))
    assert (report.status, report.reason, report.job_id) == ("done", "", job.job_id)
    assert report.seconds > 0
    text = str(report)
    assert repr(report) == text
    assert f"job {job.job_id}: done in" in text
    assert "read 20 bytes, 4 records" in text
    assert "read 7 pairs of 5 keys" in text


def test_the_futures_of_a_job(executor: lambdamr.Executor) -> None:
    """map_futures and reduce_futures are futures like any other, with stats of each task."""
    job = executor.map_reduce(lambda n: [(n % 3, n)], range(12), total, reducers=2)
    job.reduce_futures.wait(TIMEOUT_S)
    mapped, reduced = job.map_futures.result(TIMEOUT_S), job.reduce_futures.result()
    assert sum(task.records for task in mapped) == 12
    assert [task.keys for task in reduced] == [len(read_part(path)) for path in outputs(job)]
    assert len(job.reduce_futures) == 2
    assert all(stats is not None and stats.tries == 1 for stats in job.map_futures.stats())
    assert {future.job_id for future in [*job.map_futures, *job.reduce_futures]} == {job.job_id}


def test_head_and_outputs(executor: lambdamr.Executor) -> None:
    """head(n) is the beginning of items(); outputs are the files that hold them."""
    job = executor.map_reduce(lambda n: [(n, n * n)], range(50), total, reducers=4)
    everything = list(job.items(TIMEOUT_S))
    assert job.head() == everything[:5]
    assert job.head(1_000) == everything
    assert job.head(0) == []
    assert [pair for path in outputs(job) for pair in read_part(path)] == everything
    assert [re.search(r"part-(\d+)\.", str(path))[1] for path in outputs(job)] == [  # type: ignore[index]
        "00000", "00001", "00002", "00003",
    ]  # fmt: skip


def test_waiting_for_a_job(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """wait(timeout) says whether the job has ended, result(timeout) raises TimeoutError; the job
    goes on, and its repr tells how far it is.
    """
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def mapper(n: int) -> list[tuple[int, int]]:
        gate.read_text()
        return [(n, n)]

    job = executor.map_reduce(mapper, [1], total, reducers=1)
    assert not job.wait(0.05)
    assert not job.done()
    with pytest.raises(TimeoutError, match=job.job_id):
        job.result(0.01)
    assert repr(job) == f"<lambdamr.Job {job.job_id} running: map 0/1, reduce 0/1>"
    assert "running" in job._repr_html_()
    gate.write_text("go")
    assert job.wait(TIMEOUT_S)
    assert job.done()
    assert job.result() == {1: 1}
    assert repr(job) == f"<lambdamr.Job {job.job_id} done: map 1/1, reduce 1/1>"
    assert "1 / 1" in job._repr_html_()


def test_waiting_in_another_thread(executor: lambdamr.Executor) -> None:
    """Lithops waits with SIGALRM, in the main thread only; here any thread may."""
    job = executor.map_reduce(lambda n: [(n % 2, n)], range(10), total)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend((job.wait(60), job.result(60))))
    thread.start()
    thread.join(TIMEOUT_S)
    assert found == [True, {0: 20, 1: 25}]


def test_cancelling_a_job(one_lane: lambdamr.Executor, tmp_path: Path) -> None:
    """cancel() ends the job at once for the client, and says so only once."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def mapper(n: int) -> list[tuple[int, int]]:
        gate.read_text()
        return [(n, n)]

    job = one_lane.map_reduce(mapper, range(3), total)
    assert job.cancel()
    assert not job.cancel()
    with pytest.raises(CancelledError):
        job.result(TIMEOUT_S)
    assert job.report().status == "cancelled"


def test_an_executor_used_twice_returns_only_new_results(executor: lambdamr.Executor) -> None:
    """Lithops' second get_result() returns the results of the first call too; here each call has
    its own futures, and None is a result like any other.
    """
    first = executor.map(lambda n: None, range(3))
    assert lambdamr.get_all_results(first, TIMEOUT_S) == [None] * 3
    second = executor.map(lambda n: n, range(2))
    assert lambdamr.get_all_results(second, TIMEOUT_S) == [0, 1]
    assert executor.map_reduce(pair_itself, [(1, 1)], total).result(TIMEOUT_S) == {1: 1}
    assert executor.map_reduce(pair_itself, [(2, 2)], total).result(TIMEOUT_S) == {2: 2}


def test_more_than_ten_thousand_items(executor: lambdamr.Executor) -> None:
    """PyWren ends at 10,000 items."""
    assert executor.map(abs, range(-10_001, 0)).result(TIMEOUT_S) == [*range(10_001, 0, -1)]
    items = range(10_001)
    job = executor.map_reduce(lambda n: [(n % 7, 1)], items, total)
    assert sum(job.result(TIMEOUT_S).values()) == 10_001


def test_two_jobs_never_collide(executor: lambdamr.Executor) -> None:
    """BigLambda has a fixed job id. Here twenty jobs of one executor, all at once, have each their
    own id, objects and result.
    """

    def start(shift: int) -> lambdamr.Job:
        def mapper(n: int) -> list[tuple[int, int]]:
            return [(n % 3, n + shift)]

        return executor.map_reduce(mapper, range(30), listed, reducers=1 + shift % 3)

    jobs = [start(shift) for shift in range(20)]
    assert len({job.job_id for job in jobs}) == 20
    for shift, job in enumerate(jobs):
        assert job.result(TIMEOUT_S) == {
            rest: [n + shift for n in range(30) if n % 3 == rest] for rest in range(3)
        }
    assert len({path for job in jobs for path in job.outputs}) == sum(1 + s % 3 for s in range(20))


def test_a_hundred_jobs_read_one_input(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """All at once, each with a mapper of its own: nobody disturbs anybody, and the file is as
    it was.
    """
    path = tmp_path / "numbers.txt"
    path.write_text("".join(f"{n}\n" for n in range(1000)))
    before = path.stat()

    def start(divisor: int) -> lambdamr.Job:
        def mapper(line: str) -> list[tuple[int, int]]:
            return [(int(line) % divisor, 1)]

        source = lambdamr.lines(path, split_bytes=1 + 40 * divisor)
        return executor.map_reduce(mapper, source, lambdamr.reducers.sum, reducers=1 + divisor % 3)

    jobs = [start(divisor) for divisor in range(1, 101)]
    for divisor, job in enumerate(jobs, 1):
        assert job.result(TIMEOUT_S) == {
            rest: len(range(rest, 1000, divisor)) for rest in range(divisor)
        }
        assert job.report().stages["map"].records == 1000
    assert len({job.job_id for job in jobs}) == 100
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_job_is_found_again_by_its_id(executor: lambdamr.Executor, root: str) -> None:
    """attach(job_id) returns the same job: result, report and futures."""
    job = executor.map_reduce(lambda n: [(n % 5, n)], range(50), total, reducers=3)
    expected = job.result(TIMEOUT_S)
    again = lambdamr.attach(job.job_id)
    assert isinstance(again, lambdamr.Job)
    assert again.result(TIMEOUT_S) == expected
    assert again.report() == job.report()
    assert again.outputs == job.outputs
    with pytest.raises(lambdamr.JobNotFound, match=job.job_id):
        lambdamr.attach(job.job_id, root=root)


def test_a_failed_job_is_found_again(executor: lambdamr.Executor) -> None:
    """attach() of a failed job raises what its task raised."""
    job = executor.map_reduce(explodes, range(4), total)
    assert job.report().status == "failed"
    again = lambdamr.attach(job.job_id)
    assert isinstance(again, lambdamr.Job)
    with pytest.raises(ZeroDivisionError):
        again.result(TIMEOUT_S)
