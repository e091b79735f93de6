"""Futures and MapReduce over cloud functions, with an embedded local backend.

>>> import lambdamr
>>> with lambdamr.Executor() as executor:
...     executor.map(abs, [-1, -2, 3]).result()
[1, 2, 3]
"""

import logging
from typing import TYPE_CHECKING

from lambdamr.data import Data
from lambdamr.executor import Executor
from lambdamr.futures import Future, Futures
from lambdamr.registering import register
from lambdamr.stats import TaskStats
from lambdamr.waiting import as_completed, get_all_results, wait
from lambdamr_runtime import __version__
from lambdamr_runtime.errors import (
    ArgumentNotSerializable,
    BadKey,
    CorruptInput,
    CorruptObject,
    DeployError,
    DuplicateKey,
    InputChanged,
    InputNotFound,
    InvalidInput,
    InvalidPairs,
    InvocationFailed,
    InvocationRefused,
    JobFailed,
    JobNotFound,
    JobRunning,
    JobTimeout,
    LambdamrError,
    MissingPermission,
    NotSerializable,
    PackageTooLarge,
    ReceiptMismatch,
    RemoteError,
    RemoteTraceback,
    ResultNotSerializable,
    RuntimeMismatch,
    StoreError,
    TaskFailed,
    TaskLost,
    TaskOutOfMemory,
    TaskTimeout,
    UnstableKey,
    UnwritablePair,
)

if TYPE_CHECKING:
    from lambdamr import reducers
    from lambdamr.asynchronous import as_completed_async
    from lambdamr.attaching import attach
    from lambdamr.cleaning import clean
    from lambdamr.deleting import delete
    from lambdamr.failures import Failure
    from lambdamr.inputs import blocks, csv, jsonl, lines, objects, records
    from lambdamr.job import Job
    from lambdamr.planning.cost import Cost
    from lambdamr.planning.plan import Plan
    from lambdamr.reports import JobReport
    from lambdamr.stragglers import Straggler

logging.getLogger(__name__).addHandler(logging.NullHandler())
# What is logged is shown where the program asks for it, never by logging's last resort on stderr.

_LOADED_ON_USE = {
    "Cost": "lambdamr.planning.cost",
    "Job": "lambdamr.job",
    "JobReport": "lambdamr.reports",
    "Plan": "lambdamr.planning.plan",
    "as_completed_async": "lambdamr.asynchronous",
    "attach": "lambdamr.attaching",
    "clean": "lambdamr.cleaning",
    "delete": "lambdamr.deleting",
    "Failure": "lambdamr.failures",
    "blocks": "lambdamr.inputs",
    "csv": "lambdamr.inputs",
    "jsonl": "lambdamr.inputs",
    "lines": "lambdamr.inputs",
    "objects": "lambdamr.inputs",
    "records": "lambdamr.inputs",
    "Straggler": "lambdamr.stragglers",
    "reducers": "lambdamr",
}
"""Names whose modules `import lambdamr` leaves out, to stay quick."""

__all__ = [
    "ArgumentNotSerializable",
    "BadKey",
    "CorruptInput",
    "CorruptObject",
    "Cost",
    "Data",
    "DeployError",
    "DuplicateKey",
    "Executor",
    "Failure",
    "Future",
    "Futures",
    "InputChanged",
    "InputNotFound",
    "InvalidInput",
    "InvalidPairs",
    "InvocationFailed",
    "InvocationRefused",
    "Job",
    "JobFailed",
    "JobNotFound",
    "JobReport",
    "JobRunning",
    "JobTimeout",
    "LambdamrError",
    "MissingPermission",
    "NotSerializable",
    "PackageTooLarge",
    "Plan",
    "ReceiptMismatch",
    "RemoteError",
    "RemoteTraceback",
    "ResultNotSerializable",
    "RuntimeMismatch",
    "StoreError",
    "Straggler",
    "TaskFailed",
    "TaskLost",
    "TaskOutOfMemory",
    "TaskStats",
    "TaskTimeout",
    "UnstableKey",
    "UnwritablePair",
    "__version__",
    "as_completed",
    "as_completed_async",
    "attach",
    "blocks",
    "clean",
    "csv",
    "delete",
    "get_all_results",
    "jsonl",
    "lines",
    "objects",
    "records",
    "reducers",
    "wait",
]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _LOADED_ON_USE:
        raise AttributeError(f"module 'lambdamr' has no attribute {name!r}")
    if _LOADED_ON_USE[name] == __name__:  # a module of its own
        return import_module(f"{__name__}.{name}")
    value = getattr(import_module(_LOADED_ON_USE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


register()
