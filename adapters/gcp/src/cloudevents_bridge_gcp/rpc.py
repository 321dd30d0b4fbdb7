"""Requests to Pub/Sub: the channels, the methods, and errors that say what was asked of what.

A method is called once: gRPC's and the SDK's own retries are off, the portable layer retries. Two channels, because one
carries a hundred requests at a time: pulls that wait shall not keep an ack from going out.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple, cast
from urllib.parse import quote

from cloudevents_bridge.errors import ClosedError
from cloudevents_bridge_gcp import pb
from cloudevents_bridge_gcp.options import Options

SCOPES = ("https://www.googleapis.com/auth/pubsub",)
AGENT = "cloudevents-bridge-gcp/0.1"
_SETTINGS = {
    "grpc.max_receive_message_length": -1,  # gRPC's own limit is 4 MiB, and a message may have 10 MB
    "grpc.max_send_message_length": -1,
    "grpc.max_metadata_size": 4 << 20,  # failed acks of exactly-once subscriptions are named in metadata
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 5_000,
    "grpc.enable_retries": 0,
    "grpc.use_local_subchannel_pool": 1,  # each channel its own connection
    "grpc.primary_user_agent": AGENT,
}


class Method(NamedTuple):
    """One method of the service.

    Attributes:
        resource: where the request names what it is about.
        permission: what the identity in use must be allowed to do with it.
    """

    path: str
    response: Any
    resource: str
    permission: str


def _method(service: str, name: str, response: Any, resource: str, permission: str) -> Method:
    return Method(f"/google.pubsub.v1.{service}/{name}", response, resource, f"pubsub.{permission}")


PUBLISH = _method("Publisher", "Publish", pb.PublishResponse, "topic", "topics.publish")
PULL = _method("Subscriber", "Pull", pb.PullResponse, "subscription", "subscriptions.consume")
ACK = _method("Subscriber", "Acknowledge", pb.Empty, "subscription", "subscriptions.consume")
MODACK = _method("Subscriber", "ModifyAckDeadline", pb.Empty, "subscription", "subscriptions.consume")
CREATE_TOPIC = _method("Publisher", "CreateTopic", pb.Topic, "name", "topics.create")
GET_TOPIC = _method("Publisher", "GetTopic", pb.Topic, "topic", "topics.get")
UPDATE_TOPIC = _method("Publisher", "UpdateTopic", pb.Topic, "topic.name", "topics.update")
DELETE_TOPIC = _method("Publisher", "DeleteTopic", pb.Empty, "topic", "topics.delete")
LIST_SUBSCRIPTIONS = _method(
    "Publisher", "ListTopicSubscriptions", pb.ListTopicSubscriptionsResponse, "topic", "topics.get"
)
CREATE_SUBSCRIPTION = _method("Subscriber", "CreateSubscription", pb.Subscription, "name", "subscriptions.create")
GET_SUBSCRIPTION = _method("Subscriber", "GetSubscription", pb.Subscription, "subscription", "subscriptions.get")
UPDATE_SUBSCRIPTION = _method(
    "Subscriber", "UpdateSubscription", pb.Subscription, "subscription.name", "subscriptions.update"
)
DELETE_SUBSCRIPTION = _method("Subscriber", "DeleteSubscription", pb.Empty, "subscription", "subscriptions.delete")


class Rpc:
    """The requests of one connection. Thread-safe; nothing is connected before the first request."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._channels: dict[str, Any] = {}
        self._callables: dict[tuple[str, str], Any] = {}
        self._closed = False

    def call(self, method: Method, request: Any, *, timeout: float) -> Any:
        """Make a request and wait for the answer, at most `timeout` seconds.

        Raises:
            GoogleAPICallError: what the service answered.
        """
        callable_ = self._callable("calls", method)
        try:
            return callable_(request, timeout=timeout, metadata=_metadata(method, request))
        except pb.grpc.RpcError as error:
            raise explain(method, request, error) from error
        except ValueError as error:
            raise self._ended(error) from error

    def start(self, method: Method, request: Any, *, timeout: float) -> Any:
        """Begin a request that may wait for long; gives gRPC's future."""
        callable_ = self._callable("pulls", method)
        try:
            return callable_.future(request, timeout=timeout, metadata=_metadata(method, request))
        except ValueError as error:
            raise self._ended(error) from error

    def channel(self, name: str = "calls") -> Any:
        """GRPC's channel for requests that end soon ("calls"), or for those that wait ("pulls")."""
        with self._lock:
            if self._closed:
                raise ClosedError(f"{self._options.url} was closed: connect again")
            channel = self._channels.get(name)
            if channel is None:
                channel = self._channels[name] = _open(self._options)
            return channel

    def close(self) -> None:
        with self._lock:
            channels, self._channels, self._closed = list(self._channels.values()), {}, True
            self._callables = {}
        for channel in channels:
            channel.close()

    def _callable(self, channel: str, method: Method) -> Any:
        known = self._callables.get((channel, method.path))
        if known is None:
            known = self.channel(channel).unary_unary(
                method.path, request_serializer=_serialize, response_deserializer=method.response.FromString
            )
            self._callables[channel, method.path] = known
        return known

    def _ended(self, error: ValueError) -> Exception:
        """With a ValueError gRPC says that the channel was closed meanwhile."""
        return ClosedError(f"{self._options.url} was closed: connect again") if self._closed else error


def explain(method: Method, request: Any, error: Any) -> Exception:
    """The SDK's own error for one of gRPC, with a text that names the resource and the right that is missing."""
    native: Any = pb.from_grpc_error(error)
    resource, said = attrgetter(method.resource)(request), native.message
    code = getattr(native.grpc_status_code, "name", "")
    if code == "PERMISSION_DENIED":
        text = f"the permission {method.permission} on {resource} is missing: {said}"
    elif code == "NOT_FOUND":
        text = f"{resource} does not exist, or its project: {said}"
    else:
        text = f"{resource}: {said or 'no reason was given'}"
    native.message, native.args = text, (text,)
    return cast("Exception", native)


def _open(options: Options) -> Any:
    settings = list(_SETTINGS.items())
    if options.plaintext:
        return pb.grpc.insecure_channel(options.target, options=settings)
    from google.api_core import grpc_helpers

    credentials = options.credentials
    if credentials is None:
        import google.auth

        credentials, _ = google.auth.default(scopes=SCOPES)
    return grpc_helpers.create_channel(options.target, credentials=credentials, scopes=SCOPES, options=settings)


def _serialize(request: Any) -> bytes:
    data: bytes = request.SerializeToString()
    return data


def _metadata(method: Method, request: Any) -> tuple[tuple[str, str], ...]:
    return _routing(method.resource, attrgetter(method.resource)(request))


@lru_cache(maxsize=1024)
def _routing(field: str, resource: str) -> tuple[tuple[str, str], ...]:
    """By this the service finds the region of a request without reading it."""
    return (("x-goog-request-params", f"{field}={quote(resource, safe='')}"),)
