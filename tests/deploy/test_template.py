"""The same deployment by CloudFormation."""

import json
from pathlib import Path

from lambdamr.deploy.deploying import plan_for_template
from lambdamr.deploy.planner import Action, changed
from lambdamr.deploy.settings import Options
from lambdamr.deploy.template import BUCKET_PARAMETER, template, write_template
from tests.deploy.conftest import Site, actions

OPTIONS = Options(memory_mb=1024, read=("s3://logs/2026/",), tags=(("team", "x"),))


def test_a_stack_is_what_would_be_deployed(site: Site, tmp_path: Path) -> None:
    """After the stack is made there is nothing to deploy but the records, and what the emulator
    leaves out of a template: RecursiveLoop, lifecycle and tags of buckets. The settings of events
    it keeps under $LATEST apart from those of the function, which are one on AWS.
    """
    planned = plan_for_template(site.cloud, site.names, OPTIONS, lambda settings: site.layer)
    resources = [step.resource for step in planned.steps]
    paths = write_template(tmp_path / "out" / "t.json", resources, planned.code, planned.layer)
    bucket = f"code-{site.names.deployment}"
    s3, stacks = site.root_client("s3"), site.root_client("cloudformation")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    for path in paths[1:]:
        s3.put_object(Bucket=bucket, Key=path.name, Body=path.read_bytes())
    stacks.create_stack(
        StackName=site.names.base,
        TemplateBody=paths[0].read_text(),
        Parameters=[{"ParameterKey": BUCKET_PARAMETER, "ParameterValue": bucket}],
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    stacks.get_waiter("stack_create_complete").wait(
        StackName=site.names.base, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    left = changed(site.plan(OPTIONS).steps)
    assert actions(left) == [
        (Action.UPDATE, "bucket"),
        (Action.UPDATE, "function"),
        (Action.UPDATE, "function"),
        (Action.CREATE, "record"),
        (Action.CREATE, "profile"),
    ]
    bucket_left, *functions_left = ({it.field for it in step.changes} for step in left[:3])
    assert bucket_left == {"expiries", "abort_uploads_days", "tags"}
    events = {"recursion_allowed", "retries", "event_age_s", "on_failure"}
    assert all(fields <= events for fields in functions_left)
    settings = site.root_client("lambda").get_function_event_invoke_config(
        FunctionName=site.names.worker, Qualifier="$LATEST"
    )
    assert settings["MaximumRetryAttempts"] == 0
    assert settings["MaximumEventAgeInSeconds"] == 3600
    destination = settings["DestinationConfig"]["OnFailure"]["Destination"]
    assert destination == site.names.function_arn(site.names.supervisor)
    stacks.delete_stack(StackName=site.names.base)


def test_a_template_has_every_setting(site: Site) -> None:
    """What the emulator cannot make is in the text: recursion, network, keys, boundary, policy."""
    options = Options(
        subnets=("subnet-1",),
        security_groups=("sg-1",),
        kms_key="arn:aws:kms:eu-west-1:123456789012:key/1",
        permissions_boundary="arn:aws:iam::123456789012:policy/bound",
    )
    planned = plan_for_template(site.cloud, site.names, options, lambda settings: site.layer)
    resources = [step.resource for step in planned.steps]
    made = template(resources, planned.code, planned.layer)["Resources"]
    worker = made["Worker"]["Properties"]
    assert worker["RecursiveLoop"] == "Allow"
    assert worker["VpcConfig"] == {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
    assert worker["KmsKeyArn"] == options.kms_key
    assert made["Worker"]["DependsOn"] == ["WorkerLogs", "Role"]
    assert made["WorkerEvents"]["DependsOn"] == ["Worker", "Supervisor"]
    assert made["Role"]["Properties"]["PermissionsBoundary"] == options.permissions_boundary
    assert made["Bucket"]["DeletionPolicy"] == "Retain"
    encryption = made["Bucket"]["Properties"]["BucketEncryption"]
    (rule,) = encryption["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["KMSMasterKeyID"] == options.kms_key
    rules = made["Bucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    days = {rule["Prefix"]: rule["ExpirationInDays"] for rule in rules if "Prefix" in rule}
    assert days["lambdamr/jobs/"] == 14
    assert days["lambdamr/functions/"] == 90
    assert rules[-1]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert made["Bucket"]["Properties"]["Tags"] == made["Role"]["Properties"]["Tags"]
    assert json.loads(json.dumps(made)) == made


def test_a_given_role_is_not_in_it(site: Site) -> None:
    """With --role there is no role to make, and nothing waits for one."""
    options = Options(role="arn:aws:iam::123456789012:role/mine")
    planned = plan_for_template(site.cloud, site.names, options, lambda settings: site.layer)
    resources = [step.resource for step in planned.steps]
    made = template(resources, planned.code, planned.layer)["Resources"]
    assert "Role" not in made
    assert made["Worker"]["DependsOn"] == ["WorkerLogs"]
    assert made["Worker"]["Properties"]["Role"] == options.role
