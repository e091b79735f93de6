"""Chunks for a task that waits for a nested job, where no queue can be asked for any.

The chunks of a nested job are launched as functions like all others. If nobody commits one for a
while, the platform may have no place for them, perhaps because all places are taken by tasks that
wait: then the waiting task runs them itself, from the last one on, until others go on.
"""

import threading
from dataclasses import dataclass

from lambdamr_runtime.chunk import StageRun
from lambdamr_runtime.clock import Clock
from lambdamr_runtime.errors import StoreError
from lambdamr_runtime.keys import JobKeys, last_number
from lambdamr_runtime.limits import STEAL_S
from lambdamr_runtime.store import Store
from lambdamr_runtime.sweep import current_stage
from lambdamr_runtime.wire import Event, Manifest

FORGET_S = 60.0
"""A job that nobody has asked for chunks of for so long has ended: a warm process keeps no more."""


@dataclass(slots=True)
class _Nested:
    """What is known of a nested job. Times are on the clock's monotonic one."""

    manifest: Manifest
    looked: float
    """When somebody last looked."""
    asked: float
    """When somebody last asked for a chunk of it."""
    expected: tuple[int, int] = (0, 0)
    """(stage, outcomes), as they are if nobody else has committed one since."""


class Stealer:
    """Finds chunks of jobs that do not go on; several threads of a task may ask at once."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._jobs: dict[str, _Nested] = {}
        self._lock = threading.Lock()

    def take(self, job: str) -> Event | None:
        """Return an event that runs one chunk of the job, or None where it goes on by itself."""
        with self._lock:
            try:
                return self._take(job, self._clock.monotonic())
            except (StoreError, FileNotFoundError):
                # Not stored yet, as it waits for its arguments; or who follows it tells why not.
                return None

    def _take(self, job: str, now: float) -> Event | None:
        known = self._jobs.get(job)
        if known is None:
            key = JobKeys(job).manifest
            manifest = Manifest.decode(self._store.get(key), key)
            self._forget(now)
            self._jobs[job] = _Nested(manifest, now, now)
            return None
        known.asked = now
        return self._look(known, now) if now - known.looked >= STEAL_S else None

    def _forget(self, now: float) -> None:
        for job in [job for job, each in self._jobs.items() if now - each.asked > FORGET_S]:
            del self._jobs[job]

    def _look(self, known: _Nested, now: float) -> Event | None:
        if self._store.exists(JobKeys(known.manifest.job).report):
            del self._jobs[known.manifest.job]
            return None
        run = current_stage(self._store, known.manifest)
        groups = range(run.plan.groups)
        done = {
            last_number(entry.key)
            for group in groups
            for entry in self._store.list(run.keys.outcomes(group))
        }
        chunk = next((c for c in reversed(range(run.plan.chunks)) if c not in done), 0)
        if known.expected != (run.index, len(done)):
            known.looked, known.expected = now, (run.index, len(done))
            return None
        # Taken by itself: `looked` stays, so that the next one follows at once if it still is so.
        known.expected = (run.index, len(done) + (chunk not in done))
        return self._event(known.manifest, run, chunk)

    def _event(self, manifest: Manifest, run: StageRun, chunk: int) -> Event:
        lane = chunk % run.plan.lanes
        return Event(
            manifest.job, run.index, lane, lane + 1,
            repair=True, only=(chunk,), sent_s=self._clock.time(),
        )  # fmt: skip
