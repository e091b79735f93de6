"""The command line: `lambdamr COMMAND`.

    main ─▶ click: the group, whose commands are loaded when they are asked for
         └▶ every error of ours is one line on stderr and an exit status; see Exit

A command is a module here with a function of click's; it prints through `show`, so that `--json`
is the same everywhere.
"""

import enum
import re
import sys
from importlib import import_module

import click
from click.exceptions import NoArgsIsHelpError

from lambdamr_runtime import __version__
from lambdamr_runtime.errors import InputNotFound, JobNotFound, LambdamrError


class Exit(enum.IntEnum):
    """Exit statuses; scripts may rely on them."""

    OK = 0
    FAILED = 1
    """What was asked for could not be done, or a job failed."""
    USAGE = 2
    """The command line or the configuration is wrong."""
    NOT_FOUND = 3
    """There is no such job, or no such input."""
    INTERRUPTED = 130
    """Ctrl-C."""


COMMANDS = {
    "cancel": "lambdamr.cli.ending",
    "clean": "lambdamr.cli.cleaning",
    "completion": "lambdamr.cli.completing",
    "config": "lambdamr.cli.configuration",
    "delete": "lambdamr.cli.ending",
    "deploy-runtime": "lambdamr.cli.deploying",
    "doctor": "lambdamr.cli.looking",
    "jobs": "lambdamr.cli.listing",
    "logs": "lambdamr.cli.reporting",
    "plan": "lambdamr.cli.running",
    "result": "lambdamr.cli.results",
    "retry": "lambdamr.cli.ending",
    "run": "lambdamr.cli.running",
    "show": "lambdamr.cli.reporting:show_job",
    "status": "lambdamr.cli.reporting",
    "undeploy": "lambdamr.cli.deploying",
}
"""Command, and the module that has it, under its name with `_` for `-`, or as `module:name`."""


class _Commands(click.Group):
    """Commands whose modules are imported when they are asked for: `--help` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name or cmd_name.replace("-", "_"))
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lambdamr")
def cli() -> None:
    """Python futures and MapReduce over cloud functions.

    \b
    Examples:
      lambdamr plan --on aws wordcount.py    what would it do, and cost?
      lambdamr run wordcount.py
      lambdamr jobs
      lambdamr show last

    JOB is the id of a job, the beginning of one, or "last". Exit status: 0 done, 1 failed, 2 wrong
    usage or configuration, 3 no such job or input, 130 interrupted.
    """


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; return its exit status. No user's error is shown as a traceback."""
    try:
        status = cli.main(arguments, prog_name="lambdamr", standalone_mode=False)
    except NoArgsIsHelpError as error:
        error.show()
        return Exit.USAGE
    except click.ClickException as error:
        return _refused(_told(error), Exit(error.exit_code))
    except (KeyboardInterrupt, click.Abort):
        click.echo("lambdamr: interrupted", err=True)
        _cancel_all()
        return Exit.INTERRUPTED
    except (JobNotFound, InputNotFound) as error:
        return _refused(error, Exit.NOT_FOUND)
    except ValueError as error:  # a configuration or an option that cannot be meant
        return _refused(error, Exit.USAGE)
    except (LambdamrError, OSError) as error:
        return _refused(error, Exit.FAILED)
    return status if isinstance(status, int) else Exit.OK


def _cancel_all() -> None:
    """Cancel what this command has begun, and wait for nothing."""
    from lambdamr.engine import end_all

    end_all(failed=True)


def _refused(error: Exception | str, status: Exit) -> Exit:
    click.echo(f"lambdamr: {error}", err=True)
    return status


def _told(error: click.ClickException) -> str:
    """Return click's message in one line, with where to read on."""
    said = " ".join(error.format_message().split())
    said = re.sub(r"not a valid integer( range)?\b", "not a whole number", said)
    said = re.sub(r"not a valid float( range)?\b", "not a number", said)
    said += "" if said.endswith((".", "?", "!")) else "."
    context = getattr(error, "ctx", None)
    return f"{said} See `{context.command_path} --help`." if context is not None else said


def entry_point() -> None:
    """What the installed command calls."""
    sys.exit(main())
