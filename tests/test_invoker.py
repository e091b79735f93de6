"""Launching functions from the runtime: signed, pooled, repeated, refused."""

import json
from collections.abc import Mapping

import pytest

from lambdamr_runtime.errors import InvocationFailed, InvocationRefused
from lambdamr_runtime.invoker import Invoker
from lambdamr_runtime.limits import INVOKE_PATIENCE_S
from tests.cluster import VirtualClock
from tests.runtime_api import serve


class Service:
    """Answers Invoke as told, then 202."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self.answers = list(answers)
        self.seen: list[tuple[str, bytes, Mapping[str, str]]] = []
        self.server = serve(lambda _: (404, b"", {}), self._post)

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        self.seen.append((path, body, headers))
        return self.answers.pop(0) if self.answers else (202, b"")

    def invoker(self, clock: VirtualClock | None = None, **variables: str) -> Invoker:
        environment = {
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "AWS_ENDPOINT_URL_LAMBDA": f"http://127.0.0.1:{self.server.server_port}",
            "AWS_ACCESS_KEY_ID": "AKID",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_SESSION_TOKEN": "token",
            "AWS_REGION": "eu-west-1",
            **variables,
        }
        return Invoker("work:live", environment, clock or VirtualClock(), lambda: 0.5)


def test_a_launch_is_signed_and_asynchronous() -> None:
    """The request is AWS's, with the trace of the invocation it comes from."""
    with Service() as service:
        service.invoker(_X_AMZN_TRACE_ID="Root=1-x;Lineage=3:y").invoke(b'{"a": 1}')
    ((path, body, headers),) = service.seen
    assert path == "/2015-03-31/functions/work%3Alive/invocations"
    assert body == b'{"a": 1}'
    assert headers["X-Amz-Invocation-Type"] == "Event"
    assert headers["X-Amzn-Trace-Id"] == "Root=1-x;Lineage=3:y"
    assert headers["X-Amz-Security-Token"] == "token"
    assert "AKID/" in headers["Authorization"]
    assert "/eu-west-1/lambda/aws4_request" in headers["Authorization"]


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_passes_is_repeated(status: int) -> None:
    """Throttling and failures of AWS: again, after longer and longer pauses."""
    clock = VirtualClock()
    began_s = clock.time()
    with Service(*[(status, b'{"message": "Rate exceeded"}')] * 4) as service:
        service.invoker(clock).invoke(b"{}")
    assert len(service.seen) == 5
    assert clock.time() - began_s == pytest.approx(0.5 * (0.1 + 0.2 + 0.4 + 0.8))


def test_a_launch_that_never_succeeds_raises() -> None:
    """So that a failure record exists: nothing ends well with something unlaunched."""
    clock = VirtualClock()
    with (
        Service(*[(429, b'{"Type": "User", "message": "Rate exceeded"}')] * 99) as service,
        pytest.raises(InvocationFailed, match="429 User Rate exceeded") as caught,
    ):
        service.invoker(clock).invoke(b"{}")
    assert not isinstance(caught.value, InvocationRefused)
    assert len(service.seen) > INVOKE_PATIENCE_S / 5


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (404, {"Type": "User", "Message": "Function not found: arn"}, "Function not found"),
        (403, {"Message": "not authorized to perform: lambda:InvokeFunction"}, "not authorized"),
        (413, {"message": "Request must be smaller than 1048576 bytes"}, "smaller"),
        (400, {"__type": "RecursiveInvocationException", "message": "loop"}, "Recursive"),
    ],
)
def test_what_will_not_pass_is_raised_at_once(
    status: int, answer: dict[str, str], said: str
) -> None:
    """Refusals come with AWS's own words."""
    with (
        Service((status, json.dumps(answer).encode())) as service,
        pytest.raises(InvocationRefused, match=said),
    ):
        service.invoker().invoke(b"{}")
    assert len(service.seen) == 1


def test_a_connection_that_fails_is_repeated() -> None:
    """Nobody listens: the reason is that of the last try."""
    with pytest.raises(InvocationFailed, match="not invoked within"), Service() as service:
        service.invoker(AWS_ENDPOINT_URL_LAMBDA="http://127.0.0.1:9").invoke(b"{}")


def test_several_are_launched_side_by_side() -> None:
    """All arrive, and one that is refused is raised."""
    events = [b'{"n": %d}' % n for n in range(20)]
    with Service() as service:
        service.invoker().invoke_all(events)
    assert sorted(body for _, body, _ in service.seen) == sorted(events)
    with Service((404, b"{}")) as service, pytest.raises(InvocationRefused):
        service.invoker().invoke_all(events)
