"""The rig of Google Cloud Pub/Sub.

It uses, in this order: the real project that CEB_CONTRACT_GCP_PROJECT names; the emulator that PUBSUB_EMULATOR_HOST
names; the emulator on this machine. Where there is none of them its cases are not run.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from cloudevents_bridge import CloudEvent, Topic
from cloudevents_bridge_contract.emulators import pubsub
from cloudevents_bridge_contract.emulators.proxy import Proxy
from cloudevents_bridge_contract.rig import NativeMessage, NotRun, Rig

PROJECT_VARIABLE = "CEB_CONTRACT_GCP_PROJECT"
EMULATOR_VARIABLE = "PUBSUB_EMULATOR_HOST"
STEADY = ("Publish", "Pull", "Acknowledge", "ModifyAckDeadline")
"""What publishing and consuming need. Every other method is of the control plane."""
QUIRKS = {
    "consume.filter": "emulator: filters are stored and not enforced",
}
"""Cases that prove nothing on Google's emulator 0.8.20."""


class GcpRig(Rig):
    """Pub/Sub: a real project, or Google's emulator behind a proxy that can cut and hold."""

    name = "gcp"
    delay_step = 1.0
    threads_to_receive = 1  # gRPC's own, for pulls that wait

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._emulator: pubsub.Emulator | None = None
        self._missing = ""
        self._proxy: Proxy | None = None
        if environ.get(PROJECT_VARIABLE):
            self.kind, self.lease, self.patience, self.wakeup = "live", 10.0, 60.0, 3.0
            self.duplicates = "count"
            return
        self.lease = 1.0
        if environ.get(EMULATOR_VARIABLE):
            self.kind = f"emulator at {environ[EMULATOR_VARIABLE]}"
            return
        try:
            self._emulator = pubsub.find(environ)
        except pubsub.Missing as missing:
            self.kind, self._missing = "emulator", str(missing)
            return
        self.kind = f"emulator Google {self._emulator.version}"
        if self._emulator.version == pubsub.MENDED:
            self.quirks = QUIRKS

    @contextmanager
    def start(self) -> Iterator[str]:
        if self._missing:
            raise NotRun(self._missing)
        with ExitStack() as stack:
            if project := self._environ.get(PROJECT_VARIABLE):
                yield f"gcp://{project}"
                return
            if self._emulator is not None:
                port = stack.enter_context(self._emulator.started()).port
            else:
                port = int(self._environ[EMULATOR_VARIABLE].rpartition(":")[2])
            self._proxy = stack.enter_context(Proxy(port))
            stack.callback(setattr, self, "_proxy", None)
            yield f"gcp://ceb-contract?endpoint=http://127.0.0.1:{self._proxy.port}"

    def break_connections(self) -> None:
        self._behind("connections that can be cut").cut()

    @contextmanager
    def stuck(self) -> Iterator[None]:
        with self._behind("a broker that can be held").hold():
            yield

    def control_plane_calls(self, url: str) -> int:
        proxy = self._behind("requests that can be counted")
        if not proxy.counts:
            raise NotRun("requests are counted with hpack, which is not installed: pip install hpack")
        calls = Counter({path.rpartition("/")[2]: count for path, count in proxy.paths.items()})
        assert calls["Publish"], "the proxy has not seen the requests"
        return sum(count for method, count in calls.items() if method not in STEADY)

    def native_send(self, url: str, topic: Topic, message: NativeMessage) -> None:
        with _clients(url) as (publisher, _):
            made = {"data": message.body, "attributes": dict(message.attributes)}
            publisher.publish(topic=f"projects/{_project(url)}/topics/{topic.name}", messages=[made])

    def native_receive(self, url: str, topic: Topic) -> NativeMessage:
        subscription = f"projects/{_project(url)}/subscriptions/{topic.name}--{topic.subscriptions[0].name}"
        deadline = time.monotonic() + self.patience
        with _clients(url) as (_, subscriber):
            while time.monotonic() < deadline:
                pulled = subscriber.pull(subscription=subscription, max_messages=1, timeout=5, retry=None)
                for received in pulled.received_messages:
                    subscriber.acknowledge(subscription=subscription, ack_ids=[received.ack_id])
                    return NativeMessage(received.message.data, dict(received.message.attributes))
        raise AssertionError(f"no message came from {subscription}")

    def native_form(self, event: CloudEvent) -> NativeMessage:
        form = self.binary_form(event)
        if not isinstance(event.data, bytes):
            return form
        content = event.datacontenttype or "application/octet-stream"
        return NativeMessage(event.data, {**form.attributes, "content-type": content})

    def binary_form(self, event: CloudEvent) -> NativeMessage:
        attributes = {"ce-specversion": "1.0", "ce-id": event.id, "ce-source": event.source, "ce-type": event.type}
        named = (("subject", event.subject), *event.extensions.items())
        attributes |= {f"ce-{name}": str(value) for name, value in named if value}
        body = b"" if isinstance(event.data, bytes) else _compact(event.data)
        return NativeMessage(body, {**attributes, "content-type": "application/json"})

    def _behind(self, what: str) -> Proxy:
        if self._proxy is None:
            raise NotRun(f"a real project has no {what}")
        return self._proxy


@contextmanager
def _clients(url: str) -> Iterator[tuple[Any, Any]]:
    """Google's own clients, on a connection of their own."""
    from google.pubsub_v1 import PublisherClient, SubscriberClient
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

    endpoint = url.partition("?endpoint=http://")[2]
    if not endpoint:
        with PublisherClient() as publisher, SubscriberClient() as subscriber:
            yield publisher, subscriber
        return
    import grpc

    with grpc.insecure_channel(endpoint, options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield (
            PublisherClient(transport=PublisherGrpcTransport(channel=channel)),
            SubscriberClient(transport=SubscriberGrpcTransport(channel=channel)),
        )


def _project(url: str) -> str:
    return url.removeprefix("gcp://").partition("?")[0]


def _compact(form: object) -> bytes:
    return json.dumps(form, ensure_ascii=False, separators=(",", ":")).encode()
