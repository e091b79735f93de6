"""Threads and waits that Ctrl-C leaves whole, at whatever instruction it comes.

`threading`'s own are written in Python: an interrupt between a lock's acquisition and the block
that releases it leaves the lock locked, or released twice. What is here rests on locks alone, whose
`with` is safe.
"""

import _thread
import sys
import threading
from collections.abc import Callable
from time import monotonic


def start_thread(run: Callable[[], None], name: str) -> threading.Thread:
    """Start a daemon thread; it may not have begun yet on return.

    `Thread.start` waits by a condition that Ctrl-C may leave locked: then the thread hangs before
    its first line. Python's signal handlers run in the main thread, so that has another one do it.
    """
    thread = threading.Thread(target=run, name=name, daemon=True)
    if threading.current_thread() is threading.main_thread():
        start, begun = with_end(thread.start)
        _thread.start_new_thread(start, ())
        if sys.version_info[:2] == (3, 12):  # that starts none behind the main thread's end
            with begun:
                pass
    else:
        thread.start()
    return thread


INTERRUPT_S = 1.0
"""Longest wait at a time: Ctrl-C that comes between Python's last look for signals and the wait
itself ends no wait, and is seen behind it."""


def with_end(act: Callable[[], None]) -> tuple[Callable[[], None], threading.Lock]:
    """Return what calls *act*, once, and a lock that nobody can hold before that has ended."""
    ended = threading.Lock()
    ended.acquire()

    def acting() -> None:
        try:
            act()
        finally:
            ended.release()

    return acting, ended


class Signal:
    """What threads wait for: that something has changed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gates: list[threading.Lock] = []
        """One per waiting thread, locked until there is news."""

    def notify_all(self) -> None:
        """Have all that wait look again; call it after the change."""
        with self._lock:
            gates, self._gates = self._gates, []
        for gate in gates:
            gate.release()

    def wait_for(self, is_over: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until *is_over*, which is called without a lock; whether it is."""
        deadline = float("inf") if timeout is None else monotonic() + timeout
        while not is_over():
            gate = threading.Lock()
            gate.acquire()
            with self._lock:
                self._gates.append(gate)
            try:
                while not is_over():
                    left = deadline - monotonic()
                    if left <= 0:
                        return False
                    if gate.acquire(timeout=min(left, INTERRUPT_S)):
                        break
            finally:  # a wait that ends by itself leaves nothing: there may be no news for long
                with self._lock:
                    if gate in self._gates:
                        self._gates.remove(gate)
        return True
