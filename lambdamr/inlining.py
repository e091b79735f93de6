"""Mappers rewritten to add their pairs themselves, where a look at their source allows it.

    def count_words(line):                  def count_words(states, known_of, left, turn, line, /):
        for word in line.split():               for word in line.split():
            yield word, 1                           key = word
                                                    value = 1
    reducers.sum:                                   states[key] = known_of(key, 0) + value
        for key, value in pairs:                    left -= 1
            states[key] = (                         if not left:
                known_of(key, 0) + value                left = turn()
            )                                   return left

A pair that a generator yields costs a tuple, a frame entered and left, a place in a list and a look
at its kind: 60 to 80 ns, as much as adding it to the dictionary. This is what query compilers call
operator fusion; source: Neumann, "Efficiently Compiling Efficient Query Plans for Modern
Hardware", VLDB 2011.

A mapper that returns a Counter fills a dictionary whose keys are then added to the task's, one by
one. Its elements are counted in that of the task at once:

    def count_words(block):                 def count_words(count, block, /):
        return Counter(block.split())           return count(Counter, block.split())

The names that come in begin with a dot, so that no name of the mapper is one of them. What is not
rewritten runs as it is.
"""

import __future__

import ast
import copy
import inspect
import linecache
import logging
import marshal
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from lambdamr.sources import PARSED, parsed
from lambdamr_runtime.inlined import COUNT, PARAMETERS, PREFIX, Inlined, signature
from lambdamr_runtime.reducers import Count, Mean, Reducer, Sum

_log = logging.getLogger(__name__)

ADDING = (Sum, Count, Mean)
"""Reducers that do not mind the order of values. The `add` of each is `known_of = states.get` and a
loop over the pairs as `key` and `value` that has no names but these and its own."""

SOURCE_BYTES = 1 << 19
"""Of a longer file nothing is rewritten: to parse it takes 0.3 s and more."""

MOST_YIELDS = 50
"""Of a mapper: each is 0.5 ms, and 200 bytes of code."""

_PAIR = "key, value = KEY, VALUE"

_STEP = """
left -= 1
if not left:
    left = turn()
"""

Function = ast.FunctionDef | ast.Lambda

COUNTER = "Counter"
"""What a Counter is made with, by its own name; whether it is that is for the worker to see."""

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_GUARDS = (ast.Try, ast.TryStar, ast.With)
_FUTURES = {getattr(__future__, name).compiler_flag for name in __future__.all_feature_names}
_FUTURE_FLAGS = sum(_FUTURES - {inspect.CO_NESTED})


def inline(mapper: Callable[..., Any], reducer: Reducer) -> Inlined | None:
    """Return a mapper rewritten for a reducer; None: it must run as it is.

    It is rewritten if its source is found, is not longer than SOURCE_BYTES and compiles to the very
    code that the function has; if it can be called with a record; if nothing in it looks at
    variables by name or has super() look at the first of them; and if

    - it is a generator function, with at most MOST_YIELDS, each a statement of its own, of two
      values written out, outside of try and with; and the reducer is one of ADDING;
    - or all that it returns is written as `Counter(elements)`, maybe with `.items()`, or as an
      empty list, tuple or dictionary, outside of try and with; and the reducer is a Sum. Only
      elements in a list are counted at once.
    """
    if type(mapper) is not FunctionType:
        return None
    code, kind = mapper.__code__, type(reducer)
    is_generator = code.co_flags & inspect.CO_GENERATOR
    names = (*code.co_names, *code.co_freevars)
    if not (kind in ADDING if is_generator else kind is Sum and COUNTER in names):
        return None
    adding = kind.add.__code__ if is_generator else None
    try:
        if _takes_a_record(mapper):
            return _inlined(code, code.co_filename, adding)
    except Exception:  # as of a tree too deep to walk: the mapper runs all the same
        _log.debug("%s cannot be inlined", mapper.__qualname__, exc_info=True)
    return None


def _takes_a_record(mapper: FunctionType) -> bool:
    """Whether it can be called with a record; if not, its own error is to tell."""
    try:
        inspect.signature(mapper, follow_wrapped=False).bind(None)
    except TypeError:
        return False
    return True


@lru_cache(maxsize=256)
def _inlined(code: CodeType, filename: str, adding: CodeType | None) -> Inlined | None:
    """Return a mapper rewritten: its yields for *adding*, or its Counters.

    Code of two files may be equal, hence *filename*.
    """
    source = _Source(filename)
    imports = source.imports()
    for function in source.definitions(code):
        for above in (imports, []):  # a notebook compiles each statement by itself
            if signature(_compiled(function, code, above)) == signature(code):
                rewritten = _adding(function, code, adding) if adding else _counting(function, code)
                if not rewritten:
                    return None
                made = _compiled(function, code, above)
                if made.co_flags & inspect.CO_GENERATOR:
                    return None
                return Inlined(marshal.dumps(made), signature(code), counts=adding is None)
    return None  # the file is not what it was when it was imported


class _Source:
    """A file of source or the cell of a notebook; empty where it is not there, or long."""

    def __init__(self, filename: str) -> None:
        file, source = Path(filename), b""
        if not file.exists():
            source = "".join(linecache.getlines(filename)).encode()
        elif file.is_file() and file.stat().st_size <= SOURCE_BYTES:
            source = file.read_bytes()
        self._tree = parsed(source)

    def definitions(self, code: CodeType) -> Iterator[Function]:
        """Yield the function whose code it is, by name and line; of a lambda all in its line."""
        for node in ast.walk(self._tree):
            if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
                first = min((each.lineno for each in node.decorator_list), default=node.lineno)
                if first == code.co_firstlineno:
                    yield node
            elif (
                isinstance(node, ast.Lambda)
                and code.co_name == "<lambda>"
                and node.lineno == code.co_firstlineno
            ):
                yield node

    def imports(self) -> list[ast.stmt]:
        """Return the imports of the module: Python calls what they name in another way."""
        return [node for node in _own([self._tree]) if isinstance(node, _IMPORTS)]


def _compiled(function: Function, like: CodeType, imports: list[ast.stmt]) -> CodeType:
    """Compile a function in the same functions and classes, with the variables it closes over."""
    names = like.co_qualname.split(".")
    inner: ast.stmt = ast.Expr(function) if isinstance(function, ast.Lambda) else function
    path = [names.pop()]
    while names:
        name = names.pop()
        if name == "<locals>":
            name = names.pop()
            outer = _parsed_one(f"def outer({', '.join(like.co_freevars)}): ...")
        else:
            outer = _parsed_one("class outer: ...")
        outer.name, outer.body = name, [inner]
        inner = outer
        path.insert(0, name)
    module = ast.fix_missing_locations(ast.Module([*imports, inner], []))
    flags = like.co_flags & _FUTURE_FLAGS
    code: CodeType = compile(module, PARSED, "exec", flags, dont_inherit=True)
    for name in path:
        constants = (each for each in code.co_consts if isinstance(each, CodeType))
        *_, code = (each for each in constants if each.co_name == name)  # behind its defaults
    return code


def _parsed_one(source: str) -> Any:  # the node of a function or class
    return parsed(source.encode()).body[0]


# --- a generator that adds its pairs --------------------------------------------------------------
def _adding(function: Function, code: CodeType, add: CodeType) -> bool:
    """Rewrite a generator function, if that can be done: to do what *add* does with its pairs."""
    loop = _loop_body(add)
    nodes = list(_own(_body(function)))
    yields = [node for node in nodes if isinstance(node, ast.Yield | ast.YieldFrom)]
    statements = [node for node in nodes if isinstance(node, ast.Expr) and _is_pair(node.value)]
    if not (
        loop
        and isinstance(function, ast.FunctionDef)
        and len(yields) == len(statements) <= MOST_YIELDS
        and not _is_guarded(nodes, ast.Yield)
        and _takes_parameters(function, code)
    ):
        return False
    _Rewriter(loop).rewrite(function)
    _prepend(function, PARAMETERS)
    return True


@lru_cache
def _loop_body(add: CodeType) -> tuple[ast.stmt, ...]:
    """Return what the `add` of a reducer does with a pair; nothing if its source is not there."""
    for function in _Source(add.co_filename).definitions(add):
        for node in _body(function):
            if isinstance(node, ast.For):
                return tuple(node.body)
    return ()


def _is_pair(node: ast.expr) -> bool:
    if not isinstance(node, ast.Yield) or not isinstance(node.value, ast.Tuple):
        return False
    parts = node.value.elts
    return len(parts) == 2 and not any(isinstance(part, ast.Starred) for part in parts)


class _Rewriter(ast.NodeTransformer):
    """Puts statements for a pair where a mapper yields one, and returns what is left of the turn.

    Args:  adding: what is done with `key` and `value`.
    """

    def __init__(self, adding: Iterable[ast.stmt]) -> None:
        self._pair = [*parsed(_PAIR.encode()).body, *adding, *parsed(_STEP.encode()).body]

    def rewrite(self, function: ast.FunctionDef) -> None:
        body = ast.Module([*function.body, ast.Return()], [])
        function.body = self.visit(body).body

    def visit(self, node: ast.AST) -> Any:  # a node, or statements for it
        if isinstance(node, _SCOPES):
            return node  # whose returns are its own
        if isinstance(node, ast.Return):
            return self._returning(node)
        if isinstance(node, ast.Expr) and _is_pair(node.value):
            return self._adding(node)
        return self.generic_visit(node)

    def _adding(self, node: Any) -> list[ast.AST]:  # a statement that `_is_pair`
        parts = dict(zip(("KEY", "VALUE"), node.value.value.elts, strict=True))
        return [_Renamer(parts, node).visit(copy.deepcopy(each)) for each in self._pair]

    def _returning(self, node: ast.Return) -> list[ast.stmt]:
        left = ast.Name(PREFIX + "left", ast.Load())
        value = [] if node.value is None else [ast.Expr(node.value)]
        return [ast.copy_location(each, node) for each in (*value, ast.Return(left))]


class _Renamer(ast.NodeTransformer):
    """Gives names the PREFIX, nodes the place of a yield, and puts in what that yields."""

    def __init__(self, parts: dict[str, ast.expr], at: ast.stmt) -> None:
        self._parts = parts
        self._at = at

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Name) and node.id in self._parts:
            return self._parts[node.id]
        if isinstance(node, ast.Name):
            node.id = PREFIX + node.id
        self.generic_visit(node)
        return ast.copy_location(node, self._at)


# --- a function that returns Counters -------------------------------------------------------------
def _counting(function: Function, code: CodeType) -> bool:
    """Rewrite a function, if that can be done: to have counted what it makes Counters of."""
    if isinstance(function, ast.Lambda):
        results: list[ast.expr | None] = [function.body]
    else:
        nodes = list(_own(function.body))
        if _is_guarded(nodes, ast.Return):
            return False
        results = [node.value for node in nodes if isinstance(node, ast.Return)]
    calls = [call for result in results if (call := _call_of_counter(result))]
    empty = [result for result in results if _is_empty(result)]
    if not (
        calls and len(calls) + len(empty) == len(results) and _takes_parameters(function, code)
    ):
        return False
    for call in calls:
        call.args.insert(0, call.func)
        call.func = ast.Name(PREFIX + COUNT, ast.Load())
    _prepend(function, [COUNT])
    return True


def _call_of_counter(node: ast.expr | None) -> ast.Call | None:
    """Return the call in `Counter(elements)` or `Counter(elements).items()`."""
    match node:
        case ast.Call(ast.Attribute(inner, "items"), [], []):
            node = inner
    match node:
        case ast.Call(ast.Name(name) | ast.Attribute(_, name), [argument], []):
            is_counter = name == COUNTER and not isinstance(argument, ast.Starred)
            is_in_line = node.lineno == node.func.end_lineno  # else errors tell another one
            return node if is_counter and is_in_line else None
    return None


def _is_empty(node: ast.expr | None) -> bool:
    match node:
        case ast.List([]) | ast.Tuple([]) | ast.Dict([]):
            return True
    return False


# --- both -----------------------------------------------------------------------------------------
def _body(function: Function) -> list[Any]:  # of statements, or one expression
    return function.body if isinstance(function, ast.FunctionDef) else [function.body]


def _prepend(function: Function, parameters: Iterable[str]) -> None:
    """Have a function take more, before all that it takes."""
    given = [ast.arg(PREFIX + name) for name in parameters]
    function.args.posonlyargs = [*given, *function.args.posonlyargs]


def _takes_parameters(function: Function, code: CodeType) -> bool:
    """Whether nothing in it sees that there are more."""
    if "__class__" in code.co_freevars:  # super() looks for the first parameter
        return False
    return not any(map(_sees_variables, ast.walk(function)))


def _is_guarded(nodes: Iterable[ast.AST], kind: type[ast.AST]) -> bool:
    """Whether one of a kind stands in a try or with."""
    guards = (node for node in nodes if isinstance(node, _GUARDS))
    return any(isinstance(node, kind) for guard in guards for node in _own([guard]))


def _sees_variables(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "f_locals"
    if not isinstance(node, ast.Call):
        return False
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    return name in ("eval", "exec") or (name in ("locals", "vars", "dir") and not node.args)


def _own(nodes: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes under these that are run in the same scope."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, _SCOPES):
            pending.extend(ast.iter_child_nodes(node))
