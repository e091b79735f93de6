"""Limits of time, memory and output, and what a warm process keeps from task to task: nothing."""

import gc
import io
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import lambdamr
from lambdamr_runtime.limits import CHECK_S, QUIET_CHECK_S
from lambdamr_runtime.process import ProgressPage, Running
from lambdamr_runtime.sandbox import patience_s
from tests import faults

LIMIT_S = 30.0
"""Longest wait for a result in these tests."""
INFINITE = float("inf")


# --- time --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("limit_s", "left_s", "limit_mb", "event_left_s", "expected"),
    [
        (INFINITE, INFINITE, 0, INFINITE, QUIET_CHECK_S),
        (INFINITE, INFINITE, 256, INFINITE, CHECK_S),
        (60.0, 30.0, 0, INFINITE, QUIET_CHECK_S),
        (60.0, 0.06, 0, INFINITE, 0.06),
        (60.0, -1.0, 0, INFINITE, 0.0),
        (INFINITE, INFINITE, 0, 0.03, 0.03),
        (0.01, 0.01, 0, INFINITE, 0.01),
        (0.05, 30.0, 0, INFINITE, 0.05),
        (0.001, 30.0, 0, INFINITE, CHECK_S),
    ],
)
def test_a_process_is_left_in_peace_until_a_limit_is_near(
    limit_s: float, left_s: float, limit_mb: int, event_left_s: float, expected: float
) -> None:
    """It is looked at no later than at the limit of the task that runs, or of one that began right
    behind the last look.
    """
    now = time.monotonic()
    running = Running(1, 0, 0, now + left_s, "", limit_s=limit_s)
    found = patience_s(running, limit_mb, now + event_left_s)
    passed_s = time.monotonic() - now + 1e-6  # of rounding
    assert max(0.0, expected - passed_s) <= found <= expected
    assert patience_s(None, limit_mb, now + event_left_s) == CHECK_S


@pytest.mark.parametrize(
    "task", [faults.sleep_long, faults.ignore_sigterm_and_sleep, faults.match_for_ever]
)
def test_time_limit(pool: lambdamr.Executor, task: Callable[[], object]) -> None:
    """A task over its limit is TaskTimeout, once, with the user's frame: whether it sleeps,
    ignores SIGTERM or is in a C call that holds the GIL.
    """
    begun = time.monotonic()
    future = pool.map(lambda _: task(), [0], timeout_s=0.4)[0]
    error = future.exception(LIMIT_S)
    assert type(error) is lambdamr.TaskTimeout
    assert f"in {task.__name__}" in str(error)
    assert "faults.py" in str(error)
    assert "timeout_s=" in str(error)
    assert "lambdamr_runtime" not in str(error)
    assert 0.4 <= time.monotonic() - begun < 5
    assert future.stats is not None
    assert future.stats.tries == 1


def test_time_limit_of_the_executor(root: str) -> None:
    """An executor's timeout_s holds for every call; that of a map takes its place."""
    with lambdamr.Executor(workers=1, concurrency=1, root=root, timeout_s=0.3) as executor:
        error = executor.submit(time.sleep, 30).exception(LIMIT_S)
        assert type(error) is lambdamr.TaskTimeout
        assert "it ran over its time limit of 0.3 s" in str(error)
        assert "without any Python code of yours" in str(error)
        slow = executor.map(time.sleep, [0.6], timeout_s=LIMIT_S)
        assert slow.result(LIMIT_S) == [None]


def test_time_limit_is_per_task(pool: lambdamr.Executor) -> None:
    """The limit counts from the start of each task: a chunk of many may take longer."""
    futures = pool.map(lambda _: time.sleep(0.2), range(5), chunksize=5, timeout_s=0.7)
    assert futures.result(LIMIT_S) == [None] * 5


def test_a_dead_task_is_no_limit_for_the_next_process() -> None:
    """A process that takes its time to start is not ended for the time limit of the task that died
    before it; numbers of tasks go on, so that the two are told apart.
    """
    page = ProgressPage()
    page.begin(0, 0, -1, "0" * 16)
    before = page.running()
    parents = ProgressPage.__new__(ProgressPage)
    parents.__dict__.update(page.__dict__, _number=0)  # what a fork leaves in the parent
    parents.bury()
    assert page.running() is None
    page.resume()
    page.begin(0, 0, float("inf"), "1" * 16)
    after = page.running()
    assert before is not None
    assert after is not None
    assert after.number > before.number


def write_for_ever(page: ProgressPage) -> int:
    """Return the id of a new process that begins and ends the same task again and again."""
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                page.limit_memory(100)
                page.begin(7, 8, 1e6, "0123456789abcdef")
                page.limit_memory(356)
                page.end()
        finally:
            os._exit(1)
    return pid


def test_who_looks_while_a_task_begins_sees_all_or_nothing() -> None:
    """A row of the page that is half written is no time limit that is over, and no other task;
    whether its writer goes on or is killed at that moment.
    """
    page = ProgressPage()
    rows: set[bool | None] = set()
    limits: set[int] = set()
    for _ in range(20):
        writer = write_for_ever(page)
        try:
            for _ in range(5_000):
                rows.add(whole(page.running()))
                limits.add(page.memory_mb())
        finally:
            os.kill(writer, signal.SIGKILL)
            os.waitpid(writer, 0)
        rows.add(whole(page.running()))
        page.bury()
        assert page.running() is None
    assert rows == {None, True}
    assert limits - {0} == {100, 356}


def whole(running: Running | None) -> bool | None:
    """Whether a row is one that `write_for_ever` writes, if it is of a task."""
    if running is None:
        return None
    now = time.monotonic()
    told = (running.chunk, running.task, running.execution, running.limit_s)
    is_now = abs(running.deadline - now - 1e6) < 60 and abs(running.began_s - time.time()) < 60
    return told == (7, 8, "0123456789abcdef", 1e6) and is_now


def test_siblings_of_a_slow_task(pool: lambdamr.Executor, folder: str) -> None:
    """A task over its limit neither fails nor reruns the others of its chunk."""

    def task(item: int) -> int:
        faults.sign(folder, item)
        if item == 1:
            faults.sleep_long()
        return item

    futures = pool.map(task, range(4), chunksize=4, timeout_s=0.4)
    errors = futures.exceptions(LIMIT_S)
    assert type(errors[1]) is lambdamr.TaskTimeout
    assert [futures[i].result() for i in (0, 2, 3)] == [0, 2, 3]
    assert faults.all_signs(folder) == {str(i): 1 for i in range(4)}


def test_time_limit_ends_processes_of_the_task(pool: lambdamr.Executor, folder: str) -> None:
    """With a task over its limit, the processes that it started end too."""
    future = pool.map(partial(faults.start_sleeper, folder), [True], timeout_s=0.5)[0]
    assert type(future.exception(LIMIT_S)) is lambdamr.TaskTimeout
    sleeper = faults.sleeper_of(folder)
    faults.wait_until(lambda: not faults.is_process(sleeper), "the end of the sleeper")


def test_time_limit_while_arguments_are_loaded(pool: lambdamr.Executor) -> None:
    """Arguments whose loading takes longer than the limit are TaskTimeout, not a hang."""

    class Slow:
        def __reduce__(self) -> tuple[Callable[[float], None], tuple[float]]:
            return time.sleep, (faults.PATIENCE_S,)

    errors = pool.map(lambda *_: 1, [Slow(), 2], chunksize=2, timeout_s=0.4).exceptions(LIMIT_S)
    assert {type(error) for error in errors} == {lambdamr.TaskTimeout}


# --- memory ------------------------------------------------------------------------------------
def test_memory_limit(root: str, folder: str) -> None:
    """A task that outgrows the memory is TaskOutOfMemory with peak and limit, tried once; its
    siblings neither fail nor run again.
    """
    fn = partial(faults.take_memory, folder, bad=2, size=400 << 20)
    with lambdamr.Executor(workers=1, concurrency=1, root=root, memory_mb=200) as executor:
        futures = executor.map(fn, range(5), chunksize=5)
        errors = futures.exceptions(LIMIT_S)
        assert type(errors[2]) is lambdamr.TaskOutOfMemory
        assert "the limit is 200 MB" in str(errors[2])
        peak = int(str(errors[2]).partition(" used ")[2].partition(" MB")[0])
        assert 200 < peak < 600
        assert [futures[i].result() for i in (0, 1, 3, 4)] == [0, 1, 3, 4]
        assert faults.all_signs(folder) == {str(i): 1 for i in range(5)}


def test_memory_of_the_task_before(root: str) -> None:
    """A task is not ended for stored data that its warm process keeps of another job."""
    with lambdamr.Executor(workers=1, concurrency=1, root=root, memory_mb=200) as executor:
        data = executor.put(b"x" * (80 << 20))  # twice in memory while it is unpickled
        assert executor.submit(len, data).result(LIMIT_S) == 80 << 20
        assert executor.submit(lambda: len(bytearray(b"x") * (110 << 20))).result(LIMIT_S)


# --- output ------------------------------------------------------------------------------------
def test_much_output(pool: lambdamr.Executor) -> None:
    """Of a task that prints 64 MB at once the tail is kept, and the disk is not filled."""
    future = pool.submit(faults.print_much, 65_536)
    assert future.result(LIMIT_S) <= faults.MUCH_BYTES
    log = future.logs()
    assert len(log) == 64 * 1024
    assert log.endswith("x\n")
    assert log.splitlines()[-1].startswith("0065535")
    assert [line[:7] for line in log.splitlines()[-3:]] == ["0065533", "0065534", "0065535"]


def test_logs_of_each_task(pool: lambdamr.Executor) -> None:
    """Each task has the output of its own, tasks of one chunk too, and a silent one has none."""

    def task(item: int) -> None:
        if item != 2:
            print("out of", item)
            print("err of", item, file=sys.stderr)

    futures = pool.map(task, range(5), chunksize=3)
    futures.result(LIMIT_S)
    expected = ["" if i == 2 else f"out of {i}\nerr of {i}\n" for i in range(5)]
    assert [future.logs() for future in futures] == expected


def test_output_below_python(pool: lambdamr.Executor) -> None:
    """What C code, other processes and logging write is caught, in order."""

    def task() -> None:
        print("python", end="|")
        os.write(1, b"descriptor|")
        os.write(2, b"descriptor 2|")
        subprocess.run("printf process; printf ' two|' >&2", shell=True, check=True)
        os.system("printf 'system|'")
        logging.getLogger("mine").warning("logged")

    future = pool.submit(task)
    future.result(LIMIT_S)
    text = "python|descriptor|descriptor 2|process two|system|WARNING:mine:logged\n"
    assert future.logs() == text


def test_output_that_is_no_text(pool: lambdamr.Executor) -> None:
    """Bytes that are no UTF-8, and lone surrogates, do not disturb the task or its log."""

    def task() -> None:
        os.write(1, b"\xff\n")
        print("\udcff", "é")

    future = pool.submit(task)
    future.result(LIMIT_S)
    assert future.logs() == "\\xff\n\\udcff é\n"


def test_log_of_a_failed_task(pool: lambdamr.Executor) -> None:
    """A task that raises or is stopped keeps what it printed before."""

    def task(item: int) -> None:
        print("before", item, flush=True)
        if item:
            raise ValueError(item)
        faults.sleep_long()

    futures = pool.map(task, range(2), chunksize=2, timeout_s=0.4)
    futures.exceptions(LIMIT_S)
    assert [future.logs() for future in futures] == ["before 0\n", "before 1\n"]


def test_reading_from_stdin(pool: lambdamr.Executor) -> None:
    """A task that asks for input finds the end of it, and does not wait."""
    assert isinstance(pool.submit(input).exception(LIMIT_S), EOFError)


# --- clean warm processes ----------------------------------------------------------------------
def test_process_state_is_restored(single: lambdamr.Executor) -> None:
    """Working directory, environment, umask and temporary files of a chunk are gone in the next,
    which runs in the same process.
    """

    def look() -> tuple[object, ...]:
        umask = os.umask(0)
        os.umask(umask)
        files = sorted(os.listdir(tempfile.gettempdir()))
        return os.getcwd(), dict(os.environ), umask, files, os.getpid()

    def spoil() -> int:
        Path(tempfile.gettempdir(), "folder").mkdir()
        Path(tempfile.gettempdir(), "folder", "file").touch()
        os.symlink("/", Path(tempfile.gettempdir(), "link"))
        os.chdir(tempfile.gettempdir())
        os.umask(0o777)
        os.environ["SPOILT"] = "1"
        del os.environ["PATH"]
        return os.getpid()

    before = single.submit(look).result(LIMIT_S)
    assert before[3] == []
    assert single.submit(spoil).result(LIMIT_S) == before[4]
    assert single.submit(look).result(LIMIT_S) == before


def test_interpreter_is_restored(single: lambdamr.Executor) -> None:
    """What a chunk did to streams, recursion, collection, alarms and signals is undone in the
    next, whose output is caught as ever.
    """

    def spoil() -> None:
        sys.stdout, sys.stderr = io.StringIO(), None
        sys.setrecursionlimit(200)
        gc.disable()
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    def ignore_signals() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    def look() -> tuple[object, ...]:
        print("seen")
        print("this too", file=sys.stderr)
        time.sleep(0.1)  # the alarm would come now
        return (
            sys.getrecursionlimit(),
            gc.isenabled(),
            signal.getsignal(signal.SIGTERM),
            signal.getsignal(signal.SIGUSR2),
        )

    before = single.submit(look).result(LIMIT_S)
    single.submit(spoil).result(LIMIT_S)
    single.submit(ignore_signals).result(LIMIT_S)
    future = single.submit(look)
    assert future.result(LIMIT_S) == before
    assert future.logs() == "seen\nthis too\n"
    assert future.stats is not None
    assert future.stats.attempt == 0


@pytest.mark.parametrize("tunables", ["", "glibc.malloc.arena_max=2"])
def test_malloc_is_tuned_unless_the_user_has_done_it(
    root: str, tunables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are started with huge pages, of which their tasks, and what these start, see nothing;
    what the user has set for malloc stays as it is.
    """

    def settings_of_malloc() -> tuple[bytes, str]:
        started = Path(f"/proc/{os.getppid()}/environ").read_bytes()  # this is the kept child
        found = [each for each in started.split(b"\0") if each.startswith(b"GLIBC_TUNABLES=")]
        return b"".join(found).partition(b"=")[2], os.getenv("GLIBC_TUNABLES", "")

    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if tunables:
        monkeypatch.setenv("GLIBC_TUNABLES", tunables)
    with lambdamr.Executor(workers=1, root=root) as executor:
        begun_with, seen = executor.submit(settings_of_malloc).result()
    assert begun_with.decode() == (tunables or "glibc.malloc.hugetlb=1")
    assert seen == tunables


def test_an_environment_that_changes_meanwhile(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is there when names are listed, and gone when it is read, is no error."""
    environ: Any = os.environ  # its class has no public name
    parts = ("_data", "encodekey", "decodekey", "encodevalue", "decodevalue")

    class Fleeting(type(environ)):  # type: ignore[misc]  # as above
        def __iter__(self) -> Iterator[str]:
            return iter([*super().__iter__(), "FLEETING"])

    fleeting = Fleeting(*(getattr(environ, part) for part in parts))
    monkeypatch.setattr(os, "environ", fleeting)
    with lambdamr.Executor(workers=1, root=root) as executor:
        assert executor.submit(os.getenv, "FLEETING").result(LIMIT_S) is None


def test_temporary_folder_that_a_task_removes(single: lambdamr.Executor) -> None:
    """A task that removes its temporary folder does not take it from the next one."""
    single.submit(lambda: os.rmdir(tempfile.gettempdir())).result(LIMIT_S)
    assert single.submit(lambda: tempfile.mkstemp() is not None).result(LIMIT_S)


def test_random_numbers_differ(single: lambdamr.Executor) -> None:
    """Tasks draw different numbers, from `random` and from numpy, in one warm process and after
    one of them has set a seed.
    """

    def draw(item: int) -> tuple[float, float]:
        import numpy as np

        drawn = random.random(), float(np.random.random())
        random.seed(1)
        np.random.seed(1)
        return drawn

    draws = single.map(draw, range(6), chunksize=1).result(LIMIT_S)
    assert len({first for first, _ in draws}) == 6
    assert len({second for _, second in draws}) == 6


def test_thread_left_behind(single: lambdamr.Executor) -> None:
    """A thread that outlives its chunk takes its process with it: the next chunk sees another."""

    def leave_thread() -> int:
        threading.Thread(target=faults.sleep_long, name="left", daemon=True).start()
        return os.getpid()

    def look(_: int) -> tuple[int, list[str]]:
        return os.getpid(), [thread.name for thread in threading.enumerate()]

    first = single.submit(leave_thread).result(LIMIT_S)
    pid, threads = single.submit(look, 0).result(LIMIT_S)
    assert "left" not in threads
    assert pid != first
    faults.wait_until(lambda: not faults.is_process(first), "the end of the process")


def test_threads_within_a_lane(single: lambdamr.Executor, folder: str) -> None:
    """Each chunk that leaves a thread costs a process, and no chunk runs twice."""

    def task(item: int) -> int:
        faults.sign(folder, item)
        threading.Thread(target=faults.sleep_long, daemon=True).start()
        return os.getpid()

    pids = single.map(task, range(4), chunksize=2).result(LIMIT_S)
    assert (pids[0], pids[2]) == (pids[1], pids[3])
    assert pids[0] != pids[2]
    assert faults.all_signs(folder) == {str(i): 1 for i in range(4)}


def test_process_left_behind(single: lambdamr.Executor, folder: str) -> None:
    """A process that a task started and left ends before the next chunk begins."""
    sleeper = single.submit(faults.start_sleeper, folder, False).result(LIMIT_S)
    single.submit(abs, 0).result(LIMIT_S)
    faults.wait_until(lambda: not faults.is_process(sleeper), "the end of the sleeper")


def test_modules_of_another_job(tmp_path: Path, root: str) -> None:
    """Modules shipped with one job are not there for the next, though the process is the same."""
    for name in ("alpha", "beta"):
        (tmp_path / f"{name}.py").write_text(
            "import os, sys\n"
            "def look():\n"
            "    return os.getpid(), sorted({'alpha', 'beta'} & set(sys.modules))\n"
        )
    program = """
        import lambdamr, alpha, beta
        with lambdamr.Executor(workers=1, concurrency=1) as executor:
            first, names = executor.submit(alpha.look).result(30)
            second, others = executor.submit(beta.look).result(30)
            print(first == second, names, others)
    """
    path = os.pathsep.join((str(tmp_path), str(faults.REPO), str(faults.REPO / "runtime")))
    assert faults.run_client(program, root, PYTHONPATH=path) == "True ['alpha'] ['beta']\n"


# --- the end of the client ---------------------------------------------------------------------
def test_child_of_a_killed_worker(root: str, folder: str) -> None:
    """When a worker is killed its child ends with it, in a C call that holds the GIL too."""

    def task() -> object:
        first = faults.sign(folder, "try") == 1
        faults.sign(folder, f"{os.getpid()}.{os.getppid()}")
        return faults.match_for_ever() if first else None

    with lambdamr.Executor(workers=1, concurrency=1, root=root) as executor:
        future = executor.submit(task)
        faults.wait_until(lambda: len(os.listdir(folder)) == 2, "the task")
        name = next(name for name in faults.all_signs(folder) if "." in name)
        child, worker = map(int, name.split("."))
        os.kill(worker, signal.SIGKILL)
        assert future.result(LIMIT_S) is None
        faults.wait_until(lambda: not faults.is_process(child), "the end of the child", 5)


@pytest.mark.parametrize("how", ["killed", "closed"])
def test_no_process_stays(tmp_path: Path, root: str, folder: str, how: str) -> None:
    """When the client is killed, or leaves by an exception, its workers end, with the processes
    of their tasks and a C call that holds the GIL, and leave no temporary folder.
    """
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    program = f"""
        import os, lambdamr
        from tests import faults
        folder = {folder!r}
        def task(item):
            faults.sign(folder, f"child.{{os.getpid()}}")
            faults.sign(folder, f"worker.{{os.getppid()}}")
            return faults.match_for_ever() if item else faults.start_sleeper(folder, True)
        with lambdamr.Executor(workers=2, concurrency=2) as executor:
            executor.map(task, range(2))
            faults.wait_until(lambda: len(faults.all_signs(folder)) == 5, "the tasks")
            faults.open_gate(folder, "ready")
            if {how!r} == "closed":
                raise SystemExit(3)
            faults.sleep_long()
    """
    client = faults.start_client(program, root, TMPDIR=str(temporary))
    faults.wait_until(lambda: os.path.exists(f"{folder}/ready"), "the tasks")
    if how == "killed":
        client.kill()
    client.communicate(timeout=LIMIT_S)
    assert client.returncode == (-signal.SIGKILL if how == "killed" else 3)
    names = [name for name in faults.all_signs(folder) if "." in name]
    pids = [int(name.partition(".")[2]) for name in names]
    assert len(pids) == 5
    faults.wait_until(lambda: not any(map(faults.is_process, pids)), "the end of all processes", 8)
    faults.wait_until(lambda: not os.listdir(temporary), "the end of the temporary folders", 8)
