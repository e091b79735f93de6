"""Options as callers give them: checked, and as plain numbers, whatever numpy made them."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, SupportsIndex, TypeVar, cast

from lambdamr_runtime.limits import LEAST_MEMORY_MB

_T = TypeVar("_T")

STAGES = ("map", "reduce")
"""Of a map_reduce: what limits of its tasks may be given for, each by itself."""

ErrorTypes = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Limits of one call, its retries, and the failures that it survives; as of Executor.map.

    Raises:  TypeError, ValueError: a value that cannot be meant.
    """

    retries: int = 0
    retry_on: ErrorTypes = (Exception,)
    return_exceptions: bool = False
    max_failures: int | float | None = None
    timeout_s: float | Mapping[str, float] | None = None
    job_timeout_s: float | None = None
    memory_mb: int | Mapping[str, int] | None = None
    default_s: float | None = None
    """Time limit of a task where none is given: the executor's."""

    def __post_init__(self) -> None:
        plain: dict[str, object] = {
            "retries": as_count("retries", self.retries, least=0) or 0,
            "timeout_s": _each("timeout_s", self.timeout_s, as_seconds),
            "job_timeout_s": as_seconds("job_timeout_s", self.job_timeout_s),
            "memory_mb": _each("memory_mb", self.memory_mb, as_memory_mb),
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in self._on):
            raise TypeError(f"retry_on must be exception classes, got {self.retry_on!r}")
        self.allowed_failures(0)  # raises for what cannot be meant

    @property
    def _on(self) -> tuple[object, ...]:
        return self.retry_on if isinstance(self.retry_on, tuple) else (self.retry_on,)

    @property
    def retried(self) -> tuple[type[BaseException], ...]:
        """retry_on, as what `isinstance` takes."""
        return cast("tuple[type[BaseException], ...]", self._on)

    def timeout_of(self, stage: str) -> float | None:
        """Return the time limit of a task of a stage, seconds."""
        given = self.timeout_s
        limit_s = given.get(stage) if isinstance(given, Mapping) else given
        return self.default_s if limit_s is None else limit_s

    def memory_of(self, stage: str) -> int:
        """Return the memory limit of a task of a stage, MiB; 0: that of its worker."""
        given = self.memory_mb
        return (given.get(stage) if isinstance(given, Mapping) else given) or 0

    def allowed_failures(self, tasks: int) -> int | None:
        """Return how many of so many tasks may fail; None: any number."""
        return as_allowed_failures(self.max_failures, tasks)


def _each(
    name: str, given: Any, convert: Callable[[str, Any], _T | None]
) -> _T | dict[str, _T | None] | None:
    """Return an option that is given for all stages or, as a mapping, for some of them.

    Any: what a caller gave. Raises: as *convert*; ValueError: a stage that there is not.
    """
    if not isinstance(given, Mapping):
        return convert(name, given)
    if not set(given) <= set(STAGES):
        raise ValueError(f"{name} may be given for {' and '.join(STAGES)}, got {dict(given)!r}")
    return {stage: convert(f"{name}[{stage!r}]", each) for stage, each in given.items()}


def check_callable(fn: object) -> None:
    """Raise TypeError unless *fn* can be called."""
    if not callable(fn):
        raise TypeError(f"the function must be callable, got {type(fn).__name__}: {fn!r}")


def as_names(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return names as a tuple, one name as one of them."""
    return (given,) if isinstance(given, str) else tuple(given)


def as_count(name: str, given: SupportsIndex | None, least: int = 1) -> int | None:
    """Return a whole number as an int, None as None.

    Raises:  TypeError: no whole number. ValueError: below *least*.
    """
    if given is None:
        return None
    try:
        count = operator.index(given)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {given!r}") from None
    if count < least:
        raise ValueError(f"{name} must be >= {least}, got {count}")
    return count


def as_memory_mb(name: str, given: SupportsIndex | None) -> int | None:
    """Return a memory limit as an int, MiB, None as None; raises as as_count."""
    return as_count(name, given, LEAST_MEMORY_MB)


def as_seconds(name: str, given: object) -> float | None:
    """Return a time as a float, None as None.

    Raises:  TypeError: no number. ValueError: not positive.
    """
    if given is None:
        return None
    if not isinstance(given, Real):
        raise TypeError(f"{name} must be a number of seconds, got {given!r}")
    seconds = float(given)
    if not seconds > 0:  # NaN too
        raise ValueError(f"{name} must be positive, got {seconds}")
    return seconds


def as_allowed_failures(max_failures: object, tasks: int) -> int | None:
    """Return how many tasks may fail, of a number or a share; None as None.

    Raises:  TypeError: no number. ValueError: out of range.
    """
    if max_failures is None:
        return None
    if not isinstance(max_failures, Real):
        raise TypeError(f"max_failures must be a number, got {max_failures!r}")
    if isinstance(max_failures, Integral) and int(max_failures) >= 0:
        return int(max_failures)
    share = float(max_failures)
    if isinstance(max_failures, Integral) or not 0 <= share < 1:
        raise ValueError(
            f"max_failures must be a number of tasks or a share below 1.0, got {max_failures!r}"
        )
    return int(share * tasks + 1e-9)  # as it is written: 0.29 * 100 is a little less than 29
