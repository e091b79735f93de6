"""What a task was given, in a few words: read back from what the job stored."""

import reprlib
from typing import TYPE_CHECKING, Any

from lambdamr.arguments import StoredArgs, input_of
from lambdamr_runtime.splits import Split
from lambdamr_runtime.wire import StageKind

if TYPE_CHECKING:
    from lambdamr.tracked import TrackedStage

MOST_BYTES = 1 << 20
"""Arguments of a chunk that are larger are not loaded for a few words."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 60
_short.maxlist = _short.maxtuple = _short.maxdict = 4
_short.maxlevel = 3


def shown_input(stage: "TrackedStage", task: int) -> str:
    """Return the input of a task; "" where it has none, or too much to be loaded for this."""
    run = stage.run
    if run.stage.kind is StageKind.REDUCE:
        return f"partition {task}"
    if not run.stage.has_args:
        return ""
    store = stage.job.backend.store
    try:
        if len(StoredArgs(store, run).packed(run.plan.chunk_of(task))) > MOST_BYTES:
            return ""
        given = input_of(store, run, task)
        return _items(given) if run.stage.kind is StageKind.MAP else _short.repr(given)
    except Exception as error:  # the user's constructors run here, and their __repr__
        return f"not shown ({type(error).__name__})"


def _items(given: list[Any]) -> str:
    """Describe the splits or items of a map task."""
    shown = [
        f"{item.uri} [{item.lo:,}, {item.hi:,})" if isinstance(item, Split) else _short.repr(item)
        for item in given[:3]
    ]
    return ", ".join(shown) + (f" and {len(given) - 3:,} more" if len(given) > 3 else "")
