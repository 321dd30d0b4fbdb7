"""The rig of Azure Event Grid: namespace topics.

It uses, in this order: the real namespace whose host name is in CEB_CONTRACT_EVENTGRID, with topics that exist already
(`ceb contract --existing`), for its data plane makes none; the emulator of this distribution.
"""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from cloudevents_bridge import Broker, CloudEvent, Topic
from cloudevents_bridge_contract.bench import native_place
from cloudevents_bridge_contract.emulators.eventgrid.launcher import KEY, Running, started
from cloudevents_bridge_contract.emulators.faults import NONE, FaultyProxy
from cloudevents_bridge_contract.emulators.proxy import Proxy
from cloudevents_bridge_contract.emulators.servicebus import launcher as servicebus
from cloudevents_bridge_contract.existing import Pool
from cloudevents_bridge_contract.rig import NativeMessage, NotRun, Rig

HOST_VARIABLE = "CEB_CONTRACT_EVENTGRID"
POOL_VARIABLE = "CEB_CONTRACT_EVENTGRID_TOPICS"
"""A file with the topics of the real namespace, in the form of `bridge.toml`."""
KEY_VARIABLE = "AZURE_EVENTGRID_KEY"
WAIT = 0.2
"""Seconds that a receive waits on the emulator, where the service has 10 at least."""
MEDIA = "application/cloudevents+json"
SENDER = "EventGrid Data Sender"
"""The role that publishing needs."""


class EventGridRig(Rig):
    """A namespace of Event Grid: a real one, or the emulator behind a proxy that can cut and hold."""

    name = "azure-eventgrid"
    kind = "fake: our emulator of Event Grid"
    most_attempts = 9

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._running: Running | None = None
        self._proxy: Proxy | None = None
        if environ.get(HOST_VARIABLE):
            self.kind, self.lease, self.patience, self.wakeup = "live", 60.0, 120.0, 5.0
            self.duplicates = "count"
            if environ.get(POOL_VARIABLE):
                self.existing = Pool.read(environ[POOL_VARIABLE])
            return
        self.options: Mapping[str, Any] = {"wait": WAIT}

    @contextmanager
    def start(self) -> Iterator[str]:
        if host := self._environ.get(HOST_VARIABLE):
            yield f"azure-eventgrid://{host}"
            return
        with started(f"--shortest-wait={WAIT}") as running, pytest.MonkeyPatch.context() as patch:
            patch.setenv(KEY_VARIABLE, KEY)
            with Proxy(int(running.url.rpartition(":")[2])) as proxy:
                self._running, self._proxy = running, proxy
                try:
                    yield f"azure-eventgrid://emulator?endpoint=http://127.0.0.1:{proxy.port}"
                finally:
                    self._running = self._proxy = None

    def create(self, broker: Broker, topic: Topic) -> None:
        running = self._emulator("topics that are made by a test")
        topics, feeds = _places(topic)
        for name in topics:
            running.make_topic(name)
        for feed in feeds:
            running.make_subscription(feed.topic, feed.name, **feed.properties["deliveryConfiguration"]["queue"])

    def remove(self, broker: Broker, topic: Topic) -> None:
        running = self._emulator("topics that are made by a test")
        for name in _places(topic)[0]:
            running.admin("DELETE", f"topics/{name}")

    def break_connections(self) -> None:
        self._behind("connections that can be cut").cut()

    @contextmanager
    def stuck(self) -> Iterator[None]:
        with self._behind("a broker that can be held").hold():
            yield

    @contextmanager
    def denied(self, url: str, topic: Topic) -> Iterator[tuple[str, str]]:
        with _refused(self._emulator("refusals that can be had"), "publish"):
            yield url, SENDER

    def control_plane_calls(self, url: str) -> int:
        steady = {"publish", "receive", "acknowledge", "release", "renewLock"}
        requests = self._emulator("requests that can be counted").requests()
        assert requests["publish"], "the emulator has not seen the requests"
        return sum(count for operation, count in requests.items() if operation not in steady)

    def native_send(self, url: str, topic: Topic, message: NativeMessage) -> None:
        from azure.core.credentials import AzureKeyCredential
        from azure.core.rest import HttpRequest
        from azure.eventgrid import EventGridPublisherClient

        key = AzureKeyCredential(os.environ[KEY_VARIABLE])
        with EventGridPublisherClient(self._endpoint(url), key, namespace_topic=topic.name) as client:
            request = HttpRequest(
                "POST",
                f"/topics/{topic.name}:publish",
                params={"api-version": "2024-06-01"},
                headers={"Content-Type": message.attributes["content-type"]},
                content=message.body,
            )
            client.send_request(request).raise_for_status()  # `send` would write the data anew

    def native_receive(self, url: str, topic: Topic) -> NativeMessage:
        request = urllib.request.Request(
            f"{self._endpoint(url)}/topics/{topic.name}/eventsubscriptions/{topic.subscriptions[0].name}:receive"
            "?api-version=2024-06-01&maxEvents=1&maxWaitTime=10",
            method="POST",
            headers={"Authorization": f"SharedAccessKey {os.environ[KEY_VARIABLE]}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
        # As it stands there: the SDK would parse it and write it anew.
        body = content.partition(b'"event":')[2].rpartition(b"}]}")[0]
        return NativeMessage(body, {"content-type": MEDIA})

    def native_form(self, event: CloudEvent) -> NativeMessage:
        form: dict[str, Any] = {"specversion": "1.0", "id": event.id, "source": event.source, "type": event.type}
        form |= {name: value for name, value in (("subject", event.subject), *event.extensions.items()) if value}
        if isinstance(event.data, bytes):
            form |= {"data_base64": base64.b64encode(event.data).decode()}
        else:
            form |= {"datacontenttype": "application/json", "data": event.data}
        body = json.dumps(form, ensure_ascii=False, separators=(",", ":")).encode()
        return NativeMessage(body, {"content-type": MEDIA})

    def binary_form(self, event: CloudEvent) -> NativeMessage:
        raise NotRun("Event Grid hands out events as JSON, whatever their form was")

    def _endpoint(self, url: str) -> str:
        host, _, endpoint = url.removeprefix("azure-eventgrid://").partition("?endpoint=")
        return endpoint or f"https://{host}"

    def _emulator(self, what: str) -> Running:
        if self._running is None:
            raise NotRun(f"a real namespace has no {what}")
        return self._running

    def _behind(self, what: str) -> Proxy:
        if self._proxy is None:
            raise NotRun(f"a real namespace has no {what}")
        return self._proxy


@contextmanager
def _refused(running: Running, operation: str) -> Iterator[None]:
    """What the service answers to who has not the role: the emulator knows no roles."""
    running.fail(operation, 403, "Forbidden", times=1000)
    try:
        yield
    finally:
        running.fail(operation, 403, "Forbidden", times=0)


def _places(topic: Topic) -> Any:
    """The topics and event subscriptions that `ceb topology export` would write."""
    from cloudevents_bridge_azure.eventgrid.export import places

    indexes = range(len(topic.subscriptions))
    return places([native_place(topic), *(native_place(topic, each) for each in indexes)], local=True)


_COPIES = (
    "traps.killed_between_the_copy_and_the_ack",
    "traps.largest_event_rejected_with_a_long_reason[copied]",
    "traps.largest_event_with_a_long_reason[copied]",
    "traps.undecodable_bytes_die_intact[copied]",
    "traps.worker_killed_between_the_copy_and_the_ack",
)
_NO_COPIES = "nothing can be published to a dead-letter queue of Service Bus, so no letter is ever a copy"


class EventGridTopicRig(Rig):
    """Custom topics with queues of Service Bus behind them: both of our emulators, the second behind a proxy."""

    name = "azure-eventgrid-topic"
    kind = "fake: our emulators of Event Grid and Service Bus"
    lease = 2.0
    wakeup = 2.0
    patience = 20.0
    threads_to_send = 1  # the watch of the adapter
    quirks = dict.fromkeys(_COPIES, _NO_COPIES)

    def __init__(self) -> None:
        self._grid: Running | None = None
        self._bus: servicebus.Running | None = None
        self._proxies: list[Proxy] = []
        self._counts: FaultyProxy | None = None

    @contextmanager
    def start(self) -> Iterator[str]:
        with ExitStack() as stack:
            try:
                bus = stack.enter_context(servicebus.started())
            except servicebus.Missing as missing:
                raise NotRun(str(missing)) from None
            grid = stack.enter_context(started(f"--service-bus={bus.connection}", "--time-scale=0.02"))
            ports = (int(grid.url.rpartition(":")[2]), bus.server.port)
            self._grid, self._bus = grid, bus
            self._proxies = [stack.enter_context(Proxy(port)) for port in ports]
            counts = FaultyProxy(int(bus.administration.rpartition(":")[2]), chance=0, throttled=NONE)
            self._counts = stack.enter_context(counts)
            stack.enter_context(pytest.MonkeyPatch.context()).setenv(KEY_VARIABLE, KEY)
            topics, queues = (f"127.0.0.1:{proxy.port}" for proxy in self._proxies)
            yield (
                f"azure-eventgrid-topic://emulator?endpoint=http://{topics}&servicebus=ceb-contract"
                f"&servicebus_endpoint=amqp://{queues}&servicebus_administration=http://127.0.0.1:{counts.port}"
            )

    def create(self, broker: Broker, topic: Topic) -> None:
        from cloudevents_bridge_azure.eventgrid.custom import names, settings

        assert self._grid is not None
        self._grid.make_custom(topic.name)
        for index, subscription in enumerate(topic.subscriptions):
            place = native_place(topic, index)
            queue = names.queue_name(place)
            broker.native.administration.create_queue(queue, **settings.queue(place))
            self._grid.subscribe(
                topic.name, subscription.name, destination={"endpointType": "ServiceBusQueue", "queue": queue}
            )

    def remove(self, broker: Broker, topic: Topic) -> None:
        from cloudevents_bridge_azure.eventgrid.custom import names

        assert self._grid is not None
        self._grid.admin("DELETE", f"custom/{topic.name}")
        for index in range(len(topic.subscriptions)):
            broker.native.administration.delete_queue(names.queue_name(native_place(topic, index)))

    def break_connections(self) -> None:
        for proxy in self._proxies:
            proxy.cut()

    @contextmanager
    def stuck(self) -> Iterator[None]:
        with self._proxies[0].hold():
            yield

    @contextmanager
    def denied(self, url: str, topic: Topic) -> Iterator[tuple[str, str]]:
        assert self._grid is not None
        with _refused(self._grid, "send"):
            yield url, SENDER

    def control_plane_calls(self, url: str) -> int:
        """Those of the queues' namespace; what is asked of topics is publishing, or counts as well."""
        assert self._grid is not None
        assert self._counts is not None
        requests = self._grid.requests()
        assert requests["send"], "the emulator has not seen the requests"
        others = sum(count for operation, count in requests.items() if operation != "send")
        return others + sum(self._counts.done.values())

    def native_send(self, url: str, topic: Topic, message: NativeMessage) -> None:
        from azure.core import PipelineClient
        from azure.core.credentials import AzureKeyCredential
        from azure.core.pipeline.policies import AzureKeyCredentialPolicy
        from azure.core.rest import HttpRequest

        assert self._grid is not None
        access = AzureKeyCredentialPolicy(AzureKeyCredential(KEY), "aeg-sas-key")
        request = HttpRequest(
            "POST",
            self._grid.custom_url(topic.name),
            params={"api-version": "2018-01-01"},
            headers={"Content-Type": message.attributes["content-type"]},
            content=message.body,
        )
        with PipelineClient[Any, Any](self._grid.url, policies=[access]) as client:
            client.send_request(request).raise_for_status()  # `EventGridPublisherClient` would write the data anew

    def native_receive(self, url: str, topic: Topic) -> NativeMessage:
        from azure.servicebus import ServiceBusClient

        from cloudevents_bridge_azure.eventgrid.custom.names import queue_name

        assert self._bus is not None
        queue = queue_name(native_place(topic, 0))
        deadline = time.monotonic() + self.patience
        with (
            ServiceBusClient.from_connection_string(self._bus.connection) as client,
            client.get_queue_receiver(queue) as receiver,
        ):
            while time.monotonic() < deadline:
                for received in receiver.receive_messages(1, max_wait_time=5):
                    receiver.complete_message(received)
                    return NativeMessage(
                        b"".join(received.body), {"content-type": received.content_type.partition(";")[0]}
                    )
        raise AssertionError(f"no message came to the queue {queue}")

    def native_form(self, event: CloudEvent) -> NativeMessage:
        return EventGridRig.native_form(self, event)  # type: ignore[arg-type]

    def binary_form(self, event: CloudEvent) -> NativeMessage:
        return EventGridRig.binary_form(self, event)  # type: ignore[arg-type]
