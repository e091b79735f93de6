"""Mappers that add their pairs to the dictionary themselves: no generator, no tuple, no list.

    records ─ function(turn, record) ─▶ {key: state}
                 └ turn is over ─▶ count, look at the memory, perhaps spill

Or the elements of the Counters that they return:

    records ─ function(count, record) ─ elements ─▶ {element: count}

The client rewrites the mapper (lambdamr.inlining), the worker binds the code to the mapper that it
has: to its globals, its defaults and what it closes over.
"""

import dis
import marshal
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from inspect import CO_NESTED
from types import CodeType, FunctionType, TracebackType
from typing import Any, Protocol

from lambdamr_runtime.memory import MAX_STEP, Room
from lambdamr_runtime.pairs import Mapper, check_key, note_pair
from lambdamr_runtime.reducers import Reducer, States

PREFIX = "."
"""Of the variables that are not the mapper's: no name in a source begins with it."""

PARAMETERS = ("states", "known_of", "left", "turn")
"""What an inlined mapper gets before the record: the dictionary, its `get`, how many pairs may be
added before the turn is over, and what returns this number for the next turn."""

COUNT = "count"
"""What a mapper that returns Counters gets instead: what counts their elements."""

TURN_PAIRS = 256
"""Most pairs of a turn: counting down from more makes an int of each number, 10 ns a pair."""

QUIET_PAIRS = 4 * MAX_STEP
"""Pairs between two looks at the memory while there are no new keys: a look is 1 us by itself, but
5 with what it drives out of the caches."""

MANY_PAIRS = 1 << 18
"""The same where pairs without new keys take no memory."""

NOTHING: Counter[Any] = Counter()
"""What is left to be added of a Counter whose elements are counted."""

Signature = tuple[Any, ...]
"""What tells a function's code from other code, wherever the file is; Any: constants."""


class InlinedMapper(Protocol):
    """A mapper that adds its pairs; returns how many are left of the turn."""

    __code__: CodeType

    def __call__(
        self,
        states: States,
        known_of: Callable[..., Any],
        left: int,
        turn: Callable[[], int],
        record: Any,
        /,
    ) -> int: ...


@dataclass(frozen=True, slots=True)
class Inlined:
    """A mapper with the loop of a reducer's `add` in the place of each of its yields, or one that
    has the elements of what would be Counters counted.
    """

    code: bytes
    """Marshalled: as for functions by value, worker and client run one version of Python."""
    made_of: Signature
    counts: bool = False
    """Whether it gets COUNT and returns what is still to be added; else it is an InlinedMapper."""

    def bound_to(self, mapper: Callable[..., Any]) -> Callable[..., Any] | None:
        """Return the function for this mapper.

        None where the worker's is not the client's, or Python was told to keep no columns
        (-X no_debug_ranges), without which errors cannot be told apart.
        """
        if type(mapper) is not FunctionType or signature(mapper.__code__) != self.made_of:
            return None
        code = _in_file(marshal.loads(self.code), mapper.__code__.co_filename)
        if all(column is None for _, _, column, _ in code.co_positions()):
            return None
        inlined = FunctionType(
            code, mapper.__globals__, mapper.__name__, mapper.__defaults__, mapper.__closure__
        )
        inlined.__kwdefaults__ = mapper.__kwdefaults__
        return inlined


def signature(code: CodeType) -> Signature:
    """Return what tells code from other code, lines included."""
    return (
        code.co_qualname,
        code.co_firstlineno,
        code.co_linetable,
        code.co_code,
        code.co_exceptiontable,
        tuple(map(_constant, code.co_consts)),
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_cellvars,
        code.co_flags & ~CO_NESTED,
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
    )


def _constant(value: Any) -> tuple[Any, ...]:  # Any: what a compiler makes
    """Return what tells a constant from others: 1 from True and 1.0, 0.0 from -0.0."""
    if isinstance(value, CodeType):
        return signature(value)
    kind = type(value).__name__
    if isinstance(value, tuple | frozenset):
        return kind, type(value)(map(_constant, value))
    return kind, repr(value) if isinstance(value, float | complex) else value


def _in_file(code: CodeType, filename: str) -> CodeType:
    """Return code that tracebacks look up in that file."""
    constants = tuple(
        _in_file(each, filename) if isinstance(each, CodeType) else each for each in code.co_consts
    )
    return code.replace(co_filename=filename, co_consts=constants)


class Adder(Protocol):
    """Whose dictionary it is."""

    @property
    def states(self) -> States: ...

    def unite_nans(self, before: int) -> None: ...

    def count(self, pairs: int) -> None: ...


class _Looks:
    """Tells how many pairs were added, and looks at the memory."""

    def __init__(self, out: Adder, room: Room) -> None:
        self._out = out
        self._states = out.states
        self._room = room
        self._unseen = 0
        """Pairs added since the last look."""
        self._seen_keys = 0
        """Of the dictionary at the last look."""

    def look(self) -> None:
        """Unite NaNs among the new keys and count the pairs since the last look; a spill may empty
        the dictionary.
        """
        pairs, self._unseen = self._unseen, 0
        if pairs:
            self._out.unite_nans(self._seen_keys)
            self._out.count(pairs)
            self._seen_keys = len(self._states)


class Turns(_Looks):
    """Lets an inlined mapper add pairs, some at a time."""

    def __init__(self, out: Adder, room: Room, combine: Reducer, inlined: InlinedMapper) -> None:
        super().__init__(out, room)
        self._combine = combine
        self._inlined = inlined
        self._turn_pairs = 0

    def add(self, records: Iterable[Any]) -> None:
        """Add the pairs of all records.

        Raises:  as pairs.add; what the mapper raises.
        """
        inlined, states, turn = self._inlined, self._states, self._next
        known_of = states.get
        self._seen_keys = len(states)  # others may have added some
        left = self._turn()
        try:
            for record in records:
                left = inlined(states, known_of, left, turn, record)
        except Exception as error:
            self._tell(error)
            raise
        self._unseen += self._turn_pairs - left
        self.look()

    def _turn(self) -> int:
        self._turn_pairs = min(self._room.step, TURN_PAIRS)
        return self._turn_pairs

    def _next(self) -> int:
        self._unseen += self._turn_pairs
        step = self._room.step
        if step == MAX_STEP and len(self._states) == self._seen_keys:
            step = QUIET_PAIRS
        if self._unseen >= step:
            self.look()
        return self._turn()

    def _tell(self, error: Exception) -> None:
        """Raise or note what an error is about, if the mapper raised it or was adding a pair.

        Raises:  BadKey: the pair's key is not hashable. RuntimeError: for StopIteration, as of a
                 generator (PEP 479).
        """
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code is not self._inlined.__code__:
            trace = trace.tb_next
        behind = trace.tb_next if trace is not None else None
        is_ours = behind is not None and behind.tb_frame.f_code is Turns._next.__code__
        if trace is None or is_ours:
            return  # of the records, or of a spill
        if _is_adding(trace):
            pair = [trace.tb_frame.f_locals[PREFIX + name] for name in ("key", "value")]
            check_key(pair[0])
            note_pair(error, self._combine, *pair)
        elif isinstance(error, StopIteration):
            raise RuntimeError("generator raised StopIteration") from error


def _is_adding(trace: TracebackType) -> bool:
    """Whether an inlined mapper was at what lambdamr.inlining has put in.

    That stands at the place of a whole yield, which nothing of the mapper's own does.
    """
    code = trace.tb_frame.f_code
    places = {
        step.positions
        for step in dis.get_instructions(code)
        if step.opname.startswith("STORE_FAST") and PREFIX + "left" in step.argrepr
    }
    return dis.Positions(*list(code.co_positions())[trace.tb_lasti // 2]) in places


class Counts(_Looks):
    """Counts the elements of what a mapper would return Counters of: each is a pair, with 1.

    Numbers that grow take no memory, so it looks when there are as many new keys as would be pairs.
    """

    def __init__(self, out: Adder, room: Room) -> None:
        super().__init__(out, room)
        self._leaves_some = False
        """Whether pairs were left to be added, which what is counted later must not overtake."""

    def mapper(self, inlined: Callable[..., Any], mapper: Mapper) -> Mapper:
        """Return a mapper whose pairs are those that are left to be added."""

        @wraps(mapper)
        def counting(record: Any) -> Any:
            result = inlined(self._count, record)
            new_keys = len(self._states) - self._seen_keys
            if new_keys >= self._room.step or self._unseen >= MANY_PAIRS:
                self.look()
            return result

        return counting

    def _count(self, kind: Callable[[Any], Any], elements: Any) -> Any:
        """Return what is left of kind(elements), which stands in the mapper."""
        if kind is not Counter or type(elements) is not list or self._leaves_some:
            self._leaves_some = True
            self.look()
            return kind(elements)
        Counter.update(self._states, elements)  # type: ignore[call-overload]  # in any dictionary
        self._unseen += len(elements)
        return NOTHING
