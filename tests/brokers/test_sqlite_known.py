"""What a connection remembers of a topic from one send to the next holds only while nobody changes the topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cloudevents_bridge.driver import Subscription, Topic
from cloudevents_bridge.errors import NotFoundError

Say = Callable[[], tuple[str | None, int | None]]


@pytest.fixture
def say(rig: Any) -> Say:
    """Send one event, always through the same driver, and give its sequence and how many subscriptions it reached."""
    rig.make(rig.topic, rig.billing)
    publisher = rig.publisher(rig.topic)

    def send() -> tuple[str | None, int | None]:
        [done] = publisher.send([rig.message("x")], timeout=5.0)
        return done.sequence, done.reached

    assert [send(), send()] == [("1", 1), ("2", 1)]
    return send


@pytest.fixture(params=["this connection", "another connection"])
def topology(request: pytest.FixtureRequest, rig: Any) -> Any:
    return (rig.broker if request.param == "this connection" else rig.connect()).topology


def test_a_subscription_that_comes_or_goes_is_noticed(rig: Any, say: Say, topology: Any) -> None:
    topology.apply(topology.diff([rig.audit]))
    assert say() == ("3", 2)
    assert rig.bodies(rig.take(rig.audit)) == ["x"]
    topology.delete(rig.audit)
    assert say() == ("4", 1)
    topology.delete(rig.billing)
    assert [say(), say()] == [("5", 0), ("6", 0)]
    topology.apply(topology.diff([rig.billing]))
    assert say() == ("7", 1)
    assert len(rig.take(rig.billing)) == 1


def test_a_topic_that_goes_is_noticed(rig: Any, say: Say, topology: Any) -> None:
    topology.delete(rig.topic)
    with pytest.raises(NotFoundError, match="topic orders does not exist"):
        say()
    topology.apply(topology.diff([rig.topic, rig.billing]))
    assert say() == ("1", 1)
    assert len(rig.take(rig.billing)) == 1


def test_a_deduplication_window_that_is_set_is_noticed(rig: Any, say: Say, topology: Any) -> None:
    topology.apply(topology.diff([Topic("orders", native={"deduplication": 60})]))
    assert [say(), say()] == [("3", 1), ("3", 1)]


def test_a_subscription_that_expires_is_noticed(rig: Any, say: Say) -> None:
    rig.make(Subscription(rig.topic, "tail", expires=60.0))
    assert say() == ("3", 2)
    rig.time.pass_(61)
    say()  # its housekeeping comes after the event
    assert say() == ("5", 1)


def test_what_others_publish_is_counted(rig: Any, say: Say) -> None:
    other, direct = rig.connect().open_publisher(rig.topic), rig.publisher(rig.billing)
    for sequence in range(3, 12, 3):
        assert say()[0] == str(sequence)
        for publisher in (other, direct):
            [done] = publisher.send([rig.message("y")], timeout=5.0)
        assert done.sequence == str(sequence + 2)
    assert rig.bodies(rig.take(rig.billing)) == ["x", "x", *["x", "y", "y"] * 3]


def test_a_send_that_failed_has_used_up_nothing(rig: Any, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patch:
        patch.setattr("cloudevents_bridge.brokers.sqlite.publisher.tend", fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            say()
    assert say() == ("3", 1)
    assert len(rig.take(rig.billing)) == 3
