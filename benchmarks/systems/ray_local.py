"""Ray on this machine, without its dashboard."""

from contextlib import contextmanager

import ray

from benchmarks.systems import Opened
from benchmarks.work import noop


@contextmanager
def opened(workers: int) -> Opened:
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    remote = ray.remote(noop)

    def run(tasks: int) -> None:
        ray.get([remote.remote(task) for task in range(tasks)])

    try:
        yield run
    finally:
        ray.shutdown()
