"""What following jobs asks of this computer: the time, threads, and what threads wait on.

Passed in, so that a simulation can turn the clock and decide who goes on.
"""

import queue
import time as _time
from collections.abc import Callable
from typing import Any, Protocol

from lambdamr import threads


class Signal(Protocol):
    """What threads wait for; see lambdamr.threads.Signal."""

    def wait_for(self, is_over: Callable[[], bool], timeout: float | None) -> bool: ...
    def notify_all(self) -> None: ...


class News(Protocol):
    """What `queue.SimpleQueue` gives; Any: what is put comes out."""

    def put(self, item: Any) -> None: ...
    def get(self, *, timeout: float) -> Any:
        """Raises queue.Empty if nothing comes in time."""
        ...

    def get_nowait(self) -> Any: ...


class Machine(Protocol):
    """A computer on which jobs are followed."""

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float: ...
    def start(self, run: Callable[[], None], name: str) -> None:
        """Call *run* in a thread of its own, which keeps no program from ending."""
        ...

    def signal(self) -> Signal: ...
    def news(self) -> News: ...


class ThisMachine:
    """The machine that runs this program."""

    time = staticmethod(_time.time)
    monotonic = staticmethod(_time.monotonic)

    def start(self, run: Callable[[], None], name: str) -> None:
        threads.start_thread(run, name)

    def signal(self) -> Signal:
        return threads.Signal()

    def news(self) -> News:
        return queue.SimpleQueue()
