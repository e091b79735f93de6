"""Reducers for map_reduce that combine on the map side: `reducer=lambdamr.reducers.sum`."""

from lambdamr_runtime.reducers import (
    Reducer,
    collect,
    count,
    fold,
    max,  # noqa: A004 - lambdamr.reducers.max is its name; so for the others
    mean,
    min,  # noqa: A004
    sum,  # noqa: A004
    top,
    unique,
)

__all__ = [
    "Reducer",
    "collect",
    "count",
    "fold",
    "max",
    "mean",
    "min",
    "sum",
    "top",
    "unique",
]
