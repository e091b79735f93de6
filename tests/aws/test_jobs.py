"""Jobs in the cloud: the built zip under AWS's runtime client, S3 of an emulator."""

import concurrent.futures
import subprocess
import sys
import textwrap
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

import lambdamr
from lambdamr.aws.backend import lambda_client
from lambdamr.cli import main
from lambdamr.deployment import Deployment
from lambdamr_runtime.errors import InvalidInput, RuntimeMismatch, TaskLost
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.store import open_store
from tests.aws import tasks
from tests.aws.conftest import BUCKET, DATA, ROOT, WORKER, Cloud
from tests.faults import wait_until

PATIENCE_S = 60
REPOSITORY = Path(__file__).resolve().parent.parent.parent


def test_map(executor: lambdamr.Executor) -> None:
    """A map gives values in input order."""
    assert executor.map(tasks.double, range(10)).result(PATIENCE_S) == list(range(0, 20, 2))


@pytest.mark.parametrize(
    "value",
    [
        None,
        ValueError("a value"),
        tasks.Point(1, 2.5),
        tasks.Colour.RED,
        {"a": [1, (2, b"3")], 4: {5}},
        datetime(2026, 1, 2, tzinfo=timezone.utc),  # noqa: UP017 - as users write it
    ],
    ids=repr,
)
def test_values_come_back_as_they_are(executor: lambdamr.Executor, value: Any) -> None:
    """None, exceptions as values, classes of the user's own modules."""
    found = executor.submit(tasks.give, value).result(PATIENCE_S)
    assert type(found) is type(value)
    assert repr(found) == repr(value)


def test_large_results_and_arguments(executor: lambdamr.Executor) -> None:
    """Results beyond the 6 MB of Lambda, arguments beyond the 1 MB of an event."""
    size = 7 << 20
    assert executor.submit(tasks.many_bytes, size).result(PATIENCE_S) == bytes(size)
    assert executor.submit(len, b"x" * size).result(PATIENCE_S) == size


def test_errors_of_the_user(executor: lambdamr.Executor) -> None:
    """The same exception, with the remote traceback, in an environment that stays warm."""
    future = executor.submit(tasks.fail, "as it is")
    with pytest.raises(tasks.OwnError, match="as it is") as caught:
        future.result(PATIENCE_S)
    assert "raise OwnError(text)" in str(caught.value.__cause__)


@pytest.mark.parametrize(("how", "said"), [("segfault", "SIGSEGV"), ("exit", "exit status 7")])
def test_a_process_that_dies(executor: lambdamr.Executor, how: str, said: str) -> None:
    """It is tried three times, then TaskLost says how it ended; its environment lives on."""
    with pytest.raises(TaskLost, match=said):
        executor.submit(tasks.die, how).result(PATIENCE_S)


def test_a_task_sees_a_sandbox(executor: lambdamr.Executor) -> None:
    """A temporary folder of its own, no package but the layer's, and nothing in /dev/shm, which
    Lambda has not.
    """
    seen = executor.submit(tasks.surroundings, 0).result(PATIENCE_S)
    assert seen["temporary"].endswith("/tmp")
    assert seen["shared"] == []
    assert {"pytest", "click", "tqdm", "platformdirs"}.isdisjoint(seen["modules"])
    assert not seen["client"].startswith(str(REPOSITORY))


def test_nested(executor: lambdamr.Executor) -> None:
    """A task's executor launches functions, and they all end with fewer places than tasks."""
    results = executor.map(tasks.nested_sum, [2] * 7, chunksize=1)
    assert results.result(PATIENCE_S) == [2] * 7


def test_reduce(executor: lambdamr.Executor) -> None:
    """A tree of tasks reduces futures to one, without the client."""
    futures = executor.map(tasks.double, range(20))
    assert executor.reduce(sum, futures, arity=4).result(PATIENCE_S) == 380


def test_map_reduce(executor: lambdamr.Executor) -> None:
    """Lines of an object in another bucket are counted, and the output lands there."""
    data = open_store(DATA)
    data.put("text/a.txt", b"to be or not to be\n" * 100)
    job = executor.map_reduce(
        tasks.words, f"{DATA}/text/", lambdamr.reducers.sum, reducers=2,
        output=f"{DATA}/counts", format="jsonl",
    )  # fmt: skip
    assert job.result() == {"to": 200, "be": 200, "or": 100, "not": 100}
    assert data.exists("counts/_SUCCESS")


def test_map_reduce_over_thousands_of_objects(cloud: Cloud, deployment: Deployment) -> None:
    """More objects than a page of a listing holds: each is read once."""
    data = open_store(DATA)
    count = 2500

    def put(number: int) -> None:
        data.put(f"many/{number:05d}", b"x" * (number % 7 + 1))

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(count)))
    with cloud.executor(deployment, concurrency=6) as executor:
        job = executor.map_reduce(
            tasks.size_of, lambdamr.objects(f"{DATA}/many/"), tasks.total, reducers=2
        )
        found = job.result()
    expected: dict[int, int] = {}
    for number in range(count):
        expected[number % 10] = expected.get(number % 10, 0) + number % 7 + 1
    assert found == expected


def check_standing(cloud: Cloud, job: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`status` tells three open lanes by the places that there are, and by the metrics if any."""
    said = []
    dimensions = [{"Name": "FunctionName", "Value": WORKER}]
    for limit, metrics in ((10, {}), (2, {}), (10, {"ConcurrentExecutions": 2, "Throttles": 0}),
                           (10, {"Throttles": 5})):  # fmt: skip
        cloud.host.limit = limit
        for name, value in metrics.items():
            it = {"MetricName": name, "Dimensions": dimensions, "Value": value}
            cloud.s3.client("cloudwatch").put_metric_data(Namespace="AWS/Lambda", MetricData=[it])
        assert main(["status", job, "--root", ROOT]) == 0
        said.append(capsys.readouterr().out.splitlines()[-1].partition("lanes: ")[2])
    cloud.host.limit = 1000
    assert said == [
        "3 running; the worker may run 10 at a time",
        "2 running, 1 waiting for concurrency; the worker may run 2 at a time",
        "2 running, 1 queued; the worker may run 10 at a time",
        "2 running, 1 waiting for concurrency; the worker may run 10 at a time and was throttled "
        "5 times in 5 min",
    ]


def test_a_cancelled_job_ends(
    executor: lambdamr.Executor, cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its futures at once, its running tasks within seconds; a look before tells where they are."""
    futures = executor.map(tasks.sleep, [120] * 3, chunksize=1)
    job = futures[0]._stage.job_id
    wait_until(lambda: cloud.host.running() >= 3, "three running tasks")
    check_standing(cloud, job, capsys)
    futures[0]._stage.cancel_job()
    with pytest.raises(concurrent.futures.CancelledError):
        futures.result(PATIENCE_S)
    wait_until(lambda: cloud.host.running() == 0, "the end of the tasks")
    assert cloud.store().exists(JobKeys(job).cancelled)


def test_logs_of_a_running_task(executor: lambdamr.Executor) -> None:
    """Its worker shows what it has written, once it has seen that somebody asks."""
    future = executor.submit(tasks.say, "so far")
    wait_until(lambda: future.logs() == "so far\n", "the log of a running task")
    assert not future.done()
    future._stage.cancel_job()


def test_attach(executor: lambdamr.Executor, cloud: Cloud) -> None:
    """Another client follows the job, and it can be told how its lanes stand."""
    futures = executor.map(tasks.double, range(5), chunksize=1)
    futures.result(PATIENCE_S)
    job = futures[0]._stage.job_id
    assert lambdamr.attach(job, root=ROOT).result() == [0, 2, 4, 6, 8]


def test_a_client_that_is_gone(cloud: Cloud, executor: lambdamr.Executor) -> None:
    """A job of two stages goes on without whoever submitted it."""
    store = cloud.store()
    program = textwrap.dedent(
        f"""
        import os, lambdamr
        from tests.aws import tasks
        executor = lambdamr.Executor(root={ROOT!r}, concurrency=4)
        job = executor.map_reduce(
            tasks.words, iter(["a b"] * 40), tasks.total, reducers=2
        )
        print(job.job_id, flush=True)
        os._exit(0)
        """
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert run.returncode == 0, run.stderr
    job = run.stdout.strip()
    wait_until(lambda: store.exists(JobKeys(job).report), "the end of the job", PATIENCE_S)
    attached = lambdamr.attach(job, root=ROOT)
    assert isinstance(attached, lambdamr.Job)
    assert attached.result() == {"a": 40, "b": 40}


def test_a_missing_package_is_refused_before_launch(executor: lambdamr.Executor) -> None:
    """What the function imports is installed here, but not there."""

    def uses_numpy() -> float:
        import numpy

        return float(numpy.pi)

    with pytest.raises(RuntimeMismatch, match=r"numpy.*--requirements FILE"):
        executor.submit(uses_numpy)


def test_an_input_without_permission_is_refused_before_launch(
    executor: lambdamr.Executor, cloud: Cloud
) -> None:
    """The role may read the root and what --read names; this machine's files it never may."""
    elsewhere = f"s3://{BUCKET}/elsewhere"
    open_store(elsewhere).put("a.txt", b"a")
    with pytest.raises(InvalidInput, match=f"--read {elsewhere}/"):
        executor.map_reduce(tasks.words, f"{elsewhere}/a.txt", lambdamr.reducers.sum)
    with pytest.raises(InvalidInput, match="on this machine"):
        executor.map_reduce(tasks.words, __file__, lambdamr.reducers.sum)


def test_environments_survive_events_that_fail(cloud: Cloud, deployment: Deployment) -> None:
    """An event that is none of ours raises, for the record; the next one finds a warm sandbox."""
    client = lambda_client(deployment.region)
    before = len(cloud.host.records)
    client.invoke(FunctionName=deployment.worker, InvocationType="Event", Payload=b'{"v": 99}')
    wait_until(lambda: len(cloud.host.records) > before, "the failure record")
    assert cloud.host.records[before]["responsePayload"]["errorType"] == "RuntimeMismatch"
    with cloud.executor(deployment, concurrency=1) as executor:
        assert executor.submit(tasks.double, 4).result(PATIENCE_S) == 8
