"""The executor: its calls, its end, and what it leaves running. Rules of concurrent.futures first.

Tasks are held and let go through FIFOs, and processes are watched by their descriptors, so no
test waits for time to pass.
"""

import concurrent.futures
import gc
import operator
import os
import select
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import lambdamr
from lambdamr.backend import Listener
from lambdamr.config import load_config
from lambdamr.looking import State, job_ids, summary
from lambdamr.submission import Submission
from lambdamr_runtime.store import Store, open_store
from lambdamr_runtime.wire import Event
from tests.gates import PATIENCE_S, Gate, pass_gate


class Processes:
    """Descriptors of processes: they tell when a process has ended."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._descriptors = [os.pidfd_open(pid) for pid in pids]

    def have_ended(self, patience_s: float = 0.0) -> bool:
        """Whether all end within that time."""
        deadline = time.monotonic() + patience_s
        left = list(self._descriptors)
        while left:
            ended, _, _ = select.select(left, (), (), max(0.0, deadline - time.monotonic()))
            if not ended:
                return False
            left = [descriptor for descriptor in left if descriptor not in ended]
        return True

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


def square(number: int) -> int:
    return number * number


def pids() -> tuple[int, int]:
    """The process of the task, and the worker that watches it."""
    return os.getpid(), os.getppid()


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("lambdamr-")]


def all_have_ended(threads: Iterable[threading.Thread]) -> bool:
    """Whether threads that have nothing more to do are gone."""
    listed = list(threads)
    for thread in listed:
        thread.join(PATIENCE_S)
    return not any(thread.is_alive() for thread in listed)


# --- calls ------------------------------------------------------------------------------------
class TestMap:
    def test_map(self, executor: lambdamr.Executor) -> None:
        """Results are those of the built-in map, several iterables included."""
        assert executor.map(pow, range(10), range(10)).result() == list(
            map(pow, range(10), range(10))
        )
        assert executor.map(pow, range(10), range(10), chunksize=3).result() == list(
            map(pow, range(10), range(10))
        )

    def test_uneven_iterables_end_with_the_shortest(self, executor: lambdamr.Executor) -> None:
        """As of the built-in map, the shortest iterable counts; none at all gives nothing."""
        assert executor.map(operator.add, [1, 2, 3], iter([10, 20])).result() == [11, 22]
        assert executor.map(operator.add, [], [1]).result() == []

    def test_generators(self, executor: lambdamr.Executor) -> None:
        """A generator is read once, at submission."""
        read: list[int] = []

        def numbers() -> Iterator[int]:
            for number in range(5):
                read.append(number)
                yield number

        futures = executor.map(square, numbers())
        assert read == [0, 1, 2, 3, 4]
        assert futures.result() == [0, 1, 4, 9, 16]

    def test_a_generator_that_raises(self, executor: lambdamr.Executor) -> None:
        """What the input raises comes out of map; nothing is submitted."""

        def numbers() -> Iterator[int]:
            yield 1
            raise LookupError("input")

        with pytest.raises(LookupError, match="input"):
            executor.map(square, numbers())

    def test_none_values(self, executor: lambdamr.Executor) -> None:
        """None is an argument and a result like any other."""
        assert executor.map(lambda value: value, [None, 1, None]).result() == [None, 1, None]

    def test_map_exception(self, executor: lambdamr.Executor) -> None:
        """The exception of a task is raised; what came before has its results (CPython's test)."""
        futures = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
        assert futures[0].result() == (0, 1)
        assert futures[1].result() == (0, 1)
        with pytest.raises(ZeroDivisionError):
            futures[2].result()
        with pytest.raises(ZeroDivisionError):
            futures.result()

    def test_map_timeout(self, executor: lambdamr.Executor, gate: Gate) -> None:
        """What is done by the timeout is there, the rest raises TimeoutError (CPython's test)."""
        futures = executor.map(
            lambda path: pass_gate(path) if path else None, ["", "", gate.path], chunksize=1
        )
        gate.wait_until_entered()
        assert [futures[0].result(PATIENCE_S), futures[1].result(PATIENCE_S)] == [None, None]
        with pytest.raises(TimeoutError):
            futures.result(timeout=0.01)
        gate.open()
        assert futures.result(PATIENCE_S) == [None] * 3

    @pytest.mark.parametrize("chunksize", [0, -1])
    def test_chunksize_below_one(self, executor: lambdamr.Executor, chunksize: int) -> None:
        """A chunksize below 1 is a ValueError that names it, for an empty input too."""
        for items in ([1, 2], []):
            with pytest.raises(ValueError, match=rf"chunksize must be >= 1, got {chunksize}"):
                executor.map(square, items, chunksize=chunksize)

    @pytest.mark.parametrize("chunksize", [1, 7, 10, 1000])
    def test_every_chunksize_gives_the_same(
        self, executor: lambdamr.Executor, chunksize: int
    ) -> None:
        """Chunks change nothing but the cost."""
        futures = executor.map(square, range(20), chunksize=chunksize)
        assert futures.result() == [n * n for n in range(20)]

    def test_wrong_arguments(self, executor: lambdamr.Executor) -> None:
        """Values out of range are refused at the call, with their names."""
        with pytest.raises(ValueError, match="retries"):
            executor.map(square, [1], retries=-1)
        with pytest.raises(ValueError, match="timeout_s"):
            executor.map(square, [1], timeout_s=0)
        with pytest.raises(ValueError, match="max_failures"):
            executor.map(square, [1], max_failures=1.5)
        with pytest.raises(TypeError, match=r"chunksize must be a whole number, got 2\.5"):
            executor.map(square, [1], chunksize=2.5)  # type: ignore[arg-type]  # wrong
        with pytest.raises(TypeError, match="retries must be a whole number, got '1'"):
            executor.map(square, [1], retries="1")  # type: ignore[arg-type]  # wrong
        with pytest.raises(TypeError, match="max_failures must be a number, got '1'"):
            executor.map(square, [1], max_failures="1")  # type: ignore[arg-type]  # wrong
        with pytest.raises(ValueError, match=r"max_failures .* got nan"):
            executor.map(square, [1], max_failures=float("nan"))
        with pytest.raises(TypeError, match="timeout_s must be a number of seconds, got '1'"):
            executor.map(square, [1], timeout_s="1")  # type: ignore[arg-type]  # wrong
        with pytest.raises(TypeError, match="retry_on"):
            executor.map(square, [1], retry_on=(ValueError(),))  # type: ignore[arg-type]  # wrong
        with pytest.raises(TypeError, match="callable"):
            executor.map("square", [1])  # type: ignore[arg-type]  # wrong
        with pytest.raises(TypeError, match="callable"):
            executor.submit(None)  # type: ignore[arg-type]  # wrong

    def test_numbers_of_numpy(self, executor: lambdamr.Executor) -> None:
        """Options computed with numpy are numbers too."""
        import numpy as np

        futures = executor.map(
            square,
            range(4),
            chunksize=np.int64(2),  # type: ignore[arg-type]  # numpy's own integer
            retries=np.int32(1),  # type: ignore[arg-type]
            max_failures=np.int64(3),  # type: ignore[arg-type]
            timeout_s=np.float32(30),  # type: ignore[arg-type]
        )
        assert futures.result() == [0, 1, 4, 9]

    def test_map_returns_before_anything_has_run(
        self, executor: lambdamr.Executor, gate: Gate
    ) -> None:
        """The futures are there at once."""
        futures = executor.map(pass_gate, [gate.path])
        assert not futures.done()
        gate.open()
        assert futures.result(PATIENCE_S) == [None]

    def test_starmap(self, executor: lambdamr.Executor) -> None:
        """Each item is spread over the parameters; options are those of map."""
        assert executor.starmap(pow, [(2, 3), [3, 2]]).result() == [8, 9]
        assert executor.starmap(pow, iter([(2, 5)]), chunksize=1).result() == [32]
        assert executor.starmap(pow, []).result() == []
        with pytest.raises(ValueError, match="chunksize"):
            executor.starmap(pow, [(1, 2)], chunksize=0)

    def test_a_hundred_thousand_inputs(self, executor: lambdamr.Executor) -> None:
        """100,000 tasks have their results in order."""
        assert executor.map(operator.neg, range(100_000)).result() == list(range(0, -100_000, -1))

    def test_retries(self, executor: lambdamr.Executor, tmp_path: Path) -> None:
        """A task that fails twice and then passes has a value with retries=2, after three tries."""
        tries = tmp_path / "tries"

        def fail_twice(path: str) -> int:
            with open(path, "ab") as file:
                file.write(b"x")
            if os.path.getsize(path) < 3:
                raise ConnectionError
            return os.path.getsize(path)

        future = executor.map(fail_twice, [str(tries)], retries=2, retry_on=OSError)[0]
        assert future.result() == 3
        assert future.stats is not None
        assert future.stats.tries == 3
        with pytest.raises(ZeroDivisionError):
            executor.map(divmod, [1], [0], retries=5, retry_on=(OSError,)).result()

    def test_calls_from_many_threads(self, executor: lambdamr.Executor) -> None:
        """An executor may be used by several threads at once."""

        def use(number: int) -> list[int]:
            single = [executor.submit(square, number + i) for i in range(10)]
            return executor.map(square, range(number)).result() + [f.result() for f in single]

        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            found = list(threads.map(use, range(16)))
        assert found == [[n * n for n in [*range(k), *range(k, k + 10)]] for k in range(16)]

    def test_put(self, executor: lambdamr.Executor) -> None:
        """An object that was put stands for itself in arguments, nested and in closures."""
        data = executor.put({"key": [1, 2, 3]})
        assert data.size > 0
        assert executor.submit(sum, executor.put([1, 2, 3])).result() == 6
        assert executor.map(lambda n, box: box[0]["key"][n], range(3), [[data]] * 3).result() == [
            1, 2, 3,
        ]  # fmt: skip
        assert executor.submit(lambda: data["key"]).result() == [1, 2, 3]  # type: ignore[index]
        with pytest.raises(ValueError, match="not futures"):
            executor.put([executor.submit(square, 1)])


class TestReduce:
    @pytest.mark.parametrize("arity", [2, 3, 8, 100])
    @pytest.mark.parametrize("count", [1, 2, 9, 33])
    def test_reduce(self, executor: lambdamr.Executor, count: int, arity: int) -> None:
        """Values are reduced to one, neighbours with neighbours, in order, whatever the arity."""
        futures = executor.map(lambda n: [n], range(count))

        def join(parts: list[list[int]]) -> list[int]:
            assert 1 <= len(parts) <= arity
            return [number for part in parts for number in part]

        assert executor.reduce(join, futures, arity=arity).result(PATIENCE_S) == list(range(count))

    def test_many(self, executor: lambdamr.Executor) -> None:
        """Thousands of futures, from several calls."""
        futures = [*executor.map(square, range(2000)), executor.submit(square, 2000)]
        total = sum(n * n for n in range(2001))
        assert executor.reduce(sum, futures, arity=16).result(PATIENCE_S) == total

    def test_reduce_is_submitted_before_its_inputs_are_done(
        self, executor: lambdamr.Executor, gate: Gate
    ) -> None:
        """The future is there at once, and waits for the others."""
        futures = executor.map(pass_gate, [gate.path] * 3, [1, 2, 3], chunksize=1)
        future = executor.reduce(sum, futures, arity=2)
        assert not future.done()
        gate.open(3)
        assert future.result(PATIENCE_S) == 6

    @pytest.mark.parametrize("arity", [2, 8])
    def test_failing_function(self, executor: lambdamr.Executor, arity: int) -> None:
        """What the function raises, at any level, is what the future raises."""
        futures = executor.map(square, range(8))

        def fail(values: list[int]) -> int:
            if 49 in values:
                raise ArithmeticError("seven")
            return sum(values)

        with pytest.raises(ArithmeticError, match="seven"):
            executor.reduce(fail, futures, arity=arity).result(PATIENCE_S)

    def test_failing_input(self, executor: lambdamr.Executor) -> None:
        """A failed future fails the reduction with its exception."""
        futures = executor.map(divmod, [1, 1, 1], [1, 0, 1])
        with pytest.raises(ZeroDivisionError):
            executor.reduce(list, futures, arity=2).result(PATIENCE_S)

    def test_wrong_arguments(self, executor: lambdamr.Executor) -> None:
        """An arity below 2 and no futures are refused."""
        futures = executor.map(square, [1])
        with pytest.raises(ValueError, match="arity must be >= 2, got 1"):
            executor.reduce(sum, futures, arity=1)
        with pytest.raises(ValueError, match="at least one future"):
            executor.reduce(sum, [])
        futures.result()


class TestMaking:
    @pytest.mark.parametrize(
        "options",
        [
            {"workers": 0},
            {"workers": -1},
            {"memory_mb": 31},
            {"timeout_s": -0.5},
            {"concurrency": 0},
            {"serializer": "json"},
            {"backend": "cloud"},
        ],
    )
    def test_wrong_arguments(self, options: dict[str, Any]) -> None:
        """An argument out of range is a ValueError that names it."""
        with pytest.raises(ValueError, match=next(iter(options))):
            lambdamr.Executor(**options)

    def test_making_one_starts_nothing(self, root: str) -> None:
        """An executor that is never used has no threads, no folder, and ends at once."""
        before = own_threads()
        with lambdamr.Executor(root=root, workers=2) as executor:
            assert own_threads() == before
        assert not os.path.exists(root)
        assert repr(executor) == f"<lambdamr.Executor closed root={root!r}>"

    def test_concurrency_limits_a_job(self, root: str, gate: Gate) -> None:
        """With concurrency=1, a job runs in one worker, and another job beside it."""
        with lambdamr.Executor(root=root, workers=2, concurrency=1) as executor:
            executor.map(square, range(2), chunksize=1).result()
            held = executor.submit(pass_gate, gate.path)
            gate.wait_until_entered()
            seen = executor.map(lambda _: os.getpid(), range(8), chunksize=1).result(PATIENCE_S)
            assert len(set(seen)) == 1
            gate.open()
            held.result(PATIENCE_S)


# --- the end ------------------------------------------------------------------------------------
class TestShutdown:
    def test_calls_after_shutdown(self, root: str) -> None:
        """After shutdown every call is a RuntimeError, on a used and on an unused executor."""
        used, unused = lambdamr.Executor(root=root, workers=1), lambdamr.Executor(root=root)
        future = used.submit(square, 2)
        for executor in (used, unused):
            executor.shutdown()
            with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
                executor.submit(square, 1)
            with pytest.raises(RuntimeError):
                executor.map(square, [1])
            with pytest.raises(RuntimeError):
                executor.map(square, [])
            with pytest.raises(RuntimeError):
                executor.put(1)
            with pytest.raises(RuntimeError):
                executor.reduce(sum, [future])
            executor.shutdown()
        assert future.result() == 4

    def test_shutdown_waits(self, root: str) -> None:
        """It returns when everything has ended (CPython's test_hang_issue12364)."""
        executor = lambdamr.Executor(root=root, workers=2)
        futures = [executor.submit(square, n) for n in range(50)]
        executor.shutdown()
        assert all(future.done() for future in futures)
        assert [future.result() for future in futures] == [n * n for n in range(50)]

    def test_shutdown_race(self, root: str) -> None:
        """Shutdown right behind map does not hang (CPython's test_shutdown_race_issue12456)."""
        for _ in range(3):
            executor = lambdamr.Executor(root=root, workers=2)
            futures = executor.map(str, [2] * 3)
            executor.shutdown()
            assert futures.result() == ["2"] * 3

    @pytest.mark.parametrize("wait", [True, False])
    def test_shutdown_while_others_submit(self, root: str, wait: bool) -> None:
        """Threads that go on submitting get RuntimeError; every future they got before has ended
        or ends.
        """
        executor = lambdamr.Executor(root=root, workers=1)
        some = threading.Barrier(3)
        errors: list[str] = []

        def submit_until_closed() -> list[lambdamr.Future]:
            futures = [executor.submit(square, n) for n in range(10)]
            some.wait(PATIENCE_S)
            try:
                while True:
                    futures.append(executor.submit(square, len(futures)))
            except RuntimeError as error:
                errors.append(str(error))
                return futures

        with concurrent.futures.ThreadPoolExecutor(2) as threads:
            submitting = [threads.submit(submit_until_closed) for _ in range(2)]
            some.wait(PATIENCE_S)
            executor.shutdown(wait)
            found = [future.result(PATIENCE_S) for future in submitting]
        for futures in found:
            squares = [n * n for n in range(len(futures))]
            assert [future.result(PATIENCE_S) for future in futures] == squares
        assert errors == ["cannot schedule new futures after shutdown"] * 2

    def test_shutdown_waits_for_a_call_that_is_being_submitted(
        self, root: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that was accepted before shutdown runs, however long its storing takes."""
        stalled, may_go = threading.Event(), threading.Event()
        really = Submission.store

        def store(self: Submission, *args: Any) -> None:
            stalled.set()
            assert may_go.wait(PATIENCE_S)
            really(self, *args)

        executor = lambdamr.Executor(root=root, workers=1)
        assert executor.submit(square, 2).result(PATIENCE_S) == 4
        engine = executor.engine()
        monkeypatch.setattr(Submission, "store", store)
        with concurrent.futures.ThreadPoolExecutor(2) as threads:
            submitting = threads.submit(executor.submit, square, 3)
            assert stalled.wait(PATIENCE_S)
            ending = threads.submit(executor.shutdown)
            assert not engine.closed.wait(0.3)
            may_go.set()
            assert submitting.result(PATIENCE_S).result(PATIENCE_S) == 9
            ending.result(PATIENCE_S)

    def test_shutdown_in_the_midst_of_a_submission(
        self, root: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the same thread, as a signal's handler does: it returns, and the call does not run."""
        executor = lambdamr.Executor(root=root, workers=1)
        really = Submission.store

        def store(self: Submission, *args: Any) -> None:
            executor.shutdown()
            really(self, *args)

        monkeypatch.setattr(Submission, "store", store)
        future = executor.submit(square, 3)
        with pytest.raises(RuntimeError, match="after shutdown"):
            future.result(PATIENCE_S)

    def test_a_launch_that_is_interrupted_ends_the_job(
        self, root: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody has its futures: what runs of it stops, and it is not taken up again."""
        really = Submission.launch

        def launch(self: Submission, *args: Any) -> None:
            really(self, *args)
            raise KeyboardInterrupt

        with lambdamr.Executor(root=root, workers=1) as executor:
            with monkeypatch.context() as patch:
                patch.setattr(Submission, "launch", launch)
                with pytest.raises(KeyboardInterrupt):
                    executor.map(time.sleep, [0.01] * 5000, chunksize=1)
            assert executor.submit(square, 3).result(PATIENCE_S) == 9
        store = open_store(root)
        (found,) = (each for job in job_ids(store) if (each := summary(store, job)).tasks == 5000)
        assert found.state is State.FAILED
        assert found.ended < 5000
        assert "KeyboardInterrupt" in found.reason

    def test_shutdown_without_waiting(self, root: str, gate: Gate) -> None:
        """shutdown(wait=False) returns at once; outstanding calls end, then so do the workers."""
        executor = lambdamr.Executor(root=root, workers=1)
        watched = Processes(executor.submit(pids).result())
        held = executor.submit(pass_gate, gate.path, 1)
        queued = executor.submit(square, 3)
        waiting = executor.submit(square, queued)
        gate.wait_until_entered()
        executor.shutdown(wait=False)
        assert not held.done()
        with pytest.raises(RuntimeError):
            executor.submit(square, 1)
        gate.open()
        assert [f.result(PATIENCE_S) for f in (held, queued, waiting)] == [1, 9, 81]
        assert watched.have_ended(PATIENCE_S)
        watched.close()

    def test_waiting_after_a_shutdown_without(self, root: str, gate: Gate) -> None:
        """A second shutdown, with wait, waits for the first one's end."""
        before = set(own_threads())
        executor = lambdamr.Executor(root=root, workers=1)
        watched = Processes(executor.submit(pids).result())
        held = executor.submit(pass_gate, gate.path, 1)
        executor.shutdown(wait=False)
        gate.open()
        executor.shutdown()
        assert held.done()
        assert watched.have_ended()
        watched.close()
        assert all_have_ended(set(own_threads()) - before)

    def test_cancel_futures(self, root: str, gate: Gate) -> None:
        """shutdown(cancel_futures=True) cancels what is queued; what runs ends (CPython's test)."""
        executor = lambdamr.Executor(root=root, workers=1)
        held = executor.submit(pass_gate, gate.path, 1)
        gate.wait_until_entered()
        queued = [executor.submit(square, n) for n in range(20)]
        many = executor.map(square, range(20), chunksize=1)
        waiting = executor.submit(square, held)
        executor.shutdown(wait=False, cancel_futures=True)
        assert [f.cancelled() for f in (*queued, *many, waiting)] == [True] * 41
        assert not held.done()
        gate.open()
        assert held.result(PATIENCE_S) == 1
        executor.shutdown()

    def test_context_manager(self, root: str) -> None:
        """`with` gives the executor and waits at its end."""
        with lambdamr.Executor(root=root, workers=2) as executor:
            futures = executor.map(square, range(20))
        assert futures.done()
        assert futures.result() == [n * n for n in range(20)]

    def test_leaving_by_an_exception_cancels(self, root: str, gate: Gate, tmp_path: Path) -> None:
        """The exception passes at once: running calls are stopped, queued ones never run."""
        mark = tmp_path / "mark"
        executor = lambdamr.Executor(root=root, workers=1)
        watched = Processes(executor.submit(pids).result())
        held = executor.submit(pass_gate, gate.path)
        gate.wait_until_entered()
        queued = executor.submit(mark.touch)
        many = executor.map(square, range(10), chunksize=1)
        with pytest.raises(LookupError, match="mine"), executor:
            raise LookupError("mine")
        assert [f.cancelled() for f in (held, queued, *many)] == [True] * 12
        with pytest.raises(CancelledError):
            held.result()
        assert watched.have_ended()
        watched.close()
        assert not mark.exists()

    def test_nothing_is_left(self, root: str) -> None:
        """After shutdown there are no threads, processes, descriptors or lock files of ours."""
        before = set(own_threads())
        open_before = len(os.listdir("/proc/self/fd"))
        executor = lambdamr.Executor(root=root, workers=2)
        found = {pid for both in executor.map(lambda _: pids(), range(8)).result() for pid in both}
        watched = Processes(found)
        executor.shutdown()
        assert watched.have_ended()
        watched.close()
        assert all_have_ended(set(own_threads()) - before)
        assert len(os.listdir("/proc/self/fd")) <= open_before
        assert os.listdir(f"{root}/owners") == []

    def test_garbage_collected(self, root: str) -> None:
        """An executor that nobody has any more stops its workers; its futures keep their values."""
        executor = lambdamr.Executor(root=root, workers=1)
        watched = Processes(executor.submit(pids).result())
        future = executor.submit(square, 3)
        gone = weakref.ref(executor)
        del executor
        gc.collect()
        assert gone() is None
        assert future.result(PATIENCE_S) == 9
        assert watched.have_ended(PATIENCE_S)
        watched.close()

    def test_chained_call_on_a_collected_executor(self, root: str) -> None:
        """`Executor().submit(…).result()` works although the executor is gone at once."""
        assert lambdamr.Executor(root=root, workers=1).submit(square, 4).result(PATIENCE_S) == 16

    def test_stuck_waiter_is_woken(self, root: str, gate: Gate) -> None:
        """Cancelling wakes a thread that waits for the result."""
        with lambdamr.Executor(root=root, workers=1) as executor:
            held = executor.submit(pass_gate, gate.path)
            gate.wait_until_entered()
            futures = executor.map(square, range(4), chunksize=1)
            with concurrent.futures.ThreadPoolExecutor(1) as threads:
                waiter = threads.submit(futures.exceptions)
                futures.cancel()
                assert list(map(type, waiter.result(PATIENCE_S))) == [CancelledError] * 4
            gate.open()
            held.result(PATIENCE_S)


# --- threads and processes ------------------------------------------------------------------------
class TestThreads:
    def test_one_poller_for_all_futures(self, root: str, gate: Gate) -> None:
        """However many futures are outstanding, an executor has two threads; one when idle."""
        before = set(own_threads())
        with lambdamr.Executor(root=root, workers=1) as executor:
            futures = [executor.submit(pass_gate, gate.path, n) for n in range(30)]
            executor.map(square, range(1000))
            gate.wait_until_entered()
            own = [thread for thread in own_threads() if thread not in before]
            assert sorted(thread.name for thread in own) == ["lambdamr-poller", "lambdamr-pool"]
            gate.open(30)
            concurrent.futures.wait(futures, PATIENCE_S)
            poller = next(thread for thread in own if thread.name == "lambdamr-poller")
            poller.join(PATIENCE_S)
            idle = [thread.name for thread in own_threads() if thread not in before]
            assert idle == ["lambdamr-pool"]
            assert executor.submit(square, 2).result(PATIENCE_S) == 4

    def test_many_executors(self, tmp_path: Path) -> None:
        """Several executors, over one root and over several, work side by side."""
        roots = [str(tmp_path / name) for name in ("a", "a", "b", "c")]
        executors = [lambdamr.Executor(root=root, workers=1) for root in roots]
        futures = [executor.map(square, range(n + 5)) for n, executor in enumerate(executors)]
        for n, each in enumerate(futures):
            assert each.result(PATIENCE_S) == [i * i for i in range(n + 5)]
        executors[0].shutdown()
        assert executors[1].submit(square, 3).result(PATIENCE_S) == 9
        for executor in executors:
            executor.shutdown()

    def test_one_executor_after_the_other(self, root: str) -> None:
        """A notebook's life: executors made and shut down again and again over one root."""
        for n in range(5):
            with lambdamr.Executor(root=root, workers=1) as executor:
                assert executor.submit(square, n).result(PATIENCE_S) == n * n

    def test_two_processes_over_one_root(self, root: str, gate: Gate) -> None:
        """Another process over the same root neither disturbs nor is disturbed."""
        program = f"""
            import lambdamr
            with lambdamr.Executor(root={root!r}, workers=1) as executor:
                print(sum(executor.map(abs, range(-500, 0)).result()))
        """
        with lambdamr.Executor(root=root, workers=1) as executor:
            held = executor.submit(pass_gate, gate.path, "mine")
            gate.wait_until_entered()
            run = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(program)],
                capture_output=True, text=True, timeout=PATIENCE_S, check=True,
            )  # fmt: skip
            assert run.stdout == f"{sum(range(501))}\n"
            gate.open()
            assert held.result(PATIENCE_S) == "mine"


# --- a backend that fails -------------------------------------------------------------------------
class RefusingBackend:
    """A backend where nothing can be launched."""

    owner = ""
    workers = width = 2
    memory_mb = 128
    hints = False
    helps = False

    def __init__(self, root: str) -> None:
        self.store: Store = open_store(root)
        self.closed = False

    def connect(self, listener: Listener) -> None: ...

    def invoke(self, event: Event) -> None:
        raise ConnectionError("refused")

    def withdraw(self, job: str) -> bool:
        return True

    def has_begun(self, job: str) -> bool:
        return False

    def help(self, job: str) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


class TestBackend:
    def test_a_job_that_cannot_be_launched(self, root: str) -> None:
        """The error comes out of the call, and nothing waits for that job ever after."""
        backend = RefusingBackend(root)
        with lambdamr.Executor(backend) as executor:
            with pytest.raises(ConnectionError, match="refused"):
                executor.submit(square, 1)
            with pytest.raises(ConnectionError, match="refused"):
                executor.map(square, range(100), chunksize=1)
        assert backend.closed

    def test_a_waiting_job_that_cannot_be_launched(self, root: str) -> None:
        """Where the launch comes later, the futures get its error."""
        with lambdamr.Executor(root=root, workers=1) as working:
            argument = working.submit(square, 2)
            with lambdamr.Executor(RefusingBackend(root)) as executor:
                future = executor.submit(square, argument)
                with pytest.raises(ConnectionError, match="refused"):
                    future.result(PATIENCE_S)


# --- configuration --------------------------------------------------------------------------------
class TestConfig:
    def test_file_and_environment(self, tmp_path: Path) -> None:
        """The file gives values, the environment wins over it."""
        file = tmp_path / "config.toml"
        file.write_text('root = "/data"\nworkers = 3\ntimeout_s = 5\nprogress = false\n')
        environment = {"LAMBDAMR_CONFIG": str(file), "LAMBDAMR_WORKERS": "4"}
        config = load_config(environment)
        assert (config.root, config.workers, config.timeout_s) == ("/data", 4, 5.0)
        assert (config.progress, config.memory_mb) == (False, None)
        assert load_config({**environment, "LAMBDAMR_PROGRESS": "yes"}).progress is True

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("WORKERS", "two"),
            ("WORKERS", "1.5"),
            ("WORKERS", "0"),
            ("WORKERS", "-1"),
            ("MEMORY_MB", "-5"),
            ("TIMEOUT_S", "soon"),
            ("TIMEOUT_S", "0"),
            ("TIMEOUT_S", "nan"),
            ("PROGRESS", "maybe"),
            ("KEEP_DAYS", "week"),
        ],
    )
    def test_wrong_environment(self, name: str, value: str) -> None:
        """A variable that cannot be used is a ValueError with its name and its value."""
        with pytest.raises(ValueError, match=rf"LAMBDAMR_{name}\b.*{value}"):
            load_config({f"LAMBDAMR_{name}": value})

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("worker = 2", "worker"),
            ("workers = '2'", "workers"),
            ("workers = true", "workers"),
            ("workers = 0", "workers"),
            ("memory_mb = 1.5", "memory_mb"),
            ("timeout_s = -1", "timeout_s"),
            ("progress = 1", "progress"),
            ("workers = ", "TOML"),
        ],
    )
    def test_wrong_file(self, tmp_path: Path, text: str, named: str) -> None:
        """A file that cannot be used is a ValueError with its path and the name in it."""
        file = tmp_path / "config.toml"
        file.write_text(text)
        with pytest.raises(ValueError, match=rf"config\.toml.*\b{named}\b"):
            load_config({"LAMBDAMR_CONFIG": str(file)})

    def test_missing_file(self, tmp_path: Path) -> None:
        """LAMBDAMR_CONFIG that names no file is an error; a missing default file is none."""
        with pytest.raises(ValueError, match=r"LAMBDAMR_CONFIG names .*nowhere\.toml"):
            load_config({"LAMBDAMR_CONFIG": str(tmp_path / "nowhere.toml")})
