"""A map_reduce as it was asked for, made into stages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lambdamr.backend import Backend, RemoteBackend
from lambdamr.options import CallOptions
from lambdamr.submission import StageDraft
from lambdamr_runtime.wire import StageKind

if TYPE_CHECKING:
    from lambdamr.output import Output
    from lambdamr_runtime.records import Reader
    from lambdamr_runtime.reducers import Reducer
    from lambdamr_runtime.splits import Split
    from lambdamr_runtime.work import Work

ITEM_TASKS_PER_LANE = 4
"""Map tasks per lane over the items of an iterable."""

BUILTINS = (sum, min, max)
"""What has another meaning among lambdamr.reducers."""


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """How pairs are combined, partitioned and kept in memory; fields as of Executor.map_reduce."""

    partitions: int | None
    """None: planned."""
    combiner: "Callable[[Any, Any], Any] | Reducer | None" = None
    partitioner: Callable[[Any, int], int] | None = None
    sort_key: Callable[[Any], Any] | None = None
    spill_share: float | None = None
    merge_width: int | None = None
    compress: bool | None = None

    def __post_init__(self) -> None:
        for fn in (self.partitioner, self.sort_key):
            if fn is not None and not callable(fn):
                raise TypeError(f"partitioner and sort_key must be callable, got {fn!r}")
        if self.spill_share is not None and not 0 < self.spill_share <= 1:
            raise ValueError(f"spill_share must be above 0 and at most 1, got {self.spill_share}")
        if self.merge_width is not None and self.merge_width < 2:
            raise ValueError(f"merge_width must be >= 2, got {self.merge_width}")


def map_reduce_drafts(
    mappers: tuple[Callable[[Any], Any], ...],
    inputs: object,
    reducer: "Callable[[Any, Any], Any] | Reducer | None",
    backend: "Backend",
    options: KeyOptions,
    call: CallOptions,
    output: "Output | None" = None,
) -> list[StageDraft]:
    """Plan the stages of a map_reduce: a map, a reduce with a reducer, a final with an output.

    Raises:  InvalidInput: an input cannot be used. TypeError: a function cannot be called.
             ValueError: options that do not go together, an output that cannot be written.
    """
    from lambdamr.inlining import inline
    from lambdamr_runtime.mapreduce import Map, Reduce
    from lambdamr_runtime.memory import SPILL_SHARE
    from lambdamr_runtime.runs import Keying
    from lambdamr_runtime.shuffling import Tuning

    _check_functions(mappers, reducer)
    combine = _combine(reducer, options)
    keying = Keying(options.partitioner, options.sort_key)
    tuning = Tuning(
        options.spill_share or SPILL_SHARE,
        options.merge_width,
        _compresses(options.compress, backend.store.root),
    )
    planned = _planned_inputs(inputs, backend, combine)
    _check_access(planned, output, backend)
    partitions = 0 if reducer is None else options.partitions or planned.partitions(backend)
    form = output.form if output is not None else None
    map_form = form if reducer is None else None
    inlined = None if reducer is None else inline(mappers[-1], combine)
    mapping = Map(mappers, planned.reader, call.retried, combine, keying, tuning, map_form, inlined)
    tasks = len(planned.args)
    drafts = [
        replace(
            _draft(StageKind.MAP, mapping, tasks, call),
            max_failures=call.allowed_failures(tasks) or 0,
            args=planned.args,
            partitions=partitions,
            input_bytes=planned.input_bytes,
        )
    ]
    if reducer is not None:
        reducing = Reduce(reducer, call.retried, keying, tuning, form)
        drafts.append(_draft(StageKind.REDUCE, reducing, partitions if tasks else 0, call))
    if output is not None:
        # Without limits: what a task may take says nothing about the copies of all parts.
        final = _draft(StageKind.FINAL, output.work, 1, call)
        drafts.append(replace(final, timeout_s=None, limit_mb=0))
    return drafts


def _draft(kind: StageKind, work: "Work", tasks: int, call: CallOptions) -> StageDraft:
    """Return a stage of a map_reduce: a task per chunk, none of which may fail."""
    return StageDraft(
        kind.value,
        kind,
        work,
        tasks,
        1,
        timeout_s=call.timeout_of(kind.value),
        retries=call.retries,
        max_failures=0,
        limit_mb=call.memory_of(kind.value),
    )


def _check_access(planned: "_Inputs", output: "Output | None", backend: "Backend") -> None:
    """Refuse inputs that workers cannot read, and an output that cannot be written."""
    if isinstance(backend, RemoteBackend):
        backend.check_access(planned.objects, [] if output is None else [output.uri])
    if output is not None:
        output.check(planned.uris, planned.objects, backend.store)


def _compresses(asked: bool | None, root: str) -> bool:
    """Return whether shuffle objects are compressed: unless told, where they go over a network."""
    from lambdamr_runtime.store import local_path

    return local_path(root) is None if asked is None else bool(asked)


def _check_functions(mappers: tuple[object, ...], reducer: object) -> None:
    for fn in mappers if reducer is None else (*mappers, reducer):
        if not callable(fn):
            raise TypeError(f"mapper and reducer must be callable, got {fn!r}")
    for builtin in BUILTINS:
        if reducer is builtin:
            name = builtin.__name__
            raise TypeError(
                f"The builtin {name} does not reduce (key, values). Give lambdamr.reducers.{name}."
            )
    if not mappers:
        raise ValueError("map_reduce() needs at least one mapper, got none")


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The input of a job, cut into tasks."""

    args: list[list[Any]]
    """Splits or items of each map task."""
    reader: "Reader | None" = None
    """None: the arguments are items."""
    uris: tuple[str, ...] = ()
    """As the caller gave them."""

    @property
    def splits(self) -> "list[Split]":
        return [split for splits in self.args for split in splits] if self.reader else []

    @property
    def input_bytes(self) -> int:
        return sum(split.hi - split.lo for split in self.splits)

    def partitions(self, backend: "Backend") -> int:
        """Return how many partitions are planned for it."""
        from lambdamr.planners import partitions_for

        return partitions_for(self.input_bytes, len(self.args), backend.workers, backend.memory_mb)

    @property
    def objects(self) -> list[str]:
        """URIs of the objects that are read, sorted."""
        return sorted({split.uri for split in self.splits})


def _planned_inputs(inputs: object, backend: "Backend", combine: "Reducer") -> _Inputs:
    from lambdamr.inputs import Input, as_input

    source = as_input(inputs)
    if isinstance(source, Input):
        lanes = _planned_lanes(backend.workers, combine)
        return _Inputs([*source.tasks(lanes, backend.memory_mb)], source.reader, source.uris)
    return _Inputs(_item_tasks(source, backend.workers))


def _planned_lanes(width: int, combine: "Reducer") -> int:
    """Return for how many lanes splits are planned: half as many splits where tasks combine.

    Each task writes every key it has met, so a key costs as often as there are tasks: with 135,000
    keys in 64 MB, 8 tasks write 713,000 states and take 1.34 s, 4 tasks 555,000 and 1.05 s.
    """
    return max(1, width // 2) if not combine.by_value else width


def _combine(reducer: object, options: KeyOptions) -> "Reducer":
    """Return what the dictionary of a map task holds."""
    from lambdamr_runtime.reducers import Reducer, collect, combining

    if options.combiner is None:
        return reducer if isinstance(reducer, Reducer) else collect
    if reducer is None or isinstance(reducer, Reducer):
        raise ValueError("combiner= goes with a reducer(key, values) of your own alone")
    return combining(options.combiner)


def _item_tasks(items: Sequence[Any], lanes: int) -> list[list[Any]]:
    size = max(1, -(-len(items) // (lanes * ITEM_TASKS_PER_LANE)))
    return [list(items[i : i + size]) for i in range(0, len(items), size)]
