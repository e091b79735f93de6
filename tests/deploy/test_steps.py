"""What is wanted, and the steps towards it: pure."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdamr.deploy.design import design
from lambdamr.deploy.models import Bucket, Function, Layer, Profile, Record, Resource, Role
from lambdamr.deploy.naming import Names, Root, check_name
from lambdamr.deploy.packaging import Archive
from lambdamr.deploy.planner import Action, changed, plan_deploy, plan_undeploy
from lambdamr.deploy.settings import Options, Settings, read_requirements, settle
from lambdamr.deploy.state import State
from lambdamr_runtime.errors import DeployError

NAMES = Names("default", "eu-west-1", "123456789012", "aws")
CODE, LAYER = Archive(b"code", "c" * 64, 1), Archive(b"layer", "a" * 64, 1)
NOTHING = State()


def settings(state: State = NOTHING, **options: Any) -> Settings:
    """Any: fields of Options."""
    return settle(Options(**options), NAMES, state, python="3.12")


def wanted(**options: Any) -> tuple[Resource, ...]:
    return design(NAMES, settings(**options), CODE, LAYER)


def state_of(resources: Iterable[Resource]) -> State:
    """Return the state in which just these resources are there."""
    found: dict[str, object] = {"layers": ()}
    for it in resources:
        match it:
            case Bucket() | Role() | Record() | Profile():
                found[type(it).__name__.lower()] = it
            case Layer():
                found["layers"] = (it,)
            case Function():
                found[it.name.rpartition("-")[2]] = it
            case _:
                found[f"{it.label.rpartition('-')[2]}_logs"] = it
    return State(**found)  # type: ignore[arg-type]  # by kind


# --- the planner --------------------------------------------------------------------------------
def test_from_nothing_all_is_made_in_order() -> None:
    """What others need comes first, the records last."""
    steps = plan_deploy(wanted(), NOTHING)
    assert [step.resource.kind for step in steps] == [
        "bucket", "role", "log group", "log group", "layer", "function", "function", "record",
        "profile",
    ]  # fmt: skip
    assert {step.action for step in steps} == {Action.CREATE}
    names = [step.resource.label for step in steps if step.resource.kind == "function"]
    assert names == [NAMES.supervisor, NAMES.worker], "the destination is there before its user"


@given(st.sets(st.integers(0, 8)))
def test_whatever_is_there_is_not_made_again(there: set[int]) -> None:
    """Law: a plan keeps what is as wanted, makes the rest, and plans nothing when it is done."""
    resources = wanted()
    state = state_of(it for number, it in enumerate(resources) if number in there)
    steps = plan_deploy(resources, state)
    assert [step.resource for step in steps] == list(resources)
    for number, step in enumerate(steps):
        assert step.action is (Action.KEEP if number in there else Action.CREATE)
    assert changed(plan_deploy(resources, state_of(resources))) == ()


@given(st.integers(128, 10_240), st.integers(1, 900), st.booleans())
def test_only_what_differs_is_changed(memory_mb: int, timeout_s: int, tagged: bool) -> None:
    """Law: an update names exactly the fields that differ."""
    new = wanted(memory_mb=memory_mb, timeout_s=timeout_s, tags=(("a", "b"),) if tagged else ())
    for step in plan_deploy(new, state_of(wanted())):
        assert step.present is not None
        for change in step.changes:
            assert getattr(step.present, change.field) == change.present
            assert getattr(step.resource, change.field) == change.wanted
        fields = {change.field: change.wanted for change in step.changes}
        assert dataclasses.replace(step.present, **fields) == step.resource  # type: ignore[type-var]  # a dataclass


def test_what_is_no_longer_wanted_goes_when_nothing_uses_it() -> None:
    """An old layer is removed after the functions have the new one, before the records."""
    old = dataclasses.replace(LAYER, sha="b" * 64)
    state = state_of(design(NAMES, settings(), CODE, old))
    steps = plan_deploy(wanted(), state)
    kinds = [(step.action, step.resource.kind) for step in steps]
    removed = kinds.index((Action.DELETE, "layer"))
    assert removed > kinds.index((Action.UPDATE, "function"))
    assert removed < kinds.index((Action.KEEP, "record"))


def test_a_given_role_and_bucket_are_not_made() -> None:
    """--role and --root: the role of before goes; a bucket never does, since it holds data."""
    mine = "arn:aws:iam::123456789012:role/mine"
    new = wanted(role=mine, root="s3://my-bucket/x")
    assert not any(isinstance(it, Bucket | Role) for it in new)
    assert all(it.role == mine for it in new if isinstance(it, Function))
    (record,) = (it for it in new if isinstance(it, Record))
    assert record.deployment.read == record.deployment.write == ("*",), "nobody knows what it may"
    steps = changed(plan_deploy(new, state_of(wanted())))
    deleted = [step.resource.kind for step in steps if step.action is Action.DELETE]
    assert deleted == ["role", "record"]


@pytest.mark.parametrize(
    ("delete_data", "data_left", "bucket"),
    [
        (False, True, Action.KEEP),
        (False, False, Action.DELETE),
        (True, True, Action.DELETE),
    ],
)
def test_a_removal_is_the_reverse(delete_data: bool, data_left: bool, bucket: Action) -> None:
    """Functions before what they use, the bucket after its record, the profile last of all."""
    steps = plan_undeploy(state_of(wanted()), delete_data, data_left)
    assert [step.resource.kind for step in steps] == [
        "function", "function", "layer", "log group", "log group", "role", "record", "bucket",
        "profile",
    ]  # fmt: skip
    assert steps[-2].action is bucket
    assert all(it.action is Action.DELETE for it in steps if it.resource.kind != "bucket")


def test_what_a_given_role_may_is_not_given_to_one_of_ours() -> None:
    """The record says everything and what was named; without --role only the latter comes back."""
    mine = "arn:aws:iam::123456789012:role/mine"
    state = state_of(wanted(role=mine, read=("s3://logs/",)))
    deployed = state.deployment
    assert deployed is not None
    assert (deployed.read, deployed.write) == (("*", "s3://logs/"), ("*",))
    assert settings(state).role == mine
    again = settings(state, role="")
    assert (again.read, again.write) == (("s3://logs/",), ())


# --- settings -----------------------------------------------------------------------------------
def test_what_is_not_said_stays() -> None:
    """Every option that was given once is found in what is deployed."""
    given: dict[str, Any] = {
        "root": "s3://my-bucket/x",
        "read": ("s3://logs/a/",),
        "write": ("s3://out/",),
        "memory_mb": 3000,
        "timeout_s": 60,
        "tmp_mb": 2048,
        "architecture": "arm64",
        "requirements": ("numpy==2.4",),
        "environment": (("A", "1"),),
        "subnets": ("subnet-1",),
        "security_groups": ("sg-1",),
        "kms_key": "arn:aws:kms:eu-west-1:123456789012:key/1",
        "tags": (("team", "x"),),
        "log_days": 30,
        "permissions_boundary": "arn:aws:iam::123456789012:policy/bound",
    }
    first = settings(**given)
    state = state_of(design(NAMES, first, CODE, LAYER))
    assert settings(state) == first
    assert settings(state, memory_mb=512) == dataclasses.replace(first, memory_mb=512)
    assert settings(state, environment=(), subnets=(), security_groups=()) == dataclasses.replace(
        first, environment=(), subnets=(), security_groups=()
    )
    mine = "arn:aws:iam::123456789012:role/mine"
    with_role = settings(role=mine)
    assert settings(state_of(design(NAMES, with_role, CODE, LAYER))).role == mine


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"memory_mb": 127}, "--memory is 128 to 10,240 MB, not 127"),
        ({"timeout_s": 901}, "--timeout is 1 to 900"),
        ({"tmp_mb": 100}, "--tmp is 512"),
        ({"log_days": 2}, "--log-retention is one of 1, 3, 5"),
        ({"architecture": "riscv"}, "x86_64, arm64"),
        ({"subnets": ("subnet-1",)}, "go together"),
        ({"environment": (("AWS_X", "1"),)}, "AWS_X"),
        ({"environment": (("LAMBDAMR_ROOT", "1"),)}, "LAMBDAMR_ROOT"),
        ({"environment": (("a-b", "1"),)}, "a-b"),
        ({"tags": (("aws:x", "1"),)}, "aws:x"),
        ({"tags": (("lambdamr", "1"),)}, "lambdamr"),
        ({"read": ("/data",)}, "--read /data"),
        ({"write": ("s3://",)}, "--write s3://"),
        ({"root": "/tmp/x"}, "s3://bucket/prefix"),
        ({"root": "s3://b/x//y"}, "s3://bucket/prefix"),
        ({"requirements": ("-r other.txt",)}, "name the packages themselves"),
        ({"requirements": ("--index-url https://me:secret@host/",)}, "password"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], said: str) -> None:
    """What AWS would refuse after half of the work is refused before it, by its option."""
    with pytest.raises(ValueError) as caught:
        settings(**options)
    assert said in str(caught.value)


def test_the_functions_may_pay_for_what_they_read() -> None:
    """AWS_REQUEST_PAYER is a variable like others, though its name begins as those of AWS do."""
    pays = (("AWS_REQUEST_PAYER", "requester"),)
    new = [it for it in wanted(environment=pays) if isinstance(it, Function)]
    worker = next(it for it in new if it.name == NAMES.worker)
    assert set(pays) <= set(worker.environment)


def test_a_python_that_lambda_lacks_is_refused() -> None:
    """Workers have the client's Python: the message says which there are."""
    with pytest.raises(ValueError, match=r"3\.10.*3\.11, 3\.12, 3\.13, 3\.14"):
        settle(Options(), NAMES, NOTHING, python="3.10")


def test_uris_are_what_they_begin_with() -> None:
    """A glob becomes the prefix before it; the same twice is once."""
    found = settings(read=("s3://logs/2026/*.gz", "s3://logs/2026/", "s3://all"))
    assert found.read == ("s3://all", "s3://logs/2026/")


def test_a_requirements_file_is_its_lines(tmp_path: object) -> None:
    """Comments and empty lines are dropped; a file that is not there is told by name."""
    path = f"{tmp_path}/r.txt"
    with open(path, "w") as file:
        file.write("# mine\nnumpy==2.4  # fast\n\nsix\n")
    assert read_requirements(path) == ("numpy==2.4", "six")
    with pytest.raises(DeployError, match=r"nowhere\.txt"):
        read_requirements("nowhere.txt")


# --- names --------------------------------------------------------------------------------------
def test_names_fit_into_aws() -> None:
    """The longest names that can be are within the limits of buckets, roles and functions."""
    longest = Names("a" * 20, "ap-southeast-7", "1" * 12, "aws")
    assert len(longest.bucket) <= 63
    assert len(longest.role) <= 64
    assert len(longest.supervisor) <= 64


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a_b", "a" * 21, "é"])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    """A deployment's name is part of a bucket's."""
    with pytest.raises(ValueError, match="cannot name a deployment"):
        check_name(name)


def test_roots() -> None:
    """A bucket alone gets a folder; URIs come back as they were."""
    assert Root.parse("my-bucket") == Root("my-bucket", "lambdamr/")
    assert Root.parse("s3://my-bucket/a/b/") == Root("my-bucket", "a/b/")
    assert Root.parse("s3://my-bucket/a").uri == "s3://my-bucket/a"
