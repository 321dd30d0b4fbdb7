"""An event is handled once, however often it is delivered; and what happens when a run fails, crashes or takes long."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import until

import cloudevents_bridge as ceb
from cloudevents_bridge import clock
from cloudevents_bridge.delivery import Postponed
from cloudevents_bridge.errors import InvalidArgumentError, UnavailableError
from cloudevents_bridge.handlers import alone
from cloudevents_bridge.middleware import (
    Claim,
    Idempotent,
    MemoryStore,
    SQLiteStore,
    Store,
    idempotency,
    idempotent,
    renewing,
)
from cloudevents_bridge.testing import FakeBroker, make_event


class Watched(MemoryStore):
    """A store that says what it was asked, and can be out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.leases: list[float] = []
        self.broken: set[str] = set()

    def _note(self, what: str) -> None:
        self.asked.append(what)
        if what in self.broken:
            raise UnavailableError("the store is down")

    def claim(self, key: str, token: str, *, lease: float) -> Claim:
        self.leases.append(lease)
        self._note("claim")
        return super().claim(key, token, lease=lease)

    def renew(self, key: str, token: str, *, lease: float) -> bool:
        self.leases.append(lease)
        self._note("renew")
        return super().renew(key, token, lease=lease)

    def complete(self, key: str, token: str, *, ttl: float) -> bool:
        self._note("complete")
        return super().complete(key, token, ttl=ttl)

    def release(self, key: str, token: str) -> None:
        self._note("release")
        super().release(key, token)


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with FakeBroker() as broker:
        yield broker


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    made = SQLiteStore(tmp_path / "done.db")
    yield made
    made.close()


@pytest.fixture
def watched() -> Watched:
    return Watched()


def routed(middleware: Idempotent, handler: Callable[..., object]) -> ceb.Router:
    router = ceb.Router(middleware=[middleware])
    router.on("*")(handler)
    return router


class TestOnce:
    def test_the_second_delivery_is_acked_without_running(self, fake: FakeBroker, store: Store) -> None:
        ran: list[str] = []
        router = routed(idempotent(store), lambda event: ran.append(event.id))
        assert [fake.deliver(router, make_event()).action for _ in range(3)] == ["ack"] * 3
        assert fake.deliver(router, make_event(id="other")).action == "ack"
        assert fake.deliver(router, make_event(source="/elsewhere")).action == "ack"
        assert ran == ["test-1", "other", "test-1"]

    def test_an_async_handler_too(self, fake: FakeBroker, store: Store) -> None:
        ran: list[str] = []

        async def handler(event: ceb.CloudEvent) -> None:
            ran.append(event.id)

        router = routed(idempotent(store), handler)
        assert [fake.deliver(router, make_event()).action for _ in range(2)] == ["ack"] * 2
        assert ran == ["test-1"]

    def test_an_event_handled_by_itself_too(self, store: Store) -> None:
        ran: list[str] = []
        router = routed(idempotent(store), lambda event: ran.append(event.id))
        router.handle(make_event())
        router.handle(make_event())
        assert ran == ["test-1"]

    def test_each_subscription_handles_it(self, fake: FakeBroker, store: Store) -> None:
        ran: list[str] = []
        router = routed(idempotent(store), lambda delivery: ran.append(delivery.id))
        fake.broker.publish_many("orders", [make_event(), make_event()])
        fake.broker.publish("refunds", make_event())
        for topic, subscription in [("orders", "billing"), ("orders", "shipping"), ("refunds", "billing")]:
            assert {outcome.action for outcome in fake.drain(topic, subscription, router)} == {"ack"}
        assert len(ran) == 3

    def test_a_key_of_ones_own(self, fake: FakeBroker, store: Store) -> None:
        ran: list[str] = []
        router = routed(idempotent(store, key=lambda event: event.subject or ""), lambda event: ran.append(event.id))
        for id, subject in [("1", "order 7"), ("2", "order 7"), ("3", "order 8")]:
            assert fake.deliver(router, make_event(id=id, subject=subject)).action == "ack"
        assert ran == ["1", "3"]
        outcome = fake.deliver(router, make_event(id="4"))
        assert outcome.action == "nack"
        assert isinstance(outcome.error, InvalidArgumentError)
        assert "the key of event 4" in str(outcome.error)

    def test_what_is_kept_is_a_short_plain_key(self, watched: Watched, fake: FakeBroker) -> None:
        fake.broker.publish("orders", make_event(id="/ü" * 1500, source="https://example.com/?a=b#c"))
        fake.drain("orders", "billing", routed(idempotent(watched), lambda event: None))
        [key] = watched._done
        topic, subscription, digest = key.split(".")
        assert (topic, subscription, len(digest)) == ("orders", "billing", 64)

    def test_source_and_id_cannot_be_shifted_into_each_other(self, fake: FakeBroker, store: Store) -> None:
        ran: list[str] = []
        router = routed(idempotent(store), lambda event: ran.append(event.id))
        for source, id in [("/a", "b/c"), ("/a/b", "c"), ("/a,", "c"), ("/a", ",c"), ("/a", '","c'), ("/a,b", "c")]:
            fake.deliver(router, make_event(source=source, id=id))
        assert len(ran) == 6

    def test_it_is_forgotten_after_its_time(
        self, fake: FakeBroker, monkeypatch: pytest.MonkeyPatch, watched: Watched
    ) -> None:
        ran: list[str] = []
        router = routed(idempotent(watched, ttl=600.0), lambda event: ran.append(event.id))
        now = clock.now()
        for seconds in (0.0, 599.0, 601.0):
            monkeypatch.setattr(clock, "now", lambda seconds=seconds: now + seconds)
            router.handle(make_event())
        assert len(ran) == 2

    def test_a_time_that_is_none_is_refused(self) -> None:
        with pytest.raises(InvalidArgumentError, match="ttl is 0"):
            idempotent(MemoryStore(), ttl=0)


class TestFailedRuns:
    @pytest.mark.parametrize("error", [ValueError("no"), ceb.Retry(5), ceb.Reject("no")], ids=repr)
    def test_one_that_raises_releases_the_claim(self, fake: FakeBroker, store: Store, error: Exception) -> None:
        errors: list[Exception] = [error]

        def handler(event: ceb.CloudEvent) -> None:
            if errors:
                raise errors.pop()

        router = routed(idempotent(store), handler)
        assert fake.deliver(router, make_event()).error is error
        assert fake.deliver(router, make_event()).error is None

    def test_an_interrupted_one_too(self, watched: Watched) -> None:
        def handler(event: ceb.CloudEvent) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            routed(idempotent(watched), handler).handle(make_event())
        assert watched.asked == ["claim", "release"]
        assert not watched._claims

    def test_data_that_does_not_fit_is_no_handled_event(self, fake: FakeBroker, watched: Watched) -> None:
        def handler(data: dict[str, int]) -> None: ...

        outcome = fake.deliver(routed(idempotent(watched), handler), make_event(data="[]"))
        assert outcome.action == "dead_letter"
        assert watched.asked == ["claim", "release"]

    @pytest.mark.parametrize(
        ("word", "asked"),
        [("ack", "complete"), ("nack", "release"), ("give_back", "release"), ("dead_letter", "release")],
    )
    def test_a_handler_that_settles_by_itself(self, fake: FakeBroker, watched: Watched, word: str, asked: str) -> None:
        def handler(delivery: ceb.Delivery) -> None:
            getattr(delivery, word)(*(["by hand"] if word == "dead_letter" else []))

        fake.deliver(routed(idempotent(watched), handler), make_event())
        assert watched.asked == ["claim", asked]


class TestWhileAnotherRuns:
    @pytest.mark.parametrize("attempt", [1, 5, 9])
    def test_it_is_given_back_and_never_dead_lettered_for_it(
        self, fake: FakeBroker, store: Store, attempt: int
    ) -> None:
        ran: list[str] = []
        inner: list[Any] = []

        def handler(event: ceb.CloudEvent) -> None:
            ran.append(event.id)
            inner.append(fake.deliver(router, event, attempt=attempt))  # the second delivery, while this one runs

        router = routed(idempotent(store), handler)
        assert fake.deliver(router, make_event()).action == "ack"
        assert ran == ["test-1"]
        [outcome] = inner
        assert (outcome.action, type(outcome.error)) == ("nack", Postponed)
        assert isinstance(outcome.error, ceb.Retry)
        assert outcome.delay == pytest.approx(0.1 * 2 ** (attempt - 1))  # soon, then later
        assert fake.deliver(router, make_event()).action == "ack"
        assert ran == ["test-1"]

    def test_many_at_once_run_once(self, store: Store) -> None:
        ran: list[str] = []
        outcomes: list[str] = []
        middleware = idempotent(store)
        start = threading.Barrier(8)

        def handler(event: ceb.CloudEvent) -> None:
            ran.append(event.id)

        router = routed(middleware, handler)

        def deliver() -> None:
            start.wait()
            for number in range(30):
                try:
                    router.handle(make_event(id=str(number)))
                    outcomes.append("ack")
                except ceb.Retry:
                    outcomes.append("given back")

        threads = [threading.Thread(target=deliver) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ran) == sorted(str(number) for number in range(30))
        assert len(outcomes) == 240

    def test_it_comes_again_no_later_than_the_others_claim_can_have_ended(self, fake: FakeBroker, store: Store) -> None:
        outcomes: list[Any] = []

        def handler(event: ceb.CloudEvent) -> None:
            outcomes.append(fake.deliver(router, event, attempt=14))

        router = routed(idempotent(store), handler)
        fake.deliver(router, make_event())
        assert outcomes[0].delay == pytest.approx(60.0, abs=30.0)


class TestLeases:
    def test_a_claim_is_as_long_as_the_lease_of_its_delivery(self, watched: Watched) -> None:
        topic = ceb.Topic("orders", subscriptions=[ceb.Subscription("billing", lease=200.0)])
        with FakeBroker(topics=[topic]) as fake:
            fake.broker.publish("orders", make_event())
            fake.drain("orders", "billing", routed(idempotent(watched), lambda event: None))
        assert watched.leases == [pytest.approx(200.0, abs=30.0)]
        routed(idempotent(watched), lambda event: None).handle(make_event())
        assert watched.leases[1] == 60.0

    def test_the_claim_of_a_crashed_run_ends_by_itself(
        self, fake: FakeBroker, monkeypatch: pytest.MonkeyPatch, watched: Watched
    ) -> None:
        ran: list[str] = []
        router = routed(idempotent(watched), lambda event: ran.append(event.id))
        crashed = idempotent(watched)
        fake.broker.publish("orders", make_event())
        with fake.broker.subscriber("orders", "billing") as subscriber:
            [delivery] = subscriber.receive(wait=5)
            run = crashed._begin(delivery)  # and then nothing more is heard of it
            assert run is not None
            crashed._renewer.drop(run)
            with pytest.raises(ceb.Retry):
                router.handle(delivery)
            now = clock.now()
            monkeypatch.setattr(clock, "now", lambda: now + 61.0)
            router.handle(delivery)
        assert ran == ["test-1"]

    def test_while_a_handler_runs_it_is_renewed_as_far_as_the_lease_is_extended(
        self, monkeypatch: pytest.MonkeyPatch, watched: Watched
    ) -> None:
        monkeypatch.setattr(idempotency, "SHORTEST", 0.01)
        topic = ceb.Topic("orders", subscriptions=[ceb.Subscription("billing", lease=1.0)])
        with (
            ceb.connect("memory://", topics=[topic], create_missing=True) as broker,
            broker.subscriber("orders", "billing") as subscriber,
        ):
            broker.publish("orders", make_event())
            other = idempotent(watched)

            def handler(delivery: ceb.Delivery) -> None:
                until(lambda: watched.asked.count("renew") >= 4)  # its lease is extended by the iteration
                with pytest.raises(ceb.Retry):
                    other(delivery, lambda delivery: None)

            for delivery in subscriber:
                with delivery:
                    routed(idempotent(watched), handler).handle(delivery)
                break
            assert watched.asked[-1] == "complete"
            assert max(watched.leases) <= 1.0

    def test_it_is_not_renewed_when_the_lease_is_lost(
        self, monkeypatch: pytest.MonkeyPatch, watched: Watched, fake: FakeBroker
    ) -> None:
        monkeypatch.setattr(idempotency, "SHORTEST", 0.01)
        middleware = idempotent(watched)

        def handler(delivery: ceb.Delivery) -> None:
            until(lambda: not middleware._renewer._due)
            assert delivery.lease_lost

        topic = ceb.Topic("orders", subscriptions=[ceb.Subscription("billing", lease=1.0)])
        with (
            ceb.connect("memory://", topics=[topic], create_missing=True) as broker,
            broker.subscriber("orders", "billing") as subscriber,
        ):
            broker.publish("orders", make_event())
            [delivery] = subscriber.receive(wait=5)  # whose lease nobody extends
            routed(middleware, handler).handle(delivery)
            assert watched.asked[-1] == "complete"  # it was handled, and nobody else had it meanwhile
            [again] = subscriber.receive(wait=5)
            routed(middleware, handler).handle(again)
            again.ack()

    def test_a_claim_that_passed_to_another_run_is_said(
        self, monkeypatch: pytest.MonkeyPatch, watched: Watched, caplog: pytest.LogCaptureFixture
    ) -> None:
        now = clock.now()
        first, other = idempotent(watched), idempotent(watched)
        runs: list[idempotency.Run | None] = []

        def handler(event: ceb.CloudEvent) -> None:
            for run in list(first._renewer._due):
                first._renewer.drop(run)  # it sleeps, its process stopped
            monkeypatch.setattr(clock, "now", lambda: now + 61.0)
            runs.append(other._begin(alone(event)))

        routed(first, handler).handle(make_event())
        assert "another run had claimed it meanwhile" in caplog.text
        [run] = runs
        assert run is not None
        other._end(run, done=True)
        assert [each for each in watched.asked if each != "renew"] == ["claim", "claim", "complete", "complete"]

    def test_a_short_claim_is_renewed_in_time_beside_a_long_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(renewing, "LOOK", 60.0)
        renewed: list[str] = []

        def renew(run: str) -> float:
            renewed.append(run)
            return 0.1

        renewer: renewing.Renewer[str] = renewing.Renewer(renew)
        renewer.keep("long", 600.0)
        until(lambda: renewer._wake_at > clock.now() + 30.0)
        renewer.keep("short", 0.1)
        until(lambda: renewed)
        assert set(renewed) == {"short"}
        monkeypatch.setattr(renewing, "LOOK", 0.02)
        renewer.drop("long")
        renewer.drop("short")
        with renewer._lock:
            renewer._changed.notify_all()

    def test_a_renewal_that_fails_is_tried_again(
        self, monkeypatch: pytest.MonkeyPatch, watched: Watched, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(idempotency, "WITHOUT_LEASE", 0.1)
        watched.broken.add("renew")

        def handler(event: ceb.CloudEvent) -> None:
            until(lambda: "renew" in watched.asked)
            watched.broken.clear()
            until(lambda: watched.asked.count("renew") >= 3)

        routed(idempotent(watched), handler).handle(make_event())
        assert "cannot be renewed now: the store is down" in caplog.text
        assert watched.asked[-1] == "complete"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    @pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
    def test_after_a_fork_the_child_renews_its_own(self, monkeypatch: pytest.MonkeyPatch, watched: Watched) -> None:
        monkeypatch.setattr(idempotency, "WITHOUT_LEASE", 0.1)
        middleware = idempotent(watched)

        def in_child(event: ceb.CloudEvent) -> None:
            watched.asked.clear()
            until(lambda: "renew" in watched.asked)

        def in_parent(event: ceb.CloudEvent) -> None:
            child = os.fork()
            if not child:
                status = 1
                try:
                    routed(middleware, in_child).handle(make_event(id="of the child"))
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0

        routed(middleware, in_parent).handle(make_event())


class TestTheStoreIsDown:
    @pytest.mark.parametrize(("attempt", "delay"), [(1, 1.0), (5, 16.0), (14, 30.0)])
    def test_nothing_is_run_and_nothing_dead_lettered(
        self, fake: FakeBroker, watched: Watched, attempt: int, delay: float, caplog: pytest.LogCaptureFixture
    ) -> None:
        ran: list[str] = []
        watched.broken.add("claim")
        router = routed(idempotent(watched), lambda event: ran.append(event.id))
        outcome = fake.deliver(router, make_event(), attempt=attempt)
        assert (outcome.action, outcome.delay) == ("nack", delay)
        assert not ran
        assert isinstance(outcome.error, ceb.Retry)
        assert isinstance(outcome.error.__cause__, UnavailableError)
        assert "event test-1 (com.example.test) is given back, it cannot be claimed: the store is down" in caplog.text

    @pytest.mark.parametrize("batch", [None, 3])
    def test_a_worker_holds_what_it_could_not_run_and_spends_no_attempt(
        self, watched: Watched, monkeypatch: pytest.MonkeyPatch, batch: int | None
    ) -> None:
        monkeypatch.setattr(idempotency, "LATER", (0.01, 0.05))
        watched.broken.add("claim")
        ran: dict[str, int] = {}

        def handle(delivery: ceb.Delivery) -> None:
            ran[delivery.event.id] = delivery.attempt

        def handle_batch(deliveries: list[ceb.Delivery]) -> None:
            for delivery in deliveries:
                handle(delivery)

        made = idempotent(watched)
        handler: Any = routed(made, handle) if batch is None else made.batch(handle_batch)
        topic = ceb.Topic("orders", subscriptions=[ceb.Subscription("billing", max_attempts=1)])
        with ceb.connect("memory://", topics=[topic], create_missing=True) as broker:
            broker.publish_many("orders", [make_event(id=str(number)) for number in range(30)])
            with broker.worker().add("orders", "billing", handler, batch=batch) as worker:
                until(lambda: watched.asked.count("claim") > 100)
                assert worker.stats.in_flight <= 10 + 2 * (batch or 1)
                watched.broken.clear()
                until(lambda: worker.stats.handled == 30)
                assert (worker.stats.failed, worker.stats.dead_lettered) == (0, 0)
            assert list(broker.dead_letters("orders", "billing").find()) == []
        assert ran == {str(number): 1 for number in range(30)}

    def test_what_was_handled_is_acked_although_it_cannot_be_remembered(
        self, fake: FakeBroker, watched: Watched, caplog: pytest.LogCaptureFixture
    ) -> None:
        watched.broken.add("complete")
        router = routed(idempotent(watched), lambda event: None)
        assert fake.deliver(router, make_event()).action == "ack"
        assert "cannot be remembered as done: the store is down" in caplog.text

    def test_a_failure_stays_the_failure_that_it_was(
        self, fake: FakeBroker, watched: Watched, caplog: pytest.LogCaptureFixture
    ) -> None:
        def handler(event: ceb.CloudEvent) -> None:
            raise ceb.Reject("mine")

        watched.broken.add("release")
        assert fake.deliver(routed(idempotent(watched), handler), make_event()).reason == "mine"
        assert "cannot be released: the store is down" in caplog.text


class TestBatches:
    @pytest.fixture
    def received(self, fake: FakeBroker) -> Iterator[Callable[..., list[ceb.Delivery]]]:
        with fake.broker.subscriber("orders", "billing") as subscriber:

            def receive(*ids: str) -> list[ceb.Delivery]:
                fake.broker.publish_many("orders", [make_event(id=id) for id in ids])
                return subscriber.receive(max_events=10, wait=5)

            yield receive

    def test_what_is_done_is_acked_and_what_runs_is_given_back(
        self, received: Callable[..., list[ceb.Delivery]], store: Store
    ) -> None:
        middleware = idempotent(store)
        ran: list[str] = []

        @middleware.batch
        def handler(deliveries: list[ceb.Delivery]) -> None:
            ran.extend(delivery.event.id for delivery in deliveries)

        handler(received("1", "2"))
        busy = middleware._begin(received("3")[0])
        assert busy is not None
        again = received("1", "2", "3", "4", "4")
        handler(again)
        assert ran == ["1", "2", "4"]
        assert [delivery._word for delivery in again] == ["acked", "acked", "given back", None, "given back"]
        middleware._end(busy, done=False)

    def test_each_is_done_or_released_by_itself(
        self, received: Callable[..., list[ceb.Delivery]], watched: Watched
    ) -> None:
        @idempotent(watched).batch
        def handler(deliveries: list[ceb.Delivery]) -> None:
            by_id = {delivery.event.id: delivery for delivery in deliveries}
            by_id["acked"].ack()
            by_id["nacked"].nack(delay=5)
            if "fails" in by_id:
                raise ValueError("no")

        handler(received("acked", "nacked", "left"))
        assert len(watched._done) == 2
        with pytest.raises(ValueError, match="no"):
            idempotent(watched, key=lambda event: f"again {event.id}").batch(handler.__wrapped__)(  # type: ignore[attr-defined]
                received("acked", "nacked", "left", "fails")
            )
        assert len(watched._done) == 3
        assert not watched._claims

    def test_none_to_run_is_no_call(self, received: Callable[..., list[ceb.Delivery]], watched: Watched) -> None:
        calls: list[int] = []

        @idempotent(watched).batch
        def handler(deliveries: list[ceb.Delivery]) -> None:
            calls.append(len(deliveries))

        handler(received("1"))
        handler(received("1"))
        assert calls == [1]

    def test_the_trouble_of_one_is_not_the_others(
        self,
        received: Callable[..., list[ceb.Delivery]],
        watched: Watched,
        fake: FakeBroker,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        ran: list[str] = []

        def handler(deliveries: list[ceb.Delivery]) -> None:
            ran.extend(delivery.event.id for delivery in deliveries)

        middleware = idempotent(watched, key=lambda event: "" if event.id == "2" else event.id)
        deliveries = received("1", "2", "3")
        middleware.batch(handler)(deliveries)
        assert ran == ["1", "3"]
        assert [delivery._word for delivery in deliveries] == [None, "given back", None]
        assert "event 2 (com.example.test) is given back" in caplog.text

    def test_an_async_one_is_refused(self, watched: Watched) -> None:
        async def handler(deliveries: list[ceb.Delivery]) -> None: ...

        with pytest.raises(TypeError, match="plain function"):
            idempotent(watched).batch(handler)
