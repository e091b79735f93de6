"""`lambdamr deploy-runtime` and `lambdamr undeploy`."""

from pathlib import Path

import click

from lambdamr.cli.accounts import check_consent, confirm, connect, deployment_options
from lambdamr.cli.showing import json_option, show
from lambdamr.cli.steps import describe, line_of, step_record
from lambdamr.deploy.deploying import (
    Plan,
    Removal,
    Tell,
    apply,
    layer_of,
    plan,
    plan_for_template,
    plan_removal,
    remove,
)
from lambdamr.deploy.models import Pairs
from lambdamr.deploy.naming import Names, Root
from lambdamr.deploy.packaging import Archive
from lambdamr.deploy.planner import Step, changed
from lambdamr.deploy.settings import Options, Settings, read_requirements
from lambdamr.deploy.template import BUCKET_PARAMETER, write_template
from lambdamr_runtime.errors import JobRunning


def _list(_context: object, _option: object, values: tuple[str, ...]) -> tuple[str, ...] | None:
    """Split "a,b"; not given is None, an empty text is an empty list."""
    if not values:
        return None
    return tuple(part for value in values for part in value.split(",") if part)


def _pairs(_context: object, option: click.Parameter, values: tuple[str, ...]) -> Pairs | None:
    """Read NAME=VALUE; not given is None, a single empty text is none at all."""
    if not values:
        return None
    found = {}
    for value in filter(None, values):
        name, equals, text = value.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{value!r} is not NAME=VALUE.", param=option)
        found[name] = text
    return tuple(sorted(found.items()))


def _requirements(_context: object, _option: object, value: str | None) -> tuple[str, ...] | None:
    return None if value is None else read_requirements(value) if value else ()


@click.command(name="deploy-runtime")
@deployment_options
@click.option("--root", "--bucket", help="s3://bucket/prefix; default: a bucket of its own.")
@click.option("--read", multiple=True, callback=_list, help="What jobs may read: s3://….")
@click.option("--write", multiple=True, callback=_list, help="What jobs may write: s3://….")
@click.option("--memory", "memory_mb", type=int, help="MB of a worker.")
@click.option("--timeout", "timeout_s", type=int, help="Seconds of a worker.")
@click.option("--tmp", "tmp_mb", type=int, help="MB of /tmp of a worker.")
@click.option("--architecture", type=click.Choice(["x86_64", "arm64"]), help="Processor.")
@click.option("--requirements", callback=_requirements, help="File of packages to add.")
@click.option("--env", "environment", multiple=True, callback=_pairs, help="NAME=VALUE.")
@click.option("--vpc-subnets", "subnets", multiple=True, callback=_list, help="Ids.")
@click.option(
    "--vpc-security-groups", "security_groups", multiple=True, callback=_list, help="Ids."
)
@click.option("--kms-key", help="ARN of the key for variables and bucket.")
@click.option("--role", help="ARN of a role to use, where you may not make one.")
@click.option("--permissions-boundary", help="ARN of the policy that bounds the role.")
@click.option("--tags", multiple=True, callback=_pairs, help="NAME=VALUE, on everything.")
@click.option("--log-retention", "log_days", type=int, help="Days that logs are kept.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be done, and stop.")
@click.option("--emit-template", type=click.Path(path_type=Path), help="Write CloudFormation.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
def deploy_runtime(
    name: str,
    region: str | None,
    aws_profile: str | None,
    only_plan: bool,
    emit_template: Path | None,
    yes: bool,
    as_json: bool,
    **options: object,
) -> int:
    """Put the runtime into an AWS account, or change what is there.

    An option that is not given stays as it is deployed; --read, --env and the like replace all that
    was there, and an empty value ('') clears it.

    \b
    Examples:
      lambdamr deploy-runtime
      lambdamr deploy-runtime --read s3://logs/2026/ --memory 4096
      lambdamr deploy-runtime --requirements requirements.txt --plan
      lambdamr deploy-runtime --emit-template runtime/template.json
    """
    cloud, names = connect(name, region, aws_profile, is_new=True)
    asked = Options(**options)  # type: ignore[arg-type]  # click's values, named as the fields
    if emit_template:
        return _emit(emit_template, plan_for_template(cloud, names, asked), as_json)

    def build(settings: Settings) -> Archive:
        if not only_plan:  # a layer to build is a change; its download would be for nothing
            check_consent(yes, as_json)
        return layer_of(settings)

    planned = plan(cloud, names, asked, build)
    to_do = changed(planned.steps)
    if not as_json:
        click.echo(_headline(names, planned))
        click.echo(describe(planned.steps))
        for note in planned.notes:
            click.echo(f"Note: {note}")
    if to_do and not only_plan:
        confirm(f"Make these {len(to_do)} changes?", yes, as_json)
        apply(cloud, planned, _teller(as_json))
    _show_end(planned, bool(to_do), only_plan, as_json)
    return 0


def _headline(names: Names, planned: Plan) -> str:
    target = planned.settings.target
    return (
        f"Deployment {names.deployment} in {names.region}, account {names.account}: "
        f"Python {target.python} on {target.architecture}, "
        f"{len(planned.layer.packages)} packages"
    )


def _teller(as_json: bool) -> Tell:
    def tell(step: Step) -> None:
        if not as_json and changed((step,)):
            click.echo(f"{line_of(step)}  done", err=True)

    return tell


def _show_end(planned: Plan, changing: bool, only_plan: bool, as_json: bool) -> None:
    record = {
        "deployment": planned.names.deployment,
        "region": planned.names.region,
        "root": planned.settings.root.uri,
        "applied": changing and not only_plan,
        "steps": [step_record(step) for step in planned.steps],
        "notes": list(planned.notes),
    }
    if only_plan:
        text = "" if changing else "Nothing to do."
    elif changing:
        text = (
            "Deployed. lambdamr.Executor() now runs there; `lambdamr status` shows it, "
            "`lambdamr undeploy` removes it."
        )
    else:
        text = "Nothing to do: everything is as it should be."
    show(record, text, as_json)


def _emit(path: Path, planned: Plan, as_json: bool) -> int:
    resources = [step.resource for step in planned.steps]
    paths = write_template(path, resources, planned.code, planned.layer)
    _, runtime, layer = paths
    text = "\n".join(
        (
            f"Written: {', '.join(map(str, paths))}. Whoever may make roles, with a BUCKET in "
            f"{planned.names.region}:",
            f"  aws s3 cp {runtime} s3://BUCKET/",
            f"  aws s3 cp {layer} s3://BUCKET/",
            f"  aws cloudformation deploy --stack-name {planned.names.base} --template-file {path} "
            f"--parameter-overrides {BUCKET_PARAMETER}=BUCKET --capabilities CAPABILITY_NAMED_IAM "
            f"--region {planned.names.region}",
            "Then `lambdamr deploy-runtime` with the same options writes the records of it.",
        )
    )
    show({"files": [str(it) for it in paths]}, text, as_json)
    return 0


@click.command()
@deployment_options
@click.option("--delete-data", is_flag=True, help="Remove jobs and results too.")
@click.option("--force", is_flag=True, help="Also while jobs run: they never end.")
@click.option("--root", help="Where jobs are stored, if it cannot be found any more.")
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be done, and stop.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
def undeploy(
    name: str,
    region: str | None,
    aws_profile: str | None,
    delete_data: bool,
    force: bool,
    root: str | None,
    only_plan: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Remove the runtime from an AWS account; jobs and results stay unless --delete-data is given.

    \b
    Examples:
      lambdamr undeploy
      lambdamr undeploy --delete-data --yes
    """
    cloud, names = connect(name, region, aws_profile)
    removal = plan_removal(cloud, names, delete_data, Root.parse(root) if root else None)
    to_do = changed(removal.steps)
    if not as_json:
        click.echo(f"Deployment {name} in {names.region}, account {names.account}")
        click.echo(describe(removal.steps) or "  nothing is there")
        if removal.data:
            click.echo(f"  - delete  data       {removal.data.uri}/")
        for job in removal.running:
            click.echo(f"Note: job {job} is running.")
    if removal.running and not (force or only_plan):
        raise JobRunning(
            f"Jobs are running: {len(removal.running)}, the newest is {removal.running[0]}. Wait "
            "for their end or `lambdamr cancel` them, or give --force: they will never end then."
        )
    if (to_do or removal.data) and not only_plan:
        confirm("Remove all this?", yes, as_json)
        remove(cloud, names, removal, _teller(as_json))
    _show_removed(removal, bool(to_do), only_plan, as_json)
    return 0


def _show_removed(removal: Removal, changing: bool, only_plan: bool, as_json: bool) -> None:
    record = {
        "applied": changing and not only_plan,
        "steps": [step_record(step) for step in removal.steps],
        "kept": removal.kept.uri if removal.kept else None,
        "running": list(removal.running),
    }
    said = [] if only_plan or not changing else ["Removed."]
    if removal.kept:
        said.append(f"{removal.kept.uri} stays, with its jobs; --delete-data removes it too.")
    show(record, " ".join(said), as_json)
