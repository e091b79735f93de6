"""A cloud on this machine: S3 of ministack, and Lambda around AWS's own runtime client."""

import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lambdamr
from lambdamr.deploy.packaging import build_code
from lambdamr.deployment import RECORD_KEY, Deployment
from lambdamr_runtime.store import Store, open_store
from lambdamr_runtime.wire import PYTHON_VERSION, WIRE_VERSION
from tests.emulator import REGION, Ministack, ministack  # noqa: F401 - a fixture
from tests.runtime_api import Function, LambdaHost, prepared_environment

BUCKET = "lambdamr-test"
ROOT = f"s3://{BUCKET}/root"
DATA = f"s3://{BUCKET}-data"
WORKER = "lambdamr-worker"


@dataclass(slots=True)
class Cloud:
    """What is deployed, and the service that runs it."""

    host: LambdaHost
    s3: Ministack
    code: Path
    layer: Path
    variables: dict[str, str]
    """Of the functions."""

    def function(self, name: str, entry: str, worker: str, **options: Any) -> Function:
        """Return a function that runs an entry point; options as of Function."""
        variables = {**self.variables, "LAMBDAMR_WORKER": worker}
        handler = options.pop("handler", f"lambdamr_runtime.function.{entry}")
        return Function(name, handler, self.code, self.layer, variables, **options)

    def deploy(self, name: str = WORKER, **options: Any) -> Deployment:
        """Put a worker and its supervisor in place; returns their record."""
        supervisor = f"{name}-supervisor"
        worker = self.function(name, "worker", name, on_failure=supervisor, **options)
        self.host.deploy(worker, self.function(supervisor, "supervisor", name, memory_mb=256))
        packages = {"obstore": "0.12.1", "cloudpickle": "3.1.2"}
        return Deployment(
            "test", REGION, ROOT, name, supervisor, PYTHON_VERSION, "x86_64", WIRE_VERSION,
            worker.memory_mb, int(worker.timeout_s), 512, packages, (DATA,), (DATA,),
        )  # fmt: skip

    def executor(self, deployment: Deployment, **options: Any) -> lambdamr.Executor:
        """Return an executor on a deployment."""
        from lambdamr.aws.backend import AwsBackend

        concurrency = options.pop("concurrency", None)
        return lambdamr.Executor(AwsBackend(deployment, concurrency), **options)

    def store(self) -> Store:
        return open_store(ROOT)


_client: dict[str, str] = {}
"""Variables that make this process a client of the cloud, as soon as there is one."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[None]:
    """Make this process a client before the fixtures of a test of this folder are made."""
    os.environ.update(_client)
    yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Take the variables away behind the test: those of other folders have clouds of their own."""
    yield
    for name in _client:
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def cloud(ministack: Ministack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:  # noqa: F811
    """The cloud of all tests; this process is a client of it."""
    _, layer = prepared_environment()
    code = tmp_path_factory.mktemp("code")
    with zipfile.ZipFile(io.BytesIO(build_code().data)) as archive:
        archive.extractall(code)
    s3 = ministack.client("s3")
    for name in (BUCKET, f"{BUCKET}-data"):
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    folder = tmp_path_factory.mktemp("lambda")
    before = sorted(code.rglob("*"))
    with LambdaHost(folder, concurrency=6) as host:
        endpoints = {
            "AWS_ENDPOINT_URL_S3": ministack.endpoint,
            "AWS_ENDPOINT_URL_LOGS": ministack.endpoint,
            "AWS_ENDPOINT_URL_CLOUDWATCH": ministack.endpoint,
            "AWS_ENDPOINT_URL_LAMBDA": host.endpoint,
        }
        client = {**ministack.environment(), **endpoints}
        del client["AWS_ENDPOINT_URL"]
        _client.update(client)
        os.environ.update(client)  # of the test that asks first
        yield Cloud(
            host, ministack, code, layer,
            {**client, "LAMBDAMR_ROOT": ROOT},
        )  # fmt: skip
    assert sorted(code.rglob("*")) == before, "the task root is read-only on AWS"


@pytest.fixture(scope="session")
def deployment(cloud: Cloud) -> Deployment:
    """A runtime that tests leave as it is."""
    record = cloud.deploy()
    cloud.store().put(RECORD_KEY, record.encode())
    return record


@pytest.fixture(scope="session")
def executor(cloud: Cloud, deployment: Deployment) -> Iterator[lambdamr.Executor]:
    """An executor on it."""
    with cloud.executor(deployment) as executor:
        yield executor
