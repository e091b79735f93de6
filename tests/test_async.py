"""Futures and jobs in event loops: awaited, iterated over, several at a time, cancelled."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

import lambdamr
from tests.gates import PATIENCE_S, Gate, pass_gate


def square(number: int) -> int:
    return number * number


def fail_on_odd(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


def count(executor: lambdamr.Executor, numbers: range) -> lambdamr.Job:
    return executor.map_reduce(lambda n: [(n % 3, n)], numbers, lambdamr.reducers.sum, reducers=2)


def run(coroutine: Any) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE_S))


# --- as_completed_async -------------------------------------------------------------------------
def test_futures_come_as_they_end(executor: lambdamr.Executor, gate: Gate) -> None:
    """One that is held comes last, though it was submitted first; each comes once, even if it is
    given twice.
    """

    async def main() -> list[Any]:
        held = executor.submit(pass_gate, gate.path, "held")
        await asyncio.to_thread(gate.wait_until_entered)
        others = executor.map(square, range(3))
        values = []
        async for future in lambdamr.as_completed_async([held, *others, held]):
            values.append(future.result())
            if len(values) == 3:
                gate.open()
        return values

    *first, last = run(main())
    assert sorted(first) == [0, 1, 4]
    assert last == "held"


def test_the_loop_goes_on_meanwhile(executor: lambdamr.Executor, gate: Gate) -> None:
    """Other coroutines run while one iterates: here the one that lets the task go."""

    async def collect() -> list[Any]:
        futures = [executor.submit(pass_gate, gate.path, 1)]
        return [future.result() async for future in lambdamr.as_completed_async(futures)]

    async def release() -> None:
        gate.open()

    async def main() -> Any:
        return (await asyncio.gather(collect(), release()))[0]

    assert run(main()) == [1]


def test_thousands_need_no_threads(executor: lambdamr.Executor) -> None:
    """Waiting for many futures starts no thread for each."""

    async def main() -> tuple[int, int]:
        futures = executor.map(square, range(3000))
        await futures[0]  # the poller has been started
        before = threading.active_count()
        most = before
        total = 0
        async for future in lambdamr.as_completed_async(futures):
            most = max(most, threading.active_count())
            total += future.result()
        return total, most - before

    assert run(main()) == (sum(n * n for n in range(3000)), 0)


def test_a_timeout_says_how_many_are_left(executor: lambdamr.Executor, gate: Gate) -> None:
    """TimeoutError once the time for all of them is over; the tasks go on."""

    async def main() -> Any:
        held = executor.submit(pass_gate, gate.path, "went on")
        ended = lambdamr.as_completed_async([held], timeout=0.05)
        with pytest.raises(TimeoutError, match="1 of 1 futures unfinished"):
            await anext(ended)
        gate.open()
        return await held

    assert run(main()) == "went on"


def test_leaving_early_cancels_nothing(executor: lambdamr.Executor) -> None:
    """A loop that is left, or cancelled, leaves the tasks alone."""

    async def main() -> list[int]:
        futures = executor.map(square, range(4))
        async for _ in lambdamr.as_completed_async(futures):
            break
        return await futures

    assert run(main()) == [0, 1, 4, 9]


def test_what_is_no_future_is_refused_at_once(executor: lambdamr.Executor) -> None:
    """TypeError where the call is made, as of `as_completed`; no futures: nothing comes."""
    with pytest.raises(TypeError, match="put it in a list"):
        lambdamr.as_completed_async(executor.submit(square, 1))  # type: ignore[arg-type]

    async def main() -> list[Any]:
        return [future async for future in lambdamr.as_completed_async([])]

    assert run(main()) == []


def test_inside_a_task(root: str) -> None:
    """A task's own event loop runs the nested tasks that it waits for: one worker is enough."""

    def task() -> list[int]:
        async def collect() -> list[int]:
            with lambdamr.Executor() as nested:
                futures = nested.map(square, range(3), chunksize=1)
                return [f.result() async for f in lambdamr.as_completed_async(futures)]

        return asyncio.run(collect())

    with lambdamr.Executor(workers=1, root=root) as executor:
        assert sorted(executor.submit(task).result(PATIENCE_S)) == [0, 1, 4]


# --- await job ----------------------------------------------------------------------------------
def test_await_a_job(executor: lambdamr.Executor) -> None:
    """`await job` is its result; again, and of a job that is over, as well."""

    async def main() -> list[Any]:
        job = count(executor, range(9))
        return [await job, await job]

    assert run(main()) == [{0: 9, 1: 12, 2: 15}] * 2


def test_several_jobs_from_one_loop(executor: lambdamr.Executor) -> None:
    """Jobs, futures and single calls are awaited side by side."""

    async def main() -> list[Any]:
        jobs = [count(executor, range(size)) for size in (3, 6)]
        return await asyncio.gather(*jobs, executor.map(square, range(3)), executor.submit(len, ""))

    assert run(main()) == [{0: 0, 1: 1, 2: 2}, {0: 3, 1: 5, 2: 7}, [0, 1, 4], 0]


def test_await_a_failed_job(executor: lambdamr.Executor) -> None:
    """What a task raised, as `result()` does."""

    async def main() -> None:
        job = executor.map_reduce(lambda n: [(n, fail_on_odd(n))], range(3), lambdamr.reducers.sum)
        with pytest.raises(ValueError, match="1 is odd"):
            await job

    run(main())


def test_await_a_cancelled_job(executor: lambdamr.Executor, gate: Gate) -> None:
    """CancelledError of concurrent.futures, not of asyncio: it is the job that was cancelled,
    not who awaits it.
    """
    from concurrent.futures import CancelledError

    async def main() -> None:
        path = gate.path
        job = executor.map_reduce(lambda n: [(n, pass_gate(path))], range(2), lambdamr.reducers.sum)
        await asyncio.to_thread(gate.wait_until_entered)
        job.cancel()
        with pytest.raises(CancelledError):
            await job

    run(main())


def test_a_cancelled_await_leaves_the_job(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """wait_for that runs out ends the await; the job goes on and has its result."""
    gate = Gate(tmp_path / "own")
    path = gate.path

    async def main() -> Any:
        job = executor.map_reduce(lambda n: [(n, pass_gate(path, n))], [7], lambdamr.reducers.sum)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job, 0.05)
        gate.open()
        return await job

    assert run(main()) == {7: 7}
    gate.close()


def test_await_a_job_inside_a_task(root: str) -> None:
    """A task may await a job of its own, with one worker."""

    def task() -> dict[int, int]:
        async def main() -> dict[int, int]:
            with lambdamr.Executor() as nested:
                return await count(nested, range(3))

        return asyncio.run(main())

    with lambdamr.Executor(workers=1, root=root) as executor:
        assert executor.submit(task).result(PATIENCE_S) == {0: 0, 1: 1, 2: 2}
