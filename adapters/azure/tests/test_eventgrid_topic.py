"""Custom topics: where they are, who may publish, and how their events come out of a queue of Service Bus."""

from __future__ import annotations

import socket
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
from cloudevents_bridge_azure.eventgrid.errors import RequestError
from cloudevents_bridge_contract.emulators.eventgrid.launcher import KEY, Running, started
from cloudevents_bridge_contract.eventgrid import EventGridTopicRig
from cloudevents_bridge_contract.rig import NotRun

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
        (Subscription(ORDERS, "billing", native={"filter": ["subject"]}), "the filter of the ARM resource"),
        (
            Subscription(ORDERS, "billing", native={"filter": {"advancedFilters": [{}]}}),
            "the filter of the ARM resource",
        ),
        (Subscription(ORDERS, "billing", native={"dead_letter_container": "blobs"}), "STORAGE-ACCOUNT/CONTAINER"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            connection.open_subscriber(wrong)
    with pytest.raises(UnsupportedError, match="by itself"):
        connection.open_publisher(DeadLetters(BILLING))
    traits = connection.open_publisher(ORDERS).traits
    assert (traits.batch_count, traits.batch_bytes, traits.message_bytes) == (5000, 1024 * 1024 - 1, 255 * 1024)
    assert connection.classify(ServiceBusServerBusyError()).code is ErrorCode.RESOURCE_EXHAUSTED
    connection.close()


FILTER = {
    "includedEventTypes": ["it's"],
    "subjectBeginsWith": "eu/",
    "isSubjectCaseSensitive": True,
    "advancedFilters": [
        {"operatorType": "NumberInRange", "key": "data.n", "values": [[1, 2], [5, 7.5]]},
        {"operatorType": "BoolEquals", "key": "data.paid", "value": True},
        {"operatorType": "IsNotNull", "key": "subject"},
    ],
}


def test_topology_is_written() -> None:
    native = {"filter": FILTER, "dead_letter_container": "acmestore/undelivered"}
    orders = ceb.Topic("orders", subscriptions=[ceb.Subscription("billing", lease=90, native=native), "audit"])
    with ceb.connect(URL, topics=[orders]) as broker:
        topic, queue, container, feed, *others = broker.topology.export("commands").splitlines()[1:]
        with pytest.raises(UnsupportedError, match="use 'bicep' or 'commands'"):
            broker.topology.export("terraform")
        roles = {
            role: list(dict.fromkeys(line.split('"')[3] for line in broker.topology.policy(role).splitlines()[1:]))
            for role in ("publisher", "consumer", "operator", "provisioner")
        }
    assert topic.endswith("--name orders --location westeurope --input-schema cloudeventschemav1_0")
    assert queue.endswith(
        "--namespace-name acme --name orders--billing --lock-duration PT90S --max-delivery-count 17 "
        "--default-message-time-to-live PT1209600S --enable-dead-lettering-on-message-expiration true"
    )
    assert container.endswith("--storage-account acmestore --name undelivered")
    assert "--endpoint-type servicebusqueue" in feed
    assert """--deadletter-endpoint "$(az storage account show --resource-group "$GROUP" --name acmestore """ in feed
    filters = feed.partition(" --included-event-types ")[2]
    assert filters == (
        """'it'"'"'s' --subject-begins-with eu/ --subject-case-sensitive true """
        "--advanced-filter data.n NumberInRange 1,2 5,7.5 --advanced-filter data.paid BoolEquals true "
        "--advanced-filter subject IsNotNull"
    )
    assert len(others) == 2
    assert "deadletter" not in "".join(others)
    assert roles == {
        "publisher": ["EventGrid Data Sender"],
        "consumer": ["Azure Service Bus Data Receiver"],
        "operator": ["Azure Service Bus Data Receiver", "Azure Service Bus Data Sender"],
        "provisioner": [
            "EventGrid Contributor",
            "EventGrid Data Sender",
            "Azure Service Bus Data Owner",
            "Storage Account Contributor",
        ],
    }


def test_nothing_is_made() -> None:
    connection = Connection(_read())
    with pytest.raises(UnsupportedError, match="topology export bicep"):
        connection.topology.apply([])
    with pytest.raises(UnsupportedError, match="topology export bicep"):
        connection.topology.delete(ORDERS)
    connection.close()


# -- what there is


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[EventGridTopicRig, str]]:
    rig = EventGridTopicRig()
    try:
        with rig.start() as url:
            yield rig, url
    except NotRun as reason:
        pytest.skip(f"not run ({reason})")


def test_what_is_missing_is_said_with_what_makes_it(running: tuple[EventGridTopicRig, str]) -> None:
    rig, url = running
    orders = ceb.Topic("orders", subscriptions=[ceb.Subscription("billing", lease=90)])
    with ceb.connect(url, topics=[orders]) as broker:
        assert [(each.action, each.kind, each.detail) for each in broker.topology.plan()] == [
            ("create", "topic", "orders"),
            ("create", "subscription", "orders--billing"),
        ]
        with pytest.raises(UnsupportedError, match="about subscription orders/billing, topic orders: run") as caught:
            broker.topology.apply()
        assert caught.value.__notes__ == [broker.topology.export("commands").rstrip()]
        rig.create(broker, orders)
        assert broker.topology.plan() == broker.topology.apply() == []
        assert "no event subscriptions" in broker.topology.unseen
        changed = ceb.Topic("orders", subscriptions=[ceb.Subscription("billing", lease=60), "audit"])
        assert [(each.action, each.name, each.detail) for each in broker.topology.plan(changed)] == [
            ("update", "orders/billing", "lease: 90 s → 60 s"),
            ("create", "orders/audit", "orders--audit"),
        ]
        with broker.subscriber("orders", "billing") as subscriber:
            assert subscriber.receive(wait=0) == [], "looking has published something"
        rig.remove(broker, orders)


def test_a_topic_whose_host_is_unknown_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    topic = Topic("orders", native={"endpoint": f"http://127.0.0.1:{closed}/api/events"})
    connection = Connection(_read(environ={"AZURE_EVENTGRID_KEY": "eA=="}))
    with pytest.raises(RequestError) as caught:
        connection.topology.diff([topic])
    assert connection.classify(caught.value).code is ErrorCode.UNAVAILABLE

    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert [change.want for change in connection.topology.diff([topic])] == ["orders"]
    connection.close()


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
