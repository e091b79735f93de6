"""What a worker process is started for: events in, outcomes in the store.

The embedded backend starts `main` in processes of its own; they differ from a cloud function only
in where events come from.
"""

import _socket  # what socket is made of, which costs 4 ms of a start
import json
import os
import signal

from lambdamr_runtime.channel import Channel, Verb
from lambdamr_runtime.child import Settings
from lambdamr_runtime.errors import LambdamrError
from lambdamr_runtime.limits import HUGE_PAGES
from lambdamr_runtime.sandbox import Sandbox
from lambdamr_runtime.wire import Event


class PoolLink:
    """The local pool as this worker sees it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def invoke(self, events: bytes) -> None:
        self._channel.send(Verb.INVOKE, events)

    def take(self, job: bytes) -> bytes:
        self._channel.send(Verb.TAKE, job)
        message = self._channel.receive()
        return message[1] if message else b""

    def is_gone(self) -> bool:
        """The pool sends nothing while an event runs, except the end of its connection."""
        return self._channel.has_news(0)

    def remaining_s(self) -> float:
        return float("inf")


def main(settings: str) -> None:
    """Run the events of a local pool until it goes away.

    Args:  settings: the fields of Settings, as JSON; `private` is the socket to the pool.
    """
    given = Settings(**json.loads(settings))
    for name, value in HUGE_PAGES.items():  # malloc has read it; what tasks start is their affair
        if os.environ.get(name) == value:
            del os.environ[name]
    channel = Channel(_socket.socket(fileno=given.private))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sandbox = Sandbox(given)
    sandbox.start()
    link = PoolLink(channel)
    try:
        channel.send(Verb.READY)
        while (message := channel.receive()) is not None:
            try:
                sandbox.run(Event.decode(message[1]), link)
            except LambdamrError as error:
                channel.send(Verb.FAILED, str(error).encode())
            else:
                channel.send(Verb.ENDED)
    except OSError:  # the pool went away in the middle of a message
        pass
    finally:
        sandbox.stop()
        import shutil  # 2 ms, for the end alone

        shutil.rmtree(given.scratch, ignore_errors=True)
        os._exit(0)
