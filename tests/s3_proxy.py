"""A proxy before an S3 server: counts requests, and answers some of them as a bad day would.

client ─▶ proxy ─ dice ─▶ server        503, 409: refused, nothing is done
                    ├──▶ reset: the connection ends, before or after the server has done it
                    └──▶ slow: the answer comes late
"""

import contextlib
import enum
import http.client
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_S = 0.5


class Fault(enum.Enum):
    """What may happen to a request."""

    UNAVAILABLE = "503"
    CONFLICT = "409"
    """Only conditional puts meet it."""
    RESET = "reset before"
    LOST = "reset after"
    SLOW = "slow"
    FORBIDDEN = "403"


BAD_DAY = (Fault.UNAVAILABLE, Fault.CONFLICT, Fault.RESET, Fault.LOST, Fault.SLOW)
"""What passes if it is repeated."""

_CODES = {
    Fault.UNAVAILABLE: "SlowDown",
    Fault.CONFLICT: "ConditionalRequestConflict",
    Fault.FORBIDDEN: "AccessDenied",
}


class S3Proxy:
    """Forwards to a server; a context manager.

    Args:  share: of requests that meet a fault. seed: of the dice.
    """

    def __init__(self, server: str, share: float = 0.0, seed: int = 0) -> None:
        self._target = urlsplit(server).netloc
        self._share = share
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self.requests: Counter[tuple[str, str]] = Counter()
        """By method and path, the query left out; those that met a fault too."""
        self.faults: Counter[Fault] = Counter()
        self.choose: Callable[[str, str], Fault | None] | None = None
        """What decides in place of the dice, by method and path."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_one_request(self) -> None:
                self.raw_requestline = self.rfile.readline(65537)
                if not self.raw_requestline:
                    self.close_connection = True
                elif self.parse_request():
                    proxy._forward(self)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "S3Proxy":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def count(self, method: str, part: str) -> int:
        """Return the requests of a method whose path has *part*."""
        return sum(
            n for (verb, path), n in self.requests.items() if verb == method and part in path
        )

    def _forward(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self._draw(request, path)
        if fault in _CODES:
            body = f"<Error><Code>{_CODES[fault]}</Code></Error>".encode()
            self._answer(request, int(fault.value), body)
            return
        if fault is Fault.RESET:
            self._reset(request)
            return
        status, headers, answer = self._ask(request, body)
        if fault is Fault.LOST:
            self._reset(request)
            return
        if fault is Fault.SLOW:
            time.sleep(SLOW_S)
        self._answer(request, status, answer, headers)

    def _draw(self, request: BaseHTTPRequestHandler, path: str) -> Fault | None:
        with self._lock:
            self.requests[request.command, path] += 1
            if self.choose is not None:
                fault = self.choose(request.command, path)
            elif self._dice.random() < self._share:
                fault = self._dice.choice(BAD_DAY)
            else:
                fault = None
            if fault is Fault.CONFLICT and "If-None-Match" not in request.headers:
                fault = Fault.UNAVAILABLE
            if fault is not None:
                self.faults[fault] += 1
            return fault

    def _ask(
        self, request: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self._target, timeout=30)
        try:
            connection.putrequest(
                request.command, request.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in request.headers.items():  # Host too: it is signed
                if name.lower() != "connection":
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: list[tuple[str, str]] | None = None,
    ) -> None:
        with contextlib.suppress(OSError):  # who asked may have been killed
            request.send_response_only(status)
            own = {"connection", "transfer-encoding", "content-length"}
            length = str(len(body))
            for name, value in headers or []:
                if name.lower() == "content-length" and request.command == "HEAD":
                    length = value
                elif name.lower() not in own:
                    request.send_header(name, value)
            request.send_header("Content-Length", length)
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(body)

    def _reset(self, request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        linger = b"\x01\0\0\0\0\0\0\0"  # on, 0 s: the end of the connection is a reset
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.connection.close()
