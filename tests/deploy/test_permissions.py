"""The documented permissions are those that are tested."""

import json
from pathlib import Path

import pytest

from lambdamr.deploy.naming import Names, Root
from lambdamr.deploy.permissions import (
    Document,
    bucket_policy,
    deployer_policy,
    role_policy,
    user_policy,
)

NAMES = Names("default", "eu-west-1", "123456789012", "aws")
POLICIES = Path(__file__).resolve().parent.parent.parent / "docs" / "policies"


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("deploying", deployer_policy(NAMES, NAMES.own_root)),
        ("running", user_policy(NAMES, NAMES.own_root, ["s3://logs/2026/"], ["s3://results/"])),
    ],
)
def test_the_documents_have_the_policies(name: str, policy: Document) -> None:
    """docs/policies is what the code makes for the example's account, to the letter."""
    assert (POLICIES / f"{name}.json").read_text() == json.dumps(policy, indent=1) + "\n"


def test_nothing_is_allowed_on_everything() -> None:
    """`*` stands only where AWS knows no narrower resource."""
    policies = (
        deployer_policy(NAMES, NAMES.own_root, in_vpc=True),
        user_policy(NAMES, NAMES.own_root, (), ()),
        role_policy(NAMES, NAMES.own_root, (), ()),
    )
    wide = {
        action
        for policy in policies
        for statement in policy["Statement"]
        if "*" in statement["Resource"]
        for action in statement["Action"]
    }
    assert wide == {
        "cloudwatch:GetMetricData",
        "ec2:DescribeSecurityGroups",
        "ec2:DescribeSubnets",
        "ec2:DescribeVpcEndpoints",
        "ec2:DescribeVpcs",
        "lambda:GetAccountSettings",
        "lambda:ListLayerVersions",
        "logs:DescribeLogGroups",
    }
    assert "*" not in {
        action for policy in policies for it in policy["Statement"] for action in it["Action"]
    }


def test_a_shared_bucket_is_listed_under_the_prefix_alone() -> None:
    """In a bucket of the user's, names outside the root are not to be seen."""
    policy = role_policy(NAMES, Root("my-bucket", "team/x/"), (), ())
    (listing,) = (it for it in policy["Statement"] if it["Action"] == ["s3:ListBucket"])
    assert listing["Condition"] == {"StringLike": {"s3:prefix": "team/x/*"}}


def test_the_log_of_a_worker_may_be_read() -> None:
    """For the last words of one that died: those of the worker, and of no other function."""
    policy = role_policy(NAMES, NAMES.own_root, (), ())
    (reading,) = (it for it in policy["Statement"] if "logs:FilterLogEvents" in it["Action"])
    group = "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/lambdamr-default-worker:*"
    assert reading["Action"] == ["logs:FilterLogEvents"]
    assert reading["Resource"] == [group]


def test_keys_and_networks_are_allowed_where_they_are_used() -> None:
    """KMS and network interfaces: only where a key or subnets were given."""
    plain = json.dumps(role_policy(NAMES, NAMES.own_root, (), ()))
    assert "kms:" not in plain
    assert "ec2:" not in plain
    key = "arn:aws:kms:eu-west-1:123456789012:key/1"
    full = json.dumps(role_policy(NAMES, NAMES.own_root, (), (), key, in_vpc=True))
    assert key in full
    assert "ec2:CreateNetworkInterface" in full
    user = (
        user_policy(NAMES, NAMES.own_root, (), ()),
        user_policy(NAMES, NAMES.own_root, (), (), key),
    )
    deployer = (
        deployer_policy(NAMES, NAMES.own_root),
        deployer_policy(NAMES, NAMES.own_root, kms_key=key),
    )
    for without, keyed in (user, deployer):
        (more,) = (it for it in keyed["Statement"] if it not in without["Statement"])
        assert more["Resource"] == [key]
        assert {"kms:Decrypt", "kms:GenerateDataKey"} <= set(more["Action"])


def test_nobody_talks_without_tls() -> None:
    """The bucket denies whatever is not encrypted on its way."""
    (statement,) = bucket_policy(NAMES)["Statement"]
    assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
