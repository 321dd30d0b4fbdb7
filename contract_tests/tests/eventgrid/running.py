"""The SDK's clients on an emulator of Event Grid, for the tests of this directory."""

from __future__ import annotations

from typing import Any

from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.eventgrid import EventGridConsumerClient, EventGridPublisherClient

from cloudevents_bridge_contract.emulators.eventgrid.launcher import KEY, Running

CREDENTIAL = AzureKeyCredential(KEY)
QUICK = {"timeScale": 0.01, "deadLetterContainer": "dead"}
"""A subscription with a place for dead letters, whose release delay of 10 seconds is a tenth of one."""


class Token:
    """A credential as azure-identity has them."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        return AccessToken(self._token, 2_000_000_000)


def publisher(running: Running, topic: str, credential: Any = CREDENTIAL) -> EventGridPublisherClient:
    return EventGridPublisherClient(running.url, credential, namespace_topic=topic, retry_total=0)


def consumer(running: Running, topic: str, subscription: str, credential: Any = CREDENTIAL) -> Any:
    """Untyped: the SDK gives events with more than it declares."""
    return EventGridConsumerClient(
        running.url, credential, namespace_topic=topic, subscription=subscription, retry_total=0
    )


def custom(running: Running, topic: str, credential: Any = CREDENTIAL) -> EventGridPublisherClient:
    return EventGridPublisherClient(running.custom_url(topic), credential)
