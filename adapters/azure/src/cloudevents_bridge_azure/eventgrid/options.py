"""The URL, the options and the environment, checked."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cloudevents_bridge.driver import Url
from cloudevents_bridge.errors import ConfigurationError

QUERY = frozenset({"endpoint", "wait"})
OPTIONS = frozenset({"endpoint", "wait", "credential"})
KEY_VARIABLE = "AZURE_EVENTGRID_KEY"
WAIT = (10.0, 120.0)
"""Seconds that the service lets a receive wait, at least and at most."""
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")
_ENDPOINT = re.compile(r"https?://[^/?#@\s]+/?")


class Options(NamedTuple):
    """What a connection goes by. It is never shown: it has a secret.

    Attributes:
        host: of the namespace.
        endpoint: where requests go, without a slash at the end.
        key: an access key; None: there is none.
        credential: what the program gave instead; None: nothing.
        wait: seconds that a receive waits.
    """

    url: str
    host: str
    endpoint: str
    key: str | None
    credential: Any
    wait: float

    def __repr__(self) -> str:
        return f"<Options of {self.url}>"

    @property
    def local(self) -> bool:
        """Without TLS, as an emulator has it: there locks may be shorter than the service's."""
        return self.endpoint.startswith("http://")


def read(url: Url, options: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Options:
    """Raises:
    ConfigurationError: if the URL or an option is wrong.
    """
    given = {**url.query, **options}
    endpoint = check_endpoint(given.get("endpoint"))
    return Options(
        url=url.text,
        host=_host(url, local=endpoint is not None),
        endpoint=endpoint or f"https://{url.authority}",
        key=environ.get(KEY_VARIABLE) or None,
        credential=check_credential(options.get("credential")),
        wait=_wait(given.get("wait", WAIT[0])),
    )


def _host(url: Url, *, local: bool) -> str:
    host = url.authority
    if url.path not in ("", "/") or not HOST.fullmatch(host) or ("." not in host and not local):
        raise ConfigurationError(
            f"{url.text} names no namespace: write {url.scheme}://NAME.REGION-1.eventgrid.azure.net, the host name "
            "that `az eventgrid namespace show` gives as topicsConfiguration.hostname"
        )
    return host


def check_endpoint(value: object) -> str | None:
    """Raises:
    ConfigurationError: if it is no address.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not _ENDPOINT.fullmatch(value):
        raise ConfigurationError(f"endpoint is {value!r}: write http://HOST:PORT or https://HOST")
    return value.rstrip("/")


def check_credential(value: object) -> object:
    """Raises:
    ConfigurationError: if it is no credential.
    """
    if value is None or hasattr(value, "get_token") or hasattr(value, "key"):
        return value
    raise ConfigurationError(
        f"credential is a {type(value).__name__}: give a TokenCredential of azure.identity, or an AzureKeyCredential"
    )


def _wait(value: object) -> float:
    try:
        seconds = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else 0.0
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= WAIT[1]:
        raise ConfigurationError(
            f"wait is {value!r}: it must be seconds, {WAIT[0]:g} to {WAIT[1]:g}; less than {WAIT[0]:g} is for emulators"
        )
    return seconds
