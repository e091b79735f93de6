"""What failed of a job, with what is needed to find out why."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lambdamr_runtime.errors import JobFailed

if TYPE_CHECKING:
    from lambdamr.futures import Future
    from lambdamr.stats import TaskStats


@dataclass(frozen=True, slots=True, repr=False)
class Failure:
    """A task that failed."""

    job_id: str
    stage: str
    """"map", "submit", "reduce", …"""
    task: int
    """Its number within the stage."""
    exception: BaseException
    log: str
    """Tail of what it wrote to stdout and stderr."""
    stats: "TaskStats | None"
    """None for a task that was not run."""
    future: "Future" = field(compare=False)

    @property
    def input(self) -> Any:
        """What the task was given, read from the store: the item of a `map`, a tuple of several
        arguments, (args, kwargs) where there are keywords; the splits or items of a map task; None
        for a task that is known by its number alone (a partition).

        Raises:  whatever loading it raises, as it would in a worker. CorruptObject: it is gone.
        """
        from lambdamr.arguments import input_of

        stage = self.future.stage
        return input_of(stage.job.backend.store, stage.run, self.task)

    @property
    def traceback(self) -> TracebackType | None:
        """The remote traceback, for a debugger."""
        return self.future.traceback

    def __repr__(self) -> str:
        error = f"{type(self.exception).__name__}: {self.exception}".partition("\n")[0]
        return f"<Failure job={self.job_id} {self.stage} task {self.task}: {error}>"


def failures_of(futures: "Iterable[Future]") -> list[Failure]:
    """Return what failed of futures that are done, in their order.

    Tasks that were not run, since others had failed, are left out; all of them are there where
    none failed by itself. Cancelled ones are no failures.
    """
    failed = [
        (future, error)
        for future in futures
        if not future.cancelled() and (error := future.exception(0)) is not None
    ]
    own = [(future, error) for future, error in failed if not isinstance(error, JobFailed)]
    return [
        Failure(
            future.job_id,
            future.stage.run.stage.name,
            future.task,
            error,
            future.logs(),
            future.stats,
            future,
        )
        for future, error in own or failed
    ]
