"""The command line: what it prints, and how it ends."""

import json
from pathlib import Path

import pytest

from lambdamr import cli
from lambdamr.cli import Exit, main


def test_every_command_is_in_its_module_and_has_help_with_examples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`lambdamr COMMAND --help` works for all, and shows how it is used."""
    for command in cli.COMMANDS:
        assert main([command, "--help"]) == Exit.OK
        assert "Examples:" in capsys.readouterr().out, command


def test_config_shows_what_is_in_force(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment counts; --json is one line that parses."""
    monkeypatch.setenv("LAMBDAMR_WORKERS", "7")
    assert main(["config", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["workers"] == 7


def test_clean_removes_nothing_from_an_empty_root(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """An empty directory is clean."""
    assert main(["clean", "--root", str(tmp_path)]) == Exit.OK
    assert capsys.readouterr().out == "0 jobs removed\n"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nonsense"], Exit.USAGE, "No such command"),
        (["clean", "--nonsense"], Exit.USAGE, "No such option"),
        (["clean", "--older-than", "-1"], Exit.USAGE, "must be >= 0"),
        (["clean", "--root", "s3://bucket/x"], Exit.USAGE, "no local directory"),
    ],
)
def test_an_error_is_a_line_and_a_status(
    arguments: list[str], status: Exit, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A user's error is told without a traceback, on stderr."""
    assert main(arguments) == status
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
