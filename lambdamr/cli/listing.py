"""`lambdamr jobs`: which jobs there are."""

import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lambdamr.cli.asking import open_root, root_of, root_option
from lambdamr.cli.showing import STATES, age, json_option, show, state, table

if TYPE_CHECKING:
    from lambdamr.looking import JobSummary

SHOWN = 20


@click.command()
@click.option("-n", "--limit", type=click.IntRange(min=1), default=SHOWN, show_default=True,
              help="Most jobs shown, the newest.")  # fmt: skip
@click.option("--all", "everything", is_flag=True, help="Show all.")
@click.option("--state", "wanted", type=click.Choice(STATES), multiple=True,
              help="Only jobs in this state; may be repeated. With failed: those too that were "
              "cancelled when tasks had failed.")  # fmt: skip
@root_option
@json_option
def jobs(
    limit: int, everything: bool, wanted: tuple[str, ...], root: str | None, as_json: bool
) -> int:
    """List jobs, the newest first.

    A job that is abandoned has not ended, and the program that ran it is gone: `lambdamr result`
    and lambdamr.attach go on with it.

    \b
    Examples:
      lambdamr jobs
      lambdamr jobs --state failed --state abandoned
      lambdamr jobs --all --json
    """
    from lambdamr.looking import job_ids, summary
    from lambdamr_runtime.errors import JobNotFound
    from lambdamr_runtime.store import local_path

    path = local_path(root_of(root))
    if root and path is not None and not os.path.isdir(path):
        raise JobNotFound(f"There is no directory {path}. Check --root.")
    store = open_root(root)
    found: list[JobSummary] = []
    for job in job_ids(store):
        if not everything and len(found) == limit:
            break
        each = summary(store, job)
        if not wanted or each.state in wanted or (each.has_failures and "failed" in wanted):
            found.append(each)
    found.sort(key=lambda each: each.created_s, reverse=True)  # ids tell the second alone
    show([asdict(each) for each in found], _text(found), as_json)
    return 0


def _text(found: "list[JobSummary]") -> str:
    if not found:
        return "no jobs"
    now = time.time()
    rows = [["job", "state", "age", "took", "tasks", "name"]]
    for each in found:
        old = age(max(0.0, now - each.created_s)) if each.created_s else "-"
        took = age(each.seconds) if each.seconds is not None else "-"
        tasks = f"{each.ended:,}/{each.tasks:,}"
        said = state(each.state)
        if each.has_failures and each.state != "failed":
            said += ", tasks failed"
        rows.append([each.job, said, old, took, tasks, each.name or each.reason])
    return table(rows)
