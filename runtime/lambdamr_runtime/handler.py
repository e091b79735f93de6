"""What a worker process is started for: events in, outcomes in the store.

The embedded backend starts `main` in processes of its own; they differ from a cloud function only
in where events come from.
"""

import os
import select
import shutil
import signal
import socket
import sys

from lambdamr_runtime.channel import Channel, Verb
from lambdamr_runtime.child import Settings
from lambdamr_runtime.errors import LambdamrError
from lambdamr_runtime.sandbox import Sandbox
from lambdamr_runtime.wire import Event


class Handler:
    """Runs events in a kept child process.

    Args:  settings: where and how tasks run.
    """

    def __init__(self, settings: Settings) -> None:
        self._sandbox = Sandbox(settings)

    def start(self) -> None:
        self._sandbox.start()

    def handle(self, event: bytes, surroundings: "PoolLink") -> None:
        """Run one event to its end."""
        self._sandbox.run(Event.decode(event), surroundings)

    def stop(self) -> None:
        self._sandbox.stop()


class PoolLink:
    """The local pool as this worker sees it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def invoke(self, event: bytes) -> None:
        self._channel.send(Verb.INVOKE, event)

    def take(self, job: bytes) -> bytes:
        self._channel.send(Verb.TAKE, job)
        message = self._channel.receive()
        return message[1] if message else b""

    def is_gone(self) -> bool:
        """The pool sends nothing while an event runs, except the end of its connection."""
        ready, _, _ = select.select((self._channel,), (), (), 0)
        return bool(ready)


def main(arguments: list[str]) -> None:
    """Serve a local pool: its socket, then the fields of Settings, in order."""
    descriptor, root, name, scratch, memory_mb, width, owner, hints = arguments
    channel = Channel(socket.socket(fileno=int(descriptor)))
    settings = Settings(
        root, name, scratch, int(memory_mb), int(width), owner, int(hints), channel.fileno()
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    handler = Handler(settings)
    handler.start()
    link = PoolLink(channel)
    try:
        channel.send(Verb.READY)
        while (message := channel.receive()) is not None:
            try:
                handler.handle(message[1], link)
            except LambdamrError as error:
                channel.send(Verb.FAILED, str(error).encode())
            else:
                channel.send(Verb.ENDED)
    except OSError:  # the pool went away in the middle of a message
        pass
    finally:
        handler.stop()
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
