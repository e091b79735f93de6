"""Code and arguments on their way out: bytes, the modules they need, the futures they wait for.

fn, arguments ── Packer ──▶ pickled bytes
                   │  modules referred to ──▶ shipping.pack ──▶ one archive
                   └─ futures among the arguments ──▶ the call waits for them
"""

import hashlib
import io
import pickletools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from lambdamr_runtime.errors import ArgumentNotSerializable

if TYPE_CHECKING:
    from lambdamr.futures import Future

_session = threading.local()
"""`packer`: the Packer that pickles in this thread right now."""


def packed_future(future: "Future") -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """Return how a future travels as an argument, and note that the call waits for it; None if
    nothing is being packed.
    """
    packer: Packer | None = getattr(_session, "packer", None)
    return packer.reference(future) if packer is not None else None


def packed_data(key: str, modules: frozenset[str]) -> None:
    """Note that stored data travels whose pickle refers to *modules*."""
    packer: Packer | None = getattr(_session, "packer", None)
    if packer is not None:
        packer.modules |= modules
        packer.referred.add(key)


_dilling = threading.RLock()
"""Held while dill pickles: it turns sys.stdout aside meanwhile, and two threads of which the first
began first and ended first would leave it so."""


@dataclass(slots=True)
class Packer:
    """Pickles the function and the arguments of one job.

    Args:  serializer: "cloudpickle" or "dill". root: of the store that the job uses.
    """

    serializer: str
    root: str
    modules: set[str] = field(default_factory=set)
    """Names of modules that the pickles refer to."""
    futures: dict[int, "Future"] = field(default_factory=dict)
    """Futures that the job waits for, by id."""
    referred: set[str] = field(default_factory=set)
    """Keys that were pickled as references, since somebody emptied it."""

    def dumps(self, value: object, what: str) -> bytes:
        """Pickle by value what workers cannot import.

        Args:    what: for the message, as "the function".
        Raises:  ArgumentNotSerializable: naming *what* and the reason.
        """
        with self._session():
            try:
                return self._pickled(value)
            except (ValueError, ModuleNotFoundError):  # of ours: another root; dill is missing
                raise
            except Exception as error:  # a __reduce__ may raise anything
                raise self._not_serializable(value, what, error) from error

    def _not_serializable(
        self, value: object, what: str, error: Exception
    ) -> ArgumentNotSerializable:
        from lambdamr.culprits import culprit, told  # only for what cannot be pickled

        spare = Packer(self.serializer, self.root)  # what is tried is not part of the job
        _session.packer = spare
        found = culprit(value, spare.refuses)
        where, advice = told(*found) if found is not None else ("", "")
        if not advice:
            advice = "Pass plain data, and open files, locks and connections inside the task"
            advice += "" if self.serializer == "dill" else ', or try serializer="dill"'
        return ArgumentNotSerializable(
            f"Could not pickle {what}{where} ({type(error).__name__}: {error}). {advice}."
        )

    def refuses(self, value: object) -> bool:
        """Whether a value cannot be pickled."""
        try:
            self._pickled(value)
        except Exception:  # whatever a __reduce__ raises
            return True
        return False

    def _pickled(self, value: object) -> bytes:
        return self._dill(value) if self.serializer == "dill" else self._cloudpickle(value)

    def reference(self, future: "Future") -> tuple[Callable[..., Any], tuple[Any, ...]]:
        from lambdamr_runtime.references import load_result

        stage = future._stage
        if stage.root != self.root:
            raise ValueError(
                f"{future!r} lies under {stage.root}, this executor under {self.root}. "
                "Pass its result() instead."
            )
        self.futures[id(future)] = future
        self.modules |= stage.job.modules
        run = stage.run
        chunk = run.plan.chunk_of(future.task)
        key = run.keys.outcome(run.plan.group_of(chunk), chunk)
        self.referred.add(key)
        return load_result, (key, future.task - run.plan.tasks_of(chunk).start)

    @contextmanager
    def _session(self) -> Iterator[None]:
        outer = getattr(_session, "packer", None)
        _session.packer = self
        try:
            yield
        finally:
            _session.packer = outer

    def _cloudpickle(self, value: object) -> bytes:
        stream = io.BytesIO()
        _cloud_pickler()(stream, self.modules).dump(value)
        return stream.getvalue()

    def _dill(self, value: object) -> bytes:
        from lambdamr_runtime.serialize import code_dumps

        with _dilling:
            data = code_dumps("dill")(value)
        self.modules.update(_modules_named(data))
        return data


def _cloud_pickler() -> Any:
    """Return the pickler class; made on first use, since cloudpickle costs 16 ms to import."""
    global _CloudPickler
    if _CloudPickler is None:
        _CloudPickler = _make_cloud_pickler()
    return _CloudPickler


_CloudPickler: Any = None


def _make_cloud_pickler() -> Any:
    import cloudpickle

    from lambdamr import shipping, sources
    from lambdamr_runtime.byvalue import NAMED_TYPES, CodePickler

    named = (type, FunctionType, MethodType, BuiltinFunctionType, *NAMED_TYPES)

    class CloudPickler(CodePickler):
        """Notes the modules of what it pickles by reference, and the imports of what by value."""

        def __init__(self, stream: io.BytesIO, modules: set[str]) -> None:
            super().__init__(stream, protocol=5)
            self._modules = modules

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, ModuleType):
                self._note(obj.__name__)
            elif not isinstance(obj, named):
                self._note(type(obj).__module__)  # it may pickle as the name of a global there
            else:
                self._note(getattr(obj, "__module__", None))
                code = getattr(obj, "__code__", None)
                if code is not None:
                    package = getattr(obj, "__globals__", {}).get("__package__") or ""
                    self._modules |= sources.imports_of(code, package)
            return super().reducer_override(obj)

        def _note(self, name: object) -> None:
            if not isinstance(name, str) or name in self._modules:
                return
            self._modules.add(name)
            for fileless in shipping.fileless([name]):
                cloudpickle.register_pickle_by_value(_module(fileless))

    return CloudPickler


def _module(name: str) -> ModuleType:
    import sys

    return sys.modules[name]


def _modules_named(pickled: bytes) -> set[str]:
    """Return the modules that a pickle names: the string before each global, or in it."""
    names: set[str] = set()
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("GLOBAL", "INST"):
            names.add(str(argument).partition(" ")[0])
        elif isinstance(argument, str):
            strings.append(argument)
        elif opcode.name == "STACK_GLOBAL":
            names.update(strings[-2:-1])
    return names | {text for text in strings if text.replace(".", "_").isidentifier()}


@dataclass(frozen=True, slots=True)
class PackedFunction:
    """A function object, ready to be stored or to ride inline."""

    data: bytes
    sha: str


def pack_function(
    packer: Packer, pickled: bytes, include: Sequence[str], exclude: Sequence[str]
) -> PackedFunction:
    """Put pickled work and the modules that it and the arguments need into one function object.

    Call it after the arguments are packed, with the same packer.
    """
    from lambdamr import shipping
    from lambdamr_runtime import context
    from lambdamr_runtime.packed import FunctionObject

    worker = context.current()
    if worker is not None:
        archive = worker.archive()
    else:
        archive = shipping.pack(packer.modules, include, exclude)
    data = FunctionObject(archive, pickled).encode()
    return PackedFunction(data, hashlib.sha256(data).hexdigest())
