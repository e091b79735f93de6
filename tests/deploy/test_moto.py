"""What the other emulator refuses as AWS does: arguments, regions, roles that are not known yet."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from lambdamr.deploy.aws import Aws, identify
from lambdamr.deploy.design import cloud_resources
from lambdamr.deploy.models import Bucket, Function, Layer, LogGroup, Role
from lambdamr.deploy.naming import Names
from lambdamr.deploy.packaging import Archive, installed_code
from lambdamr.deploy.settings import Options, settle
from lambdamr.deploy.state import Keepers, State
from lambdamr_runtime.errors import DeployError
from tests.deploy.test_refusals import Turned

REGION = "us-east-1"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Moto on loopback; nothing is invoked there."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@dataclasses.dataclass
class Place:
    """A deployment to be, in the region that is different."""

    cloud: Aws
    names: Names
    clock: Turned
    keepers: Keepers
    resources: dict[type, Any]
    """One wanted resource of each kind; Any: of that kind."""


@pytest.fixture
def place(endpoint: str, layer: Archive, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    clock = Turned()
    cloud = Aws(boto3.Session("key", "secret"), REGION, clock)
    names = identify(cloud, "moto", REGION)
    settings = settle(Options(), names, State())
    wanted = cloud_resources(names, settings, installed_code(), layer)
    keepers = Keepers(cloud, names, code=installed_code(), layer=layer)
    return Place(cloud, names, clock, keepers, {type(it): it for it in wanted})


def test_resources_come_back_as_they_were_made(place: Place) -> None:
    """Bucket, role, logs and layer, read from another emulator; us-east-1 has no constraint."""
    for kind in (Bucket, Role, LogGroup, Layer):
        wanted = place.resources[kind]
        keeper = place.keepers.of(wanted)
        keeper.create(wanted)
        assert keeper.find(wanted) == wanted
        keeper.delete(wanted)
        assert keeper.find(wanted) is None


def test_a_role_that_is_not_known_yet_is_waited_for(place: Place) -> None:
    """Lambda refuses a fresh role for some seconds: it is asked again, and at last it tells."""
    layer, role, worker = (place.resources[kind] for kind in (Layer, Role, Function))
    place.keepers.layers.create(layer)

    class Late(Turned):
        """A clock on which the role becomes known while somebody sleeps."""

        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.now > 10 and place.keepers.roles.read(role.name) is None:
                place.keepers.roles.create(role)

    with pytest.raises(DeployError, match="cannot be assumed by Lambda"):
        place.keepers.functions.create(worker)
    assert 50 < place.clock.now < 70
    place.cloud.clock = Late()
    with pytest.raises(DeployError, match="PutFunctionRecursionConfig"):  # moto has none
        place.keepers.functions.create(worker)
    place.cloud.call("lambda", "get_function", FunctionName=worker.name)


def test_an_argument_that_aws_refuses_is_told(place: Place) -> None:
    """What slipped through our own checks is AWS's word, with what it was about."""
    role = dataclasses.replace(place.resources[Role], name="odd", policy="no policy")
    with pytest.raises(DeployError, match=r"odd: .*iam:PutRolePolicy \(MalformedPolicyDocument\)"):
        place.keepers.roles.create(role)
    elsewhere = dataclasses.replace(place.resources[Bucket], region="eu-west-1")
    place.keepers.buckets.create(place.resources[Bucket])
    with pytest.raises(DeployError, match=r"is in us-east-1, not in eu-west-1"):
        place.keepers.buckets.update(place.resources[Bucket], elsewhere)
