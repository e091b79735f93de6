"""What a deployed runtime consists of, as data.

The same classes say what is wanted (design.py makes them from settings), what is there (the keepers
read them from AWS) and what a template has. Two are the same if they are equal; what differs is
named field by field.
"""

from dataclasses import dataclass, fields
from typing import ClassVar, Protocol

from lambdamr.deployment import Deployment

Pairs = tuple[tuple[str, str], ...]
"""A mapping that can be compared and hashed: sorted (name, value)."""


class Resource(Protocol):
    """Something that is made, changed and removed as one."""

    kind: ClassVar[str]
    """What it is called in plans, errors and steps."""

    @property
    def label(self) -> str:
        """Its name in AWS; with the kind, what it is known by."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """Objects under a prefix of the bucket are removed at an age."""

    prefix: str
    days: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """The bucket of the root, where it is lambdamr's own."""

    kind: ClassVar[str] = "bucket"
    name: str
    region: str
    private: bool
    """All four public-access blocks are on."""
    kms_key: str
    """ARN of the key that encrypts objects, "" for S3's own."""
    policy: str
    """The bucket's policy as canonical JSON, "" for none."""
    expiries: tuple[Expiry, ...]
    abort_uploads_days: int
    """Age at which unfinished uploads are removed; 0 for never."""
    tags: Pairs

    @property
    def label(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Role:
    """What the functions act as."""

    kind: ClassVar[str] = "role"
    name: str
    trust: str
    """Who may assume it, as canonical JSON."""
    policy: str
    """What it may do, as canonical JSON; "" for nothing."""
    permissions_boundary: str
    """ARN of a policy, "" for none."""
    tags: Pairs

    @property
    def label(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class LogGroup:
    """Where a function's output goes."""

    kind: ClassVar[str] = "log group"
    name: str
    retention_days: int
    """0 for ever."""
    tags: Pairs

    @property
    def label(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Layer:
    """A published version of the layer, known by its contents."""

    kind: ClassVar[str] = "layer"
    name: str
    sha: str
    """SHA-256 of what is in it, in hex."""
    python: str
    architecture: str

    @property
    def label(self) -> str:
        return f"{self.name}@{self.sha[:12]}"


@dataclass(frozen=True, slots=True)
class Function:
    """A function, and how events reach it."""

    kind: ClassVar[str] = "function"
    name: str
    code_sha: str
    """SHA-256 of what it is made of, as its description says; "" where that says none."""
    layer_sha: str
    """Contents of its layer; "" where it has none of ours."""
    role: str
    """ARN."""
    handler: str
    python: str
    architecture: str
    memory_mb: int
    timeout_s: int
    tmp_mb: int
    environment: Pairs
    kms_key: str
    """ARN of the key that encrypts the environment, "" for AWS's own."""
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    recursion_allowed: bool
    retries: int
    """How often AWS repeats a failed event."""
    event_age_s: int
    on_failure: str
    """ARN of the function that gets the record of a failed event, "" for none."""
    tags: Pairs

    @property
    def label(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Record:
    """The record under the root, for every client."""

    kind: ClassVar[str] = "record"
    uri: str
    deployment: Deployment

    @property
    def label(self) -> str:
        return self.uri


@dataclass(frozen=True, slots=True)
class Profile:
    """The record on this machine, for `Executor()`."""

    kind: ClassVar[str] = "profile"
    path: str
    deployment: Deployment

    @property
    def label(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class Change:
    """A field that is not as it should be."""

    field: str
    present: object
    wanted: object


def changes(present: Resource, wanted: Resource) -> tuple[Change, ...]:
    """Return in which fields two resources of one kind differ."""
    differences = []
    for field in fields(type(wanted)):  # type: ignore[arg-type]  # every Resource is a dataclass
        old, new = getattr(present, field.name), getattr(wanted, field.name)
        if old != new:
            differences.append(Change(field.name, old, new))
    return tuple(differences)


def pairs(mapping: "dict[str, str]") -> Pairs:
    """Return a mapping as sorted pairs."""
    return tuple(sorted(mapping.items()))


def own_tags(tags: "dict[str, str]") -> Pairs:
    """Return tags as sorted pairs, without those that AWS itself sets (CloudFormation does)."""
    return pairs({name: value for name, value in tags.items() if not name.startswith("aws:")})
