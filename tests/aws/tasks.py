"""What tests run in the cloud; shipped there, so it needs the standard library alone."""

import enum
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import lambdamr


@dataclass(frozen=True)
class Point:
    x: int
    y: float


class Colour(enum.Enum):
    RED = "red"


class OwnError(Exception):
    """Of the user."""


def double(value: int) -> int:
    return 2 * value


def give(value: Any) -> Any:
    return value


def many_bytes(count: int) -> bytes:
    return bytes(count)


def fail(text: str) -> None:
    raise OwnError(text)


def die(how: str) -> None:
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    os._exit(7)


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def say(text: str) -> None:
    """Print, and go on for long."""
    print(text)
    time.sleep(120)


def stop_watchdog(_: int) -> None:
    """Keep the parent from seeing anything, and go on."""
    os.kill(os.getppid(), signal.SIGSTOP)
    time.sleep(600)


def devour(megabytes: int) -> int:
    """Fill memory step by step."""
    held = []
    for _ in range(megabytes // 8):
        held.append(b"x" * (8 << 20))
        time.sleep(0.01)
    return len(held)


def surroundings(_: int) -> dict[str, Any]:
    """Return what a task sees of its sandbox, and what it and its parent hold in /dev/shm."""
    held: list[str] = []
    for process in ("self", str(os.getppid())):
        with open(f"/proc/{process}/maps") as maps:
            held += [line for line in maps if "/dev/shm" in line]
        for name in os.listdir(f"/proc/{process}/fd"):
            path = f"/proc/{process}/fd/{name}"
            held += [path] if os.path.realpath(path).startswith("/dev/shm") else []
    return {
        "shared": held,
        "parent": os.getppid(),
        "temporary": os.environ["TMPDIR"],
        "modules": sorted({name.partition(".")[0] for name in sys.modules}),
        "client": lambdamr.__file__,
    }


def nested_sum(count: int) -> int:
    """Return the sum of doubles, each made by a task of its own."""
    with lambdamr.Executor() as executor:
        return sum(executor.map(double, range(count)).result())


def words(line: str) -> Iterator[tuple[str, int]]:
    for word in line.split():
        yield word, 1


def size_of(file: Any) -> Iterator[tuple[int, int]]:
    """For `objects`: the last digit of the name, and the bytes."""
    yield int(file.name[-1]), len(file.read())


def total(key: Any, values: Iterable[int]) -> int:
    return sum(values)


def end_sandbox(really: bool) -> bool:
    """End the whole sandbox, the watchdog first."""
    if really:
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(600)
    return really


def spend_in_map(item: str) -> Iterator[tuple[str, str]]:
    """Take what an item "map time" says; pass on what is of the reduce stage."""
    stage, _, what = item.partition(" ")
    _spend(what if stage == "map" else "")
    yield "key", item


def spend(key: str, values: Iterable[str]) -> str:
    for value in values:
        _spend(value.partition(" ")[2])
    return key


def _spend(what: str) -> None:
    if what == "time":
        time.sleep(600)
    if what == "memory":
        devour(600)
