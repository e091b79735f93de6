"""Launching functions from within a function: botocore's signer and its HTTP session alone.

A boto3 client costs 236 ms of CPU and 46 MB, the parts used here 108 ms and 29 MB, of which half
is urllib3. Nodes of the launch tree and last finishers pay that; leaves of the tree never do.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lambdamr_runtime.clock import Clock, SystemClock
from lambdamr_runtime.errors import InvocationFailed, InvocationRefused
from lambdamr_runtime.limits import INVOKE_PATIENCE_S, INVOKES_AT_ONCE
from lambdamr_runtime.s3 import endpoint_of
from lambdamr_runtime.signing import region_of

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

CONNECT_S = 5
READ_S = 15

_TRACE = "_X_AMZN_TRACE_ID"
"""Where the runtime client puts the invocation's trace: passed on, AWS sees the chain."""


def is_transient(status: int) -> bool:
    """Whether an answer of AWS Lambda may be another one later."""
    return status == 429 or status >= 500


def pauses(clock: Clock, patience_s: float, draw: Callable[[], float]) -> "Callable[[], bool]":
    """Return a function that pauses before another try: longer each time, and jittered.

    It says False, at once, when the patience is used up.
    """
    ends_s = clock.monotonic() + patience_s
    tries = 0

    def pause() -> bool:
        nonlocal tries
        wait_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**tries) * draw()
        tries += 1
        if clock.monotonic() + wait_s > ends_s:
            return False
        clock.sleep(wait_s)
        return True

    return pause


class Signed:
    """Requests to one AWS service, signed with the keys of the environment."""

    def __init__(self, service: str, environment: Mapping[str, str] = os.environ) -> None:
        from botocore.auth import SigV4Auth
        from botocore.credentials import ReadOnlyCredentials
        from botocore.httpsession import URLLib3Session
        from botocore.utils import get_environ_proxies

        region = region_of(environment)
        keys = ReadOnlyCredentials(
            environment["AWS_ACCESS_KEY_ID"],
            environment["AWS_SECRET_ACCESS_KEY"],
            environment.get("AWS_SESSION_TOKEN"),
        )
        self.endpoint = (
            endpoint_of(service, environment) or f"https://{service}.{region}.amazonaws.com"
        )
        self._auth = SigV4Auth(keys, service, region)
        self._http = URLLib3Session(
            proxies=get_environ_proxies(self.endpoint),
            timeout=(CONNECT_S, READ_S),
            max_pool_connections=INVOKES_AT_ONCE,
        )

    def post(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Send one request; returns status and body.

        Raises:  BotoCoreError of botocore: no answer came.
        """
        from botocore.awsrequest import AWSRequest

        request = AWSRequest("POST", self.endpoint + path, dict(headers), body)
        self._auth.add_auth(request)
        answer = self._http.send(request.prepare())
        return answer.status_code, answer.content


class Invoker:
    """Launches events of a function, asynchronously.

    Args:  function: name or ARN.  clock, draw: for the pauses between tries.
    """

    def __init__(
        self,
        function: str,
        environment: Mapping[str, str] = os.environ,
        clock: Clock | None = None,
        draw: Callable[[], float] | None = None,
    ) -> None:
        self._function = function
        self._environment = environment
        self._clock = clock or SystemClock()
        self._draw = draw or _draw
        self._signed: Signed | None = None

    def invoke(self, event: bytes) -> None:
        """Launch one event.

        Raises:  InvocationRefused: AWS will not, ever. InvocationFailed: it has not, however often.
        """
        from botocore.exceptions import BotoCoreError

        pause = pauses(self._clock, INVOKE_PATIENCE_S, self._draw)
        while True:
            try:
                status, answer = self._connected().post(self._path, self._headers(), event)
            except BotoCoreError as error:
                reason, last = str(error), error
            else:
                if status < 300:
                    return
                reason, last = _reason(status, answer), None
                if not is_transient(status):
                    raise InvocationRefused(f"{self._function} was not invoked: {reason}")
            if not pause():
                raise InvocationFailed(
                    f"{self._function} was not invoked within {INVOKE_PATIENCE_S:.0f} s: {reason}"
                ) from last

    def invoke_all(self, events: Sequence[bytes]) -> None:
        """Launch events side by side.

        Raises:  as invoke, for the first of those that could not be launched.
        """
        if len(events) == 1:
            self.invoke(events[0])
            return
        from concurrent.futures import ThreadPoolExecutor  # only nodes of the tree come here

        self._connected()
        with ThreadPoolExecutor(INVOKES_AT_ONCE, thread_name_prefix="lambdamr-invoke") as pool:
            for launched in [pool.submit(self.invoke, event) for event in events]:
                launched.result()

    @property
    def _path(self) -> str:
        from urllib.parse import quote  # 8 ms, which leaves of the tree do not pay

        return f"/2015-03-31/functions/{quote(self._function, safe='')}/invocations"

    def _connected(self) -> Signed:
        if self._signed is None:
            self._signed = Signed("lambda", self._environment)
        return self._signed

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "X-Amz-Invocation-Type": "Event"}
        trace = self._environment.get(_TRACE)
        return {**headers, "X-Amzn-Trace-Id": trace} if trace else headers


def _draw() -> float:
    """Return a number in [0, 1)."""
    import random  # 2 ms, and only who is refused draws

    return random.random()


def _reason(status: int, answer: bytes) -> str:
    """Return what AWS says of a refusal."""
    try:
        record: Any = json.loads(answer)  # Any: whatever stands between us and AWS may answer
        text = record.get("Message") or record.get("message") or answer.decode()
        kind = record.get("Type") or record.get("__type") or ""
    except (ValueError, AttributeError):
        text, kind = answer[:500].decode(errors="replace"), ""
    return " ".join(str(part) for part in (status, kind, text) if part)
