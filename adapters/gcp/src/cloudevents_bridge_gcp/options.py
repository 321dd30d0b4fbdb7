"""The URL, the options and the environment, checked."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from cloudevents_bridge.driver import Url
from cloudevents_bridge.errors import ConfigurationError

QUERY = frozenset({"endpoint", "mode"})
OPTIONS = frozenset({"endpoint", "mode", "credentials", "batch_bytes"})
EMULATOR_VARIABLE = "PUBSUB_EMULATOR_HOST"
MAX_REQUEST = 10_000_000
"""Bytes of one publish request, at most."""
DEFAULT_BATCH = 1_000_000
"""Bytes of one batch, Google's own default. Beside the emulator ten times as many go no faster, and a tenth slower; and
more is sent again when an answer is lost.
"""
_SERVICE = "pubsub.googleapis.com:443"
_PROJECT = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]|[a-z][a-z0-9.-]*:[a-z][a-z0-9-]+|\d{6,20}")
_LOCAL_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


class Manners(NamedTuple):
    """Where the service and its emulator differ.

    Attributes:
        lease: the shortest, seconds.
        retention: the longest, seconds.
        keyed_nack: the shortest delay, seconds, of a message with an ordering key that is given back. The emulator
            delivers one that is given back at once behind those after it.
    """

    lease: int
    retention: int
    keyed_nack: int


SERVICE = Manners(lease=10, retention=31 * 86_400, keyed_nack=0)
EMULATOR = Manners(lease=1, retention=7 * 86_400, keyed_nack=1)


class Options(NamedTuple):
    """What a connection goes by.

    Attributes:
        target: host and port.
        plaintext: without TLS and credentials, as the emulator wants it.
        credentials: of google.auth; None: the application default credentials.
        batch_bytes: of one publish request with several messages, at most.
    """

    url: str
    project: str
    target: str
    plaintext: bool
    mode: Literal["binary", "structured"]
    credentials: Any
    batch_bytes: int

    @property
    def manners(self) -> Manners:
        return EMULATOR if self.plaintext else SERVICE


def read(url: Url, options: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Options:
    """Raises:
    ConfigurationError: if the URL or an option is wrong.
    """
    target, plaintext = _target(url, options, environ)
    return Options(
        url=url.text,
        project=_project(url, plaintext=plaintext),
        target=target,
        plaintext=plaintext,
        mode=_mode(options.get("mode", url.query.get("mode", "binary"))),
        credentials=options.get("credentials"),
        batch_bytes=_batch_bytes(options.get("batch_bytes", DEFAULT_BATCH)),
    )


def _project(url: Url, *, plaintext: bool) -> str:
    if not url.authority or url.path not in ("", "/"):
        raise ConfigurationError(
            f"{url.text} names no project: write gcp://PROJECT, with the id that `gcloud config get project` shows"
        )
    if not (_LOCAL_PROJECT if plaintext else _PROJECT).fullmatch(url.authority):
        raise ConfigurationError(
            f"{url.authority!r} in {url.text} is no project: write its id, 6 to 30 lower-case letters, digits and "
            "hyphens, as `gcloud projects list` shows it"
        )
    return url.authority


def _target(url: Url, options: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, bool]:
    given = options.get("endpoint", url.query.get("endpoint"))
    if given is None:
        emulator = environ.get(EMULATOR_VARIABLE)
        if not emulator:
            return _SERVICE, False
        given = emulator if "://" in emulator else f"http://{emulator}"
    if not isinstance(given, str):
        raise ConfigurationError(f"endpoint of {url.text} is {given!r}: give HOST, https://HOST or http://HOST:PORT")
    scheme, found, rest = given.rpartition("://")
    host, colon, port = rest.rstrip("/").partition(":") if not rest.startswith("[") else _ipv6(rest.rstrip("/"))
    if (found and scheme not in ("http", "https")) or not host or "/" in rest.rstrip("/"):
        raise ConfigurationError(
            f"endpoint {given!r} of {url.text} is no address: write https://REGION-pubsub.googleapis.com for a region, "
            "or http://127.0.0.1:8085 for the emulator"
        )
    plaintext = scheme == "http"
    if colon and not port.isdigit():
        raise ConfigurationError(f"endpoint {given!r} of {url.text} has the port {port!r}: write a number")
    return f"{host}:{port or (80 if plaintext else 443)}", plaintext


def _ipv6(rest: str) -> tuple[str, str, str]:
    host, _, after = rest.partition("]")
    return f"{host}]", after[:1], after[1:]


def _mode(value: object) -> Literal["binary", "structured"]:
    if value not in ("binary", "structured"):
        raise ConfigurationError(f"mode is {value!r}: it must be binary (the default) or structured")
    return value


def _batch_bytes(value: object) -> int:
    if type(value) is not int or not 1 <= value <= MAX_REQUEST:
        raise ConfigurationError(f"batch_bytes is {value!r}: it must be a number of bytes from 1 to {MAX_REQUEST}")
    return value
