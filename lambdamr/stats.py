"""How tasks and chunks ran: what the client remembers of their outcomes."""

from typing import NamedTuple


class TaskStats(NamedTuple):
    """How one task ran."""

    seconds: float
    """In the task itself, all tries together."""
    tries: int
    """Calls of the function in the execution that counts: 1, and those that `retries=` added; 0
    for a task that never ran."""
    attempt: int
    """Executions of its chunk that died before the one that counts: retries of the infrastructure,
    which `retries=` has no part in."""
    started_s: float
    """Seconds since the epoch at which its chunk began."""
    peak_mb: float
    """Peak memory of the process so far, MiB."""
    worker: str


class ChunkStats(NamedTuple):
    """How the execution of a chunk ran that counts; fields as of Outcome."""

    attempt: int
    started_s: float
    seconds: float
    peak_mb: float
    worker: str
    queued_s: float
    cold_s: float
    load_s: float
    write_s: float

    @property
    def ended_s(self) -> float:
        return self.started_s + self.seconds
