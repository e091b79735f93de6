"""`lambdamr cancel, retry, delete`: what is done about a job."""

import time

import click

from lambdamr.cli.asking import job_and_root, job_argument, root_option
from lambdamr.cli.showing import json_option, show, state
from lambdamr_runtime.errors import JobRunning
from lambdamr_runtime.keys import JobKeys


@click.command()
@job_argument
@root_option
@json_option
def cancel(job: str, root: str | None, as_json: bool) -> int:
    """Cancel a job.

    Tasks that run see it within seconds, others are not begun.

    Exit status: 1 where it had ended already.

    \b
    Examples:
      lambdamr cancel last
      lambdamr cancel 20261126-093355-0123456789ab
    """
    from lambdamr_runtime.barrier import Report, end_job, read_end

    job, store = job_and_root(job, root)
    keys = JobKeys(job)
    end = read_end(store, keys)
    if end is None:
        report = Report("cancelled", "cancelled by `lambdamr cancel`", time.time())
        end_job(store, keys, report)
        end = read_end(store, keys) or report
        cancelled = end.status == "cancelled"
    else:
        cancelled = False
    text = f"job {job}: {'cancelled' if cancelled else f'had ended already, {state(end.status)}'}"
    show({"job": job, "cancelled": cancelled, "state": end.status}, text, as_json)
    return 0 if cancelled else 1


@click.command()
@job_argument
@root_option
@json_option
def retry(job: str, root: str | None, as_json: bool) -> int:
    """Run again what failed of a job.

    What failed, was cancelled or not run becomes a new job, whose end is waited for.

    Exit status: 0 where all tasks have a value now.

    \b
    Examples:
      lambdamr retry last
      lambdamr retry 20261126-093355-0123456789ab --json
    """
    from lambdamr.attaching import attach
    from lambdamr.job import Job
    from lambdamr.looking import summary

    job, store = job_and_root(job, root)
    now = summary(store, job)
    if not now.is_settled:
        raise JobRunning(
            f"Job {job} is {now.state}. `lambdamr result {job} --wait` waits for its end, and goes "
            "on with it where its program is gone."
        )
    found = attach(job, root=store.root)
    again = found.retry_failed()
    again.wait()
    if isinstance(again, Job):
        new, failed = again.job_id, len(again.failures())
    else:
        ids = [future.job_id for future in again]
        new = next((each for each in ids if each != job), job)
        failed = len(again.failures()) + sum(future.cancelled() for future in again)
    if new == job:
        text = f"job {job}: nothing to run again"
    else:
        text = f"job {new} ran again what had no value in {job}: {failed or 'none'} failed"
    show({"job": new, "of": job, "failed": failed}, text, as_json)
    return int(failed > 0)


@click.command()
@job_argument
@click.option("--force", is_flag=True, help="Also if it runs: it is cancelled first.")
@root_option
@json_option
def delete(job: str, force: bool, root: str | None, as_json: bool) -> int:
    """Remove all that is stored of a job.

    What it wrote under output= stays.

    \b
    Examples:
      lambdamr delete 20261126-093355-0123456789ab
      lambdamr delete last --force
    """
    from lambdamr.deleting import delete as delete_job
    from lambdamr.looking import State, summary

    job, store = job_and_root(job, root)
    now = summary(store, job)
    if now.state is State.RUNNING and not now.has_all and not force:
        raise JobRunning(f"Job {job} is running. Cancel it first, or give --force, which does.")
    delete_job(job, root=store.root, force=force)
    show({"job": job, "deleted": True}, f"job {job} deleted", as_json)
    return 0
