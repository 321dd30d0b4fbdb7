"""Custom topics: where they are, who may publish, and how their events come out of a queue of Service Bus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from azure.servicebus.exceptions import ServiceBusServerBusyError

import cloudevents_bridge as ceb
from cloudevents_bridge.config.urls import parse_url
from cloudevents_bridge.driver import DEAD_LETTER, DeadLetters, Done, Inbound, Outbound, Received, Subscription, Topic
from cloudevents_bridge.errors import BridgeError, ConfigurationError, ErrorCode, UnsupportedError
from cloudevents_bridge_azure.eventgrid.custom import options
from cloudevents_bridge_azure.eventgrid.custom.connection import Connection
from cloudevents_bridge_azure.eventgrid.custom.names import endpoint, queue
from cloudevents_bridge_azure.eventgrid.custom.subscriber import QueueSubscriber
from cloudevents_bridge_contract.emulators.eventgrid.launcher import KEY, Running, started

URL = "azure-eventgrid-topic://westeurope-1.eventgrid.azure.net?servicebus=acme.servicebus.windows.net"
ORDERS = Topic("orders")
BILLING = Subscription(ORDERS, "billing")
STRUCTURED = {"content-type": "application/cloudevents+json"}


def _read(text: str = URL, environ: dict[str, str] | None = None, **given: Any) -> options.TopicOptions:
    return options.read(parse_url(text), given, environ or {})


# -- options and names


def test_options() -> None:
    read = _read(environ={"AZURE_EVENTGRID_KEY": "s3cret", "AZURE_EVENTGRID_KEY_ORDERS_EU": "s4cret"})
    assert (read.bus.host, read.grid.endpoint) == ("acme.servicebus.windows.net", "")
    assert read.keys == {"": "s3cret", "orders-eu": "s4cret"}
    assert "cret" not in repr(read)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("azure-eventgrid-topic://westeurope-1.eventgrid.azure.net", r"\?servicebus=NAMESPACE"),
        ("azure-eventgrid-topic://orders?servicebus=acme.servicebus.windows.net", "names no place of topics"),
        (f"{URL}&endpoint=nowhere", "endpoint is 'nowhere'"),
        (f"{URL}&message_bytes=1", "message_bytes"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        _read(text)


def test_names() -> None:
    grid = _read().grid
    assert endpoint(ORDERS, grid) == "https://orders.westeurope-1.eventgrid.azure.net/api/events"
    assert endpoint(Topic("orders", native={"name": "Acme-Orders"}), grid).startswith(
        "https://Acme-Orders.westeurope-1."
    )
    assert endpoint(Topic("orders", native={"endpoint": "https://x.y/api/events"}), grid) == "https://x.y/api/events"
    assert queue(BILLING) == ("orders--billing", None, False)
    assert queue(DeadLetters(Subscription(ORDERS, "billing", native={"queue": "q/1"}))) == ("q/1", None, True)
    for wrong in (Topic("orders", native={"endpoint": "orders"}), Topic("orders", native={"name": "a_b"})):
        with pytest.raises(ConfigurationError):
            endpoint(wrong, grid)


def test_places() -> None:
    connection = Connection(_read())
    for wrong, said in (
        (Subscription(ORDERS, "billing", lease=301), "301 seconds"),
        (Subscription(ORDERS, "billing", native={"topic": "x"}), "native setting 'topic'"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            connection.open_subscriber(wrong)
    with pytest.raises(UnsupportedError, match="by itself"):
        connection.open_publisher(DeadLetters(BILLING))
    traits = connection.open_publisher(ORDERS).traits
    assert (traits.batch_count, traits.batch_bytes, traits.message_bytes) == (5000, 1024 * 1024 - 1, 255 * 1024)
    assert connection.classify(ServiceBusServerBusyError()).code is ErrorCode.RESOURCE_EXHAUSTED
    connection.close()


def test_topology_is_written_and_not_made() -> None:
    orders = ceb.Topic(
        "orders", subscriptions=[ceb.Subscription("billing", lease=90, native={"filter": ["subject", 1]})]
    )
    with ceb.connect(URL, topics=[orders]) as broker:
        topic, made_queue, feed = broker.topology.export("commands").splitlines()[1:]
        with pytest.raises(UnsupportedError, match="bicep"):
            broker.topology.export("bicep")
        with pytest.raises(UnsupportedError, match="topology"):
            broker.topology.apply()
        roles = {
            role: [line.split('"')[3] for line in broker.topology.policy(role).splitlines()[1:]]
            for role in ("publisher", "consumer", "operator", "provisioner")
        }
    assert topic.endswith("--name orders --location westeurope --input-schema cloudeventschemav1_0")
    assert "--namespace-name acme --name orders--billing --lock-duration PT90S --max-delivery-count 17" in made_queue
    assert "--endpoint-type servicebusqueue" in feed
    assert feed.endswith(""" --advanced-filter '["subject", 1]'""")
    assert roles == {
        "publisher": ["EventGrid Data Sender"],
        "consumer": ["Azure Service Bus Data Receiver"],
        "operator": ["Azure Service Bus Data Receiver", "Azure Service Bus Data Sender"],
        "provisioner": ["EventGrid Contributor", "Azure Service Bus Data Owner"],
    }


# -- what comes out of a queue


class _Queue:
    """A subscriber of a queue that brings one message."""

    traits: Any = None

    def __init__(self, body: bytes, attributes: dict[str, str]) -> None:
        self._message = Inbound(body, attributes, "handle", 30.0, 2)

    def receive(self, max_messages: int, wait: float) -> Received:
        return Received([self._message], ["stream"])

    def settle(self, verb: Any, messages: Sequence[Inbound], **_: Any) -> Any:
        return [Done() for each in messages if each.handle == "handle"]

    def stop(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("body", "attributes", "read"),
    [
        (
            b'{"id":"7"}',
            {"content-type": "application/cloudevents+json; charset=utf-8", "aeg-delivery-count": "0"},
            (b'{"id":"7"}', STRUCTURED),
        ),
        (
            b'{"cebmessage":"{\\"a\\":\\"b\\"}","data_base64":"AP8="}',
            {"content-type": "application/cloudevents+json", DEAD_LETTER: "why"},
            (b"\x00\xff", {"a": "b", DEAD_LETTER: "why"}),
        ),
        (b"order 7", {"aeg-event-type": "Notification", "x": "y"}, (b"order 7", {"x": "y"})),
        (b"\xff", STRUCTURED, (b"\xff", STRUCTURED)),
    ],
)
def test_what_event_grid_delivers_is_read(body: bytes, attributes: dict[str, str], read: tuple[Any, Any]) -> None:
    subscriber = QueueSubscriber(_Queue(body, attributes))
    received = subscriber.receive(1, 0.0)
    [found] = received.messages
    assert (found.body, found.attributes) == read
    assert (found.attempt, found.lease, received.lost) == (2, 30.0, ["stream"])
    assert subscriber.settle("ack", [found], timeout=1) == [Done()]


# -- requests


@pytest.fixture(scope="module")
def grid() -> Iterator[Running]:
    with started() as running:
        running.make_custom("orders")
        yield running


def _connect(grid: Running, environ: dict[str, str], **given: Any) -> Connection:
    url = f"azure-eventgrid-topic://emulator?endpoint={grid.url}&servicebus=acme&servicebus_endpoint=amqp://127.0.0.1:1"
    return Connection(_read(url, environ, **given))


def _publish(connection: Connection) -> None:
    attributes, body = connection.wire.encode(ceb.CloudEvent(type="t", source="/s", data={"n": 7}))
    assert connection.open_publisher(ORDERS).send([Outbound(body, attributes)] * 2, timeout=5) == [Done(), Done()]


def test_each_topic_has_its_key(grid: Running) -> None:
    for environ in ({"AZURE_EVENTGRID_KEY": KEY}, {"AZURE_EVENTGRID_KEY": "eA==", "AZURE_EVENTGRID_KEY_ORDERS": KEY}):
        connection = _connect(grid, environ)
        _publish(connection)
        connection.close()
    other = _connect(grid, {"AZURE_EVENTGRID_KEY_OTHERS": KEY})
    with pytest.raises(BridgeError, match="set AZURE_EVENTGRID_KEY_ORDERS"):
        _publish(other)
    other.close()


def test_a_refusal_is_asked_for_once_and_explained(grid: Running) -> None:
    connection = _connect(grid, {"AZURE_EVENTGRID_KEY": KEY})
    for status, code in ((503, ErrorCode.UNAVAILABLE), (403, ErrorCode.PERMISSION_DENIED)):
        grid.fail("send", status, "Busy", times=5)
        before = grid.requests().get("send", 0)
        with pytest.raises(Exception, match="Busy") as caught:
            _publish(connection)
        assert grid.requests()["send"] == before + 1
        fault = connection.classify(caught.value)
        assert fault.code is code
    assert "'EventGrid Data Sender'" in fault.message
    grid.fail("send", 200, "None", times=0)
    connection.close()
