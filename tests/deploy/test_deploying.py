"""From nothing to a runtime and back, on an emulator that enforces permissions."""

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lambdamr.deploy.aws import Answer, Aws, Cloud
from lambdamr.deploy.deploying import Plan, apply, kept_layer, plan_removal
from lambdamr.deploy.functions import LayerKeeper
from lambdamr.deploy.models import Function, Layer
from lambdamr.deploy.naming import Root
from lambdamr.deploy.packaging import Archive, installed_code
from lambdamr.deploy.permissions import deployer_policy, user_policy
from lambdamr.deploy.planner import Action
from lambdamr.deploy.settings import Options
from lambdamr.deployment import Deployment, load_profile
from lambdamr_runtime.errors import DeployError, MissingPermission
from lambdamr_runtime.limits import DIRECT_UPLOAD_BYTES
from tests.deploy.conftest import LOGS, Site, actions, small_layer
from tests.emulator import Credentials

KINDS = [
    "bucket",
    "role",
    "log group",
    "log group",
    "layer",
    "function",
    "function",
    "record",
    "profile",
]


def test_a_life(site: Site) -> None:
    """Nothing → deployed → unchanged → other memory → removed: nothing is left in the account."""
    assert site.leftovers() == []
    assert actions(site.deploy()) == [(Action.CREATE, kind) for kind in KINDS]
    assert site.deploy() == ()
    steps = site.deploy(Options(memory_mb=4096))
    assert [step.resource.kind for step in steps] == ["function", "record", "profile"]
    assert [change.field for change in steps[0].changes] == ["memory_mb"]
    worker = site.state().worker
    assert worker is not None
    assert worker.memory_mb == 4096
    assert site.deploy() == (), "an option that is not given stays as it is"
    assert actions(site.undeploy()) == [
        (Action.DELETE, "function"),
        (Action.DELETE, "function"),
        (Action.DELETE, "layer"),
        (Action.DELETE, "log group"),
        (Action.DELETE, "log group"),
        (Action.DELETE, "role"),
        (Action.DELETE, "record"),
        (Action.DELETE, "bucket"),
        (Action.DELETE, "profile"),
    ]
    assert site.leftovers() == []
    assert site.undeploy() == ()


def test_what_is_deployed(site: Site) -> None:
    """Both functions, as AWS tells it: limits, retries, destination, recursion, variables."""
    site.deploy(Options(timeout_s=300, tmp_mb=1024, environment=(("MODE", "x"),)))
    state, names = site.state(), site.names
    worker, supervisor = state.worker, state.supervisor
    assert worker is not None
    assert supervisor is not None
    assert (worker.timeout_s, worker.tmp_mb, worker.retries, worker.event_age_s) == (
        300,
        1024,
        0,
        3600,
    )
    assert worker.on_failure == names.function_arn(names.supervisor)
    assert worker.recursion_allowed
    assert supervisor.recursion_allowed
    assert supervisor.retries == 2
    root = f"s3://{names.bucket}/lambdamr"
    assert dict(worker.environment) == {
        "LAMBDAMR_ROOT": root,
        "LAMBDAMR_WORKER": names.worker,
        "MODE": "x",
    }
    assert "MODE" not in dict(supervisor.environment)
    assert worker.code_sha == installed_code().sha
    assert worker.handler == "lambdamr_runtime.function.worker"
    assert state.bucket is not None
    assert state.bucket.private
    prefixes = [expiry.prefix for expiry in state.bucket.expiries]
    assert prefixes == [
        f"lambdamr/{it}/" for it in ("data", "functions", "inputs", "jobs", "shuffle")
    ]
    deployment = load_profile(names.deployment)
    assert deployment == state.deployment
    assert deployment is not None
    assert (deployment.root, deployment.worker) == (root, names.worker)
    assert deployment.packages == site.layer.versions


def test_an_old_version_is_replaced(site: Site, tmp_path: Path) -> None:
    """Other packages and an older record: layer and functions change, the old layer goes."""
    old = site.layer
    site.deploy()
    site.layer = small_layer(tmp_path, "2")
    steps = site.deploy(Options(requirements=()))
    assert actions(steps) == [
        (Action.CREATE, "layer"),
        (Action.UPDATE, "function"),
        (Action.UPDATE, "function"),
        (Action.DELETE, "layer"),
    ]
    assert [layer.sha for layer in site.state().layers] == [site.layer.sha] != [old.sha]
    versions = site.root_client("lambda").list_layer_versions(LayerName=site.names.layer)
    assert len(versions["LayerVersions"]) == 1


def test_the_layer_is_built_only_where_it_must_be(deployed: Site) -> None:
    """Other memory needs no packages; another Python, or a list of the user's, does."""
    state, settings = deployed.state(), deployed.plan().settings
    kept = kept_layer(state, settings)
    assert kept is not None
    assert (kept.sha, kept.versions) == (deployed.layer.sha, deployed.layer.versions)
    other = dataclasses.replace(settings.target, python="3.13")
    assert kept_layer(state, dataclasses.replace(settings, target=other)) is None
    assert kept_layer(state, dataclasses.replace(settings, requirements=("numpy",))) is None
    assert kept_layer(dataclasses.replace(state, layers=()), settings) is None


def test_everything_can_be_changed_and_cleared(site: Site) -> None:
    """Each option reaches what it is about, and an empty one clears it again."""
    site.deploy()
    given = Options(
        read=("s3://logs/2026/*.gz",),
        write=("s3://results/",),
        environment=(("A", "1"),),
        tags=(("team", "x"),),
        log_days=30,
        permissions_boundary="arn:aws:iam::aws:policy/AdministratorAccess",
    )
    kinds = {step.resource.kind for step in site.deploy(given)}
    assert kinds == {"bucket", "role", "log group", "function", "record", "profile"}
    state = site.state()
    assert state.role is not None
    assert "arn:aws:s3:::logs/2026/*" in state.role.policy
    assert state.role.permissions_boundary.endswith("AdministratorAccess")
    assert state.worker_logs is not None
    assert state.worker_logs.retention_days == 30
    assert ("team", "x") in state.worker_logs.tags
    assert site.deploy() == ()
    cleared = Options(
        read=(), write=(), environment=(), tags=(), permissions_boundary="", log_days=14
    )
    site.deploy(cleared)
    fresh = {(step.resource.kind, step.action) for step in site.plan().steps}
    assert {action for _, action in fresh} == {Action.KEEP}
    state = site.state()
    assert state.role is not None
    assert "logs/2026" not in state.role.policy
    assert state.role.permissions_boundary == ""
    assert state.role.tags == (("lambdamr", site.names.deployment),)


def test_data_stay_unless_asked(site: Site) -> None:
    """A removal keeps jobs and their bucket; --delete-data takes them, also unfinished uploads."""
    site.deploy()
    s3, bucket = site.root_client("s3"), site.names.bucket
    for number in range(3):
        s3.put_object(Bucket=bucket, Key=f"lambdamr/jobs/x/{number}", Body=b"x")
    s3.create_multipart_upload(Bucket=bucket, Key="lambdamr/jobs/x/large")
    site.undeploy()
    assert site.leftovers() == [bucket]
    again = actions(site.deploy())
    assert (Action.KEEP, "bucket") not in again, "a kept bucket is found again"
    assert again[0] == (Action.CREATE, "role")
    site.undeploy(delete_data=True)
    assert site.leftovers() == []


def test_a_bucket_of_the_user_is_left_as_it_is(
    site: Site, as_user: Callable[[Credentials], Aws]
) -> None:
    """--root: nothing but what is under it is touched, not even with --delete-data."""
    s3, bucket = site.root_client("s3"), f"mine-{site.names.deployment}"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    s3.put_object(Bucket=bucket, Key="other/file", Body=b"x")
    root = Root.parse(f"s3://{bucket}/team/lambdamr")
    site.cloud = as_user(
        site.emulator.user(f"own-{site.names.deployment}", deployer_policy(site.names, root))
    )
    steps = site.deploy(Options(root=root.uri))
    assert "bucket" not in [step.resource.kind for step in steps]
    assert site.deploy() == (), "the root is remembered"
    state = site.state()
    assert state.role is not None
    assert f"arn:aws:s3:::{bucket}/team/lambdamr/*" in state.role.policy
    assert any("is yours" in note for note in site.plan().notes)
    s3.put_object(Bucket=bucket, Key="team/lambdamr/jobs/x", Body=b"x")
    site.undeploy(delete_data=True)
    left = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert left == ["other/file"]
    assert site.leftovers() == [bucket] or site.leftovers() == []


def test_a_missing_bucket_is_told(site: Site) -> None:
    """--root names a bucket that must be there: nothing is made before it is."""
    with pytest.raises(DeployError, match=r"There is no bucket|belongs to another"):
        site.deploy(Options(root="s3://nobody-has-this-bucket/x"))
    assert site.leftovers() == []


# --- failures -----------------------------------------------------------------------------------
READS = ("get_", "head_", "list_", "describe_")


class Interrupted(DeployError):
    """The connection ended, the laptop was closed."""


class Flaky:
    """AWS that answers a number of changes, and then no more."""

    def __init__(self, cloud: Cloud, changes: int) -> None:
        self.clock = cloud.clock
        self.uses_tls, self.pages = cloud.uses_tls, cloud.pages
        self.done: list[str] = []
        self._cloud = cloud
        self._left = changes

    def call(self, service: str, operation: str, /, **arguments: Any) -> Answer:
        self._count(service, operation)
        return self._cloud.call(service, operation, **arguments)

    def find(self, service: str, operation: str, /, **arguments: Any) -> Answer | None:
        self._count(service, operation)
        return self._cloud.find(service, operation, **arguments)

    def _count(self, service: str, operation: str) -> None:
        if operation.startswith(READS):
            return
        if not self._left:
            raise Interrupted(operation)
        self._left -= 1
        self.done.append(f"{service}:{operation}")


def test_a_deploy_goes_on_where_it_was_cut_off(site: Site) -> None:
    """Each run gets one change further and dies; in the end all is there, as if nothing was."""
    changes: list[str] = []
    for _ in range(60):
        cloud = Flaky(site.cloud, changes=1)
        try:
            site.deploy(cloud=cloud)
            break
        except Interrupted:
            changes += cloud.done
    else:
        pytest.fail(f"no end after {changes}")
    assert changes.count("lambda:create_function") == 2
    assert changes.count("lambda:publish_layer_version") == 1
    assert site.deploy() == ()
    assert all(step.action is Action.KEEP for step in site.plan().steps)


class Firm:
    """AWS in an account where chains of invocations stay short, whatever is asked for."""

    def __init__(self, cloud: Cloud) -> None:
        self.clock = cloud.clock
        self.uses_tls, self.pages, self.find = cloud.uses_tls, cloud.pages, cloud.find
        self._cloud = cloud

    def call(self, service: str, operation: str, /, **arguments: Any) -> Answer:
        if operation == "put_function_recursion_config":
            arguments["RecursiveLoop"] = "Terminate"
        return self._cloud.call(service, operation, **arguments)


def test_what_aws_did_not_set_is_not_recorded(site: Site) -> None:
    """An answer that says another recursion is an error, and no client believes a record."""
    with pytest.raises(DeployError, match="'Terminate' where 'Allow' was asked for"):
        site.deploy(cloud=Firm(site.cloud))
    assert site.state().deployment is None
    site.deploy()
    deployed = site.state().deployment
    assert deployed is not None
    assert deployed.recursive


def test_a_removal_goes_on_where_it_was_cut_off(site: Site) -> None:
    """A removal that died after each of its changes ends with nothing left."""
    site.deploy()
    for _ in range(20):
        try:  # two: the role's policy is removed again, without effect, before the role
            site.undeploy(delete_data=True, cloud=Flaky(site.cloud, changes=2))
            break
        except Interrupted:
            continue
    assert site.leftovers() == []
    assert load_profile(site.names.deployment) is None


def test_a_repeated_create_is_no_failure(deployed: Site) -> None:
    """A create whose answer was lost is sent again and finds its own work: that is finished."""
    state = deployed.state()
    blind = deployed.plan()
    deployed.root_client("lambda").put_function_recursion_config(
        FunctionName=deployed.names.worker, RecursiveLoop="Terminate"
    )
    creates = tuple(
        dataclasses.replace(step, action=Action.CREATE, present=None)
        for step in blind.steps
        if isinstance(step.resource, Function)
    )
    apply(
        deployed.cloud,
        Plan(blind.names, blind.settings, creates, (), blind.code, blind.layer),
        deployed.told.append,
    )
    assert deployed.state() == state


@pytest.mark.parametrize(
    "action",
    ["s3:CreateBucket", "iam:CreateRole", "lambda:PublishLayerVersion", "lambda:CreateFunction"],
)
def test_a_missing_permission_is_named(
    site: Site, as_user: Callable[[Credentials], Aws], action: str
) -> None:
    """AWS's refusal says who lacks what, and what to do; what was done before stays usable."""
    policy = deployer_policy(site.names, site.names.own_root)
    denied = {"Effect": "Deny", "Action": action, "Resource": "*"}
    lacking = {**policy, "Statement": [*policy["Statement"], denied]}
    poor = as_user(site.emulator.user(f"poor-{site.names.deployment}", lacking))
    with pytest.raises(MissingPermission, match=f"(?s){action}.*docs/aws.md") as caught:
        site.deploy(cloud=poor)
    assert f"poor-{site.names.deployment}" in str(caught.value)
    site.cloud = as_user(site.deployer)
    site.deploy()
    assert site.deploy() == ()


# --- what people and functions may do -------------------------------------------------------------
def refused(call: Callable[[], object]) -> bool:
    """Whether AWS refuses a call for want of a permission."""
    from botocore.exceptions import ClientError

    try:
        call()
    except ClientError as error:
        return error.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException", "403")
    return False


def test_the_role_may_do_no_more_than_it_must(deployed: Site) -> None:
    """Its root, what was named, its own functions; nothing else."""
    logs = LOGS
    other = deployed.root_client("s3")
    other.create_bucket(Bucket=logs, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    other.put_object(Bucket=logs, Key="2026/a", Body=b"x")
    other.put_object(Bucket=logs, Key="2025/a", Body=b"x")
    role = deployed.state().role
    assert role is not None
    it = deployed.emulator.user(f"role-{deployed.names.deployment}", json.loads(role.policy))
    s3, functions = deployed.emulator.client("s3", it), deployed.emulator.client("lambda", it)
    bucket = deployed.names.bucket
    other.put_object(Bucket=bucket, Key="elsewhere", Body=b"x")

    s3.put_object(Bucket=bucket, Key="lambdamr/jobs/x", Body=b"x")
    s3.get_object(Bucket=bucket, Key="lambdamr/jobs/x")
    s3.list_objects_v2(Bucket=bucket, Prefix="lambdamr/jobs/")
    s3.get_object(Bucket=logs, Key="2026/a")
    s3.list_objects_v2(Bucket=logs, Prefix="2026/")
    s3.delete_object(Bucket=bucket, Key="lambdamr/jobs/x")

    assert refused(lambda: s3.get_object(Bucket=bucket, Key="elsewhere"))
    assert refused(lambda: s3.put_object(Bucket=bucket, Key="elsewhere", Body=b""))
    assert refused(lambda: s3.get_object(Bucket=logs, Key="2025/a"))
    assert refused(lambda: s3.put_object(Bucket=logs, Key="2026/b", Body=b""))
    assert refused(lambda: s3.list_objects_v2(Bucket=logs, Prefix="2025/"))
    assert refused(lambda: s3.list_objects_v2(Bucket=logs))
    assert refused(lambda: functions.invoke(FunctionName="another", InvocationType="Event"))
    assert refused(lambda: functions.delete_function(FunctionName=deployed.names.worker))
    assert refused(lambda: deployed.emulator.client("iam", it).list_roles())
    deployed.emulator.remove_user(f"role-{deployed.names.deployment}")


def test_who_runs_jobs_may_not_change_the_deployment(deployed: Site) -> None:
    """The documented permissions of a user: jobs, and nothing of the deployment."""
    names = deployed.names
    it = deployed.emulator.user(
        f"user-{names.deployment}", user_policy(names, names.own_root, (), ())
    )
    s3, functions = deployed.emulator.client("s3", it), deployed.emulator.client("lambda", it)
    s3.put_object(Bucket=names.bucket, Key="lambdamr/jobs/x", Body=b"x")
    functions.get_account_settings()
    functions.get_function_configuration(FunctionName=names.worker)
    functions.invoke(FunctionName=names.worker, InvocationType="DryRun")
    assert refused(
        lambda: functions.update_function_configuration(FunctionName=names.worker, Timeout=1)
    )
    assert refused(lambda: functions.invoke(FunctionName=names.supervisor, InvocationType="DryRun"))
    assert refused(lambda: s3.delete_bucket(Bucket=names.bucket))
    deployed.emulator.remove_user(f"user-{names.deployment}")


# --- odd ends -----------------------------------------------------------------------------------
def test_a_large_layer_goes_through_s3(deployed: Site) -> None:
    """What is too large for a request is put under the root, published from there and removed."""
    padding = io.BytesIO()
    with zipfile.ZipFile(padding, "w") as archive:
        archive.writestr("python/large.bin", bytes(DIRECT_UPLOAD_BYTES))
    large = Archive(padding.getvalue(), "f" * 64, DIRECT_UPLOAD_BYTES)
    root = deployed.names.own_root
    keeper = LayerKeeper(deployed.cloud, {large.sha: large}, root)
    wanted = Layer(deployed.names.layer, large.sha, "3.12", "x86_64")
    keeper.create(wanted)
    assert keeper.find(wanted) == wanted
    listed = deployed.root_client("s3").list_objects_v2(Bucket=root.bucket)["Contents"]
    assert not any("layer" in item["Key"] for item in listed)
    keeper.delete(wanted)


def test_a_damaged_record_is_written_anew(deployed: Site) -> None:
    """A record that cannot be read is no reason to be stuck."""
    deployed.root_client("s3").put_object(
        Bucket=deployed.names.bucket, Key="lambdamr/deployment.json", Body=io.BytesIO(b"{}")
    )
    assert (Action.CREATE, "record") in actions(deployed.deploy())
    deployment = deployed.state().deployment
    assert isinstance(deployment, Deployment)


def test_a_removal_without_anything_is_nothing(site: Site) -> None:
    """Nothing there: no steps, no data, no error."""
    removal = plan_removal(site.cloud, site.names, delete_data=True)
    assert (removal.steps, removal.data, removal.kept) == ((), None, None)
