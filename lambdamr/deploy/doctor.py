"""What is wrong with a deployment, and the command that mends it.

Each check is a function that yields findings; one that AWS refuses to answer is a finding too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lambdamr.deploy.aws import Cloud
from lambdamr.deploy.deploying import BuildLayer, plan
from lambdamr.deploy.models import Change, Function
from lambdamr.deploy.naming import Names
from lambdamr.deploy.packaging import Archive, Package, installed_code, pinned
from lambdamr.deploy.permissions import canonical, role_policy
from lambdamr.deploy.planner import Action
from lambdamr.deploy.settings import Options, Settings, named
from lambdamr.deploy.state import Keepers, State, read_state
from lambdamr.deployment import Deployment
from lambdamr_runtime.errors import DeployError, MissingPermission
from lambdamr_runtime.limits import FEW_CONCURRENT, RECURSION_GUARD
from lambdamr_runtime.wire import PYTHON_VERSION, WIRE_VERSION

DEPLOY = "lambdamr deploy-runtime"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found."""

    ok: bool
    what: str
    mend: str = ""
    """The command that mends it."""


def good(what: str) -> Finding:
    return Finding(ok=True, what=what)


def bad(what: str, mend: str) -> Finding:
    return Finding(ok=False, what=what, mend=mend)


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined."""

    cloud: Cloud
    names: Names
    state: State

    @property
    def deploy(self) -> str:
        """The command that deploys it again."""
        name = self.names.deployment
        chosen = "" if name == "default" else f" --name {name}"
        return f"{DEPLOY}{chosen} --region {self.names.region}"


Check = Callable[[Patient], Iterator[Finding]]


def examine(cloud: Cloud, names: Names) -> tuple[Finding, ...]:
    """Return what all checks found; the credentials are good, or there would be no names."""
    findings = [good(f"The credentials are good for account {names.account} in {names.region}.")]
    try:
        state = read_state(Keepers(cloud, names))
    except DeployError as error:
        return (*findings, bad(str(error), "give these credentials that permission"))
    patient = Patient(cloud, names, state)
    if state.worker is None:
        what = f"There is no deployment {names.deployment!r} in {names.region}."
        return (*findings, bad(what, patient.deploy))
    for check in CHECKS:
        try:
            findings += check(patient)
        except DeployError as error:
            findings.append(bad(str(error), "see the message"))
    return tuple(findings)


# --- what is deployed ---------------------------------------------------------------------------
def _versions(patient: Patient) -> Iterator[Finding]:
    """Client and runtime speak the same, in the same Python."""
    deployment = patient.state.deployment
    if deployment is None:
        yield bad("The deployment has no record under its root.", patient.deploy)
        return
    if deployment.python != PYTHON_VERSION:
        yield bad(
            f"The runtime has Python {deployment.python}, this client {PYTHON_VERSION}.",
            f"{patient.deploy}   (or run the client with Python {deployment.python})",
        )
    if deployment.wire != WIRE_VERSION:
        yield bad(
            f"The runtime speaks wire version {deployment.wire}, this client {WIRE_VERSION}.",
            patient.deploy,
        )
    if patient.state.worker and patient.state.worker.code_sha != installed_code().sha:
        yield bad("The deployed code is not that of this client.", patient.deploy)
    yield from _packages(patient, deployment)


def _packages(patient: Patient, deployment: Deployment) -> Iterator[Finding]:
    present = deployment.packages
    wrong = [
        f"{name} {present.get(name, 'missing')} instead of {version}"
        for name, version in pinned(present).items()
        if present.get(name) != version
    ]
    if wrong:
        yield bad(f"Packages of the layer differ: {', '.join(wrong)}.", patient.deploy)
    else:
        count = len(deployment.packages)
        yield good(f"The layer has the packages of this client ({count} in all).")


def _profile(patient: Patient) -> Iterator[Finding]:
    """What this machine believes is what is recorded."""
    state = patient.state
    if state.profile is None:
        yield bad("This machine does not know the deployment.", patient.deploy)
    elif state.record and state.profile.deployment != state.record.deployment:
        yield bad("This machine knows an older state of it.", patient.deploy)


_WHY = {
    "recursion_allowed": f"AWS ends chains of {RECURSION_GUARD} invocations",
    "retries": "AWS itself repeats failed events, unseen and uncounted",
    "on_failure": "failures of workers reach nobody, and jobs wait",
    "event_age_s": "events that cannot start are given up at another time than planned",
    "policy": "the permissions are not those that are needed",
    "private": "objects may be made public",
    "expiries": "old jobs are not removed",
}


def _drift(patient: Patient) -> Iterator[Finding]:
    """Everything is as `deploy-runtime` made it."""
    planned = plan(patient.cloud, patient.names, Options(), _deployed_layer(patient.state))
    unlike = [step for step in planned.steps if step.action is not Action.KEEP]
    for step in unlike:
        resource = step.resource
        known = {"code_sha", "layer_sha", "deployment", "python"}  # told by _versions
        changes = [change for change in step.changes if change.field not in known]
        if step.action is Action.CREATE:
            yield bad(f"The {resource.kind} {resource.label} is missing.", patient.deploy)
        for change in changes:
            what = f"The {resource.kind} {resource.label} is not as deployed: {_told(change)}."
            yield bad(what, patient.deploy)
    if not unlike:
        yield good(f"All {len(planned.steps)} resources are as they were deployed.")


def _told(change: Change) -> str:
    why = _WHY.get(change.field)
    return f"{change.field} differs ({why})" if why else f"{change.field} differs"


def _deployed_layer(state: State) -> BuildLayer:
    """Return a stand-in for the layer that is deployed: a look needs no download."""
    sha = state.worker.layer_sha if state.worker else ""
    versions = state.deployment.packages if state.deployment else {}
    packages = tuple(Package(name, version, 0) for name, version in versions.items())

    def build(settings: Settings) -> Archive:  # noqa: ARG001 - what is deployed, whatever is set
        return Archive(b"", sha, 0, packages)

    return build


def _health(patient: Patient) -> Iterator[Finding]:
    """AWS can start both functions."""
    for function in (patient.state.worker, patient.state.supervisor):
        if function is None:
            continue
        it = patient.cloud.call("lambda", "get_function_configuration", FunctionName=function.name)
        state, last = it.get("State", "Active"), it.get("LastUpdateStatus", "Successful")
        if state not in ("Active", "Inactive") or last != "Successful":
            why = it.get("StateReason") or it.get("LastUpdateStatusReason") or "no reason given"
            what = f"The function {function.name} is {state}, its last update {last}: {why}"
            yield bad(what, patient.deploy)


# --- the account --------------------------------------------------------------------------------
def _concurrency(patient: Patient) -> Iterator[Finding]:
    """There is room for workers."""
    limits = patient.cloud.call("lambda", "get_account_settings")["AccountLimit"]
    total = int(limits["ConcurrentExecutions"])
    free = int(limits.get("UnreservedConcurrentExecutions", total))
    quota = (
        "aws service-quotas request-service-quota-increase --service-code lambda "
        f"--quota-code L-B99A9384 --desired-value 1000 --region {patient.names.region}"
    )
    what = f"{free:,} of {total:,} concurrent executions of the account are free for functions."
    yield bad(what, quota) if free < FEW_CONCURRENT else good(what)
    name = patient.names.worker
    answer = patient.cloud.find("lambda", "get_function_concurrency", FunctionName=name) or {}
    reserved = answer.get("ReservedConcurrentExecutions")
    if reserved == 0:
        yield bad(
            f"The function {name} is switched off: its reserved concurrency is 0.",
            f"aws lambda delete-function-concurrency --function-name {name} "
            f"--region {patient.names.region}",
        )
    elif reserved is not None:
        yield good(f"{reserved:,} concurrent executions are reserved for the worker.")


def _invocable(patient: Patient) -> Iterator[Finding]:
    """Whoever asks may run jobs."""
    try:
        patient.cloud.call(
            "lambda", "invoke", FunctionName=patient.names.worker, InvocationType="DryRun"
        )
        yield good("These credentials may invoke the worker.")
    except MissingPermission as error:
        yield bad(str(error), "give these credentials lambda:InvokeFunction")


def _given_role(patient: Patient) -> Iterator[Finding]:
    """A role that the user brought may do what is needed."""
    worker, names, state = patient.state.worker, patient.names, patient.state
    if worker is None or worker.role == names.role_arn or state.root is None:
        return
    recorded = state.deployment
    read, write = (named(recorded.read), named(recorded.write)) if recorded else ((), ())
    policy = role_policy(
        names, state.root, read, write, worker.kms_key, in_vpc=bool(worker.subnets)
    )
    yield from _simulated(patient.cloud, worker.role, policy)


def _simulated(
    cloud: Cloud, role: str, policy: dict[str, list[dict[str, list[str]]]]
) -> Iterator[Finding]:
    needed = f"The role {role} must be allowed: {canonical(policy)}"
    missing = []
    for statement in policy["Statement"]:
        try:
            answer = cloud.call(
                "iam",
                "simulate_principal_policy",
                PolicySourceArn=role,
                ActionNames=statement["Action"],
                ResourceArns=[arn.replace("*", "x") for arn in statement["Resource"]],
            )
        except MissingPermission:
            yield good(f"It cannot be checked here what the role may do. {needed}")
            return
        missing += [
            f"{result['EvalActionName']} on {result.get('EvalResourceName', '*')}"
            for result in answer["EvaluationResults"]
            if result["EvalDecision"] != "allowed" and "Condition" not in statement
        ]
    if missing:
        what = f"The role {role} lacks {'; '.join(missing)}."
        yield bad(what, f"give it this policy: {canonical(policy)}")
    else:
        yield good(f"The role {role} may do what is needed.")


# --- the network --------------------------------------------------------------------------------
def _network(patient: Patient) -> Iterator[Finding]:
    """Functions in a VPC reach S3 and Lambda."""
    worker = patient.state.worker
    if worker is None or not worker.subnets:
        return
    vpc = _vpc(patient.cloud, worker)
    for service, kind in (("s3", "Gateway"), ("lambda", "Interface")):
        full = f"com.amazonaws.{patient.names.region}.{service}"
        answer = patient.cloud.call(
            "ec2",
            "describe_vpc_endpoints",
            Filters=[
                {"Name": "vpc-id", "Values": [vpc]},
                {"Name": "service-name", "Values": [full]},
            ],
        )
        states = [endpoint.get("State", "available") for endpoint in answer["VpcEndpoints"]]
        if any(state.lower() == "available" for state in states):
            yield good(f"{vpc} has an endpoint for {service}.")
            continue
        subnets = "" if kind == "Gateway" else f" --subnet-ids {' '.join(worker.subnets)}"
        yield bad(
            f"{vpc} has no endpoint for {service}: workers reach it through a NAT gateway only, "
            "if there is one.",
            f"aws ec2 create-vpc-endpoint --vpc-id {vpc} --vpc-endpoint-type {kind} "
            f"--service-name {full}{subnets} --region {patient.names.region}",
        )


def _vpc(cloud: Cloud, worker: Function) -> str:
    answer = cloud.call("ec2", "describe_subnets", SubnetIds=list(worker.subnets[:1]))
    return str(answer["Subnets"][0]["VpcId"])


CHECKS: tuple[Check, ...] = (
    _versions,
    _profile,
    _drift,
    _health,
    _concurrency,
    _invocable,
    _given_role,
    _network,
)
