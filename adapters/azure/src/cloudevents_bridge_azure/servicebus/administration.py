"""Azure's administration client: the only way to entities themselves. Made on first use; it does not retry."""

from __future__ import annotations

import threading
import urllib.parse
from collections.abc import Callable
from typing import Any

from cloudevents_bridge_azure.servicebus.options import Options
from cloudevents_bridge_azure.servicebus.sdk import Client

RULE = "$Default"
"""The one rule of a subscription, which the service makes with it."""


class Administration:
    """Topics, subscriptions and rules, as the SDK describes them. Thread-safe.

    Attributes:
        calls: requests made so far.
    """

    def __init__(self, options: Options, client: Client) -> None:
        self._options, self._client = options, client
        self._lock = threading.Lock()
        self._native: Any = None
        self.calls = 0

    @property
    def native(self) -> Any:
        """The `ServiceBusAdministrationClient`."""
        with self._lock:
            if self._native is None:
                self._native = self._make()
            return self._native

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        return getattr(self.native, method)(*arguments, **options)

    def find(self, method: str, *arguments: Any) -> Any:
        """The same; None: it does not exist."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return self.call(method, *arguments)
        except ResourceNotFoundError:
            return None

    def create(self, method: str, *arguments: Any, **options: Any) -> bool:
        """Whether it was made now. False: it was there already."""
        from azure.core.exceptions import ResourceExistsError

        try:
            self.call(method, *arguments, **options)
        except ResourceExistsError:
            return False
        return True

    def close(self) -> None:
        with self._lock:
            native, self._native = self._native, None
        if native is not None:
            native.close()

    def _make(self) -> Any:
        from azure.servicebus.management import ServiceBusAdministrationClient

        options: dict[str, Any] = {"retry_total": 0}
        if self._options.administration is not None:
            options["transport"] = _plain(self._options.administration)
        if (key := self._options.key) is None:
            return ServiceBusAdministrationClient(self._options.address, self._client.credential, **options)
        access = f"SharedAccessKeyName={key.name};SharedAccessKey={key.secret}"
        return ServiceBusAdministrationClient.from_connection_string(
            f"Endpoint=sb://{self._options.address};{access}", **options
        )


def _plain(base: str) -> Any:
    """A transport to an emulator: the SDK itself always speaks https to the namespace."""
    from azure.core.pipeline.transport import RequestsTransport

    transport = RequestsTransport()
    send: Callable[..., Any] = transport.send

    def send_there(request: Any, **options: Any) -> Any:
        split = urllib.parse.urlsplit(request.url)
        request.url = f"{base}{split.path}?{split.query}"
        return send(request, **options)

    transport.send = send_there
    return transport
