"""What a call may be told: limits, retries, and how many failures it survives."""

from dataclasses import dataclass
from typing import cast

ErrorTypes = type[BaseException] | tuple[type[BaseException], ...]


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options of one call; fields as of Executor.map.

    Raises:  TypeError, ValueError: a value that cannot be meant.
    """

    retries: int = 0
    retry_on: ErrorTypes = (Exception,)
    return_exceptions: bool = False
    max_failures: int | float | None = None
    timeout_s: float | None = None
    job_timeout_s: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.retries, int):
            raise TypeError(f"retries must be a number, got {self.retries!r}")
        if self.retries < 0:
            raise ValueError(f"retries must be >= 0, got {self.retries}")
        check_positive(timeout_s=self.timeout_s, job_timeout_s=self.job_timeout_s)
        if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in self._on):
            raise TypeError(f"retry_on must be exception classes, got {self.retry_on!r}")
        allowed = self.max_failures
        if allowed is not None and (allowed < 0 or (self._is_share and allowed >= 1)):
            raise ValueError(
                f"max_failures must be a number of tasks or a share below 1.0, got {allowed!r}"
            )

    @property
    def _on(self) -> tuple[object, ...]:
        return self.retry_on if isinstance(self.retry_on, tuple) else (self.retry_on,)

    @property
    def _is_share(self) -> bool:
        return not isinstance(self.max_failures, int)

    @property
    def retried(self) -> tuple[type[BaseException], ...]:
        """retry_on, as what `isinstance` takes."""
        return cast("tuple[type[BaseException], ...]", self._on)

    def allowed_failures(self, tasks: int) -> int | None:
        """Return how many of so many tasks may fail; None: any number."""
        if self.max_failures is None:
            return None
        if not self._is_share:
            return int(self.max_failures)
        # A share is meant as it is written: 0.29 * 100 is a little less than 29.
        return int(self.max_failures * tasks + 1e-9)


def check_positive(**options: float | None) -> None:
    """Check that each option is a number above zero, or None."""
    for name, value in options.items():
        if value is None:
            continue
        if not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number, got {value!r}")
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value}")
