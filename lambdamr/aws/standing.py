"""Why lanes of a job do not run: no place for them, or not begun yet.

store ──────── lanes with chunks to run ─┐
Lambda ─────── places ───────────────────┼─▶ running · queued · waiting for concurrency
CloudWatch ─── places in use, throttles ─┘    (a look at the metrics needs cloudwatch:GetMetricData)
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from lambdamr.aws.concurrency import places_of
from lambdamr_runtime.errors import InvocationRefused

PERIOD_S = 60
LOOK_BACK_S = 300
"""Metrics come a minute or two late: the youngest of the last five counts."""

_METRICS = {"busy": ("ConcurrentExecutions", "Maximum"), "throttles": ("Throttles", "Sum")}


@dataclass(frozen=True, slots=True)
class Places:
    """What AWS says of the worker function."""

    most: int
    """Invocations that may run at a time."""
    busy: int | None = None
    """That ran at a time in the youngest minute that is known; None: nothing is known."""
    throttles: int | None = None
    """Launches that found no place in the last five minutes; AWS tries them again."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the open lanes of a job are; other jobs of the same function are not told apart."""

    running: int
    queued: int
    """Not begun, though there are places: AWS is about to start them."""
    waiting: int
    """For concurrency: all places are taken."""
    places: Places

    def __str__(self) -> str:
        parts = [f"{self.running:,} running"]
        parts += [f"{self.queued:,} queued"] if self.queued else []
        parts += [f"{self.waiting:,} waiting for concurrency"] if self.waiting else []
        text = f"{', '.join(parts)}; the worker may run {self.places.most:,} at a time"
        if self.places.throttles:
            text += f" and was throttled {self.places.throttles:,} times in 5 min"
        return text


def standing(open_lanes: int, places: Places) -> Standing:
    """Return where the lanes are that have chunks to run.

    Without metrics as many run as may. With them no more than did; others wait for concurrency
    where the limit is reached or was hit, and are queued where it was not.
    """
    if places.busy is None:
        running = min(open_lanes, places.most)
        return Standing(running, 0, open_lanes - running, places)
    running = min(open_lanes, places.busy)
    left = open_lanes - running
    is_full = places.busy >= places.most or bool(places.throttles)
    return Standing(running, 0, left, places) if is_full else Standing(running, left, 0, places)


def read_places(functions: Any, metrics: Any, function: str, now: datetime | None = None) -> Places:
    """Ask AWS about the worker; what may not be asked is left out.

    Args:    functions, metrics: boto3's clients of Lambda and CloudWatch; Any: boto3 has no types.
    Raises:  InvocationRefused: not even the limits may be read.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    most = places_of(functions, function)
    end = now or datetime.now(UTC)
    queries = [
        {
            "Id": name,
            "MetricStat": {
                "Metric": {
                    "Namespace": "AWS/Lambda",
                    "MetricName": metric,
                    "Dimensions": [{"Name": "FunctionName", "Value": function}],
                },
                "Period": PERIOD_S,
                "Stat": statistic,
            },
        }
        for name, (metric, statistic) in _METRICS.items()
    ]
    try:
        answer = metrics.get_metric_data(
            MetricDataQueries=queries, StartTime=end - timedelta(seconds=LOOK_BACK_S), EndTime=end,
            ScanBy="TimestampDescending",
        )  # fmt: skip
    except (BotoCoreError, ClientError):  # a permission of its own; the limits say enough
        return Places(most)
    values = {each["Id"]: each["Values"] for each in answer["MetricDataResults"]}
    busy, throttles = values.get("busy"), values.get("throttles")
    return Places(most, int(busy[0]) if busy else None, int(sum(throttles)) if throttles else None)


def standing_at(root: str, open_lanes: int) -> Standing | None:
    """Return how the lanes of a job stand under the root of a deployment; None: nobody can tell."""
    from lambdamr.aws.backend import deployment_at, lambda_client
    from lambdamr_runtime.errors import RuntimeMismatch
    from lambdamr_runtime.s3 import endpoint_of

    try:
        deployment = deployment_at(root)
        functions = lambda_client(deployment.region)
        import boto3

        metrics = boto3.Session().client(
            "cloudwatch", deployment.region, endpoint_url=endpoint_of("cloudwatch") or None
        )
        return standing(open_lanes, read_places(functions, metrics, deployment.worker))
    except (RuntimeMismatch, InvocationRefused):  # jobs of a runtime that is gone; no permission
        return None
