"""The record of a deployed runtime."""

from pathlib import Path

import pytest

from lambdamr.deployment import Deployment, forget_profile, load_profile, profile_path, save_profile
from lambdamr_runtime.errors import CorruptObject

RECORD = Deployment(
    "default", "eu-west-1", "s3://lambdamr-1/jobs", "lambdamr-worker", "lambdamr-supervisor",
    "3.12", "arm64", 1, 1769, 900, 512, {"obstore": "0.12.1"}, ("s3://logs/",),
)  # fmt: skip


def test_a_record_is_what_was_encoded() -> None:
    """decode(encode(x)) == x."""
    assert Deployment.decode(RECORD.encode(), "a test") == RECORD


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"read": [], "write": []}', b"\xff"])
def test_a_damaged_record_names_its_source(data: bytes) -> None:
    """A record that cannot be one is CorruptObject, with the file and the way out."""
    with pytest.raises(CorruptObject, match=r"there\.json.*deploy-runtime"):
        Deployment.decode(data, "there.json")


def test_a_profile_is_saved_loaded_and_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is saved is loaded until it is forgotten; a missing profile is None."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load_profile() is None
    path = save_profile(RECORD)
    assert path == profile_path()
    assert load_profile() == RECORD
    assert forget_profile()
    assert not forget_profile()
    assert load_profile() is None
