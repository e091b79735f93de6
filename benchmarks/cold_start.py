"""What a cold start of the worker costs beyond Python's own, under AWS's runtime client.

    python -m benchmarks.cold_start [--runs 9]

From the start of the sandbox's process to the first line of the user's function: of a bare
handler, and of a task with its store and its function fetched (S3 emulator on loopback). Seconds on
the wall, which other load on the machine lengthens, and of CPU, of all processes of the sandbox.

How fast the machine is say a bare Python, and one that makes a boto3 client for S3: 212 ms on the
machine for which the targets were written.
"""

import argparse
import json
import os
import resource
import subprocess
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

BARE = "import time\ndef handler(event, context):\n    return time.time(), time.process_time()\n"
PROGRAMS = {"python": "pass", "boto3 client": "import boto3; boto3.client('s3')"}
TARGET_MS = 60


def now(_: bytes) -> tuple[float, float]:
    """Return the time, and the CPU seconds of this process and the one that watches it."""
    at = time.time()
    with open(f"/proc/{os.getppid()}/stat") as file:
        ticks = file.read().rpartition(")")[2].split()[11:13]
    return at, time.process_time() + sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def program_s(folder: Path, code: str) -> tuple[float, float]:
    """Return the seconds of a program in the functions' environment, on the wall and of CPU."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    python = prepared_environment()[0] / "bin" / "python"
    environment = {**os.environ, "HOME": str(folder)}
    subprocess.run([python, "-c", code], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.time() - began, cpu_s


def bare_s(function: Function, folder: Path, number: int) -> tuple[float, float]:
    """Return the seconds to the first line of a bare handler, on the wall and of CPU."""
    began = time.time()
    environment = Environment(function, folder / f"bare-{number}.log")
    try:
        _, body = environment.run(Invocation(function, b"{}"))
        at, cpu_s = json.loads(body)
        return at - began, cpu_s
    finally:
        environment.stop()


def task_s(host: LambdaHost, executor: Executor, argument: bytes) -> tuple[float, float]:
    """Return the seconds from the start of a new sandbox to the first line of a task."""
    host.retire()
    before = host.started
    at, cpu_s = executor.submit(now, argument).result(60)
    assert host.started > before  # noqa: S101 - else it was warm
    return at - host.started, cpu_s


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
        figures: dict[str, list[tuple[float, float]]] = {
            name: [] for name in (*PROGRAMS, "bare handler", "small call", "stored call")
        }
        for number in range(runs):  # turn about, so that other load meets all of them
            for name, program in PROGRAMS.items():
                figures[name].append(program_s(folder, program))
            figures["bare handler"].append(bare_s(bare, folder, number))
            figures["small call"].append(task_s(host, executor, small))
            figures["stored call"].append(task_s(host, executor, large))
    base_s, base_cpu_s = map(min, zip(*figures["bare handler"], strict=True))
    for what, found in figures.items():
        wall_s, cpu_s = map(min, zip(*found, strict=True))
        if what in PROGRAMS:
            sys.stdout.write(
                f"{what:14s} {wall_s * 1e3:6.0f} ms           CPU {cpu_s * 1e3:6.0f} ms\n"
            )
            continue
        sys.stdout.write(
            f"{what:14s} {wall_s * 1e3:6.0f} ms (+{(wall_s - base_s) * 1e3:4.0f})   CPU "
            f"{cpu_s * 1e3:6.0f} ms (+{(cpu_s - base_cpu_s) * 1e3:4.0f}, target {TARGET_MS})\n"
        )


if __name__ == "__main__":
    main()
