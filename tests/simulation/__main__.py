"""Runs histories: `python -m tests.simulation --start 0 --count 1000 --jobs 2`."""

import argparse
import itertools
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.history import History

BATCH = 200


def failures_of(seeds: range) -> list[tuple[int, str]]:
    """Run histories; returns the seeds that failed, and why."""
    failed: list[tuple[int, str]] = []
    for seed in seeds:
        try:
            History(seed).run()
        except Exception as error:
            failed.append((seed, f"{type(error).__name__}: {error}"))
    return failed


def _batches(start: int, count: int | None) -> Iterator[range]:
    if count is None:
        return (range(at, at + BATCH) for at in itertools.count(start, BATCH))
    end = start + count
    return (range(at, min(at + BATCH, end)) for at in range(start, end, BATCH))


def _run(start: int, count: int | None, jobs: int) -> int:
    passed = failed = 0
    begun = time.monotonic()

    def tell(seeds: range, found: list[tuple[int, str]]) -> None:
        nonlocal passed, failed
        failed += len(found)
        passed += len(seeds) - len(found)
        for seed, reason in found:
            print(f"seed {seed}: {reason}")
            print(f"    python -m tests.simulation --seed {seed} --trace", flush=True)
        if count is None and seeds.stop % 10_000 == 0:
            print(f"{passed} passed, {failed} failed, up to seed {seeds.stop - 1}", flush=True)

    try:
        if jobs == 1:
            for seeds in _batches(start, count):
                tell(seeds, failures_of(seeds))
        else:
            _run_parallel(start, count, jobs, tell)
    except KeyboardInterrupt:
        print("stopped")
    seconds = time.monotonic() - begun
    print(f"{(passed + failed) / seconds:.0f} histories a second")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def _run_parallel(start: int, count: int | None, jobs: int, tell: Callable[..., None]) -> None:
    with ProcessPoolExecutor(jobs) as pool:
        batches = _batches(start, count)
        running = {
            pool.submit(failures_of, seeds): seeds for seeds in itertools.islice(batches, 2 * jobs)
        }
        while running:
            future = next(iter(running))
            seeds = running.pop(future)
            tell(seeds, future.result())
            for following in itertools.islice(batches, 1):
                running[pool.submit(failures_of, following)] = following


def _replay(seed: int, trace: bool) -> int:
    history = History(seed)
    print(f"seed {seed}: {history.name}, width {history.width}, pool {history.cloud.is_pool}")
    print(history.world.nature.rates)
    try:
        history.run()
    except Exception:
        if trace:
            print("\n".join(history.trace()))
        traceback.print_exc(file=sys.stdout)
        print("0 passed, 1 failed")
        return 1
    if trace:
        print("\n".join(history.trace()))
    print("1 passed, 0 failed")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--count", type=int, help="without it: until told to stop")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--trace", action="store_true")
    given = parser.parse_args()
    if given.seed is not None:
        return _replay(given.seed, given.trace)
    return _run(given.start, given.count, given.jobs)


if __name__ == "__main__":
    sys.exit(main())
