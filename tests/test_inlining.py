"""Mappers that add their pairs themselves: to the same end, and only where that can be told."""

import gc
import json
import linecache
import math
import os
import subprocess
import sys
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction
from functools import wraps
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lambdamr
from lambdamr import reducers
from lambdamr.inlining import SOURCE_BYTES, inline
from lambdamr_runtime.errors import BadKey
from lambdamr_runtime.inlined import QUIET_PAIRS, TURN_PAIRS, Turns, signature
from lambdamr_runtime.memory import MAX_STEP, Room
from lambdamr_runtime.reducers import Reducer
from lambdamr_runtime.shuffling import FIRST_RECORDS, MOST_RECORDS
from tests.shuffled import ENOUGH_MB, NOTHING_MB, Shuffled, plain

Pairs = Iterator[tuple[Any, Any]]
Mapper = Callable[[Any], Pairs]

TIMEOUT_S = 60
ADDING = [reducers.sum, reducers.count, reducers.mean]


# --- mappers of all shapes ------------------------------------------------------------------------
def one_yield(n: int) -> Pairs:
    yield n, 1


def constant(n: int) -> Pairs:
    yield "n", 1


def in_loops(n: int) -> Pairs:
    for a in range(n % 4):
        for b in range(a):
            yield (a, b), n
        else:
            yield a, Fraction(n, 3)


def returning(n: int) -> Iterator[Any]:
    """A docstring is no statement of the loop."""
    for a in range(n % 7):
        if a == 3:
            return
        yield a, n
        if n == 5:
            return str(n)  # type: ignore[return-value]  # as generators of users may
    yield "end", n


def with_scopes(n: int) -> Pairs:
    """Functions, lambdas, classes and comprehensions keep their own returns and yields."""

    def inner(m: int) -> Iterator[int]:
        yield m
        yield from (m, m)
        return

    class Holder:
        def value(self) -> int:
            return n

    twice: Callable[[int], int] = lambda m: 2 * m  # noqa: E731
    yield "inner", sum(inner(n))
    yield [key * 2 for key in "ab"][n % 2], twice(Holder().value())


def with_defaults(n: int, step: int = 2, *, more: str = "m") -> Pairs:
    yield n % step, n
    yield more, 1


def assigning(n: int) -> Pairs:
    """The value is computed behind the key, and variables are those of the mapper."""
    states = key = value = left = n
    turn = known_of = -1
    yield (key, left), (key := turn + value)
    yield key, states + known_of


def deleting(n: int) -> Pairs:
    word = str(n)
    yield word, n
    del word
    while n > 0:
        n //= 2
        if n % 2:
            continue
        yield n, 1.5


def handling(n: int) -> Pairs:
    """Errors that are handled between two yields are nobody else's."""
    try:
        amount = 12 // (n % 3)
    except ZeroDivisionError:
        amount = 0
    with suppress(KeyError):
        raise KeyError(n)
    match n % 3:
        case 0:
            yield "none", amount
        case rest:
            yield rest, amount


def closing(base: int) -> Mapper:
    seen: list[int] = []

    def closed(n: int) -> Pairs:
        nonlocal base
        seen.append(n)
        base += 0
        yield n % 3, base + len(seen) - len(seen)

    return closed


MAPPERS: list[Mapper] = [
    one_yield,
    constant,
    in_loops,
    returning,
    with_scopes,
    with_defaults,
    assigning,
    deleting,
    handling,
    closing(7),
]


@pytest.mark.parametrize("reducer", ADDING, ids=lambda reducer: type(reducer).__name__)
@pytest.mark.parametrize("mapper", MAPPERS, ids=lambda mapper: mapper.__name__)
@settings(deadline=None)  # the first parses this file
@given(
    tasks=st.lists(st.lists(st.integers(0, 40), max_size=30), min_size=1, max_size=3),
    memory_mb=st.sampled_from([ENOUGH_MB, NOTHING_MB]),
    partitions=st.integers(1, 3),
)
def test_an_inlined_mapper_equals_a_dictionary(
    mapper: Mapper, reducer: Reducer, tasks: list[list[int]], memory_mb: int, partitions: int
) -> None:
    """Whatever the mapper does between its yields, and whether each pair is spilled or none is."""
    job = Shuffled(reducer, partitions, memory_mb, inlines=True)
    pairs = [[pair for n in task for pair in mapper(n)] for task in tasks]
    expected = {key: reducer(key, values) for key, values in plain(pairs).items()}
    assert dict(job.run(tasks, mapper)) == expected
    assert [made.emitted for made in job.mapped] == list(map(len, pairs))
    if memory_mb == NOTHING_MB:
        assert [made.spilled_runs for made in job.mapped] == list(map(len, pairs))


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 3 * TURN_PAIRS), max_size=12),
    st.sampled_from([0, 1, TURN_PAIRS - 1, TURN_PAIRS, QUIET_PAIRS, 2 * QUIET_PAIRS + 1]),
)
def test_pairs_are_counted_over_turns(sizes: list[int], more: int) -> None:
    """Whether records end with a turn, in it, or have many turns."""

    def many(size: int) -> Pairs:
        for n in range(size):
            yield n % 100, n

    job = Shuffled(reducers.count, inlines=True)
    found = job.run([[*sizes, more]], many)
    assert job.mapped[0].emitted == sum(count for _, count in found) == sum(sizes) + more


@pytest.mark.parametrize("memory_mb", [ENOUGH_MB, NOTHING_MB])
def test_every_nan_is_one_key(memory_mb: int) -> None:
    """In one turn, in several, behind a spill, and beside records that go the other way."""

    def numbers(n: int) -> Pairs:
        yield (float("nan") if n % 2 else math.nan), 1
        yield Decimal("NaN") if n % 7 == 0 else n % 3, 1

    size = 100 if memory_mb == NOTHING_MB else 2 * MOST_RECORDS
    job = Shuffled(reducers.sum, memory_mb=memory_mb, inlines=True)
    found = {repr(key): count for key, count in job.run([range(size)] * 2, numbers)}
    others = {str(n): 2 * sum(m % 7 != 0 and m % 3 == n for m in range(size)) for n in range(3)}
    assert found == {**others, "nan": 2 * (size + len(range(0, size, 7)))}


def test_nan_keys_keep_the_order_of_values() -> None:
    """Floats are added in the order in which they came."""

    def nans(n: int) -> Pairs:
        for value in (0.1, 0.2, 0.3):
            yield float("nan"), value

    ((_, total),) = Shuffled(reducers.sum, inlines=True).run([[0]], nans)
    assert total == 0.1 + 0.2 + 0.3 != 0.3 + 0.2 + 0.1


class Looks:
    """A dictionary, and how many pairs were added between two looks at the memory."""

    def __init__(self) -> None:
        self.states: dict[Any, Any] = {}
        self.pairs: list[int] = []

    def unite_nans(self, before: int) -> None:
        assert before <= len(self.states)

    def count(self, pairs: int) -> None:
        self.pairs.append(pairs)


@pytest.mark.parametrize(("keys", "most"), [(1, QUIET_PAIRS), (1 << 20, MAX_STEP)])
def test_memory_is_looked_at_more_often_where_keys_are_new(keys: int, most: int) -> None:
    """New keys may be large: then pairs between two looks are as many as of other mappers."""

    def many(n: int) -> Pairs:
        for key in range(n):
            yield key % keys, 1

    inlined = inline(many, reducers.sum)
    assert inlined is not None
    bound, looks = inlined.bound_to(many), Looks()
    assert bound is not None
    with Room(0, 0.5) as room:
        room.step = MAX_STEP
        Turns(looks, room, reducers.sum, bound).add([20_000])
    assert sum(looks.pairs) == 20_000
    assert most - TURN_PAIRS < max(looks.pairs) <= most


def test_only_the_last_mapper_is_inlined() -> None:
    """It gets the pairs of the one before as its records."""

    def words(line: str) -> Pairs:
        for word in line.split():
            yield word, len(word)

    def lengths(pair: tuple[str, int]) -> Pairs:
        yield pair[1], 1

    found = Shuffled(reducers.sum, inlines=True).run([["a bb cc", "ddd"], ["a"]], words, lengths)
    assert found == [(1, 2), (2, 2), (3, 1)]


def test_both_phases_are_told() -> None:
    """The time of mapping and of combining is estimated from some records of many."""
    job = Shuffled(reducers.sum, inlines=True)
    job.map([range(2 * FIRST_RECORDS)], one_yield)
    phases = job.mapped[0].phases
    assert phases.map > 0
    assert phases.combine > 0


def test_phases_go_on_behind_a_spill() -> None:
    """What comes after a spill is counted as mapping, not as sorting."""

    def slow(n: int) -> Pairs:
        began = time.perf_counter()
        while time.perf_counter() < began + 0.001:
            pass
        yield n, 1

    job = Shuffled(reducers.sum, memory_mb=NOTHING_MB, inlines=True)
    job.map([range(100)], slow)
    phases = job.mapped[0].phases
    assert phases.map + phases.combine >= 0.1
    assert job.mapped[0].spilled_runs == 100


# --- what cannot be inlined -----------------------------------------------------------------------
def guarded(n: int) -> Pairs:
    try:
        yield n, 1
    except TypeError:
        return


def guarded_finally(n: int) -> Pairs:
    for _ in range(2):
        try:
            n += 1
        finally:
            yield n, 1


def within(n: int) -> Pairs:
    with suppress(TypeError):
        yield n, 1


def delegating(n: int) -> Pairs:
    yield n, 1
    yield from [(n, 1)]


def of_a_name(n: int) -> Pairs:
    pair = (n, 1)
    yield pair


def of_three(n: int) -> Iterator[Any]:
    yield n, 1, 2


def starred(n: int) -> Iterator[Any]:
    yield n, *[1]


def used(n: int) -> Pairs:
    sent = yield n, 1
    assert sent is None


def in_a_call(n: int) -> Pairs:
    print((yield n, 1))


def asks_for_names(n: int) -> Pairs:
    yield "names", len(locals())


def asks_in_a_default(n: int) -> Pairs:
    def inner(names: Any = sorted(locals())) -> Any:  # noqa: B008
        return names

    yield len(inner()), n


def asks_its_frame(n: int) -> Pairs:
    yield len(sys._getframe().f_locals), n


class Above:
    def words(self) -> list[str]:
        return ["a"]


class Below(Above):
    def words_of(self) -> Pairs:
        for word in super().words():
            yield word, 1


def of_nothing() -> Pairs:
    yield 1, 1


def of_two(n: int, m: int) -> Pairs:
    yield n, m


def of_a_keyword(n: int, *, more: int) -> Pairs:
    yield n, more


def returns_a_list(n: int) -> list[tuple[int, int]]:
    return [(n, 1)]


def in_a_default(n: int) -> Pairs:
    yield n, 1
    _ = lambda m=(yield n, 2): m  # noqa: E731


def decorated(mapper: Mapper) -> Mapper:
    @wraps(mapper)
    def wrapper(n: int) -> Pairs:
        return mapper(n)

    return wrapper


def from_source(source: str, filename: str) -> Mapper:
    """Return the function `mapper` of a source, as an import or a prompt makes it."""
    scope: dict[str, Mapper] = {}
    exec(compile(source, filename, "exec"), scope)  # noqa: S102 - that is what these do
    return scope["mapper"]


NOT_INLINED: list[Callable[..., Any]] = [
    guarded,
    guarded_finally,
    within,
    delegating,
    of_a_name,
    of_three,
    starred,
    used,
    in_a_call,
    asks_for_names,
    asks_in_a_default,
    asks_its_frame,
    Below.words_of,
    of_nothing,
    of_two,
    of_a_keyword,
    returns_a_list,
    in_a_default,
    decorated(one_yield),
    lambda n: [(n, 1)],
    from_source("def mapper(n):\n    yield n, 1\n", "<stdin>"),
    {1: []}.get,
    Path,
]


@pytest.mark.parametrize("mapper", NOT_INLINED, ids=lambda each: getattr(each, "__name__", "?"))
def test_what_cannot_be_inlined(mapper: Callable[..., Any]) -> None:
    """Mappers that would tell the difference, or whose source is not there."""
    assert inline(mapper, reducers.sum) is None


class Positive(type(reducers.sum)):  # type: ignore[misc]  # it is a class
    """A reducer of a user's own."""

    def add(self, states: Any, pairs: Any) -> None:
        super().add(states, [pair for pair in pairs if pair[1] > 0])


@pytest.mark.parametrize("reducer", [reducers.max, reducers.collect, reducers.top(2), Positive()])
def test_other_reducers_are_not_inlined(reducer: Reducer) -> None:
    """They mind the order of values, which may be lost where NaN is a key; or are not known."""
    assert inline(one_yield, reducer) is None


def test_a_source_that_has_changed(tmp_path: Path) -> None:
    """A file that is not what was imported is not what is run."""
    file = tmp_path / "changing.py"
    file.write_text("def mapper(n):\n    yield n, 1\n")
    mapper = from_source(file.read_text(), str(file))
    assert inline(mapper, reducers.count) is not None
    file.write_text("def mapper(n):\n    yield n, 22\n")
    assert inline(mapper, reducers.sum) is None


def test_a_tree_that_is_too_deep(tmp_path: Path) -> None:
    """Python compiles what cannot be walked; it runs as it is."""
    file = tmp_path / "deep.py"
    cases = "".join(f"    elif n == {n}:\n        pass\n" for n in range(900))
    file.write_text(f"def mapper(n):\n    if n < 0:\n        yield n, 1\n{cases}")
    assert inline(from_source(file.read_text(), str(file)), reducers.sum) is None


def test_a_long_source(tmp_path: Path) -> None:
    """It is not parsed for this."""
    file = tmp_path / "long.py"
    file.write_text("def mapper(n):\n    yield n, 1\n" + "#" * SOURCE_BYTES)
    assert inline(from_source(file.read_text(), str(file)), reducers.sum) is None


def test_a_source_that_is_no_file(tmp_path: Path) -> None:
    """A pipe that somebody else reads is left alone."""
    pipe = tmp_path / "pipe.py"
    os.mkfifo(pipe)
    assert inline(from_source("def mapper(n):\n    yield n, 1\n", str(pipe)), reducers.sum) is None


def test_a_cell_of_a_notebook() -> None:
    """Its source is where tracebacks look for it, and each statement is compiled by itself."""
    name, source = "<a cell>", "import json\ndef mapper(n):\n    yield json.loads(n), 1\n"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    statement = "\n" + source.partition("\n")[2]
    try:
        assert inline(from_source(statement, name), reducers.sum) is not None
    finally:
        del linecache.cache[name]


def test_imports_of_the_module_matter(tmp_path: Path) -> None:
    """Python compiles `json.loads(line)` in two ways, by whether the module imports json."""
    body = "def mapper(line):\n    yield json.loads(line), os.path.join(Path('a'))\n"
    for imports in ("", "import json, os.path\nif json:\n    from pathlib import Path as Path\n"):
        file = tmp_path / f"imports{len(imports)}.py"
        file.write_text(imports + body)
        assert inline(from_source(file.read_text(), str(file)), reducers.sum) is not None


def test_another_function_is_not_bound() -> None:
    """A worker whose module is another version runs what it has."""
    inlined = inline(one_yield, reducers.sum)
    assert inlined is not None
    assert inlined.bound_to(one_yield) is not None
    assert inlined.bound_to(constant) is None
    for value in (2, 1.0, True, "1", (1,)):
        code = one_yield.__code__.replace(co_consts=(None, value))
        assert inlined.bound_to(FunctionType(code, globals())) is None
    assert inlined.bound_to(str) is None


def test_signatures_tell_constants_apart() -> None:
    """By kind and sign, within tuples and sets too."""
    constants = [1, 1.0, True, "1", "1.0", b"1", 0.0, -0.0, 1j, None, ..., (1,), (1.0,), (True,)]
    constants += [frozenset([1]), frozenset([True]), ("frozenset", 1), (0.0,), (-0.0,)]
    codes = [one_yield.__code__.replace(co_consts=(None, value)) for value in constants]
    assert len({signature(code) for code in codes}) == len(constants)
    assert signature(codes[0]) == signature(one_yield.__code__)


def test_warnings_are_not_told_twice(tmp_path: Path) -> None:
    """What Python warns of was said when the mapper was compiled."""
    file = tmp_path / "warned.py"
    file.write_text("def mapper(n):\n    yield n is 5, '\\d'\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mapper = from_source(file.read_text(), str(file))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert inline(mapper, reducers.count) is not None


# --- errors ---------------------------------------------------------------------------------------
def fails(n: int) -> Pairs:
    yield "good", 1
    if n == 3:
        raise ValueError(f"no {n}")
    yield "good", 1


def exhausts(n: int) -> Pairs:
    yield n, next(iter([]))


def unhashable(n: int) -> Pairs:
    yield [n], 1


def of_text(n: int) -> Pairs:
    yield "k", 1 if n < 2 else "b"


def test_an_error_of_the_mapper() -> None:
    """It is raised as it is, and its traceback shows the line."""
    with pytest.raises(ValueError, match="no 3") as caught:
        Shuffled(reducers.sum, inlines=True).run([range(5)], fails)
    assert not hasattr(caught.value, "__notes__")
    assert caught.value.__context__ is caught.value.__cause__ is None
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.name, last.line) == ("fails", 'raise ValueError(f"no {n}")')


def test_an_error_in_a_second_value() -> None:
    """It is not taken for one of the key that is there already."""

    def second(n: int) -> Pairs:
        yield n, 1
        yield [n], 1 // 0

    with pytest.raises(ZeroDivisionError) as caught:
        Shuffled(reducers.sum, inlines=True).run([range(5)], second)
    assert not hasattr(caught.value, "__notes__")


def over_lines(n: int) -> Pairs:
    yield n, 1
    text = json.loads("""{
    """)
    yield text, 1


def test_an_error_of_an_expression_over_lines() -> None:
    """One that ends in the column in which it begins is none of the adding."""
    with pytest.raises(json.JSONDecodeError) as caught:
        Shuffled(reducers.sum, inlines=True).run([range(5)], over_lines)
    assert not hasattr(caught.value, "__notes__")


def test_a_failed_task_keeps_nothing() -> None:
    """What it had added goes with the error, not with the next collection of garbage."""
    alive = weakref.WeakSet[Any]()

    class Value:
        def __radd__(self, other: Any) -> "Value":
            return self

    def failing(n: int) -> Pairs:
        alive.add(value := Value())
        yield n, value
        if n == 50:
            raise ValueError(n)

    gc.disable()
    try:
        with pytest.raises(ValueError, match="50"):
            Shuffled(reducers.sum, inlines=True).map([range(100)], failing)
        assert len(alive) == 0
    finally:
        gc.enable()


def test_without_columns() -> None:
    """Python that keeps none cannot tell errors apart: the mapper runs as it is."""
    program = """
from lambdamr import reducers
from lambdamr.inlining import inline
from tests.test_inlining import one_yield

inlined = inline(one_yield, reducers.sum)
print(inlined is None or inlined.bound_to(one_yield) is None)
"""
    for options, expected in ([], "False"), (["-X", "no_debug_ranges"], "True"):
        command = [sys.executable, *options, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [expected]


def test_an_iterator_that_ends_in_the_mapper() -> None:
    """StopIteration is an error, as in a generator."""
    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        Shuffled(reducers.sum, inlines=True).run([range(5)], exhausts)


def test_an_unhashable_key() -> None:
    """BadKey names it."""
    with pytest.raises(BadKey, match=r"\[0\] \(list\) cannot be a key"):
        Shuffled(reducers.sum, inlines=True).run([range(5)], unhashable)


def test_a_value_that_cannot_be_added() -> None:
    """The error is the addition's own, with a note of the pair."""
    with pytest.raises(TypeError) as caught:
        Shuffled(reducers.sum, inlines=True).run([range(5)], of_text)
    assert "reducers.sum was at the key 'k' (str) with the value 'b'" in caught.value.__notes__[0]
    assert caught.value.__context__ is None
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.name, last.line) == ("of_text", 'yield "k", 1 if n < 2 else "b"')


def test_lines_of_the_worker(tmp_path: Path) -> None:
    """A traceback has the file that the worker imported."""
    body = "def mapper(n):\n    yield n, 1\n    raise ValueError(n)\n"
    here, there = tmp_path / "here.py", tmp_path / "there.py"
    for file in (here, there):
        file.write_text(body)
    inlined = inline(from_source(body, str(here)), reducers.sum)
    assert inlined is not None
    bound = inlined.bound_to(from_source(body, str(there)))
    assert bound is not None
    states: dict[Any, Any] = {}
    with pytest.raises(ValueError, match="5") as caught:
        bound(states, states.get, 9, lambda: 9, 5)
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.filename, last.lineno) == (str(there), 3)
    assert inlined.bound_to(from_source("\n" + body, str(there))) is None


# --- in a job -------------------------------------------------------------------------------------
def test_a_job_inlines_its_mapper(executor: lambdamr.Executor) -> None:
    """The worker runs what the client has made."""

    def variables(n: int) -> Pairs:
        frame = sys._getframe()
        yield any(name.startswith(".") for name in frame.f_code.co_varnames), n

    job = executor.map_reduce(variables, range(10), reducers.sum)
    assert job.result(TIMEOUT_S) == {True: 45}
    job = executor.map_reduce(variables, range(10), lambda _, values: sum(values))
    assert job.result(TIMEOUT_S) == {False: 45}


def test_sets_do_not_hang_on_hash_seeds(executor: lambdamr.Executor) -> None:
    """A set of constants has another order in each process."""

    def chosen(n: int) -> Pairs:
        if str(n) in {"1", "2", "3", "4", "5", "6", "7", "8"}:
            yield any(name[0] == "." for name in sys._getframe().f_code.co_varnames), n

    assert executor.map_reduce(chosen, range(10), reducers.sum).result(TIMEOUT_S) == {True: 36}
