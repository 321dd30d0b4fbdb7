"""What a subscriber gets, and when."""

from __future__ import annotations

import threading
import time

import msgspec
import pytest

from cloudevents_bridge import Capability, CloudEvent, Delivery, LeaseLostError, RawMessage, Subscriber
from cloudevents_bridge.driver import Received, SubscriberDriver
from cloudevents_bridge.errors import ClosedError, NotFoundError
from cloudevents_bridge_contract.bench import Bench, keys, together
from cloudevents_bridge_contract.faulty import Of, Shim

GARBAGE = [b"", b"not json", b'{"specversion":"1.0"}', b"\xff\xfe\x00", b'{"specversion":"0.3","id":"1"}', b"[" * 300]


class ConsumeCases:
    def test_wait_blocks_and_returns_soon(self, bench: Bench) -> None:
        topic = bench.topic()
        publisher, subscriber = bench.publisher(topic), bench.subscriber(topic)
        publisher.publish(first := bench.event())
        bench.one(subscriber, first).ack()
        got: list[Delivery] = []
        returned = threading.Event()

        def wait() -> None:
            got.extend(subscriber.receive(wait=bench.rig.patience))
            returned.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not returned.wait(0.3), "receive did not wait"
        publisher.publish(event := bench.event())
        published = time.monotonic()
        assert returned.wait(bench.rig.patience + 5), "receive did not return"
        late = time.monotonic() - published
        waiting.join()
        assert keys(got) == [event.id]
        got[0].ack()
        assert late < bench.rig.wakeup, f"receive returned {late:.2f} s after the event was accepted"

    def test_empty_wait_is_kept_without_spinning(self, bench: Bench) -> None:
        topic = bench.topic()
        shim = Shim()
        subscriber = bench.subscriber(topic, broker=bench.broker(topic, shim=shim))
        subscriber.receive(wait=0)
        before = shim.receives
        began, used = time.monotonic(), time.process_time()
        assert subscriber.receive(wait=1.0) == []
        took, used = time.monotonic() - began, time.process_time() - used
        assert 0.95 <= took < 1.0 + bench.rig.wakeup, f"a wait of one second took {took:.2f} s"
        assert shim.receives - before <= 10, f"one second of waiting made {shim.receives - before} native receives"
        assert used < 0.4, f"one second of waiting cost {used:.2f} s of processor time"

    def test_threads_that_wait_together_do_not_spin(self, bench: Bench) -> None:
        topic = bench.topic()
        subscriber = bench.subscriber(topic)
        subscriber.receive(wait=0)
        used = time.process_time()
        assert together([lambda: subscriber.receive(wait=1.0)] * 4) == [[]] * 4
        used = time.process_time() - used
        assert used < 0.4, f"one second of waiting in four threads cost {used:.2f} s of processor time"

    def test_wait_zero_returns_at_once(self, bench: Bench) -> None:
        topic = bench.topic()
        subscriber = bench.subscriber(topic)
        subscriber.receive(wait=0)
        began = time.monotonic()
        assert subscriber.receive(wait=0) == []
        assert time.monotonic() - began < bench.rig.wakeup, "receive(wait=0) waited"
        bench.publish(topic, event := bench.event())
        [delivery] = bench.eventually(lambda: subscriber.receive(wait=0), "an event for a receive that never waits")
        assert delivery.event == event
        delivery.ack()

    def test_max_events_is_honoured(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, *bench.events(25))
        subscriber = bench.subscriber(topic)
        got: list[Delivery] = []
        for limit in (1, 3, 10):
            batch = subscriber.receive(limit, wait=bench.rig.patience)
            assert 1 <= len(batch) <= limit, f"receive({limit}) gave {len(batch)}"
            got += batch
            subscriber.ack_many(batch)
        bench.gather(subscriber, 25 - len(got), batch=10)
        assert len(set(keys(got))) == len(got)

    def test_two_subscriptions_each_get_all(self, bench: Bench) -> None:
        topic = bench.topic(2)
        bench.publish(topic, *(events := bench.events(20)))
        for index in range(2):
            arrived = bench.gather(bench.subscriber(topic, index), 20)
            assert sorted(keys(arrived)) == sorted(keys(events))

    def test_consumers_of_one_subscription_share(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, *(events := bench.events(bench.many(200))))
        got: list[str] = []
        lock = threading.Lock()
        deadline = time.monotonic() + bench.rig.patience

        def consume() -> None:
            subscriber = bench.subscriber(topic)
            while len(set(got)) < len(events) and time.monotonic() < deadline:
                deliveries = subscriber.receive(7, wait=0.2)
                with lock:
                    got.extend(keys(deliveries))
                subscriber.ack_many(deliveries)

        together([consume] * 4)
        bench.each_once(got, keys(events))
        bench.nothing(bench.subscriber(topic), 0.3, "every event was acked")

    def test_no_topic_leaks_into_another(self, bench: Bench) -> None:
        stem = bench.name("leak")[:26]
        one = bench.topic(2, name=stem)
        other = bench.topic(2, name=f"{stem}-alpha")
        bench.publish(one, mine := bench.event())
        bench.publish(other, yours := bench.event())
        for topic, event in ((one, mine), (other, yours)):
            for index in range(2):
                subscriber = bench.subscriber(topic, index)
                bench.one(subscriber, event).ack()
                bench.nothing(subscriber, 0.2, f"{topic.name} got more than was published to it")

    def test_subscription_sees_what_follows_its_creation(self, bench: Bench) -> None:
        topic = bench.topic()
        subscriber = bench.subscriber(topic)
        assert subscriber.receive(wait=0) == []
        subscriber.close()
        bench.publish(topic, event := bench.event())
        bench.one(bench.subscriber(topic), event).ack()

    def test_attempt_is_one_then_two(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, event := bench.event())
        subscriber = bench.subscriber(topic)
        for attempt in (1, 2, 3):
            delivery = bench.one(subscriber, event)
            assert delivery.attempt == attempt
            delivery.ack() if attempt == 3 else delivery.nack(delay=0)

    def test_missing_subscription_is_not_found_on_use(self, bench: Bench) -> None:
        topic = bench.topic()
        broker = bench.broker(topic, create_missing=False)
        subscriber = broker.subscriber(topic.name, "missing-one")
        with pytest.raises(NotFoundError) as caught:
            subscriber.receive(wait=1)
        assert topic.name in str(caught.value)
        assert "missing-one" in str(caught.value)
        subscriber.close()
        nowhere = broker.subscriber(bench.name("none"), "alpha")
        with pytest.raises(NotFoundError):
            nowhere.receive(wait=1)
        nowhere.close()

    @pytest.mark.parametrize("body", GARBAGE, ids=range(len(GARBAGE)))
    def test_undecodable_message_is_dead_lettered(self, bench: Bench, body: bytes) -> None:
        topic = bench.topic()
        bench.put(topic, body, {"content-type": "application/cloudevents+json"})
        bench.publish(topic, event := bench.event())
        subscriber = bench.subscriber(topic)
        bench.one(subscriber, event).ack()
        [letter] = bench.letters(topic, 1, receiving=subscriber)  # without order it may come last
        assert (letter.event, letter.raw.body, letter.topic) == (None, body, topic.name)
        assert letter.reason, "the dead letter gives no reason"
        bench.nothing(subscriber, 0.2, "it was dead-lettered")

    def test_foreign_message_is_decoded_when_asked(self, bench: Bench) -> None:
        def orders(raw: RawMessage) -> CloudEvent | None:
            if not raw.body.startswith(b"order "):
                return None
            if raw.body == b"order none":
                raise ValueError("an order has a number")
            return CloudEvent(
                type="com.example.contract", source=bench.source, id=raw.body.decode(), time=None, data={"raw": 1}
            )

        topic = bench.topic()
        bench.put(topic, b"order 7", {})
        wanted = bench.own(orders(RawMessage(b"order 7", {}, None)))  # type: ignore[arg-type]
        for body in (b"order none", b"something else"):
            bench.put(topic, body, {})
        bench.publish(topic, event := bench.event())
        subscriber = bench.subscriber(topic, foreign=[orders])
        arrived = {d.event.id: d.event for d in bench.gather(subscriber, 2)}
        assert arrived == {wanted.id: wanted, event.id: event}
        letters = bench.letters(topic, 2, receiving=subscriber)
        assert {letter.raw.body for letter in letters} == {b"order none", b"something else"}

    def test_iteration_ends_on_close(self, bench: Bench) -> None:
        topic = bench.topic()
        bench.publish(topic, *(events := bench.events(5)))
        subscriber = bench.subscriber(topic)
        got: list[str] = []
        all_here = threading.Event()

        def consume() -> None:
            for delivery in subscriber:
                got.append(delivery.event.id)
                delivery.ack()
                if len(got) == 5:
                    all_here.set()

        consumer = threading.Thread(target=consume, daemon=True)
        consumer.start()
        assert all_here.wait(bench.rig.patience), f"only {len(got)} of 5 events came"
        subscriber.close()
        consumer.join(bench.rig.patience)
        assert not consumer.is_alive(), "the iteration did not end when the subscriber was closed"
        assert sorted(got) == sorted(keys(events))

    def test_iteration_extends_the_one_in_hand(self, bench: Bench) -> None:
        topic = bench.topic(lease=(lease := max(1.0, bench.lease)))
        if Capability.EXTEND not in bench.capabilities:
            bench.publish(topic, event := bench.event())
            delivery = bench.one(bench.subscriber(topic), event)
            bench.requires(Capability.EXTEND, lambda: delivery.extend(lease))
        bench.publish(topic, *(events := bench.events(2)))
        other = bench.subscriber(topic)
        seen: list[str] = []
        subscriber = bench.subscriber(topic)
        for delivery in subscriber:
            seen.append(delivery.event.id)
            if len(seen) == 1:
                taken = time.monotonic()
                while time.monotonic() < taken + 3 * lease:
                    for rival in other.receive(1, wait=lease / 4):
                        assert rival.event.id != delivery.event.id, "the delivery in hand went to another consumer"
                        seen.append(rival.event.id)
                        rival.ack()
                assert not delivery.lease_lost
            delivery.ack()
            if len(seen) >= 2:
                break
        assert sorted(seen) == sorted(keys(events))
        subscriber.close()
        bench.nothing(bench.subscriber(topic), lease * 1.5, "both were acked")

    def test_receive_after_close_is_closed(self, bench: Bench) -> None:
        topic = bench.topic()
        broker = bench.broker(topic)
        subscriber = bench.subscriber(topic, broker=broker)
        subscriber.receive(wait=0)
        subscriber.close()
        with pytest.raises(ClosedError):
            subscriber.receive(wait=0)
        broker.close()
        with pytest.raises(ClosedError):
            broker.subscriber(topic.name, topic.subscriptions[0].name).receive(wait=0)

    def test_close_ends_a_waiting_receive(self, bench: Bench) -> None:
        topic = bench.topic()
        subscriber = bench.subscriber(topic)
        ended = threading.Event()

        def wait(subscriber: Subscriber = subscriber) -> None:
            try:
                subscriber.receive(wait=60)
            except ClosedError:
                pass
            finally:
                ended.set()

        threading.Thread(target=wait, daemon=True).start()
        assert not ended.wait(0.2)
        subscriber.close()
        assert ended.wait(bench.rig.patience), "a receive still waits on a closed subscriber"

    def test_stream_that_is_taken_away_takes_its_leases(self, bench: Bench) -> None:
        class Taking(Shim):
            taken: tuple[str, ...] = ()
            marks = (b"first", b"second")

            def stream(self, body: bytes) -> str:
                return next(str(mark) for mark in self.marks if mark in body)

            def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
                if self.taken:
                    lost, self.taken = self.taken, ()
                    return Received(lost=lost)
                got = inner.receive(max_messages, wait)
                return Received(
                    [msgspec.structs.replace(m, stream=self.stream(m.body)) for m in got.messages], got.lost
                )

        topic = bench.topic()
        bench.publish(topic, first := bench.event(data="first"), second := bench.event(data="second"))
        shim = Taking()
        subscriber = bench.subscriber(topic, broker=bench.broker(topic, shim=shim))
        held = {d.event.id: d for d in bench.gather(subscriber, 2, ack=False)}
        shim.taken = (shim.stream(b"first"),)
        assert subscriber.receive(wait=0.3) == []
        assert held[first.id].lease_lost, "a delivery of a stream that is gone is still held"
        with pytest.raises(LeaseLostError):
            held[first.id].ack()
        assert not held[second.id].lease_lost
        held[second.id].ack()

    def test_filter(self, bench: Bench) -> None:
        topic = bench.topic(filter="type LIKE 'com.example.contract.a%'")
        wanted = bench.event(type="com.example.contract.a1")
        bench.publish(topic, bench.event(type="com.example.contract.b1"), wanted)
        subscriber = bench.subscriber(topic)
        bench.one(subscriber, wanted).ack()
        bench.nothing(subscriber, 0.3, "the filter does not match it")
