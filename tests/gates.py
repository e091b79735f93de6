"""Tasks that are held and let go through FIFOs, so that no test waits for time to pass."""

import os
import select
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0
"""After this a test that waits for something has failed."""


class Gate:
    """Holds tasks: `pass_gate` says that it runs, and returns when it is let go."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._descriptors = []
        for name in (f"{path}.entered", f"{path}.go"):
            os.mkfifo(name)
            self._descriptors.append(os.open(name, os.O_RDWR))

    def wait_until_entered(self) -> None:
        """Return when one more task has reached the gate."""
        ready, _, _ = select.select(self._descriptors[:1], (), (), PATIENCE_S)
        assert ready, "no task reached the gate"
        os.read(self._descriptors[0], 1)

    def open(self, tasks: int = 1) -> None:
        """Let so many tasks go."""
        os.write(self._descriptors[1], b"x" * tasks)

    def close(self) -> None:
        """Let all go; a task that comes later finds no gate and fails, where it would be stuck."""
        self.open(100)
        os.unlink(f"{self.path}.entered")
        os.unlink(f"{self.path}.go")
        for descriptor in self._descriptors:
            os.close(descriptor)


def pass_gate(path: str, value: Any = None) -> Any:
    with open(f"{path}.entered", "wb") as entered:
        entered.write(b"x")
    with open(f"{path}.go", "rb", buffering=0) as go:
        go.read(1)
    if isinstance(value, BaseException):
        raise value
    return value
