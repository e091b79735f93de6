"""The limits of functions, seen by our own watchdog, or else by the supervisor."""

from typing import Any

import pytest

import lambdamr
from lambdamr_runtime.errors import JobFailed, TaskLost, TaskOutOfMemory, TaskTimeout
from tests.aws import tasks
from tests.aws.conftest import Cloud

PATIENCE_S = 60


def test_the_time_limit_of_a_function(cloud: Cloud) -> None:
    """A task that would outlast its function is stopped before, with its stack; the lane goes on.

    AWS's own time limit is never reached: no failure record exists.
    """
    before = len(cloud.host.records)
    with cloud.executor(cloud.deploy(name="limited", timeout_s=8), concurrency=1) as executor:
        futures = executor.map(tasks.sleep, [0.01, 600, 0.02], chunksize=1)
        with pytest.raises(TaskTimeout, match=r"time\.sleep|in sleep") as caught:
            futures[1].result(PATIENCE_S)
        assert "time limit of its function" in str(caught.value)
        assert [futures[0].result(), futures[2].result(PATIENCE_S)] == [0.01, 0.02]
    assert len(cloud.host.records) == before


def test_lanes_hand_over_in_time(cloud: Cloud) -> None:
    """Chunks that together outlast a function run in several, one after the other."""
    with cloud.executor(cloud.deploy(name="handing", timeout_s=3), concurrency=1) as executor:
        futures = executor.map(tasks.sleep, [0.4] * 6, chunksize=1)
        assert futures.result(PATIENCE_S) == [0.4] * 6
    cloud.host.wait_until_idle()
    assert 2 <= cloud.host.counts["handing"] <= 6


def test_out_of_memory_is_seen_by_us(cloud: Cloud) -> None:
    """Before AWS kills the sandbox: the error has the peak, and there is no failure record."""
    before = len(cloud.host.records)
    deployment = cloud.deploy(name="small", memory_mb=256, kill_mb=256)
    with (
        cloud.executor(deployment, concurrency=1) as executor,
        pytest.raises(TaskOutOfMemory, match="MB of memory"),
    ):
        executor.submit(tasks.devour, 600).result(PATIENCE_S)
    assert len(cloud.host.records) == before


@pytest.mark.parametrize("stage", ["map", "reduce"])
def test_limits_of_one_stage(executor: lambdamr.Executor, stage: str) -> None:
    """Time and memory below those of the function, for the map or the reduce stage alone; more
    than the function has is refused, naming the command.
    """
    for options, what, error in (
        ({"timeout_s": {stage: 1}}, "time", TaskTimeout),
        ({"memory_mb": {stage: 200}}, "memory", TaskOutOfMemory),
    ):
        given: dict[str, Any] = {**options, "reducers": 1}
        job = executor.map_reduce(tasks.spend_in_map, [f"{stage} {what}"], tasks.spend, **given)
        with pytest.raises(error):
            job.result(PATIENCE_S)
    with pytest.raises(ValueError, match=r"have 1024 MB. Run `lambdamr deploy-runtime --memory 20"):
        executor.map_reduce(tasks.words, ["a"], tasks.total, memory_mb={stage: 2000})


def test_out_of_memory_that_aws_sees(cloud: Cloud) -> None:
    """The sandbox is killed: the supervisor gives the task its error, and the others go on."""
    deployment = cloud.deploy(name="killed", memory_mb=1024, kill_mb=200)
    with cloud.executor(deployment, concurrency=1) as executor:
        futures = executor.map(tasks.devour, [16, 400, 16], chunksize=1)
        with pytest.raises(TaskOutOfMemory, match="memory limit of the function"):
            futures[1].result(PATIENCE_S)
        assert [futures[0].result(), futures[2].result(PATIENCE_S)] == [2, 2]
    assert cloud.host.records[-1]["responsePayload"]["errorType"] == "Runtime.ExitError"


def test_a_time_limit_that_aws_sees(cloud: Cloud) -> None:
    """Not even the watchdog can act: AWS ends the sandbox, the supervisor says so."""
    deployment = cloud.deploy(name="stopped", timeout_s=3)
    with (
        cloud.executor(deployment, concurrency=1) as executor,
        pytest.raises(TaskTimeout, match=r"timed out after 3\.00 seconds"),
    ):
        executor.submit(tasks.stop_watchdog, 0).result(PATIENCE_S)


def test_a_sandbox_that_vanishes(cloud: Cloud) -> None:
    """A worker whose whole sandbox ends is repaired, and given up after three times."""
    deployment = cloud.deploy(name="vanishing")
    with cloud.executor(deployment, concurrency=1) as executor:
        futures = executor.map(tasks.end_sandbox, [False, True, False], chunksize=1)
        with pytest.raises(TaskLost, match="end of its sandbox"):
            futures[1].result(PATIENCE_S)
        assert [futures[0].result(), futures[2].result(PATIENCE_S)] == [False, False]


def test_a_runtime_that_cannot_start_fails_the_job(cloud: Cloud) -> None:
    """At once, with what mends it, instead of silence."""
    deployment = cloud.deploy(name="broken", handler="lambdamr_runtime.nothing.worker")
    with (
        cloud.executor(deployment, concurrency=1) as executor,
        pytest.raises(JobFailed, match=r"nothing.*lambdamr deploy-runtime"),
    ):
        executor.submit(tasks.double, 1).result(PATIENCE_S)
