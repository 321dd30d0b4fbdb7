"""A small HTTP server that says how a worker is: for the probes of an orchestrator."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import click
import msgspec

from cloudevents_bridge.types import Stats

READ_TIMEOUT = 2.0
"""Seconds that one request may take: they are served one at a time, in one thread."""


class AddressType(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5 only
    """[HOST:]PORT."""

    name = "[HOST:]PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        host, _, port = str(value).rpartition(":")
        if not port.isdecimal() or int(port) > 65535:
            self.fail(f"{value!r} is no port: write 8080, or 0.0.0.0:8080 to be reached from elsewhere", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


class Health:
    """Serves `GET /live` (200 while no handler is stalled) and `GET /ready` (200 while the broker answers), else 503,
    with the worker's counts as JSON.

    Args:
        stats: gives the counts.

    Raises:
        click.UsageError: if the port cannot be had.
    """

    def __init__(self, address: tuple[str, int], stats: Callable[[], Stats]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = READ_TIMEOUT
            server_version, sys_version = "ceb", ""

            def do_GET(self) -> None:
                now = stats()
                good = {"/live": not now.stalled, "/ready": now.connected}.get(self.path.partition("?")[0])
                status = 404 if good is None else 200 if good else 503
                body = msgspec.json.encode(now._asdict() if good is not None else {"paths": ["/live", "/ready"]})
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Probes come every few seconds, and say nothing new."""

        try:
            self._server = _Server(address, Handler)
        except OSError as error:
            raise click.UsageError(
                f"--health {address[0]}:{address[1]} cannot be served: {error.strerror or error}; choose another port"
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="ceb-health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(HTTPServer):
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody hung up, or sent nonsense."""
