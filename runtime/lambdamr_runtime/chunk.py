"""Running the tasks of one chunk: from arguments to an outcome."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol
from zlib import crc32

from lambdamr_runtime import serialize
from lambdamr_runtime.attempts import History
from lambdamr_runtime.clock import Clock
from lambdamr_runtime.errors import LambdamrError
from lambdamr_runtime.frozen import frozen
from lambdamr_runtime.keys import StageKeys, new_execution_id
from lambdamr_runtime.lanes import LanePlan
from lambdamr_runtime.limits import INLINE_RESULT_BYTES, JOB_LIMIT_MARGIN_S
from lambdamr_runtime.store import Store
from lambdamr_runtime.wire import Frame, FrameKind, Manifest, Outcome, Stage, encode_frames
from lambdamr_runtime.work import Deferred, TaskEnv, Work

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 10.0
"""Pauses between tries of a user's function double from the first to the last of these."""


class Watched(Protocol):
    """What a process shows of itself while it runs tasks."""

    def begin_chunk(self, execution: str, tasks: int) -> None: ...
    def begin_task(
        self, chunk: int, task: int, timeout_s: float | None, execution: str
    ) -> None: ...
    def end_task(self, task: int, frame: Frame) -> None: ...
    def end_chunk(self) -> None: ...
    def take_log(self) -> bytes:
        """Return what was printed since the last call."""
        ...

    def peak_mb(self) -> float: ...


@frozen
class Waited:
    """What came before the first chunk of an event; fields as of Outcome."""

    queued_s: float = 0.0
    cold_s: float = 0.0


NO_WAIT = Waited()


@frozen
class StageRun:
    """One stage of one job, ready to run chunks."""

    manifest: Manifest
    index: int
    stage: Stage
    plan: LanePlan
    keys: StageKeys

    @classmethod
    def of(cls, manifest: Manifest, index: int) -> "StageRun":
        stage = manifest.stages[index]
        return cls(manifest, index, stage, stage.plan, StageKeys(manifest.job, stage.name))


class ChunkRunner:
    """Runs chunks in this process.

    Args:  load_work: gives the work of a stage.  load_args: gives the arguments of a chunk's
           tasks, in order.  name: of this process, for the record.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        watched: Watched,
        load_work: Callable[[StageRun], Work],
        load_args: Callable[[StageRun, int], Any],
        name: str,
    ) -> None:
        self._store = store
        self._clock = clock
        self._watched = watched
        self._load_work = load_work
        self._load_args = load_args
        self._name = name
        self._load_s = 0.0
        """Of the chunk that runs."""

    def run(self, run: StageRun, chunk: int, history: History, waited: Waited = NO_WAIT) -> Outcome:
        """Run the tasks of a chunk that *history* has not ended, and return its outcome.

        The outcome is not committed yet; frames too large for it are stored already.
        """
        started_s, begun = self._clock.time(), self._clock.monotonic()
        self._load_s = 0.0
        execution = new_execution_id()
        tasks = run.plan.tasks_of(chunk)
        self._watched.begin_chunk(execution, len(tasks))
        frames = list(self._frames(run, chunk, execution, history))
        self._watched.end_chunk()
        packed = encode_frames(frames)
        results = ""
        ran = self._clock.monotonic()
        if len(packed) > INLINE_RESULT_BYTES:
            results = run.keys.results(chunk, execution)
            self._store.put(results, packed)
        return Outcome(
            chunk=chunk,
            execution=execution,
            attempt=len(history.deaths),
            count=len(tasks),
            failed=sum(frame.kind is FrameKind.ERROR for frame in frames),
            started_s=started_s,
            seconds=self._clock.monotonic() - begun,
            peak_mb=self._watched.peak_mb(),
            worker=self._name,
            frames=b"" if results else packed,
            results=results,
            results_checksum=crc32(packed) if results else 0,
            queued_s=waited.queued_s,
            cold_s=waited.cold_s,
            load_s=self._load_s,
            write_s=self._clock.monotonic() - ran if results else 0.0,
        )

    def _frames(
        self, run: StageRun, chunk: int, execution: str, history: History
    ) -> Iterator[Frame]:
        tasks = run.plan.tasks_of(chunk)
        watched = self._watched
        ended = {task: history.frames.get(task) or history.verdict(task) for task in tasks}
        if all(ended.values()):
            yield from (frame for frame in ended.values() if frame is not None)
            return
        # Loading runs the user's code: a death there counts against every task that is left.
        watched.begin_task(chunk, -1, self._limit_s(run), execution)
        begun = self._clock.monotonic()
        work, args, broken = self._load(run, chunk)
        self._load_s = self._clock.monotonic() - begun
        env = TaskEnv(
            self._store,
            run.manifest,
            run.index,
            execution,
            serialize.value_dumps(run.stage.serializer),
        )
        for task in tasks:
            frame = ended[task]
            if frame is None:
                watched.begin_task(chunk, task, self._limit_s(run), execution)
                if broken is not None:
                    frame = Frame(FrameKind.ERROR, broken)
                else:
                    arg = args[task - tasks.start] if args is not None else None
                    frame = self._run_task(work, env, task, arg)
                watched.end_task(task, frame)
            yield frame

    def _limit_s(self, run: StageRun) -> float | None:
        """Return how long a task that begins now may run: its own limit, or the job's rest."""
        limit_s = run.stage.timeout_s
        if run.manifest.timeout_s is None:
            return limit_s
        left_s = max(0.0, run.manifest.deadline_s - self._clock.time()) + JOB_LIMIT_MARGIN_S
        return left_s if limit_s is None else min(limit_s, left_s)

    def _load(self, run: StageRun, chunk: int) -> tuple[Any, Any, bytes | None]:
        """Return (work, arguments, None), or as the third the error record of what failed."""
        try:
            work = self._load_work(run)
            return work, self._load_args(run, chunk), None
        except BaseException as error:  # unpickling runs the user's imports and constructors
            record = serialize.record_error(error, run.stage.serializer)
            return None, None, serialize.plain_dumps(record)

    def _run_task(self, work: Work, env: TaskEnv, task: int, arg: Any) -> Frame:
        stage = env.stage
        begun = time.perf_counter()
        tries, pid = 1, os.getpid()
        while True:
            try:
                given = arg.load() if isinstance(arg, Deferred) else arg
                result = work.run(env, task, given)
                _end_if_forked(pid)
                payload = serialize.dump_result(result, env.dumps)
                kind = FrameKind.VALUE
                break
            except BaseException as error:  # SystemExit and KeyboardInterrupt are results too
                _end_if_forked(pid, error)
                if tries <= stage.retries and _may_retry(error, work):
                    self._clock.sleep(min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** (tries - 1)))
                    tries += 1
                    continue
                record = serialize.record_error(error, stage.serializer)
                payload, kind = serialize.plain_dumps(record), FrameKind.ERROR
                break
        seconds = time.perf_counter() - begun
        return Frame(kind, payload, self._watched.take_log(), seconds, tries)


def _end_if_forked(pid: int, error: BaseException | None = None) -> None:
    """End this process, as Python does, if a task has forked it and let it come back: it would go
    on as a second worker.

    Args:  pid: of the process that runs the task. error: what ended the task's code here.
    """
    if os.getpid() == pid:
        return
    code = error.code if isinstance(error, SystemExit) else error and 1
    if not isinstance(code, int | None):
        sys.stderr.write(f"{code}\n")
        code = 1
    if not isinstance(error, SystemExit | None):
        import traceback  # only such a process

        traceback.print_exception(error)
    os._exit((code or 0) & 0xFF)


def _may_retry(error: BaseException, work: Work) -> bool:
    return isinstance(error, work.retry_on) and not isinstance(error, LambdamrError)
