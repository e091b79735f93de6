"""What commands print: text for people, JSON for programs."""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

_COLORS = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "cancelled": "yellow",
    "abandoned": "yellow",
    "unreadable": "magenta",
}
STATES = tuple(_COLORS)
"""The names of lambdamr.looking.State, which `--help` does without."""


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
        say(text)


def say(text: str, *, err: bool = False) -> None:
    """Print a line; colours of `state` are for terminals alone, and not where NO_COLOR is set."""
    click.echo(text, err=err, color=False if os.environ.get("NO_COLOR") else None)


def state(word: str) -> str:
    """Return the state of a job in its colour."""
    return click.style(word, fg=_COLORS[word]) if word in _COLORS else word


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells in columns, each as wide as it must be."""
    if not rows:
        return ""
    widths = [
        max(len(click.unstyle(row[i])) for row in rows if i < len(row))
        for i in range(max(map(len, rows)))
    ]
    lines = (
        "  ".join(
            cell + " " * (widths[i] - len(click.unstyle(cell))) for i, cell in enumerate(row)
        ).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def age(seconds: float) -> str:
    """Return a span of time, short."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
