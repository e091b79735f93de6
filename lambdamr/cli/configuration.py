"""`lambdamr config`: what is in force, who says so, and changing it."""

import os
from dataclasses import asdict
from typing import Any

import click

from lambdamr.cli.showing import json_option, say, show, table
from lambdamr.config import NAMES, file_path, load_config, sources


def keys_like(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's
    from lambdamr.configuring import KEYS

    return [key for key in KEYS if key.startswith(incomplete)]


key_argument = click.argument("key", shell_complete=keys_like)


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def config(ctx: click.Context, as_json: bool) -> int:
    """Show the settings in force, or change them.

    And where each was made: they stand in config.toml; a variable LAMBDAMR_… in the environment
    counts more.

    \b
    Examples:
      lambdamr config
      LAMBDAMR_WORKERS=2 lambdamr config --json
      lambdamr config set workers 4
      lambdamr config get workers
    """
    if ctx.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError(f"--json stands behind {ctx.invoked_subcommand}.")
        return 0
    values, made = asdict(load_config()), sources()
    rows = [[name, _shown(value), made.get(name, "default")] for name, value in values.items()]
    record = {**values, "sources": made, "file": file_path()}
    show(record, f"{table(rows)}\n\nfile  {file_path()}", as_json)
    return 0


@config.command()
@key_argument
@json_option
def get(key: str, as_json: bool) -> int:
    """Print a setting that is in force.

    Exit status: 1 where nobody has set it and lambdamr decides itself.

    \b
    Examples:
      lambdamr config get root
      lambdamr config get prices.put --json
    """
    name, _, price = key.partition(".")
    if name not in NAMES:
        raise ValueError(f"There is no setting {key!r}; the names are {', '.join(NAMES)}.")
    value: Any = getattr(load_config(), name)
    if price:
        from lambdamr.prices import PRICE_NAMES

        if name != "prices" or price not in PRICE_NAMES:
            raise ValueError(f"There is no setting {key!r}; prices are {', '.join(PRICE_NAMES)}.")
        value = value.get(price)
    is_set = value is not None and value != {}
    record = {"key": key, "value": value, "source": sources().get(name, "default")}
    show(record, _shown(value) if is_set else "", as_json)
    if not is_set and not as_json:
        say(f"lambdamr: {key} is not set", err=True)
    return int(not is_set)


@config.command("set", context_settings={"ignore_unknown_options": True})  # a value may be -1
@key_argument
@click.argument("value")
@json_option
def set_key(key: str, value: str, as_json: bool) -> int:
    """Set a setting in config.toml; what else stands there is kept.

    KEY is root, workers, memory_mb, timeout_s, progress, keep_days, backend, region, or a price:
    prices.put, prices.get and the like.

    \b
    Examples:
      lambdamr config set workers 4
      lambdamr config set root /data/lambdamr
      lambdamr config set prices.put 0.000005
    """
    from lambdamr.configuring import set_value

    path = file_path()
    given = set_value(path, key, value)
    show({"key": key, "value": given, "file": path}, f"{key} = {_shown(given)} in {path}", as_json)
    _warn_of_variable(key)
    return 0


@config.command("unset")
@key_argument
@json_option
def unset_key(key: str, as_json: bool) -> int:
    """Remove a setting from config.toml: lambdamr decides itself again.

    Exit status: 1 where it does not stand there.

    \b
    Examples:
      lambdamr config unset workers
      lambdamr config unset prices
    """
    from lambdamr.configuring import unset

    path = file_path()
    was_there = unset(path, key)
    text = f"{key} removed from {path}" if was_there else f"{key} does not stand in {path}"
    show({"key": key, "removed": was_there, "file": path}, text, as_json)
    _warn_of_variable(key)
    return int(not was_there)


@config.command("path")
@json_option
def show_path(as_json: bool) -> int:
    """Print where config.toml lies, whether it is there or not.

    \b
    Examples:
      lambdamr config path
      $EDITOR "$(lambdamr config path)"
    """
    path = file_path()
    show({"file": path, "exists": os.path.exists(path)}, path, as_json)
    return 0


def _shown(value: object) -> str:
    """Return a value as it is typed for `config set`."""
    if value is None or value == {}:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return ", ".join(f"{name} = {price}" for name, price in value.items())
    return str(value)


def _warn_of_variable(key: str) -> None:
    """Say that the environment has its own mind about a setting that was changed in the file."""
    variable = f"LAMBDAMR_{key.upper()}"
    if os.environ.get(variable):
        say(f"lambdamr: {variable}={os.environ[variable]} counts more here", err=True)
