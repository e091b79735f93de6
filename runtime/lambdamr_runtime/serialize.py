"""Objects to bytes and back: values, exceptions and their tracebacks.

Code travels by cloudpickle (or dill, on request): functions and classes of `__main__` and of
notebooks by value. Plain values travel by pickle, which is far faster and writes the same format;
whatever pickle refuses, the job's serializer gets to try.
"""

import os
import pickle
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from lambdamr_runtime.byvalue import dumps_code, loads_keeping
from lambdamr_runtime.errors import (
    CorruptObject,
    RemoteError,
    RemoteTraceback,
    ResultNotSerializable,
)
from lambdamr_runtime.frozen import frozen
from lambdamr_runtime.limits import SHOWN_LOG_BYTES

_RUNTIME = os.path.dirname(__file__)
_KEPT_FRAMES = 64
"""Innermost frames of a traceback that travel as objects (the text has all of them)."""

Dumps = Callable[[object], bytes]


def code_dumps(serializer: str) -> Dumps:
    """Return the function that pickles code by value.

    Raises:  ValueError: unknown name.
    """
    if serializer == "cloudpickle":
        return dumps_code
    if serializer == "dill":
        import dill  # an extra: loaded when asked for

        return _dill_dumps(dill)
    raise ValueError(f"serializer must be cloudpickle or dill, got {serializer!r}")


def value_dumps(serializer: str) -> Dumps:
    """Return the function that pickles values: plain pickle first, the serializer for the rest."""

    def dumps(value: object) -> bytes:
        try:
            return plain_dumps(value)
        except Exception:  # pickle raises whatever __reduce__ raises; the serializer may manage
            return code_dumps(serializer)(value)

    return dumps


def plain_dumps(value: object) -> bytes:
    """Pickle what is known to be plain."""
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def loads(data: bytes) -> Any:
    """Unpickle; Any because the bytes decide.

    dill's streams need dill's own functions, which they name: pickle imports them by itself.
    """
    return pickle.loads(data)


def load_value(data: bytes) -> Any:
    """Unpickle what a task returned or raised, or what was put: classes stay as they are here."""
    return loads_keeping(data)


def _dill_dumps(dill: Any) -> Dumps:
    def dumps(value: object) -> bytes:
        data: bytes = dill.dumps(value, recurse=True)
        return data

    return dumps


@frozen
class ErrorRecord:
    """An exception on its way to the client."""

    exception: bytes
    """The pickled exception; empty where it cannot travel."""
    type_name: str
    message: str
    text: str
    """The formatted traceback, without our own frames; empty for errors of ours."""
    frames: dict[str, Any] | None = None
    """The innermost frames as tblib writes them."""


def record_error(error: BaseException, serializer: str) -> ErrorRecord:
    """Describe an exception so that the client can raise it again, whatever its type is."""
    import traceback  # only a failed task needs it

    trace = _users_part(error.__traceback__)
    text = "".join(traceback.format_exception(type(error), error, trace))
    return ErrorRecord(
        _pickled(error, value_dumps(serializer)),
        _type_name(error),
        _message(error),
        text.rstrip("\n"),
        _frames(trace),
    )


def record_failure(error: Exception) -> ErrorRecord:
    """Describe an error of ours, which has no traceback worth showing."""
    return ErrorRecord(pickle.dumps(error), _type_name(error), str(error), "")


def revive(record: ErrorRecord, log: bytes = b"") -> BaseException:
    """Return the exception to raise at the client, the remote traceback as its cause.

    Args:  log: what the task wrote; the end of it is shown with the traceback.
    """
    error = _unpickled(record)
    if record.text:  # past the class's own __setattr__: that of a frozen dataclass raises
        cause = RemoteTraceback(record.text, shown_log(log))
        object.__setattr__(error, "__cause__", cause)
    return error


def shown_log(log: bytes) -> str:
    """Return the end of a log, for a message: whole lines, where they are not too long."""
    tail = log[-SHOWN_LOG_BYTES:]
    if len(tail) < len(log):
        tail = b"\xe2\x80\xa6\n" + (tail.partition(b"\n")[2] or tail)
    return tail.decode("utf-8", "backslashreplace").rstrip("\n")


def revive_traceback(frames: dict[str, Any]) -> TracebackType:
    """Return the frames of an ErrorRecord as a traceback object."""
    from tblib import Traceback  # only a failed task needs it

    trace: TracebackType = Traceback.from_dict(frames).as_traceback()
    return trace


def dump_result(value: object, dumps: Dumps) -> bytes:
    """Pickle the result of a task.

    Raises:  ResultNotSerializable: it cannot be pickled; names the type and the reason.
    """
    try:
        return dumps(value)
    except Exception as error:
        raise ResultNotSerializable(
            f"The task returned a {_type_name(value)} that cannot be pickled "
            f"({type(error).__name__}: {error}). Return plain data, or what can be pickled."
        ) from error


def _pickled(error: BaseException, dumps: Dumps) -> bytes:
    """Pickle an exception, by itself or part by part, as long as it can be loaded again."""
    for candidate in _forms(error, dumps):
        try:
            data = dumps(candidate)
            if type(loads(data)).__name__ == type(error).__name__:
                return data
        except BaseException:  # noqa: S112 - any way of failing means: try the plainer form
            continue
    return b""


def _forms(error: BaseException, dumps: Dumps) -> Iterator[object]:
    """Yield what may travel for an exception, the truest form first."""
    yield error
    args: tuple[Any, ...] = error.args
    plain: tuple[Any, ...] = tuple(map(_text, args))
    if isinstance(error, BaseExceptionGroup):
        parts = [_Loaded(_pickled(part, dumps)) for part in error.exceptions]
        args = plain = (error.message, parts)
    kept = {name: value for name, value in error.__dict__.items() if _travels(value, dumps)}
    yield _Rebuilt(type(error), args, kept)
    yield _Rebuilt(type(error), plain, kept)


def _travels(value: object, dumps: Dumps) -> bool:
    try:
        loads(dumps(value))
    except BaseException:  # whatever its __reduce__ or constructor raises
        return False
    return True


class _Loaded:
    """Pickles as what its bytes hold."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return loads, (self._data,)


class _Rebuilt:
    """Pickles as the exception made without its constructor, whose signature may be odd."""

    def __init__(self, cls: type, args: tuple[Any, ...], state: dict[str, Any]) -> None:
        self._parts = (cls, args, state)

    def __reduce__(self) -> tuple[Callable[..., BaseException], tuple[Any, ...]]:
        return rebuild, self._parts


def rebuild(
    cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
) -> BaseException:
    """Make an exception without calling its constructor; named by pickles, so it stays."""
    error = cls.__new__(cls, *args)
    object.__setattr__(error, "args", args)
    error.__dict__.update(state)
    return error


def _unpickled(record: ErrorRecord) -> BaseException:
    if record.exception:
        try:
            error = load_value(record.exception)
            if isinstance(error, BaseException):
                return error
        except BaseException as error:  # loading runs the user's code, which may even exit
            return RemoteError(
                f"The task raised {record.type_name}: {record.message}, which cannot be loaded "
                f"here ({type(error).__name__}: {error})."
            )
    return RemoteError(f"The task raised {record.type_name}: {record.message}")


def load_error(payload: bytes, source: str) -> ErrorRecord:
    """Load the payload of an error frame.

    Raises:  CorruptObject: it is not an error record.
    """
    record = loads(payload)
    if not isinstance(record, ErrorRecord):
        raise CorruptObject(f"{source} holds a {type(record).__name__} where an error should be")
    return record


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    """Skip our own outer frames; a traceback that has no others stays whole."""
    begin = trace
    while begin is not None and begin.tb_frame.f_code.co_filename.startswith(_RUNTIME):
        begin = begin.tb_next
    return begin if begin is not None else trace


def _frames(trace: TracebackType | None) -> dict[str, Any] | None:
    if trace is None:
        return None
    from tblib import Traceback  # only a failed task needs it

    links = [trace]
    while (following := links[-1].tb_next) is not None:
        links.append(following)
    trace = links[-_KEPT_FRAMES:][0]
    frames: dict[str, Any] = Traceback(trace).to_dict()
    return frames


def _type_name(value: object) -> str:
    cls = type(value)
    plain = cls.__module__ in ("builtins", "__main__") or cls.__module__ is None
    return cls.__qualname__ if plain else f"{cls.__module__}.{cls.__qualname__}"


def _message(error: BaseException) -> str:
    return _text(error)


def _text(value: object) -> str:
    try:
        return str(value)
    except BaseException as broken:  # it is the user's, and may raise anything
        return f"<its __str__ raised {type(broken).__name__}>"
