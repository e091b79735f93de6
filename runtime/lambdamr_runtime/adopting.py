"""Taking over what a map task of an earlier job has made, instead of running it again.

The bytes are copied: what belongs to a job lies under its own names, so that deleting the earlier
one takes nothing from this one, and slices say whose they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lambdamr_runtime.errors import CorruptObject
from lambdamr_runtime.keys import JobKeys, StageKeys
from lambdamr_runtime.limits import KIB, MIB
from lambdamr_runtime.shuffle import (
    Slice,
    SliceIdentity,
    decode_front,
    encode_front,
    front_bytes,
    missing_slice,
    slice_of,
)

if TYPE_CHECKING:
    from lambdamr_runtime.mapreduce import Mapped
    from lambdamr_runtime.store import Store
    from lambdamr_runtime.work import TaskEnv

COPY_BYTES = 4 * MIB
"""Bytes of an object that a copy holds."""

FRONT_BYTES = 64 * KIB
"""The first read of a slice; fronts are seldom larger."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """The argument of a map task that an earlier job has done."""

    job: str
    stage: str
    made: "Mapped"
    """What the task of the same number made there."""

    def run(self, env: "TaskEnv", task: int) -> "Mapped":
        """Copy what was made; the result is what the task itself would have returned.

        Raises:  CorruptObject: it is gone, or not what was written.
        """
        if self.made.part:
            return self._copied_part(env, task)
        from lambdamr_runtime.parts import put_parts  # it knows this module

        slices: list[Slice] = []
        parts = self._parts(env, task, slices)
        if any(piece.length for piece in self.made.slices):
            put_parts(env.store, env.stage_keys(env.index).shuffle(task, env.execution), parts)
        else:
            slices = [missing_slice(task, env.execution)] * len(self.made.slices)
        return replace(self.made, slices=tuple(slices))

    def _parts(self, env: "TaskEnv", task: int, slices: list[Slice]) -> Iterator[bytes]:
        """Yield the bytes of the shuffle object, with fronts that name its new owner; rows of the
        index go to *slices*.
        """
        at = 0
        for partition, piece in enumerate(self.made.slices):
            if not piece.length:
                slices.append(missing_slice(task, env.execution))
                continue
            source = StageKeys(self.job, self.stage).shuffle(task, piece.execution)
            old = SliceIdentity(self.job, self.stage, task, piece.execution, partition)
            new = SliceIdentity(env.manifest.job, env.stage.name, task, env.execution, partition)
            size, front = self._front(env.store, source, piece)
            blocks = decode_front(front, old, piece, source)
            fresh = encode_front(new, blocks)
            length = len(fresh) + piece.length - size
            slices.append(slice_of(fresh, new, at, length))
            at += length
            yield fresh
            yield from _pieces(env.store, source, piece.offset + size, piece.length - size)

    def _front(self, store: "Store", source: str, piece: Slice) -> tuple[int, bytes]:
        """Return the size of a slice's front, and its bytes."""
        wanted = min(piece.length, FRONT_BYTES)
        front = b"".join(_pieces(store, source, piece.offset, wanted))
        size = front_bytes(front, source)
        if size > wanted:
            front += b"".join(_pieces(store, source, piece.offset + wanted, size - wanted))
        return size, front[:size]

    def _copied_part(self, env: "TaskEnv", task: int) -> "Mapped":
        """Copy the output part of a job without reducer, and its file in the output's format."""
        keys = JobKeys(env.manifest.job)
        part = keys.part(task, env.execution)
        file = self.made.file
        _copy(env.store, self.made.part, part, self.made.size)
        if file is None:
            return replace(self.made, part=part)
        if file.key == self.made.part:
            return replace(self.made, part=part, file=replace(file, key=part))
        key = keys.file(task, env.execution, "." + file.key.rpartition(".")[2])
        _copy(env.store, file.key, key, file.size)
        return replace(self.made, part=part, file=replace(file, key=key))


def _copy(store: "Store", source: str, target: str, size: int) -> None:
    from lambdamr_runtime.parts import put_parts  # it knows this module

    put_parts(store, target, _pieces(store, source, 0, size))


def _pieces(store: "Store", source: str, start: int, length: int) -> Iterator[bytes]:
    """Yield bytes of an object.

    Raises:  CorruptObject: it has not so many, or is gone.
    """
    end = start + length
    while start < end:
        try:
            piece = store.get_range(source, start, min(COPY_BYTES, end - start))
        except FileNotFoundError:
            raise CorruptObject(
                f"{source}, which an earlier job has written, is gone. Run the job again."
            ) from None
        if not piece:
            raise CorruptObject(f"{source} ends at byte {start}, {end} were written")
        start += len(piece)
        yield piece
