"""From calls to a job in the store: pack, upload, launch.

drafts of stages ── pack ──▶ function objects, packed arguments ──▶ manifest
                                │ small: inline in job.json          │
                                └ large: functions/, args  PUT       └ PUT, then invoke
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Any

from lambdamr.backend import Backend, MemoryLimited, RemoteBackend
from lambdamr.packing import PackedFunction, Packer, pack_function
from lambdamr_runtime.errors import ArgumentNotSerializable
from lambdamr_runtime.keys import FUNCTIONS, JobKeys, StageKeys, function_key, new_job_id
from lambdamr_runtime.limits import INLINE_BYTES, WHOLE_ARGS_BYTES
from lambdamr_runtime.packed import args_index_bytes, args_span, pack_args
from lambdamr_runtime.wire import Manifest, Stage, StageKind
from lambdamr_runtime.work import Deferred

if TYPE_CHECKING:
    from lambdamr.futures import Future
    from lambdamr_runtime.lanes import LanePlan
    from lambdamr_runtime.store import Store
    from lambdamr_runtime.work import Work


@dataclass(frozen=True, slots=True)
class StageDraft:
    """A stage as the caller wants it."""

    name: str
    kind: StageKind
    work: "Work"
    tasks: int
    chunksize: int
    args: Sequence[Any] | None = None
    """One argument per task; None for a stage whose tasks need only their number."""
    timeout_s: float | None = None
    retries: int = 0
    max_failures: int | None = None
    same_failures: bool = False
    partitions: int = 0
    input_bytes: int = 0
    limit_mb: int = 0
    """Memory limit of a task's process, MiB; 0: that of its worker."""


@dataclass(frozen=True, slots=True)
class Packing:
    """How an executor packs.

    Fields as of Executor.
    """

    serializer: str = "cloudpickle"
    include_modules: tuple[str, ...] = ()
    exclude_modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a stage weighs: for the model of requests and bytes, nothing hangs on it."""

    function_bytes: int
    args_bytes: int
    args_apart: int
    """Chunks whose arguments lie behind what a worker fetches of them at first."""
    references: int
    """Objects that arguments refer to, each counted once for every lane that fetches it."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that is packed but neither stored nor launched."""

    manifest: Manifest
    encoded: bytes
    """The manifest as it will be stored."""
    objects: tuple[tuple[str, bytes], ...]
    """(key, data) to store before the manifest."""
    awaited: tuple["Future", ...]
    """Futures among the arguments: to be done before the launch."""
    modules: frozenset[str] = frozenset()
    """Names of modules that the pickles refer to."""
    exclude: tuple[str, ...] = ()
    """Modules that the user says are not needed where the job runs."""
    footprints: tuple[Footprint, ...] = ()
    """By stage."""
    drafts: tuple[StageDraft, ...] = ()
    """What was packed."""

    def store(self, store: "Store", known: set[str]) -> None:
        """Write what workers will read, the manifest last.

        Args:  known: keys that are stored already; extended by what is shared between jobs.
        """
        for key, data in self.objects:
            if key not in known:
                store.put(key, data)
            if key.startswith(FUNCTIONS):
                known.add(key)
        store.put(JobKeys(self.manifest.job).manifest, self.encoded)

    def launch(self, backend: Backend, now_s: float) -> None:
        """Invoke the top of the tree of the first stage that has tasks."""
        from lambdamr_runtime.barrier import top_events

        first = next((i for i, stage in enumerate(self.manifest.stages) if stage.tasks), 0)
        events = top_events(self.manifest, self.encoded, first, now_s)
        if isinstance(backend, RemoteBackend):
            backend.invoke_all(events)
            return
        for event in events:
            backend.invoke(event)


def prepare(
    drafts: Sequence[StageDraft],
    packing: Packing,
    backend: Backend,
    timeout_s: float | None = None,
) -> Submission:
    """Pack a job.

    Args:    timeout_s: time limit of the whole job.

    Raises:  ArgumentNotSerializable: naming the function or the argument that cannot be pickled.
             ValueError: more memory for a task than a worker has.
    """
    if isinstance(backend, MemoryLimited):
        for draft in drafts:
            backend.check_memory(draft.limit_mb)
    job = new_job_id(time())
    packer = Packer(packing.serializer, backend.store.root)
    works: list[bytes] = []
    closures: list[frozenset[str]] = []
    for draft in drafts:
        packer.referred.clear()
        works.append(packer.dumps(draft.work, _name_of(draft.work)))
        closures.append(frozenset(packer.referred))
    args, references = zip(*(_packed_args(packer, draft) for draft in drafts), strict=True)
    functions = [
        pack_function(packer, work, packing.include_modules, packing.exclude_modules)
        for work in works
    ]
    size = sum(len(function.data) for function in functions) + sum(map(len, args))
    inline = size <= INLINE_BYTES
    objects: list[tuple[str, bytes]] = []
    stages: list[Stage] = []
    for draft, function, packed in zip(drafts, functions, args, strict=True):
        if not inline:
            objects.append((function_key(function.sha), function.data))
            if packed:
                objects.append((StageKeys(job, draft.name).args, packed))
        stages.append(_stage(draft, function, packed, inline, packing.serializer, backend))
    manifest = Manifest(job, tuple(stages), time(), backend.owner, timeout_s=timeout_s)
    awaited = tuple(packer.futures.values())
    modules = frozenset(packer.modules)
    footprints = tuple(
        Footprint(
            len(function.data),
            len(packed),
            0 if inline else _apart(packed, stage.plan.chunks),
            sum(len(keys | closure) for keys in _by_lane(referred, stage.plan)),
        )
        for function, packed, closure, referred, stage in zip(
            functions, args, closures, references, stages, strict=True
        )
    )
    return Submission(
        manifest, manifest.encode(), tuple(objects), awaited, modules, packing.exclude_modules,
        footprints, tuple(drafts),
    )  # fmt: skip


def _apart(packed: bytes, chunks: int) -> int:
    """Return how many chunks have arguments that a worker's first fetch does not hold."""
    fetched = max(WHOLE_ARGS_BYTES, args_index_bytes(chunks))
    if len(packed) <= fetched:
        return 0
    return sum(sum(args_span(packed, chunk, chunks)) > fetched for chunk in range(chunks))


def _by_lane(referred: Sequence[frozenset[str]], plan: "LanePlan") -> Iterator[frozenset[str]]:
    """Yield what each lane refers to; *referred* is by chunk, empty where nothing is."""
    for lane in range(plan.lanes):
        chunks = plan.chunks_of(lane) if referred else ()
        yield frozenset().union(*(referred[chunk] for chunk in chunks))


def _stage(
    draft: StageDraft,
    function: PackedFunction,
    packed: bytes,
    inline: bool,
    serializer: str,
    backend: Backend,
) -> Stage:
    return Stage(
        draft.name,
        draft.kind,
        draft.tasks,
        draft.chunksize,
        backend.width,
        function=function.sha,
        inline_function=function.data if inline else b"",
        inline_args=packed if inline else b"",
        has_args=draft.args is not None,
        serializer=serializer,
        timeout_s=draft.timeout_s,
        retries=draft.retries,
        max_failures=draft.max_failures,
        same_failures=draft.same_failures,
        partitions=draft.partitions,
        input_bytes=draft.input_bytes,
        memory_mb=min(backend.memory_mb, draft.limit_mb or backend.memory_mb),
        limit_mb=draft.limit_mb,
    )


def _name_of(work: "Work") -> str:
    """Return how messages call the user's functions in a work."""
    given = [getattr(work, name, None) for name in ("fn", "mappers", "reducer")]
    functions = [fn for each in given for fn in (each if isinstance(each, tuple) else (each,))]
    names = [getattr(fn, "__qualname__", repr(fn)) for fn in functions if fn is not None]
    return f"the function {', '.join(names)}"


def _packed_args(packer: Packer, draft: StageDraft) -> tuple[bytes, list[frozenset[str]]]:
    """Return the arguments of all tasks, one pickle per chunk (tasks of a chunk share objects), and
    the keys that each chunk refers to: an empty list where none does.
    """
    if draft.args is None:
        return b"", []
    size = draft.chunksize
    pickles: list[bytes] = []
    referred: list[frozenset[str]] = []
    for first in range(0, len(draft.args), size):
        packer.referred.clear()
        pickles.append(_dump_args(packer, draft.args[first : first + size], first))
        referred.append(frozenset(packer.referred) if packer.referred else _NOTHING)
    return pack_args(pickles), referred if any(referred) else []


_NOTHING: frozenset[str] = frozenset()


def _dump_args(packer: Packer, args: Sequence[Any], first: int) -> bytes:
    awaited = len(packer.futures)
    try:
        data = packer.dumps(list(args), "the arguments")
        if len(packer.futures) == awaited or len(args) == 1:
            return data
        deferred = [Deferred(packer.dumps(arg, "the arguments")) for arg in args]
        return packer.dumps(deferred, "the arguments")
    except ArgumentNotSerializable:
        for task, arg in enumerate(args, first):
            packer.dumps(arg, f"the arguments of task {task}")
        raise
