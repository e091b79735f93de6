"""Every kind of input through a map_reduce: its results, its receipts, its report."""

import bz2
import gzip
import json
import lzma
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

import lambdamr
from lambdamr.inputs import Input

Pairs = Iterator[tuple[Any, Any]]


def total(key: Any, values: Iterator[Any]) -> Any:
    return sum(values)


def by_length(line: str) -> Pairs:
    yield len(line), 1


def by_lines_of_block(block: bytes) -> Pairs:
    yield "lines", block.count(b"\n")


def by_file(file: Any) -> Pairs:
    yield Path(file.uri).name, len(file.read())


def by_struct(record: bytes) -> Pairs:
    key, value = struct.unpack("<IQ", record)
    yield key, value


def by_row(row: dict[str, str]) -> Pairs:
    yield row["k"], int(row["v"])


def by_tuple(row: tuple[str, str]) -> Pairs:
    yield row[1], int(row[0])


def by_value(value: dict[str, int]) -> Pairs:
    yield value["k"], value["v"]


LINES = "".join("x" * (number % 5) + "\n" for number in range(1000)).encode()
ROWS = b"k,v\n" + b"".join(b"%d,%d\n" % (number % 3, number) for number in range(1000))
VALUES = "".join(json.dumps({"k": n % 3, "v": n}) + "\n" for n in range(1000)).encode()
STRUCTS = b"".join(struct.pack("<IQ", number % 3, number) for number in range(1000))
BY_KEY = {key: sum(range(key, 1000, 3)) for key in range(3)}


@pytest.mark.parametrize(
    ("data", "make", "mapper", "records", "expected"),
    [
        (LINES, lambdamr.lines, by_length, 1000, dict.fromkeys(range(5), 200)),
        (LINES, lambdamr.blocks, by_lines_of_block, None, {"lines": 1000}),
        (LINES, lambdamr.objects, by_file, 1, {"in": len(LINES)}),
        (
            STRUCTS,
            lambda uri, **options: lambdamr.records(uri, record_bytes=12, **options),
            by_struct,
            1000,
            BY_KEY,
        ),
        (
            ROWS,
            lambda uri, **options: lambdamr.csv(uri, quoted_newlines=False, **options),
            by_row,
            1000,
            {str(key): value for key, value in BY_KEY.items()},
        ),
        (
            ROWS,
            lambda uri, **options: lambdamr.csv(uri, columns=["v", "k"], tuples=True, **options),
            by_tuple,
            1000,
            {str(key): value for key, value in BY_KEY.items()},
        ),
        (VALUES, lambdamr.jsonl, by_value, 1000, BY_KEY),
    ],
    ids=["lines", "blocks", "objects", "records", "csv", "csv-tuples", "jsonl"],
)
def test_every_input_is_read_and_accounted_for(
    executor: lambdamr.Executor,
    tmp_path: Path,
    data: bytes,
    make: Callable[..., Input],
    mapper: Callable[[Any], Pairs],
    records: int | None,
    expected: dict[Any, Any],
) -> None:
    """Cut into many splits where that may be; the bytes of the report are those of the file."""
    (tmp_path / "in").write_bytes(data)
    options = {} if make is lambdamr.objects else {"split_bytes": 1000}
    job = executor.map_reduce(mapper, make(tmp_path / "in", **options), total)
    assert job.result(timeout=60) == expected
    read = job.report().stages["map"]
    assert read.bytes_read == len(data)
    assert records is None or read.records == records
    assert read.bad_records == 0


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


def test_compressed_files_are_read_beside_plain_ones(
    executor: lambdamr.Executor, tmp_path: Path
) -> None:
    """By their suffixes; the receipt counts the bytes that lie in the store."""
    for suffix, compress in COMPRESS.items():
        (tmp_path / f"in.{suffix}").write_bytes(compress(LINES[:1000]) + compress(LINES[1000:]))
    (tmp_path / "in.txt").write_bytes(LINES)
    job = executor.map_reduce(by_length, str(tmp_path), total)
    assert job.result(timeout=60) == dict.fromkeys(range(5), 1000)
    read = job.report().stages["map"]
    assert read.bytes_read == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert read.records == 5000


def test_small_files_share_tasks(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """A task reads several; empty ones are files, too, where files are what is read."""
    for number in range(100):
        (tmp_path / f"{number}").write_bytes(b"x" * (number % 2))
    job = executor.map_reduce(by_file, lambdamr.objects(tmp_path), total)
    assert job.result(timeout=60) == {str(number): number % 2 for number in range(100)}
    assert len(job.map_futures) < 10
    assert job.report().stages["map"].records == 100


def test_bad_records_end_the_job_or_are_counted(
    executor: lambdamr.Executor, tmp_path: Path
) -> None:
    """Nothing is skipped in silence: the report says how many, and the receipts still balance."""
    (tmp_path / "in").write_bytes(b'{"k": 1, "v": 2}\nno json\n\xff\n{"k": 1, "v": 3}\n')
    with pytest.raises(lambdamr.CorruptInput, match="in is no JSON at offset 17"):
        executor.map_reduce(by_value, lambdamr.jsonl(tmp_path), total).result(timeout=60)
    for split_bytes in (None, 1, 20):
        inputs = lambdamr.jsonl(tmp_path, on_bad_record="skip", split_bytes=split_bytes)
        job = executor.map_reduce(by_value, inputs, total)
        assert job.result(timeout=60) == {1: 5}
        report = job.report()
        assert (report.stages["map"].records, report.stages["map"].bad_records) == (2, 2)
        assert "skipped 2 bad records" in str(report)


def test_a_truncated_file_ends_the_job(executor: lambdamr.Executor, tmp_path: Path) -> None:
    """With the error of the file, not with half of its lines."""
    (tmp_path / "in.gz").write_bytes(gzip.compress(LINES)[:-10])
    job = executor.map_reduce(by_length, str(tmp_path / "in.gz"), total)
    with pytest.raises(lambdamr.CorruptInput, match=r"in\.gz ends inside a gzip member"):
        job.result(timeout=60)
