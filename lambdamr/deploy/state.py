"""What of a deployment is there."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from lambdamr.deploy.aws import Cloud
from lambdamr.deploy.functions import FunctionKeeper, LayerKeeper
from lambdamr.deploy.identity import LogKeeper, RoleKeeper
from lambdamr.deploy.models import (
    Bucket,
    Function,
    Layer,
    LogGroup,
    Profile,
    Record,
    Resource,
    Role,
)
from lambdamr.deploy.naming import Names, Root
from lambdamr.deploy.packaging import Archive
from lambdamr.deploy.storing import BucketKeeper, ProfileKeeper, RecordKeeper
from lambdamr.deployment import Deployment
from lambdamr_runtime.errors import MissingPermission

ROOT_VARIABLE = "LAMBDAMR_ROOT"
WORKER_VARIABLE = "LAMBDAMR_WORKER"
"""What the functions read: where jobs are, and whom to invoke."""

NOTHING = Archive(b"", "", 0)


@dataclass(frozen=True, slots=True)
class State:
    """What there is; None and () for what is not."""

    bucket: Bucket | None = None
    role: Role | None = None
    worker_logs: LogGroup | None = None
    supervisor_logs: LogGroup | None = None
    layers: tuple[Layer, ...] = ()
    supervisor: Function | None = None
    worker: Function | None = None
    record: Record | None = None
    profile: Profile | None = None

    @property
    def deployment(self) -> Deployment | None:
        """What is recorded, in the account before on this machine."""
        found = self.record or self.profile
        return found.deployment if found else None

    @property
    def root(self) -> Root | None:
        """Where the deployed functions store jobs."""
        if self.worker:
            uri = dict(self.worker.environment).get(ROOT_VARIABLE)
            if uri:
                return Root.parse(uri)
        return Root.parse(self.deployment.root) if self.deployment else None

    def __iter__(self) -> Iterator[Resource]:
        """Yield what there is, in the order in which it is made."""
        single = (self.bucket, self.role, self.worker_logs, self.supervisor_logs)
        rest = (self.supervisor, self.worker, self.record, self.profile)
        for resource in (*single, *self.layers, *rest):
            if resource is not None:
                yield resource


class Keeper(Protocol):
    """Reads and changes the resources of one kind; Any: a resource of that kind."""

    def find(self, like: Any) -> Any:
        """Return the present form of a resource, None where there is none."""

    def create(self, wanted: Any) -> None: ...

    def update(self, present: Any, wanted: Any) -> None: ...

    def delete(self, present: Any) -> None: ...


class Keepers:
    """Everything that reads and changes resources, for one deployment."""

    def __init__(
        self,
        cloud: Cloud,
        names: Names,
        root: Root | None = None,
        code: Archive = NOTHING,
        layer: Archive = NOTHING,
    ) -> None:
        """Take what may be uploaded; without it nothing can be made, but looked at and removed."""
        self.names = names
        self.buckets = BucketKeeper(cloud)
        self.roles = RoleKeeper(cloud)
        self.logs = LogKeeper(cloud)
        self.layers = LayerKeeper(cloud, {layer.sha: layer}, root or names.own_root)
        self.functions = FunctionKeeper(cloud, self.layers, names.layer, code.data)
        self.records = RecordKeeper(cloud)
        self.profiles = ProfileKeeper()

        self._of: dict[str, Keeper] = {
            Bucket.kind: self.buckets,
            Role.kind: self.roles,
            LogGroup.kind: self.logs,
            Layer.kind: self.layers,
            Function.kind: self.functions,
            Record.kind: self.records,
            Profile.kind: self.profiles,
        }

    def of(self, resource: Resource) -> Keeper:
        """Return who reads and changes resources of that kind."""
        return self._of[resource.kind]


def read_state(keepers: Keepers, root: Root | None = None, given_role: bool = False) -> State:
    """Return what there is of a deployment.

    Args:    root: where it is to be, for a record that lies there already.
             given_role: whether the functions use a role that is not of our making.
    Raises:  MissingPermission, DeployError: AWS refused a look.
    """
    names = keepers.names
    worker = keepers.functions.read(names.worker)
    found = State(
        bucket=keepers.buckets.read(names.bucket),
        role=_role(keepers, given_role or bool(worker and worker.role != names.role_arn)),
        worker_logs=keepers.logs.read(names.log_group(names.worker)),
        supervisor_logs=keepers.logs.read(names.log_group(names.supervisor)),
        layers=keepers.layers.read(names.layer),
        supervisor=keepers.functions.read(names.supervisor),
        worker=worker,
        profile=keepers.profiles.read(names.deployment, names),
    )
    return replace(found, record=keepers.records.read(found.root or root or names.own_root))


def _role(keepers: Keepers, given: bool) -> Role | None:
    """Return our own role. Who uses a given one may not be allowed to look, and needs none."""
    try:
        return keepers.roles.read(keepers.names.role)
    except MissingPermission:
        if not given:
            raise
        return None
