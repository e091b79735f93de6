"""The supervisor: failure records of the platform become repairs, or the end of a job."""

import json
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from lambdamr.submission import StageDraft
from lambdamr_runtime.errors import CorruptObject, TaskLost, TaskOutOfMemory, TaskTimeout
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.supervisor import DROPPED, Failure, Verdict, supervise
from lambdamr_runtime.wire import DeathCause, Event, Manifest, StageKind
from lambdamr_runtime.work import Call
from tests.cluster import Cluster

TIMED_OUT = {
    "errorType": "Sandbox.Timedout",
    "errorMessage": "RequestId: 7a Error: Task timed out after 900.00 seconds",
}
KILLED = {
    "errorType": "Runtime.ExitError",
    "errorMessage": "RequestId: 7a Error: Runtime exited with error: signal: killed",
}
EXITED = {
    "errorType": "Runtime.ExitError",
    "errorMessage": "RequestId: 7a Error: Runtime exited with error: exit status 3",
}
RAISED = {"errorType": "StoreError", "errorMessage": "Could not read 'x': 503", "stackTrace": []}


INVOCATIONS = count()


def record(
    event: Event,
    answer: dict[str, Any] | None,
    condition: str = "RetriesExhausted",
    request: str | None = None,
) -> dict[str, Any]:
    """Return what AWS sends to an on-failure destination, of another invocation each time."""
    request = f"7a{next(INVOCATIONS)}" if request is None else request
    if answer and "errorMessage" in answer:
        answer = {**answer, "errorMessage": answer["errorMessage"].replace("7a", request)}
    context = {"requestId": request, "functionArn": "arn:…:worker:$LATEST", "condition": condition}
    return {
        "version": "1.0",
        "requestContext": {**context, "approximateInvokeCount": 1},
        "requestPayload": json.loads(event.encode()),
        "responseContext": {"statusCode": 200, "functionError": "Unhandled"},
        "responsePayload": answer,
    }


def double(value: int) -> int:
    return 2 * value


def squares(tasks: int, chunksize: int = 1) -> StageDraft:
    args: list[Any] = [((i,), {}) for i in range(tasks)]
    return StageDraft("map", StageKind.CALL, Call(double), tasks, chunksize, args)


def judge(cluster: Cluster, event: Event, answer: dict[str, Any] | None, **more: str) -> Verdict:
    log = more.pop("log", "")
    return supervise(
        record(event, answer, **more), cluster.store, cluster.invoke, cluster.clock, log
    )


def fail(cluster: Cluster, answer: dict[str, Any] | None, times: int = 1, **more: str) -> Verdict:
    """Fail the first queued event, and what repairs it, so many times; then run all."""
    verdict = Verdict.NOTHING
    event = cluster.queue.pop(0)
    for last in range(times):
        verdict = judge(cluster, event, answer, **more)
        if verdict is not Verdict.REPAIRED:
            break
        if last < times - 1:
            event = cluster.queue.pop()
    cluster.run_all()
    return verdict


def launched(tasks: int = 2, chunksize: int = 1, width: int = 2) -> tuple[Cluster, Manifest]:
    cluster = Cluster(width)
    return cluster, cluster.launch(squares(tasks, chunksize))


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (TIMED_OUT, DeathCause.TIMEOUT),
        ({"errorMessage": "2026-01-01 7a Task timed out after 3.00 seconds"}, DeathCause.TIMEOUT),
        (KILLED, DeathCause.MEMORY),
        ({"errorType": "Runtime.OutOfMemory", "errorMessage": "killed"}, DeathCause.MEMORY),
        (EXITED, DeathCause.CRASH),
        ({"errorMessage": "RequestId: 7a Process exited before completing"}, DeathCause.CRASH),
        (RAISED, DeathCause.LOST),
        (None, DeathCause.LOST),
    ],
)
def test_causes(answer: dict[str, Any] | None, cause: DeathCause) -> None:
    """What AWS writes of a failed invocation says how it ended."""
    assert Failure.decode(record(Event("j", 0, 0, 1), answer)).cause is cause


@pytest.mark.parametrize("answer", [EXITED, RAISED])
def test_a_lost_sandbox_is_repaired(answer: dict[str, Any]) -> None:
    """A sandbox that is gone, or a handler that raised, costs an attempt and no result."""
    cluster, manifest = launched()
    assert fail(cluster, answer) is Verdict.REPAIRED
    assert cluster.values(manifest) == [0, 2]
    assert [outcome.attempt for outcome, _ in cluster.outcomes(manifest)] == [1, 0]


@pytest.mark.parametrize("request_id", [{}, {"request": ""}], ids=["named", "nameless"])
def test_a_chunk_that_always_dies_is_lost(request_id: dict[str, str]) -> None:
    """After three deaths a task is TaskLost, with the log, and its lane goes on; whether records
    say which invocation they are of or not.
    """
    cluster, manifest = launched(tasks=4, width=1)
    cluster.mourned = False
    cluster.deadly = {0: DeathCause.CRASH}
    for _ in range(3):
        event = cluster.queue.pop()
        cluster.run_one(event)
        verdict = judge(cluster, event, EXITED, log="Aborted: something", **request_id)
        assert verdict is Verdict.REPAIRED
    cluster.run_all()
    first, *others = cluster.values(manifest)
    assert isinstance(first, TaskLost)
    assert "Aborted: something" in str(first)
    assert "exit status 3" in str(first)
    assert others == [2, 4, 6]
    cluster.check_bound(manifest)


def test_a_record_that_comes_late_once_more_blames_nobody() -> None:
    """The chunk that had died is committed by then; the one that runs now has not died."""
    cluster, manifest = launched(tasks=2, width=1)
    event = cluster.queue.pop()
    judge(cluster, event, EXITED, request="7a")
    repair = cluster.queue.pop()
    assert repair.death is not None
    cluster.run_one(replace(repair, only=(0,)))
    judge(cluster, event, EXITED, request="7a")
    again = cluster.queue.pop()
    assert (again.cursor, again.repair, again.death) == (1, True, None)
    cluster.run_one(again)
    assert [outcome.attempt for outcome, _ in cluster.outcomes(manifest)] == [1, 0]


@pytest.mark.parametrize(("answer", "kind"), [(TIMED_OUT, TaskTimeout), (KILLED, TaskOutOfMemory)])
def test_limits_are_final(answer: dict[str, Any], kind: type[Exception]) -> None:
    """A task alone in its chunk that reached a limit of the function is not tried again."""
    cluster, manifest = launched(tasks=2, width=1)
    assert fail(cluster, answer) is Verdict.REPAIRED
    first, second = cluster.values(manifest)
    assert isinstance(first, kind)
    assert second == 2


def test_of_several_tasks_nobody_knows_which_reached_a_limit() -> None:
    """So all of them are tried again."""
    cluster, manifest = launched(tasks=4, chunksize=4)
    assert fail(cluster, TIMED_OUT) is Verdict.REPAIRED
    assert cluster.values(manifest) == [0, 2, 4, 6]


def test_a_task_begun_late_had_less_than_the_whole_time() -> None:
    """It is tried again, first in its invocation; then the limit is final."""
    cluster, manifest = launched(tasks=3, width=1)
    cluster.mourned = False
    cluster.deadly = {1: DeathCause.CRASH}
    for cursor in (0, 1):
        event = cluster.queue.pop()
        assert event.cursor == cursor
        cluster.run_one(event)
        assert judge(cluster, event, TIMED_OUT) is Verdict.REPAIRED
    cluster.run_all()
    first, second, third = cluster.values(manifest)
    assert isinstance(second, TaskTimeout)
    assert (first, third) == (0, 4)


def test_dropped_events_are_sent_again() -> None:
    """An event that waited too long for a place gets another hour."""
    cluster, manifest = launched()
    assert fail(cluster, None, condition=DROPPED) is Verdict.REPAIRED
    assert cluster.values(manifest) == [0, 2]


def test_what_cannot_be_run_ends_the_job() -> None:
    """Invocations that fail again and again without a step forward end the job with the reason."""
    cluster, manifest = launched()
    assert fail(cluster, None, 10, condition=DROPPED) is Verdict.ENDED
    end = cluster.end(manifest)
    assert end is not None
    assert end.status == "failed"
    assert "concurrency" in end.reason
    assert len(cluster.log.invoked) == 2 + 3


@pytest.mark.parametrize(
    "answer",
    [
        {"errorType": "Runtime.ImportModuleError", "errorMessage": "Unable to import 'obstore'"},
        {"errorType": "StoreError", "errorMessage": "RuntimeMismatch: Python 3.11, not 3.12"},
        {"errorType": "InvocationRefused", "errorMessage": "Recursive loop"},
    ],
)
def test_useless_repetitions_are_not_made(answer: dict[str, Any]) -> None:
    """A runtime that cannot start fails the job at once, and names what mends it."""
    cluster, manifest = launched()
    assert fail(cluster, answer) is Verdict.ENDED
    end = cluster.end(manifest)
    assert end is not None
    assert answer["errorMessage"] in end.reason
    assert "Run `lambdamr " in end.reason


def test_an_event_of_another_release_ends_its_job() -> None:
    """Where even the event cannot be read, its job can be named."""
    cluster, manifest = launched()
    given = record(cluster.queue.pop(), RAISED)
    given["requestPayload"]["v"] = 99
    assert supervise(given, cluster.store, cluster.invoke, cluster.clock) is Verdict.ENDED
    end = cluster.end(manifest)
    assert end is not None
    assert "wire version" in end.reason


def test_ended_and_deleted_jobs_are_left_alone() -> None:
    """A record that comes late starts nothing."""
    cluster, manifest = launched()
    event = cluster.queue[0]
    cluster.run_all()
    assert judge(cluster, event, EXITED) is Verdict.NOTHING
    keys = JobKeys(manifest.job)
    cluster.store.delete([keys.report, keys.manifest])
    assert judge(cluster, event, EXITED) is Verdict.NOTHING
    assert not cluster.queue


def test_a_death_in_the_barrier_repeats_the_barrier_alone() -> None:
    """All chunks are there, but nobody closed the stage: no task runs again."""
    cluster, manifest = launched(tasks=1)
    event = cluster.queue[0]
    cluster.run_all()
    begun = cluster.runs()
    cluster.store.delete([JobKeys(manifest.job).report])
    assert judge(cluster, event, TIMED_OUT) is Verdict.REPAIRED
    cluster.run_all()
    assert cluster.has_report(manifest)
    assert cluster.runs() == begun


def test_repairs_expire_later_than_what_they_repair() -> None:
    """A repair gets the whole age of an event again."""
    cluster, _ = launched()
    event = replace(cluster.queue.pop(0), expires=cluster.clock.time() + 3600)
    cluster.clock.sleep(3600)
    judge(cluster, event, None, condition=DROPPED)
    assert cluster.queue[-1].expires == cluster.clock.time() + 3600


@pytest.mark.parametrize("given", [{}, {"requestContext": {"condition": "x"}}, {"a": 1}])
def test_other_records_are_refused(given: dict[str, Any]) -> None:
    """What is no failure record is an error, not silence."""
    cluster = Cluster()
    with pytest.raises(CorruptObject, match="failure record"):
        supervise(given, cluster.store, cluster.invoke, cluster.clock)


def test_events_of_others_are_refused() -> None:
    """So is the record of an event that is none of ours."""
    cluster = Cluster()
    given = {"requestContext": {"condition": "RetriesExhausted"}, "requestPayload": {"a": 1}}
    with pytest.raises(CorruptObject, match="not one of ours"):
        supervise(given, cluster.store, cluster.invoke, cluster.clock)
