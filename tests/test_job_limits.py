"""The time limit of a whole job: it holds with and without its client, and says so."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

import lambdamr
from lambdamr.futures import Futures
from lambdamr.submission import StageDraft, Submission
from lambdamr.tracked import TrackedJob
from lambdamr.tracking import Poller
from lambdamr_runtime.barrier import EndKind, Report, end_job
from lambdamr_runtime.errors import JobTimeout
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.wire import Death, DeathCause, Event, Manifest
from tests import faults
from tests.cluster import Cluster, VirtualClock
from tests.test_protocol import (
    check_map,
    followed,
    map_drafts,
    map_reduce_drafts,
    slow_square,
)

LIMIT_S = 30.0


# --- without a client, on a virtual clock --------------------------------------------------------


def limited(
    cluster: Cluster, drafts: list[StageDraft], timeout_s: float, age_s: float = 0.0
) -> Manifest:
    """Launch a job with a time limit, made so many seconds ago."""
    submission = cluster.prepare(*drafts)
    created_s = cluster.clock.time() - age_s
    manifest = replace(submission.manifest, created_s=created_s, timeout_s=timeout_s)
    return cluster.submit(replace(submission, manifest=manifest, encoded=manifest.encode()))


def end_of(cluster: Cluster, manifest: Manifest) -> Report:
    end = cluster.end(manifest)
    assert end is not None
    return end


def test_a_lane_ends_a_job_that_is_over_its_limit() -> None:
    """Without any client: the first chunk that is due after the limit is not begun, and the
    report says why.
    """
    cluster = Cluster(1)
    manifest = limited(cluster, map_drafts(slow_square, tasks=20, chunksize=1), 10.0)
    cluster.run_all()
    assert len(cluster.log.started) == 4  # at 0, 3, 6 and 9 s
    end = end_of(cluster, manifest)
    assert (end.status, end.kind) == ("failed", EndKind.TIMEOUT)
    assert "over its time limit of 10 s (job_timeout_s=)" in end.reason
    assert cluster.has_report(manifest)


def test_a_queued_event_of_an_overdue_job_runs_nothing() -> None:
    """What waited in a queue until the limit was over begins nothing, and ends the job."""
    cluster = Cluster(2)
    manifest = limited(cluster, map_reduce_drafts(), 5.0, age_s=6.0)
    cluster.run_all()
    assert cluster.log.started == []
    assert end_of(cluster, manifest).kind is EndKind.TIMEOUT
    assert cluster.sweep(manifest) == 0


def test_a_task_that_was_stopped_by_the_jobs_limit_is_no_timeout_of_its_own() -> None:
    """A death at the job's limit ends the job; the task has no outcome."""
    cluster = Cluster(1)
    manifest = limited(cluster, map_drafts(), 5.0)
    event = cluster.queue.pop()
    cluster.clock.sleep(5.2)
    death = Death(DeathCause.TIMEOUT, "it ran over its time limit", 0, 1, "0" * 16)
    cluster.run_one(replace(event, death=death))
    assert cluster.errors(manifest) == []
    assert end_of(cluster, manifest).kind is EndKind.TIMEOUT


def test_a_sweep_ends_an_overdue_job() -> None:
    """Any later look at a job whose events were lost ends it, instead of running it again."""
    cluster = Cluster(2)
    cluster.lost = frozenset(range(9))
    manifest = limited(cluster, map_drafts(), 5.0)
    cluster.run_all()
    cluster.clock.sleep(6.0)
    assert cluster.sweep(manifest) == 0
    assert end_of(cluster, manifest).kind is EndKind.TIMEOUT


@pytest.mark.parametrize("repair", [False, True])
def test_a_late_event_does_not_disturb_a_job_that_is_done(repair: bool) -> None:
    """A duplicate that comes after the limit of a job which was done in time changes nothing."""
    cluster = Cluster(2)
    manifest = limited(cluster, map_drafts(), 5.0)
    cluster.run_all()
    cluster.clock.sleep(6.0)
    cluster.run_one(Event(manifest.job, 0, 0, 1, repair=repair))
    assert end_of(cluster, manifest).status == "done"
    assert not cluster.store.exists(JobKeys(manifest.job).cancelled)
    check_map(cluster, manifest)


def test_a_repair_finishes_an_end_that_was_begun() -> None:
    """Whoever put the tombstone may have died before the report: a repair writes it."""
    cluster = Cluster(2)
    manifest = limited(cluster, map_drafts(), 5.0)
    cluster.queue.clear()
    cluster.clock.sleep(6.0)
    keys = JobKeys(manifest.job)
    end_job(cluster.store, keys, Report("cancelled", "by a test", 1.0))
    cluster.store.delete([keys.report])
    cluster.run_one(Event(manifest.job, 0, 0, 1, repair=True))
    assert cluster.has_report(manifest)


class SetBackClock(VirtualClock):
    """A clock whose time of day can be set back."""

    def __init__(self) -> None:
        super().__init__()
        self.set_back_s = 0.0

    def time(self) -> float:
        return self.now_s - self.set_back_s


def set_back(cluster: Cluster) -> None:
    clock = cluster.clock
    assert isinstance(clock, SetBackClock)
    clock.set_back_s = 3600.0


@pytest.mark.parametrize("drafts", [map_drafts(), map_reduce_drafts()], ids=["map", "map_reduce"])
def test_a_clock_that_is_set_back_changes_no_result(drafts: list[StageDraft]) -> None:
    """The time of day is in records only: what is repeated and when it ends hang on no clock."""
    for step in range(0, 12, 3):
        cluster = Cluster(2)
        cluster.clock = SetBackClock()
        manifest = cluster.launch(*drafts)
        for _ in range(step):
            if cluster.queue:
                cluster.run_one(cluster.queue.pop(0))
        set_back(cluster)
        cluster.run_all()
        cluster.sweep(manifest)
        cluster.run_all()
        assert end_of(cluster, manifest).status == "done"


# --- the client --------------------------------------------------------------------------------


def test_a_client_ends_a_job_that_nobody_works_on() -> None:
    """Where no worker ever comes, the client puts the tombstone, and its futures are JobTimeout."""
    cluster = Cluster(2)
    submission = cluster.prepare(*map_drafts())
    manifest = replace(submission.manifest, timeout_s=0.3)
    cluster.submit(replace(submission, manifest=manifest, encoded=manifest.encode()))
    job = followed(manifest, cluster, Poller(cluster))
    for future in job.stages[0].futures:
        assert type(future.exception(LIMIT_S)) is JobTimeout
    assert end_of(cluster, manifest).kind is EndKind.TIMEOUT


def test_a_clock_set_back_makes_no_job_endless() -> None:
    """A client that follows a job counts by the monotonic clock too."""
    cluster = Cluster(2)
    submission = cluster.prepare(*map_drafts())
    ahead = replace(submission.manifest, created_s=time.time() + 3600, timeout_s=0.3)
    cluster.submit(replace(submission, manifest=ahead, encoded=ahead.encode()))
    job = followed(ahead, cluster, Poller(cluster))
    assert type(job.stages[0].futures[0].exception(LIMIT_S)) is JobTimeout


# --- with real workers -------------------------------------------------------------------------


def test_job_timeout_during_the_submission(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is over its limit before it is stored: for its client and for who attaches."""
    over = threading.Event()
    really = Submission.store

    def store(self: Submission, *args: Any) -> None:
        assert over.wait(LIMIT_S)
        really(self, *args)

    with lambdamr.Executor(workers=1, root=root) as executor:
        give_up = TrackedJob.give_up

        def giving_up(self: TrackedJob, *args: Any) -> None:
            give_up(self, *args)
            over.set()

        monkeypatch.setattr(TrackedJob, "give_up", giving_up)
        monkeypatch.setattr(Submission, "store", store)
        futures = executor.map(abs, [-1, -2], chunksize=1, job_timeout_s=0.2)
        for each in (futures, lambdamr.attach(futures.job_id, root=root)):
            assert isinstance(each, Futures)
            assert [type(error) for error in each.exceptions(LIMIT_S)] == [JobTimeout] * 2


def test_job_timeout_of_a_map(single: lambdamr.Executor, folder: str) -> None:
    """What a map has committed in time stays; the running task is ended, the rest is not run, and
    all of these say JobTimeout; the executor goes on.
    """

    def task(item: int) -> int:
        if item == 1:
            faults.sign(folder, f"pid.{os.getpid()}")
            faults.sleep_long()
        return item

    assert single.submit(abs, -1).result(LIMIT_S) == 1  # the worker is warm
    begun = time.monotonic()
    futures = single.map(task, range(5), chunksize=1, job_timeout_s=2.0)
    errors = futures.exceptions(LIMIT_S)
    assert time.monotonic() - begun < 10
    assert futures[0].result() == 0
    assert [type(error) for error in errors[1:]] == [JobTimeout] * 4
    assert "time limit of 2 s (job_timeout_s=)" in str(errors[4])
    assert futures.job_id in str(errors[4])
    (pid,) = faults.pids_in(folder)
    faults.wait_until(lambda: not faults.is_process(pid), "the end of the task", 5)
    assert single.submit(abs, -1).result(LIMIT_S) == 1
    with pytest.raises(JobTimeout):
        futures.result(LIMIT_S)


def test_job_timeout_in_a_c_call(single: lambdamr.Executor) -> None:
    """A task that holds the GIL is ended by its job's limit too."""
    future = single.call_async(lambda _: faults.match_for_ever(), 0, job_timeout_s=0.5)
    assert type(future.exception(LIMIT_S)) is JobTimeout
    assert single.submit(abs, -1).result(LIMIT_S) == 1


def test_the_shorter_limit_counts(single: lambdamr.Executor) -> None:
    """A task over its own limit is TaskTimeout, though the job has a later one."""
    future = single.call_async(lambda _: faults.sleep_long(), 0, timeout_s=0.3, job_timeout_s=60.0)
    assert type(future.exception(LIMIT_S)) is lambdamr.TaskTimeout


def test_options_of_call_async(single: lambdamr.Executor, folder: str) -> None:
    """call_async takes what submit cannot: retries and limits."""
    fn = partial(faults.fail_then_pass, folder, failures=2)
    future = single.call_async(fn, 3, retries=2, retry_on=ValueError)
    assert future.result(LIMIT_S) == 3
    assert future.stats is not None
    assert (future.stats.tries, future.stats.attempt) == (3, 0)


def test_job_timeout_of_a_map_reduce(single: lambdamr.Executor) -> None:
    """A map_reduce over its limit raises JobTimeout, and its report says so."""

    def reducer(key: int, values: Iterator[int]) -> int:
        faults.sleep_long()
        return sum(values)

    job = single.map_reduce(lambda i: [(0, i)], range(4), reducer, job_timeout_s=1.5)
    with pytest.raises(JobTimeout, match="job_timeout_s="):
        job.result(LIMIT_S)
    assert job.report().status == "failed"
    assert "time limit" in repr(job.report())


def test_job_timeout_of_a_call_that_waits(single: lambdamr.Executor, folder: str) -> None:
    """The limit counts from the call: one that waits for its argument until then never runs."""
    argument = single.submit(faults.signed_hold, folder, "argument")
    waiting = single.map(partial(faults.signed, folder), [argument], job_timeout_s=0.4)
    total = single.reduce(sum, [argument], job_timeout_s=0.4)
    assert type(waiting[0].exception(LIMIT_S)) is JobTimeout
    assert type(total.exception(LIMIT_S)) is JobTimeout
    faults.open_gate(folder)
    assert argument.result(LIMIT_S) == "argument"
    assert faults.all_signs(folder) == {"argument": 1, "go": 1}


def test_job_timeout_holds_without_the_client(root: str, folder: str) -> None:
    """Who attaches to a job after its limit, its client killed, gets JobTimeout; nothing runs."""
    program = f"""
        import lambdamr
        from tests import faults
        with lambdamr.Executor(workers=1, concurrency=1) as executor:
            futures = executor.map(
                lambda i: faults.signed_hold({folder!r}, i), range(3), chunksize=1, job_timeout_s=2
            )
            print(futures.job_id, flush=True)
            futures.result()
    """
    client = faults.start_client(program, root)
    assert client.stdout is not None
    job = client.stdout.readline().strip()
    faults.wait_until(lambda: faults.signs(folder, 0), "the first task")
    faults.kill_client(client)
    before = faults.all_signs(folder)
    created_s = time.time()
    faults.wait_until(lambda: time.time() > created_s + 2, "the limit")
    futures = lambdamr.attach(job, root=root)
    assert isinstance(futures, lambdamr.Futures)
    assert {type(error) for error in futures.exceptions(LIMIT_S)} == {JobTimeout}
    assert faults.all_signs(folder) == before


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_that_cannot_be_meant_are_refused(single: lambdamr.Executor, value: float) -> None:
    """A limit of no seconds is a mistake, named."""
    with pytest.raises(ValueError, match="job_timeout_s must be positive"):
        single.map(abs, [1], job_timeout_s=value)


def test_cancelling_beats_a_later_limit(single: lambdamr.Executor, folder: str) -> None:
    """A job that was cancelled stays so when its limit passes."""
    futures = single.map(
        partial(faults.telling_hold, folder), range(3), chunksize=1, job_timeout_s=60
    )
    faults.wait_until(lambda: faults.pids_in(folder), "the first task")
    futures.cancel()
    with pytest.raises(CancelledError):
        futures.result(LIMIT_S)
