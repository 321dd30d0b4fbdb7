"""Where custom topics push to: webhooks, and queues of Service Bus."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

PATIENCE = 30.0
"""Seconds that an endpoint has to answer."""


class Outgoing(NamedTuple):
    """One event on its way.

    Attributes:
        body: what is sent, in the schema of the subscription.
        media: the content type of the body.
        headers: the `aeg-` headers and what the subscription adds.
        message_id: the same for every attempt.
    """

    body: bytes
    media: str
    headers: Mapping[str, str]
    message_id: str


class Undelivered(Exception):  # noqa: N818 - an outcome, and no error of the emulator's
    """The target did not take it.

    Attributes:
        outcome: the service's word for it.
        final: whether another attempt is of no use.
    """

    def __init__(self, outcome: str, *, final: bool = False) -> None:
        super().__init__(outcome)
        self.outcome, self.final = outcome, final


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Queues(Protocol):
    """What delivers to queues of Service Bus."""

    def deliver(self, queue: str, event: Outgoing) -> None:
        """Send one event to the queue, and return when it is there.

        Raises:
            Undelivered: if it is not.
        """


class NoQueues:
    """Where no namespace of Service Bus is configured."""

    def deliver(self, queue: str, event: Outgoing) -> None:
        raise Undelivered("NotFound")


class ServiceBusQueues:
    """Queues of the namespace that a connection string names, reached by azure-servicebus.

    The body is the event. The `aeg-` headers are application properties; `SessionId` and `PartitionKey` among the
    subscription's delivery attributes are properties of the message. Its id is the same in every attempt.
    """

    def __init__(self, connection: str) -> None:
        from azure.servicebus import ServiceBusClient

        self._client = ServiceBusClient.from_connection_string(connection, retry_total=0)
        self._senders: dict[str, Any] = {}
        self._lock = threading.Lock()

    def open(self, queue: str) -> None:
        """Open the way to a queue, so that the first event is as quick as the others. No matter if it is not there."""
        from azure.servicebus.exceptions import ServiceBusError

        with self._lock, suppress(ServiceBusError, OSError):
            if queue not in self._senders:
                self._senders[queue] = self._client.get_queue_sender(queue).__enter__()

    def deliver(self, queue: str, event: Outgoing) -> None:
        from azure.servicebus.exceptions import MessageSizeExceededError, MessagingEntityNotFoundError, ServiceBusError

        with self._lock:  # what the SDK opens is not safe to share
            try:
                sender = self._senders.get(queue)
                if sender is None:
                    sender = self._senders[queue] = self._client.get_queue_sender(queue)
                sender.send_messages(message(event))
            except MessageSizeExceededError as error:
                raise Undelivered("PayloadTooLarge", final=True) from error
            except MessagingEntityNotFoundError as error:
                self._forget(queue)
                raise Undelivered("NotFound") from error
            except (ServiceBusError, OSError) as error:
                self._forget(queue)
                raise Undelivered("ServiceUnavailable") from error

    def _forget(self, queue: str) -> None:
        from azure.servicebus.exceptions import ServiceBusError

        with suppress(ServiceBusError, OSError):
            self._senders.pop(queue).close()


def message(event: Outgoing) -> Any:
    """The `ServiceBusMessage` of an event."""
    from azure.servicebus import ServiceBusMessage

    own = {"sessionid": "session_id", "partitionkey": "partition_key"}
    properties: dict[str | bytes, Any] = {
        name: value for name, value in event.headers.items() if name.lower() not in own
    }
    chosen = {own[name.lower()]: value for name, value in event.headers.items() if name.lower() in own}
    if "session_id" in chosen:
        chosen.pop("partition_key", None)  # the service takes both only where they are equal
    return ServiceBusMessage(
        event.body,
        application_properties=properties,
        content_type=event.media,
        message_id=event.message_id,
        session_id=chosen.get("session_id"),
        partition_key=chosen.get("partition_key"),
    )


def post(url: str, event: Outgoing) -> Answer:
    """Send an event to a webhook.

    Raises:
        Undelivered: if the answer is none of 200 to 204, or there is none.
    """
    try:
        answer = request("POST", url, {**event.headers, "Content-Type": event.media}, event.body)
    except TimeoutError as error:
        raise Undelivered("TimedOut") from error
    except (OSError, http.client.HTTPException) as error:
        refused = isinstance(error, ConnectionRefusedError | socket.gaierror)
        raise Undelivered("GenericError" if refused else "Aborted") from error
    if not 200 <= answer.status <= 204:
        word = http.client.responses.get(answer.status, str(answer.status))
        raise Undelivered(word.title().replace(" ", ""), final=answer.status in (400, 401, 403, 413))
    return answer


def request(method: str, url: str, headers: Mapping[str, str], body: bytes = b"") -> Answer:
    """One request, on a connection of its own.

    Raises:
        OSError: if there is no answer.
        HTTPException: if it is none of HTTP.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=PATIENCE)
    try:
        connection.request(
            method, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), body, dict(headers)
        )
        response = connection.getresponse()
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()
