"""A worker's two processes at bad moments: one looks, ends or forks while the other goes on."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

import lambdamr
from lambdamr_runtime import child as child_module
from lambdamr_runtime import context
from lambdamr_runtime import sandbox as sandbox_module
from lambdamr_runtime.channel import Verb
from lambdamr_runtime.child import Settings
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.limits import LOG_BYTES, OUTPUT_BYTES
from lambdamr_runtime.process import Output, ProgressPage
from lambdamr_runtime.sandbox import Sandbox
from lambdamr_runtime.wire import DeathCause
from tests import faults

LIMIT_S = 30.0
"""Longest wait for a result in these tests."""

JOBS = ("20260101-000000-aaaaaaaaaaaa", "20260101-000000-bbbbbbbbbbbb")


# --- the page -----------------------------------------------------------------------------------
def test_a_look_that_takes_long_sees_no_row_that_is_over() -> None:
    """While it reads one place after the other, two tasks begin, and a third one halfway."""

    class Slow(ProgressPage):
        is_read = False

        def _row(self, at: int) -> bytes:
            row = super()._row(at)
            if not self.is_read:
                self.is_read = True
                self.begin(0, 2, 60.0, "2" * 16)
                self.begin(0, 3, 60.0, "3" * 16)
                self._page[self._PLACES[1]] ^= 0xFF
            return row

    page = Slow()
    page.begin(0, 1, -1.0, "1" * 16)
    running = page.running()
    assert running is not None
    assert running.task == 3


# --- memory -------------------------------------------------------------------------------------
class Child:
    """What the parent looks at and ends: a process of 214 MB, with what happens meanwhile."""

    pid = 0
    last_mb = 214.0

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self._meanwhile = meanwhile

    def has_ended(self) -> bool:
        return False

    def memory_mb(self) -> float:
        self._meanwhile()
        return self.last_mb

    def kill(self) -> int:
        self._meanwhile()
        return signal.SIGKILL


@pytest.fixture
def sandbox(root: str, tmp_path: Path) -> Iterator[Sandbox]:
    """One without a child."""
    sandbox = Sandbox(Settings(root, "test", str(tmp_path)))
    yield sandbox
    shared = sandbox._shared
    for file in (shared.spool._file, shared.output._file, shared.stack):
        file.close()


@pytest.mark.parametrize("limit_mb", [0, 2000])
def test_memory_of_a_stage_that_may_use_it(sandbox: Sandbox, limit_mb: int) -> None:
    """It began between a look at the limit and one at the memory."""
    page = sandbox._shared.page
    page.limit_memory(100)
    child = Child(lambda: page.limit_memory(limit_mb))
    assert sandbox._check(cast("Any", child)) is None


def test_memory_of_the_task_before(sandbox: Sandbox) -> None:
    """A task that began when its process was ended for what it held before: lost, not guilty."""
    page = sandbox._shared.page
    child = Child(lambda: page.begin(3, 4, 60.0, "1" * 16))
    death = sandbox._autopsy(cast("Any", child), None, DeathCause.MEMORY, "it used 214 MB")
    assert (death.cause, death.chunk, death.task) == (DeathCause.LOST, 3, 4)
    assert "it used 214 MB" in death.detail


# --- output -------------------------------------------------------------------------------------
def test_output_is_not_trimmed_while_it_is_taken() -> None:
    """The child holds a lock while it takes what is large; the parent leaves that to the next
    look, and finds nothing to trim where what was large has been taken.
    """
    output = Output()
    descriptor = output._fd

    def write() -> None:
        os.pwrite(descriptor, b"x" * (OUTPUT_BYTES + 2 * LOG_BYTES), 0)

    def blocks() -> int:
        return os.fstat(descriptor).st_blocks

    write()
    before = blocks()
    asked, answer = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        with output._untrimmed():
            os.write(answer[1], b"held")
            os.read(asked[0], 1)
        os._exit(0)
    os.read(answer[0], 4)
    output.trim()
    assert blocks() == before
    os.write(asked[1], b"x")
    os.waitpid(pid, 0)
    output.trim()
    assert blocks() < before / 2
    assert len(output.take()) == LOG_BYTES
    for each in (*asked, *answer):
        os.close(each)
    output._file.close()


# --- cancellations and logs -----------------------------------------------------------------------
class Watched:
    """A store, a link and logs as a _TombstoneWatch has them, of jobs that are all cancelled."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.logged: list[tuple[str, bool]] = []
        self.during_look: Callable[[], None] = lambda: None
        self.during_telling: Callable[[], None] = lambda: None
        self.watch = child_module._TombstoneWatch(
            cast("Any", self), cast("Any", self), ProgressPage(), 0.001, cast("Any", self)
        )

    def exists(self, key: str) -> bool:
        act, self.during_look = self.during_look, lambda: None
        act()
        return key in {JobKeys(job).cancelled for job in JOBS}

    def tell(self, verb: Verb, body: bytes) -> None:
        assert verb is Verb.CANCELLED
        self.told.append(body.decode())
        act, self.during_telling = self.during_telling, lambda: None
        act()

    def look(self, job: str, stage: int, is_watched: Callable[[], bool]) -> None:
        assert stage == JOBS.index(job)
        self.logged.append((job, is_watched()))


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.watch._tick.set()


def test_the_next_job_is_watched_too(watched: Watched) -> None:
    """One that begins while it is told of the one before that this is cancelled."""
    watched.during_telling = lambda: watched.watch.watch(JOBS[1], 1)
    watched.watch.watch(JOBS[0], 0)
    faults.wait_until(lambda: JOBS[1] in watched.told, "the second job's cancellation")
    assert watched.told == list(JOBS)


def test_a_job_that_begins_during_a_look_has_its_own_logs(watched: Watched) -> None:
    """What its tasks write is not shown as that of the job before."""
    watched.during_look = lambda: watched.watch.watch(JOBS[1], 1)
    watched.watch.watch(JOBS[0], 0)
    faults.wait_until(lambda: (JOBS[1], True) in watched.logged, "the second job's logs")
    assert (JOBS[0], True) not in watched.logged
    assert watched.told == [JOBS[1]]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_look_that_hangs_holds_nothing(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that looks for a tombstone has nothing open of the worker's: the lifeline of the
    child ends with the worker, whatever became of the look.
    """
    monkeypatch.setattr(sandbox_module, "open_store", lambda _: signal.pause())
    held = os.pipe()
    assert not sandbox._looker.sees_end(JOBS[0], -float("inf"))
    pid = sandbox._looker._pid

    def open_there() -> set[str]:
        return set(os.listdir(f"/proc/{pid}/fd"))

    try:
        faults.wait_until(lambda: open_there() <= {"0", "1", "2"}, "the closing of what is open")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for each in held:
            os.close(each)


# --- forks of tasks -----------------------------------------------------------------------------
@pytest.fixture
def single(root: str) -> Iterator[lambdamr.Executor]:
    executor = lambdamr.Executor(workers=1, root=root, timeout_s=LIMIT_S)
    yield executor
    executor.shutdown(wait=False, cancel_futures=True)


def leave() -> int:
    return 0


def leave_by_exit() -> int:
    sys.exit(3)


def leave_by_message() -> int:
    sys.exit("no more")


def leave_by_error() -> int:
    raise ValueError("of the fork")


@pytest.mark.parametrize(
    ("way", "status", "said"),
    [
        (leave, 0, ""),
        (leave_by_exit, 3, ""),
        (leave_by_message, 1, "no more\n"),
        (leave_by_error, 1, "ValueError: of the fork\n"),
    ],
)
def test_a_fork_that_leaves_the_task_ends(
    single: lambdamr.Executor, way: Callable[[], int], status: int, said: str
) -> None:
    """It does not go on as a second worker: its exit status is what Python's would be, the task
    has its own result, and so has the next one.
    """

    def task(number: int) -> tuple[int, int]:
        pid = os.fork()
        if pid == 0:
            return number, way()
        return number, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    for number in range(3):
        future = single.submit(task, number)
        assert future.result(LIMIT_S) == (number, status)
        assert future.logs().endswith(said)
    assert single.map(task, range(4), chunksize=2).result(LIMIT_S) == [
        (number, status) for number in range(4)
    ]


def test_a_fork_of_a_task_submits_nothing(single: lambdamr.Executor) -> None:
    """It has no worker behind it, and is told so."""

    def task() -> str:
        receiving, sending = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                lambdamr.Executor().submit(abs, -1)
            except RuntimeError as error:
                os.write(sending, str(error).encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(sending)
        with open(receiving) as file:
            return file.read()

    said = single.submit(task).result(LIMIT_S)
    assert said.startswith("cannot schedule new futures: this process was forked by a task")


def test_an_end_in_the_midst_of_a_message(single: lambdamr.Executor, folder: str) -> None:
    """A process that is killed while it sends is seen to have ended, though one that its task
    forked lives on.
    """

    def task() -> int:
        if faults.sign(folder, "task") == 1:
            if os.fork() == 0:
                signal.pause()
            link = cast("Any", context.current()).invoke.__self__
            link.channel._socket.send(b"\x03\xff\xff\x00\x00half of an INVOKE")
            os.kill(os.getpid(), signal.SIGKILL)
        return 1

    future = single.submit(task)
    assert future.result(LIMIT_S) == 1
    assert future.stats is not None
    assert future.stats.attempt == 1


def test_no_fork_while_a_worker_is_started(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread of the client that forks does so behind that: its child would keep what the
    worker's end is seen by.
    """
    really = subprocess.Popen
    order: list[str] = []

    def fork() -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        order.append("forked")
        os.waitpid(pid, 0)

    forking = threading.Thread(target=fork)

    def start(*args: Any, **options: Any) -> "subprocess.Popen[bytes]":
        forking.start()
        forking.join(0.3)
        order.append("started")
        return really(*args, **options)

    with lambdamr.Executor(workers=1, root=root) as executor:
        monkeypatch.setattr(subprocess, "Popen", start)
        assert executor.submit(abs, -1).result(LIMIT_S) == 1
    forking.join(LIMIT_S)
    assert order == ["started", "forked"]
