"""The worker: runs one event, which is a lane of a stage, or what a dead one left of it.

event ─▶ record the death before this one ─▶ launch the children ─▶ chunk, chunk, chunk …
                                                                       │ create outcome
                      next stage, or report ◀─ barrier ◀─ end of lane ◀┘
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from lambdamr_runtime import serialize
from lambdamr_runtime.attempts import History, load_history, save_attempt
from lambdamr_runtime.barrier import Barrier, end_overdue, repeat_bad_end
from lambdamr_runtime.chunk import NO_WAIT, ChunkRunner, StageRun, Waited, Watched
from lambdamr_runtime.clock import Clock
from lambdamr_runtime.context import Cache
from lambdamr_runtime.errors import CorruptObject
from lambdamr_runtime.frozen import frozen, replace
from lambdamr_runtime.keys import JobKeys, function_key, last_number, new_execution_id
from lambdamr_runtime.lanes import children, tree_arity
from lambdamr_runtime.limits import SLOWEST_MARGIN, TOMBSTONE_S, WHOLE_ARGS_BYTES
from lambdamr_runtime.modules import ShippedModules
from lambdamr_runtime.packed import FunctionObject, args_index_bytes, args_span, checked_args
from lambdamr_runtime.store import Store, checked_sha, sha256_of
from lambdamr_runtime.wire import (
    CLIENT,
    Death,
    DeathCause,
    Event,
    Frame,
    Manifest,
    Outcome,
    StageKind,
)
from lambdamr_runtime.work import Work


@frozen
class Host:
    """What a worker asks of its surroundings."""

    launch: Callable[[Sequence[Event]], None]
    """Launch events; raises if one cannot be launched."""
    committed: Callable[[str, int, int], None]
    """A hint that a chunk (job, stage, chunk) has an outcome; behind the last stage: a report."""
    remaining_s: Callable[[], float]
    """Seconds this invocation may still last."""
    salvage: Callable[[str], dict[int, Frame]]
    """Frames that a dead execution had finished, as far as they were kept."""
    clean: Callable[[], bool]
    """Restore the process after a chunk; False if it must be replaced."""
    look_s: float = TOMBSTONE_S
    """Seconds between two looks for a tombstone while a lane runs."""
    looks_first: bool = False
    """Look for a chunk's outcome before running it: it may be cancelled. A request per chunk,
    worth it where requests cost microseconds."""
    born_s: float = 0.0
    """When this process was started, seconds since the epoch; 0: nothing waited for that."""
    ready_s: float = 0.0
    """When it could take its first event."""
    began: Callable[[StageRun], None] = lambda _: None
    """Told of the stage that an event belongs to, before anything of it runs."""


class Worker:
    """Runs events in this process."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        host: Host,
        watched: Watched,
        modules: ShippedModules,
        cache: Cache,
        name: str,
    ) -> None:
        self._store = store
        self._clock = clock
        self._host = host
        self._modules = modules
        self._cache = cache
        self._barrier = Barrier(store, self._launch, clock)
        self._from = Event("", 0, 0, 1)
        """The event that runs, from which others follow."""
        self._chunks = ChunkRunner(store, clock, watched, self._work, self._args, name)
        self._looked = clock.monotonic()
        self._has_run = False
        """Whether an event has come: no other one can have waited for the process to start."""

    def run(self, event: Event) -> Event | None:
        """Run an event to its end.

        Returns:  None, or the event to go on with in a fresh process: this one is not clean.
        """
        if event.expires and self._clock.time() > event.expires:
            event = replace(event, repair=True)
        self._from = event
        waited = self._waited(event)
        run = StageRun.of(self._manifest(event), event.stage)
        self._host.began(run)
        overdue = self._is_overdue(run)
        if event.death is not None and not overdue:
            repaired = self._record_death(run, event, event.death)
            if repaired is None:
                return None
            event = repaired
            if self._host.remaining_s() <= 0:  # what died was stopped by the end of the time
                self._launch([event])
                return None
        if overdue or (self._is_stale(event) and self._is_cancelled(run)):
            if (event.repair or event.death is not None) and self._is_cancelled(run):
                repeat_bad_end(self._store, run)
            return None
        self._launch_children(run, event)
        return self._run_lane(run, event, waited)

    def _waited(self, event: Event) -> Waited:
        """Return how long a fresh event was under way, and how much of it this process started."""
        is_first, self._has_run = not self._has_run, True
        if event.repair or event.death is not None:
            return NO_WAIT
        under_way = max(0.0, self._clock.time() - event.sent_s)
        cold = 0.0
        if is_first and self._host.born_s:
            cold = self._host.ready_s - max(self._host.born_s, event.sent_s)
        cold = min(under_way, max(0.0, cold))
        return Waited(under_way - cold, cold)

    def _run_lane(self, run: StageRun, event: Event, waited: Waited) -> Event | None:
        chunks = event.only or run.plan.chunks_of(event.lo)
        # Of a lane that comes late, others may have run chunks meanwhile.
        looks = event.repair or (self._is_stale(event) and not self._host.looks_first)
        done = self._committed(run, chunks) if looks else frozenset[int]()
        for chunk in list(itertools.takewhile(done.__contains__, chunks))[-1:]:
            self._mark_winner(run, chunk)  # who committed it may have died before it did
        slowest = 0.0
        for position in range(event.cursor, len(chunks)):
            chunk = chunks[position]
            if chunk in done or (self._host.looks_first and self._has_outcome(run, chunk)):
                continue
            if self._is_overdue(run) or (self._is_time_to_look() and self._is_cancelled(run)):
                return None
            rest = replace(event, hi=event.lo + 1, cursor=position, attempt=0)
            if slowest and self._host.remaining_s() < SLOWEST_MARGIN * slowest:
                self._launch([rest])
                return None
            attempt = event.attempt if position == event.cursor else 0
            outcome = self._run_chunk(run, chunk, attempt, waited)
            waited = NO_WAIT
            slowest = max(slowest, outcome.seconds)
            if not self._host.clean():
                return replace(rest, cursor=position + 1).sent(self._clock.time())
        for group in sorted({run.plan.group_of(chunk) for chunk in chunks}):
            if self._barrier.lane_ended(run, group, event.repair):
                self._hint_end(run)
        return None

    def _run_chunk(self, run: StageRun, chunk: int, attempt: int, waited: Waited) -> Outcome:
        history = load_history(self._store, run.keys, chunk) if attempt else History()
        outcome = self._chunks.run(run, chunk, history, waited)
        key = run.keys.outcome(run.plan.group_of(chunk), chunk)
        if self._store.create(key, outcome.encode(), outcome.execution):
            self._host.committed(run.manifest.job, run.index, chunk)
            self._mark_failures(run, outcome)
        else:
            self._mark_winner(run, chunk)
        return outcome

    def _mark_winner(self, run: StageRun, chunk: int) -> None:
        key = run.keys.outcome(run.plan.group_of(chunk), chunk)
        self._mark_failures(run, Outcome.decode(self._store.get(key), key))

    def _mark_failures(self, run: StageRun, outcome: Outcome) -> None:
        """Take the steps that are due for a committed chunk with failed tasks."""
        if not outcome.failed or outcome.worker == CLIENT:
            return
        if self._barrier.chunk_failed(run, outcome, self._signature(outcome)):
            self._hint_end(run)
            self._looked = float("-inf")  # this lane sees the tombstone before its next chunk

    def _hint_end(self, run: StageRun) -> None:
        self._host.committed(run.manifest.job, len(run.manifest.stages), 0)

    def _signature(self, outcome: Outcome) -> str:
        """Return what a wholly failed chunk failed with, in one line; "" if some tasks passed."""
        if outcome.failed < outcome.count:
            return ""
        stored = self._store.get(outcome.results) if outcome.results else b""
        first = outcome.unpack(stored, outcome.results)[0]
        record = serialize.load_error(first.payload, outcome.results)
        # Without its folder: each worker has the shipped modules in one of its own.
        places = [
            line.removeprefix('  File "').rpartition("/")[2].replace('"', "", 1)
            for line in record.text.splitlines()
            if line.startswith("  File ")
        ]
        return " at ".join((record.type_name, *places[-1:]))

    def _launch_children(self, run: StageRun, event: Event) -> None:
        if event.only or event.hi - event.lo <= 1:
            return
        marker = run.keys.launched(event.lo, event.hi)
        if event.repair and self._store.exists(marker):
            return
        self._launch(
            [
                replace(event, lo=lo, hi=hi, cursor=0, attempt=0)
                for lo, hi in children(event.lo, event.hi, tree_arity(run.plan.lanes))
            ]
        )
        self._store.create(marker, b"", new_execution_id())

    def _launch(self, events: Sequence[Event]) -> None:
        """Launch events that follow from the running one."""
        cause = self._from.sent(self._clock.time())
        following = [
            replace(event, sent_s=cause.sent_s, expires=cause.expires, depth=cause.depth + 1)
            for event in events
        ]
        self._host.launch(following)

    def _record_death(self, run: StageRun, event: Event, death: Death) -> Event | None:
        """Write what the dead execution left, and return the event that goes on after it."""
        if death.cause is DeathCause.CANCELLED:
            if run.stage.kind is StageKind.FINAL:  # it may have written since that was removed
                repeat_bad_end(self._store, run)
            return None
        chunks = event.only or run.plan.chunks_of(event.lo)
        done = self._committed(run, chunks)
        left = [i for i in range(event.cursor, len(chunks)) if chunks[i] not in done]
        if not left:
            return event.repaired(len(chunks), 0)
        position = left[0]
        chunk = chunks[position]
        if death.chunk in done:  # it has cost nobody anything, and who repeats it blames nobody
            return event.repaired(position, 0)
        attempt = event.attempt + 1 if position == event.cursor else 1
        frames = self._host.salvage(death.execution) if death.chunk == chunk else {}
        if death.chunk != chunk:  # between chunks: no task is guilty
            death = replace(death, cause=DeathCause.LOST, chunk=chunk, task=-1)
        if not death.execution:
            death = replace(death, execution=new_execution_id())
        save_attempt(self._store, run.keys, attempt, death, frames)
        return event.repaired(position, attempt)

    def _committed(self, run: StageRun, chunks: Sequence[int]) -> frozenset[int]:
        groups = {run.plan.group_of(chunk) for chunk in chunks}
        return frozenset(
            last_number(entry.key)
            for group in groups
            for entry in self._store.list(run.keys.outcomes(group))
        )

    def _is_stale(self, event: Event) -> bool:
        """A queued event may be older than a cancellation; a fresh one saves the look."""
        return event.repair or self._clock.time() - event.sent_s > TOMBSTONE_S

    def _is_time_to_look(self) -> bool:
        now = self._clock.monotonic()
        due = now - self._looked > self._host.look_s
        if due:
            self._looked = now
        return due

    def _has_outcome(self, run: StageRun, chunk: int) -> bool:
        return self._store.exists(run.keys.outcome(run.plan.group_of(chunk), chunk))

    def _is_overdue(self, run: StageRun) -> bool:
        """Whether the job is over its time limit; then it ends here."""
        overdue = end_overdue(self._store, run.manifest, self._clock.time())
        if overdue:
            self._hint_end(run)
        return overdue

    def _is_cancelled(self, run: StageRun) -> bool:
        return self._store.exists(JobKeys(run.manifest.job).cancelled)

    def _manifest(self, event: Event) -> Manifest:
        key = JobKeys(event.job).manifest
        if event.manifest:
            return Manifest.decode(event.manifest, key)
        manifest: Manifest | None = self._cache.get(key)
        if manifest is None:
            data = self._store.get(key)
            manifest = Manifest.decode(data, key)
            self._cache.keep(key, manifest, len(data))
        return manifest

    def _work(self, run: StageRun) -> Work:
        """Return the work of a stage; kept by the sha of its function object."""
        stage = run.stage
        key = function_key(stage.function)
        work: Work | None = self._cache.get(key)
        if work is not None:
            return work
        data = stage.inline_function or checked_sha(self._store.get(key), key)
        function = FunctionObject.decode(data, key)
        self._install(function.archive)
        work = serialize.loads(function.pickled)
        self._cache.keep(key, work, len(data))
        return work

    def _install(self, archive: bytes) -> None:
        """Make shipped modules importable; nothing kept with others survives the change."""
        sha = sha256_of(archive) if archive else ""
        if sha != self._modules.sha:
            self._cache.clear()
            self._modules.install(archive, sha)

    def _args(self, run: StageRun, chunk: int) -> Any:
        stage, chunks = run.stage, run.plan.chunks
        if not stage.has_args:
            return None
        packed: bytes | None = stage.inline_args or self._cache.get(run.keys.args)
        if packed is None:
            packed = self._fetch_args(run)
            self._cache.keep(run.keys.args, packed, len(packed))
        start, length = args_span(packed, chunk, chunks)
        data = packed[start : start + length]
        if len(data) < length:
            data = self._store.get_range(run.keys.args, start, length)
        if len(data) < length:
            raise CorruptObject(f"{run.keys.args} ends within the arguments of chunk {chunk}")
        return serialize.loads(checked_args(packed, chunk, data, run.keys.args))

    def _fetch_args(self, run: StageRun) -> bytes:
        """Return the packed arguments whole where they are small, else just their index."""
        wanted = max(WHOLE_ARGS_BYTES, args_index_bytes(run.plan.chunks))
        return self._store.get_range(run.keys.args, 0, wanted)
