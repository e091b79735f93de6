"""Waiting in an event loop: by callbacks of futures and jobs, never by a thread for each."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Future as _BaseFuture
from typing import TYPE_CHECKING, Any

from lambdamr.futures import HELP_PAUSE_S, Future, has_failed
from lambdamr.waiting import listed_futures

if TYPE_CHECKING:
    from lambdamr.futures import Progress
    from lambdamr.tracked import TrackedJob, TrackedStage


def as_completed_async(
    futures: Iterable[Future], timeout: float | None = None
) -> AsyncIterator[Future]:
    """Yield futures as they end, without blocking the event loop.

    Whoever stops iterating, or is cancelled, cancels no task.

    Raises:  TypeError: something is no future of lambdamr. TimeoutError: not all ended in time.
    """
    return _as_completed(listed_futures(futures), timeout)


async def _as_completed(listed: list[Future], timeout: float | None) -> AsyncIterator[Future]:
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    ended: asyncio.Queue[Future] = asyncio.Queue()
    helping = _helping(listed)
    waited = dict.fromkeys(listed)  # one that is there twice ends once
    for future in waited:
        future.add_done_callback(_in_loop(loop, ended.put_nowait))
    for count in range(len(waited)):
        try:
            async with asyncio.timeout_at(deadline):
                while helping is not None and ended.empty():
                    helping.help_until(lambda: not ended.empty(), HELP_PAUSE_S)
                    await asyncio.sleep(0)
                future = await ended.get()
        except TimeoutError:
            left = len(waited) - count
            raise TimeoutError(f"{left} of {len(waited)} futures unfinished") from None
        yield future


async def all_done(
    futures: Sequence[Future], stop_on_error: bool, progress: "Progress | None" = None
) -> None:
    """Return when all futures are done, or one has failed (if *stop_on_error*).

    Args:  progress: what shows a stage, where these are all futures of one, as a wait does.
    """
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    left = len(futures)
    lock = threading.Lock()
    tell = _in_loop(loop, lambda _: over.set())

    def one_is_done(future: _BaseFuture[Any]) -> None:
        nonlocal left
        with lock:
            left -= 1
            is_last = left == 0
        if is_last or (stop_on_error and has_failed(future)):
            tell(future)

    if not futures:
        return
    for future in futures:
        future.add_done_callback(one_is_done)
    job = futures[0].stage.job
    if not futures[0].stage.is_covered_by(futures):
        progress = None
    async with shown(job, progress):
        await _come(over, _helping(futures))
        if progress is not None and len(job.stages) == 1 and left == 0:
            await job_over(job)  # what is shown last has counted them all


async def job_over(job: "TrackedJob") -> None:
    """Return when a job is over."""
    over = asyncio.Event()
    tell = _in_loop(asyncio.get_running_loop(), lambda _: over.set())
    job.poller.when_over(job, lambda: tell(None))
    last = job.stages[-1]
    await _come(over, last if last.helps else None)


def shown(
    job: "TrackedJob", progress: "Progress | None"
) -> contextlib.AbstractAsyncContextManager[None]:
    """Return what shows a job while it is awaited: in a notebook, where waiting shows it too.

    Bars of terminals are for programs that wait for one thing at a time.
    """
    from lambdamr.notebook import shown_while_awaited, wait_in_notebook

    is_shown = progress is wait_in_notebook and not job.is_over
    return shown_while_awaited(job) if is_shown else contextlib.nullcontext()


async def _come(over: asyncio.Event, helping: "TrackedStage | None") -> None:
    """Wait for an event; inside a task, run nested chunks in the loop's thread meanwhile."""
    while helping is not None and not over.is_set():
        helping.help_until(over.is_set, HELP_PAUSE_S)
        await asyncio.sleep(0)
    await over.wait()


def _helping(futures: Sequence[Future]) -> "TrackedStage | None":
    return next((future.stage for future in futures if future.stage.helps), None)


def _in_loop(loop: asyncio.AbstractEventLoop, act: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a callback for any thread that calls *act* in the loop's."""

    def call(value: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody awaits
            loop.call_soon_threadsafe(act, value)

    return call
