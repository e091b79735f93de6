"""A client that lives long and asks for much: nothing of it grows with the jobs behind it."""

import gc
import json
import os
import sys
import tracemalloc
from collections.abc import Iterator

import pytest

import lambdamr
from lambdamr.threads import Signal
from lambdamr_runtime.memory import give_back
from tests import faults

LIMIT_S = 60.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def resident_mb() -> float:
    """Return the memory of this process that is in use, what was freed given back first."""
    gc.collect()
    give_back()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def mixed_jobs(executor: lambdamr.Executor, count: int) -> Iterator[None]:
    """Run so many jobs of all kinds, one after the other; yields after each."""
    for number in range(count):
        if number % 20 == 0:
            job = executor.map_reduce(lambda i: [(i % 3, i)], range(9), lambda k, v: sum(v))
            assert job.result(LIMIT_S) == {0: 9, 1: 12, 2: 15}
        elif number % 20 == 1:
            failed = executor.map(lambda i: 1 // i, [1, 0], return_exceptions=True)
            assert len(failed.failures(LIMIT_S)) == 1
        elif number % 20 == 2:
            executor.map(abs, range(50), chunksize=1).cancel()
        elif number % 20 == 3:
            assert executor.map(abs, range(100)).result(LIMIT_S) == list(range(100))
        elif number % 20 == 4:
            data = executor.put(os.urandom(200_000))
            assert executor.submit(len, data).result(LIMIT_S) == 200_000
        else:
            assert executor.submit(abs, -number).result(LIMIT_S) == number
        yield


def run_for_long(workers: int, warm: int, count: int) -> list[list[float]]:
    """Return (memory, descriptors) of this client, and memory of its worker, before and after."""
    from threading import active_count

    with lambdamr.Executor(workers=workers, memory_mb=400) as executor:
        found = []
        for jobs in (warm, count):
            for _ in mixed_jobs(executor, jobs):
                pass
            there = executor.submit(resident_mb).result(LIMIT_S)
            executor.submit(abs, 0).result(LIMIT_S)
            found.append([resident_mb(), descriptors(), active_count(), there])
    return found


def test_a_thousand_jobs_leave_nothing(root: str) -> None:
    """Over a thousand jobs of all kinds in one process neither memory, nor file descriptors, nor
    threads grow; nor does the memory of the worker, which keeps 100 MB of stored data at most.
    """
    program = """
        import json
        from tests.test_endurance import run_for_long
        print(json.dumps(run_for_long(1, 200, 1000)))
    """
    before, after = json.loads(faults.run_client(program, root))
    assert after[0] - before[0] < 8, (before, after)
    assert after[1] <= before[1]
    assert after[2] <= before[2]
    assert after[3] < 300, (before, after)


def open_and_close(count: int) -> list[int]:
    found = []
    for _ in range(count):
        with lambdamr.Executor(workers=1) as executor:
            assert executor.submit(abs, -1).result(LIMIT_S) == 1
        found.append(descriptors())
    return found


def test_executors_that_are_closed_leave_nothing(root: str) -> None:
    """Ten executors, one after the other, leave no descriptor; nor do their files."""
    program = """
        import json
        from tests.test_endurance import open_and_close
        print(json.dumps(open_and_close(10)))
    """
    found = json.loads(faults.run_client(program, root))
    assert max(found[2:]) <= found[1]
    assert os.listdir(f"{root}/owners") == []


@pytest.mark.soak
def test_a_hundred_thousand_futures(root: str) -> None:
    """A map of 100,000 tasks: every result, in order, in a client of less than 500 MB."""
    program = """
        import resource, lambdamr
        with lambdamr.Executor(workers=2) as executor:
            futures = executor.map(abs, range(-100_000, 0))
            assert futures.result(120) == list(range(100_000, 0, -1))
            assert futures.counts()["done"] == 100_000
            assert futures.stragglers() == [] and futures.failures() == []
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    """
    assert int(faults.run_client(program, root)) < 500


def test_waits_without_news_leave_nothing() -> None:
    """Waits that end by their timeout, one after the other, keep nothing until there is news."""
    signal = Signal()
    signal.wait_for(lambda: False, 0)
    tracemalloc.start()
    try:
        for _ in range(1000):
            assert not signal.wait_for(lambda: False, 0)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 20_000


def living_futures() -> int:
    gc.collect()
    return sum(isinstance(it, lambdamr.Future) for it in gc.get_objects())


def run_and_forget(jobs: int) -> list[int]:
    """Return the bytes that this client's objects take behind each of so many jobs."""
    found = []
    with lambdamr.Executor(workers=2) as executor:
        tracemalloc.start()
        for _ in range(jobs):
            executor.map(abs, range(10_000)).result(LIMIT_S)
            faults.wait_until(lambda: not living_futures(), "the end of the futures")
            found.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    return found


def test_futures_that_are_forgotten_are_freed(root: str) -> None:
    """A client that keeps no futures does not grow with its jobs: 10,000 futures are 18 MB."""
    program = """
        import json
        from tests.test_endurance import run_and_forget
        print(json.dumps(run_and_forget(5)))
    """
    found = json.loads(faults.run_client(program, root))
    assert max(found[2:]) - found[1] < 1_000_000, found


@pytest.mark.soak
def test_ten_thousand_jobs_leave_nothing(root: str) -> None:
    """The same over ten thousand jobs."""
    program = """
        import json
        from tests.test_endurance import run_for_long
        print(json.dumps(run_for_long(2, 500, 10_000)))
    """
    client = faults.start_client(program, root)
    out, err = client.communicate(timeout=1800)
    assert client.returncode == 0, err
    before, after = json.loads(out)
    assert after[0] - before[0] < 20, (before, after)
    assert after[1] <= before[1]
