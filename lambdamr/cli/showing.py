"""What commands print: text for people, JSON for programs."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


def json_option(command: _F) -> _F:
    """Give a command the option --json, which it gets as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(
        command
    )


def show(record: object, text: str, as_json: bool) -> None:
    """Print a record: as JSON on one line, or as *text*; an empty text is no line."""
    if as_json:
        click.echo(json.dumps(record))
    elif text:
        click.echo(text)
