"""From settings to resources: what a deployment consists of. Pure."""

from lambdamr.aws.requirements import EVERYTHING
from lambdamr.deploy.models import (
    Bucket,
    Expiry,
    Function,
    Layer,
    LogGroup,
    Pairs,
    Profile,
    Record,
    Resource,
    Role,
)
from lambdamr.deploy.naming import TAG, Names
from lambdamr.deploy.packaging import Archive
from lambdamr.deploy.permissions import bucket_policy, canonical, role_policy, trust_policy
from lambdamr.deploy.settings import Settings
from lambdamr.deploy.state import ROOT_VARIABLE, WORKER_VARIABLE
from lambdamr.deploy.storing import record_uri
from lambdamr.deployment import Deployment, profile_path
from lambdamr_runtime.keys import DATA, FUNCTIONS, INPUTS, JOBS, SHUFFLE
from lambdamr_runtime.limits import (
    ABORT_UPLOADS_DAYS,
    EVENT_AGE_S,
    EXPIRE_JOBS_DAYS,
    EXPIRE_SHARED_DAYS,
    SUPERVISOR_MEMORY_MB,
    SUPERVISOR_RETRIES,
    SUPERVISOR_TIMEOUT_S,
    TMP_MB,
    WORKER_RETRIES,
)
from lambdamr_runtime.wire import WIRE_VERSION

WORKER_HANDLER = "lambdamr_runtime.function.worker"
SUPERVISOR_HANDLER = "lambdamr_runtime.function.supervisor"

RECURSION_ALLOWED = True
"""What is asked for; the record says so, since it is written after AWS has confirmed it."""


def design(names: Names, settings: Settings, code: Archive, layer: Archive) -> tuple[Resource, ...]:
    """Return all resources of a deployment, in the order in which they are made."""
    cloud = cloud_resources(names, settings, code, layer)
    deployment = recorded(names, settings, layer)
    return (
        *cloud,
        Record(record_uri(settings.root), deployment),
        Profile(profile_path(names.deployment), deployment),
    )


def cloud_resources(
    names: Names, settings: Settings, code: Archive, layer: Archive
) -> tuple[Resource, ...]:
    """Return what a template can hold too: everything but the records."""
    tags = _tags(names, settings)
    resources: list[Resource] = []
    if settings.root.bucket == names.bucket:
        resources.append(_bucket(names, settings, tags))
    if not settings.role:
        resources.append(_role(names, settings, tags))
    resources += [
        LogGroup(names.log_group(name), settings.log_days, tags)
        for name in (names.worker, names.supervisor)
    ]
    resources.append(
        Layer(names.layer, layer.sha, settings.target.python, settings.target.architecture)
    )
    return (
        *resources,
        _supervisor(names, settings, code, layer),
        _worker(names, settings, code, layer),
    )


def recorded(names: Names, settings: Settings, layer: Archive) -> Deployment:
    """Return what clients have to know."""
    unknown = (EVERYTHING,) if settings.role else ()  # what a role of the user's may do
    return Deployment(
        name=names.deployment,
        region=names.region,
        root=settings.root.uri,
        worker=names.worker,
        supervisor=names.supervisor,
        python=settings.target.python,
        architecture=settings.target.architecture,
        wire=WIRE_VERSION,
        memory_mb=settings.memory_mb,
        timeout_s=settings.timeout_s,
        tmp_mb=settings.tmp_mb,
        packages=layer.versions,
        read=(*unknown, *settings.read),
        write=(*unknown, *settings.write),
        requirements=settings.requirements,
        account=names.account,
        recursive=RECURSION_ALLOWED,
    )


def _tags(names: Names, settings: Settings) -> Pairs:
    return tuple(sorted({**dict(settings.tags), TAG: names.deployment}.items()))


def _bucket(names: Names, settings: Settings, tags: Pairs) -> Bucket:
    prefix = settings.root.prefix
    days = {
        JOBS: EXPIRE_JOBS_DAYS,
        SHUFFLE: EXPIRE_JOBS_DAYS,
        FUNCTIONS: EXPIRE_SHARED_DAYS,
        DATA: EXPIRE_SHARED_DAYS,
        INPUTS: EXPIRE_SHARED_DAYS,
    }
    return Bucket(
        name=names.bucket,
        region=names.region,
        private=True,
        kms_key=settings.kms_key,
        policy=canonical(bucket_policy(names)) if settings.tls_only else "",
        expiries=tuple(Expiry(f"{prefix}{folder}", days[folder]) for folder in sorted(days)),
        abort_uploads_days=ABORT_UPLOADS_DAYS,
        tags=tags,
    )


def _role(names: Names, settings: Settings, tags: Pairs) -> Role:
    policy = role_policy(
        names,
        settings.root,
        settings.read,
        settings.write,
        settings.kms_key,
        in_vpc=bool(settings.subnets),
    )
    return Role(
        name=names.role,
        trust=canonical(trust_policy()),
        policy=canonical(policy),
        permissions_boundary=settings.permissions_boundary,
        tags=tags,
    )


def _worker(names: Names, settings: Settings, code: Archive, layer: Archive) -> Function:
    return _function(
        names,
        settings,
        code,
        layer,
        name=names.worker,
        handler=WORKER_HANDLER,
        sizes=(settings.memory_mb, settings.timeout_s, settings.tmp_mb),
        retries=WORKER_RETRIES,
        on_failure=names.function_arn(names.supervisor),
        environment=settings.environment,
    )


def _supervisor(names: Names, settings: Settings, code: Archive, layer: Archive) -> Function:
    return _function(
        names,
        settings,
        code,
        layer,
        name=names.supervisor,
        handler=SUPERVISOR_HANDLER,
        sizes=(SUPERVISOR_MEMORY_MB, SUPERVISOR_TIMEOUT_S, TMP_MB[0]),
        retries=SUPERVISOR_RETRIES,
        on_failure="",
        environment=(),
    )


def _function(
    names: Names,
    settings: Settings,
    code: Archive,
    layer: Archive,
    *,
    name: str,
    handler: str,
    sizes: tuple[int, int, int],
    retries: int,
    on_failure: str,
    environment: Pairs,
) -> Function:
    """Return one of the two functions.

    Args:    sizes: memory in MB, time limit in seconds, /tmp in MB.
    """
    own = {ROOT_VARIABLE: settings.root.uri, WORKER_VARIABLE: names.worker}
    memory_mb, timeout_s, tmp_mb = sizes
    return Function(
        name=name,
        code_sha=code.sha,
        layer_sha=layer.sha,
        role=settings.role or names.role_arn,
        handler=handler,
        python=settings.target.python,
        architecture=settings.target.architecture,
        memory_mb=memory_mb,
        timeout_s=timeout_s,
        tmp_mb=tmp_mb,
        environment=tuple(sorted({**dict(environment), **own}.items())),
        kms_key=settings.kms_key,
        subnets=settings.subnets,
        security_groups=settings.security_groups,
        recursion_allowed=RECURSION_ALLOWED,
        retries=retries,
        event_age_s=EVENT_AGE_S,
        on_failure=on_failure,
        tags=_tags(names, settings),
    )
