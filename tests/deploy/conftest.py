"""Deployments on the emulator: each test has a name of its own, and users of its own."""

import contextlib
import itertools
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lambdamr.deploy.aws import Aws, Cloud, identify
from lambdamr.deploy.deploying import Plan, apply, plan, plan_removal, remove
from lambdamr.deploy.naming import Names
from lambdamr.deploy.packaging import Archive, archive_of, layer_requirements
from lambdamr.deploy.permissions import deployer_policy
from lambdamr.deploy.planner import Action, Step, changed
from lambdamr.deploy.settings import Options
from lambdamr.deploy.state import Keepers, State, read_state
from tests.emulator import REGION, ROOT, Credentials, Ministack

NOTHING_SAID = Options()

LOGS = "logs-of-tests"
"""A bucket, which is not made, of which the standing deployment may read what is under 2026/."""

_numbers = itertools.count()


@pytest.fixture(scope="session")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """A layer of empty packages, with the versions that are pinned: quick, and never downloaded."""
    return small_layer(tmp_path_factory.mktemp("wheels"), "1")


def small_layer(folder: Path, text: str) -> Archive:
    """Return such a layer; another text makes other contents."""
    wheels = []
    for line in layer_requirements().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition(";")[0].partition("==")
            wheels.append(folder / f"{name}-{version.strip()}-py3-none-any.whl")
            with zipfile.ZipFile(wheels[-1], "w") as archive:
                archive.writestr(f"{name}/__init__.py", text)
    return archive_of(wheels)


@dataclass
class Site:
    """A deployment on the emulator, and whoever deploys it."""

    emulator: Ministack
    names: Names
    cloud: Aws
    deployer: Credentials
    layer: Archive
    told: list[Step] = field(default_factory=list)

    def plan(self, options: Options = NOTHING_SAID, cloud: Cloud | None = None) -> Plan:
        return plan(cloud or self.cloud, self.names, options, lambda settings: self.layer)

    def deploy(
        self,
        options: Options = NOTHING_SAID,
        cloud: Cloud | None = None,
    ) -> tuple[Step, ...]:
        """Deploy; return the steps that did something."""
        planned = self.plan(options, cloud)
        apply(cloud or self.cloud, planned, self.told.append)
        return changed(planned.steps)

    def undeploy(self, delete_data: bool = False, cloud: Cloud | None = None) -> tuple[Step, ...]:
        """Remove; return the steps that did something."""
        removal = plan_removal(cloud or self.cloud, self.names, delete_data)
        remove(cloud or self.cloud, self.names, removal, self.told.append)
        return changed(removal.steps)

    def state(self) -> State:
        return read_state(Keepers(self.cloud, self.names))

    def root_client(self, service: str) -> Any:
        return self.emulator.client(service)

    def leftovers(self) -> list[str]:
        """Return all that the account has and that bears the deployment's name."""
        return [name for name in everything(self.emulator) if self.names.base in name]


def everything(emulator: Ministack) -> Iterator[str]:
    """Yield the names of all that an account has, whoever made it."""
    for bucket in emulator.client("s3").list_buckets()["Buckets"]:
        yield bucket["Name"]
    for role in emulator.client("iam").list_roles()["Roles"]:
        yield role["RoleName"]
    for function in emulator.client("lambda").list_functions()["Functions"]:
        yield function["FunctionName"]
    for layer in emulator.client("lambda").list_layers()["Layers"]:
        yield layer["LayerName"]
    for group in emulator.client("logs").describe_log_groups()["logGroups"]:
        yield group["logGroupName"]


@pytest.fixture
def as_user(ministack: Ministack, monkeypatch: pytest.MonkeyPatch) -> Callable[[Credentials], Aws]:
    """Return a function that makes somebody the one whom AWS clients sign for."""

    def as_user(credentials: Credentials) -> Aws:
        for name, value in ministack.environment(credentials).items():
            monkeypatch.setenv(name, value)
        return Aws(ministack.session(credentials), REGION)

    return as_user


@pytest.fixture
def site(
    ministack: Ministack,
    layer: Archive,
    as_user: Callable[[Credentials], Aws],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    """A name at which nothing is deployed, and a user with exactly the documented permissions."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with new_site(ministack, layer, as_user) as site:
        yield site


@contextlib.contextmanager
def new_site(
    emulator: Ministack, layer: Archive, as_user: Callable[[Credentials], Aws]
) -> Iterator[Site]:
    """Yield a site of a new name; whatever is deployed there goes with it."""
    names = identify(as_user(ROOT), f"t{os.getpid()}-{next(_numbers)}", REGION)
    user = f"deployer-{names.deployment}"
    deployer = emulator.user(user, deployer_policy(names, names.own_root))
    yield Site(emulator, names, as_user(deployer), deployer, layer)
    site = Site(emulator, names, as_user(ROOT), ROOT, layer)
    site.undeploy(delete_data=True)
    emulator.remove_user(user)


@pytest.fixture(scope="session")
def standing(
    ministack: Ministack, layer: Archive, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Site, str]]:
    """What is deployed once for the tests that leave it as it is, and its user's configuration."""
    config = str(tmp_path_factory.mktemp("config"))
    with pytest.MonkeyPatch.context() as patch:

        def as_user(credentials: Credentials) -> Aws:
            for name in [name for name in os.environ if name.startswith("AWS_ENDPOINT_URL_")]:
                patch.delenv(name)  # at the end of a session, of tests of other folders
            for name, value in ministack.environment(credentials).items():
                patch.setenv(name, value)
            return Aws(ministack.session(credentials), REGION)

        patch.setenv("XDG_CONFIG_HOME", config)
        with new_site(ministack, layer, as_user) as site:
            site.deploy(Options(read=(f"s3://{LOGS}/2026/",)))
            patch.undo()
            yield site, config
            patch.setenv("XDG_CONFIG_HOME", config)


@pytest.fixture
def deployed(
    standing: tuple[Site, str],
    as_user: Callable[[Credentials], Aws],
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    """A deployment that the test leaves as it is."""
    site, config = standing
    monkeypatch.setenv("XDG_CONFIG_HOME", config)
    as_user(site.deployer)
    return site


def actions(steps: tuple[Step, ...]) -> list[tuple[Action, str]]:
    """Return what is done to resources of which kind."""
    return [(step.action, step.resource.kind) for step in steps]
