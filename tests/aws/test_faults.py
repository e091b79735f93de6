"""Bad days: S3 refuses, resets and dawdles, Lambda throttles; and what a good day costs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import lambdamr
from lambdamr_runtime.errors import StoreError
from lambdamr_runtime.keys import new_execution_id
from lambdamr_runtime.store import Store, open_store
from tests.aws import tasks
from tests.aws.conftest import ROOT, Cloud
from tests.s3_proxy import BAD_DAY, Fault, S3Proxy

PATIENCE_S = 60


@contextmanager
def behind(cloud: Cloud, proxy: S3Proxy, name: str, lanes: int) -> Iterator[lambdamr.Executor]:
    """Yield an executor whose client and workers reach S3 through a proxy."""
    saved = cloud.variables
    cloud.variables = {**saved, "AWS_ENDPOINT_URL_S3": proxy.endpoint}
    try:
        with through(proxy), cloud.executor(cloud.deploy(name=name), concurrency=lanes) as executor:
            yield executor
    finally:
        cloud.variables = saved


@contextmanager
def through(proxy: S3Proxy) -> Iterator[Store]:
    """Have this process reach S3 through a proxy; yields the store."""
    direct = os.environ["AWS_ENDPOINT_URL_S3"]
    os.environ["AWS_ENDPOINT_URL_S3"] = proxy.endpoint
    try:
        yield open_store(ROOT)
    finally:
        os.environ["AWS_ENDPOINT_URL_S3"] = direct


def test_requests_of_a_warm_chunk(cloud: Cloud) -> None:
    """Three for each: its arguments, its outcome, the client's look; and a share of listings."""
    chunks = 40
    with S3Proxy(cloud.s3.endpoint) as proxy, behind(cloud, proxy, "counted", 1) as executor:
        futures = executor.map(len, [b"x" * (128 << 10)] * chunks, chunksize=1)
        assert futures.result(PATIENCE_S) == [128 << 10] * chunks
        job = futures[0]._stage.job_id
        assert proxy.count("PUT", "/outcomes/") == chunks
        assert proxy.count("GET", "/outcomes/") == chunks
        assert proxy.count("GET", f"{job}/map/args") <= chunks
        heads = sum(n for (verb, _), n in proxy.requests.items() if verb == "HEAD")
        rest = sum(proxy.requests.values()) - 3 * chunks
        # The function, the manifest and args put; the lane's first look and its end; and the
        # client's polling: each look lists, and heads the report or the manifest.
        lists = proxy.requests["GET", "/lambdamr-test"]
        ends = proxy.count("GET", "report.json") + proxy.count("GET", "cancelled")
        assert rest <= heads + lists + ends + 8, proxy.requests


def test_s3_on_a_bad_day(cloud: Cloud) -> None:
    """One request in twenty is refused, reset or slow: every task ends, once, and is right."""
    with S3Proxy(cloud.s3.endpoint, 0.05, seed=4) as proxy:
        with behind(cloud, proxy, "stormy", 4) as executor:
            futures = executor.map(tasks.double, range(60), chunksize=1)
            assert futures.result(PATIENCE_S) == list(range(0, 120, 2))
            job = futures[0]._stage.job_id
            counted = executor.map_reduce(
                tasks.words, iter(["a b b"] * 30), lambdamr.reducers.sum, reducers=2
            ).result()
        assert counted == {"a": 30, "b": 60}
        assert sum(proxy.faults.values()) >= 5
    outcomes = [e for e in cloud.store().list(f"jobs/{job}/") if "/outcomes/" in e.key]
    assert len(outcomes) == 60


@pytest.mark.parametrize("fault", BAD_DAY)
def test_the_winner_of_a_create_is_read(cloud: Cloud, fault: Fault) -> None:
    """Whatever is answered to a conditional put, exactly one of two executions has won."""
    key = f"tests/{fault.name}"
    mine, other = new_execution_id(), new_execution_id()
    with S3Proxy(cloud.s3.endpoint) as proxy, through(proxy) as store:
        left = [fault]
        proxy.choose = lambda method, _: left.pop() if method == "PUT" and left else None
        assert store.create(key, b"mine", mine)
        left.append(fault)
        assert not store.create(key, b"other", other)
        assert proxy.faults[fault] == 2
    assert cloud.store().get(key) == mine.encode() + b"\nmine"


def test_a_missing_key_may_be_forbidden(cloud: Cloud) -> None:
    """S3 says 403 of a key that is not there to whoever may list a prefix alone: it is missing. A
    refused write stays a refusal.
    """
    with S3Proxy(cloud.s3.endpoint) as proxy, through(proxy) as store:
        proxy.choose = lambda *_: Fault.FORBIDDEN
        with pytest.raises(FileNotFoundError):
            store.get("nothing")
        assert not store.exists("nothing")
        with pytest.raises(StoreError, match=r"403|Forbidden|permission"):
            store.put("something", b"")


def test_throttled_launches(cloud: Cloud) -> None:
    """Launches that are answered 429 are repeated, by the client and by the tree."""
    with cloud.executor(cloud.deploy(name="throttled"), concurrency=16) as executor:
        cloud.host.throttles = 8
        assert executor.map(tasks.double, range(16), chunksize=1).result(PATIENCE_S) == [
            2 * i for i in range(16)
        ]
    cloud.host.wait_until_idle()
    assert cloud.host.throttles == 0
    assert cloud.host.counts["throttled"] == 16


@contextmanager
def ten_places(cloud: Cloud) -> Iterator[None]:
    """Have the account be a new one: ten functions run at a time."""
    host = cloud.host
    saved = host.concurrency, host.limit
    host.concurrency = host.limit = 10
    try:
        yield
    finally:
        host.concurrency, host.limit = saved


def stage_of_many(
    cloud: Cloud, name: str, chunks: int, lanes: int, concurrency: int | None
) -> None:
    """Run a stage of many chunks on few places, and check what was invoked.

    Args:    lanes: that it is to have. concurrency: what is asked for.
    """
    before = dict(cloud.host.counts)
    with cloud.executor(cloud.deploy(name=name), concurrency=concurrency) as executor:
        futures = executor.map(tasks.double, range(chunks), chunksize=1)
        assert futures.result(5 * PATIENCE_S) == [2 * i for i in range(chunks)]
        job = futures[0]._stage.job_id
    cloud.host.wait_until_idle()
    client = cloud.host.counts["requests by boto3"] - before.get("requests by boto3", 0)
    assert client <= 64
    assert cloud.host.counts[name] <= lanes
    outcomes = [e for e in cloud.store().list(f"jobs/{job}/") if "/outcomes/" in e.key]
    assert len(outcomes) == chunks


def test_an_account_of_ten_places(cloud: Cloud) -> None:
    """A stage takes the lanes that the limit leaves: all chunks end, none is lost."""
    with ten_places(cloud):
        stage_of_many(cloud, "newcomer", 500, 8, None)


@pytest.mark.parametrize("chunks", [100, pytest.param(500, marks=pytest.mark.soak)])
def test_far_more_lanes_than_places(cloud: Cloud, chunks: int) -> None:
    """A stage that takes no heed of the limit: the events wait for places, and none is lost."""
    with ten_places(cloud):
        cloud.host.limit = 1000
        stage_of_many(cloud, f"heedless-{chunks}", chunks, chunks, chunks)


@pytest.mark.soak
def test_a_thousand_chunks(cloud: Cloud) -> None:
    """Launched by a tree: at most 64 launches by the client, 1,000 invocations in all."""
    stage_of_many(cloud, "thousand", 1000, 1000, 1000)
