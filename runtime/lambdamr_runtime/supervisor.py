"""The supervisor: what the platform says of a failed invocation becomes a repair of its lane.

    worker ── killed, raised, dropped ──▶ failure record ──▶ Failure ──▶ Death
                                                                          │
    worker ◀── invoke: the same event with that death ◀── repair ─────────┤
    client ◀── tombstone and report ◀── what no repair would mend ────────┘

A worker that is invoked with a death records it and goes on, as after a death that its own watchdog
saw: the supervisor adds no second way to fail. It decides what a worker cannot know: which chunk
a vanished sandbox had at hand, and when repeating has become useless.
"""

import enum
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lambdamr_runtime.attempts import is_recorded
from lambdamr_runtime.barrier import Report, end_job, repeat_bad_end
from lambdamr_runtime.chunk import StageRun
from lambdamr_runtime.clock import Clock
from lambdamr_runtime.errors import CorruptObject, RuntimeMismatch
from lambdamr_runtime.keys import JobKeys, is_job_id, last_number
from lambdamr_runtime.limits import INFRASTRUCTURE_RETRIES, LOG_BYTES
from lambdamr_runtime.store import Store
from lambdamr_runtime.wire import MALFORMED, Death, DeathCause, Event, Manifest

DROPPED = "EventAgeExceeded"
"""Condition of a record whose event was never run: it waited longer than its age."""

_TIMED_OUT = re.compile(r"Task timed out after ([\d.]+) seconds")
_ENDED = re.compile(r"Runtime exited|Process exited|exit status|signal: ")

USELESS = {
    "Runtime.ImportModuleError": "Run `lambdamr deploy-runtime`.",
    "Runtime.HandlerNotFound": "Run `lambdamr deploy-runtime`.",
    "Runtime.UserCodeSyntaxError": "Run `lambdamr deploy-runtime`.",
    "Runtime.InvalidEntrypoint": "Run `lambdamr deploy-runtime`.",
    "RuntimeMismatch": "Run `lambdamr deploy-runtime`.",
    "CorruptObject": "Run the job again.",
    "InvocationRefused": "Run `lambdamr doctor`.",
}
"""Errors that every repetition would meet again, and what mends them."""


class Verdict(enum.Enum):
    """What came of a failure record."""

    REPAIRED = "the lane was invoked again"
    ENDED = "the job was ended"
    NOTHING = "the job had ended, or is gone"


@dataclass(frozen=True, slots=True)
class Failure:
    """What the platform says of an invocation that failed."""

    payload: bytes
    """The event, as it was sent."""
    condition: str
    """RetriesExhausted or EventAgeExceeded."""
    error_type: str = ""
    message: str = ""
    request: str = ""
    """Id of the invocation."""
    function: str = ""
    """ARN of the function that failed, its qualifier included."""

    @classmethod
    def decode(cls, record: Mapping[str, Any]) -> "Failure":
        """Parse the record of an on-failure destination.

        Raises:  CorruptObject: it is none.
        """
        try:
            context = record["requestContext"]
            answer = record.get("responsePayload") or {}
            if not isinstance(answer, Mapping):
                answer = {"errorMessage": str(answer)}
            return cls(
                json.dumps(record["requestPayload"]).encode(),
                str(context["condition"]),
                str(answer.get("errorType") or ""),
                str(answer.get("errorMessage") or ""),
                str(context.get("requestId") or ""),
                str(context.get("functionArn") or ""),
            )
        except MALFORMED as error:
            raise CorruptObject(f"the failure record is not one of AWS Lambda: {error}") from error

    @property
    def cause(self) -> DeathCause:
        if self.error_type == "Sandbox.Timedout" or _TIMED_OUT.search(self.message):
            return DeathCause.TIMEOUT
        # Nobody but the kernel, out of memory, kills the runtime of a sandbox that goes on.
        if self.error_type == "Runtime.OutOfMemory" or "signal: killed" in self.message:
            return DeathCause.MEMORY
        if self.error_type == "Runtime.ExitError" or _ENDED.search(self.message):
            return DeathCause.CRASH
        return DeathCause.LOST

    @property
    def detail(self) -> str:
        """What happened, as it goes on after "stopped:" or "ended by"."""
        if self.condition == DROPPED:
            return "the age of its event: it waited too long for a free place (concurrency limit)"
        text = self.message.partition(self.request)[2] if self.request else ""
        text = (text or self.message).strip(" :").removeprefix("Error: ")
        if self.cause is DeathCause.TIMEOUT:
            return f"the time limit of the function: {text}"
        if self.cause is DeathCause.MEMORY:
            return f"the memory limit of the function: {text}"
        return f"the end of its sandbox: {self.error_type or 'an error'}: {text}"

    @property
    def execution(self) -> str:
        """Return a name for what failed: a record that comes twice tells of one death. "" of a
        record that does not say which invocation it is of.
        """
        if not self.request:
            return ""
        import hashlib  # OpenSSL is slow to load, and few records come

        return hashlib.blake2s(self.request.encode(), digest_size=8).hexdigest()

    @property
    def useless(self) -> str:
        """Return why a repetition would fail the same way and what mends it, or ""."""
        named = (self.error_type, self.message.partition(":")[0])
        advice = next((USELESS[name] for name in named if name in USELESS), "")
        if not advice and "recursive" in f"{self.condition} {self.message}".lower():
            advice = "Run `lambdamr doctor`."
        text = f"{self.error_type or self.condition}: {self.message}".rstrip(" .")
        return f"{text}. {advice}" if advice else ""


def supervise(
    record: Mapping[str, Any],
    store: Store,
    invoke: Callable[[Event], None],
    clock: Clock,
    log: str = "",
) -> Verdict:
    """Repair what a failed invocation left undone, or end its job.

    May be repeated: a repair looks for outcomes before it runs anything.

    Args:    record: of an on-failure destination. invoke: launches an event; raises if it cannot.
             log: tail of what the failed invocation logged, for the error.
    Raises:  CorruptObject: the record is none, or its event none of ours.
    """
    failure = Failure.decode(record)
    try:
        event = Event.decode(failure.payload)
        keys = JobKeys(event.job)
        has_tombstone = store.exists(keys.cancelled)
        if not has_tombstone and store.exists(keys.report):
            return Verdict.NOTHING
        run = StageRun.of(Manifest.decode(store.get(keys.manifest), keys.manifest), event.stage)
        if has_tombstone:
            repeat_bad_end(store, run)
            return Verdict.NOTHING
    except FileNotFoundError:  # nobody can run a job that was deleted
        return Verdict.NOTHING
    except RuntimeMismatch as error:  # as the worker said too
        return _end(store, _job_of(failure.payload), str(error), clock)
    if failure.useless:
        return _end(store, event.job, failure.useless, clock)
    repair = _repair(event, run, failure, store, log)
    if repair.attempt > INFRASTRUCTURE_RETRIES:
        reason = (
            f"Lane {event.lo} of stage {run.stage.name!r} could not be run: its "
            f"invocations failed {repair.attempt + 1} times in a row without a result, the last "
            f"was ended by {failure.detail}."
        )
        return _end(store, event.job, reason, clock)
    invoke(repair.sent(clock.time()))
    return Verdict.REPAIRED


def _repair(event: Event, run: StageRun, failure: Failure, store: Store, log: str) -> Event:
    """Return the event that goes on where the failed one was."""
    chunks = event.only or run.plan.chunks_of(event.lo)
    position = _first_open(event, run, chunks, store)
    is_stuck = position == event.cursor
    news: Death | None = None
    death = Death(failure.cause, failure.detail, execution=failure.execution, log=log[-LOG_BYTES:])
    if position == len(chunks):
        news = death
    # A record that comes late once more: what it was held against may be committed by now.
    elif not (failure.execution and is_recorded(store, run.keys, failure.execution)):
        news = _blamed(death, run, chunks[position], is_stuck)
    # An event with a death was a repair already: it has not come beyond its first chunk.
    attempt = event.attempt + 1 if is_stuck and event.death is not None else 0
    return replace(event, cursor=position, attempt=attempt, repair=True, death=news)


def _first_open(event: Event, run: StageRun, chunks: Sequence[int], store: Store) -> int:
    """Return the position of the first chunk without outcome, or the number of chunks."""
    done = {
        last_number(entry.key)
        for group in {run.plan.group_of(chunk) for chunk in chunks}
        for entry in store.list(run.keys.outcomes(group))
    }
    following = range(event.cursor, len(chunks))
    return next((i for i in following if chunks[i] not in done), len(chunks))


def _blamed(death: Death, run: StageRun, chunk: int, is_first: bool) -> Death:
    """Return the death of a sandbox that had *chunk* at hand.

    A limit is final for a task that was alone: of several, nobody knows which one reached it. One
    that was begun late had less than the whole time; it is begun first the next time.

    Args:  is_first: whether the invocation began with this chunk.
    """
    tasks = run.plan.tasks_of(chunk)
    is_guilty = death.cause is DeathCause.MEMORY or (death.cause is DeathCause.TIMEOUT and is_first)
    if len(tasks) == 1 and is_guilty:
        return replace(death, chunk=chunk, task=tasks.start)
    return replace(death, cause=DeathCause.LOST, chunk=chunk)


def _end(store: Store, job: str, reason: str, clock: Clock) -> Verdict:
    end_job(store, JobKeys(job), Report("failed", reason, clock.time()))
    return Verdict.ENDED


def _job_of(payload: bytes) -> str:
    """Return the job of an event of another release.

    Raises:  CorruptObject: it is no event of ours.
    """
    try:
        job = json.loads(payload)["job"]
        if is_job_id(job):
            return str(job)
    except MALFORMED as error:
        raise CorruptObject(f"the failed event is not one of ours: {error}") from error
    raise CorruptObject(f"the failed event is not one of ours: its job is {job!r}")
