"""A small HTTP server that says how a worker is: for the probes of an orchestrator."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, NamedTuple, Self

import click
import msgspec

from cloudevents_bridge.stats import Stats

READ_TIMEOUT = 2.0
"""Seconds that a client may be silent in the middle of a request."""
AT_ONCE = 4
"""Requests that are served at once, each in a thread of its own. Further ones are turned away."""


class AddressType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 only
    """[HOST:]PORT."""

    name = "[HOST:]PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        if not (port.isascii() and port.isdecimal()) or int(port) > 65535:
            self.fail(f"{value!r} is no port: write 8080, or 0.0.0.0:8080 to be reached from elsewhere", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


class Condition(NamedTuple):
    """How a worker is.

    Attributes:
        live: it works, and no handler is stalled. One that is not live should be started again.
        ready: every subscription is connected, and nobody has stopped it.
    """

    live: bool
    ready: bool
    stats: Stats


class Health:
    """Serves `GET /live` and `GET /ready`, with 200 or 503 and the worker's counts as JSON, while its block lasts.

    Args:
        look: tells the condition; called in threads of the server.
        note: told where it listens.

    Raises:
        click.UsageError: if the port cannot be had.
    """

    def __init__(self, address: tuple[str, int], look: Callable[[], Condition], note: Callable[[str], object]) -> None:
        host, port = address
        shown = f"[{host}]" if ":" in host else host
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._server = _Server(address, family, look)
        except OSError as error:
            raise click.UsageError(
                f"--health {shown}:{port} cannot be served: {error.strerror or error}; choose another port"
            ) from error
        self.port: int = self._server.server_address[1]
        note(f"health on http://{shown}:{self.port}/live and /ready")
        self._thread = threading.Thread(target=self._server.serve_forever, name="ceb-health", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], family: int, look: Callable[[], Condition]) -> None:
        self.address_family = family
        self.look = look
        self._slots = threading.Semaphore(AT_ONCE)
        super().__init__(address, _Answer)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # that of HTTPServer asks the DNS for a name that nobody needs

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody hung up, or sent nonsense."""


class _Answer(BaseHTTPRequestHandler):
    server: _Server
    timeout = READ_TIMEOUT
    server_version, sys_version = "ceb", ""

    def do_GET(self) -> None:
        condition = self.server.look()
        good = {"/live": condition.live, "/ready": condition.ready}.get(self.path.partition("?")[0])
        body = msgspec.json.encode(condition.stats._asdict() if good is not None else {"paths": ["/live", "/ready"]})
        self.send_response(404 if good is None else 200 if good else 503)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every few seconds, and say nothing new."""
