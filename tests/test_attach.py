"""Jobs outlive their clients: attach, sweep, who owns a job, and what cleaning may take."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

import lambdamr
from tests import faults

LIMIT_S = 30.0
"""Longest wait for a result in these tests."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory for the jobs of many tests, so that `attach` needs one executor for all."""
    return str(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def pool(shared: str) -> Iterator[lambdamr.Executor]:
    """Two workers over the shared directory."""
    with lambdamr.Executor(workers=2, concurrency=2, root=shared) as executor:
        yield executor


MAP = """
    import lambdamr
    from tests import faults
    folder = {folder!r}
    def task(item):
        if item < {free}:
            return faults.signed(folder, item)
        return faults.signed_hold(folder, item)
    with lambdamr.Executor(workers=2, concurrency=2) as executor:
        futures = executor.map(task, range(30), chunksize=1)
        print(futures.job_id, flush=True)
        print(futures.result(60), flush=True)
"""
"""A client that maps 30 tasks, of which the first are done at once and the others wait."""

MAP_REDUCE = """
    import lambdamr
    from tests import faults
    folder = {folder!r}
    def mapper(item):
        faults.sign(folder, "map-%d" % item)
        if {stage!r} == "map" and item >= 20:
            faults.hold(folder, "held")
        return [(item % 5, item)]
    def reducer(key, values):
        faults.sign(folder, "reduce-%d" % key)
        if {stage!r} == "reduce" and key >= 2:
            faults.hold(folder, "held")
        return sum(values)
    with lambdamr.Executor(workers=2, concurrency=2) as executor:
        job = executor.map_reduce(mapper, range(40), reducer, reducers=5)
        print(job.job_id, flush=True)
        print(job.result(60), flush=True)
"""


def job_of(client: "object") -> str:
    """Return the first line that a client prints."""
    line: str = client.stdout.readline().strip()  # type: ignore[attr-defined]  # a Popen with pipes
    return line


def job_folder(root: str, job: str) -> Path:
    return Path(root, "jobs", job)


def committed(root: str, job: str, stage: str = "map") -> set[int]:
    """Return the chunks of a stage that have an outcome."""
    outcomes = job_folder(root, job) / stage / "outcomes"
    return {int(path.name) for path in outcomes.glob("*/*") if path.name.isdigit()}


def ended_job(root: str) -> str:
    """Run a map of six tasks to its end in another process; returns the job's id."""
    program = """
        import os, lambdamr
        from tests import faults
        with lambdamr.Executor(workers=2, concurrency=2) as executor:
            futures = executor.map(abs, range(-6, 0), chunksize=1)
            futures.result(30)
            report = f"{os.environ['LAMBDAMR_ROOT']}/jobs/{futures.job_id}/report.json"
            faults.wait_until(lambda: os.path.exists(report), "the report")
            print(futures.job_id)
    """
    return faults.run_client(program, root).strip()


def attached(job: str, root: str) -> lambdamr.Futures:
    futures = lambdamr.attach(job, root=root)
    assert isinstance(futures, lambdamr.Futures)
    return futures


# --- after the death of the client -------------------------------------------------------------
def test_map_of_a_killed_client(shared: str, folder: str) -> None:
    """A map whose client was killed goes on where somebody attaches: all results are exact, what
    was committed is not run again, and the rest at most once more.
    """
    client = faults.start_client(MAP.format(folder=folder, free=10), shared)
    job = job_of(client)
    faults.wait_until(lambda: len(committed(shared, job)) == 10, "ten outcomes")
    faults.wait_until(lambda: len(faults.all_signs(folder)) == 12, "two held tasks")
    faults.kill_client(client)
    faults.open_gate(folder)
    assert attached(job, shared).result(LIMIT_S) == list(range(30))
    signs = faults.all_signs(folder)
    assert [signs[str(i)] for i in range(10)] == [1] * 10
    assert all(signs[str(i)] <= 2 for i in range(30))
    assert attached(job, shared).result(LIMIT_S) == list(range(30))


@pytest.mark.parametrize("stage", ["map", "reduce"])
def test_map_reduce_of_a_killed_client(shared: str, folder: str, stage: str) -> None:
    """A map_reduce whose client was killed in either stage ends exactly, and repeats nothing that
    was committed.
    """
    client = faults.start_client(MAP_REDUCE.format(folder=folder, stage=stage), shared)
    job = job_of(client)
    faults.wait_until(lambda: faults.signs(folder, "held") >= 2, "held tasks")
    faults.kill_client(client)
    before = {stage: committed(shared, job, stage) for stage in ("map", "reduce")}
    assert before[stage]
    faults.open_gate(folder)
    followed = lambdamr.attach(job, root=shared)
    assert isinstance(followed, lambdamr.Job)
    assert followed.result(LIMIT_S) == {key: sum(range(key, 40, 5)) for key in range(5)}
    assert followed.report().status == "done"
    signs = faults.all_signs(folder)
    assert [signs[f"reduce-{key}"] for key in before["reduce"]] == [1] * len(before["reduce"])
    done_items = [item for chunk in before["map"] for item in range(chunk * 5, chunk * 5 + 5)]
    assert [signs[f"map-{item}"] for item in done_items] == [1] * len(done_items)


def test_two_clients_take_over(shared: str, folder: str) -> None:
    """Two processes that attach to an orphaned job at once both get all results."""
    client = faults.start_client(MAP.format(folder=folder, free=10), shared)
    job = job_of(client)
    faults.wait_until(lambda: len(committed(shared, job)) == 10, "ten outcomes")
    faults.kill_client(client)
    faults.open_gate(folder)
    program = f"import lambdamr; print(lambdamr.attach({job!r}).result(30))"
    others = [faults.start_client(program, shared) for _ in range(2)]
    assert [faults.output_of(other) for other in others] == [f"{list(range(30))}\n"] * 2


def test_owner_dies_after_the_attach(shared: str, folder: str) -> None:
    """A client that attached while the owner lived takes over when the owner dies."""
    program = MAP.replace("signed_hold", "telling_hold").format(folder=folder, free=10)
    client = faults.start_client(program, shared)
    job = job_of(client)
    faults.wait_until(lambda: len(committed(shared, job)) == 10, "ten outcomes")
    futures = attached(job, shared)
    assert futures[:10].result(LIMIT_S) == list(range(10))
    faults.wait_until(lambda: faults.pids_in(folder), "the id of a process")
    pids = faults.pids_in(folder)
    faults.kill_client(client)
    faults.wait_until(lambda: not any(map(faults.is_process, pids)), "the end of its workers")
    faults.open_gate(folder)
    assert futures.result(LIMIT_S) == list(range(30))


def test_groups_without_marker(root: str) -> None:
    """A job that stopped between the last outcome of one group and its marker, while another group
    was open, ends when somebody attaches.
    """
    program = """
        import lambdamr
        with lambdamr.Executor(workers=5, concurrency=5) as executor:
            job = executor.map_reduce(lambda i: [(i % 3, i)], range(40), lambda k, v: sum(v))
            job.result(60)
            print(job.job_id)
    """
    job = faults.run_client(program, root).strip()
    at = job_folder(root, job)
    groups = sorted(path.name for path in (at / "map" / "outcomes").iterdir())
    assert groups == ["0", "1"]
    shutil.rmtree(at / "reduce")
    shutil.rmtree(at / "map" / "groups")
    for path in (at / "map" / "done", at / "map" / "next", at / "report.json"):
        path.unlink()
    next((at / "map" / "outcomes" / "1").iterdir()).unlink()
    program = f"import lambdamr; print(lambdamr.attach({job!r}).result(30))"
    out = faults.run_client(program, root)
    assert dict(eval(out)) == {key: sum(range(key, 40, 3)) for key in range(3)}  # noqa: S307 - ours


@pytest.mark.parametrize(
    "lost", [["report.json"], ["report.json", "reduce"], ["report.json", "reduce", "map/next"]]
)
def test_end_that_was_not_written(root: str, lost: list[str]) -> None:
    """A job whose last steps are missing (report, a whole stage, the note of its launch) ends when
    somebody attaches, with the same result.
    """
    program = """
        import lambdamr
        with lambdamr.Executor(workers=2, concurrency=2) as executor:
            job = executor.map_reduce(lambda i: [(i % 3, i)], range(40), lambda k, v: sum(v))
            job.result(60)
            print(job.job_id)
    """
    job = faults.run_client(program, root).strip()
    for name in lost:
        path = job_folder(root, job) / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    program = f"""
        import lambdamr
        job = lambdamr.attach({job!r})
        print(sorted(job.result(30).items()), job.report().status)
    """
    expected = [(key, sum(range(key, 40, 3))) for key in range(3)]
    assert faults.run_client(program, root) == f"{expected} done\n"


# --- beside a living client --------------------------------------------------------------------
def test_attach_to_an_ended_job(shared: str, pool: lambdamr.Executor) -> None:
    """An ended job gives its results at once, to its own process and to another one."""
    job = ended_job(shared)
    futures = attached(job, shared)
    assert futures.result(LIMIT_S) == [6, 5, 4, 3, 2, 1]
    assert futures.job_id == job
    own = pool.submit(pow, 2, 5)
    assert own.result(LIMIT_S) == 32
    assert attached(own.job_id, shared).result(LIMIT_S) == [32]


def test_threads_attach_at_once(shared: str) -> None:
    """Of several threads that attach to a job at once, each gets all results."""
    job = ended_job(shared)
    begin = threading.Barrier(8)

    def values(_: int) -> list[int]:
        begin.wait()
        found: list[int] = attached(job, shared).result(LIMIT_S)
        return found

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(values, range(8))) == [[6, 5, 4, 3, 2, 1]] * 8


def test_attach_to_a_failed_job(shared: str, pool: lambdamr.Executor) -> None:
    """Exceptions come back by an attach as they do to the owner."""
    futures = pool.map(partial(faults.raise_named, "NeedsTwo", 1), ["a", "b"])
    futures.exceptions(LIMIT_S)
    errors = attached(futures.job_id, shared).exceptions(LIMIT_S)
    assert [(type(error), str(error)) for error in errors] == [
        (faults.NeedsTwo, "1 at a"),
        (faults.NeedsTwo, "1 at b"),
    ]


def test_attach_with_exceptions_as_values(shared: str, pool: lambdamr.Executor) -> None:
    """return_exceptions is said to attach as it was to map."""
    futures = pool.map(partial(faults.raise_named, "NeedsTwo", 1), ["a"])
    futures.exceptions(LIMIT_S)
    again = lambdamr.attach(futures.job_id, root=shared, return_exceptions=True)
    assert isinstance(again, lambdamr.Futures)
    assert [type(value) for value in again.result(LIMIT_S)] == [faults.NeedsTwo]


def test_attach_while_the_owner_lives(shared: str, folder: str) -> None:
    """An attach beside a living owner repeats nothing: each task runs once, both get all."""
    client = faults.start_client(MAP.format(folder=folder, free=10), shared)
    job = job_of(client)
    faults.wait_until(lambda: len(faults.all_signs(folder)) == 12, "two held tasks")
    futures = attached(job, shared)
    assert futures[:10].result(LIMIT_S) == list(range(10))
    assert not futures[20].done()
    faults.open_gate(folder)
    assert futures.result(LIMIT_S) == list(range(30))
    assert faults.output_of(client) == f"{list(range(30))}\n"
    assert faults.all_signs(folder) == {"go": 1, **{str(i): 1 for i in range(30)}}


@pytest.mark.parametrize(
    "job", ["20200101-000000-0123456789ab", "", "nonsense", "../x", "a/b", " "]
)
def test_no_such_job(shared: str, job: str) -> None:
    """An id that names no job is JobNotFound, which names it and the directory."""
    with pytest.raises(lambdamr.JobNotFound) as caught:
        lambdamr.attach(job, root=shared)
    assert repr(job) in str(caught.value)
    assert shared in str(caught.value)


# --- objects that are not what was written -----------------------------------------------------
def change_manifest(root: str, job: str, **fields: object) -> None:
    path = job_folder(root, job) / "job.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(("field", "value"), [("v", 99), ("python", "2.7")])
def test_job_of_another_release(shared: str, field: str, value: object) -> None:
    """A job of another wire or Python version is RuntimeMismatch, with both versions."""
    job = ended_job(shared)
    change_manifest(shared, job, **{field: value})
    with pytest.raises(lambdamr.RuntimeMismatch, match=str(value)):
        lambdamr.attach(job, root=shared)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"v": 1, "python": "%s"}', b"\xff\x00"])
def test_corrupt_manifest(shared: str, content: bytes) -> None:
    """A manifest that is none is CorruptObject with its key."""
    job = ended_job(shared)
    python = ".".join(map(str, os.sys.version_info[:2])).encode()  # type: ignore[attr-defined]
    data = content.replace(b"%s", python)
    (job_folder(shared, job) / "job.json").write_bytes(data)
    with pytest.raises(lambdamr.CorruptObject, match=f"jobs/{job}/job.json"):
        lambdamr.attach(job, root=shared)


@pytest.mark.parametrize("how", ["empty", "garbage", "cut", "header", "swapped"])
def test_corrupt_outcome(shared: str, how: str) -> None:
    """A damaged outcome is CorruptObject with its key for the futures that wait; no hang, and no
    wrong result.
    """
    job = ended_job(shared)
    outcomes = {int(p.name): p for p in (job_folder(shared, job) / "map/outcomes").glob("*/*")}
    data = outcomes[3].read_bytes()
    damaged = {
        "empty": b"",
        "garbage": os.urandom(500),
        "cut": data[:-3],
        "header": data.replace(b'"count": 1', b'"count": 7'),
        "swapped": outcomes[4].read_bytes(),
    }
    outcomes[3].write_bytes(damaged[how])
    error = attached(job, shared)[3].exception(LIMIT_S)
    assert type(error) is lambdamr.CorruptObject
    assert f"jobs/{job}/map/outcomes/" in str(error)
    assert str(error).partition("map/outcomes/")[2].split()[0].endswith("/3")


def test_missing_large_result(shared: str, pool: lambdamr.Executor) -> None:
    """A large result whose object is gone is CorruptObject with its key, not a wait for ever."""
    future = pool.submit(bytes, 1 << 20)
    future.result(LIMIT_S)
    shutil.rmtree(job_folder(shared, future.job_id) / "submit" / "results")
    error = attached(future.job_id, shared)[0].exception(LIMIT_S)
    assert type(error) is lambdamr.CorruptObject
    assert f"jobs/{future.job_id}/submit/results/" in str(error)


def test_corrupt_report(shared: str) -> None:
    """A report that is none is CorruptObject with its key."""
    program = """
        import lambdamr
        with lambdamr.Executor(workers=2, concurrency=2) as executor:
            job = executor.map_reduce(lambda i: [(i % 3, i)], range(40), lambda k, v: sum(v))
            job.result(60)
            print(job.job_id)
    """
    job = faults.run_client(program, shared).strip()
    (job_folder(shared, job) / "report.json").write_bytes(b"0123456789abcdef\n{")
    followed = lambdamr.attach(job, root=shared)
    assert isinstance(followed, lambdamr.Job)
    with pytest.raises((lambdamr.CorruptObject, lambdamr.JobFailed), match=r"report\.json"):
        followed.result(LIMIT_S)


# --- cleaning ----------------------------------------------------------------------------------
def wait_for_next_second(job: str) -> None:
    """Job ids tell seconds: wait until this one is of an earlier second."""
    faults.wait_until(
        lambda: time.strftime("%Y%m%d-%H%M%S", time.gmtime()) > job[:15], "another second"
    )


def test_clean_old_jobs(root: str) -> None:
    """Cleaning removes ended jobs of that age with all that is theirs, and keeps younger ones."""
    program = """
        import lambdamr
        with lambdamr.Executor(workers=2, concurrency=2) as executor:
            job = executor.map_reduce(lambda i: [(i % 3, i)], range(40), lambda k, v: sum(v))
            job.result(60)
            print(job.job_id)
    """
    job = faults.run_client(program, root).strip()
    assert list(Path(root, "shuffle").glob(f"*/{job}"))
    assert lambdamr.clean(3600, root=root) == []
    assert job_folder(root, job).exists()
    wait_for_next_second(job)
    assert lambdamr.clean(0, root=root) == [job]
    assert not job_folder(root, job).exists()
    assert not list(Path(root, "shuffle").glob(f"*/{job}"))
    with pytest.raises(lambdamr.JobNotFound):
        lambdamr.attach(job, root=root)
    assert lambdamr.clean(0, root=root) == []


def test_clean_keeps_running_jobs(root: str, folder: str) -> None:
    """A job that runs, of this process or of another one, stays and ends exactly, with its stored
    function and data; an abandoned one goes.
    """
    abandoned = faults.start_client(MAP.format(folder=folder, free=10), root)
    gone = job_of(abandoned)
    faults.wait_until(lambda: len(committed(root, gone)) == 10, "ten outcomes")
    faults.kill_client(abandoned)
    other = faults.start_client(MAP.format(folder=folder, free=0), root)
    theirs = job_of(other)
    ballast = b"x" * 100_000
    with lambdamr.Executor(workers=1, concurrency=1, root=root) as executor:
        data = executor.put(ballast)
        futures = executor.map(
            lambda item, data: (faults.signed_hold(folder, item), len(data), len(ballast)),
            range(100, 103),
            [data] * 3,
            chunksize=1,
        )
        faults.wait_until(lambda: faults.signs(folder, 100), "our task")
        wait_for_next_second(futures.job_id)
        assert lambdamr.clean(0, root=root) == [gone]
        faults.open_gate(folder)
        worker = futures[0].result(LIMIT_S)
        assert worker == (100, 100_000, 100_000)
        assert futures.result(LIMIT_S) == [(i, 100_000, 100_000) for i in range(100, 103)]
        again = executor.map(lambda item: (item, len(ballast)), range(3))
        assert again.result(LIMIT_S) == [(i, 100_000) for i in range(3)]
    assert faults.output_of(other) == f"{list(range(30))}\n"
    assert job_folder(root, theirs).exists()


def test_functions_of_a_living_client_stay(root: str) -> None:
    """Cleaning does not take functions and data that a living executor has stored: its next call
    finds them, in a fresh worker too.
    """
    ballast = b"x" * 100_000

    def task(item: int) -> tuple[int, int]:
        return len(ballast) + item, os.getppid()

    with lambdamr.Executor(workers=1, concurrency=1, root=root) as executor:
        data = executor.put([1, 2, 3])
        worker = executor.submit(task, 1).result(LIMIT_S)[1]
        lambdamr.clean(0, root=root)
        os.kill(worker, signal.SIGKILL)
        faults.wait_until(lambda: not faults.is_process(worker), "the end of the worker")
        assert executor.submit(task, 2).result(LIMIT_S)[0] == 100_002
        assert executor.submit(sum, data).result(LIMIT_S) == 6
    lambdamr.clean(0, root=root)
    assert not os.listdir(Path(root, "data"))


# --- a directory that fails --------------------------------------------------------------------
def test_root_that_is_a_file(tmp_path: Path) -> None:
    """A root that cannot be a directory is an error at the first call that names it."""
    path = tmp_path / "file"
    path.touch()
    executor = lambdamr.Executor(root=str(path))
    with pytest.raises(lambdamr.StoreError, match=str(path)):
        executor.submit(abs, 1)
    executor.shutdown()
    with pytest.raises(lambdamr.StoreError, match=str(path)):
        lambdamr.attach("20200101-000000-0123456789ab", root=str(path))


def test_root_without_room_for_a_client(root: str) -> None:
    """A root in which a client cannot say that it lives is an error that names it; no hang."""
    Path(root).mkdir()
    Path(root, "owners").touch()
    executor = lambdamr.Executor(root=root, workers=1, concurrency=1)
    with pytest.raises(lambdamr.StoreError, match=root):
        executor.submit(abs, 1)
    executor.shutdown()


@pytest.mark.parametrize("size", ["small", "large"])
def test_directory_deleted_underneath(root: str, folder: str, size: str) -> None:
    """When the directory is deleted while a job runs the job ends: with its results, or with an
    error that says what is gone. Later calls work.
    """
    ballast = b"x" * (100_000 if size == "large" else 1)
    with lambdamr.Executor(workers=2, concurrency=2, root=root) as executor:
        futures = executor.map(
            lambda item: (faults.signed_hold(folder, item), len(ballast))[0],
            range(6),
            chunksize=1,
        )
        faults.wait_until(lambda: len(faults.all_signs(folder)) == 2, "two tasks")
        shutil.rmtree(root)
        faults.open_gate(folder)
        for item, error in enumerate(futures.exceptions(LIMIT_S)):
            assert error is not None or futures[item].result() == item
            assert error is None or root in str(error) or futures.job_id in str(error)
        assert executor.submit(abs, -1).result(LIMIT_S) == 1


def test_job_deleted_underneath(shared: str, folder: str) -> None:
    """A job whose folder is deleted, with results that were not read yet, is JobFailed and names
    what is gone.
    """
    client = faults.start_client(MAP.format(folder=folder, free=10), shared)
    job = job_of(client)
    faults.wait_until(lambda: len(committed(shared, job)) == 10, "ten outcomes")
    futures = attached(job, shared)
    shutil.rmtree(job_folder(shared, job))
    error = futures[20].exception(LIMIT_S)
    assert type(error) is lambdamr.JobFailed
    assert f"jobs/{job}/job.json" in str(error)
    faults.kill_client(client)


def test_directory_replaced_by_a_file(root: str, folder: str) -> None:
    """When the directory becomes a file while a job runs, the job fails and says so."""
    with lambdamr.Executor(workers=1, concurrency=1, root=root) as executor:
        futures = executor.map(partial(faults.signed_hold, folder), range(3), chunksize=1)
        faults.wait_until(lambda: faults.signs(folder, 0), "the first task")
        shutil.rmtree(root)
        Path(root).touch()
        faults.open_gate(folder)
        errors = futures.exceptions(LIMIT_S)
        assert isinstance(errors[-1], (lambdamr.JobFailed, lambdamr.StoreError))
        assert root in str(errors[-1])


def test_disk_full(root: str) -> None:
    """Results that cannot be written fail their job with the reason of the system; the executor
    goes on with what fits. A limit of the file size stands for a full disk.
    """
    program = """
        import resource, lambdamr
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        with lambdamr.Executor(workers=1, concurrency=1) as executor:
            for chunksize in (1, 3):
                futures = executor.map(bytes, [10, 4 << 20, 10], chunksize=chunksize)
                error = futures[1].exception(30)
                print(type(error).__name__, "too large" in str(error).lower())
            print(executor.submit(abs, -1).result(30))
    """
    assert faults.run_client(program, root) == "JobFailed True\nJobFailed True\n1\n"
