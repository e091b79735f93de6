"""What the user's code imports, found by reading it: nothing is imported or run."""

import ast
import dis
import importlib.util
import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from types import CodeType

from lambdamr_runtime.errors import ArgumentNotSerializable


# --- the imports ----------------------------------------------------------------------------------
def imports_of(code: CodeType, package: str = "") -> frozenset[str]:
    """Return the modules that a function pickled by value imports when it runs.

    A pickle does not refer to them, so the serializer adds them to the names.

    Args:     code: a function's `__code__`; code nested in it is read too.
              package: the `__package__` of its globals, for relative imports.
    Returns:  names as written, made absolute; `from a import b` gives both a and a.b.
    """
    found: set[str] = set()
    for nested in code.co_consts:
        if isinstance(nested, CodeType):
            found |= imports_of(nested, package)
    if dis.opmap["IMPORT_NAME"] in code.co_code[::2]:
        found.update(_bytecode_imports(code, package))
    return frozenset(found)


def _bytecode_imports(code: CodeType, package: str) -> Iterator[str]:
    """Yield what IMPORT_NAME imports; its level and its names are the two constants before it."""
    arguments: list[object] = []
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME" and len(arguments) >= 2:
            level, names = arguments[-2:]
            members = names if isinstance(names, tuple) else ()
            yield from _members(
                step.argval, members, level if isinstance(level, int) else 0, package
            )
        if step.opname != "EXTENDED_ARG":
            arguments.append(step.argval)


_source_imports: dict[str, tuple["Stamp", frozenset[str]]] = {}
"""What each source imports, as it was at that stamp."""


def file_imports(file: str, name: str, *, is_package: bool) -> frozenset[str]:
    """Return the modules that a source file imports anywhere, those that do not exist included.

    Empty for what has no readable source: extensions, bytecode, files that do not compile.
    """
    if not file.endswith((".py", ".pyw")):
        return frozenset()
    stamp = stamp_of(file)
    known = _source_imports.get(file)
    if known is None or known[0] != stamp:
        package = name if is_package else name.rpartition(".")[0]
        tree = parsed(read_source(file))
        found = frozenset(imported for node in _walk(tree) for imported in _named(node, package))
        if is_package:
            found |= _public_names(tree, name)
        known = _source_imports[file] = (stamp, found)
    return known[1]


_parsing = threading.Lock()
"""Held while a source is parsed: Python counts the depth of the trees that it makes in one number
for all threads."""

if hasattr(os, "register_at_fork"):  # a child has no thread that would release it
    os.register_at_fork(
        before=_parsing.acquire,
        after_in_parent=_parsing.release,
        after_in_child=_parsing.release,
    )

PARSE_ATTEMPTS = 100
"""Of one source, while threads of others upset that count (CPython's issue 106905)."""

PARSED = "<a module that lambdamr reads>"
"""What Python's warnings are told that the source is: bad escapes are reported where the module is
imported. `catch_warnings` would turn those of other threads off too, and maybe for good."""


def parsed(source: bytes) -> ast.Module:
    """Parse a source; bytes, so that its coding cookie or BOM counts. Empty if it cannot be."""
    with _parsing:
        warnings.filterwarnings("ignore", module=PARSED)
        for attempts_left in reversed(range(PARSE_ATTEMPTS)):
            try:
                return ast.parse(source, PARSED)
            except (SyntaxError, ValueError):
                break  # not for this Python, or in an encoding that it does not know
            except SystemError:
                if not attempts_left:
                    raise
    return ast.Module(body=[], type_ignores=[])  # it fails, and tells why, if a worker imports it


def _walk(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a tree but for what `if TYPE_CHECKING:` guards, which never runs."""
    pending = [tree]
    while pending:
        node = pending.pop()
        yield node
        if isinstance(node, ast.If) and _last_name(node.test) == "TYPE_CHECKING":
            pending.extend(node.orelse)
        else:
            pending.extend(ast.iter_child_nodes(node))


def _named(node: ast.AST, package: str) -> Iterable[str]:
    """Return the modules that one node imports, `import_module("…")` included."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        names = [alias.name for alias in node.names]
        return _members(node.module or "", names, node.level, package)
    if isinstance(node, ast.Call) and _last_name(node.func) in ("import_module", "__import__"):
        names = [name for argument in node.args[:1] for name in _strings(argument)]
        return [found for name in names for found in _absolute(name, package)]
    return ()


def _members(module: str, names: Iterable[object], level: int, package: str) -> list[str]:
    """Return what `from module import names` may import: the module, and names as submodules."""
    bases = _absolute("." * level + module, package)
    return [name for base in bases for name in (base, *(f"{base}.{member}" for member in names))]


def _absolute(name: str, package: str) -> list[str]:
    """Return a name, made absolute if it is relative; empty where it leads out of all packages."""
    try:
        return [importlib.util.resolve_name(name, package)]
    except (ImportError, ValueError):
        return []


def _public_names(tree: ast.Module, package: str) -> frozenset[str]:
    """Return what `from package import *` may import: the names in `__all__` as submodules."""
    values = [value for node in tree.body for value in _assigned(node, "__all__")]
    members = [member for value in values for node in ast.walk(value) for member in _strings(node)]
    return frozenset(f"{package}.{member}" for member in members)


def _assigned(node: ast.stmt, name: str) -> list[ast.expr]:
    """Return the value that a statement assigns or adds to *name*, in a list; else nothing."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    value = getattr(node, "value", None)
    named = any(_last_name(target) == name for target in targets)
    return [value] if named and value is not None else []


def _last_name(node: ast.AST) -> str:
    """Return b for `a.b`, a for `a`, "" for any other expression."""
    return getattr(node, "attr", "") or getattr(node, "id", "")


def _strings(node: ast.AST) -> list[str]:
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


# --- the files ------------------------------------------------------------------------------------
Stamp = tuple[str, int, int]
"""Path, modification time in ns, size in bytes: as long as it is equal, so is the content."""


def current_stamp(path: str) -> Stamp:
    status = os.stat(path)
    return path, status.st_mtime_ns, status.st_size


def stamp_of(path: str) -> Stamp:
    try:
        return current_stamp(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def read_source(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: OSError) -> ArgumentNotSerializable:
    return ArgumentNotSerializable(
        f"A module of yours cannot be shipped: reading {path} failed ({error.strerror}). Modules "
        "are shipped from plain files: put it back or unpack it, or leave it out with "
        "exclude_modules=."
    )
