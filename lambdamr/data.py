"""References to stored objects."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lambdamr.packing import packed_data


@dataclass(frozen=True, slots=True)
class Data:
    """A stored object that travels as a reference; tasks see the object itself.

    Made by `executor.put`.
    """

    key: str
    size: int
    """Bytes, as stored."""
    modules: frozenset[str] = field(default=frozenset(), repr=False)
    """Names of modules that the object needs: shipped with the functions that get it."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        from lambdamr_runtime.references import load_data

        packed_data(self.key, self.modules)
        return load_data, (self.key,)
