"""Every program in README and docs runs, and prints what stands below it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

PROGRAM = re.compile(r"```python\n(.*?)```\n(?:\n```\n(.*?)```\n)?", re.DOTALL)
"""A program, and the output below it, if there is one."""

VARYING = re.compile(r"\d{8}-\d{6}-[0-9a-f]{12}|\d+\.\d\d s\b")
"""Job ids and seconds."""


def programs() -> list[tuple[str, str, str]]:
    """Return (name, program, output) of every program in the documents."""
    return [
        (f"{path.name}-{number}", match[1], match[2] or "")
        for path in DOCUMENTS
        for number, match in enumerate(PROGRAM.finditer(path.read_text()), 1)
    ]


def without_varying(text: str) -> list[str]:
    """Return the lines, without times and memory: which of them are worth a word varies."""
    lines = [" ".join(VARYING.sub("…", line).split()) for line in text.strip().splitlines()]
    return [line for line in lines if not line.startswith(("seconds:", "waits:", "memory:"))]


@pytest.mark.parametrize(
    ("program", "output"), [p[1:] for p in programs()], ids=[p[0] for p in programs()]
)
def test_a_program_prints_what_the_document_says(program: str, output: str, tmp_path: Path) -> None:
    """A program of a document runs as it stands, in a folder with the examples, and prints its
    output: the same but for job ids and seconds, on a machine with any number of cores.
    """
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "program.py").write_text(program)
    environment = {**os.environ, "LAMBDAMR_WORKERS": "3"}  # no output shown is that of three
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert without_varying(done.stdout) == without_varying(output)


def test_the_documents_have_programs() -> None:
    """The README shows programs: the test above has something to run."""
    assert len(programs()) >= 3


def test_the_word_count_example_prints_counts_and_report(tmp_path: Path) -> None:
    """`make demo` runs this program: top words, outputs that exist, and a report."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "word_count.py"), "--top", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["4,331", "the"] in lines
    assert ["4,163", "to"] in lines
    outputs = [line[0] for line in lines if line and "/output/part-" in line[0]]
    assert outputs
    assert all(Path(path).exists() for path in outputs)
    assert "684,768 bytes" in done.stdout


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_figure_is_left_to_be_filled_in(path: Path) -> None:
    """A document holds figures, not the names of figures to come."""
    assert not re.findall(r"@[A-Z_]{3,}", path.read_text())


NAMED_TEST = re.compile(r"`(tests/[a-z_/]+\.py)::(test_\w+)`")


def test_the_tests_that_are_named_exist() -> None:
    """Every promise of docs/reliability.md names tests that are there."""
    named = NAMED_TEST.findall((ROOT / "docs" / "reliability.md").read_text())
    assert len(named) > 50
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not re.search(rf"\bdef {name}\(", (ROOT / path).read_text())
    ]
    assert missing == []
