"""Settings that hold for every executor of a user: a TOML file, and the environment over it.

# the user's configuration folder, lambdamr/config.toml; or the file that LAMBDAMR_CONFIG names
root = "/data/lambdamr"      # LAMBDAMR_ROOT       where jobs are stored
workers = 8                  # LAMBDAMR_WORKERS    worker processes
memory_mb = 2048             # LAMBDAMR_MEMORY_MB  memory limit of a worker
timeout_s = 600              # LAMBDAMR_TIMEOUT_S  time limit of a task
progress = false             # LAMBDAMR_PROGRESS   progress bars (0/1)
keep_days = 7                # LAMBDAMR_KEEP_DAYS  age at which stored jobs are removed
backend = "local"            # LAMBDAMR_BACKEND    where jobs run
region = "eu-west-1"         # LAMBDAMR_REGION     AWS region, for plans and prices
[prices]                     # prices of your own; the names are those of lambdamr.prices.Prices
put = 0.000005
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lambdamr_runtime.limits import LEAST_MEMORY_MB


@dataclass(frozen=True, slots=True)
class Config:
    """What is configured; None stands for "decide yourself"."""

    root: str
    workers: int | None = None
    memory_mb: int | None = None
    timeout_s: float | None = None
    progress: bool | None = None
    keep_days: float = 7.0
    backend: str | None = None
    region: str | None = None
    prices: Mapping[str, float] = field(default_factory=dict)
    """US dollars that replace those of lambdamr.prices."""


_TYPES = {
    "root": str,
    "workers": int,
    "memory_mb": int,
    "timeout_s": float,
    "progress": bool,
    "keep_days": float,
    "backend": str,
    "region": str,
    "prices": dict,
}
NAMES = tuple(_TYPES)

_POSITIVE = ("workers", "timeout_s")
_NAMED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_BACKENDS = ("local", "aws")


def load_config(environment: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration.

    Raises:  ValueError: an unknown name or a value of another type, naming the file or variable.
    """
    values = {**_from_file(environment), **_from_environment(environment)}
    if "root" not in values:
        import platformdirs  # only where nobody says where

        values["root"] = platformdirs.user_cache_dir("lambdamr")
    values["root"] = absolute_root(values["root"])
    return Config(**values)


def sources(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return, for each setting that somebody has made, where: a file or a variable.

    Raises:  as load_config.
    """
    found = dict.fromkeys(_from_file(environment), file_path(environment))
    set_there = _from_environment(environment)
    return {**found, **{name: f"LAMBDAMR_{name.upper()}" for name in set_there}}


def file_path(environment: Mapping[str, str] = os.environ) -> str:
    """Return where the configuration file lies, if there is one."""
    return environment.get("LAMBDAMR_CONFIG") or _default_path()


def absolute_root(root: str) -> str:
    """Return a root that stays the same place wherever processes go; a URL is one already."""
    if "://" in root or root.startswith("memory:"):
        return root
    return os.path.abspath(os.path.expanduser(root))


def _from_file(environment: Mapping[str, str]) -> dict[str, Any]:
    if "AWS_LAMBDA_FUNCTION_NAME" in environment:  # nobody's home, and no platformdirs
        return {}
    path = file_path(environment)
    if not os.path.exists(path) and "LAMBDAMR_CONFIG" not in environment:
        return {}
    import tomllib  # 7 ms, and most people have no file

    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except FileNotFoundError:
        raise ValueError(f"LAMBDAMR_CONFIG names {path}, which does not exist.") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, UnicodeDecodeError
        raise ValueError(f"{path} is not valid TOML: {error}") from error
    return checked_table(table, path)


def checked_table(table: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the settings of a file that was parsed; Any: whatever TOML has.

    Raises:  ValueError: an unknown name or a value that cannot be, naming the file.
    """
    for name in table:
        if name not in NAMES:
            raise ValueError(
                f"{path} has {name!r}; the names are {', '.join(NAMES)}. `lambdamr config unset "
                f"{name}` removes it."
            )
    return {name: _checked(name, value, path) for name, value in table.items()}


def parsed(name: str, text: str, source: str) -> Any:
    """Return the value that a text stands for; Any: of the type of the setting.

    Args:    source: who says it, for the error: a variable.
    Raises:  ValueError: a text that cannot be.
    """
    kind = _TYPES[name]
    try:
        value = _flag(text) if kind is bool else kind(text)
    except ValueError:
        raise ValueError(f"{source}={text!r} is not {_NAMED[kind]}.") from None
    _check_range(name, value, source)
    return value


def _default_path() -> str:
    import platformdirs  # only where nobody says where

    return os.path.join(platformdirs.user_config_dir("lambdamr"), "config.toml")


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, kind in _TYPES.items():
        variable = f"LAMBDAMR_{name.upper()}"
        text = environment.get(variable)
        if not text or kind is dict:  # set to nothing is not set; a table needs a file
            continue
        values[name] = parsed(name, text, variable)
    return values


def _flag(text: str) -> bool:
    try:
        return {"0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}[
            text.strip().lower()
        ]
    except KeyError:
        raise ValueError(text) from None


def _checked(name: str, value: object, path: str) -> object:
    kind = _TYPES[name]
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{path}: {name} must be {_NAMED.get(kind, 'a table')}, got {value!r}.")
    _check_range(name, value, f"{path}: {name}")
    return value


def _check_range(name: str, value: Any, source: str) -> None:
    """Any: what TOML or the environment has, of its type already."""
    if name in _POSITIVE and not value > 0:
        raise ValueError(f"{source} must be positive, got {value}.")
    if name == "memory_mb" and value < LEAST_MEMORY_MB:
        raise ValueError(f"{source} must be >= {LEAST_MEMORY_MB}, got {value}.")
    if name == "keep_days" and not value >= 0:
        raise ValueError(f"{source} must be >= 0, got {value}.")
    if name == "backend" and value not in _BACKENDS:
        raise ValueError(f"{source} must be one of {', '.join(_BACKENDS)}, got {value!r}.")
