"""The splits of a task with their stores: small objects are read before their turn.

A task may own many small objects, and each costs a request. 200 objects of 10 KB whose requests
take 25 ms: 5.1 s one by one, 0.64 s eight ahead; on a local directory there is no difference.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from lambdamr_runtime.limits import KIB
from lambdamr_runtime.splits import Split
from lambdamr_runtime.store import Ranges

if TYPE_CHECKING:
    from concurrent.futures import Future

SMALL_BYTES = 256 * KIB
"""Objects up to this size are read before their turn."""

SMALL_AHEAD = 8
"""So many splits ahead: at most 2 MiB are held."""


class _Arriving:
    """A small object that is on its way or here; whoever asks for its bytes waits for them."""

    def __init__(self, reading: "Future[memoryview]") -> None:
        self._reading = reading

    def view_range(self, key: str, start: int, length: int, etag: str = "") -> memoryview:  # noqa: ARG002 - the protocol's
        return self._reading.result()[start : start + length]


def opened(
    splits: Sequence[Split], open_root: Callable[[str], Ranges]
) -> Iterator[tuple[Split, Ranges]]:
    """Yield each split with what its bytes are read from.

    Args:  open_root: opens the store of a root; called once for each.
    """
    stores: dict[str, Ranges] = {}
    for split in splits:
        if split.root not in stores:
            stores[split.root] = open_root(split.root)
    if sum(map(_is_small, splits)) < 2:
        yield from ((split, stores[split.root]) for split in splits)
        return
    from concurrent.futures import ThreadPoolExecutor  # 5 ms, and most tasks never get here

    pool = ThreadPoolExecutor(SMALL_AHEAD, thread_name_prefix="lambdamr-read")

    def begin(split: Split) -> tuple[Split, Ranges]:
        store = stores[split.root]
        if not _is_small(split):
            return split, store
        reading = pool.submit(store.view_range, split.key, 0, split.size, split.etag)
        return split, _Arriving(reading)

    try:
        following = map(begin, splits)
        begun = deque(islice(following, SMALL_AHEAD))
        while begun:
            first = begun.popleft()
            begun.extend(islice(following, 1))
            yield first
    finally:
        pool.shutdown(cancel_futures=True)


def _is_small(split: Split) -> bool:
    return split.is_whole and 0 < split.size <= SMALL_BYTES
