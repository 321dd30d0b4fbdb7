"""The HTTP front: the administration API, and the REST call that sends one message."""

from __future__ import annotations

import logging
import threading
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cloudevents_bridge_contract.emulators.servicebus import atom, rest, tokens
from cloudevents_bridge_contract.emulators.servicebus.administration import Administration, Answer
from cloudevents_bridge_contract.emulators.servicebus.namespace import Namespace
from cloudevents_bridge_contract.emulators.servicebus.refusals import Refusal
from cloudevents_bridge_contract.emulators.servicebus.tokens import Key

Does = Callable[[str, Mapping[str, str], bytes], tuple[int, ET.Element | None]]
_MESSAGES = "/messages"
_log = logging.getLogger(__name__)


class Web(ThreadingHTTPServer):
    """Listens at once; `serve_forever` serves. `lock`: held whenever the namespace is touched."""

    daemon_threads = True

    def __init__(
        self, namespace: Namespace, address: tuple[str, int], lock: threading.RLock, keys: Mapping[str, Key]
    ) -> None:
        super().__init__(address, _Handler)
        self.namespace, self.lock, self.keys = namespace, lock, keys
        self.administration = Administration(namespace)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Web

    def do_GET(self) -> None:
        if self.path == "/":
            self._reply(200, b"Ok", "text/plain")
        else:
            self._do(lambda path, query, body: (200, self.server.administration.get(path, query)))

    def do_PUT(self) -> None:
        update = self.headers.get("If-Match") == "*"
        status = 200 if update else 201
        self._do(lambda path, query, body: (status, self.server.administration.put(path, body, update=update)))

    def do_DELETE(self) -> None:
        self._do(self._delete)

    def do_POST(self) -> None:
        self._do(self._send, right="Send")

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _delete(self, path: str, query: Mapping[str, str], body: bytes) -> tuple[int, None]:
        self.server.administration.delete(path)
        return 200, None

    def _send(self, path: str, query: Mapping[str, str], body: bytes) -> tuple[int, None]:
        if not path.endswith(_MESSAGES):
            raise Answer(404, f"There is nothing to post to at '{path}'.")
        message = rest.message(dict(self.headers.items()), body)
        namespace = self.server.namespace
        namespace.send(path.removesuffix(_MESSAGES), [message], namespace.clock())
        return 201, None

    def _do(self, does: Does, right: str = "Manage") -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        split = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(split.path).strip("/")
        found: ET.Element | None
        try:
            with self.server.lock:
                self._require(right, path.removesuffix(_MESSAGES))
                status, found = does(path, dict(urllib.parse.parse_qsl(split.query)), body)
        except (Answer, Refusal) as no:
            status, found = no.status, atom.error(no.status, no.text)
        except ValueError as error:
            status, found = 400, atom.error(400, f"SubCode=40000. Bad Request. {error}")
        except Exception as error:  # noqa: BLE001 - one client's nonsense does not end the server
            _log.exception("a request could not be answered")
            status, found = 500, atom.error(500, repr(error))
        self._reply(status, b"" if found is None else atom.encoded(found), "application/atom+xml;charset=utf-8")

    def _require(self, right: str, path: str) -> None:
        given, now = self.headers.get("Authorization", ""), self.server.namespace.clock()
        claim = tokens.claim(given, self.server.keys, now)
        if not claim.allows(right, path, now):
            raise Answer(401, f"{right} claims are required for this operation: {path}.")

    def _reply(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
