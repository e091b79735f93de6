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


def test_every_command_is_documented() -> None:
    """docs/command-line.md has a line for each."""
    text = (Path(__file__).parent.parent / "docs" / "command-line.md").read_text()
    assert [name for name in cli.COMMANDS if f"| `{name}" not in text] == []


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
        (["jobs", "--root", "/no/where"], Exit.NOT_FOUND, "no directory /no/where."),
        (["jobs", "-n", "x"], Exit.USAGE, "'x' is not a whole number."),
        (["run", "--timeout", "x", "a.py"], Exit.USAGE, "'x' is not a number."),
        (["run", "--regoin", "x", "a.py"], Exit.USAGE, "No such option '--regoin'."),
        (
            ["show", "last", "last"],
            Exit.USAGE,
            "extra argument (last). See `lambdamr show --help`.",
        ),
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


JOB_OR_SHELL: dict[str, tuple[str, ...]] = {
    "cancel": ("last",), "completion": ("bash",), "delete": ("last",), "logs": ("last",),
    "result": ("last",), "retry": ("last",), "show": ("last",),
}  # fmt: skip


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_a_bad_flag_is_one_line_that_says_where_to_read_on(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of every command; what stands behind a script is the script's."""
    assert main([command, *JOB_OR_SHELL.get(command, ()), "--nonsense"]) == Exit.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lambdamr: ")
    assert captured.err.endswith(f"See `lambdamr {command} --help`.\n")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    "command", ["cancel", "delete", "logs", "result", "retry", "show", "status"]
)
def test_an_unknown_job_is_one_line(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With the command that lists those there are, and a status of its own."""
    assert main([command, "nope", "--root", str(tmp_path)]) == Exit.NOT_FOUND
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"lambdamr: There is no job 'nope' under {tmp_path}. `lambdamr jobs` lists them; "
        "check --root.\n"
    )


@pytest.mark.parametrize(
    ("region", "keys", "said"),
    [
        ("", "", "No AWS region is set. Set AWS_REGION, or give --region."),
        ("eu-west-1", "", "no usable AWS credentials"),
        ("no region", "some", "Check the network and the region."),
    ],
)
@pytest.mark.parametrize("command", ["deploy-runtime", "undeploy", "status", "doctor"])
def test_aws_without_keys_or_region_is_one_line(
    command: str,
    region: str,
    keys: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Nothing is asked of AWS, and the way out is told."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, keys)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", region)
    assert main([command]) == Exit.FAILED
    captured = capsys.readouterr()
    assert said in captured.err
    unknown = "This machine knows of no deployment 'default'. "
    assert (unknown in captured.err) is (not region and command != "deploy-runtime")
    assert (captured.err.count("\n"), captured.out) == (1, "")
