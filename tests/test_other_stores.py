"""Inputs from Google's store, in the XML that it shares with S3; and what is said without keys.

object_store's client for Google Cloud Storage speaks the XML API, which moto's server of S3
answers. Signatures of Google are not tested here.
"""

import gzip
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

import lambdamr
from lambdamr_runtime.errors import InputChanged, InputNotFound, StoreError
from lambdamr_runtime.store import open_store

BUCKET = "lambdamrgoogle"  # moto decodes no escapes in bucket names, and hyphens come as one
LINES = "".join(f"line {number}\n" for number in range(5000)).encode()
FILES = {
    "logs/lines.txt": LINES,
    "logs/lines.txt.gz": gzip.compress(LINES),
    "logs/with space+plus.txt": b"line 0\n",
    "closed.txt": b"line 0\n",
}


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """A public bucket of Google's, but for closed.txt; yields a client that changes it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GOOGLE_BASE_URL", f"http://{host}:{port}")
        environment.setenv("GOOGLE_SKIP_SIGNATURE", "true")
        client = boto3.client(
            "s3",
            "us-east-1",
            endpoint_url=f"http://{host}:{port}",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        client.create_bucket(Bucket=BUCKET)
        for key, body in FILES.items():
            acl = "private" if key == "closed.txt" else "public-read"
            client.put_object(Bucket=BUCKET, Key=key, Body=body, ACL=acl)
        yield client
    server.stop()


def ends(line: str) -> list[tuple[str, int]]:
    return [(line[-1], 1)]


@pytest.mark.parametrize(
    ("name", "zeros"),
    [
        ("logs/lines.txt", 500),
        ("logs/lines.txt.gz", 500),
        ("logs/with space+plus.txt", 1),
        ("logs/*.txt", 501),
        ("logs/", 1001),
    ],
)
def test_googles_store_is_an_input(bucket: Any, name: str, zeros: int) -> None:
    """A key, a glob and a prefix; text is cut into splits, and every line is read once."""
    given = lambdamr.lines(f"gs://{BUCKET}/{name}", split_bytes=10_000)
    with lambdamr.Executor("local", workers=1) as executor:
        job = executor.map_reduce(ends, given, lambdamr.reducers.sum)
        assert job.result()["0"] == zeros
    assert len(job.map_futures) > 1 or name not in ("logs/lines.txt", "logs/")


def test_what_changes_there_is_noticed(bucket: Any) -> None:
    """Ranges are asked for with the tag of the object that was planned."""
    store = open_store(f"gs://{BUCKET}")
    put = {"Bucket": BUCKET, "Key": "changing.txt", "ACL": "public-read"}
    bucket.put_object(Body=b"one", **put)
    etag = store.head("changing.txt").etag
    assert store.get_range("changing.txt", 0, 3, etag) == b"one"
    assert store.get_range("changing.txt", 3, 3, etag) == b""
    bucket.put_object(Body=b"two", **put)
    with pytest.raises(InputChanged):
        store.get_range("changing.txt", 0, 3, etag)


@pytest.mark.parametrize(
    ("uri", "error", "said"),
    [
        (f"gs://{BUCKET}/nothing", InputNotFound, "No object is named"),
        (f"gs://{BUCKET}/nothing/", InputNotFound, "No object is named"),
        ("gs://lambdamrnobody/a/", InputNotFound, "There is no bucket 'lambdamrnobody'"),
        (f"gs://{BUCKET}/closed.txt", StoreError, "403 Forbidden"),
    ],
)
def test_what_is_not_there_is_said(
    bucket: Any, executor: lambdamr.Executor, uri: str, error: type[Exception], said: str
) -> None:
    """In one line, before anything is launched."""
    with pytest.raises(error, match=said) as caught:
        executor.map_reduce(ends, uri, lambdamr.reducers.sum)
    assert "\n" not in str(caught.value)


def test_azure_needs_an_account(executor: lambdamr.Executor) -> None:
    """The variables that name it are told."""
    with pytest.raises(StoreError, match="AZURE_STORAGE_ACCOUNT_NAME") as caught:
        executor.map_reduce(ends, "az://container/logs/", lambdamr.reducers.sum)
    assert "\n" not in str(caught.value)
