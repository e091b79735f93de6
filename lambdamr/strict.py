"""A strict `concurrent.futures.Executor` over an executor of ours: `executor.as_concurrent()`.

`Executor.map` of ours returns futures, as PyWren's does; the standard library's returns an iterator
of results. Libraries that are written for the standard one get this view.
"""

import concurrent.futures
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any

from lambdamr.futures import Future

if TYPE_CHECKING:
    from lambdamr.executor import Executor

AFTER_SHUTDOWN = "cannot schedule new futures after shutdown"
"""The words of concurrent.futures."""


class ConcurrentExecutor(concurrent.futures.Executor):
    """What `Executor.as_concurrent` returns: the rules are those of the standard library.

    `shutdown` ends this view, and waits for the calls that were made through it. The workers go on
    for whoever else has the executor; where nobody has, they end.
    """

    def __init__(self, executor: "Executor") -> None:
        self._executor: Executor | None = executor
        self._lock = threading.Lock()
        self._outstanding: set[Future] = set()
        self._none_left = threading.Condition(self._lock)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Run fn(*args, **kwargs) as one task.

        Raises:  ArgumentNotSerializable; RuntimeError: after shutdown.
        """
        future = self._open().submit(fn, *args, **kwargs)
        self._watch((future,))
        return future

    def map(  # newer releases of Python have buffersize too
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Return an iterator of results, in input order.

        Args:    timeout: seconds from now until the last result.
                 chunksize: tasks that are committed together.
                 buffersize: inputs are taken from the iterables only while so many results are
                 outstanding; None: all are taken at once.
        Raises:  TimeoutError, and what fn raised: from the iterator. ValueError: chunksize or
                 buffersize < 1.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        deadline = None if timeout is None else monotonic() + timeout
        calls = zip(*iterables, strict=False)
        first = list(calls if buffersize is None else islice(calls, buffersize))
        # Each failure is its own result here: tasks behind it are run all the same.
        futures = self._open().starmap(fn, first, chunksize=chunksize, return_exceptions=True)
        self._watch(futures)
        waiting = deque(futures)
        rest = calls if buffersize is not None else iter(())
        return self._results(fn, waiting, rest, deadline)

    def _results(
        self,
        fn: Callable[..., Any],
        waiting: deque[Future],
        calls: Iterator[tuple[Any, ...]],
        deadline: float | None,
    ) -> Iterator[Any]:
        try:
            while waiting:
                for call in islice(calls, 1):
                    waiting.append(self.submit(fn, *call))
                # No variable holds a future or a result: what was yielded is the caller's alone.
                yield _taken(waiting.popleft(), deadline)
        finally:
            for future in waiting:
                future.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; see the class.

        Args:  wait: return when all calls made through this view have ended.
               cancel_futures: cancel those that have not begun.
        """
        with self._lock:
            executor, self._executor = self._executor, None
            outstanding = list(self._outstanding)
        if cancel_futures:
            for future in outstanding:
                future.cancel()
        if wait:
            with self._none_left:
                self._none_left.wait_for(lambda: not self._outstanding)
        if executor is None:
            return
        engine, others = executor.begun(), weakref.ref(executor)
        del executor
        if wait and engine is not None and others() is None:
            engine.closed.wait()

    def _open(self) -> "Executor":
        executor = self._executor
        if executor is None:
            raise RuntimeError(AFTER_SHUTDOWN)
        return executor

    def _watch(self, futures: Iterable[Future]) -> None:
        """Count futures as outstanding until they are done."""
        with self._lock:
            self._outstanding.update(futures)
        for future in futures:
            future.add_done_callback(self._ended)

    def _ended(self, future: Any) -> None:
        """Any: the base class of Future, as callbacks are typed."""
        with self._none_left:
            self._outstanding.discard(future)
            if not self._outstanding:
                self._none_left.notify_all()


def _taken(future: Future, deadline: float | None) -> Any:
    """Return the result of a future that nobody else has, which forgets it; or cancel it."""
    try:
        return future.take(None if deadline is None else max(0.0, deadline - monotonic()))
    finally:
        future.cancel()
