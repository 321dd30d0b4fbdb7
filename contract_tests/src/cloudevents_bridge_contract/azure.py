"""The rig of Azure Service Bus.

It uses, in this order: the namespace whose host is in CEB_CONTRACT_SERVICEBUS, with the identity of azure.identity's
default chain or AZURE_SERVICEBUS_CONNECTION_STRING; the project's own emulator. Microsoft's emulator is a namespace
whose connection string says UseDevelopmentEmulator=true, and whose administration API, http://HOST:PORT, is in
CEB_CONTRACT_SERVICEBUS_ADMINISTRATION. Where python-qpid-proton is not installed its cases are not run.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from cloudevents_bridge import Capability, CloudEvent, Topic
from cloudevents_bridge_contract.emulators.faults import NONE, FaultyProxy
from cloudevents_bridge_contract.emulators.proxy import Proxy
from cloudevents_bridge_contract.emulators.servicebus.launcher import KEY, KEY_NAME, Missing, started
from cloudevents_bridge_contract.rig import NativeMessage, NotRun, Rig

HOST_VARIABLE = "CEB_CONTRACT_SERVICEBUS"
ADMINISTRATION_VARIABLE = "CEB_CONTRACT_SERVICEBUS_ADMINISTRATION"
CONNECTION_VARIABLE = "AZURE_SERVICEBUS_CONNECTION_STRING"
_LISTENER = "listener=c2VjcmV0"


class ServiceBusRig(Rig):
    """Service Bus: a real namespace, or the project's emulator behind a proxy that can cut and hold."""

    name = "azure-servicebus"
    kind = "fake"
    lease = 2.0
    wakeup = 1.5
    patience = 15.0
    topic_native: Mapping[Capability, Mapping[str, Any]] = {Capability.DEDUPLICATION: {"deduplication": 300}}
    threads_to_send = 1  # the watch of the adapter
    quirks: Mapping[str, str] = dict.fromkeys(
        (
            "traps.killed_between_the_copy_and_the_ack",
            "traps.largest_event_rejected_with_a_long_reason[copied]",
            "traps.largest_event_with_a_long_reason[copied]",
            "traps.undecodable_bytes_die_intact[copied]",
            "traps.worker_killed_between_the_copy_and_the_ack",
        ),
        "nothing copies dead letters here: Service Bus moves them, and takes none",
    )

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._host = environ.get(HOST_VARIABLE)
        self._administration = environ.get(ADMINISTRATION_VARIABLE)
        self._proxy: Proxy | None = None
        self._counts: FaultyProxy | None = None
        if self._host:
            self.kind, self.lease, self.patience, self.wakeup = "live", 5.0, 60.0, 5.0
            self.duplicates = "count"
            if self._administration:
                self.kind = "emulator, not ours"

    @contextmanager
    def start(self) -> Iterator[str]:
        if self._host:
            administration = f"?administration={self._administration}" if self._administration else ""
            yield f"azure-servicebus://{self._host}{administration}"
            return
        try:
            with (
                started(keys=[f"{_LISTENER}=Listen"]) as running,
                Proxy(running.server.port) as self._proxy,
                FaultyProxy(int(running.administration.rpartition(":")[2]), chance=0, throttled=NONE) as self._counts,
            ):
                yield (
                    f"azure-servicebus://ceb-contract?endpoint=amqp://127.0.0.1:{self._proxy.port}"
                    f"&administration=http://127.0.0.1:{self._counts.port}"
                )
        except Missing as missing:
            raise NotRun(str(missing)) from None
        finally:
            self._proxy = self._counts = None

    def break_connections(self) -> None:
        self._behind("connections that can be cut").cut()

    @contextmanager
    def stuck(self) -> Iterator[None]:
        with self._behind("a broker that can be held").hold():
            yield

    @contextmanager
    def denied(self, url: str, topic: Topic) -> Iterator[tuple[str, str]]:
        self._behind("key that may only listen")
        name, _, secret = _LISTENER.partition("=")
        with pytest.MonkeyPatch.context() as patch:
            text = f"Endpoint=sb://ceb-contract;SharedAccessKeyName={name};SharedAccessKey={secret}"
            patch.setenv(CONNECTION_VARIABLE, text)
            yield url, "Send"

    def control_plane_calls(self, url: str) -> int:
        if self._counts is None:
            raise NotRun("a real namespace does not count its requests")
        return sum(self._counts.done.values())

    def native_send(self, url: str, topic: Topic, message: NativeMessage) -> None:
        from azure.servicebus import ServiceBusMessage

        attributes = dict(message.attributes)
        content_type = attributes.pop("content-type", None)
        made = ServiceBusMessage(
            message.body,
            application_properties={**attributes},
            content_type=content_type,
            session_id="one" if topic.ordered else None,
        )
        with self._client() as client, client.get_topic_sender(topic.name) as sender:
            sender.send_messages(made)

    def native_receive(self, url: str, topic: Topic) -> NativeMessage:
        deadline = time.monotonic() + self.patience
        subscription = topic.subscriptions[0].name
        with self._client() as client, client.get_subscription_receiver(topic.name, subscription) as receiver:
            while time.monotonic() < deadline:
                for received in receiver.receive_messages(1, max_wait_time=5):
                    receiver.complete_message(received)
                    found = {key.decode(): _text(value) for key, value in received.application_properties.items()}
                    return NativeMessage(b"".join(received.body), {**found, "content-type": received.content_type})
        raise AssertionError(f"no message came from {topic.name}/{subscription}")

    def native_form(self, event: CloudEvent) -> NativeMessage:
        form = self.binary_form(event)
        if not isinstance(event.data, bytes):
            return form
        content = event.datacontenttype or "application/octet-stream"
        return NativeMessage(event.data, {**form.attributes, "content-type": content})

    def binary_form(self, event: CloudEvent) -> NativeMessage:
        required = (("specversion", "1.0"), ("id", event.id), ("source", event.source), ("type", event.type))
        named = (*required, ("subject", event.subject), *event.extensions.items())
        attributes = {f"cloudEvents_{name}": str(value) for name, value in named if value}
        body = b"" if isinstance(event.data, bytes) else _compact(event.data)
        return NativeMessage(body, {**attributes, "content-type": "application/json"})

    def _client(self) -> Any:
        """Azure's own, on a connection of its own."""
        from azure.servicebus import ServiceBusClient

        if self._proxy is not None:
            access = f"SharedAccessKeyName={KEY_NAME};SharedAccessKey={KEY}"
            return ServiceBusClient.from_connection_string(
                f"Endpoint=sb://127.0.0.1:{self._proxy.port};{access};UseDevelopmentEmulator=true"
            )
        if text := os.environ.get(CONNECTION_VARIABLE):
            return ServiceBusClient.from_connection_string(text)
        from azure.identity import DefaultAzureCredential

        return ServiceBusClient(self._host or "", DefaultAzureCredential())

    def _behind(self, what: str) -> Proxy:
        if self._proxy is None:
            raise NotRun(f"a real namespace has no {what}")
        return self._proxy


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _compact(form: object) -> bytes:
    return json.dumps(form, ensure_ascii=False, separators=(",", ":")).encode()
