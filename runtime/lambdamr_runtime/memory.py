"""How much of a worker's memory the data of a task takes: measured, not guessed.

limit  ┌──────────────────────────────┐  memory_mb
       │ the user's code, encoding    │
mark   ├──────────────────────────────┤  base + share x (limit - base): the buffer is full
       │ the buffer                   │
base   ├──────────────────────────────┤  resident when the task begins
       │ Python, modules              │
       └──────────────────────────────┘
"""

import gc
import os
import resource
import sys

from lambdamr_runtime.limits import MIB, PLANNED_MEMORY_MB

SPILL_SHARE = 0.5
"""Share of the memory above the base that a buffer may fill. Not tuned: at a half, workers of
256 MB that spilled 4 million keys peaked at 156 to 186 MB."""

MAX_STEP = 512
"""Most pairs between two looks: a look costs 1.3 us, and 512 tuples stay in the cache; batches of
8,192 took half as long again per pair."""

STEP_SHARE = 1 / 32
"""A step that adds more than this share of the room is halved."""

REGROWTH_SHARE = 1 / 8
"""What a buffer may always add to what stays resident after a spill."""

RESIDENT_SHARE = 1 / 2
"""Memory fell after a spill if less than this share of the room stays resident."""

PATIENT_COLLECTION = (50_000, 20, 100)
"""When garbage is looked for while a task holds data: a dictionary of a million lists is none, and
to look at it again and again took 14 % of a map task that spilled, 27 % of the merge."""

_PAGE = resource.getpagesize()


def resident_bytes() -> int:
    """Return the resident memory of this process; its peak where the system tells no more."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def give_back() -> None:
    """Return freed memory to the system, so that it counts as free: glibc keeps half of it."""
    if sys.platform != "linux":
        return
    import ctypes  # 1.4 ms; only tasks with data come here

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Room:
    """The memory that one task's data may take, and when it is used up.

    A context manager: it holds a descriptor.

    Args:  memory_mb: limit of the worker; 0: PLANNED_MEMORY_MB. share: of what is free, 0 to 1.
    """

    def __init__(self, memory_mb: int, share: float) -> None:
        give_back()
        self._statm = _open_statm()
        self._resident = self._base = self._measured()
        limit = (memory_mb or PLANNED_MEMORY_MB) * MIB
        self.size = max(0, int(share * (limit - self._base)))
        """Bytes; 0 where the base alone is at the limit: then every look says full."""
        self._mark = self._base + self.size
        self._budget = 0
        self.step = 16 if self.size else 1
        """Pairs to add before the next look."""

    def is_full(self, weight: int) -> bool:
        """Look: whether what was added since the last spill fills the room.

        Args:  weight: what the buffer holds, in any unit that grows with its size.
        """
        before, self._resident = self._resident, self._measured()
        if self._resident - before > self.size * STEP_SHARE:
            self.step = max(1, self.step // 2)
        elif self.step < MAX_STEP and self.size:
            self.step *= 2
        full = self._resident >= self._mark or 0 < self._budget <= weight
        return full or not self.size

    def emptied(self, weight: int) -> None:
        """Begin again after a spill of that weight.

        Freed memory may stay resident, where the next buffer grows unseen: then the weight of the
        first spill is the budget of the later ones.
        """
        give_back()
        self._resident = self._measured()
        stuck = self._resident - self._base > self.size * RESIDENT_SHARE
        self._budget = (self._budget or weight) if stuck else 0
        self._mark = max(self._mark, self._resident + int(self.size * REGROWTH_SHARE))

    def __enter__(self) -> "Room":
        self._collection = gc.get_threshold()
        if gc.isenabled():
            gc.set_threshold(*PATIENT_COLLECTION)
        return self

    def __exit__(self, *_: object) -> None:
        gc.set_threshold(*self._collection)
        if self._statm >= 0:
            os.close(self._statm)
            self._statm = -1

    def _measured(self) -> int:
        if self._statm < 0:
            return resident_bytes()
        return int(os.pread(self._statm, 64, 0).split()[1]) * _PAGE


def _open_statm() -> int:
    """Open what tells the memory of this very process: a descriptor read with one call."""
    try:
        return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
