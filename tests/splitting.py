"""Objects in memory, cut into splits and read whole: what the laws of readers are checked with."""

from dataclasses import dataclass, field
from typing import Any

from obstore.store import MemoryStore

from lambdamr_runtime.records import Reader
from lambdamr_runtime.splits import Split
from lambdamr_runtime.store import ObstoreStore, Ranges, Store

KEY = "dir/input.txt"


def stored(data: bytes, key: str = KEY) -> tuple[Store, str]:
    """Return a store in memory that holds the data, and its etag."""
    store = ObstoreStore("memory://", MemoryStore())
    store.put(key, data)
    return store, store.head(key).etag


def cut(size: int, split_bytes: int, etag: str = "") -> list[Split]:
    """Cut an object into splits of so many bytes, the last one shorter."""
    return [
        Split("memory://", KEY, lo, min(lo + split_bytes, size), size, etag)
        for lo in range(0, size, split_bytes)
    ]


def whole(data: bytes, key: str) -> tuple[Split, Store]:
    """Return the split that is a whole object, and its store."""
    store, etag = stored(data, key)
    return Split("memory://", key, 0, len(data), len(data), etag), store


def read_all(data: bytes, split_bytes: int, reader: Reader) -> list[Any]:
    """Return the records of all splits, and check the account of each and of all."""
    return read_counted(data, split_bytes, reader)[0]


def read_counted(data: bytes, split_bytes: int, reader: Reader) -> tuple[list[Any], int]:
    """Return as read_all, and how many bad records were skipped."""
    store, etag = stored(data)
    records: list[Any] = []
    owned_bytes = bad = 0
    for split in cut(len(data), split_bytes, etag):
        stream = reader.read(split, store)
        mine = list(stream)
        assert stream.records == len(mine)
        records += mine
        owned_bytes += stream.owned_bytes
        bad += stream.bad_records
    assert owned_bytes == len(data)
    return records, bad


def read_whole(data: bytes, key: str, reader: Reader) -> list[Any]:
    """Return the records of an object that is one split, and check the account."""
    split, store = whole(data, key)
    stream = reader.read(split, store)
    records = list(stream)
    assert (stream.records, stream.owned_bytes) == (len(records), len(data))
    return records


@dataclass
class CountingStore:
    """What counts the bytes that are read of a store."""

    inner: Ranges
    read_bytes: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)

    def view_range(self, key: str, start: int, length: int, etag: str = "") -> memoryview:
        self.ranges.append((start, length))
        data = self.inner.view_range(key, start, length, etag)
        self.read_bytes += len(data)
        return data
