"""The planned requests are those that an S3 server gets, one by one.

Client and workers run over a real S3 client; between it and the emulator a proxy counts.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import lambdamr
from lambdamr.planning.counting import Kind, Side
from lambdamr_runtime.store import open_store
from tests.counted import CountedBackend
from tests.emulator import Ministack, ministack  # noqa: F401 - a fixture
from tests.s3_proxy import S3Proxy
from tests.test_counting import both, double, large, length, words

BUCKET = "counted"
LINES = " ".join(f"word{n}" for n in range(40)) + "\n"


@pytest.fixture(scope="module")
def s3(ministack: Ministack) -> Iterator[S3Proxy]:  # noqa: F811
    """A bucket behind a proxy that counts; S3 clients of this process go there."""
    ministack.client("s3").create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    with S3Proxy(ministack.endpoint) as proxy, pytest.MonkeyPatch.context() as patch:
        for name, value in ministack.environment().items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def counted(proxy: S3Proxy) -> Counter[str]:
    """Return what the proxy has seen, by kind; a COPY is a PUT here."""
    found: Counter[str] = Counter()
    for (method, path), number in proxy.requests.items():
        is_list = method == "GET" and path.strip("/") == BUCKET
        found["LIST" if is_list else method] += number
    return found


def of_plan(plan: lambdamr.Plan, side: Side) -> Counter[str]:
    found = Counter(plan.requests(side))
    found["PUT"] += found.pop(str(Kind.COPY), 0)
    del found[str(Kind.INVOKE)]
    return found


def check(
    plan: lambdamr.Plan, backend: CountedBackend, proxy: S3Proxy, lookups: Counter[str]
) -> None:
    """Whatever the server got is planned, or a look: of the client while it waited, of the cluster
    that checks itself, or one of *lookups* before the launch.
    """
    # All requests at the root are in `own`: those of workers and client too.
    checks = Counter(backend.own) - Counter(backend.of_workers()) - backend.found - backend.missed
    planned = of_plan(plan, Side.WORKERS) + of_plan(plan, Side.CLIENT)
    assert +counted(proxy) == +(planned + backend.missed + checks + lookups)


def begin(proxy: S3Proxy, backend: CountedBackend) -> None:
    """Forget what planning and looking up the inputs have asked."""
    proxy.requests.clear()
    for each in (backend.found, backend.missed, backend.own):
        each.clear()


@pytest.mark.parametrize(
    ("fn", "items", "options"),
    [
        (double, list(range(1)), {}),
        (double, list(range(30)), {"chunksize": 4}),
        (double, list(range(30)), {"chunksize": 1, "max_failures": 2}),
        (length, [large(n) for n in range(12)], {"chunksize": 1}),
    ],
)
def test_a_map_at_an_s3_server(fn: Any, items: Any, options: Any, s3: S3Proxy) -> None:
    """Inline and stored, in one chunk and in several groups."""
    backend = CountedBackend(5, root=f"s3://{BUCKET}/map")
    with backend.executor() as executor:
        plan = executor.plan(fn, items, **options)
        begin(s3, backend)
        futures = executor.map(fn, items, **options)
        backend.run()
        futures.result()
    check(plan, backend, s3, Counter())


@pytest.mark.parametrize("reducer", [lambdamr.reducers.sum, both, None])
@pytest.mark.parametrize("single_file", [False, True, None])
def test_a_map_reduce_at_an_s3_server(reducer: Any, single_file: bool | None, s3: S3Proxy) -> None:
    """Input and output lie on S3 too: ranged reads, server-side copies, `_SUCCESS`."""
    bucket = open_store(f"s3://{BUCKET}")
    bucket.put("in/text", (LINES * 400).encode())
    inputs = lambdamr.lines(f"s3://{BUCKET}/in/text", split_bytes=20_000)
    options: dict[str, Any] = {"reducers": 3}
    if single_file is not None:
        name = f"{'both' if reducer is both else 'sum' if reducer else 'none'}{single_file}"
        options |= {
            "output": f"s3://{BUCKET}/out/{name}", "format": "jsonl", "single_file": single_file,
        }  # fmt: skip
    backend = CountedBackend(4, root=f"s3://{BUCKET}/reduce")
    with backend.executor() as executor:
        plan = executor.plan(words, inputs, reducer, **options)
        begin(s3, backend)
        job = executor.map_reduce(words, inputs, reducer, **options)
        backend.run()
        assert job.wait(60)
    # The input is looked up by its key, and what the output holds.
    lookups = Counter(HEAD=1 + (single_file is True), LIST=int(single_file is False))
    check(plan, backend, s3, lookups)
