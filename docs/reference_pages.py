"""Writes the reference: a line `::: name` becomes the signature and docstring of lambdamr.name.

A hook of mkdocs. The sections of our docstrings (`Args:`, `Returns:`, `Raises:`, `Yields:`) stand
with their first entry on one line, which the docstring parsers of the field do not read.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import lambdamr
from lambdamr_runtime import errors

OURS = frozenset(
    {
        "bars", "begun", "engine", "local_place", "rehearsed",
        "call_back", "fail", "mark_cancelled", "remember_frames", "settle",
    }
)  # fmt: skip
"""Methods without an underscore that are called by other modules of lambdamr alone."""

WIDTH = 88
"""Most characters of a signature on one line."""

_SECTION = re.compile(r"^(Args|Returns|Raises|Yields|Source):\s*(.*)$")
_ENTRY = re.compile(r"^([\w, *]+):\s+(.*)$")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by mkdocs for each page; Any: mkdocs's page."""
    if page.file.src_uri != "reference.md":
        return markdown
    lines = (_expanded(line) for line in markdown.splitlines())
    return "\n".join(lines)


def _expanded(line: str) -> str:
    if not line.startswith("::: "):
        return line
    name = line.removeprefix("::: ")
    if name == "errors":
        return "\n".join(_error_lines())
    return "\n".join(_lines_of(name, getattr(lambdamr, name), 3))


def _lines_of(name: str, thing: Any, level: int) -> Iterator[str]:
    """Yield the Markdown of a class, with its public methods, or of a function."""
    yield f"{'#' * level} {name}\n"
    yield f"```python\n{_signature(name, thing)}\n```\n"
    yield from _docstring_lines(inspect.getdoc(thing) or "")
    if not inspect.isclass(thing):
        return
    for attribute, member in vars(thing).items():
        if attribute.startswith("_") or attribute in OURS or not inspect.getdoc(member):
            continue
        if isinstance(member, property):
            yield f"**`{name}.{attribute}`**\n"
            yield from _docstring_lines(inspect.getdoc(member) or "")
        elif inspect.isfunction(member):
            yield from _lines_of(f"{name}.{attribute}", member, level + 1)


def _signature(name: str, thing: Any) -> str:
    """Return the call as the source has it, one parameter a line where that is long."""
    made = vars(thing).get("__init__") if inspect.isclass(thing) else thing
    if not inspect.isfunction(made) or made.__module__ != thing.__module__:
        return name
    if made.__code__.co_filename.startswith("<"):  # what the dataclass decorator wrote
        return f"{name}{inspect.signature(made)}".replace("self, ", "").replace("'", "")
    node = ast.parse(textwrap.dedent(inspect.getsource(made))).body[0]
    if not isinstance(node, ast.FunctionDef):
        raise TypeError(f"{name} is no function")
    parameters = [each for each in _parameters(node.args) if each != "self"]
    result = f" -> {_unquoted(node.returns)}" if node.returns and not inspect.isclass(thing) else ""
    short = f"{name}({', '.join(parameters)}){result}"
    if len(short) <= WIDTH:
        return short
    return f"{name}(\n    " + ",\n    ".join(parameters) + f",\n){result}"


def _parameters(given: ast.arguments) -> Iterator[str]:
    """Yield the parameters of a function as they are written, `/` and `*` among them."""
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    for number, (each, default) in enumerate(zip(positional, defaults, strict=True), 1):
        yield _parameter(each, default)
        if number == len(given.posonlyargs):
            yield "/"
    if given.vararg:
        yield f"*{_parameter(given.vararg, None)}"
    elif given.kwonlyargs:
        yield "*"
    for each, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        yield _parameter(each, default)
    if given.kwarg:
        yield f"**{_parameter(given.kwarg, None)}"


def _parameter(each: ast.arg, default: ast.expr | None) -> str:
    kind = f": {_unquoted(each.annotation)}" if each.annotation else ""
    value = f" = {ast.unparse(default)}" if default is not None else ""
    return f"{each.arg}{kind}{value}"


def _unquoted(annotation: ast.expr) -> str:
    """Return an annotation; one that is a string is shown as what it stands for."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value
    return ast.unparse(annotation)


def _docstring_lines(text: str) -> Iterator[str]:
    """Yield a docstring as Markdown: sections become lists."""
    in_section = False
    for line in text.splitlines():
        section = _SECTION.match(line)
        entry = _ENTRY.match(line.strip()) if in_section else None
        if section:
            in_section = True
            yield f"\n*{section[1]}*\n"
            yield f"- {_marked(section[2])}"
        elif entry and line.startswith(" "):
            yield f"- {_marked(line.strip())}"
        elif in_section and line.strip():
            yield f"  {line.strip()}"
        else:
            in_section = False
            yield line
    yield ""


def _marked(text: str) -> str:
    """Return an entry whose names are code."""
    entry = _ENTRY.match(text)
    return f"`{entry[1]}`: {entry[2]}" if entry else text


def _error_lines() -> Iterator[str]:
    tree = (errors.__doc__ or "").partition("\n\n")[2]
    drawing, _, rest = tree.partition("\n\n")
    yield f"```text\n{drawing}\n```\n"
    yield rest
