"""The last net, thrown by whoever looks at a job: its lanes are launched again if nothing moves."""

from collections.abc import Callable, Iterator

from lambdamr.tracked import TrackedJob
from lambdamr_runtime.chunk import StageRun
from lambdamr_runtime.limits import EVENT_AGE_S
from lambdamr_runtime.store import Store, StoredObject
from lambdamr_runtime.sweep import current_stage, sweep
from lambdamr_runtime.wire import Event, Manifest


class Net:
    """Sweeps a job that is quiet for too long; each time it waits twice as long for the next.

    Lanes that still run, or wait for a place, are launched twice by that: no harm, but some cost.

    Args:  clock: seconds since the epoch.  last_sign_s: when the job last showed a sign of life.
    """

    def __init__(
        self,
        job: TrackedJob,
        invoke: Callable[[Event], None],
        clock: Callable[[], float],
        patience_s: float,
        last_sign_s: float,
    ) -> None:
        self._job = job
        self._invoke = invoke
        self._clock = clock
        self._patience_s = patience_s
        self._pending = list(job.pending)
        self._since = last_sign_s

    def __call__(self) -> None:
        """Called at a look that found nothing new."""
        now = self._clock()
        if self._job.pending != self._pending:
            self._pending, self._since = list(self._job.pending), now
        if now - self._since < self._patience_s:
            return
        sweep(self._job.backend.store, self._job.manifest, self._invoke, now)
        self._since = now
        self._patience_s = min(2 * self._patience_s, max(EVENT_AGE_S, self._patience_s))


def last_sign_s(store: Store, manifest: Manifest) -> float:
    """Return when a job last committed anything, or was submitted; seconds since the epoch."""
    run = current_stage(store, manifest)
    times = [entry.modified_s for entry in _outcomes(store, run)]
    return max([manifest.created_s, *times])


def _outcomes(store: Store, run: StageRun) -> Iterator[StoredObject]:
    for group in range(run.plan.groups):
        yield from store.list(run.keys.outcomes(group))
