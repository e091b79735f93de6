"""The joblib backend: `import joblib, lambdamr`, then `joblib.parallel_config(backend="lambdamr")`.

The two may be imported in either order: see lambdamr.registering.

scikit-learn runs its searches, forests and cross-validations through joblib, so they run here too.

    Parallel ─ batches of calls ─▶ submit ─ large arguments once, as references ─▶ tasks
             ◀─ callback, result ──────────────────────────────────────────────────┘
"""

import operator
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from joblib import register_parallel_backend
from joblib.parallel import AutoBatchingMixin, ParallelBackendBase, SequentialBackend

from lambdamr import executor as executors
from lambdamr.executor import Executor
from lambdamr_runtime.limits import KIB

if TYPE_CHECKING:
    from lambdamr.data import Data
    from lambdamr.futures import Future

NAME = "lambdamr"

SHARED_BYTES = 64 * KIB
"""An argument of at least this size is stored once per `Parallel` call, however many calls take it:
a grid search gives the same data to all."""


class _Planned:
    """What joblib asks for the results of a batch that is only planned."""

    def __init__(self, future: "Future") -> None:
        self.get = future.result


class LambdamrBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # untyped
    """A backend of joblib whose tasks are those of an executor.

    Args:  executor: runs them; None: an `Executor` of its own, made from the options.
           options: of `Executor`: workers=, memory_mb=, …
    """

    default_n_jobs = -1

    def __init__(
        self, nesting_level: int | None = None, executor: Executor | None = None, **options: Any
    ) -> None:
        super().__init__(nesting_level=nesting_level)
        self._executor = executor or Executor(**options)
        self._running: set[Future] = set()
        self._shared: dict[int, tuple[Any, Data]] = {}
        """By id: an argument, kept so that the id stays its own, and what stands for it."""

    @property
    def supports_retrieve_callback(self) -> bool:
        """Whether joblib is called back; else it asks for results, and a plan of a script ends."""
        return executors.rehearsal is None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many tasks run at a time; -1 and None: as many as there are workers.

        Raises:  ValueError: 0.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        workers = self._executor.engine().backend.workers
        if n_jobs is None:
            return workers
        return n_jobs if n_jobs > 0 else max(1, workers + 1 + n_jobs)

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None
    ) -> "Future | _Planned":
        """Run a batch of calls as one task."""
        future = self._executor.submit(operator.call, self._with_references(func))
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future if self.supports_retrieve_callback else _Planned(future)

    def retrieve_result_callback(self, out: "Future") -> Any:
        """Return the results of a batch, or raise what one of its calls raised."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: ARG002 - joblib's
        """Cancel what has not ended: a call has failed, or nobody wants the results."""
        for future in list(self._running):
            future.cancel()

    def stop_call(self) -> None:
        """Forget the arguments of a `Parallel` call."""
        self._shared.clear()

    def get_nested_backend(self) -> tuple[SequentialBackend, int]:
        """Calls of `Parallel` inside a task run one after the other: a worker has one core."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), 1

    def _with_references(self, batch: Any) -> Any:
        """Return a batch whose large arguments are references; Any: joblib's BatchedCalls."""
        batch.items = [
            (
                function,
                [self._reference(value) for value in args],
                {name: self._reference(value) for name, value in keywords.items()},
            )
            for function, args, keywords in batch.items
        ]
        return batch

    def _reference(self, value: Any) -> Any:
        """Return what travels for an argument: itself, or a reference to stored data."""
        if max(sys.getsizeof(value), getattr(value, "nbytes", 0)) < SHARED_BYTES:
            return value
        known = self._shared.get(id(value))
        if known is None:
            known = self._shared[id(value)] = (value, self._executor.put(value))
        return known[1]


register_parallel_backend(NAME, LambdamrBackend)
