"""What is refused before launch: a job that the deployed runtime could not run."""

import functools
import re
import sys
from collections.abc import Iterable, Mapping, Sequence

from lambdamr.deployment import Deployment
from lambdamr_runtime.errors import InvalidInput, RuntimeMismatch
from lambdamr_runtime.modules import is_reserved
from lambdamr_runtime.wire import PYTHON_VERSION, WIRE_VERSION

PLATFORM_MODULES = frozenset(
    {"awslambdaric", "dateutil", "jmespath", "s3transfer", "six", "urllib3"}
)
"""In Lambda's own Python, beside boto3 and botocore."""

EVERYTHING = "*"
"""In the record of a deployment with a role of the user's own: nobody knows what it may do."""


def check_versions(deployment: Deployment) -> None:
    """Refuse a runtime that speaks another wire version or runs another Python.

    Raises:  RuntimeMismatch: naming both and the command that mends it.
    """
    name = f"The runtime {deployment.name!r} in {deployment.region}"
    if deployment.wire != WIRE_VERSION:
        raise RuntimeMismatch(
            f"{name} speaks wire version {deployment.wire}, this client {WIRE_VERSION}. "
            "Run `lambdamr deploy-runtime`."
        )
    if deployment.python != PYTHON_VERSION:
        raise RuntimeMismatch(
            f"{name} is Python {deployment.python}, this client Python {PYTHON_VERSION}. Run "
            f"`lambdamr deploy-runtime` with Python {PYTHON_VERSION}, or use the client with "
            f"Python {deployment.python}."
        )


def check_packages(
    deployment: Deployment, modules: Iterable[str], exclude: Sequence[str] = ()
) -> None:
    """Refuse functions that need a package which the runtime does not have.

    Args:    modules: that the pickles refer to, and what the user's own among them import.
             exclude: of `exclude_modules=`: modules that nobody needs there.
    Raises:  RuntimeMismatch: naming the packages and the command that adds them.
    """
    there = {_normal(name) for name in deployment.packages}
    missing: dict[str, str] = {}
    for top in sorted({name.partition(".")[0] for name in modules} - set(exclude)):
        if top in sys.stdlib_module_names or is_reserved(top) or top in PLATFORM_MODULES:
            continue
        found = _distributions().get(top, [])
        if found and not there.intersection(map(_normal, found)):
            missing[found[0]] = top
    if missing:
        pins = " ".join(f"{name}=={_version(name)}" for name in missing)
        imported = ", ".join(missing.values())
        raise RuntimeMismatch(
            f"The functions import {imported}, which the runtime {deployment.name!r} does not "
            f"have. Put {pins} into a file and run `lambdamr deploy-runtime --requirements FILE`; "
            "or, if they are not needed there, pass exclude_modules=."
        )


def check_memory(deployment: Deployment, memory_mb: int) -> None:
    """Refuse to ask for more memory than the functions have.

    Raises:  ValueError: naming the command that gives them more.
    """
    if memory_mb > deployment.memory_mb:
        raise ValueError(
            f"memory_mb={memory_mb}, but the functions of the runtime {deployment.name!r} have "
            f"{deployment.memory_mb} MB. Run `lambdamr deploy-runtime --memory {memory_mb}`."
        )


def check_access(deployment: Deployment, reads: Iterable[str], writes: Iterable[str]) -> None:
    """Refuse inputs that the role may not read and outputs that it may not write.

    Raises:  InvalidInput: naming the first and the command that allows it.
    """
    from lambdamr_runtime.store import local_path  # obstore; who asks for help does without

    root = f"{deployment.root.rstrip('/')}/"
    for option, uris, allowed in (
        ("read", reads, (root, *deployment.read)),
        ("write", writes, (root, *deployment.write)),
    ):
        for uri in uris:
            if local_path(uri) is not None:
                raise InvalidInput(
                    f"{uri} is on this machine, where the functions cannot {option} it. Use "
                    "s3://…, executor.upload(path) for an input, or, to work here, "
                    'Executor(backend="local").'
                )
            if uri.startswith("s3://") and not any(map(functools.partial(_covers, uri), allowed)):
                raise InvalidInput(
                    f"The role of the runtime {deployment.name!r} may not {option} {uri}. Run "
                    f"`lambdamr deploy-runtime --{option} {_folder(uri)}`."
                )


def _covers(uri: str, allowed: str) -> bool:
    """Whether *uri* lies under what is allowed: a bucket, a prefix, or everything."""
    if allowed == EVERYTHING:
        return True
    is_bucket = allowed.count("/") == 2
    return uri == allowed or uri.startswith(f"{allowed}/" if is_bucket else allowed)


def _folder(uri: str) -> str:
    """Return the prefix of a URI's last folder, which is what people mean to allow."""
    head, _, last = uri.rpartition("/")
    return uri if head.endswith("/") or not last else f"{head}/"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Return the distributions of each top-level module that is installed here."""
    from importlib.metadata import packages_distributions  # 100 ms where much is installed

    return packages_distributions()


def _version(distribution: str) -> str:
    from importlib.metadata import version

    return version(distribution)
