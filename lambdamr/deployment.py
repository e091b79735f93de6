"""The record of a deployed runtime: what a client must know to launch jobs there.

`lambdamr deploy-runtime` writes it twice: under the root, where every client of the account finds
it (`deployment.json`), and in the user's configuration folder, so that `Executor()` uses it.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from lambdamr_runtime.errors import CorruptObject
from lambdamr_runtime.wire import MALFORMED

DEFAULT_NAME = "default"

RECORD_KEY = "deployment.json"
"""Relative to the root."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A runtime in an AWS account."""

    name: str
    """What the user calls it; several may stand in one account."""
    region: str
    root: str
    """s3://bucket/prefix: everything of lambdamr lies there."""
    worker: str
    """Name of the function that runs tasks."""
    supervisor: str
    """Name of the function that its failures go to."""
    python: str
    """Minor version, "3.12"."""
    architecture: str
    """x86_64 or arm64."""
    wire: int
    """Wire version of the runtime."""
    memory_mb: int
    timeout_s: int
    tmp_mb: int
    """Size of /tmp."""
    packages: Mapping[str, str]
    """Distribution and version of everything in the layers."""
    read: tuple[str, ...] = ()
    """URIs that the role may read beside the root: everything that begins so."""
    write: tuple[str, ...] = ()
    """URIs that the role may write beside the root: everything that begins so."""
    requirements: tuple[str, ...] = ()
    """What the user added to the layer, in pip's format."""
    account: str = ""
    """Number of the AWS account."""
    recursive: bool = True
    """Whether the worker may invoke itself without end: RecursiveLoop is Allow."""

    def encode(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def decode(cls, data: bytes, source: str) -> "Deployment":
        """Parse a record.

        Raises:  CorruptObject: it is none.
        """
        try:
            record = json.loads(data)
            for name in ("read", "write", "requirements"):
                record[name] = tuple(record.get(name, ()))
            return cls(**record)
        except MALFORMED as error:
            raise CorruptObject(
                f"{source} is not the record of a deployed runtime: {error}. "
                "Run `lambdamr deploy-runtime`."
            ) from error


def profile_path(name: str = DEFAULT_NAME) -> str:
    """Return where the user's record of a deployment lies."""
    import platformdirs  # only where a deployment is looked for

    return os.path.join(platformdirs.user_config_dir("lambdamr"), "deployments", f"{name}.json")


def load_profile(name: str = DEFAULT_NAME) -> Deployment | None:
    """Return the user's record of a deployment, None where there is none.

    Raises:  CorruptObject: the file is damaged.
    """
    path = profile_path(name)
    try:
        with open(path, "rb") as file:
            return Deployment.decode(file.read(), path)
    except FileNotFoundError:
        return None


def save_profile(deployment: Deployment) -> str:
    """Write the user's record of a deployment; returns its path."""
    from lambdamr.replacing import replace_file  # only who deploys writes one

    path = profile_path(deployment.name)
    replace_file(path, deployment.encode())
    return path


def forget_profile(name: str = DEFAULT_NAME) -> bool:
    """Remove the user's record of a deployment; whether there was one."""
    try:
        os.unlink(profile_path(name))
    except FileNotFoundError:
        return False
    return True
