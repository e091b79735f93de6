"""The protocol under seeded histories of faults: see tests/simulation."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.history import Case, History
from tests.simulation.jobs import TEMPLATES
from tests.simulation.mutants import MUTANTS

HISTORIES = 400
MOST_SEEDS = 2000
"""Histories in which each mutant must be noticed."""

REGRESSIONS = {
    166: "a failure record that came again, behind the commit of its chunk, blamed the next one",
    168: "a failure record that came twice counted one death twice",
    2487: "children that die again and again while they record a death",
    4263: "a store that refuses a read of the result",
    232698: "output that a repair of the finalizer had begun to remove when it crashed itself",
    68075: "several tasks of a chunk, each of which runs into a limit",
}
"""Seeds that found defects, or holes in what is checked."""


def run(seed: int, case: Case | None = None) -> History:
    history = History(seed, case=case)
    history.run()
    return history


@pytest.mark.parametrize("name", TEMPLATES)
def test_jobs_without_faults_end_well(name: str) -> None:
    """Exact results, the expected end, and one invocation per lane and handover."""
    for seed in range(3):
        history = run(seed, Case(name, quiet=True))
        log = history.world.log
        assert (log.deaths, log.multiplied, log.swept, log.refused) == (0, 0, 0, 0) or (
            name in ("time limits", "deadly")
        )


@pytest.mark.parametrize("start", range(0, HISTORIES, 100))
def test_histories_of_faults_end_well(start: int) -> None:
    """Whatever goes wrong: the job ends, results are exact, nothing is done or written twice."""
    for seed in range(start, start + 100):
        run(seed)


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_what_was_found_stays_mended(seed: int) -> None:
    """Histories that failed once."""
    run(seed)


def test_one_seed_is_one_history() -> None:
    """The same requests at the same times, in this process and under other hash seeds."""
    program = (
        "import zlib; from tests.simulation.history import History\n"
        "for seed in range(20):\n"
        "    history = History(seed); history.run()\n"
        "    print(zlib.crc32('\\n'.join(history.trace()).encode()))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "77")
    }
    assert len(outputs) == 1
    assert run(3).trace() == run(3).trace()
    assert run(3).trace() != run(4).trace()


@pytest.mark.parametrize("rule", MUTANTS)
def test_a_rule_taken_out_is_noticed(rule: str) -> None:
    """Each mutant fails in some history; the real protocol passes that one."""
    mutant = MUTANTS[rule]
    for seed in range(mutant.start, MOST_SEEDS):
        try:
            History(seed, mutant.rules, mutant.mutable, mutant.case).run()
        except Exception:  # an invariant, or an error that the mutant leads to
            run(seed, mutant.case)
            return
    pytest.fail(f"{MOST_SEEDS} histories do not notice: {rule}")
