"""Workers and their kept children killed at random, in rounds: the results are exact.

`make test` runs two rounds of each kind; the soak runs twenty, each of 10,000 tasks.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import lambdamr

LIMIT_S = 120.0

GAP_TASKS = 4
"""So many tasks end between two kills, at least: a chunk that is hit more often than its
infrastructure retries allow would rightly be TaskLost."""


def tell(folder: str) -> None:
    """Leave the ids of worker and child where the killer finds them."""
    Path(folder, f"{os.getppid()}.{os.getpid()}").touch()


def wait_for(struck: Path) -> None:
    """Hold a task until a worker was killed in its stage, which must not be over before."""
    given_up = time.monotonic() + LIMIT_S
    while not struck.exists():
        assert time.monotonic() < given_up, "nobody was killed"
        time.sleep(0.002)


def square(folder: str, item: int) -> int:
    tell(folder)
    time.sleep(0.0003)
    return item * item


class Killer:
    """Kills workers, their children, or both, as long as a job runs.

    Args:  done: how many tasks have ended.  step: most tasks between two kills.
           struck: a file that is there once one was killed.
    """

    def __init__(
        self, folder: str, seed: int, done: Callable[[], int], step: int, struck: Path
    ) -> None:
        self._struck = struck
        self._folder = Path(folder)
        self._chance = random.Random(seed)
        self._done = done
        self._step = step
        self.killed = 0

    def run(self, is_over: Callable[[], bool]) -> None:
        due = self._next(0)
        while not is_over():
            time.sleep(0.002)
            done = self._done()
            seen = list(self._folder.iterdir())
            if done < due or not seen:
                continue
            pair = max(seen, key=lambda path: path.stat().st_mtime_ns)
            pair.unlink()
            worker, child = map(int, pair.name.split("."))
            for pid in self._chance.choice([(worker,), (child,), (worker, child), (child, worker)]):
                self._kill(pid)
            if self.killed:
                self._struck.touch()
                due = self._next(done)

    def _next(self, done: int) -> int:
        return done + self._chance.randint(GAP_TASKS, self._step)

    def _kill(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it was replaced since
            return
        self.killed += 1


def done_of(*parts: lambdamr.Futures) -> Callable[[], int]:
    return lambda: sum(futures[0]._stage.resolved for futures in parts)


def kill_during_a_map(root: str, folder: str, seed: int, tasks: int, chunksize: int) -> int:
    """Run a map while its workers are killed; returns how many processes were."""
    with lambdamr.Executor(workers=2, root=root) as executor:
        futures = executor.map(partial(square, folder), range(tasks), chunksize=chunksize)
        struck = Path(folder).parent / "struck"
        killer = Killer(folder, seed, done_of(futures), tasks // 10, struck)
        killer.run(futures.done)
        assert futures.result(LIMIT_S) == [item * item for item in range(tasks)]
        stats = [each for each in futures.stats() if each is not None]
    assert len(stats) == tasks
    assert all(each.tries == 1 for each in stats)
    assert max(each.attempt for each in stats) >= 1
    return killer.killed


def kill_during_a_map_reduce(root: str, folder: str, seed: int, items: int, keys: int) -> int:
    """Run a map_reduce of 40 map tasks and 20 reduce tasks while workers are killed in both stages;
    returns how many were.
    """
    beside = Path(folder).parent
    struck = {stage: beside / f"{stage}_struck" for stage in ("map", "reduce")}
    numbers = beside / "numbers.txt"
    numbers.write_text("".join(f"{item:09d}\n" for item in range(items)))

    def mapper(line: str) -> list[tuple[int, int]]:
        item = int(line)
        if item % 50 == 0:
            tell(folder)
            time.sleep(0.001)
        if item == 0:
            wait_for(struck["map"])
        return [(item % keys, item)]

    def reducer(key: int, values: Iterator[int]) -> tuple[int, int]:
        tell(folder)
        time.sleep(0.002)
        if key == 0:
            wait_for(struck["reduce"])
        listed = list(values)
        return len(listed), sum(listed)

    with lambdamr.Executor(workers=2, root=root) as executor:
        lines = lambdamr.lines(str(numbers), split_bytes=items // 4, planner="fixed")
        job = executor.map_reduce(mapper, lines, reducer, reducers=20)
        assert len(job.map_futures) == 40
        killed = []
        for name, futures in (("map", job.map_futures), ("reduce", job.reduce_futures)):
            killer = Killer(folder, seed, done_of(futures), GAP_TASKS + 4, struck[name])
            stage = futures[0]._stage
            killer.run(lambda stage=stage: not stage.missing or job.done())  # type: ignore[misc]
            killed.append(killer.killed)
        result = job.result(LIMIT_S)
        report = job.report()
    expected = {key: range(key, items, keys) for key in range(keys)}
    assert result == {key: (len(each), sum(each)) for key, each in expected.items()}
    assert report.stages["map"].pairs_written == report.stages["reduce"].pairs_read == items
    assert report.stages["map"].deaths + report.stages["reduce"].deaths >= 1
    assert min(killed) >= 1
    return sum(killed)


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_during_a_map(root: str, folder: str, seed: int) -> None:
    """A map of 3,000 tasks whose workers are killed again and again has exact results."""
    assert kill_during_a_map(root, folder, seed, 3000, (5, 2)[seed % 2]) >= 5


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_during_a_map_reduce(root: str, folder: str, seed: int) -> None:
    """Workers killed in both stages of a map_reduce: exact results, receipts that balance."""
    assert kill_during_a_map_reduce(root, folder, seed, 4000, 100) >= 4


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_twenty_rounds_of_kills(root: str, folder: str, tmp_path: Path, seed: int) -> None:
    """Twenty rounds: a map of 10,000 tasks, and both stages of a map_reduce."""
    killed = kill_during_a_map(root, folder, seed, 10_000, (1, 4, 16)[seed % 3])
    other = tmp_path / "more signs"
    other.mkdir()
    killed += kill_during_a_map_reduce(root, str(other), seed, 20_000, 500)
    print(f"round {seed}: {killed} processes killed")
    assert killed >= 10
