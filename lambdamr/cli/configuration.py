"""`lambdamr config`: what is in force, and who says so."""

from dataclasses import asdict

import click

from lambdamr.cli.showing import json_option, show, table
from lambdamr.config import file_path, load_config, sources


@click.command()
@json_option
def config(as_json: bool) -> int:
    """Show the settings in force.

    And where each was made: they stand in config.toml; a variable LAMBDAMR_… in the environment
    counts more.

    \b
    Examples:
      lambdamr config
      LAMBDAMR_WORKERS=2 lambdamr config --json
    """
    values, made = asdict(load_config()), sources()
    rows = [
        [name, "-" if value is None or value == {} else str(value), made.get(name, "default")]
        for name, value in values.items()
    ]
    record = {**values, "sources": made, "file": file_path()}
    show(record, f"{table(rows)}\n\nfile  {file_path()}", as_json)
    return 0
