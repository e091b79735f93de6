"""What failed and why, and running it again: a new job over the tasks that have no value."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import lambdamr
from lambdamr.job import Job
from tests import faults

LIMIT_S = 30.0


# --- failures ----------------------------------------------------------------------------------


def print_and_fail(item: int) -> int:
    print("working on", item)
    if item % 3 == 0:
        raise ValueError(f"bad {item}")
    return item


def test_failures_of_a_map(pool: lambdamr.Executor) -> None:
    """Each failure has the task, its input, its exception, what it printed and how it ran."""
    futures = pool.map(print_and_fail, range(100, 108), chunksize=3)
    found = futures.failures(LIMIT_S)
    assert [each.task for each in found] == [2, 5]
    assert [each.input for each in found] == [102, 105]
    assert [str(each.exception) for each in found] == ["bad 102", "bad 105"]
    assert found[1].log == "working on 105\n"
    assert found[0].stage == "map"
    assert found[0].job_id == futures.job_id
    assert found[0].stats is not None
    assert found[0].stats.tries == 1
    assert found[0].traceback is not None
    assert repr(found[0]).endswith("map task 2: ValueError: bad 102>")


def fail_with(*args: Any, **kwargs: Any) -> None:
    raise ValueError("always")


def test_inputs_of_every_call(pool: lambdamr.Executor) -> None:
    """The input is what the function was given: one item, several, or keywords too."""
    assert pool.map(fail_with, [None])[0].exception(LIMIT_S) is not None
    inputs = [
        pool.map(fail_with, [None]).failures(LIMIT_S)[0].input,
        pool.map(fail_with, [1], "a").failures(LIMIT_S)[0].input,
        pool.starmap(fail_with, [(1, 2, 3)]).failures(LIMIT_S)[0].input,
        lambdamr.Futures([pool.submit(fail_with, 4, key=5)]).failures(LIMIT_S)[0].input,
        lambdamr.Futures([pool.call_async(fail_with, [6])]).failures(LIMIT_S)[0].input,
    ]
    assert inputs == [None, (1, "a"), (1, 2, 3), ((4,), {"key": 5}), [6]]


def test_inputs_that_are_references(pool: lambdamr.Executor) -> None:
    """Stored data and futures come as what the task was given for them, also in large jobs."""
    data = pool.put({"table": 1})
    value = pool.submit(abs, -7)
    ballast = b"x" * 100_000
    futures = pool.map(
        lambda *_: fail_with(ballast), [data, 1], [value, value], [ballast, b""], chunksize=2
    )
    first, second = futures.failures(LIMIT_S)
    assert first.input == ({"table": 1}, 7, ballast)
    assert second.input == (1, 7, b"")


def test_input_of_a_failed_argument(pool: lambdamr.Executor) -> None:
    """Where an argument is a failed future, asking for the input raises what it raised."""
    broken = pool.submit(faults.raise_named, "NeedsTwo", 1, "x")
    failed = pool.map(lambda a, b: a, [1, broken], [1, 1], chunksize=2)
    (failure,) = failed.failures(LIMIT_S)
    with pytest.raises(faults.NeedsTwo):
        _ = failure.input


def test_loading_an_input_is_left_to_who_asks(pool: lambdamr.Executor, folder: str) -> None:
    """Listing failures loads no input: one whose loading kills its process harms nobody."""
    items = [1, faults.CrashesWhenLoaded(folder, 99)]
    found = pool.map(lambda item: item, items, chunksize=1).failures(LIMIT_S)
    assert [each.task for each in found] == [1]
    assert type(found[0].exception) is lambdamr.TaskLost


def test_failures_of_an_earlier_job(pool: lambdamr.Executor) -> None:
    """Who attaches later finds the failures of a job with their inputs."""
    futures = pool.map(print_and_fail, range(3), chunksize=1)
    futures.wait(LIMIT_S)
    again = lambdamr.attach(futures.job_id, root=str(futures[0]._stage.root))
    assert isinstance(again, lambdamr.Futures)
    assert [each.input for each in again.failures(LIMIT_S)] == [0]


def test_tasks_that_were_not_run_are_not_the_failures(pool: lambdamr.Executor) -> None:
    """Where a job ended early, its failures are what made it end."""
    futures = pool.map(fail_with, range(60), chunksize=1, max_failures=0)
    found = futures.failures(LIMIT_S)
    assert 1 <= len(found) < 20
    assert {type(each.exception) for each in found} == {ValueError}


def test_cancelled_tasks_are_no_failures(pool: lambdamr.Executor, folder: str) -> None:
    """What was cancelled did not fail."""
    futures = pool.map(partial(faults.telling_hold, folder), range(3), chunksize=1)
    futures.cancel()
    assert futures.failures(LIMIT_S) == []


def test_failures_wait_no_longer_than_told(pool: lambdamr.Executor, folder: str) -> None:
    """failures() of what goes on is a TimeoutError, and cancels nothing."""
    futures = pool.map(partial(faults.signed_hold, folder), range(2), chunksize=1)
    with pytest.raises(TimeoutError):
        futures.failures(0.01)
    with pytest.raises(TimeoutError):
        futures.retry_failed(0.01)
    faults.open_gate(folder)
    assert futures.result(LIMIT_S) == [0, 1]


def test_failures_of_a_job(pool: lambdamr.Executor, tmp_path: Path) -> None:
    """A failed map_reduce names the task, the split that it read, and no task that was not run."""
    path = tmp_path / "numbers.txt"
    path.write_text("1\n2\nthree\n")
    job = pool.map_reduce(lambda line: [(int(line), 1)], str(path), lambda key, values: sum(values))
    (failure,) = job.failures(LIMIT_S)
    assert (failure.stage, type(failure.exception)) == ("map", ValueError)
    (split,) = failure.input
    assert split.uri.endswith("numbers.txt")

    def reducer(key: int, values: Iterator[int]) -> int:
        raise LookupError(key)

    job = pool.map_reduce(lambda i: [(i, i)], range(3), reducer, reducers=1)
    (failure,) = job.failures(LIMIT_S)
    assert (failure.stage, failure.task, failure.input) == ("reduce", 0, None)


# --- retry_failed of a map ---------------------------------------------------------------------


def passes_when_open(folder: str, item: int, gate: str = "go") -> int:
    """Fail for odd items until the gate is open; leaves a sign for every call."""
    faults.sign(folder, item)
    if item % 2 and not os.path.exists(f"{folder}/{gate}"):
        raise ValueError(item)
    return item * item


@pytest.mark.parametrize(("tasks", "chunksize", "ballast"), [(9, 1, 0), (9, 4, 0), (30, 7, 99_999)])
def test_retry_failed_runs_only_what_failed(
    pool: lambdamr.Executor, folder: str, tasks: int, chunksize: int, ballast: int
) -> None:
    """The new futures stand in input order, old values and new ones; what had a value is not run
    again; a retry of a retry works too.
    """
    data = b"x" * ballast
    futures = pool.map(
        lambda item, data: passes_when_open(folder, item),
        range(tasks),
        [data] * tasks,
        chunksize=chunksize,
        return_exceptions=True,
    )
    again = futures.retry_failed(LIMIT_S)
    values = again.result(LIMIT_S)
    assert [type(value) for value in values[:3]] == [int, ValueError, int]
    faults.open_gate(folder)
    third = again.retry_failed(LIMIT_S)
    assert third.result(LIMIT_S) == [i * i for i in range(tasks)]
    assert third[1].job_id not in (futures.job_id, again[1].job_id)
    assert third[0] is futures[0]
    assert faults.all_signs(folder) == {
        "go": 1,
        **{str(i): 3 if i % 2 else 1 for i in range(tasks)},
    }


def test_retry_failed_of_nothing(pool: lambdamr.Executor) -> None:
    """Where nothing failed, the futures are the same, and no job is started."""
    futures = pool.map(abs, range(3))
    again = futures.retry_failed(LIMIT_S)
    assert list(again) == list(futures)
    assert lambdamr.Futures(()).retry_failed().result() == []


def test_retry_failed_of_what_was_not_run(pool: lambdamr.Executor, folder: str) -> None:
    """After a cancellation, or an early end, the rest is run by retry_failed()."""
    futures = pool.map(
        partial(passes_when_open, folder), range(1, 60, 2), chunksize=1, max_failures=0
    )
    futures.wait(LIMIT_S)
    faults.open_gate(folder)
    assert futures.retry_failed(LIMIT_S).result(LIMIT_S) == [i * i for i in range(1, 60, 2)]
    other = pool.map(partial(passes_when_open, folder), range(40), chunksize=1)
    other.cancel()
    with pytest.raises(CancelledError):
        other.result(LIMIT_S)
    assert other.retry_failed(LIMIT_S).result(LIMIT_S) == [i * i for i in range(40)]


def test_retry_failed_of_several_jobs(pool: lambdamr.Executor, folder: str) -> None:
    """Futures of several calls are run again each with its own function."""
    first = pool.map(partial(passes_when_open, folder), [1, 2])
    second = pool.map(lambda item: -passes_when_open(folder, item), [3, 4])
    both = lambdamr.Futures([*first, *second])
    both.wait(LIMIT_S)
    faults.open_gate(folder)
    assert both.retry_failed(LIMIT_S).result(LIMIT_S) == [1, 4, -9, -16]


def test_retry_failed_with_references(pool: lambdamr.Executor, folder: str) -> None:
    """Stored data and futures among the arguments are found again."""
    data = pool.put([10])
    value = pool.submit(abs, -5)

    def task(item: int, data: list[int], value: int) -> int:
        return passes_when_open(folder, item) + data[0] + value

    futures = pool.map(task, [1, 2, 3], [data] * 3, [value] * 3, chunksize=3)
    futures.wait(LIMIT_S)
    faults.open_gate(folder)
    assert futures.retry_failed(LIMIT_S).result(LIMIT_S) == [16, 19, 24]


def test_retry_failed_after_shutdown(root: str, folder: str) -> None:
    """An executor that is shut down runs nothing again; who attaches can."""
    with lambdamr.Executor(workers=1, root=root) as executor:
        futures = executor.map(partial(passes_when_open, folder), range(4), chunksize=1)
        futures.wait(LIMIT_S)
    with pytest.raises(RuntimeError, match="after shutdown"):
        futures.retry_failed(LIMIT_S)
    faults.open_gate(folder)
    attached = lambdamr.attach(futures.job_id, root=root)
    assert isinstance(attached, lambdamr.Futures)
    assert attached.retry_failed(LIMIT_S).result(LIMIT_S) == [0, 1, 4, 9]


def test_retry_failed_of_a_reduction_is_refused(pool: lambdamr.Executor) -> None:
    """A task that folds others cannot be run by itself: that is said."""
    total = pool.reduce(fail_with, [pool.submit(abs, i) for i in range(4)], arity=2)
    with pytest.raises(ValueError, match="hang on others"):
        lambdamr.Futures([total]).retry_failed(LIMIT_S)


def test_retry_failed_when_the_job_was_deleted(pool: lambdamr.Executor) -> None:
    """What is gone is named."""
    ballast = b"x" * 100_000
    futures = pool.map(lambda item: fail_with(ballast), [ballast], chunksize=1)
    futures.wait(LIMIT_S)
    futures.delete()
    with pytest.raises(lambdamr.CorruptObject, match="args, the arguments of job"):
        futures.retry_failed(LIMIT_S)
    with pytest.raises(lambdamr.CorruptObject, match="args"):
        _ = futures.failures(LIMIT_S)[0].input


# --- retry_failed of a map_reduce --------------------------------------------------------------


def words_when_open(folder: str, line: str) -> Iterator[tuple[str, int]]:
    faults.sign(folder, f"line {line[:4]}")
    if line.startswith("bad") and not os.path.exists(f"{folder}/go"):
        raise ValueError(line)
    for word in line.split():
        yield word, 1


LINES = ["a b c a", "bad d a", "c c b e", "bad c", "f", "", "g a"]
WORDS = dict(Counter(word for line in LINES for word in line.split()))


@pytest.mark.parametrize("max_failures", [0, 5])
def test_a_map_reduce_runs_again_what_failed(
    pool: lambdamr.Executor, folder: str, max_failures: int
) -> None:
    """The retried job has the result of all tasks; mappers whose task had a result are not run
    again, whether the first job failed or was partial; receipts balance.
    """
    job = pool.map_reduce(
        partial(words_when_open, folder),
        LINES,
        lambda word, counts: sum(counts),
        max_failures=max_failures,
        reducers=3,
    )
    job.wait(LIMIT_S)
    assert job.report().status == ("done" if max_failures else "failed")
    passed = [f.task for f in job.map_futures if not f.cancelled() and f.exception() is None]
    faults.open_gate(folder)
    again = job.retry_failed(LIMIT_S)
    assert again.job_id != job.job_id
    assert again.result(LIMIT_S) == WORDS
    report = again.report()
    assert report.status == "done"
    assert not report.partial
    assert report.stages["map"].emitted == sum(WORDS.values())
    signs = faults.all_signs(folder)
    for task in passed:
        assert signs[f"line {LINES[task][:4]}"] <= 1 + (LINES[task][:4] == "bad ")
    job.delete()
    assert again.result(LIMIT_S) == WORDS
    assert again.retry_failed(LIMIT_S) is again


def test_a_failed_reduce_is_run_again_alone(pool: lambdamr.Executor, folder: str) -> None:
    """Where a reducer failed, no mapper runs again."""

    def reducer(word: str, counts: Iterator[int]) -> int:
        if word == "c" and not os.path.exists(f"{folder}/go"):
            raise ValueError(word)
        return sum(counts)

    lines = [line for line in LINES if not line.startswith("bad")]
    job = pool.map_reduce(partial(words_when_open, folder), lines, reducer)
    with pytest.raises(ValueError, match="c"):
        job.result(LIMIT_S)
    before = faults.all_signs(folder)
    faults.open_gate(folder)
    again = job.retry_failed(LIMIT_S)
    assert again.result(LIMIT_S) == dict(Counter(w for line in lines for w in line.split()))
    assert faults.all_signs(folder) == {**before, "go": 1}


@pytest.mark.parametrize("form", ["pickle", "jsonl"])
def test_a_job_without_reducer_is_run_again(
    pool: lambdamr.Executor, folder: str, tmp_path: Path, form: str
) -> None:
    """Parts and files of tasks that had passed are taken over, and the output is whole."""
    output = tmp_path / "out"
    job = pool.map_reduce(
        partial(words_when_open, folder), LINES, None, output=str(output), format=form
    )
    job.wait(LIMIT_S)
    assert not list(output.glob("part-*"))
    faults.open_gate(folder)
    again = job.retry_failed(LIMIT_S)
    assert list(again.items(LIMIT_S)) == [(word, 1) for line in LINES for word in line.split()]
    assert len(again.outputs) == len(LINES)
    assert (output / "_SUCCESS").exists()


def test_a_partial_output_is_not_overwritten(
    pool: lambdamr.Executor, folder: str, tmp_path: Path
) -> None:
    """A partial job whose output is placed is run again only where overwrite=True was given."""
    for overwrite in (False, True):
        job = pool.map_reduce(
            partial(words_when_open, folder),
            LINES,
            lambdamr.reducers.sum,
            output=str(tmp_path / "out"),
            format="csv",
            max_failures=5,
            overwrite=overwrite,
        )
        job.wait(LIMIT_S)
        if not overwrite:
            with pytest.raises(ValueError, match="has placed its output"):
                job.retry_failed(LIMIT_S)
    faults.open_gate(folder)
    assert job.retry_failed(LIMIT_S).result(LIMIT_S) == WORDS


def test_what_is_taken_over_is_verified(pool: lambdamr.Executor, folder: str) -> None:
    """A damaged or missing shuffle object of the earlier job is CorruptObject with its key."""
    for damage in ("flip", "cut", "remove"):
        job = pool.map_reduce(
            partial(words_when_open, folder), LINES, lambdamr.reducers.sum, max_failures=2
        )
        job.wait(LIMIT_S)
        shuffled = list(Path(job._job.backend.store.root).glob(f"shuffle/*/{job.job_id}/map/0.*"))
        for path in shuffled:
            data = bytearray(path.read_bytes())
            if damage == "remove":
                path.unlink()
            else:
                data[20] ^= 1
                path.write_bytes(data[:-3] if damage == "cut" else data)
        assert shuffled
        with pytest.raises(lambdamr.CorruptObject, match="shuffle/"):
            job.retry_failed(LIMIT_S).result(LIMIT_S)


def test_a_job_that_ran_over_its_limit_is_run_again(pool: lambdamr.Executor, folder: str) -> None:
    """After a JobTimeout the rest is run with the same limit, counted anew."""

    def mapper(item: int) -> list[tuple[int, int]]:
        faults.sign(folder, item)
        if item == 3 and not os.path.exists(f"{folder}/go"):
            faults.sleep_long()
        return [(item, 1)]

    job = pool.map_reduce(mapper, range(8), lambdamr.reducers.sum, job_timeout_s=2.0)
    with pytest.raises(lambdamr.JobTimeout):
        job.result(LIMIT_S)
    faults.open_gate(folder)
    assert job.retry_failed(LIMIT_S).result(LIMIT_S) == dict.fromkeys(range(8), 1)


def test_a_killed_clients_job_is_finished_and_run_again(root: str, folder: str) -> None:
    """attach() to a failed job of a program that is gone, in a fresh process, can run it again."""
    program = f"""
        from functools import partial
        import lambdamr
        from tests import test_retrying as tests
        with lambdamr.Executor(workers=1) as executor:
            job = executor.map_reduce(
                partial(tests.words_when_open, {folder!r}), tests.LINES, lambdamr.reducers.sum
            )
            job.wait(30)
            print(job.job_id)
    """
    job_id = faults.run_client(program, root).strip()
    faults.open_gate(folder)
    job = lambdamr.attach(job_id, root=root)
    assert isinstance(job, Job)
    assert job.retry_failed(LIMIT_S).result(LIMIT_S) == WORDS


def test_the_modules_of_the_user_travel_again(root: str, tmp_path: Path) -> None:
    """A function of a shipped module is run again with the module that was stored."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "mine_again.py").write_text(
        "import os\ndef work(gate):\n    if not os.path.exists(gate): raise ValueError(gate)\n"
        "    return 1\n"
    )
    sys.path.insert(0, str(folder))
    try:
        import mine_again  # type: ignore[import-not-found]  # just written

        gate = str(tmp_path / "gate")
        with lambdamr.Executor(workers=1, root=root) as executor:
            futures = executor.map(mine_again.work, [gate])
            futures.wait(LIMIT_S)
            shutil.rmtree(folder)
            Path(gate).touch()
            assert futures.retry_failed(LIMIT_S).result(LIMIT_S) == [1]
    finally:
        sys.path.remove(str(folder))
