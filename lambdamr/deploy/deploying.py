"""Deploying and removing: read what is there, plan, and, when told so, act.

    look ─▶ State ─▶ settle ─▶ Settings ─▶ build ─▶ design ─▶ plan ─▶ Step… ─▶ apply
      AWS                        pure       pip       pure      pure             AWS

Every step may be repeated, and a run that was cut off is continued by the next: it reads what is
there and plans the rest.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lambdamr.deploy.aws import Cloud
from lambdamr.deploy.design import cloud_resources, design
from lambdamr.deploy.models import Resource, changes
from lambdamr.deploy.naming import Names, Root
from lambdamr.deploy.packaging import (
    Archive,
    Package,
    Target,
    built_layer,
    check_size,
    installed_code,
    pinned,
)
from lambdamr.deploy.planner import Action, Step, plan_deploy, plan_undeploy
from lambdamr.deploy.refusals import is_there_already
from lambdamr.deploy.running import running_jobs
from lambdamr.deploy.settings import Options, Settings, settle
from lambdamr.deploy.state import Keepers, State, read_state
from lambdamr.deployment import RECORD_KEY
from lambdamr_runtime.errors import DeployError

log = logging.getLogger(__name__)

BuildLayer = Callable[[Settings], Archive]
Tell = Callable[[Step], None]
"""Is told every step when it is done."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done."""

    names: Names
    settings: Settings
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    """What the user should know beside the steps."""
    code: Archive
    layer: Archive


def layer_of(settings: Settings) -> Archive:
    """Return the layer that settings ask for."""
    return built_layer(settings.target, settings.requirements)


def plan(cloud: Cloud, names: Names, options: Options, build: BuildLayer = layer_of) -> Plan:
    """Return what deploying with these options would do; nothing is changed.

    Raises:  ValueError: an option that cannot be meant.   PackageTooLarge: see check_size.
             MissingPermission, DeployError: AWS refused a look; pip found no packages.
    """
    keepers = Keepers(cloud, names)
    root = Root.parse(options.root) if options.root else None
    state = read_state(keepers, root, given_role=bool(options.role))
    settings = settle(options, names, state, tls_only=cloud.uses_tls())
    _check_bucket(keepers, settings)
    code = installed_code()
    layer = (kept_layer(state, settings) if options.requirements is None else None) or build(
        settings
    )
    check_size(code, layer)
    steps = plan_deploy(design(names, settings, code, layer), state)
    return Plan(names, settings, steps, _notes(names, settings, state), code, layer)


def kept_layer(state: State, settings: Settings) -> Archive | None:
    """Return a stand-in for the layer that is deployed, where it is still the right one.

    A change of the memory downloads nothing, and brings no other versions of the packages.
    """
    record, worker = state.record, state.worker
    if record is None or worker is None:
        return None
    deployed = record.deployment
    target = Target(deployed.python, deployed.architecture)
    pins = pinned(deployed.packages)
    published = any(
        (layer.sha, layer.python, layer.architecture)
        == (worker.layer_sha, target.python, target.architecture)
        for layer in state.layers
    )
    if (
        not published
        or target != settings.target
        or deployed.requirements != settings.requirements
        or pins != {name: deployed.packages.get(name) for name in pins}
    ):
        return None
    packages = tuple(Package(*package, 0) for package in sorted(deployed.packages.items()))
    return Archive(b"", worker.layer_sha, 0, packages)


def plan_for_template(
    cloud: Cloud, names: Names, options: Options, build: BuildLayer = layer_of
) -> Plan:
    """Return how a deployment is made from nothing, without a look at what is there.

    A template is for people who may not look; what it holds is what the options say.
    """
    settings = settle(options, names, State(), tls_only=cloud.uses_tls())
    code, layer = installed_code(), build(settings)
    check_size(code, layer)
    steps = plan_deploy(cloud_resources(names, settings, code, layer), State())
    return Plan(names, settings, steps, (), code, layer)


def _check_bucket(keepers: Keepers, settings: Settings) -> None:
    """Refuse a bucket of the user's that cannot be used."""
    bucket, names = settings.root.bucket, keepers.names
    if bucket == names.bucket:
        return
    region = keepers.buckets.region(bucket)
    if region is None:
        raise DeployError(
            f"There is no bucket {bucket}. Make it first, or leave --root out: lambdamr makes "
            f"{names.bucket}."
        )
    if region != names.region:
        raise DeployError(
            f"The bucket {bucket} is in {region} and the functions would be in {names.region}. "
            f"Use --region {region}, or a bucket in {names.region}."
        )


def _notes(names: Names, settings: Settings, state: State) -> tuple[str, ...]:
    notes = []
    if settings.root.bucket != names.bucket:
        notes.append(
            f"The bucket {settings.root.bucket} is yours and stays as it is: give it a lifecycle "
            f"rule that expires {settings.root.prefix}jobs/ and {settings.root.prefix}shuffle/."
        )
    if state.root and state.root != settings.root:
        notes.append(f"Jobs under {state.root.uri} stay there; they are not moved.")
    if settings.role:
        notes.append(
            f"The role {settings.role} is yours: `lambdamr doctor` shows what it must be allowed."
        )
    return tuple(notes)


def apply(cloud: Cloud, plan: Plan, tell: Tell) -> None:
    """Do what a plan says.

    Raises:  MissingPermission, DeployError: AWS refused a step; those before it are done.
    """
    keepers = Keepers(cloud, plan.names, plan.settings.root, plan.code, plan.layer)
    _do(keepers, plan.steps, tell)


def _do(keepers: Keepers, steps: Sequence[Step], tell: Tell) -> None:
    for step in steps:
        keeper = keepers.of(step.resource)
        log.debug("%s %s %s", step.action, step.resource.kind, step.resource.label)
        match step.action:
            case Action.CREATE:
                _create(keepers, step.resource)
            case Action.UPDATE:
                keeper.update(step.present, step.resource)
            case Action.DELETE:
                keeper.delete(step.resource)
        tell(step)


def _create(keepers: Keepers, wanted: Resource) -> None:
    """Create a resource, or finish it where our own request was repeated after a lost answer."""
    keeper = keepers.of(wanted)
    try:
        keeper.create(wanted)
    except DeployError as error:
        present = keeper.find(wanted) if is_there_already(error) else None
        if present is None:
            raise
        if changes(present, wanted):
            keeper.update(present, wanted)


# --- removing -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Removal:
    """What removing would do."""

    steps: tuple[Step, ...]
    data: Root | None
    """Data in a bucket of the user's that go too; a bucket of ours goes with its data."""
    kept: Root | None
    """Data that stay."""
    running: tuple[str, ...] = ()
    """Jobs that have not ended, and would not any more."""


def plan_removal(
    cloud: Cloud, names: Names, delete_data: bool, root: Root | None = None
) -> Removal:
    """Return what removing a deployment would do; nothing is changed.

    Args:    root: where it stores jobs, for one whose functions and records are gone already.
    """
    keepers = Keepers(cloud, names)
    state = read_state(keepers, root)
    place = state.root or root or names.own_root
    left = _has_data(keepers, place)
    steps = plan_undeploy(state, delete_data, left)
    foreign = place.bucket != names.bucket
    return Removal(
        steps,
        data=place if left and delete_data and foreign else None,
        kept=place if left and not delete_data else None,
        running=running_jobs(cloud, place, state.worker.timeout_s) if left and state.worker else (),
    )


def _has_data(keepers: Keepers, root: Root) -> bool:
    """Whether anything but the record lies under a root."""
    if keepers.buckets.region(root.bucket) is None:
        return False
    return keepers.buckets.has_others(root.bucket, root.prefix, f"{root.prefix}{RECORD_KEY}")


def remove(cloud: Cloud, names: Names, removal: Removal, tell: Tell) -> None:
    """Do what a removal says.

    Raises:  MissingPermission, DeployError: AWS refused a step; those before it are done.
    """
    keepers = Keepers(cloud, names)
    if removal.data:
        keepers.buckets.empty(removal.data.bucket, removal.data.prefix)
    _do(keepers, removal.steps, tell)
