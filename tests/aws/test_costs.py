"""What a plan says of a deployed runtime, and what functions and S3 then count."""

import re
from typing import Any

import lambdamr
from lambdamr.planning.counting import Kind
from tests.aws import tasks
from tests.aws.conftest import Cloud
from tests.aws.test_faults import PATIENCE_S, behind
from tests.emulator import REGION
from tests.gates import Gate, pass_gate
from tests.s3_proxy import S3Proxy
from tests.test_views import text_of


def check(plan: lambdamr.Plan, proxy: S3Proxy, invoked: int) -> None:
    """Writes and invocations hang on nothing but the job: they are those that were planned."""
    planned = plan.requests()
    puts = sum(number for (method, _), number in proxy.requests.items() if method == "PUT")
    assert puts == planned[str(Kind.PUT)], proxy.requests
    assert invoked == planned[str(Kind.INVOKE)]
    slices = plan.requests_for("shuffle slices")
    assert proxy.count("GET", "/shuffle/") == slices


def test_a_map_costs_what_was_planned(cloud: Cloud) -> None:
    """Stored arguments, one chunk per task, one lane: no two lanes meet at a barrier."""
    items = [b"x" * (16 << 10)] * 12
    with S3Proxy(cloud.s3.endpoint) as proxy, behind(cloud, proxy, "priced", 1) as executor:
        plan = executor.plan(len, items, chunksize=1, task_s=0.1)
        assert (plan.target.where, plan.target.width) == ("aws", 1)
        assert 0 < plan.usd.low <= plan.usd.high < 0.01
        proxy.requests.clear()
        before = cloud.host.counts["priced"]
        futures = executor.map(len, items, chunksize=1)
        assert futures.result(PATIENCE_S) == [16 << 10] * 12
        _await_report(executor, futures.job_id)
        cloud.host.wait_until_idle()
        check(plan, proxy, cloud.host.counts["priced"] - before)
        cost = futures.cost()
        assert cost.target == plan.target
        assert cost.usd.low > 0
        assert cost.requests("client") == plan.requests("client")


def test_a_map_reduce_costs_what_was_planned(cloud: Cloud) -> None:
    """Map and reduce, launched by each other."""
    inputs = ["a b c d e f g h"] * 9
    options: dict[str, Any] = {"reducers": 2}
    with S3Proxy(cloud.s3.endpoint) as proxy, behind(cloud, proxy, "weighed", 1) as executor:
        plan = executor.plan(tasks.words, iter(inputs), lambdamr.reducers.sum, **options)
        proxy.requests.clear()
        before = cloud.host.counts["weighed"]
        job = executor.map_reduce(tasks.words, iter(inputs), lambdamr.reducers.sum, **options)
        assert job.wait(PATIENCE_S)
        cloud.host.wait_until_idle()
        check(plan, proxy, cloud.host.counts["weighed"] - before)
        assert set(job.cost().by_component()) == {
            "Lambda GB-s", "Lambda requests", "PUT", "GET", "LIST", "storage",
        }  # fmt: skip


def test_a_job_shows_what_it_costs(executor: lambdamr.Executor, gate: Gate) -> None:
    """In a notebook: so far while it runs, and the sum at its end."""
    futures = executor.map(pass_gate, [gate.path] * 2, [1, 2], chunksize=1)
    gate.wait_until_entered()
    assert re.search(r"running .*\$[\d.]+ – \$[\d.]+ so far", text_of(futures._repr_html_()))
    gate.open(2)
    assert futures.result(PATIENCE_S) == [1, 2]
    assert re.search(r"done .*\$[\d.]+( – \$[\d.]+)? map 2 / 2", text_of(futures._repr_html_()))
    cost = futures.cost()
    assert (cost.is_over, cost.target.region) == (True, REGION)
    assert cost.usd.low > 0


def _await_report(executor: lambdamr.Executor, job: str) -> None:
    """Wait until the last lane of a map has written the report that nobody waits for."""
    import time

    store = executor.engine().backend.store
    deadline = time.monotonic() + PATIENCE_S
    while not store.exists(f"jobs/{job}/report.json"):
        assert time.monotonic() < deadline
        time.sleep(0.05)  # another process writes it, and tells nobody
