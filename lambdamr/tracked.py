"""What is followed of a job: its stages, their futures, and how far it is."""

import enum
import logging
import operator
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import InvalidStateError
from concurrent.futures._base import LOGGER
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lambdamr.backend import Backend
from lambdamr.futures import HELP_PAUSE_S, Future
from lambdamr.machine import Signal
from lambdamr.stats import ChunkStats, TaskStats
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.wire import CLIENT, OURS, Frame, FrameKind, Manifest, Outcome

if TYPE_CHECKING:
    from lambdamr.engine import Engine
    from lambdamr.submission import Footprint
    from lambdamr.tracking import Poller
    from lambdamr_runtime.barrier import Report


logger = logging.getLogger(__name__)


class Launch(enum.Enum):
    """How far this client is with the launch of a job."""

    WAITING = enum.auto()
    """For the arguments of its call: nothing of it may be stored yet."""
    LAUNCHED = enum.auto()
    """It is stored, and workers may write outcomes; also where another client launched it."""
    NEVER = enum.auto()
    """It ended while it waited."""


@dataclass(slots=True)
class Spent:
    """What the chunks of a stage took that this client has seen the outcomes of."""

    chunks: int = 0
    seconds: float = 0.0
    """Of whole chunks, from their arguments to their outcome."""
    results_stored: int = 0
    """Chunks with results beside their outcome."""
    deaths: int = 0
    """Executions that died before the ones that ended."""
    workers: set[str] = field(default_factory=set)
    last_s: float = 0.0
    """When the last chunk ended, seconds since the epoch."""

    def add(self, outcome: Outcome) -> None:
        self.chunks += 1
        self.seconds += outcome.seconds
        self.results_stored += bool(outcome.results)
        self.deaths += outcome.attempt
        self.workers.add(outcome.worker)
        self.last_s = max(self.last_s, outcome.started_s + outcome.seconds)


class TrackedStage:
    """The futures of one stage, and which of its chunks are still to come."""

    def __init__(self, job: "TrackedJob", index: int) -> None:
        from lambdamr_runtime.chunk import StageRun

        self.job = job
        self.run = StageRun.of(job.manifest, index)
        self.futures = [Future(self, task) for task in range(self.run.stage.tasks)]
        self.missing = set(range(self.run.plan.chunks))
        """Chunks without an outcome yet."""
        self.unwanted: set[int] = set()
        """Tasks whose cancellation is decided."""
        self.failed = 0
        """Tasks that have failed or were cancelled: counted when their futures say so too."""
        self.ran: dict[int, ChunkStats] = {}
        """How each chunk ran that has an outcome; none of those that the client cancelled."""
        self.spent = Spent()

    @property
    def job_id(self) -> str:
        return self.job.manifest.job

    @property
    def root(self) -> str:
        return self.job.backend.store.root

    @property
    def helps(self) -> bool:
        """Whether a wait in this process runs chunks of the job itself: it is nested."""
        return self.job.backend.helps

    @property
    def resolved(self) -> int:
        """Tasks that have ended, as far as whole chunks tell."""
        return len(self.futures) - self.job.pending[self.run.index]

    def chunk_stats(self) -> list[ChunkStats]:
        """Return how the chunks ran that have ended; the poller may note more meanwhile."""
        return list(self.ran.values())

    def value_of_ours(self, task: int) -> object:
        """Return what a map, reduce or final task made, one of our records; None where it has no
        value, and of the user's own tasks.
        """
        future = self.futures[task]
        if self.run.stage.kind not in OURS or not future.done() or future.cancelled():
            return None
        return future.result() if future.exception() is None else None

    def is_covered_by(self, futures: Sequence[Future]) -> bool:
        """Whether *futures* are all of this stage's, in order."""
        return len(futures) == len(self.futures) and all(map(operator.is_, futures, self.futures))

    def is_running(self) -> bool:
        """Whether the task has begun, where a job of one chunk lets us know."""
        return self.run.plan.chunks == 1 and self.job.backend.has_begun(self.job_id)

    def wait(self, timeout: float | None, stop_on_error: bool) -> bool:
        """Wait until all tasks have ended, or one has failed; whether that has come."""

        def is_over() -> bool:
            return self.job.pending[self.run.index] == 0 or (stop_on_error and self.failed > 0)

        left = self.help_until(is_over, timeout)
        return self.job.changed.wait_for(is_over, left)

    def help_until(self, is_over: Callable[[], bool], timeout: float | None) -> float | None:
        """In a nested job: run queued chunks in this thread until *is_over* or the time is up.

        Returns:  what is left of the timeout.
        """
        if not self.helps:
            return timeout
        now = self.job.poller.machine.monotonic
        deadline = None if timeout is None else now() + timeout
        while not is_over() and (deadline is None or now() < deadline):
            self.job.poller.help(self.job_id)
            self.job.changed.wait_for(is_over, HELP_PAUSE_S)
        return None if deadline is None else max(0.0, deadline - now())

    def cancel(self, future: Future) -> bool:
        return self.job.poller.cancel(self, future)

    def cancel_job(self) -> None:
        """Put the tombstone, and cancel every future of the job that has not ended."""
        self.job.poller.cancel_job(self.job)

    def settle(self, outcome: Outcome, frames: Iterable[Frame], source: str) -> tuple[int, int]:
        """Resolve the futures of a chunk; returns how many it has, and how many failed by this."""
        if outcome.worker != CLIENT:
            self.ran[outcome.chunk] = _chunk_stats(outcome)
        self.spent.add(outcome)
        count = failed = 0
        for task, frame in zip(self.run.plan.tasks_of(outcome.chunk), frames, strict=True):
            count += 1
            future = self.futures[task]
            if not future.done():
                failed += self._settle_one(future, outcome, frame, source)
        return count, failed

    def _settle_one(self, future: Future, outcome: Outcome, frame: Frame, source: str) -> bool:
        """Return whether the future has failed, and by this."""
        from lambdamr_runtime import serialize

        value: object = None
        error: BaseException | None = None
        try:
            if frame.kind is FrameKind.VALUE:
                value = serialize.load_value(frame.payload)
            else:
                record = serialize.load_error(frame.payload, source)
                error = serialize.revive(record, frame.log)
                future.remember_frames(record.frames)
        except BaseException as broken:  # unpickling runs the user's code, SystemExit included
            error = broken
        stats = TaskStats(
            frame.seconds, frame.tries, outcome.attempt, outcome.started_s, outcome.peak_mb,
            outcome.worker,
        )  # fmt: skip
        resolved = _resolve(future, lambda: future.settle(value, error, stats, frame.log))
        return resolved and error is not None


class TrackedJob:
    """A job that this client follows."""

    def __init__(self, manifest: Manifest, backend: Backend, poller: "Poller") -> None:
        self.manifest = manifest
        self.keys = JobKeys(manifest.job)
        self.backend = backend
        self.poller = poller
        self.lock = threading.RLock()
        """Held while counts and states below are changed."""
        self.changed: Signal = poller.machine.signal()
        """Notified whenever they have."""
        self.stages = [TrackedStage(self, index) for index in range(len(manifest.stages))]
        self.pending = [len(stage.futures) for stage in self.stages]
        """Tasks without an outcome, per stage."""
        self.cancelling = threading.RLock()
        """Held while the cancellation of a task is decided, store requests included: of two tasks
        of a chunk one is the last. Reentrant: a signal's handler may cancel too."""
        self.launch = Launch.WAITING
        self.submitter = 0
        """The thread that is submitting it; 0: none is."""
        self.modules: frozenset[str] = frozenset()
        """Modules that its pickles refer to, where this client submitted it: whoever takes its
        results as arguments needs them too."""
        self.footprints: tuple[Footprint, ...] = ()
        """What its stages weigh, where this client submitted it."""
        self.engine: Engine | None = None
        """What runs the executor's jobs: where a job that runs this one's tasks again starts."""
        self.end: Report | None = None
        """How the job ended, where that was looked for."""
        self.is_attached = False
        """Whether somebody else has launched it."""
        self.take_over: Callable[[], None] | None = None
        """Called at every look: runs the job here once its owner is gone."""
        self.followed_since = poller.machine.monotonic()
        self.unreadable_since: float | None = None
        """When the first of the looks failed that have all failed since."""

    @property
    def is_over(self) -> bool:
        """Whether nothing is to come any more; see Manifest.ends_with_report."""
        awaits_report = self.end is None and self.manifest.ends_with_report
        return not any(self.pending) and not awaits_report

    def wait(self, timeout: float | None) -> bool:
        """Wait until the job is over; whether it is."""
        left = self.stages[-1].help_until(lambda: self.is_over, timeout)
        return self.changed.wait_for(lambda: self.is_over, left)

    def left_s(self) -> float:
        """Return what is left of the job's time limit, seconds; infinite without one.

        Whichever clock is ahead: one that was set back makes no job endless.
        """
        limit_s = self.manifest.timeout_s
        if limit_s is None:
            return float("inf")
        machine = self.poller.machine
        followed_s = machine.monotonic() - self.followed_since
        return min(self.manifest.deadline_s - machine.time(), limit_s - followed_s)

    def begin_launch(self) -> bool:
        """Go from WAITING to LAUNCHED; False where the job ended while it waited."""
        with self.lock:
            if self.launch is not Launch.WAITING:
                return False
            self.launch = Launch.LAUNCHED
            return True

    def refuse_launch(self) -> bool:
        """See that the job is not launched any more; False where it was already."""
        with self.lock:
            if self.launch is Launch.LAUNCHED:
                return False
            self.launch = Launch.NEVER
            return True

    def give_up(self, make_error: "MakeError", end: "Report") -> None:
        """Resolve every future that has not ended with an error of its own: that is the end."""
        self.refuse_launch()
        with self.lock:
            for stage in self.stages:
                stage.missing.clear()
        for stage in self.stages:  # unlocked: callbacks may do what they like
            failed = 0
            for future in stage.futures:
                if not future.done():
                    failed += _fail(future, make_error(stage, future.task))
            with self.lock:
                stage.failed += failed
        with self.lock:
            self.pending = [0] * len(self.stages)
            self.end = self.end or end
            self.changed.notify_all()


def _chunk_stats(outcome: Outcome) -> ChunkStats:
    return ChunkStats(
        outcome.attempt, outcome.started_s, outcome.seconds, outcome.peak_mb,
        sys.intern(outcome.worker), outcome.queued_s, outcome.cold_s, outcome.load_s,
        outcome.write_s,
    )  # fmt: skip


MakeError = Callable[[TrackedStage, int], BaseException]
"""Makes the error of a task of a stage that will not be run."""


def _fail(future: Future, error: BaseException) -> bool:
    return _resolve(future, lambda: future.fail(error))


def _resolve(future: Future, act: Callable[[], None]) -> bool:
    """Resolve a future by *act*; False where it had ended in that very moment: that stands."""
    try:
        act()
    except InvalidStateError:
        logger.debug("%r had ended before it was resolved", future)
        return False
    except SystemExit:  # of a callback; this thread may follow every job
        LOGGER.exception("exception calling callback for %r", future)
    return True
