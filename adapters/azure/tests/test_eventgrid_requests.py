"""What is asked of Event Grid, on our emulator: each request once, bytes untouched, tokens settled one by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.eventgrid import EventGridConsumerClient

import cloudevents_bridge as ceb
from cloudevents_bridge import driver
from cloudevents_bridge.config.urls import parse_url
from cloudevents_bridge.driver import Done, Fault, Outbound
from cloudevents_bridge.errors import ErrorCode, PermissionDeniedError, UnsupportedError
from cloudevents_bridge.faults import place_name
from cloudevents_bridge_azure.eventgrid import options
from cloudevents_bridge_azure.eventgrid.client import Client
from cloudevents_bridge_azure.eventgrid.connection import Connection
from cloudevents_bridge_azure.eventgrid.letters import OLD
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
    assert (unsaid.maybe_applied, unsaid.retryable) == (True, True), "what is unknown is asked for again"
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


# -- what there is


def _missing(connection: Connection, *wanted: driver.Topic | driver.Subscription) -> list[tuple[str, str]]:
    changes = connection.topology.diff(wanted)
    assert all(change.have is None and not change.setting for change in changes)
    return [(place_name(change.place), change.want) for change in changes]


def test_what_is_there_is_seen_without_taking_anything(grid: Running, connection: Connection) -> None:
    _publish(connection, ORDERS, _event())
    assert _missing(connection, ORDERS, BILLING) == []
    new = driver.Subscription(ORDERS, "audit")
    assert _missing(connection, ORDERS, new) == [
        ("subscription orders/audit", "orders/audit"),
        ("dead letters of orders/audit", "orders--audit--dlq/dlq"),
    ]
    others = driver.Topic("returns")
    assert _missing(connection, others) == [("topic returns", "returns")]
    grid.make_topic("returns")
    assert _missing(connection, others) == []
    [found] = connection.open_subscriber(BILLING).receive(10, 0.2).messages
    assert found.attempt == 1, "looking has spent an attempt"
    grid.admin("DELETE", "topics/returns")


def test_looking_asks_for_the_roles_of_publishers_and_consumers(grid: Running, connection: Connection) -> None:
    for operation, wanted, role in (
        ("acknowledge", [BILLING], "EventGrid Data Receiver"),
        ("publish", [ORDERS], "EventGrid Data Sender"),
    ):
        grid.fail(operation, 403, "Forbidden")
        fault = _refused(connection, partial(connection.topology.diff, wanted))
        assert (fault.code, role in fault.message) == (ErrorCode.PERMISSION_DENIED, True)
        for status, code in ((410, ErrorCode.NOT_FOUND), (503, ErrorCode.UNAVAILABLE)):
            grid.fail(operation, status, "Other")
            if code is ErrorCode.NOT_FOUND:
                assert connection.topology.diff(wanted)
            else:
                assert _refused(connection, partial(connection.topology.diff, wanted)).code is code


def test_apply_says_what_to_run_for_what_is_missing(
    grid: Running, monkeypatch: pytest.MonkeyPatch, connection: Connection
) -> None:
    monkeypatch.setenv("AZURE_EVENTGRID_KEY", KEY)
    orders = ceb.Topic("orders", subscriptions=["billing", "audit"])
    with ceb.connect(f"azure-eventgrid://emulator?endpoint={grid.url}", topics=[orders]) as broker:
        assert "not how it is set" in broker.topology.unseen
        assert [(each.action, each.kind, each.name) for each in broker.topology.plan()] == [
            ("create", "subscription", "orders/audit"),
            ("create", "dead letters", "orders/audit"),
        ]
        with pytest.raises(UnsupportedError, match="about subscription orders/audit: run the commands below") as caught:
            broker.topology.apply()
        [note] = caught.value.__notes__
        assert [line.partition(" --event")[0].rpartition(" --name ")[2] for line in note.splitlines()[1:]] == [
            "orders",
            "orders--audit--dlq",
            "audit",
            "dlq",
        ]
        for topic, name in (("orders", "audit"), ("orders--audit--dlq", "dlq")):
            grid.make_topic(topic)
            grid.make_subscription(topic, name)
        assert broker.topology.apply() == []
    grid.admin("DELETE", "topics/orders/audit")
    grid.admin("DELETE", "topics/orders--audit--dlq")


def test_letters_that_are_renewed_together_fill_requests(grid: Running, connection: Connection) -> None:
    letters = driver.DeadLetters(BILLING)
    publisher, subscriber = connection.open_publisher(letters), connection.open_subscriber(letters)
    for number in range(5):  # of three hundred thousand bytes, of which three go into a request
        publisher.send([Outbound(_event(id=str(number), data="x" * 300_000), STRUCTURED)], timeout=10)
    for _ in range(OLD):
        received = subscriber.receive(10, 0.2).messages
        before = grid.requests()
        assert subscriber.settle("release", received, timeout=10) == [Done()] * 5
    assert grid.requests()["publish"] == before["publish"] + 2
    again = subscriber.receive(10, 0.2).messages
    assert sorted(json.loads(each.body)["id"] for each in again) == list("01234")
    assert {each.attempt for each in again} == {1}
    assert subscriber.settle("ack", again, timeout=10) == [Done()] * 5


def test_the_command_line_says_what_can_be_seen(grid: Running, connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text('[topics.orders]\nsubscriptions = ["billing", "audit"]\n')

    def ceb(*words: str) -> tuple[int, list[str], list[str]]:
        url = f"azure-eventgrid://emulator?endpoint={grid.url}&wait=0.2"
        command = [sys.executable, "-m", "cloudevents_bridge", "--url", url, *words]
        env = {**os.environ, "AZURE_EVENTGRID_KEY": KEY}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    code, out, err = ceb("topology", "plan")
    assert (code, out[0], len(out), len(err)) == (1, "create subscription orders/audit", 2, 1)
    assert "not how it is set" in err[0]
    code, out, err = ceb("topology", "apply")
    assert (code, out) == (2, [])
    assert [line.partition(" --")[0] for line in err[2:]] == 2 * ["az eventgrid namespace topic create"] + 2 * [
        "az eventgrid namespace topic event-subscription create"
    ]
    code, out, err = ceb("check", "orders/billing")
    assert (code, err) == (0, [])
    assert out[-1].startswith("not checked azure-eventgrid: the rest of the topology  Event Grid says")
    code, out, err = ceb("check", "orders/audit")
    assert code == 1
    assert any(line.endswith("`ceb topology apply` says what creates it") for line in out)
