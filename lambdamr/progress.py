"""Progress bars while waiting: one per stage, in place, and only where somebody looks."""

import sys
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambdamr.futures import Progress
    from lambdamr.tracked import TrackedStage

SHOW_AFTER_S = 0.5
"""Waits shorter than this show no bar."""

REFRESH_S = 0.1
"""Time between two looks at the counts."""


def is_watched() -> bool:
    """Whether a person may see a bar: a terminal, or a notebook."""
    return sys.stderr is not None and (sys.stderr.isatty() or "ipykernel" in sys.modules)


def progress_here() -> "Progress":
    """Return what shows progress in this process: the jobs themselves in a notebook, else bars."""
    from lambdamr.notebook import is_kernel, wait_in_notebook

    return wait_in_notebook if is_kernel() else wait_with_bars


def wait_with_bars(
    stages: Sequence["TrackedStage"], timeout: float | None, stop_on_error: bool
) -> None:
    """Wait for the stages, one after the other, with a bar for each that takes long enough."""
    deadline = None if timeout is None else monotonic() + timeout
    for stage in stages:
        if not _wait_for_stage(stage, deadline, stop_on_error):
            return


def _wait_for_stage(stage: "TrackedStage", deadline: float | None, stop_on_error: bool) -> bool:
    """Return whether the stage has ended well enough to go on with the next."""
    if stage.wait(_left(deadline, SHOW_AFTER_S), stop_on_error):
        return not (stop_on_error and stage.failed)
    from tqdm import tqdm  # 40 ms, and only a long wait needs it

    bar: Any = tqdm(total=len(stage.futures), desc=stage.run.stage.name, unit="task", leave=False)
    try:
        ended = False
        while not ended and _left(deadline, 1.0) > 0:
            ended = stage.wait(_left(deadline, REFRESH_S), stop_on_error)
            bar.update(stage.resolved - bar.n)
    finally:
        bar.close()
    return ended and not (stop_on_error and stage.failed)


def _left(deadline: float | None, most_s: float) -> float:
    return most_s if deadline is None else max(0.0, min(most_s, deadline - monotonic()))
