"""A job on what was deployed, by somebody who may run jobs and nothing else."""

from collections.abc import Callable

import pytest

import lambdamr
from lambdamr.aws.backend import AwsBackend
from lambdamr.deploy.aws import Aws
from lambdamr.deploy.deploying import apply, plan
from lambdamr.deploy.permissions import user_policy
from lambdamr.deploy.settings import Options
from lambdamr.deployment import load_profile
from tests.deploy.conftest import Site
from tests.deploy.tasks import by_parity, square
from tests.emulator import Credentials


@pytest.fixture
def user(site: Site, as_user: Callable[[Credentials], Aws]) -> Credentials:
    """A running user with exactly the documented permissions."""
    name = f"user-{site.names.deployment}"
    policy = user_policy(site.names, site.names.own_root, (), ())
    return site.emulator.user(name, policy)


def test_a_job_runs_with_the_documented_permissions(
    site: Site, user: Credentials, as_user: Callable[[Credentials], Aws]
) -> None:
    """Zip and layer are complete, the role may do what it must, the user what is documented."""
    planned = plan(site.cloud, site.names, Options(memory_mb=512))
    apply(site.cloud, planned, site.told.append)
    deployment = load_profile(site.names.deployment)
    assert deployment is not None
    as_user(user)
    with lambdamr.Executor(AwsBackend(deployment, 2)) as executor:
        assert executor.map(square, range(6)).result() == [0, 1, 4, 9, 16, 25]
        job = executor.map_reduce(by_parity, range(10), lambdamr.reducers.sum)
        assert job.result() == {0: 20, 1: 25}
    as_user(site.deployer)
