"""Finds what the emulator needs, and starts it."""

from __future__ import annotations

import importlib.util
import socket
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from cloudevents_bridge_contract.emulators.process import HOST, Server, free_port

INSTALL = "pip install 'cloudevents-bridge-contract[servicebus]'"
KEY_NAME, KEY = "RootManageSharedAccessKey", "SAS_KEY_VALUE"


class Missing(Exception):  # noqa: N818 - it is a finding, and no error of the program's
    """The emulator cannot run here; the message says what is missing, and how to get it."""


class Running(NamedTuple):
    """A namespace that is served. `administration`: the base URL of the administration API."""

    server: Server
    administration: str

    @property
    def connection(self) -> str:
        """The connection string for AMQP."""
        return self.connection_as(KEY_NAME, KEY)

    def connection_as(self, name: str, key: str) -> str:
        """The same with another shared access key."""
        access = f"SharedAccessKeyName={name};SharedAccessKey={key}"
        return f"Endpoint=sb://{self.server.address};{access};UseDevelopmentEmulator=true"


def find() -> None:
    """Raises Missing: if python-qpid-proton is not installed."""
    if importlib.util.find_spec("proton") is None:
        why = "python-qpid-proton, which is built from source with a C compiler and Python's headers"
        raise Missing(f"the Service Bus emulator needs {why}; to get it: {INSTALL}")


@contextmanager
def started(*, keys: Sequence[str] = ()) -> Iterator[Running]:
    """Run an empty namespace until the block ends.

    Args:
        keys: further shared access keys, NAME=SECRET or NAME=SECRET=RIGHT,RIGHT.

    Raises:
        Missing: as `find`.
        ServerError: if it does not start.
    """
    find()
    ports: dict[int, int] = {}  # of AMQP: of HTTP; the same after a restart

    def command(server: Server) -> Sequence[str]:
        admin = ports.setdefault(server.port, free_port())
        module = f"{__package__}.__main__"
        all_keys = [f"--key={each}" for each in (f"{KEY_NAME}={KEY}", *keys)]
        return [sys.executable, "-m", module, f"--port={server.port}", f"--admin-port={admin}", *all_keys]

    def ready(server: Server) -> bool:
        with urllib.request.urlopen(f"http://{HOST}:{ports[server.port]}/", timeout=5) as answer:
            serves = bool(answer.read() == b"Ok")
        socket.create_connection((HOST, server.port), timeout=5).close()
        return serves

    with Server("servicebus", command, ready) as server:
        yield Running(server, f"http://{HOST}:{ports[server.port]}")
