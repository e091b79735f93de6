"""What commands are told: a job, and where jobs are stored."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lambdamr.config import absolute_root, load_config, sources

if TYPE_CHECKING:
    from lambdamr_runtime.store import ObstoreStore

_F = TypeVar("_F", bound=Callable[..., Any])

MOST_COMPLETIONS = 20


def root_option(command: _F) -> _F:
    """Give a command the option --root."""
    return click.option("--root", help="Where the jobs are stored; default: as configured.")(
        command
    )


def job_argument(command: _F) -> _F:
    """Give a command the argument JOB: an id, how one begins, or "last"."""
    return click.argument("job", shell_complete=jobs_like)(command)


def open_root(root: str | None) -> "ObstoreStore":
    """Open the store of a root: as given, as configured, or that of the deployed runtime."""
    from lambdamr_runtime.store import open_store  # 40 ms that `--help` does without

    return open_store(root_of(root))


def root_of(root: str | None) -> str:
    """Return the root that a command means."""
    if root:
        return absolute_root(root)
    config = load_config()
    if "root" in sources() or config.backend == "local":
        return config.root
    from lambdamr.deployment import load_profile

    deployed = load_profile()
    return deployed.root if deployed is not None else config.root


def job_and_root(job: str, root: str | None) -> "tuple[str, ObstoreStore]":
    """Return the id of the job that is meant, and its store.

    Raises:  JobNotFound: none is, or several are.
    """
    from lambdamr.looking import find_job

    store = open_root(root)
    return find_job(store, job), store


def jobs_like(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's
    from lambdamr.looking import job_ids
    from lambdamr_runtime.errors import LambdamrError

    try:
        known = job_ids(open_root(ctx.params.get("root")))
    except (LambdamrError, OSError, ValueError):  # a shell that completes wants no message
        return []
    return [job for job in known if job.startswith(incomplete)][:MOST_COMPLETIONS]
