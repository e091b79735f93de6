"""Every example runs as it stands, and its answer is right.

`examples/word_count.py` is what `make demo` runs: see test_documents.py.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def printed_by(name: str, *arguments: str) -> str:
    """Run an example; return what it printed."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_points_at_random_tell_pi() -> None:
    """Close to pi, from all the points asked for."""
    printed = printed_by("monte_carlo_pi.py", "--points", "400000", "--tasks", "8")
    found = re.search(r"about (\d\.\d+)", printed)
    assert found is not None
    assert abs(float(found[1]) - 3.1416) < 0.02
    assert "400,000 points in 8 tasks" in printed


def test_a_sweep_ranks_the_parameters() -> None:
    """The best ones known for these digits come first."""
    first, *_, last = printed_by("parameter_sweep.py").splitlines()
    assert first == "0.9761  C=10 gamma=0.001"
    assert last == "12 combinations, 3 folds, 36 tasks"


def test_an_index_knows_chapters() -> None:
    """A character's first chapter, a word that is nowhere."""
    printed = printed_by("inverted_index.py", "wickham", "helicopter").splitlines()
    assert printed[0].endswith("words in 61 chapters")
    assert printed[1].startswith("wickham: 15, 16,")
    assert printed[2] == "helicopter: nowhere"


def test_logs_are_counted() -> None:
    """Every request has one status, and one hour; lines that are none are told."""
    sections = printed_by("log_analysis.py").strip().split("\n\n")
    by_name = {lines[0]: lines[1:] for lines in (text.splitlines() for text in sections)}
    statuses = [line.split() for line in by_name["requests by status"]]
    assert sum(int(count.replace(",", "")) for count, _ in statuses) == 10_000
    assert {status for _, status in statuses} == {"200", "304", "404", "500"}
    assert "not a log line" not in by_name


def test_lines_that_are_no_log_are_counted_as_such(tmp_path: Path) -> None:
    """A program that reads logs says what it could not read."""
    path = tmp_path / "access.log"
    path.write_text('1.2.3.4 - - [01/Mar/2026:10:00:00 +0000] "GET / HTTP/1.1" 200 5\nnonsense\n')
    printed = printed_by("log_analysis.py", str(path))
    assert re.search(r"not a log line\n +1  \n", printed)


@pytest.mark.parametrize("form", [(), ("--gzip",)], ids=["plain", "gzip"])
def test_the_benchmark_queries_have_duckdbs_answers(form: tuple[str, ...]) -> None:
    """1a, 1b and 2a over generated tables, compared row by row."""
    printed = printed_by(
        "big_data_benchmark.py", "--rows", "5000", "--files", "3", "--verify", *form
    )
    assert [line.partition(":")[0] for line in printed.splitlines() if "DuckDB" in line] == [
        "query 1a",
        "query 1b",
        "query 2a",
    ]
