"""Requests to a namespace: bytes in, bytes out, through the SDK's pipeline and without its retries.

The SDK's own methods parse an event and write it anew, which changes large numbers, times and doubled names.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cloudevents_bridge.errors import ClosedError, ErrorCode, make_error
from cloudevents_bridge_azure.eventgrid import errors
from cloudevents_bridge_azure.eventgrid.errors import RequestError
from cloudevents_bridge_azure.eventgrid.options import KEY_VARIABLE, Options

VERSION = "2024-06-01"
TOPIC_VERSION = "2018-01-01"
"""Of custom topics."""
JSON = "application/json; charset=utf-8"
_CONNECT = 10.0
"""Seconds to connect, at most."""
_LOOK = 10.0
"""Seconds to see whether something is there."""
_POOL = 64
"""Connections that are kept, at most."""


LOGIN = (
    f"set {KEY_VARIABLE} to an access key of the namespace, or sign in (`az login`, a managed identity, or the "
    "variables of azure.identity)"
)


class Act(NamedTuple):
    """What is asked for.

    Attributes:
        path: or a whole URL.
        role: what the identity in use must have.
        topic: portable name of the topic, where each has a key of its own.
    """

    path: str
    media: str
    role: str
    topic: str = ""


class Client:
    """The requests of one connection. Thread-safe; nothing is connected, and no credential asked, before the first."""

    version = VERSION

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._client: Any = None
        self._own_credential: Any = None
        self._request: Any = None
        self._given: dict[str, Any] = {}
        self._closed = False

    def post(self, act: Act, body: bytes, query: Mapping[str, str], *, timeout: float) -> bytes:
        """Make one request and wait for the answer, at most `timeout` seconds.

        Raises:
            RequestError: if the service did not do it.
        """
        client = self._client or self._open()
        request = self._request(
            "POST",
            act.path,
            params={"api-version": self.version, **query},
            headers={"Content-Type": act.media, "Accept": "application/json", **self._headers(act)},
            content=body,
        )
        try:
            answer = client.send_request(
                request, connection_timeout=min(timeout, _CONNECT), read_timeout=timeout, **self._given
            )
        except Exception as error:
            raise RequestError(str(error)) from error
        if answer.status_code != 200:
            self._refuse(act, answer)
        content: bytes = answer.content
        return content

    def finds(self, act: Act, body: bytes) -> bool:
        """Whether there is what a request is about, be its body accepted or refused.

        Raises:
            RequestError: if the answer does not say.
        """
        try:
            self.post(act, body, {}, timeout=_LOOK)
        except RequestError as error:
            code = errors.classify(error).code
            if code is not ErrorCode.INVALID_ARGUMENT and code is not ErrorCode.NOT_FOUND:
                raise
            return code is ErrorCode.INVALID_ARGUMENT
        return True

    def credential(self) -> Any:
        """What the program gave, else the key of the environment, else what Azure's own chain finds."""
        if self._options.credential is not None:
            return self._options.credential
        if self._options.key is not None:
            from azure.core.credentials import AzureKeyCredential

            return AzureKeyCredential(self._options.key)
        if self._own_credential is None:
            from azure.identity import DefaultAzureCredential  # half a second

            self._own_credential = DefaultAzureCredential()
        return self._own_credential

    def close(self) -> None:
        with self._lock:
            client, self._client, self._closed = self._client, None, True
            credential, self._own_credential = self._own_credential, None
        for each in (client, credential):
            if each is not None:
                each.close()

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
        self._request = HttpRequest
        # Of any topic: the path of each request says which one it is about.
        return EventGridConsumerClient(
            self._options.endpoint or f"https://{self._options.host}",
            namespace_topic="any",
            subscription="any",
            retry_total=0,
            permit_redirects=False,
            transport=RequestsTransport(session=session),
            **self._access(),
        )

    def _access(self) -> dict[str, Any]:
        """What the SDK's client is told of who we are."""
        credential = self.credential()
        if self._options.local and hasattr(credential, "get_token"):
            self._given = {"enforce_https": False}
        return {"credential": credential}

    def _headers(self, act: Act) -> Mapping[str, str]:
        """What a request says of who we are, beside that."""
        del act
        return {}

    def _refuse(self, act: Act, answer: Any) -> None:
        from azure.core.exceptions import HttpResponseError

        needed = {401: LOGIN, 403: f"the role {act.role!r} on {self._options.host} is missing"}
        try:
            answer.raise_for_status()
            raise HttpResponseError(f"unexpected answer of {act.path}", response=answer)
        except HttpResponseError as error:
            raise RequestError(str(error), needed.get(answer.status_code, "")) from error


class TopicClient(Client):
    """The requests to custom topics, each of which has an access key of its own.

    Args:
        keys: by the portable name of the topic; "": of all others. Empty: the credential counts.
    """

    version = TOPIC_VERSION

    def __init__(self, options: Options, keys: Mapping[str, str]) -> None:
        super().__init__(options)
        self._keys = keys
        if hasattr(options.credential, "key"):
            self._keys = {"": options.credential.key}

    def finds(self, act: Act, body: bytes) -> bool:
        """Each topic has a host of its own: without the topic its name is unknown."""
        try:
            return super().finds(act, body)
        except RequestError:
            if _is_unknown(act.path):
                return False
            raise

    def _access(self) -> dict[str, Any]:
        if not self._keys:
            return super()._access()
        from azure.core.credentials import AzureKeyCredential
        from azure.core.pipeline.policies import SansIOHTTPPolicy

        # The SDK's own policy knows one key, and the header of namespaces.
        return {"credential": AzureKeyCredential("none"), "authentication_policy": SansIOHTTPPolicy()}

    def _headers(self, act: Act) -> Mapping[str, str]:
        if not self._keys:
            return {}
        key = self._keys.get(act.topic, self._keys.get(""))
        if key is None:
            variable = f"{KEY_VARIABLE}_{act.topic.upper().replace('-', '_')}"
            raise make_error(
                ErrorCode.UNAUTHENTICATED,
                f"there are access keys of other topics, and none of {act.topic}: set {variable} to its key, or "
                f"{KEY_VARIABLE} to one for all topics without their own",
            )
        return {"aeg-sas-key": key}


def _is_unknown(url: str) -> bool:
    """Whether no address belongs to the host of a URL."""
    try:
        socket.getaddrinfo(urlsplit(url).hostname, None)
    except socket.gaierror as error:
        return error.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
    return False
