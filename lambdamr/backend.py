"""What an executor asks of the place where its jobs run."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from lambdamr.submission import Submission
    from lambdamr.tracked import TrackedJob
    from lambdamr_runtime.store import Store
    from lambdamr_runtime.wire import Event


class Listener(Protocol):
    """Whom a backend tells what it happens to know; correctness rests on the store alone."""

    def committed(self, job: str, stage: int, chunk: int) -> None:
        """A chunk has an outcome. Called from any thread."""
        ...

    def failed(self, job: str, reason: str) -> None:
        """The job cannot go on here, for a reason that no outcome will tell."""
        ...


class Backend(Protocol):
    """A place where jobs run."""

    store: "Store"
    owner: str
    """Name under which jobs of this client are known to be alive; "" where nobody need know."""
    workers: int
    """Tasks that run at a time, for planning."""
    width: int
    """Most lanes of a stage."""
    memory_mb: int
    """Memory of a worker, for planning; MiB."""
    hints: bool
    """Whether commits are hinted, so that polling may start slowly."""
    helps: bool
    """Whether this process is itself a worker, whose waiting tasks run chunks of their jobs."""

    def connect(self, listener: Listener) -> None:
        """Tell *listener* from now on; called once, before anything else."""
        ...

    def invoke(self, event: "Event") -> None:
        """Launch an event."""
        ...

    def withdraw(self, job: str) -> bool:
        """Drop the job's events that have not begun; False if one has, or nobody knows."""
        ...

    def has_begun(self, job: str) -> bool:
        """Whether an event of the job is known to have begun and not ended."""
        ...

    def help(self, job: str) -> bool:
        """Run a queued event of a job in this very thread, if this is a waiting task and there is
        one; whether it did.
        """
        ...

    def close(self) -> None:
        """Stop what was started."""
        ...


@runtime_checkable
class MemoryLimited(Protocol):
    """A backend whose workers have a memory that is known."""

    def check_memory(self, memory_mb: int) -> None:
        """Refuse a limit of a task that is more than a worker has.

        Raises:  ValueError: naming what gives them more.
        """
        ...


@runtime_checkable
class RemoteBackend(Backend, Protocol):
    """A backend of machines that are not this one: what is refused is refused before launch."""

    def invoke_all(self, events: "Sequence[Event]") -> None:
        """Launch several events, side by side."""
        ...

    def check(self, submission: "Submission", exclude: Sequence[str]) -> None:
        """Refuse a job that cannot run there.

        Args:  exclude: modules that the user says are not needed there.
        """
        ...

    def check_access(self, reads: Iterable[str], writes: Iterable[str]) -> None:
        """Refuse inputs and outputs that cannot be reached from there."""
        ...

    def watch(self, job: "TrackedJob", is_new: bool) -> Callable[[], None]:
        """Return what is called at every look at a job that found nothing new.

        Args:  is_new: whether it is launched now; else it may be at rest for long.
        """
        ...
