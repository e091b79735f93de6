"""The standard library's process pool, one `submit` per task: the bar for one machine."""

from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from benchmarks.systems import Opened
from benchmarks.work import noop


@contextmanager
def opened(workers: int) -> Opened:
    with ProcessPoolExecutor(workers) as executor:

        def run(tasks: int) -> None:
            futures = [executor.submit(noop, task) for task in range(tasks)]
            for future in futures:
                future.result()

        yield run
