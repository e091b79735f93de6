"""lambdamr's embedded backend with one task per chunk: each task an outcome of its own."""

from contextlib import AbstractContextManager

from benchmarks.systems import Run, lambdamr_local


def opened(workers: int) -> AbstractContextManager[Run]:
    return lambdamr_local.opened(workers, chunksize=1)
