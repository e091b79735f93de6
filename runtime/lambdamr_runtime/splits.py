"""Splits: the unit of input that a map task reads."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Split:
    """A byte range of one object: it owns the records that begin in [lo, hi)."""

    root: str
    """Root of the object's store: a directory or s3://bucket."""
    key: str
    lo: int
    hi: int
    """Bytes, half-open, lo < hi <= size; an empty object that is read as a whole has lo = hi."""
    size: int
    """Bytes of the object."""
    etag: str
    """Of the object that was planned; empty where the store has none."""

    @property
    def uri(self) -> str:
        return f"{self.root.rstrip('/')}/{self.key}"

    @property
    def is_whole(self) -> bool:
        return self.hi - self.lo == self.size
