"""Futures and sequences of futures: the rules of concurrent.futures, and what goes beyond them.

Tasks are held and let go through FIFOs, so no test waits for time to pass.
"""

import asyncio
import concurrent.futures
import gc
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import weakref
from concurrent.futures import CancelledError, InvalidStateError
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import lambdamr
from tests.gates import PATIENCE_S, Gate, pass_gate


def square(number: int) -> int:
    return number * number


def fail_on_odd(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


class ExitsWhenLoaded:
    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, ("in __reduce__",)


def leave_mark(path: str, *_: object) -> None:
    Path(path).touch()


# --- one future -------------------------------------------------------------------------------
class TestFuture:
    def test_is_a_future_of_the_standard_library(self, executor: lambdamr.Executor) -> None:
        """A lambdamr.Future is a concurrent.futures.Future with a value."""
        future = executor.submit(square, 7)
        assert isinstance(future, concurrent.futures.Future)
        assert future.result() == 49
        assert (future.done(), future.running(), future.cancelled()) == (True, False, False)
        assert future.exception() is None

    def test_a_result_that_cannot_be_loaded(self, executor: lambdamr.Executor) -> None:
        """What unpickling a result raises here is the future's exception, SystemExit included."""
        future = executor.submit(ExitsWhenLoaded)
        assert isinstance(future.exception(PATIENCE_S), SystemExit)
        assert executor.submit(square, 2).result(PATIENCE_S) == 4

    def test_none_is_a_result(self, executor: lambdamr.Executor) -> None:
        """A task that returns None is done, and its result is None."""
        future = executor.submit(print)
        assert future.result() is None
        assert future.done()

    def test_keyword_arguments(self, executor: lambdamr.Executor) -> None:
        """Keywords are passed on, `self` and `fn` among them."""
        future = executor.submit(lambda *args, **kwargs: (args, kwargs), 1, self=2, fn=3)
        assert future.result() == ((1,), {"self": 2, "fn": 3})

    def test_call_async_is_submit_of_one_argument(self, executor: lambdamr.Executor) -> None:
        """PyWren's call_async passes its data as the only argument."""
        assert executor.call_async(square, 3).result() == 9
        assert executor.call_async(len, [1, 2]).result() == 2

    def test_exception_is_the_same_with_the_remote_traceback(
        self, executor: lambdamr.Executor
    ) -> None:
        """The task's exception is raised here; its cause shows the line that raised there."""
        future = executor.submit(fail_on_odd, 3)
        with pytest.raises(ValueError, match="3 is odd") as caught:
            future.result()
        assert future.exception() is caught.value
        cause = caught.value.__cause__
        assert isinstance(cause, lambdamr.RemoteTraceback)
        assert 'raise ValueError(f"{number} is odd")' in str(cause)
        assert "lambdamr_runtime" not in str(cause)

    def test_chained_exception_is_in_the_remote_traceback(
        self, executor: lambdamr.Executor
    ) -> None:
        """`raise … from …` in a task is seen whole in the remote traceback."""

        def chained() -> None:
            try:
                fail_on_odd(1)
            except ValueError as error:
                raise RuntimeError("outer") from error

        error = executor.submit(chained).exception()
        assert isinstance(error, RuntimeError)
        text = str(error.__cause__)
        assert "ValueError: 1 is odd" in text
        assert "direct cause" in text

    def test_traceback_has_the_users_frames(self, executor: lambdamr.Executor) -> None:
        """`future.traceback` is a traceback object for a debugger; None where nothing failed."""
        failed = executor.submit(fail_on_odd, 3)
        failed.exception()
        trace = failed.traceback
        assert trace is not None
        assert trace.tb_frame.f_code.co_name == "fail_on_odd"
        passed = executor.submit(square, 3)
        passed.result()
        assert passed.traceback is None

    def test_result_timeout_leaves_the_future_alive(
        self, executor: lambdamr.Executor, gate: Gate
    ) -> None:
        """A timeout raises TimeoutError; the task goes on and its result comes later."""
        future = executor.submit(pass_gate, gate.path, "late")
        gate.wait_until_entered()
        with pytest.raises(TimeoutError):
            future.result(timeout=0.01)
        with pytest.raises(TimeoutError):
            future.exception(timeout=0)
        assert not future.done()
        assert future.running()
        gate.open()
        assert future.result(PATIENCE_S) == "late"
        assert not future.running()

    def test_a_running_task_cannot_be_cancelled(
        self, executor: lambdamr.Executor, gate: Gate
    ) -> None:
        """cancel() of a call that runs, or has ended, is False and changes nothing."""
        future = executor.submit(pass_gate, gate.path, 1)
        gate.wait_until_entered()
        assert not future.cancel()
        assert not future.cancelled()
        gate.open()
        assert future.result(PATIENCE_S) == 1
        assert not future.cancel()
        assert future.result() == 1

    def test_a_queued_call_is_cancelled_and_never_runs(
        self, root: str, gate: Gate, tmp_path: Path
    ) -> None:
        """cancel() of a queued call is True, also when asked again; the function is not called."""
        mark = tmp_path / "mark"
        with lambdamr.Executor(workers=1, root=root) as executor:
            running = executor.submit(pass_gate, gate.path, 1)
            gate.wait_until_entered()
            queued = executor.submit(leave_mark, str(mark))
            assert not queued.running()
            assert queued.cancel()
            assert queued.cancel()
            assert (queued.cancelled(), queued.done(), queued.running()) == (True, True, False)
            with pytest.raises(CancelledError):
                queued.result()
            with pytest.raises(CancelledError):
                queued.exception()
            gate.open()
            assert running.result(PATIENCE_S) == 1
        assert not mark.exists()

    def test_done_callbacks(self, executor: lambdamr.Executor, gate: Gate) -> None:
        """Callbacks get the future once, in order; a done future calls at once; one that raises
        does not keep the others from being called.
        """
        called: list[tuple[str, object]] = []
        all_called = threading.Event()
        future = executor.submit(pass_gate, gate.path, 5)
        future.add_done_callback(lambda f: called.append(("first", f.result())))
        future.add_done_callback(lambda f: all_called.set())
        assert called == []
        gate.open()
        assert all_called.wait(PATIENCE_S)
        assert called == [("first", 5)]
        future.add_done_callback(lambda f: called.append(("late", f)))
        assert called[1:] == [("late", future)]

    def test_a_callback_that_raises_stops_nobody(
        self, executor: lambdamr.Executor, gate: Gate, caplog: pytest.LogCaptureFixture
    ) -> None:
        """An exception in a callback is logged as the standard library does; life goes on."""
        all_called = threading.Event()
        future = executor.submit(pass_gate, gate.path)

        def broken(_: object) -> None:
            raise ArithmeticError("in a callback")

        future.add_done_callback(broken)
        future.add_done_callback(lambda _: all_called.set())
        gate.open()
        assert all_called.wait(PATIENCE_S)
        assert "in a callback" in caplog.text
        assert executor.submit(square, 2).result(PATIENCE_S) == 4

    def test_a_callback_may_submit(self, executor: lambdamr.Executor) -> None:
        """A callback that submits the next call does not block anything."""
        following: list[lambdamr.Future] = []
        submitted = threading.Event()

        def submit_next(future: concurrent.futures.Future[Any]) -> None:
            following.append(executor.submit(square, future.result()))
            submitted.set()

        executor.submit(square, 2).add_done_callback(submit_next)
        assert submitted.wait(PATIENCE_S)
        assert following[0].result(PATIENCE_S) == 16

    def test_a_callback_that_exits_stops_nobody(
        self, executor: lambdamr.Executor, gate: Gate, caplog: pytest.LogCaptureFixture
    ) -> None:
        """sys.exit in a callback ends neither the program nor the following of other futures."""
        future = executor.submit(pass_gate, gate.path, 1)
        future.add_done_callback(lambda _: sys.exit("in a callback"))
        gate.open()
        assert future.result(PATIENCE_S) == 1
        assert executor.submit(square, 2).result(PATIENCE_S) == 4
        assert "in a callback" in caplog.text

    def test_a_callback_that_takes_long_holds_nobody_up(
        self, executor: lambdamr.Executor, gate: Gate
    ) -> None:
        """While a callback runs, timeouts hold and cancel() answers: callbacks are called without
        any lock of ours.
        """
        entered, leave = threading.Event(), threading.Event()

        def callback(_: object) -> None:
            entered.set()
            leave.wait(PATIENCE_S)

        futures = executor.map(pass_gate, [gate.path] * 2, chunksize=1)
        futures[0].add_done_callback(callback)
        futures[1].add_done_callback(callback)
        gate.open()
        assert entered.wait(PATIENCE_S)
        begun = monotonic()
        with pytest.raises(TimeoutError):
            futures.result(timeout=0.01)
        assert not next(future for future in futures if future.done()).cancel()
        assert monotonic() - begun < PATIENCE_S / 2
        leave.set()
        gate.open()
        assert futures.result(PATIENCE_S) == [None, None]

    def test_callback_of_a_cancelled_future(self, executor: lambdamr.Executor, gate: Gate) -> None:
        """Cancelling calls the callbacks too."""
        waits = executor.submit(pass_gate, gate.path)
        cancelled = executor.submit(leave_mark, "", waits)
        called: list[bool] = []
        cancelled.add_done_callback(lambda f: called.append(f.cancelled()))
        assert cancelled.cancel()
        assert called == [True]

    def test_a_done_future_cannot_be_set(self, executor: lambdamr.Executor) -> None:
        """set_result and set_exception of a done future raise InvalidStateError."""
        future = executor.submit(square, 2)
        assert future.result() == 4
        with pytest.raises(InvalidStateError):
            future.set_result(5)
        with pytest.raises(InvalidStateError):
            future.set_exception(ValueError())
        assert future.result() == 4

    def test_names_and_stats(self, executor: lambdamr.Executor) -> None:
        """A future knows its job and its task, and once done how it ran."""
        future = executor.submit(sum, [1, 2])
        future.result()
        other = executor.submit(sum, [1, 2])
        assert (future.task, other.task) == (0, 0)
        assert future.job_id != other.job_id
        stats = future.stats
        assert stats is not None
        assert (stats.tries, stats.attempt) == (1, 0)
        assert 0 <= stats.seconds < PATIENCE_S
        assert stats.peak_mb > 1
        assert stats.started_s > 1e9
        assert stats.worker
        other.result()

    def test_stats_and_logs_are_empty_before_the_end(
        self, executor: lambdamr.Executor, gate: Gate
    ) -> None:
        """A future that is not done has no stats, no traceback and no log."""
        future = executor.submit(pass_gate, gate.path)
        assert (future.stats, future.traceback, future.logs()) == (None, None, "")
        gate.open()
        future.result(PATIENCE_S)

    def test_logs_are_what_the_task_wrote(self, executor: lambdamr.Executor) -> None:
        """logs() has stdout and stderr of this task alone, from Python, C and child processes."""

        def noisy(number: int) -> None:
            print(f"out {number} ü")
            print(f"err {number}", file=sys.stderr)
            os.write(1, b"raw\n")
            subprocess.run(["echo", "child"], check=True)

        futures = executor.map(noisy, range(3), chunksize=3)
        futures.result()
        assert [f.logs() for f in futures] == [
            f"out {n} ü\nerr {n}\nraw\nchild\n" for n in range(3)
        ]

    def test_logs_of_a_failed_task(self, executor: lambdamr.Executor) -> None:
        """What a task wrote before it failed is kept."""

        def fail() -> None:
            print("almost")
            raise ValueError

        future = executor.submit(fail)
        assert isinstance(future.exception(), ValueError)
        assert future.logs() == "almost\n"

    def test_repr_tells_job_task_and_state(self, executor: lambdamr.Executor, gate: Gate) -> None:
        """repr() names the job, the task, the state as running() has it, and the result's type."""
        future = executor.submit(pass_gate, gate.path, 1)
        waiting = executor.submit(square, future)
        gate.wait_until_entered()
        head = f"<lambdamr.Future job={future.job_id} task=0 "
        assert future.running()
        assert repr(future) == f"{head}running>"
        assert not waiting.running()
        assert repr(waiting).endswith("task=0 pending>")
        gate.open()
        waiting.result(PATIENCE_S)
        assert repr(future) == f"{head}finished returned int>"
        failed = executor.submit(fail_on_odd, 1)
        failed.exception()
        assert repr(failed).endswith("finished raised ValueError>")


# --- many futures -------------------------------------------------------------------------------
class TestFutures:
    def test_is_a_sequence(self, executor: lambdamr.Executor) -> None:
        """len, iteration, indexing, slices, `in`, reversed: in input order."""
        futures = executor.map(square, range(6))
        assert len(futures) == 6
        assert [f.task for f in futures] == list(range(6))
        assert futures[-1] is list(futures)[5]
        assert futures[2] in futures
        assert futures.index(futures[3]) == 3
        assert [f.task for f in reversed(futures)] == [5, 4, 3, 2, 1, 0]
        with pytest.raises(IndexError):
            futures[6]
        part = futures[1:6:2]
        assert isinstance(part, lambdamr.Futures)
        assert part.result() == [1, 9, 25]
        assert futures[::-1].result() == [25, 16, 9, 4, 1, 0]
        assert futures[4:2].result() == []

    def test_results_are_in_input_order_whatever_ends_first(self, root: str, gate: Gate) -> None:
        """The first task ends last; its value is the first of the result."""
        with lambdamr.Executor(workers=2, root=root) as executor:
            held = executor.submit(pass_gate, gate.path, "held")
            gate.wait_until_entered()
            quick = [executor.submit(square, n) for n in range(3)]
            futures = lambdamr.Futures([held, *quick])
            assert [f.result(PATIENCE_S) for f in quick] == [0, 1, 4]
            assert futures.counts() == {"done": 3, "failed": 0, "cancelled": 0, "pending": 1}
            gate.open()
            assert futures.result(PATIENCE_S) == ["held", 0, 1, 4]

    def test_as_completed_yields_what_ends_first(self, root: str, gate: Gate) -> None:
        """as_completed yields in the order of ends, each future once; duplicates too."""
        with lambdamr.Executor(workers=2, root=root) as executor:
            held = executor.submit(pass_gate, gate.path, "held")
            gate.wait_until_entered()
            quick = executor.submit(square, 2)
            completed = lambdamr.as_completed([held, quick, held], timeout=PATIENCE_S)
            assert next(completed) is quick
            gate.open()
            assert list(completed) == [held]

    def test_as_completed_times_out(self, executor: lambdamr.Executor, gate: Gate) -> None:
        """What was done comes first, then TimeoutError; the rest goes on."""
        quick = executor.submit(square, 2)
        quick.result()
        held = executor.submit(pass_gate, gate.path)
        completed = lambdamr.as_completed([held, quick], timeout=0.05)
        assert next(completed) is quick
        with pytest.raises(TimeoutError):
            next(completed)
        gate.open()
        assert held.result(PATIENCE_S) is None

    def test_as_completed_of_a_sequence(self, executor: lambdamr.Executor) -> None:
        """Futures.as_completed yields all of the sequence, failed ones as well."""
        futures = executor.map(fail_on_odd, range(5), chunksize=1)
        assert set(futures.as_completed(PATIENCE_S)) == set(futures)
        assert list(lambdamr.as_completed([])) == []

    def test_standard_library_wait(self, executor: lambdamr.Executor, gate: Gate) -> None:
        """concurrent.futures.wait and as_completed work on our futures, with every return_when."""
        held = executor.submit(pass_gate, gate.path)
        quick = executor.submit(square, 2)
        done, pending = concurrent.futures.wait(
            [held, quick], PATIENCE_S, concurrent.futures.FIRST_COMPLETED
        )
        assert (done, pending) == ({quick}, {held})
        failing = executor.submit(fail_on_odd, 1)
        done, pending = concurrent.futures.wait(
            [held, failing], PATIENCE_S, concurrent.futures.FIRST_EXCEPTION
        )
        assert (done, pending) == ({failing}, {held})
        assert concurrent.futures.wait([held], timeout=0) == (set(), {held})
        gate.open()
        done, pending = concurrent.futures.wait([held, quick, failing], PATIENCE_S)
        assert (done, pending) == ({held, quick, failing}, set())
        completed = concurrent.futures.as_completed([held, quick], PATIENCE_S)
        assert set(completed) == {held, quick}

    def test_standard_library_wait_with_futures_of_others(
        self, executor: lambdamr.Executor
    ) -> None:
        """Our futures and those of a ThreadPoolExecutor are waited for together."""
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            mixed = {executor.submit(square, 2), threads.submit(square, 3)}
            done, pending = concurrent.futures.wait(mixed, PATIENCE_S)
        assert sorted(future.result() for future in done) == [4, 9]
        assert not pending

    def test_wait(self, executor: lambdamr.Executor, gate: Gate) -> None:
        """lambdamr.wait and Futures.wait return (done, not_done); a timeout is no error."""
        held = executor.submit(pass_gate, gate.path)
        quick = executor.submit(square, 2)
        done, not_done = lambdamr.wait([held, quick], PATIENCE_S, "FIRST_COMPLETED")
        assert (done, not_done) == ({quick}, {held})
        assert lambdamr.Futures([held]).wait(timeout=0.01).not_done == {held}
        with pytest.raises(ValueError, match="SOON"):
            lambdamr.wait([held], return_when="SOON")
        gate.open()
        assert lambdamr.Futures([held, quick]).wait(PATIENCE_S).done == {held, quick}
        assert lambdamr.wait([]) == (set(), set())

    def test_result_timeout(self, executor: lambdamr.Executor, gate: Gate) -> None:
        """TimeoutError says how many are missing; the futures go on."""
        futures = executor.map(pass_gate, [gate.path] * 2, "ab", chunksize=1)
        gate.wait_until_entered()
        gate.open()
        lambdamr.wait(futures, PATIENCE_S, "FIRST_COMPLETED")
        with pytest.raises(TimeoutError, match=r"^1 of 2 tasks .*they go on"):
            futures.result(timeout=0.01)
        with pytest.raises(TimeoutError):
            futures.exceptions(timeout=0)
        gate.open()
        assert futures.result(PATIENCE_S) == ["a", "b"]

    def test_result_of_a_slice_times_out(self, executor: lambdamr.Executor, gate: Gate) -> None:
        """A slice waits for its own futures only."""
        futures = lambdamr.Futures(
            [executor.submit(square, 2), executor.submit(pass_gate, gate.path, 1)]
        )
        assert futures[:1].result(PATIENCE_S) == [4]
        with pytest.raises(TimeoutError):
            futures[1:].result(timeout=0.01)
        gate.open()
        assert futures[1:].result(PATIENCE_S) == [1]

    def test_first_exception_is_raised_at_once(self, root: str, gate: Gate) -> None:
        """result() raises as soon as a task has failed, while others still run."""
        with lambdamr.Executor(workers=2, root=root) as executor:
            values = ["fine", ValueError("failed")]
            futures = executor.map(pass_gate, [gate.path] * 2, values, chunksize=1)
            gate.wait_until_entered()
            gate.wait_until_entered()
            gate.open()
            failing = executor.map(fail_on_odd, [1, 2], chunksize=1)
            with pytest.raises(ValueError, match="1 is odd"):
                failing.result(PATIENCE_S)
            gate.open()
            with pytest.raises(ValueError, match="failed"):
                futures.result(PATIENCE_S)

    def test_exceptions_as_values(self, executor: lambdamr.Executor) -> None:
        """With return_exceptions, and by exceptions(), failures stand in their places."""
        futures = executor.map(fail_on_odd, range(4), return_exceptions=True)
        values = futures.result()
        assert values[::2] == [0, 2]
        assert [str(value) for value in values[1::2]] == ["1 is odd", "3 is odd"]
        assert [type(error) for error in futures.exceptions()] == [
            type(None), ValueError, type(None), ValueError,
        ]  # fmt: skip
        assert [type(value) for value in futures[1:3].result()] == [ValueError, int]

    def test_an_exception_that_is_returned_is_a_value(self, executor: lambdamr.Executor) -> None:
        """A task may return an exception: result() returns it, nothing is raised."""
        future = executor.submit(ValueError, "a value")
        assert isinstance(future.result(), ValueError)
        assert future.exception() is None

    def test_counts_and_repr(self, executor: lambdamr.Executor, gate: Gate) -> None:
        """counts, repr and the notebook's HTML tell how many are done, failed, pending."""
        futures = executor.map(fail_on_odd, range(5))
        futures.exceptions()
        assert futures.counts() == {"done": 3, "failed": 2, "cancelled": 0, "pending": 0}
        assert repr(futures) == (
            f"<lambdamr.Futures job={futures.job_id} 5 tasks: 3 done, 2 failed>"
        )
        html = futures._repr_html_()
        assert futures.job_id in html
        assert "5 / 5" in html
        assert "2 failed" in html
        assert "ValueError: 1 is odd" in html
        held = executor.map(pass_gate, [gate.path])
        assert repr(held).endswith("1 tasks: 1 pending>")
        assert not held.done()
        gate.open()
        held.result(PATIENCE_S)
        assert held.done()

    def test_stats(self, executor: lambdamr.Executor) -> None:
        """stats() has one entry per task, None for those that are not done."""
        futures = executor.map(square, range(3))
        futures.result()
        assert [stats.tries for stats in futures.stats() if stats is not None] == [1, 1, 1]

    def test_empty(self, executor: lambdamr.Executor) -> None:
        """No input: no futures, an empty result at once, every method defined."""
        futures = executor.map(square, [])
        assert len(futures) == 0
        assert (futures.result(), futures.exceptions(), futures.stats()) == ([], [], [])
        assert futures.job_id == ""
        assert futures.done()
        assert futures.cancel() == 0
        assert futures.wait() == (set(), set())
        assert list(futures.as_completed()) == []
        assert repr(futures) == "<lambdamr.Futures job=none 0 tasks: >"
        assert "futures of no job" in futures._repr_html_()
        assert lambdamr.get_all_results([]) == []

    def test_get_all_results(self, executor: lambdamr.Executor) -> None:
        """PyWren's get_all_results takes futures of any calls, in any iterable."""
        futures = executor.map(square, range(3))
        assert lambdamr.get_all_results(futures) == [0, 1, 4]
        mixed = (future for future in [executor.submit(square, 5), *futures])
        assert lambdamr.get_all_results(mixed, timeout=PATIENCE_S) == [25, 0, 1, 4]
        with pytest.raises(ValueError, match="1 is odd"):
            lambdamr.get_all_results([executor.submit(fail_on_odd, 1)])

    def test_cancel_all(self, root: str, gate: Gate, tmp_path: Path) -> None:
        """Futures.cancel cancels what has not ended, tells how many, and nothing waits for it."""
        with lambdamr.Executor(workers=1, root=root) as executor:
            executor.submit(square, 1).result()
            held = executor.submit(pass_gate, gate.path)
            gate.wait_until_entered()
            marks = [str(tmp_path / f"mark{n}") for n in range(5)]
            futures = executor.map(leave_mark, marks, chunksize=1)
            assert futures.cancel() == 5
            assert futures.counts()["cancelled"] == 5
            with pytest.raises(CancelledError):
                futures.result()
            assert [type(error) for error in futures.exceptions()] == [CancelledError] * 5
            assert futures.cancel() == 5
            gate.open()
            held.result(PATIENCE_S)
        assert not any(map(os.path.exists, marks))

    def test_cancel_of_a_choice_leaves_the_others(self, root: str, gate: Gate) -> None:
        """Only what was chosen is cancelled, even if it begins and ends as the map does."""
        with lambdamr.Executor(workers=1, root=root) as executor:
            held = executor.submit(pass_gate, gate.path)
            gate.wait_until_entered()
            futures = executor.map(square, range(3), chunksize=1)
            lambdamr.Futures([futures[0], futures[0], futures[2]]).cancel()
            gate.open()
            held.result(PATIENCE_S)
            assert futures[1].result(PATIENCE_S) == 1
            assert [future.cancelled() for future in futures] == [True, False, True]

    def test_a_callback_of_a_cancelled_future_may_wait(self, root: str, gate: Gate) -> None:
        """cancel() calls back without any lock of ours, and counts before: a callback may wait
        for a sibling, and for the whole map.
        """
        with lambdamr.Executor(workers=1, root=root) as executor:
            held = executor.submit(pass_gate, gate.path)
            gate.wait_until_entered()
            futures = executor.map(square, range(3), chunksize=1)
            seen: list[object] = []

            def callback(_: object) -> None:
                gate.open()
                seen.append(futures[1].result(PATIENCE_S))
                seen.append([type(error) for error in futures.exceptions(PATIENCE_S)])

            futures[2].add_done_callback(callback)
            assert futures[2].cancel()
            assert seen == [1, [type(None), type(None), CancelledError]]
            held.result(PATIENCE_S)

    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            (lambda futures: futures[0], r"<lambdamr\.Future .*put it in a list"),
            (lambda futures: [futures, futures], r"\[\*first, \*second\]"),
            (lambda futures: [futures[0], 7], r"got 7 \(int\): futures are what submit and map"),
            (lambda futures: 7, r"got 7 \(int\)"),
            (lambda futures: [concurrent.futures.Future()], "with concurrent.futures"),
        ],
    )
    def test_what_is_no_future_is_refused(
        self, executor: lambdamr.Executor, wrong: Any, said: str
    ) -> None:
        """wait, as_completed and get_all_results say what they were given, and what to do."""
        futures = executor.map(square, range(2))
        for call in (lambdamr.wait, lambdamr.as_completed, lambdamr.get_all_results):
            with pytest.raises(TypeError, match=said):
                call(wrong(futures))
        futures.result(PATIENCE_S)

    def test_cancel_leaves_what_is_done(self, executor: lambdamr.Executor) -> None:
        """Cancelling ended futures cancels none."""
        futures = executor.map(square, range(3))
        futures.result()
        assert futures.cancel() == 0
        assert futures.result() == [0, 1, 4]

    def test_cancel_some_of_a_chunk(self, root: str, gate: Gate) -> None:
        """Single futures of a map are cancelled for certain; their neighbours go on."""
        with lambdamr.Executor(workers=1, root=root) as executor:
            held = executor.submit(pass_gate, gate.path)
            gate.wait_until_entered()
            futures = executor.map(square, range(6), chunksize=2, return_exceptions=True)
            for task in (1, 2, 3):
                assert futures[task].cancel()
            gate.open()
            held.result(PATIENCE_S)
            values = futures.result(PATIENCE_S)
            assert [type(value) for value in values[1:4]] == [CancelledError] * 3
            assert (values[0], values[4:]) == (0, [16, 25])
            assert futures.counts() == {"done": 3, "failed": 0, "cancelled": 3, "pending": 0}


# --- asyncio ------------------------------------------------------------------------------------
class TestAwait:
    def test_await_and_gather(self, executor: lambdamr.Executor) -> None:
        """Futures are awaitable, alone and gathered."""

        async def main() -> tuple[Any, list[Any]]:
            futures = executor.map(square, range(4))
            return await executor.submit(square, 9), await asyncio.gather(
                *map(asyncio.wrap_future, futures)
            )

        assert asyncio.run(main()) == (81, [0, 1, 4, 9])

    def test_await_raises(self, executor: lambdamr.Executor) -> None:
        """Awaiting a failed task raises its exception."""

        async def main() -> None:
            await executor.submit(fail_on_odd, 1)

        with pytest.raises(ValueError, match="1 is odd"):
            asyncio.run(main())

    def test_await_does_not_block_the_loop(self, executor: lambdamr.Executor, gate: Gate) -> None:
        """While one coroutine awaits, others run: here the one that lets the task go."""

        async def release() -> None:
            gate.open()

        async def main() -> Any:
            return (await asyncio.gather(executor.submit(pass_gate, gate.path, 1), release()))[0]

        assert asyncio.run(asyncio.wait_for(main(), PATIENCE_S)) == 1

    def test_await_many(self, executor: lambdamr.Executor) -> None:
        """`await futures` gives the values in input order, or raises the first exception; with
        return_exceptions these are values.
        """

        async def main() -> list[Any]:
            failing = executor.map(fail_on_odd, range(2), return_exceptions=True)
            with pytest.raises(ValueError, match=r"\d is odd"):
                await executor.map(fail_on_odd, range(4))
            values = await failing
            return [
                await executor.map(square, range(4)), await executor.map(square, []), values[0],
                type(values[1]), *await asyncio.gather(executor.map(square, [5]), failing[:1]),
            ]  # fmt: skip

        assert asyncio.run(main()) == [[0, 1, 4, 9], [], 0, ValueError, [25], [0]]

    def test_await_many_raises_at_once(self, root: str, gate: Gate) -> None:
        """A failed task ends the await while others still run."""
        with lambdamr.Executor(workers=2, root=root) as executor:
            held = executor.submit(pass_gate, gate.path, 1)
            failing = executor.submit(fail_on_odd, 1)

            async def main() -> None:
                await lambdamr.Futures([held, failing])

            with pytest.raises(ValueError, match="1 is odd"):
                asyncio.run(main())
            assert not held.done()
            gate.open()
            assert held.result(PATIENCE_S) == 1

    def test_a_cancelled_await_of_many_cancels_no_task(
        self, executor: lambdamr.Executor, gate: Gate, caplog: pytest.LogCaptureFixture
    ) -> None:
        """wait_for that times out leaves the tasks to themselves, and the end of the loop too."""
        futures = executor.map(pass_gate, [gate.path] * 2, "ab", chunksize=1)

        async def main() -> None:
            await asyncio.wait_for(futures, 0.01)

        with pytest.raises(TimeoutError):
            asyncio.run(main())
        gate.open(2)
        assert futures.result(PATIENCE_S) == ["a", "b"]
        assert not caplog.records

    def test_a_cancelled_await_cancels(self, root: str, gate: Gate) -> None:
        """wait_for that times out cancels a queued call."""
        with lambdamr.Executor(workers=1, root=root) as executor:
            held = executor.submit(pass_gate, gate.path)
            gate.wait_until_entered()
            queued = executor.submit(square, 1)

            async def main() -> None:
                await asyncio.wait_for(asyncio.wrap_future(queued), 0.01)

            with pytest.raises(TimeoutError):
                asyncio.run(main())
            assert queued.cancelled()
            gate.open()
            held.result(PATIENCE_S)


# --- pickled futures ------------------------------------------------------------------------------
class TestPickle:
    def test_same_process(self, executor: lambdamr.Executor, gate: Gate) -> None:
        """A pickled future comes back as one of the same job and task, done or not."""
        done = executor.submit(square, 5)
        done.result()
        again = pickle.loads(pickle.dumps(done))
        assert again.result(PATIENCE_S) == 25
        assert (again.job_id, again.task) == (done.job_id, done.task)
        held = executor.submit(pass_gate, gate.path, "held")
        again = pickle.loads(pickle.dumps(held))
        gate.wait_until_entered()
        assert not again.done()
        gate.open()
        assert again.result(PATIENCE_S) == "held"

    def test_sequence(self, executor: lambdamr.Executor) -> None:
        """A pickled sequence of futures gives the same results, failures included."""
        futures = executor.map(fail_on_odd, range(200), return_exceptions=True)
        first = futures.exceptions()
        again = pickle.loads(pickle.dumps(futures))
        assert list(map(str, again.exceptions(PATIENCE_S))) == list(map(str, first))

    def test_another_process(self, executor: lambdamr.Executor, tmp_path: Path) -> None:
        """Another process that loads a pickled future gets the result from the store."""
        futures = [executor.submit(square, 6), executor.submit(fail_on_odd, 1)]
        concurrent.futures.wait(futures)
        path = tmp_path / "futures"
        path.write_bytes(pickle.dumps(futures))
        program = f"""
            import pickle
            good, bad = pickle.load(open({str(path)!r}, "rb"))
            print(good.result(60), repr(bad.exception(60)), good.job_id)
        """
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            capture_output=True, text=True, timeout=PATIENCE_S, check=True,
        )  # fmt: skip
        assert run.stdout == f"36 ValueError('1 is odd') {futures[0].job_id}\n"


# --- futures as arguments -------------------------------------------------------------------------
class TestDependencies:
    def test_value_travels_by_reference(self, executor: lambdamr.Executor, gate: Gate) -> None:
        """A call with a future waits for it without blocking submit, and gets its value."""
        first = executor.submit(pass_gate, gate.path, 3)
        second = executor.submit(square, first)
        third = executor.submit(square, second)
        assert not third.done()
        gate.open()
        assert third.result(PATIENCE_S) == 81

    def test_nested_in_containers_and_keywords(self, executor: lambdamr.Executor) -> None:
        """Futures are found at any depth of the arguments."""
        one, two = executor.map(square, [1, 2])

        def collect(*args: Any, **kwargs: Any) -> Any:
            return args, kwargs

        future = executor.submit(collect, {"a": [one, (two, None)]}, key={"deep": [two]})
        assert future.result() == (({"a": [1, (4, None)]},), {"key": {"deep": [4]}})

    def test_in_a_closure(self, executor: lambdamr.Executor) -> None:
        """A future in a closure stands for its value too."""
        four = executor.submit(square, 2)
        assert executor.submit(lambda: four + 1).result() == 5  # type: ignore[operator]  # its value

    def test_map_over_futures(self, executor: lambdamr.Executor) -> None:
        """Mapping over futures is mapping over their values; a list of them is an argument too."""
        futures = executor.map(square, range(40))
        assert executor.map(square, futures).result() == [n**4 for n in range(40)]
        assert executor.submit(sum, list(futures)).result() == sum(n * n for n in range(40))

    def test_large_values(self, executor: lambdamr.Executor) -> None:
        """A value too large for the outcome is handed on as well."""
        large = executor.submit(bytes, 2_000_000)
        assert executor.submit(len, large).result() == 2_000_000

    def test_failed_dependency(self, executor: lambdamr.Executor, tmp_path: Path) -> None:
        """A call whose argument failed fails with that exception and is never run."""
        mark = tmp_path / "mark"
        failed = executor.submit(fail_on_odd, 1)
        dependent = executor.submit(leave_mark, str(mark), failed)
        with pytest.raises(ValueError, match="1 is odd"):
            dependent.result(PATIENCE_S)
        assert not mark.exists()
        late = executor.submit(leave_mark, str(mark), failed)
        assert isinstance(late.exception(PATIENCE_S), ValueError)
        assert not mark.exists()

    @pytest.mark.parametrize("chunksize", [1, 2, 5])
    def test_failed_dependency_of_one_task(
        self, executor: lambdamr.Executor, chunksize: int
    ) -> None:
        """In a map over futures, what failed fails the task that needs it, and no other one."""
        inverses = executor.map(lambda n: 1 / n, [1, 0, 2, 4, 5])
        pairs = [[future, future] for future in inverses]
        doubled = executor.map(sum, pairs, chunksize=chunksize, return_exceptions=True)
        values = doubled.result(30)
        assert isinstance(values.pop(1), ZeroDivisionError)
        assert values == [2.0, 1.0, 0.5, 0.4]

    def test_cancelled_dependency(self, executor: lambdamr.Executor, gate: Gate) -> None:
        """A call whose argument is cancelled is cancelled."""
        held = executor.submit(pass_gate, gate.path)
        middle = executor.submit(square, held)
        last = executor.submit(square, middle)
        assert middle.cancel()
        assert isinstance(lambdamr.Futures([last]).exceptions(PATIENCE_S)[0], CancelledError)
        assert last.cancelled()
        gate.open()
        held.result(PATIENCE_S)

    def test_a_long_chain_of_calls_fails_with_its_first(
        self, executor: lambdamr.Executor, gate: Gate
    ) -> None:
        """A chain longer than the stack is deep: what the first raises is what the last raises."""
        future = executor.submit(pass_gate, gate.path, ArithmeticError("first"))
        for _ in range(sys.getrecursionlimit()):
            future = executor.submit(square, future)
        gate.open()
        with pytest.raises(ArithmeticError, match="first"):
            future.result(PATIENCE_S)

    def test_a_call_cancelled_while_it_waits_never_runs(
        self, root: str, gate: Gate, tmp_path: Path
    ) -> None:
        """cancel() of a call that waits for its arguments holds when these are done."""
        mark = tmp_path / "mark"
        with lambdamr.Executor(workers=1, root=root) as executor:
            held = executor.submit(pass_gate, gate.path)
            waiting = executor.submit(leave_mark, str(mark), held)
            assert waiting.cancel()
            gate.open()
            held.result(PATIENCE_S)
        assert not mark.exists()

    def test_dependency_of_another_executor(self, root: str, tmp_path: Path) -> None:
        """Futures of another executor over the same root are arguments, however it is written."""
        with (
            lambdamr.Executor(workers=1, root=root) as one,
            lambdamr.Executor(workers=1, root=f"{root}/../{Path(root).name}/") as two,
        ):
            assert two.submit(square, one.submit(square, 3)).result(PATIENCE_S) == 81

    def test_dependency_under_another_root(self, root: str, executor: lambdamr.Executor) -> None:
        """A future of another root is refused at once; the message says what to pass instead."""
        with lambdamr.Executor(workers=1, root=root) as other:
            future = other.submit(square, 3)
            with pytest.raises(ValueError, match=r"Pass its result\(\) instead"):
                executor.submit(square, future)
            future.result(PATIENCE_S)


# --- what is left behind --------------------------------------------------------------------------
class Tracked:
    """An argument that can be watched."""

    def method(self) -> int:
        return 1


class LeavesMark:
    """Leaves a file when it is collected in a worker."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.home = os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.home:
            Path(self.path).touch()


class TestReferences:
    def test_arguments_are_not_kept(self, executor: lambdamr.Executor) -> None:
        """After submit, the client holds neither the function's object nor the arguments."""
        owner, argument = Tracked(), Tracked()
        seen = [weakref.ref(owner), weakref.ref(argument)]
        futures = executor.submit(owner.method), executor.submit(isinstance, argument, Tracked)
        del owner, argument
        gc.collect()
        assert [ref() for ref in seen] == [None, None]
        assert [future.result() for future in futures] == [1, True]

    def test_results_die_with_their_futures(self, executor: lambdamr.Executor) -> None:
        """Nobody but the futures holds results; nobody but the caller holds futures."""
        futures = executor.map(lambda _: Tracked(), range(3))
        values = [weakref.ref(value) for value in futures.result()]
        watched = [weakref.ref(future) for future in futures]
        poller = [t for t in threading.enumerate() if t.name == "lambdamr-poller"]
        for thread in poller:
            thread.join(PATIENCE_S)
        del futures
        gc.collect()
        assert [ref() for ref in (*values, *watched)] == [None] * 6

    def test_arguments_are_collected_in_workers(
        self, executor: lambdamr.Executor, tmp_path: Path
    ) -> None:
        """When a task has ended, its worker holds its arguments no more."""
        mark = tmp_path / "mark"
        argument = LeavesMark(str(mark))
        executor.submit(id, argument).result()

        def collect(path: str) -> bool:
            gc.collect()
            return os.path.exists(path)

        workers = executor.map(collect, [str(mark)] * 8, chunksize=1).result()
        assert True in workers
