"""The finalizer: puts the files of the winning tasks where the user wants them.

    part files of the job ─▶ note `placed` ─▶ copy, file by file ─▶ _SUCCESS
                                 └ a bad end: whoever sees it removes what the note names ┘

The note says, before anything is written, what this job will have written. Every bad end of a job
goes through `barrier.end_job`, which puts the tombstone and then removes what is noted; the
finalizer writes and then looks for the tombstone. So whichever comes first, nothing stays.
All names and contents are the same however often this runs: repeats and zombies change nothing.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from lambdamr_runtime import serialize
from lambdamr_runtime.errors import CorruptObject, JobFailed
from lambdamr_runtime.formats import Format
from lambdamr_runtime.joining import Joined, Source, join, open_client
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.limits import KIB, MIB, S3_MAX_COPY_BYTES, S3_MIN_PART_BYTES
from lambdamr_runtime.references import read_outcome
from lambdamr_runtime.store import Store, Upload, local_path, open_store
from lambdamr_runtime.wire import MALFORMED, FrameKind, sealed, unsealed
from lambdamr_runtime.work import TaskEnv

SUCCESS = "_SUCCESS"
"""The object that says that a folder is complete; written last."""

OURS = re.compile(r"part-\d{5,}\.(?:pickle|jsonl|csv|txt)|_SUCCESS")
"""Names that jobs give: what overwrite=True may remove."""

FLUSH_BYTES = 256 * KIB
"""Encoded pairs are given to an upload in pieces of about this size."""

COPY_BYTES = 8 * MIB
"""Bytes of a part that a streamed copy holds."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file in the format of the output, in the job's folder."""

    key: str
    pairs: int
    size: int
    """Bytes."""
    checksum: int
    """crc32."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What the finalizer made: the value of its frame."""

    uris: tuple[str, ...]
    """Of the final objects, in the order of the partitions; without _SUCCESS."""
    pairs: int
    size: int
    """Bytes of the parts that were placed, each header counted."""


class PartFile:
    """The file of one task, in the format of the output."""

    def __init__(self, store: Store, key: str, form: Format) -> None:
        self._key = key
        self._form = form
        self._upload: Upload = store.upload(key)
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._size = self._checksum = self._pairs = 0
        self._write(form.header)

    def add(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        """Write pairs.

        Raises:  UnwritablePair: the format cannot hold one of them.
        """
        self._pairs += len(pairs)
        self._write(self._form.encode(pairs))

    def close(self) -> Written:
        self._flush()
        self._upload.close()
        return Written(self._key, self._pairs, self._size, self._checksum)

    def _write(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        self._size += len(data)
        self._checksum = crc32(data, self._checksum)
        if self._held_bytes >= FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._held_bytes:
            self._upload.write(b"".join(self._held))
        self._held, self._held_bytes = [], 0


@dataclass(frozen=True, slots=True)
class Destination:
    """A folder in a store."""

    store: Store
    prefix: str
    """Of the keys; empty, or it ends in a slash."""
    source: str | None
    """What to put before a key of the job's own store to copy it within *store*; None where the
    bytes have to pass through here."""

    def key(self, name: str) -> str:
        return self.prefix + name

    def in_bucket(self, key: str) -> tuple[str, str] | None:
        """Return (bucket, key there) of a key of *store*; None where that is not on S3."""
        bucket, path = _bucket_of(self.store.root)
        scheme, _, name = bucket.partition("://")
        return (name, _as_prefix(path) + key) if scheme == "s3" else None

    def names(self) -> Iterator[str]:
        """Yield what is in the folder, relative to it; of a local one its entries, whatever their
        names: obstore has no keys for some.
        """
        folder = local_path(self.store.root)
        if folder is not None:
            yield from os.listdir(folder)
            return
        for entry in self.store.list(self.prefix.rstrip("/")):
            yield entry.key[len(self.prefix) :]

    def is_of(self, job: str) -> bool:
        """Whether the _SUCCESS here, if there is one, is this job's."""
        try:
            return self.store.get(self.key(SUCCESS)) == success(job)
        except FileNotFoundError:
            return True

    def withdraw(self, names: Sequence[str], job: str) -> None:
        """Remove objects of a job, and what uploads of them left when their process died.

        Nothing of a complete result of another job: one before that this job was to overwrite, or
        one after it.
        """
        if SUCCESS not in names or self.is_of(job):
            self.store.delete([self.key(name) for name in names])
            self.remove_staged(names)

    def remove_staged(self, names: Iterable[str]) -> None:
        """A local file is written as {name}#{number} by obstore, and renamed when whole."""
        folder = local_path(self.store.root)
        if folder is None or not os.path.isdir(folder):
            return
        wanted = frozenset(names)
        for found in os.listdir(folder):
            name, mark, number = found.rpartition("#")
            if mark and number.isdigit() and name in wanted:
                try:
                    os.unlink(os.path.join(folder, found))
                except FileNotFoundError:
                    pass


OpenFolder = Callable[[str, Store], Destination]


def success(job: str) -> bytes:
    """Return what a job writes to _SUCCESS: its own id tells it from that of an earlier one."""
    return f"{job}\n".encode()


def open_destination(folder: str, store: Store) -> Destination:
    """Return a folder, as it is seen beside the store of the job.

    Args:  folder: an absolute local path or a URI. store: of the job.
    """
    if local_path(folder) is not None:
        return Destination(open_store(folder), "", None)
    root = store.root.rstrip("/") + "/"
    if folder.startswith(root):
        return Destination(store, _as_prefix(folder[len(root) :]), "")
    bucket, path = _bucket_of(folder)
    own_path = _bucket_of(store.root)[1]
    source = _as_prefix(own_path) if is_same_store(folder, store.root) else None
    return Destination(open_store(bucket), _as_prefix(path), source)


def is_same_store(folder: str, root: str) -> bool:
    """Whether the store of a root can copy to a remote folder by itself."""
    return folder.startswith(f"{root.rstrip('/')}/") or _bucket_of(folder)[0] == _bucket_of(root)[0]


def _as_prefix(path: str) -> str:
    path = path.strip("/")
    return f"{path}/" if path else ""


def _bucket_of(uri: str) -> tuple[str, str]:
    scheme, _, rest = uri.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}", path


@dataclass(frozen=True, slots=True)
class Note:
    """What a finalizer is about to write: the object `placed` of a job."""

    folder: str
    names: tuple[str, ...]
    """In the order in which they are removed."""

    def encode(self) -> bytes:
        return sealed({"folder": self.folder, "names": self.names})

    @classmethod
    def decode(cls, data: bytes, source: str) -> "Note":
        try:
            record = unsealed(data, source)
            return cls(str(record["folder"]), tuple(map(str, record["names"])))
        except MALFORMED as error:
            raise CorruptObject(f"{source} is no list of output objects: {error}") from error


def withdraw(store: Store, keys: JobKeys, *, again: bool = False) -> None:
    """Remove what the finalizer of a job with a bad end has written, once.

    A job that has ended well keeps its output, whoever cancels it too late. Once: later the folder
    may belong to another job.

    Args:  again: a run of the finalizer has died, which may have written since.
    """
    from lambdamr_runtime.barrier import read_end  # it knows this module

    end = read_end(store, keys)
    if end is None or end.status == "done":
        return
    try:
        note = Note.decode(store.get(keys.placed), keys.placed)
    except FileNotFoundError:
        return
    if again or not store.exists(keys.withdrawn):
        open_destination(note.folder, store).withdraw(note.names, keys.job)
        store.put(keys.withdrawn, b"")


@dataclass(frozen=True, slots=True)
class Final:
    """Copy the files of the stage before to their folder; one task."""

    folder: str
    """An absolute local path or a URI."""
    form: Format
    single: str = ""
    """Name of the one object that all files are joined to; empty: a folder of parts."""
    overwrite: bool = False
    open_folder: OpenFolder = open_destination

    @property
    def retry_on(self) -> tuple[type[BaseException], ...]:
        return ()

    def run(self, env: TaskEnv, task: int, arg: Any) -> Placed:  # noqa: ARG002 - the protocol's
        return _Placing(self, env).run()

    def name_of(self, part: int) -> str:
        return f"part-{part:05d}{self.form.suffix}"

    def names(self, parts: int) -> tuple[str, ...]:
        """Return the names that this writes, in the order in which they are removed."""
        return (self.single,) if self.single else (SUCCESS, *map(self.name_of, range(parts)))

    def refuse(self, found: Iterable[str]) -> None:
        """Check what a folder holds before anything is written.

        Raises:  ValueError: it holds something that would be taken for this job's result.
        """
        taken = [name for name in found if not self.single or name == self.single]
        if taken and not self.overwrite:
            there = f"output={self.folder!r} already holds {min(taken)!r}"
            if self.single:
                there = f"output={f'{self.folder}/{self.single}'!r} exists already"
            raise ValueError(
                f"{there}. Remove it, name another output, or give overwrite=True, which replaces "
                "the result of an earlier job."
            )


class _Placing:
    """One run of the finalizer."""

    def __init__(self, work: Final, env: TaskEnv) -> None:
        self._work = work
        self._env = env
        self._store = env.store
        self._keys = JobKeys(env.manifest.job)
        self._folder = work.open_folder(work.folder, env.store)
        self._names = work.names(env.source.tasks)
        self._parts: list[int] = []
        """Tasks whose files are placed."""
        self._begun = False
        """Whether this run has written anything."""

    def run(self) -> Placed:
        self._look()
        if self._store.exists(self._keys.report):  # somebody was faster, and later may be another
            raise JobFailed(f"Job {self._env.manifest.job} has ended already.")
        self._begin()
        files = self._join() if self._work.single else list(self._copy())
        self._remove_missing()
        self._finish()
        placed = (
            (self._work.single,)
            if self._work.single
            else tuple(map(self._work.name_of, self._parts))
        )
        return Placed(
            tuple(f"{self._work.folder.rstrip('/')}/{name}" for name in placed),
            sum(file.pairs for file in files),
            sum(file.size for file in files),
        )

    def _begin(self) -> None:
        """Note what will be written, and clear away the result of an earlier job."""
        found = self._found()
        if not self._store.exists(self._keys.placed):
            self._work.refuse(found)
            note = Note(self._work.folder, self._names)
            self._store.put(self._keys.placed, note.encode())
            self._look()
        self._begun = True
        if not self._work.overwrite:
            return
        if SUCCESS in found and not self._folder.is_of(self._keys.job):
            self._folder.store.delete([self._folder.key(SUCCESS)])
        # Nothing else that this job writes: a run that is ahead of this one may have written it.
        # Its _SUCCESS comes back even so: whoever removes one goes on to the end.
        old = [name for name in found if OURS.fullmatch(name) and name not in self._names]
        self._folder.store.delete([self._folder.key(name) for name in old])

    def _found(self) -> list[str]:
        """Return what is there already: in the folder, or of the one object."""
        if not self._work.single:
            return sorted(self._folder.names())
        there = self._folder.store.exists(self._folder.key(self._work.single))
        return [self._work.single] if there else []

    def _copy(self) -> Iterator[Written]:
        for file in self._files():
            self._look()
            self._copy_one(file, self._folder.key(self._work.name_of(self._parts[-1])))
            yield file

    def _copy_one(self, file: Written, target: str) -> None:
        if self._folder.source is None or file.size > S3_MAX_COPY_BYTES:
            size = _put(self._folder.store, target, self._pieces(file))
        else:
            self._folder.store.copy(self._folder.source + file.key, target)
            size = self._folder.store.head(target).size
        if size != file.size:
            raise CorruptObject(
                f"{target} under {self._folder.store.root} has {size} bytes, and {file.key}, "
                f"which it is a copy of, {file.size}."
            )

    def _join(self) -> list[Written]:
        """Write one object: by copies of parts within a bucket of S3, else streamed."""
        files = list(self._files())
        header = len(self._work.form.header)
        expected = header + sum(file.size - header for file in files)
        target = self._folder.key(self._work.single)
        if self._folder.source is None or expected < S3_MIN_PART_BYTES:
            size = _put(self._folder.store, target, self._joined(files))
        else:
            size = self._join_within(self._folder.source, files, target)
        if size != expected:
            raise CorruptObject(f"{target} was joined to {size} bytes, its parts have {expected}.")
        return files

    def _join_within(self, prefix: str, files: Sequence[Written], target: str) -> int:
        """Join where the store has the files too, and return the size."""
        store = self._folder.store
        place = self._folder.in_bucket(target)
        if place is None:
            return _put(store, target, self._joined(files))
        bucket, key = place
        at = key[: len(key) - len(target)] + prefix
        sources = [self._source(file, at) for file in files]

        def read(file: int, start: int, length: int) -> bytes:
            return self._store.get_range(files[file].key, start, length, sources[file].etag)

        joined = Joined(open_client(), bucket, key)
        join(joined, sources, len(self._work.form.header), read, self._look)
        return store.head(target).size

    def _source(self, file: Written, prefix: str) -> Source:
        """Return a file as S3 has it; its ETag stands for the bytes that were looked up."""
        found = self._store.head(file.key)
        if found.size != file.size:
            raise CorruptObject(
                f"{file.key} is damaged: it has {found.size} bytes, written were {file.size}."
            )
        return Source(prefix + file.key, found.size, found.etag)

    def _joined(self, files: Sequence[Written]) -> Iterator[bytes]:
        header = self._work.form.header
        yield header
        for file in files:
            self._look()
            left = len(header)
            for piece in self._pieces(file):
                yield piece[left:]
                left = max(0, left - len(piece))

    def _remove_missing(self) -> None:
        """Remove what an earlier job left under the names of tasks that failed in this one."""
        if self._work.single or not self._work.overwrite:
            return
        placed = set(self._parts)
        missing = [part for part in range(self._env.source.tasks) if part not in placed]
        self._folder.store.delete([self._folder.key(self._work.name_of(part)) for part in missing])

    def _finish(self) -> None:
        self._folder.remove_staged(self._names)
        self._look()
        if not self._work.single:
            self._folder.store.put(self._folder.key(SUCCESS), success(self._keys.job))
            self._look()

    def _pieces(self, file: Written) -> Iterator[bytes]:
        """Yield the bytes of a file, verified."""
        checksum = at = 0
        while at < file.size:
            piece = self._store.get_range(file.key, at, min(COPY_BYTES, file.size - at))
            if not piece:
                break
            at += len(piece)
            checksum = crc32(piece, checksum)
            yield piece
        if (at, checksum) != (file.size, file.checksum):
            raise CorruptObject(
                f"{file.key} is damaged: it has {at} bytes with checksum {checksum}, written were "
                f"{file.size} with {file.checksum}."
            )

    def _files(self) -> Iterator[Written]:
        """Yield the files of the winning executions, in the order of their tasks.

        `_parts` has the number of the file's task. A task that failed, as max_failures= allowed,
        has none.
        """
        stage = self._env.source
        keys = self._env.stage_keys(self._env.index - 1)
        for chunk in range(stage.plan.chunks):
            source = keys.outcome(stage.plan.group_of(chunk), chunk)
            frames = read_outcome(self._store, source)[1]
            for task, frame in zip(stage.plan.tasks_of(chunk), frames, strict=True):
                is_value = frame.kind is FrameKind.VALUE
                if not is_value and stage.max_failures:
                    continue
                file = serialize.loads(frame.payload).file if is_value else None
                if file is None:
                    raise CorruptObject(f"{source} names no file for the output")
                self._parts.append(task)
                yield file

    def _look(self) -> None:
        """Stop where the job has a tombstone, and leave nothing of it.

        Only the report tells whether the tombstone came in time: so there is one before anything
        is removed. Others may have removed it already, and this run have written since.

        Raises:  JobFailed
        """
        if not self._store.exists(self._keys.cancelled):
            return
        from lambdamr_runtime.barrier import finish_cancelled, read_end  # it knows this module

        finish_cancelled(self._store, self._keys)
        end = read_end(self._store, self._keys)
        if end is not None and end.status != "done" and self._begun:
            self._folder.withdraw(self._names, self._keys.job)
        raise JobFailed(f"Job {self._env.manifest.job} ended before its output was placed.")


def _put(store: Store, key: str, pieces: Iterator[bytes]) -> int:
    from lambdamr_runtime.parts import put_parts  # it knows this module

    return put_parts(store, key, pieces)
