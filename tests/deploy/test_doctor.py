"""What is wrong with a deployment is found, and the command that mends it."""

import dataclasses
import json
from collections.abc import Callable

import pytest

from lambdamr.deploy.aws import Aws
from lambdamr.deploy.doctor import Finding, examine
from lambdamr.deploy.permissions import deployer_policy, user_policy
from lambdamr.deploy.settings import Options
from lambdamr.deployment import forget_profile, load_profile, save_profile
from tests.deploy.conftest import Site
from tests.emulator import Credentials


def wrong(site: Site, cloud: Aws | None = None) -> list[Finding]:
    return [it for it in examine(cloud or site.cloud, site.names) if not it.ok]


def test_a_good_deployment_is_good(site: Site) -> None:
    """Nothing is wrong right after deploying; before, that is what is wrong."""
    (missing,) = wrong(site)
    assert "There is no deployment" in missing.what
    assert missing.mend.startswith("lambdamr deploy-runtime --name ")
    site.deploy()
    assert wrong(site) == []


BREAKAGES: dict[str, tuple[Callable[[Site], object], str]] = {
    "recursion": (
        lambda site: site.root_client("lambda").put_function_recursion_config(
            FunctionName=site.names.worker, RecursiveLoop="Terminate"
        ),
        "recursion_allowed differs (AWS ends chains of 16",
    ),
    "retries": (
        lambda site: site.root_client("lambda").put_function_event_invoke_config(
            FunctionName=site.names.worker, MaximumRetryAttempts=2
        ),
        "retries differs (AWS itself repeats",
    ),
    "destination": (
        lambda site: site.root_client("lambda").put_function_event_invoke_config(
            FunctionName=site.names.worker, MaximumRetryAttempts=2, DestinationConfig={}
        ),
        "on_failure differs (failures of workers reach nobody",
    ),
    "policy": (
        lambda site: site.root_client("iam").delete_role_policy(
            RoleName=site.names.role, PolicyName="lambdamr"
        ),
        "policy differs (the permissions",
    ),
    "supervisor": (
        lambda site: site.root_client("lambda").delete_function(FunctionName=site.names.supervisor),
        "supervisor is missing",
    ),
    "off": (
        lambda site: site.root_client("lambda").put_function_concurrency(
            FunctionName=site.names.worker, ReservedConcurrentExecutions=0
        ),
        "switched off",
    ),
}


def test_each_breakage_is_found(site: Site) -> None:
    """Whatever somebody changed by hand: it is told, with a command, and deploying mends it."""
    site.deploy()
    for damage, _ in BREAKAGES.values():
        damage(site)
    found = wrong(site)
    for name, (_, said) in BREAKAGES.items():
        assert any(said in finding.what for finding in found), (name, found)
    assert all(finding.mend for finding in found)
    site.deploy()
    (off,) = wrong(site)
    assert off.mend.startswith("aws lambda delete-function-concurrency")


def test_another_client_is_told(site: Site) -> None:
    """Another Python, wire version, package or profile than the runtime's."""
    site.deploy()
    deployment = load_profile(site.names.deployment)
    assert deployment is not None
    packages = {**deployment.packages, "obstore": "0.1"}
    other = dataclasses.replace(deployment, python="3.99", wire=99, packages=packages)
    site.root_client("s3").put_object(
        Bucket=site.names.bucket, Key="lambdamr/deployment.json", Body=other.encode()
    )
    said = "\n".join(finding.what for finding in wrong(site))
    assert "The runtime has Python 3.99" in said
    assert "wire version 99" in said
    assert "obstore 0.1 instead of" in said
    assert "This machine knows an older state" in said
    forget_profile(site.names.deployment)
    assert any("does not know" in finding.what for finding in wrong(site))
    save_profile(deployment)


def test_missing_permissions_are_told(
    deployed: Site, as_user: Callable[[Credentials], Aws]
) -> None:
    """Who may not look is told what is missing; who may look but not launch, too."""
    names = deployed.names
    runner = user_policy(names, names.own_root, (), ())
    found = wrong(deployed, as_user(deployed.emulator.user(f"r-{names.deployment}", runner)))
    assert len(found) == 1
    assert "lacks the permission" in found[0].what
    policy = deployer_policy(names, names.own_root)
    denied = {"Effect": "Deny", "Action": "lambda:InvokeFunction", "Resource": "*"}
    poor = {**policy, "Statement": [*policy["Statement"], denied]}
    found = wrong(deployed, as_user(deployed.emulator.user(f"r-{names.deployment}", poor)))
    assert ["lambda:InvokeFunction" in finding.what for finding in found] == [True]
    deployed.emulator.remove_user(f"r-{names.deployment}")


def test_a_network_without_a_way_to_s3_is_told(
    site: Site, as_user: Callable[[Credentials], Aws]
) -> None:
    """In a VPC, S3 and Lambda need endpoints; what makes them is told, and then it is well."""
    ec2 = site.root_client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.7.1.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(VpcId=vpc, GroupName="g", Description="g")["GroupId"]
    policy = deployer_policy(site.names, site.names.own_root, in_vpc=True)
    user = f"vpc-{site.names.deployment}"
    site.cloud = as_user(site.emulator.user(user, policy))
    site.deploy(Options(subnets=(subnet,), security_groups=(group,)))
    role = site.state().role
    assert role is not None
    assert "ec2:CreateNetworkInterface" in role.policy
    found = wrong(site)
    assert [f"com.amazonaws.eu-west-1.{it}" in finding.mend for it, finding in zip(
        ("s3", "lambda"), found, strict=True
    )] == [True, True]  # fmt: skip
    for service, kind in (("s3", "Gateway"), ("lambda", "Interface")):
        ec2.create_vpc_endpoint(
            VpcId=vpc, ServiceName=f"com.amazonaws.eu-west-1.{service}", VpcEndpointType=kind
        )
    assert wrong(site) == []
    site.emulator.remove_user(user)


def test_a_given_role_is_examined(site: Site, as_user: Callable[[Credentials], Aws]) -> None:
    """--role without any right on roles: deploys, and the doctor says what the role must have."""
    iam = site.root_client("iam")
    name = f"mine-{site.names.deployment}"
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "lambda.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    policy = deployer_policy(site.names, site.names.own_root, with_role=False)
    user = f"no-iam-{site.names.deployment}"
    site.cloud = as_user(site.emulator.user(user, policy))
    steps = site.deploy(Options(role=arn))
    assert "role" not in [step.resource.kind for step in steps]
    deployed = site.state().deployment
    assert deployed is not None
    assert (deployed.read, deployed.write, deployed.recursive) == (("*",), ("*",), True)
    assert site.deploy() == ()
    said = [it.what for it in examine(site.cloud, site.names) if arn in it.what]
    assert len(said) == 1
    assert "cannot be checked" in said[0]
    assert "s3:PutObject" in said[0]
    site.undeploy(delete_data=True)
    iam.delete_role(RoleName=name)
    site.emulator.remove_user(user)


@pytest.mark.parametrize("free", [10])
def test_a_small_account_is_told(deployed: Site, free: int) -> None:
    """New accounts have ten concurrent executions: the command that asks for more is told."""

    class Small(Aws):
        def call(self, service: str, operation: str, /, **arguments: object) -> dict[str, object]:
            if operation == "get_account_settings":
                return {"AccountLimit": {"ConcurrentExecutions": free}}
            return super().call(service, operation, **arguments)

    small = Small(deployed.emulator.session(deployed.deployer), deployed.names.region)
    (found,) = wrong(deployed, small)
    assert "10 of 10 concurrent executions" in found.what
    assert "request-service-quota-increase" in found.mend
