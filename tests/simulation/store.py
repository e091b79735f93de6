"""An object store in a dictionary, and how one process sees it.

The part of the real store that decides who won (`create`, over `put_new`) is the real one; what it
stands on is a request each, which others may precede, and which may go wrong.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from obstore.store import MemoryStore

from lambdamr_runtime.errors import InputChanged, StoreError
from lambdamr_runtime.store import ObstoreStore, StoredObject, Upload

T = TypeVar("T")

ROOT = "sim://bucket/root"

_NO_BACKEND = MemoryStore()


class Exists(StoreError):
    """A conditional put has found an object."""


@dataclass(slots=True)
class Objects:
    """What is stored."""

    data: dict[str, bytes] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    """By key, how often it was written."""
    modified_s: dict[str, float] = field(default_factory=dict)
    now_s: Callable[[], float] = lambda: 0.0

    def write(self, key: str, data: bytes) -> None:
        self.data[key] = data
        self.versions[key] = self.versions.get(key, 0) + 1
        self.modified_s[key] = self.now_s()

    def under(self, prefix: str) -> list[str]:
        """Return the keys under a prefix of whole path segments."""
        begin = prefix.rstrip("/") + "/"
        return [key for key in self.data if key.startswith(begin)]


class Request(Protocol):
    """Does one request: *act* is its effect, *writes* whether it has one that lasts."""

    def __call__(self, verb: str, key: str, act: Callable[[], T], *, writes: bool = False) -> T: ...


class SimulatedStore(ObstoreStore):
    """The store as one process sees it; obeys Store.

    Args:  request: what happens around each request.
    """

    def __init__(self, objects: Objects, request: Request) -> None:
        super().__init__(ROOT, _NO_BACKEND)
        self._objects = objects
        self._request = request

    def get(self, key: str) -> bytes:
        return self._request("get", key, lambda: self._read(key))

    def view_range(self, key: str, start: int, length: int, etag: str = "") -> memoryview:
        if length <= 0:
            return memoryview(b"")

        def act() -> bytes:
            data = self._read(key)
            if etag and etag != self._stored(key).etag:
                raise InputChanged(f"{key} is not the object that was planned.")
            return data[start : start + length]

        return memoryview(self._request("get", key, act))

    def put(self, key: str, data: bytes) -> None:
        self._request("put", key, lambda: self._objects.write(key, data), writes=True)

    def put_new(self, key: str, data: bytes) -> None:
        def act() -> None:
            if key in self._objects.data:
                raise Exists(f"Could not create {key!r}: it exists")
            self._objects.write(key, data)

        self._request("create", key, act, writes=True)

    def put_stream(self, key: str, parts: Iterable[bytes]) -> int:
        data = b"".join(parts)
        self.put(key, data)
        return len(data)

    def upload(self, key: str) -> Upload:
        return _Upload(self, key)

    def copy(self, source: str, target: str) -> None:
        def act() -> None:
            self._objects.write(target, self._read(source))

        self._request("copy", target, act, writes=True)

    def head(self, key: str) -> StoredObject:
        return self._request("head", key, lambda: self._stored(key))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return iter(self._request("list", prefix, lambda: self._listed(prefix)))

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._request("delete", key, partial(self._drop, key), writes=True)

    def _read(self, key: str) -> bytes:
        try:
            return self._objects.data[key]
        except KeyError:
            raise FileNotFoundError(f"{ROOT}/{key}") from None

    def _stored(self, key: str) -> StoredObject:
        objects = self._objects
        return StoredObject(
            key, len(self._read(key)), str(objects.versions[key]), objects.modified_s[key]
        )

    def _listed(self, prefix: str) -> Sequence[StoredObject]:
        return [self._stored(key) for key in self._objects.under(prefix)]

    def _drop(self, key: str) -> None:
        self._objects.data.pop(key, None)


@dataclass(slots=True)
class _Upload:
    """An upload that is a put when it is closed."""

    store: SimulatedStore
    key: str
    parts: list[bytes] = field(default_factory=list)

    def write(self, data: bytes) -> None:
        self.parts.append(data)

    def close(self) -> None:
        self.store.put(self.key, b"".join(self.parts))
