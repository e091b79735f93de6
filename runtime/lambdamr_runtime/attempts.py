"""What failed attempts of a chunk leave for the next one.

An attempt object holds how the execution died and the frames of the tasks that it had finished,
so that one bad task neither reruns nor fails its siblings.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from zlib import crc32

from lambdamr_runtime import serialize
from lambdamr_runtime.errors import (
    CorruptObject,
    TaskFailed,
    TaskLost,
    TaskOutOfMemory,
    TaskTimeout,
)
from lambdamr_runtime.keys import StageKeys
from lambdamr_runtime.limits import INFRASTRUCTURE_RETRIES
from lambdamr_runtime.store import Store
from lambdamr_runtime.wire import (
    FINAL_CAUSES,
    MALFORMED,
    Death,
    DeathCause,
    Frame,
    FrameKind,
    as_record,
    decode_frames,
    encode_frames,
)


@dataclass(slots=True, eq=False, repr=False)
class History:
    """All earlier attempts of a chunk, merged."""

    frames: dict[int, Frame] = field(default_factory=dict)
    """Frames of finished tasks, by task."""
    deaths: list[Death] = field(default_factory=list)

    def verdict(self, task: int) -> Frame | None:
        """Return the frame that ends *task* for good, or None if it may (still) run.

        A time or memory limit is final at once, a crash after INFRASTRUCTURE_RETRIES more tries.
        A worker that vanished counts against every task that was not finished.
        """
        deaths = [death for death in self.deaths if death.task in (task, -1)]
        final = [death for death in deaths if death.cause in FINAL_CAUSES]
        if not final and len(deaths) <= INFRASTRUCTURE_RETRIES:
            return None
        last = final[0] if final else deaths[-1]
        error = failure_of(last, task, len(deaths))
        payload = serialize.plain_dumps(serialize.record_failure(error))
        log = last.log.encode("utf-8", "backslashreplace")
        return Frame(FrameKind.ERROR, payload, log)


IN_C = "It was in C code that was called without any Python code of yours, so there is no stack."


def failure_of(death: Death, task: int, tries: int) -> TaskFailed:
    """Return the error that a death means for the user."""
    stack = f"\n{death.stack}" if death.stack else ""
    log = serialize.shown_log(death.log.encode("utf-8", "backslashreplace"))
    tail = f"\nIts last output:\n{log}" if log else ""
    if death.cause is DeathCause.TIMEOUT:
        return TaskTimeout(
            f"Task {task} was stopped: {death.detail}. Raise timeout_s= or make the task "
            f"smaller. {f'It was at:{stack}' if stack else IN_C}{tail}"
        )
    if death.cause is DeathCause.MEMORY:
        return TaskOutOfMemory(
            f"Task {task} was stopped: {death.detail}. Raise memory_mb=, lower workers= or make "
            f"the task smaller.{stack}{tail}"
        )
    return TaskLost(
        f"Task {task} was lost: its process ended {tries} times, at last by {death.detail}."
        f"{stack}{tail}"
    )


def save_attempt(
    store: Store, keys: StageKeys, attempt: int, death: Death, frames: Mapping[int, Frame]
) -> None:
    """Write the attempt object of a dead execution; *death* names chunk and execution."""
    header = json.dumps({"death": as_record(death), "tasks": list(frames)}).encode()
    packed = encode_frames(list(frames.values()))
    checksum = crc32(packed, crc32(header))
    body = b"%d %d\n%b%b" % (len(header), checksum, header, packed)
    store.put(keys.attempt(death.chunk, attempt, death.execution), body)


def is_recorded(store: Store, keys: StageKeys, execution: str) -> bool:
    """Return whether the death of *execution* is held against a chunk of the stage already."""
    listed = store.list(keys.all_attempts)
    return any(entry.key.endswith(f".{execution}") for entry in listed)


def load_history(store: Store, keys: StageKeys, chunk: int) -> History:
    """Read all attempt objects of a chunk.

    Raises:  CorruptObject: one is not an attempt object.
    """
    history = History()
    for entry in sorted(store.list(keys.attempts(chunk)), key=lambda entry: entry.key):
        data = store.get(entry.key)
        try:
            numbers, _ = data[:64].split(b"\n", 1)
            size, checksum = map(int, numbers.split(b" "))
            begin = len(numbers) + 1
            end = begin + size
            if crc32(data[begin:]) != checksum:
                raise ValueError("its checksum differs")
            header = json.loads(data[begin:end])
            tasks = [int(task) for task in header["tasks"]]
            history.deaths.append(Death.decode(header["death"]))
        except MALFORMED as error:
            raise CorruptObject(f"{entry.key} is not an attempt object: {error}") from error
        frames = decode_frames(data[end:], len(tasks), entry.key)
        history.frames.update(zip(tasks, frames, strict=True))
    return history
