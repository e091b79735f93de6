"""What the tasks of a stage do: the object that a function object holds.

Every kind of work has `run(env, task, arg)`; its class belongs to the runtime and is pickled by
reference, the user's functions inside it by value.
"""

from collections.abc import Callable
from typing import Any, Protocol

from lambdamr_runtime.frozen import frozen
from lambdamr_runtime.keys import StageKeys
from lambdamr_runtime.lanes import LanePlan
from lambdamr_runtime.references import load_result
from lambdamr_runtime.serialize import Dumps, loads
from lambdamr_runtime.store import Store
from lambdamr_runtime.wire import Manifest, Stage


@frozen
class TaskEnv:
    """Where a task runs."""

    store: Store
    manifest: Manifest
    index: int
    """Of the stage in the manifest."""
    execution: str
    dumps: Dumps
    """Pickles values that the task stores."""

    @property
    def stage(self) -> Stage:
        return self.manifest.stages[self.index]

    def stage_keys(self, index: int) -> StageKeys:
        return StageKeys(self.manifest.job, self.manifest.stages[index].name)

    @property
    def memory_mb(self) -> int:
        """Memory of the worker, MiB, as it was planned."""
        return self.stage.memory_mb

    @property
    def source(self) -> Stage:
        """The stage before."""
        return self.manifest.stages[self.index - 1]


class Work(Protocol):
    """The work of one stage."""

    @property
    def retry_on(self) -> tuple[type[BaseException], ...]:
        """Exceptions of the user's function that `retries` repeat."""

    def run(self, env: TaskEnv, task: int, arg: Any) -> Any:
        """Do one task; *arg* is what the client packed for it, None for a stage without."""
        ...


@frozen
class Deferred:
    """The argument of one task that is unpickled when the task begins: since it holds futures, and
    what one of them raised fails this task, not the others of its chunk; or since it is run again.
    """

    data: bytes
    position: int = -1
    """Which of the pickled list it is; -1: it is what was pickled."""

    def load(self, loads: Callable[[bytes], Any] = loads) -> Any:
        """Return the argument."""
        value = loads(self.data)
        if self.position >= 0:
            value = value[self.position]
        return value.load(loads) if isinstance(value, Deferred) else value


@frozen
class Call:
    """One call of a function; the argument is (args, kwargs)."""

    fn: Callable[..., Any]
    retry_on: tuple[type[BaseException], ...] = (Exception,)

    def run(self, env: TaskEnv, task: int, arg: Any) -> Any:  # noqa: ARG002 - the protocol's
        args, kwargs = arg
        return self.fn(*args, **kwargs)


@frozen
class Fold:
    """One call over *arity* neighbouring values: a level of a reduction tree."""

    fn: Callable[[list[Any]], Any]
    arity: int
    retry_on: tuple[type[BaseException], ...] = (Exception,)

    def run(self, env: TaskEnv, task: int, arg: Any) -> Any:  # noqa: ARG002 - the protocol's
        first = task * self.arity
        last = min(first + self.arity, env.source.tasks)
        return self.fn([self._value(env, source) for source in range(first, last)])

    def _value(self, env: TaskEnv, task: int) -> Any:
        plan: LanePlan = env.source.plan
        chunk = plan.chunk_of(task)
        key = env.stage_keys(env.index - 1).outcome(plan.group_of(chunk), chunk)
        return load_result(key, task - plan.tasks_of(chunk).start)
