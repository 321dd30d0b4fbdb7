"""Requests to a namespace: bytes in, bytes out, through the SDK's pipeline and without its retries.

The SDK's own methods parse an event and write it anew, which changes large numbers, times and doubled names.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from cloudevents_bridge.errors import ClosedError
from cloudevents_bridge_azure.eventgrid.options import KEY_VARIABLE, Options

VERSION = "2024-06-01"
JSON = "application/json; charset=utf-8"
_CONNECT = 10.0
"""Seconds to connect, at most."""
_POOL = 64
"""Connections that are kept, at most."""


class Act(NamedTuple):
    """What is asked for. `role`: what the identity in use must have on the topic."""

    path: str
    media: str
    role: str


class Client:
    """The requests of one connection. Thread-safe; nothing is connected, and no credential asked, before the first."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._client: Any = None
        self._request: Any = None
        self._given: dict[str, Any] = {}
        self._closed = False

    def post(self, act: Act, body: bytes, query: Mapping[str, str], *, timeout: float) -> bytes:
        """Make one request and wait for the answer, at most `timeout` seconds.

        Raises:
            AzureError: what became of it; `needed` says what an identity without rights lacks.
        """
        client = self._client or self._open()
        request = self._request(
            "POST",
            act.path,
            params={"api-version": VERSION, **query},
            headers={"Content-Type": act.media, "Accept": "application/json"},
            content=body,
        )
        answer = client.send_request(
            request, connection_timeout=min(timeout, _CONNECT), read_timeout=timeout, **self._given
        )
        if answer.status_code != 200:
            self._refuse(act, answer)
        content: bytes = answer.content
        return content

    def credential(self) -> Any:
        """What the program gave, else the key of the environment, else what Azure's own chain finds."""
        if self._options.credential is not None:
            return self._options.credential
        if self._options.key is not None:
            from azure.core.credentials import AzureKeyCredential

            return AzureKeyCredential(self._options.key)
        from azure.identity import DefaultAzureCredential  # half a second

        return DefaultAzureCredential()

    def close(self) -> None:
        with self._lock:
            client, self._client, self._closed = self._client, None, True
        if client is not None:
            client.close()

    def _open(self) -> Any:
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self._options.url} was closed: connect again")
            if self._client is None:
                self._client = self._make()
            return self._client

    def _make(self) -> Any:
        import requests
        from azure.core.pipeline.transport import RequestsTransport
        from azure.core.rest import HttpRequest
        from azure.eventgrid import EventGridConsumerClient
        from requests.adapters import HTTPAdapter

        session = requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(pool_maxsize=_POOL))
        credential = self.credential()
        if self._options.local and hasattr(credential, "get_token"):
            self._given = {"enforce_https": False}
        self._request = HttpRequest
        # Of any topic: the path of each request says which one it is about.
        return EventGridConsumerClient(
            self._options.endpoint,
            credential,
            namespace_topic="any",
            subscription="any",
            retry_total=0,
            transport=RequestsTransport(session=session),
        )

    def _refuse(self, act: Act, answer: Any) -> None:
        try:
            answer.raise_for_status()
        except Exception as error:
            if answer.status_code == 403:
                error.needed = f"the role {act.role!r} on {self._options.host} is missing"  # type: ignore[attr-defined]
            elif answer.status_code == 401:
                error.needed = LOGIN  # type: ignore[attr-defined]
            raise
        from azure.core.exceptions import HttpResponseError

        raise HttpResponseError(f"unexpected answer of {act.path}", response=answer)


LOGIN = (
    f"set {KEY_VARIABLE} to an access key of the namespace, or sign in (`az login`, a managed identity, or the "
    "variables of azure.identity)"
)
