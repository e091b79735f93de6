"""The records that cross a process boundary, and their encoding.

Manifest (job.json) and Event are JSON: small, and readable where a person looks at them.
Outcome is a JSON header and a binary body of frames, one per task.
"""

import base64
import enum
import functools
import json
import struct
import sys
from collections.abc import Sequence
from typing import Any, TypeVar
from zlib import crc32

from lambdamr_runtime.errors import CorruptObject, RuntimeMismatch
from lambdamr_runtime.frozen import frozen, replace
from lambdamr_runtime.lanes import LanePlan

_Record = TypeVar("_Record", "Manifest", "Stage", "Event", "Death", "Outcome")

WIRE_VERSION = 1
PYTHON_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What parsing damaged bytes may raise; decoders turn all of it into CorruptObject."""

CLIENT = "client"
"""The worker of an outcome that cancels its chunk."""

MAX_TRIES = 0xFFFF
"""Most tries that a frame counts."""


class StageKind(enum.StrEnum):
    """What the tasks of a stage take and make."""

    CALL = "call"
    """One call of a function each."""
    FOLD = "fold"
    """One call each over neighbouring values of the stage before."""
    MAP = "map"
    """One split each; makes a shuffle object."""
    REDUCE = "reduce"
    """One partition each; makes an output part."""
    FINAL = "final"
    """One task; puts the files of the stage before where the user wants them."""


OURS = frozenset({StageKind.MAP, StageKind.REDUCE, StageKind.FINAL})
"""Stages whose values are records of ours; others are the user's, and may not load everywhere."""


@frozen
class Stage:
    """One stage of a job, as the manifest has it."""

    name: str
    kind: StageKind
    tasks: int
    chunksize: int
    width: int
    """Most lanes at a time."""
    function: str
    """sha256 of the function object."""
    inline_function: bytes = b""
    """The function object, where it is not stored as `functions/{sha}`."""
    inline_args: bytes = b""
    """Packed arguments; empty where the stage has none or they are stored."""
    has_args: bool = True
    """False for a stage whose tasks need nothing but their number."""
    serializer: str = "cloudpickle"
    timeout_s: float | None = None
    """Time limit of one task."""
    retries: int = 0
    """Tries after the first for a task whose function raises."""
    max_failures: int | None = None
    """Failed tasks that the stage survives; None: any number."""
    same_failures: bool = False
    """End the stage when its first SAME_FAILURES chunks all fail alike."""
    partitions: int = 0
    """MAP: partitions of every shuffle object; 0 where its tasks write the output parts."""
    memory_mb: int = 0
    """Memory of a worker, as planned; MiB. 0: PLANNED_MEMORY_MB."""
    limit_mb: int = 0
    """Memory limit of a task's process, MiB; 0: that of its worker."""
    input_bytes: int = 0
    """MAP: bytes of all input objects, for the receipt."""

    @property
    def plan(self) -> LanePlan:
        return LanePlan(self.tasks, self.chunksize, self.width)


@frozen
class Manifest:
    """A job: written once, first, never changed."""

    job: str
    stages: tuple[Stage, ...]
    created_s: float
    owner: str = ""
    """Local backend: the executor whose workers run the job."""
    python: str = PYTHON_VERSION
    timeout_s: float | None = None
    """Time limit of the whole job, from *created_s*."""

    @property
    def deadline_s(self) -> float:
        """When the job is over its time limit, seconds since the epoch; infinite without one."""
        return float("inf") if self.timeout_s is None else self.created_s + self.timeout_s

    @property
    def ends_with_report(self) -> bool:
        """Whether the job is over with its report alone: a map_reduce, or any of several stages."""
        return len(self.stages) > 1 or self.stages[0].kind is StageKind.MAP

    def encode(self) -> bytes:
        record = as_record(self)
        record["stages"] = [as_record(stage) for stage in self.stages]
        for stage in record["stages"]:
            for name in ("inline_function", "inline_args"):
                stage[name] = base64.b64encode(stage[name]).decode()
        return sealed({"v": WIRE_VERSION, **record})

    @classmethod
    def decode(cls, data: bytes, source: str) -> "Manifest":
        """Parse job.json.

        Raises:  RuntimeMismatch: another wire or Python version. CorruptObject: not a manifest.
        """
        record = _record(data, source)
        check_versions(record.pop("v", None), record.get("python"))
        _check_seal(data, record, source)
        try:
            stages = tuple(_stage(stage) for stage in record.pop("stages"))
            return _typed(cls(stages=stages, **record))
        except MALFORMED as error:
            raise CorruptObject(f"{source} is not a job manifest: {error}") from error


class DeathCause(enum.StrEnum):
    """Why an execution ended without an outcome."""

    CRASH = "crash"
    """The process ended by itself: a signal, an exit."""
    TIMEOUT = "timeout"
    """A task ran over its time limit; final."""
    MEMORY = "memory"
    """The process outgrew its memory; final."""
    LOST = "lost"
    """The whole worker is gone, nobody saw how."""
    CANCELLED = "cancelled"
    """The job was cancelled while it ran."""


FINAL_CAUSES = frozenset({DeathCause.TIMEOUT, DeathCause.MEMORY})


@frozen
class Death:
    """How an execution ended without an outcome."""

    cause: DeathCause
    detail: str
    """What the watchdog saw: a signal, an exit status, a limit and the value over it."""
    chunk: int = -1
    """The chunk that ran, or -1 if unknown."""
    task: int = -1
    """The task that ran, or -1 if unknown."""
    execution: str = ""
    """Of the chunk, or a name of what died before anything ran: the same death is told twice, and
    counts once."""
    stack: str = ""
    """The user's frames at the end, as faulthandler wrote them."""
    log: str = ""
    """Tail of stdout and stderr of the task that ran."""
    began_s: float = 0.0
    """When that task began, seconds since the epoch; 0 if unknown."""
    ended_s: float = 0.0
    """When its end was seen."""

    @classmethod
    def decode(cls, record: dict[str, Any]) -> "Death":
        return _typed(cls(**{**record, "cause": DeathCause(record["cause"])}))


@frozen
class Event:
    """One invocation: run lane *lo* of a stage and see that lanes (lo, hi) are launched."""

    job: str
    stage: int
    lo: int
    hi: int
    cursor: int = 0
    """Position in the lane's chunks at which to begin."""
    attempt: int = 0
    """Earlier executions that died at the chunk at *cursor*."""
    repair: bool = False
    """Look for outcomes before running, for `launched/` before launching."""
    only: tuple[int, ...] = ()
    """Run these chunks instead of a lane."""
    sent_s: float = 0.0
    """Seconds since the epoch."""
    expires: float = 0.0
    """Seconds since the epoch from which on others may have repaired what this event is to do: it
    runs as a repair then. 0: never."""
    depth: int = 0
    """Invocations in a row, each by the one before, from a client to this one."""
    manifest: bytes = b""
    """The encoded manifest, where it is small enough to ride along."""
    death: Death | None = None
    """How the execution before this one ended; it is recorded before anything runs."""

    def encode(self) -> bytes:
        record = as_record(self)
        record["death"] = as_record(self.death) if self.death else None
        record["manifest"] = self.manifest.decode()
        return json.dumps({"v": WIRE_VERSION, **record}).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Event":
        record = _record(data, "the event")
        check_versions(record.pop("v", None), PYTHON_VERSION)
        try:
            record["only"] = tuple(record["only"])
            record["manifest"] = record["manifest"].encode()
            record["death"] = Death.decode(record["death"]) if record["death"] else None
            return _typed(cls(**record))
        except MALFORMED as error:
            raise CorruptObject(f"the event is not one of ours: {error}") from error

    def repaired(self, cursor: int, attempt: int) -> "Event":
        """Return the event that continues this one after its execution died."""
        return replace(self, cursor=cursor, attempt=attempt, repair=True, death=None)

    def sent(self, now_s: float) -> "Event":
        """Return the event as it is when it is sent at *now_s*: its age begins anew."""
        expires = now_s + self.expires - self.sent_s if self.expires else 0.0
        return replace(self, sent_s=now_s, expires=expires)


class FrameKind(enum.IntEnum):
    """What a frame holds."""

    VALUE = 0
    ERROR = 1
    """A pickled `serialize.ErrorRecord`."""


@frozen
class Frame:
    """What one task left."""

    kind: FrameKind
    payload: bytes
    """The pickled value or error record."""
    log: bytes = b""
    """Tail of the task's stdout and stderr."""
    seconds: float = 0.0
    tries: int = 1
    """Calls of the user's function that this result took."""


_FRAME = struct.Struct("<BHfQI")


def encode_frames(frames: Sequence[Frame]) -> bytes:
    """Pack frames: a fixed-size row each, then the payloads and logs in the same order."""
    rows: list[bytes] = []
    blobs: list[bytes] = []
    for frame in frames:
        tries = min(frame.tries, MAX_TRIES)
        rows.append(
            _FRAME.pack(frame.kind, tries, frame.seconds, len(frame.payload), len(frame.log))
        )
        blobs.append(frame.payload)
        blobs.append(frame.log)
    return b"".join((*rows, *blobs))


def decode_frames(data: bytes, count: int, source: str) -> list[Frame]:
    """Unpack *count* frames.

    Raises:  CorruptObject: the bytes are not exactly that many frames.
    """
    frames: list[Frame] = []
    try:
        at = count * _FRAME.size
        for row in range(count):
            kind, tries, seconds, size, log_size = _FRAME.unpack_from(data, row * _FRAME.size)
            end = at + size
            frames.append(
                Frame(FrameKind(kind), data[at:end], data[end : end + log_size], seconds, tries)
            )
            at = end + log_size
    except MALFORMED as error:
        raise CorruptObject(f"{source} does not hold {count} task results: {error}") from error
    if at != len(data):
        raise CorruptObject(f"{source} holds {len(data)} bytes of results, {at} announced")
    return frames


@frozen
class Outcome:
    """THE result of a chunk: created once, never rewritten."""

    chunk: int
    execution: str
    attempt: int
    """Executions of the chunk that died before."""
    count: int
    """Tasks of the chunk."""
    failed: int
    """How many of them failed."""
    started_s: float
    seconds: float
    peak_mb: float
    """Peak resident memory of the process so far."""
    worker: str
    """Name of the process that ran it; CLIENT where the client cancelled it."""
    frames: bytes = b""
    """Encoded frames; empty where they are in `results`."""
    results: str = ""
    """Key of the object that holds the frames, where they are too large for the outcome."""
    results_checksum: int = 0
    """crc32 of that object."""
    queued_s: float = 0.0
    """From the sending of the event to its begin, the cold start left out; 0 but for the first
    chunk that the event ran."""
    cold_s: float = 0.0
    """How long that chunk waited for its process to start; 0 where it was warm."""
    load_s: float = 0.0
    """Reading and unpickling function and arguments."""
    write_s: float = 0.0
    """Storing results of a size of their own; the outcome itself is not in it."""

    def encode(self) -> bytes:
        """Encode what goes behind the execution stamp."""
        record = as_record(self)
        del record["frames"], record["execution"]
        header = json.dumps(record).encode()
        checksum = _checksum(self.execution.encode(), header, self.frames)
        return b"%d %d\n%b%b" % (len(header), checksum, header, self.frames)

    @classmethod
    def decode(cls, stamped: bytes, source: str) -> "Outcome":
        """Parse a stored outcome, stamp included.

        Raises:  CorruptObject: it is not one.
        """
        try:
            stamp, numbers, _ = stamped[:64].split(b"\n", 2)
            size, checksum = map(int, numbers.split(b" "))
            begin = len(stamp) + len(numbers) + 2
            header, frames = stamped[begin : begin + size], stamped[begin + size :]
            if _checksum(stamp, header, frames) != checksum:
                raise ValueError("its checksum differs")
            record = json.loads(header)
            return _typed(cls(execution=stamp.decode(), frames=frames, **record))
        except MALFORMED as error:
            raise CorruptObject(f"{source} is not an outcome: {error}") from error

    def unpack(self, stored: bytes, source: str) -> list[Frame]:
        """Return the frames; *stored* is the object that `results` names, if it names one.

        Raises:  CorruptObject: they are not the frames of this outcome.
        """
        if self.results and crc32(stored) != self.results_checksum:
            raise CorruptObject(f"{source} is damaged: its checksum differs")
        return decode_frames(stored if self.results else self.frames, self.count, source)


def _checksum(*parts: bytes) -> int:
    """Return the crc32 of the parts in a row."""
    checksum = 0
    for part in parts:
        checksum = crc32(part, checksum)
    return checksum


def check_versions(wire: object, python: object) -> None:
    """Raise RuntimeMismatch unless both are this runtime's own."""
    if wire != WIRE_VERSION:
        raise RuntimeMismatch(
            f"This runtime speaks wire version {WIRE_VERSION}, the job {wire}. "
            "Install the same release of lambdamr on both sides."
        )
    if python != PYTHON_VERSION:
        raise RuntimeMismatch(
            f"This runtime is Python {PYTHON_VERSION}, the job was made with Python {python}. "
            "Use the same minor version on both sides."
        )


_SEAL = b'{"checksum": %d, '


def sealed(record: dict[str, Any]) -> bytes:
    """Return a record (Any: for JSON) that begins with the checksum of what follows: one digit
    changed, it would be another record.
    """
    rest = json.dumps(record).encode()[1:]
    return _SEAL % crc32(rest) + rest


def unsealed(data: bytes, source: str) -> dict[str, Any]:
    """Parse a sealed record.

    Raises:  CorruptObject: it is none, or not what was written.
    """
    record = _record(data, source)
    _check_seal(data, record, source)
    return record


def _check_seal(data: bytes, record: dict[str, Any], source: str) -> None:
    """Take the checksum out of a record, and check that it is that of the rest."""
    checksum = record.pop("checksum", None)
    if isinstance(checksum, int) and not isinstance(checksum, bool):
        seal = _SEAL % checksum
        if data.startswith(seal) and crc32(data[len(seal) :]) == checksum:
            return
    raise CorruptObject(f"{source} is damaged: its checksum differs")


def as_record(each: Any) -> dict[str, Any]:
    """Return the fields of a dataclass with slots, as they are: `asdict` copies all of them deeply.

    Any: JSON in the making.
    """
    return {name: getattr(each, name) for name in each.__slots__}


def _record(data: bytes, source: str) -> dict[str, Any]:
    """Any: JSON, checked field by field where it is used."""
    try:
        record = json.loads(data)
    except MALFORMED as error:
        raise CorruptObject(f"{source} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise CorruptObject(f"{source} is not a JSON object")
    return record


def _stage(record: dict[str, Any]) -> Stage:
    for name in ("inline_function", "inline_args"):
        record[name] = base64.b64decode(record[name])
    stage = _typed(Stage(**{**record, "kind": StageKind(record["kind"])}))
    if stage.tasks < 0 or stage.chunksize < 1 or stage.width < 1:
        raise ValueError(f"stage {stage.name!r} cannot be divided into lanes")
    return stage


def _typed(record: _Record) -> _Record:
    """Return *record*, whose fields came from JSON, if they have the types that we write.

    Raises:  TypeError: naming the field.
    """
    cls: Any = type(record)  # Any: mypy takes the __hash__ of its instances for the class's own
    for name, accepted in _accepted(cls):
        value = getattr(record, name)
        if not isinstance(value, accepted):
            raise TypeError(f"{name} is {value!r:.40}")
    return record


@functools.cache
def _accepted(cls: type) -> tuple[tuple[str, Any], ...]:
    """Return what `isinstance` takes for each field; JSON of others may have 1 for 1.0."""
    known: dict[Any, Any] = {
        float: float | int,
        float | None: float | int | None,
        tuple[int, ...]: tuple,
        tuple[Stage, ...]: tuple,
    }
    return tuple((name, known.get(kind, kind)) for name, kind in cls.__annotations__.items())
