"""AWS Lambda on this machine, around AWS's own runtime client: queue, environments, failures.

    Invoke ──▶ queue ── a place is free ──▶ environment: python -m awslambdaric handler
      202         │ older than its age         ▲ next │ answer, error, end, time, memory
                  └────────▶ failure record ◀──┴──────┘
                                └──▶ the on-failure destination, another function

An environment sees awslambdaric and boto3, the code and the layer, and nothing else.
"""

import contextlib
import fcntl
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

REPOSITORY = Path(__file__).resolve().parent.parent
ENVIRONMENT = REPOSITORY / ".venv-lambda"
REQUIREMENTS = REPOSITORY / "tests" / "lambda.txt"
LAYER_REQUIREMENTS = REPOSITORY / "layer" / "requirements.txt"

SYNC_BYTES, ASYNC_BYTES = 6 * 1024 * 1024, 1024 * 1024
PATIENCE_S = 60.0
"""After this a test that waits for the functions has failed."""

LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Function:
    """What is deployed."""

    name: str
    handler: str
    code: Path
    """What the zip holds, unpacked."""
    layer: Path
    """The folder that becomes /opt/python."""
    variables: Mapping[str, str]
    memory_mb: int = 1024
    timeout_s: float = 60.0
    on_failure: str = ""
    """Function that gets the records of failed asynchronous invocations."""
    max_age_s: float = 3600.0
    kill_mb: int = 0
    """Memory at which the whole sandbox is killed; 0: it is not watched."""


@dataclass(slots=True, eq=False)
class Invocation:
    """One event on its way."""

    function: Function
    payload: bytes
    request: str = field(default_factory=lambda: str(uuid.uuid4()))
    queued: float = field(default_factory=time.monotonic)
    answer: "queue.SimpleQueue[tuple[str, bytes]]" = field(default_factory=queue.SimpleQueue)
    """(error or "", body), once, for the environment."""
    over: threading.Event = field(default_factory=threading.Event)


class Environment:
    """A process with AWS's runtime client, and the Runtime API that it talks to."""

    def __init__(self, function: Function, log: Path) -> None:
        self.function = function
        self._inbox: queue.SimpleQueue[Invocation | None] = queue.SimpleQueue()
        self._running: Invocation | None = None
        self._ends = float("inf")
        """When the time of the running invocation is over, on the monotonic clock."""
        self._server = serve(self._get, self._post)
        variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(log.parent),
            "TMPDIR": str(log.parent),
            "PYTHONPATH": os.pathsep.join((str(function.code), str(function.layer))),
            "PYTHONDONTWRITEBYTECODE": "1",  # the task root is read-only
            "LAMBDA_TASK_ROOT": str(function.code),
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_port}",
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_LOG_STREAM_NAME": log.stem,
            "_HANDLER": function.handler,
            **function.variables,
        }
        with open(log, "wb") as out:
            self.process = subprocess.Popen(
                [ENVIRONMENT / "bin" / "python", "-m", "awslambdaric", function.handler],
                env=variables, cwd=function.code, stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def run(self, invocation: Invocation) -> tuple[str, bytes]:
        """Run one invocation; returns (kind of error or "", what the function answered)."""
        self._running = invocation
        self._ends = float("inf")
        self._inbox.put(invocation)
        while True:
            with contextlib.suppress(queue.Empty):
                return invocation.answer.get(timeout=LOOK_S)
            if self.process.poll() is not None:
                with contextlib.suppress(queue.Empty):  # it may have answered meanwhile
                    return invocation.answer.get_nowait()
                return _error(invocation, "Runtime.ExitError", self._end())
            if time.monotonic() > self._ends:
                self.stop()
                text = f"Task timed out after {self.function.timeout_s:.2f} seconds"
                return _error(invocation, "Sandbox.Timedout", text)
            if self.function.kill_mb and self._memory_mb() > self.function.kill_mb:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def stop(self) -> None:
        """End the process and all that it started, and the server."""
        self._inbox.put(None)
        for process in (self.process.pid, *_children(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()
        self._server.shutdown()
        self._server.server_close()

    def _end(self) -> str:
        code = self.process.returncode
        names = {signal.SIGKILL: "killed", signal.SIGTERM: "terminated"}
        how = (
            f"exit status {code}"
            if code >= 0
            else f"signal: {names.get(signal.Signals(-code), str(-code))}"
        )
        return f"Runtime exited with error: {how}"

    def _memory_mb(self) -> float:
        total = 0
        for process in (self.process.pid, *_children(self.process.pid)):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                    total += int(line.split()[1]) if line.startswith("Pss:") else 0
        return total / 1024

    def _get(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        invocation = self._inbox.get()
        if invocation is None:
            return 410, b"", {}
        # Only now: the start of a sandbox is not counted to the time of its first event.
        self._ends = time.monotonic() + self.function.timeout_s
        deadline_ms = int((time.time() + self.function.timeout_s) * 1000)
        return 200, invocation.payload, {
            "Lambda-Runtime-Aws-Request-Id": invocation.request,
            "Lambda-Runtime-Deadline-Ms": str(deadline_ms),
            "Lambda-Runtime-Invoked-Function-Arn": _arn(self.function.name),
            "Lambda-Runtime-Trace-Id": f"Root=1-{invocation.request}",
        }  # fmt: skip

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        invocation = self._running
        if invocation is not None:
            kind = "" if path.endswith("/response") else "Unhandled"
            if not kind and len(body) > SYNC_BYTES:
                invocation.answer.put(
                    _error(invocation, "Function.ResponseSizeTooLarge", "Response payload size")
                )
                return 413, b"{}"
            invocation.answer.put((kind, body))
        return 202, b"{}"


class LambdaHost:
    """The service: functions, their queue and their environments. A context manager.

    Args:  concurrency: environments that run at a time, of all functions. folder: for logs.
    """

    def __init__(self, folder: Path, concurrency: int) -> None:
        self.folder = folder
        self.concurrency = concurrency
        self.limit = 1000
        """Concurrency of the account, as it is told to who asks."""
        self.functions: dict[str, Function] = {}
        self.counts: Counter[str] = Counter()
        """Invocations that ran and requests that came, by what they were."""
        self.records: list[dict[str, Any]] = []
        self.started = 0.0
        """When the youngest environment was started, seconds since the epoch."""
        self.throttles = 0
        """So many of the next Invoke requests are answered 429."""
        self.lost = 0
        """So many of the next events vanish: neither run nor recorded."""
        self._lock = threading.Condition()
        self._queue: deque[Invocation] = deque()
        self._idle: list[Environment] = []
        self._all: list[Environment] = []
        self._running = 0
        self._closing = False
        self._server = serve(self._get, self._post)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._dispatch, daemon=True)

    def __enter__(self) -> "LambdaHost":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._thread.join()
        for environment in self._all:
            environment.stop()
        self._server.shutdown()
        self._server.server_close()

    def deploy(self, *functions: Function) -> None:
        """Put functions in place; warm environments of earlier ones are not used any more."""
        with self._lock:
            self.functions.update({function.name: function for function in functions})

    def retire(self) -> None:
        """Let no warm environment be used any more; waits for those that run."""
        with self._lock:
            self._lock.wait_for(lambda: not self._running)
            self._idle.clear()

    def wait_until_idle(self) -> None:
        """Return when no invocation is under way: a client may see the last result of a job before
        the function that committed it has answered.
        """
        with self._lock:
            assert self._lock.wait_for(lambda: not (self._queue or self._running), PATIENCE_S)

    def queued(self) -> int:
        """Return how many events wait for a place."""
        with self._lock:
            return len(self._queue)

    def running(self) -> int:
        """Return how many invocations are under way."""
        with self._lock:
            return self._running

    def invoke(self, invocation: Invocation) -> None:
        """Queue an asynchronous invocation."""
        with self._lock:
            if self.lost:
                self.lost -= 1
                return
            self._queue.append(invocation)
            self._lock.notify_all()

    # --- the thread of the queue ----------------------------------------------------------------
    def _dispatch(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._closing or self._may_run(), 0.05)
                if self._closing:
                    return
                self._drop_old()
                if not self._may_run():
                    continue
                invocation = self._queue.popleft()
                self._running += 1
            threading.Thread(target=self._run, args=(invocation,), daemon=True).start()

    def _may_run(self) -> bool:
        return bool(self._queue) and self._running < self.concurrency

    def _drop_old(self) -> None:
        now = time.monotonic()
        for invocation in [i for i in self._queue if now - i.queued > i.function.max_age_s]:
            self._queue.remove(invocation)
            self._fail(invocation, "EventAgeExceeded", None)

    def _run(self, invocation: Invocation) -> None:
        function = invocation.function
        environment = self._environment(function)
        kind, body = environment.run(invocation)
        with self._lock:
            self.counts[function.name] += 1
            self._running -= 1
            if environment.process.poll() is None:
                self._idle.append(environment)
            self._lock.notify_all()
        if kind:
            self._fail(invocation, "RetriesExhausted", json.loads(body))
        invocation.over.set()

    def _environment(self, function: Function) -> Environment:
        with self._lock:
            for environment in self._idle:
                if environment.function is function and environment.process.poll() is None:
                    self._idle.remove(environment)
                    return environment
            number = len(self._all)
            self.started = time.time()
            environment = Environment(function, self.folder / f"{function.name}-{number}.log")
            self._all.append(environment)
            return environment

    def _fail(self, invocation: Invocation, condition: str, answer: object) -> None:
        record = {
            "version": "1.0",
            "requestContext": {
                "requestId": invocation.request,
                "functionArn": f"{_arn(invocation.function.name)}:$LATEST",
                "condition": condition,
                "approximateInvokeCount": 1,
            },
            "requestPayload": json.loads(invocation.payload),
            "responseContext": {"statusCode": 200, "functionError": "Unhandled"},
            "responsePayload": answer,
        }
        with self._lock:
            self.records.append(record)
        if invocation.function.on_failure:
            target = self.functions[invocation.function.on_failure]
            self.invoke(Invocation(target, json.dumps(record).encode()))

    # --- the front end --------------------------------------------------------------------------
    def _get(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        if path.startswith("/2016-08-19/account-settings"):
            names = ("ConcurrentExecutions", "UnreservedConcurrentExecutions")
            limits = dict.fromkeys(names, self.limit)
            return 200, json.dumps({"AccountLimit": limits, "AccountUsage": {}}).encode(), {}
        return 200, b"{}", {}

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        name = unquote(path.split("/")[3])
        is_event = headers.get("X-Amz-Invocation-Type") == "Event"
        with self._lock:
            self.counts["requests by boto3" if "Boto3" in headers.get("User-Agent", "") else
                        "requests by workers"] += 1  # fmt: skip
            if self.throttles:
                self.throttles -= 1
                return 429, b'{"Reason": "CallerRateLimitExceeded", "message": "Rate exceeded"}'
        if name not in self.functions:
            return 404, json.dumps({"Message": f"Function not found: {name}"}).encode()
        if len(body) > (ASYNC_BYTES if is_event else SYNC_BYTES):
            return 413, b'{"message": "Request must be smaller"}'
        invocation = Invocation(self.functions[name], body)
        self.invoke(invocation)
        if is_event:
            return 202, b""
        invocation.over.wait()
        return 200, b"null"


def _arn(name: str) -> str:
    return f"arn:aws:lambda:eu-west-1:000000000000:function:{name}"


def _error(invocation: Invocation, kind: str, text: str) -> tuple[str, bytes]:
    message = f"RequestId: {invocation.request} Error: {text}"
    return "Unhandled", json.dumps({"errorType": kind, "errorMessage": message}).encode()


def _children(process: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield int(child)
                yield from _children(int(child))


class _Server(ThreadingHTTPServer):
    """Does not mind that who asked is gone: environments are killed."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def serve(get: Any, post: Any) -> ThreadingHTTPServer:
    """Serve in a thread; *get* returns (status, body, headers), *post* (status, body)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(*get(self.path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._answer(*post(self.path, body, self.headers))

        def _answer(
            self, status: int, body: bytes, headers: Mapping[str, str] = MappingProxyType({})
        ) -> None:
            with contextlib.suppress(OSError):  # who asked may have been killed
                self.send_response(status)
                for name, value in {**headers, "Content-Type": "application/json"}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = _Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


def prepared_environment() -> tuple[Path, Path]:
    """Return (the virtual environment, the layer's folder), made where they are missing or old."""
    layer = ENVIRONMENT / "opt" / "python"
    stamp = ENVIRONMENT / ".ready"
    wanted = REQUIREMENTS.read_text() + LAYER_REQUIREMENTS.read_text()
    with open(REPOSITORY / ".venv-lambda.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs at once
        if not stamp.exists() or stamp.read_text() != wanted:
            python = str(ENVIRONMENT / "bin" / "python")
            pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([sys.executable, "-m", "venv", "--clear", ENVIRONMENT], check=True)
            subprocess.run([*pip, "--requirement", REQUIREMENTS], check=True)
            subprocess.run(
                [*pip, "--target", layer, "--requirement", LAYER_REQUIREMENTS], check=True
            )
            stamp.write_text(wanted)
        os.utime(stamp)  # newer than the files that make compares it with
    return ENVIRONMENT, layer


if __name__ == "__main__":
    prepared_environment()
