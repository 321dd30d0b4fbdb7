"""Runs the emulator for tests, and speaks to its admin API."""

from __future__ import annotations

import http.client
import json
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from cloudevents_bridge_contract.emulators.process import Server

KEY = "ZW11bGF0b3Ita2V5LWVtdWxhdG9yLWtleQ=="
"""The access key, where none is chosen."""


class AdminError(Exception):
    """A refusal of the admin API.

    Attributes:
        status: of HTTP.
        code: the error's code.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Running:
    """An emulator that runs.

    Args:
        address: HOST:PORT.

    Attributes:
        url: the endpoint of the namespace.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self.url = f"http://{address}"

    def custom_url(self, topic: str) -> str:
        """The endpoint of a custom topic."""
        return f"{self.url}/{topic}/api/events"

    def make_topic(self, name: str) -> None:
        self.admin("PUT", f"topics/{name}")

    def make_subscription(self, topic: str, name: str, **settings: Any) -> None:
        """Settings are those of `pull_settings`, by the names of the ARM resource."""
        self.admin("PUT", f"topics/{topic}/{name}", settings)

    def make_custom(self, name: str, **settings: Any) -> None:
        self.admin("PUT", f"custom/{name}", settings)

    def subscribe(self, topic: str, name: str, **settings: Any) -> Any:
        """Settings are those of `push_settings`. Returns the subscription with its `provisioningState`."""
        return self.admin("PUT", f"custom/{topic}/{name}", settings)

    def dead_letters(self, topic: str, subscription: str, *, kind: str = "topics") -> Any:
        """What the blobs of a subscription hold, the oldest first."""
        return self.admin("GET", f"{kind}/{topic}/{subscription}/deadletters")

    def requests(self) -> dict[str, int]:
        """Requests so far, by operation."""
        return dict(self.admin("GET", "requests"))

    def fail(self, operation: str, status: int, code: str, *, times: int = 1, retry_after: float | None = None) -> None:
        """Let the next `times` requests of an operation be answered with this."""
        given = {"status": status, "code": code, "times": times, "retryAfter": retry_after}
        self.admin("PUT", f"faults/{operation}", given)

    def admin(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Raises:
        AdminError: if it is refused.
        OSError: if the emulator is not there.
        """
        connection = http.client.HTTPConnection(self._address, timeout=60)
        try:
            sent = None if body is None else json.dumps(body).encode()
            connection.request(method, f"/admin/{path}", sent, {"Content-Type": "application/json"})
            response = connection.getresponse()
            said = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise AdminError(response.status, said["error"]["code"], said["error"]["message"])
        return said


@contextmanager
def started(*options: str) -> Iterator[Running]:
    """Run the emulator until the block ends.

    Args:
        options: of its command line, besides host, port and folder.

    Raises:
        ServerError: if it does not come up.
    """

    def command(server: Server) -> list[str]:
        module = [sys.executable, "-m", "cloudevents_bridge_contract.emulators.eventgrid"]
        return [*module, f"--port={server.port}", f"--containers={server.folder / 'containers'}", *options]

    with Server("eventgrid", command, _serves) as server:
        yield Running(server.address)


def _serves(server: Server) -> bool:
    with urllib.request.urlopen(f"http://{server.address}/admin/ready", timeout=5) as answer:
        return bool(answer.status == 200)
