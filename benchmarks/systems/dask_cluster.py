"""Dask's scheduler with worker processes on this machine, without its dashboard."""

from contextlib import contextmanager

from distributed import Client, LocalCluster

from benchmarks.systems import Opened
from benchmarks.work import noop


@contextmanager
def opened(workers: int) -> Opened:
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):

        def run(tasks: int) -> None:
            # Pure tasks with equal arguments would be answered from memory.
            client.gather(client.map(noop, range(tasks), pure=False))

        yield run
