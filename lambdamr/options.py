"""Options as callers give them: checked, and as plain numbers, whatever numpy made them."""

import operator
from numbers import Integral, Real
from typing import SupportsIndex


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
