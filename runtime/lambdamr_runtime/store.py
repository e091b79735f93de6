"""A thin typed layer on obstore: what lambdamr asks of an object store, and nothing more.

obstore gives S3, a local directory and memory behind one API; this module adds one home for its
errors and the rule that every commit stands on: *read the winner*.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from stat import S_ISREG
from typing import Any, Protocol

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, ObjectStore, from_url

from lambdamr_runtime.errors import CorruptObject, InputChanged, StoreError
from lambdamr_runtime.frozen import frozen
from lambdamr_runtime.limits import MIB
from lambdamr_runtime.refusals import is_denied, is_past_the_end, reason_of

STAMP_BYTES = 17
"""A created object begins with its execution id (16 hex digits) and a line feed."""

CREATE_TRIES = 3
"""Conditional puts that store nothing and leave no winner, and the create is given up."""

PART_BYTES = 8 * MIB
"""Size of the parts of an upload: S3 takes 5 MiB to 5 GiB and 10,000 of them, so up to 80 GB."""

PARTS_AT_ONCE = 2
"""Parts of one upload in flight: one is filled while one is sent."""

_ACTIONS = {
    "read": "s3:GetObject",
    "look up": "s3:GetObject",
    "list": "s3:ListBucket",
    "write": "s3:PutObject",
    "create": "s3:PutObject",
    "copy": "s3:GetObject and s3:PutObject",
    "delete": "s3:DeleteObject",
}
"""The permission that each request needs, by the word for it in messages."""

_PLAIN = re.compile(r"\w[\w-]*([./]\w[\w-]*)*", re.ASCII)
"""A key that is the name of its local file. To ask for that takes 3 us, and 150 through obstore's
threads: running tasks ask again and again."""


@frozen
class StoredObject:
    """One entry of a listing."""

    key: str
    size: int
    """Bytes."""
    etag: str
    modified_s: float
    """Seconds since the epoch."""


class Upload(Protocol):
    """An object that is being written: it appears whole with `close`, or, dropped, not at all."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class Ranges(Protocol):
    """What objects are read from, range by range; view_range is that of ObstoreStore."""

    def view_range(self, key: str, start: int, length: int, etag: str = "") -> memoryview: ...


class Store(Ranges, Protocol):
    """An object store under a root; keys are relative to it.

    Every method raises StoreError for what the store refuses and FileNotFoundError for a key
    that is not there.
    """

    root: str

    def get(self, key: str) -> bytes: ...
    def get_range(self, key: str, start: int, length: int, etag: str = "") -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def put_stream(self, key: str, parts: Iterable[bytes]) -> int: ...
    def upload(self, key: str) -> Upload: ...
    def copy(self, source: str, target: str) -> None: ...
    def create(self, key: str, data: bytes, execution: str) -> bool: ...
    def exists(self, key: str) -> bool: ...
    def head(self, key: str) -> StoredObject: ...
    def list(self, prefix: str) -> Iterator[StoredObject]: ...
    def delete(self, keys: Sequence[str]) -> None: ...


class ObstoreStore:
    """Store on any obstore backend.

    Args:  hides_missing: whether a key that is not there may be "forbidden" (403): so S3 answers
           whoever may list a prefix of a bucket but not all of it.
    """

    def __init__(self, root: str, backend: ObjectStore, hides_missing: bool = False) -> None:
        self.root = root
        self._backend = backend
        self._hides_missing = hides_missing
        folder = local_path(root) if isinstance(backend, LocalStore) else None
        self._folder = folder and os.path.realpath(folder)  # as obstore, whatever becomes of it

    def get(self, key: str) -> bytes:
        """Return the whole object."""
        try:
            return bytes(obstore.get(self._backend, key).bytes())
        except (BaseError, OSError) as error:
            raise self._mapped(error, "read", key) from error

    def get_range(self, key: str, start: int, length: int, etag: str = "") -> bytes:
        """Return up to *length* bytes from *start*; fewer at the end, b"" beyond it.

        Raises:  InputChanged: *etag* is given and the object has another one.
        """
        return bytes(self.view_range(key, start, length, etag))

    def view_range(self, key: str, start: int, length: int, etag: str = "") -> memoryview:
        """Return what get_range does, and raise as it does, without a copy: 20 ms of 32 MB."""
        if length <= 0:
            return memoryview(b"")
        near = self._read_near(key, start, length, etag) if etag and self._folder else b""
        if near:
            return memoryview(near)
        try:
            if etag:
                options = {"if_match": etag, "range": (start, start + length)}
                return memoryview(obstore.get(self._backend, key, options=options).bytes())  # type: ignore[arg-type]  # obstore types a TypedDict
            return memoryview(obstore.get_range(self._backend, key, start=start, length=length))
        except (BaseError, OSError) as error:
            if is_past_the_end(error):
                return memoryview(b"")
            raise self._mapped(error, "read", key) from error

    def _read_near(self, key: str, start: int, length: int, etag: str) -> bytes:
        """Return a range of a local file that has this etag still; b"" leaves it to obstore.

        obstore reads in a thread, to memory that is new each time: 256 MB took 0.2 s of CPU there,
        and 0.05 here. The etag, which is obstore's, is that of one version of one file.
        """
        try:
            with open(f"{self._folder}/{key}", "rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if etag.strip('"') != local_etag(status):
                    return b""
                data = os.pread(file.fileno(), length, start)  # 2 GiB at most
                return data if len(data) == min(length, status.st_size - start) else b""
        except (OSError, ValueError):  # ValueError: a key with a zero byte
            return b""

    def put(self, key: str, data: bytes) -> None:
        """Write the object, over an older one if there is one."""
        try:
            obstore.put(self._backend, key, data)
        except (BaseError, OSError) as error:
            raise self._mapped(error, "write", key) from error

    def put_stream(self, key: str, parts: Iterable[bytes]) -> int:
        """Write an object that may be larger than memory, and return its size.

        *parts* may use this store. The object appears whole, when all parts are taken, or not at
        all: what *parts* raises is raised here as it is, and the upload is given up (on S3 the
        bucket's lifecycle rule removes its parts). What fits in one part is put with one request.
        """
        upload = self.upload(key)
        size = 0
        for part in parts:
            upload.write(part)
            size += len(part)
        upload.close()
        return size

    def upload(self, key: str) -> Upload:
        """Begin an object that may be larger than memory; what fits in one part is one request."""
        writer = obstore.open_writer(
            self._backend, key, buffer_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
        )

        def call(method: Callable[..., object], *data: bytes) -> None:
            try:
                method(*data)
            except (BaseError, OSError) as error:
                raise self._mapped(error, "write", key) from error

        return _Upload(writer, call)

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the store, over an older one: no byte passes through here.

        Not for a local directory: there a copy is a second link to the same file, and obstore
        leaves another one behind when it is repeated.
        """
        try:
            obstore.copy(self._backend, source, target)
        except (BaseError, OSError) as error:
            raise self._mapped(error, "copy", source) from error

    def create(self, key: str, data: bytes, execution: str) -> bool:
        """Write the object unless it is there already, and say whether this execution won.

        The body is stamped with *execution*. A failed conditional put proves nothing: the client
        library may have repeated our own write after a lost answer, and a conflict (409) stores
        nothing. So the winner is read, and only that decides.

        Args:     data: the body behind the stamp. execution: 16 hex digits.
        Returns:  True if the stored object is this execution's.
        """
        stamped = execution.encode() + b"\n" + data
        refusal = StoreError()
        for _ in range(CREATE_TRIES):
            try:
                self.put_new(key, stamped)
                return True
            except StoreError as error:
                refusal = error
            try:
                winner = self.get_range(key, 0, STAMP_BYTES)
            except FileNotFoundError:
                continue
            return winner == stamped[:STAMP_BYTES]
        raise refusal

    def put_new(self, key: str, data: bytes) -> None:
        """Write the object unless there is one: the bare conditional put beneath `create`.

        Raises:  StoreError: refused, or there is one. It may have been written all the same.
        """
        try:
            obstore.put(self._backend, key, data, mode="create", use_multipart=False)
        except (BaseError, OSError) as error:
            raise self._refused(error, "create", key) from error

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        if self._folder and _PLAIN.fullmatch(key):
            try:
                return S_ISREG(os.stat(f"{self._folder}/{key}").st_mode)
            except FileNotFoundError:
                return False
            except OSError:
                pass  # what it is, obstore says below
        try:
            self.head(key)
        except FileNotFoundError:
            return False
        return True

    def head(self, key: str) -> StoredObject:
        try:
            meta = obstore.head(self._backend, key)
        except (BaseError, OSError) as error:
            raise self._mapped(error, "look up", key) from error
        return _stored(meta)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield every object under *prefix* (whole path segments), in no set order."""
        try:
            for page in obstore.list(self._backend, prefix):
                for meta in page:
                    yield _stored(meta)
        except (BaseError, OSError) as error:
            raise self._mapped(error, "list", prefix) from error

    def folders(self, prefix: str) -> tuple[str, ...]:
        """Return the first names under *prefix* that hold more, without listing what they hold."""
        try:
            found = obstore.list_with_delimiter(self._backend, prefix)["common_prefixes"]
        except (BaseError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                return ()
            raise self._mapped(error, "list", prefix) from error
        return tuple(name.rstrip("/").rpartition("/")[2] for name in found)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there are no error."""
        for key in keys:
            try:
                obstore.delete(self._backend, key)
            except (BaseError, OSError) as error:
                if not isinstance(error, FileNotFoundError):
                    raise self._mapped(error, "delete", key) from error

    def _mapped(self, error: BaseException, verb: str, key: str) -> Exception:
        """Return our error for obstore's: the one place where they meet."""
        is_hidden = self._hides_missing and verb in ("read", "look up")
        if isinstance(error, FileNotFoundError) or (is_hidden and is_denied(error)):
            return FileNotFoundError(f"{self.root}/{key}")
        if type(error).__name__ == "PreconditionError":
            return InputChanged(f"{self.root}/{key} is not the object that was planned.")
        return self._refused(error, verb, key)

    def _refused(self, error: BaseException, verb: str, key: str) -> StoreError:
        reason = reason_of(error)
        if "403 Forbidden" in reason and self.root.startswith("s3://"):
            reason += (
                f". Whoever signs the requests needs {_ACTIONS[verb]} there; `aws sts "
                "get-caller-identity` says who that is."
            )
        return StoreError(f"Could not {verb} {key!r} under {self.root}: {reason}")


@frozen
class _Upload:
    """Upload through an obstore writer."""

    writer: Any
    """Any: obstore does not export its class."""
    call: Callable[..., None]
    """Calls a method of the writer, its errors mapped to ours."""

    def write(self, data: bytes) -> None:
        self.call(self.writer.write, data)

    def close(self) -> None:
        self.call(self.writer.close)


def open_store(root: str) -> ObstoreStore:
    """Open the store of a root: a local directory, `memory://` or a URL that obstore reads.

    A local directory is made if it is missing.
    """
    try:
        return ObstoreStore(root, _backend_of(root), hides_missing(root))
    except (BaseError, OSError) as error:
        raise StoreError(f"Could not open the store at {root}: {reason_of(error)}") from error


def hides_missing(root: str) -> bool:
    """Whether a root is a prefix of a bucket on S3, which others may have the rest of."""
    return root.startswith("s3://") and "/" in root.removeprefix("s3://").rstrip("/")


def local_path(uri: str) -> str | None:
    """Return the file-system path of a root or URI, or None where it is no local one."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    if scheme != "file":
        return None
    from urllib.parse import unquote  # 3 ms, and few roots are file URIs

    return unquote(rest[rest.find("/") :])


def local_etag(status: os.stat_result) -> str:
    """Return the etag that obstore gives a local file, without quotes."""
    return f"{status.st_ino:x}-{status.st_mtime_ns // 1000:x}-{status.st_size:x}"


def unstamped(data: bytes, key: str) -> tuple[str, bytes]:
    """Split a created object into its execution id and its body.

    Raises:  CorruptObject: there is no stamp.
    """
    if len(data) < STAMP_BYTES or data[STAMP_BYTES - 1] != 0x0A:
        raise CorruptObject(f"{key} has no execution stamp: {data[:STAMP_BYTES]!r}")
    return data[: STAMP_BYTES - 1].decode("ascii", "replace"), data[STAMP_BYTES:]


def sha256_of(data: bytes) -> str:
    """Return the hex digest by which data is named."""
    from hashlib import sha256  # OpenSSL is slow to load, and small calls hash nothing

    return sha256(data).hexdigest()


def checked_sha(data: bytes, key: str) -> bytes:
    """Return the data of a key that ends in its sha256.

    Raises:  CorruptObject: it is not what was stored.
    """
    found = sha256_of(data)
    if not key.endswith(found):
        raise CorruptObject(f"{key} is damaged: the sha256 of what it holds is {found}")
    return data


def _backend_of(root: str) -> ObjectStore:
    path = local_path(root)
    if path is not None:
        os.makedirs(path, exist_ok=True)
        return LocalStore(prefix=path)
    if root.startswith("memory:"):
        return MemoryStore()
    if root.startswith("s3://"):
        from lambdamr_runtime.s3 import s3_backend  # only where S3 is used

        return s3_backend(root)
    if root.startswith("http://"):
        return from_url(root, client_options={"allow_http": True})
    return from_url(root)


def _stored(meta: "obstore.ObjectMeta") -> StoredObject:
    return StoredObject(
        meta["path"], meta["size"], meta["e_tag"] or "", meta["last_modified"].timestamp()
    )
