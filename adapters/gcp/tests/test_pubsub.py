"""What is Pub/Sub's own, on Google's emulator: beyond what the contract asks of every broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from google.pubsub_v1 import PublisherClient, SubscriberClient
from pubsub_running import Running

from cloudevents_bridge import (
    Broker,
    Capability,
    CloudEvent,
    LeaseLostError,
    PublishError,
    RetryPolicy,
    Subscription,
    Topic,
    connect,
    driver,
)
from cloudevents_bridge.driver import Outbound
from cloudevents_bridge.errors import BridgeError, ErrorCode, UnsupportedError
from cloudevents_bridge_contract import faulty, order_example
from cloudevents_bridge_contract.emulators import pubsub
from cloudevents_bridge_contract.emulators.process import wait_until
from cloudevents_bridge_contract.gcp import STEADY
from cloudevents_bridge_contract.suite.traps import receive_unless_closed
from cloudevents_bridge_gcp import rpc

Opened = Callable[..., Broker]
PATIENT = RetryPolicy(attempts=None, initial=0.1, maximum=1.0)


def event(id: str = "1", data: object = None, **attributes: object) -> CloudEvent:
    return CloudEvent(type="com.example.test", source="/test", id=id, data=data, **attributes)  # type: ignore[arg-type]


def test_steady_state_needs_the_roles_of_publisher_and_subscriber_only(
    emulator: Running, opened: Opened, name: str
) -> None:
    topic = Topic(name, ordered=True, subscriptions=["billing"])
    broker = opened(topic)
    before = emulator.proxy.paths.copy()
    broker.publish_many(name, [event(str(n), partitionkey=f"k{n % 3}") for n in range(20)])
    with broker.worker().add(name, "billing", lambda event: None) as worker:
        assert wait_until(lambda: worker.stats.handled == 20, 30), f"{worker.stats.handled} of 20 were handled"
    with broker.subscriber(name, "billing") as subscriber:
        broker.publish(name, event("held"))
        [delivery] = subscriber.receive(wait=5)
        delivery.extend(5)
        delivery.dead_letter("no use")
    assert len(list(broker.dead_letters(name, "billing").find())) == 1
    used = {path.rpartition("/")[2]: count for path, count in (emulator.proxy.paths - before).items()}
    assert set(used) == set(STEADY), f"the steady state made other requests: {used}"


def test_a_message_over_the_four_mebibytes_of_grpc_arrives(opened: Opened, name: str) -> None:
    broker = opened(Topic(name, subscriptions=["billing"]))
    data = bytes(range(256)) * 24_000
    broker.publish(name, event(data=data))
    with broker.subscriber(name, "billing") as subscriber:
        [delivery] = subscriber.receive(wait=20)
        assert delivery.event.data == data
        delivery.ack()


def test_a_request_is_filled_to_the_byte_cap(opened: Opened, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = opened(Topic(name, subscriptions=["billing"]), batch_bytes=50_000)
    sizes: list[int] = []
    call = rpc.Rpc.call

    def counted(self: rpc.Rpc, method: rpc.Method, request: Any, *, timeout: float) -> Any:
        sizes.append(request.ByteSize())
        return call(self, method, request, timeout=timeout)

    monkeypatch.setattr(rpc.Rpc, "call", counted)
    broker.publish_many(name, [event(str(n), data=b"x" * 1000) for n in range(200)])
    assert 48_000 < max(sizes) <= 50_000


def test_an_ack_that_comes_too_late_is_a_lost_lease_on_an_exactly_once_subscription(opened: Opened, name: str) -> None:
    billing = Subscription("billing", lease=30.0, native={"exactly_once": True})
    broker = opened(Topic(name, subscriptions=[billing]))
    broker.publish_many(name, [event("1"), event("2")])
    with broker.subscriber(name, "billing") as subscriber:
        held = subscriber.receive(2, wait=10)
        while len(held) < 2:
            held += subscriber.receive(1, wait=10)
        subscription = f"projects/ceb-test/subscriptions/{name}--billing"
        native = [delivery.native.ack_id for delivery in held if delivery.event.id == "1"]
        broker.native.subscriber.acknowledge(subscription=subscription, ack_ids=native)
        errors: dict[str, object] = {}
        for delivery in held:
            try:
                delivery.ack()
            except LeaseLostError as error:
                errors[delivery.event.id] = error.code
        assert errors == {"1": ErrorCode.LEASE_LOST}


def test_attempts_are_counted_here_where_pubsub_does_not(opened: Opened, name: str) -> None:
    broker = opened(Topic(name, subscriptions=["billing"]))
    subscriptions, topic = broker.native.subscriber, f"projects/ceb-test/topics/{name}"
    plain = f"projects/ceb-test/subscriptions/{name}--plain"
    subscriptions.create_subscription(name=plain, topic=topic, ack_deadline_seconds=30)
    broker.publish(name, event())
    with broker.subscriber(name, "plain") as subscriber:
        for attempt in (1, 2, 3):
            [delivery] = subscriber.receive(wait=10)
            assert delivery.native.delivery_attempt == 0, "Pub/Sub counts after all"
            assert delivery.attempt == attempt
            delivery.nack(delay=0)
    subscriptions.delete_subscription(subscription=plain)


def test_the_native_clients_are_googles(opened: Opened, name: str) -> None:
    broker = opened(Topic(name))
    assert isinstance(broker.native.publisher, PublisherClient)
    assert isinstance(broker.native.subscriber, SubscriberClient)
    assert broker.native.publisher.get_topic(topic=f"projects/ceb-test/topics/{name}").name.endswith(name)


def test_structured_mode_by_option(opened: Opened, name: str) -> None:
    opened(Topic(name, subscriptions=["billing"]))
    structured = opened(Topic(name, subscriptions=["billing"]), make=False, mode="structured")
    structured.publish(name, event(data={"a": 1}))
    with opened(make=False).subscriber(name, "billing") as subscriber:  # binary reads it
        [delivery] = subscriber.receive(wait=10)
        assert dict(delivery.native.message.attributes) == {"content-type": "application/cloudevents+json"}
        assert delivery.event.data == {"a": 1}
        delivery.ack()


def test_a_stop_does_not_wait_for_a_pull_that_waits(opened: Opened, name: str) -> None:
    broker = opened(Topic(name, subscriptions=["billing"]))
    subscriber = broker.subscriber(name, "billing")
    waiting = threading.Thread(target=receive_unless_closed, args=(subscriber, 30.0))
    waiting.start()
    assert not wait_until(lambda: not waiting.is_alive(), 0.3)
    began = time.monotonic()
    subscriber.close()
    waiting.join(10)
    assert time.monotonic() - began < 10


def test_the_emulator_may_be_restarted_while_we_run(found: pubsub.Emulator, name: str) -> None:
    """It keeps nothing over a restart: what is published after it arrives, over the same objects."""
    topic = Topic(name, subscriptions=["billing"])
    with (
        found.started() as server,
        connect(f"gcp://ceb-test?endpoint=http://{server.address}", topics=[topic], retry=PATIENT) as broker,
    ):
        broker.topology.apply()
        handled: list[str] = []
        worker = broker.worker().add(name, "billing", lambda event: handled.append(event.id))
        worker.start()
        broker.publish(name, event("before"))
        assert wait_until(lambda: handled == ["before"], 10)
        server.stop()
        late: list[object] = []
        publishing = threading.Thread(target=lambda: late.append(broker.publish(name, event("between"), timeout=60)))
        server.restart()
        broker.topology.apply()
        publishing.start()
        publishing.join(60)
        broker.publish_many(name, [event(f"after-{n}") for n in range(50)], timeout=60)
        assert wait_until(lambda: len(set(handled)) == 52, 30), f"handled: {len(set(handled))} of 52"
        worker.close()


def test_nothing_is_lost_when_connections_break_under_load(emulator: Running, opened: Opened, name: str) -> None:
    billing = Subscription("billing", lease=2.0)  # what was on its way when the connection broke comes after that
    broker = opened(Topic(name, subscriptions=[billing]), retry=PATIENT)
    handled: set[str] = set()
    with broker.worker().add(name, "billing", lambda event: handled.add(event.id), concurrency=4):
        for round in range(5):
            broker.publish_many(name, [event(f"{round}-{n}") for n in range(100)], timeout=60)
            emulator.proxy.cut()
        assert wait_until(lambda: len(handled) == 500, 30), f"{len(handled)} of 500 events were handled"


def test_a_failed_key_can_be_published_again(opened: Opened, name: str) -> None:
    """Google's own publisher refuses a key after a failure until it is told to resume it; here the call says it all."""
    broker = opened(Topic(name, ordered=True, subscriptions=["billing"]))
    good, bad = event("1", partitionkey="k"), event("2", partitionkey="k", subject="s" * 2000)
    behind = event("3", partitionkey="k")
    with pytest.raises(PublishError) as caught:
        broker.publish_many(name, [good, bad, behind])
    assert [each.id for each, _ in caught.value.failed] == ["2", "3"]
    broker.publish(name, behind)
    with broker.subscriber(name, "billing") as subscriber:
        for id in ("1", "3"):
            [delivery] = subscriber.receive(wait=10)
            assert delivery.event.id == id
            delivery.ack()


def test_capabilities() -> None:
    with connect("gcp://my-project") as broker:
        missing = {Capability.DELAY, Capability.EXPIRY, Capability.DEDUPLICATION}
        assert broker.capabilities == set(Capability) - missing
        with pytest.raises(UnsupportedError, match="delay"):
            broker.publish("orders", event(), delay=1.0)


def test_a_closed_connection_says_so(opened: Opened, name: str) -> None:
    topic = Topic(name, subscriptions=["billing"])
    broker = opened(topic)
    connection = faulty.open_driver(broker.url)
    publisher = connection.open_publisher(driver.Topic(name))
    subscriber = connection.open_subscriber(driver.Subscription(driver.Topic(name), "billing"))
    publisher.send([Outbound(b"x", {})], timeout=5)
    connection.close()
    for use in (lambda: publisher.send([Outbound(b"x", {})], timeout=5), lambda: subscriber.receive(1, 0.0)):
        with pytest.raises(BridgeError) as caught:
            use()
        assert caught.value.code == ErrorCode.CLOSED


def test_the_order_example_runs_by_its_url_alone(found: pubsub.Emulator) -> None:
    """On an emulator of its own: the example's topic is always called `orders`."""
    with found.started() as server:
        order_example.check(f"gcp://shop?endpoint=http://{server.address}")
