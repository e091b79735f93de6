"""Lithops on its localhost backend and storage."""

import sys
from contextlib import contextmanager

import lithops

from benchmarks.systems import Opened
from benchmarks.work import noop

CONFIG = {
    "lithops": {"backend": "localhost", "storage": "localhost"},
    "localhost": {"runtime": sys.executable},
}


@contextmanager
def opened(workers: int) -> Opened:
    config = {**CONFIG, "localhost": {**CONFIG["localhost"], "worker_processes": workers}}
    executor = lithops.FunctionExecutor(config=config, log_level="ERROR")

    def run(tasks: int) -> None:
        executor.get_result(executor.map(noop, range(tasks)))

    try:
        yield run
    finally:
        executor.clean()
