"""Deleting a job: all of it, nothing of others, and never a running one unless it is forced."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path

import pytest

import lambdamr
from lambdamr.submission import StageDraft
from lambdamr_runtime.barrier import Report, end_job
from lambdamr_runtime.errors import JobNotFound
from lambdamr_runtime.keys import JobKeys
from tests import faults

LIMIT_S = 30.0


@pytest.fixture
def pool(root: str) -> Iterator[lambdamr.Executor]:
    with lambdamr.Executor(workers=2, root=root) as executor:
        yield executor


def files_of(root: str, job: str) -> list[str]:
    """Return what lies under a job's names, relative to the root, folders too."""
    return sorted(
        str(path.relative_to(root)) for path in Path(root).glob("**/*") if job in path.parts
    )


def count(executor: lambdamr.Executor) -> lambdamr.Job:
    return executor.map_reduce(lambda i: [(i % 3, 1)], range(30), lambda k, v: sum(v))


def test_delete_a_job(pool: lambdamr.Executor, root: str, tmp_path: Path) -> None:
    """Deleting removes a job's folder and its shuffle objects; other jobs, stored functions and
    data, and what was written under output= stay.
    """
    other, mine = count(pool), count(pool)
    data = pool.put("kept")
    output = tmp_path / "out"
    written = pool.map_reduce(
        lambda i: [(i, i)], range(3), lambdamr.reducers.sum, output=str(output), format="csv"
    )
    values = mine.result(LIMIT_S)
    assert other.result(LIMIT_S) == values
    assert written.result(LIMIT_S)
    before = files_of(root, other.job_id)  # a worker that lost a race may add to it
    assert files_of(root, mine.job_id)
    mine.delete()
    written.delete()
    assert files_of(root, mine.job_id) == files_of(root, written.job_id) == []
    assert set(files_of(root, other.job_id)) >= set(before)
    assert other.result(LIMIT_S) == values
    assert pool.submit(len, data).result(LIMIT_S) == 4
    assert (output / "_SUCCESS").exists()
    with pytest.raises(JobNotFound):
        lambdamr.attach(mine.job_id, root=root)
    with pytest.raises(lambdamr.JobNotFound, match="was deleted, and its result with it"):
        mine.result(LIMIT_S)
    mine.delete()


def test_delete_futures(pool: lambdamr.Executor, root: str) -> None:
    """Values that are here stay; a job that has just ended leaves nothing behind, ever."""
    for number in range(30):
        futures = pool.map(abs, range(-number, 8))
        values = futures.result(LIMIT_S)
        futures.delete()
        assert files_of(root, futures.job_id) == []
        assert futures.result() == values


def test_a_running_job_is_not_deleted(pool: lambdamr.Executor, root: str, folder: str) -> None:
    """A job that runs is refused, here and by its id, and not touched."""
    futures = pool.map(partial(faults.signed_hold, folder), range(3), chunksize=1)
    faults.wait_until(lambda: faults.signs(folder, 0), "the first task")
    with pytest.raises(lambdamr.JobRunning, match=f"{futures.job_id} has not ended"):
        futures.delete()
    with pytest.raises(lambdamr.JobRunning, match="force=True"):
        lambdamr.delete(futures.job_id, root=root)
    faults.open_gate(folder)
    assert futures.result(LIMIT_S) == [0, 1, 2]
    futures.delete()
    assert files_of(root, futures.job_id) == []


def test_delete_by_force(pool: lambdamr.Executor, root: str, folder: str) -> None:
    """With force=True a running job is cancelled, its tasks end, and all of it goes."""
    futures = pool.map(partial(faults.telling_hold, folder), range(3), chunksize=1)
    faults.wait_until(lambda: faults.pids_in(folder), "the first task")
    futures.delete(force=True)
    with pytest.raises(CancelledError):
        futures.result(LIMIT_S)
    assert files_of(root, futures.job_id) == []
    pids = faults.pids_in(folder)
    faults.wait_until(lambda: not any(map(faults.is_process, pids)), "the end of the tasks")
    assert pool.submit(abs, -1).result(LIMIT_S) == 1
    assert files_of(root, futures.job_id) == []


def test_delete_another_programs_job_by_force(root: str, folder: str) -> None:
    """Of a job that another program runs the tombstone stays, so that its workers stop; its
    client sees that it is cancelled.
    """
    program = f"""
        import lambdamr
        from tests import faults
        with lambdamr.Executor(workers=1) as executor:
            futures = executor.map(
                lambda i: faults.telling_hold({folder!r}, i), range(3), chunksize=1
            )
            print(futures.job_id, flush=True)
            print({{type(error).__name__ for error in futures.exceptions(30)}})
    """
    client = faults.start_client(program, root)
    assert client.stdout is not None
    job = client.stdout.readline().strip()
    faults.wait_until(lambda: faults.pids_in(folder), "the first task")
    with pytest.raises(lambdamr.JobRunning):
        lambdamr.delete(job, root=root)
    lambdamr.delete(job, root=root, force=True)
    assert faults.output_of(client) == "{'CancelledError'}\n"
    assert not Path(root, "jobs", job, "job.json").exists()
    assert Path(root, "jobs", job, "cancelled").exists()
    second = job[:15]
    faults.wait_until(lambda: time.strftime("%Y%m%d-%H%M%S", time.gmtime()) > second, "a second")
    assert lambdamr.clean(0, root=root) == [job]
    assert files_of(root, job) == []


def test_delete_what_a_killed_program_left(root: str, folder: str) -> None:
    """A job whose client is gone does not run, and is deleted without being run again."""
    program = f"""
        import lambdamr
        from tests import faults
        with lambdamr.Executor(workers=1) as executor:
            futures = executor.map(
                lambda i: faults.signed_hold({folder!r}, i), range(3), chunksize=1
            )
            print(futures.job_id, flush=True)
            futures.result()
    """
    client = faults.start_client(program, root)
    assert client.stdout is not None
    job = client.stdout.readline().strip()
    faults.wait_until(lambda: faults.signs(folder, 0), "the first task")
    faults.kill_client(client)
    lambdamr.delete(job, root=root)
    assert files_of(root, job) == []


@pytest.mark.parametrize(
    "job", ["20200101-000000-0123456789ab", "../..", "", "jobs", "*", "20200101-000000-"]
)
def test_no_such_job(root: str, job: str) -> None:
    """What is no id of a job there is JobNotFound, and nothing is removed."""
    mine = Path(root, "jobs", "mine.txt")
    mine.parent.mkdir(parents=True)
    mine.touch()
    with pytest.raises(JobNotFound):
        lambdamr.delete(job, root=root, force=True)
    assert mine.exists()


def test_delete_in_an_object_store() -> None:
    """Elsewhere than on this machine a job without a report may run: force is needed, and the
    tombstone stays.
    """
    from lambdamr import deleting
    from lambdamr_runtime import context
    from tests.cluster import Cluster
    from tests.test_protocol import map_reduce_drafts

    drafts: list[StageDraft] = map_reduce_drafts()
    cluster = Cluster(2)
    kept, gone = cluster.launch(*drafts), cluster.launch(*drafts)
    cluster.run_all()
    context.enter(None)
    store, keys = cluster.store, JobKeys(gone.job)
    assert not deleting.may_run(store, gone.job)
    store.delete([keys.report])
    assert deleting.may_run(store, gone.job)
    end_job(store, keys, Report("cancelled", "by a test", 1.0))
    assert not deleting.may_run(store, gone.job)
    assert not deleting.may_run(store, "20200101-000000-0123456789ab")
    assert cluster.output(kept)


def test_clean_keeps_what_force_left_until_its_age(root: str) -> None:
    """Tombstone and report of a forced deletion are no job that runs."""
    keys = JobKeys("20200101-000000-0123456789ab")
    path = Path(root, keys.cancelled)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"0" * 16 + b"\n{}")
    os.utime(path, (1.0, 1.0))
    assert lambdamr.clean(3600, root=root) == [keys.job]
