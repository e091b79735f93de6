"""lambdamr's embedded backend with the chunks it chooses itself."""

from contextlib import contextmanager

import lambdamr
from benchmarks.systems import Opened
from benchmarks.work import noop


@contextmanager
def opened(workers: int, chunksize: int | None = None) -> Opened:
    with lambdamr.Executor(workers=workers, progress=False) as executor:

        def run(tasks: int) -> None:
            executor.map(noop, range(tasks), chunksize=chunksize).result()

        yield run
