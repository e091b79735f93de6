"""An AWS emulator for tests and `make demo-aws`: ministack, in an environment of its own.

Its workers import what is installed beside it. There is neither lambdamr nor anything of the layer
there, so that a function which runs proves that the zip and the layer are complete.
"""

import contextlib
import fcntl
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
REQUIREMENTS = REPOSITORY / "tests" / "emulator.txt"
ENVIRONMENT = REPOSITORY / ".venv-emulator"
"""Made by `make test`, or by the first test that needs it."""

REGION = "eu-west-1"
ACCOUNT = "000000000000"
START_S = 30.0
"""An emulator that takes longer to answer has failed."""

PENDING_S = 0.02
"""How long a function of the emulator stays Pending; its own half a second, which is no truer, took
a minute of the tests."""

PROGRAM = f"""
import ministack.services.lambda_svc as service
service._LAMBDA_STATE_TRANSITION_DELAY = {PENDING_S}
import ministack.app
ministack.app.main()
"""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What signs the requests of a principal."""

    access_key: str
    secret_key: str


ROOT = Credentials("test", "test")
"""The account's root user: may do everything."""


MISNAMED: tuple[dict[str, Any], ...] = (
    # CreateFunction has its name in the body; the emulator asks for the permission on "*".
    {"Effect": "Allow", "Action": "lambda:CreateFunction", "Resource": "*"},
    # It calls each look at layers ListLayers.
    {"Effect": "Allow", "Action": "lambda:ListLayers", "Resource": "*"},
    # It takes a look at a function's reserved concurrency for a change of it.
    {"Effect": "Allow", "Action": "lambda:PutFunctionConcurrency", "Resource": "*"},
)
"""What the emulator asks for and AWS does not: added to the policies of a user."""


@dataclass(frozen=True, slots=True)
class Ministack:
    """A running emulator."""

    endpoint: str
    """http://127.0.0.1:port"""
    pid: int
    log: Path
    """What it printed, for a test that failed."""

    def environment(self, credentials: Credentials = ROOT, region: str = REGION) -> dict[str, str]:
        """Return the variables with which every AWS client talks to this emulator."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
            "AWS_DEFAULT_REGION": region,
            "AWS_REGION": region,
            "AWS_ALLOW_HTTP": "true",  # obstore refuses http otherwise
            "AWS_CONFIG_FILE": os.devnull,  # nobody's own accounts
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def session(self, credentials: Credentials = ROOT, region: str = REGION) -> Any:
        """Return a boto3 session of a principal; its clients need `endpoint_url=`."""
        return _session(credentials, region)

    def client(self, service: str, credentials: Credentials = ROOT, region: str = REGION) -> Any:
        """Return a boto3 client of a principal."""
        return _client(service, credentials, region, self.endpoint)

    def user(self, name: str, policy: Mapping[str, Any]) -> Credentials:
        """Make a user with exactly one policy and MISNAMED; one of that name is made anew."""
        statements = [*policy["Statement"], *MISNAMED]
        document = json.dumps({**policy, "Statement": statements})
        iam = self.client("iam")
        self.remove_user(name)
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=document)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return Credentials(key["AccessKeyId"], key["SecretAccessKey"])

    def remove_user(self, name: str) -> None:
        """Remove what `user` made; no user of that name is no error."""
        iam = self.client("iam")
        with contextlib.suppress(iam.exceptions.NoSuchEntityException):
            for key in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
                iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
            for policy in iam.list_user_policies(UserName=name)["PolicyNames"]:
                iam.delete_user_policy(UserName=name, PolicyName=policy)
            iam.delete_user(UserName=name)

    def reset(self) -> None:
        """Remove everything in it."""
        request = urllib.request.Request(f"{self.endpoint}/_ministack/reset", method="POST")
        urllib.request.urlopen(request, timeout=START_S).close()


@functools.cache
def _loader() -> Any:
    """Return what reads botocore's descriptions of services, each once: 0.1 s a time otherwise."""
    import botocore.loaders

    return botocore.loaders.create_loader(None)


@functools.cache
def _session(credentials: Credentials, region: str) -> Any:
    import boto3
    import botocore.session

    core = botocore.session.Session()
    core.register_component("data_loader", _loader())
    return boto3.Session(
        credentials.access_key, credentials.secret_key, region_name=region, botocore_session=core
    )


@functools.cache
def _client(service: str, credentials: Credentials, region: str, endpoint: str) -> Any:
    return _session(credentials, region).client(service, endpoint_url=endpoint)


@contextlib.contextmanager
def running(folder: Path, auth: bool = True) -> Iterator[Ministack]:
    """Run an emulator as long as the block; its temporary files go to *folder*.

    Args:    auth: whether signatures and policies are enforced.
    """
    log = folder / "ministack.log"
    port = _free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "AUTH": "true" if auth else "false",
    }
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [prepared_environment() / "bin" / "python", "-c", PROGRAM],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    emulator = Ministack(f"http://127.0.0.1:{port}", process.pid, log)
    try:
        _await_start(emulator, process)
        yield emulator
    finally:
        process.terminate()
        try:
            process.wait(timeout=START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _await_start(emulator: Ministack, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(f"{emulator.endpoint}/_ministack/health", timeout=1).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)  # a server of another program says nothing when it is up
    raise RuntimeError(f"ministack did not start:\n{emulator.log.read_text()}")


def prepared_environment() -> Path:
    """Return the emulator's virtual environment, made where it is missing or of another version."""
    stamp = ENVIRONMENT / ".ready"
    wanted = REQUIREMENTS.read_text()
    with open(REPOSITORY / ".venv-emulator.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs at once
        if not stamp.exists() or stamp.read_text() != wanted:
            subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
            subprocess.run(
                [ENVIRONMENT / "bin" / "python", "-m", "pip", "install", "--quiet",
                 "--disable-pip-version-check", "--requirement", REQUIREMENTS],
                check=True,
            )  # fmt: skip
            stamp.write_text(wanted)
    return ENVIRONMENT


@pytest.fixture(scope="session")
def ministack() -> Iterator[Ministack]:
    """One emulator for all tests of a session; a test makes what it needs under its own names."""
    with tempfile.TemporaryDirectory(prefix="ministack-") as folder, running(Path(folder)) as it:
        yield it


if __name__ == "__main__":
    prepared_environment()
