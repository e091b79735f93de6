"""What tasks log and print: with their failures, and while they still run."""

import json
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

import lambdamr
from lambdamr.logs import follow
from lambdamr_runtime.errors import CorruptObject, RemoteTraceback
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.logs import LiveLog, LogWatch
from lambdamr_runtime.process import Running
from lambdamr_runtime.store import open_store
from tests.faulty_stores import InterceptedStore, Request
from tests.gates import PATIENCE_S, Gate, pass_gate

JOB = "20260101-000000-aaaaaaaaaaaa"
OTHER_JOB = "20260101-000000-bbbbbbbbbbbb"

T = TypeVar("T")


# --- logging ------------------------------------------------------------------------------------
def test_logging_of_tasks_is_captured_from_info_on(executor: lambdamr.Executor) -> None:
    """INFO and above of any logger, in the form of logging.basicConfig; DEBUG is not shown."""

    def task() -> None:
        logger = logging.getLogger("mine")
        logger.debug("unseen")
        logger.info("read %d rows", 3)
        logger.error("no good")

    future = executor.submit(task)
    future.result(PATIENCE_S)
    assert future.logs() == "INFO:mine:read 3 rows\nERROR:mine:no good\n"


def test_a_task_may_configure_logging(executor: lambdamr.Executor) -> None:
    """What basicConfig sets in a task holds for it, not for the next one of the process."""

    def task(configure: bool) -> None:
        if configure:
            logging.basicConfig(format="my %(message)s", level=logging.DEBUG)
        logging.getLogger().debug("detail")
        logging.getLogger().info("news")

    futures = [executor.submit(task, configure) for configure in (True, False, False, False)]
    lambdamr.get_all_results(futures, PATIENCE_S)
    assert futures[0].logs() == "my detail\nmy news\n"
    assert {future.logs() for future in futures[1:]} == {"INFO:root:news\n"}


def test_a_message_that_cannot_be_formatted(executor: lambdamr.Executor) -> None:
    """It is told on stderr, as logging does, and the task goes on."""

    def task() -> int:
        logging.getLogger().info("%d", "no number")
        return 1

    future = executor.submit(task)
    assert future.result(PATIENCE_S) == 1
    assert "Logging error" in future.logs()


# --- with the failure -----------------------------------------------------------------------------
def test_a_failure_shows_the_last_output(executor: lambdamr.Executor) -> None:
    """The cause of the exception has the remote traceback, and below it what the task printed;
    of much output the last whole lines.
    """

    def task(lines: int) -> None:
        for line in range(lines):
            print(f"line {line}")
        raise ValueError("no good")

    error = executor.submit(task, 2).exception(PATIENCE_S)
    assert error is not None
    cause = error.__cause__
    assert isinstance(cause, RemoteTraceback)
    assert cause.text.endswith("ValueError: no good")
    assert str(cause).endswith('ValueError: no good\nIts last output:\nline 0\nline 1"""')
    long = executor.submit(task, 5_000).exception(PATIENCE_S)
    assert long is not None
    shown = str(long.__cause__)
    assert "…\nline 4" in shown
    assert shown.endswith('line 4999"""')
    assert len(shown) < 3_000
    silent = executor.submit(task, 0).exception(PATIENCE_S)
    assert "Its last output" not in str(silent.__cause__)  # type: ignore[union-attr]


def test_a_timeout_shows_the_last_output(root: str) -> None:
    """So does the message of a task that was stopped."""

    def task(wait: bool) -> None:
        print("about to wait")
        if wait:
            threading.Event().wait()

    with lambdamr.Executor(workers=1, root=root) as executor:
        executor.submit(task, False).result(PATIENCE_S)  # loading is no part of the time below
        error = executor.map(task, [True], timeout_s=2.0)[0].exception(PATIENCE_S)
    assert isinstance(error, lambdamr.TaskTimeout)
    assert "Its last output:\nabout to wait" in str(error)


# --- while tasks run ------------------------------------------------------------------------------
def print_and_hold(path: str, text: str) -> None:
    print(f"before {text}")
    sys.stdout.flush()
    pass_gate(path)
    print(f"after {text}")


def test_logs_of_a_running_task(executor: lambdamr.Executor, gate: Gate) -> None:
    """logs() of a task that runs is what it has written so far; when it is done, all."""
    future = executor.submit(print_and_hold, gate.path, "it")
    gate.wait_until_entered()
    assert future.logs() == "before it\n"
    gate.open()
    future.result(PATIENCE_S)
    assert future.logs() == "before it\nafter it\n"


def test_logs_of_a_running_task_of_another_client(executor: lambdamr.Executor, gate: Gate) -> None:
    """Whoever attaches sees them too: the store is all that is between them."""
    future = executor.submit(print_and_hold, gate.path, "it")
    gate.wait_until_entered()
    with lambdamr.Executor(workers=1) as other:
        from lambdamr.attaching import follow as follow_job
        from lambdamr.tracked import TrackedJob

        engine = other.engine()
        job = TrackedJob(future.stage.job.manifest, engine.backend, engine.poller)
        follow_job(job)
        assert job.stages[0].futures[0].logs() == "before it\n"
        gate.open()
        job.stages[0].futures[0].result(PATIENCE_S)


def test_following_tasks(executor: lambdamr.Executor, gate: Gate) -> None:
    """follow() yields what running tasks write and the rest when they are done, each line once
    and those of a task in order; tasks that fail too.
    """

    def task(item: int, path: str) -> None:
        print("first", item)
        sys.stdout.flush()
        pass_gate(path)
        print("last", item)
        if item == 2:
            raise ValueError

    futures = executor.map(task, range(3), [gate.path] * 3, chunksize=1, return_exceptions=True)
    seen: dict[int, str] = {0: "", 1: "", 2: ""}
    for future, text in follow(futures):
        if not seen[future.task]:
            gate.open()
        seen[future.task] += text
    assert seen == {item: f"first {item}\nlast {item}\n" for item in range(3)}


def test_following_what_is_done(executor: lambdamr.Executor) -> None:
    """Tasks that were done already come with all they wrote; silent ones not at all."""
    futures = executor.map(lambda n: print(n) if n else None, range(3))
    futures.result(PATIENCE_S)
    assert [(future.task, text) for future, text in follow(futures)] == [(1, "1\n"), (2, "2\n")]


# --- the worker's side --------------------------------------------------------------------------
class Desk:
    """A running task and what it has written, for a LogWatch."""

    def __init__(self) -> None:
        self.store = open_store("memory://")
        self.running: list[Running | None] = [Running(1, 4, 7, float("inf"), "ab" * 8)]
        self.output = b""
        self.watch = LogWatch(self.store, self.look, lambda: (len(self.output), self.output[-10:]))

    def look(self) -> Running | None:
        """What runs; where several are given, another one at every look."""
        return self.running.pop(0) if len(self.running) > 1 else self.running[0]

    def shown(self) -> LiveLog | None:
        key = JobKeys(JOB).live_log(2, 4)
        return LiveLog.decode(self.store.get(key), key) if self.store.exists(key) else None

    def want(self) -> None:
        self.store.put(JobKeys(JOB).logs_wanted, b"")


def test_a_log_is_shown_where_it_is_wanted() -> None:
    """Nothing is stored before somebody asks; then the tail, and its size in all."""
    desk = Desk()
    desk.output = b"0123456789abc"
    desk.watch.look(JOB, 2)
    assert desk.shown() is None
    desk.want()
    desk.watch.look(JOB, 2)
    assert desk.shown() == LiveLog(7, 1, 13, b"3456789abc")


def test_looks_that_cost_money_are_rare() -> None:
    """Whether logs are wanted is asked at once and after a pause; known, it is not asked again."""
    desk = Desk()
    asked: list[str] = []

    def note(request: Request, act: Callable[[], T], /) -> T:
        if request.verb == "head":
            asked.append(request.key)
        return act()

    desk.output = b"text"
    store = InterceptedStore(desk.store, note)
    desk.watch = LogWatch(store, desk.look, lambda: (len(desk.output), desk.output), 3600.0)
    desk.watch.look(JOB, 2)
    desk.want()
    desk.watch.look(JOB, 2)
    assert (desk.shown(), len(asked)) == (None, 1)
    desk.watch.look(OTHER_JOB, 2)
    desk.watch.look(JOB, 2)
    desk.output = b"text and more"
    desk.watch.look(JOB, 2)
    assert desk.shown() == LiveLog(7, 1, 13, b"text and more")
    assert len(asked) == 3


def test_output_of_another_task_is_not_mistaken() -> None:
    """A task that ends while its output is read: it may be that of the next one."""
    desk = Desk()
    desk.want()
    desk.output = b"whose?"
    desk.running = [Running(1, 4, 7, 0.0, ""), Running(2, 4, 8, 0.0, "")]
    desk.watch.look(JOB, 2)
    assert desk.shown() is None


@pytest.mark.parametrize("running", [None, Running(1, 4, -1, 0.0, "")])
def test_between_tasks_nothing_is_shown(running: Running | None) -> None:
    """Nor while arguments are loaded."""
    desk = Desk()
    desk.want()
    desk.output = b"text"
    desk.running = [running]
    desk.watch.look(JOB, 2)
    assert desk.shown() is None


def test_a_log_that_has_not_grown_is_not_stored_again() -> None:
    """The object stays as it was written."""
    desk = Desk()
    desk.want()
    desk.output = b"text"
    desk.watch.look(JOB, 2)
    desk.store.delete([JobKeys(JOB).live_log(2, 4)])
    desk.watch.look(JOB, 2)
    assert desk.shown() is None


@pytest.mark.parametrize("data", [b"", b"{}\ntext", b"[1]\n", json.dumps({"task": 1}).encode()])
def test_damaged_logs_are_named(data: Any) -> None:
    """CorruptObject with the key."""
    with pytest.raises(CorruptObject, match="jobs/x is not the log"):
        LiveLog.decode(data, "jobs/x")
