"""Executors inside tasks: the waiting worker runs the nested chunks, so one worker is enough."""

import asyncio
import concurrent.futures
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lambdamr
from lambdamr.futures import Futures
from lambdamr_runtime.errors import JobFailed
from tests.gates import Gate, pass_gate

TIMEOUT_S = 30.0
"""A task that takes longer waits for itself."""


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def outer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[lambdamr.Executor]:
    """The executor of the client; tasks make their own."""
    root = str(tmp_path_factory.mktemp("nested"))
    executor = lambdamr.Executor(workers=request.param, root=root)
    yield executor
    executor.shutdown(wait=False, cancel_futures=True)


@pytest.fixture
def alone(root: str) -> Iterator[lambdamr.Executor]:
    """One worker: whatever is nested runs in the task that waits for it."""
    executor = lambdamr.Executor(workers=1, root=root)
    yield executor
    executor.shutdown(wait=False, cancel_futures=True)


def add_one(n: int) -> int:
    return n + 1


def run(executor: lambdamr.Executor, task: Callable[..., Any], *args: Any) -> Any:
    return executor.submit(task, *args).result(TIMEOUT_S)


# --- every call -------------------------------------------------------------------------------


def nested_map(count: int) -> list[int]:
    values: list[int] = lambdamr.Executor().map(add_one, range(count)).result()
    return values


def nested_submit() -> int:
    executor = lambdamr.Executor()
    futures = [executor.submit(add_one, n) for n in range(5)]
    return sum(future.result() for future in reversed(futures))


def nested_starmap() -> list[int]:
    return lambdamr.Executor().starmap(pow, [(2, 3), (3, 2)]).result()


def nested_reduce() -> int:
    executor = lambdamr.Executor()
    total: int = executor.reduce(
        sum, executor.map(add_one, range(50), chunksize=7), arity=3
    ).result()
    return total


def nested_map_reduce() -> dict[int, int]:
    job = lambdamr.Executor().map_reduce(
        lambda n: [(n % 3, n)], range(30), lambda key, values: sum(values), reducers=4
    )
    assert job.report().status == "done"
    return job.result()


def nested_put() -> list[int]:
    executor = lambdamr.Executor()
    data = executor.put(list(range(100)))
    return executor.map(lambda values, n: values[n], [data] * 5, range(5)).result()


def nested_call_async() -> int:
    future = lambdamr.Executor().call_async(add_one, 1)
    return lambdamr.get_all_results([future])[0]  # type: ignore[no-any-return]


def nested_chain() -> int:
    """A call whose argument is a future: waiting for the second runs the first."""
    executor = lambdamr.Executor()
    future = executor.submit(add_one, 0)
    for _ in range(3):
        future = executor.submit(add_one, future)
    value: int = future.result()
    return value


def nested_exceptions() -> list[str]:
    futures = lambdamr.Executor().map(lambda n: 1 // n, [1, 0, 1], return_exceptions=True)
    return [type(value).__name__ for value in futures.result()]


def nested_repeated() -> list[int]:
    """A future that is there twice ends once, as at the client."""
    future = lambdamr.Executor().submit(add_one, 1)
    return [each.result() for each in lambdamr.as_completed([future, future])]


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (lambda: nested_map(100), list(range(1, 101))),
        (lambda: nested_map(0), []),
        (nested_submit, 15),
        (nested_starmap, [8, 9]),
        (nested_reduce, sum(range(1, 51))),
        (nested_map_reduce, {0: 135, 1: 145, 2: 155}),
        (nested_put, [0, 1, 2, 3, 4]),
        (nested_call_async, 2),
        (nested_chain, 4),
        (nested_exceptions, ["int", "ZeroDivisionError", "int"]),
        (nested_repeated, [2]),
    ],
    ids=[
        "map", "empty map", "submit", "starmap", "reduce", "map_reduce", "put", "call_async",
        "chain", "return_exceptions", "as_completed",
    ],
)  # fmt: skip
def test_every_call_works_inside_a_task(
    outer: lambdamr.Executor, task: Callable[[], Any], expected: Any
) -> None:
    """What an executor does at the client it does inside a task, with a single worker too."""
    assert run(outer, task) == expected


def test_two_levels_deep(outer: lambdamr.Executor) -> None:
    """A nested task may use an executor itself."""

    def middle(n: int) -> int:
        return sum(lambdamr.Executor().map(add_one, range(n), chunksize=1).result())

    def top() -> list[int]:
        values: list[int] = lambdamr.Executor().map(middle, range(4), chunksize=1).result()
        return values

    assert run(outer, top) == [0, 1, 3, 6]


def test_all_workers_wait_at_once(outer: lambdamr.Executor) -> None:
    """More tasks than workers, each of which waits for nested ones: all end."""
    futures = outer.map(nested_map, range(1, 7), chunksize=1)
    assert futures.result(TIMEOUT_S) == [list(range(1, n + 1)) for n in range(1, 7)]


def test_a_map_reduce_whose_mapper_and_reducer_nest(outer: lambdamr.Executor) -> None:
    """Map and reduce tasks are tasks: executors work in them."""

    def mapper(n: int) -> list[tuple[int, int]]:
        return [(n % 2, lambdamr.Executor().submit(add_one, n).result())]

    def reducer(key: int, values: Iterator[int]) -> int:
        result: int = lambdamr.Executor().submit(sum, list(values)).result()
        return result

    assert outer.map_reduce(mapper, range(4), reducer).result(TIMEOUT_S) == {0: 4, 1: 6}


# --- every way to wait ---------------------------------------------------------------------------


def wait_by_result() -> list[int]:
    return [future.result() for future in lambdamr.Executor().map(add_one, range(3), chunksize=1)]


def wait_by_exception() -> list[int]:
    futures = lambdamr.Executor().map(add_one, range(3), chunksize=1)
    assert [future.exception() for future in futures] == [None] * 3
    return [future.result(0) for future in futures]


def wait_by_wait() -> list[int]:
    futures = lambdamr.Executor().map(add_one, range(3), chunksize=1)
    done, not_done = lambdamr.wait(futures)
    assert (len(done), not_done) == (3, set())
    return futures.result(0)


def wait_for_first_exception() -> bool:
    executor = lambdamr.Executor()
    failing = executor.submit(divmod, 1, 0)
    others = executor.map(add_one, range(50), chunksize=1)
    done, not_done = lambdamr.wait([failing, *others], return_when="FIRST_EXCEPTION")
    return failing in done and bool(not_done)


def wait_by_as_completed() -> list[int]:
    executor = lambdamr.Executor()
    futures = [executor.submit(add_one, n) for n in range(3)]
    return sorted(future.result() for future in lambdamr.as_completed(futures))


def wait_by_stdlib_wait() -> list[int]:
    executor = lambdamr.Executor()
    futures = [executor.submit(add_one, n) for n in range(3)]
    done, not_done = concurrent.futures.wait(futures)
    assert (len(done), not_done) == (3, set())
    return [future.result(0) for future in futures]


def wait_by_stdlib_first() -> list[int]:
    executor = lambdamr.Executor()
    futures = [executor.submit(add_one, n) for n in range(3)]
    concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_COMPLETED)
    assert any(future.done() for future in futures)
    return [future.result() for future in futures]


def wait_by_stdlib_as_completed() -> list[int]:
    executor = lambdamr.Executor()
    futures = [executor.submit(add_one, n) for n in range(3)]
    return sorted(future.result(0) for future in concurrent.futures.as_completed(futures))


def wait_by_leaving_the_context() -> list[int]:
    with lambdamr.Executor() as executor:
        futures = executor.map(add_one, range(3), chunksize=1)
    return [future.result(0) for future in futures]


def wait_by_shutdown() -> list[int]:
    executor = lambdamr.Executor()
    futures = [executor.submit(add_one, n) for n in range(3)]
    executor.shutdown()
    return [future.result(0) for future in futures]


def wait_by_await() -> list[int]:
    async def main() -> list[int]:
        executor = lambdamr.Executor()
        first: int = await executor.submit(add_one, 0)
        return [first, *await asyncio.gather(*executor.map(add_one, [1, 2], chunksize=1))]

    return asyncio.run(main())


def wait_in_threads() -> list[int]:
    executor = lambdamr.Executor()
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        return list(threads.map(lambda n: executor.submit(add_one, n).result(), range(3)))


def wait_deeper_in_threads() -> list[int]:
    executor = lambdamr.Executor()
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        first = threads.submit(lambda: executor.submit(wait_in_threads).result())
        second: list[int] = executor.submit(wait_in_threads).result()
    assert first.result() == second
    return second


WAYS = [
    wait_by_result,
    wait_by_exception,
    wait_by_wait,
    wait_by_as_completed,
    wait_by_stdlib_wait,
    wait_by_stdlib_first,
    wait_by_stdlib_as_completed,
    wait_by_leaving_the_context,
    wait_by_shutdown,
    wait_by_await,
    wait_in_threads,
    wait_deeper_in_threads,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_every_way_to_wait_runs_what_is_queued(
    alone: lambdamr.Executor, way: Callable[[], list[int]]
) -> None:
    """With one worker a wait that only waited would last for ever: each way of the library and of
    the standard library runs the nested tasks.
    """
    assert run(alone, way) == [1, 2, 3]


def test_a_wait_for_the_first_exception_ends_with_it(alone: lambdamr.Executor) -> None:
    """With FIRST_EXCEPTION a nested wait does not run all that is queued first."""
    assert run(alone, wait_for_first_exception)


def test_a_timeout_is_kept(outer: lambdamr.Executor) -> None:
    """A nested wait with a timeout ends after it, once and not twice, and the task goes on."""

    def task(gate: str) -> tuple[list[bool], bool]:
        executor = lambdamr.Executor()
        first, second = executor.submit(add_one, 1), None
        second = executor.submit(add_one, first)
        seconds = []
        never = concurrent.futures.Future[int]()
        waits: list[Callable[[], object]] = [
            lambda: lambdamr.wait([first, second], 0.0),
            lambda: concurrent.futures.wait([first, never], 0.4),
        ]
        for wait in waits:
            begun = time.monotonic()
            wait()
            seconds.append(time.monotonic() - begun)
        return [seconds[0] < 0.3, 0.35 < seconds[1] < 0.75], second.result() == 3

    assert run(outer, task, "") == ([True, True], True)


def test_a_job_that_only_its_task_follows_cannot_go_on(root: str, gate: Gate) -> None:
    """The client whose workers say so tells the task through the store; a job that is complete
    stays so.
    """
    with lambdamr.Executor(workers=1, root=root) as client, lambdamr.Executor(root=root) as task:
        done, held = task.map(add_one, [1]), task.submit(pass_gate, gate.path, 1)
        assert done.result(TIMEOUT_S) == [2]
        gate.wait_until_entered()
        for job in (done.job_id, held.stage.job_id):
            client.engine().poller.failed(job, "the disk is full")
        task.engine().poller.look()
        with pytest.raises(JobFailed, match="the disk is full"):
            held.result(TIMEOUT_S)
        gate.open()
        found = lambdamr.attach(done.job_id, root=root)
        assert isinstance(found, Futures)
        assert found.result(TIMEOUT_S) == [2]
        assert found.report().status == "done"


# --- failures, logs, state -----------------------------------------------------------------------


def test_nested_failures_propagate(outer: lambdamr.Executor) -> None:
    """An exception of a nested task goes through the waiting one to the client, as itself; its
    cause tells both tracebacks.
    """

    def inner() -> None:
        raise KeyError("deep")

    def middle() -> None:
        lambdamr.Executor().submit(inner).result()

    with pytest.raises(KeyError, match="deep") as caught:
        run(outer, middle)
    text = str(caught.value.__cause__)
    assert "in inner" in text
    assert "in middle" in text


def test_a_nested_failure_may_be_handled(outer: lambdamr.Executor) -> None:
    """A task may catch what a nested one raised, SystemExit too, and go on."""

    def task() -> list[str]:
        executor = lambdamr.Executor()
        caught = []
        for fail in (lambda: 1 // 0, lambda: sys.exit(3)):
            try:
                executor.submit(fail).result()
            except BaseException as error:
                caught.append(repr(error))
        job = executor.map_reduce(lambda n: [(n, 1 // n)], [1, 0], lambda k, v: sum(v))
        try:
            job.result()
        except ZeroDivisionError as error:
            caught.append(repr(error))
        return [*caught, str(executor.submit(add_one, 1).result())]

    division = "ZeroDivisionError('integer division or modulo by zero')"
    assert run(outer, task) == [division, "SystemExit(3)", division, "2"]


def test_a_nested_task_that_dies_ends(outer: lambdamr.Executor, tmp_path: Path) -> None:
    """A nested task that kills its process takes the waiting one with it: both are tried again,
    and end as lost, not never.
    """

    def task() -> None:
        lambdamr.Executor().submit(os._exit, 7).result()

    with pytest.raises(lambdamr.TaskLost, match="exit status 7"):
        run(outer, task)
    assert run(outer, nested_submit) == 15


def test_prints_do_not_mix(outer: lambdamr.Executor) -> None:
    """What a nested task prints is in its own log, not in that of the task whose worker ran it."""

    def inner(n: int) -> str:
        print("inner", n)
        return ""

    def task() -> list[str]:
        print("before")
        executor = lambdamr.Executor()
        futures = [executor.submit(inner, n) for n in range(2)]
        for future in futures:
            future.result()
            print("between")
        print("after", file=sys.stderr)
        return [future.logs() for future in futures]

    future = outer.submit(task)
    assert future.result(TIMEOUT_S) == ["inner 0\n", "inner 1\n"]
    assert future.logs() == "before\nbetween\nbetween\nafter\n"


def test_nested_jobs_are_jobs(alone: lambdamr.Executor, root: str) -> None:
    """A nested job lies in the same store, where the client can attach to it."""

    def task() -> str:
        futures = lambdamr.Executor().map(add_one, range(3))
        futures.result()
        return futures.job_id

    futures = lambdamr.attach(run(alone, task), root=root)
    assert isinstance(futures, lambdamr.Futures)
    assert futures.result(TIMEOUT_S) == [1, 2, 3]


def test_a_nested_job_outlives_its_task(outer: lambdamr.Executor) -> None:
    """A task may submit and end: the nested job runs all the same, and its future, returned to
    the client, is the client's.
    """

    def task() -> lambdamr.Future:
        return lambdamr.Executor().submit(add_one, 1)

    future = run(outer, task)
    assert isinstance(future, lambdamr.Future)
    assert future.result(TIMEOUT_S) == 2


def test_an_executor_of_the_client_is_not_taken_along(outer: lambdamr.Executor) -> None:
    """An executor cannot travel in a closure: the call says so at once."""
    with pytest.raises(lambdamr.ArgumentNotSerializable):
        outer.submit(lambda: outer.submit(abs, 1))


@pytest.mark.parametrize("chunksize", [1, None])
def test_own_modules_in_nested_calls(
    outer: lambdamr.Executor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chunksize: int | None,
) -> None:
    """The modules shipped with a task are there for its nested tasks, on whichever worker."""
    name = f"nested_own_{chunksize}_{id(outer)}"
    (tmp_path / f"{name}.py").write_text("class Point:\n    x = 4\ndef f(n): return Point()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = __import__(name)

    def task() -> list[int]:
        futures = lambdamr.Executor().map(module.f, range(6), chunksize=chunksize)
        return [point.x for point in futures.result()]

    for _ in range(3):
        assert run(outer, task) == [4] * 6
        assert run(outer, abs, -1) == 1  # a call without modules in between


def test_a_nested_executor_may_be_told_options(outer: lambdamr.Executor) -> None:
    """Options of the local backend are accepted inside a task, where they have no meaning."""

    def task() -> Any:
        with lambdamr.Executor(workers=3, progress=False) as executor:
            return executor.submit(add_one, 1).result()

    assert run(outer, task) == 2


def test_the_state_of_the_waiting_task_survives(outer: lambdamr.Executor, tmp_path: Path) -> None:
    """What runs in the waiting worker changes neither its arguments nor what it has cached."""

    def task(data: list[int]) -> tuple[list[int], list[int]]:
        before = list(data)
        lambdamr.Executor().map(nested_map, [3, 4], chunksize=1).result()
        return before, data

    data = outer.put([1, 2, 3])
    assert run(outer, task, data) == ([1, 2, 3], [1, 2, 3])
