"""Inputs from a web server."""

import gzip
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from obstore.store import HTTPStore

import lambdamr
from lambdamr_runtime.errors import InputNotFound, InvalidInput, StoreError
from lambdamr_runtime.store import ObstoreStore

LINES = "".join(f"line {number}\n" for number in range(5000)).encode()

FILES = {
    "/data/lines.txt": LINES,
    "/data/lines.txt.gz": gzip.compress(LINES),
    "/data/with%20space.txt": b"a\nb\n",
}


class Server(BaseHTTPRequestHandler):
    """Has FILES, whole and in ranges."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def _answer(self, has_body: bool) -> None:
        data = FILES.get(self.path)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        body = b"" if data is None else data
        if data is None:
            self.send_response(404)
        elif asked:
            first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
            body = data[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Thu, 26 Nov 2026 00:00:00 GMT")
        self.end_headers()
        if has_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
        """Say nothing."""


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """The URL of a web server on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def ends(line: str) -> list[tuple[str, int]]:
    return [(line[-1], 1)]


@pytest.mark.parametrize("name", ["lines.txt", "lines.txt.gz"])
def test_an_object_of_a_web_server_is_an_input(
    executor: lambdamr.Executor, web: str, name: str
) -> None:
    """It is cut into splits where it can be, each a ranged request; every line is read once."""
    given = lambdamr.lines(f"{web}/data/{name}", split_bytes=10_000)
    job = executor.map_reduce(ends, given, lambdamr.reducers.sum)
    assert job.result() == {str(digit): 500 for digit in range(10)}
    assert len(job.map_futures) > 1 or name.endswith(".gz")


def test_names_are_decoded(executor: lambdamr.Executor, web: str) -> None:
    """A URL is percent-encoded as it is elsewhere."""
    job = executor.map_reduce(ends, f"{web}/data/with%20space.txt", lambdamr.reducers.sum)
    assert job.result() == {"a": 1, "b": 1}


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("/data/nothing.txt", InputNotFound, "No object is named"),
        ("/data/", InvalidInput, "does not list"),
        ("/data/*.txt", InvalidInput, "does not list"),
        ("/data/lines.txt?version=1", InvalidInput, "query"),
    ],
)
def test_what_a_web_server_cannot_do_is_said(
    executor: lambdamr.Executor, web: str, path: str, error: type[Exception], said: str
) -> None:
    """A missing object, a folder, a glob and a query each have a message of their own."""
    with pytest.raises(error, match=said):
        executor.map_reduce(ends, web + path, lambdamr.reducers.sum)


def test_a_server_that_is_not_there_is_said_in_one_line() -> None:
    """With what the system said; what the object store layer said is the cause of the error."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    root = f"http://127.0.0.1:{port}"
    once = HTTPStore(root, client_options={"allow_http": True}, retry_config={"max_retries": 0})
    store = ObstoreStore(root, once)
    with pytest.raises(StoreError) as caught:
        store.head("x.txt")
    assert str(caught.value) == (
        f"Could not look up 'x.txt' under http://127.0.0.1:{port}: no connection (Connection "
        "refused). Check the address and the network."
    )
    assert "Debug source" in str(caught.value.__cause__)


def test_a_scheme_that_nobody_knows_is_said_in_one_line(executor: lambdamr.Executor) -> None:
    """The error does not show the insides of the object store layer."""
    with pytest.raises(StoreError) as caught:
        executor.map_reduce(ends, "nonsense://host/name", lambdamr.reducers.sum)
    assert "nonsense" in str(caught.value)
    assert "\n" not in str(caught.value)
