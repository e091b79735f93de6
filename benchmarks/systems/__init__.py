"""The systems under comparison, one small module each.

A module has `opened(workers)`, a context manager that starts the system and yields *run*:
`run(tasks)` submits that many no-op tasks, one call each where the system has no chunks, and
returns when every result is here.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

Run = Callable[[int], None]
Opened = Iterator[Run]
"""What the generator behind an `opened` yields."""


@dataclass(frozen=True, slots=True)
class System:
    """One system and how much of it a run can afford."""

    name: str
    """As the table shows it."""
    module: str
    """Under benchmarks.systems."""
    needs: str
    """The top-level module that must be installed."""
    tasks: int
    """No-op tasks per round, so that a round takes seconds, not minutes."""
    rounds: int


LAMBDAMR = System("lambdamr", "lambdamr_local", "lambdamr", tasks=5_000, rounds=5)
LAMBDAMR_SINGLE = System("lambdamr", "lambdamr_single", "lambdamr", tasks=5_000, rounds=5)
PROCESS_POOL = System(
    "ProcessPoolExecutor", "process_pool", "concurrent.futures", tasks=5_000, rounds=5
)
RAY = System("Ray", "ray_local", "ray", tasks=5_000, rounds=3)
DASK = System("Dask", "dask_cluster", "distributed", tasks=5_000, rounds=1)
LITHOPS = System("Lithops", "lithops_localhost", "lithops", tasks=20, rounds=1)

PEERS = (PROCESS_POOL, RAY, DASK, LITHOPS)


def open_system(module: str, workers: int) -> AbstractContextManager[Run]:
    """Start the system of that module; its imports happen here."""
    opened: Callable[[int], AbstractContextManager[Run]]
    opened = importlib.import_module(f"benchmarks.systems.{module}").opened
    return opened(workers)
