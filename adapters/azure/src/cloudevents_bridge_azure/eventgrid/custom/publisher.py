"""Sending to a custom topic: one request for each batch, accepted or refused as one."""

from __future__ import annotations

from cloudevents_bridge.driver import SendTraits
from cloudevents_bridge_azure.eventgrid.client import Act, Client
from cloudevents_bridge_azure.eventgrid.publisher import MAX_REQUEST, MEDIA, ROLE, SENDS, Publisher

BATCH_COUNT = 5000
PROPERTIES = 1024
"""Bytes of a message of Service Bus that are kept free for what Event Grid writes beside the event."""


class TopicPublisher(Publisher):
    """Sends to one custom topic.

    Args:
        endpoint: of the topic.
        queued: bytes that a message of its queues may have. Event Grid takes larger events, and then cannot deliver.
    """

    def __init__(self, client: Client, topic: str, endpoint: str, *, queued: int) -> None:
        super().__init__(client, topic)
        self._act = Act(endpoint, MEDIA, ROLE, topic)
        self.traits = SendTraits(
            batch_count=BATCH_COUNT,
            batch_bytes=MAX_REQUEST - 1,
            message_bytes=min(MAX_REQUEST - 1, queued - PROPERTIES),
            keys="mixed",
            sends=SENDS,
        )
