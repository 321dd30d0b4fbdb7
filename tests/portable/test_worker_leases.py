"""Leases, order and held retries of a worker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from scripted import Scripted, busy, event, refused, until, work_off

from cloudevents_bridge import Broker, Capability, CloudEvent, Delivery, Retry, RetryPolicy, Subscription, Topic, clock
from cloudevents_bridge.driver import Done
from cloudevents_bridge.errors import ErrorCode, LeaseLostError
from cloudevents_bridge.obituary import read

Opened = Callable[..., Broker]
POLICY = RetryPolicy(initial=0.02, maximum=0.05)
LEASE = 1.0
"""Seconds that are extended in time on a busy machine, too."""
ORDERS = Topic("orders", subscriptions=[Subscription("billing", redelivery=POLICY, lease=LEASE)])
BRISK = Topic("orders", subscriptions=[Subscription("billing", redelivery=POLICY, lease=0.4)])
"""Where a handler is said to stall soon. The broker's leases are longer."""


@pytest.fixture
def broker(opened: Opened, scripted: Scripted) -> Broker:
    scripted.lease = LEASE
    return opened(topics=[ORDERS])


def extends(scripted: Scripted) -> list[str]:
    return [id for settled in scripted.settles if settled.verb == "extend" for id in settled.ids]


def test_the_lease_is_extended_while_the_handler_runs(broker: Broker, scripted: Scripted) -> None:
    lost: list[bool] = []

    def handle(delivery: Delivery) -> None:
        until(lambda: len(extends(scripted)) >= 3)
        lost.append(delivery.lease_lost)

    scripted.put(event())
    broker.worker().add("orders", "billing", handle).run(until_idle=0.05)
    assert lost == [False]
    assert scripted.verbs()[-1] == "ack"
    assert {settled.seconds for settled in scripted.settles if settled.verb == "extend"} == {LEASE}


def test_what_waits_behind_a_slow_handler_is_extended_too(broker: Broker, scripted: Scripted) -> None:
    gate = threading.Event()
    for n in range(500):
        scripted.put(event(str(n)))
    gone = 0

    def handle(event: CloudEvent) -> None:
        nonlocal gone
        gone += 1
        if gone > 100:
            gate.wait(10)

    with broker.worker().add("orders", "billing", handle):
        until(lambda: gone > 100 and len(scripted.out) > 1 and len(set(extends(scripted))) >= len(scripted.out))
        gate.set()
        until(lambda: gone == 500)


def test_a_lost_lease_is_told_and_the_event_is_not_acked(
    broker: Broker, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.on_settle = lambda settled: [refused(ErrorCode.LEASE_LOST)] if settled.verb == "extend" else None
    told: list[object] = []

    def handle(delivery: Delivery) -> None:
        until(lambda: delivery.lease_lost)
        try:
            delivery.ack()
        except LeaseLostError as error:
            told.append(error)

    scripted.put(event("17"))
    stats = broker.worker().add("orders", "billing", handle).run(until_idle=0.05)
    assert len(told) == 1
    assert scripted.verbs() == ["extend"]
    assert (stats.handled, stats.failed) == (0, 1)
    assert "event 17" in caplog.text


def test_a_lost_lease_cancels_an_async_handler(broker: Broker, scripted: Scripted) -> None:
    scripted.on_settle = lambda settled: [refused(ErrorCode.LEASE_LOST)] if settled.verb == "extend" else None
    cancelled = threading.Event()

    async def handle(event: CloudEvent) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    scripted.put(event())
    with broker.worker().add("orders", "billing", handle):
        assert cancelled.wait(10)
    assert "ack" not in scripted.verbs()


def test_a_lost_lease_cancels_an_async_handler_under_middleware(opened: Opened, scripted: Scripted) -> None:
    from cloudevents_bridge import Router

    scripted.lease = LEASE
    scripted.on_settle = lambda settled: [refused(ErrorCode.LEASE_LOST)] if settled.verb == "extend" else None
    cancelled = threading.Event()
    router = Router(middleware=[lambda delivery, call_next: call_next(delivery)])

    @router.on("*")
    async def handle(event: CloudEvent) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    scripted.put(event())
    with opened(topics=[ORDERS]).worker().add("orders", "billing", router):
        assert cancelled.wait(10)
    assert "ack" not in scripted.verbs()


def test_an_extension_that_fails_is_tried_again(broker: Broker, scripted: Scripted) -> None:
    said = iter([busy()] * 7)
    scripted.on_settle = lambda settled: (
        [fault] if settled.verb == "extend" and (fault := next(said, None)) is not None else None
    )

    def handle(event: CloudEvent) -> None:
        until(lambda: len(extends(scripted)) >= 9)

    scripted.put(event())
    assert broker.worker().add("orders", "billing", handle).run(until_idle=0.05).handled == 1


def test_it_is_kept_no_longer_than_max_lease(broker: Broker, scripted: Scripted) -> None:
    kept: list[float] = []

    def handle(delivery: Delivery) -> None:
        came = delivery._ends - LEASE
        until(lambda: delivery.lease_lost)
        kept.append(delivery._ends - came)

    scripted.put(event())
    broker.worker().add("orders", "billing", handle, max_lease=1.5).run(until_idle=0.05)
    assert 1.4 < kept[0] < 1.9
    assert scripted.calls["ack"] == 0


def test_a_handler_may_extend_by_itself(broker: Broker, scripted: Scripted) -> None:
    scripted.on_settle = lambda settled: [Done(lease=settled.seconds)] if settled.verb == "extend" else None

    def handle(delivery: Delivery) -> None:
        ends = delivery._ends
        delivery.extend(30.0)
        until(lambda: clock.now() > ends)
        assert not delivery.lease_lost

    scripted.put(event())
    assert broker.worker().add("orders", "billing", handle).run(until_idle=0.05).handled == 1
    assert [s.seconds for s in scripted.settles if s.verb == "extend"] == [30.0]


def test_without_extension_a_lease_that_ends_is_lost(opened: Opened, scripted: Scripted) -> None:
    scripted.capabilities -= {Capability.EXTEND}
    scripted.lease = 0.2

    def handle(delivery: Delivery) -> None:
        until(lambda: delivery.lease_lost)

    scripted.put(event())
    stats = opened(topics=[ORDERS]).worker().add("orders", "billing", handle).run(until_idle=0.05)
    assert stats.handled == 0
    assert scripted.verbs() == []


def test_a_handler_that_does_not_return_is_reported_with_its_stack(
    opened: Opened, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.lease = LEASE
    gate = threading.Event()

    def stuck_in_here(event: CloudEvent) -> None:
        gate.wait(20)

    scripted.put(event("17"))
    with opened(topics=[BRISK]).worker().add("orders", "billing", stuck_in_here) as working:
        until(lambda: working.stats.stalled == 1)
        until(lambda: "stuck_in_here" in caplog.text)
        assert "event 17" in caplog.text
        gate.set()
        until(lambda: working.stats.stalled == 0)
    assert caplog.text.count("has been running for") == 1


def test_it_is_reported_also_where_no_lease_is_to_be_extended_before(
    opened: Opened, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.lease = 600.0  # the broker's; what is declared was not applied
    gate = threading.Event()

    def handle(event: CloudEvent) -> None:
        if event.id == "17":
            gate.wait(20)

    with opened(topics=[BRISK]).worker().add("orders", "billing", handle) as working:
        scripted.put(event("16"))
        until(lambda: working.stats.handled == 1)  # whose lease is the next one to look at, in five minutes
        scripted.put(event("17"))
        until(lambda: working.stats.stalled == 1)
        gate.set()
    assert "event 17" in caplog.text


def test_an_async_handler_that_does_not_return_is_reported_too(
    opened: Opened, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    scripted.lease = LEASE

    async def stuck_in_here(event: CloudEvent) -> None:
        await asyncio.sleep(60)

    scripted.put(event("17"))
    with opened(topics=[BRISK]).worker(grace=0).add("orders", "billing", stuck_in_here) as working:
        until(lambda: working.stats.stalled == 1)
        until(lambda: "stuck_in_here" in caplog.text)


def keyed(id: str, key: str) -> CloudEvent:
    return event(id, key=key)


@pytest.fixture
def ordered(opened: Opened, scripted: Scripted) -> Broker:
    topic = Topic("orders", ordered=True, subscriptions=[Subscription("billing", redelivery=POLICY, max_attempts=3)])
    return opened(topics=[topic])


def test_of_a_key_one_runs_at_a_time_in_order_while_others_go_on(ordered: Broker, scripted: Scripted) -> None:
    for n in range(40):
        scripted.put(keyed(str(n), "ab"[n % 2]))
    running: set[str] = set()
    seen: dict[str, list[int]] = {"a": [], "b": []}
    together = 0

    def handle(event: CloudEvent) -> None:
        nonlocal together
        key = event.partitionkey
        assert key is not None
        assert key not in running
        running.add(key)
        together = max(together, len(running))
        time.sleep(0.005)
        seen[key].append(int(event.id))
        running.discard(key)

    stats = work_off(ordered.worker().add("orders", "billing", handle, concurrency=4), scripted)
    assert stats.handled == 40
    assert seen == {"a": list(range(0, 40, 2)), "b": list(range(1, 40, 2))}
    assert together == 2


def test_many_of_a_key_leave_free_slots_to_other_keys(ordered: Broker, scripted: Scripted) -> None:
    for n in range(6):
        scripted.put(keyed(f"a{n}", "a"))
    scripted.put(keyed("b0", "b"))
    beside = threading.Event()

    def handle(event: CloudEvent) -> None:
        if event.id == "b0":
            beside.set()
        elif event.id == "a0":
            assert beside.wait(10), "the other key waits although a handler is free"

    stats = work_off(ordered.worker().add("orders", "billing", handle, concurrency=2), scripted)
    assert (stats.handled, stats.failed) == (7, 0)


def test_a_failed_event_of_a_key_is_held_and_its_followers_wait(ordered: Broker, scripted: Scripted) -> None:
    for n in range(5):
        scripted.put(keyed(f"a{n}", "a"))
    scripted.put(keyed("b0", "b"))
    runs: list[str] = []

    def handle(delivery: Delivery) -> None:
        runs.append(delivery.event.id)
        if delivery.event.id == "a0" and delivery.attempt < 3:
            raise ValueError

    stats = work_off(ordered.worker().add("orders", "billing", handle), scripted)
    assert [id for id in runs if id.startswith("a")] == ["a0", "a0", "a0", "a1", "a2", "a3", "a4"]
    assert "b0" in runs
    assert scripted.calls["nack"] == 0
    assert (stats.handled, stats.failed) == (6, 2)


def test_the_head_of_a_key_that_fails_for_good_is_dead_lettered_alone(ordered: Broker, scripted: Scripted) -> None:
    for n in range(10):
        scripted.put(keyed(str(n), "a"))
    runs: list[str] = []

    def handle(event: CloudEvent) -> None:
        runs.append(event.id)
        if event.id == "0":
            raise ValueError

    work_off(ordered.worker().add("orders", "billing", handle), scripted)
    assert runs == ["0", "0", "0", *map(str, range(1, 10))]
    [dead] = [settled for settled in scripted.settles if settled.verb == "dead"]
    assert dead.ids == ["0"]
    assert read(dead.reason).attempts == 3, "the runs that were held are not counted"


def test_a_nack_by_hand_holds_the_key_too(ordered: Broker, scripted: Scripted) -> None:
    for n in range(3):
        scripted.put(keyed(str(n), "a"))
    runs: list[str] = []

    def handle(delivery: Delivery) -> None:
        runs.append(delivery.event.id)
        if delivery.event.id == "0" and delivery.attempt == 1:
            delivery.nack(delay=0.02)

    stats = work_off(ordered.worker().add("orders", "billing", handle), scripted)
    assert runs == ["0", "0", "1", "2"]
    assert (stats.handled, stats.failed) == (3, 1)


def test_a_batch_holds_one_of_each_key(ordered: Broker, scripted: Scripted) -> None:
    for n in range(30):
        scripted.put(keyed(str(n), "abc"[n % 3]))
    batches: list[list[str]] = []

    def handle(deliveries: list[Delivery]) -> None:
        batches.append([str(delivery.event.partitionkey) for delivery in deliveries])

    work_off(ordered.worker().add("orders", "billing", handle, batch=10), scripted)
    assert sum(map(len, batches)) == 30
    assert all(len(keys) == len(set(keys)) for keys in batches)


def test_a_held_retry_of_an_async_handler_runs_when_it_is_due(broker: Broker, scripted: Scripted) -> None:
    scripted.put(event())
    runs: list[int] = []

    async def handle(delivery: Delivery) -> None:
        runs.append(delivery.attempt)
        if delivery.attempt == 1:
            raise Retry(0.1)

    with broker.worker().add("orders", "billing", handle):
        until(lambda: runs == [1, 2])


def test_a_held_retry_runs_beside_a_handler_that_is_busy(broker: Broker, scripted: Scripted) -> None:
    gate = threading.Event()
    runs: list[tuple[str, int]] = []

    def handle(delivery: Delivery) -> None:
        runs.append((delivery.event.id, delivery.attempt))
        if runs[-1] == ("0", 1):
            raise Retry(0.2)
        if delivery.event.id == "1":
            gate.wait(20)

    scripted.put(event("0"))
    with broker.worker().add("orders", "billing", handle, concurrency=2):
        until(lambda: runs)
        scripted.put(event("1"))
        until(lambda: ("0", 2) in runs)
        gate.set()


def test_a_retry_that_is_due_waits_for_a_free_slot_at_no_cost(broker: Broker, scripted: Scripted) -> None:
    runs: list[tuple[str, int]] = []

    async def handle(delivery: Delivery) -> None:
        runs.append((delivery.event.id, delivery.attempt))
        if runs[-1] == ("0", 1):
            raise Retry(0.05)
        if delivery.event.id == "1":
            await asyncio.sleep(1.0)

    scripted.put(event("0"))
    scripted.put(event("1"))
    with broker.worker().add("orders", "billing", handle):
        until(lambda: ("1", 1) in runs)
        used = time.process_time()
        until(lambda: ("0", 2) in runs)
        used = time.process_time() - used
    assert used < 0.5, f"a second of waiting cost {used:.2f} s of processor time"


@pytest.mark.parametrize("longest", [0.0, 10.0, 900.0])
def test_what_is_held_is_given_back_when_it_stops(opened: Opened, scripted: Scripted, longest: float) -> None:
    def handle(event: CloudEvent) -> None:
        raise Retry(60.0)

    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, nack_delay=longest)
    for n in range(3):
        scripted.put(keyed(str(n), "a"))
    topic = Topic("orders", ordered=True, subscriptions=["billing"])
    with opened(topics=[topic]).worker().add("orders", "billing", handle) as working:
        until(lambda: working.stats.failed == 1 and not working.stats.in_flight)
    assert scripted.left() == 3
    [nack] = [settled for settled in scripted.settles if settled.verb == "nack"]
    assert nack.ids == ["0"], "a failed run is one"
    assert min(50.0, longest) <= nack.seconds <= min(60.0, longest), "with what is left of its delay"
    assert {id for settled in scripted.settles if settled.verb == "release" for id in settled.ids} <= {"1", "2"}


def test_a_failure_while_it_stops_waits_as_long_as_it_says(opened: Opened, scripted: Scripted) -> None:
    gate, entered = threading.Event(), threading.Event()

    def handle(event: CloudEvent) -> None:
        entered.set()
        gate.wait(10)
        raise Retry(60.0)

    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, nack_delay=900.0)
    scripted.put(event())
    with opened(topics=[ORDERS]).worker().add("orders", "billing", handle) as working:
        assert entered.wait(10)
        working.stop()
        until(lambda: all(consumer._inbox.stopping for consumer in working._consumers))
        gate.set()
    settles = [(settled.verb, settled.seconds) for settled in scripted.settles if settled.verb != "extend"]
    assert settles == [("nack", 60.0)]


def test_a_retry_for_which_the_lease_is_too_short_is_held_as_long_as_it_lasts(
    opened: Opened, scripted: Scripted
) -> None:
    scripted.capabilities -= {Capability.EXTEND}
    scripted.lease = 3.0
    scripted.put(event())
    runs: list[float] = []

    def handle(event: CloudEvent) -> None:
        runs.append(time.monotonic())
        raise Retry(60.0)

    with opened(topics=[ORDERS]).worker().add("orders", "billing", handle) as working:
        until(lambda: working.stats.failed == 1 and not working.stats.in_flight)
        until(lambda: "nack" in scripted.verbs())
        assert time.monotonic() - runs[0] >= 2.0, "without a delay of the broker's it would run again at once"


def test_what_is_held_is_bounded(opened: Opened, scripted: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudevents_bridge.core.inbox.MAX_HELD", 3)
    scripted.receive_traits = msgspec.structs.replace(scripted.receive_traits, nack_delay=1.0)
    for n in range(8):
        scripted.put(event(str(n)))

    def handle(event: CloudEvent) -> None:
        raise Retry(60.0)

    given_back: Any = lambda: [s.seconds for s in scripted.settles if s.verb == "nack"]  # noqa: E731
    with opened(topics=[ORDERS]).worker().add("orders", "billing", handle) as working:
        until(lambda: working.stats.failed >= 5)
        until(lambda: len(given_back()) >= 2)
    assert set(given_back()) == {1.0}


def test_an_ack_that_comes_too_late_is_not_sent(
    opened: Opened, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    """The process was stopped, perhaps, between the handler and the request; another consumer has the event."""
    settlers = threading.Event()

    def hold_up(settled: Any) -> None:
        if settled.ids == ["slow"]:
            settlers.wait(10)

    scripted.on_settle = hold_up
    scripted.capabilities -= {Capability.EXTEND}
    scripted.lease = 1.0
    seen: list[Delivery] = []

    def handle(delivery: Delivery) -> None:
        seen.append(delivery)

    with opened(topics=[ORDERS]).worker().add("orders", "billing", handle) as working:
        scripted.put(event("slow"))
        until(lambda: scripted.calls["ack"] == 1)
        scripted.put(event("17"))
        until(lambda: working.stats.handled == 2)
        until(lambda: all(clock.now() >= delivery._lost_at for delivery in seen))
        settlers.set()
        until(lambda: "event 17" in caplog.text)
    assert [settled.ids for settled in scripted.settles if settled.verb == "ack"] == [["slow"]]
