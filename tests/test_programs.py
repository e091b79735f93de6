"""Whole programs: scripts, the REPL, IPython, notebooks, pytest; how they end, what they print.

Each program is a process of its own. Where a signal has to come at the right moment, the program
says by a FIFO that it is there.
"""

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lambdamr
from lambdamr.cli import Exit
from tests import faults
from tests.gates import Gate, pass_gate

PATIENCE_S = 30.0
"""A program that takes longer hangs."""


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    status: int
    out: str
    err: str


Run = Callable[..., Ended]


def environment(root: str, **more: str) -> dict[str, str]:
    return {**os.environ, "LAMBDAMR_ROOT": root, "LAMBDAMR_WORKERS": "1", **more}


@pytest.fixture
def run(root: str, tmp_path: Path) -> Run:
    """Return a function that runs Python with arguments, text for its stdin, and variables."""

    def run(*arguments: str, stdin: str = "", **more: str) -> Ended:
        ended = subprocess.run(
            [sys.executable, *arguments],
            input=textwrap.dedent(stdin).encode(),
            capture_output=True,  # as bytes: text would turn "\r" into "\n"
            timeout=PATIENCE_S,
            env=environment(root, **more),
            cwd=tmp_path,
        )
        return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    return run


@pytest.fixture
def script(run: Run, tmp_path: Path) -> Run:
    """Return a function that runs a text as a script file."""

    def script(text: str, **more: str) -> Ended:
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(text))
        return run(str(path), **more)

    return script


CLASSES = """
import lambdamr

class Point:
    def __init__(self, x):
        self.x = x

class Odd(Exception):
    pass

def work(point):
    if point.x == 3:
        raise Odd(point.x)
    return Point(point.x * 2)

executor = lambdamr.Executor()
futures = executor.map(work, [Point(1), Point(2), Point(3)], return_exceptions=True)
results = futures.result()
print([type(r) is Point for r in results[:2]], results[1].x, type(results[2]) is Odd)
"""
"""Classes and functions of `__main__`, there and back."""

CLASSES_OUT = "[True, True] 4 True\n"


# --- where programs come from ---------------------------------------------------------------------
class TestSources:
    def test_script_without_a_guard(self, script: Run) -> None:
        """A script needs no `if __name__ == "__main__"`; its classes come back as themselves."""
        assert script(CLASSES) == Ended(0, CLASSES_OUT, "")

    def test_command(self, run: Run) -> None:
        """`python -c`."""
        assert run("-c", CLASSES) == Ended(0, CLASSES_OUT, "")

    def test_stdin(self, run: Run) -> None:
        """`python < program`, where no source file exists."""
        assert run("-", stdin=CLASSES) == Ended(0, CLASSES_OUT, "")

    def test_module(self, run: Run, tmp_path: Path) -> None:
        """`python -m`, with a module of the program's own beside it."""
        package = tmp_path / "program"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "other.py").write_text("def double(x):\n    return 2 * x\n")
        (package / "__main__.py").write_text(
            f"{CLASSES}\nfrom program import other\nfrom .other import double\n"
            "print(executor.map(double, [4]).result(), executor.submit(other.double, 5).result())"
        )
        assert run("-m", "program") == Ended(0, f"{CLASSES_OUT}[8] 10\n", "")

    def test_many_open_files(self, script: Run) -> None:
        """A program with more than 1,024 files open: its workers' descriptors are beyond the range
        of `select`.
        """
        ended = script("""
            import lambdamr, resource, time
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 4096), most))
            files = [open("/dev/null") for _ in range(1100)]
            executor = lambdamr.Executor()
            print(executor.submit(time.sleep, 0.1).result(20))
            """)
        assert ended == Ended(0, "None\n", "")

    def test_embedded_python(self, script: Run) -> None:
        """Where another program embeds Python, nothing says which one runs workers: an error that
        says so.
        """
        ended = script("""
            import lambdamr, sys
            sys.executable = None
            with lambdamr.Executor() as executor:
                print(executor.submit(abs, -1).exception(20))
            """)
        assert ended.status == 0
        assert "sys.executable, the Python that would run it, is not set" in ended.out

    def test_closed_standard_streams(self, run: Run, tmp_path: Path) -> None:
        """A daemon's program, without stdin, stdout and stderr."""
        (tmp_path / "daemon.py").write_text(
            "import lambdamr\nwith lambdamr.Executor() as executor:\n"
            "    values = executor.map(abs, [-1, 2]).result()\n"
            "open('values', 'w').write(repr(values))"
        )
        ended = run(
            "-c",
            "import os, sys\nos.closerange(0, 3)\n"
            "os.execv(sys.executable, [sys.executable, 'daemon.py'])",
        )
        assert ended.status == 0
        assert (tmp_path / "values").read_text() == "[1, 2]"

    def test_interactive(self, run: Run) -> None:
        """The REPL: functions typed at the prompt, an error in between, and a clean end."""
        ended = run(
            "-i", "-q",
            stdin="""
                import lambdamr
                executor = lambdamr.Executor()
                def double(x):
                    return 2 * x

                executor.map(double, [1, 2]).result()
                1 / 0
                future = executor.submit(double, 21)
                future.result()
                """,
        )  # fmt: skip
        assert ended.status == 0
        assert ended.out == "[2, 4]\n42\n"
        assert ended.err.count("Traceback") == 1
        assert "ZeroDivisionError" in ended.err

    def test_ipython(self, run: Run, tmp_path: Path) -> None:
        """IPython, as `ipython -c`."""
        ended = run("-m", "IPython", "--no-banner", "-c", CLASSES, IPYTHONDIR=str(tmp_path / "ipy"))
        assert ended == Ended(0, CLASSES_OUT, "")

    def test_pytest(self, run: Run, tmp_path: Path) -> None:
        """Functions and classes of a test module, and of its fixtures, under pytest."""
        (tmp_path / "test_theirs.py").write_text(
            textwrap.dedent("""
                import lambdamr
                import pytest

                class Point:
                    def __init__(self, x):
                        self.x = x

                def move(point):
                    assert point.x < 3, "too far"
                    return Point(point.x + 1)

                @pytest.fixture
                def executor():
                    with lambdamr.Executor() as executor:
                        yield executor

                def test_here(executor):
                    results = executor.map(move, [Point(1), Point(2)]).result()
                    assert [type(r) for r in results] == [Point, Point]
                    with pytest.raises(AssertionError, match="too far"):
                        executor.submit(move, Point(3)).result()
                    local = executor.submit(lambda: [Point(n).x for n in range(3)])
                    assert local.result() == [0, 1, 2]
                """)
        )
        ended = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_theirs.py")
        assert (ended.status, ended.err) == (0, "")
        assert "1 passed" in ended.out

    def test_notebook(self, root: str, tmp_path: Path) -> None:
        """A Jupyter notebook: classes of cells come back as themselves, redefined ones too; the
        executor is used by many cells; futures show as HTML; a long wait shows its job.
        """
        nbclient = pytest.importorskip("nbclient")
        nbformat = pytest.importorskip("nbformat")
        cells = [
            CLASSES,
            "def work(point):\n    return point.x + 100\nexecutor.submit(work, Point(1)).result()",
            "class Point:\n    def __init__(self):\n        self.x = 'new'\n"
            "point = executor.submit(lambda: Point()).result()\n(type(point) is Point, point.x)",
            "executor.map(work, [])",
            "import asyncio\nawait asyncio.wrap_future(executor.submit(len, 'abc'))",
            "await executor.submit(len, 'abcd')",
            "import time\nlambdamr.Executor(progress=True).map("
            "lambda n: time.sleep(0.3), range(3), chunksize=1).result()",
            "executor.shutdown()",
        ]
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells]
        )
        for cell in notebook.cells:
            cell.pop("id", None)
        client = nbclient.NotebookClient(
            notebook, timeout=PATIENCE_S, kernel_name="python3", resources={}
        )
        with changed_environment(environment(root, IPYTHONDIR=str(tmp_path / "ipython"))):
            client.execute(cwd=str(tmp_path))
        shown = [[shown_text(output) for output in cell.outputs] for cell in notebook.cells]
        assert shown[0] == [CLASSES_OUT]
        assert shown[1:3] == [["101"], ["(True, 'new')"]]
        assert "lambdamr: futures of no job" in shown[3][0]
        assert shown[4:6] == [["3"], ["4"]]
        job, result = shown[6]
        assert "3 / 3" in job
        assert result == "[None, None, None]"
        assert shown[7] == []


@contextlib.contextmanager
def changed_environment(values: dict[str, str]) -> Iterator[None]:
    """Kernels inherit this process's environment."""
    saved = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


def shown_text(output: Any) -> str:
    """What one output of a cell shows; Any: nbformat's nodes."""
    if output.output_type == "stream":
        return str(output.text) if output.name == "stdout" else f"stderr: {output.text}"
    return str(output.data.get("text/html", output.data.get("text/plain")))


# --- how programs end -----------------------------------------------------------------------------
WAIT_AND_WRITE = """
import os, sys
def work(path, gate):
    with open(gate, "rb") as go:   # the program opens the other end just before it ends
        go.read()
    with open(path, "w") as file:
        file.write("apple")
"""

RELEASE_AT_EXIT = """
import atexit
import lambdamr.engine   # its own exit handler is registered: ours runs before it
atexit.register(lambda: open("gate", "wb").close())
os.mkfifo("gate")
"""


class TestEnd:
    def test_outstanding_work_is_waited_for(self, script: Run, tmp_path: Path) -> None:
        """A program that ends normally ends when its calls have (CPython's
        test_interpreter_shutdown).
        """
        ended = script(f"""
            {indented(WAIT_AND_WRITE)}
            import lambdamr
            {indented(RELEASE_AT_EXIT)}
            executor = lambdamr.Executor()
            executor.submit(work, os.path.abspath("out"), os.path.abspath("gate"))
            """)
        assert ended == Ended(0, "", "")
        assert (tmp_path / "out").read_text() == "apple"

    def test_outstanding_work_of_an_executor_that_is_gone(
        self, script: Run, tmp_path: Path
    ) -> None:
        """It is waited for although nobody holds executor or future any more."""
        ended = script(f"""
            {indented(WAIT_AND_WRITE)}
            import lambdamr
            {indented(RELEASE_AT_EXIT)}
            lambdamr.Executor().submit(work, os.path.abspath("out"), os.path.abspath("gate"))
            """)
        assert ended == Ended(0, "", "")
        assert (tmp_path / "out").read_text() == "apple"

    def test_calls_that_wait_for_calls(self, script: Run, tmp_path: Path) -> None:
        """Calls whose arguments come only while the program ends are run too."""
        ended = script(f"""
            {indented(WAIT_AND_WRITE)}
            import lambdamr
            {indented(RELEASE_AT_EXIT)}
            executor = lambdamr.Executor()
            other = lambdamr.Executor()
            first = executor.submit(work, os.path.abspath("out"), os.path.abspath("gate"))
            def write(_, path):
                with open(path, "w") as file:
                    file.write("pear")
            other.submit(write, executor.submit(repr, first), os.path.abspath("second"))
            """)
        assert ended == Ended(0, "", "")
        assert (tmp_path / "second").read_text() == "pear"

    def test_exit_status(self, script: Run) -> None:
        """sys.exit keeps its status, and waits as well."""
        ended = script("""
            import lambdamr, sys
            executor = lambdamr.Executor()
            future = executor.submit(abs, -1)
            future.add_done_callback(lambda f: print(f.result()))
            sys.exit(3)
            """)
        assert ended == Ended(3, "1\n", "")

    def test_after_an_exception(self, script: Run) -> None:
        """A program that ends by an exception cancels its calls, however long they would run."""
        ended = script("""
            import lambdamr, threading
            executor = lambdamr.Executor()
            futures = [executor.submit(lambda: threading.Event().wait()) for _ in range(3)]
            futures[0].add_done_callback(lambda f: print("cancelled", f.cancelled()))
            raise LookupError("the end")
            """)
        assert (ended.status, ended.out) == (1, "cancelled True\n")
        assert ended.err.endswith("LookupError: the end\n")
        assert ended.err.count("Traceback") == 1

    def test_leaving_with_by_an_exception(self, script: Run) -> None:
        """`with Executor()` left by an exception cancels and passes it on."""
        ended = script("""
            import lambdamr, threading
            with lambdamr.Executor() as executor:
                executor.map(lambda _: threading.Event().wait(), range(100))
                raise LookupError("the end")
            """)
        assert ended.status == 1
        assert ended.err.endswith("LookupError: the end\n")

    def test_after_shutdown_without_waiting(self, script: Run) -> None:
        """shutdown(wait=False) at the end of a program loses nothing."""
        ended = script("""
            import lambdamr
            executor = lambdamr.Executor()
            executor.submit(abs, -1).add_done_callback(lambda f: print(f.result()))
            executor.shutdown(wait=False)
            """)
        assert ended == Ended(0, "1\n", "")

    def test_forked_process(self, script: Run) -> None:
        """A forked process that ends does not wait for its parent's calls, nor stop them."""
        ended = script("""
            import lambdamr, os, sys
            executor = lambdamr.Executor()
            os.mkfifo("gate")
            held = executor.submit(lambda path: open(path, "rb").read(), os.path.abspath("gate"))
            child = os.fork()
            if child == 0:
                sys.exit(0)
            status = os.waitpid(child, 0)[1]
            with open("gate", "wb") as gate:
                gate.write(b"through")
            print(status, held.result(), executor.submit(abs, -2).result())
            """)
        assert ended == Ended(0, "0 b'through' 2\n", "")

    def test_forked_process_that_leaves_the_executor(self, script: Run) -> None:
        """A forked process that leaves `with Executor()` by its end, or calls `shutdown`, stops and
        cancels nothing of its parent's, and can submit nothing by it.
        """
        ended = script("""
            import lambdamr, os, sys
            os.mkfifo("gate")
            with lambdamr.Executor(workers=1) as executor:
                executor.submit(abs, -1).result()
                path = os.path.abspath("gate")
                read = executor.submit(lambda path: open(path, "rb").read(), path)
                child = os.fork()
                if child == 0:
                    try:
                        executor.submit(abs, -1)
                    except RuntimeError as error:
                        print("forked" in str(error), flush=True)
                    executor.shutdown(cancel_futures=True)
                    sys.exit(0)
                status = os.waitpid(child, 0)[1]
                with open("gate", "wb") as gate:
                    gate.write(b"through")
                print(status, read.result(), executor.submit(abs, -2).result())
            """)
        assert ended == Ended(0, "True\n0 b'through' 2\n", "")

    def test_nothing_survives_a_killed_program(self, root: str, tmp_path: Path) -> None:
        """The workers of a client that is killed end by themselves."""
        program = """
            import lambdamr, os
            executor = lambdamr.Executor()
            print(*executor.submit(lambda: (os.getpid(), os.getppid())).result(), flush=True)
            executor.submit(input)
            import time; time.sleep(1000)
            """
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            stdout=subprocess.PIPE, text=True, env=environment(root), cwd=tmp_path,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            descriptors = [os.pidfd_open(int(pid)) for pid in process.stdout.readline().split()]
            process.kill()
        assert all(ends(descriptor) for descriptor in descriptors)


def indented(text: str) -> str:
    """Fit a text into the indentation of the programs above."""
    return textwrap.indent(text, " " * 12).strip()


def ends(descriptor: int) -> bool:
    """Whether the process of a pidfd ends in time."""
    ended = is_readable(descriptor)
    os.close(descriptor)
    return ended


def is_readable(descriptor: int) -> bool:
    ready, _, _ = select.select([descriptor], (), (), PATIENCE_S)
    return bool(ready)


class TestInterrupt:
    def interrupted(self, program: str, root: str, tmp_path: Path, *, group: bool) -> Ended:
        """Run a program, and interrupt it (as Ctrl-C: its group) when it has opened "ready"."""
        os.mkfifo(tmp_path / "ready")
        ready = os.open(tmp_path / "ready", os.O_RDWR)
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env=environment(root), cwd=tmp_path,
        ) as process:  # fmt: skip
            try:
                assert is_readable(ready), "the program did not get ready"
                os.close(ready)
                faults.wait_until_waiting(process.pid)
                (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
                out, err = process.communicate(timeout=PATIENCE_S)
            except BaseException:
                process.kill()
                raise
        return Ended(process.returncode, out, err)

    @pytest.mark.parametrize(
        "program",
        [
            """
            import lambdamr
            futures = lambdamr.attach({job!r})
            open("ready", "wb").write(b"x")
            futures.result()
            """,
            """
            import sys
            from lambdamr.cli import main
            open("ready", "wb").write(b"x")
            sys.exit(main(["result", {job!r}, "--wait"]))
            """,
        ],
        ids=["attach", "lambdamr result"],
    )
    def test_who_attached_neither_cancels_nor_waits(
        self, root: str, tmp_path: Path, gate: Gate, program: str
    ) -> None:
        """The job is another program's, which is not disturbed."""
        with lambdamr.Executor(workers=1, root=root) as executor:
            futures = executor.map(pass_gate, [gate.path])
            job = futures.job_id
            ended = self.interrupted(program.format(job=job), root, tmp_path, group=True)
            assert ended.status in (-signal.SIGINT, Exit.INTERRUPTED)
            gate.open()
            assert len(futures.result(PATIENCE_S)) == 1

    @pytest.mark.parametrize("wait", ["futures.result()", "futures[0].result()", "futures.wait()"])
    def test_only_the_wait_ends(self, root: str, tmp_path: Path, wait: str) -> None:
        """Ctrl-C while waiting raises KeyboardInterrupt; the tasks go on, unharmed by the signal
        that the whole process group got, and the results can still be had.
        """
        ended = self.interrupted(
            f"""
            import lambdamr, os
            os.mkfifo("gate")
            executor = lambdamr.Executor()
            def work(path):
                with open(path, "rb") as gate:
                    return gate.read()
            futures = executor.map(work, [os.path.abspath("gate")])
            try:
                open("ready", "wb").write(b"x")
                {wait}
            except KeyboardInterrupt:
                print("interrupted", futures.counts())
            with open("gate", "wb") as gate:
                gate.write(b"go")
            print(futures.result())
            """,
            root, tmp_path, group=True,
        )  # fmt: skip
        counts = {"done": 0, "failed": 0, "cancelled": 0, "pending": 1}
        assert ended == Ended(0, f"interrupted {counts}\n[b'go']\n", "")

    def test_at_any_moment(self, script: Run) -> None:
        """Ctrl-C in the midst of a submission, a wait or a look: the executor goes on working, and
        nothing waits for ever. The standard library's `with condition` may stay locked then.
        """
        ended = script("""
            import lambdamr, random, signal, sys

            def again(lost):  # Python drops what is raised in a callback of a weak reference
                if isinstance(lost.exc_value, KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, 0.001)
                else:
                    sys.__unraisablehook__(lost)

            sys.unraisablehook = again
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            random.seed(12)
            executor = lambdamr.Executor()
            executor.submit(int).result()
            interrupted = 0
            for number in range(60):
                try:
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.02))
                    while True:
                        executor.map(abs, range(100), chunksize=20).result()
                except KeyboardInterrupt:
                    interrupted += 1
                assert executor.submit(abs, -number).result(10) == number
            executor.shutdown()
            print(interrupted)
            """)
        assert ended == Ended(0, "60\n", "")

    def test_a_program_that_is_interrupted_ends(self, root: str, tmp_path: Path) -> None:
        """Ctrl-C that nobody catches ends the program and cancels calls without end."""
        ended = self.interrupted(
            """
            import lambdamr, threading
            executor = lambdamr.Executor()
            futures = executor.map(lambda _: threading.Event().wait(), range(10), chunksize=1)
            open("ready", "wb").write(b"x")
            futures.result()
            """,
            root, tmp_path, group=True,
        )  # fmt: skip
        assert ended.status == -signal.SIGINT
        assert ended.out == ""
        assert ended.err.endswith("KeyboardInterrupt\n")
        assert ended.err.count("Traceback") == 1

    def test_in_a_with_block(self, root: str, tmp_path: Path) -> None:
        """Ctrl-C inside `with Executor()` cancels what is outstanding and leaves."""
        ended = self.interrupted(
            """
            import lambdamr, threading
            try:
                with lambdamr.Executor() as executor:
                    future = executor.submit(lambda: threading.Event().wait())
                    open("ready", "wb").write(b"x")
                    future.result()
            except KeyboardInterrupt:
                print(future.cancelled())
            """,
            root, tmp_path, group=False,
        )  # fmt: skip
        assert ended == Ended(0, "True\n", "")


# --- what programs show -----------------------------------------------------------------------
LONG_WAIT = """
import lambdamr, os, sys
executor = lambdamr.Executor({options})
def work(n):
    import time
    time.sleep(0.2)   # a bar appears for long waits only: this is one
    return n
print(executor.map(work, range(5), chunksize=1).result())
"""


class TestProgress:
    def test_silent_where_nobody_watches(self, script: Run) -> None:
        """Without a terminal a long wait prints nothing."""
        assert script(LONG_WAIT.format(options="")) == Ended(0, "[0, 1, 2, 3, 4]\n", "")

    def test_bar_if_asked_for(self, script: Run) -> None:
        """progress=True shows a bar on stderr, in place, that names the stage and counts."""
        ended = script(LONG_WAIT.format(options="progress=True"), LAMBDAMR_PROGRESS="0")
        assert (ended.status, ended.out) == (0, "[0, 1, 2, 3, 4]\n")
        assert "map:" in ended.err
        assert "/5 [" in ended.err
        assert "\n" not in ended.err

    def test_no_bar_for_short_waits(self, script: Run) -> None:
        """Where results come at once, no bar appears, and tqdm is not even loaded."""
        ended = script("""
            import lambdamr, sys
            executor = lambdamr.Executor(progress=True)
            executor.submit(int).result()  # workers have started: that may take a while
            executor.map(abs, range(100)).result()
            print("tqdm" in sys.modules)
            """)
        assert ended == Ended(0, "False\n", "")

    def test_no_bar_without_waiting(self, script: Run) -> None:
        """Submitting, and single futures, show nothing."""
        ended = script(
            LONG_WAIT.format(options="progress=True").replace(
                "print(executor.map(work, range(5), chunksize=1).result())",
                "futures = executor.map(work, range(3), chunksize=1)\n"
                "print([f.result() for f in futures])",
            )
        )
        assert ended == Ended(0, "[0, 1, 2]\n", "")

    @pytest.mark.parametrize(
        ("options", "variable", "shown"),
        [("", "", True), ("progress=False", "", False), ("", "0", False), ("", "1", True)],
    )
    def test_terminal(self, root: str, options: str, variable: str, shown: bool) -> None:
        """On a terminal a bar appears, unless progress=False or the configuration says no."""
        env = environment(root, TERM="xterm", LAMBDAMR_PROGRESS=variable)
        if not variable:
            del env["LAMBDAMR_PROGRESS"]
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        process = subprocess.Popen(
            [sys.executable, "-c", LONG_WAIT.format(options=options)],
            stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=env,
        )  # fmt: skip
        os.close(theirs)
        seen = read_terminal(ours)
        assert process.communicate(timeout=PATIENCE_S)[0] == b"[0, 1, 2, 3, 4]\n"
        assert (b"map:" in seen) is shown
        assert seen == b"" or shown
        assert b"\n" not in seen.strip(b"\r\n")

    def test_map_reduce_has_a_bar_per_stage(self, script: Run) -> None:
        """The stages of a map_reduce have a bar each, one after the other."""
        ended = script("""
            import lambdamr, time
            executor = lambdamr.Executor(progress=True)
            def mapper(n):
                time.sleep(0.2)
                yield n % 2, n
            def reducer(key, values):
                time.sleep(0.4)
                return sum(values)
            print(executor.map_reduce(mapper, range(4), reducer, reducers=2).result())
            """)
        assert (ended.status, ended.out) == (0, "{0: 2, 1: 4}\n")
        assert 0 <= ended.err.find("map:") < ended.err.find("reduce:")

    def test_a_failing_task_prints_nothing(self, script: Run) -> None:
        """Output and tracebacks of tasks stay with their futures: the library prints nothing."""
        ended = script("""
            import lambdamr, sys, warnings
            def noisy(n):
                print("out"); print("err", file=sys.stderr); warnings.warn("careful")
                return 1 / n
            with lambdamr.Executor() as executor:
                futures = executor.map(noisy, [1, 0])
                print([type(error).__name__ for error in futures.exceptions()])
                executor.submit(noisy, 2).cancel()
            """)
        assert ended == Ended(0, "['NoneType', 'ZeroDivisionError']\n", "")


def read_terminal(descriptor: int) -> bytes:
    """Return what a program shows on a terminal, to its end."""
    seen = b""
    with open(descriptor, "rb", buffering=0) as terminal:
        while True:
            try:
                data = terminal.read(4096)
            except OSError:  # Linux tells so that the other end is closed
                return seen
            if not data:
                return seen
            seen += data


# --- the module ---------------------------------------------------------------------------------
class TestImport:
    def test_import_is_light(self, run: Run) -> None:
        """`import lambdamr` loads nothing heavy; what needs it loads it later."""
        heavy = ["boto3", "botocore", "obstore", "cloudpickle", "asyncio", "tqdm", "dill", "numpy"]
        heavy += ["platformdirs", "tblib", "multiprocessing"]
        ended = run("-c", f"import sys, lambdamr; print([m for m in {heavy} if m in sys.modules])")
        assert ended == Ended(0, "[]\n", "")

    def test_a_first_call_needs_no_boto(self, run: Run) -> None:
        """Local work loads neither boto3 nor asyncio nor tqdm."""
        ended = run(
            "-c",
            "import sys, lambdamr\n"
            "print(lambdamr.Executor().map(abs, [-1]).result())\n"
            "print([m for m in ('boto3', 'asyncio', 'tqdm', 'dill', 'tblib') if m in sys.modules])",
        )
        assert ended == Ended(0, "[1]\n[]\n", "")

    def test_public_names(self) -> None:
        """`__all__` is what is documented, sorted, and all of it is there."""
        calls = {
            "Executor",
            "as_completed",
            "as_completed_async",
            "attach",
            "clean",
            "delete",
            "get_all_results",
            "wait",
        }
        inputs = {"blocks", "csv", "jsonl", "lines", "objects", "records"}
        classes = {"Data", "Future", "Futures", "Job", "JobReport", "TaskStats"}
        classes |= {"Cost", "Failure", "Plan", "Straggler"}
        from lambdamr_runtime import errors

        public = calls | inputs | classes | set(errors.__all__) | {"__version__", "reducers"}
        assert set(lambdamr.__all__) == public
        assert lambdamr.__all__ == sorted(lambdamr.__all__)
        assert dir(lambdamr) == sorted(lambdamr.__all__)
        for name in lambdamr.__all__:
            assert getattr(lambdamr, name) is not None
        with pytest.raises(AttributeError, match="'lambdamr' has no attribute 'nothing'"):
            lambdamr.nothing  # noqa: B018 - the access is the test

    def test_star_import(self, run: Run) -> None:
        """`from lambdamr import *` works and brings the lazy names."""
        ended = run("-c", "from lambdamr import *; print(Executor, attach.__name__, Job.__name__)")
        assert ended.out == "<class 'lambdamr.executor.Executor'> attach Job\n"

    def test_configuration_is_used(self, run: Run, tmp_path: Path) -> None:
        """The file that LAMBDAMR_CONFIG names, and variables over it, hold for executors."""
        file = tmp_path / "mine.toml"
        file.write_text('root = "unused"\nworkers = 3\n')
        program = """
            import lambdamr, os
            with lambdamr.Executor() as executor:
                seen = executor.map(lambda _: os.getpid(), range(6), chunksize=1).result()
            print(len(set(seen)))
            """
        ended = run("-c", textwrap.dedent(program), LAMBDAMR_CONFIG=str(file))
        assert ended == Ended(0, "1\n", "")
        assert not (tmp_path / "unused").exists()

    def test_relative_root_stays_where_it_was(self, script: Run, tmp_path: Path) -> None:
        """A relative root means the folder at the time, wherever the program goes afterwards."""
        ended = script("""
            import lambdamr, os
            executor = lambdamr.Executor(root="jobs")
            os.mkdir("elsewhere")
            os.chdir("elsewhere")
            print(executor.map(lambda n: bytes(300_000 * n), [0, 1]).result()[1] == bytes(300_000))
            """)
        assert ended == Ended(0, "True\n", "")
        assert sorted(os.listdir(tmp_path)) == ["elsewhere", "jobs", "program.py"]
        assert os.listdir(tmp_path / "elsewhere") == []

    def test_wrong_configuration_stops_a_program(self, run: Run) -> None:
        """A configuration that cannot be used is an error where an executor is made."""
        ended = run("-c", "import lambdamr; lambdamr.Executor()", LAMBDAMR_MEMORY_MB="lots")
        assert ended.status == 1
        assert "ValueError: LAMBDAMR_MEMORY_MB='lots'" in ended.err
