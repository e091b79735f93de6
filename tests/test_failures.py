"""Failures of tasks and of their processes, with real workers: each ends in the right result or
in an error that says what happened.
"""

import pickle
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from functools import partial
from queue import SimpleQueue
from typing import Any

import pytest

import lambdamr
from lambdamr.local import LocalBackend
from lambdamr.submission import Packing, StageDraft, prepare
from lambdamr_runtime.wire import StageKind
from lambdamr_runtime.work import Call
from tests import faults

LIMIT_S = 30.0
"""Longest wait for a result in these tests."""


# --- exceptions of the user's function ---------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "args", "kwargs", "state"),
    [
        ("NeedsTwo", (7, "here"), {}, {"code": 7, "where": "here"}),
        ("KeywordOnly", (), {"code": 8}, {"code": 8}),
        ("NoSuper", (9,), {"note": "n"}, {"code": 9, "note": "n"}),
        ("Frozen", (10,), {}, {"code": 10}),
    ],
)
def test_odd_constructors(
    pool: lambdamr.Executor,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    state: dict[str, Any],
) -> None:
    """An exception whose constructor pickle cannot call comes back as itself, attributes kept."""
    error = pool.submit(faults.raise_named, name, *args, **kwargs).exception(LIMIT_S)
    assert type(error) is getattr(faults, name)
    assert error is not None
    assert {key: getattr(error, key) for key in state} == state
    assert isinstance(error.__cause__, lambdamr.RemoteTraceback)
    assert "raise_named" in str(error.__cause__)


def test_unpicklable_attribute(pool: lambdamr.Executor) -> None:
    """An exception with an attribute that cannot be pickled keeps its type and its message."""
    error = pool.submit(faults.raise_named, "HoldsLock", "the text").exception(LIMIT_S)
    assert type(error) is faults.HoldsLock
    assert error.args == ("the text",)


def test_broken_str(pool: lambdamr.Executor) -> None:
    """An exception whose __str__ raises comes back as itself, with its arguments."""
    error = pool.submit(faults.raise_named, "BadStr", 1, 2).exception(LIMIT_S)
    assert type(error) is faults.BadStr
    assert error.args == (1, 2)


def test_broken_reduce(pool: lambdamr.Executor) -> None:
    """An exception whose __reduce__ raises still comes back: rebuilt, or as text."""
    error = pool.submit(faults.raise_named, "BadReduce", "the text").exception(LIMIT_S)
    assert error is not None
    assert isinstance(error, (faults.BadReduce, lambdamr.RemoteError))
    assert "the text" in str(error)
    assert "raise_named" in str(error.__cause__)


def test_argument_of_the_exception_without_text_and_pickle(pool: lambdamr.Executor) -> None:
    """An exception that can neither be pickled nor shown keeps its type and kills no process."""
    future = pool.submit(faults.raise_it, lambda: ValueError(faults.BadText()))
    error = future.exception(LIMIT_S)
    assert type(error) is ValueError
    assert "RuntimeError" in str(error)
    assert future.stats is not None
    assert future.stats.attempt == 0


def test_exception_class_by_value(pool: lambdamr.Executor) -> None:
    """An exception class that only this function knows is caught as itself."""

    class Local(Exception):
        pass

    def fail() -> None:
        raise Local("mine", 5)

    error = pool.submit(fail).exception(LIMIT_S)
    assert type(error) is Local
    assert error.args == ("mine", 5)


def test_exception_group(pool: lambdamr.Executor) -> None:
    """A group comes back with all of its exceptions, at any depth."""

    def fail() -> None:
        raise ExceptionGroup(
            "all", [ValueError(1), ExceptionGroup("in", [faults.KeywordOnly(code=2)])]
        )

    error = pool.submit(fail).exception(LIMIT_S)
    assert isinstance(error, ExceptionGroup)
    assert error.message == "all"
    assert isinstance(error.exceptions[0], ValueError)
    inner = error.exceptions[1]
    assert isinstance(inner, ExceptionGroup)
    assert isinstance(inner.exceptions[0], faults.KeywordOnly)
    assert inner.exceptions[0].code == 2


def test_exception_group_that_cannot_be_pickled(pool: lambdamr.Executor) -> None:
    """A group with a part that cannot travel keeps its form; that part has its text."""

    def fail() -> None:
        raise ExceptionGroup("all", [ValueError("part one"), OSError(threading.Lock())])

    error = pool.submit(fail).exception(LIMIT_S)
    assert isinstance(error, ExceptionGroup)
    assert [type(part) for part in error.exceptions] == [ValueError, OSError]
    assert "_thread.lock" in str(error.exceptions[1])
    assert "part one" in str(error.__cause__)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration])
def test_exits_are_results(pool: lambdamr.Executor, kind: type[BaseException]) -> None:
    """What would end a program ends the task only: it is the future's exception, tried once."""
    future = pool.submit(faults.raise_it, partial(kind, "why"))
    error = future.exception(LIMIT_S)
    assert type(error) is kind
    assert error.args == ("why",)
    assert future.stats is not None
    assert (future.stats.tries, future.stats.attempt) == (1, 0)


def test_sys_exit(pool: lambdamr.Executor) -> None:
    """sys.exit in a task is SystemExit with its code, and the worker goes on."""
    error = pool.submit(sys.exit, 4).exception(LIMIT_S)
    assert isinstance(error, SystemExit)
    assert error.code == 4


def test_recursion(pool: lambdamr.Executor) -> None:
    """Endless recursion is RecursionError, with a traceback of bounded size."""
    future = pool.submit(faults.recurse)
    error = future.exception(LIMIT_S)
    assert isinstance(error, RecursionError)
    assert "recurse" in str(error.__cause__)
    assert len(str(error.__cause__)) < 100_000
    assert future.traceback is not None


def test_causes_are_in_the_text(pool: lambdamr.Executor) -> None:
    """The remote traceback tells the whole chain of causes and contexts, without our frames."""
    error = pool.submit(faults.chained).exception(LIMIT_S)
    text = str(error.__cause__)  # type: ignore[union-attr]  # it is not None
    places = [text.index(part) for part in ("the first cause", "the second cause", "the effect")]
    assert places == sorted(places)
    assert "direct cause" in text
    assert "During handling" in text
    assert "lambdamr_runtime" not in text


def test_cancelled_error_of_the_task(pool: lambdamr.Executor) -> None:
    """A task that raises CancelledError makes its future end as cancelled, not hang."""
    future = pool.submit(faults.raise_it, CancelledError)
    with pytest.raises(CancelledError):
        future.result(LIMIT_S)


# --- what cannot be pickled --------------------------------------------------------------------
def test_unpicklable_result(pool: lambdamr.Executor) -> None:
    """A result that cannot be pickled names its type and the way out; siblings have theirs."""

    def lock_of_two(item: int) -> object:
        return threading.Lock() if item == 2 else item

    futures = pool.map(lock_of_two, range(4), chunksize=4)
    errors = futures.exceptions(LIMIT_S)
    assert isinstance(errors[2], lambdamr.ResultNotSerializable)
    assert "lock" in str(errors[2])
    assert [futures[i].result() for i in (0, 1, 3)] == [0, 1, 3]


@pytest.mark.parametrize("how", ["raise", "exit"])
def test_result_that_cannot_be_loaded(pool: lambdamr.Executor, how: str) -> None:
    """A result that cannot be loaded here is its future's exception, whatever loading raises;
    its siblings and later calls are not touched.
    """
    futures = pool.map(
        lambda item: faults.Nowhere(how) if item == 1 else item, range(3), chunksize=3
    )
    error = futures[1].exception(LIMIT_S)
    assert error is not None
    assert "loaded elsewhere" in str(error)
    assert [futures[i].result(LIMIT_S) for i in (0, 2)] == [0, 2]
    assert pool.submit(abs, -5).result(LIMIT_S) == 5


@pytest.mark.parametrize("how", ["raise", "exit"])
def test_exception_that_cannot_be_loaded(pool: lambdamr.Executor, how: str) -> None:
    """An exception that cannot be loaded here is RemoteError with its type and its traceback."""
    error = pool.submit(faults.raise_named, "NowhereError", how).exception(LIMIT_S)
    assert isinstance(error, lambdamr.RemoteError)
    assert "NowhereError" in str(error)
    assert "raise_named" in str(error.__cause__)


def test_unpicklable_closure(pool: lambdamr.Executor) -> None:
    """A function that holds what cannot be pickled is refused at once, and says what it was."""
    lock = threading.Lock()

    def use() -> bool:
        return lock.locked()

    with pytest.raises(lambdamr.ArgumentNotSerializable, match=r"function.*lock"):
        pool.submit(use)


def test_unpicklable_argument_names_its_task(pool: lambdamr.Executor) -> None:
    """One bad argument among many is named by its task."""
    items: list[object] = list(range(50))
    items[37] = threading.Lock()
    with pytest.raises(lambdamr.ArgumentNotSerializable, match=r"task 37\b.*lock"):
        pool.map(str, items)


# --- the process dies --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("how", "text"), [("exit", "exit status 3"), ("segfault", "SIGSEGV"), ("kill", "SIGKILL")]
)
def test_task_lost(pool: lambdamr.Executor, folder: str, how: str, text: str) -> None:
    """A task whose process always dies is tried three times; TaskLost tells how it died, where,
    and what it printed last.
    """
    future = pool.submit(faults.die_at, folder, 1, 1, how, 99)
    error = future.exception(LIMIT_S)
    assert type(error) is lambdamr.TaskLost
    assert text in str(error)
    assert "3 times" in str(error)
    assert f"about to die by {how}" in str(error)
    assert f"about to die by {how}" in future.logs()
    assert faults.signs(folder, 1) == 3
    if how == "segfault":
        assert "in die_at" in str(error)
        assert "lambdamr_runtime" not in str(error)


def test_siblings_of_a_lost_task(pool: lambdamr.Executor, folder: str) -> None:
    """A task that dies neither reruns nor fails the other tasks of its chunk."""
    fn = partial(faults.die_at, folder, bad=4, how="exit", times=99)
    futures = pool.map(fn, range(9), chunksize=9)
    errors = futures.exceptions(LIMIT_S)
    assert [type(error) for error in errors if error is not None] == [lambdamr.TaskLost]
    assert [futures[i].result() for i in range(9) if i != 4] == [i for i in range(9) if i != 4]
    assert faults.all_signs(folder) == {str(i): 3 if i == 4 else 1 for i in range(9)}


def test_two_deadly_tasks_in_a_chunk(pool: lambdamr.Executor, folder: str) -> None:
    """Each task of a chunk has its own infrastructure retries: a death counts for one task."""

    def task(item: int) -> int:
        return faults.die_at(folder, item, item if item in (1, 3) else -1, "exit", 2)

    assert pool.map(task, range(5), chunksize=5).result(LIMIT_S) == list(range(5))
    assert faults.all_signs(folder) == {"0": 1, "1": 3, "2": 1, "3": 3, "4": 1}


def test_dies_once_then_passes(pool: lambdamr.Executor, folder: str) -> None:
    """A task whose process dies once has a result, and its stats tell the attempt."""
    future = pool.submit(faults.die_at, folder, 1, 1, "kill", 1)
    assert future.result(LIMIT_S) == 1
    assert future.stats is not None
    assert future.stats.attempt == 1
    assert faults.signs(folder, 1) == 2


def test_crash_while_arguments_are_loaded(pool: lambdamr.Executor, folder: str) -> None:
    """Arguments whose loading ends the process make the tasks of their chunk TaskLost; other
    chunks have their results.
    """
    items: list[object] = [0, 1, faults.CrashesWhenLoaded(folder, 99), 3, 4, 5]
    futures = pool.map(lambda item: item, items, chunksize=2)
    errors = futures.exceptions(LIMIT_S)
    assert [type(error) for error in errors[2:4]] == [lambdamr.TaskLost] * 2
    assert [futures[i].result() for i in (0, 1, 4, 5)] == [0, 1, 4, 5]
    assert faults.signs(folder, "load") == 3


def test_crash_while_the_function_is_loaded(pool: lambdamr.Executor, folder: str) -> None:
    """A function whose loading ends the process once is loaded again; always: TaskLost."""
    once = pool.map(faults.CrashesWhenLoaded(folder, 1), range(3), chunksize=3)
    assert once.result(LIMIT_S) == [0, 1, 2]
    always = pool.map(faults.CrashesWhenLoaded(folder, 99), range(3), chunksize=3)
    assert {type(error) for error in always.exceptions(LIMIT_S)} == {lambdamr.TaskLost}


def test_worker_killed_by_its_task(pool: lambdamr.Executor, folder: str) -> None:
    """A task that kills the worker which watches it once passes at the second try, its chunk
    mates too.
    """
    fn = partial(faults.kill_worker, folder, bad=2, times=1)
    assert pool.map(fn, range(6), chunksize=3).result(LIMIT_S) == list(range(6))
    assert faults.signs(folder, 2) == 2


def test_worker_always_killed_by_its_task(pool: lambdamr.Executor, folder: str) -> None:
    """A task that always kills the worker is TaskLost, and other chunks have their results."""
    fn = partial(faults.kill_worker, folder, bad=0, times=99)
    futures = pool.map(fn, range(4), chunksize=1)
    errors = futures.exceptions(LIMIT_S)
    assert type(errors[0]) is lambdamr.TaskLost
    assert "worker" in str(errors[0])
    assert [future.result() for future in futures[1:]] == [1, 2, 3]


def test_worker_that_cannot_start(root: str) -> None:
    """Workers that end before they serve anything fail the job with what they said; no hang."""
    program = """
        import os, lambdamr
        os.environ["PYTHONHOME"] = "/nowhere"
        with lambdamr.Executor(workers=2, concurrency=2) as executor:
            error = executor.submit(abs, -1).exception(30)
            print(type(error).__name__, error)
            errors = executor.map(abs, range(5), chunksize=1).exceptions(30)
            print({type(error).__name__ for error in errors})
    """
    out = faults.run_client(program, root)
    assert out.startswith("JobFailed")
    assert "init_fs_encoding" in out
    assert out.endswith("{'JobFailed'}\n")


def test_interpreter_gone(root: str) -> None:
    """Workers whose interpreter cannot be executed fail the job, even once it has begun."""
    program = """
        import os, sys, time, lambdamr
        with lambdamr.Executor(workers=1, concurrency=1) as executor:
            pid = executor.submit(os.getppid).result(30)
            sys.executable = "/nowhere/python"
            os.kill(pid, 9)
            error = executor.submit(abs, -1).exception(30)
            print(type(error).__name__, error)
            error = executor.submit(abs, -1).exception(30)
            print(type(error).__name__, error)
    """
    out = faults.run_client(program, root)
    assert [line.split()[0] for line in out.splitlines()] == ["JobFailed", "JobFailed"]
    assert "/nowhere/python" in out


# --- retries, and how many failures are allowed ------------------------------------------------
def test_retries(pool: lambdamr.Executor, folder: str) -> None:
    """A task that raises twice passes with retries=2, and its stats count three tries."""
    fn = partial(faults.fail_then_pass, folder, failures=2)
    futures = pool.map(fn, range(3), retries=2, chunksize=3)
    assert futures.result(LIMIT_S) == [0, 1, 2]
    assert [stats.tries for stats in futures.stats() if stats is not None] == [3, 3, 3]


def test_retries_used_up(pool: lambdamr.Executor, folder: str) -> None:
    """After its retries a task fails with its own exception; the first try and each retry ran."""
    future = pool.map(partial(faults.fail_then_pass, folder, failures=9), [7], retries=1)[0]
    assert isinstance(future.exception(LIMIT_S), ValueError)
    assert future.stats is not None
    assert (future.stats.tries, faults.signs(folder, 7)) == (2, 2)


def test_retry_on(pool: lambdamr.Executor, folder: str) -> None:
    """Only the exceptions of retry_on, and their subclasses, are tried again."""
    fn = partial(faults.fail_then_pass, folder, failures=1)
    kinds = ["KeyError", "ValueError", "OSError"]
    futures = pool.map(
        lambda item, kind: fn(item, kind=kind),
        range(3),
        kinds,
        retries=3,
        retry_on=(LookupError, OSError),
    )
    errors = futures.exceptions(LIMIT_S)
    assert [type(error) for error in errors] == [type(None), ValueError, type(None)]
    assert [stats.tries for stats in futures.stats() if stats is not None] == [2, 1, 2]


@pytest.mark.parametrize("allowed", [2, 0.1])
def test_max_failures(single: lambdamr.Executor, folder: str, allowed: float) -> None:
    """Beyond max_failures, a number or a share, the tasks that have not begun are not run and
    their futures say why.
    """
    fn = partial(faults.fail_at, folder, bad=frozenset(range(0, 20, 2)))
    futures = single.map(fn, range(20), max_failures=allowed, chunksize=1)
    errors = futures.exceptions(LIMIT_S)
    kinds = [ValueError, type(None), ValueError, type(None), ValueError, *[lambdamr.JobFailed] * 15]
    assert [type(error) for error in errors] == kinds
    assert "3 tasks" in str(errors[5])
    assert "max_failures" in str(errors[5])
    assert faults.all_signs(folder) == {str(i): 1 for i in range(5)}


def test_failures_that_are_allowed(pool: lambdamr.Executor, folder: str) -> None:
    """As many failures as allowed end nothing: every other task has its result."""
    fn = partial(faults.fail_at, folder, bad=frozenset({3, 4}))
    futures = pool.map(fn, range(10), max_failures=2, chunksize=1)
    assert sum(error is None for error in futures.exceptions(LIMIT_S)) == 8


def test_share_of_failures_is_exact(pool: lambdamr.Executor, folder: str) -> None:
    """A share is taken of the tasks exactly: 0.29 of 100 are 29, though 0.29 * 100 is 28.99…."""
    fn = partial(faults.fail_at, folder, bad=frozenset(range(29)))
    futures = pool.map(fn, range(100), max_failures=0.29, chunksize=1)
    assert sum(error is None for error in futures.exceptions(LIMIT_S)) == 71


def test_first_ten_chunks_fail_alike(pool: lambdamr.Executor, folder: str) -> None:
    """When the first ten chunks fail alike, on whichever workers, the others are not run and
    their futures say so; result() raises what the first one raised.
    """
    fn = partial(faults.fail_at, folder, bad=frozenset(range(500)))
    futures = pool.map(fn, range(500), chunksize=1)
    errors = futures.exceptions(LIMIT_S)
    assert {type(error) for error in errors[:10]} == {ValueError}
    assert type(errors[499]) is lambdamr.JobFailed
    assert "first 10 chunks" in str(errors[499])
    assert "ValueError at faults.py" in str(errors[499])
    assert len(faults.all_signs(folder)) < 450
    with pytest.raises(ValueError, match="bad 0"):
        futures.result(LIMIT_S)


def test_ten_chunks_that_fail_differently(pool: lambdamr.Executor, folder: str) -> None:
    """Chunks that fail in different ways do not end the map."""

    def task(item: int) -> None:
        raise ValueError(item) if item % 2 else KeyError(item)

    errors = pool.map(task, range(30), chunksize=1).exceptions(LIMIT_S)
    assert [type(error) for error in errors] == [KeyError, ValueError] * 15


def test_return_exceptions_runs_all(pool: lambdamr.Executor, folder: str) -> None:
    """With return_exceptions=True all tasks run though all fail, and exceptions are values."""
    fn = partial(faults.fail_at, folder, bad=frozenset(range(40)))
    values = pool.map(fn, range(41), chunksize=1, return_exceptions=True).result(LIMIT_S)
    assert [str(value) for value in values[:40]] == [f"bad {i}" for i in range(40)]
    assert values[40] == 40
    assert len(faults.all_signs(folder)) == 41


def test_result_raises_the_first_failure(pool: lambdamr.Executor, folder: str) -> None:
    """result() raises a task's own exception as soon as one has failed, before the rest is done."""

    def task(item: int) -> int:
        if item == 0:
            raise ValueError("at once")
        faults.hold(folder, item)
        return item

    futures = pool.map(task, range(3), chunksize=1)
    with pytest.raises(ValueError, match="at once"):
        futures.result(LIMIT_S)
    assert not futures[1].done()
    faults.open_gate(folder)
    assert futures[1].result(LIMIT_S) == 1


def test_failed_argument(pool: lambdamr.Executor) -> None:
    """A call whose argument is a failed future fails with that exception and never runs."""
    broken = pool.submit(faults.raise_named, "NeedsTwo", 1, "x")
    error = pool.submit(abs, broken).exception(LIMIT_S)
    assert type(error) is faults.NeedsTwo


def test_failure_in_map_reduce(pool: lambdamr.Executor) -> None:
    """A mapper's and a reducer's exception is what result() raises; the report says failed."""

    def mapper(item: int) -> list[tuple[int, int]]:
        return [(item, 1 // (item - 5))]

    job = pool.map_reduce(mapper, range(10), lambda key, values: sum(values))
    with pytest.raises(ZeroDivisionError):
        job.result(LIMIT_S)
    assert job.report().status == "failed"

    def reducer(key: int, values: Iterator[int]) -> int:
        raise faults.KeywordOnly(code=key)

    job = pool.map_reduce(lambda item: [(1, item)], range(10), reducer)
    with pytest.raises(faults.KeywordOnly):
        job.result(LIMIT_S)


def test_pickled_errors_of_ours() -> None:
    """Errors of ours can be pickled, so that a task may raise them."""
    error = pickle.loads(pickle.dumps(lambdamr.TaskLost("text")))
    assert (type(error), str(error)) == (lambdamr.TaskLost, "text")


# --- the pool of workers -----------------------------------------------------------------------
class FaultyListener:
    """A client with a defect: it fails where it is told of a commit."""

    def __init__(self) -> None:
        self.told: SimpleQueue[tuple[str, str]] = SimpleQueue()

    def committed(self, job: str, stage: int, chunk: int) -> None:
        raise ZeroDivisionError(f"at chunk {chunk}")

    def failed(self, job: str, reason: str) -> None:
        self.told.put((job, reason))


def test_a_defect_in_the_pool_hangs_nobody(root: str, folder: str) -> None:
    """Its thread ends: the jobs that it served fail with the reason, and it can be closed."""
    backend = LocalBackend(root, workers=1, memory_mb=0, width=1, keep_days=1)
    listener = FaultyListener()
    backend.connect(listener)
    args: list[Any] = [((folder, "done"), {}), ((folder, "held"), {})]
    draft = StageDraft("map", StageKind.CALL, Call(hold_the_held), 2, 1, args)
    submission = prepare([draft], Packing(), backend)
    submission.store(backend.store, set())
    submission.launch(backend, time.time())
    job, reason = listener.told.get(timeout=LIMIT_S)
    assert job == submission.manifest.job
    assert "ZeroDivisionError('at chunk 0')" in reason
    with pytest.raises(RuntimeError, match="have been stopped"):
        submission.launch(backend, time.time())
    backend.close()


def hold_the_held(folder: str, name: str) -> None:
    if name == "held":
        faults.hold(folder, name)
