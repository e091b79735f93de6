"""One S3 object of several: their bytes are copied by S3 itself wherever its rules let it.

    files   ██████████████ ██ █ ████████████████     each without its header, but the first
    parts   [copy────────][read, sent][copy────]     every part but the last is 5 MiB or more

A plan, and then requests: obstore has no copies of parts, so they are boto3's. The object appears
whole, with the last request, or not at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lambdamr_runtime.errors import StoreError
from lambdamr_runtime.limits import MIB, S3_MAX_COPY_BYTES, S3_MAX_PARTS, S3_MIN_PART_BYTES
from lambdamr_runtime.signing import session

COPY_PART_BYTES = 512 * MIB
"""A larger range is copied by several requests at once: S3 is given time for one, not for 5 GiB."""

REQUESTS_AT_ONCE = 4
"""Parts under way at the same time. One that is sent is held in memory."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes [start, stop) of one of the files."""

    file: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the upload."""

    spans: tuple[Span, ...]
    is_copy: bool
    """The one span is copied by S3; else all are read and sent."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file to be joined, in the bucket."""

    key: str
    size: int
    """Bytes."""
    etag: str


@dataclass(frozen=True, slots=True)
class Joined:
    """Where the object goes: a bucket, its key there, and the boto3 client that asks for it."""

    client: Any
    """Any: boto3 makes its classes at run time."""
    bucket: str
    key: str


def open_client() -> Any:
    """Return boto3's S3 client: a fifth of a second, and only jobs that join on S3 need it."""
    return session().client("s3")


def plan_parts(
    sizes: Sequence[int],
    skip: int,
    least: int = S3_MIN_PART_BYTES,
    most: int = COPY_PART_BYTES,
) -> list[Part]:
    """Cut the concatenation of files into the parts of an upload.

    Args:     sizes: of the files, in order, each >= skip. skip: bytes that all but the first begin
              with and that are left out. least: bytes of every part but the last. most: of a copy;
              at least twice *least*.
    Returns:  parts whose spans, one after the other, are the concatenation.
    Raises:   ValueError: most < 2 * least.
    """
    if most < 2 * least:
        raise ValueError(f"most must be at least 2 * least = {2 * least}, got {most}")
    parts: list[Part] = []
    held: list[Span] = []
    held_bytes = 0
    for file, size in enumerate(sizes):
        start = skip if file else 0
        if held:
            taken = Span(file, start, min(size, start + least - held_bytes))
            held.append(taken)
            held_bytes += taken.length
            start = taken.stop
        if held_bytes >= least:
            parts.append(_sent(held))
            held, held_bytes = [], 0
        if size - start >= least:
            parts += _copies(Span(file, start, size), most)
        elif start < size:
            held, held_bytes = [Span(file, start, size)], size - start
    if held:
        parts.append(_sent(held))
    return parts


def _sent(spans: Sequence[Span]) -> Part:
    return Part(tuple(span for span in spans if span.length), is_copy=False)


def _copies(span: Span, most: int) -> list[Part]:
    """Return a span as copies of alike size: none is below *most* / 2."""
    count = -(-span.length // most)
    cuts = [span.start + span.length * part // count for part in range(count + 1)]
    return [Part((Span(span.file, lo, hi),), is_copy=True) for lo, hi in pairwise(cuts)]


def join(
    target: Joined,
    sources: Sequence[Source],
    skip: int,
    read: Callable[[int, int, int], bytes],
    look: Callable[[], None],
) -> None:
    """Write one object of all sources.

    Args:    skip: as of plan_parts. read: (source, start, length) -> bytes. look: called between
             requests; what it raises ends the upload.
    Raises:  StoreError: S3 refuses; a source that has changed among others.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    sizes = [source.size for source in sources]
    least = max(S3_MIN_PART_BYTES, -(-sum(sizes) * 2 // S3_MAX_PARTS))
    most = min(S3_MAX_COPY_BYTES, max(COPY_PART_BYTES, 2 * least))
    where = {"Bucket": target.bucket, "Key": target.key}
    try:
        upload = {
            **where,
            "UploadId": target.client.create_multipart_upload(**where)["UploadId"],
        }
        try:
            parts = plan_parts(sizes, skip, least, most)
            tags = _put_parts(target, upload, parts, sources, read, look)
            target.client.complete_multipart_upload(**upload, MultipartUpload={"Parts": tags})
        except BaseException:
            target.client.abort_multipart_upload(**upload)
            raise
    except (BotoCoreError, ClientError) as error:
        raise StoreError(
            f"Could not join {len(sources)} objects to s3://{target.bucket}/{target.key}: {error}"
        ) from error


def _put_parts(
    target: Joined,
    upload: dict[str, str],
    parts: Sequence[Part],
    sources: Sequence[Source],
    read: Callable[[int, int, int], bytes],
    look: Callable[[], None],
) -> list[dict[str, Any]]:
    """Write the parts, some at once, and return what completes the upload."""
    from concurrent.futures import ThreadPoolExecutor  # 5 ms, and few jobs get here

    def put(number: int, part: Part) -> dict[str, Any]:
        request: dict[str, Any] = {**upload, "PartNumber": number}
        if part.is_copy:
            (span,) = part.spans
            source = sources[span.file]
            answer = target.client.upload_part_copy(
                **request,
                CopySource={"Bucket": target.bucket, "Key": source.key},
                CopySourceRange=f"bytes={span.start}-{span.stop - 1}",
                CopySourceIfMatch=source.etag,
            )["CopyPartResult"]
        else:
            body = b"".join(read(span.file, span.start, span.length) for span in part.spans)
            answer = target.client.upload_part(**request, Body=body)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    tags: list[dict[str, Any]] = []
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        for at in range(0, len(parts), REQUESTS_AT_ONCE):
            look()
            some = parts[at : at + REQUESTS_AT_ONCE]
            tags += pool.map(put, range(at + 1, at + 1 + len(some)), some)
    return tags
