"""Waiting for futures of any calls: as the standard library does, and in event loops.

A task that waits for nested futures runs chunks of their jobs meanwhile.
"""

import concurrent.futures
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future as _BaseFuture
from time import monotonic
from typing import Any, cast

from lambdamr.futures import Future, Futures, Progress


def wait_for(
    futures: Sequence[Future],
    timeout: float | None,
    stop_on_error: bool,
    progress: "Progress | None" = None,
) -> None:
    """Wait until all are done, one has failed (if *stop_on_error*) or the time is over."""
    stages = {id(future.stage): future.stage for future in futures}
    if len(stages) == 1:
        stage = futures[0].stage
        if stage.is_covered_by(futures):
            if progress is not None:
                progress([stage], timeout, stop_on_error)
            else:
                stage.wait(timeout, stop_on_error)
            return
    when = concurrent.futures.FIRST_EXCEPTION if stop_on_error else None
    wait(futures, timeout, when or concurrent.futures.ALL_COMPLETED)


def wait(
    futures: Iterable[Future],
    timeout: float | None = None,
    return_when: str = concurrent.futures.ALL_COMPLETED,
) -> "concurrent.futures._base.DoneAndNotDoneFutures[Any]":
    """Wait for futures, as `concurrent.futures.wait`; inside a task it runs nested chunks too.

    Returns:  (done, not_done), two sets.
    Raises:   TypeError: something is no future of lambdamr.
    """
    listed = listed_futures(futures)
    begun = monotonic()
    _help(listed, timeout, return_when)
    left = None if timeout is None else max(0.0, timeout - (monotonic() - begun))
    return concurrent.futures.wait(listed, left, return_when)


def as_completed(futures: Iterable[Future], timeout: float | None = None) -> Iterator[Future]:
    """Yield futures as they end, as `concurrent.futures.as_completed`.

    Raises:  TypeError: something is no future of lambdamr. TimeoutError: not all ended in time.
    """
    return _as_completed(listed_futures(futures), timeout)


def _as_completed(listed: list[Future], timeout: float | None) -> Iterator[Future]:
    deadline = None if timeout is None else monotonic() + timeout
    if not any(future.stage.helps for future in listed):
        completed = concurrent.futures.as_completed(listed, timeout)
        yield from cast("Iterator[Future]", completed)
        return
    listed = [*dict.fromkeys(listed)]  # one that is there twice ends once
    while listed:
        left = None if deadline is None else max(0.0, deadline - monotonic())
        done, _ = wait(listed, left, concurrent.futures.FIRST_COMPLETED)
        if not done:
            raise TimeoutError(f"{len(listed)} futures unfinished")
        yield from (future for future in listed if future in done)
        listed = [future for future in listed if future not in done]


def get_all_results(
    futures: "Futures | Iterable[Future]", timeout: float | None = None
) -> list[Any]:
    """Return the values of futures, in order (PyWren's name).

    Raises:  the first exception; TimeoutError; TypeError: something is no future of lambdamr.
    """
    listed = futures if isinstance(futures, Futures) else Futures(listed_futures(futures))
    return listed.result(timeout)


def listed_futures(futures: Iterable[Future]) -> list[Future]:
    """Return what was given to wait for as a list.

    Raises:  TypeError: it holds something else than our futures.
    """
    if isinstance(futures, Future) or not isinstance(futures, Iterable):
        raise TypeError(f"Expected an iterable of lambdamr futures, got {_shown(futures)}.")
    listed = list(futures)
    for each in listed:
        if not isinstance(each, Future):
            raise TypeError(f"Expected lambdamr futures, got {_shown(each)}.")
    return listed


def _shown(given: object) -> str:
    """Return what was given in place of futures, and what to do about it."""
    shown = repr(given)
    text = f"{shown[:80]}{'…' if len(shown) > 80 else ''} ({type(given).__name__})"
    if isinstance(given, Future):
        return f"{text}: put it in a list"
    if isinstance(given, Futures):
        return f"{text}: join several as [*first, *second]"
    if isinstance(given, _BaseFuture):
        return f"{text}: wait for futures of others with concurrent.futures"
    return f"{text}: futures are what submit and map return"


def _help(futures: Sequence[Future], timeout: float | None, return_when: str) -> None:
    """Run nested chunks in this task until what is waited for has come."""

    def is_over() -> bool:
        done = [future for future in futures if future.done()]
        if return_when == concurrent.futures.FIRST_COMPLETED and done:
            return True
        if return_when == concurrent.futures.FIRST_EXCEPTION:
            return len(done) == len(futures) or any(map(_has_raised, done))
        return len(done) == len(futures)

    for stage in {id(future.stage): future.stage for future in futures}.values():
        timeout = stage.help_until(is_over, timeout)


def _has_raised(future: Future) -> bool:
    return not future.cancelled() and future.exception() is not None
