"""Which deployment a command is about: its options, and the way to it."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from lambdamr.deploy.aws import Aws, identify, open_session
from lambdamr.deploy.naming import Names, check_name
from lambdamr.deployment import DEFAULT_NAME, load_profile
from lambdamr_runtime.errors import DeployError
from lambdamr_runtime.signing import NO_REGION

_F = TypeVar("_F", bound=Callable[..., Any])


def deployment_options(command: _F) -> _F:
    """Give a command --name, --region and --aws-profile."""
    command = click.option("--aws-profile", help="Profile of the AWS configuration.")(command)
    where = "AWS region; default: where it is, or as AWS is configured."
    command = click.option("--region", help=where)(command)
    return click.option("--name", default=DEFAULT_NAME, help="Name of the deployment.")(command)


def connect(
    name: str, region: str | None, aws_profile: str | None, *, is_new: bool = False
) -> tuple[Aws, Names]:
    """Return the way to AWS and the names of a deployment.

    The region is the given one, that of the deployment on this machine, or that of AWS's own
    configuration.

    Raises:  ValueError: a name that cannot be one.
             DeployError: there are no usable credentials, or no region.
    """
    check_name(name)
    session = open_session(aws_profile)
    profile = load_profile(name)
    place = region or (profile.region if profile else None) or session.region_name
    if not place:
        known = "" if is_new else f"This machine knows of no deployment {name!r}. "
        raise DeployError(f"{known}{NO_REGION}")
    cloud = Aws(session, place)
    return cloud, identify(cloud, name, place)


def confirm(question: str, yes: bool, as_json: bool) -> None:
    """Ask before something is changed.

    Raises:  click.UsageError: nobody can be asked.   click.Abort: the answer is no.
    """
    check_consent(yes, as_json)
    if not yes:
        click.confirm(question, default=True, abort=True, err=True)


def check_consent(yes: bool, as_json: bool) -> None:
    """Refuse to go on towards a change that nobody has agreed to, or can be asked about.

    Raises:  click.UsageError: naming the option.
    """
    if not yes and (as_json or not sys.stdin.isatty()):
        raise click.UsageError("Nobody can be asked here: give --yes, or --plan to look only.")
