"""The strict view: what holds for every executor of concurrent.futures holds for it.

The rules are those that CPython tests its own executors by: submit, map, wait, as_completed,
shutdown, and the end of the program.
"""

import concurrent.futures
import gc
import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import lambdamr


class Plain:
    """An object that weak references can name."""

    def method(self) -> None: ...


def capture(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
    return args, kwargs


def opened(gate: Path) -> str:
    """Wait until somebody opens a gate, and return what they write."""
    return gate.read_text()


@pytest.fixture
def pool(executor: lambdamr.Executor) -> Iterator[concurrent.futures.Executor]:
    """A view of two warm workers."""
    with executor.as_concurrent() as pool:
        yield pool


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A FIFO: a task that reads it waits until the test writes it; at the end nobody waits."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    yield path
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # lets in whoever waits to open it
    path.unlink()
    path.touch()  # for whoever comes later
    os.close(descriptor)


def test_it_is_an_executor_of_the_standard_library(pool: concurrent.futures.Executor) -> None:
    """It says so, and submit returns the standard library's Future."""
    assert isinstance(pool, concurrent.futures.Executor)
    assert isinstance(pool.submit(abs, -1), concurrent.futures.Future)


def test_submit_takes_any_keyword(pool: concurrent.futures.Executor) -> None:
    """`self` and `fn` are keywords like others; the function itself is positional only."""
    assert pool.submit(pow, 2, 8).result() == 256
    assert pool.submit(capture, 1, self=2, fn=3).result() == ((1,), {"self": 2, "fn": 3})
    with pytest.raises(TypeError):
        pool.submit(fn=capture, arg=1)  # type: ignore[call-arg]  # that is the test
    with pytest.raises(TypeError):
        pool.submit(arg=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("options", [{}, {"chunksize": 3}, {"buffersize": 1}, {"buffersize": 4}])
def test_map_is_that_of_the_builtin(
    pool: concurrent.futures.Executor, options: dict[str, int]
) -> None:
    """Results in order, ended by the shortest iterable."""
    found = list(pool.map(pow, range(10), itertools.count(), **options))
    assert found == list(map(pow, range(10), range(10)))


def test_map_of_nothing_yields_nothing(pool: concurrent.futures.Executor) -> None:
    """An empty iterable, and none at all of a function's arguments."""
    assert list(pool.map(abs, [])) == []


@pytest.mark.parametrize("chunksize", [1, 4])
def test_map_raises_where_the_failed_result_stands(
    pool: concurrent.futures.Executor, chunksize: int
) -> None:
    """Results before a failure are yielded."""
    results = pool.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5], chunksize=chunksize)
    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_takes_inputs_at_once_or_as_its_buffer_allows(
    pool: concurrent.futures.Executor,
) -> None:
    """A buffersize bounds what is taken from the iterable before a result is."""
    taken: list[int] = []

    def inputs() -> Iterator[int]:
        for n in range(6):
            taken.append(n)
            yield -n

    results = pool.map(abs, inputs(), buffersize=2)  # type: ignore[call-arg]  # new in 3.14
    assert taken == [0, 1]
    assert next(results) == 0
    assert taken == [0, 1, 2]
    assert list(results) == [1, 2, 3, 4, 5]
    pool.map(abs, inputs())
    assert len(taken) == 12


@pytest.mark.parametrize("options", [{"chunksize": 0}, {"buffersize": 0}])
def test_sizes_below_one_are_refused(
    pool: concurrent.futures.Executor, options: dict[str, int]
) -> None:
    """ValueError at the call, not at the first result."""
    with pytest.raises(ValueError, match=r">= 1|> 0"):
        pool.map(abs, [1], **options)


def test_map_times_out_behind_the_results_that_came(
    pool: concurrent.futures.Executor, gate: Path
) -> None:
    """The timeout counts from the call; results before it are yielded."""

    def fast_or_never(n: int) -> int:
        return n if n < 2 else len(opened(gate))

    results = pool.map(fast_or_never, range(3), timeout=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(TimeoutError):
        next(results)


def test_the_iterator_keeps_nothing_that_it_has_yielded(
    pool: concurrent.futures.Executor,
) -> None:
    """A result that the caller drops is gone."""
    count = 0
    for each in pool.map(lambda _: Plain(), range(10)):
        reference = weakref.ref(each)
        del each
        gc.collect()
        assert reference() is None
        count += 1
    assert count == 10


def test_an_argument_is_free_once_the_call_is_done(pool: concurrent.futures.Executor) -> None:
    """Nothing keeps what was submitted."""
    mine = Plain()
    collected = threading.Event()
    reference = weakref.ref(mine, lambda _: collected.set())
    pool.submit(mine.method)
    del mine
    assert collected.wait(30)
    assert reference() is None


def test_results_not_taken_are_cancelled_with_the_iterator(
    pool: concurrent.futures.Executor, gate: Path
) -> None:
    """Closing the iterator cancels what has not run, so that nothing waits for it."""
    results = pool.map(lambda n: opened(gate) if n else "", range(60))
    assert next(results) == ""
    results.close()  # type: ignore[attr-defined]  # a generator
    pool.shutdown()  # would wait for 59 readers of the gate


def test_wait_ends_with_the_first_that_has_completed(
    pool: concurrent.futures.Executor, gate: Path
) -> None:
    """FIRST_COMPLETED, and the same future twice."""
    quick: Any = pool.submit(abs, -42)  # Any: two types of value in one list
    slow: Any = pool.submit(opened, gate)
    done, pending = concurrent.futures.wait(
        [quick, slow, quick], return_when=concurrent.futures.FIRST_COMPLETED
    )
    assert (done, pending) == ({quick}, {slow})
    gate.write_text("x")
    assert slow.result() == "x"


def test_wait_ends_with_the_first_exception(pool: concurrent.futures.Executor, gate: Path) -> None:
    """FIRST_EXCEPTION goes on over values."""
    quick: Any = pool.submit(divmod, 1, 0)  # Any: as above
    slow: Any = pool.submit(opened, gate)
    done, pending = concurrent.futures.wait(
        [quick, slow], return_when=concurrent.futures.FIRST_EXCEPTION
    )
    assert (done, pending) == ({quick}, {slow})
    gate.write_text("x")
    assert concurrent.futures.wait([quick, slow]).not_done == set()


def test_as_completed_times_out_and_yields_each_future_once(
    pool: concurrent.futures.Executor, gate: Path
) -> None:
    """What is not done in time is not yielded; a future given three times comes once."""
    slow = pool.submit(opened, gate)
    with pytest.raises(concurrent.futures.TimeoutError):
        list(concurrent.futures.as_completed([slow], timeout=0))
    gate.write_text("x")
    assert list(concurrent.futures.as_completed(itertools.repeat(slow, 3))) == [slow]


def test_no_call_after_shutdown(executor: lambdamr.Executor) -> None:
    """RuntimeError in the words of the standard library; the executor itself goes on."""
    pool = executor.as_concurrent()
    pool.shutdown()
    for call in (lambda: pool.submit(abs, 1), lambda: pool.map(abs, [1])):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            call()
    assert executor.submit(abs, -1).result() == 1


def test_shutdown_waits_for_its_own_calls_alone(executor: lambdamr.Executor, gate: Path) -> None:
    """Of two views of one executor, one ends while a call of the other goes on."""
    other = executor.as_concurrent()
    slow = other.submit(opened, gate)
    with executor.as_concurrent() as pool:
        quick = pool.submit(abs, -1)
    assert quick.done()
    assert not slow.done()
    gate.write_text("x")
    other.shutdown()
    assert slow.done()


def test_shutdown_lets_what_has_begun_finish_and_cancels_the_rest() -> None:
    """cancel_futures: many are cancelled, and the others have results."""
    pool = lambdamr.Executor(workers=2).as_concurrent()
    futures = [pool.submit(time.sleep, 0.1) for _ in range(50)]
    futures[0].result()
    pool.shutdown(cancel_futures=True)
    others = [future for future in futures if not future.cancelled()]
    assert 1 <= len(others) < 30
    assert [future.exception() for future in others] == [None] * len(others)


def test_the_last_view_of_an_executor_ends_its_workers() -> None:
    """Who has only the view has no other way to stop them."""
    before = set(threading.enumerate())
    pool = lambdamr.Executor(workers=2).as_concurrent()
    assert list(pool.map(abs, range(-5, 5))) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    pool.shutdown()
    left = [each for each in threading.enumerate() if each not in before and each.is_alive()]
    for thread in left:
        thread.join(30)
    assert not [thread for thread in left if thread.is_alive()]


def test_a_call_cancelled_before_shutdown_does_not_hang_it() -> None:
    """The shutdown returns, and the future is cancelled or done."""
    pool = lambdamr.Executor(workers=1).as_concurrent()
    pool.submit(int).result()
    future = pool.submit(int)
    future.cancel()
    pool.shutdown(wait=True)
    try:
        assert future.result(0) == 0
    except CancelledError:
        assert future.cancelled()


def program(text: str, root: str) -> Callable[[], "subprocess.CompletedProcess[str]"]:
    return lambda: subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        env={**os.environ, "LAMBDAMR_ROOT": root},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("end", ["", "pool.shutdown(wait=False)"])
def test_the_end_of_the_program_waits_for_what_was_submitted(
    end: str, root: str, tmp_path: Path
) -> None:
    """Neither forgotten nor hung, after shutdown(wait=False) too."""
    done = program(
        f"""
        import lambdamr
        pool = lambdamr.Executor(workers=1).as_concurrent()
        def task():
            open({str(tmp_path / "apple")!r}, "w").close()
        pool.submit(task)
        {end}
        """,
        root,
    )()
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "apple").exists()


def test_no_call_after_the_end_of_the_program(root: str) -> None:
    """An exit handler that submits gets RuntimeError."""
    done = program(
        """
        import atexit
        @atexit.register
        def run_last():
            try:
                pool.submit(id, None)
            except RuntimeError as error:
                print(error)
        import lambdamr
        pool = lambdamr.Executor(workers=1).as_concurrent()
        pool.submit(int).result()
        """,
        root,
    )()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cannot schedule new futures")
