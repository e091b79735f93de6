"""Ctrl-C at any moment, once or several times: nothing of the executor is left behind."""

import _thread
import gc
import itertools
import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from lambdamr.engine import Engine
from tests import faults
from tests.cluster import Cluster

PROGRAM = """
    import json, os, random, signal, sys, threading, time
    import lambdamr
    from tests.test_interrupts import children, left_behind, strikes

    chance = random.Random({seed})
    root = os.environ["LAMBDAMR_ROOT"]

    def use():
        with lambdamr.Executor(workers=2) as executor:
            while True:
                assert executor.map(abs, range(-20, 0), chunksize=1).result() == [*range(20, 0, -1)]
                assert executor.submit(abs, -1).result() == 1
                job = executor.map_reduce(
                    lambda i: [(i % 5, 1)], range(50), lambda key, values: sum(values)
                )
                assert job.result() == dict.fromkeys(range(5), 10)

    found = []
    for number in range({rounds}):
        moments = chance.uniform(0.001, 0.4), chance.choice([0.005, 0.02, 0.1])
        try:
            with strikes(chance.choice([1, 2, 2, 3]), *moments):
                use()
        except KeyboardInterrupt:
            pass
        left = left_behind(5.0)
        if left:
            found.append([number, *moments, left])
    print(json.dumps(found))
    # A text that was interrupted while it ran (dataclasses run some) has Python end by SIGINT,
    # however the program goes on: until another one has run.
    exec("")
"""


class strikes:  # noqa: N801 - used as a function
    """Raise KeyboardInterrupt in the main thread, as Ctrl-C does: so often, from *first_s* on."""

    def __init__(self, count: int, first_s: float, gap_s: float) -> None:
        self._left = count
        self._moments = first_s, gap_s

    def __enter__(self) -> None:
        sys.unraisablehook = self._repeat
        signal.signal(signal.SIGALRM, self._strike)
        signal.setitimer(signal.ITIMER_REAL, *self._moments)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _repeat(self, lost: "sys.UnraisableHookArgs") -> None:
        """Strike once more: Python drops what is raised in a finalizer or a weak reference's
        callback, and whoever pressed Ctrl-C would press it again.
        """
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            sys.__unraisablehook__(lost)
            return
        self._left = max(self._left, 0) + 1
        signal.setitimer(signal.ITIMER_REAL, *self._moments)

    def _strike(self, *_: object) -> None:
        self._left -= 1
        if self._left <= 0:
            signal.setitimer(signal.ITIMER_REAL, 0)
        raise KeyboardInterrupt


def children() -> list[str]:
    """Return the ids of this process's children, and of those that ended but were not reaped."""
    listed: list[str] = []
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            listed += path.read_text().split()
        except OSError:  # that thread has ended
            continue
    return listed


def left_behind(patience_s: float) -> list[str]:
    """Return the threads and child processes that do not end within *patience_s*."""

    def left() -> list[str]:
        threads = [each.name for each in threading.enumerate()][1:]
        return threads + children()

    try:
        faults.wait_until(lambda: not left(), "the end of all", patience_s)
    except AssertionError:
        return left()
    return []


def interrupt(root: str, tmp_path: Path, seed: int, rounds: int) -> None:
    """Run a program that is interrupted so many times, and check what it leaves."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    program = PROGRAM.format(seed=seed, rounds=rounds)
    client = faults.start_client(program, root, TMPDIR=str(temporary))
    with client:
        out, err = client.communicate(timeout=rounds * 10)
    assert client.returncode == 0, err
    assert json.loads(out) == []
    faults.wait_until(lambda: not list(temporary.glob("lambdamr-*")), "the end of the folders")
    assert not list(Path(root).glob("owners/*"))


LIMIT_S = 30.0

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@needs_proc
def test_interrupted_anywhere(root: str, tmp_path: Path) -> None:
    """Up to three Ctrl-C at random moments, while an executor starts, works, waits or ends, leave
    no thread, no process, no temporary folder and no lock.
    """
    interrupt(root, tmp_path, seed=1, rounds=12)


@needs_proc
@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
def test_interrupted_anywhere_for_long(root: str, tmp_path: Path, seed: int) -> None:
    """The same, a hundred times each."""
    interrupt(root, tmp_path, seed=100 + seed, rounds=100)


@pytest.mark.parametrize("leaving", ["pass", "raise ValueError"])
def test_a_second_interrupt_ends_the_wait_of_the_first(root: str, leaving: str) -> None:
    """Where leaving `with Executor()` waits for a task without end, Ctrl-C cancels it and ends
    the wait within seconds.
    """
    program = f"""
        import lambdamr, signal, time
        from tests import faults
        from tests.test_interrupts import left_behind, strikes
        begun = time.monotonic()
        try:
            with lambdamr.Executor(workers=1) as executor:
                future = executor.submit(faults.match_for_ever)
                faults.wait_until(future.running, "the task")
                strikes(2, 0.3, 0.3).__enter__()
                {leaving}
        except (KeyboardInterrupt, ValueError):
            signal.setitimer(signal.ITIMER_REAL, 0)  # one was enough where the first came late
            faults.wait_until(future.cancelled, "its cancellation")  # by a thread of its own
            print(future.cancelled(), time.monotonic() - begun < 10, left_behind(5))
    """
    assert faults.run_client(program, root) == "True True []\n"


class Closing(Cluster):
    """A backend that says when it has been closed."""

    def __init__(self) -> None:
        super().__init__(1)
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


def interrupted(step: int, act: Callable[[], None], atomic: Callable[..., object]) -> bool:
    """Call *act*, with Ctrl-C at its so many-th line or return; whether it came so far.

    Args:  atomic: in which none comes.
    """
    left = step

    def trace(frame: FrameType, event: str, arg: Any) -> Any:  # Any: as sys.settrace has it
        nonlocal left
        if frame.f_code is atomic.__code__:
            return None
        left -= event in ("line", "return")
        if left < 0:
            raise KeyboardInterrupt
        return trace

    # What is raised in a finalizer is lost: none of another test's objects may run one here.
    gc.disable()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
        gc.enable()
    return False


def test_one_more_interrupt_does_not_keep_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it comes while all is cancelled and stopped: a thread that was to do that does."""
    begun: list[int] = []
    really = _thread.start_new_thread

    def start_new_thread(run: Callable[[], object], args: tuple[()]) -> int:
        begun.append(step)
        return really(run, args)

    monkeypatch.setattr(_thread, "start_new_thread", start_new_thread)
    for step in itertools.count():
        backend = Closing()
        was_interrupted = interrupted(step, Engine(backend).abandon, start_new_thread)
        if step in begun:
            assert backend.closed.wait(LIMIT_S), f"what was begun before step {step} ends"
        if not was_interrupted:
            break
    assert len(begun) > 1
