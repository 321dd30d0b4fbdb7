"""The HTTP server around the parts."""

from __future__ import annotations

import socket
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

from cloudevents_bridge_contract.emulators.eventgrid import admin, custom, namespace
from cloudevents_bridge_contract.emulators.eventgrid.admin import Admin
from cloudevents_bridge_contract.emulators.eventgrid.auth import Access
from cloudevents_bridge_contract.emulators.eventgrid.custom import Custom
from cloudevents_bridge_contract.emulators.eventgrid.grid import Grid
from cloudevents_bridge_contract.emulators.eventgrid.http import Answer, Request, refusal
from cloudevents_bridge_contract.emulators.eventgrid.namespace import Namespace
from cloudevents_bridge_contract.emulators.eventgrid.problems import Problem, bad_request, not_found

_READ_MOST = 16 * 1024 * 1024  # bytes of a request; what is longer is cut off, and refused


class Emulator(ThreadingHTTPServer):
    """Event Grid on one port, a thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], grid: Grid, access: Access) -> None:
        self.admin = Admin(grid)
        self._namespace, self._custom = Namespace(grid, access), Custom(grid, access)
        super().__init__(address, _Handler)

    def answer(self, request: Request) -> Answer:
        try:
            return self._answer(request)
        except Problem as problem:
            return refusal(problem)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            traceback.print_exc()
            return refusal(Problem(500, "InternalServerError", f"{type(error).__name__}: {error}"))

    def _answer(self, request: Request) -> Answer:
        if request.path.startswith(f"{admin.PREFIX}/"):
            return self.admin.handle(request)
        for part, operation in (
            (self._namespace, namespace.operation(request.path)),
            (self._custom, custom.operation(request.path)),
        ):
            if operation is not None:
                self.admin.count(operation)
                self.admin.faults.check(operation)
                return part.handle(request)
        raise not_found(f"There is nothing at {request.path}.")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body in one piece
    server: Emulator

    def _do(self) -> None:
        try:
            body = self._body()
        except Problem as problem:
            self.close_connection = True
            self._send(refusal(problem))
            return
        parts = urlsplit(self.path)
        host, port = self.server.server_address[:2]
        request = Request(
            method=self.command,
            path=unquote(parts.path),
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=body,
            base=f"http://{host!s}:{port}",
            gone=self._gone,
        )
        self._send(self.server.answer(request))

    do_GET = do_POST = do_PUT = do_DELETE = _do  # noqa: N815 - the names are the library's

    def handle_expect_100(self) -> bool:
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._chunks()
        length = self.headers.get("Content-Length") or "0"
        if not length.isdecimal():
            raise bad_request("The Content-Length is no number.")
        if int(length) > _READ_MOST:
            raise Problem(413, "PayloadTooLarge", f"The request has {length} bytes.")
        return self.rfile.read(int(length))

    def _chunks(self) -> bytes:
        body = bytearray()
        try:
            while size := int(self.rfile.readline(64).partition(b";")[0], 16):
                if len(body) + size > _READ_MOST:
                    raise Problem(413, "PayloadTooLarge", "The request is too long.")
                body += self.rfile.read(size)
                self.rfile.readline(8)
            while self.rfile.readline(4096).strip():
                pass
        except ValueError as error:
            raise bad_request("The chunks of the body cannot be read.") from error
        return bytes(body)

    def _send(self, answer: Answer) -> None:
        try:
            self.send_response(answer.status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(answer.body)))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)
            self.wfile.flush()
        except OSError:
            self.close_connection = True

    def _gone(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def log_message(self, format: str, *args: object) -> None:
        """Requests are counted, and not logged."""
