"""`lambdamr doctor`, and `lambdamr status` without a job: a look at what is deployed."""

from dataclasses import asdict

import click

from lambdamr.cli import Exit
from lambdamr.cli.accounts import connect, deployment_options
from lambdamr.cli.showing import json_option, show
from lambdamr.deploy.aws import Cloud
from lambdamr.deploy.doctor import examine
from lambdamr.deploy.naming import Names
from lambdamr.deploy.state import Keepers, State, read_state
from lambdamr.deployment import load_profile
from lambdamr_runtime.errors import DeployError


def show_deployment(cloud: Cloud, names: Names, as_json: bool) -> None:
    """Print the state of a deployment.

    Raises:  DeployError: there is none.
    """
    state = read_state(Keepers(cloud, names))
    if state.worker is None or state.deployment is None:
        known = load_profile(names.deployment)
        elsewhere = ""
        if known is not None and (known.region, known.account) != (names.region, names.account):
            elsewhere = (
                f" This machine knows it in {known.region}, account {known.account}: give "
                f"--region {known.region}, or the profile of that account."
            )
        raise DeployError(
            f"There is no deployment {names.deployment!r} in {names.region}, account "
            f"{names.account}.{elsewhere or ' Run `lambdamr deploy-runtime`.'}"
        )
    deployment = state.deployment
    record = {**asdict(deployment), "resources": [it.label for it in state]}
    packages = ", ".join(f"{name} {version}" for name, version in deployment.packages.items())
    rows = {
        "deployment": f"{deployment.name} in {deployment.region}, account {names.account}",
        "root": deployment.root,
        "runtime": f"Python {deployment.python} on {deployment.architecture}, wire version "
        f"{deployment.wire}",
        "worker": f"{deployment.worker}: {deployment.memory_mb:,} MB, {deployment.timeout_s} s, "
        f"{deployment.tmp_mb:,} MB of /tmp",
        "supervisor": deployment.supervisor,
        "packages": packages,
        "may read": ", ".join(deployment.read) or "the root",
        "may write": ", ".join(deployment.write) or "the root",
        "known here": "yes" if _is_known(state) else "no: run `lambdamr deploy-runtime`",
    }
    text = "\n".join(f"{label:<11} {value}" for label, value in rows.items())
    show(record, text, as_json)


def _is_known(state: State) -> bool:
    """Whether this machine's profile is what is recorded."""
    return state.profile is not None and state.profile.deployment == state.deployment


@click.command()
@deployment_options
@json_option
def doctor(name: str, region: str | None, aws_profile: str | None, as_json: bool) -> int:
    """Say what is wrong with a deployment, and the command that mends it.

    Ends with status 1 if something is wrong.

    \b
    Examples:
      lambdamr doctor
      lambdamr doctor --json
    """
    findings = examine(*connect(name, region, aws_profile))
    lines = []
    for finding in findings:
        lines.append(f"{'ok  ' if finding.ok else 'BAD '} {finding.what}")
        if finding.mend:
            lines.append(f"      mend: {finding.mend}")
    show([asdict(finding) for finding in findings], "\n".join(lines), as_json)
    return Exit.OK if all(finding.ok for finding in findings) else Exit.FAILED
