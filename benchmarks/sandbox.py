"""What the kept child costs: the same events in a watched child, and in the process itself.

    python -m benchmarks.sandbox

prints the figures behind the decision in docs/design.md ("Where user code runs").
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

ROUNDS = 5
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""A file system in memory, so that the disk is not measured."""
EVENTS = 500
CHUNKS = 4000
TASKS_PER_CHUNK = 100

Run = Callable[[object], None]


def in_process(root: str) -> Run:
    """Return what runs an event in this very process."""
    from lambdamr_runtime.clock import SystemClock
    from lambdamr_runtime.context import Cache
    from lambdamr_runtime.modules import ShippedModules
    from lambdamr_runtime.store import open_store
    from lambdamr_runtime.worker import Host, Worker

    host = Host(
        launch=lambda _: None,
        committed=lambda *_: None,
        remaining_s=lambda: float("inf"),
        salvage=lambda _: {},
        clean=lambda: True,
    )
    store = open_store(root)
    modules = ShippedModules(f"{root}/modules")
    worker = Worker(store, SystemClock(), host, _Unwatched(), modules, Cache(), "here")
    return worker.run  # type: ignore[return-value]  # the event is one of ours


class _Unwatched:
    """Shows nobody what runs."""

    def begin_chunk(self, execution: str, tasks: int) -> None: ...
    def begin_task(
        self, chunk: int, task: int, timeout_s: float | None, execution: str
    ) -> None: ...
    def end_task(self, task: int, frame: object) -> None: ...
    def end_chunk(self) -> None: ...

    def take_log(self) -> bytes:
        return b""

    def peak_mb(self) -> float:
        return 0.0


class _Queue:
    """Surroundings of a worker whose lanes, as in the local pool, take turns."""

    def __init__(self) -> None:
        self.events: list[bytes] = []

    def invoke(self, events: bytes) -> None:
        self.events += events.splitlines()

    def take(self, job: bytes) -> bytes:  # noqa: ARG002 - the protocol's
        return b""

    def is_gone(self) -> bool:
        return False

    def remaining_s(self) -> float:
        return float("inf")


def in_kept_child(root: str) -> Run:
    """Return what runs an event in a kept child."""
    from lambdamr_runtime.child import Settings
    from lambdamr_runtime.sandbox import Sandbox
    from lambdamr_runtime.wire import Event

    sandbox = Sandbox(Settings(root, "bench", f"{root}/scratch"))
    sandbox.start()
    queue = _Queue()

    def run(event: object) -> None:
        sandbox.run(event, queue)  # type: ignore[arg-type]  # as above
        while queue.events:
            sandbox.run(Event.decode(queue.events.pop()), queue)

    return run


PLACES = {"in the process": in_process, "in a kept child": in_kept_child}


def events(root: str, tasks: int, chunksize: int, jobs: int) -> list[object]:
    """Store *jobs* equal jobs of one lane, and return their events."""
    from lambdamr.submission import Packing, StageDraft, prepare
    from lambdamr_runtime.barrier import top_events
    from lambdamr_runtime.store import open_store
    from lambdamr_runtime.wire import StageKind
    from lambdamr_runtime.work import Call

    class OneLane:
        store = open_store(root)
        owner = ""
        workers = width = 1

    args: list[object] = [((number,), {}) for number in range(tasks)]
    draft = StageDraft("map", StageKind.CALL, Call(abs), tasks, chunksize, args)
    made: list[object] = []
    for _ in range(jobs):
        submission = prepare([draft], Packing(), OneLane())  # type: ignore[arg-type]  # enough of it
        submission.store(OneLane.store, set())
        made += top_events(submission.manifest, submission.encoded, 0, time.time())
    return made


def seconds(place: str, tasks: int, chunksize: int, jobs: int) -> float:
    """Return the seconds that all the events take in the best round, in a process of its own.

    A child must be forked before the process that watches it uses a store.
    """
    command = [sys.executable, "-m", "benchmarks.sandbox", place]
    numbers = map(str, (tasks, chunksize, jobs))
    return float(subprocess.run([*command, *numbers], check=True, capture_output=True).stdout)


def measured(place: str, tasks: int, chunksize: int, jobs: int) -> float:
    """Do what `seconds` asks for, in this process."""
    taken = []
    with tempfile.TemporaryDirectory(dir=MEMORY) as root:
        run = PLACES[place](root)
        for _ in range(ROUNDS):
            made = events(root, tasks, chunksize, jobs)
            started = time.perf_counter()
            for event in made:
                run(event)
            taken.append(time.perf_counter() - started)
    return min(taken)


def cold_start(place: str) -> float:
    """Return the seconds from the start of an interpreter to its first outcome, at best."""
    program = (
        "import sys, tempfile; from benchmarks.sandbox import PLACES\n"
        "from lambdamr_runtime.wire import Event\n"
        "event = Event.decode(sys.stdin.buffer.read())\n"
        f"PLACES[{place!r}](sys.argv[1])(event)\n"
    )
    taken = []
    with tempfile.TemporaryDirectory(dir=MEMORY) as root:
        for event in events(root, 1, 1, 2 * ROUNDS):
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", program, root],
                input=event.encode(),  # type: ignore[attr-defined]  # an Event
                check=True,
            )
            taken.append(time.perf_counter() - started)
    return min(taken)


def main() -> None:
    print(f"{'':16}{'cold start':>12}{'per event':>12}{'per chunk':>12}{'per task':>12}")
    for place in PLACES:
        figures = (
            f"{1e3 * cold_start(place):.1f} ms",
            f"{1e6 * seconds(place, 1, 1, EVENTS) / EVENTS:.0f} us",
            f"{1e6 * seconds(place, CHUNKS, 1, 1) / CHUNKS:.0f} us",
            f"{1e6 * seconds(place, CHUNKS, TASKS_PER_CHUNK, 1) / CHUNKS:.1f} us",
        )
        print(f"{place:16}" + "".join(f"{figure:>12}" for figure in figures))


if __name__ == "__main__":
    if sys.argv[1:]:
        print(measured(sys.argv[1], *map(int, sys.argv[2:])))
    else:
        main()
