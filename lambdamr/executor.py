"""The executor: calls in, futures out."""

import copy
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lambdamr import progress as bars
from lambdamr.config import absolute_root, load_config
from lambdamr.data import Data
from lambdamr.futures import Future, Futures, Progress
from lambdamr.options import (
    CallOptions,
    ErrorTypes,
    as_count,
    as_memory_mb,
    as_names,
    as_seconds,
    check_callable,
)
from lambdamr.places import Place

if TYPE_CHECKING:
    from lambdamr.backend import Backend
    from lambdamr.engine import Engine
    from lambdamr.inputs import Input
    from lambdamr.job import Job
    from lambdamr.planning.plan import Plan
    from lambdamr.planning.script import Rehearsal
    from lambdamr.strict import ConcurrentExecutor
    from lambdamr.submission import StageDraft
    from lambdamr.tracked import TrackedJob
    from lambdamr_runtime.reducers import Reducer

SERIALIZERS = ("cloudpickle", "dill")

DEFAULT_ARITY = 8
"""Values that one call of a reduction gets, at most."""

rehearsal: "Rehearsal | None" = None
"""While `lambdamr plan` goes through a script: what notes the calls of its executors."""


class Executor:
    """Runs functions as tasks, here or in the cloud.

    Making one costs nothing: workers start with the first call. Use it as a context manager, or
    call `shutdown`; leaving the context by an exception cancels what has not ended.

    Args:    backend: "local", "aws", or an object that obeys lambdamr.backend.Backend; None: AWS
             where a runtime is deployed (`lambdamr deploy-runtime`), else local.
             workers: worker processes, >= 1; None: the cores that this process may use.
             memory_mb: memory of a worker, MiB, >= 32; a task over it is TaskOutOfMemory. None: no
                        limit.
             timeout_s: time limit of one task; a task over it is TaskTimeout. None: no limit.
             concurrency: most tasks of one job at a time; None: workers; on AWS a share of what
             the account has free.
             progress: bars while waiting; None: where a person watches.
             root: the directory where jobs are stored; None: as configured.
             serializer: "cloudpickle" or "dill" (an extra), for code.
             include_modules: names of modules and packages to ship whole with every function.
             exclude_modules: names of modules and packages never to ship.
    Raises:  ValueError: an argument out of its range.
    """

    def __init__(
        self,
        backend: "str | Backend | None" = None,
        *,
        workers: int | None = None,
        memory_mb: int | None = None,
        timeout_s: float | None = None,
        concurrency: int | None = None,
        progress: bool | None = None,
        root: str | os.PathLike[str] | None = None,
        serializer: str = "cloudpickle",
        include_modules: str | Sequence[str] = (),
        exclude_modules: str | Sequence[str] = (),
    ) -> None:
        if serializer not in SERIALIZERS:
            raise ValueError(f"serializer must be one of {SERIALIZERS}, got {serializer!r}")
        if serializer == "dill" and find_spec("dill") is None:
            raise ModuleNotFoundError('serializer="dill" needs dill: pip install "lambdamr[dill]"')
        config = load_config()
        backend = config.backend if backend is None else backend
        if backend not in (None, "local", "aws") and not hasattr(backend, "invoke"):
            raise ValueError(f'backend must be "local", "aws", None or a backend, got {backend!r}')
        timeout_s = as_seconds("timeout_s", timeout_s) or config.timeout_s
        self._options = partial(CallOptions, default_s=timeout_s)
        self._progress = config.progress if progress is None else progress
        self._packing = (serializer, as_names(include_modules), as_names(exclude_modules))
        self._given_backend = None if isinstance(backend, str) else backend
        self.place = Place(
            backend if isinstance(backend, str) else None,
            config.root if root is None else absolute_root(os.fspath(root)),
            root is not None,
            as_count("workers", workers) or config.workers,
            as_memory_mb("memory_mb", memory_mb) or config.memory_mb or 0,
            as_count("concurrency", concurrency),
            config.keep_days,
        )
        """Where jobs run that no backend was given for."""
        self._engine: Engine | None = None
        self._lock = threading.Lock()
        self._closed = False

    # --- calls ---------------------------------------------------------------------------------
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Run fn(*args, **kwargs) as one task.

        A future among the arguments, at any depth, stands for its value: the call is launched
        when it is done, and the value never passes through this process.

        Raises:  ArgumentNotSerializable; RuntimeError: after shutdown.
        """
        return self._map(fn, [(args, kwargs)], self._options(), 1, "submit")[0]

    def call_async(
        self,
        fn: Callable[..., Any],
        data: Any,
        *,
        retries: int = 0,
        retry_on: ErrorTypes = (Exception,),
        timeout_s: float | None = None,
        job_timeout_s: float | None = None,
        memory_mb: int | None = None,
    ) -> Future:
        """Run fn(data) as one task (PyWren's name), with the options of `map`: what `submit` is
        given belongs to the function.
        """
        options = self._options(
            retries, retry_on, timeout_s=timeout_s, job_timeout_s=job_timeout_s, memory_mb=memory_mb
        )
        return self._map(fn, [((data,), _NO_KEYWORDS)], options, 1, "submit")[0]

    def map(
        self,
        fn: Callable[..., Any],
        iterable: Iterable[Any],
        *more: Iterable[Any],
        chunksize: int | None = None,
        retries: int = 0,
        retry_on: ErrorTypes = (Exception,),
        return_exceptions: bool = False,
        max_failures: int | float | None = None,
        timeout_s: float | None = None,
        job_timeout_s: float | None = None,
        memory_mb: int | None = None,
    ) -> Futures:
        """Run fn on every item, or on the items of several iterables side by side.

        Args:     chunksize: tasks that are committed together, >= 1; None: 1 for few tasks, more
                  for many, so that small tasks are cheap.
                  retries: further tries of a task that raises one of *retry_on*.
                  return_exceptions: `result()` gives exceptions as values.
                  max_failures: failed tasks, or their share if a float below 1, beyond which the
                  others are not run. None: any number, unless the first ten chunks fail alike.
                  timeout_s: time limit of one task; None: the executor's. memory_mb: memory limit
                  of one task, MiB, >= 32 and at most what a worker has; None: that.
                  job_timeout_s: time limit of the whole job, from this call on: what has no result
                  by then is JobTimeout, whether or not this program still runs. None: no limit.
        Returns:  the futures, in input order, at once.
        Raises:   ValueError: chunksize < 1, retries < 0. RuntimeError: after shutdown.
        """
        args = [(items, _NO_KEYWORDS) for items in zip(iterable, *more, strict=False)]
        options = self._options(
            retries, retry_on, return_exceptions, max_failures, timeout_s, job_timeout_s, memory_mb
        )
        return self._map(fn, args, options, chunksize)

    def starmap(
        self,
        fn: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        *,
        chunksize: int | None = None,
        **options: Any,
    ) -> Futures:
        """Run fn(*item) for every item; options as of `map`."""
        args = [(tuple(item), _NO_KEYWORDS) for item in iterable]
        return self._map(fn, args, self._options(**options), chunksize)

    def reduce(
        self,
        fn: Callable[[list[Any]], Any],
        futures: Iterable[Future],
        *,
        arity: int = DEFAULT_ARITY,
        retries: int = 0,
        retry_on: ErrorTypes = (Exception,),
        timeout_s: float | None = None,
        job_timeout_s: float | None = None,
        memory_mb: int | None = None,
    ) -> Future:
        """Reduce the values of futures to one, by a tree of tasks.

        Each task calls fn on a list of up to *arity* neighbouring values; what the calls of a
        level return are the values of the next, down to one. So fn must be associative, as sum,
        max or a merge of dicts is. All levels are launched without this client. Other options as
        of `map`.

        Raises:  ValueError: arity < 2, or no futures.
        """
        values = list(futures)
        check_callable(fn)
        options = self._options(
            retries, retry_on, timeout_s=timeout_s, job_timeout_s=job_timeout_s, memory_mb=memory_mb
        )
        arity = as_count("arity", arity, least=2) or DEFAULT_ARITY
        if not values:
            raise ValueError("reduce() needs at least one future, got none")
        from lambdamr.folding import fold_drafts

        drafts = fold_drafts(fn, values, arity, options)
        return self._start(drafts, job_timeout_s).stages[-1].futures[0]

    def map_reduce(
        self,
        mapper: Callable[[Any], Any] | Sequence[Callable[[Any], Any]],
        inputs: "str | Input | Iterable[Any]",
        reducer: "Callable[[Any, Any], Any] | Reducer | None",
        *,
        reducers: int | None = None,
        combiner: "Callable[[Any, Any], Any] | Reducer | None" = None,
        partitioner: Callable[[Any, int], int] | None = None,
        sort_key: Callable[[Any], Any] | None = None,
        spill_share: float | None = None,
        merge_width: int | None = None,
        compress: bool | None = None,
        retries: int = 0,
        retry_on: ErrorTypes = (Exception,),
        max_failures: int | float = 0,
        timeout_s: float | Mapping[str, float] | None = None,
        job_timeout_s: float | None = None,
        memory_mb: int | Mapping[str, int] | None = None,
        output: str | os.PathLike[str] | None = None,
        format: str = "pickle",  # noqa: A002 - what pandas and Spark call it
        columns: Sequence[str] | None = None,
        overwrite: bool = False,
        single_file: bool = False,
    ) -> "Job":
        """Map records to (key, value) pairs, group them by key, reduce each key's values.

        Args:     mapper: mapper(record) yields (key, value) pairs, or returns a list of pairs or
                  a dict. Several mappers run fused: each gets the pairs of the one before.
                  inputs: a URI, path or glob, or a list of them: lines of text. Or what
                  `lambdamr.lines`, `blocks`, `objects`, `records`, `csv` or `jsonl` return. Any
                  other iterable stands for its items.
                  reducer: one of `lambdamr.reducers`, which combine on the map side; or
                  reducer(key, values), which returns the key's value, or, as a generator, yields
                  (key, value) pairs. values is an iterator, to be read once. None: the mapper's
                  pairs, in order, are the output.
                  reducers: partitions of the keys, >= 1; None: as many as workers, or map tasks
                  where these are fewer, and more where a partition would outgrow a worker.
                  combiner: combiner(key, values) -> value, which replaces any number of a plain
                  reducer's values before they travel; or one of `lambdamr.reducers` that can.
                  partitioner: partitioner(key, partitions) -> partition, the same for equal keys;
                  None: by hash.
                  sort_key: sort_key(key) stands for the key where keys are compared and ordered:
                  equal for equal keys and for these alone. For types of keys without an order.
                  spill_share: share of a worker's free memory that a task's data may fill before
                  it goes to temporary files, above 0, at most 1; None: a half.
                  merge_width: most sorted runs merged at a time, >= 2; None: as many as fit.
                  compress: whether what travels from mappers to reducers is compressed (zstd);
                  None: where it goes over a network, and not in a local directory.
                  retries, retry_on, timeout_s, memory_mb: of each task, as of `map`; the limits
                  of each stage by itself: {"map": 60, "reduce": 900}.
                  max_failures: map tasks that may fail, or their share if a float below 1: their
                  input is left out, the receipts cover the rest, and the report says "partial".
                  job_timeout_s: as of `map`.
                  output: a folder (a path or URI) that gets one file per partition, part-00000.…,
                  and _SUCCESS last, once the job is complete; after a failure or cancellation it
                  has nothing of this job. None: the result stays in the job's folder alone.
                  format: of these files. "jsonl": {"key": …, "value": …} per line; "csv": a row of
                  the key and the value, tuples spread over several fields; "text": key, tab, value
                  (the other alone where one is None); "pickle": lists of pairs, one pickle after
                  the other. A pair that the format cannot hold is UnwritablePair.
                  columns: names of the fields of a row, in csv a header of every file.
                  overwrite: replace the files of an earlier job there; other files stay.
                  single_file: output is the name of one file, which gets all partitions in order.
        Returns:  the job, at once.
        Raises:   InputNotFound and other InvalidInput; RuntimeError: after shutdown.
                  ValueError: options; an output that holds something, is read by the job, or holds
                  what it reads.
        """
        from lambdamr.drafts import KeyOptions, map_reduce_drafts
        from lambdamr.job import Job
        from lambdamr.output import as_output

        call = self._options(
            retries, retry_on, max_failures=max_failures, timeout_s=timeout_s,
            job_timeout_s=job_timeout_s, memory_mb=memory_mb,
        )  # fmt: skip
        destination = as_output(output, format, columns, overwrite, single_file)
        mappers = tuple(mapper) if isinstance(mapper, Sequence) else (mapper,)
        drafts = map_reduce_drafts(
            mappers,
            inputs,
            reducer,
            self.engine().backend,
            KeyOptions(
                as_count("reducers", reducers), combiner, partitioner, sort_key,
                spill_share, merge_width, compress,
            ),
            call,
            destination,
        )  # fmt: skip
        return Job(self._start(drafts, job_timeout_s), self.bars())

    def put(self, obj: Any) -> Data:
        """Store an object once; in the arguments of tasks, the returned reference stands for it.

        A warm worker fetches it once. Tasks of one worker share the object: treat it as read-only.

        Raises:  ArgumentNotSerializable.
        """
        from hashlib import sha256

        from lambdamr.packing import Packer
        from lambdamr_runtime.keys import data_key

        engine = self.engine()
        packer = Packer(self._packing[0], engine.backend.store.root)
        data = packer.dumps(obj, "the object")
        if packer.futures:
            raise ValueError("put() takes data, not futures; pass futures as arguments of a call")
        key = data_key(sha256(data).hexdigest())
        engine.backend.store.put(key, data)
        return Data(key, len(data), frozenset(packer.modules))

    def plan(
        self,
        fn: Callable[..., Any] | Sequence[Callable[[Any], Any]],
        inputs: Any,
        *more: Any,
        task_s: float | tuple[float, float] | None = None,
        on: str | None = None,
        region: str | None = None,
        prices: Mapping[str, float] | None = None,
        **options: Any,
    ) -> "Plan":
        """Tell what a call of `map` or `map_reduce` will do and cost; nothing is stored or run.

        Args:     fn, inputs, more, options: those of `map`; of `map_reduce` where a reducer (None
                  too) is the third or an option of it is given; of `reduce` where arity= is.
                  task_s: seconds of a task of the first stage, or (low, high); None: a guess.
                  on: "aws" or "local"; None: where this executor runs.
                  region: of AWS; None: that of the deployed runtime, or as configured.
                  prices: US dollars that replace those of the table; see lambdamr.prices.
        Raises:   as `map` and `map_reduce`; ValueError: no tasks, an unknown region.
        """
        from lambdamr.planning.asking import plan_call

        return plan_call(self, fn, (inputs, *more), options, task_s, (on, region, prices))

    def upload(self, path: str | os.PathLike[str]) -> str:
        """Return a URI by which workers read a local file, as an input of `map_reduce`.

        Workers of this machine read it where it is. For others it is copied under the root, and
        again only if that copy is older than a day: it is named by the hash of what it holds, and
        expires 90 days after the last copy.

        Raises:  InputNotFound: there is no such file.
        """
        from lambdamr.uploading import upload

        return upload(self.engine().backend.store, path)

    def as_concurrent(self) -> "ConcurrentExecutor":
        """Return a strict `concurrent.futures.Executor` that runs its calls here.

        Its `map` yields results, as the standard library's does. Each call makes a view of its own,
        whose `shutdown` leaves this executor as it is.
        """
        from lambdamr.strict import ConcurrentExecutor

        return ConcurrentExecutor(self)

    # --- the end -------------------------------------------------------------------------------
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and stop the workers when what is outstanding has ended.

        Args:  wait: return when that has happened.
               cancel_futures: cancel what has not begun; jobs of many chunks get a tombstone,
               which running tasks see within seconds.
        """
        with self._lock:
            self._closed = True
            engine = self._engine
        if engine is None:
            return
        if cancel_futures:
            engine.cancel(everything=False)
        engine.finish(wait)

    def __enter__(self) -> "Executor":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            try:
                if kind is not None and self._engine is not None:
                    self._engine.cancel(everything=True)
            finally:
                self.shutdown(wait=True)
        except Exception:
            raise
        except BaseException:  # Ctrl-C while this waits: the second one, or the first
            if self._engine is not None:
                self._engine.abandon()
            raise

    def __repr__(self) -> str:
        root = self.place.root if self._engine is None else self._engine.backend.store.root
        return f"<lambdamr.Executor {'closed' if self._closed else 'open'} root={root!r}>"

    # --- inside --------------------------------------------------------------------------------
    def _map(
        self,
        fn: Callable[..., Any],
        args: Sequence[Any],
        options: CallOptions,
        chunksize: int | None,
        name: str = "map",
    ) -> Futures:
        from lambdamr.submission import StageDraft
        from lambdamr_runtime.lanes import automatic_chunksize
        from lambdamr_runtime.wire import StageKind
        from lambdamr_runtime.work import Call

        check_callable(fn)
        chunksize = as_count("chunksize", chunksize)
        allowed = options.allowed_failures(len(args))
        engine = self.engine()
        if not args:
            return Futures((), options.return_exceptions)
        draft = StageDraft(
            name,
            StageKind.CALL,
            Call(fn, options.retried),
            len(args),
            chunksize or automatic_chunksize(len(args), engine.backend.workers),
            args,
            options.timeout_of(name),
            options.retries,
            allowed,
            limit_mb=options.memory_of(name),
            same_failures=allowed is None and not options.return_exceptions,
        )
        stage = self._start([draft], options.job_timeout_s).stages[0]
        return Futures(stage.futures, options.return_exceptions, self.bars())

    def _start(self, drafts: "Sequence[StageDraft]", job_timeout_s: float | None) -> "TrackedJob":
        from lambdamr.submission import Packing, prepare

        engine = self.engine()
        packing = Packing(*self._packing)
        return engine.start(prepare(drafts, packing, engine.backend, job_timeout_s))

    def bars(self) -> "Progress | None":
        """Return what shows bars while waiting, or None where nobody watches."""
        wanted = bars.is_watched() if self._progress is None else self._progress
        return bars.progress_here() if wanted else None

    def engine(self) -> "Engine":
        """Return what runs this executor's jobs; made on first use."""
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._engine is None and rehearsal is not None:
                self._engine = rehearsal.engine_of(self)
            if self._engine is None:
                from lambdamr.engine import Engine

                self._engine = Engine(self._given_backend or self.place.backend())
                self._engine.stop_with(self)
            return self._engine

    def rehearsed(self, engine: "Engine") -> "Executor":
        """Return an executor like this one whose calls go to *engine*."""
        twin = copy.copy(self)
        twin._engine, twin._lock = engine, threading.Lock()
        return twin

    def begun(self) -> "Engine | None":
        """Return what runs this executor's jobs, None before the first."""
        return self._engine


_NO_KEYWORDS: dict[str, Any] = {}
