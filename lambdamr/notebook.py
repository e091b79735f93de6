"""Jobs in a notebook: shown once, then updated in place, with nothing but HTML.

A wait shows its job in the cell that waits. A job that a cell shows by itself keeps its place,
which is updated by later waits and by the job's end.
"""

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from lambdamr.tracked import TrackedJob, TrackedStage
    from lambdamr.views import View

SHOW_AFTER_S = 0.5
"""Waits shorter than this show nothing."""

REFRESH_S = 0.25
"""Time between two updates."""

DRAWING_SHARE = 0.1
"""Most of the time of a wait that drawing may take."""

INTERRUPTED = "the wait was interrupted, the job goes on"


def is_kernel() -> bool:
    """Whether this process is the kernel of a notebook, whose displays can be updated."""
    if "ipykernel" not in sys.modules:
        return False
    from IPython import get_ipython  # it is loaded: this is a kernel

    return hasattr(get_ipython(), "kernel")


class Places:
    """Where a job is shown."""

    def __init__(self) -> None:
        self._handles: list[tuple[object, Any]] = []
        """(cell, IPython's handle of a display)."""
        self.ends = False
        """Whether the job's end will be shown."""

    def show(self, view: "View", cell: object) -> None:
        """Show a job in this cell, unless it is shown here already."""
        if any(known == cell for known, _ in self._handles):
            self.update(view)
            return
        from IPython.display import display

        handle = display(_bundle(view), raw=True, display_id=True)  # type: ignore[no-untyped-call]  # IPython's
        self._handles.append((cell, handle))

    def update(self, view: "View") -> None:
        """Show the present state in all places."""
        bundle = _bundle(view)
        for _, handle in self._handles:
            handle.update(bundle, raw=True)


_places: "WeakKeyDictionary[TrackedJob, Places]" = WeakKeyDictionary()
"""Of each job that was shown."""


def wait_in_notebook(
    stages: Sequence["TrackedStage"], timeout: float | None, stop_on_error: bool
) -> None:
    """Wait for the stages of a job, which is shown meanwhile; see futures.Progress."""
    from lambdamr.views import job_view

    deadline = None if timeout is None else monotonic() + timeout
    job = stages[0].job
    if _wait(stages, _left(deadline, SHOW_AFTER_S), stop_on_error):
        _update(job)
        return
    places = _places.setdefault(job, Places())
    places.show(job_view(job), _cell())
    note, pause = "", REFRESH_S
    try:
        while _left(deadline, 1.0) > 0:
            if _wait(stages, _left(deadline, pause), stop_on_error):
                break
            began = monotonic()
            places.update(job_view(job))
            pause = max(REFRESH_S, (monotonic() - began) / DRAWING_SHARE)
    except KeyboardInterrupt:
        note = INTERRUPTED
        raise
    finally:
        was_over = job.is_over
        places.update(job_view(job, note))
        _update_at_end(job, was_over)


@contextlib.asynccontextmanager
async def shown_while_awaited(job: "TrackedJob") -> AsyncIterator[None]:
    """Show a job as a wait does, if what is awaited meanwhile takes long enough."""
    import asyncio  # only a program that awaits has it

    from lambdamr.views import job_view

    showing = asyncio.create_task(_show_again_and_again(job, _cell()))
    note = ""
    try:
        yield
    except (asyncio.CancelledError, KeyboardInterrupt):
        note = INTERRUPTED
        raise
    finally:
        showing.cancel()
        await asyncio.wait([showing])
        if not showing.cancelled():
            showing.result()  # it could not draw: that is an error of ours
        if job in _places:
            was_over = job.is_over
            _places[job].update(job_view(job, note))
            _update_at_end(job, was_over)


async def _show_again_and_again(job: "TrackedJob", cell: object) -> None:
    import asyncio  # only a program that awaits has it

    from lambdamr.views import job_view

    await asyncio.sleep(SHOW_AFTER_S)
    places = _places.setdefault(job, Places())
    places.show(await asyncio.to_thread(job_view, job), cell)  # it may read the store
    pause = REFRESH_S
    while True:
        await asyncio.sleep(pause)
        began = monotonic()
        places.update(await asyncio.to_thread(job_view, job))
        pause = max(REFRESH_S, (monotonic() - began) / DRAWING_SHARE)


def show(job: "TrackedJob") -> None:
    """Show a job where the running cell shows things, now and when it has ended."""
    from lambdamr.views import job_view

    places = _places.setdefault(job, Places())
    was_over = job.is_over
    places.show(job_view(job), _cell())
    _update_at_end(job, was_over)


def _update_at_end(job: "TrackedJob", was_over: bool) -> None:
    """See that a job that goes on is shown as it ends, once.

    Args:  was_over: whether it had ended before that was drawn which is shown now.
    """
    places = _places[job]
    if was_over:
        return
    if not places.ends:
        places.ends = True
        job.poller.when_over(job, lambda: _update(job))
    elif job.is_over:  # its end may have been shown before that
        _update(job)


def _update(job: "TrackedJob") -> None:
    from lambdamr.views import job_view

    places = _places.get(job)
    if places is not None:
        places.update(job_view(job))


def _wait(stages: Sequence["TrackedStage"], timeout: float, stop_on_error: bool) -> bool:
    """Wait for all stages, one after the other; whether there is nothing more to wait for.

    A job that ends with a report is over with that, so that what is shown is its end.
    """
    deadline = monotonic() + timeout
    for stage in stages:
        if not stage.wait(max(0.0, deadline - monotonic()), stop_on_error):
            return False
        if stop_on_error and stage.failed:
            break
    job = stages[0].job
    if len(stages) < len(job.stages) or not job.manifest.ends_with_report:
        return True
    return job.wait(max(0.0, deadline - monotonic()))


def _left(deadline: float | None, most_s: float) -> float:
    return most_s if deadline is None else max(0.0, min(most_s, deadline - monotonic()))


def _cell() -> object:
    from IPython import get_ipython

    return get_ipython().execution_count


def _bundle(view: "View") -> dict[str, str]:
    from lambdamr.views import view_html, view_text

    return {"text/html": view_html(view), "text/plain": view_text(view)}
