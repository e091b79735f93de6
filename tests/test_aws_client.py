"""The client's side of AWS: what is refused before launch, and the net under every job."""

from dataclasses import replace
from typing import Any

import botocore.exceptions as aws
import pytest

import lambdamr
from lambdamr.aws import requirements
from lambdamr.aws.backend import lambda_client
from lambdamr.aws.concurrency import usable_lanes
from lambdamr.aws.standing import Places, Standing, read_places, standing
from lambdamr.aws.watching import Net, last_sign_s
from lambdamr.deployment import Deployment, forget_profile, save_profile
from lambdamr.polling import quiet_s
from lambdamr.submission import StageDraft
from lambdamr.tracked import TrackedJob
from lambdamr.tracking import Poller
from lambdamr_runtime.errors import InvalidInput, InvocationRefused, RuntimeMismatch
from lambdamr_runtime.memory_limit import task_memory_mb
from lambdamr_runtime.s3 import endpoint_of, region_of_bucket
from lambdamr_runtime.wire import PYTHON_VERSION, WIRE_VERSION, StageKind
from lambdamr_runtime.work import Call
from tests.cluster import Cluster

RECORD = Deployment(
    "default", "eu-west-1", "s3://b/root", "w", "s", PYTHON_VERSION, "x86_64", WIRE_VERSION,
    1769, 900, 512, {"obstore": "0.12.1", "Cloud_Pickle": "3.1"}, ("s3://logs/2026",), ("s3://out",),
)  # fmt: skip


# --- refused before launch ----------------------------------------------------------------------
def test_another_python_is_refused() -> None:
    """Pickles of one minor version of Python are not read by another."""
    with pytest.raises(RuntimeMismatch, match=r"Python 2\.7.*lambdamr deploy-runtime"):
        requirements.check_versions(replace(RECORD, python="2.7"))
    with pytest.raises(RuntimeMismatch, match=r"wire version 99.*lambdamr deploy-runtime"):
        requirements.check_versions(replace(RECORD, wire=99))
    requirements.check_versions(RECORD)


def test_a_missing_package_is_refused() -> None:
    """With the pin to add; the standard library, ours and what Lambda has are no packages."""
    requirements.check_packages(RECORD, ["json", "lambdamr_runtime.wire", "boto3", "obstore"])
    requirements.check_packages(RECORD, ["never_installed_here"])
    with pytest.raises(RuntimeMismatch, match=r"numpy==.*--requirements FILE"):
        requirements.check_packages(RECORD, ["numpy.linalg", "json"])
    requirements.check_packages(RECORD, ["numpy"], exclude=["numpy"])
    requirements.check_packages(replace(RECORD, packages={"numpy": "2.4"}), ["numpy"])


def test_more_memory_than_there_is_is_refused() -> None:
    """With the command that gives more."""
    requirements.check_memory(RECORD, 1769)
    with pytest.raises(ValueError, match="deploy-runtime --memory 2000"):
        requirements.check_memory(RECORD, 2000)


@pytest.mark.parametrize(
    "uri", ["s3://b/root/x", "s3://logs/2026/a.gz", "s3://logs/2026-01.gz", "s3://out/x/y"]
)
def test_what_the_role_may_reach(uri: str) -> None:
    """The root, and everything that begins as what was allowed."""
    given = replace(RECORD, read=(*RECORD.read, *RECORD.write))
    requirements.check_access(given, [uri], [])


@pytest.mark.parametrize(
    "uri", ["s3://logs/2025/a.gz", "s3://outer/x", "s3://b/other", "s3://b/root2/x"]
)
def test_what_it_may_not(uri: str) -> None:
    """Is refused before launch, with the command that allows it."""
    with pytest.raises(InvalidInput, match=r"--read s3://"):
        requirements.check_access(RECORD, [uri], [])
    with pytest.raises(InvalidInput, match=r"--write s3://"):
        requirements.check_access(RECORD, [], [uri])
    requirements.check_access(replace(RECORD, read=("*",)), [uri], [])


def test_local_files_are_no_input_there() -> None:
    """Functions cannot read this machine; what lies elsewhere than in S3 is not the role's."""
    for uri in ("/home/me/a.txt", "file:///home/me/a.txt"):
        with pytest.raises(InvalidInput, match="on this machine"):
            requirements.check_access(RECORD, [uri], [])
    requirements.check_access(RECORD, ["https://host/a.txt", "gs://bucket/a.txt"], [])


def test_aws_without_a_deployment() -> None:
    """Asking for AWS where nothing is deployed names the command."""
    with pytest.raises(RuntimeMismatch, match="lambdamr deploy-runtime"):
        lambdamr.Executor("aws").submit(abs, 1)


def test_a_deployed_runtime_is_the_default() -> None:
    """Without backend= and root= its record decides; backend="local" stays here."""
    save_profile(replace(RECORD, python="2.7"))
    try:
        with pytest.raises(RuntimeMismatch, match=r"Python 2\.7"):
            lambdamr.Executor().submit(abs, 1)
        with lambdamr.Executor("local", workers=1) as executor:
            assert executor.submit(abs, -1).result(30) == 1
    finally:
        forget_profile()


# --- places -------------------------------------------------------------------------------------
class Limits:
    """Answers as boto3's client."""

    def __init__(
        self, free: int, reserved: int | None = None, refusal: Exception | None = None
    ) -> None:
        self._free, self._reserved, self._refusal = free, reserved, refusal

    def get_function_concurrency(self, FunctionName: str) -> dict[str, Any]:  # noqa: N803 - AWS's
        if self._refusal:
            raise self._refusal
        return {} if self._reserved is None else {"ReservedConcurrentExecutions": self._reserved}

    def get_account_settings(self) -> dict[str, Any]:
        return {"AccountLimit": {"UnreservedConcurrentExecutions": self._free}}


def refused(code: str) -> aws.ClientError:
    return aws.ClientError({"Error": {"Code": code, "Message": "m"}}, "GetFunctionConcurrency")


@pytest.mark.parametrize(
    ("limits", "wanted", "lanes_"),
    [
        (Limits(1000), None, 800),
        (Limits(10), None, 8),
        (Limits(1), None, 1),
        (Limits(1000, reserved=50), None, 50),
        (Limits(1000, reserved=50), 200, 50),
        (Limits(1000), 1000, 1000),
        (Limits(1000), 30, 30),
        (Limits(10), 500, 10),
        (Limits(0, refusal=refused("AccessDeniedException")), 7, 7),
    ],
)
def test_lanes_obey_the_limits_of_the_account(
    limits: Limits, wanted: int | None, lanes_: int
) -> None:
    """Four fifths of what is free, all of what is reserved, and never more than there is."""
    assert usable_lanes(limits, "w", wanted) == lanes_


def test_limits_that_may_not_be_read() -> None:
    """Are no reason to guess."""
    with pytest.raises(InvocationRefused, match=r"GetAccountSettings.*concurrency="):
        usable_lanes(Limits(0, refusal=refused("AccessDeniedException")), "w", None)


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (refused("ExpiredTokenException"), "have expired.*aws sso login"),
        (refused("UnrecognizedClientException"), "AWS_ACCESS_KEY_ID"),
        (refused("ResourceNotFoundException"), "There is no function w.*lambdamr deploy-runtime"),
        (aws.NoCredentialsError(), "no usable AWS credentials.*aws configure"),
        (aws.UnauthorizedSSOTokenError(), "login has expired.*aws sso login"),
        (aws.EndpointConnectionError(endpoint_url="https://x"), "the network and the region"),
        (aws.ReadTimeoutError(endpoint_url="https://x"), "could not be reached"),
    ],
)
@pytest.mark.parametrize("wanted", [None, 7])
def test_who_cannot_ask_cannot_run(refusal: Exception, said: str, wanted: int | None) -> None:
    """Keys, a login, a network or a function that is not there: said at once, with the way out."""
    with pytest.raises(InvocationRefused, match=said):
        usable_lanes(Limits(0, refusal=refusal), "w", wanted)


def test_a_profile_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_PROFILE names it: no traceback of boto3's."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(InvocationRefused, match=r"nobody.*list-profiles"):
        lambda_client("eu-west-1")
    monkeypatch.delenv("AWS_PROFILE")
    with pytest.raises(InvocationRefused, match="the network and the region"):
        lambda_client("no region")


def test_a_function_that_is_switched_off() -> None:
    """Reserved concurrency 0 is how people stop a function: nothing would ever run."""
    with pytest.raises(InvocationRefused, match="reserved concurrency of 0"):
        usable_lanes(Limits(1000, reserved=0), "w", None)


@pytest.mark.parametrize("memory_mb", [128, 256, 1769, 10240])
def test_the_reserve_of_a_functions_memory(memory_mb: int) -> None:
    """The process for tasks gets most of it, and never all."""
    assert 0.7 * memory_mb < task_memory_mb(memory_mb) < memory_mb - 24


# --- S3 -----------------------------------------------------------------------------------------
def test_endpoints() -> None:
    """That of the service comes before that of all services."""
    both = {"AWS_ENDPOINT_URL": "http://a/", "AWS_ENDPOINT_URL_S3": "http://s"}
    assert endpoint_of("s3", both) == "http://s"
    assert endpoint_of("lambda", both) == "http://a"
    assert endpoint_of("s3", {}) == ""


def test_the_region_of_a_workers_own_bucket_is_its_own() -> None:
    """It is not asked for: that would be a request per cold start."""
    there = {
        "AWS_LAMBDA_FUNCTION_NAME": "w", "LAMBDAMR_ROOT": "s3://b/root", "AWS_REGION": "eu-north-1"
    }  # fmt: skip
    assert region_of_bucket("b", there) == "eu-north-1"
    assert region_of_bucket("any", {"AWS_ENDPOINT_URL": "http://a"}) == "us-east-1"


# --- the net ------------------------------------------------------------------------------------
def job_of(cluster: Cluster, tasks: int) -> TrackedJob:
    args: list[Any] = [((-i,), {}) for i in range(tasks)]
    manifest = cluster.launch(StageDraft("map", StageKind.CALL, Call(abs), tasks, 1, args))
    return TrackedJob(manifest, cluster, Poller(cluster))


def test_a_quiet_job_is_swept() -> None:
    """Lanes whose events were lost are launched again, once a function's time is over; then ever
    more rarely.
    """
    cluster = Cluster(width=3)
    cluster.lost = frozenset({0, 1})
    job = job_of(cluster, 6)
    patience_s = quiet_s(900)
    net = Net(job, cluster.invoke, cluster.clock.time, patience_s, cluster.clock.time())
    launched = len(cluster.log.invoked)
    net()
    cluster.clock.sleep(patience_s - 1)
    net()
    assert len(cluster.log.invoked) == launched
    cluster.clock.sleep(1)
    net()
    assert len(cluster.log.invoked) == launched + 3
    cluster.clock.sleep(patience_s)
    net()
    assert len(cluster.log.invoked) == launched + 3
    cluster.run_all()
    assert cluster.values(job.manifest) == [0, 1, 2, 3, 4, 5]


def test_a_job_that_moves_is_left_alone() -> None:
    """Every result is a sign of life."""
    cluster = Cluster(width=3)
    job = job_of(cluster, 6)
    net = Net(job, cluster.invoke, cluster.clock.time, 100, cluster.clock.time())
    launched = len(cluster.log.invoked)
    for left in range(5, 0, -1):
        cluster.clock.sleep(99)
        job.pending[0] = left
        net()
    assert len(cluster.log.invoked) == launched


def test_the_last_sign_of_a_job() -> None:
    """Its last outcome, or its submission."""
    cluster = Cluster(width=4)
    job = job_of(cluster, 8)
    cluster.run_one(cluster.queue.pop())
    assert last_sign_s(cluster.store, job.manifest) >= job.manifest.created_s


# --- how lanes stand ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("places", "running", "queued", "waiting"),
    [
        (Places(1000), 500, 0, 0),
        (Places(412), 412, 0, 88),
        (Places(1000, busy=412, throttles=0), 412, 88, 0),
        (Places(412, busy=412, throttles=0), 412, 0, 88),
        (Places(1000, busy=412, throttles=7), 412, 0, 88),
        (Places(1000, busy=900), 500, 0, 0),
        (Places(1000, busy=0), 0, 500, 0),
    ],
)
def test_queued_is_not_waiting_for_concurrency(
    places: Places, running: int, queued: int, waiting: int
) -> None:
    """500 open lanes: the limits, and what the metrics say where there are any."""
    found = standing(500, places)
    assert (found.running, found.queued, found.waiting) == (running, queued, waiting)


def test_a_standing_is_a_line() -> None:
    """With what AWS refused, if it did."""
    text = str(Standing(412, 0, 88, Places(412, 412, 1234)))
    assert text == (
        "412 running, 88 waiting for concurrency; the worker may run 412 at a time and was "
        "throttled 1,234 times in 5 min"
    )
    assert str(standing(3, Places(10))) == "3 running; the worker may run 10 at a time"


class Metrics:
    """Answers as boto3's client of CloudWatch, or refuses."""

    def __init__(self, busy: list[float], throttles: list[float], refused: bool = False) -> None:
        self._values = {"busy": busy, "throttles": throttles}
        self._refused = refused

    def get_metric_data(self, **arguments: Any) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        if self._refused:
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetMetricData")
        assert arguments["ScanBy"] == "TimestampDescending"
        names = [query["Id"] for query in arguments["MetricDataQueries"]]
        return {"MetricDataResults": [{"Id": it, "Values": self._values[it]} for it in names]}


def test_what_aws_says_of_the_worker() -> None:
    """The youngest minute's use, all throttles of five; the limits alone where no more is told."""
    assert read_places(Limits(1000, 50), Metrics([7, 90], [1, 2]), "w") == Places(50, 7, 3)
    assert read_places(Limits(1000), Metrics([], []), "w") == Places(1000)
    assert read_places(Limits(1000), Metrics([], [], refused=True), "w") == Places(1000)
