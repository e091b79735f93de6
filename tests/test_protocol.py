"""The protocol: the real Worker under crashes, duplicates, lost events, handovers and failures.

See tests/cluster.py for where it runs. "Every crash point" means: a history without faults is run
once to count its requests, then one history per request and side of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from random import Random
from typing import Any

import pytest
from obstore.store import MemoryStore

from lambdamr.backend import Backend
from lambdamr.submission import StageDraft, Submission
from lambdamr.tracked import TrackedJob
from lambdamr.tracking import Poller
from lambdamr_runtime import serialize
from lambdamr_runtime.attempts import History, load_history, save_attempt
from lambdamr_runtime.barrier import Report, Totals, end_job
from lambdamr_runtime.chunk import StageRun
from lambdamr_runtime.errors import (
    CorruptObject,
    JobFailed,
    StoreError,
    TaskLost,
    TaskOutOfMemory,
    TaskTimeout,
)
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.lanes import LanePlan
from lambdamr_runtime.limits import INFRASTRUCTURE_RETRIES, SAME_FAILURES, TOMBSTONE_S
from lambdamr_runtime.mapreduce import Map, Reduce
from lambdamr_runtime.store import open_store
from lambdamr_runtime.wire import (
    Death,
    DeathCause,
    Event,
    Frame,
    FrameKind,
    Manifest,
    StageKind,
    encode_frames,
)
from lambdamr_runtime.work import Call, Fold
from lambdamr_runtime.worker import Worker
from tests.cluster import Cluster, Point, TooManyEvents, die, note, spend
from tests.faulty_stores import Answer, InterceptedStore, MisleadingStore, Outage

PATIENCE_S = 10.0
"""How long a future of the poller's tests may take; they take a fraction of a second."""

HISTORIES = 250
"""Most histories of one exploration."""

# --- tasks and jobs -----------------------------------------------------------------------------


def square(number: int) -> int:
    note(number)
    return number * number


def slow_square(number: int) -> int:
    spend(3.0)
    return square(number)


def fail_if_odd(number: int) -> int:
    note(number)
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


def fail(number: int) -> int:
    note(number)
    raise KeyError("always")


def letters(word: str) -> Iterator[tuple[str, int]]:
    note(word)
    for letter in word:
        yield letter, 1


def count(key: str, values: Iterator[int]) -> int:
    return sum(values)


def fail_on_a(key: str, values: Iterator[int]) -> int:
    if key == "a":
        raise ValueError("no a, please")
    return sum(values)


def add_all(values: list[int]) -> int:
    return sum(values)


def map_drafts(
    fn: Callable[[int], Any] = square, tasks: int = 7, chunksize: int = 2, **options: Any
) -> list[StageDraft]:
    args: list[Any] = [((number,), {}) for number in range(tasks)]
    return [StageDraft("map", StageKind.CALL, Call(fn), tasks, chunksize, args, **options)]


WORDS = [["abba"], ["cab", "bad"], ["dab"]]
LETTERS = {"a": 5, "b": 5, "c": 1, "d": 2}


def map_reduce_drafts(
    reducer: Callable[..., Any] = count, mapper: Callable[..., Any] = letters, chunksize: int = 1
) -> list[StageDraft]:
    return [
        StageDraft(
            "map", StageKind.MAP, Map((mapper,), None), len(WORDS), chunksize, WORDS,
            partitions=2, max_failures=0,
        ),
        StageDraft("reduce", StageKind.REDUCE, Reduce(reducer), 2, 1, max_failures=0),
    ]  # fmt: skip


def tree_drafts() -> list[StageDraft]:
    args: list[Any] = [(([first, first + 1],), {}) for first in range(0, 8, 2)]
    return [
        StageDraft("reduce-1", StageKind.CALL, Call(add_all), 4, 1, args, max_failures=0),
        StageDraft("reduce-2", StageKind.FOLD, Fold(add_all, 2), 2, 1, max_failures=0),
        StageDraft("reduce-3", StageKind.FOLD, Fold(add_all, 2), 1, 1, max_failures=0),
    ]


def squares(tasks: int = 7) -> list[int]:
    return [number * number for number in range(tasks)]


def check_map(cluster: Cluster, manifest: Manifest) -> None:
    assert cluster.values(manifest) == squares(manifest.stages[0].tasks)


def check_map_reduce(cluster: Cluster, manifest: Manifest) -> None:
    assert cluster.output(manifest) == LETTERS
    end = cluster.end(manifest)
    assert end is not None
    mapped, reduced = (replace_seconds(totals) for totals in end.stages)
    assert mapped == Totals(tasks=3, records=4, emitted=13, pairs_written=13)
    assert reduced == Totals(
        tasks=2, pairs_read=13, keys=4, output_pairs=4, output_bytes=reduced.output_bytes
    )


def check_tree(cluster: Cluster, manifest: Manifest) -> None:
    assert cluster.values(manifest) == [28]
    end = cluster.end(manifest)
    assert end is not None
    assert [totals.tasks for totals in end.stages] == [4, 2, 1]


def replace_seconds(totals: Totals) -> Totals:
    """Return what does not depend on times and crashes."""
    left_out = ("task_seconds", "deaths")
    counts = (n for n in Totals.__match_args__ if n not in left_out and not n.endswith("_s"))
    return Totals(**{name: getattr(totals, name) for name in counts})


Check = Callable[[Cluster, Manifest], None]
JOBS: dict[str, tuple[int, list[StageDraft], Check]] = {
    "one chunk": (2, map_drafts(tasks=2), check_map),
    "map": (2, map_drafts(), check_map),
    "map of several groups": (3, map_drafts(chunksize=1), check_map),
    "map_reduce": (2, map_reduce_drafts(), check_map_reduce),
    "map_reduce of several groups": (3, map_reduce_drafts(), check_map_reduce),
    "map_reduce in chunks": (2, map_reduce_drafts(chunksize=2), check_map_reduce),
    "reduce tree": (4, tree_drafts(), check_tree),
}
each_job = pytest.mark.parametrize("job", JOBS)


def check_end(cluster: Cluster, manifest: Manifest, check: Check) -> None:
    """What must hold after every history of a job that cannot fail."""
    assert cluster.has_report(manifest), "the job has not ended"
    end = cluster.end(manifest)
    assert end is not None
    assert (end.status, end.reason) == ("done", "")
    check(cluster, manifest)
    cluster.check_outcomes()


def explore(
    job: str, crashes: int = 1, make: Callable[..., Cluster] = Cluster, **options: Any
) -> int:
    """Run a job with every combination of so many crashes, or HISTORIES of them; returns how many
    histories that were.
    """
    width, drafts, check = JOBS[job]
    submission = Cluster(width).prepare(*drafts)
    quiet = make(width, **options)
    check_end(quiet, run(quiet, submission), check)
    reach = crashes * len(quiet.log.requests)  # repairs make requests too
    points = [Point(n, side) for n in range(reach) for side in (False, True)]
    chosen = list(combinations(points, crashes))
    if len(chosen) > HISTORIES:
        chosen = Random(0).sample(chosen, HISTORIES)
    histories = 0
    for crash_points in chosen:
        cluster = make(width, crashes=crash_points, **options)
        manifest = run(cluster, submission)
        assert cluster.log.crashes >= 1 or crashes > 1
        check_end(cluster, manifest, check)
        cluster.check_bound(manifest)
        cluster.check_no_rerun(after_crash=crashes == 1)
        histories += 1
    return histories


def run(cluster: Cluster, submission: Submission) -> Manifest:
    manifest = cluster.submit(submission)
    cluster.run_all()
    return manifest


# --- without faults -----------------------------------------------------------------------------


@each_job
def test_a_job_ends_with_its_results(job: str) -> None:
    """Without faults: exact results, a report, every task begun once, one invocation per lane."""
    width, drafts, check = JOBS[job]
    cluster = Cluster(width)
    manifest = cluster.run(*drafts)
    check_end(cluster, manifest, check)
    assert set(cluster.runs().values()) == {1}
    for index, stage in enumerate(manifest.stages):
        assert cluster.invocations(index) == stage.plan.lanes


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 9, 17, 33, 64, 65, 100, 200])
def test_the_tree_runs_every_lane_once(width: int) -> None:
    """For any width, each lane is one invocation, and each chunk runs once."""
    cluster = Cluster(width)
    manifest = cluster.run(*map_drafts(tasks=width + 3, chunksize=1))
    check_map(cluster, manifest)
    assert sorted(event.lo for event in cluster.log.invoked) == list(range(width))
    assert set(cluster.runs().values()) == {1}


@each_job
def test_executions_may_overlap(job: str) -> None:
    """Whatever the order in which requests of concurrent lanes reach the store: the same end."""
    width, drafts, check = JOBS[job]
    submission = Cluster(width).prepare(*drafts)
    for seed in range(25):
        cluster = Cluster(width, seed=seed, at_once=4)
        check_end(cluster, run(cluster, submission), check)


def test_one_seed_is_one_history() -> None:
    """The same seed gives the same requests in the same order; another one another order."""
    submission = Cluster(3).prepare(*map_drafts(chunksize=1))

    def history(seed: int) -> list[tuple[str, str]]:
        cluster = Cluster(3, seed=seed, at_once=3)
        run(cluster, submission)
        return [(request.verb, request.key) for request in cluster.log.requests]

    assert history(1) == history(1)
    assert len({tuple(history(seed)) for seed in range(5)}) > 1


# --- crashes ------------------------------------------------------------------------------------


@each_job
@pytest.mark.parametrize("watchdog", [False, True])
def test_a_crash_at_any_point_is_repaired(job: str, watchdog: bool) -> None:
    """One crash before or after any request, seen by a watchdog or not: the job ends with exact
    results, no outcome is rewritten, no stage starts early, nothing committed runs again, and
    invocations stay within their bound.
    """

    def make(*args: Any, **options: Any) -> Cluster:
        cluster = Cluster(*args, **options)
        cluster.watchdog = watchdog
        return cluster

    assert explore(job, make=make) >= 6


@each_job
def test_two_crashes_are_repaired(job: str) -> None:
    """Any two crashes, of a repair too, are repaired as well: all of them for small jobs."""
    assert explore(job, crashes=2) >= 60


@each_job
def test_crashes_of_overlapping_executions_are_repaired(job: str) -> None:
    """Crashes at random points while other lanes go on, every event delivered twice: exact."""
    width, drafts, check = JOBS[job]
    submission = Cluster(width).prepare(*drafts)
    for seed in range(40):
        crashes = [Point(seed, seed % 2 == 0), Point(3 * seed + 1, seed % 3 == 0)]
        cluster = Cluster(width, seed=seed, at_once=4, crashes=crashes)
        cluster.copies = 1 + seed % 2
        check_end(cluster, run(cluster, submission), check)


@each_job
def test_a_process_that_must_be_replaced_goes_on(job: str) -> None:
    """Where every chunk leaves its process unclean, fresh ones go on behind it: nothing twice."""
    width, drafts, check = JOBS[job]
    cluster = Cluster(width)
    cluster.unclean = True
    manifest = cluster.run(*drafts)
    check_end(cluster, manifest, check)
    assert set(cluster.runs().values()) == {1}


# --- duplicates and losses ----------------------------------------------------------------------


@each_job
@pytest.mark.parametrize("at_once", [1, 3])
def test_duplicates_change_nothing(job: str, at_once: int) -> None:
    """Every event delivered twice, one after the other or overlapping: one outcome per chunk,
    and exact results, totals and receipts.
    """
    width, drafts, check = JOBS[job]
    submission = Cluster(width).prepare(*drafts)
    for seed in range(25):
        cluster = Cluster(width, seed=seed, at_once=at_once)
        cluster.copies = 2
        check_end(cluster, run(cluster, submission), check)


@each_job
def test_a_lost_event_is_mended_by_a_sweep(job: str) -> None:
    """Whichever event is lost, a sweep finishes the job, without running anything twice."""
    width, drafts, check = JOBS[job]
    submission = Cluster(width).prepare(*drafts)
    events = sum(stage.plan.lanes for stage in submission.manifest.stages)
    for lost in range(events):
        cluster = Cluster(width)
        cluster.lost = frozenset({lost})
        manifest = run(cluster, submission)
        assert not cluster.has_report(manifest)
        assert cluster.sweep(manifest) > 0
        cluster.run_all()
        check_end(cluster, manifest, check)
        assert set(cluster.runs().values()) == {1}


@each_job
def test_a_sweep_of_an_ended_job_launches_nothing(job: str) -> None:
    """A job with a report is left alone."""
    width, drafts, _ = JOBS[job]
    cluster = Cluster(width)
    manifest = cluster.run(*drafts)
    invoked = len(cluster.log.invoked)
    assert cluster.sweep(manifest) == 0
    assert len(cluster.log.invoked) == invoked


@each_job
def test_sweeps_do_not_disturb_a_running_job(job: str) -> None:
    """A sweep after every single event, or at any point of overlapping ones, changes nothing."""
    width, drafts, check = JOBS[job]
    submission = Cluster(width).prepare(*drafts)
    for seed in range(10):
        cluster = Cluster(width, seed=seed)
        manifest = cluster.submit(submission)
        while cluster.queue:
            cluster.sweep(manifest)
            cluster.run_one(cluster.queue.pop(0))
            if not cluster.has_report(manifest):
                cluster.sweep(manifest)
        check_end(cluster, manifest, check)


def test_a_sweep_of_a_crashed_end_writes_the_report() -> None:
    """All chunks are committed and the lane that would have ended the job is gone for good."""
    width, drafts, check = JOBS["map_reduce"]
    submission = Cluster(width).prepare(*drafts)
    quiet = Cluster(width)
    run(quiet, submission)
    for number in range(len(quiet.log.requests)):
        cluster = Cluster(width, crashes=[Point(number, False)])
        cluster.mourned = False
        manifest = run(cluster, submission)
        for _ in range(10):
            cluster.sweep(manifest)
            cluster.run_all()
        check_end(cluster, manifest, check)


def large_drafts() -> list[StageDraft]:
    """A map whose arguments are too large to ride in the event: they are stored."""
    args: list[Any] = [(("x" * 20_000 + str(number),), {}) for number in range(6)]
    return [StageDraft("map", StageKind.CALL, Call(len), 6, 2, args)]


def test_stored_functions_and_arguments_are_found() -> None:
    """A job that does not fit into its events gets function and arguments from the store."""
    cluster = Cluster(2)
    manifest = cluster.run(*large_drafts())
    assert cluster.values(manifest) == [20_001] * 6
    assert manifest.stages[0].inline_args == b""
    assert {request.key.split("/")[0] for request in cluster.log.requests} >= {"functions", "jobs"}


@pytest.mark.parametrize("size", [0, 5, 30, 60_000])
def test_damaged_arguments_are_corrupt(size: int) -> None:
    """Arguments that were cut off are CorruptObject for the tasks that they would belong to."""
    cluster = Cluster(2)
    manifest = cluster.launch(*large_drafts())
    key = StageRun.of(manifest, 0).keys.args
    cluster.store.put(key, cluster.store.get(key)[:size])
    cluster.run_all()
    values = cluster.values(manifest)
    assert isinstance(values[-1], CorruptObject)
    assert all(value == 20_001 or isinstance(value, CorruptObject) for value in values)


def test_a_sweep_ends_a_job_without_tasks() -> None:
    """A job of no tasks whose client died before it could end it has a report after a sweep."""
    cluster = Cluster(2)
    first, second = map_reduce_drafts()
    manifest = cluster.run(replace(first, tasks=0, args=[]), replace(second, tasks=0))
    assert not cluster.has_report(manifest)
    assert cluster.sweep(manifest) == 0
    end = cluster.end(manifest)
    assert end is not None
    assert (end.status, end.stages) == ("done", (Totals(), Totals()))


@each_job
def test_a_refused_request_is_an_error_or_repaired(job: str) -> None:
    """Whichever request of a worker the store refuses: the job ends, and where a task had to
    load something just then, it has that StoreError; nothing else is wrong.
    """
    width, drafts, check = JOBS[job]
    submission = Cluster(width).prepare(*drafts)
    quiet = Cluster(width)
    run(quiet, submission)
    for number in range(len(quiet.log.requests)):
        cluster = Cluster(width)
        cluster.refused = frozenset({number})
        manifest = run(cluster, submission)
        end = cluster.end(manifest)
        assert end is not None
        errors = cluster.errors(manifest)
        assert all(isinstance(error, StoreError) for error in errors)
        assert (end.status == "failed") == bool(errors)
        if not errors:
            check_end(cluster, manifest, check)


# --- failures of jobs ---------------------------------------------------------------------------


def failing(drafts: list[StageDraft]) -> tuple[Submission, list[Point]]:
    """Return a packed job, and all points of its history without crashes."""
    submission = Cluster(2).prepare(*drafts)
    quiet = Cluster(2)
    run(quiet, submission)
    return submission, [
        Point(number, side) for number in range(len(quiet.log.requests)) for side in (False, True)
    ]


FAILING_JOBS = {
    "map, one too many": map_drafts(fail_if_odd, tasks=8, max_failures=3),
    "map, many too many": map_drafts(fail_if_odd, tasks=8, chunksize=1, max_failures=0),
    "map, same failures": map_drafts(
        fail, tasks=SAME_FAILURES + 2, chunksize=1, same_failures=True
    ),
    "map stage": map_reduce_drafts(mapper=fail),
    "reduce stage": map_reduce_drafts(reducer=fail_on_a),
}


@pytest.mark.parametrize("job", FAILING_JOBS)
def test_a_crash_of_a_failing_job_does_not_save_it(job: str) -> None:
    """A job with too many failures ends as failed, with that reason and a report, wherever an
    execution crashes on the way.
    """
    submission, points = failing(FAILING_JOBS[job])
    for point in [Point(-1, False), *points]:
        cluster = Cluster(2, crashes=[point])
        manifest = run(cluster, submission)
        assert cluster.has_report(manifest), point
        end = cluster.end(manifest)
        assert end is not None
        assert end.status == "failed", point
        assert "failed" in end.reason
        assert "Receipts" not in end.reason
        cluster.check_outcomes()


def test_failures_that_are_allowed_do_not_end_a_job() -> None:
    """With max_failures=None, and with as many as fail, every task runs and the report is done."""
    for allowed in (None, 4):
        cluster = Cluster(2)
        manifest = cluster.run(*map_drafts(fail_if_odd, tasks=8, max_failures=allowed))
        end = cluster.end(manifest)
        assert end is not None
        assert end.status == "done"
        values = cluster.values(manifest)
        assert values[::2] == [0, 2, 4, 6]
        assert [str(value) for value in values[1::2]] == [f"{n} is odd" for n in (1, 3, 5, 7)]


def test_one_failure_too_many_stops_the_lanes() -> None:
    """Beyond max_failures a job ends at once: chunks that have not begun do not run."""
    cluster = Cluster(1)
    manifest = cluster.run(*map_drafts(slow_fail, tasks=50, chunksize=1, max_failures=2))
    assert len(cluster.log.calls) == 3
    end = cluster.end(manifest)
    assert end is not None
    assert end.status == "failed"
    assert "3 tasks of stage 'map' failed, 2 are allowed (max_failures=)." in end.reason


def slow_fail(number: int) -> None:
    spend(TOMBSTONE_S + 0.5)
    fail(number)


def test_ten_first_chunks_that_fail_alike_end_a_job() -> None:
    """SAME_FAILURES chunks that all fail with the same error at the same line end a stage that
    asks for it; the reason names the error.
    """
    cluster = Cluster(1)
    drafts = map_drafts(slow_fail, tasks=SAME_FAILURES + 5, chunksize=1, same_failures=True)
    manifest = cluster.run(*drafts)
    end = cluster.end(manifest)
    assert end is not None
    assert end.status == "failed"
    assert "KeyError" in end.reason
    assert len(cluster.log.calls) == SAME_FAILURES


def fail_otherwise(number: int) -> None:
    spend(TOMBSTONE_S + 0.5)
    raise (KeyError if number == 3 else ValueError)(number)


@pytest.mark.parametrize(
    ("tasks", "fn"), [(SAME_FAILURES, slow_fail), (SAME_FAILURES + 5, fail_otherwise)]
)
def test_other_failures_do_not_end_a_job(tasks: int, fn: Callable[[int], None]) -> None:
    """Failures that differ, or are all there is, leave a job that allows them its course."""
    cluster = Cluster(1)
    manifest = cluster.run(*map_drafts(fn, tasks=tasks, chunksize=1, same_failures=True))
    end = cluster.end(manifest)
    assert end is not None
    assert end.status == "done"
    assert len(cluster.values(manifest)) == tasks


# --- time: handovers and tombstones -------------------------------------------------------------


@pytest.mark.parametrize("watchdog", [False, True])
def test_a_lane_hands_over_before_its_time_is_up(watchdog: bool) -> None:
    """A chunk is begun only with 1.5 x the slowest so far left; the rest goes to a fresh
    invocation: the cursor advances, every chunk runs once, no execution outlives its time.
    """
    cluster = Cluster(2)
    cluster.lifetime_s = 10.0  # chunks of 3 s: at 0 and 3, and at 6 only 4 s are left
    manifest = cluster.run(*map_drafts(slow_square, tasks=10, chunksize=1))
    check_end(cluster, manifest, check_map)
    assert set(cluster.runs().values()) == {1}
    cursors = sorted((event.lo, event.cursor) for event in cluster.log.invoked)
    assert cursors == [(0, 0), (0, 2), (0, 4), (1, 0), (1, 2), (1, 4)]
    assert cluster.log.handovers == 4
    assert all(event.hi == event.lo + 1 for event in cluster.log.invoked if event.cursor)


def test_a_lane_of_chunks_that_never_fit_still_advances() -> None:
    """Every invocation commits a chunk, however little time it has."""
    cluster = Cluster(1)
    cluster.lifetime_s = 1.0
    manifest = cluster.run(*map_drafts(slow_square, tasks=5, chunksize=1))
    check_end(cluster, manifest, check_map)
    assert cluster.log.handovers == 4
    assert set(cluster.runs().values()) == {1}


def test_a_crash_around_a_handover_is_repaired() -> None:
    """Handovers under every single crash: exact results, nothing committed is run again."""
    submission = Cluster(2).prepare(*map_drafts(slow_square, tasks=6, chunksize=1))

    def hurried(crashes: list[Point]) -> Cluster:
        cluster = Cluster(2, crashes=crashes)
        cluster.lifetime_s = 5.0
        manifest = run(cluster, submission)
        check_end(cluster, manifest, check_map)
        cluster.check_no_rerun(after_crash=True)
        cluster.check_bound(manifest)
        return cluster

    for number in range(len(hurried([]).log.requests)):
        hurried([Point(number, False)])
        hurried([Point(number, True)])


def cancel(cluster: Cluster, manifest: Manifest) -> None:
    end_job(cluster.store, JobKeys(manifest.job), Report("cancelled", "by a test", 1.0))


def test_queued_lanes_of_a_cancelled_job_do_not_start() -> None:
    """An event that waited for longer than TOMBSTONE_S looks before it starts; so do repairs."""
    cluster = Cluster(2)
    manifest = cluster.launch(*map_drafts())
    cancel(cluster, manifest)
    cluster.clock.sleep(TOMBSTONE_S + 0.1)
    cluster.run_all()
    assert cluster.log.started == []
    cluster.queue.append(Event(manifest.job, 0, 0, 1, repair=True, sent_s=cluster.clock.time()))
    cluster.run_all()
    assert cluster.log.started == []
    assert cluster.sweep(manifest) == 0


def cancel_at_two(number: int) -> int:
    spend(TOMBSTONE_S / 4)
    if number == 2:
        note(number)
    return number


def test_running_lanes_see_a_tombstone_between_chunks() -> None:
    """A lane looks for the tombstone every TOMBSTONE_S, and stops before its next chunk."""
    cluster = Cluster(1)

    class Cancelling(Worker):
        """Cancels the job as soon as task 2 has run."""

        def _run_chunk(self, *args: Any) -> Any:
            outcome = super()._run_chunk(*args)
            if cluster.log.calls == [2]:
                cancel(cluster, manifest)
            return outcome

    cluster.make_worker = Cancelling
    manifest = cluster.launch(*map_drafts(cancel_at_two, tasks=50, chunksize=1))
    cluster.run_all()
    begun = len(cluster.log.started)
    assert 3 <= begun <= 3 + 5
    end = cluster.end(manifest)
    assert end is not None
    assert end.status == "cancelled"


def test_a_cancelled_stage_starts_no_other() -> None:
    """The last lane of a stage whose job is cancelled launches nothing, and the report stays."""
    cluster = Cluster(2)
    manifest = cluster.launch(*map_reduce_drafts())
    cancel(cluster, manifest)
    cluster.run_all()
    assert {event.stage for event in cluster.log.invoked} == {0}
    end = cluster.end(manifest)
    assert end is not None
    assert end.status == "cancelled"


# --- the launch tree under repair ---------------------------------------------------------------


def test_a_repair_launches_no_children_twice() -> None:
    """Where `launched/` shows that a node has launched its children, its repair does not."""
    cluster = Cluster(5)
    manifest = cluster.run(*map_drafts(tasks=5, chunksize=1))
    node = next(event for event in cluster.log.invoked if event.hi - event.lo > 1)
    before = len(cluster.log.invoked)
    cluster.run_one(node.repaired(0, 0))
    assert len(cluster.log.invoked) == before
    cluster.store.delete([StageRun.of(manifest, 0).keys.launched(node.lo, node.hi)])
    cluster.run_one(node.repaired(0, 0))
    children = cluster.log.invoked[before:]
    assert sorted(lane for event in children for lane in range(event.lo, event.hi)) == list(
        range(node.lo + 1, node.hi)
    )
    assert all(event.repair for event in children)
    cluster.run_all()
    assert set(cluster.runs().values()) == {1}


def test_single_chunks_can_be_run() -> None:
    """An event with `only` runs just those chunks, launches nobody, and runs the barrier."""
    cluster = Cluster(2)
    cluster.lost = frozenset({1})
    manifest = cluster.run(*map_drafts(chunksize=1))
    missing = tuple(LanePlan(7, 1, 2).chunks_of(1))
    assert cluster.committed(manifest, 0) == set(range(7)) - set(missing)
    cluster.invoke(Event(manifest.job, 0, 0, 2, only=missing, repair=True))
    cluster.run_all()
    check_end(cluster, manifest, check_map)
    assert set(cluster.runs().values()) == {1}


# --- deaths -------------------------------------------------------------------------------------

KEYS = JobKeys("20260101-000000-aa").stage("map")


def deaths(*found: tuple[DeathCause, int]) -> History:
    return History({}, [Death(cause, "a detail", 0, task, "") for cause, task in found])


def error_of(frame: Frame | None) -> BaseException | None:
    if frame is None:
        return None
    assert frame.kind is FrameKind.ERROR
    return serialize.revive(serialize.load_error(frame.payload, "a frame"))


@pytest.mark.parametrize(
    ("cause", "kind"), [(DeathCause.TIMEOUT, TaskTimeout), (DeathCause.MEMORY, TaskOutOfMemory)]
)
def test_limits_are_final(cause: DeathCause, kind: type[Exception]) -> None:
    """A time or memory limit ends its task at once, and none of its siblings."""
    history = deaths((cause, 5))
    assert type(error_of(history.verdict(5))) is kind
    assert history.verdict(4) is None


@pytest.mark.parametrize("cause", [DeathCause.CRASH, DeathCause.LOST])
def test_crashes_are_final_after_their_retries(cause: DeathCause) -> None:
    """A task whose process dies is tried INFRASTRUCTURE_RETRIES more times, then it is lost."""
    allowed = [(cause, 5)] * INFRASTRUCTURE_RETRIES
    assert deaths(*allowed).verdict(5) is None
    frame = deaths(*allowed, (cause, 5)).verdict(5)
    assert isinstance(error_of(frame), TaskLost)
    assert frame is not None
    assert frame.tries == 1
    assert deaths(*allowed, (cause, 5)).verdict(4) is None


def test_a_worker_that_vanished_counts_for_every_task() -> None:
    """Where nobody saw which task ran, the death counts against all that were not finished."""
    history = deaths((DeathCause.LOST, -1), (DeathCause.CRASH, 5), (DeathCause.LOST, -1))
    assert isinstance(error_of(history.verdict(5)), TaskLost)
    assert history.verdict(4) is None


def deadly_cluster(deadly: set[int], cause: DeathCause = DeathCause.CRASH) -> Cluster:
    """Return a cluster of one lane where these tasks end their process as they begin."""
    cluster = Cluster(1)
    cluster.watchdog = True
    cluster.deadly = dict.fromkeys(deadly, cause)
    return cluster


def test_a_deadly_task_fails_alone() -> None:
    """A task that kills its process is tried as often as allowed and lost; its siblings in the
    chunk run once, finished ones are taken from the attempts, and the lane goes on.
    """
    cluster = deadly_cluster({5})
    manifest = cluster.run(*map_drafts(tasks=12, chunksize=4))
    values = cluster.values(manifest)
    assert isinstance(values[5], TaskLost)
    assert values[:5] + values[6:] == squares(12)[:5] + squares(12)[6:]
    assert sorted(cluster.log.calls) == [n for n in range(12) if n != 5]
    assert cluster.runs()[0, 5] == INFRASTRUCTURE_RETRIES + 1
    assert cluster.has_report(manifest)


@pytest.mark.parametrize("cause", [DeathCause.TIMEOUT, DeathCause.MEMORY])
def test_a_task_over_a_limit_is_tried_once(cause: DeathCause) -> None:
    """Time and memory limits are final: the task begins once, and the lane goes on."""
    cluster = deadly_cluster({5}, cause)
    manifest = cluster.run(*map_drafts(tasks=12, chunksize=4))
    values = cluster.values(manifest)
    kind = {DeathCause.TIMEOUT: TaskTimeout, DeathCause.MEMORY: TaskOutOfMemory}[cause]
    assert isinstance(values[5], kind)
    assert sum(isinstance(value, Exception) for value in values) == 1
    assert cluster.runs()[0, 5] == 1
    assert sorted(cluster.log.calls) == [n for n in range(12) if n != 5]


def test_a_chunk_of_deadly_tasks_ends() -> None:
    """Every task of a chunk kills its process: all are lost after their tries; the job ends."""
    cluster = deadly_cluster({0, 1, 2, 3})
    manifest = cluster.run(*map_drafts(tasks=4, chunksize=4))
    assert all(isinstance(value, TaskLost) for value in cluster.values(manifest))
    assert cluster.has_report(manifest)


class Deadly:
    """An argument that kills whoever unpickles it."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return die, ()


@pytest.mark.parametrize("tasks", [1, 3])
def test_arguments_that_kill_end_in_lost_tasks(tasks: int) -> None:
    """Loading a chunk's arguments kills the process, every time: its tasks are lost after the
    retries, and the other chunks are run.
    """
    cluster = Cluster(1)
    cluster.watchdog = True
    args: list[Any] = [((Deadly(),), {})] + [((n,), {}) for n in range(1, 2 * tasks)]
    draft = StageDraft("map", StageKind.CALL, Call(square), 2 * tasks, tasks, args)
    manifest = cluster.run(draft)
    values = cluster.values(manifest)
    assert all(isinstance(value, TaskLost) for value in values[:tasks])
    assert values[tasks:] == squares(2 * tasks)[tasks:]
    assert cluster.log.crashes == INFRASTRUCTURE_RETRIES + 1


def test_a_death_between_chunks_fails_nobody() -> None:
    """A process over its memory limit while no task runs: the next chunk is not to blame."""
    cluster = Cluster(1)
    manifest = cluster.launch(*map_drafts(tasks=4, chunksize=2))
    event = cluster.queue.pop()
    for cause in (DeathCause.MEMORY, DeathCause.TIMEOUT):
        cluster.queue.append(replace(event, death=Death(cause, "too much")))
        cluster.run_all()
    check_end(cluster, manifest, check_map)


def test_a_death_of_a_committed_chunk_is_not_the_next_ones() -> None:
    """The watchdog names a chunk that has its outcome already: nothing is held against another."""
    cluster = Cluster(1)
    manifest = cluster.launch(*map_drafts(tasks=4, chunksize=2))
    event = cluster.queue.pop()
    cluster.run_one(replace(event, only=(0,)))
    death = Death(DeathCause.MEMORY, "too much", 0, 1, "0123456789abcdef")
    cluster.queue.append(replace(event, death=death))
    cluster.run_all()
    check_end(cluster, manifest, check_map)


def test_frames_of_dead_executions_are_kept() -> None:
    """What a dead execution had finished is in its attempt object, and is not run again."""
    store = open_store("memory://")
    kept = {4: Frame(FrameKind.VALUE, serialize.plain_dumps(16))}
    save_attempt(store, KEYS, 1, Death(DeathCause.CRASH, "signal 11", 2, 5, "ab" * 8), kept)
    save_attempt(store, KEYS, 2, Death(DeathCause.CRASH, "signal 11", 2, 5, "cd" * 8), {})
    history = load_history(store, KEYS, 2)
    assert history.frames == kept
    assert len(history.deaths) == 2


# --- what belongs to the user -------------------------------------------------------------------


class Fragile:
    """A value that cannot be unpickled."""

    def __init__(self, total: int) -> None:
        self.total = total

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return refuse, (self.total,)


def refuse(total: int) -> int:
    raise ImportError("only where its module is")


def add_to_fragile(values: list[int]) -> Fragile:
    return Fragile(sum(values))


def test_the_barrier_leaves_the_users_values_alone() -> None:
    """A stage whose values load only in their own tasks ends all the same: counting them needs
    no unpickling.
    """
    cluster = Cluster(2)
    first, second, _ = tree_drafts()
    manifest = cluster.run(first, replace(second, work=Fold(add_to_fragile, 4), tasks=1))
    end = cluster.end(manifest)
    assert end is not None
    assert end.status == "done"
    assert isinstance(cluster.values(manifest)[0], ImportError)


def test_a_chunk_that_the_client_cancelled_is_no_failure() -> None:
    """A worker that finds a cancelled outcome leaves it, and max_failures does not count it."""
    cluster = Cluster(1)
    manifest = cluster.launch(*map_drafts(tasks=3, chunksize=1, max_failures=0))
    poller = Poller(cluster)
    job = followed(manifest, cluster, poller)
    assert job.stages[0].futures[1].cancel()
    cluster.run_all()
    end = cluster.end(manifest)
    assert end is not None
    assert end.status == "done"
    assert [f.result(PATIENCE_S) for f in job.stages[0].futures if not f.cancelled()] == [0, 4]


# --- answers that mislead -------------------------------------------------------------------------


@each_job
@pytest.mark.parametrize("answer", [Answer.LOST, Answer.REPEATED, Answer.CONFLICT])
def test_a_misleading_answer_to_any_create_changes_nothing(job: str, answer: Answer) -> None:
    """Whichever conditional put is answered wrongly, once: exact results, and the job ends."""
    width, drafts, check = JOBS[job]
    submission = Cluster(width).prepare(*drafts)
    quiet = MisleadingStore("memory", MemoryStore())
    run(Cluster(width, store=quiet), submission)
    for number in range(quiet.puts):
        answers = [Answer.TRUE] * number + [answer]
        store = MisleadingStore("memory", MemoryStore(), answers)
        cluster = Cluster(width, store=store)
        check_end(cluster, run(cluster, submission), check)


def test_a_job_that_does_not_end_is_noticed() -> None:
    """Events that go on for ever are an error of the test, not a hang."""

    class Restless(Worker):
        """Hands every event on."""

        def run(self, event: Event) -> Event | None:
            self._host.launch([event])
            return None

    cluster = Cluster(2, make_worker=Restless)
    cluster.launch(*map_drafts())
    with pytest.raises(TooManyEvents):
        cluster.run_all(limit=100)


# --- the poller ---------------------------------------------------------------------------------


def followed(manifest: Manifest, backend: Backend, poller: Poller) -> TrackedJob:
    """Return a launched job that a poller follows from now on."""
    job = TrackedJob(manifest, backend, poller)
    job.begin_launch()
    poller.add(job)
    return job


def results_of(job: TrackedJob) -> list[Any]:
    return [future.result(PATIENCE_S) for future in job.stages[-1].futures]


@pytest.mark.parametrize("job", ["one chunk", "map", "map of several groups"])
def test_a_client_without_hints_finds_all_results(job: str) -> None:
    """The store alone is enough: every future gets its value, and the poller's thread ends."""
    width, drafts, _ = JOBS[job]
    cluster = Cluster(width)
    manifest = cluster.launch(*drafts)
    poller = Poller(cluster)
    tracked = followed(manifest, cluster, poller)
    cluster.run_all()
    assert results_of(tracked) == squares(manifest.stages[0].tasks)
    poller.wait_until_idle()
    assert tracked.is_over


def test_a_job_of_several_stages_ends_with_its_report() -> None:
    """A client that comes back later finds the values of all stages, and how the job ended."""
    cluster = Cluster(2)
    manifest = cluster.run(*map_reduce_drafts())
    poller = Poller(cluster)
    job = followed(manifest, cluster, poller)
    assert job.wait(PATIENCE_S)
    assert job.end is not None
    assert job.end.status == "done"
    assert job.end == cluster.end(manifest)
    assert sum(reduced.keys for reduced in results_of(job)) == 4


def test_what_a_failed_job_did_not_run_is_job_failed() -> None:
    """Futures without an outcome get JobFailed with the report's reason; those with one keep it."""
    cluster = Cluster(1)
    manifest = cluster.run(*map_drafts(slow_fail, tasks=20, chunksize=1, max_failures=2))
    job = followed(manifest, cluster, Poller(cluster))
    errors = [future.exception(PATIENCE_S) for future in job.stages[0].futures]
    assert [type(error) for error in errors] == [KeyError] * 3 + [JobFailed] * 17
    assert "3 tasks of stage 'map' failed, 2 are allowed" in str(errors[-1])
    assert job.is_over


def test_a_cancelled_job_cancels_what_was_not_run() -> None:
    """A tombstone alone, without a report, ends the futures of a job as cancelled."""
    cluster = Cluster(2)
    manifest = cluster.launch(*map_drafts())
    report = Report("cancelled", "by a test", 1.0)
    cluster.store.create(JobKeys(manifest.job).cancelled, report.encode(), "0" * 16)
    job = followed(manifest, cluster, Poller(cluster))
    assert job.wait(PATIENCE_S)
    assert all(future.cancelled() for future in job.stages[0].futures)


@pytest.mark.parametrize("verb", ["list", "get", "any"])
def test_an_outage_of_the_store_only_delays(verb: str) -> None:
    """Refused requests of the poller are tried again later: no future gets an error."""
    cluster = Cluster(2)
    manifest = cluster.run(*map_reduce_drafts())
    outage = Outage(4, lambda request: verb in (request.verb, "any"))
    client = Cluster(2, store=InterceptedStore(cluster.store, outage))
    job = followed(manifest, client, Poller(client))
    assert sum(reduced.keys for reduced in results_of(job)) == 4
    assert job.wait(PATIENCE_S)
    assert outage.left == 0


def damage_outcome(cluster: Cluster, manifest: Manifest, data: bytes) -> str:
    key = StageRun.of(manifest, 0).keys.outcome(0, 1)
    cluster.store.put(key, data)
    return key


def other_count(cluster: Cluster, manifest: Manifest) -> str:
    """An outcome of one frame where the chunk has two tasks."""
    outcome, frames = cluster.outcomes(manifest)[1]
    changed = replace(outcome, count=1, frames=encode_frames(frames[:1]))
    return damage_outcome(cluster, manifest, changed.execution.encode() + b"\n" + changed.encode())


def lost_results(cluster: Cluster, manifest: Manifest) -> str:
    """An outcome that names a results object that is not there."""
    outcome, _ = cluster.outcomes(manifest)[1]
    missing = StageRun.of(manifest, 0).keys.results(1, outcome.execution)
    changed = replace(outcome, frames=b"", results=missing)
    damage_outcome(cluster, manifest, changed.execution.encode() + b"\n" + changed.encode())
    return missing


def garbage(cluster: Cluster, manifest: Manifest) -> str:
    return damage_outcome(cluster, manifest, b"garbage")


def foreign_file(cluster: Cluster, manifest: Manifest) -> str:
    """A file that is not ours among the outcomes."""
    key = StageRun.of(manifest, 0).keys.outcomes(0) + ".DS_Store"
    cluster.store.put(key, b"")
    return key


@pytest.mark.parametrize("damage", [garbage, other_count, lost_results, foreign_file])
def test_a_damaged_object_ends_the_futures(damage: Callable[[Cluster, Manifest], str]) -> None:
    """An outcome that cannot be read is CorruptObject with its key at every future that has no
    value yet: nothing hangs.
    """
    cluster = Cluster(2)
    manifest = cluster.run(*map_drafts())
    key = damage(cluster, manifest)
    job = followed(manifest, cluster, Poller(cluster))
    assert job.wait(PATIENCE_S)
    errors = [future.exception(0) for future in job.stages[0].futures]
    found = [error for error in errors if error is not None]
    assert found
    assert all(isinstance(error, CorruptObject) for error in found)
    assert key in str(found[0])


def test_a_damaged_report_ends_the_futures() -> None:
    """A report that cannot be read is CorruptObject for all that is left of the job."""
    cluster = Cluster(2)
    manifest = cluster.launch(*map_drafts())
    cluster.store.put(JobKeys(manifest.job).report, b"garbage")
    job = followed(manifest, cluster, Poller(cluster))
    assert isinstance(job.stages[0].futures[0].exception(PATIENCE_S), CorruptObject)


def test_a_damaged_value_is_its_own_futures_error() -> None:
    """A value that cannot be unpickled concerns its future only."""
    cluster = Cluster(2)
    manifest = cluster.run(*map_drafts(fragile_if_two, tasks=4))
    job = followed(manifest, cluster, Poller(cluster))
    assert isinstance(job.stages[0].futures[2].exception(PATIENCE_S), ImportError)
    assert [job.stages[0].futures[n].result(PATIENCE_S) for n in (0, 1, 3)] == [0, 1, 3]


def fragile_if_two(number: int) -> Any:
    return Fragile(number) if number == 2 else number


def test_a_cancelled_map_task_ends_its_map_reduce() -> None:
    """A job that cannot have its whole result has none: it ends as failed, and says why."""
    cluster = Cluster(2)
    manifest = cluster.launch(*map_reduce_drafts())
    job = followed(manifest, cluster, Poller(cluster))
    assert job.stages[0].futures[1].cancel()
    cluster.run_all()
    end = cluster.end(manifest)
    assert end is not None
    assert end.status == "failed"
    assert "1 tasks of stage 'map' failed" in end.reason
    assert job.wait(PATIENCE_S)


def test_a_last_failure_counts_however_lanes_overlap() -> None:
    """One failure too many in the very last chunks, seen by a lane whose outcomes are all there:
    the report says failed, in every order of requests.
    """
    submission = Cluster(2).prepare(*map_drafts(fail_if_odd, tasks=8, max_failures=3))
    for seed in range(60):
        cluster = Cluster(2, seed=seed, at_once=3)
        manifest = run(cluster, submission)
        end = cluster.end(manifest)
        assert end is not None
        assert end.status == "failed", seed
