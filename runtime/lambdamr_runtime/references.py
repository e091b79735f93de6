"""References that travel in place of data and resolve themselves when they are unpickled.

A future that is an argument, and data stored by `executor.put`, are pickled as calls of the two
functions here, so they may lie at any depth of the arguments or in a closure.
"""

from typing import Any

from lambdamr_runtime import context, serialize
from lambdamr_runtime.errors import CorruptObject, JobFailed
from lambdamr_runtime.keys import last_number
from lambdamr_runtime.store import Store, checked_sha
from lambdamr_runtime.wire import Frame, FrameKind, Outcome


def load_data(key: str) -> Any:
    """Return the object stored under a data key, fetched once per warm process."""
    ctx = context.required()
    kept = ctx.cache.get(key)
    if kept is None:
        data = checked_sha(ctx.store.get(key), key)
        kept = (serialize.load_value(data),)
        ctx.cache.keep(key, kept, len(data))
    return kept[0]


def load_result(outcome_key: str, position: int) -> Any:
    """Return the value of one task of a committed chunk.

    Args:    position: of the task within its chunk.
    Raises:  the task's own exception, if it failed.
    """
    ctx = context.required()
    frames = ctx.cache.get(outcome_key)
    if frames is None:
        try:
            frames = read_outcome(ctx.store, outcome_key)[1]
        except FileNotFoundError:
            raise JobFailed(
                f"An argument is a future without a result: its job ended without {outcome_key}."
            ) from None
        ctx.cache.keep(outcome_key, frames, sum(len(frame.payload) for frame in frames))
    return value_of(frames[position], outcome_key)


def read_outcome(store: Store, key: str) -> tuple[Outcome, list[Frame]]:
    """Read an outcome and its frames, wherever they lie.

    Raises:  CorruptObject, FileNotFoundError.
    """
    outcome = Outcome.decode(store.get(key), key)
    if outcome.chunk != last_number(key):
        raise CorruptObject(f"{key} is the outcome of chunk {outcome.chunk}")
    try:
        stored = store.get(outcome.results) if outcome.results else b""
    except FileNotFoundError:
        raise CorruptObject(f"{outcome.results}, which {key} names, is not there") from None
    return outcome, outcome.unpack(stored, outcome.results or key)


def value_of(frame: Frame, source: str) -> Any:
    """Return the value of a frame, or raise the exception that it holds."""
    if frame.kind is FrameKind.VALUE:
        return serialize.load_value(frame.payload)
    raise serialize.revive(serialize.load_error(frame.payload, source))
