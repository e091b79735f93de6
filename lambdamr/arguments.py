"""The arguments of tasks as their job has stored them."""

import io
import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lambdamr_runtime import references
from lambdamr_runtime.errors import CorruptObject
from lambdamr_runtime.packed import args_index_bytes, args_span, checked_args
from lambdamr_runtime.store import checked_sha
from lambdamr_runtime.wire import FrameKind

if TYPE_CHECKING:
    from lambdamr_runtime.chunk import StageRun
    from lambdamr_runtime.store import Store


class StoredArgs:
    """The packed arguments of one stage, read chunk by chunk."""

    def __init__(self, store: "Store", run: "StageRun") -> None:
        self._store = store
        self._run = run
        self._index = run.stage.inline_args

    def packed(self, chunk: int) -> bytes:
        """Return the pickled list of the arguments of a chunk's tasks.

        Raises:  CorruptObject: they are not there, or cut off.
        """
        stage, key = self._run.stage, self._run.keys.args
        chunks = self._run.plan.chunks
        try:
            if not self._index:
                self._index = self._store.get_range(key, 0, args_index_bytes(chunks))
            start, length = args_span(self._index, chunk, chunks)
            if stage.inline_args:
                data = stage.inline_args[start : start + length]
            else:
                data = self._store.get_range(key, start, length)
        except FileNotFoundError:
            raise CorruptObject(
                f"{key}, the arguments of job {self._run.manifest.job}, is gone. Somebody deleted "
                "it; call the function again."
            ) from None
        if len(data) < length:
            raise CorruptObject(f"{key} ends within the arguments of chunk {chunk}")
        return checked_args(self._index, chunk, data, key)


def input_of(store: "Store", run: "StageRun", task: int) -> Any:
    """Return what a task was given: the item of a `map`, a tuple of several arguments, or
    (args, kwargs) where there are keywords; the splits or items of a map task. None for tasks
    that need only their number.

    Futures and stored data come as their values. Raises whatever loading them raises.
    """
    from lambdamr_runtime.wire import StageKind
    from lambdamr_runtime.work import Deferred

    if not run.stage.has_args:
        return None
    chunk = run.plan.chunk_of(task)
    listed = _loads(store, StoredArgs(store, run).packed(chunk))
    given = listed[task - run.plan.tasks_of(chunk).start]
    if isinstance(given, Deferred):
        given = given.load(lambda data: _loads(store, data))
    if run.stage.kind is not StageKind.CALL:
        return given
    args, kwargs = given
    if kwargs:
        return args, kwargs
    return args[0] if len(args) == 1 else args


def _loads(store: "Store", data: bytes) -> Any:
    return _Loader(store, data).load()


class _Loader(pickle.Unpickler):
    """Unpickles arguments outside a task: references are resolved through the client's store."""

    def __init__(self, store: "Store", data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self._store = store

    def find_class(self, module: str, name: str) -> Any:
        resolvers: dict[tuple[str, str], Callable[..., Any]] = {
            (references.__name__, references.load_data.__name__): self._data,
            (references.__name__, references.load_result.__name__): self._result,
        }
        return resolvers.get((module, name)) or super().find_class(module, name)

    def _data(self, key: str) -> Any:
        return _loads(self._store, checked_sha(self._store.get(key), key))

    def _result(self, key: str, position: int) -> Any:
        frame = references.read_outcome(self._store, key)[1][position]
        if frame.kind is FrameKind.VALUE:
            return _loads(self._store, frame.payload)
        return references.value_of(frame, key)
