from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from unittest.mock import Mock

import pytest

import cloudevents_bridge as ceb
from cloudevents_bridge.errors import PermissionDeniedError, UnavailableError
from cloudevents_bridge.testing import FakeBroker, make_event


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with FakeBroker() as broker:
        yield broker


@dataclass
class Order:
    id: int


class TestWhatWasPublished:
    def test_the_applications_own_connection_lands_on_it(self, ceb_broker: FakeBroker) -> None:
        with ceb.connect() as application:
            application.publish("orders", make_event(data={"id": 7, "customer": {"name": "Ada", "age": 36}}))
        event = ceb_broker.assert_published("orders", data={"customer": {"name": "Ada"}})
        assert event == make_event(data={"id": 7, "customer": {"name": "Ada", "age": 36}})
        assert ceb_broker.published() == [event]
        assert ceb_broker.published("refunds") == []

    def test_what_is_missing_is_listed(self, fake: FakeBroker) -> None:
        fake.broker.publish("orders", make_event("com.example.a", id="a1"))
        with pytest.raises(AssertionError, match=r"0 events type='com.example.b' .* com.example.a a1"):
            fake.assert_published("orders", type="com.example.b")
        with pytest.raises(AssertionError, match="0 events data="):
            fake.assert_published("orders", data={"id": 7})
        with pytest.raises(AssertionError, match=r"com\.example\.a a1"):
            fake.assert_not_published("orders")
        fake.assert_not_published("orders", type="com.example.b")
        fake.assert_not_published("refunds")

    def test_times_is_exact(self, fake: FakeBroker) -> None:
        fake.broker.publish_many("orders", [make_event(id="1"), make_event(id="2")])
        assert fake.assert_published("orders", times=2).id == "1"
        with pytest.raises(AssertionError, match="2 events of any kind"):
            fake.assert_published("orders")

    def test_two_fakes_share_nothing(self, fake: FakeBroker) -> None:
        with FakeBroker() as other:
            other.broker.publish("orders", make_event())
        assert fake.published() == []


class TestDeliver:
    def test_a_handler_that_returns_acks(self, fake: FakeBroker) -> None:
        seen: list[object] = []
        outcome = fake.deliver(seen.append, make_event())
        assert (outcome.action, outcome.error, outcome.event) == ("ack", None, make_event())
        assert seen == [make_event()]

    def test_parameters_are_filled_by_annotation(self, fake: FakeBroker) -> None:
        seen: list[object] = []

        def handler(order: Order, delivery: ceb.Delivery, event: ceb.CloudEvent, bare) -> None:  # type: ignore[no-untyped-def]
            seen.extend((order, delivery.attempt, event, bare))

        outcome = fake.deliver(handler, make_event(data={"id": 7}), attempt=3)
        assert outcome.action == "ack"
        assert seen == [Order(7), 3, make_event(data={"id": 7}), make_event(data={"id": 7})]

    def test_a_coroutine_function_is_run(self, fake: FakeBroker) -> None:
        async def handler(order: Order) -> None:
            raise ceb.Reject(f"order {order.id}")

        assert fake.deliver(handler, make_event(data={"id": 7})).reason == "order 7"

    def test_an_exception_gives_back_with_back_off(self, fake: FakeBroker) -> None:
        error = ValueError("no")

        def handler(event: ceb.CloudEvent) -> None:
            raise error

        outcome = fake.deliver(handler, make_event())
        assert (outcome.action, outcome.error, outcome.reason) == ("nack", error, None)
        assert outcome.delay is not None
        assert 0 <= outcome.delay <= 1.0
        assert fake.deliver(handler, make_event(), attempt=5).action == "dead_letter"

    def test_the_handlers_own_words(self, fake: FakeBroker) -> None:
        def retry(event: ceb.CloudEvent) -> None:
            raise ceb.Retry(30)

        def reject(event: ceb.CloudEvent) -> None:
            raise ceb.Reject("never")

        assert fake.deliver(retry, make_event())[:2] == ("nack", 30)
        assert fake.deliver(reject, make_event())[:3] == ("dead_letter", None, "never")

    def test_data_that_does_not_fit_is_rejected(self, fake: FakeBroker) -> None:
        def handler(order: Order) -> None: ...

        outcome = fake.deliver(handler, make_event(data={"id": "seven"}))
        assert outcome.action == "dead_letter"
        assert isinstance(outcome.error, ceb.DecodeError)

    def test_what_cannot_be_filled_is_a_type_error(self, fake: FakeBroker) -> None:
        def twice(one: Order, other: dict) -> None: ...  # type: ignore[type-arg]
        def unknown(order: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

        for handler in (twice, unknown):
            with pytest.raises(TypeError, match=handler.__name__):
                fake.deliver(handler, make_event())

    def test_a_mock_and_a_partial_are_handlers_too(self, fake: FakeBroker) -> None:
        mock = Mock()
        fake.deliver(mock, make_event())
        mock.assert_called_once_with(make_event())

        def handler(shop: str, order: Order) -> None:
            seen.append((shop, order))

        seen: list[object] = []
        assert fake.deliver(functools.partial(handler, "corner"), make_event(data={"id": 7})).action == "ack"
        assert seen == [("corner", Order(7))]

    def test_an_event_that_expired_long_ago_is_handled_all_the_same(self, fake: FakeBroker) -> None:
        event = make_event(expirytime=datetime(2020, 1, 2, tzinfo=UTC))
        assert fake.deliver(lambda event: None, event).event == event

    def test_it_is_apart_from_all_topics(self, fake: FakeBroker) -> None:
        fake.deliver(lambda event: None, make_event())
        assert fake.published() == []


class TestDrain:
    def test_until_all_is_acked_or_dead_and_nothing_sleeps(self, fake: FakeBroker) -> None:
        fake.broker.publish_many("orders", [make_event(id="good"), make_event(id="bad")])

        def handler(event: ceb.CloudEvent) -> None:
            if event.id == "bad":
                raise ceb.Retry(3600)

        began = time.monotonic()
        outcomes = fake.drain("orders", "billing", handler)
        assert time.monotonic() - began < 30
        assert [(o.event.id, o.action) for o in outcomes if o.event.id == "good"] == [("good", "ack")]
        assert [o.action for o in outcomes if o.event.id == "bad"] == ["nack"] * 4 + ["dead_letter"]
        [letter] = fake.dead_letters("orders", "billing")
        assert letter.event == make_event(id="bad")
        assert fake.drain("orders", "billing", handler) == []

    def test_a_late_subscription_has_events_as_old_as_they_are(self, fake: FakeBroker) -> None:
        fake.broker.publish("orders", make_event(id="delayed"), delay=60)
        fake.broker.publish("orders", make_event(id="at once"))
        fake.advance(50)
        subscriber = fake.broker.subscriber("orders", "billing")
        assert [delivery.event.id for delivery in subscriber.receive(wait=0)] == ["at once"]
        fake.advance(10)
        assert [delivery.event.id for delivery in subscriber.receive(wait=0)] == ["delayed"]

    def test_the_declared_attempts_count(self) -> None:
        topic = ceb.Topic("orders", subscriptions=[ceb.Subscription("billing", max_attempts=2)])
        with FakeBroker(topics=[topic]) as fake:
            fake.broker.publish("orders", make_event())
            handler = Mock(side_effect=ValueError)
            assert [outcome.action for outcome in fake.drain("orders", "billing", handler)] == ["nack", "dead_letter"]

    def test_nobody_is_warned_of_subscriptions_that_may_come(
        self, fake: FakeBroker, caplog: pytest.LogCaptureFixture
    ) -> None:
        fake.broker.publish("orders", make_event())
        assert not caplog.records

    def test_an_event_that_is_delayed_is_drained_too(self, fake: FakeBroker) -> None:
        fake.broker.publish("orders", make_event(), delay=86_400)
        assert [outcome.action for outcome in fake.drain("orders", "billing", lambda event: None)] == ["ack"]

    def test_a_delivery_in_other_hands_is_said(self, fake: FakeBroker) -> None:
        fake.broker.publish("orders", make_event())
        with fake.broker.subscriber("orders", "billing") as other:
            [delivery] = other.receive(wait=5)
            with pytest.raises(AssertionError, match="1 deliveries of orders/billing are in the hands"):
                fake.drain("orders", "billing", lambda event: None)
            delivery.ack()

    def test_a_handler_that_settles_by_itself(self, fake: FakeBroker) -> None:
        fake.broker.publish("orders", make_event())

        def handler(delivery: ceb.Delivery) -> None:
            delivery.dead_letter("by hand")

        assert [outcome.reason for outcome in fake.drain("orders", "billing", handler)] == ["by hand"]


class TestTimeAndTrouble:
    def test_advance_ends_delays(self, fake: FakeBroker) -> None:
        subscriber = fake.broker.subscriber("orders", "billing")
        assert subscriber.receive(wait=0) == []
        fake.broker.publish("orders", make_event(), delay=60)
        assert subscriber.receive(wait=0) == []
        fake.advance(59)
        assert subscriber.receive(wait=0) == []
        fake.advance(1)
        assert [delivery.event for delivery in subscriber.receive(wait=0)] == [make_event()]

    def test_a_passing_failure_is_retried(self, fake: FakeBroker) -> None:
        fake.fail_next("publish", times=2)
        fake.broker.publish("orders", make_event())
        fake.assert_published("orders")

    def test_a_failure_that_lasts_comes_out(self, fake: FakeBroker) -> None:
        fake.fail_next("publish", "PERMISSION_DENIED")
        with pytest.raises(PermissionDeniedError):
            fake.broker.publish("orders", make_event())
        fake.assert_not_published()

    def test_a_lost_answer_publishes_twice(self, fake: FakeBroker) -> None:
        fake.fail_next("publish", accepted=True)
        fake.broker.publish("orders", make_event())
        fake.assert_published("orders", times=2)

    def test_an_error_of_ones_own(self, fake: FakeBroker) -> None:
        fake.fail_next("receive", UnavailableError("gone fishing", retryable=False))
        with pytest.raises(UnavailableError, match="gone fishing"):
            fake.broker.subscriber("orders", "billing").receive(wait=0)

    def test_a_settle_that_fails(self, fake: FakeBroker) -> None:
        fake.broker.publish("orders", make_event())
        subscriber = fake.broker.subscriber("orders", "billing")
        [delivery] = subscriber.receive(wait=5)
        fake.fail_next("settle", "PERMISSION_DENIED")
        with pytest.raises(PermissionDeniedError):
            delivery.ack()
        delivery.ack()


def test_make_event_is_the_same_each_time() -> None:
    assert make_event() == make_event()
    event = make_event("com.example.x", {"id": 7}, subject="s", partitionkey="k", shard=3)
    assert (event.subject, event.partitionkey, event.extensions["shard"]) == ("s", "k", 3)
    assert event.time == make_event().time
    assert make_event(extensions={"shard": 3}) == make_event(shard=3)


def test_the_durable_fixture_survives_a_restart(ceb_sqlite: ceb.Broker) -> None:
    ceb_sqlite.topology.apply(ceb.Topic("orders", subscriptions=["billing"]))
    ceb_sqlite.publish("orders", make_event())
    with ceb.connect(ceb_sqlite.url) as again, again.subscriber("orders", "billing") as subscriber:
        assert [delivery.event for delivery in subscriber.receive(wait=5)] == [make_event()]
