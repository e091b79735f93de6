"""`lambdamr result`: the values of a job."""

import json
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import click

from lambdamr.cli import Exit
from lambdamr.cli.asking import job_and_root, job_argument, root_option
from lambdamr.cli.showing import say
from lambdamr_runtime.errors import JobFailed, JobRunning, LambdamrError

if TYPE_CHECKING:
    from lambdamr.futures import Futures

FORMATS = ("text", "json", "pickle")


@click.command()
@job_argument
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True,
              help="text: a line per value, or key, tab, value; pickle: one list.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False, writable=True),
              help="A file to write; default: stdout.")  # fmt: skip
@click.option("--wait", is_flag=True, help="Wait for the end of a job that runs, and go on with "
              "one that is abandoned, in workers of this process.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@root_option
def result(
    job: str, form: str, output: str | None, wait: bool, as_json: bool, root: str | None
) -> int:
    """Print the values of a job.

    In input order; of a map_reduce its pairs. Values are unpickled in this process: the modules
    of their classes must be importable. Where a task has none, its error stands in its place:
    as text behind "error: ", in JSON as {"error": "ValueError: two"}, in a pickle as the exception.

    Exit status: 1 where any task has no value.

    \b
    Examples:
      lambdamr result last
      lambdamr result last --json
      lambdamr result 20261126-0933 --format pickle -o result.pickle
    """
    from lambdamr.looking import summary

    form = "json" if as_json else form
    if form == "pickle" and output is None and sys.stdout.isatty():
        raise click.UsageError("A pickle is not for a terminal: give --output FILE, or a pipe.")
    job, store = job_and_root(job, root)
    now = summary(store, job)
    if not now.is_settled and not wait:
        raise JobRunning(f"Job {job} is {now.state}. --wait waits for its end.")
    values, errors = _values(job, store.root)
    written = _written(values, errors, form)
    with click.open_file(output or "-", "wb") as file:
        for data in written:
            file.write(data)
    if errors:
        say(
            f"lambdamr: {len(errors)} of {len(values)} tasks of job {job} have no value: their "
            f"errors stand in their places. `lambdamr retry {job}` runs them again.",
            err=True,
        )
    return Exit.FAILED if errors else Exit.OK


def _values(job: str, root: str) -> tuple[list[Any], dict[int, BaseException]]:
    """Return all values, of a map_reduce its pairs, unique keys or not; and by its place what
    each task that has no value has raised.

    Raises:  JobFailed: nothing has a value; naming what failed. Any: values of the user.
    """
    from lambdamr.attaching import attach
    from lambdamr.job import Job

    found: Futures | Job = attach(job, root=root)
    try:
        if isinstance(found, Job):
            return list(found.items()), {}
        errors = {at: error for at, error in enumerate(found.exceptions()) if error is not None}
        if len(errors) == len(found):
            return found.result(), {}  # raises the first that is a task's own
        values = [None if at in errors else future.result() for at, future in enumerate(found)]
        return values, errors
    except CancelledError:
        raise JobFailed(f"Job {job} was cancelled: it has no result.") from None
    except (LambdamrError, OSError):
        raise
    except (ImportError, AttributeError) as error:
        raise JobFailed(
            f"The result of job {job} cannot be loaded here, or its tasks failed so: {error}. Run "
            "this where its modules are."
        ) from error
    except Exception as error:
        raise JobFailed(
            f"Job {job} has no result: {_told(error)}. `lambdamr show {job}` tells more, `lambdamr "
            f"retry {job}` runs again what failed."
        ) from error


def _told(error: BaseException) -> str:
    """Return an error in one line."""
    said = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _written(values: list[Any], errors: dict[int, BaseException], form: str) -> Iterator[bytes]:
    """Yield the bytes of the values in a format, errors in the places of those that are missing.

    Raises:  ValueError: JSON cannot hold one of them.
    """
    if form == "pickle":
        yield pickle.dumps([errors.get(at, value) for at, value in enumerate(values)])
    elif form == "json":
        told = {at: {"error": _told(error)} for at, error in errors.items()}
        try:
            data = json.dumps([told.get(at, value) for at, value in enumerate(values)])
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"JSON cannot hold the result: {error}. Take --format pickle."
            ) from error
        yield data.encode() + b"\n"
    else:
        for at, value in enumerate(values):
            pair = isinstance(value, tuple) and len(value) == 2
            text = "\t".join(map(str, value)) if pair else str(value)
            yield (f"error: {_told(errors[at])}\n" if at in errors else f"{text}\n").encode()
