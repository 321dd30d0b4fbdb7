"""`aws-sqs://`, queues without topics, on MiniStack; and the whole-queue move of dead letters, which is SQS's own.

What the library does beyond the broker is in the contract suite's columns for `aws://`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cloudevents_bridge import BridgeError, Broker, Capability, CloudEvent, Subscription, Topic, connect
from cloudevents_bridge.errors import ErrorCode, NotFoundError, UnsupportedError
from cloudevents_bridge_aws.moving import move_dead_letters
from cloudevents_bridge_contract import NotRun, aws
from cloudevents_bridge_contract.emulators.localstack import localstack
from cloudevents_bridge_contract.emulators.ministack import ministack
from cloudevents_bridge_contract.emulators.process import wait_until

Placed = Callable[..., tuple[Broker, str]]


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")


@pytest.fixture
def port() -> int:
    return _port(ministack)


def _port(make: Any) -> int:
    try:
        return aws.running(make).port
    except NotRun as missing:
        pytest.skip(f"not run: {missing}")


@pytest.fixture
def placed(port: int) -> Iterator[Placed]:
    """A topic that is a queue, and its broker."""
    made: list[Broker] = []

    def place(**options: Any) -> tuple[Broker, str]:
        name = f"queue-{uuid.uuid4().hex[:8]}"
        own = Subscription(name, lease=5.0, max_attempts=1)
        broker = connect(_url("aws-sqs", port), topics=[Topic(name, subscriptions=[own], **options)], poll=1)
        made.append(broker)
        broker.topology.apply()
        return broker, name

    yield place
    for broker in made:
        broker.topology.delete()
        broker.close()


def _url(scheme: str, port: int) -> str:
    return f"{scheme}://{aws.REGION}?account=000000000000&endpoint=http://127.0.0.1:{port}"


def _events(count: int, **attributes: Any) -> list[CloudEvent]:
    return [CloudEvent(type="t", source="/s", id=str(n), data={"n": n}, **attributes) for n in range(count)]


def _take(broker: Broker, name: str, count: int) -> list[CloudEvent]:
    taken: list[CloudEvent] = []
    deadline = time.monotonic() + 30
    with broker.subscriber(name, name) as subscriber:
        while len(taken) < count:
            assert time.monotonic() < deadline, f"{len(taken)} of {count} came"
            deliveries = subscriber.receive(10, wait=1)
            taken += [each.event for each in deliveries]
            subscriber.ack_many(deliveries)
        assert subscriber.receive(10, wait=0) == []
    return taken


def test_what_is_published_is_consumed(placed: Placed) -> None:
    broker, name = placed()
    first, *others = _events(25)
    assert broker.publish(name, first).native_id
    assert len({receipt.native_id for receipt in broker.publish_many(name, others)}) == 24
    assert sorted(_take(broker, name, 25), key=lambda event: int(event.id)) == [first, *others]


def test_worker_consumes_it(placed: Placed) -> None:
    broker, name = placed()
    broker.publish_many(name, _events(25))
    seen: set[str] = set()
    with broker.worker().add(name, name, lambda event: seen.add(event.id)) as worker:
        assert wait_until(lambda: len(seen) == 25, 30), f"{len(seen)} of 25 came"
    assert (worker.stats.handled, worker.stats.failed) == (25, 0)


def test_delay(placed: Placed) -> None:
    broker, name = placed()
    begun = time.monotonic()
    broker.publish(name, _events(1)[0], delay=2)
    with broker.subscriber(name, name) as subscriber:
        assert subscriber.receive(1, wait=0) == []
    [event] = _take(broker, name, 1)
    assert event.id == "0"
    assert time.monotonic() - begun >= 1.9
    assert broker.publish(name, _events(1)[0], delay=900).native_id
    with pytest.raises(BridgeError, match="900") as caught:
        broker.publish(name, _events(1)[0], delay=901)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT


def test_order(placed: Placed) -> None:
    broker, name = placed(ordered=True)
    events = [event.replace(partitionkey="ab"[int(event.id) % 2]) for event in _events(12)]
    broker.publish_many(name, events)
    broker.publish(name, events[0])  # the same source and id: within five minutes it is the same event
    taken = _take(broker, name, 12)
    for key in "ab":
        assert [event for event in taken if event.partitionkey == key] == [e for e in events if e.partitionkey == key]
    with pytest.raises(BridgeError, match="FIFO"):
        broker.publish(name, events[0], delay=1)


def test_dead_letters(placed: Placed) -> None:
    broker, name = placed()
    broker.publish_many(name, _events(3))

    def fail(event: CloudEvent) -> None:
        raise ValueError(f"not {event.id}")

    with broker.worker().add(name, name, fail) as worker:
        assert wait_until(lambda: worker.stats.dead_lettered == 3, 30), f"{worker.stats.dead_lettered} of 3 died"
    letters = broker.dead_letters(name, name)
    found = sorted(letters.find(), key=lambda letter: letter.event.id if letter.event else "")
    assert [letter.error for letter in found] == [f"ValueError: not {n}" for n in range(3)]
    assert letters.purge(found[:1]) == 1
    assert len(letters.replay(found[1:])) == 2
    assert list(letters.find()) == []
    assert {event.id for event in _take(broker, name, 2)} == {"1", "2"}


def test_topology(placed: Placed) -> None:
    broker, name = placed()
    assert not list(broker.topology.plan())
    sqs = broker.native.sqs
    names = sorted(each.rpartition("/")[2] for each in sqs.list_queues(QueueNamePrefix=name)["QueueUrls"])
    assert names == [name, f"{name}--dlq"]
    broker.topology.delete()
    assert not sqs.list_queues(QueueNamePrefix=name).get("QueueUrls")
    with pytest.raises(NotFoundError):
        broker.publish(name, _events(1)[0])
    broker.topology.apply()


def test_what_it_declares() -> None:
    with connect(f"aws-sqs://{aws.REGION}?account=000000000000") as broker:
        assert Capability.DELAY in broker.capabilities
        assert Capability.TAIL not in broker.capabilities


@pytest.mark.parametrize("ordered", [False, True])
def test_letters_that_sqs_itself_moves_are_delivered(ordered: bool) -> None:
    name = f"moved-{uuid.uuid4().hex[:8]}"
    topic = Topic(name, subscriptions=[Subscription("reader", lease=5.0)], ordered=ordered)
    with connect(_url("aws", _port(localstack)), topics=[topic], poll=1) as broker:
        broker.topology.apply()
        events = _events(3)
        broker.publish_many(name, events)
        left = 3
        with broker.subscriber(name, "reader") as subscriber:
            while left:
                for delivery in subscriber.receive(10, wait=5):
                    delivery.dead_letter("later")
                    left -= 1
        assert move_dead_letters(broker, name, "reader", rate=100) == 3
        seen: list[CloudEvent] = []
        deadline = time.monotonic() + 30
        with broker.subscriber(name, "reader") as subscriber:
            while len(seen) < 3:
                assert time.monotonic() < deadline, f"{len(seen)} of 3 came"
                for delivery in subscriber.receive(10, wait=1):
                    with delivery as event:
                        seen.append(event)
        assert sorted(seen, key=lambda event: event.id) == events
        assert list(broker.dead_letters(name, "reader").find()) == []
        assert move_dead_letters(broker, name, "reader") == 0
        broker.topology.delete()


def test_a_service_without_such_a_move_says_so(placed: Placed) -> None:
    broker, name = placed()
    with pytest.raises(UnsupportedError, match="dead letters of"):
        move_dead_letters(broker, name, name)
