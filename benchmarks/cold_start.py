"""What a cold start of the worker costs beyond Python's own, under AWS's runtime client.

    python -m benchmarks.cold_start [--runs 9]

Time from the start of the sandbox's process to the first line of the user's function: of a bare
handler, and of a task with its store and its function fetched (S3 emulator on loopback).
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
import zipfile
from io import BytesIO
from pathlib import Path

from lambdamr.aws.backend import AwsBackend
from lambdamr.deploy.packaging import build_code
from lambdamr.deployment import Deployment
from lambdamr.executor import Executor
from lambdamr_runtime.wire import PYTHON_VERSION, WIRE_VERSION
from tests.emulator import REGION, running
from tests.runtime_api import Environment, Function, Invocation, LambdaHost, prepared_environment

BARE = "import time\ndef handler(event, context):\n    return time.time()\n"
TARGET_MS = 60


def now(_: bytes) -> float:
    return time.time()


def bare_s(function: Function, folder: Path, number: int) -> float:
    """Return the seconds to the first line of a bare handler."""
    began = time.time()
    environment = Environment(function, folder / f"bare-{number}.log")
    try:
        _, body = environment.run(Invocation(function, b"{}"))
        return float(json.loads(body)) - began
    finally:
        environment.stop()


def task_s(host: LambdaHost, executor: Executor, argument: bytes) -> float:
    """Return the seconds from the start of a new sandbox to the first line of a task."""
    host.retire()
    before = host.started
    reached: float = executor.submit(now, argument).result(60)
    assert host.started > before  # noqa: S101 - else it was warm
    return reached - host.started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    _, layer = prepared_environment()
    with tempfile.TemporaryDirectory() as name, running(Path(name)) as s3:
        folder, code = Path(name), Path(name) / "code"
        with zipfile.ZipFile(BytesIO(build_code().data)) as archive:
            archive.extractall(code)
        (code / "bare.py").write_text(BARE)
        s3.client("s3").create_bucket(
            Bucket="bench", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        with LambdaHost(folder, 1) as host:
            measure(host, s3.environment(), (code, layer, folder), runs)


def measure(
    host: LambdaHost, variables: dict[str, str], folders: tuple[Path, Path, Path], runs: int
) -> None:
    """Print the figures of so many runs each."""
    import os

    code, layer, folder = folders
    os.environ.update({**variables, "AWS_ENDPOINT_URL_LAMBDA": host.endpoint})
    given = {
        **variables,
        "AWS_ENDPOINT_URL_LAMBDA": host.endpoint,
        "LAMBDAMR_ROOT": "s3://bench/root",
        "LAMBDAMR_WORKER": "worker",
    }
    bare = Function("bare", "bare.handler", code, layer, given)
    host.deploy(Function("worker", "lambdamr_runtime.function.worker", code, layer, given))
    record = Deployment(
        "bench", REGION, "s3://bench/root", "worker", "none", PYTHON_VERSION, "x86_64",
        WIRE_VERSION, 1024, 60, 512, {},
    )  # fmt: skip
    with Executor(AwsBackend(record, 1)) as executor:
        small, large = b"", b"x" * 100_000
        figures: dict[str, list[float]] = {"bare handler": [], "small call": [], "stored call": []}
        for number in range(runs):  # turn about, so that other load meets all of them
            figures["bare handler"].append(bare_s(bare, folder, number))
            figures["small call"].append(task_s(host, executor, small))
            figures["stored call"].append(task_s(host, executor, large))
    base = min(figures["bare handler"])
    for what, seconds in figures.items():
        best, middle = min(seconds) * 1e3, statistics.median(seconds) * 1e3
        over = f"  +{best - base * 1e3:5.0f} ms (target {TARGET_MS})" if best > base * 1e3 else ""
        sys.stdout.write(f"{what:14s} {best:6.0f} ms best, {middle:6.0f} ms median{over}\n")


if __name__ == "__main__":
    main()
