"""Following jobs: one poller per executor turns outcomes in the store into resolved futures.

    hint (local pool) ─┐
    pause is over ─────┼─▶ Poller thread ─ LIST what is incomplete ─ GET new outcomes ─▶ futures
    a job is added ────┘                 └ GET report.json where nothing came: the job has ended

The thread lives only while something is outstanding. Hints save the pauses; without them the pause
grows from POLL_FIRST_S to max(POLL_FLOOR_S, POLL_SHARE of the elapsed time), at most POLL_MAX_S.
"""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from functools import partial
from typing import TYPE_CHECKING

from lambdamr.backend import Backend
from lambdamr.futures import HELP_PAUSE_S, Future
from lambdamr.machine import Machine, News, ThisMachine
from lambdamr.polling import next_pause, prefixes_to_list
from lambdamr.tracked import Launch, TrackedJob, TrackedStage
from lambdamr_runtime.errors import (
    CorruptObject,
    InvocationFailed,
    JobFailed,
    JobTimeout,
    StoreError,
)
from lambdamr_runtime.keys import last_number, new_execution_id
from lambdamr_runtime.limits import (
    POLL_FIRST_S,
    POLL_FLOOR_S,
    POLL_MAX_S,
    STORE_PATIENCE_S,
)
from lambdamr_runtime.wire import Frame, FrameKind, Outcome, StageKind

if TYPE_CHECKING:
    from lambdamr_runtime.barrier import Report

logger = logging.getLogger(__name__)

LOOK_SHARE = 0.05
"""Most of the time that looking at all jobs may take, where there are thousands of them."""


class Poller:
    """Follows the jobs of one executor in one thread, which lives only while there are any.

    Args:  machine: whose clock and threads are used; None: this one's.
    """

    def __init__(self, backend: Backend, machine: Machine | None = None) -> None:
        self._backend = backend
        self.machine: Machine = machine or ThisMachine()
        self._store = backend.store
        self._jobs: dict[str, TrackedJob] = {}
        self._limited: dict[str, TrackedJob] = {}
        """Those with a time limit of their own."""
        self._news: News = self.machine.news()
        """Hints (job, stage, chunk), failed jobs and wake-ups."""
        self._failures: dict[str, str] = {}
        # Reentrant: garbage collection may end an executor, and so come here, in any thread.
        self._lock = threading.RLock()
        self._is_running = False
        """Whether the thread runs, or is about to."""
        self._has_thread = False
        """Whether it has begun."""
        self._at_idle: list[Callable[[], None]] = []
        self._at_end: dict[str, list[Callable[[], object]]] = {}
        """What to call once a job is over."""
        self.idle = self.machine.signal()
        """Notified when nothing is outstanding any more."""

    # --- called by anybody ---------------------------------------------------------------------
    def add(self, job: TrackedJob) -> None:
        """Follow a job from now on."""
        with self._lock:
            self._jobs[job.manifest.job] = job
            is_news = not self._backend.hints
            if job.manifest.timeout_s is not None:
                self._limited[job.manifest.job] = job
                is_news = True
            self._start()
        if is_news:
            self.look()

    def _start(self) -> None:
        """Start the thread, if anything is outstanding; with the lock held.

        Ctrl-C may come before it has been started or behind: it is tried again where it may not
        have been, and one that is too many ends at once.
        """
        if self._is_running or not self._jobs:
            return
        try:
            self._is_running = True
            self.machine.start(self._run, "lambdamr-poller")
        except BaseException:
            self._is_running = False
            raise

    def look(self) -> None:
        """Look at the store now, and begin again with short pauses."""
        self._news.put("")

    def committed(self, job: str, stage: int, chunk: int) -> None:
        self._news.put((job, stage, chunk))

    def failed(self, job: str, reason: str) -> None:
        if self.find(job) is None:
            from lambdamr.nested import end_failed  # few jobs fail

            end_failed(self._store, job, self._failure(reason))
            return
        self._failures[job] = reason
        self.look()

    def find(self, job: str) -> TrackedJob | None:
        """Return a job that is followed now."""
        with self._lock:
            return self._jobs.get(job)

    def forget(self, job: TrackedJob) -> None:
        """Follow a job no longer: nobody waits for its futures any more."""
        with self._lock:
            self._jobs.pop(job.manifest.job, None)
            self._limited.pop(job.manifest.job, None)
        self.look()

    def wait_until_idle(self) -> None:
        """Wait until nothing is outstanding; inside a task, run what of it is queued."""
        patience = HELP_PAUSE_S if self._backend.helps else None
        while not self._wait_idle(patience):
            self.help()

    def _wait_idle(self, patience: float | None) -> bool:
        with self._lock:
            self._start()
        return self.idle.wait_for(lambda: not (self._is_running or self._jobs), patience)

    def help(self, job: str = "") -> None:
        """Inside a task: run a queued event in this thread, of *job* first, else of any other.

        Any other: what *job* itself waits for may be queued behind the task that waits.
        """
        followed = [each.manifest.job for each in self.outstanding()]
        for name in (job, *followed) if job else followed:
            if self._backend.help(name):
                self.look()
                return

    def when_idle(self, act: Callable[[], None]) -> None:
        """Call *act* once nothing is outstanding: now, or from the poller's thread."""
        with self._lock:
            self._start()
            if self._is_running:
                self._at_idle.append(act)
                return
        act()

    def when_over(self, job: TrackedJob, act: Callable[[], object]) -> None:
        """Call *act* once a job is over: now, or from the poller's thread."""
        with self._lock:
            if job.manifest.job in self._jobs:
                self._at_end.setdefault(job.manifest.job, []).append(act)
                return
        act()

    def outstanding(self) -> list[TrackedJob]:
        with self._lock:
            return list(self._jobs.values())

    def cancel(self, stage: TrackedStage, future: Future) -> bool:
        """Cancel one future; see Future.cancel.

        The chunk of a cancelled task gets a cancelled outcome as soon as none of its tasks is
        wanted any more: whoever creates the outcome first wins, so the cancellation is certain.
        """
        if future.done():
            return future.cancelled()
        if stage.is_running():
            return False
        job = stage.job
        chunk = stage.run.plan.chunk_of(future.task)
        with job.cancelling:
            cancelled = stage.unwanted | {future.task}
            is_last = cancelled.issuperset(stage.run.plan.tasks_of(chunk))
            is_all = len(job.stages) == 1 and len(cancelled) == len(stage.futures)
            launched = not job.refuse_launch() if is_all else job.launch is Launch.LAUNCHED
            is_new = future.task not in stage.unwanted
            if is_new and is_last and launched and not self._create_cancelled(stage, chunk):
                self.committed(stage.job_id, stage.run.index, chunk)
                return False
            stage.unwanted = cancelled
        try:
            if is_new and is_all and launched:
                self._backend.withdraw(stage.job_id)
                self.entomb(job)
        finally:  # that is decided, even if the store refuses the tombstone
            self._cancel_future(stage, future, chunk if is_last else None)
        if is_last:
            self.look()
        return future.cancelled()

    def _cancel_future(self, stage: TrackedStage, future: Future, chunk: int | None) -> None:
        """Cancel a future here, and count.

        Args:  chunk: that this completes, if it does.
        """
        job = stage.job
        is_mine = future.mark_cancelled()
        with job.lock:
            stage.failed += is_mine
            if chunk in stage.missing:  # else the poller has read its outcome, and counts
                stage.missing.discard(chunk)
                job.pending[stage.run.index] -= len(stage.run.plan.tasks_of(chunk))
            job.changed.notify_all()
        if is_mine:
            future.call_back()  # counted and unlocked: callbacks may wait for what they like

    def cancel_job(self, job: TrackedJob) -> None:
        """Put a job's tombstone and cancel its futures."""
        from lambdamr_runtime.barrier import Report

        if job.is_over:
            return
        try:
            if not job.refuse_launch():
                self._backend.withdraw(job.manifest.job)
                self.entomb(job)
        finally:  # nobody waits here any more, even if the store refuses the tombstone
            report = Report("cancelled", "cancelled by the client", self.machine.time())
            job.give_up(lambda *_: CancelledError(), report)
            self.look()

    def entomb(self, job: TrackedJob) -> None:
        """Put a job's tombstone: its workers stop, and whoever follows it sees its end."""
        from lambdamr_runtime.barrier import Report, end_job

        report = Report("cancelled", "cancelled by the client", self.machine.time())
        end_job(self._store, job.keys, job.end or report)

    def _create_cancelled(self, stage: TrackedStage, chunk: int) -> bool:
        from lambdamr_runtime import serialize
        from lambdamr_runtime.wire import CLIENT, encode_frames

        record = serialize.record_failure(CancelledError("cancelled by the client"))
        count = len(stage.run.plan.tasks_of(chunk))
        frames = encode_frames(
            [Frame(FrameKind.ERROR, serialize.plain_dumps(record), tries=0)] * count
        )
        execution = new_execution_id()
        outcome = Outcome(chunk, execution, 0, count, count, 0.0, 0.0, 0.0, CLIENT, frames)
        key = stage.run.keys.outcome(stage.run.plan.group_of(chunk), chunk)
        return self._store.create(key, outcome.encode(), execution)

    # --- the thread ----------------------------------------------------------------------------
    def _run(self) -> None:
        with self._lock:
            if self._has_thread:
                return
            self._has_thread = self._is_running = True
        pause = self._first_pause()
        self._look_at_all()
        while not self._retire():
            hints, asked = self._wait_for_news(min(pause, self._left_s()))
            if hints:
                self._read_hinted(hints)
            if asked:
                pause = self._first_pause()
            if asked or not hints:
                began = self.machine.monotonic()
                self._look_at_all()
                pause = next_pause(pause, self._elapsed_s())
                slow = (self.machine.monotonic() - began) / LOOK_SHARE
                pause = min(POLL_MAX_S, max(pause, slow))

    def _wait_for_news(self, pause: float) -> tuple[list[tuple[str, int, int]], bool]:
        """Return the hints that came, and whether a look at the store was asked for."""
        hints: list[tuple[str, int, int]] = []
        asked = False
        try:
            news = self._news.get(timeout=pause)
            while True:
                if isinstance(news, tuple):
                    hints.append(news)
                else:
                    asked = True
                news = self._news.get_nowait()
        except queue.Empty:
            return hints, asked

    def _first_pause(self) -> float:
        """Only of what this client's own backend runs there are hints to rely on."""
        owner = self._backend.owner
        hinted = self._backend.hints and all(
            job.manifest.owner == owner for job in self.outstanding()
        )
        return POLL_FLOOR_S if hinted else POLL_FIRST_S

    def _elapsed_s(self) -> float:
        with self._lock:
            since = [job.followed_since for job in self._jobs.values()]
        now = self.machine.monotonic()
        return now - min(since, default=now)

    def _left_s(self) -> float:
        """Return when the next job is over its time limit, seconds from now; else infinity."""
        if not self._limited:
            return float("inf")
        with self._lock:
            left = [job.left_s() for job in self._limited.values()]
        return min((each for each in left if each > 0), default=float("inf"))

    def _retire(self) -> bool:
        """Forget the jobs that are over; whether none is left and the thread may end."""
        ended: list[Callable[[], object]] = []
        acts: list[Callable[[], None]] = []
        with self._lock:
            for name in [name for name, job in self._jobs.items() if job.is_over]:
                del self._jobs[name]
                self._limited.pop(name, None)
                ended += self._at_end.pop(name, ())
            is_idle = not self._jobs
            if is_idle:
                self._has_thread = self._is_running = False
                acts, self._at_idle = self._at_idle, []
                self.idle.notify_all()
        for tell in ended:
            try:
                tell()
            except Exception:  # of a display or a loop that is gone: other jobs are followed here
                logger.exception("Could not tell of the end of a job")
        for act in acts:
            act()
        return is_idle

    def _read_hinted(self, hints: list[tuple[str, int, int]]) -> None:
        touched: dict[str, TrackedJob] = {}
        for name, index, chunk in hints:
            job = self.find(name)
            if job is None:
                continue
            touched[name] = job
            if index == len(job.stages):
                self._guarded(job, self._look_for_end, job)
            elif chunk in job.stages[index].missing:
                self._guarded(job, self._read, job.stages[index], chunk)
        for job in touched.values():
            job.changed.notify_all()

    def _look_at_all(self) -> None:
        from lambdamr_runtime.barrier import overdue

        for job in self.outstanding():
            if job.launch is Launch.WAITING and job.left_s() <= 0 and job.refuse_launch():
                end = overdue(job.manifest, self.machine.time())
                job.give_up(partial(_ending, report=end), end)
            if job.launch is Launch.LAUNCHED and not job.is_over:
                self._guarded(job, self._look_at, job)
                job.changed.notify_all()

    def _guarded(self, job: TrackedJob, look: Callable[..., object], *args: object) -> None:
        """Survive a store that cannot be reached for a while; give the job up where it stays so,
        and where an object is corrupt.
        """
        try:
            look(*args)
            job.unreadable_since = None
        except CorruptObject as error:
            reason = str(error)
            job.give_up(lambda *_: CorruptObject(reason), self._failure(reason))
        except (StoreError, InvocationFailed, FileNotFoundError) as error:
            if not self._has_failed(job):
                self._unreadable(job, error)
        except Exception as error:  # a defect of ours ends this job, not the thread of all jobs
            text = f"Job {job.manifest.job} cannot be followed: {error!r}"
            job.give_up(lambda *_: JobFailed(text), self._failure(text))

    def _unreadable(self, job: TrackedJob, error: Exception) -> None:
        """A look has failed: look again later, unless that has gone on for too long."""
        now = self.machine.monotonic()
        if job.unreadable_since is None:
            job.unreadable_since = now
        seconds = now - job.unreadable_since
        if seconds < STORE_PATIENCE_S:
            logger.warning("Could not look at job %s: %s", job.manifest.job, error)
            return
        text = (
            f"Job {job.manifest.job} could not be looked at for {seconds:.0f} s: {error} It may "
            f"have gone on: lambdamr.attach({job.manifest.job!r}) looks again."
        )
        job.give_up(lambda *_: StoreError(text), self._failure(text))

    def _look_at(self, job: TrackedJob) -> None:
        news = 0
        for stage in job.stages:
            news += self._read_new(stage) if stage.missing else 0
            if stage.missing:
                break  # before it is complete nothing of the next one is launched
        if self._has_failed(job) or job.is_over or (news and any(job.pending)):
            return
        self._look_for_end(job)

    def _has_failed(self, job: TrackedJob) -> bool:
        """Give a job up that cannot go on, as its backend says; whether that was so."""
        reason = self._failures.pop(job.manifest.job, None)
        if reason is None:
            return False
        text = f"Job {job.manifest.job} failed: {reason}"
        job.give_up(lambda *_: JobFailed(text), self._failure(reason))
        return True

    def _read_new(self, stage: TrackedStage) -> int:
        """Read the outcomes that are new; returns how many there were."""
        plan = stage.run.plan
        if plan.chunks == 1:
            try:
                self._read(stage, 0)
            except FileNotFoundError:
                return 0
            return 1
        found: list[int] = []
        paged = not self._backend.hints  # a directory has no pages
        missing = stage.missing.copy()  # whoever cancels takes some away
        for prefix in prefixes_to_list(stage.run.keys, plan, missing, paged=paged):
            found += [last_number(entry.key) for entry in self._store.list(prefix)]
        new = sorted(stage.missing.intersection(found))
        for chunk in new:
            self._read(stage, chunk)
        return len(new)

    def _read(self, stage: TrackedStage, chunk: int) -> None:
        from lambdamr_runtime.references import read_outcome

        key = stage.run.keys.outcome(stage.run.plan.group_of(chunk), chunk)
        outcome, frames = read_outcome(self._store, key)
        if outcome.count != len(stage.run.plan.tasks_of(chunk)):
            raise CorruptObject(f"{key} holds {outcome.count} results, its chunk has others")
        with stage.job.lock:
            if chunk not in stage.missing:
                return
            stage.missing.discard(chunk)
        job, index = stage.job, stage.run.index
        count, failed = stage.settle(outcome, frames, key)  # unlocked: callbacks may do all
        with job.lock:  # the job may have been given up in between
            stage.failed += failed
            job.pending[index] = max(0, job.pending[index] - count)
            if failed or not job.pending[index]:
                job.changed.notify_all()

    def _look_for_end(self, job: TrackedJob) -> None:
        """Resolve what is left of a job that has ended."""
        from lambdamr_runtime.barrier import end_job, overdue, read_end

        report = read_end(self._store, job.keys)
        if report is None and job.left_s() <= 0:  # no worker has come to see that
            end_job(self._store, job.keys, overdue(job.manifest, self.machine.time()))
            report = read_end(self._store, job.keys)
        if report is None:
            self._check_presence(job)
            if job.take_over is not None:
                job.take_over()
            return
        for stage in job.stages:
            if stage.missing:
                self._read_new(stage)
        job.give_up(partial(_ending, report=report), report)

    def _check_presence(self, job: TrackedJob) -> None:
        """Give a job up whose objects were deleted: nobody will ever commit the rest of it."""
        if not self._store.exists(job.keys.manifest):
            text = (
                f"Job {job.manifest.job} is gone: {job.keys.manifest} is no longer under "
                f"{self._store.root}. Somebody deleted it; run the job again."
            )
            job.give_up(lambda *_: JobFailed(text), self._failure(text))

    def _failure(self, reason: str) -> "Report":
        """Return the end, as this client sees it, of a job that cannot go on."""
        from lambdamr_runtime.barrier import Report

        return Report("failed", reason, self.machine.time())


def _ending(stage: TrackedStage, task: int, report: "Report") -> BaseException:
    """Return the error of a task that was not run; one that folds has that of what it folds."""
    from lambdamr_runtime.barrier import EndKind

    if report.status == "cancelled":
        return CancelledError()
    if report.kind is EndKind.TIMEOUT:
        return JobTimeout(f"Job {stage.job_id} ended before this task had. {report.reason}")
    if report.status == "done":
        plan = stage.run.plan
        chunk = plan.chunk_of(task)
        return CorruptObject(
            f"Job {stage.job_id} is done, but {stage.run.keys.outcome(plan.group_of(chunk), chunk)}"
            ", the outcome of this task, is missing. Somebody deleted it; run the job again."
        )
    if stage.run.stage.kind is StageKind.FOLD:
        for future in stage.job.stages[stage.run.index - 1].futures:
            error = None if future.cancelled() else future.exception(0)
            if error is not None and not isinstance(error, JobFailed):  # that one was not run
                return error
    return JobFailed(
        f"Job {stage.job_id} {report.status} before this task had run. {report.reason}"
    )
