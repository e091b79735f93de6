"""The commands that are about jobs: what they print, do, and how they end."""

import json
import os
import pickle
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest

import lambdamr
from lambdamr.cli import Exit, main
from lambdamr.cli.showing import STATES, age, table
from lambdamr.looking import State, look, summary
from lambdamr.submission import Packing, StageDraft, prepare
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.store import open_store
from lambdamr_runtime.wire import StageKind
from lambdamr_runtime.work import Call
from tests import faults
from tests.cluster import Cluster
from tests.gates import PATIENCE_S, Gate, pass_gate

LAMBDAMR = str(Path(sys.executable).with_name("lambdamr"))

Capture = pytest.CaptureFixture[str]


def double(item: Any) -> Any:
    print("doubling", item)
    return item * 2


def invert(item: int) -> float:
    return 1 / item


def words(line: str) -> Iterator[tuple[str, int]]:
    for word in line.split():
        yield word, 1


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The root of three jobs that have ended: a map, one with a failure, a map_reduce."""
    return str(tmp_path_factory.mktemp("cli"))


@pytest.fixture(scope="module")
def ended(store: str) -> dict[str, str]:
    """Ids by name: map, failed, counts."""
    with lambdamr.Executor(workers=1, root=store) as executor:
        mapped = executor.map(double, range(3), chunksize=1)
        failed = executor.map(invert, [1, 0, 2], chunksize=1, return_exceptions=True)
        counts = executor.map_reduce(words, iter(["a b", "b"]), lambdamr.reducers.sum, reducers=1)
        mapped.result(), failed.result(), counts.result()
    return {"map": mapped.job_id, "failed": failed.job_id, "counts": counts.job_id}


@pytest.fixture
def unfinished(tmp_path: Path) -> tuple[str, str]:
    """Root and id of a job that was stored, of whose chunks none has run, and whose client is
    gone.
    """
    root = str(tmp_path / "root")
    cluster = Cluster(2, store=open_store(root))
    args: list[tuple[tuple[int], dict[str, Any]]] = [((n,), {}) for n in range(4)]
    draft = StageDraft("map", StageKind.CALL, Call(abs), 4, 1, args)
    submission = prepare([draft], Packing(), cluster)
    submission.store(cluster.store, set())
    return root, submission.manifest.job


def said(capsys: Capture, *arguments: str) -> str:
    """Return what a command prints that ends well."""
    assert main(list(arguments)) == Exit.OK
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def record(capsys: Capture, *arguments: str) -> Any:
    """Return the JSON that a command prints on one line."""
    out = said(capsys, *arguments, "--json")
    assert out.count("\n") == 1
    return json.loads(out)


# --- jobs, show, status, logs --------------------------------------------------------------------
def test_jobs_are_listed_newest_first(store: str, ended: dict[str, str], capsys: Capture) -> None:
    """With state, tasks and name; --state chooses, --limit cuts."""
    found = record(capsys, "jobs", "--root", store)
    assert {each["job"] for each in found} == set(ended.values())
    assert [each["created_s"] for each in found] == sorted(
        (each["created_s"] for each in found), reverse=True
    )
    counts = next(each for each in found if each["job"] == ended["counts"])
    assert (counts["state"], counts["name"], counts["ended"]) == (
        "done", "map + reduce", counts["tasks"],
    )  # fmt: skip
    assert len(record(capsys, "jobs", "--root", store, "--limit", "1")) == 1
    assert record(capsys, "jobs", "--root", store, "--state", "cancelled") == []
    text = said(capsys, "jobs", "--root", store)
    assert text.splitlines()[0].split() == ["job", "state", "age", "took", "tasks", "name"]
    assert len(text.splitlines()) == 4


def test_no_jobs_is_no_error(tmp_path: Path, capsys: Capture) -> None:
    """An empty root has none."""
    assert said(capsys, "jobs", "--root", str(tmp_path)) == "no jobs\n"
    assert record(capsys, "jobs", "--root", str(tmp_path)) == []


def test_a_job_is_named_by_its_beginning_or_as_last(
    store: str, ended: dict[str, str], capsys: Capture
) -> None:
    """The whole id, as much of it as is unique, "last"; anything else is not found."""
    for text in (ended["map"], ended["map"][:-1]):
        assert record(capsys, "status", text, "--root", store)["job"] == ended["map"]
    assert record(capsys, "status", "last", "--root", store)["job"] == ended["counts"]
    for text, told in (("2", "jobs begin with"), ("nonsense", "There is no job"), ("", "no job")):
        assert main(["status", text, "--root", store]) == Exit.NOT_FOUND
        assert told in capsys.readouterr().err


def test_show_tells_what_was_done_and_what_it_cost(
    store: str, ended: dict[str, str], capsys: Capture
) -> None:
    """Stages, failures and cost; --on aws prices it."""
    text = said(capsys, "show", ended["failed"], "--root", store)
    assert "map task 1 failed: ZeroDivisionError: division by zero" in text
    assert "$0 on this machine" in text
    found = record(capsys, "show", ended["counts"], "--root", store, "--on", "aws")
    assert [stage["name"] for stage in found["stages"]] == ["map", "reduce"]
    assert found["cost"]["usd"]["low"] > 0
    assert found["cost"]["by_component"]["PUT"]["low"] > 0
    assert main(["show", "last", "--root", store, "--on", "aws", "--region", "x"]) == Exit.USAGE
    assert "not in the table" in capsys.readouterr().err


def test_a_job_of_a_region_without_prices_is_shown(
    store: str, ended: dict[str, str], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but its cost; what to do about that is said."""
    monkeypatch.setenv("LAMBDAMR_REGION", "eu-south-2")
    arguments = ("show", ended["counts"], "--root", store, "--on", "aws")
    text = said(capsys, *arguments)
    assert "reduce" in text
    assert "cost unknown: The prices of 'eu-south-2'" in text
    assert "lambdamr config set prices" in text
    assert record(capsys, *arguments)["cost"] is None


def test_an_unfinished_job_is_shown_and_left_alone(
    unfinished: tuple[str, str], capsys: Capture
) -> None:
    """Its client is gone: it is abandoned, and looking at it changes nothing."""
    root, job = unfinished
    stored = open_store(root)
    before = sorted(entry.key for entry in stored.list(""))
    found = record(capsys, "status", job, "--root", root)
    assert found["state"] == "abandoned"
    assert found["seconds"] is None
    (stage,) = found["stages"]
    assert (stage["tasks"], stage["ended"], stage["open_lanes"]) == (4, 0, 2)
    assert stage["silent_lanes"] == 2
    assert "so far" in said(capsys, "show", job, "--root", root)
    assert record(capsys, "jobs", "--root", root)[0]["ended"] == 0
    assert sorted(entry.key for entry in stored.list("")) == before


def test_status_tells_a_bad_end_by_its_exit(unfinished: tuple[str, str], capsys: Capture) -> None:
    """1 for a job that was cancelled."""
    root, job = unfinished
    assert main(["cancel", job, "--root", root]) == Exit.OK
    assert main(["status", job, "--root", root]) == Exit.FAILED
    assert "cancelled" in capsys.readouterr().out
    assert record(capsys, "jobs", "--state", "failed", "--root", root) == []


def test_a_job_that_was_cancelled_since_a_task_failed_says_so(
    root: str, capsys: Capture, gate: Gate
) -> None:
    """A block that is left by the exception of a task cancels the rest of its job, which is listed
    among those that failed; one that was cancelled without a failure is not.
    """
    executor = lambdamr.Executor(workers=2, root=root)
    futures = executor.map(_invert_or_wait, [0, 1], [gate.path] * 2, chunksize=1)
    with pytest.raises(ZeroDivisionError), executor:
        futures.result()
    (found,) = record(capsys, "jobs", "--state", "failed", "--root", root)
    assert (found["job"], found["state"]) == (futures.job_id, "cancelled")
    assert "cancelled, tasks failed" in said(capsys, "jobs", "--root", root)
    assert main(["status", "last", "--root", root]) == Exit.FAILED
    text = capsys.readouterr().out
    assert "1 of 2 tasks failed" in text
    assert "map task 0 failed: ZeroDivisionError: division by zero" in text


def test_logs_have_what_tasks_printed(store: str, ended: dict[str, str], capsys: Capture) -> None:
    """Of all, or of one; errors too, and a word where there is nothing."""
    text = said(capsys, "logs", ended["map"], "--root", store)
    assert text == "".join(f"--- map task {n}\ndoubling {n}\n" for n in range(3))
    assert said(capsys, "logs", ended["map"], "2", "--root", store) == "doubling 2\n"
    assert "ZeroDivisionError" in said(capsys, "logs", ended["failed"], "--root", store)
    lines = said(capsys, "logs", ended["map"], "--root", store, "--json").splitlines()
    assert [json.loads(line)["task"] for line in lines] == [0, 1, 2]
    assert main(["logs", ended["counts"], "--stage", "map", "--root", store]) == Exit.OK
    assert "no task" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("3",), "no task 3 there; it has map with tasks 0 to 2"),
        (("--stage", "reduce"), "no stage 'reduce'; it has map with tasks 0 to 2"),
    ],
)
def test_logs_of_what_a_job_does_not_have(
    store: str, ended: dict[str, str], capsys: Capture, arguments: tuple[str, ...], told: str
) -> None:
    """Silence would look like a task that has printed nothing."""
    assert main(["logs", ended["map"], *arguments, "--root", store]) == Exit.USAGE
    captured = capsys.readouterr()
    assert told in captured.err
    assert (captured.err.count("\n"), captured.out) == (1, "")


def test_logs_can_be_followed(store: str, ended: dict[str, str], capsys: Capture) -> None:
    """Of a job that has ended there is nothing to wait for."""
    assert "doubling 1" in said(capsys, "logs", ended["map"], "--follow", "--root", store)


def test_a_look_unpickles_nothing_of_the_users(store: str, ended: dict[str, str]) -> None:
    """Only records of ours: a look works without the user's modules."""
    opened = open_store(store)
    assert look(opened, ended["map"]).stages[0].values == []
    assert len(look(opened, ended["counts"]).stages[0].values) == 2


def test_what_is_no_job_of_ours_is_listed_as_unreadable(tmp_path: Path) -> None:
    """A damaged manifest is no reason not to list the others."""
    opened = open_store(str(tmp_path))
    job = "20260101-000000-0123456789ab"
    opened.put(JobKeys(job).manifest, b"no json")
    assert summary(opened, job).state is State.UNREADABLE


# --- result, cancel, retry, delete ---------------------------------------------------------------
def test_result_prints_values(
    store: str, ended: dict[str, str], capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    """As text, JSON or a pickle, to stdout or a file."""

    def printed(*arguments: str) -> bytes:
        assert main(["result", *arguments, "--root", store]) == Exit.OK
        return capfdbinary.readouterr().out

    assert printed(ended["map"]) == b"0\n2\n4\n"
    assert json.loads(printed(ended["map"], "--json")) == [0, 2, 4]
    assert printed(ended["counts"]) == b"a\t1\nb\t2\n"
    assert pickle.loads(printed(ended["counts"], "--format", "pickle")) == [("a", 1), ("b", 2)]
    path = tmp_path / "out.json"
    assert printed(ended["counts"], "--format", "json", "--output", str(path)) == b""
    assert json.loads(path.read_text()) == [["a", 1], ["b", 2]]


def test_a_failed_job_has_no_result(root: str, capsys: Capture) -> None:
    """One line says why, and what next."""
    with lambdamr.Executor(workers=1, root=root) as executor:
        executor.submit(invert, 0).exception()
    assert main(["result", "last", "--root", root]) == Exit.FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "ZeroDivisionError" in captured.err
    assert "lambdamr retry" in captured.err


def test_values_beside_failed_tasks_are_printed(
    store: str, ended: dict[str, str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """In their places, the errors in theirs; stderr and the status say that some failed."""

    def printed(*arguments: str) -> bytes:
        assert main(["result", ended["failed"], *arguments, "--root", store]) == Exit.FAILED
        captured = capfdbinary.readouterr()
        assert captured.err.startswith(b"lambdamr: 1 of 3 tasks of job ")
        assert captured.err.count(b"\n") == 1
        return captured.out

    told = "ZeroDivisionError: division by zero"
    assert printed() == f"1.0\nerror: {told}\n0.5\n".encode()
    assert json.loads(printed("--json")) == [1.0, {"error": told}, 0.5]
    first, error, last = pickle.loads(printed("--format", "pickle"))
    assert (first, last) == (1.0, 0.5)
    assert isinstance(error, ZeroDivisionError)


def test_the_result_of_an_unfinished_job_is_waited_for_on_request(
    unfinished: tuple[str, str], capsys: Capture
) -> None:
    """Without --wait it is refused; with it the job goes on here."""
    root, job = unfinished
    assert main(["result", job, "--root", root]) == Exit.FAILED
    assert "--wait" in capsys.readouterr().err
    assert main(["result", job, "--root", root, "--wait", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == [0, 1, 2, 3]


def test_what_json_cannot_hold_is_said(root: str, capsys: Capture) -> None:
    """And what can."""
    with lambdamr.Executor(workers=1, root=root) as executor:
        executor.submit(complex, 1, 2).result()
    assert main(["result", "last", "--root", root, "--json"]) == Exit.USAGE
    assert "--format pickle" in capsys.readouterr().err


def test_a_pickle_is_not_printed_on_a_terminal(store: str, ended: dict[str, str]) -> None:
    """A real process whose stdout is a terminal."""
    terminal, other = pty.openpty()
    try:
        ran = subprocess.run(
            [LAMBDAMR, "result", ended["map"], "--root", store, "--format", "pickle"],
            stdout=other, stderr=subprocess.PIPE, timeout=60, text=True,
        )  # fmt: skip
    finally:
        os.close(other)
        os.close(terminal)
    assert ran.returncode == Exit.USAGE
    assert "--output" in ran.stderr


def test_cancel_ends_a_job_once(unfinished: tuple[str, str], capsys: Capture) -> None:
    """The second time it had ended already."""
    root, job = unfinished
    assert record(capsys, "cancel", job, "--root", root)["cancelled"] is True
    assert main(["cancel", job, "--root", root]) == Exit.FAILED
    assert "had ended already" in capsys.readouterr().out
    assert main(["result", job, "--root", root]) == Exit.FAILED
    assert "was cancelled" in capsys.readouterr().err


def test_retry_runs_again_what_failed(root: str, capsys: Capture, tmp_path: Path) -> None:
    """As a new job, whose end decides the exit status."""
    marker = tmp_path / "fixed"
    with lambdamr.Executor(workers=1, root=root) as executor:
        futures = executor.map(
            _fail_unless, [str(marker), str(tmp_path)], chunksize=1, return_exceptions=True
        )
        futures.result()
    assert main(["retry", futures.job_id, "--root", root]) == Exit.FAILED
    assert "1 failed" in capsys.readouterr().out
    marker.touch()
    assert main(["retry", futures.job_id, "--root", root, "--json"]) == Exit.OK
    found = json.loads(capsys.readouterr().out)
    assert found["failed"] == 0
    assert found["job"] != found["of"] == futures.job_id
    assert main(["retry", found["job"], "--root", root]) == Exit.OK
    assert "nothing to run again" in capsys.readouterr().out


def _fail_unless(path: str) -> None:
    if not os.path.exists(path):
        raise FileNotFoundError(path)


def test_an_unfinished_job_is_not_retried(unfinished: tuple[str, str], capsys: Capture) -> None:
    """It has not failed yet; what goes on with it is said."""
    root, job = unfinished
    assert main(["retry", job, "--root", root]) == Exit.FAILED
    assert f"lambdamr result {job} --wait" in capsys.readouterr().err


def test_many_removed_jobs_are_counted(root: str, capsys: Capture) -> None:
    """Up to ten are named; JSON has all."""
    store = open_store(root)
    ids = [f"20200101-00000{n % 10}-{n:012x}" for n in range(13)]

    def clean(*jobs: str) -> str:
        for job in jobs:
            store.put(JobKeys(job).manifest, b"")
        return said(capsys, "clean", "--root", root)

    assert clean(*ids[:10]).splitlines() == [*sorted(ids[:10]), "10 jobs removed"]
    assert clean(*ids[:11]) == "11 jobs removed\n"
    for job in ids:
        store.put(JobKeys(job).manifest, b"")
    assert len(record(capsys, "clean", "--root", root)) == 13


def test_delete_removes_one_job(root: str, capsys: Capture) -> None:
    """And no other."""
    with lambdamr.Executor(workers=1, root=root) as executor:
        first, second = executor.submit(abs, -1), executor.submit(abs, -2)
        first.result(), second.result()
    assert record(capsys, "delete", first.job_id, "--root", root)["deleted"] is True
    assert [each["job"] for each in record(capsys, "jobs", "--root", root)] == [second.job_id]
    assert main(["delete", first.job_id, "--root", root]) == Exit.NOT_FOUND


def test_a_running_job_is_deleted_by_force_alone(root: str, capsys: Capture) -> None:
    """Its client lives, in this process."""
    gate = Path(root).parent / "gate"
    with lambdamr.Executor(workers=1, root=root) as executor:
        future = executor.submit(_wait_for, str(gate))
        assert main(["delete", future.job_id, "--root", root]) == Exit.FAILED
        assert "--force" in capsys.readouterr().err
        assert main(["delete", future.job_id, "--root", root, "--force"]) == Exit.OK
        with pytest.raises((lambdamr.LambdamrError, CancelledError)):
            future.result(30)
        gate.touch()  # not before: the task's result might come first


def _invert_or_wait(item: int, gate: str) -> float:
    return 1 / item if item == 0 else pass_gate(gate)


def _wait_for(path: str) -> None:
    import time

    while not os.path.exists(path):
        time.sleep(0.01)


# --- run, plan -----------------------------------------------------------------------------------
SCRIPT = """
import sys
import lambdamr

def double(n):
    return n * 2

with lambdamr.Executor() as executor:
    futures = executor.map(double, range(10), chunksize=2)
    total = executor.reduce(sum, futures, arity=3)
    print(repr(executor), sys.argv[1:])
    print(total.result())
    print(executor.submit(double, 1).result())
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return str(path)


def test_plan_takes_the_prices_of_a_region(script: str, capsys: Capture) -> None:
    """--region chooses them; one without prices is an error, not a file that does not exist."""
    arguments = ("plan", "--on", "aws", "--region")
    assert main([*arguments, "eu-west-1", script]) == Exit.OK
    assert "eu-west-1" in capsys.readouterr().out
    assert main([*arguments, "nowhere", script]) == Exit.USAGE
    assert "The prices of 'nowhere' are not in the table" in capsys.readouterr().err


def test_plan_shows_what_a_script_would_do(script: str, root: str, capsys: Capture) -> None:
    """Its jobs up to the first result that it needs; none of them is stored or run."""
    os.environ["LAMBDAMR_ROOT"], before = root, os.environ["LAMBDAMR_ROOT"]
    try:
        assert main(["plan", "--json", script, "x"]) == Exit.OK
        found = json.loads(capsys.readouterr().out)
        assert main(["plan", "--on", "aws", script]) == Exit.OK
    finally:
        os.environ["LAMBDAMR_ROOT"] = before
    names = [[stage["name"] for stage in each["stages"]] for each in found["plans"]]
    assert names == [["map"], ["reduce-1", "reduce-2", "reduce-3"]]
    assert found["needs_result"] == f"{script}:12"
    assert [entry.key for entry in open_store(root).list("")] == []
    captured = capsys.readouterr()
    assert "plan of map" in captured.out
    assert "Lambda GB-s" in captured.out
    assert "needs a result" in captured.err
    assert "['x']" not in captured.out, "what the script prints goes to stderr"


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ("print('nothing')", Exit.OK, "no jobs"),
        ("1 / 0", Exit.FAILED, "ZeroDivisionError"),
        ("import sys; sys.exit(3)", Exit.FAILED, "exit status 3"),
        ("import sys; sys.exit(0)", Exit.OK, "no jobs"),
        ("def (", Exit.FAILED, "SyntaxError"),
    ],
)
def test_plan_of_a_script_without_jobs(
    body: str, status: Exit, told: str, tmp_path: Path, capsys: Capture
) -> None:
    """What fails in the script is told as Python tells it."""
    path = tmp_path / "script.py"
    path.write_text(body)
    assert main(["plan", str(path)]) == status
    captured = capsys.readouterr()
    assert told in captured.out + captured.err
    assert "runpy" not in captured.err


WAITS = [
    "futures.result()",
    "futures[0].exception()",
    "lambdamr.get_all_results(futures)",
    "lambdamr.wait(futures)",
    "list(lambdamr.as_completed(futures))",
    "import concurrent.futures; concurrent.futures.wait(futures)",
    "import concurrent.futures; list(concurrent.futures.as_completed(futures))",
    "import asyncio; asyncio.run(go())",
    "executor.map_reduce(pairs, iter('ab'), None).result()",
    "executor.map_reduce(pairs, iter('ab'), None).report()",
    "executor.map_reduce(pairs, iter('ab'), None).wait()",
]


@pytest.mark.parametrize("wait", WAITS)
def test_however_a_script_waits_its_plan_ends_there(
    wait: str, tmp_path: Path, capsys: Capture
) -> None:
    """Nothing hangs, and no handler of exceptions goes on behind it."""
    path = tmp_path / "script.py"
    path.write_text(
        "import lambdamr\n"
        "def pairs(item):\n    return [(item, 1)]\n"
        "async def go():\n    return await futures\n"
        "executor = lambdamr.Executor()\n"
        "futures = executor.map(abs, [-1, 2])\n"
        f"try:\n    {wait}\nexcept Exception:\n    pass\n"
        "raise SystemExit('went on')\n"
    )
    assert main(["plan", str(path)]) == Exit.OK
    captured = capsys.readouterr()
    assert "plan of map: 2 tasks" in captured.out
    line = 5 if "go()" in wait else 9
    assert f"{path}:{line} needs a result" in captured.err


def test_a_plan_ends_where_joblib_needs_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """joblib, called back when a batch is done, would look again and again."""
    pytest.importorskip("joblib")
    path = tmp_path / "search.py"
    path.write_text(
        "import joblib, lambdamr\n"
        "with joblib.parallel_config(backend='lambdamr', workers=2):\n"
        "    joblib.Parallel()(joblib.delayed(abs)(-n) for n in range(4))\n"
        "raise SystemExit('went on')\n"
    )
    assert main(["plan", str(path)]) == Exit.OK
    captured = capsys.readouterr()
    assert "plan of submit: 1 task" in captured.out
    assert f"{path}:3 needs a result" in captured.err


def test_run_gives_a_script_its_settings(script: str, root: str) -> None:
    """A real process; what stands behind the script is the script's."""
    ran = subprocess.run(
        [LAMBDAMR, "run", "--workers", "1", "--root", root, script, "--workers", "9"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert f"root={root!r}> ['--workers', '9']" in ran.stdout
    assert ran.stdout.endswith("90\n2\n")
    assert ran.stderr == ""


def test_run_ends_as_the_script_does(tmp_path: Path, capfd: Capture) -> None:
    """Its exit status, or its signal as shells tell it; its errors are its own."""
    path = tmp_path / "script.py"
    path.write_text("raise SystemExit(7)")
    assert main(["run", str(path)]) == 7
    path.write_text("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    assert main(["run", str(path)]) == 128 + 15
    path.write_text("import lambdamr; lambdamr.Executor()")
    assert main(["run", "--memory", "31", str(path)]) == Exit.USAGE
    assert main(["run", str(tmp_path / "missing.py")]) == Exit.USAGE
    assert "does not exist" in capfd.readouterr().err


def test_an_interrupt_of_run_alone_is_passed_on(tmp_path: Path, gate: Gate) -> None:
    """Somebody sends SIGINT to the command by its id: the script gets it, once."""
    path = tmp_path / "script.py"
    path.write_text(
        "import signal, sys\n"
        "from tests.gates import pass_gate\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever its parents ignore\n"
        "try: pass_gate(sys.argv[1])\n"
        "except KeyboardInterrupt: sys.exit(7)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([LAMBDAMR, "run", str(path), gate.path], env=environment) as process:
        try:
            gate.wait_until_entered()
            faults.wait_until_waiting(faults.main_child(process.pid))
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 7
        finally:
            process.kill()


def test_run_on_aws_needs_a_runtime(script: str, capsys: Capture) -> None:
    """Where none is deployed, one line says so before the script begins."""
    assert main(["run", "--backend", "aws", script]) == Exit.FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "lambdamr deploy-runtime" in captured.err


@pytest.mark.parametrize(
    "command", ["jobs", "status last", "show last", "logs last", "result last", "cancel last"]
)
def test_a_root_that_cannot_be_read_is_one_line(
    command: str, tmp_path: Path, capsys: Capture
) -> None:
    """A file where a folder should be, and a scheme that nothing reads."""
    path = tmp_path / "file"
    path.touch()
    for root in (str(path), "gopher://x/y"):
        status = main([*command.split(), "--root", root])
        captured = capsys.readouterr()
        assert status in (Exit.FAILED, Exit.USAGE, Exit.NOT_FOUND), captured
        assert captured.out == ""
        assert captured.err.startswith("lambdamr: ")
        assert captured.err.count("\n") == 1
        assert root in captured.err


def test_settings_that_cannot_be_meant_are_one_line(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable of another type, whatever the command."""
    monkeypatch.setenv("LAMBDAMR_WORKERS", "many")
    for command in ("config", "jobs", "status last"):
        assert main(command.split()) == Exit.USAGE
        assert "LAMBDAMR_WORKERS='many'" in capsys.readouterr().err


# --- what all share ------------------------------------------------------------------------------
def test_pipes_are_quiet_and_no_color_is_obeyed(store: str, ended: dict[str, str]) -> None:
    """Colours only on a terminal, and not where NO_COLOR is set."""
    command = [LAMBDAMR, "status", ended["map"], "--root", store]
    piped = subprocess.run(command, capture_output=True, timeout=60)
    assert b"\x1b" not in piped.stdout + piped.stderr
    assert piped.stderr == b""
    assert b"\x1b[32mdone" in _on_terminal(command)
    assert b"\x1b" not in _on_terminal(command, NO_COLOR="1")


def _on_terminal(command: list[str], **more: str) -> bytes:
    terminal, other = pty.openpty()
    try:
        subprocess.run(
            command, stdout=other, stderr=other, timeout=60, env={**os.environ, **more}, check=True
        )
        return os.read(terminal, 65_536)
    finally:
        os.close(other)
        os.close(terminal)


def test_a_reader_that_leaves_is_no_error(store: str, ended: dict[str, str]) -> None:
    """`lambdamr jobs | head -1` says nothing of a broken pipe."""
    assert ended
    ran = subprocess.run(
        f"{LAMBDAMR} logs {ended['map']} --root {store} | head -n 1",
        shell=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.stdout == "--- map task 0\n"
    assert ran.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(shell: str, capsys: Capture) -> None:
    """The script for each shell names the command."""
    assert "lambdamr" in said(capsys, "completion", shell)


def test_jobs_complete(store: str, ended: dict[str, str]) -> None:
    """A shell that asks gets the ids of jobs."""
    ran = subprocess.run(
        [LAMBDAMR], capture_output=True, text=True, timeout=60,
        env={
            **os.environ, "LAMBDAMR_ROOT": store, "_LAMBDAMR_COMPLETE": "bash_complete",
            "COMP_WORDS": "lambdamr show ", "COMP_CWORD": "2",
        },
    )  # fmt: skip
    assert ended["map"] in ran.stdout


def test_states_are_those_of_jobs() -> None:
    """The command line names them without loading what they are."""
    assert set(STATES) == {str(state) for state in State}


def test_tables_and_ages() -> None:
    """Columns are as wide as they must be; spans of time are short."""
    assert table([["a", "b"], ["long", "c"]]) == "a     b\nlong  c"
    assert table([]) == ""
    assert [age(s) for s in (0.5, 30, 180, 7200, 200_000)] == [
        "0.5 s", "30 s", "3 min", "2 h", "2 d",
    ]  # fmt: skip


def test_help_is_quick() -> None:
    """It loads neither the store nor boto, matplotlib or pandas."""
    code = (
        "import sys; from lambdamr.cli import main; main(['--help']);"
        "print([n for n in ('obstore', 'boto3', 'botocore', 'matplotlib', 'pandas', 'tqdm')"
        " if n in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stderr == "[]\n"


def test_logs_of_running_tasks_can_be_followed(tmp_path: Path, gate: Gate) -> None:
    """With --follow a task's lines come while it runs, each once; the rest when it has ended."""
    root = str(tmp_path / "root")

    def task(path: str) -> None:
        print("first")
        sys.stdout.flush()
        pass_gate(path)
        print("last")

    with lambdamr.Executor(workers=1, root=root) as executor:
        future = executor.submit(task, gate.path)
        with subprocess.Popen(
            [LAMBDAMR, "logs", future.job_id, "--follow", "--root", root],
            stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
            gate.open()
            future.result(PATIENCE_S)
            rest = process.stdout.read().splitlines()
    assert process.returncode == Exit.OK
    assert lines == ["--- submit task 0\n", "first\n"]
    assert rest == ["--- submit task 0", "last"]
