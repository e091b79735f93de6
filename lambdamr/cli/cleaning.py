"""`lambdamr clean`: remove what earlier jobs left."""

import click

from lambdamr.cli.showing import json_option, show

MOST_NAMED = 10
"""Where more jobs are removed, their number says enough."""


@click.command()
@click.option("--older-than", "days", type=float, help="Days; default: keep_days of the settings.")
@click.option("--root", help="Where the jobs are stored; default: as configured.")
@json_option
def clean(days: float | None, root: str | None, as_json: bool) -> int:
    """Remove ended and abandoned jobs.

    Never one that runs. Up to ten are named, with --json all.

    \b
    Examples:
      lambdamr clean
      lambdamr clean --older-than 0
    """
    from lambdamr.cleaning import DAY_S
    from lambdamr.cleaning import clean as clean_jobs

    removed = clean_jobs(None if days is None else days * DAY_S, root=root)
    count = f"{len(removed)} job{'' if len(removed) == 1 else 's'} removed"
    named = removed if len(removed) <= MOST_NAMED else []
    show(removed, "\n".join((*named, count)), as_json)
    return 0
