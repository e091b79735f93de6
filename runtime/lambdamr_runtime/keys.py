"""The name of every object that lambdamr stores, relative to the root.

functions/{sha}                      jobs/{job}/job.json · cancelled · report.json
                                     jobs/{job}/placed · withdrawn · logs/wanted
                                     jobs/{job}/logs/{stage number}/{chunk}
data/{sha}                           jobs/{job}/{stage}/args
shuffle/{hex}/{job}/{stage}/         jobs/{job}/{stage}/outcomes/{group}/{chunk}
    {task}.{execution}               jobs/{job}/{stage}/attempts/{chunk}/{attempt}.{execution}
jobs/{job}/output/                   jobs/{job}/{stage}/results/{chunk}.{execution}
    part-{partition}.{execution}[.{format}]
                                     jobs/{job}/{stage}/launched/{lo}-{hi}
                                     jobs/{job}/{stage}/groups/{group} · failed/{chunk}
                                     jobs/{job}/{stage}/done · next
"""

import os
import re
import time
from collections.abc import Callable

from lambdamr_runtime.errors import CorruptObject
from lambdamr_runtime.frozen import frozen

JOBS = "jobs/"
FUNCTIONS = "functions/"
DATA = "data/"
SHUFFLE = "shuffle/"
INPUTS = "inputs/"

_JOB_ID = re.compile(r"\d{8}-\d{6}-[0-9a-f]{12}")
_SHA = re.compile(r"[0-9a-f]{64}")


_random_bytes: Callable[[int], bytes] = os.urandom


def draw_from(source: Callable[[int], bytes] = os.urandom) -> None:
    """Take the randomness of ids from *source* from now on: a simulation repeats its histories."""
    global _random_bytes
    _random_bytes = source


def new_job_id(now_s: float) -> str:
    """Return a fresh job id; ids sort by the second they were made in (UTC)."""
    return time.strftime("%Y%m%d-%H%M%S-", time.gmtime(now_s)) + _random_bytes(6).hex()


def is_job_id(name: str) -> bool:
    """Whether a name can be one that new_job_id made: others lie there by mistake."""
    return _JOB_ID.fullmatch(name) is not None


def is_sha(name: str) -> bool:
    """Whether a name can be that of a function or data object."""
    return _SHA.fullmatch(name) is not None


def new_execution_id() -> str:
    """Return the name of one actual run: 8 random bytes as 16 hex digits, never derived."""
    return _random_bytes(8).hex()


def function_key(sha: str) -> str:
    return f"{FUNCTIONS}{sha}"


def data_key(sha: str) -> str:
    return f"{DATA}{sha}"


def input_key(sha: str, name: str) -> str:
    """Of an uploaded file: the name tells what is in it, by its suffix."""
    return f"{INPUTS}{sha}/{name}"


@frozen
class StageKeys:
    """The keys of one stage of one job."""

    job: str
    stage: str

    @property
    def _base(self) -> str:
        return f"{JOBS}{self.job}/{self.stage}/"

    @property
    def args(self) -> str:
        return f"{self._base}args"

    @property
    def done(self) -> str:
        return f"{self._base}done"

    @property
    def next(self) -> str:
        return f"{self._base}next"

    @property
    def failures(self) -> str:
        """Prefix of the failure markers."""
        return f"{self._base}failed/"

    @property
    def groups(self) -> str:
        """Prefix of the group markers."""
        return f"{self._base}groups/"

    @property
    def all_outcomes(self) -> str:
        """Prefix of the outcomes of all groups."""
        return f"{self._base}outcomes/"

    def outcomes(self, group: int) -> str:
        """Prefix of the outcomes of one group."""
        return f"{self._base}outcomes/{group}/"

    def outcome(self, group: int, chunk: int) -> str:
        return f"{self._base}outcomes/{group}/{chunk}"

    @property
    def all_attempts(self) -> str:
        """Prefix of what failed attempts of all chunks left."""
        return f"{self._base}attempts/"

    def attempts(self, chunk: int) -> str:
        """Prefix of what failed attempts of a chunk left."""
        return f"{self._base}attempts/{chunk}/"

    def attempt(self, chunk: int, attempt: int, execution: str) -> str:
        return f"{self._base}attempts/{chunk}/{attempt}.{execution}"

    def results(self, chunk: int, execution: str) -> str:
        return f"{self._base}results/{chunk}.{execution}"

    def launched(self, lo: int, hi: int) -> str:
        return f"{self._base}launched/{lo}-{hi}"

    def group(self, group: int) -> str:
        return f"{self._base}groups/{group}"

    def failed(self, chunk: int) -> str:
        return f"{self._base}failed/{chunk}"

    def shuffle(self, task: int, execution: str) -> str:
        """Spread over sixteen prefixes by task and job, so that no prefix takes all writes."""
        import hashlib  # OpenSSL is slow to load, and only shuffle objects need it

        digit = hashlib.blake2s(f"{self.job}/{task}".encode(), digest_size=1).hexdigest()[0]
        return f"{SHUFFLE}{digit}/{self.job}/{self.stage}/{task}.{execution}"


@frozen
class JobKeys:
    """The keys of one job."""

    job: str

    @property
    def prefix(self) -> str:
        return f"{JOBS}{self.job}/"

    @property
    def manifest(self) -> str:
        return f"{self.prefix}job.json"

    @property
    def cancelled(self) -> str:
        return f"{self.prefix}cancelled"

    @property
    def report(self) -> str:
        return f"{self.prefix}report.json"

    @property
    def placed(self) -> str:
        """What the finalizer is about to write under output=."""
        return f"{self.prefix}placed"

    @property
    def withdrawn(self) -> str:
        """That has been removed again."""
        return f"{self.prefix}withdrawn"

    @property
    def logs_wanted(self) -> str:
        """Somebody wants to see what running tasks write."""
        return f"{self.prefix}logs/wanted"

    def live_logs(self, stage: int) -> str:
        """Prefix of what the running tasks of a stage show.

        Args:  stage: its number: the worker that writes these knows no name.
        """
        return f"{self.prefix}logs/{stage}/"

    def live_log(self, stage: int, chunk: int) -> str:
        """The tail of what the running task of a chunk has written."""
        return f"{self.live_logs(stage)}{chunk}"

    @property
    def shuffle_prefixes(self) -> tuple[str, ...]:
        return tuple(f"{SHUFFLE}{digit:x}/{self.job}/" for digit in range(16))

    def stage(self, stage: str) -> StageKeys:
        return StageKeys(self.job, stage)

    def part(self, partition: int, execution: str) -> str:
        return f"{self.prefix}output/part-{partition:05d}.{execution}"

    def file(self, partition: int, execution: str, suffix: str) -> str:
        """The same pairs in the format of output=."""
        return f"{self.part(partition, execution)}{suffix}"


def last_number(key: str) -> int:
    """Return the number that ends a key: the chunk of an outcome, the group of a marker.

    Raises:  CorruptObject: the key is none of ours.
    """
    try:
        return int(key.rpartition("/")[2])
    except ValueError:
        raise CorruptObject(f"{key} was not written by lambdamr; remove it.") from None
