"""Small objects of a task: read before their turn, each once, and no further ahead."""

import threading

import pytest
from obstore.store import MemoryStore

from lambdamr_runtime.errors import InputChanged
from lambdamr_runtime.opening import SMALL_AHEAD, SMALL_BYTES, opened
from lambdamr_runtime.records import Lines
from lambdamr_runtime.splits import Split
from lambdamr_runtime.store import ObstoreStore, Ranges
from tests.splitting import CountingStore


def objects(sizes: list[int]) -> tuple[list[Split], ObstoreStore]:
    """Return a split per object of so many bytes (lines of their number), and their store."""
    store = ObstoreStore("memory://", MemoryStore())
    splits = []
    for number, size in enumerate(sizes):
        key = str(number)
        store.put(key, (f"{number}\n".encode() * size)[:size])
        splits.append(Split("memory://", key, 0, size, size, store.head(key).etag))
    return splits, store


def lines_of(splits: list[Split], store: Ranges) -> list[list[str]]:
    return [list(Lines().read(split, source)) for split, source in opened(splits, lambda _: store)]


def read_into(found: list[str], splits: list[Split], store: Ranges) -> None:
    for split, source in opened(splits, lambda _: store):
        found += Lines().read(split, source)


def reading_threads() -> int:
    return sum(thread.name.startswith("lambdamr-read") for thread in threading.enumerate())


def test_objects_come_in_order_and_are_read_once() -> None:
    """Small, large, empty and cut ones; the large are read where they are asked for."""
    sizes = [4, 0, 6, SMALL_BYTES + 2, 2, 8, *[2] * 20]
    splits, store = objects(sizes)
    large = splits[3]
    half = large.size // 2
    splits[3:4] = [
        Split(large.root, large.key, 0, half, large.size, large.etag),
        Split(large.root, large.key, half, large.size, large.size, large.etag),
    ]
    counting = CountingStore(store)
    found = lines_of(splits, counting)
    assert [line for lines in found for line in lines] == [
        line
        for number, size in enumerate(sizes)
        for line in (f"{number}\n" * size)[:size].splitlines()
    ]
    small = [(0, size) for size in sizes if size and size <= SMALL_BYTES]
    assert sorted(each for each in counting.ranges if each[1] <= 8) == sorted(small)


def test_no_more_than_a_few_are_read_ahead() -> None:
    """A task of a thousand small objects does not hold them all."""
    splits, store = objects([2] * 50)
    counting = CountingStore(store)
    for done, (split, source) in enumerate(opened(splits, lambda _: counting)):
        assert len(counting.ranges) <= done + 1 + SMALL_AHEAD
        assert source.view_range(split.key, 0, 1) == f"{done}"[:1].encode()
    assert len(counting.ranges) == 50
    assert reading_threads() == 0


def test_one_small_object_needs_no_thread() -> None:
    """There is nothing to be read while it is."""
    splits, store = objects([2, SMALL_BYTES + 1])
    for _, source in opened(splits, lambda _: store):
        assert source is store
        assert reading_threads() == 0


def test_an_error_is_raised_in_its_turn() -> None:
    """The objects before it are read; then it is the reader's own error, and no thread is left."""
    splits, store = objects([2] * 20)
    store.put("5", b"x\n")
    store.delete(["7"])
    found: list[str] = []
    with pytest.raises(InputChanged):
        read_into(found, splits, store)
    assert found == ["0", "1", "2", "3", "4"]
    assert reading_threads() == 0
    with pytest.raises(InputChanged, match="is gone"):
        lines_of(splits[6:], store)
