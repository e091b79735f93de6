"""What must hold at the end of every history."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from lambdamr_runtime.barrier import Report, read_end
from lambdamr_runtime.chunk import StageRun
from lambdamr_runtime.errors import JobFailed, StoreError, TaskLost, TaskTimeout
from lambdamr_runtime.keys import JobKeys
from lambdamr_runtime.limits import INFRASTRUCTURE_RETRIES
from lambdamr_runtime.outputs import SUCCESS, success
from lambdamr_runtime.parts import read_part
from lambdamr_runtime.references import read_outcome, value_of
from lambdamr_runtime.wire import CLIENT, FrameKind, StageKind
from tests.simulation.jobs import WORDS
from tests.simulation.world import World, current, require

if TYPE_CHECKING:
    from tests.simulation.history import History

OUT_PREFIX = "out/"


def check(history: "History") -> None:
    """Check one history that has come to its end.

    Raises:  Violated
    """
    world = history.world
    if JobKeys(history.job).manifest not in world.objects.data:
        require(not world.log.invoked, "something was launched of a job that is not stored")
        return
    _check_invocations(world, history.cloud.is_pool)
    _check_deaths(world)
    for job in sorted(world.manifests):
        _check_outcomes(world, job)
    report = _report(world, history.job)
    excuses = _excuses(history, report)
    statuses = set(history.template.statuses)
    if CancelledError in excuses:
        statuses |= {"cancelled", "done"}  # what is cancelled does not fail
    if set(excuses) - {CancelledError, JobFailed}:
        statuses.add("failed")
    if CancelledError in excuses and len(history.submission.manifest.stages) > 1:
        statuses.add("failed")
    require(report.status in statuses, f"the job is {report.status}: {report.reason}")
    require("Receipts" not in report.reason, report.reason)
    _check_client(history, report, excuses)
    if history.template.has_output:
        _check_output(history, report)


def _report(world: World, job: str) -> Report:
    """Return how the job ended; a tombstone is an end too, whose writer may be gone."""
    end = read_end(world.plain, JobKeys(job))
    require(end is not None, "the job has no end")
    assert end is not None
    return end


def _excuses(history: "History", report: Report) -> tuple[type[BaseException], ...]:
    """Return what tasks may end with, beside what their functions do."""
    log = history.world.log
    excuses: list[type[BaseException]] = []
    if log.deaths > INFRASTRUCTURE_RETRIES:
        excuses.append(TaskLost)
    if log.timeouts:
        excuses.append(TaskTimeout)
    if log.refused:
        excuses += (StoreError, JobFailed)  # a nested job ends with what refused an event of it
    # A launch that fails half way cancels what has begun.
    if any(each.cancelled or each.launching or each.error is not None for each in history.clients):
        excuses.append(CancelledError)
    if report.status != "done":
        excuses.append(JobFailed)
    return tuple(excuses)


def _check_invocations(world: World, is_pool: bool) -> None:
    """Each launch of a lane is followed by as many repairs as are allowed for each task of a chunk,
    at most; and without deaths there are none. Duplicates launch what follows them once more.

    A pool counts deaths by what workers record, and these may die while they do.
    """
    log = world.log
    for (job, stage), count in log.invoked.items():
        plan = world.run_of(job, stage).plan
        lanes = plan.lanes
        handovers = log.handovers[job, stage]
        most = (INFRASTRUCTURE_RETRIES + 2) * (lanes + handovers) * plan.chunksize
        if stage:  # each repair of the lane that was launching it launches all of it again
            most *= INFRASTRUCTURE_RETRIES + 2
        repeated = log.swept + log.late  # repairs that may launch what others launch at the moment
        needed = lanes * (1 + log.deaths + repeated) + handovers + log.deaths
        most = needed if is_pool else min(most * (1 + repeated), needed)
        bound = most * (1 + log.multiplied) + log.swept
        require(count <= bound, f"{count} invocations of stage {stage}, at most {bound}")


def _check_deaths(world: World) -> None:
    """No death is recorded under two names or against two chunks, nor any that was none."""
    recorded = [key.rpartition("/") for key in world.objects.data if "/attempts/" in key]
    blamed = {(chunk, name.partition(".")[2]) for chunk, _, name in recorded}
    names = {name for _, name in blamed}
    count = world.log.deaths
    require(len(names) <= count, f"{count} deaths are recorded as {len(names)}")
    require(len(names) == len(blamed), "a death is held against two chunks")


def _check_outcomes(world: World, job: str) -> None:
    """Every outcome can be read, and is what it was."""
    manifest = world.manifest(job)
    for index in range(len(manifest.stages)):
        run = StageRun.of(manifest, index)
        for chunk in range(run.plan.chunks):
            key = run.keys.outcome(run.plan.group_of(chunk), chunk)
            if key not in world.objects.data:
                continue
            require(world.objects.data[key] == world.log.bodies[key], f"{key} was rewritten")
            outcome, frames = read_outcome(world.plain, key)
            require(outcome.count == len(run.plan.tasks_of(chunk)), f"{key} has other tasks")
            failed = sum(frame.kind is FrameKind.ERROR for frame in frames)
            require(outcome.failed == failed, f"{key} counts {outcome.failed} failures")


def _check_client(
    history: "History", report: Report, excuses: tuple[type[BaseException], ...]
) -> None:
    client = history.client
    require(client.values is not None, "the client waits for ever")
    assert client.values is not None
    stages = history.submission.manifest.stages
    if stages[0].kind is StageKind.MAP:
        _check_map_reduce(history, client.result, report, excuses)
        return
    for task, value in enumerate(client.values):
        is_right = history.template.expected(task, value)
        require(is_right or isinstance(value, excuses), f"task {task} is {value!r}")
    if report.status == "done" and len(stages) > 1:
        value = client.values[0]
        is_late = isinstance(value, CancelledError)  # the client has ended it for itself
        require(is_late or history.template.expected(0, value), f"done, with {value!r}")


def _check_map_reduce(
    history: "History",
    result: Any,
    report: Report,
    excuses: tuple[type[BaseException], ...],
) -> None:
    if isinstance(result, BaseException):
        allowed = (*excuses, *history.template.errors)
        require(isinstance(result, allowed), f"the result is {result!r}")
        is_late = isinstance(result, CancelledError)  # the client has ended it for itself
        require(report.status != "done" or is_late, "a job that is done has an error")
        return
    require(report.status == "done", "a job that is not done has a result")
    reduces = any(stage.kind is StageKind.REDUCE for stage in history.submission.manifest.stages)
    _check_pairs(list(_gathered(result)) if reduces else result)


def _gathered(items: list[tuple[str, str]]) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yield the pairs that mappers have yielded, as reducers have got them."""
    require(len(dict(items)) == len(items), "a key comes twice")
    for letter, text in items:
        made, _, values = text.partition(";")
        require(current().calls[int(made)] == letter, "a value that no call has made")
        for value in values.split(","):
            word, _, token = value.partition(":")
            yield letter, (word, int(token))


def _check_pairs(pairs: list[tuple[str, tuple[str, int]]]) -> None:
    """Every letter of every word once, and all letters of a word by one call."""
    calls = current().calls
    tokens: dict[str, set[int]] = {}
    for _, (word, token) in pairs:
        tokens.setdefault(word, set()).add(token)
    found = Counter((letter, word) for letter, (word, _) in pairs)
    wanted = Counter((letter, word) for word in WORDS for letter in word)
    require(found == wanted, f"the result differs by {found - wanted} and {wanted - found}")
    for word, drawn in tokens.items():
        require(len(drawn) == 1, f"{word} is mixed from several calls")
        require(calls[drawn.pop()] == word, "a pair that no call has made")


def _check_output(history: "History", report: Report) -> None:
    """All or nothing."""
    world = history.world
    found = {
        key.removeprefix(OUT_PREFIX): data
        for key, data in world.objects.data.items()
        if key.startswith(OUT_PREFIX)
    }
    if report.status != "done":
        # Given up, it wakes up behind the end, writes, and dies before it looks: nobody knows.
        is_clean = not found or world.log.unseen
        require(is_clean, f"a job that is {report.status} leaves {sorted(found)}")
        return
    if SUCCESS in found:
        require(found.pop(SUCCESS) == success(history.job), "_SUCCESS is another job's")
    else:
        require(list(found) == ["all.txt"], "there is no _SUCCESS")
    text = b"".join(found[name] for name in sorted(found)).decode()
    expected = "".join(f"{key}\t{value}\n" for key, value in _items(history))
    require(text == expected, "the output is not the result")
    outputs = history.client.outputs
    wanted = sorted(uri.rpartition("/")[2] for uri in outputs)
    require(not outputs or sorted(found) == wanted, f"there is {sorted(found)}, not {wanted}")


def _items(history: "History") -> Iterator[tuple[Any, Any]]:
    """Yield the pairs of the parts that count."""
    world, manifest = history.world, history.submission.manifest
    run = StageRun.of(manifest, len(manifest.stages) - 2)
    for chunk in range(run.plan.chunks):
        key = run.keys.outcome(run.plan.group_of(chunk), chunk)
        for frame in read_outcome(world.plain, key)[1]:
            part = value_of(frame, key).part
            yield from read_part(world.plain.get(part), part)


__all__ = ["CLIENT", "check"]
