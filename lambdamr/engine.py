"""What an executor has once it runs, and how that ends."""

import atexit
import logging
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from lambdamr.backend import Backend, RemoteBackend
from lambdamr.machine import Machine
from lambdamr.submission import Submission
from lambdamr.threads import start_thread, with_end
from lambdamr.tracked import Launch, TrackedJob
from lambdamr.tracking import Poller
from lambdamr_runtime.errors import StoreError

logger = logging.getLogger(__name__)


class Engine:
    """The backend, the poller, and the jobs between them."""

    def __init__(self, backend: Backend, machine: Machine | None = None) -> None:
        self.backend = backend
        self.poller = Poller(backend, machine)
        self.known: set[str] = set()
        """Keys of function objects that this client has stored."""
        self.closed = threading.Event()
        """Set when the workers have been stopped."""
        self._finishing = False
        """Whether the workers stop as soon as nothing is outstanding."""
        # Reentrant: garbage collection may end an executor, and so come here, in any thread.
        self._gate = threading.RLock()
        """Held where a job becomes outstanding, and where no more may."""
        self._pid = os.getpid()
        backend.connect(self.poller)

    def start(self, submission: Submission) -> TrackedJob:
        """Store and launch a job; one that waits for futures is launched by the last of them.

        Raises:  RuntimeError: after shutdown, or in a forked process.
        """
        if self._is_forked:
            raise RuntimeError(
                "cannot schedule new futures: this executor was made in the process that this one "
                "was forked from, and what reads its store does not live on in a fork. Start "
                'processes by spawn (multiprocessing.get_context("spawn")) and make one there.'
            )
        if isinstance(self.backend, RemoteBackend):
            self.backend.check(submission, submission.exclude)
        job = TrackedJob(submission.manifest, self.backend, self.poller)
        job.engine = self
        job.modules = submission.modules
        job.footprints = submission.footprints
        try:
            job.submitter = threading.get_ident()
            with self._gate:  # outstanding from here on: who ends the executor waits for it
                if self._finishing:
                    raise _closed()
                self.poller.add(job)
            if submission.awaited:
                self._launch_later(job, submission)
            else:
                submission.store(self.backend.store, self.known)
                self._launch(job, submission)
        except BaseException as error:  # Ctrl-C too: nobody would launch it
            self._fail(job, error, "it could not be submitted")
            raise
        finally:
            job.submitter = 0
        return job

    def _fail_interrupted(self) -> None:
        """Fail what this thread is submitting: where it is the handler of a signal, or a finalizer,
        that ends the executor, the submission cannot go on before that has returned.
        """
        for job in self.poller.outstanding():
            if job.submitter == threading.get_ident():
                self._fail(job, _closed(), "it could not be submitted")

    def _launch_later(self, job: TrackedJob, submission: Submission) -> None:
        """Have a job launched by the last of the futures that it waits for."""
        waiting = [len(submission.awaited)]
        lock = threading.Lock()

        def one_is_done(_: Any) -> None:
            with lock:
                waiting[0] -= 1
                last = waiting[0] == 0
            if last:
                _unwound(lambda: self._launch_awaiting(job, submission))

        for future in submission.awaited:
            future.add_done_callback(one_is_done)

    def _launch(self, job: TrackedJob, submission: Submission) -> None:
        """Launch a job that is stored; one that was cancelled meanwhile gets its tombstone."""
        if not job.begin_launch():
            self.poller.entomb(job)
            return
        if not any(job.pending):
            self._end_empty(job)
        if isinstance(self.backend, RemoteBackend):
            job.take_over = self.backend.watch(job, is_new=True)
        self.poller.add(job)  # again: it is looked for from now on
        submission.launch(self.backend, self.poller.machine.time())

    def _launch_awaiting(self, job: TrackedJob, submission: Submission) -> None:
        """Launch a job whose arguments are done, or resolve it with what one of them raised.

        Of several independent tasks, each meets the failed arguments of its own in the worker.
        """
        if job.launch is not Launch.WAITING:
            return  # cancelled while it waited
        what = "an argument failed"
        try:
            if len(job.stages) > 1 or job.pending == [1]:
                for future in submission.awaited:
                    future.result()
            what = "it could not be launched"
            submission.store(self.backend.store, self.known)
            self._launch(job, submission)
        except BaseException as error:  # the call's futures get it, whatever it is
            self._fail(job, error, what)

    def _fail(self, job: TrackedJob, error: BaseException, what: str) -> None:
        """End a job that nobody has the futures of, or whose futures are to have this error."""
        from lambdamr_runtime.barrier import Report

        report = Report("failed", f"{what}: {error!r}", self.poller.machine.time())
        job.give_up(lambda *_: error, report)
        self.poller.look()
        if job.launch is not Launch.LAUNCHED:
            return
        self.backend.withdraw(job.manifest.job)
        try:
            self.poller.entomb(job)  # some of its lanes may run
        except StoreError as refused:  # what has failed is what is raised
            logger.warning("Could not end job %s: %s", job.manifest.job, refused)

    def _end_empty(self, job: TrackedJob) -> None:
        """A job without tasks has nobody to end it but the client."""
        from lambdamr_runtime.barrier import end_empty

        end_empty(self.backend.store, job.manifest, self.poller.machine.time())

    @property
    def _is_forked(self) -> bool:
        """Whether this process was forked from the executor's: there nothing of it goes on, and
        its threads, workers and jobs are not for this one to end.
        """
        return os.getpid() != self._pid

    def cancel(self, everything: bool) -> None:
        """Cancel what is outstanding; *everything*: calls that run as well.

        Raises:  StoreError: a tombstone was refused; all is cancelled here nevertheless.
        """
        if self._is_forked:
            return
        refused: list[StoreError] = []
        for job in self.poller.outstanding():
            single = len(job.stages) == 1 and job.stages[0].run.plan.chunks == 1
            try:
                if single and not everything:
                    for future in job.stages[0].futures:
                        future.cancel()
                else:
                    job.poller.cancel_job(job)
            except StoreError as error:
                refused.append(error)
        if refused:
            raise refused[0]

    def finish(self, wait: bool) -> None:
        """Stop the workers when nothing is outstanding any more."""
        if self._is_forked:  # where another thread may have held the gate
            return
        with self._gate:
            self._finishing = True
        if wait:
            self._fail_interrupted()
            self.poller.wait_until_idle()
            self._close()
        else:
            self.poller.when_idle(self._close)

    def end(self, failed: bool) -> None:
        """Wait for what is outstanding, or cancel it where the program has *failed*, and stop the
        workers. A job that was attached to is not this program's to cancel, nor to wait for unless
        it runs here.
        """
        for job in self.poller.outstanding():
            if job.is_attached and (failed or job.take_over is not None):
                self.poller.forget(job)
        try:
            if failed:
                self.cancel(everything=True)
            self.finish(wait=True)
        finally:
            self.backend.close()  # also if a second Ctrl-C ends the wait

    def abandon(self) -> None:
        """Cancel what is outstanding, and stop the workers without waiting for anything.

        In a thread of its own, which no signal interrupts: one more Ctrl-C ends this wait alone.
        """
        if self._is_forked:
            return
        abandon, ended = with_end(self._abandon)
        start_thread(abandon, "lambdamr-end")
        with ended:
            pass

    def _abandon(self) -> None:
        with self._gate:
            self._finishing = True
        try:
            self.cancel(everything=True)
        except StoreError as error:  # all is cancelled here nevertheless
            logger.warning("Could not put every tombstone: %s", error)
        finally:
            self._close()

    def _close(self) -> None:
        try:
            self.backend.close()
        finally:
            _engines.discard(self)
        self.closed.set()

    def stop_with(self, executor: object) -> None:
        """Stop when nobody has the executor any more, and see that the program's end waits."""
        weakref.finalize(executor, self.finish, wait=False).atexit = False
        _engines.add(self)


def _closed() -> RuntimeError:
    return RuntimeError("cannot schedule new futures after shutdown")


def _unwound(act: Callable[[], None]) -> None:
    """Call *act*, behind the one that this thread is in: a call that fails fails those that wait
    for it, they fail others, and such chains may be longer than the stack is deep.
    """
    acts: deque[Callable[[], None]] | None = getattr(_in_thread, "acts", None)
    if acts is not None:
        acts.append(act)
        return
    acts = _in_thread.acts = deque((act,))
    try:
        while acts:
            acts.popleft()()
    finally:
        _in_thread.acts = None


_in_thread = threading.local()
"""`acts`: what is still to be called in this thread."""

_engines: set[Engine] = set()
"""Those not closed yet; one whose executor is gone may still have calls outstanding."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_engines.clear)  # they are the parent's, threads and all


@atexit.register
def _finish_all() -> None:
    """At the end of the program: wait for what is outstanding, as concurrent.futures does.

    A program that ends by an exception, Ctrl-C for one, does not wait: it cancels.
    """
    end_all(getattr(sys, "last_value", None) is not None and not hasattr(sys, "ps1"))


def end_all(failed: bool) -> None:
    """End the engines of this program; see Engine.end."""
    for engine in list(_engines):
        engine.end(failed)
