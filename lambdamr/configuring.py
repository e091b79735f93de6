"""Changing the configuration file: one setting, and nothing else that stands in it."""

import os
import tomllib
from typing import TYPE_CHECKING, Any

from lambdamr.config import NAMES, absolute_root, checked_table, parsed
from lambdamr.prices import PRICE_NAMES, check_price
from lambdamr.replacing import replace_file

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

KEYS = (*(name for name in NAMES if name != "prices"), *(f"prices.{it}" for it in PRICE_NAMES))
"""What `lambdamr config set` can set."""


def set_value(path: str, key: str, text: str) -> Any:
    """Set a setting in a file, which is made if there is none; returns the value.

    Args:    key: one of KEYS.   text: as the user types it.
    Raises:  ValueError: a key or a text that cannot be, or a file that is wrong elsewhere.
    """
    value = _value(key, text)
    document = _read(path)
    name, _, price = key.partition(".")
    if price:
        prices = document.setdefault(name, {})
        if not isinstance(prices, dict):
            raise ValueError(f"{path}: {name} must be a table. `lambdamr config unset {name}`.")
        prices[price] = value
    else:
        document[name] = value
    _write(path, document)
    return value


def unset(path: str, key: str) -> bool:
    """Remove a setting, a table or a name that is none from a file; whether it was there.

    Raises:  ValueError: the file is no TOML.
    """
    document = _read(path)
    name, _, price = key.partition(".")
    holder: Any = document.get(name) if price else document
    if not isinstance(holder, dict) or (price or name) not in holder:
        return False
    del holder[price or name]
    if price and not holder:
        del document[name]
    replace_file(path, document.as_string().encode())
    return True


def _value(key: str, text: str) -> Any:
    """Return what a text stands for, as TOML is to have it."""
    if key not in KEYS:
        raise ValueError(f"There is no setting {key!r}; the names are {', '.join(KEYS)}.")
    name, _, price = key.partition(".")
    if price:
        try:
            value: Any = float(text)
        except ValueError:
            value = text
        check_price(price, value)
        return value
    value = parsed(name, text, name)
    if name == "root":
        return absolute_root(value)  # the file is read from everywhere
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _read(path: str) -> "TOMLDocument":
    """Return a file with its comments and its order, empty where there is none."""
    import tomlkit  # slow, and only to change something
    from tomlkit.exceptions import TOMLKitError

    if not os.path.exists(path):
        return tomlkit.document()
    with open(path, "rb") as file:
        data = file.read()
    try:
        return tomlkit.parse(data.decode())
    except (TOMLKitError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}. Mend it in an editor.") from error


def _write(path: str, document: "TOMLDocument") -> None:
    """Replace a file, unless what it would say cannot be.

    Raises:  ValueError: naming what.
    """
    text = document.as_string()
    checked_table(tomllib.loads(text), path)
    replace_file(path, text.encode())
