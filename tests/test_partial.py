"""Jobs that are done though some of their tasks failed: what is left out, counted and said."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import lambdamr
from tests import faults

LIMIT_S = 30.0


def write_files(folder: Path, count: int) -> list[str]:
    """Write files of three lines each, a number per line; returns their paths."""
    paths = [folder / f"{number:02d}.txt" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_text("".join(f"{3 * number + i}\n" for i in range(3)))
    return [str(path) for path in paths]


def tens_without(*bad: int) -> "partial[list[tuple[int, int]]]":
    return partial(_tens, bad=frozenset(bad))


def _tens(line: str, bad: frozenset[int]) -> list[tuple[int, int]]:
    if int(line) in bad:
        raise ValueError(f"bad {line}")
    return [(int(line) % 10, 1)]


def expected(count: int, bad_files: set[int]) -> dict[int, int]:
    numbers = [n for n in range(3 * count) if n // 3 not in bad_files]
    return dict(Counter(n % 10 for n in numbers))


def one_file_each(executor: lambdamr.Executor, paths: list[str]) -> object:
    """Splits of one file per task."""
    return lambdamr.lines(*paths, split_bytes=1, planner="fixed")


@pytest.mark.parametrize("allowed", [2, 0.41])
def test_a_partial_map_reduce(pool: lambdamr.Executor, tmp_path: Path, allowed: float) -> None:
    """Map tasks that fail, as many as max_failures allows, are left out of the result; the report
    says partial, counts them, and its receipts cover the rest.
    """
    job = pool.map_reduce(
        lambda item: [(item % 3, 1 // (item not in (4, 8)))],
        range(10),
        lambda key, values: sum(values),
        max_failures=allowed,
    )
    values = job.result(LIMIT_S)
    failed = [f.task for f in job.map_futures if f.exception() is not None]
    assert 1 <= len(failed) <= 2
    report = job.report()
    assert (report.status, report.partial) == ("done", True)
    assert report.stages["map"].failed == len(failed)
    assert sum(values.values()) == report.stages["map"].emitted == 10 - _items(job, failed)
    assert f"{len(failed)} failed" in repr(report)
    assert "done, partial" in repr(report)


def _items(job: lambdamr.Job, failed: list[int]) -> int:
    """Return how many of ten items the failed tasks had."""
    size = -(-10 // len(job.map_futures))
    return sum(len(range(10)[task * size : (task + 1) * size]) for task in failed)


def test_a_whole_job_is_not_partial(pool: lambdamr.Executor) -> None:
    """A job without failures is done, whatever it would have been allowed."""
    job = pool.map_reduce(lambda i: [(i, i)], range(4), lambda k, v: sum(v), max_failures=0.5)
    assert job.result(LIMIT_S) == {i: i for i in range(4)}
    assert not job.report().partial


def test_one_failure_too_many(pool: lambdamr.Executor) -> None:
    """More failed map tasks than allowed fail the job with what the first of them raised."""
    job = pool.map_reduce(
        lambda i: [(i, 1 // (i % 2))], range(8), lambda k, v: sum(v), max_failures=1
    )
    with pytest.raises(ZeroDivisionError):
        job.result(LIMIT_S)
    assert job.report().status == "failed"
    assert "(max_failures=)" in job.report().reason


def test_a_failed_reducer_is_never_left_out(pool: lambdamr.Executor) -> None:
    """A partition that fails would take keys of all inputs with it: it fails the job."""

    def reducer(key: int, values: Iterator[int]) -> int:
        raise LookupError(key)

    job = pool.map_reduce(lambda i: [(i, i)], range(8), reducer, max_failures=5)
    with pytest.raises(LookupError):
        job.result(LIMIT_S)


def test_a_partial_job_without_reducer(pool: lambdamr.Executor, tmp_path: Path) -> None:
    """Of a job that only maps, the parts of failed tasks are missing; so are their files, also
    where an earlier job has left some under these names.
    """
    output = tmp_path / "out"
    pairs = [(i, i) for i in range(8)]
    whole = pool.map_reduce(lambda i: [(i, i)], range(8), None, output=str(output), format="jsonl")
    assert list(whole.items(LIMIT_S)) == pairs
    assert len(whole.outputs) == len(list(output.glob("part-*"))) == 8
    job = pool.map_reduce(
        lambda i: [(i, i // (i != 3))],
        range(8),
        None,
        output=str(output),
        format="jsonl",
        overwrite=True,
        max_failures=1,
    )
    assert list(job.items(LIMIT_S)) == pairs[:3] + pairs[4:]
    assert job.report().partial
    assert [Path(uri).name for uri in job.outputs] == [
        f"part-{i:05d}.jsonl" for i in range(8) if i != 3
    ]
    assert sorted(path.name for path in output.glob("part-*")) == [
        Path(uri).name for uri in job.outputs
    ]
    assert sum(1 for _ in job.as_completed(LIMIT_S)) == 7


def test_both_kinds_of_retries_are_counted(pool: lambdamr.Executor, folder: str) -> None:
    """Calls that raised and processes that died are told apart, per task and in the report."""

    def mapper(item: int) -> list[tuple[int, int]]:
        tried = faults.sign(folder, item)
        if item == 1 and tried <= 2:
            raise ValueError("twice")
        if item == 2 and tried == 1:
            faults.die("exit")
        return [(item, item)]

    job = pool.map_reduce(mapper, range(4), lambda key, values: sum(values), retries=2)
    assert job.result(LIMIT_S) == {i: i for i in range(4)}
    stats = [stats for stats in job.map_futures.stats() if stats is not None]
    assert [each.tries for each in stats] == [1, 3, 1, 1]
    assert [each.attempt for each in stats] == [0, 0, 1, 0]
    totals = job.report().stages["map"]
    assert (totals.retries, totals.deaths) == (2, 1)
    assert "retries: 2 of the user's; processes lost: 1" in repr(job.report())


def test_a_lost_task_has_used_no_retries(pool: lambdamr.Executor, folder: str) -> None:
    """Deaths of a process use up no retries= and count as none."""
    future = pool.map(partial(faults.die_at, folder, bad=1, how="exit", times=99), [1], retries=5)[
        0
    ]
    assert type(future.exception(LIMIT_S)) is lambdamr.TaskLost
    assert future.stats is not None
    assert (future.stats.tries, future.stats.attempt) == (1, 3)
    assert faults.signs(folder, 1) == 3
