"""What the tests of this directory share."""

from __future__ import annotations

from typing import NamedTuple

from cloudevents_bridge_contract.emulators.process import Server
from cloudevents_bridge_contract.emulators.proxy import Proxy


class Running(NamedTuple):
    """The emulator, and the proxy in front of it that counts requests."""

    server: Server
    proxy: Proxy

    @property
    def url(self) -> str:
        return f"gcp://ceb-test?endpoint=http://127.0.0.1:{self.proxy.port}"
