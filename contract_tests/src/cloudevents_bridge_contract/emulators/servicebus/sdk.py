"""Lets Azure's own administration clients, which always speak https, speak to the emulator.

`ServiceBusAdministrationClient.from_connection_string(running.connection, transport=Plain(running.administration))`.
"""

from __future__ import annotations

import urllib.parse
from typing import Any

from azure.core.pipeline.transport import AioHttpTransport, RequestsTransport


class Plain(RequestsTransport):  # type: ignore[misc]
    """Sends every request to `base` instead."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self._base = base

    def send(self, request: Any, **kwargs: Any) -> Any:
        request.url = _moved(request.url, self._base)
        return super().send(request, **kwargs)


class PlainAio(AioHttpTransport):  # type: ignore[misc]
    """The same for asyncio; made where a loop runs."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self._base = base

    async def send(self, request: Any, **config: Any) -> Any:
        request.url = _moved(request.url, self._base)
        return await super().send(request, **config)


def _moved(url: str, base: str) -> str:
    split = urllib.parse.urlsplit(url)
    return f"{base}{split.path}?{split.query}"
