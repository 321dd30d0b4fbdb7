"""What was given up: kept with its reason, found, replayed to its own subscription, and purged."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from scripted import NativeError, Scripted, Sent, busy, event, refused, until

from cloudevents_bridge import Broker, CloudEvent, DeadLetter, DeadLetters, Subscriber, Topic, UnsupportedError, connect
from cloudevents_bridge.driver import DEAD_LETTER, TARGET, Capability, Done, Fault
from cloudevents_bridge.errors import BridgeError, ErrorCode, InvalidArgumentError, NotFoundError, PermissionDeniedError
from cloudevents_bridge.obituary import Obituary, read, write

PLACE = "dead letters of orders/billing"


@pytest.fixture
def letters(broker: Broker) -> DeadLetters:
    return broker.dead_letters("orders", "billing")


@pytest.fixture
def copying(scripted: Scripted) -> Scripted:
    """A broker without a verb for dead-lettering."""
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, dead=False)
    return scripted


def subscriber(broker: Broker) -> Subscriber:
    return broker.subscriber("orders", "billing")


def dead(scripted: Scripted, what: CloudEvent | bytes, reason: str = "no good", **said: Any) -> None:
    text = msgspec.json.encode(Obituary(reason, **{"attempts": 3, "died": datetime.now(UTC), **said})).decode()
    scripted.put(what, place=PLACE, attributes={DEAD_LETTER: text})


def the_one(scripted: Scripted, id: str = "1", data: object = None) -> Any:
    scripted.put(event(id, "key", data))
    [delivery] = subscriber_of(scripted).receive()
    return delivery


def subscriber_of(scripted: Scripted) -> Subscriber:
    found: Subscriber = scripted.__dict__["subscriber"]
    return found


@pytest.fixture(autouse=True)
def _subscriber(broker: Broker, scripted: Scripted) -> None:
    scripted.__dict__["subscriber"] = broker.subscriber("orders", "billing")


# -- dead-lettering


def test_what_the_broker_is_told(scripted: Scripted) -> None:
    before = datetime.now(UTC)
    the_one(scripted).dead_letter("no such customer")
    told = json.loads(scripted.settles[0].reason)
    assert told.pop("died")
    assert told == {
        "reason": "no such customer",
        "attempts": 1,
        "topic": "orders",
        "subscription": "billing",
    }
    died = read(scripted.settles[0].reason).died
    assert died
    assert before <= died <= datetime.now(UTC)


def test_a_long_reason_is_cut(scripted: Scripted) -> None:
    the_one(scripted).dead_letter("ä" * 32_768)
    reason = read(scripted.settles[0].reason).reason
    assert len(reason) == 4096
    assert reason.endswith("ä…")


@pytest.mark.parametrize("reason", ["", "\ud800", 'quote " and \n control \x00', "🤷"])
def test_any_reason_can_be_given(scripted: Scripted, letters: DeadLetters, reason: str) -> None:
    the_one(scripted).dead_letter(reason)
    [letter] = letters.find()
    assert letter.reason == reason.encode("utf-8", "replace").decode()


def test_a_broker_that_cannot_gets_a_copy_then_an_ack(copying: Scripted) -> None:
    delivery = the_one(copying)
    order: list[str] = []
    usual = copying.on_send

    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        order.append(f"send to {sent.place}")
        assert copying.verbs() == []
        return usual(sent, timeout)

    copying.on_send = on_send
    delivery.dead_letter("no good")
    assert order == [f"send to {PLACE}"]
    assert copying.verbs() == ["ack"]
    [letter] = copying.letters()
    assert read(letter.attributes[DEAD_LETTER]).reason == "no good"
    assert (letter.body, letter.key) == (delivery._inbound.body, "key")


def test_a_copy_that_fails_keeps_the_event(copying: Scripted) -> None:
    delivery = the_one(copying)
    copying.on_send = lambda sent, timeout: [refused()]
    with pytest.raises(PermissionDeniedError, match="orders/billing"):
        delivery.dead_letter("no good")
    assert copying.verbs() == []
    delivery.nack(delay=0.0)
    assert copying.left() == 1


def test_a_copy_whose_ack_fails_is_listed_once(copying: Scripted, letters: DeadLetters) -> None:
    delivery = the_one(copying)
    copying.on_settle = lambda settled: [refused()]
    with pytest.raises(PermissionDeniedError):
        delivery.dead_letter("no good")
    copying.on_settle = lambda settled: None
    delivery.dead_letter("no good")
    assert len(copying.letters()) == 2
    [letter] = letters.find()
    assert letter.event == delivery.event


def test_a_busy_dead_letter_place_is_asked_again(copying: Scripted) -> None:
    delivery = the_one(copying)
    said: list[Any] = [busy(), NativeError(busy(maybe_applied=True))]

    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        if not said:
            return [Done()]
        answer = said.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [answer]

    copying.on_send = on_send
    delivery.dead_letter("no good")
    assert len({sent.batch[0].dedup for sent in copying.sends}) == 1
    assert copying.verbs() == ["ack"]


def test_each_death_has_a_fresh_deduplication_id(copying: Scripted) -> None:
    the_one(copying).dead_letter("once")
    the_one(copying).dead_letter("twice")
    assert len({sent.batch[0].dedup for sent in copying.sends}) == 2


def test_a_dead_letter_place_that_cannot_be_opened_keeps_the_event(
    copying: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery = the_one(copying)

    def open_publisher(self: object, to: object) -> None:
        raise NativeError(refused())

    monkeypatch.setattr("scripted.ScriptedConnection.open_publisher", open_publisher)
    with pytest.raises(PermissionDeniedError):
        delivery.dead_letter("no good")
    assert not delivery.lease_lost
    copying.put(b"undecodable")
    copying.put(event("2"))
    assert [each.event.id for each in subscriber_of(copying).receive()] == ["2"]


@pytest.mark.parametrize("room", [0, 50, 300, 2_000])
def test_an_event_at_the_size_limit_with_a_long_reason(copying: Scripted, letters: DeadLetters, room: int) -> None:
    delivery = the_one(copying, data="x" * 100)
    size = len(delivery._inbound.body) + sum(len(k) + len(v) for k, v in delivery._inbound.attributes.items())
    copying.send_traits = msgspec.structs.replace(copying.send_traits, message_bytes=size + room)
    delivery.dead_letter("r" * 32_768)
    [letter] = letters.find()
    assert letter.event == delivery.event
    if room < 100:
        assert letter.reason == "the broker gave no reason"
    else:
        assert letter.reason.startswith("rrr")
    assert copying.verbs()[0] == "ack"


def test_a_dead_letter_that_dies_again_has_the_new_reason_only(copying: Scripted) -> None:
    copying.put(event("1"), attributes={DEAD_LETTER: "old", TARGET: "billing"})
    [delivery] = subscriber_of(copying).receive()
    delivery.dead_letter("new")
    [letter] = copying.letters()
    assert read(letter.attributes[DEAD_LETTER]).reason == "new"
    assert TARGET not in letter.attributes


# -- find


def test_what_a_letter_says(scripted: Scripted, letters: DeadLetters) -> None:
    died = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    dead(scripted, event("1"), "no good", error="KeyError: 'a'", died=died, topic="orders", subscription="billing")
    [letter] = letters.find()
    assert letter == DeadLetter(
        letter.id, event("1"), letter.raw, "no good", "KeyError: 'a'", 3, "orders", "billing", died
    )
    assert letter.raw.native
    assert scripted.verbs() == ["release"]
    assert [again.id for again in letters.find()] == [letter.id]


def test_ids_are_stable_and_distinct(scripted: Scripted, broker: Broker, letters: DeadLetters) -> None:
    for what in (event("1"), event("2"), b"no event", b"nor this"):
        dead(scripted, what)
    first = [letter.id for letter in letters.find()]
    assert len(set(first)) == 4
    assert sorted(letter.id for letter in letters.find()) == sorted(first)
    scripted.put(event("1"), place="dead letters of orders/shipping")
    [other] = broker.dead_letters("orders", "shipping").find()
    assert other.id not in first


def test_what_cannot_be_decoded_is_there_intact(scripted: Scripted, letters: DeadLetters) -> None:
    dead(scripted, b"\xff\x00")
    [letter] = letters.find()
    assert letter.event is None
    assert letter.raw.body == b"\xff\x00"


@pytest.mark.parametrize("text", ["Rejected by the broker", "{}", "[1]", '{"reason": 7}', "\x00"])
def test_a_letter_of_the_brokers_own(scripted: Scripted, letters: DeadLetters, text: str) -> None:
    scripted.put(event("1"), place=PLACE, attributes={DEAD_LETTER: text})
    [letter] = letters.find()
    assert letter.reason == text
    assert letter.died.tzinfo is not None
    assert (letter.topic, letter.subscription) == ("orders", "billing")


def test_a_letter_without_a_word(scripted: Scripted, letters: DeadLetters) -> None:
    scripted.put(event("1"), place=PLACE)
    [letter] = letters.find()
    assert letter.reason == "the broker gave no reason"


def test_filters(scripted: Scripted, letters: DeadLetters) -> None:
    now = datetime.now(UTC)
    other = CloudEvent(type="com.other", source="/test", id="2")
    dead(scripted, event("1"), "No Customer", died=now - timedelta(days=2))
    dead(scripted, other, "timeout", error="TimeoutError: customer", died=now)
    dead(scripted, b"no event", "it cannot be decoded", died=now)

    def found(**by: Any) -> list[str | None]:
        return [letter.event.id if letter.event else None for letter in letters.find(**by)]

    assert sorted(found(), key=str) == ["1", "2", None]
    assert found(type="com.other") == ["2"]
    assert found(type="com.example.*") == ["1"]
    assert sorted(found(type="com.*"), key=str) == ["1", "2"]
    assert found(type="com") == []
    assert sorted(found(reason="CUSTOMER"), key=str) == ["1", "2"]
    assert found(reason="decoded") == [None]
    assert sorted(found(since=now - timedelta(days=1)), key=str) == ["2", None]
    assert found(type="com.*", reason="customer", since=now - timedelta(days=1)) == ["2"]
    assert len(found(limit=2)) == 2
    assert found(limit=0) == []
    assert len(found(limit=9)) == 3


def test_a_time_without_a_zone_is_refused(letters: DeadLetters) -> None:
    with pytest.raises(InvalidArgumentError, match="time zone"):
        next(letters.find(since=datetime(2026, 1, 1)))  # noqa: DTZ001


def test_copies_are_listed_once_and_go_together(scripted: Scripted, letters: DeadLetters) -> None:
    for _ in range(3):
        dead(scripted, event("1"))
    [letter] = letters.find()
    assert letters.purge([letter]) == 1
    assert list(letters.find()) == []
    assert not scripted.letters()


@pytest.mark.parametrize("call", ["replay", "purge"])
def test_copies_go_together_however_far_apart(scripted: Scripted, letters: DeadLetters, call: str) -> None:
    dead(scripted, event("1"))
    [wanted] = [letter.id for letter in letters.find()]
    for n in (*range(2, 30), 1, 30, 1):
        dead(scripted, event(str(n)))
    getattr(letters, call)([wanted])
    assert wanted not in [letter.id for letter in letters.find()]
    assert len(scripted.letters()) == 29
    assert len(scripted.sends) == (call == "replay")


def test_they_are_not_looked_for_in_all_of_a_large_place(
    scripted: Scripted, letters: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudevents_bridge.dead_letters.BEYOND", 20)
    dead(scripted, event("1"))
    [wanted] = [letter.id for letter in letters.find()]
    for n in range(200):
        dead(scripted, event(f"other {n}"))
    before = scripted.calls["receive"]
    letters.purge([wanted])
    assert scripted.calls["receive"] - before <= 4


def test_what_is_not_replayed_is_there_for_others_meanwhile(scripted: Scripted, letters: DeadLetters) -> None:
    for n in range(25):
        dead(scripted, event(str(n)))
    ids = [letter.id for letter in letters.find()]
    there: list[int] = []

    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        there.append(len(scripted.letters()))
        return [Done()]

    scripted.on_send = on_send
    letters.replay(ids[:3])
    assert there == [22, 22, 22]


def test_a_listing_that_is_left_gives_back_at_once(scripted: Scripted, letters: DeadLetters) -> None:
    for n in range(30):
        dead(scripted, event(str(n)))
    listing = letters.find()
    next(listing)
    assert len(scripted.letters()) == 20
    listing.close()  # type: ignore[attr-defined]
    assert len(scripted.letters()) == 30


def test_nothing_is_read_before_the_first_letter_is_asked_for(scripted: Scripted, letters: DeadLetters) -> None:
    letters.find()
    assert scripted.calls["receive"] == 0


def test_errors_say_which_place(scripted: Scripted, letters: DeadLetters) -> None:
    def on_receive() -> None:
        raise NativeError(refused(ErrorCode.NOT_FOUND))

    scripted.on_receive = on_receive
    with pytest.raises(NotFoundError, match="dead letters of orders/billing on scripted://here"):
        list(letters.find())


# -- replay


def test_a_replay_reaches_its_own_subscription_and_the_letter_goes_after_the_receipt(
    scripted: Scripted, letters: DeadLetters
) -> None:
    dead(scripted, event("1", "key"))
    dead(scripted, event("2"))

    def on_send(sent: Sent, timeout: float) -> Sequence[Done | Fault]:
        assert "ack" not in scripted.verbs()
        return [Done("receipt", "7")]

    scripted.on_send = on_send
    [letter] = letters.find(type="*", limit=1)
    [receipt] = letters.replay([letter])
    assert receipt == ("1", "receipt", "7")
    [sent] = scripted.sends
    assert sent.place == "subscription orders/billing"
    [message] = sent.batch
    assert message.key == "key"
    assert DEAD_LETTER not in message.attributes
    assert [(s.verb, s.ids) for s in scripted.settles if s.verb == "ack"] == [("ack", ["1"])]
    assert [letter.event for letter in letters.find()] == [event("2")]


def test_a_replay_has_a_fresh_deduplication_id(scripted: Scripted, letters: DeadLetters) -> None:
    for _ in range(2):
        dead(scripted, event("1"))
        letters.replay([letter.id for letter in letters.find()])
    one, two = (sent.batch[0].dedup for sent in scripted.sends)
    assert one != two
    assert "/test" not in str(one)


def test_a_replay_by_topic_is_marked_for_its_subscription(opened: Any, scripted: Scripted) -> None:
    scripted.direct = False
    broker = opened()
    scripted.exists = {"subscription orders/billing", "subscription orders/shipping"}
    dead(scripted, event("1"))
    letters = broker.dead_letters("orders", "billing")
    letters.replay(letters.find())
    [sent] = scripted.sends
    assert sent.place == "topic orders"
    assert sent.batch[0].attributes[TARGET] == "billing"
    assert [d.event for d in broker.subscriber("orders", "billing").receive(wait=0)] == [event("1")]
    assert broker.subscriber("orders", "shipping").receive(wait=0) == []
    assert scripted.left("subscription orders/shipping") == 0


def test_a_replay_to_a_topic_is_for_all(opened: Any, scripted: Scripted) -> None:
    scripted.direct = False
    broker = opened()
    dead(scripted, event("1"))
    letters = broker.dead_letters("orders", "billing")
    letters.replay(letters.find(), topic="orders-again")
    assert scripted.sends[0].place == "topic orders-again"
    assert TARGET not in scripted.sends[0].batch[0].attributes


def test_a_replay_is_refused_where_no_subscription_can_be_reached(opened: Any, scripted: Scripted) -> None:
    scripted.capabilities -= {Capability.REPLAY}
    letters = opened().dead_letters("orders", "billing")
    dead(scripted, event("1"))
    with pytest.raises(UnsupportedError, match="topic="):
        letters.replay([letter.id for letter in letters.find()])
    assert len(letters.replay(letters.find(), topic="orders")) == 1


def test_a_missing_id_and_nothing_is_replayed_or_purged(scripted: Scripted, letters: DeadLetters) -> None:
    dead(scripted, event("1"))
    [letter] = letters.find()
    for call in (letters.replay, letters.purge):
        with pytest.raises(NotFoundError, match="0123456789abcdef"):
            call([letter, "0123456789abcdef"])
    assert not scripted.sends
    assert [again.id for again in letters.find()] == [letter.id]


def test_one_letter_is_put_into_a_list(scripted: Scripted, letters: DeadLetters) -> None:
    dead(scripted, event("1"))
    [letter] = letters.find()
    wrong: Any = letter
    for call in (letters.replay, letters.purge):
        with pytest.raises(InvalidArgumentError, match="list"):
            call(wrong)
        with pytest.raises(InvalidArgumentError, match="list"):
            call(letter.id)


def test_nothing_to_do(scripted: Scripted, letters: DeadLetters) -> None:
    assert letters.replay([]) == []
    assert letters.purge([]) == 0
    assert scripted.calls["receive"] == 0


def test_a_replay_that_is_refused_keeps_the_rest(scripted: Scripted, letters: DeadLetters) -> None:
    for n in range(3):
        dead(scripted, event(str(n)))
    scripted.on_send = lambda sent, timeout: [refused() if sent.ids == ["1"] else Done()]
    with pytest.raises(PermissionDeniedError, match="event 1"):
        letters.replay(letters.find())
    scripted.on_send = lambda sent, timeout: [Done()]
    rest = letters.replay(letters.find())
    assert sorted(receipt.event_id for receipt in rest) == ["1", "2"]
    assert list(letters.find()) == []


def test_replay_and_purge_while_listing(scripted: Scripted, letters: DeadLetters) -> None:
    for n in range(15):
        dead(scripted, event(str(n)))
    for letter in letters.find():
        assert letter.event
        if int(letter.event.id) % 2:
            letters.replay([letter])
        else:
            assert letters.purge([letter]) == 1
    assert list(letters.find()) == []
    assert len(scripted.sends) == 7


def test_a_slow_replay_keeps_the_leases(scripted: Scripted, letters: DeadLetters) -> None:
    scripted.lease = 0.3
    for n in range(6):
        dead(scripted, event(str(n)))
    begun = time.monotonic()
    assert len(letters.replay(letters.find(), rate=10.0)) == 6
    assert time.monotonic() - begun >= 0.5
    assert scripted.calls["extend"] >= 1


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_a_rate_that_is_none(letters: DeadLetters, rate: float) -> None:
    with pytest.raises(InvalidArgumentError, match="rate"):
        letters.replay(["x"], rate=rate)


def test_nothing_stays_open(scripted: Scripted, letters: DeadLetters) -> None:
    dead(scripted, event("1"))
    before = len(scripted.opened)
    letters.replay(letters.find())
    assert all(each.closed for each in scripted.opened[before:])


def test_obituaries_are_small() -> None:
    from cloudevents_bridge import driver

    of = driver.Subscription(driver.Topic("orders"), "billing")
    text = write(of, 3, "x" * 100_000, ValueError("y" * 100_000))
    assert len(text) < 9_000
    said = read(text)
    assert said.error
    assert said.error.startswith("ValueError: yyy")


def test_on_a_real_broker() -> None:
    topics = [Topic("orders", subscriptions=["billing", "shipping"])]
    with connect("memory://", topics=topics, create_missing=True) as broker:
        broker.publish_many("orders", [event(str(n)) for n in range(3)])
        with broker.subscriber("orders", "billing") as consumer, broker.subscriber("orders", "shipping") as other:
            for delivery in consumer.receive():
                delivery.dead_letter(f"reason {delivery.event.id}")
            other.ack_many(other.receive())
            letters = broker.dead_letters("orders", "billing")
            assert [letter.reason for letter in letters.find()] == ["reason 0", "reason 1", "reason 2"]
            letters.replay(letters.find(reason="reason 1"))
            [again] = consumer.receive(wait=0)
            assert (again.event, again.attempt) == (event("1"), 1)
            again.ack()
            assert other.receive(wait=0) == []
            assert letters.purge(letters.find()) == 2
            assert list(letters.find()) == []


def test_the_errors_are_ours(scripted: Scripted, letters: DeadLetters) -> None:
    dead(scripted, event("1"))
    scripted.on_settle = lambda settled: [refused()] if settled.verb == "ack" else None
    with pytest.raises(BridgeError) as caught:
        letters.replay([letter.id for letter in letters.find()])
    assert caught.value.broker == "scripted://here"
    until(lambda: len(scripted.letters()) == 1)
