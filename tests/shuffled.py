"""Map and reduce tasks run in this very process, over any store: for laws over many inputs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lambdamr.inlining import inline
from lambdamr_runtime.keys import StageKeys, new_execution_id
from lambdamr_runtime.mapreduce import Map, Mapped, Reduce, Reduced, group_columns
from lambdamr_runtime.parts import read_part
from lambdamr_runtime.reducers import Reducer, collect
from lambdamr_runtime.runs import Keying
from lambdamr_runtime.serialize import value_dumps
from lambdamr_runtime.shuffling import Tuning
from lambdamr_runtime.store import Store, open_store
from lambdamr_runtime.wire import Manifest, Stage, StageKind
from lambdamr_runtime.work import TaskEnv

JOB = "20260101-000000-0123456789ab"
ENOUGH_MB = 8_000
"""More than any of these tests needs: nothing is spilled."""
NOTHING_MB = 1
"""Less than Python itself takes: every pair is spilled, no partition fits."""


@dataclass
class Shuffled:
    """A job of two stages, task by task."""

    reducer: Callable[[Any, Any], Any] | Reducer
    partitions: int = 1
    memory_mb: int = ENOUGH_MB
    merge_width: int | None = None
    keying: Keying = field(default_factory=Keying)
    combine: Reducer | None = None
    compress: bool = False
    inlines: bool = False
    """Whether the mapper adds its pairs itself; it must be one that can."""

    def __post_init__(self) -> None:
        self.store: Store = open_store("memory://")
        self.mapped: list[Mapped] = []
        self.reduced: list[Reduced] = []
        self.executions: list[str] = []

    def run(self, tasks: Sequence[Sequence[Any]], *mappers: Callable[[Any], Any]) -> list[Any]:
        """Return the output pairs, partition by partition; each task gets its records."""
        self.map(tasks, *mappers)
        return self.reduce()

    def map(self, tasks: Sequence[Sequence[Any]], *mappers: Callable[[Any], Any]) -> None:
        combine = self.combine
        if combine is None:
            combine = self.reducer if isinstance(self.reducer, Reducer) else collect
        inlined = inline(mappers[-1], combine) if self.inlines else None
        assert (inlined is not None) == self.inlines
        work = Map(
            mappers or (_itself,),
            None,
            combine=combine,
            keying=self.keying,
            tuning=self.tuning,
            inlined=inlined,
        )
        self._tasks = len(tasks)
        for task, records in enumerate(tasks):
            env = self.env(0)
            self.executions.append(env.execution)
            self.mapped.append(work.run(env, task, records))
        for group in range(self.stages[0].plan.groups):
            plan = self.stages[0].plan
            rows = [(chunk, self.mapped[chunk]) for chunk in plan.chunks_in(group)]
            columns = group_columns(rows, self.partitions)
            self.store.create(StageKeys(JOB, "map").group(group), columns, new_execution_id())

    def reduce(self) -> list[Any]:
        work = Reduce(self.reducer, keying=self.keying, tuning=self.tuning)
        self.reduced = [work.run(self.env(1), task, None) for task in range(self.partitions)]
        assert sum(each.pairs_read for each in self.reduced) == sum(
            piece.pairs for made in self.mapped for piece in made.slices
        )
        return [pair for partition in self.parts() for pair in partition]

    def parts(self) -> list[list[Any]]:
        """Return the pairs of each output part."""
        return [list(read_part(self.store.get(made.part), made.part)) for made in self.reduced]

    def shuffle_key(self, task: int) -> str:
        return StageKeys(JOB, "map").shuffle(task, self.executions[task])

    @property
    def tuning(self) -> Tuning:
        return Tuning(merge_width=self.merge_width, compress=self.compress)

    @property
    def stages(self) -> tuple[Stage, Stage]:
        common = {"chunksize": 1, "width": 3, "function": "", "memory_mb": self.memory_mb}
        return (
            Stage("map", StageKind.MAP, self._tasks, partitions=self.partitions, **common),  # type: ignore[arg-type]
            Stage("reduce", StageKind.REDUCE, self.partitions, **common),  # type: ignore[arg-type]
        )

    def env(self, stage: int) -> TaskEnv:
        manifest = Manifest(JOB, self.stages, 0.0)
        return TaskEnv(self.store, manifest, stage, new_execution_id(), value_dumps("cloudpickle"))


def _itself(pair: Any) -> list[Any]:
    return [pair]


def plain(tasks: Iterable[Iterable[Any]]) -> dict[Any, list[Any]]:
    """Return what a dictionary makes of all pairs: the values of each key, in order."""
    groups: dict[Any, list[Any]] = {}
    for pairs in tasks:
        for key, value in pairs:
            groups.setdefault(key, []).append(value)
    return groups
