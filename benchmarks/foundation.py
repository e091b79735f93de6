"""How fast the foundation is: futures on the embedded backend, against targets and peers.

    python -m benchmarks.foundation [--only NAME] [--quick] [--json FILE]

Every figure is taken in this run, in fresh processes, as a median. A peer that is not installed
is left out and said. The exit status is 1 if a target is missed.
"""

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from benchmarks import measure
from benchmarks.measure import MeasurementFailed
from benchmarks.systems import LAMBDAMR, LAMBDAMR_SINGLE, PEERS, PROCESS_POOL, System

OUTSTANDING_TASKS = 100_000
BOTO = ("boto3", "botocore")
RATE = "tasks/s"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    rounds: int
    """Most rounds of a warm system."""
    first_processes: int
    """Fresh processes for a first result of lambdamr."""
    import_processes: int
    tasks_share: float
    """Part of a system's tasks per round that is run."""


FULL = Effort(rounds=5, first_processes=9, import_processes=15, tasks_share=1.0)
QUICK = Effort(rounds=2, first_processes=3, import_processes=3, tasks_share=0.2)


@dataclass(frozen=True, slots=True)
class Work:
    """One line of the targets' table: what is measured and what it must reach."""

    title: str
    unit: str
    target: str
    """As the table shows it."""
    bound: float | None
    """What the median must reach; None where the bound is the process pool of this run."""

    @property
    def higher_is_better(self) -> bool:
        return self.unit == RATE


@dataclass(slots=True)
class Result:
    """What was measured for one work."""

    work: Work
    ours: list[float] = field(default_factory=list)
    """One figure per round or process, in the work's unit; empty if it failed."""
    peers: dict[str, list[float]] = field(default_factory=dict)
    """The same for each peer that answered, by its name."""
    notes: list[str] = field(default_factory=list)
    """Who is missing, and why."""

    @property
    def ok(self) -> bool:
        bound = self.work.bound
        if bound is None:
            bound = _median(self.peers.get(PROCESS_POOL.name, []))
        mine = _median(self.ours)
        if mine is None or bound is None:
            return False
        return mine >= bound if self.work.higher_is_better else mine <= bound

    def times_better(self, peer: str) -> float | None:
        """Return how many times as good as that peer lambdamr is; above 1 it is ahead."""
        mine, other = _median(self.ours), _median(self.peers[peer])
        if not mine or not other:
            return None
        return mine / other if self.work.higher_is_better else other / mine


def throughput(effort: Effort) -> Result:
    """No-op tasks per second, lambdamr with its own chunks, the peers task by task."""
    result = Result(
        Work(
            f"{_tasks(LAMBDAMR, effort):,} no-op tasks", RATE, ">= ProcessPoolExecutor", bound=None
        )
    )
    _measure_peers(result, lambda peer: _peer_rates(peer, effort))
    _measure_ours(result, lambda: _rates(LAMBDAMR, effort))
    # The pool is the bar here and a machine drifts: it is measured on both sides of lambdamr.
    before = result.peers.get(PROCESS_POOL.name, [])
    result.peers[PROCESS_POOL.name] = [*before, *_rates(PROCESS_POOL, effort)]
    return result


def throughput_single(effort: Effort) -> Result:
    """No-op tasks per second with an outcome in the store for each."""
    result = Result(
        Work(
            f"{_tasks(LAMBDAMR_SINGLE, effort):,} no-op tasks, chunksize=1",
            RATE,
            ">= 4,000 tasks/s",
            bound=4_000.0,
        )
    )
    _measure_peers(result, lambda peer: _peer_rates(peer, effort))
    _measure_ours(result, lambda: _rates(LAMBDAMR_SINGLE, effort))
    return result


def first_result(effort: Effort) -> Result:
    """Seconds from the import to the first result, in a fresh process."""
    result = Result(Work("import to first result", "s", "<= 0.25 s", bound=0.25))
    peer_processes = max(1, effort.first_processes // 3)
    _measure_peers(result, lambda peer: measure.first_results(peer, peer_processes))
    _measure_ours(result, lambda: measure.first_results(LAMBDAMR, effort.first_processes))
    return result


def import_client(effort: Effort) -> Result:
    """Milliseconds of `import lambdamr`; boto3 waits until it is needed."""
    result = Result(Work("import lambdamr", "ms", "<= 60 ms, no boto", bound=60.0))
    _measure_ours(
        result, lambda: measure.imports("lambdamr", effort.import_processes, watched=BOTO)
    )
    return result


def import_handler(effort: Effort) -> Result:
    """Milliseconds of the handler's import, where lambdamr cannot be imported: a cold start."""
    result = Result(Work("import the handler", "ms", "<= 60 ms, no boto", bound=60.0))
    _measure_ours(
        result,
        lambda: measure.imports(
            "lambdamr_runtime.handler",
            effort.import_processes,
            watched=BOTO,
            hidden=("lambdamr",),
        ),
    )
    return result


def outstanding_futures(_: Effort) -> Result:
    """Peak memory of the client when 100,000 futures are outstanding."""
    result = Result(
        Work(f"{OUTSTANDING_TASKS:,} outstanding futures", "MB", "<= 300 MB", bound=300.0)
    )
    _measure_ours(result, lambda: measure.outstanding(OUTSTANDING_TASKS))
    return result


WORKS: dict[str, Callable[[Effort], Result]] = {
    "throughput": throughput,
    "throughput-single": throughput_single,
    "first-result": first_result,
    "import-client": import_client,
    "import-handler": import_handler,
    "memory": outstanding_futures,
}


def table(results: Iterable[Result]) -> str:
    """Return the results as text: a line per work, and one more for each further peer."""
    rows: list[tuple[str, ...]] = [("work", "lambdamr", "peer", "peer's", "ratio", "target", "ok?")]
    for result in results:
        rows += _rows(result)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def as_json(results: Iterable[Result]) -> str:
    """Return the results with every single figure, and what they were taken on."""
    document = {
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "versions": {peer.needs: measure.version(peer) for peer in (LAMBDAMR, *PEERS)},
        "results": [{**asdict(result), "ok": result.ok} for result in results],
    }
    return json.dumps(document, indent=2) + "\n"


def main() -> int:
    options = _parse_options()
    effort = QUICK if options.quick else FULL
    results = []
    for name in options.only or WORKS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        results.append(WORKS[name](effort))
    print(table(results))
    for note in dict.fromkeys(note for result in results for note in result.notes):
        print(f"note: {note}")
    if options.json:
        options.json.write_text(as_json(results), encoding="utf-8")
    return 0 if all(result.ok for result in results) else 1


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.foundation",
        description="Measure lambdamr's foundation against its targets and its peers.",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=WORKS,
        metavar="NAME",
        help=f"measure this alone; may be repeated ({', '.join(WORKS)})",
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds, tasks and processes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    return parser.parse_args()


def _rates(system: System, effort: Effort) -> list[float]:
    return measure.rates(system, _tasks(system, effort), min(system.rounds, effort.rounds))


def _tasks(system: System, effort: Effort) -> int:
    return int(system.tasks * effort.tasks_share)


@cache
def _peer_rates(peer: System, effort: Effort) -> list[float]:
    """Peers have no chunks, so both throughputs stand against one measurement."""
    return _rates(peer, effort)


def _measure_ours(result: Result, measured: Callable[[], list[float]]) -> None:
    try:
        result.ours = measured()
    except MeasurementFailed as error:
        result.notes.append(f"lambdamr failed at {result.work.title!r}: {error}")


def _measure_peers(result: Result, measured: Callable[[System], list[float]]) -> None:
    for peer in PEERS:
        if not measure.is_installed(peer):
            result.notes.append(f"{peer.name} is not installed: left out")
            continue
        try:
            result.peers[peer.name] = measured(peer)
        except MeasurementFailed as error:
            result.notes.append(f"{peer.name} failed at {result.work.title!r}: {error}")


def _rows(result: Result) -> list[tuple[str, ...]]:
    work = result.work
    mine = _shown(_median(result.ours), work.unit)
    verdict = "yes" if result.ok else "NO"
    peers = [
        (name, _shown(_median(figures), work.unit), _shown(result.times_better(name), "x"))
        for name, figures in result.peers.items()
    ] or [("", "", "")]
    first, *others = peers
    return [
        (work.title, mine, *first, work.target, verdict),
        *(("", "", *peer, "", "") for peer in others),
    ]


def _shown(figure: float | None, unit: str) -> str:
    if figure is None:
        return "-"
    digits = 0 if figure >= 100 else 1 if figure >= 10 else 2 if figure >= 1 else 3
    return f"{figure:,.{digits}f} {unit}"


def _median(figures: list[float]) -> float | None:
    return statistics.median(figures) if figures else None


if __name__ == "__main__":
    sys.exit(main())
