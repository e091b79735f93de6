"""What a task may reach of the worker that runs it.

The worker process sets the context once; references in arguments resolve themselves through it,
and an Executor made inside a task finds here that it is nested.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lambdamr_runtime.clock import Clock
from lambdamr_runtime.errors import LambdamrError
from lambdamr_runtime.limits import CACHE_BYTES
from lambdamr_runtime.store import Store
from lambdamr_runtime.wire import Event


class Cache:
    """What a warm process keeps, least recently used first out.

    Args:  limit_bytes: sum of the stored sizes of what is kept.
    """

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self._limit = limit_bytes
        self._total = 0
        self._entries: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()
        """Threads of a task may run nested tasks side by side."""

    def get(self, key: str) -> Any:
        """Return what is kept under *key*, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def keep(self, key: str, value: Any, size: int) -> None:
        """Keep *value* (not None), *size* bytes as stored; what is larger than the cache is not."""
        if size > self._limit:
            return
        with self._lock:
            self._total += size - self._entries.pop(key, (None, 0))[1]
            self._entries[key] = (value, size)
            while self._total > self._limit:
                self._total -= self._entries.popitem(last=False)[1][1]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._total = 0


@dataclass(slots=True, eq=False, repr=False)
class Context:
    """The worker around the running task."""

    store: Store
    invoke: Callable[[Event], None]
    clock: Clock
    take: Callable[[str], Event | None]
    """Take a queued event of a job, to run it here; None where none is queued."""
    run: Callable[[Event], None]
    """Run an event inside the waiting task."""
    workers: int
    """Tasks that run at a time, here and elsewhere."""
    owner: str = ""
    """Local backend: the executor whose workers run the job."""
    archive: Callable[[], bytes] = bytes
    """Modules shipped with the running task; a nested job ships the same."""
    cache: Cache = field(default_factory=Cache)
    memory_mb: int = 0
    """Limit of this worker, MiB; 0: none."""
    width: int = 0
    """Most lanes of a nested job; 0: LANES_PER_WORKER for each worker."""


_current: Context | None = None


def enter(context: Context | None) -> None:
    """Set the context of this process; None: it is no worker any more."""
    global _current
    _current = context


def current() -> Context | None:
    """Return the context, or None outside a worker."""
    return _current


def required() -> Context:
    """Return the context.

    Raises:  LambdamrError: this is no worker.
    """
    if _current is None:
        raise LambdamrError("A reference to stored data can be resolved only inside a task.")
    return _current
