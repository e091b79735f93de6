"""A kept child process that runs tasks, and the parent that watches it.

    parent (watches)                      child (works)
    ───────────────                       ─────────────
    event ──────────── RUN ─────────────▶ worker.run(event): all store requests, all user code
    launch, take ◀──── INVOKE, TAKE ───── launch tree, next stages, nested jobs
    reads the page ◀── shared memory ──── which task runs, until when
    reads the files ◀─ shared files ───── output, stack at the end, finished frames
    event is over ◀─── ENDED ──────────── done, or "go on in a fresh process"

The child is forked before any store client exists, and the parent never opens one, so a new child
can be forked at any time. A crash, a time limit and a memory limit are all seen from outside, at
once or within CHECK_S, and the first one of a stage behind another without limits within
QUIET_CHECK_S; the next child records what happened and goes on with the lane.
"""

import _socket  # what socket is made of, which costs 4 ms of a start
import contextlib
import os
import resource
import signal
import time
from math import ceil
from typing import NoReturn, Protocol

from lambdamr_runtime.channel import Channel, Verb
from lambdamr_runtime.child import Settings, Shared, child_main
from lambdamr_runtime.errors import LambdamrError, StoreError
from lambdamr_runtime.frozen import replace
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.limits import (
    CHECK_S,
    END_RESERVE_S,
    END_RESERVE_SHARE,
    INFRASTRUCTURE_RETRIES,
    LATE_SHARE,
    QUIET_CHECK_S,
    TOMBSTONE_S,
)
from lambdamr_runtime.process import Running
from lambdamr_runtime.store import open_store
from lambdamr_runtime.wire import FINAL_CAUSES, Death, DeathCause, Event

_RUNTIME = os.path.dirname(__file__)

MOST_DESCRIPTORS = 1024
"""More than a worker's parent has open; what the system allows may be 2**30, and take 100 s."""

LOOKER_S = 30
"""How long a look for a tombstone may take, in a process of its own."""

KILLED_SHARE = 0.5
"""A process that the system killed, and that used this share of its limit, was out of memory."""


class Surroundings(Protocol):
    """Where the parent's events come from."""

    def invoke(self, events: bytes) -> None:
        """Launch events, one a line; raises if that fails."""
        ...

    def take(self, job: bytes) -> bytes:
        """Take a queued event of a job; b"" if there is none."""
        ...

    def is_gone(self) -> bool:
        """Whether nobody waits for this worker any more."""
        ...

    def remaining_s(self) -> float:
        """Seconds until the platform ends this worker; infinite where it does not."""
        ...


class Sandbox:
    """The parent's side: runs events in the child, replaces it when it dies or is unclean."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._shared = Shared()
        self._child: _Child | None = None
        self._looker = _Looker(settings)
        self._false_starts = 0
        """Children in a row that died before they could run anything."""
        self._time = _Time()

    def start(self) -> None:
        """Fork the child, so that it is warm when the first event comes."""
        if self._child is None:
            self._child = _Child.fork(self._settings, self._shared)
            self._settings = replace(self._settings, born_s=0.0)  # later ones are no cold starts

    def run(self, event: Event, surroundings: Surroundings) -> None:
        """Run an event to its end, over the deaths of any number of children.

        Raises:  StoreError: the child could not run it; nothing more was done. What *surroundings*
                 raises.
        """
        rest: Event | None = event
        idle_deaths = 0
        self._time = _Time.of(surroundings.remaining_s())
        self._shared.page.limit(self._time.ends)
        while rest is not None:
            self.start()
            rest = self._run_once(rest, surroundings)
            if rest is not None and rest.death is not None and rest.death.chunk < 0:
                idle_deaths += 1
                _check_idle(idle_deaths, rest.death)

    def stop(self) -> None:
        """End the child and everything it started."""
        if self._child is not None:
            self._child.kill()
            self._child = None
            self._shared.page.bury()

    def _run_once(self, event: Event, surroundings: Surroundings) -> Event | None:
        assert self._child is not None  # noqa: S101 - start() has made it
        death = self._watch(self._child, event, surroundings)
        if isinstance(death, Death):
            self._count_start(self._child.ready, death)
            self._child = None
            return replace(event, death=death)
        if death is None:
            return None
        self.stop()
        return death

    def _count_start(self, ready: bool, death: Death) -> None:
        """Raise if children cannot even start: that is no fault of a task."""
        self._false_starts = 0 if ready else self._false_starts + 1
        if self._false_starts > INFRASTRUCTURE_RETRIES:
            self._child, self._false_starts = None, 0
            raise StoreError(f"The process for tasks could not start: {death.detail}.\n{death.log}")

    def _watch(
        self, child: "_Child", event: Event, surroundings: Surroundings
    ) -> Event | Death | None:
        """Return what ended the event: a death, None, or the event to go on with."""
        try:
            child.channel.send(Verb.RUN, event.encode())
        except OSError:
            return self._autopsy(child, None, DeathCause.CRASH, "")
        while True:
            running = self._shared.page.running()
            message = child.message(patience_s(running, self._limit_mb(), self._time.ends))
            if message is not None:
                verb, body = message
                child.ready = True
                if verb is Verb.ENDED:
                    return Event.decode(body) if body else None
                if verb is Verb.FAILED:
                    self.stop()
                    raise StoreError(body.decode())
                self._answer(child, verb, body, surroundings)
                if verb is Verb.CANCELLED and body.decode() == event.job:
                    return self._autopsy(child, None, DeathCause.CANCELLED, "the job's tombstone")
                continue
            if surroundings.is_gone():
                self.stop()
                raise LambdamrError("The client of this worker is gone.")
            verdict = self._check(child)
            if verdict is not None:
                return verdict
            if self._looker.sees_end(event.job, self._shared.page.beaten_s()):
                return self._autopsy(child, None, DeathCause.CANCELLED, "the job's tombstone")

    def _answer(self, child: "_Child", verb: Verb, body: bytes, surroundings: Surroundings) -> None:
        if verb is Verb.INVOKE:
            try:
                surroundings.invoke(body)
            except BaseException:  # it must not go on as if that were launched
                self.stop()
                raise
            child.answer(Verb.LAUNCHED)
        elif verb is Verb.TAKE:
            child.answer(Verb.TAKEN, surroundings.take(body))

    def _check(self, child: "_Child") -> Death | None:
        """Return how the child ended, or is ended here for passing a limit."""
        if child.has_ended():
            return self._autopsy(child, None, DeathCause.CRASH, "")
        self._shared.output.trim()
        now = time.monotonic()  # first: what runs behind that and was due before it is late
        running = self._shared.page.running()
        if running is not None and now > running.deadline:
            detail = (
                f"it ran over its time limit of {running.limit_s:.4g} s (stopped "
                f"{now - running.deadline:.2f} s after it)"
            )
            return self._autopsy(child, running, DeathCause.TIMEOUT, detail)
        self._time.see(running, now)
        if now > self._time.ends:
            cause, detail = self._time.verdict()
            self._time = _Time()  # what is left belongs to the record of this death
            return self._autopsy(child, running, cause, detail)
        limit = self._limit_mb()
        used = child.memory_mb() if limit else 0.0
        # Read again: a stage that may use more may have begun meanwhile.
        if used > limit and 0 < (limit := self._limit_mb()) < used:
            detail = f"its process used {ceil(used)} MB of memory, the limit is {limit} MB"
            return self._autopsy(child, running, DeathCause.MEMORY, detail)
        return None

    def _limit_mb(self) -> int:
        """Return what the child may use for what it runs, MiB; 0: there is no limit."""
        limits = (self._settings.memory_mb, self._shared.page.memory_mb())
        return min(filter(None, limits), default=0)

    def _autopsy(
        self, child: "_Child", suspect: Running | None, cause: DeathCause, detail: str
    ) -> Death:
        """End the child if it lives, and describe its death.

        Args:  suspect: the task that passed a limit. If another one runs by the time the child
               is dead, that one is lost, not guilty.
        """
        if suspect is not None:
            self._shared.ask_for_stack(child.pid)
        status = child.kill()
        running = self._shared.page.running()
        self._shared.page.bury()
        is_same = suspect and running and running.number == suspect.number
        if cause in FINAL_CAUSES and not is_same:
            cause, detail = DeathCause.LOST, f"being stopped for the task before it: {detail}"
        if cause is DeathCause.CRASH:
            detail = _exit_text(status)
            if self._is_out_of_memory(status, child.last_mb):
                cause = DeathCause.MEMORY
                detail = (
                    "the system killed its process for want of memory, when it used "
                    f"{child.last_mb:.0f} MB or more"
                )
        return Death(
            cause,
            detail,
            chunk=running.chunk if running else -1,
            task=running.task if running else -1,
            execution=running.execution if running else "",
            stack=users_stack(self._shared.take_stack()),
            log=self._shared.output.take().decode("utf-8", "backslashreplace"),
            began_s=running.began_s if running else 0.0,
            ended_s=time.time(),
        )

    def _is_out_of_memory(self, status: int, last_mb: float) -> bool:
        """Whether the system killed a process that used much of its limit, for want of memory."""
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        limit = self._limit_mb()
        return killed and 0 < limit * KILLED_SHARE < last_mb


def patience_s(running: Running | None, limit_mb: int, ends: float) -> float:
    """Return how long a process need not be looked at while it says nothing and lives.

    Args:  limit_mb: of its memory; 0: none. ends: of its time, on the monotonic clock.
    """
    if running is None or limit_mb:
        return CHECK_S
    left_s = min(running.deadline, ends) - time.monotonic()
    # The next task of the stage may have begun right behind the look.
    return max(0.0, min(QUIET_CHECK_S, max(CHECK_S, running.limit_s), left_s))


def _check_idle(deaths: int, death: Death) -> None:
    """Raise if children of one event die again and again while no task runs."""
    if deaths > INFRASTRUCTURE_RETRIES:
        raise StoreError(
            f"The process for tasks ended {deaths} times while none ran, at last: "
            f"{death.detail}.\n{death.log}"
        )


class _Time:
    """How long an event may last before the platform ends the whole worker."""

    def __init__(self, ends: float = float("inf"), whole_s: float = float("inf")) -> None:
        self.ends = ends
        """On the monotonic clock: what runs then is stopped."""
        self._whole_s = whole_s
        self._number = -1
        self._seen = 0.0

    @classmethod
    def of(cls, remaining_s: float) -> "_Time":
        """Return that of an event that begins now."""
        if remaining_s == float("inf"):
            return cls()
        whole_s = remaining_s - min(END_RESERVE_S, END_RESERVE_SHARE * remaining_s)
        return cls(time.monotonic() + whole_s, whole_s)

    def see(self, running: Running | None, now: float) -> None:
        """Remember since when the running task runs."""
        number = running.number if running else -1
        if number != self._number:
            self._number, self._seen = number, now

    def verdict(self) -> tuple[DeathCause, str]:
        """Return what the end of the time means for the running task.

        One that was begun late is tried again, first in its invocation, with all the time there is.
        """
        ran_s = self.ends - self._seen
        if ran_s < (1 - LATE_SHARE) * self._whole_s:
            return DeathCause.LOST, f"the time limit of its function, after {ran_s:.1f} s"
        detail = f"it ran into the time limit of its function, after {ran_s:.1f} s"
        return DeathCause.TIMEOUT, detail


class _Looker:
    """Looks for a tombstone where the child's own thread cannot: while the GIL is held.

    It does so in a process of its own each time, as the parent never opens a store.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pid = 0
        self._job = ""
        self._next_s = 0.0

    def sees_end(self, job: str, beaten_s: float) -> bool:
        """Whether a look that has ended found *job* cancelled; begins one where it is time."""
        if self._pid:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._pid = 0
            return bool(pid) and status == 0 and job == self._job
        now = time.monotonic()
        if now > max(self._next_s, beaten_s + 2 * TOMBSTONE_S):
            self._next_s = now + TOMBSTONE_S
            self._job = job
            self._pid = os.fork()
            if self._pid == 0:
                self._look()
        return False

    def _look(self) -> NoReturn:
        """End this process with status 0 if the job is cancelled."""
        status = 1
        try:
            signal.alarm(LOOKER_S)  # one that hangs is no news, and keeps others from looking
            # What the parent holds: the lifeline of the child, too, which must close with it.
            os.closerange(3, MOST_DESCRIPTORS)
            store = open_store(self._settings.root)
            status = 0 if store.exists(JobKeys(self._job).cancelled) else 1
        finally:
            os._exit(status)


class _Child:
    """The child process as its parent holds it."""

    def __init__(self, pid: int, channel: Channel, lifeline: int) -> None:
        self.pid = pid
        self.channel = channel
        self._lifeline = lifeline
        """Write end of a pipe, whose closing by this process's end is the child's end."""
        self.ready = False
        """Whether it has sent anything."""
        self._status: int | None = None
        self.last_mb = 0.0
        """Its memory when that was last looked at."""

    @classmethod
    def fork(cls, settings: Settings, shared: Shared) -> "_Child":
        ours, theirs = _socket.socketpair()
        alive, lifeline = os.pipe()
        pid = os.fork()
        if pid == 0:
            ours.close()
            os.close(lifeline)
            child_main(settings, shared, Channel(theirs), alive)
        theirs.close()
        os.close(alive)
        return cls(pid, Channel(ours), lifeline)

    def message(self, patience_s: float) -> tuple[Verb, bytes] | None:
        """Return the next message, or None if none comes in time or the child is dead."""
        return self.channel.receive() if self.channel.has_news(patience_s) else None

    def answer(self, verb: Verb, body: bytes = b"") -> None:
        """Send an answer; a child that has just died gets none, and its death is seen next."""
        with contextlib.suppress(OSError):
            self.channel.send(verb, body)

    def has_ended(self) -> bool:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        return self._status is not None

    def kill(self) -> int:
        """End the child and its process group, and return its wait status."""
        if not self.has_ended():
            os.kill(self.pid, signal.SIGKILL)
            self._status = os.waitpid(self.pid, 0)[1]
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # nobody is left in it
            pass
        self.channel.close()
        os.close(self._lifeline)
        assert self._status is not None  # noqa: S101 - set above
        return self._status

    def memory_mb(self) -> float:
        """Return the resident memory, MiB; 0 where the system does not tell."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                self.last_mb = int(file.read().split()[1]) * _PAGE_MB
        except (OSError, IndexError):
            return 0.0
        return self.last_mb


_PAGE_MB = resource.getpagesize() / 2**20


def _exit_text(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    name = signal.Signals(-code).name if -code in list(signal.Signals) else "unknown"
    return f"signal {-code} ({name})"


def users_stack(text: str) -> str:
    """Return the user's part of faulthandler's output: no frames and no threads of ours."""
    kept: list[str] = []
    for block in text.split("\n\n"):
        lines = block.splitlines()
        frames = [line for line in lines if line.startswith("  File ") and _is_users(line)]
        foreign = [line for line in frames if "threading.py" not in line]
        if foreign:
            heads = [line for line in lines if not line.startswith("  File ")]
            kept += [*heads[-1:], *frames]
    return "\n".join(kept)


def _is_users(frame: str) -> bool:
    return _RUNTIME not in frame and not frame.startswith('  File "<string>", line 1 in <module>')
