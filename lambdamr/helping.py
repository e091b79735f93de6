"""What lets the standard library's waits run nested chunks."""

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambdamr.tracked import TrackedStage


class HelpingWaiters(list[Any]):
    """Who waits for a nested future by means of the standard library.

    `concurrent.futures.wait` and `as_completed` append a waiter to this list of the future and
    then wait for its event. With one worker that would be for ever: so that wait helps.
    """

    def __init__(self, stage: "TrackedStage") -> None:
        super().__init__()
        self._stage = stage

    def append(self, waiter: Any) -> None:
        if type(waiter.event) is threading.Event:
            waiter.event = _HelpingEvent(self._stage)
        super().append(waiter)


class _HelpingEvent(threading.Event):
    """An event whose wait runs nested chunks."""

    def __init__(self, stage: "TrackedStage") -> None:
        super().__init__()
        self._stage = stage

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(self._stage.help_until(self.is_set, timeout))
