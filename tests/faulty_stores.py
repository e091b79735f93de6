"""Stores with faults: each obeys the Store Protocol and is put around, or made from, a real one."""

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from obstore.store import ObjectStore

from lambdamr_runtime.errors import StoreError
from lambdamr_runtime.store import ObstoreStore, Store, StoredObject, Upload

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One call of a store's method."""

    verb: str
    """get, put, copy, create, head, list or delete."""
    key: str


class Around(Protocol):
    """What happens around a request: it may fail before or after `act`, or not act at all."""

    def __call__(self, request: Request, act: Callable[[], T], /) -> T: ...


class InterceptedStore:
    """Another store, every request of which goes through *around*."""

    def __init__(self, inner: Store, around: Around) -> None:
        self.root = inner.root
        self._inner = inner
        self._around = around

    def get(self, key: str) -> bytes:
        return self._around(Request("get", key), lambda: self._inner.get(key))

    def get_range(self, key: str, start: int, length: int, etag: str = "") -> bytes:
        return bytes(self.view_range(key, start, length, etag))

    def view_range(self, key: str, start: int, length: int, etag: str = "") -> memoryview:
        return self._around(
            Request("get", key), lambda: self._inner.view_range(key, start, length, etag)
        )

    def put(self, key: str, data: bytes) -> None:
        self._around(Request("put", key), lambda: self._inner.put(key, data))

    def put_stream(self, key: str, parts: Iterable[bytes]) -> int:
        return self._around(Request("put", key), lambda: self._inner.put_stream(key, parts))

    def upload(self, key: str) -> Upload:
        return InterceptedUpload(self._inner.upload(key), key, self._around)

    def copy(self, source: str, target: str) -> None:
        self._around(Request("copy", target), lambda: self._inner.copy(source, target))

    def create(self, key: str, data: bytes, execution: str) -> bool:
        return self._around(
            Request("create", key), lambda: self._inner.create(key, data, execution)
        )

    def exists(self, key: str) -> bool:
        return self._around(Request("head", key), lambda: self._inner.exists(key))

    def head(self, key: str) -> StoredObject:
        return self._around(Request("head", key), lambda: self._inner.head(key))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return iter(self._around(Request("list", prefix), lambda: list(self._inner.list(prefix))))

    def delete(self, keys: Sequence[str]) -> None:
        self._around(Request("delete", " ".join(keys)), lambda: self._inner.delete(keys))


@dataclass(frozen=True, slots=True)
class InterceptedUpload:
    """An upload whose end is a request that goes through *around*."""

    inner: Upload
    key: str
    around: Around

    def write(self, data: bytes) -> None:
        self.inner.write(data)

    def close(self) -> None:
        self.around(Request("put", self.key), self.inner.close)


class Outage:
    """The first *count* requests that *concerns* picks are refused; those after it pass."""

    def __init__(self, count: int, concerns: Callable[[Request], bool] = lambda _: True) -> None:
        self.left = count
        self._concerns = concerns

    def __call__(self, request: Request, act: Callable[[], T], /) -> T:
        if self.left and self._concerns(request):
            self.left -= 1
            raise StoreError(f"Could not {request.verb} {request.key!r}: 503 Slow Down")
        return act()


class Answer(enum.Enum):
    """How a conditional put is answered."""

    TRUE = enum.auto()
    """As it is."""
    LOST = enum.auto()
    """The object is written if there is none, but the answer is an error."""
    REPEATED = enum.auto()
    """The client library repeats the put after a lost answer: "already exists", by ourselves."""
    CONFLICT = enum.auto()
    """409: nothing is written, and the answer is an error."""


class MisleadingStore(ObstoreStore):
    """A store whose conditional puts are answered by *answers*, one each, then truly."""

    def __init__(self, root: str, backend: ObjectStore, answers: Iterable[Answer] = ()) -> None:
        super().__init__(root, backend)
        self._answers = iter(answers)
        self.puts = 0

    def put_new(self, key: str, data: bytes) -> None:
        self.puts += 1
        answer = next(self._answers, Answer.TRUE)
        if answer is Answer.CONFLICT:
            raise StoreError(f"Could not create {key!r}: 409 ConditionalRequestConflict")
        super().put_new(key, data)
        if answer is Answer.REPEATED:
            super().put_new(key, data)
        if answer is Answer.LOST:
            raise StoreError(f"Could not create {key!r}: connection reset")
