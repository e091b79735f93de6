"""What tests of failures share: tasks that go wrong, and signs that they leave in files.

Workers import this module, so it needs nothing but the standard library.
"""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

PATIENCE_S = 30.0
"""How long a test waits for what must come; a hang, not a slow machine, exceeds it."""

POLL_S = 0.01


def wait_until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> None:
    """Return as soon as *condition* holds.

    Raises:  AssertionError: it did not within *patience_s*; names *what* was waited for.
    """
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience_s} s in vain for {what}"
        time.sleep(POLL_S)


def wait_until_waiting(pid: int) -> None:
    """Return when the main thread of a process has slept in one system call for a while.

    A bounded look at /proc: nothing else tells that somebody waits. Not for the interpreter's
    lock: who wants that one looks for it every 5 ms.
    """
    deadline = time.monotonic() + PATIENCE_S
    since, before = time.monotonic(), ""
    while time.monotonic() - since < 0.05:
        assert time.monotonic() < deadline
        status = Path(f"/proc/{pid}/status").read_text()  # with its switches from and to a CPU
        if status != before or "State:\tS" not in status:
            since, before = time.monotonic(), status
        os.sched_yield()


def main_child(pid: int) -> int:
    """Return the id of the child that the main thread of a process has started."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    wait_until(path.read_text, f"a child of {pid}")
    return int(path.read_text().split()[0])


# --- signs in files ----------------------------------------------------------------------------
def sign(folder: str, name: object) -> int:
    """Leave one more file for *name*; returns how many there are now."""
    while True:
        count = signs(folder, name) + 1
        try:
            os.close(os.open(f"{folder}/{name}@{count}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        return count


def signs(folder: str, name: object) -> int:
    """Return how many files there are for *name*."""
    return sum(entry.partition("@")[0] == str(name) for entry in os.listdir(folder))


def all_signs(folder: str) -> dict[str, int]:
    """Return the number of files by name."""
    counts: dict[str, int] = {}
    for entry in os.listdir(folder):
        name = entry.partition("@")[0]
        counts[name] = counts.get(name, 0) + 1
    return counts


def hold(folder: str, name: object, gate: str = "go") -> None:
    """Leave a sign, then wait until the test opens the gate."""
    sign(folder, name)
    wait_until(lambda: os.path.exists(f"{folder}/{gate}"), f"{folder}/{gate}")


def open_gate(folder: str, gate: str = "go") -> None:
    Path(folder, gate).touch()


def signed_hold(folder: str, name: object) -> object:
    """Hold, then return the name."""
    hold(folder, name)
    return name


def telling_hold(folder: str, name: object) -> object:
    """Tell the id of this process, hold, then return the name."""
    sign(folder, f"pid.{os.getpid()}")
    return signed_hold(folder, name)


def pids_in(folder: str) -> list[int]:
    """Return the ids that `telling_hold` has told."""
    return [int(name[4:]) for name in all_signs(folder) if name.startswith("pid.")]


def signed(folder: str, name: object) -> object:
    sign(folder, name)
    return name


# --- processes ---------------------------------------------------------------------------------
def is_process(pid: int) -> bool:
    """Whether a process lives; one that has ended and waits to be reaped does not."""
    done = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state = done.stdout.strip()
    return bool(state) and not state.startswith("Z")


def die(how: str) -> NoReturn:
    """End this process."""
    print(f"about to die by {how}", flush=True)
    if how == "exit":
        os._exit(3)
    if how == "segfault":
        import ctypes

        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def die_at(folder: str, item: int, bad: int, how: str, times: int) -> int:
    """Return the item; the bad one dies so many times before."""
    count = sign(folder, item)
    if item == bad and count <= times:
        die(how)
    return item


def kill_worker(folder: str, item: int, bad: int, times: int) -> int:
    """Return the item; the bad one kills the watching parent so many times before."""
    if sign(folder, item) <= times and item == bad:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(PATIENCE_S)
    return item


@dataclass
class CrashesWhenLoaded:
    """Ends every process that unpickles it, so many times."""

    folder: str
    times: int

    def __reduce__(self) -> tuple[Any, ...]:
        return load_or_crash, (self.folder, self.times)

    def __call__(self, item: int) -> int:
        return item


def load_or_crash(folder: str, times: int) -> CrashesWhenLoaded:
    if sign(folder, "load") <= times:
        die("exit")
    return CrashesWhenLoaded(folder, times)


# --- exceptions --------------------------------------------------------------------------------
class NeedsTwo(Exception):
    """Its constructor takes what its args do not hold."""

    def __init__(self, code: int, where: str) -> None:
        super().__init__(f"{code} at {where}")
        self.code = code
        self.where = where


class KeywordOnly(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class NoSuper(Exception):
    """Does not call the constructor of Exception."""

    def __init__(self, code: int, note: str = "") -> None:
        self.code = code
        self.note = note


class HoldsLock(Exception):
    """Has an attribute that cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class BadStr(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class BadReduce(Exception):
    def __reduce__(self) -> NoReturn:
        raise RuntimeError("no pickle")


class BadText:
    """An argument of an exception, without a text and without a pickle."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __reduce__(self) -> NoReturn:
        raise RuntimeError("no pickle")


@dataclass(frozen=True)
class Frozen(Exception):
    """A frozen dataclass: no attribute of it can be set."""

    code: int


class Nowhere:
    """Can be pickled, but only the process that did so can load it."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        return load_nowhere, (os.getpid(), self.how)


class NowhereError(Exception):
    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how

    def __reduce__(self) -> tuple[Any, ...]:
        return load_nowhere, (os.getpid(), self.how, True)


def load_nowhere(pid: int, how: str, is_error: bool = False) -> Any:
    """Return the object in its own process; elsewhere raise, or exit."""
    if os.getpid() == pid:
        return NowhereError(how) if is_error else Nowhere(how)
    if how == "exit":
        sys.exit("loaded elsewhere")
    raise LookupError("loaded elsewhere")


def raise_it(make: Callable[[], BaseException]) -> NoReturn:
    raise make()


def raise_named(name: str, *args: Any, **kwargs: Any) -> NoReturn:
    """Raise an exception class of this module by its name."""
    raise globals()[name](*args, **kwargs)


def chained() -> None:
    """Raise an error that has two causes."""
    try:
        try:
            raise KeyError("the first cause")
        except KeyError as error:
            raise ValueError("the second cause") from error
    except ValueError:
        raise RuntimeError("the effect")  # noqa: B904 - an implicit context is the point


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1) + 1


def fail_then_pass(folder: str, item: int, failures: int, kind: str = "ValueError") -> int:
    """Raise *kind* so many times, then return the item."""
    if sign(folder, item) <= failures:
        raise {"ValueError": ValueError, "KeyError": KeyError, "OSError": OSError}[kind](item)
    return item


def fail_at(folder: str, item: int, bad: frozenset[int]) -> int:
    sign(folder, item)
    if item in bad:
        raise ValueError(f"bad {item}")
    return item


# --- limits ------------------------------------------------------------------------------------
def sleep_long() -> None:
    time.sleep(PATIENCE_S)


def ignore_sigterm_and_sleep() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(PATIENCE_S)


def match_for_ever() -> object:
    """Run a match that takes years, in C, and never lets go of the GIL."""
    import re

    return re.match(r"(a+)+$", "a" * 64 + "b")


def start_sleeper(folder: str, wait: bool) -> int:
    """Start a process of its own that sleeps, and tell its id; then wait, if asked to."""
    sleeper = subprocess.Popen(["sleep", "1000"])
    Path(folder, f"sleeper.{sleeper.pid}").touch()
    if wait:
        sleeper.wait()
    return sleeper.pid


def sleeper_of(folder: str) -> int:
    """Wait for `start_sleeper`; returns the id of the process."""
    wait_until(lambda: list(Path(folder).glob("sleeper.*")), "a sleeper")
    return int(next(Path(folder).glob("sleeper.*")).name.partition(".")[2])


def take_memory(folder: str, item: int, bad: int, size: int) -> int:
    """Return the item; the bad one fills *size* bytes first and keeps them for a while."""
    sign(folder, item)
    if item == bad:
        hog = bytearray(b"x") * size
        time.sleep(PATIENCE_S)
        del hog
    return item


def print_much(lines: int) -> int:
    """Print lines of 1 KiB as fast as possible; returns the bytes on disk they leave in the end."""
    line = b"x" * 1016
    for number in range(lines):
        os.write(1, b"%07d%b\n" % (number, line))
    deadline = time.monotonic() + PATIENCE_S / 3
    while (used := os.fstat(1).st_blocks * 512) > MUCH_BYTES and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return used


MUCH_BYTES = 32 << 20
"""More than the output of a task may take on disk."""


# --- clients of their own ----------------------------------------------------------------------
REPO = Path(__file__).parents[1]


def start_client(program: str, root: str, **environment: str) -> "subprocess.Popen[str]":
    """Start a program that uses lambdamr under *root*, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={
            **os.environ,
            "LAMBDAMR_ROOT": root,
            "PYTHONPATH": os.pathsep.join((str(REPO), str(REPO / "runtime"))),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(client: "subprocess.Popen[str]") -> str:
    """Wait for the end of a client; returns what it printed.

    Raises:  AssertionError: it failed. TimeoutExpired: it hangs.
    """
    with client:
        try:
            out, err = client.communicate(timeout=2 * PATIENCE_S)
        finally:
            client.kill()
    assert client.returncode == 0, err
    return out


def run_client(program: str, root: str, **environment: str) -> str:
    """Run a client to its end; returns what it printed."""
    return output_of(start_client(program, root, **environment))


def kill_client(client: "subprocess.Popen[str]") -> None:
    """Kill a client as `kill -9` does, and wait for its end."""
    with client:
        client.kill()
