"""The requests of a fault-free job: which, how many, and for what.

It follows the code that makes them: lambdamr.submission and tracking on the client's side, worker,
chunk, barrier, mapreduce and outputs of the runtime on the other. `tests/test_counting.py` counts
the real ones and compares.

What is exact: a run in which nothing fails, is repeated or cancelled, no two lanes see at the same
moment that a group is complete (each that does repeats the steps of the barrier), each process runs
one lane of a stage, and the data is as `Count.assumed` says. What hangs on time is in waiting.py.
"""

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from lambdamr.planning.shapes import JobShape, Placing, StageShape
from lambdamr.polling import pages
from lambdamr_runtime.lanes import children, split_lanes, tree_arity
from lambdamr_runtime.wire import StageKind


class Kind(enum.StrEnum):
    """Kinds of requests; S3 charges COPY and LIST as PUT, HEAD as GET."""

    INVOKE = "Invoke"
    PUT = "PUT"
    COPY = "COPY"
    GET = "GET"
    HEAD = "HEAD"
    LIST = "LIST"

    @property
    def writes(self) -> bool:
        """Whether S3 charges and limits it as a write."""
        return self in (Kind.PUT, Kind.COPY, Kind.LIST)


class Side(enum.StrEnum):
    """Who makes a request."""

    CLIENT = "client"
    WORKERS = "workers"


@dataclass(frozen=True, slots=True)
class Count:
    """Requests of one kind for one purpose."""

    stage: str
    """Name of the stage; "" of the job as a whole."""
    side: Side
    kind: Kind
    what: str
    number: int
    assumed: str = ""
    """What of the data is taken for granted; empty where nothing is."""


@dataclass(frozen=True, slots=True)
class Tree:
    """How the lanes of a stage are launched."""

    top: int
    """Events of the root, which is the client or the last worker of the stage before."""
    nodes: int
    """Workers that launch others."""
    levels: int
    """Invocations behind each other until the last lane runs."""


def tree_of(lanes: int) -> Tree:
    """Return the launch tree of so many lanes."""
    arity = tree_arity(lanes)
    level = split_lanes(0, lanes, arity)
    top, nodes, levels = len(level), 0, 0
    while level:
        levels += 1
        parents = [(lo, hi) for lo, hi in level if hi - lo > 1]
        nodes += len(parents)
        level = [child for lo, hi in parents for child in children(lo, hi, arity)]
    return Tree(top, nodes, levels)


def count_requests(job: JobShape) -> list[Count]:
    """Return all requests of a job but those that hang on time; none of number 0."""
    counts = [*_of_client(job), *_launches(job)]
    for shape in job.stages:
        if shape.plan.tasks:
            counts += _Stage(job, shape).counts()
    return [count for count in counts if count.number]


def _of_client(job: JobShape) -> Iterator[Count]:
    yield Count("", Side.CLIENT, Kind.PUT, "functions and arguments", job.stored)
    yield Count("", Side.CLIENT, Kind.PUT, "manifest", 1)
    if not any(shape.plan.tasks for shape in job.stages):
        yield Count("", Side.CLIENT, Kind.PUT, "report", 1)
    for shape in job.stages:
        yield Count(shape.name, Side.CLIENT, Kind.GET, "outcomes", shape.plan.chunks)
        yield Count(shape.name, Side.CLIENT, Kind.GET, "large results", shape.results_stored)
    yield Count("", Side.CLIENT, Kind.GET, "report", int(job.reported))


def _launches(job: JobShape) -> Iterator[Count]:
    """Yield the invocations: the top of a stage's tree is launched by whoever ends the one before,
    and that of the first stage by the client.
    """
    side = Side.CLIENT
    for shape in job.stages:
        if not shape.plan.tasks:
            continue
        tree = tree_of(shape.plan.lanes)
        yield Count(shape.name, side, Kind.INVOKE, "top of the tree", tree.top)
        below = shape.plan.lanes - tree.top
        yield Count(shape.name, Side.WORKERS, Kind.INVOKE, "lanes of the tree", below)
        yield Count(shape.name, Side.WORKERS, Kind.PUT, "launch marks", tree.nodes)
        side = Side.WORKERS


class _Stage:
    """The requests that the workers of one stage make."""

    def __init__(self, job: JobShape, shape: StageShape) -> None:
        self._job = job
        self._shape = shape
        self._index = job.stages.index(shape)

    def counts(self) -> Iterator[Count]:
        yield from self._fetched()
        yield from self._chunks()
        yield from self._tasks()
        yield from self._barrier()

    def _count(self, kind: Kind, what: str, number: int, assumed: str = "") -> Count:
        return Count(self._shape.name, Side.WORKERS, kind, what, number, assumed)

    def _fetched(self) -> Iterator[Count]:
        """What processes fetch once: the manifest, the function, the arguments."""
        shape = self._shape
        each = shape.environments
        if not self._job.rides_along:
            yield self._count(Kind.GET, "manifest", each)
        if shape.function_stored:
            yield self._count(Kind.GET, "function", each)
        if shape.args_stored:
            yield self._count(Kind.GET, "arguments", each + shape.args_apart)
        yield self._count(Kind.GET, "references", shape.references)

    def _chunks(self) -> Iterator[Count]:
        chunks = self._shape.plan.chunks
        if self._job.looks_first:
            yield self._count(Kind.HEAD, "outcomes, before each chunk", chunks)
        yield self._count(Kind.PUT, "large results", self._shape.results_stored)
        yield self._count(Kind.PUT, "outcomes", chunks)

    def _tasks(self) -> Iterator[Count]:
        shape = self._shape
        lines = "" if shape.reads_are_known else "one read per object"
        yield self._count(Kind.GET, "input", shape.input_reads, lines or _SHORT_LINES)
        yield self._count(Kind.GET, "shuffle index", shape.columns)
        yield self._count(Kind.GET, "shuffle slices", shape.slices, _ALL_SLICES)
        small = _SMALL_OBJECTS if shape.kind in (StageKind.MAP, StageKind.REDUCE) else ""
        yield self._count(Kind.PUT, "shuffle objects and parts", shape.writes, small)
        if shape.placing is not None:
            yield from self._final(shape.placing)

    def _final(self, placing: Placing) -> Iterator[Count]:
        before = self._job.stages[self._index - 1]
        looks = 3 + placing.files + (0 if placing.single else 1)
        yield self._count(Kind.HEAD, "tombstone, around each copy", looks)
        yield self._count(Kind.HEAD, "report and note", 2)
        yield self._count(Kind.PUT, "note of what is placed", 1)
        results = before.plan.chunks + before.results_stored
        yield self._count(Kind.GET, "outcomes of the parts", results)
        if not placing.copied:
            yield self._count(Kind.GET, "parts, to copy them", placing.pieces)
        if not placing.remote:
            return
        look = Kind.HEAD if placing.single else Kind.LIST
        yield self._count(look, "what the output holds", 1)
        written = 1 if placing.single else placing.files
        if placing.copied:
            yield self._count(Kind.COPY, "output files", written)
            yield self._count(Kind.HEAD, "output files", written)
        else:
            yield self._count(Kind.PUT, "output files", written)
        yield self._count(Kind.PUT, "_SUCCESS", 0 if placing.single else 1)

    def _barrier(self) -> Iterator[Count]:
        plan, counted = self._shape.plan, self._job.counted
        if plan.chunks > 1:
            yield self._count(Kind.LIST, "outcomes, at each lane's end", plan.lanes)
        if plan.groups > 1 or counted:
            yield self._count(Kind.HEAD, "group marks", plan.groups)
            if counted:
                outcomes = plan.chunks + self._shape.results_stored
                yield self._count(Kind.GET, "outcomes, to add them up", outcomes)
            yield self._count(Kind.PUT, "group marks", plan.groups)
            listed = sum(pages(present) for present in range(1, plan.groups + 1))
            yield self._count(Kind.LIST, "group marks", listed)
        yield self._count(Kind.HEAD, "tombstone, at the stage's end", 1)
        if self._index + 1 < len(self._job.stages):
            yield self._count(Kind.GET, "group marks, to add them up", plan.groups)
            yield self._count(Kind.PUT, "end of the stage and launch of the next", 2)
            return
        if counted:
            groups = sum(shape.plan.groups for shape in self._job.stages)
            yield self._count(Kind.GET, "group marks, for the report", groups)
        yield self._count(Kind.PUT, "report", 1)


_SHORT_LINES = "no line goes far beyond the end of its split"
_ALL_SLICES = "every map task has pairs for every partition, in slices that one read fetches"
_SMALL_OBJECTS = "each fits in one part of an upload"
