"""One object of several: how the parts are cut, and what S3 makes of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

import lambdamr
from lambdamr.submission import StageDraft
from lambdamr_runtime.errors import InputNotFound, StoreError
from lambdamr_runtime.formats import Format
from lambdamr_runtime.joining import Joined, Source, join, open_client, plan_parts
from lambdamr_runtime.limits import MIB, S3_MAX_PARTS, S3_MIN_PART_BYTES
from lambdamr_runtime.mapreduce import Map
from lambdamr_runtime.outputs import Final
from lambdamr_runtime.store import open_store
from lambdamr_runtime.wire import StageKind
from tests.cluster import Cluster

BUCKET = "lambdamr-test"
LEAST, MOST = 5, 12


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(0, 4))
def test_parts_are_the_concatenation(extra: list[int], skip: int) -> None:
    """Every byte but the later headers is in one part, in order, and S3 takes every part."""
    sizes = [skip + size for size in extra]
    parts = plan_parts(sizes, skip, LEAST, MOST)
    found = [
        (span.file, at) for part in parts for span in part.spans
        for at in range(span.start, span.stop)
    ]  # fmt: skip
    assert found == [
        (file, at) for file, size in enumerate(sizes) for at in range(skip if file else 0, size)
    ]
    lengths = [sum(span.length for span in part.spans) for part in parts]
    assert all(length >= LEAST for length in lengths[:-1])
    assert all(lengths)
    for part, length in zip(parts, lengths, strict=True):
        assert not part.is_copy or (len(part.spans) == 1 and LEAST <= length <= MOST)
        assert part.is_copy or length < 2 * LEAST


def test_what_can_be_copied_is() -> None:
    """Of files of 5 MiB and more only what fills up a small neighbour is read."""
    parts = plan_parts([20 * MIB, MIB, 30 * MIB], 10)
    read = sum(span.length for part in parts if not part.is_copy for span in part.spans)
    assert read == S3_MIN_PART_BYTES
    assert [part.is_copy for part in parts] == [True, False, True]


def test_parts_that_cannot_be_cut_are_refused() -> None:
    """A range a little above *most* is cut into two that are *least* at the least."""
    with pytest.raises(ValueError, match="most must be at least 2"):
        plan_parts([1], 0, 5, 9)


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A server of S3 that refuses parts which are too small, as S3 does."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_REGION": "us-east-1",
        }.items():
            environment.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client
        client.close()
    server.stop()


def put_files(prefix: str, contents: Sequence[bytes]) -> list[Source]:
    store = open_store(f"s3://{BUCKET}")
    sources: list[Source] = []
    for number, data in enumerate(contents):
        key = f"{prefix}/{number}"
        store.put(key, data)
        sources.append(Source(key, len(data), store.head(key).etag))
    return sources


def join_files(client: Any, target: str, sources: Sequence[Source], skip: int) -> bytes:
    store = open_store(f"s3://{BUCKET}")

    def read(file: int, start: int, length: int) -> bytes:
        return store.get_range(sources[file].key, start, length, sources[file].etag)

    join(Joined(client, BUCKET, target), sources, skip, read, lambda: None)
    return store.get(target)


def test_the_server_refuses_small_parts(s3: Any) -> None:
    """As S3 does: what the tests below join was cut right."""
    sources = put_files("small", [b"a" * MIB, b"b" * MIB])
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="refused")["UploadId"]
    given = {"Bucket": BUCKET, "Key": "refused", "UploadId": upload}
    parts = []
    for number, source in enumerate(sources, 1):
        copied = s3.upload_part_copy(
            **given, PartNumber=number, CopySource={"Bucket": BUCKET, "Key": source.key}
        )
        parts.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
    with pytest.raises(ClientError, match="EntityTooSmall"):
        s3.complete_multipart_upload(**given, MultipartUpload={"Parts": parts})
    s3.abort_multipart_upload(**given)


@pytest.mark.parametrize("sizes", [[20, 1, 3], [3, 3, 3], [6, 0, 7], [6], [1, 1, 1, 1, 1, 1, 9]])
def test_joined_objects_are_the_concatenation(s3: Any, sizes: list[int]) -> None:
    """Large and small files, each with a header: byte for byte, with one header."""
    header = b"word,n\n"
    bodies = [bytes([65 + n]) * (size * MIB + n) for n, size in enumerate(sizes)]
    sources = put_files("parts", [header + body for body in bodies])
    found = join_files(s3, "all.csv", sources, len(header))
    assert crc32(found) == crc32(header + b"".join(bodies))


def test_a_part_that_was_replaced_is_not_joined(s3: Any) -> None:
    """What is read must be what was looked up; and no upload is left behind."""
    sources = put_files("replaced", [b"a" * 6 * MIB, b"b" * MIB])
    open_store(f"s3://{BUCKET}").put("replaced/1", b"c" * MIB)
    with pytest.raises(Exception, match="is not the object that was planned"):
        join_files(s3, "never", sources, 0)
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix="never")
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET)


def test_a_part_that_is_gone_is_named(s3: Any) -> None:
    """What S3 refuses is a StoreError that says what was joined to what."""
    sources = put_files("gone", [b"a" * 6 * MIB, b"b" * 6 * MIB])
    open_store(f"s3://{BUCKET}").delete(["gone/1"])
    with pytest.raises(
        StoreError, match=r"join 2 objects to s3://lambdamr-test/never: .*UploadPartCopy"
    ):
        join_files(s3, "never", sources, 0)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET)


LINE = "x" * 100_000


def wide(count: int) -> list[tuple[int, str]]:
    return [(n, LINE) for n in range(count)]


@pytest.mark.parametrize(
    ("root", "counts"),
    [("jobs/root", [60, 1, 70]), ("", [60, 60]), ("jobs/root", [3, 1]), ("out", [1, 90])],
)
def test_a_single_file_on_s3_is_joined_there(s3: Any, root: str, counts: list[int]) -> None:
    """The finalizer joins parts within a bucket, by copies where they are large enough."""
    cluster = Cluster(2, store=open_store(f"s3://{BUCKET}/{root}".rstrip("/")))
    form = Format("csv", ("n", "text"))
    mapping = Map((wide,), None, form=form)
    final = Final(f"s3://{BUCKET}/out", form, "all.csv", overwrite=True)
    tasks = [[count] for count in counts]
    manifest = cluster.run(
        StageDraft("map", StageKind.MAP, mapping, len(tasks), 1, tasks, max_failures=0),
        StageDraft("final", StageKind.FINAL, final, 1, 1, max_failures=0),
    )
    end = cluster.end(manifest)
    assert end is not None
    assert (end.status, end.reason) == ("done", "")
    body = s3.get_object(Bucket=BUCKET, Key="out/all.csv")["Body"].read().decode()
    rows = "".join(f"{n},{LINE}\n" for count in counts for n in range(count))
    assert crc32(body.encode()) == crc32(("n,text\n" + rows).encode())


def test_many_parts_are_no_more_than_s3_takes() -> None:
    """The least size of a part grows with the whole, so that their number stays in bounds."""
    size = 200_000 * MIB
    least = -(-size * 2 // S3_MAX_PARTS)
    parts = plan_parts([5 * MIB] * 40_000, 0, least, 2 * least)
    assert len(parts) <= S3_MAX_PARTS


def test_the_client_is_boto3s(s3: Any) -> None:
    """It is that of the environment, as the store's."""
    client = open_client()
    assert BUCKET in [each["Name"] for each in client.list_buckets()["Buckets"]]
    client.close()


@pytest.mark.parametrize("uri", ["s3://no-such-bucket/a/", "s3://no-such-bucket/*.csv"])
def test_a_bucket_that_is_not_there_is_named(s3: Any, uri: str, tmp_path: Path) -> None:
    """No bucket is InputNotFound, before launch, in one line."""
    with pytest.raises(InputNotFound, match=r"^There is no bucket 'no-such-bucket', which s3://"):
        list(lambdamr.lines(uri).tasks(2, 1024))


@pytest.mark.parametrize("name", ["nothing/", "nothing.txt", "nothing/*.csv"])
def test_an_object_that_is_not_there_is_named(s3: Any, name: str) -> None:
    """No object of a name, a prefix or a glob: the message says what was looked for."""
    with pytest.raises(InputNotFound, match=f"^No object is named by s3://{BUCKET}/nothing"):
        list(lambdamr.lines(f"s3://{BUCKET}/{name}").tasks(2, 1024))
