"""The requests that a plan predicts are those that client and workers make, one by one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lambdamr
from lambdamr.planning.counting import Kind, Side, tree_of
from lambdamr_runtime.keys import StageKeys
from lambdamr_runtime.limits import INLINE_BYTES, WHOLE_ARGS_BYTES
from tests.counted import CountedBackend, assert_counted

Call = Callable[[lambdamr.Executor], Any]
"""A call, on an executor or on its planning twin."""


def double(item: Any) -> Any:
    return item * 2


def length(item: bytes) -> int:
    return len(item)


def words(line: str) -> Iterator[tuple[str, int]]:
    for word in line.split():
        yield word, 1


def both(key: Any, values: Iterator[int]) -> int:
    return sum(values)


def large(number: int) -> bytes:
    """Return an argument that does not ride in the event."""
    return bytes([number]) * (INLINE_BYTES // 4)


@pytest.mark.parametrize("width", [1, 2, 5, 9, 30])
@pytest.mark.parametrize(
    ("tasks", "options"),
    [
        (1, {}),
        (7, {"chunksize": 1}),
        (40, {"chunksize": 3}),
        (12, {"chunksize": 12}),
        (60, {"chunksize": 1, "max_failures": 3}),
        (5, {"chunksize": 5, "max_failures": 0}),
    ],
)
def test_map_inline(width: int, tasks: int, options: dict[str, Any]) -> None:
    """A map whose arguments ride in its events: one chunk, one group, several, counted or not."""
    backend = CountedBackend(width)
    with backend.executor() as executor:
        plan = executor.plan(double, range(tasks), **options)
        futures = executor.map(double, range(tasks), **options)
        backend.run()
        assert futures.result() == [n * 2 for n in range(tasks)]
    assert_counted(plan, backend)


@pytest.mark.parametrize("width", [1, 4, 10])
@pytest.mark.parametrize("chunksize", [1, 4])
def test_map_stored(width: int, chunksize: int) -> None:
    """A map with stored function and arguments: each lane fetches them once."""
    backend = CountedBackend(width)
    items = [large(n) for n in range(20)]
    with backend.executor() as executor:
        plan = executor.plan(length, items, chunksize=chunksize)
        futures = executor.map(length, items, chunksize=chunksize)
        backend.run()
        assert futures.result() == [len(item) for item in items]
    assert plan.requests(Side.CLIENT)[str(Kind.PUT)] == 3, "function, arguments, manifest"
    assert_counted(plan, backend)


def test_a_function_is_stored_once() -> None:
    """The second call of a client finds the function where the first has put it."""
    backend = CountedBackend(2)
    items = [large(n) for n in range(6)]
    with backend.executor() as executor:
        executor.map(length, items, chunksize=1)
        backend.run()
        assert executor.plan(length, items).requests(Side.CLIENT)[str(Kind.PUT)] == 2


def test_large_arguments_are_read_chunk_by_chunk() -> None:
    """Behind the first 4 MiB each chunk reads its own arguments."""
    backend = CountedBackend(2)
    items = [bytes([n]) * (WHOLE_ARGS_BYTES // 3) for n in range(8)]
    with backend.executor() as executor:
        plan = executor.plan(length, items, chunksize=1)
        futures = executor.map(length, items, chunksize=1)
        backend.run()
        assert futures.result() == [len(item) for item in items]
    assert_counted(plan, backend)


def test_arguments_that_refer_to_data_and_futures() -> None:
    """Each lane fetches once what its arguments refer to."""
    backend = CountedBackend(3)
    with backend.executor() as executor:
        data = executor.put({"a": 1})
        first = executor.map(double, range(4), chunksize=2)
        backend.run()
        assert first.result() == [0, 2, 4, 6]
        backend.cluster.log.requests.clear()
        before, launched = backend.of_client(), len(backend.launched)

        def call(executor: lambdamr.Executor) -> Any:
            return executor.map(_use, list(first) * 2, [data] * 8, chunksize=1)

        plan = executor.plan(_use, list(first) * 2, [data] * 8, chunksize=1)
        futures = call(executor)
        backend.run()
        assert futures.result() == [1, 3, 5, 7] * 2
    assert plan.requests(Side.WORKERS) == backend.of_workers()
    after = backend.of_client()
    made = {kind: after[kind] - before.get(kind, 0) for kind in after}
    assert len(backend.launched) - launched == made[str(Kind.INVOKE)]
    assert plan.requests(Side.CLIENT) == {kind: n for kind, n in made.items() if n}


def _use(number: int, table: dict[str, int]) -> int:
    return number + table["a"]


@pytest.mark.parametrize(("values", "arity"), [(5, 8), (9, 2), (30, 3)])
def test_reduce_trees(values: int, arity: int) -> None:
    """A tree reads each value once, and its levels launch each other."""
    backend = CountedBackend(4)
    with backend.executor() as executor:
        futures = executor.map(double, range(values), chunksize=1)
        backend.run()
        assert futures.result()
        backend.cluster.log.requests.clear()
        before, launched = backend.of_client(), len(backend.launched)
        plan = executor.plan(sum, futures, arity=arity)
        total = executor.reduce(sum, futures, arity=arity)
        backend.run()
        assert total.result() == values * (values - 1)
    assert plan.requests(Side.WORKERS) == backend.of_workers()
    made = {k: n - before.get(k, 0) for k, n in backend.of_client().items()}
    assert plan.requests(Side.CLIENT)[str(Kind.PUT)] == made[str(Kind.PUT)]
    assert plan.requests(Side.CLIENT)[str(Kind.INVOKE)] == len(backend.launched) - launched
    # Every level's outcomes are read by the client too, and the report behind them.
    assert plan.requests(Side.CLIENT)[str(Kind.GET)] == made[str(Kind.GET)]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A file in which every line has every word, so that every split has all keys."""
    path = tmp_path / "words.txt"
    line = " ".join(f"word{n}" for n in range(40)) + "\n"
    path.write_text(line * 400)
    return path


@pytest.mark.parametrize("width", [1, 3, 9])
@pytest.mark.parametrize("reducer", [lambdamr.reducers.sum, both, None])
@pytest.mark.parametrize("split_bytes", [1_000_000, 20_000, 5_000])
def test_map_reduce_over_lines(width: int, reducer: Any, split_bytes: int, text: Path) -> None:
    """Splits, shuffle slices, group indexes and parts; the input is in another store."""
    backend = CountedBackend(width)
    inputs = lambdamr.lines(text, split_bytes=split_bytes)
    with backend.executor() as executor:
        plan = executor.plan(words, inputs, reducer, reducers=3)
        job = executor.map_reduce(words, inputs, reducer, reducers=3)
        backend.run()
        assert job.wait(20)
    reads = plan.requests_for("input")
    assert reads == plan.job.stages[0].plan.tasks, "each split is one read"
    workers = plan.requests(Side.WORKERS)
    workers[str(Kind.GET)] -= reads
    assert {kind: n for kind, n in workers.items() if n} == backend.of_workers()
    assert plan.requests(Side.CLIENT) == backend.of_client()


def test_map_reduce_over_items() -> None:
    """Items travel as arguments; every partition gets pairs of every task."""
    backend = CountedBackend(4)
    lines = [" ".join(f"word{n}" for n in range(60))] * 30
    with backend.executor() as executor:
        plan = executor.plan(words, iter(lines), lambdamr.reducers.sum, reducers=2)
        job = executor.map_reduce(words, iter(lines), lambdamr.reducers.sum, reducers=2)
        backend.run()
        assert job.wait(20)
        assert_counted(plan, backend)
        assert job.result() == {f"word{n}": 30 for n in range(60)}
    read = backend.of_client()[str(Kind.GET)] - plan.requests(Side.CLIENT)[str(Kind.GET)]
    assert read == 2, "the result is a read per part"


@pytest.mark.parametrize("single_file", [False, True])
@pytest.mark.parametrize("form", ["csv", "pickle"])
def test_map_reduce_with_output(single_file: bool, form: str, tmp_path: Path) -> None:
    """The finalizer's looks, reads and notes; what it writes lies in another store."""
    if single_file and form == "pickle":
        pytest.skip("refused: pickles are not joined")
    backend = CountedBackend(3)
    lines = [" ".join(f"word{n}" for n in range(60))] * 30

    def options(name: str) -> dict[str, Any]:
        where = str(tmp_path / name)
        return {
            "reducers": 4, "output": where, "format": form, "single_file": single_file,
        }  # fmt: skip

    with backend.executor() as executor:
        plan = executor.plan(words, iter(lines), both, **options("out"))
        job = executor.map_reduce(words, iter(lines), both, **options("out"))
        backend.run()
        assert job.wait(20)
    assert_counted(plan, backend)


@pytest.mark.parametrize("single_file", [False, True])
def test_map_reduce_with_output_in_the_same_store(single_file: bool) -> None:
    """Under the root's own store files are copied by the store, and those requests count."""
    backend = CountedBackend(3)
    lines = [" ".join(f"word{n}" for n in range(60))] * 30
    options: dict[str, Any] = {
        "reducers": 4, "output": "memory:///out/counts", "format": "csv",
        "single_file": single_file,
    }  # fmt: skip
    with backend.executor() as executor:
        plan = executor.plan(words, iter(lines), both, **options)
        backend.found.clear()
        backend.missed.clear()
        job = executor.map_reduce(words, iter(lines), both, **options)
        backend.run()
        assert job.wait(20)
    assert plan.requests(Side.WORKERS) == backend.of_workers()


def test_a_job_without_tasks() -> None:
    """The client writes the report of a map_reduce over nothing."""
    backend = CountedBackend(3)
    with backend.executor() as executor:
        plan = executor.plan(words, iter([]), lambdamr.reducers.sum)
        job = executor.map_reduce(words, iter([]), lambdamr.reducers.sum)
        assert job.wait(20)
    assert_counted(plan, backend)


@pytest.mark.parametrize("lanes", [1, 2, 3, 9, 30, 800, 5000])
def test_a_tree_launches_every_lane_once(lanes: int) -> None:
    """What the root and the nodes launch are all lanes."""
    tree = tree_of(lanes)
    assert 1 <= tree.top <= lanes
    assert tree.nodes < lanes or lanes == 1
    assert 1 <= tree.levels <= 4


def test_all_outcomes_lie_under_their_prefix() -> None:
    """What lists all outcomes at once lists those of each group."""
    keys = StageKeys("20260101-000000-0123456789ab", "map")
    assert keys.outcomes(3).startswith(keys.all_outcomes)
