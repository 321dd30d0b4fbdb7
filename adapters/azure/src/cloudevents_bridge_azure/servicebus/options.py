"""The URL, the options and the environment, checked."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from cloudevents_bridge.driver import Url
from cloudevents_bridge.errors import ConfigurationError

QUERY = frozenset({"endpoint", "administration", "mode", "message_bytes"})
OPTIONS = QUERY | {"credential"}
CONNECTION_VARIABLE = "AZURE_SERVICEBUS_CONNECTION_STRING"
STANDARD_BYTES = 256 * 1024
"""Bytes of one message in the tiers Basic and Standard, and of a batch in every tier that says nothing else."""
PREMIUM_BYTES = 100 * 1024 * 1024
EMULATOR_KEY = ("RootManageSharedAccessKey", "SAS_KEY_VALUE")
"""The key that Microsoft's emulator documents, and ours has too."""
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?")
_ADDRESS = re.compile(r"(amqp|http)://([A-Za-z0-9.-]+:\d{1,5})/?")


class Key(NamedTuple):
    """A shared access key. Its secret is in no repr."""

    name: str
    secret: str

    def __repr__(self) -> str:
        return f"Key(name={self.name!r})"


class Options(NamedTuple):
    """What a connection goes by.

    Attributes:
        host: of the namespace.
        address: where its AMQP is served: the host, or HOST:PORT of an emulator.
        plaintext: without TLS, as emulators want it.
        administration: base URL of an emulator's administration API; None: the namespace's own.
        key: from the environment; None: `credential` counts.
        credential: of azure.identity; None: the default credential.
        message_bytes: of one message, at most.
    """

    url: str
    host: str
    address: str
    plaintext: bool
    administration: str | None
    mode: Literal["binary", "structured"]
    key: Key | None
    credential: Any
    message_bytes: int

    def __repr__(self) -> str:
        return f"Options({self.url})"


def read(url: Url, options: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Options:
    """Raises:
    ConfigurationError: if the URL or an option is wrong.
    """

    def given(name: str, default: Any = None) -> Any:
        return options.get(name, url.query.get(name, default))

    host = url.authority
    if not _HOST.fullmatch(host) or url.path not in ("", "/"):
        raise ConfigurationError(
            f"{url.text} names no namespace: write azure-servicebus://NAMESPACE.servicebus.windows.net"
        )
    endpoint = _address("endpoint", given("endpoint"), url, "amqp")
    connection = _connection_string(environ)
    named = connection is not None and (endpoint is not None or connection["Endpoint"] == host)
    emulated = named and connection is not None and connection.get("UseDevelopmentEmulator") == "true"
    plaintext = endpoint is not None or emulated
    key = _key(connection) if named and connection is not None else None
    if key is None and plaintext and options.get("credential") is None:
        key = Key(*EMULATOR_KEY)
    administration = _address("administration", given("administration"), url, "http")
    return Options(
        url=url.text,
        host=host,
        address=endpoint or host,
        plaintext=plaintext,
        administration=None if administration is None else f"http://{administration}",
        mode=_mode(given("mode", "binary")),
        key=None if options.get("credential") is not None else key,
        credential=options.get("credential"),
        message_bytes=_bytes(given("message_bytes", STANDARD_BYTES)),
    )


def _address(name: str, value: object, url: Url, scheme: str) -> str | None:
    if value is None:
        return None
    found = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if found is None or found[1] != scheme:
        raise ConfigurationError(
            f"{name} of {url.text} is {value!r}: it is for emulators; write {scheme}://127.0.0.1:PORT, or leave it out"
        )
    return found[2]


def _connection_string(environ: Mapping[str, str]) -> dict[str, str] | None:
    """The parts of the connection string; it is never shown."""
    text = environ.get(CONNECTION_VARIABLE)
    if not text:
        return None
    parts = {name.strip(): value for name, _, value in (each.partition("=") for each in text.split(";")) if name}
    if "Endpoint" not in parts:
        raise ConfigurationError(
            f"{CONNECTION_VARIABLE} has no Endpoint=: copy it from the namespace's shared access policies"
        )
    parts["Endpoint"] = parts["Endpoint"].rpartition("://")[2].strip("/")
    return parts


def _key(parts: Mapping[str, str]) -> Key:
    try:
        return Key(parts["SharedAccessKeyName"], parts["SharedAccessKey"])
    except KeyError as missing:
        raise ConfigurationError(
            f"{CONNECTION_VARIABLE} has no {missing.args[0]}=: copy it from the namespace's shared access policies, or "
            "unset it to use the default credential"
        ) from None


def _mode(value: object) -> Literal["binary", "structured"]:
    if value not in ("binary", "structured"):
        raise ConfigurationError(f"mode is {value!r}: it must be binary (the default) or structured")
    return value


def _bytes(value: object) -> int:
    number = int(value) if isinstance(value, str) and value.isdigit() else value
    if type(number) is not int or not 1024 <= number <= PREMIUM_BYTES:
        raise ConfigurationError(
            f"message_bytes is {value!r}: it must be a number of bytes from 1024 to {PREMIUM_BYTES}"
        )
    return number
