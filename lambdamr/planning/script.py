"""`lambdamr plan SCRIPT`: what a script's jobs would do, told by the script itself.

The script runs as it stands, in this process, but its executors pack and note their jobs and launch
none. It stops where it needs a result; what it has planned by then is the plan.
"""

import contextlib
import os
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lambdamr import executor as executors
from lambdamr.config import load_config
from lambdamr.executor import Executor
from lambdamr.planning.asking import planned, prices_at
from lambdamr.planning.plan import Plan
from lambdamr.planning.rehearsal import PlanEnds, RehearsalBackend, RehearsalEngine
from lambdamr.planning.targets import AWS, LOCAL, Target, assumed_target, deployed_target
from lambdamr_runtime.limits import CONCURRENCY, FREE_SHARE, PLANNED_MEMORY_MB
from lambdamr_runtime.store import open_store


@dataclass(frozen=True, slots=True)
class ScriptPlan:
    """What a script would do."""

    plans: tuple[Plan, ...]
    """Of its jobs, in the order in which it makes them."""
    needs_result: str
    """Where it stopped, as "script.py:12"; empty where it went on to its end."""


class ScriptFailed(Exception):
    """The script that was to be planned has failed; the message is what Python would have said."""


class Rehearsal:
    """Makes the engines of executors while a script is planned.

    Args:  on: "aws" or "local"; None: where each executor would run. region: of AWS; None: as
           deployed or configured.
    """

    def __init__(self, on: str | None = None, region: str | None = None) -> None:
        self._on = on
        self._region = region
        self._engines: list[RehearsalEngine] = []
        self._order: list[tuple[RehearsalEngine, int]] = []

    def engine_of(self, executor: Executor) -> RehearsalEngine:
        """Return the engine of an executor that the script has made."""
        place = executor.place
        workers, width = place.local_size()
        target = Target(LOCAL, workers, width, place.memory_mb or PLANNED_MEMORY_MB)
        deployed = place.deployment() if self._on is None else None
        if deployed is not None:
            target = deployed_target(deployed, int(CONCURRENCY * FREE_SHARE))
        elif self._on == AWS:
            target = assumed_target(load_config())
        if target.is_aws and self._region is not None:
            target = replace(target, region=self._region)
        engine = RehearsalEngine(RehearsalBackend(open_store(place.root), target))
        engine.noted = self._note
        self._engines.append(engine)
        return engine

    def _note(self, engine: RehearsalEngine) -> None:
        self._order.append((engine, len(engine.submissions) - 1))

    def plans(self) -> tuple[Plan, ...]:
        """Return the plans of all jobs so far, in order."""
        config = load_config()
        return tuple(
            planned(
                engine,
                engine.submissions[index],
                prices_at(engine.target, config, None),
                engine.stored_before(index),
            )
            for engine, index in self._order
        )


def plan_script(
    path: str, arguments: Sequence[str], on: str | None = None, region: str | None = None
) -> ScriptPlan:
    """Run a script up to the first result that it needs, and return what it planned.

    Args:    arguments: what the script finds in sys.argv[1:].
    Raises:  ScriptFailed: the script has raised something. UnknownPrices: of the region.
    """
    rehearsal = Rehearsal(on, region)
    needs_result = ""
    with _rehearsing(rehearsal), _arguments([path, *arguments]):
        try:
            runpy.run_path(path, run_name="__main__")
        except PlanEnds as end:
            needs_result = _line_of(end, path)
        except SystemExit as end:
            if end.code not in (None, 0):
                raise ScriptFailed(f"{path} ended with exit status {end.code}") from end
        except Exception as error:
            raise ScriptFailed(_trace_of(error, path)) from error
        return ScriptPlan(rehearsal.plans(), needs_result)


def _trace_of(error: Exception, path: str) -> str:
    """Return the traceback of a script's error, as Python shows it where it runs the script."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != path:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace))


@contextlib.contextmanager
def _rehearsing(rehearsal: Rehearsal) -> Iterator[None]:
    executors.rehearsal = rehearsal
    try:
        yield
    finally:
        executors.rehearsal = None


@contextlib.contextmanager
def _arguments(argv: list[str]) -> Iterator[None]:
    """Let a script see its arguments, and import what lies beside it, as `python SCRIPT` does."""
    saved, path = sys.argv, list(sys.path)
    sys.argv = argv
    sys.path.insert(0, os.path.dirname(os.path.abspath(argv[0])))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = saved, path


def _line_of(end: BaseException, path: str) -> str:
    """Return the script's own line at which an exception was raised."""
    found = ""
    trace = end.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            found = f"{path}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found or path
