"""`lambdamr run, plan`: a script, run on any backend or only planned."""

import contextlib
import os
import signal
import subprocess
import sys
from typing import Any

import click

from lambdamr.cli.showing import json_option, say, show
from lambdamr_runtime.limits import LEAST_MEMORY_MB

LOOK_S = 0.5
"""A script's end is seen after so long even where another thread took its signal."""

PASSED_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""What stands behind SCRIPT is the script's."""


class _Script(click.Path):
    """A file; what looks like an option is one that there is none of."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value).startswith("-") and not os.path.exists(value):
            raise click.NoSuchOption(str(value), ctx=ctx)
        return super().convert(value, param, ctx)


script_argument = click.argument("script", type=_Script(exists=True, dir_okay=False))
rest_argument = click.argument("arguments", nargs=-1, type=click.UNPROCESSED)


@click.command(context_settings=PASSED_ON)
@click.option("--backend", type=click.Choice(["local", "aws"]), help="Where its jobs run.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes.")
@click.option("--memory", type=click.IntRange(min=LEAST_MEMORY_MB), help="Memory of a worker, MiB.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), help="Of a task, seconds.")
@click.option("--root", help="Where its jobs are stored.")
@click.option("--progress/--no-progress", default=None, help="Bars while it waits.")
@script_argument
@rest_argument
def run(script: str, arguments: tuple[str, ...], **options: object) -> int:
    """Run a script, on any backend.

    Executor() in the script takes what it is not told from here; what it is told counts more.
    The exit status is the script's.

    \b
    Examples:
      lambdamr run simulate.py
      lambdamr run --workers 4 --memory 512 simulate.py --seed 7
      lambdamr run --backend aws simulate.py
    """
    if options["backend"] == "aws":
        _check_deployed()
    settings = {
        "BACKEND": options["backend"],
        "WORKERS": options["workers"],
        "MEMORY_MB": options["memory"],
        "TIMEOUT_S": options["timeout"],
        "ROOT": options["root"],
        "PROGRESS": None if options["progress"] is None else int(bool(options["progress"])),
    }
    if options["root"] and not options["backend"]:  # a root on S3 is a deployed runtime's
        settings["BACKEND"] = "local" if "://" not in str(options["root"]) else None
    given = {
        f"LAMBDAMR_{name}": str(value) for name, value in settings.items() if value is not None
    }
    process = subprocess.Popen([sys.executable, script, *arguments], env={**os.environ, **given})
    status = _waited(process) if hasattr(signal, "sigtimedwait") else None
    while status is None:
        try:
            status = process.wait()
        except KeyboardInterrupt:  # the script has had it too, and ends as it likes
            continue
    return status if status >= 0 else 128 - status


def _waited(process: "subprocess.Popen[bytes]") -> int:
    """Return the exit status of a script that ends as it likes.

    Ctrl-C reaches it as it reaches this process; a signal that somebody sent to this process alone
    is passed on. Only the signal itself tells which of the two it was.
    """
    signals = {signal.SIGINT, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        while (status := process.poll()) is None:
            got = signal.sigtimedwait(signals, LOOK_S)
            if got is not None and got.si_signo == signal.SIGINT and got.si_code <= 0:
                process.send_signal(signal.SIGINT)  # sent by a process, not by the terminal
        return status
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check_deployed() -> None:
    """Refuse to send a script to AWS where nothing runs its jobs.

    Raises:  RuntimeMismatch.
    """
    from lambdamr.deployment import load_profile
    from lambdamr_runtime.errors import RuntimeMismatch

    if load_profile() is None:
        raise RuntimeMismatch(
            "No runtime is deployed from here: there is no profile in the configuration folder. "
            "Run `lambdamr deploy-runtime`."
        )


@click.command(context_settings=PASSED_ON)
@click.option("--on", type=click.Choice(["local", "aws"]),
              help="Plan it for there; default: where it would run.")  # fmt: skip
@click.option("--region", help="AWS region whose prices count.")
@json_option
@script_argument
@rest_argument
def plan(
    script: str, arguments: tuple[str, ...], on: str | None, region: str | None, as_json: bool
) -> int:
    """Show what a script's jobs would do and cost.

    The script runs, but none of its jobs: it stops where it needs a result. What it prints goes
    to stderr. Its other effects are real.

    \b
    Examples:
      lambdamr plan simulate.py
      lambdamr plan --on aws --region eu-west-1 wordcount.py big.txt
      lambdamr plan --json simulate.py
    """
    from lambdamr.planning.script import ScriptFailed, plan_script

    with contextlib.redirect_stdout(sys.stderr):
        try:
            found = plan_script(script, arguments, on, region)
        except ScriptFailed as error:
            say(str(error).rstrip("\n"), err=True)
            return 1
    record = {
        "plans": [each.to_dict() for each in found.plans],
        "needs_result": found.needs_result,
    }
    parts = [*map(repr, found.plans)] or ["no jobs"]
    show(record, "\n\n".join(parts), as_json)
    if found.needs_result and not as_json:
        say(f"{found.needs_result} needs a result: what follows is not planned", err=True)
    return 0
