"""Blocks of lines, fixed-size records, and reading ahead."""

import threading
import tracemalloc
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lambdamr_runtime import blocks as blocks_module
from lambdamr_runtime.blocks import AHEAD_BYTES, LOOK_AHEAD_BYTES, SEARCH_BYTES
from lambdamr_runtime.errors import CorruptInput, InputChanged
from lambdamr_runtime.limits import KIB, MIB
from lambdamr_runtime.records import FixedRecords, LineBlocks, Lines
from lambdamr_runtime.splits import Split
from lambdamr_runtime.store import open_store
from tests.splitting import KEY, CountingStore, cut, read_all, read_counted, stored

SIZES = st.integers(min_value=1, max_value=40)
TEXTS = st.lists(st.sampled_from([b"\n", b"a", b"bc\r\n", b"\0", b"x" * 23]), max_size=30).map(
    b"".join
)


def reading_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("lambdamr-read")]


# --- blocks of lines -----------------------------------------------------------------------------


@given(data=TEXTS, split_bytes=SIZES, block_bytes=SIZES)
@settings(max_examples=300, deadline=None)
def test_blocks_are_the_file_in_whole_lines(
    data: bytes, split_bytes: int, block_bytes: int
) -> None:
    """Any split and block size: joined they are the file, and each but the last ends a line."""
    blocks = read_all(data, split_bytes, LineBlocks(block_bytes))
    assert b"".join(blocks) == data
    assert all(blocks)
    assert all(block.endswith(b"\n") for block in blocks[:-1])


ABOUT_SEARCHES = st.builds(
    lambda searches, beside: searches * SEARCH_BYTES + beside, st.integers(1, 4), st.integers(-3, 3)
)


@given(
    lengths=st.lists(ABOUT_SEARCHES | st.just(0), max_size=12),
    ended=st.booleans(),
    split_bytes=ABOUT_SEARCHES,
    block_bytes=ABOUT_SEARCHES,
)
@settings(max_examples=200, deadline=None)
def test_lines_end_anywhere_among_the_bytes_that_are_searched_at_a_time(
    lengths: list[int], ended: bool, split_bytes: int, block_bytes: int
) -> None:
    """Line ends are looked for piece by piece: none is missed at the edges, found too early or
    twice.
    """
    lines = [bytes([97 + number]) * length for number, length in enumerate(lengths)]
    data = b"\n".join(lines) + b"\n" * ended
    blocks = read_all(data, split_bytes, LineBlocks(block_bytes))
    assert b"".join(blocks) == data
    assert all(block.endswith(b"\n") for block in blocks[:-1])
    found = read_all(data, split_bytes, Lines(None, block_bytes=block_bytes))
    assert found == (data.removesuffix(b"\n").split(b"\n") if data else [])


@given(
    data=TEXTS.filter(bool), split_bytes=SIZES, block_bytes=SIZES, search_bytes=st.integers(1, 9)
)
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_large_blocks_of_a_local_file(
    tmp_path: Path, data: bytes, split_bytes: int, block_bytes: int, search_bytes: int
) -> None:
    """They are not copied, and the same law holds; they are no more than the reads planned."""
    store = open_store(str(tmp_path))
    store.put(KEY, data)
    etag = store.head(KEY).etag
    blocks: list[bytes] = []
    with (
        mock.patch.object(blocks_module, "LARGE_BYTES", 1),
        mock.patch.object(blocks_module, "SEARCH_BYTES", search_bytes),
    ):
        for lo in range(0, len(data), split_bytes):
            counting = CountingStore(store)
            hi = min(lo + split_bytes, len(data))
            stream = LineBlocks(block_bytes).read(
                Split(str(tmp_path), KEY, lo, hi, len(data), etag), counting
            )
            mine = list(stream)
            assert stream.owned_bytes == sum(map(len, mine)) == counting.read_bytes
            assert len(mine) == len(counting.ranges) <= -(-(hi - max(lo - 1, 0)) // block_bytes)
            blocks += mine
    assert b"".join(blocks) == data
    assert all(blocks)
    assert all(block.endswith(b"\n") for block in blocks[:-1])


def test_large_blocks_are_held_once(tmp_path: Path) -> None:
    """What is read is what the mapper gets."""
    (tmp_path / "a").write_bytes(b"some words of a line\n" * 400_000)
    store = open_store(str(tmp_path))
    found = store.head("a")
    split = Split(str(tmp_path), "a", 1, found.size, found.size, found.etag)
    stream = iter(LineBlocks(found.size).read(split, store))
    tracemalloc.start()
    try:
        assert len(next(stream)) == found.size - 21
        assert tracemalloc.get_traced_memory()[1] < 1.1 * found.size
    finally:
        tracemalloc.stop()


def test_a_local_file_that_is_another_one_is_input_changed(tmp_path: Path) -> None:
    """Whether or not lines end in it."""
    for name, content in (("gone", None), ("other", b"x" * 4 * MIB)):
        (tmp_path / name).write_bytes(b"seven!\n" * MIB)
        store = open_store(str(tmp_path))
        found = store.head(name)
        (tmp_path / name).unlink()
        if content is not None:
            (tmp_path / name).write_bytes(content)
        split = Split(str(tmp_path), name, MIB, 3 * MIB, found.size, found.etag)
        with pytest.raises(InputChanged, match=name):
            list(LineBlocks().read(split, store))


def test_a_block_is_as_large_as_it_is_said_to_be() -> None:
    """Longer by the rest of a line at most, however the object is read."""
    data = b"some words of a line\n" * 20_000
    blocks = read_all(data, len(data), LineBlocks(100_000))
    assert all(100_000 - 21 <= len(block) <= 100_021 + 21 for block in blocks[:-1])


# --- fixed-size records --------------------------------------------------------------------------


@given(count=st.integers(0, 20), record_bytes=SIZES, split_bytes=SIZES, block_bytes=SIZES)
@settings(max_examples=300, deadline=None)
def test_fixed_records_are_those_of_the_file(
    count: int, record_bytes: int, split_bytes: int, block_bytes: int
) -> None:
    """Any record, split and block size: each record once, in order, newlines or not."""
    data = bytes(number % 13 for number in range(count * record_bytes))
    records = read_all(data, split_bytes, FixedRecords(record_bytes, block_bytes))
    assert records == [data[i : i + record_bytes] for i in range(0, len(data), record_bytes)]


@pytest.mark.parametrize("split_bytes", [1, 3, 4, 7, 100])
@pytest.mark.parametrize("block_bytes", [1, 3, 100])
def test_a_ragged_tail_is_corrupt_or_skipped(split_bytes: int, block_bytes: int) -> None:
    """It is named with its offset; on_bad_record='skip' counts it and the bytes are accounted."""
    data = b"aaaabbbbcc"
    with pytest.raises(CorruptInput, match=r"ends with 2 bytes at offset 8, .* record of 4"):
        read_all(data, split_bytes, FixedRecords(4, block_bytes))
    skipping = FixedRecords(4, block_bytes, on_bad_record="skip")
    assert read_counted(data, split_bytes, skipping) == ([b"aaaa", b"bbbb"], 1)


def test_a_block_is_searched_no_further_than_its_end() -> None:
    """However far the split goes on: each block of a long line is looked through once."""
    far = 1 << 60

    class Endless:
        def view_range(self, key: str, start: int, length: int, etag: str = "") -> memoryview:
            if start > 1000:
                raise InputChanged("read on")
            return memoryview(b"x" * length)

    with pytest.raises(InputChanged, match="read on"):
        list(LineBlocks(1000).read(Split("memory://", KEY, 1, far, far, ""), Endless()))


def test_fixed_records_read_no_byte_twice() -> None:
    """Their offsets are known: nobody looks behind or ahead."""
    data = bytes(1000) * 10
    inner, etag = stored(data)
    store = CountingStore(inner)
    for split in cut(len(data), 777, etag):
        list(FixedRecords(10).read(split, store))
    assert store.read_bytes == len(data)


@pytest.mark.parametrize("record_bytes", [0, -1])
def test_a_record_of_no_bytes_is_refused(record_bytes: int) -> None:
    """There would be no end of them."""
    with pytest.raises(ValueError, match=f"record_bytes must be >= 1, got {record_bytes}"):
        FixedRecords(record_bytes)


# --- reading ahead -------------------------------------------------------------------------------


@given(split_bytes=st.integers(270_000, 900_000), block_bytes=st.integers(20_000, 300_000))
@settings(max_examples=40, deadline=None)
def test_reading_ahead_changes_no_record(split_bytes: int, block_bytes: int) -> None:
    """Large enough for threads, any split and block size: the records are the file's."""
    lines = [f"line {number} of the file" for number in range(40_000)]
    data = "".join(line + "\n" for line in lines).encode()
    assert read_all(data, split_bytes, Lines(block_bytes=block_bytes)) == lines


def test_two_reads_are_in_flight_while_a_block_is_worked_on() -> None:
    """And no more: a split holds three blocks. Threads bear our name and end with the stream."""
    data = b"seven!\n" * 60_000
    inner, etag = stored(data)
    store = CountingStore(inner)
    reader = Lines(block_bytes=16 * KIB)
    assert reading_threads() == []
    worked_on = 0
    for _ in reader.read(Split("memory://", KEY, 0, len(data), len(data), etag), store):
        worked_on += 7
        assert len(store.ranges) * 16 * KIB <= worked_on + 3 * 16 * KIB
    assert worked_on == len(data)
    assert reading_threads() == []


def test_a_stream_that_is_not_read_to_its_end_leaves_no_thread() -> None:
    """A mapper that raises, or a reader that has seen enough."""
    data = b"seven!\n" * 60_000
    store, etag = stored(data)
    reader = Lines(block_bytes=16 * KIB)
    stream = reader.read(Split("memory://", KEY, 0, len(data), len(data), etag), store)
    assert next(iter(stream)) == "seven!"
    assert reading_threads() != []
    del stream
    assert reading_threads() == []


def test_a_small_object_needs_no_thread() -> None:
    """Its blocks are read where they are asked for."""
    data = b"ab\n" * (AHEAD_BYTES // 3)
    store, etag = stored(data)
    split = Split("memory://", KEY, 0, len(data), len(data), etag)
    stream = iter(Lines(block_bytes=KIB).read(split, store))
    assert next(stream) == "ab"
    assert reading_threads() == []


def test_what_a_read_raises_ahead_is_raised_in_turn() -> None:
    """Records before it arrive first; the error is the read's own."""
    data = b"seven!\n" * 60_000
    store, _ = stored(data)
    grown = Split("memory://", KEY, 0, 2 * len(data), 2 * len(data), "")
    stream = Lines(block_bytes=64 * KIB).read(grown, store)
    with pytest.raises(InputChanged, match=f"ends now at {len(data)}"):
        list(stream)
    assert 0 < stream.records < 60_000
    assert reading_threads() == []


def test_the_tail_behind_a_split_is_read_only_when_it_is_needed() -> None:
    """Reading ahead goes to the split's end and a little on, not beyond."""
    data = b"seven!\n" * 60_000
    inner, etag = stored(data)
    store = CountingStore(inner)
    first = cut(len(data), len(data) // 2, etag)[0]
    list(Lines(block_bytes=16 * KIB).read(first, store))
    assert store.read_bytes <= first.hi + LOOK_AHEAD_BYTES
