"""Every error that lambdamr raises.

LambdamrError
├── TaskFailed                 a task has no result, and not by an exception of its own
│   ├── TaskLost               its process died, as often as the infrastructure limit allows
│   ├── TaskOutOfMemory        its process outgrew the worker's memory
│   ├── TaskTimeout            it ran longer than its time limit
│   └── RemoteError            it raised an exception that could not travel back
├── NotSerializable
│   ├── ArgumentNotSerializable
│   └── ResultNotSerializable
├── JobFailed                  a job ended without all of its results
│   ├── ReceiptMismatch        bytes or pairs written and read differ
│   └── JobTimeout             it ran longer than its time limit
├── JobNotFound
├── JobRunning                 a job that runs is not deleted
├── CorruptObject              an object of ours cannot be what we wrote
├── RuntimeMismatch            client and runtime differ in Python or wire version
├── StoreError                 the object store refused or could not be reached
├── InvocationFailed           a function could not be invoked, however often it was tried
│   └── InvocationRefused      the platform does not run it, and waiting does not help
├── DeployError                a runtime cannot be deployed, looked at or removed
│   ├── MissingPermission      AWS refused a request to whoever signed it
│   └── PackageTooLarge        code and packages exceed what a function may have
├── InvalidInput
│   ├── InputNotFound
│   ├── InputChanged           an input is not the one that was planned
│   └── CorruptInput           an input cannot be decoded
└── InvalidPairs
    ├── UnstableKey            a key without a canonical form
    ├── BadKey                 a key that cannot be one (unhashable)
    ├── DuplicateKey           a key that a result has twice
    └── UnwritablePair         a pair that the output's format cannot hold

An exception of the user's function comes back as itself, with `RemoteTraceback` as its cause.
Wrong arguments are ValueError and TypeError, a timeout of the caller is TimeoutError, a cancelled
future is concurrent.futures.CancelledError.
"""

__all__ = [
    "ArgumentNotSerializable",
    "BadKey",
    "CorruptInput",
    "CorruptObject",
    "DeployError",
    "DuplicateKey",
    "InputChanged",
    "InputNotFound",
    "InvalidInput",
    "InvalidPairs",
    "InvocationFailed",
    "InvocationRefused",
    "JobFailed",
    "JobNotFound",
    "JobRunning",
    "JobTimeout",
    "LambdamrError",
    "MissingPermission",
    "NotSerializable",
    "PackageTooLarge",
    "ReceiptMismatch",
    "RemoteError",
    "RemoteTraceback",
    "ResultNotSerializable",
    "RuntimeMismatch",
    "StoreError",
    "TaskFailed",
    "TaskLost",
    "TaskOutOfMemory",
    "TaskTimeout",
    "UnstableKey",
    "UnwritablePair",
]


class LambdamrError(Exception):
    """Base of every error of this library."""


class TaskFailed(LambdamrError):
    """A task has no result, and not because its function raised."""


class TaskLost(TaskFailed):
    """The process of a task died; it was tried again up to the infrastructure limit."""


class TaskOutOfMemory(TaskFailed):
    """The process of a task outgrew the memory of its worker and was ended."""


class TaskTimeout(TaskFailed):
    """A task ran longer than its time limit; the message holds the stack it was stopped in."""


class RemoteError(TaskFailed):
    """A task raised an exception that cannot be rebuilt here; the message is its traceback."""


class NotSerializable(LambdamrError):
    """An object cannot travel between client and worker."""


class ArgumentNotSerializable(NotSerializable):
    """A function or an argument cannot be pickled."""


class ResultNotSerializable(NotSerializable):
    """A task returned what cannot be pickled."""


class JobFailed(LambdamrError):
    """A job ended without all of its results; the message holds the reason."""


class ReceiptMismatch(JobFailed):
    """What was written and what was read differ: the result would be wrong, so there is none."""


class JobTimeout(JobFailed):
    """A job ran longer than its time limit, `job_timeout_s=`; what it had committed stays."""


class JobNotFound(LambdamrError):
    """No job of that id lies under the root."""


class JobRunning(LambdamrError):
    """A job, or what it runs on, was to be removed before its end."""


class CorruptObject(LambdamrError):
    """An object of lambdamr's is not what was written; the message names its key."""


class RuntimeMismatch(LambdamrError):
    """Client and runtime differ in Python or wire version."""


class StoreError(LambdamrError):
    """The object store refused a request, or could not be reached."""


class InvocationFailed(LambdamrError):
    """A function could not be invoked, however often it was tried."""


class InvocationRefused(InvocationFailed):
    """The platform refused to run a function; the message holds its reason and what mends it."""


class DeployError(LambdamrError):
    """A runtime cannot be deployed, looked at or removed; the message says what to do."""


class MissingPermission(DeployError):
    """AWS refused a request: whoever signed it lacks a permission, which the message names."""


class PackageTooLarge(DeployError):
    """Code and packages exceed what a function may have; the message names the largest."""


class InvalidInput(LambdamrError):
    """The input of a job cannot be used."""


class InputNotFound(InvalidInput):
    """An input names no object."""


class InputChanged(InvalidInput):
    """An input was changed while the job ran."""


class CorruptInput(InvalidInput):
    """An input cannot be decoded."""


class InvalidPairs(LambdamrError):
    """A mapper or reducer yielded what is not a usable (key, value) pair."""


class UnstableKey(InvalidPairs):
    """A key's type has no canonical form; give `partitioner=` and `sort_key=`, or another key."""


class BadKey(InvalidPairs):
    """A key cannot be one: it is not hashable."""


class DuplicateKey(InvalidPairs):
    """A reducer yielded one key twice, so a dict cannot hold the result; use `job.items()`."""


class UnwritablePair(InvalidPairs):
    """A pair that the format of the output cannot hold; the message names it, and the way out."""


class RemoteTraceback(Exception):
    """The traceback of a worker, as text; the `__cause__` of an exception raised there.

    Args:  output: the end of what the task wrote, shown below it.
    """

    def __init__(self, text: str, output: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.output = output

    def __str__(self) -> str:
        output = f"\nIts last output:\n{self.output}" if self.output else ""
        return f'\n"""\n{self.text}{output}"""'
