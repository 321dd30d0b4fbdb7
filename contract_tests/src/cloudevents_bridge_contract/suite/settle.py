"""What happens to a delivery, and where it goes when it is given up on."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from cloudevents_bridge import (
    BridgeError,
    Capability,
    DeadLetter,
    LeaseLostError,
    Reject,
    Retry,
    RetryPolicy,
    SettleError,
    Subscriber,
    Topic,
)
from cloudevents_bridge.errors import NotFoundError
from cloudevents_bridge_contract.bench import Bench, native_place


class SettleCases:
    def test_ack_is_final(self, bench: Bench) -> None:
        topic = bench.topic(lease=(lease := max(1.0, bench.lease)))
        bench.publish(topic, *bench.events(3))
        subscriber = bench.subscriber(topic)
        for delivery in bench.gather(subscriber, 3, ack=False):
            delivery.ack()
        bench.nothing(subscriber, 2 * lease, "it was acked")

    def test_nack_comes_back(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, event := bench.event())
        subscriber = bench.subscriber(topic)
        bench.one(subscriber, event).nack()
        again = bench.one(subscriber, event)
        assert again.attempt == 2
        again.ack()

    def test_nack_with_delay_comes_back_no_earlier(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, event := bench.event())
        subscriber = bench.subscriber(topic)
        delivery = bench.one(subscriber, event)
        began = time.monotonic()
        delivery.nack(delay=1.0)
        again = bench.one(subscriber, event)
        took = time.monotonic() - began
        again.ack()
        assert took >= 0.95, f"it came back after {took:.2f} s, asked was 1 s"
        assert again.attempt == 2

    def test_nack_with_a_delay_beyond_the_lease(self, bench: Bench) -> None:
        topic = bench.topic(lease=(lease := max(1.0, bench.lease)))
        bench.publish(topic, event := bench.event())
        subscriber = bench.subscriber(topic)
        delay = 2.5 * lease
        delivery = bench.one(subscriber, event)
        began = time.monotonic()
        delivery.nack(delay=delay)
        if Capability.EXTEND in bench.capabilities:
            other = bench.subscriber(topic)
            again = bench.one(other, event, patience=delay + bench.rig.patience)
            took = time.monotonic() - began
            again.ack()
            assert took >= 0.95 * delay, f"it came back after {took:.2f} s, asked was {delay:.2f} s"
            assert again.attempt == 2
        bench.nothing(subscriber, lease, "it was acked")

    def test_nack_without_a_delay_backs_off(self, bench: Bench) -> None:
        topic = bench.topic(redelivery=RetryPolicy(attempts=None, initial=1.0, maximum=1.0))
        bench.publish(topic, *bench.events(20))
        subscriber = bench.subscriber(topic)
        deliveries = bench.gather(subscriber, 20, ack=False)
        began = time.monotonic()
        for delivery in deliveries:
            delivery.nack()
        bench.gather(subscriber, 20, batch=1)
        took = time.monotonic() - began
        assert took > 0.5, f"twenty failed runs were all repeated within {took:.2f} s: the back-off is up to 1 s"

    def test_interrupted_block_gives_back_at_once(self, bench: Bench) -> None:
        topic = bench.topic(max_attempts=1)
        bench.publish(topic, event := bench.event())
        subscriber = bench.subscriber(topic)
        with pytest.raises(KeyboardInterrupt), bench.one(subscriber, event):
            raise KeyboardInterrupt
        again = bench.one(subscriber, event)
        free = bench.driver().open_subscriber(native_place(topic, 0)).traits.free_release
        assert again.attempt == (1 if free else 2), "an interrupt spent an attempt"
        again.ack()
        assert bench.letters(topic, 0) == [], "an interrupt dead-lettered the event"

    def test_unsettled_comes_back_after_the_lease(self, bench: Bench) -> None:
        lease = max(1.0, bench.lease)
        topic = bench.topic(lease=lease)
        first, second = bench.subscriber(topic), bench.subscriber(topic)
        bench.publish(topic, event := bench.event())
        began = time.monotonic()
        bench.one(first, event)
        held = time.monotonic()
        again = bench.one(second, event, patience=lease + bench.rig.patience)
        came = time.monotonic()
        again.ack()
        assert came - began >= 0.9 * lease, f"a lease of {lease} s lasted {came - began:.2f} s"
        assert came - held <= lease + bench.rig.wakeup, f"a lease of {lease} s lasted {came - held:.2f} s"
        assert again.attempt == 2

    def test_extend_keeps_it_away(self, bench: Bench) -> None:
        topic = bench.topic(lease=(lease := max(1.0, bench.lease)))
        subscriber, other = bench.subscriber(topic), bench.subscriber(topic)
        other.receive(wait=0)  # connected before the lease runs
        bench.publish(topic, event := bench.event())
        delivery = bench.one(subscriber, event)
        bench.requires(Capability.EXTEND, lambda: delivery.extend(lease))
        for _ in range(4):
            delivery.extend(lease)
            bench.nothing(other, lease / 2, "its lease was extended")
        assert not delivery.lease_lost
        delivery.ack()
        bench.nothing(subscriber, 1.5 * lease, "it was acked")

    def test_double_ack_is_harmless(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, event := bench.event())
        subscriber = bench.subscriber(topic)
        delivery = bench.one(subscriber, event)
        delivery.ack()
        delivery.ack()
        subscriber.ack_many([delivery])
        bench.nothing(subscriber, 0.2, "it was acked")

    def test_settling_otherwise_afterwards_is_an_error(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, *bench.events(2))
        subscriber = bench.subscriber(topic)
        acked, nacked = bench.gather(subscriber, 2, ack=False)
        acked.ack()
        nacked.nack(delay=0)
        settlings: list[Callable[[], None]] = [
            acked.nack,
            lambda: acked.dead_letter("no"),
            lambda: acked.extend(1),
            nacked.ack,
            lambda: nacked.dead_letter("no"),
        ]
        for late in settlings:
            with pytest.raises(BridgeError):
                late()
        again = bench.one(subscriber, nacked.event)
        again.ack()
        bench.nothing(subscriber, 0.2, "both were acked")

    def test_settle_after_a_lost_lease_is_lease_lost(self, bench: Bench) -> None:
        topic = bench.topic(lease=(lease := max(1.0, bench.lease)))
        bench.publish(topic, event := bench.event())
        first, second = bench.subscriber(topic), bench.subscriber(topic)
        stale = bench.one(first, event)
        fresh = bench.one(second, event, patience=lease + bench.rig.patience)
        assert stale.lease_lost
        settlings: list[Callable[[], None]] = [stale.ack, stale.nack, lambda: stale.dead_letter("no")]
        if Capability.EXTEND in bench.capabilities:
            settlings.append(lambda: stale.extend(1))
        for late in settlings:
            with pytest.raises(LeaseLostError):
                late()
        fresh.ack()
        bench.nothing(second, 1.5 * lease, "the second consumer acked it")
        assert list(bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name).find()) == []

    def test_stale_ack_leaves_the_second_delivery_alone(self, bench: Bench) -> None:
        topic = bench.topic(lease=(lease := max(1.0, bench.lease)))
        bench.publish(topic, event := bench.event())
        first, second = bench.subscriber(topic), bench.subscriber(topic)
        stale = bench.one(first, event)
        fresh = bench.one(second, event, patience=lease + bench.rig.patience)
        with pytest.raises(LeaseLostError):
            stale.ack()
        fresh.nack(delay=0)
        again = bench.one(second, event)
        assert again.attempt == 3
        again.ack()

    def test_one_bad_receipt_does_not_spoil_the_batch(self, bench: Bench) -> None:
        topic = bench.topic(lease=max(1.0, 2 * bench.lease))
        bench.publish(topic, event := bench.event())
        subscriber, other = bench.subscriber(topic), bench.subscriber(topic)
        stale = bench.one(subscriber, event)
        fresh = bench.one(other, event, patience=2 + bench.lease * 2 + bench.rig.patience)
        fresh.ack()
        bench.publish(topic, *(good := bench.events(4)))
        deliveries = bench.gather(subscriber, 4, ack=False)
        with pytest.raises(SettleError) as caught:
            subscriber.ack_many([*deliveries[:2], stale, *deliveries[2:]])
        assert [(d.event.id, type(e)) for d, e in caught.value.failed] == [(event.id, LeaseLostError)]
        bench.nothing(subscriber, 2 * max(1.0, 2 * bench.lease), f"the {len(good)} others were acked")

    def test_many_acks_at_once(self, bench: Bench) -> None:
        topic = bench.topic(lease=max(5.0, 3 * bench.lease))
        count = bench.many(250)
        bench.publish(topic, *bench.events(count))
        subscriber = bench.subscriber(topic)
        deliveries = bench.gather(subscriber, count, ack=False)
        subscriber.ack_many(iter(deliveries))
        bench.nothing(subscriber, 0.3, "all were acked")

    def test_leaving_the_block_settles(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, event := bench.event())
        subscriber = bench.subscriber(topic)
        with pytest.raises(ZeroDivisionError), bench.one(subscriber, event):
            raise ZeroDivisionError
        began = time.monotonic()
        with pytest.raises(Retry), bench.one(subscriber, event):
            raise Retry(delay=0.5)
        delivery = bench.one(subscriber, event)
        assert time.monotonic() - began >= 0.45, "Retry(0.5) was not obeyed"
        assert delivery.attempt == 3
        with delivery as inside:
            assert inside == event
        bench.nothing(subscriber, 0.2, "the block ended well")
        bench.publish(topic, rejected := bench.event())
        with pytest.raises(Reject), bench.one(subscriber, rejected):
            raise Reject("of no use")
        [letter] = bench.letters(topic, 1)
        assert (letter.event, letter.reason, letter.attempts) == (rejected, "of no use", 1)

    def test_dead_letter_after_max_attempts(self, bench: Bench) -> None:
        topic = bench.topic(max_attempts=3)
        bench.publish(topic, event := bench.event())
        subscriber = bench.subscriber(topic)
        began = datetime.now(UTC)
        for attempt in (1, 2, 3):
            delivery = bench.one(subscriber, event)
            assert delivery.attempt == attempt
            with pytest.raises(ValueError, match="cannot"), delivery:
                raise ValueError("cannot be handled")
        bench.nothing(subscriber, 0.3, "its attempts are spent")
        [letter] = bench.letters(topic, 1)
        assert letter.event == event
        assert (letter.topic, letter.subscription) == (topic.name, topic.subscriptions[0].name)
        assert letter.attempts == 3
        assert "3" in letter.reason, f"the reason does not say how often it failed: {letter.reason}"
        assert letter.error is not None
        assert "cannot be handled" in letter.error, f"the error is lost: {letter.error}"
        assert began - timedelta(minutes=1) < letter.died < datetime.now(UTC) + timedelta(minutes=1)

    def test_nack_at_the_last_attempt_is_dead_lettered(self, bench: Bench) -> None:
        topic = bench.topic(2, max_attempts=2)
        bench.publish(topic, event := bench.event())
        subscriber = bench.subscriber(topic)
        bench.one(subscriber, event).nack(delay=0)
        bench.one(subscriber, event).nack(delay=0)
        [letter] = bench.letters(topic, 1)
        assert (letter.event, letter.attempts) == (event, 2)
        bench.one(bench.subscriber(topic, 1), event).ack()
        assert bench.letters(topic, 0, 1) == [], "the other subscription has the dead letter too"

    def test_explicit_dead_letter(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, event := bench.event(data=b"\x00\xff"))
        subscriber = bench.subscriber(topic)
        bench.one(subscriber, event).dead_letter("r\u00e9ason: \u65e5 'quoted' \n second line")
        bench.nothing(subscriber, 0.2, "it was dead-lettered")
        [letter] = bench.letters(topic, 1)
        assert letter.event == event
        assert letter.reason == "r\u00e9ason: \u65e5 'quoted' \n second line"
        assert letter.attempts == 1
        assert (letter.topic, letter.subscription) == (topic.name, topic.subscriptions[0].name)

    def test_delivery_that_is_never_settled_ends_as_dead_letter(self, bench: Bench) -> None:
        topic = bench.topic(lease=(lease := max(1.0, bench.lease)), max_attempts=1)
        bench.publish(topic, event := bench.event())
        subscriber = bench.subscriber(topic)
        attempts = 0

        def dead() -> bool:
            nonlocal attempts
            attempts += len(subscriber.receive(wait=lease))
            return bool(list(place.find()))

        place = bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name)
        bench.eventually(dead, "the dead letter", patience=10 * lease + bench.rig.patience)
        assert attempts == 3, f"it was delivered {attempts} times: 3 x max_attempts is the bound"
        [letter] = bench.letters(topic, 1)
        assert letter.event == event

    def test_dead_letters_are_found_by_filter(self, bench: Bench) -> None:
        topic = bench.topic()
        events = [bench.event(type=f"com.example.contract.{kind}") for kind in "aab"]
        bench.publish(topic, *events)
        subscriber = bench.subscriber(topic)
        for delivery in bench.gather(subscriber, 3, ack=False):
            delivery.dead_letter(f"reason {delivery.event.type[-1]}")
        letters = bench.letters(topic, 3)
        assert len({letter.id for letter in letters}) == 3
        place = bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name)
        a_type = "com.example.contract.a"
        assert {x.event.type for x in place.find(type=a_type) if x.event} == {a_type}
        assert [x.reason for x in place.find(reason="reason b")] == ["reason b"]
        assert len(list(place.find(limit=2))) == 2
        assert list(place.find(since=datetime.now(UTC) + timedelta(hours=1))) == []
        assert len(list(place.find(since=datetime.now(UTC) - timedelta(hours=1)))) == 3
        assert {x.id for x in place.find()} == {x.id for x in letters}, "looking at dead letters changed them"

    def test_replay_one(self, bench: Bench) -> None:
        topic = bench.topic()
        subscriber, letters = _died(bench, topic, 3)
        place = bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name)
        bench.requires(Capability.REPLAY, lambda: place.replay(letters[:1]))
        [receipt] = place.replay([letters[1].id])
        assert letters[1].event is not None
        assert receipt.event_id == letters[1].event.id
        again = bench.one(subscriber, letters[1].event)
        assert again.attempt == 1, "a replay begins anew"
        again.ack()
        assert {x.id for x in bench.letters(topic, 2)} == {letters[0].id, letters[2].id}
        bench.nothing(subscriber, 0.2, "only one dead letter was replayed")

    def test_replay_all(self, bench: Bench) -> None:
        topic = bench.topic()
        subscriber, letters = _died(bench, topic, 12)
        place = bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name)
        bench.requires(Capability.REPLAY, lambda: place.replay(letters))
        assert len(place.replay(place.find())) == 12
        arrived = {d.event.id: d.event for d in bench.gather(subscriber, 12)}
        assert arrived == {x.event.id: x.event for x in letters if x.event}
        assert bench.letters(topic, 0) == []

    def test_replay_into_another_topic(self, bench: Bench) -> None:
        topic, other = bench.topic(), bench.topic()
        _, [letter] = _died(bench, topic, 1)
        broker = bench.broker(topic, other)
        place = broker.dead_letters(topic.name, topic.subscriptions[0].name)
        place.replay([letter], topic=other.name)
        bench.one(bench.subscriber(other), letter.event).ack()
        bench.nothing(bench.subscriber(topic), 0.2, "it was replayed into another topic")

    def test_replay_of_what_is_not_there_is_not_found(self, bench: Bench) -> None:
        topic = bench.topic()
        place = bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name)
        bench.requires(Capability.REPLAY, lambda: place.replay(["no-such-letter"]))
        with pytest.raises(NotFoundError):
            place.replay(["no-such-letter"])

    def test_purge(self, bench: Bench) -> None:
        topic = bench.topic()
        subscriber, letters = _died(bench, topic, 4)
        place = bench.broker(topic).dead_letters(topic.name, topic.subscriptions[0].name)
        assert place.purge(letters[:1]) == 1
        assert {x.id for x in bench.letters(topic, 3)} == {x.id for x in letters[1:]}
        assert place.purge(place.find()) == 3
        assert bench.letters(topic, 0) == []
        bench.nothing(subscriber, 0.2, "it was purged")


def _died(bench: Bench, topic: Topic, count: int) -> tuple[Subscriber, list[DeadLetter]]:
    """A consumer of the topic's first subscription, and its dead letters."""
    bench.publish(topic, *bench.events(count))
    subscriber = bench.subscriber(topic)
    for delivery in bench.gather(subscriber, count, ack=False):
        delivery.dead_letter("the case wants it dead")
    return subscriber, bench.letters(topic, count)
