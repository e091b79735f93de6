"""`lambdamr show, status, logs`: one job, whether it has ended or not."""

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import click

from lambdamr.cli.accounts import deployment_options
from lambdamr.cli.asking import job_and_root, job_argument, jobs_like, root_option
from lambdamr.cli.showing import age, json_option, say, show, state, table

if TYPE_CHECKING:
    from lambdamr.aws.standing import Standing
    from lambdamr.logs import Seen
    from lambdamr.looking import JobLook, StageLook, TaskLook
    from lambdamr_runtime.store import Store

SHOWN_FAILURES = 10


@click.command("show")
@job_argument
@click.option("--on", type=click.Choice(["local", "aws"]), help="Price it as if it ran there.")
@click.option("--region", help="AWS region whose prices count.")
@root_option
@json_option
def show_job(job: str, on: str | None, region: str | None, root: str | None, as_json: bool) -> int:
    """Show what a job did and cost.

    Of one that has not ended: so far. JOB is an id, the beginning of one, or "last".

    \b
    Examples:
      lambdamr show last
      lambdamr show 20261126-0933 --json
      lambdamr show last --on aws --region eu-west-1
    """
    from lambdamr.looking import look

    job, store = job_and_root(job, root)
    found = look(store, job)
    costs, told_costs = _cost(found, store.root, on, region)
    failures = [task for stage in found.stages for task in stage.tasks if task.error]
    record = {**_record(found), "failures": list(map(asdict, failures)), "cost": costs}
    show(record, "\n".join((_head(found), _stages(found), *_told(failures), told_costs)), as_json)
    return 0


@click.command()
@click.argument("job", required=False, shell_complete=jobs_like)
@root_option
@deployment_options
@json_option
def status(
    job: str | None,
    root: str | None,
    name: str,
    region: str | None,
    aws_profile: str | None,
    as_json: bool,
) -> int:
    """Show how far a job is, or what is deployed.

    With a JOB: tasks that have ended, have failed, are left, and the lanes in which those are.
    Silent lanes have no outcome yet: they wait to begin, or are in their first chunk. Of a job that
    runs on AWS, lanes that run, are queued, or wait for concurrency. Exit status: 1 where the job
    has failed or was cancelled.

    Without one: the runtime that is deployed.

    \b
    Examples:
      lambdamr status
      lambdamr status last
      lambdamr status 20261126-093355-0123456789ab --json
      lambdamr status --name team --region eu-west-1
    """
    if job is None:
        from lambdamr.cli.accounts import connect
        from lambdamr.cli.looking import show_deployment

        cloud, names = connect(name, region, aws_profile)
        show_deployment(cloud, names, as_json)
        return 0
    from lambdamr.looking import look

    job, store = job_and_root(job, root)
    found = look(store, job)
    record, shown = _record(found), [_head(found), _stages(found)]
    places = None if found.state.is_over else _standing(found, store.root)
    if places is not None:
        record["lanes"] = asdict(places)
        shown.append(f"  lanes: {places}")
    shown += _told([task for stage in found.stages for task in stage.tasks if task.error])
    show(record, "\n".join(shown), as_json)
    return int(found.state in ("failed", "cancelled"))


@click.command()
@job_argument
@click.argument("task", type=int, required=False)
@click.option("--stage", help="Name of the stage, where there are several.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@root_option
@json_option
def logs(
    job: str, task: int | None, stage: str | None, follow: bool, root: str | None, as_json: bool
) -> int:
    """Print what tasks printed.

    Their stdout and stderr, and the errors of those that failed. Of each task the last 64 KiB are
    kept; tasks are shown when their chunk has ended, on this machine with --follow while they run.

    \b
    Examples:
      lambdamr logs last
      lambdamr logs last 17
      lambdamr logs last --follow
    """
    job, store = job_and_root(job, root)
    _check_chosen(store, job, task, stage)
    said = 0
    for each in _logs(store, job, follow):
        if task in (None, each.task) and stage in (None, each.stage):
            show(asdict(each), _log_text(each, task is not None), as_json)
            said += 1
    if not said and not as_json:
        say(f"no task of job {job} that matches has printed anything or failed", err=True)
    return 0


def _check_chosen(store: "Store", job: str, task: int | None, stage: str | None) -> None:
    """Refuse a task or a stage that a job does not have.

    Raises:  ValueError: naming those that there are.
    """
    from lambdamr_runtime.keys import JobKeys
    from lambdamr_runtime.wire import Manifest

    key = JobKeys(job).manifest
    sizes = {each.name: each.tasks for each in Manifest.decode(store.get(key), key).stages}
    has = ", ".join(f"{name} with tasks 0 to {tasks - 1:,}" for name, tasks in sizes.items())
    chosen = [tasks for name, tasks in sizes.items() if stage in (None, name)]
    if not chosen:
        raise ValueError(f"Job {job} has no stage {stage!r}; it has {has}.")
    if task is not None and not 0 <= task < max(chosen):
        raise ValueError(f"Job {job} has no task {task} there; it has {has}.")


def _logs(store: "Store", job: str, follow: bool) -> "Iterator[TaskLook]":
    """Yield the tasks that have something to say: each once, or piece by piece while they run."""
    from lambdamr.logs import Seen, ask, look_s
    from lambdamr.looking import look
    from lambdamr_runtime.keys import JobKeys

    told: set[tuple[str, int]] = set()
    seen: dict[tuple[str, int], Seen] = defaultdict(Seen)
    if follow:
        ask(store, JobKeys(job))
    while True:
        found = look(store, job)
        for each in (task for stage in found.stages for task in stage.tasks):
            if (each.stage, each.task) not in told:
                told.add((each.stage, each.task))
                left = seen[each.stage, each.task].ended(each.log.encode())
                if left or each.error:
                    yield replace(each, log=left)
        if found.state.is_over or not follow:
            return
        yield from _running(store, found, told, seen)
        time.sleep(look_s(store))


def _running(
    store: "Store",
    found: "JobLook",
    told: set[tuple[str, int]],
    seen: "dict[tuple[str, int], Seen]",
) -> "Iterator[TaskLook]":
    """Yield the lines that running tasks have written since the last look."""
    from lambdamr.logs import shown_logs
    from lambdamr.looking import TaskLook
    from lambdamr_runtime.keys import JobKeys

    for index, stage in enumerate(found.manifest.stages):
        for _, log in shown_logs(store, JobKeys(found.manifest.job), index):
            task = (stage.name, log.task)
            text = "" if task in told else seen[task].running(log)
            if text:
                yield TaskLook(*task, error="", log=text)


def _log_text(each: "TaskLook", alone: bool) -> str:
    head = [] if alone else [f"--- {each.stage} task {each.task}"]
    return "\n".join((*head, *filter(None, (each.log.rstrip("\n"), each.error))))


def _cost(
    found: "JobLook", root: str, on: str | None, region: str | None
) -> tuple[dict[str, Any] | None, str]:
    """Return what a job has cost: as plain data, None where no prices are known, and as text.

    Raises:  UnknownPrices: of the region that was asked for.
    """
    from lambdamr.planning.asking import place_of_root
    from lambdamr.planning.cost import JobFacts, StageFacts, cost_of_facts
    from lambdamr.prices import UnknownPrices

    try:
        target, prices, is_there = place_of_root(root, (on, region, None))
    except UnknownPrices as error:
        if region is not None:
            raise
        return None, f"cost unknown: {error}"
    stages = tuple(StageFacts(stage.spent, stage.values) for stage in found.stages)
    seconds = found.seconds if is_there else None
    facts = JobFacts(found.manifest, root, found.state.is_over, seconds, stages)
    cost = cost_of_facts(facts, target, prices)
    return cost.to_dict(), repr(cost)


def _record(found: "JobLook") -> dict[str, Any]:
    """Return a look as plain data. Any: JSON."""
    return {
        "job": found.manifest.job,
        "state": found.state,
        "reason": found.end.reason if found.end is not None else "",
        "created_s": found.manifest.created_s,
        "seconds": found.seconds,
        "stages": [
            {
                "name": stage.name,
                "tasks": stage.run.stage.tasks,
                "ended": stage.ended,
                "failed": stage.failed,
                "open_lanes": stage.open_lanes,
                "silent_lanes": stage.silent_lanes,
                "task_seconds": stage.spent.seconds,
                "deaths": stage.spent.deaths,
                "peak_mb": stage.peak_mb,
            }
            for stage in found.stages
        ],
    }


def _standing(found: "JobLook", root: str) -> "Standing | None":
    """Return where the lanes of a job's current stage are; None of one that does not run on AWS."""
    if not root.startswith("s3://"):
        return None
    from lambdamr.aws.standing import standing_at

    return standing_at(root, next((it.open_lanes for it in found.stages if it.open_lanes), 0))


def _head(found: "JobLook") -> str:
    took = f" in {age(found.seconds)}" if found.seconds is not None else ""
    old = f"{age(max(0.0, time.time() - found.manifest.created_s))} ago"
    last = max((stage.spent.last_s for stage in found.stages), default=0.0)
    if last and not found.state.is_over:
        old = f"{old}; the last outcome is {age(max(0.0, time.time() - last))} old"
    reason = f"\n  {found.end.reason}" if found.end is not None and found.end.reason else ""
    failed = sum(stage.failed for stage in found.stages)
    tasks = sum(stage.run.stage.tasks for stage in found.stages)
    failures = f"\n  {failed:,} of {tasks:,} tasks failed" if failed else ""
    return (
        f"job {found.manifest.job}: {state(found.state)}{took}, submitted {old}{reason}{failures}"
    )


def _stages(found: "JobLook") -> str:
    rows = [["", "tasks", "ended", "failed", "left", "in lanes", "silent", "task time", "peak"]]
    rows += [_row(stage) for stage in found.stages]
    return "\n".join(f"  {line}" for line in table(rows).splitlines())


def _row(stage: "StageLook") -> list[str]:
    tasks = stage.run.stage.tasks
    left = tasks - stage.ended
    return [
        stage.name,
        f"{tasks:,}",
        f"{stage.ended:,}",
        f"{stage.failed:,}",
        f"{left:,}",
        f"{stage.open_lanes:,}",
        f"{stage.silent_lanes:,}",
        age(stage.spent.seconds),
        f"{stage.peak_mb:,.0f} MB" if stage.peak_mb else "-",
    ]


def _told(failures: "list[TaskLook]") -> Iterator[str]:
    for each in failures[:SHOWN_FAILURES]:
        yield f"  {each.stage} task {each.task} failed: {each.error}"
    if len(failures) > SHOWN_FAILURES:
        yield f"  and {len(failures) - SHOWN_FAILURES:,} more: `lambdamr logs` has them all"
