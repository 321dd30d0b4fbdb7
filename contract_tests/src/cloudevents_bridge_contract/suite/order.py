"""Order per key, where a broker declares it: first deliveries come as they were published."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence

import msgspec
import pytest

from cloudevents_bridge import BridgeError, CloudEvent, PublishError, Topic
from cloudevents_bridge.driver import Outbound, PublisherDriver, SendTraits
from cloudevents_bridge.errors import ErrorCode
from cloudevents_bridge_contract.bench import QUICK, Bench, keys, together
from cloudevents_bridge_contract.faulty import Outcomes, Shim, To, one_by_one, refused


class Seen:
    """The events in the order in which consumers first saw them."""

    def __init__(self) -> None:
        self.order: dict[str | None, list[str]] = defaultdict(list)
        self.ids: set[str] = set()
        self._lock = threading.Lock()

    def note(self, events: Sequence[CloudEvent]) -> None:
        with self._lock:
            for event in events:
                if event.id not in self.ids:
                    self.ids.add(event.id)
                    self.order[event.partitionkey].append(event.id)

    def expect(self, events: Sequence[CloudEvent]) -> None:
        wanted: dict[str | None, list[str]] = defaultdict(list)
        for event in events:
            wanted[event.partitionkey].append(event.id)
        for key, order in wanted.items():
            assert self.order[key] == order, f"key {key}: published {order}, first delivered {self.order[key]}"


def _consume(bench: Bench, topic: Topic, seen: Seen, count: int, consumers: int = 1) -> None:
    """Consume until so many events were seen, by several consumers at once."""
    deadline = time.monotonic() + 3 * bench.rig.patience

    def run() -> None:
        subscriber = bench.subscriber(topic)
        while len(seen.ids) < count and time.monotonic() < deadline:
            deliveries = subscriber.receive(10, wait=0.2)
            seen.note([d.event for d in deliveries])
            subscriber.ack_many(deliveries)
        subscriber.close()

    together([run] * consumers)
    assert len(seen.ids) == count, f"only {len(seen.ids)} of {count} events arrived in time"


def _keyed(bench: Bench, count: int, key_count: int) -> list[CloudEvent]:
    return [bench.event(partitionkey=f"key-{n % key_count}") for n in range(count)]


class OrderCases:
    def test_order_per_key_with_concurrent_consumers(self, bench: Bench) -> None:
        topic = bench.topic(ordered=True)
        events = _keyed(bench, bench.many(1000), 20)
        seen = Seen()
        publisher = bench.publisher(topic)

        def publish() -> None:
            for start in range(0, len(events), 250):
                publisher.publish_many(events[start : start + 250])

        together([publish, lambda: _consume(bench, topic, seen, len(events), 4)])
        seen.expect(events)

    def test_order_of_submitted_events(self, bench: Bench) -> None:
        topic = bench.topic(ordered=True)
        events = _keyed(bench, bench.many(200), 5)
        publisher = bench.publisher(topic)
        for event in events:
            publisher.submit(event)
        publisher.flush()
        seen = Seen()
        _consume(bench, topic, seen, len(events), 2)
        seen.expect(events)

    def test_order_survives_retries(self, bench: Bench) -> None:
        class Flaky(Shim):
            def __init__(self) -> None:
                super().__init__()
                self.calls = 0
                self.refused: set[bytes] = set()

            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                bodies = {message.body for message in batch}
                with self.lock:
                    self.calls += 1
                    # Each event once: three keys in turn would else be one that always is the third.
                    refuse = self.calls % 3 == 1 and not bodies & self.refused
                    self.refused |= bodies if refuse else set()
                if refuse:
                    return [refused(ErrorCode.UNAVAILABLE, "busy", retryable=True)] * len(batch)
                return inner.send(batch, timeout=timeout)

            def send_traits(self, traits: SendTraits) -> SendTraits:
                return msgspec.structs.replace(traits, batch_count=min(traits.batch_count, 4), sends=4)

        topic = bench.topic(ordered=True)
        events = _keyed(bench, 60, 3)
        bench.broker(topic, shim=Flaky(), retry=QUICK).publish_many(topic.name, events)
        seen = Seen()
        _consume(bench, topic, seen, len(events))
        seen.expect(events)

    def test_one_send_of_a_key_at_a_time(self, bench: Bench) -> None:
        class Watching(Shim):
            def __init__(self) -> None:
                super().__init__()
                self.inside: list[str | None] = []
                self.clashes: list[str | None] = []

            def send_traits(self, traits: SendTraits) -> SendTraits:
                return msgspec.structs.replace(traits, batch_count=min(traits.batch_count, 2), sends=8)

            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                mine = {m.key for m in batch}
                with self.lock:
                    self.clashes += [key for key in mine if key in self.inside]
                    self.inside += mine
                try:
                    return inner.send(batch, timeout=timeout)
                finally:
                    with self.lock:
                        for key in mine:
                            self.inside.remove(key)

        topic = bench.topic(ordered=True)
        shim = Watching()
        events = _keyed(bench, 60, 4)
        bench.broker(topic, shim=shim).publish_many(topic.name, events)
        assert shim.clashes == [], "two sends of one key were in flight at once"
        seen = Seen()
        _consume(bench, topic, seen, len(events))
        seen.expect(events)

    @pytest.mark.parametrize("rule", ["one_key", "one_each"])
    def test_batches_keep_the_key_rule(self, bench: Bench, rule: str) -> None:
        class Ruled(Shim):
            def send_traits(self, traits: SendTraits) -> SendTraits:
                return msgspec.structs.replace(traits, keys=rule, batch_count=min(traits.batch_count, 10))

            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                return one_by_one(inner, batch, timeout)  # whatever the rule of the broker itself

        topic = bench.topic(ordered=True)
        shim = Ruled()
        events = _keyed(bench, 20, 4)
        bench.broker(topic, shim=shim).publish_many(topic.name, events)
        for batch in shim.sends:
            if rule == "one_key":
                assert len({m.key for m in batch}) == 1, "a batch holds two keys"
            else:
                assert len({m.key for m in batch}) == len(batch), "a batch holds a key twice"
        seen = Seen()
        _consume(bench, topic, seen, len(events))
        seen.expect(events)

    def test_failed_event_stops_the_rest_of_its_key(self, bench: Bench) -> None:
        class Refusing(Shim):
            def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
                return [
                    refused(ErrorCode.INVALID_ARGUMENT, "no poison")
                    if b"poison" in m.body
                    else inner.send([m], timeout=timeout)[0]
                    for m in batch
                ]

            def send_traits(self, traits: SendTraits) -> SendTraits:
                return msgspec.structs.replace(traits, keys="one_each")

        topic = bench.topic(ordered=True)
        events = _keyed(bench, 12, 2)
        events[4] = bench.event(partitionkey="key-0", data="poison")
        with pytest.raises(PublishError) as caught:
            bench.broker(topic, shim=Refusing(), retry=QUICK).publish_many(topic.name, events)
        failed = {e.id: error for e, error in caught.value.failed}
        assert list(failed) == [events[n].id for n in (4, 6, 8, 10)]
        assert failed[events[4].id].code == ErrorCode.INVALID_ARGUMENT
        for number in (6, 8, 10):
            error = failed[events[number].id]
            assert not error.maybe_applied, "an event that was not sent is reported as perhaps sent"
            assert "not sent" in str(error), f"the error does not say that it was not sent: {error}"
        seen = Seen()
        _consume(bench, topic, seen, 8)
        seen.expect([e for e in events if e.id not in failed])

    def test_key_in_hand_is_held_from_others(self, bench: Bench) -> None:
        topic = bench.topic(ordered=True)
        a1, a2, b1 = (bench.event(partitionkey=key) for key in "aab")
        bench.publish(topic, a1, a2)
        first, second = bench.subscriber(topic), bench.subscriber(topic)
        head = bench.one(first, a1)
        bench.publish(topic, b1)  # now: between two keys there is no order
        bench.one(second, b1).ack()
        bench.nothing(second, 0.3, "the event before it, of the same key, is in hand")
        head.ack()
        bench.one(second, a2).ack()

    def test_nacked_key_holds_only_its_own(self, bench: Bench) -> None:
        topic = bench.topic(ordered=True)
        blocked = [bench.event(partitionkey="blocked") for _ in range(3)]
        free = _keyed(bench, 20, 4)
        bench.publish(topic, blocked[0], *free[:10], *blocked[1:], *free[10:])
        subscriber = bench.subscriber(topic)
        seen = Seen()
        nacked = 0.0
        came_back = 0.0
        deadline = time.monotonic() + bench.rig.patience
        while len(seen.ids) < 23:
            assert time.monotonic() < deadline, f"only {len(seen.ids)} of 23 events arrived"
            given_up = False  # a receive may bring several of a key: whoever settles by hand keeps them in order
            for delivery in subscriber.receive(5, wait=1):
                if delivery.event.id == blocked[0].id and not nacked:
                    delivery.nack(delay=1.0)
                    nacked = time.monotonic()
                    given_up = True
                    continue
                if given_up and delivery.event.partitionkey == "blocked":
                    delivery.give_back()
                    continue
                if delivery.event.id == blocked[0].id:
                    came_back = time.monotonic()
                    assert delivery.attempt == 2
                    assert len(seen.ids) == 20, f"{20 - len(seen.ids)} events of other keys waited for the nacked one"
                seen.note([delivery.event])
                delivery.ack()
        assert came_back - nacked >= 0.95
        seen.expect([*blocked, *free])

    def test_dead_letter_lets_its_key_go_on(self, bench: Bench) -> None:
        topic = bench.topic(ordered=True, max_attempts=2)
        events = [bench.event(partitionkey="one") for _ in range(5)]
        bench.publish(topic, *events)
        subscriber = bench.subscriber(topic)
        for _ in range(2):
            bench.one(subscriber, events[0]).nack(delay=0)
        for event in events[1:]:
            delivery = bench.one(subscriber, event)
            assert delivery.attempt == 1, "an event spent an attempt waiting for the one before it"
            delivery.ack()
        [letter] = bench.letters(topic, 1)
        assert letter.event == events[0]

    def test_lost_lease_of_the_head_brings_the_head_again(self, bench: Bench) -> None:
        topic = bench.topic(ordered=True, lease=(lease := max(1.0, bench.lease)))
        events = [bench.event(partitionkey="one") for _ in range(3)]
        bench.publish(topic, *events)
        lost = bench.one(bench.subscriber(topic), events[0])
        other = bench.subscriber(topic)
        for event in events:
            bench.one(other, event, patience=lease + bench.rig.patience).ack()
        with pytest.raises(BridgeError):
            lost.ack()
        bench.nothing(other, 1.5 * lease, "all three were acked")

    def test_order_survives_a_restart(self, bench: Bench) -> None:
        topic = bench.topic(ordered=True)
        events = _keyed(bench, 40, 4)
        bench.publish(topic, *events)
        seen = Seen()
        for _ in range(4):
            broker = bench.broker(topic)
            subscriber = bench.subscriber(topic, broker=broker)
            deliveries = subscriber.receive(8, wait=bench.rig.patience)
            seen.note([d.event for d in deliveries[:3]])
            subscriber.ack_many(deliveries[:3])
            broker.close()  # the others are given back
        _consume(bench, topic, seen, len(events), 2)
        seen.expect(events)

    def test_events_without_a_key_run_in_parallel(self, bench: Bench) -> None:
        topic = bench.topic(ordered=True)
        bench.publish(topic, *(events := bench.events(10)))
        subscriber = bench.subscriber(topic)
        in_hand = bench.gather(subscriber, 10, ack=False)
        assert sorted(keys(in_hand)) == sorted(keys(events))
        in_hand[0].nack(delay=0)
        again = bench.one(subscriber, in_hand[0].event)
        subscriber.ack_many([again, *in_hand[1:]])

    def test_key_is_ignored_where_nothing_is_ordered(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, *(bench.event(partitionkey="one") for _ in range(5)))
        in_hand = bench.gather(bench.subscriber(topic), 5, ack=False)
        assert {d.event.partitionkey for d in in_hand} == {"one"}

    def test_ordered_topic_stays_ordered(self, bench: Bench) -> None:
        topic = bench.topic(ordered=True)
        assert bench.broker(topic).topology.plan() == []
        with pytest.raises(BridgeError) as caught:
            bench.broker(bench.like(topic, ordered=False)).topology.apply()
        assert caught.value.code == ErrorCode.FAILED_PRECONDITION, "an ordered topic was turned into another kind"
