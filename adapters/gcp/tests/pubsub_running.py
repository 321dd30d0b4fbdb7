"""What the tests of this directory share."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc

from cloudevents_bridge_contract.emulators.process import Server
from cloudevents_bridge_contract.emulators.proxy import Proxy


class Running(NamedTuple):
    """The emulator, and the proxy in front of it that counts requests."""

    server: Server
    proxy: Proxy

    @property
    def url(self) -> str:
        return f"gcp://ceb-test?endpoint=http://127.0.0.1:{self.proxy.port}"


class Refusal(grpc.RpcError, grpc.Call):  # type: ignore[misc]
    """An error as gRPC raises it."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__()
        self._code, self._details = code, details

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple[()]:
        return ()

    initial_metadata = trailing_metadata

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> None:
        return None

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: Any) -> bool:
        return False
