"""Cancelling: what has not begun never runs, what runs ends within seconds, and nothing hangs."""

import os
import threading
import time
from collections.abc import Collection
from concurrent.futures import CancelledError
from functools import partial

import pytest

import lambdamr
from lambdamr.polling import prefixes_to_list
from lambdamr_runtime.keys import StageKeys
from lambdamr_runtime.lanes import LanePlan
from tests import faults

LIMIT_S = 30.0
"""Longest wait for a result in these tests."""

SEEN_WITHIN_S = 10.0
"""A running task has ended so long after its job was cancelled."""


def begun(folder: str, name: object) -> None:
    """Wait until the task *name* has left its sign."""
    faults.wait_until(lambda: faults.signs(folder, name), f"the start of {name}")


def assert_ended(pids: list[int]) -> None:
    assert pids
    faults.wait_until(
        lambda: not any(map(faults.is_process, pids)), f"the end of {pids}", SEEN_WITHIN_S
    )


def test_cancel_pending(single: lambdamr.Executor, folder: str) -> None:
    """A call that waits for a worker can be cancelled: it never runs, and its future says so."""
    holding = single.submit(faults.signed_hold, folder, "first")
    begun(folder, "first")
    pending = single.submit(faults.signed, folder, "second")
    assert not pending.running()
    assert pending.cancel()
    assert pending.cancelled()
    assert pending.done()
    with pytest.raises(CancelledError):
        pending.result(LIMIT_S)
    faults.open_gate(folder)
    assert holding.result(LIMIT_S) == "first"
    assert single.submit(faults.signed, folder, "third").result(LIMIT_S) == "third"
    assert faults.all_signs(folder) == {"first": 1, "third": 1, "go": 1}


def test_cancel_many_pending(single: lambdamr.Executor, folder: str) -> None:
    """Of a hundred calls that wait, those that are cancelled never run and the others do."""
    holding = single.submit(faults.signed_hold, folder, "first")
    begun(folder, "first")
    futures = [single.submit(faults.signed, folder, i) for i in range(100)]
    assert all(future.cancel() for future in futures[::2])
    faults.open_gate(folder)
    assert holding.result(LIMIT_S) == "first"
    assert [future.result(LIMIT_S) for future in futures[1::2]] == list(range(1, 100, 2))
    assert all(future.cancelled() for future in futures[::2])
    assert set(faults.all_signs(folder)) == {"first", "go", *map(str, range(1, 100, 2))}


def test_cancel_running(single: lambdamr.Executor, folder: str) -> None:
    """A call that runs cannot be cancelled, nor can one that is done: its result stands."""
    future = single.submit(faults.signed_hold, folder, "only")
    begun(folder, "only")
    assert future.running()
    assert not future.cancel()
    faults.open_gate(folder)
    assert future.result(LIMIT_S) == "only"
    assert not future.cancel()
    assert not future.cancelled()


def test_cancel_some_tasks_of_a_map(single: lambdamr.Executor, folder: str) -> None:
    """Single tasks of a map can be cancelled, half a chunk or a whole one: what they return does
    not count, and the rest of the map has its results.
    """
    futures = single.map(partial(faults.signed_hold, folder), range(8), chunksize=2)
    begun(folder, 0)
    assert [futures[i].cancel() for i in (3, 4, 5)] == [True] * 3
    faults.open_gate(folder)
    faults.wait_until(futures.done, "the rest")
    assert [future.cancelled() for future in futures] == [i in (3, 4, 5) for i in range(8)]
    assert [futures[i].result(LIMIT_S) for i in (0, 1, 2, 6, 7)] == [0, 1, 2, 6, 7]


def test_cancel_while_the_client_looks_for_outcomes(
    single: lambdamr.Executor, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other threads cancel leaves the chunks that are looked for, one by one, amid a look."""
    looked = threading.Event()

    def meanwhile(
        keys: StageKeys, plan: LanePlan, missing: Collection[int], *, paged: bool
    ) -> list[str]:
        some = iter(missing)
        next(some)
        if not looked.is_set():
            futures[-1].cancel()
            looked.set()  # not before: the test lets the tasks go
        return prefixes_to_list(keys, plan, [0, *some], paged=paged)

    futures = single.map(partial(faults.signed_hold, folder), range(50), chunksize=1)
    monkeypatch.setattr("lambdamr.tracking.prefixes_to_list", meanwhile)
    futures[-2].cancel()  # the client looks
    assert looked.wait(LIMIT_S)
    faults.open_gate(folder)
    assert futures[:48].result(LIMIT_S) == list(range(48))
    assert futures[-1].cancelled()


def test_cancel_a_long_map(single: lambdamr.Executor, folder: str) -> None:
    """Cancelling a map ends the process of its running task within seconds; the others never
    run, and the executor goes on.
    """
    futures = single.map(partial(faults.telling_hold, folder), range(50), chunksize=1)
    begun(folder, 0)
    asked = time.monotonic()
    assert futures.cancel() == 50
    assert all(future.cancelled() for future in futures)
    assert time.monotonic() - asked < 2
    with pytest.raises(CancelledError):
        futures.result(LIMIT_S)
    assert_ended(faults.pids_in(folder))
    assert single.submit(abs, -1).result(LIMIT_S) == 1
    assert set(faults.all_signs(folder)) - {f"pid.{faults.pids_in(folder)[0]}"} == {"0"}


def test_cancel_in_a_c_call(single: lambdamr.Executor, folder: str) -> None:
    """A cancelled task that holds the GIL in a C call is ended all the same."""

    def task(item: int) -> object:
        faults.sign(folder, f"pid.{os.getpid()}")
        return faults.match_for_ever()

    futures = single.map(task, range(2), chunksize=1)
    faults.wait_until(lambda: faults.pids_in(folder), "the task")
    futures.cancel()
    assert_ended(faults.pids_in(folder))
    assert single.submit(abs, -1).result(LIMIT_S) == 1


def test_cancel_keeps_what_is_done(single: lambdamr.Executor, folder: str) -> None:
    """Cancelling a map takes nothing back: tasks that are done keep their results."""

    def task(item: int) -> object:
        return item if item < 3 else faults.telling_hold(folder, item)

    futures = single.map(task, range(6), chunksize=1)
    assert futures[2].result(LIMIT_S) == 2
    begun(folder, 3)
    assert futures.cancel() == 3
    assert [future.result(LIMIT_S) for future in futures[:3]] == [0, 1, 2]
    assert [future.cancelled() for future in futures[3:]] == [True] * 3
    assert_ended(faults.pids_in(folder))


def test_cancel_a_job(single: lambdamr.Executor, folder: str) -> None:
    """A map_reduce can be cancelled once: its tasks end, result() and the report say so."""

    def mapper(item: int) -> list[tuple[int, object]]:
        return [(item, faults.telling_hold(folder, item))]

    job = single.map_reduce(mapper, range(4), lambda key, values: sum(values))
    faults.wait_until(lambda: faults.pids_in(folder), "the first task")
    assert job.cancel()
    assert not job.cancel()
    with pytest.raises(CancelledError):
        job.result(LIMIT_S)
    assert job.report().status == "cancelled"
    assert_ended(faults.pids_in(folder))


def test_cancel_a_call_that_waits_for_another(single: lambdamr.Executor, folder: str) -> None:
    """A call that waits for its argument can be cancelled: it is never launched."""
    argument = single.submit(faults.signed_hold, folder, "argument")
    waiting = single.submit(faults.signed, folder, argument)
    assert waiting.cancel()
    faults.open_gate(folder)
    assert argument.result(LIMIT_S) == "argument"
    assert single.submit(abs, -1).result(LIMIT_S) == 1
    assert faults.all_signs(folder) == {"argument": 1, "go": 1}


def test_call_on_a_cancelled_future(single: lambdamr.Executor, folder: str) -> None:
    """A call whose argument is cancelled ends as cancelled, without running."""
    holding = single.submit(faults.signed_hold, folder, "first")
    begun(folder, "first")
    argument = single.submit(faults.signed, folder, "argument")
    waiting = single.submit(faults.signed, folder, argument)
    assert argument.cancel()
    with pytest.raises(CancelledError):
        waiting.result(LIMIT_S)
    faults.open_gate(folder)
    assert holding.result(LIMIT_S) == "first"


def test_cancel_while_others_wait(single: lambdamr.Executor, folder: str) -> None:
    """Whoever waits for futures that get cancelled is woken up."""
    from threading import Thread

    futures = single.map(partial(faults.telling_hold, folder), range(4), chunksize=1)
    begun(folder, 0)
    seen: list[BaseException] = []

    def wait() -> None:
        try:
            futures.result(LIMIT_S)
        except BaseException as error:
            seen.append(error)

    thread = Thread(target=wait)
    thread.start()
    futures.cancel()
    thread.join(LIMIT_S)
    assert [type(error) for error in seen] == [CancelledError]
    done, left = lambdamr.wait(futures, LIMIT_S)
    assert (len(done), len(left)) == (4, 0)


def test_leaving_by_an_exception(root: str, folder: str) -> None:
    """An exception that leaves the with block cancels everything: running tasks end at once,
    pending ones never run, and the exception goes on.
    """
    futures: list[lambdamr.Future] = []

    def leave() -> None:
        with lambdamr.Executor(workers=1, concurrency=1, root=root) as executor:
            futures.append(executor.submit(faults.telling_hold, folder, 0))
            futures.extend(executor.map(partial(faults.signed, folder), range(1, 30), chunksize=1))
            begun(folder, 0)
            raise LookupError("mine")

    asked = time.monotonic()
    with pytest.raises(LookupError, match="mine"):
        leave()
    assert time.monotonic() - asked < 5
    assert len(futures) == 30
    assert all(future.cancelled() for future in futures)
    assert_ended(faults.pids_in(folder))
    assert "1" not in faults.all_signs(folder)


def test_shutdown_cancels_what_is_pending(root: str, folder: str) -> None:
    """shutdown(cancel_futures=True) lets the running call end and cancels what has not begun."""
    executor = lambdamr.Executor(workers=1, concurrency=1, root=root)
    running = executor.submit(faults.signed_hold, folder, "first")
    begun(folder, "first")
    pending = [executor.submit(faults.signed, folder, i) for i in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in pending)
    with pytest.raises(RuntimeError):
        executor.submit(abs, 1)
    faults.open_gate(folder)
    assert running.result(LIMIT_S) == "first"
    executor.shutdown(wait=True)
    assert faults.all_signs(folder) == {"first": 1, "go": 1}


def test_shutdown_cancels_a_map(root: str, folder: str) -> None:
    """shutdown(cancel_futures=True) ends a map of many chunks, the running one too."""
    executor = lambdamr.Executor(workers=1, concurrency=1, root=root)
    futures = executor.map(partial(faults.telling_hold, folder), range(20), chunksize=1)
    begun(folder, 0)
    asked = time.monotonic()
    executor.shutdown(wait=True, cancel_futures=True)
    assert time.monotonic() - asked < SEEN_WITHIN_S
    assert all(future.cancelled() for future in futures)
    assert_ended(faults.pids_in(folder))


def test_cancelled_job_seen_by_others(single: lambdamr.Executor, root: str, folder: str) -> None:
    """Another process that attaches to a cancelled job gets cancelled futures and runs nothing."""
    with lambdamr.Executor(workers=1, concurrency=1, root=root) as executor:
        futures = executor.map(partial(faults.telling_hold, folder), range(3), chunksize=1)
        begun(folder, 0)
        futures.cancel()
    before = faults.all_signs(folder)
    program = f"""
        import lambdamr
        futures = lambdamr.attach({futures.job_id!r})
        futures.wait(30)
        print([future.cancelled() for future in futures])
    """
    assert faults.run_client(program, root) == "[True, True, True]\n"
    assert faults.all_signs(folder) == before
