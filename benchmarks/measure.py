"""Fresh processes that measure, and what they answer."""

import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.systems import System

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 600.0

IMPORT_PROGRAM = """
import sys, time
for hidden in {hidden!r}:
    sys.modules[hidden] = None
started = time.perf_counter()
import {module}
elapsed_ms = 1000 * (time.perf_counter() - started)
loaded = sorted({{name.partition(".")[0] for name in sys.modules}} & set({watched!r}))
if loaded:
    sys.exit(f"{module} imported {{', '.join(loaded)}}")
print([elapsed_ms])
"""
"""A process of its own, with nothing imported before. A hidden module cannot be imported."""


class MeasurementFailed(Exception):
    """A measuring process ended without figures; the text is the end of its stderr."""


def rates(system: System, tasks: int, rounds: int) -> list[float]:
    """Return tasks/s, one figure per round."""
    return _figures("-m", "benchmarks.probe", "rates", system.module, str(tasks), str(rounds))


def first_results(system: System, processes: int) -> list[float]:
    """Return the seconds from import to first result, one figure per fresh process."""
    arguments = ("-m", "benchmarks.probe", "first_result", system.module)
    return [figure for _ in range(processes) for figure in _figures(*arguments)]


def outstanding(tasks: int) -> list[float]:
    """Return the client's peak memory in MB with that many futures outstanding."""
    return _figures("-m", "benchmarks.probe", "outstanding", str(tasks))


def imports(
    module: str, processes: int, *, watched: Sequence[str], hidden: Sequence[str] = ()
) -> list[float]:
    """Return the milliseconds of an import, one figure per fresh process.

    Args:    watched: top-level modules that must not be loaded by it. hidden: modules that
             must not be importable while it runs.
    Raises:  MeasurementFailed: a watched module was loaded, or the import failed.
    """
    program = IMPORT_PROGRAM.format(module=module, watched=list(watched), hidden=list(hidden))
    return [figure for _ in range(processes) for figure in _figures("-c", program)]


def is_installed(system: System) -> bool:
    try:
        return importlib.util.find_spec(system.needs) is not None
    except ModuleNotFoundError:
        return False


def version(system: System) -> str:
    """Return the installed version; empty for the standard library and for what is missing."""
    try:
        return importlib.metadata.version(system.needs)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _figures(*arguments: str) -> list[float]:
    """Run Python with these arguments and return the list on the last line of its stdout."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise MeasurementFailed(f"no answer within {TIMEOUT_S:.0f} s") from error
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if process.returncode:
        lines = stderr.strip().splitlines()
        raise MeasurementFailed(lines[-1] if lines else f"exit status {process.returncode}")
    figures: list[float] = json.loads(stdout.strip().splitlines()[-1])
    return figures
