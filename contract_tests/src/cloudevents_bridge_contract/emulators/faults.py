"""A proxy for HTTP/1.1 that fails some of the requests: before the server has them, or once it has answered."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from cloudevents_bridge_contract.emulators.process import HOST

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"})
FAULTS = ("reset", "lost", "truncated", "delayed", "500", "503", "throttled")
"""`reset`: the connection closes, and the server has nothing. `lost`: the server has answered, and nobody hears it.
`truncated`: half of an answer arrives. `delayed`: it arrives late. The others are answered here, and done by nobody.
"""


class Answer(NamedTuple):
    """What a client reads."""

    status: int
    headers: Mapping[str, str]
    body: bytes


NONE = Answer(503, {}, b"")
"""For a proxy that throttles nothing: it only counts."""


class FaultyProxy:
    """Stands between clients and the server at `port`.

    Args:
        server: the port of the server.
        chance: of a request to fail, from 0 to 1; each of `faults` is as likely.
        throttled: the answer of the service that says "slower".
        seed: the same one gives the same faults to the same requests in the same order.
        delay: seconds that a delayed answer waits.

    Attributes:
        port: where clients connect.
        done: how often each fault was made; `none`: of the requests that were left alone.
    """

    def __init__(
        self,
        server: int,
        *,
        chance: float,
        throttled: Answer,
        seed: int = 0,
        delay: float = 0.3,
        faults: tuple[str, ...] = FAULTS,
    ) -> None:
        self.done: Counter[str] = Counter()
        self._server, self._chance, self._faults = server, chance, faults
        self._throttled, self._delay = throttled, delay
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._http = _Server((HOST, 0), _handler(self))
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="faults", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def next(self) -> str:
        """The fault of one more request."""
        with self._lock:
            fault = self._random.choice(self._faults) if self._random.random() < self._chance else "none"
            self.done[fault] += 1
            return fault

    def answer(self, fault: str, ask: Callable[[int], Answer]) -> tuple[Answer | None, bool]:
        """What to send back, None for nothing, and whether all of it."""
        if fault == "reset":
            return None, False
        if fault in ("500", "503"):
            return Answer(int(fault), {}, b""), True
        if fault == "throttled":
            return self._throttled, True
        answer = ask(self._server)
        if fault == "delayed":
            time.sleep(self._delay)
        return (None if fault == "lost" else answer), fault != "truncated"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # clients keep their connections open

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are no news here."""


def _handler(proxy: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # one packet an answer
        upstream: http.client.HTTPConnection | None = None

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            try:
                answer, whole = proxy.answer(proxy.next(), lambda port: self.ask(port, body))
            except (OSError, http.client.HTTPException):
                answer, whole = None, False
            if answer is None:
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body if whole else answer.body[: len(answer.body) // 2])
            self.wfile.flush()
            self.close_connection = self.close_connection or not whole

        do_POST = do_GET = do_PUT = do_DELETE = handle_any  # noqa: N815 — the names that http.server looks for

        def ask(self, port: int, body: bytes) -> Answer:
            if self.upstream is None:
                self.upstream = http.client.HTTPConnection(HOST, port, timeout=60)
            given = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            try:
                self.upstream.request(self.command, self.path, body, given)
                answer = self.upstream.getresponse()
                read = answer.read()
            except (OSError, http.client.HTTPException):
                self.upstream.close()
                self.upstream = None
                raise
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            return Answer(answer.status, headers, read)

        def finish(self) -> None:
            if self.upstream is not None:
                self.upstream.close()
            super().finish()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler
