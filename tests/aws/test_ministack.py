"""The built zip and a layer as functions of ministack, which deploys as AWS does."""

import io
import json
import zipfile

import pytest

import lambdamr
from lambdamr.deploy.packaging import build_code
from lambdamr.deployment import Deployment
from lambdamr_runtime.errors import TaskLost
from lambdamr_runtime.wire import PYTHON_VERSION, WIRE_VERSION
from tests.aws import tasks
from tests.aws.conftest import BUCKET, ROOT, Cloud
from tests.emulator import ACCOUNT, REGION

PATIENCE_S = 60
WORKER, SUPERVISOR = "ministack-worker", "ministack-supervisor"


@pytest.fixture(scope="module")
def deployed(cloud: Cloud) -> Deployment:
    """A worker and its supervisor, of the built zip and a layer."""
    client = cloud.s3.client("lambda")
    layer = client.publish_layer_version(LayerName="packages", Content={"ZipFile": _layer(cloud)})[
        "LayerVersionArn"
    ]
    code = build_code().data
    role = cloud.s3.client("iam").create_role(
        RoleName="runner", AssumeRolePolicyDocument=json.dumps(_document("sts:AssumeRole"))
    )["Role"]["Arn"]
    cloud.s3.client("iam").put_role_policy(
        RoleName="runner", PolicyName="all", PolicyDocument=json.dumps(_document("*", "*"))
    )
    for name, entry in ((WORKER, "worker"), (SUPERVISOR, "supervisor")):
        client.create_function(
            FunctionName=name, Runtime=f"python{PYTHON_VERSION}", Role=role, Layers=[layer],
            Handler=f"lambdamr_runtime.function.{entry}", Code={"ZipFile": code},
            Timeout=60, MemorySize=1024,
            Environment={"Variables": {"LAMBDAMR_ROOT": ROOT, "LAMBDAMR_WORKER": WORKER}},
        )  # fmt: skip
    client.put_function_event_invoke_config(
        FunctionName=WORKER, MaximumRetryAttempts=0,
        DestinationConfig={"OnFailure": {
            "Destination": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{SUPERVISOR}"
        }},
    )  # fmt: skip
    return Deployment(
        "ministack", REGION, ROOT, WORKER, SUPERVISOR, PYTHON_VERSION, "x86_64", WIRE_VERSION,
        1024, 60, 512, {},
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _lambda_of_ministack(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is launched is launched there."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", cloud.s3.endpoint)


def _document(action: str, resource: str = "") -> dict[str, object]:
    statement: dict[str, object] = {"Effect": "Allow", "Action": action}
    if resource:
        statement["Resource"] = resource
    else:
        statement["Principal"] = {"Service": "lambda.amazonaws.com"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def _layer(cloud: Cloud) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in cloud.layer.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, f"python/{path.relative_to(cloud.layer)}")
    return buffer.getvalue()


def test_a_job_on_ministack(cloud: Cloud, deployed: Deployment) -> None:
    """The functions find all they need in zip and layer, and run maps, errors and map_reduce."""
    with cloud.executor(deployed, concurrency=3) as executor:
        assert executor.map(tasks.double, range(6), chunksize=1).result(PATIENCE_S) == [
            0, 2, 4, 6, 8, 10
        ]  # fmt: skip
        with pytest.raises(tasks.OwnError):
            executor.submit(tasks.fail, "there").result(PATIENCE_S)
        counted = executor.map_reduce(
            tasks.words, iter(["a b"] * 6), lambdamr.reducers.sum, reducers=2
        )
        assert counted.result() == {"a": 6, "b": 6}
    assert cloud.s3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix="root/jobs/")["KeyCount"]


def test_the_supervisor_on_ministack(cloud: Cloud, deployed: Deployment) -> None:
    """A sandbox that ends reaches the supervisor through its on-failure destination."""
    with (
        cloud.executor(deployed, concurrency=1) as executor,
        pytest.raises(TaskLost, match="end of its sandbox"),
    ):
        executor.submit(tasks.end_sandbox, True).result(PATIENCE_S)
