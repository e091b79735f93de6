"""Time and memory of each stage by itself; on AWS: tests/aws/test_function_limits.py."""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

import lambdamr
from lambdamr.options import CallOptions

LIMIT_S = 30.0
HELD = 150 << 20


def spend(what: str) -> None:
    """Take time, or memory, until stopped."""
    if what == "time":
        time.sleep(60)
    held = []
    while what == "memory":
        held.append(b"x" * (8 << 20))
        time.sleep(0.01)


def mapper(item: str) -> Iterator[tuple[str, str]]:
    spend(item.removeprefix("map "))
    yield "key", item


def reducer(key: str, values: Any) -> int:
    for value in list(values):
        spend(value.removeprefix("reduce "))
    return os.getpid()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lambdamr.Executor]:
    root = str(tmp_path_factory.mktemp("root"))
    with lambdamr.Executor(workers=1, concurrency=1, root=root, memory_mb=900) as executor:
        yield executor


@pytest.mark.parametrize("stage", ["map", "reduce"])
@pytest.mark.parametrize(
    ("what", "options", "error"),
    [
        ("time", {"timeout_s": 0.4}, lambdamr.TaskTimeout),
        ("memory", {"memory_mb": 200}, lambdamr.TaskOutOfMemory),
    ],
)
def test_a_stage_has_limits_of_its_own(
    pool: lambdamr.Executor, stage: str, what: str, options: dict[str, Any], error: type[Exception]
) -> None:
    """A limit of one stage ends its tasks, by the error of that limit."""
    ((name, limit),) = options.items()
    given: dict[str, Any] = {name: {stage: limit}, "reducers": 1}
    job = pool.map_reduce(mapper, [f"{stage} {what}"], reducer, **given)
    with pytest.raises(error):
        job.result(LIMIT_S)


def test_the_other_stage_is_not_limited(pool: lambdamr.Executor) -> None:
    """What is given for one stage alone says nothing about the other."""

    def slow(item: int) -> list[tuple[int, int]]:
        time.sleep(0.3)
        return [(item, len(b"x" * HELD))]

    job = pool.map_reduce(
        slow, [1], lambdamr.reducers.sum, timeout_s={"reduce": 0.25}, memory_mb={"reduce": 140}
    )
    assert job.result(LIMIT_S) == {1: HELD}


def test_calls_have_a_memory_limit(pool: lambdamr.Executor) -> None:
    """Of map, call_async and reduce too: of the tasks of that call, and of no other."""
    spent = pool.map(spend, ["memory"], memory_mb=200).exceptions(LIMIT_S)
    assert type(spent[0]) is lambdamr.TaskOutOfMemory
    assert "the limit is 200 MB" in str(spent[0])
    error = pool.call_async(spend, "memory", memory_mb=200).exception(LIMIT_S)
    assert type(error) is lambdamr.TaskOutOfMemory
    held = pool.submit(lambda: len(b"x" * (2 * HELD)))
    assert held.result(LIMIT_S) == 2 * HELD
    folded = pool.reduce(lambda values: spend("memory"), [held], memory_mb=200)
    assert type(folded.exception(LIMIT_S)) is lambdamr.TaskOutOfMemory


def test_a_process_that_holds_too_much_is_replaced(pool: lambdamr.Executor) -> None:
    """What a warm process holds of earlier tasks is not counted against a lower limit."""

    def hold() -> int:
        lambdamr.held = b"x" * HELD  # for the next task of the process
        return os.getpid()

    before = pool.submit(hold).result(LIMIT_S)
    assert pool.submit(os.getpid).result(LIMIT_S) == before, "it is warm"
    after = pool.call_async(lambda _: os.getpid(), 0, memory_mb=140).result(LIMIT_S)
    assert after != before


def test_more_than_the_workers_have_is_refused(pool: lambdamr.Executor) -> None:
    """Before launch, with what gives them more."""
    with pytest.raises(ValueError, match=r"have 900 MB.*Executor\(memory_mb=1000\)"):
        pool.map(spend, [""], memory_mb=1000)
    with pytest.raises(ValueError, match="memory_mb=1000"):
        pool.map_reduce(mapper, [""], reducer, memory_mb={"reduce": 1000})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout_s": {"final": 1}}, "map and reduce"),
        ({"timeout_s": {"map": 0}}, r"timeout_s\['map'\] must be positive"),
        ({"memory_mb": {"reduce": 31}}, r"memory_mb\['reduce'\] must be >= 32, got 31"),
        ({"memory_mb": -1}, "memory_mb must be >= 32"),
    ],
)
def test_limits_that_cannot_be_meant(options: dict[str, Any], said: str) -> None:
    """Are refused by the name of the stage."""
    with pytest.raises(ValueError, match=said):
        CallOptions(**options)
