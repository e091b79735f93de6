"""What the user asks for, and what that comes to.

    Options     as given on the command line; None: not given
    Settings    complete: what is given, else what is deployed now, else the default

So a second `deploy-runtime --memory 4096` changes the memory and nothing else.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from lambdamr.aws.requirements import EVERYTHING
from lambdamr.deploy.models import Pairs
from lambdamr.deploy.naming import TAG, Names, Root
from lambdamr.deploy.packaging import Target
from lambdamr.deploy.state import ROOT_VARIABLE, WORKER_VARIABLE, State
from lambdamr_runtime.errors import DeployError
from lambdamr_runtime.limits import (
    ARCHITECTURES,
    LOG_RETENTION_DAYS,
    MEMORY_MB,
    PYTHONS,
    TIMEOUT_S,
    TMP_MB,
    WORKER_LOG_DAYS,
    WORKER_MEMORY_MB,
    WORKER_TIMEOUT_S,
    WORKER_TMP_MB,
)

_Value = TypeVar("_Value")

_VARIABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED_VARIABLES = ("AWS_", "LAMBDA_", "LAMBDAMR_", "_")
_FREE_VARIABLES = frozenset({"AWS_REQUEST_PAYER"})
"""Read by S3 clients, and not one of those that Lambda sets."""

_URI = re.compile(r"s3://[a-z0-9][a-z0-9.-]+(?:/.*)?")
_GLOB = re.compile(r"[*?\[]")
_SECRET_URL = re.compile(r"://[^/\s]*:[^/\s]*@")


@dataclass(frozen=True, slots=True)
class Options:
    """What was said; None stands for "as it is, or as usual", an empty value for "none"."""

    root: str | None = None
    read: tuple[str, ...] | None = None
    write: tuple[str, ...] | None = None
    memory_mb: int | None = None
    timeout_s: int | None = None
    tmp_mb: int | None = None
    architecture: str | None = None
    requirements: tuple[str, ...] | None = None
    """Lines in pip's format."""
    environment: Pairs | None = None
    subnets: tuple[str, ...] | None = None
    security_groups: tuple[str, ...] | None = None
    kms_key: str | None = None
    role: str | None = None
    """ARN of a role to use instead of one of our own."""
    permissions_boundary: str | None = None
    tags: Pairs | None = None
    log_days: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What a deployment is to be like."""

    root: Root
    read: tuple[str, ...]
    write: tuple[str, ...]
    memory_mb: int
    timeout_s: int
    tmp_mb: int
    target: Target
    requirements: tuple[str, ...]
    environment: Pairs
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    kms_key: str
    role: str
    permissions_boundary: str
    tags: Pairs
    log_days: int
    tls_only: bool = True
    """Whether the bucket refuses requests without TLS; an emulator's has to take them."""


def settle(
    options: Options,
    names: Names,
    state: State,
    tls_only: bool = True,
    python: str | None = None,
) -> Settings:
    """Return the settings of a deployment, all checked.

    Args:    state: what is deployed.   python: minor version; that of this client.
    Raises:  ValueError: a setting that AWS would refuse, or that cannot be meant.
    """
    present = _present(names, state)
    root = options.root or present.root
    settings = Settings(
        root=Root.parse(root) if root else names.own_root,
        read=_uris(_first(options.read, present.read, ()), "--read"),
        write=_uris(_first(options.write, present.write, ()), "--write"),
        memory_mb=_first(options.memory_mb, present.memory_mb, WORKER_MEMORY_MB),
        timeout_s=_first(options.timeout_s, present.timeout_s, WORKER_TIMEOUT_S),
        tmp_mb=_first(options.tmp_mb, present.tmp_mb, WORKER_TMP_MB),
        target=Target(
            python or f"{sys.version_info.major}.{sys.version_info.minor}",
            _first(options.architecture, present.architecture, ARCHITECTURES[0]),
        ),
        requirements=_first(options.requirements, present.requirements, ()),
        environment=_first(options.environment, present.environment, ()),
        subnets=tuple(sorted(_first(options.subnets, present.subnets, ()))),
        security_groups=tuple(sorted(_first(options.security_groups, present.security_groups, ()))),
        kms_key=_first(options.kms_key, present.kms_key, ""),
        role=_first(options.role, present.role, ""),
        permissions_boundary=_first(options.permissions_boundary, present.permissions_boundary, ""),
        tags=_first(options.tags, present.tags, ()),
        log_days=_first(options.log_days, present.log_days, WORKER_LOG_DAYS),
        tls_only=tls_only,
    )
    check(settings)
    return settings


def _first(given: _Value | None, present: _Value | None, default: _Value) -> _Value:
    if given is not None:
        return given
    return present if present is not None else default


def _present(names: Names, state: State) -> Options:
    """Return what is deployed, in the form of options."""
    worker, deployment = state.worker, state.deployment
    if worker is None:
        root = deployment.root if deployment else None
        return Options(root=root)
    environment = dict(worker.environment)
    root = environment.pop(ROOT_VARIABLE, None)
    environment.pop(WORKER_VARIABLE, None)
    logs = state.worker_logs
    return Options(
        root=root,
        read=named(deployment.read) if deployment else None,
        write=named(deployment.write) if deployment else None,
        requirements=deployment.requirements if deployment else None,
        memory_mb=worker.memory_mb,
        timeout_s=worker.timeout_s,
        tmp_mb=worker.tmp_mb,
        architecture=worker.architecture,
        environment=tuple(sorted(environment.items())),
        subnets=worker.subnets,
        security_groups=worker.security_groups,
        kms_key=worker.kms_key,
        role="" if worker.role == names.role_arn else worker.role,
        permissions_boundary=state.role.permissions_boundary if state.role else None,
        tags=tuple(pair for pair in worker.tags if pair[0] != TAG),
        log_days=logs.retention_days if logs and logs.retention_days else None,
    )


def named(recorded: Sequence[str]) -> tuple[str, ...]:
    """Return the URIs of a record that were named: nobody named everything."""
    return tuple(uri for uri in recorded if uri != EVERYTHING)


# --- checks -------------------------------------------------------------------------------------
def check(settings: Settings) -> None:
    """Refuse before anything is made what AWS would refuse afterwards.

    Raises:  ValueError: naming the option and what it may be.
    """
    _check_range("--memory", settings.memory_mb, MEMORY_MB, "MB")
    _check_range("--timeout", settings.timeout_s, TIMEOUT_S, "seconds")
    _check_range("--tmp", settings.tmp_mb, TMP_MB, "MB")
    _check_one("--architecture", settings.target.architecture, ARCHITECTURES)
    _check_one("--log-retention", settings.log_days, LOG_RETENTION_DAYS)
    if settings.target.python not in PYTHONS:
        raise ValueError(
            f"AWS Lambda has no Python {settings.target.python} that lambdamr runs on; use one of "
            f"{', '.join(PYTHONS)} for the client: workers have the same version."
        )
    if bool(settings.subnets) != bool(settings.security_groups):
        raise ValueError("--vpc-subnets and --vpc-security-groups go together.")
    for name, _ in settings.environment:
        is_taken = name.startswith(_RESERVED_VARIABLES) and name not in _FREE_VARIABLES
        if is_taken or not _VARIABLE.fullmatch(name):
            raise ValueError(
                f"--env {name}=… cannot be set; names have letters, digits and _, and those that "
                f"begin with {', '.join(_RESERVED_VARIABLES[:-1])} are taken."
            )
    for name, _ in settings.tags:
        if name.startswith("aws:") or name == TAG:
            raise ValueError(f"--tags {name}=… is a tag that cannot be set.")
    for line in settings.requirements:
        _check_requirement(line)


def _check_range(option: str, value: int, bounds: tuple[int, int], unit: str) -> None:
    if not bounds[0] <= value <= bounds[1]:
        raise ValueError(f"{option} is {bounds[0]:,} to {bounds[1]:,} {unit}, not {value:,}.")


def _check_one(option: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise ValueError(f"{option} is one of {', '.join(map(str, allowed))}, not {value}.")


def _check_requirement(line: str) -> None:
    if line.startswith(("-r", "-c", "-e", "--requirement", "--constraint", "--editable")):
        raise ValueError(
            f"The requirements have {line!r}: name the packages themselves, since the list is kept "
            "with the deployment."
        )
    if _SECRET_URL.search(line):
        raise ValueError(
            "The requirements have a URL with a password; the list is kept with the deployment. "
            "Put it into pip's configuration (PIP_INDEX_URL)."
        )


def _uris(uris: Sequence[str], option: str) -> tuple[str, ...]:
    """Return what URIs and globs begin with, sorted, each once."""
    return tuple(sorted({_uri(uri, option) for uri in uris}))


def _uri(uri: str, option: str) -> str:
    if not _URI.fullmatch(uri):
        raise ValueError(f"{option} {uri} is no s3://bucket/prefix.")
    return _GLOB.split(uri, maxsplit=1)[0]


def read_requirements(path: str) -> tuple[str, ...]:
    """Return the lines of a requirements file, without comments.

    Raises:  DeployError: it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line.partition(" #")[0].strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise DeployError(f"The requirements {path} cannot be read: {error}") from error
    return tuple(line for line in lines if line and not line.startswith("#"))
