"""Slices of shuffle objects and group indexes: what is written is read, what is damaged is not."""

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any
from zlib import crc32

import cloudpickle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lambdamr_runtime.canonical import canonical
from lambdamr_runtime.content import BlockWriter, Group, compressor, decode_block
from lambdamr_runtime.errors import CorruptObject
from lambdamr_runtime.shuffle import (
    ROW_BYTES,
    Slice,
    SliceIdentity,
    column_span,
    decode_column,
    decode_front,
    decode_slice,
    encode_columns,
    encode_slice,
    front_bytes,
    missing_slice,
    slice_of,
)

IDENTITY = SliceIdentity("20260101-000000-ab", "map", 7, "0123456789abcdef", 3)
GROUPS: list[Group] = [("a", [1, 2, 3]), ("b", [None]), ("c", [[], {}])]

some_groups = st.dictionaries(
    st.one_of(st.text(max_size=3), st.integers(), st.none(), st.tuples(st.integers())),
    st.lists(st.one_of(st.integers(), st.text(max_size=3), st.none()), max_size=6),
    max_size=8,
).map(lambda found: sorted(found.items(), key=lambda group: canonical(group[0])))

executions = st.binary(min_size=8, max_size=8).map(bytes.hex)
slices = st.builds(
    Slice,
    task=st.integers(0, 2**32 - 1),
    execution=executions,
    offset=st.integers(0, 2**64 - 1),
    length=st.integers(1, 2**64 - 1),
    pairs=st.integers(0, 2**64 - 1),
    checksum=st.integers(0, 2**32 - 1),
)


def encode(groups: list[Group], block_pairs: int = 2) -> tuple[bytes, Slice]:
    """Return a slice and its row."""
    data = encode_slice(IDENTITY, groups, dumps=cloudpickle.dumps, block_pairs=block_pairs)
    return data, slice_of(data, IDENTITY, 1000)


def join(pieces: list[Group]) -> list[Group]:
    """Put together the groups that were cut at the ends of blocks."""
    joined: list[Group] = []
    for key, values in pieces:
        if joined and joined[-1][0] == key and type(joined[-1][0]) is type(key):
            joined[-1][1].extend(values)
        else:
            joined.append((key, values))
    return joined


def refuse(*_: object) -> bytes:
    raise AssertionError("plain pickle was enough")


@given(some_groups, st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read(groups: list[Group], block_pairs: int) -> None:
    """Keys and values come back in order, whatever the size of blocks; empty groups leave none."""
    data, row = encode(groups, block_pairs)
    assert row.pairs == sum(len(values) for _, values in groups)
    assert (row.offset, row.length) == (1000, len(data))
    found = join(list(decode_slice(data, IDENTITY, row, "key")))
    assert found == [group for group in groups if group[1]]


@given(some_groups, st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_blocks_are_bounded_and_stand_alone(groups: list[Group], block_pairs: int) -> None:
    """With the front alone, each block is found, verified and read by itself."""
    data, row = encode(groups, block_pairs)
    front = data[: front_bytes(data[:64], "key")]
    found: list[Group] = []
    for block in decode_front(front, IDENTITY, row, "key"):
        assert 1 <= block.keys <= block.pairs <= block_pairs
        part = data[block.offset : block.offset + block.length]
        found.extend(decode_block(part, block, "key"))
    assert join(found) == [group for group in groups if group[1]]


def test_every_damaged_byte_is_noticed() -> None:
    """Whichever byte of a slice changes, and however, nothing is unpickled."""
    data, row = encode(GROUPS)
    for position in range(len(data)):
        for flip in (1, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[position] ^= flip
            with pytest.raises(CorruptObject, match="jobs/key"):
                decode_slice(bytes(damaged), IDENTITY, row, "jobs/key")


def test_every_damaged_byte_of_a_block_is_noticed() -> None:
    """A block that is read by itself is verified by itself, its length included."""
    data, row = encode(GROUPS)
    block = decode_front(data, IDENTITY, row, "key")[0]
    part = data[block.offset : block.offset + block.length]
    for position in range(len(part)):
        damaged = bytearray(part)
        damaged[position] ^= 1
        with pytest.raises(CorruptObject, match="checksum"):
            decode_block(bytes(damaged), block, "key")
    with pytest.raises(CorruptObject, match="bytes, its front says"):
        decode_block(part[:-1], block, "key")


@pytest.mark.parametrize("cut", [0, 1, 10, 60, -1])
def test_a_short_slice_is_noticed(cut: int) -> None:
    """A slice that ends early is corrupt, as one that goes on."""
    data, row = encode(GROUPS)
    for wrong in (data[:cut], data + b"\0"):
        with pytest.raises(CorruptObject, match="by the index"):
            decode_slice(wrong, IDENTITY, row, "key")


@pytest.mark.parametrize("cut", [0, 10, 60, 100])
def test_a_short_front_is_noticed(cut: int) -> None:
    """A front of which only the beginning arrived is corrupt."""
    data, row = encode(GROUPS)
    with pytest.raises(CorruptObject):
        decode_front(data[:cut], IDENTITY, row, "key")


@pytest.mark.parametrize(
    "other",
    [
        replace(IDENTITY, job="other"),
        replace(IDENTITY, stage="other"),
        replace(IDENTITY, task=8),
        replace(IDENTITY, execution="f" * 16),
        replace(IDENTITY, partition=4),
    ],
)
def test_the_slice_of_another_is_noticed(other: SliceIdentity) -> None:
    """A sound slice in the wrong place is refused; the message says whose it is."""
    data, row = encode(GROUPS)
    with pytest.raises(CorruptObject, match=r"is the slice of SliceIdentity.*20260101"):
        decode_slice(data, other, row, "key")


def test_an_index_that_says_otherwise_is_noticed() -> None:
    """The index and the slice must agree on pairs, checksum and length."""
    data, row = encode(GROUPS)
    for wrong in (replace(row, pairs=5), replace(row, checksum=1), replace(row, length=5)):
        with pytest.raises(CorruptObject, match="index"):
            decode_slice(data, IDENTITY, wrong, "key")


def test_a_missing_slice_has_no_groups() -> None:
    """The row of a failed task stands for no bytes and no pairs."""
    assert list(decode_slice(b"", IDENTITY, missing_slice(7), "key")) == []
    with pytest.raises(CorruptObject):
        decode_slice(b"x", IDENTITY, missing_slice(7), "key")


def test_a_slice_without_pairs_is_sound() -> None:
    """A partition for which a task has nothing may be written as well."""
    data, row = encode([("a", [])])
    assert row.pairs == 0
    assert list(decode_slice(data, IDENTITY, row, "key")) == []


def test_blocks_say_which_order_their_keys_have() -> None:
    """A block of plain keys names its shape; others, and very long shapes, need `canonical`."""
    wide = tuple(range(30))
    groups: list[Group] = [(None, [1]), (1, [1]), ("a", [1]), (("a", 1), [1]), (wide, [1])]
    data, row = encode(groups, block_pairs=1)
    blocks = decode_front(data, IDENTITY, row, "key")
    assert [block.shape for block in blocks] == ["", "n", "s", "(sn)", ""]


def test_a_hot_key_goes_on_in_the_next_block() -> None:
    """A key with many values fills blocks of its own, its values in order."""
    data, row = encode([("a", [0]), ("hot", list(range(10))), ("z", [0])], block_pairs=4)
    pieces = list(decode_slice(data, IDENTITY, row, "key"))
    assert [key for key, _ in pieces] == ["a", "hot", "hot", "hot", "z"]
    assert [value for key, values in pieces for value in values if key == "hot"] == list(range(10))


def test_plain_values_never_meet_the_serializer() -> None:
    """What pickle can write, pickle writes."""
    data = encode_slice(IDENTITY, GROUPS, dumps=refuse)
    assert list(decode_slice(data, IDENTITY, slice_of(data, IDENTITY, 0), "key")) == GROUPS


def test_values_of_notebooks_travel_by_value() -> None:
    """Values that pickle refuses are written by the serializer."""
    data, row = encode([("f", [lambda: 42])])
    [(_, [function])] = decode_slice(data, IDENTITY, row, "key")
    assert function() == 42


def test_classes_of_main_are_not_written_by_name() -> None:
    """A class of one process's `__main__` is read where `__main__` is another."""
    program = (
        "import sys, cloudpickle\n"
        "from lambdamr_runtime.shuffle import SliceIdentity, encode_slice\n"
        "class OfMain: pass\n"
        f"identity = {IDENTITY!r}\n"
        "data = encode_slice(identity, [('x', [OfMain()])], dumps=cloudpickle.dumps)\n"
        "sys.stdout.buffer.write(data)\n"
    )
    data = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=True,
    ).stdout
    [(_, [value])] = decode_slice(data, IDENTITY, slice_of(data, IDENTITY, 0), "key")
    assert type(value).__name__ == "OfMain"


def test_what_nobody_can_pickle_is_the_serializers_error() -> None:
    """The error for a value that cannot travel is the one that the serializer raises."""
    with pytest.raises(TypeError, match="cannot pickle"):
        encode([("x", [(i for i in range(3))])])


def test_wrong_arguments_are_refused() -> None:
    """Blocks hold at least one pair, executions are 16 hex digits."""
    with pytest.raises(ValueError, match="block_pairs must be >= 1, got 0"):
        encode(GROUPS, block_pairs=0)
    for row in (missing_slice(1, "ab"), missing_slice(1, "x" * 16)):
        with pytest.raises(ValueError):
            row.pack()


@given(slices)
def test_rows_are_of_one_size(row: Slice) -> None:
    """A row packs to ROW_BYTES and back."""
    packed = row.pack()
    assert len(packed) == ROW_BYTES
    assert Slice.unpack(packed) == row


def test_damaged_rows_are_refused() -> None:
    """A row of another size, or one with pairs in no bytes, is corrupt."""
    with pytest.raises(CorruptObject, match="has 40 bytes, not 39"):
        Slice.unpack(missing_slice(1).pack()[:-1])
    with pytest.raises(CorruptObject, match="task 1 has 5 pairs in 0 bytes"):
        Slice.unpack(replace(missing_slice(1), pairs=5).pack())


@given(st.integers(1, 5), st.integers(1, 5), st.data())
@settings(max_examples=50, deadline=None)
def test_a_column_is_one_range(tasks: int, partitions: int, data: Any) -> None:
    """Each reducer gets its rows of all tasks of a group with one ranged read."""
    row = st.lists(slices, min_size=partitions, max_size=partitions)
    rows = data.draw(st.lists(row, min_size=tasks, max_size=tasks))
    index = encode_columns(rows)
    for partition in range(partitions):
        start, length = column_span(tasks, partition)
        column = decode_column(index[start : start + length], tasks, "group")
        assert column == [of_task[partition] for of_task in rows]
    assert column_span(tasks, partitions)[0] == len(index)


def test_every_damaged_byte_of_a_column_is_noticed() -> None:
    """A column is verified before a row of it is believed; its size must fit the tasks."""
    column = encode_columns([[missing_slice(1)], [encode(GROUPS)[1]]])
    for position in range(len(column)):
        damaged = bytearray(column)
        damaged[position] ^= 1
        with pytest.raises(CorruptObject, match="group: a column has checksum"):
            decode_column(bytes(damaged), 2, "group")
    with pytest.raises(CorruptObject, match="a column of 3 tasks has 124 bytes, this one 84"):
        decode_column(column, 3, "group")


def test_ragged_rows_are_refused() -> None:
    """All tasks of a group have one slice per partition."""
    with pytest.raises(ValueError, match=r"got rows of \[1, 2\]"):
        encode_columns([[missing_slice(1)], [missing_slice(2)] * 2])


def test_a_compressed_block_says_what_it_holds() -> None:
    """A frame that is sound, but not what the front says, is never believed."""
    payloads: list[bytes] = []
    writer = BlockWriter(payloads.append, cloudpickle.dumps, compress=compressor())
    writer.add(["a"], None, ["x" * 10_000])
    writer.close()
    (block,), (data,) = writer.blocks, payloads
    assert block.length < 200 < 10_000 < block.raw_bytes
    assert list(decode_block(data, block, "key")) == [("a", ["x" * 10_000])]
    for raw_bytes in (block.raw_bytes - 1, block.raw_bytes + 1):
        with pytest.raises(CorruptObject, match=r"key: the block at byte 0 (holds|cannot be)"):
            list(decode_block(data, replace(block, raw_bytes=raw_bytes), "key"))
    cut = data[:-9]
    with pytest.raises(CorruptObject, match="cannot be decompressed"):
        list(decode_block(cut, replace(block, length=len(cut), checksum=crc32(cut)), "key"))
