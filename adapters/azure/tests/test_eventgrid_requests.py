"""What is asked of Event Grid, on our emulator: each request once, bytes untouched, tokens settled one by one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.eventgrid import EventGridConsumerClient

import cloudevents_bridge as ceb
from cloudevents_bridge import driver
from cloudevents_bridge.config.urls import parse_url
from cloudevents_bridge.driver import Done, Fault, Outbound
from cloudevents_bridge.errors import ErrorCode, PermissionDeniedError
from cloudevents_bridge_azure.eventgrid import options
from cloudevents_bridge_azure.eventgrid.client import Client
from cloudevents_bridge_azure.eventgrid.connection import Connection
from cloudevents_bridge_contract.emulators.eventgrid.launcher import KEY, Running, started

ORDERS = driver.Topic("orders")
BILLING = driver.Subscription(ORDERS, "billing", lease=30.0)
STRUCTURED = {"content-type": "application/cloudevents+json"}


@pytest.fixture(scope="module")
def grid() -> Iterator[Running]:
    with started("--shortest-wait=0.2", "--time-scale=0.02") as running:
        yield running


@pytest.fixture
def connection(grid: Running) -> Iterator[Connection]:
    for name in ("orders", "orders--billing--dlq"):
        grid.make_topic(name)
    grid.make_subscription("orders", "billing", receiveLockDurationInSeconds=30)
    grid.make_subscription("orders--billing--dlq", "dlq", receiveLockDurationInSeconds=30)
    connection = _connect(grid)
    yield connection
    connection.close()


def _connect(grid: Running, key: str = KEY, **given: Any) -> Connection:
    url = parse_url(f"azure-eventgrid://emulator?endpoint={grid.url}&wait=0.2")
    return Connection(options.read(url, given, {"AZURE_EVENTGRID_KEY": key}))


def _event(**members: Any) -> bytes:
    return json.dumps({"specversion": "1.0", "id": "7", "source": "/s", "type": "t", **members}).encode()


def _publish(connection: Connection, to: driver.Topic | driver.DeadLetters, *bodies: bytes) -> None:
    publisher = connection.open_publisher(to)
    outcomes = publisher.send([Outbound(body, STRUCTURED) for body in bodies], timeout=5)
    assert outcomes == [Done()] * len(bodies)


def _refused(connection: Connection, call: Any) -> Fault:
    with pytest.raises(Exception) as caught:
        call()
    return connection.classify(caught.value)


def test_nobody_writes_the_data_anew(connection: Connection) -> None:
    data = b'{"n":1.10e2,"a":1,"a":2, "big":123456789012345678901}'
    raw = (
        b'{"specversion":"1.0","id":"7","source":"/s","type":"t","time":"2024-01-01T00:00:00.000Z","data":'
        + data
        + b"}"
    )
    _publish(connection, ORDERS, raw)
    [found] = connection.open_subscriber(BILLING).receive(10, 0.2).messages
    assert (found.body, found.attempt, found.lease) == (raw, 1, 30.0)


def test_a_refusal_is_asked_for_once(grid: Running, connection: Connection) -> None:
    before = grid.requests()
    subscriber = connection.open_subscriber(BILLING)
    _publish(connection, ORDERS, _event())
    received = subscriber.receive(1, 0.2).messages
    calls = {
        "publish": lambda: _publish(connection, ORDERS, _event()),
        "receive": lambda: subscriber.receive(1, 0.2),
        "acknowledge": lambda: subscriber.settle("ack", received, timeout=5),
        "release": lambda: subscriber.settle("nack", received, seconds=1, timeout=5),
        "renewLock": lambda: subscriber.settle("extend", received, timeout=5),
    }
    for operation, call in calls.items():
        for status, retryable in ((503, True), (429, True), (500, True), (403, False)):
            grid.fail(operation, status, "Busy", times=5, retry_after=2)
            count = grid.requests().get(operation, 0)
            fault = _refused(connection, call)
            assert (fault.retryable, fault.retry_after) == (retryable, 2)
            assert grid.requests()[operation] == count + 1, f"{operation} was tried again after {status}"
        grid.fail(operation, 200, "None", times=0)
    assert grid.requests()["publish"] == before.get("publish", 0) + 5


def test_what_is_missing_is_named(grid: Running, connection: Connection) -> None:
    grid.fail("publish", 403, "Forbidden")
    fault = _refused(connection, lambda: _publish(connection, ORDERS, _event()))
    assert (fault.code, "'EventGrid Data Sender' on emulator" in fault.message) == (ErrorCode.PERMISSION_DENIED, True)
    stranger = _connect(grid, key="d3Jvbmc=")
    fault = _refused(stranger, lambda: _publish(stranger, ORDERS, _event()))
    assert (fault.code, "AZURE_EVENTGRID_KEY" in fault.message) == (ErrorCode.UNAUTHENTICATED, True)
    assert "d3Jvbmc" not in fault.message
    stranger.close()


def test_an_error_names_topic_and_role(grid: Running, monkeypatch: pytest.MonkeyPatch, connection: Connection) -> None:
    monkeypatch.setenv("AZURE_EVENTGRID_KEY", KEY)
    grid.fail("publish", 403, "Forbidden")
    with ceb.connect(f"azure-eventgrid://emulator?endpoint={grid.url}") as broker:
        with pytest.raises(PermissionDeniedError, match=r"topic orders .*EventGrid Data Sender"):
            broker.publish("orders", ceb.CloudEvent(type="t", source="/s"))
        broker.ping()


def test_each_token_has_its_outcome(connection: Connection) -> None:
    subscriber = connection.open_subscriber(BILLING)
    _publish(connection, ORDERS, *(_event(id=str(n)) for n in range(3)))
    received = subscriber.receive(10, 0.2).messages
    assert len(received) == 3
    assert subscriber.settle("ack", received[1:2], timeout=5) == [Done()]
    outcomes = subscriber.settle("extend", received, timeout=5)
    assert [isinstance(each, Done) and each.lease for each in outcomes] == [30.0, False, 30.0]
    lost = outcomes[1]
    assert isinstance(lost, Fault)
    assert lost.code is ErrorCode.LEASE_LOST


def test_a_token_of_which_nothing_is_said_is_not_taken_for_settled(
    monkeypatch: pytest.MonkeyPatch, connection: Connection
) -> None:
    _publish(connection, ORDERS, _event(id="1"), _event(id="2"))
    subscriber = connection.open_subscriber(BILLING)
    one, two = subscriber.receive(10, 0.2).messages
    said = json.dumps({"failedLockTokens": [], "succeededLockTokens": [two.handle]}).encode()
    monkeypatch.setattr(Client, "post", lambda *_, **__: said)
    unsaid, done = subscriber.settle("ack", [one, two], timeout=5)
    assert isinstance(unsaid, Fault)
    assert unsaid.maybe_applied
    assert done == Done()


def test_a_delay_that_there_is_not_is_rounded_up(connection: Connection) -> None:
    subscriber = connection.open_subscriber(BILLING)
    _publish(connection, ORDERS, _event())
    received = subscriber.receive(10, 0.2).messages
    began = time.monotonic()
    assert subscriber.settle("nack", received, seconds=11, timeout=5) == [Done()]  # a minute, here 1.2 seconds
    while not (again := subscriber.receive(10, 0.2).messages):
        assert time.monotonic() - began < 20
    assert time.monotonic() - began >= 1.1
    assert again[0].attempt == 2


def test_the_largest_event_is_taken_and_one_byte_more_is_not(connection: Connection) -> None:
    publisher = connection.open_publisher(ORDERS)
    room = publisher.traits.message_bytes - publisher.size(Outbound(_event(data=""), STRUCTURED))
    largest = Outbound(_event(data="x" * room), STRUCTURED)
    assert publisher.size(largest) == publisher.traits.message_bytes
    assert publisher.send([largest], timeout=10) == [Done()]
    over = Outbound(_event(data="x" * (room + 1)), STRUCTURED)
    assert _refused(connection, lambda: publisher.send([over], timeout=10)).code is ErrorCode.TOO_LARGE


def test_looking_at_a_letter_does_not_use_it_up(grid: Running, connection: Connection) -> None:
    letters = driver.DeadLetters(BILLING)
    publisher = connection.open_publisher(letters)
    [done] = publisher.send([Outbound(_event(), {**STRUCTURED, driver.DEAD_LETTER: "why"})], timeout=5)
    assert isinstance(done, Done)
    subscriber = connection.open_subscriber(letters)
    for _ in range(25):
        [letter] = subscriber.receive(10, 0.2).messages
        assert (json.loads(letter.body)["id"], letter.attributes[driver.DEAD_LETTER]) == ("7", "why")
        assert subscriber.settle("release", [letter], timeout=5) == [Done()]
    assert grid.requests()["release"] > 0


def test_the_last_delivery_is_dead_lettered_and_not_handed_out(
    grid: Running, monkeypatch: pytest.MonkeyPatch, connection: Connection
) -> None:
    _publish(connection, ORDERS, _event())
    inner = connection.open_subscriber(BILLING)
    for _ in range(9):
        assert inner.settle("release", inner.receive(1, 0.2).messages, timeout=5) == [Done()]
    monkeypatch.setenv("AZURE_EVENTGRID_KEY", KEY)
    with ceb.connect(f"azure-eventgrid://emulator?endpoint={grid.url}&wait=0.2") as broker:
        with broker.subscriber("orders", "billing") as subscriber:
            assert subscriber.receive(wait=0.5) == []
        [letter] = broker.dead_letters("orders", "billing").find()
    assert "9 times" in letter.reason


def test_a_token_goes_over_plain_http_to_an_emulator(grid: Running, connection: Connection) -> None:
    class Credential:
        asked = 0

        def get_token(self, *scopes: str, **_: Any) -> AccessToken:
            assert scopes == ("https://eventgrid.azure.net/.default",)
            self.asked += 1
            return AccessToken("token", int(time.time()) + 3600)

    credential = Credential()
    by_token = _connect(grid, credential=credential)
    _publish(by_token, ORDERS, _event())
    by_token.close()
    assert credential.asked == 1
    by_key = _connect(grid, key="d3Jvbmc=", credential=AzureKeyCredential(KEY))
    _publish(by_key, ORDERS, _event())
    by_key.close()


def test_the_sdk_reads_what_we_write(grid: Running, connection: Connection) -> None:
    event = ceb.CloudEvent(type="t", source="/s", data={"n": 7}, extensions={"myextension": 3})
    attributes, body = connection.wire.encode(event)
    assert connection.open_publisher(ORDERS).send([Outbound(body, attributes)], timeout=5) == [Done()]
    with connection.native.consumer("orders", "billing") as consumer:
        assert isinstance(consumer, EventGridConsumerClient)
        [found] = consumer.receive(max_events=1, max_wait_time=10)
    assert (found.event.id, found.event.data, found.event.extensions) == (event.id, {"n": 7}, {"myextension": 3})


def test_we_read_what_the_sdk_writes(connection: Connection) -> None:
    from azure.core.messaging import CloudEvent

    with connection.native.publisher("orders") as publisher:
        publisher.send(
            [CloudEvent(source="/s", type="t", data=b"\x00\xff", subject="a"), CloudEvent("/s", "t", data=[1])]
        )
    received = connection.open_subscriber(BILLING).receive(10, 0.2).messages
    events = [connection.wire.decode(each.attributes, each.body) for each in received]
    assert [(each.subject, each.data) for each in events] == [("a", b"\x00\xff"), (None, [1])]
