"""`lambdamr config`: what is shown, and how the file is changed."""

import json
import os
import re
import tomllib
from pathlib import Path

import pytest

from lambdamr.cli import Exit, main
from lambdamr.cli.configuration import config, keys_like
from lambdamr.config import NAMES, load_config
from lambdamr.configuring import KEYS
from lambdamr.prices import prices_of

Capture = pytest.CaptureFixture[str]

WRITTEN = """\
# kept by hand
workers = 8  # the cores
root = '/data'

[prices]  # our contract
put = 0.01
# the end
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration file, which is not there yet, and nothing in the environment."""
    for name in NAMES:
        monkeypatch.delenv(f"LAMBDAMR_{name.upper()}", raising=False)
    path = tmp_path / "folder" / "config.toml"
    monkeypatch.setenv("LAMBDAMR_CONFIG", str(path))
    return path


def config_json(capsys: Capture, *arguments: str, status: int = Exit.OK) -> dict[str, object]:
    """Return what a command prints with --json, on one line."""
    assert main(["config", *arguments, "--json"]) == status
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.count("\n") == 1
    record: dict[str, object] = json.loads(captured.out)
    return record


VALUES = {
    "root": ("/data", "/data"),
    "workers": ("4", 4),
    "memory_mb": ("512", 512),
    "timeout_s": ("600", 600),
    "progress": ("no", False),
    "keep_days": ("0.5", 0.5),
    "backend": ("local", "local"),
    "region": ("eu-west-1", "eu-west-1"),
    "prices.put": ("0.000005", 0.000005),
    "prices.gb_s_arm": ("0", 0.0),
}


@pytest.mark.parametrize("key", KEYS)
def test_every_setting_is_set_shown_and_removed(path: Path, capsys: Capture, key: str) -> None:
    """In a file that is made, and that is empty again at the end; what is set is in force."""
    text, value = VALUES.get(key, ("1", 1.0))
    assert config_json(capsys, "set", key, text) == {"key": key, "value": value, "file": str(path)}
    load_config()
    found = config_json(capsys, "get", key)
    assert found == {"key": key, "value": value, "source": str(path)}
    assert main(["config"]) == Exit.OK
    assert str(path) in capsys.readouterr().out
    assert config_json(capsys, "unset", key)["removed"] is True
    assert path.read_text().strip() == ""
    assert config_json(capsys, "unset", key, status=Exit.FAILED)["removed"] is False


def test_what_is_in_the_file_stays_as_it_is(path: Path, capsys: Capture) -> None:
    """Comments, order, quotes, permissions and a link to the file; only the value is another."""
    real = path.parent.parent / "dotfiles.toml"
    real.write_text(WRITTEN)
    real.chmod(0o600)
    path.parent.mkdir()
    path.symlink_to(real)
    assert main(["config", "set", "workers", "4"]) == Exit.OK
    assert real.read_text() == WRITTEN.replace("8", "4")
    assert main(["config", "set", "backend", "local"]) == Exit.OK
    assert main(["config", "set", "prices.get", "0.1"]) == Exit.OK
    assert tomllib.loads(real.read_text()) == {
        "workers": 4, "root": "/data", "backend": "local", "prices": {"put": 0.01, "get": 0.1},
    }  # fmt: skip
    assert main(["config", "unset", "backend"]) == Exit.OK
    assert main(["config", "unset", "prices.get"]) == Exit.OK
    assert real.read_text() == WRITTEN.replace("8", "4")
    assert path.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(real.parent)) == ["dotfiles.toml", "folder"], "nothing else is left"
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["set", "worker", "4"], "There is no setting 'worker'; the names are root, workers"),
        (["set", "prices", "4"], "the names are"),
        (["set", "prices.x", "4"], "the names are"),
        (["set", "workers", "many"], "workers='many' is not a whole number"),
        (["set", "workers", "0"], "workers must be positive"),
        (["set", "memory_mb", "31"], "memory_mb must be >= 32, got 31"),
        (["set", "timeout_s", "nan"], "must be positive"),
        (["set", "progress", "perhaps"], "is not true or false"),
        (["set", "backend", "moon"], "one of local, aws"),
        (["set", "prices.put", "-1"], "a number >= 0"),
        (["set", "prices.put", "cheap"], "a number >= 0"),
        (["get", "worker"], "There is no setting 'worker'"),
        (["get", "prices.x"], "prices are put"),
        (["get", "root.x"], "There is no setting 'root.x'"),
        (["set", "workers"], "Missing argument"),
        (["nonsense"], "No such command"),
        (["--json", "get", "root"], "--json stands behind get"),
    ],
)
def test_what_cannot_be_set_is_said(
    path: Path, capsys: Capture, arguments: list[str], said: str
) -> None:
    """In one line, with the names or values that can be; nothing is written."""
    path.parent.mkdir()
    path.touch()
    assert main(["config", *arguments]) == Exit.USAGE
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""
    assert path.read_text() == ""


def test_a_file_that_is_wrong_is_not_made_worse(path: Path, capsys: Capture) -> None:
    """One that is no TOML is left alone; a name or a value that cannot be is named, and `unset`
    and `set` mend it.
    """
    path.parent.mkdir()
    path.write_text("workers = = 4\n")
    for command in (["set", "workers", "4"], ["unset", "workers"]):
        assert main(["config", *command]) == Exit.USAGE
        assert f"{path} is not valid TOML" in capsys.readouterr().err
    assert path.read_text() == "workers = = 4\n"

    path.write_text('worker = 4\nworkers = "many"\nprices = 3\n')
    assert main(["config", "set", "timeout_s", "4"]) == Exit.USAGE
    assert "`lambdamr config unset worker` removes it" in capsys.readouterr().err
    assert main(["config", "unset", "worker"]) == Exit.OK
    assert main(["config", "set", "prices.put", "1"]) == Exit.USAGE
    assert "prices must be a table" in capsys.readouterr().err
    assert main(["config", "unset", "prices.put"]) == Exit.FAILED
    assert main(["config", "unset", "prices"]) == Exit.OK
    assert main(["config", "set", "workers", "4"]) == Exit.OK
    assert path.read_text() == "workers = 4\n"


def test_the_environment_counts_more_and_says_so(
    path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is set in the file is not in force while a variable says something else."""
    monkeypatch.setenv("LAMBDAMR_WORKERS", "2")
    assert main(["config", "set", "workers", "4"]) == Exit.OK
    captured = capsys.readouterr()
    assert captured.out == f"workers = 4 in {path}\n"
    assert captured.err == "lambdamr: LAMBDAMR_WORKERS=2 counts more here\n"
    assert config_json(capsys, "get", "workers") == {
        "key": "workers", "value": 2, "source": "LAMBDAMR_WORKERS",
    }  # fmt: skip


def test_what_nobody_has_set(path: Path, capsys: Capture) -> None:
    """A default is shown; where lambdamr decides itself the status says so; a file that a variable
    names must be there to be read.
    """
    assert main(["config", "get", "keep_days"]) == Exit.USAGE
    assert "does not exist" in capsys.readouterr().err
    assert config_json(capsys, "path") == {"file": str(path), "exists": False}
    path.parent.mkdir()
    path.touch()
    assert main(["config", "get", "keep_days"]) == Exit.OK
    assert capsys.readouterr().out == "7.0\n"
    assert main(["config", "get", "workers"]) == Exit.FAILED
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "lambdamr: workers is not set\n")
    assert config_json(capsys, "path") == {"file": str(path), "exists": True}


def test_a_relative_root_is_that_of_the_shell(
    path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file is read from other folders later."""
    monkeypatch.chdir(tmp_path)
    assert config_json(capsys, "set", "root", "jobs")["value"] == str(tmp_path / "jobs")
    assert config_json(capsys, "set", "root", "s3://bucket/x")["value"] == "s3://bucket/x"


DOCUMENTS = [*(Path(__file__).parent.parent / "docs").glob("*.md")]


@pytest.mark.parametrize(
    "block",
    [
        block
        for path in DOCUMENTS
        for block in re.findall(r"```toml\n(.*?)```", path.read_text(), re.DOTALL)
    ],
)
def test_what_the_documents_say_of_the_file_is_read(path: Path, block: str) -> None:
    """Each piece of config.toml in docs is one that counts."""
    path.parent.mkdir()
    path.write_text(block)
    config = load_config()
    prices_of(config.region or "us-east-1", config.prices)


def test_keys_are_completed_and_every_command_has_examples(capsys: Capture) -> None:
    """Those that begin so; `config set --help` names them all."""
    for name, command in config.commands.items():
        assert main(["config", name, "--help"]) == Exit.OK
        printed = capsys.readouterr().out
        assert "Examples:" in printed
        if name == "set":
            assert all(key in printed for key in KEYS if "." not in key)
            found = keys_like(command.make_context(name, ["a", "b"]), command.params[0], "prices.p")
            assert found == ["prices.put"]
