"""docs/troubleshooting.md quotes what the code says."""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambdamr_runtime import errors

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "troubleshooting.md"

VALUE = "…"
"""Stands for what a message puts in."""

QUOTED = re.compile(r"`(?:(?P<kind>[A-Z]\w+)(?:: |(?=`)))?(?P<text>[^`]*)`")


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield every text of a module but docstrings, with VALUE for each value of an f-string."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in docstrings:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = (it.value if isinstance(it, ast.Constant) else VALUE for it in node.values)
            yield "".join(map(str, parts))


@pytest.fixture(scope="module")
def said() -> str:
    """All that the code can say, a line each; and what boto3 says that is passed on."""
    sources = [*(ROOT / "lambdamr").rglob("*.py"), *(ROOT / "runtime").rglob("*.py")]
    found = {text for path in sources for text in texts(ast.parse(path.read_text()))}
    found |= {
        "The config profile (…) could not be found.… `aws configure list-profiles`",
        "Could not connect to the endpoint URL: …. Check the network and the region.",
    }
    return "\n".join(" ".join(text.split()) for text in found)


def heads() -> list[str]:
    """Return the messages that the page explains."""
    return re.findall(r"^\*\*(.+)\*\*$", PAGE.read_text(), re.MULTILINE)


def quotes() -> list[tuple[str, str]]:
    """Return (class, text) of every message that is quoted, once; either may be ""."""
    found = (it for head in heads() for it in QUOTED.finditer(head))
    return list(dict.fromkeys((it["kind"] or "", it["text"]) for it in found))


@pytest.mark.parametrize(("kind", "text"), quotes())
def test_a_quoted_message_is_in_the_code(kind: str, text: str, said: str) -> None:
    """Its class exists, and one text of the code has its parts in their order."""
    if kind:
        assert kind in errors.__all__ or hasattr(builtins, kind)
    parts = [re.escape(part.strip()) for part in text.split(VALUE) if part.strip()]
    assert parts or kind
    assert re.search(".*?".join(parts), said), f"nothing says {text!r}"


def test_every_error_is_explained() -> None:
    """A class that users meet has its place on the page."""
    families = {"LambdamrError", "TaskFailed", "NotSerializable", "InvalidPairs", "RemoteTraceback"}
    missing = set(errors.__all__) - families - {kind for kind, _ in quotes()}
    assert missing == set()
