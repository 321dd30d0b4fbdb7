"""MiniStack: a second emulator of AWS, written by others, that differs from LocalStack where one of them is wrong."""

from __future__ import annotations

from collections.abc import Mapping

from cloudevents_bridge_contract.emulators.localstack import answers
from cloudevents_bridge_contract.emulators.process import HOST, Server
from cloudevents_bridge_contract.emulators.venvs import MINISTACK

KIND = f"emulator ministack {MINISTACK.version}"


def ministack() -> Server:
    """MiniStack, not started yet.

    Raises:
        NotInstalledError: if it is not on this machine; the message says how to get it.
    """
    program = MINISTACK.python().with_name("ministack")
    return Server("ministack", lambda server: [str(program)], _ready, environment=_of)


def _of(server: Server) -> Mapping[str, str]:
    return {
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(server.port),
        "MINISTACK_HOST": HOST,
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "STATE_DIR": str(server.folder / "state"),
        "S3_DATA_DIR": str(server.folder / "s3"),
    }


def _ready(server: Server) -> bool:
    return answers(server, "/_ministack/health", {}, b"")
