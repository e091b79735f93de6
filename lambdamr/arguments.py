"""What a task was given, in a few words: read back from what the job stored."""

import reprlib
from typing import TYPE_CHECKING, Any

from lambdamr_runtime import serialize
from lambdamr_runtime.splits import Split
from lambdamr_runtime.wire import StageKind, args_index_bytes, args_span
from lambdamr_runtime.work import Deferred

if TYPE_CHECKING:
    from lambdamr.tracked import TrackedStage

MOST_BYTES = 1 << 20
"""Arguments of a chunk that are larger are not read for a few words."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlist = _short.maxtuple = _short.maxdict = 4
_short.maxlevel = 3


def shown_input(stage: "TrackedStage", task: int) -> str:
    """Return the input of a task; "" where it has none, or none that can be shown here.

    Raises:  StoreError, FileNotFoundError: the store does not give the arguments.
    """
    kind = stage.run.stage.kind
    if kind is StageKind.REDUCE:
        return f"partition {task}"
    if not stage.run.stage.has_args:
        return ""
    chunk = stage.run.plan.chunk_of(task)
    data = _stored(stage, chunk)
    if not data:
        return ""
    try:
        given = serialize.loads(data)[task - stage.run.plan.tasks_of(chunk).start]
        if isinstance(given, Deferred):
            given = serialize.loads(given.data)
        return _items(given) if kind is StageKind.MAP else _call(*given)
    except Exception as error:  # the user's constructors run here, and references need a worker
        return f"not shown here ({type(error).__name__})"


def _stored(stage: "TrackedStage", chunk: int) -> bytes:
    """Return the pickled arguments of a chunk; b"" of one that has too many."""
    record, chunks = stage.run.stage, stage.run.plan.chunks
    store, key = stage.job.backend.store, stage.run.keys.args
    if record.inline_args:
        start, length = args_span(record.inline_args, chunk, chunks)
        return record.inline_args[start : start + length]
    index = store.get_range(key, 0, args_index_bytes(chunks))
    start, length = args_span(index, chunk, chunks)
    return store.get_range(key, start, length) if length <= MOST_BYTES else b""


def _items(given: list[Any]) -> str:
    """Describe the splits or items of a map task."""
    shown = [
        f"{item.uri} [{item.lo:,}, {item.hi:,})" if isinstance(item, Split) else _short.repr(item)
        for item in given[:3]
    ]
    return ", ".join(shown) + (f" and {len(given) - 3:,} more" if len(given) > 3 else "")


def _call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    named = (f"{name}={_short.repr(value)}" for name, value in kwargs.items())
    return ", ".join((*map(_short.repr, args), *named))
