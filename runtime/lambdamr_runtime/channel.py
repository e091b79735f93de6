"""Messages over a socket: a verb, a length, a body. Between pool, worker and kept child."""

import enum
import select
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import _socket

_HEAD = struct.Struct("<BI")


class Verb(enum.IntEnum):
    """What a message means."""

    RUN = 1
    """down: run this event"""
    ENDED = 2
    """up: the event has ended; a body is the event to go on with, in a fresh process"""
    INVOKE = 3
    """up: launch these events, one a line"""
    LAUNCHED = 4
    """down: they are launched"""
    TAKE = 5
    """up: give me a queued event of this job"""
    TAKEN = 6
    """down: here it is; no body: there is none"""
    CANCELLED = 7
    """up: the job of the running event has been cancelled"""
    FAILED = 8
    """up: the event could not be run; the body says why"""
    READY = 9
    """up: the process has started and takes events"""


class Channel:
    """One end of a stream of messages."""

    def __init__(self, connection: "_socket.socket") -> None:
        self._socket = connection
        # Not select.select: a descriptor above 1023, which a pool with many files open hands
        # down under its number, is out of its range.
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, verb: Verb, body: bytes = b"") -> None:
        """Send one message.

        Raises:  OSError: the other end is gone.
        """
        self._socket.sendall(_HEAD.pack(verb, len(body)) + body)

    def has_news(self, patience_s: float) -> bool:
        """Whether a message, or the end of the connection, comes within so many seconds."""
        return bool(self._poll.poll(patience_s * 1000))

    def receive(self) -> tuple[Verb, bytes] | None:
        """Wait for one message; None when the other end is gone."""
        head = self._exactly(_HEAD.size)
        if head is None:
            return None
        verb, size = _HEAD.unpack(head)
        body = self._exactly(size) if size else b""
        return None if body is None else (Verb(verb), body)

    def close(self) -> None:
        self._socket.close()

    def _exactly(self, size: int) -> bytes | None:
        parts: list[bytes] = []
        while size:
            try:
                part = self._socket.recv(min(size, 1 << 20))
            except ConnectionError:
                return None
            if not part:
                return None
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
