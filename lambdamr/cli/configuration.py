"""`lambdamr config`: what is in force."""

from dataclasses import asdict

import click

from lambdamr.cli.showing import json_option, show
from lambdamr.config import load_config


@click.command()
@json_option
def config(as_json: bool) -> int:
    """Show the settings in force, of config.toml and the environment.

    \b
    Examples:
      lambdamr config
      LAMBDAMR_WORKERS=2 lambdamr config --json
    """
    values = asdict(load_config())
    lines = [f"{name:<10} {'-' if value is None else value}" for name, value in values.items()]
    show(values, "\n".join(lines), as_json)
    return 0
