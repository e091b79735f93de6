"""A waiting task runs chunks of its nested job where nobody else does; and what events carry."""

from dataclasses import replace
from typing import Any

from lambdamr.submission import StageDraft
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.limits import RECURSION_GUARD, STEAL_S
from lambdamr_runtime.stealing import FORGET_S, Stealer
from lambdamr_runtime.wire import Manifest, StageKind
from lambdamr_runtime.work import Call, Fold
from tests.cluster import Cluster


def job(cluster: Cluster, tasks: int) -> Manifest:
    args: list[Any] = [((-i,), {}) for i in range(tasks)]
    return cluster.launch(StageDraft("map", StageKind.CALL, Call(abs), tasks, 1, args))


def test_a_job_that_stands_still_is_run_by_who_waits() -> None:
    """Not before a while has passed; then chunk after chunk from the end, up to the report."""
    cluster = Cluster(width=2)
    manifest = job(cluster, 4)
    cluster.queue.clear()  # the platform has no place
    stealer = Stealer(cluster.store, cluster.clock)
    assert stealer.take(manifest.job) is None
    cluster.clock.sleep(STEAL_S)
    order: list[int] = []
    while (event := stealer.take(manifest.job)) is not None:
        order += event.only
        cluster.run_one(event)
    assert order == [3, 2, 1, 0]
    assert cluster.values(manifest) == [0, 1, 2, 3]
    assert cluster.has_report(manifest)


def test_a_job_that_goes_on_is_left_alone() -> None:
    """As long as others commit chunks, nothing is taken."""
    cluster = Cluster(width=3)
    manifest = job(cluster, 3)
    stealer = Stealer(cluster.store, cluster.clock)
    assert stealer.take(manifest.job) is None
    while cluster.queue:
        cluster.run_one(cluster.queue.pop())
        cluster.clock.sleep(STEAL_S)
        assert stealer.take(manifest.job) is None


def test_what_was_taken_is_not_taken_again() -> None:
    """Until it is committed, nothing more is: others may be at it."""
    cluster = Cluster(width=2)
    manifest = job(cluster, 4)
    stealer = Stealer(cluster.store, cluster.clock)
    stealer.take(manifest.job)
    cluster.clock.sleep(STEAL_S)
    assert stealer.take(manifest.job) is not None
    assert stealer.take(manifest.job) is None


def test_a_warm_process_forgets_jobs_that_have_ended() -> None:
    """One that nobody has waited for any more is as new, once another one is waited for."""
    cluster = Cluster(width=1)
    earlier, later = job(cluster, 1), job(cluster, 1)
    stealer = Stealer(cluster.store, cluster.clock)
    assert stealer.take(earlier.job) is None
    cluster.clock.sleep(FORGET_S + 1)
    assert stealer.take(later.job) is None
    assert stealer.take(earlier.job) is None
    cluster.clock.sleep(STEAL_S)
    assert stealer.take(earlier.job) is not None


def test_a_job_that_is_not_stored_yet() -> None:
    """It waits for its arguments: there is nothing to take."""
    cluster = Cluster()
    assert Stealer(cluster.store, cluster.clock).take("20260101-000000-0123456789ab") is None


def test_a_lane_that_comes_late_does_not_repeat_what_others_ran() -> None:
    """Its event waited for a place: it looks for outcomes first."""
    cluster = Cluster(width=2)
    manifest = job(cluster, 4)
    late = list(cluster.queue)
    cluster.run_all()
    begun = cluster.runs()
    cluster.clock.sleep(STEAL_S + 1)
    cluster.queue += late
    cluster.run_all()
    assert cluster.runs() == begun
    assert cluster.values(manifest) == [0, 1, 2, 3]


def test_an_expired_event_runs_as_a_repair() -> None:
    """Others may have repaired its lane by then."""
    cluster = Cluster(width=1)
    manifest = job(cluster, 2)
    (event,) = cluster.queue
    cluster.run_all()
    begun = cluster.runs()
    cluster.store.delete([JobKeys(manifest.job).report])
    cluster.run_one(replace(event, expires=cluster.clock.time() - 1, sent_s=cluster.clock.time()))
    assert cluster.runs() == begun
    assert cluster.has_report(manifest)


def test_a_process_that_is_replaced_does_not_shorten_the_age() -> None:
    """What goes on in a fresh process, and what follows from it, has the whole age again."""
    cluster = Cluster(width=1)
    cluster.unclean = True
    args: list[Any] = [(([i],), {}) for i in range(4)]
    cluster.launch(
        StageDraft("one", StageKind.CALL, Call(sum), 4, 1, args),
        StageDraft("two", StageKind.FOLD, Fold(sum, 2), 2, 1),
    )
    cluster.queue = [replace(event, expires=event.sent_s + 3600) for event in cluster.queue]
    top = len(cluster.log.invoked)
    while cluster.queue:
        cluster.clock.sleep(60)
        cluster.run_one(cluster.queue.pop(0))
    following = cluster.log.invoked[top:]
    assert following
    assert {event.expires - event.sent_s for event in following} == {3600}


def test_events_count_the_chain_that_they_end() -> None:
    """Depth grows by one from each invocation to the next, and stays below AWS's guard for two
    stages of hundreds of lanes; the age of an event is that of the one before.
    """
    cluster = Cluster(width=300)
    args: list[Any] = [(([i],), {}) for i in range(300)]
    cluster.launch(
        StageDraft("one", StageKind.CALL, Call(sum), 300, 1, args),
        StageDraft("two", StageKind.FOLD, Fold(sum, 2), 150, 1),
    )
    cluster.queue = [replace(e, expires=e.sent_s + 3600) for e in cluster.queue]
    top = len(cluster.log.invoked)
    cluster.run_all(limit=20_000)
    following = cluster.log.invoked[top:]
    assert {event.depth for event in following} == set(
        range(1, max(e.depth for e in following) + 1)
    )
    assert max(event.depth for event in following) < RECURSION_GUARD
    assert {event.expires - event.sent_s for event in following} == {3600}
