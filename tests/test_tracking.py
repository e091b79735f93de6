"""How a client follows jobs: what it counts and when, launches that are called off, lost stores."""

import queue
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from lambdamr.attaching import follow
from lambdamr.engine import Engine
from lambdamr.futures import Futures
from lambdamr.job import Job
from lambdamr.machine import News, ThisMachine
from lambdamr.tracked import TrackedJob, TrackedStage
from lambdamr.tracking import Poller
from lambdamr_runtime import context
from lambdamr_runtime.barrier import EndKind, Report, end_job
from lambdamr_runtime.chunk import StageRun
from lambdamr_runtime.errors import (
    CorruptObject,
    InvocationFailed,
    JobFailed,
    ReceiptMismatch,
    StoreError,
)
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.limits import STORE_PATIENCE_S
from lambdamr_runtime.store import open_store
from lambdamr_runtime.wire import Event, sealed
from tests import faults
from tests.cluster import Cluster, Execution
from tests.faulty_stores import InterceptedStore, Outage, Request
from tests.test_protocol import followed, map_drafts, map_reduce_drafts, results_of, squares

PATIENCE_S = 30.0

T = TypeVar("T")


class NoPause(queue.SimpleQueue[Any]):
    """Does not wait for what is not there."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        return super().get_nowait()


@pytest.fixture(autouse=True)
def _no_worker_afterwards() -> Iterator[None]:
    """The tests that follow are clients again."""
    yield
    context.enter(None)


# --- counts and waits ---------------------------------------------------------------------------


def test_failures_are_counted_when_futures_have_failed() -> None:
    """Whoever sees a failure counted finds a future that has failed."""
    cluster = Cluster()
    manifest = cluster.launch(*map_drafts(tasks=4))
    job = TrackedJob(manifest, cluster, Poller(cluster))
    seen: list[bool] = []

    def make_error(stage: TrackedStage, _: int) -> BaseException:
        seen.append(stage.failed <= sum(future.done() for future in stage.futures))
        return JobFailed("by a test")

    job.give_up(make_error, Report("failed"))
    assert seen == [True] * 4
    assert job.stages[0].failed == 4


def test_a_wait_that_ends_early_goes_on() -> None:
    """Without a timeout there is no TimeoutError, whatever wakes a wait."""
    cluster = Cluster()
    manifest = cluster.launch(*map_drafts(tasks=4))
    job = followed(manifest, cluster, Poller(cluster))
    wakes: list[float | None] = []

    def wake(stages: Sequence[TrackedStage], timeout: float | None, stop_on_error: bool) -> None:
        wakes.append(timeout)
        if len(wakes) == 3:
            cluster.run_all()
            stages[0].wait(PATIENCE_S, stop_on_error)

    assert Futures(job.stages[0].futures, progress=wake).result() == squares(4)
    assert wakes == [None] * 3


def test_a_wait_with_bars_has_one_deadline() -> None:
    """Bars and the wait behind them share the timeout: of one that the bars have used up, nothing
    is left.
    """
    cluster = Cluster()
    left: list[float | None] = []

    class Noting(TrackedJob):
        """Notes how long it is waited for."""

        def wait(self, timeout: float | None) -> bool:
            left.append(timeout)
            return super().wait(timeout)

    def bars(stages: Sequence[TrackedStage], timeout: float | None, stop_on_error: bool) -> None:
        left.append(timeout)
        stages[0].wait(timeout, stop_on_error)

    job = Noting(cluster.launch(*map_reduce_drafts()), cluster, Poller(cluster))
    job.begin_launch()
    job.poller.add(job)
    assert not Job(job, bars).wait(0.1)
    assert left == [0.1, 0.0]
    job.poller.cancel_job(job)


class Struck(ThisMachine):
    """Ctrl-C comes when the first thread is to be started: before that is done, or behind it."""

    def __init__(self, *, started: bool) -> None:
        self._started = started
        self._strikes = 1

    def start(self, run: Callable[[], None], name: str) -> None:
        is_struck, self._strikes = bool(self._strikes), 0
        if not is_struck or self._started:
            super().start(run, name)
        if is_struck:
            raise KeyboardInterrupt


@pytest.mark.parametrize("started", [False, True])
def test_an_interrupted_start_leaves_no_job_alone(started: bool) -> None:
    """Whether the thread was started or not, one thread follows all jobs, and idleness comes."""
    cluster = Cluster()
    poller = Poller(cluster, Struck(started=started))
    first, second = (cluster.launch(*map_drafts(tasks=4)) for _ in range(2))
    with pytest.raises(KeyboardInterrupt):
        followed(first, cluster, poller)
    job = followed(second, cluster, poller)
    cluster.run_all()
    assert results_of(job) == squares(4)
    poller.wait_until_idle()
    assert poller.outstanding() == []


def test_waiting_for_idleness_starts_what_was_interrupted() -> None:
    """A job whose thread never came is followed by whoever waits for the end of all."""
    cluster = Cluster()
    poller = Poller(cluster, Struck(started=False))
    with pytest.raises(KeyboardInterrupt):
        followed(cluster.launch(*map_drafts(tasks=4)), cluster, poller)
    (job,) = poller.outstanding()
    cluster.run_all()
    poller.wait_until_idle()
    assert results_of(job) == squares(4)


# --- launches that are called off ---------------------------------------------------------------


def waiting_job(engine: Engine, cluster: Cluster) -> tuple[TrackedJob, TrackedJob]:
    """Return a launched job, and one that waits for a future of it."""
    first = followed(cluster.launch(*map_drafts(tasks=1)), cluster, engine.poller)
    submission = cluster.prepare(*map_drafts(tasks=8, chunksize=1))
    return first, engine.start(replace(submission, awaited=(first.stages[0].futures[0],)))


@pytest.mark.parametrize("how", ["job", "futures"])
def test_a_job_cancelled_on_its_way_is_not_launched(how: str) -> None:
    """Cancelled after its arguments were found done, while it was being stored: nobody runs it."""
    cancels: list[Callable[[], object]] = []

    def around(request: Request, act: Callable[[], T], /) -> T:
        if cancels and request.verb == "put" and request.key.endswith("job.json"):
            cancels.pop()()
        return act()

    cluster = Cluster(store=InterceptedStore(open_store("memory://"), around))
    engine = Engine(cluster)
    first, job = waiting_job(engine, cluster)
    futures = Futures(job.stages[0].futures)
    if how == "job":
        cancels.append(lambda: engine.poller.cancel_job(job))
    else:
        cancels.append(lambda: [future.cancel() for future in futures])
    cluster.run_all()
    assert first.wait(PATIENCE_S)
    assert job.wait(PATIENCE_S)
    engine.poller.wait_until_idle()
    assert futures.counts()["cancelled"] == 8
    assert {event.job for event in cluster.log.invoked} == {first.manifest.job}
    assert cluster.store.exists(JobKeys(job.manifest.job).cancelled)


def test_a_job_that_is_being_cancelled_is_not_gone() -> None:
    """A look that comes while an unlaunched job is cancelled leaves its futures alone."""
    cluster = Cluster()
    engine = Engine(cluster)
    first, job = waiting_job(engine, cluster)

    def look_meanwhile(_: object) -> None:
        cluster.run_all()
        engine.poller.look()
        after = followed(cluster.run(*map_drafts(tasks=1)), cluster, engine.poller)
        assert after.wait(PATIENCE_S)

    job.stages[0].futures[0].add_done_callback(look_meanwhile)
    engine.poller.cancel_job(job)
    assert first.wait(PATIENCE_S)
    assert all(future.cancelled() for future in job.stages[0].futures)


def test_tasks_of_a_chunk_are_cancelled_together() -> None:
    """The last task of a chunk gives it its outcome; cancelling again changes nothing."""
    cluster = Cluster(1)
    job = followed(cluster.launch(*map_drafts(tasks=6, chunksize=2)), cluster, Poller(cluster))
    futures = job.stages[0].futures
    for _ in range(2):
        assert [futures[task].cancel() for task in (2, 3)] == [True, True]
    cluster.run_all()
    assert job.wait(PATIENCE_S)
    assert job.stages[0].failed == 2
    kinds = [type(value) for value in cluster.values(job.manifest)]
    assert kinds == [int, int, CancelledError, CancelledError, int, int]


# --- stores that fail ---------------------------------------------------------------------------


def test_a_take_over_that_fails_is_tried_again() -> None:
    """A store that refuses a request of the sweep only delays it."""
    outage = Outage(2, lambda each: each.verb == "head" and each.key.endswith("report.json"))
    cluster = Cluster(store=InterceptedStore(open_store("memory://"), outage))
    manifest = cluster.launch(*map_drafts())
    cluster.queue.clear()
    job = TrackedJob(manifest, cluster, Poller(cluster))
    follow(job)
    faults.wait_until(lambda: cluster.queue, "a sweep")
    assert outage.left == 0
    cluster.run_all()
    assert results_of(job) == squares(manifest.stages[0].tasks)


class Throttled(Cluster):
    """Refuses its first launches."""

    refusals = 2

    def invoke(self, event: Event, by: Execution | None = None) -> None:
        if self.refusals:
            self.refusals -= 1
            raise InvocationFailed("throttled")
        super().invoke(event, by)


def test_a_take_over_that_is_throttled_is_tried_again() -> None:
    """A platform that refuses the repairs of the sweep only delays them."""
    cluster = Cluster()
    manifest = cluster.launch(*map_drafts())
    cluster.queue.clear()
    throttled = Throttled(store=cluster.store)
    job = TrackedJob(manifest, throttled, Poller(throttled))
    follow(job)
    faults.wait_until(lambda: throttled.queue, "a sweep")
    cluster.queue = throttled.queue
    cluster.run_all()
    assert results_of(job) == squares(manifest.stages[0].tasks)


def test_a_store_that_stays_away_ends_the_futures() -> None:
    """After minutes without one successful look a job is StoreError; one look, and they begin
    anew.
    """

    class Hurried(ThisMachine):
        """Its time flies, and it waits for nothing."""

        now_s = 0.0

        def monotonic(self) -> float:
            self.now_s += STORE_PATIENCE_S / 100
            return self.now_s

        def news(self) -> News:
            return NoPause()

    for refused, survives in ((4, True), (1_000_000, False)):
        outage = Outage(refused, lambda request: request.verb in ("get", "list"))
        cluster = Cluster()
        manifest = cluster.run(*map_drafts(tasks=4))
        client = Cluster(store=InterceptedStore(cluster.store, outage))
        job = followed(manifest, client, Poller(client, Hurried()))
        if survives:
            assert results_of(job) == squares(4)
            continue
        error = job.stages[0].futures[0].exception(PATIENCE_S)
        assert type(error) is StoreError
        assert re.search(r"could not be looked at for 3\d\d s: Could not list", str(error))
        assert f"lambdamr.attach({manifest.job!r})" in str(error)
        assert job.wait(PATIENCE_S)


def test_nothing_is_printed_where_no_logging_is_set_up() -> None:
    """A warning of the library is for the program's own handlers: stderr stays as it is."""
    program = "import lambdamr.tracking as t; t.logger.warning('the store is away')"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert (ended.stdout, ended.stderr) == ("", "")


# --- ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunksize", [1, 8])
def test_a_removed_outcome_is_named(chunksize: int) -> None:
    """A job that is done has all outcomes: one that is not there is CorruptObject with its key."""
    cluster = Cluster()
    manifest = cluster.run(*map_drafts(tasks=8, chunksize=chunksize))
    key = StageRun.of(manifest, 0).keys.outcome(0, 0)
    if chunksize == 8:  # a job of one chunk is done with its outcome
        end_job(cluster.store, JobKeys(manifest.job), Report("done"))
    cluster.store.delete([key])
    job = followed(manifest, cluster, Poller(cluster))
    error = job.stages[0].futures[0].exception(PATIENCE_S)
    assert type(error) is CorruptObject
    assert key in str(error)


@pytest.mark.parametrize(
    ("kind", "raised"), [(EndKind.RECEIPTS, ReceiptMismatch), (EndKind.PLAIN, JobFailed)]
)
def test_the_kind_of_an_end_decides_the_error(kind: EndKind, raised: type[Exception]) -> None:
    """Not the words of its reason: ReceiptMismatch is what the report says to be one."""
    cluster = Cluster()
    manifest = cluster.launch(*map_reduce_drafts())
    report = Report("failed", "Receipts differ: by a test.", 1.0, kind=kind)
    end_job(cluster.store, JobKeys(manifest.job), report)
    job = Job(followed(manifest, cluster, Poller(cluster)), None)
    with pytest.raises(JobFailed, match="by a test") as caught:
        job.result(PATIENCE_S)
    assert type(caught.value) is raised


def test_a_job_of_an_older_report_has_a_plain_end() -> None:
    """A report without a kind is read as it was meant."""
    body = sealed({"status": "done", "reason": "", "ended_s": 1.0, "stages": []})
    stamped = b"0123456789abcdef\n" + body
    assert Report.decode(stamped, "report.json") == Report("done", "", 1.0)
