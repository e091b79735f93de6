"""The engine in real jobs: memory limits that are enforced, map-only jobs, options, reports."""

from collections.abc import Iterator
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

import lambdamr
from lambdamr import reducers
from lambdamr_runtime.errors import StoreError
from lambdamr_runtime.parts import part_blocks, put_parts, read_part
from lambdamr_runtime.store import PART_BYTES, open_store

SMALL_MB = 128
"""Memory of a worker, of which Python and the store client take a third."""


@pytest.fixture(scope="module")
def small() -> Iterator[lambdamr.Executor]:
    """Workers that are ended when they take more than SMALL_MB."""
    with lambdamr.Executor(workers=2, memory_mb=SMALL_MB) as executor:
        yield executor


def peak_mb(job: lambdamr.Job) -> float:
    futures = (*job.map_futures, *job.reduce_futures)
    return max(float(future.stats.peak_mb) for future in futures)


def test_a_hot_key_larger_than_memory_streams(small: lambdamr.Executor) -> None:
    """200 MB of values of one key pass through workers of 128 MB, in order."""

    def mapper(task: int) -> Iterator[Any]:
        yield "cold", b"%d" % task
        for number in range(25):
            yield "hot", b"%03d" % (task * 25 + number) + bytes(1_000_000)

    def reducer(key: str, values: Iterator[bytes]) -> tuple[int, bool]:
        count, last, in_order = 0, b"", True
        for value in values:
            count += 1
            in_order = in_order and last < value[:3]
            last = value[:3]
        return count, in_order

    job = small.map_reduce(mapper, range(8), reducer)
    assert job.result() == {"cold": (8, True), "hot": (200, True)}
    assert peak_mb(job) <= SMALL_MB
    report = job.report()
    assert report.stages["map"].pairs_written == report.stages["reduce"].pairs_read == 208


@pytest.mark.parametrize("plain", [False, True])
def test_keys_that_outgrow_memory_are_merged(small: lambdamr.Executor, plain: bool) -> None:
    """600,000 distinct keys, each twice, in workers that cannot hold their dictionary."""

    def mapper(task: int) -> Iterator[tuple[str, int]]:
        for number in range(600_000):
            yield f"the key of number {number:09d}", task

    reducer: Any = (lambda _, values: sum(values)) if plain else reducers.sum
    job = small.map_reduce(mapper, [1, 2], reducer, reducers=1)
    count = 0
    for number, (key, value) in enumerate(job.items()):
        assert (key, value) == (f"the key of number {number:09d}", 3)
        count += 1
    assert count == 600_000
    assert peak_mb(job) <= SMALL_MB
    report = job.report()
    assert report.stages["map"].spilled_runs >= 2
    assert "spilled" in str(report)


def test_a_job_without_reducer_keeps_the_pairs_in_order(
    executor: lambdamr.Executor, tmp_path: Path
) -> None:
    """Each map task writes its pairs as an output part; receipts and report are as ever."""
    path = tmp_path / "numbers.txt"
    path.write_text("".join(f"{number}\n" for number in range(5_000)))
    source = lambdamr.lines(str(path), split_bytes=5_000)
    job = executor.map_reduce(lambda line: [(int(line), line)] * (line != "7"), source, None)
    expected = [(number, str(number)) for number in range(5_000) if number != 7]
    assert list(job.items()) == expected
    assert job.result() == dict(expected)
    assert len(job.outputs) == len(job.map_futures) == len(job.reduce_futures) == 5
    totals = job.report().stages["map"]
    assert (totals.records, totals.emitted, totals.output_pairs) == (5_000, 4_999, 4_999)
    assert totals.bytes_read == path.stat().st_size
    assert list(lambdamr.attach(job.job_id).items()) == expected  # type: ignore[union-attr]


def test_a_job_without_reducer_may_be_empty_or_fail(executor: lambdamr.Executor) -> None:
    """No input is an empty result; repeated keys need items(); a mapper's error comes back."""
    assert executor.map_reduce(lambda item: [(item, 1)], [], None).result() == {}
    job = executor.map_reduce(lambda item: [("same", item)], [1, 2], None)
    with pytest.raises(lambdamr.DuplicateKey, match="the key 'same' twice"):
        job.result()
    assert list(job.items()) == [("same", 1), ("same", 2)]
    with pytest.raises(ZeroDivisionError):
        executor.map_reduce(lambda item: [(1, 1 / item)], [0], None).result()
    with pytest.raises(lambdamr.InvalidPairs, match="yielded 'ab'"):
        executor.map_reduce(lambda item: ["ab"], [0], None).result()


def test_options_reach_the_tasks(executor: lambdamr.Executor) -> None:
    """combiner, partitioner and sort_key do what they say in a real job."""
    words = ["bb", "a", "ccc", "a", "BB"] * 10
    job = executor.map_reduce(
        lambda word: [(word, 1)],
        words,
        lambda _, values: sum(values),
        combiner=reducers.sum,
        partitioner=lambda key, partitions: min(len(key), partitions) - 1,
        sort_key=str.lower,
        reducers=3,
        spill_share=0.9,
        merge_width=2,
        compress=True,
    )
    assert list(job.items()) == [("a", 20), ("bb", 20), ("ccc", 10)]
    assert job.report().stages["map"].pairs_written < len(words)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spill_share": 0}, "spill_share must be above 0 and at most 1, got 0"),
        ({"spill_share": 1.5}, "spill_share must be above 0 and at most 1, got 1.5"),
        ({"merge_width": 1}, "merge_width must be >= 2, got 1"),
        ({"combiner": reducers.mean}, "mean cannot be a combiner"),
        ({"reducers": 0}, "reducers must be >= 1, got 0"),
    ],
)
def test_wrong_options_are_refused(
    executor: lambdamr.Executor, options: dict[str, Any], message: str
) -> None:
    """Before anything is launched, with the value and the range."""
    with pytest.raises(ValueError, match=message):
        executor.map_reduce(lambda item: [(item, 1)], [1], lambda _, v: sum(v), **options)


def test_options_that_do_not_go_together_are_refused(executor: lambdamr.Executor) -> None:
    """A combiner is for plain reducers; what is called must be callable."""
    for reducer in (None, reducers.sum):
        with pytest.raises(ValueError, match="combiner= goes with a reducer"):
            executor.map_reduce(lambda item: [], [1], reducer, combiner=reducers.sum)
    with pytest.raises(TypeError, match="partitioner and sort_key must be callable"):
        executor.map_reduce(lambda item: [], [1], reducers.sum, sort_key=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one mapper"):
        executor.map_reduce([], [1], reducers.sum)


def test_reports_have_the_seconds_of_each_phase(executor: lambdamr.Executor) -> None:
    """The phases of a stage add up to little more than nothing and no more than its tasks."""
    job = executor.map_reduce(
        lambda item: [(n % 97, n) for n in range(20_000)], range(4), lambda _, v: len(list(v))
    )
    assert sum(job.result().values()) == 80_000
    report = job.report()
    for totals in report.stages.values():
        phases = [
            getattr(totals, f"{name}_s")
            for name in ("read", "map", "combine", "sort", "write", "fetch", "merge", "reduce")
        ]
        assert 0 < sum(phases) <= totals.task_seconds
    assert "seconds: map " in str(report)


def test_reducers_are_there_by_their_name() -> None:
    """lambdamr.reducers is a module of the package, loaded when it is first asked for."""
    names = attrgetter(*lambdamr.reducers.__all__)(lambdamr.reducers)
    assert len(names) == 10
    assert "reducers" in dir(lambdamr)


# --- streams ------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [False, True])
def test_a_stream_is_written_whole_or_not_at_all(tmp_path: Path, memory: bool) -> None:
    """Parts of any size become one object; what they raise is raised, and nothing is there."""
    store = open_store("memory://" if memory else str(tmp_path))
    for parts in ([], [b""], [b"small"], [b"x" * PART_BYTES, b"", b"y" * 3_000_000, b"z"]):
        expected = b"".join(parts)
        assert store.put_stream("a/b", iter(parts)) == len(expected)
        assert store.get("a/b") == expected
        assert put_parts(store, "a/c", iter(parts)) == len(expected)
        assert store.get("a/c") == expected

    def failing(before: int, error: BaseException) -> Iterator[bytes]:
        for _ in range(before):
            yield b"x" * 1_000_000
        raise error

    for error in (KeyError("mine"), OSError("mine"), StoreError("mine")):
        for before in (0, 1, 40):
            with pytest.raises(type(error), match="mine"):
                store.put_stream("a/d", failing(before, error))
            assert not store.exists("a/d")
    assert sorted(entry.key for entry in store.list("a")) == ["a/b", "a/c"]


def test_a_damaged_part_is_never_believed(root: str) -> None:
    """Whichever byte of an output part differs, or is missing, reading it says so."""
    with lambdamr.Executor(workers=1, root=root) as executor:
        job = executor.map_reduce(lambda n: [(n, "value")], range(900), reducers.collect)
        table = job.reduce_futures[0].result().blocks
        data = Path(job.outputs[0]).read_bytes()
    assert list(read_part(data, "part")) == [(n, ["value"]) for n in range(900)]
    assert sum(map(len, part_blocks(partial(cut, data), table, "part"))) == 900
    for position in range(0, len(data), 29):
        damaged = bytearray(data)
        damaged[position] ^= 1
        for wrong in (bytes(damaged), data[:position]):
            with pytest.raises(lambdamr.CorruptObject, match="part is damaged"):
                list(part_blocks(partial(cut, wrong), table, "part"))


def cut(data: bytes, at: int, size: int) -> bytes:
    return data[at : at + size]
