"""The jobs of histories, and what their results must be.

Every call of a user's function draws a token and puts it into what it returns or yields, so that
results of different executions of a task, mixed, are seen.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from lambdamr.engine import Engine
from lambdamr.nested import NestedBackend
from lambdamr.submission import Packing, StageDraft, Submission, prepare
from lambdamr_runtime import context, keys
from lambdamr_runtime.errors import TaskLost, TaskTimeout
from lambdamr_runtime.formats import Format
from lambdamr_runtime.keys import new_job_id
from lambdamr_runtime.limits import PLANNED_MEMORY_MB
from lambdamr_runtime.mapreduce import Map, Reduce
from lambdamr_runtime.outputs import Final
from lambdamr_runtime.store import open_store
from lambdamr_runtime.wire import DeathCause, StageKind
from lambdamr_runtime.work import Call, Fold
from tests.simulation.sandbox import Child, Sandbox
from tests.simulation.scheduler import START_S, Killed, VirtualMachine
from tests.simulation.store import ROOT
from tests.simulation.world import current

OUT = f"{ROOT}/out"
"""Where jobs with an output put it."""

LIMIT_S = 6.0
"""Time limit of tasks that have one."""


# --- the users' functions -------------------------------------------------------------------------
def sandbox() -> Sandbox:
    process = current().scheduler.process
    assert isinstance(process, Child)
    return process.sandbox


def call(what: Any) -> int:
    """Begin a call: take some time, and return its token."""
    world = current()
    world.calls.append(what)
    token = len(world.calls) - 1
    sandbox().spend(world.random.choice((0.0, 0.0, 0.1, 1.0)))
    return token


def square(number: int) -> tuple[int, int]:
    token = call(number)
    return number * number, token


def slow_square(number: int) -> tuple[int, int]:
    token = call(number)
    sandbox().spend(3.0)
    return number * number, token


def square_or_fail(number: int) -> tuple[int, int]:
    """Fail for odd numbers."""
    token = call(number)
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number * number, token


def flaky_square(number: int) -> tuple[int, int]:
    """Fail twice, then pass, in each execution."""
    token = call(number)
    tries = current().tries
    name = (sandbox().running[2], number)
    tries[name] += 1
    if tries[name] <= number % 3:
        raise OSError(f"try {tries[name]}")
    return number * number, token


def square_or_overrun(number: int) -> tuple[int, int]:
    """Run over the time limit where number % 4 == 1."""
    token = call(number)
    if number % 4 == 1:
        sandbox().spend(2 * LIMIT_S)
    return number * number, token


def square_or_die(number: int) -> tuple[int, int]:
    """End the process where number % 4 == 2."""
    token = call(number)
    if number % 4 == 2:
        sandbox().die_alone(DeathCause.CRASH)
        raise Killed
    return number * number, token


def large_square(padding: str, number: int) -> tuple[int, int, str]:
    token = call(number)
    return number * number, token, padding * 10


def singles(numbers: list[int]) -> list[tuple[int, int]]:
    token = call(tuple(numbers))
    return [(number, token) for number in numbers]


def joined(lists: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    call(len(lists))
    return [each for found in lists for each in found]


def letters(word: str) -> Iterator[tuple[str, tuple[str, int]]]:
    token = call(word)
    for letter in word:
        yield letter, (word, token)


def gather(letter: str, values: Iterator[tuple[str, int]]) -> str:
    """Return all that was given, and the token of this call."""
    token = call(letter)
    return f"{token};" + ",".join(f"{word}:{made}" for word, made in values)


def gather_or_fail(letter: str, values: Iterator[tuple[str, int]]) -> str:
    if letter == "d":
        raise ValueError("no d, please")
    return gather(letter, values)


def letters_or_fail(word: str) -> Iterator[tuple[str, tuple[str, int]]]:
    if word == "dab":
        raise KeyError("no dab, please")
    return letters(word)


def nested_squares(number: int) -> tuple[int, int]:
    """Sum the squares below *number* by a job of its own."""
    token = call(number)
    worker = context.required()
    world = current()
    engine = Engine(
        NestedBackend(worker, 1024), VirtualMachine(world.scheduler, world.scheduler.process)
    )
    job = engine.start(submission_of("inner", number % 3 + 1))
    values = [future.result() for future in job.stages[0].futures]
    return sum(value for value, _ in values), token


# --- jobs -----------------------------------------------------------------------------------------
WORDS = ["abba", "cab", "bad", "dab", "ace", "bee"]


@dataclass(frozen=True, slots=True)
class Mutable:
    """Works that a mutant may replace."""

    final: type[Final] = Final


@dataclass(frozen=True, slots=True)
class Template:
    """A kind of job."""

    drafts: Callable[[Mutable], list[StageDraft]]
    expected: Callable[[int, Any], bool] = lambda task, value: False
    """(task, value or exception of the last stage) -> whether it is right."""
    statuses: tuple[str, ...] = ("done",)
    """How it ends where nothing is lost for good."""
    errors: tuple[type[BaseException], ...] = ()
    """What users' functions of it raise."""
    has_output: bool = False
    widths: tuple[int, ...] = (1, 2, 3, 5)
    is_nested: bool = False
    weight: int = 1


def _calls(fn: Callable[..., Any], tasks: int, chunksize: int, **options: Any) -> list[StageDraft]:
    args: list[Any] = [((number,), {}) for number in range(tasks)]
    return [StageDraft("map", StageKind.CALL, Call(fn), tasks, chunksize, args, **options)]


def _large(mutable: Mutable) -> list[StageDraft]:
    args: list[Any] = [(("x" * 8_000, number), {}) for number in range(6)]
    return [StageDraft("map", StageKind.CALL, Call(large_square), 6, 2, args)]


def _tree(mutable: Mutable) -> list[StageDraft]:
    args: list[Any] = [(([first, first + 1],), {}) for first in range(0, 12, 2)]
    return [
        StageDraft("reduce-1", StageKind.CALL, Call(singles), 6, 1, args, max_failures=0),
        StageDraft("reduce-2", StageKind.FOLD, Fold(joined, 2), 3, 1, max_failures=0),
        StageDraft("reduce-3", StageKind.FOLD, Fold(joined, 2), 2, 1, max_failures=0),
        StageDraft("reduce-4", StageKind.FOLD, Fold(joined, 2), 1, 1, max_failures=0),
    ]


def _map_reduce(
    mutable: Mutable,
    mapper: Callable[[Any], Any] = letters,
    reducer: Callable[..., Any] | None = gather,
    *,
    chunksize: int = 1,
    output: bool = False,
    single: str = "",
) -> list[StageDraft]:
    form = Format("text") if output else None
    partitions = 2 if reducer is not None else 0
    mapping = Map((mapper,), None, form=None if reducer is not None else form)
    args = [[word] for word in WORDS]
    drafts = [
        StageDraft(
            "map", StageKind.MAP, mapping, len(args), chunksize, args,
            partitions=partitions, max_failures=0,
        )
    ]  # fmt: skip
    if reducer is not None:
        reduce = Reduce(reducer, form=form)
        drafts.append(StageDraft("reduce", StageKind.REDUCE, reduce, 2, 1, max_failures=0))
    if form is not None:
        final = mutable.final(OUT, form, single, overwrite=True)
        drafts.append(StageDraft("final", StageKind.FINAL, final, 1, 1, max_failures=0))
    return drafts


def _is_square(task: int, value: Any) -> bool:
    return isinstance(value, tuple) and value[0] == task * task and _called(value[1], task)


def _called(token: int, what: Any) -> bool:
    calls = current().calls
    return 0 <= token < len(calls) and calls[token] == what


def _is_square_or(
    bad: Callable[[int], bool], kind: type[BaseException]
) -> Callable[[int, Any], bool]:
    return lambda task, value: isinstance(value, kind) if bad(task) else _is_square(task, value)


def _is_large(task: int, value: Any) -> bool:
    return _is_square(task, value) and value[2] == "x" * 80_000


def _is_joined(task: int, value: Any) -> bool:
    """All numbers in order, and of each leaf one call."""
    return (
        isinstance(value, list)
        and [number for number, _ in value] == list(range(12))
        and all(
            value[i][1] == value[i + 1][1] and _called(value[i][1], (i, i + 1))
            for i in range(0, 12, 2)
        )
    )


def _is_nested(task: int, value: Any) -> bool:
    wanted = sum(number * number for number in range(task % 3 + 1))
    return isinstance(value, tuple) and value[0] == wanted and _called(value[1], task)


TEMPLATES: dict[str, Template] = {
    "one chunk": Template(lambda _: _calls(square, 2, 2), _is_square),
    "map": Template(lambda _: _calls(square, 9, 2), _is_square, weight=2),
    "map of single tasks": Template(lambda _: _calls(square, 8, 1), _is_square),
    "wide map": Template(lambda _: _calls(square, 14, 1), _is_square, widths=(9, 14, 20)),
    "slow map": Template(lambda _: _calls(slow_square, 8, 2), _is_square, widths=(1, 2, 3)),
    "large map": Template(_large, _is_large),
    "retries": Template(lambda _: _calls(flaky_square, 7, 2, retries=2), _is_square),
    "time limits": Template(
        lambda _: _calls(square_or_overrun, 7, 3, timeout_s=LIMIT_S),
        _is_square_or(lambda task: task % 4 == 1, TaskTimeout),
    ),
    "deadly": Template(
        lambda _: _calls(square_or_die, 7, 3),
        _is_square_or(lambda task: task % 4 == 2, TaskLost),
    ),
    "failures allowed": Template(
        lambda _: _calls(square_or_fail, 7, 2, max_failures=3),
        _is_square_or(lambda task: task % 2 == 1, ValueError),
    ),
    "too many failures": Template(
        lambda _: _calls(square_or_fail, 8, 2, max_failures=2),
        _is_square_or(lambda task: task % 2 == 1, ValueError),
        statuses=("failed",),
    ),
    "nested": Template(
        lambda _: _calls(nested_squares, 3, 1), _is_nested, is_nested=True, widths=(1, 2, 3)
    ),
    "reduce tree": Template(_tree, _is_joined, weight=3),
    "map_reduce": Template(_map_reduce, weight=5, widths=(1, 2, 3, 6)),
    "map_reduce in chunks": Template(lambda m: _map_reduce(m, chunksize=2), weight=2),
    "map_reduce with output": Template(
        lambda m: _map_reduce(m, output=True), has_output=True, weight=5
    ),
    "map_reduce into one file": Template(
        lambda m: _map_reduce(m, output=True, single="all.txt"), has_output=True
    ),
    "map alone with output": Template(
        lambda m: _map_reduce(m, reducer=None, output=True), has_output=True
    ),
    "reducer fails": Template(
        lambda m: _map_reduce(m, reducer=gather_or_fail, output=True),
        statuses=("failed",), errors=(ValueError,), has_output=True,
    ),
    "mapper fails": Template(
        lambda m: _map_reduce(m, mapper=letters_or_fail),
        statuses=("failed",), errors=(KeyError,),
    ),
}  # fmt: skip

INNER = "inner"


class _Place:
    """What packing asks of a backend."""

    store = open_store("memory://")
    owner = ""
    width = workers = 1
    memory_mb = PLANNED_MEMORY_MB


@cache
def _packed(name: str, mutable: Mutable, tasks: int) -> Submission:
    drafts = _calls(square, tasks, 1) if name == INNER else TEMPLATES[name].drafts(mutable)
    held = context.current()
    context.enter(None)  # packed by the test, not by the task that happens to need it first
    keys.draw_from()
    try:
        return prepare(drafts, Packing(exclude_modules=("tests",)), _Place())  # type: ignore[arg-type]
    finally:
        context.enter(held)
        keys.draw_from(current().random.randbytes)


def submission_of(
    name: str, tasks: int = 0, width: int = 2, mutable: Mutable = Mutable()
) -> Submission:
    """Return a job of a kind, packed once, with an id of its own."""
    world = current()
    packed = _packed(name, mutable, tasks)
    job = new_job_id(START_S)
    stages = tuple(replace(stage, width=width) for stage in packed.manifest.stages)
    manifest = replace(packed.manifest, job=job, stages=stages, created_s=world.scheduler.now_s)
    old = packed.manifest.job
    objects = tuple((key.replace(old, job), data) for key, data in packed.objects)
    world.manifests[job] = manifest
    return replace(packed, manifest=manifest, encoded=manifest.encode(), objects=objects)
