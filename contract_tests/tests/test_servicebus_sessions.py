"""The Service Bus emulator by Azure's own client: sessions, and what the client itself does to their order."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cloudevents_bridge_contract.emulators.process import wait_until

pytest.importorskip("azure.servicebus", reason="not run (azure-servicebus is not installed)")
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusMessage
from azure.servicebus.exceptions import (
    OperationTimeoutError,
    ServiceBusError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

if TYPE_CHECKING:
    from conftest import Bus

WAIT = 10.0


def _of(session: str, *bodies: bytes) -> list[Any]:
    return [ServiceBusMessage(body, session_id=session) for body in bodies]


def _bodies(messages: list[Any]) -> list[bytes]:
    return [b"".join(each.body) for each in messages]


def test_by_id_and_the_next_one(bus: Bus) -> None:
    name = bus.queue(requires_session=True)
    bus.send(name, *_of("one", b"1a", b"1b"), *_of("two", b"2a"))
    two = bus.receiver(name, session_id="two", prefetch_count=10)
    assert two.session.session_id == "two"
    assert two.session.locked_until_utc > datetime.now(UTC) + timedelta(seconds=50)
    other = bus.receiver(name, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=5, prefetch_count=10)
    assert other.session.session_id == "one"
    assert _bodies(other.receive_messages(2, max_wait_time=WAIT)) == [b"1a", b"1b"]
    (got,) = two.receive_messages(1, max_wait_time=WAIT)
    assert got.session_id == "two"
    two.complete_message(got)


def test_one_receiver_each_until_it_closes(bus: Bus) -> None:
    name = bus.queue(requires_session=True)
    bus.send(name, *_of("one", b"a", b"b"))
    first = bus.receiver(name, session_id="one", prefetch_count=10)
    (got, _) = first.receive_messages(2, max_wait_time=WAIT)
    with pytest.raises(SessionCannotBeLockedError):
        bus.receiver(name, session_id="one")
    first.complete_message(got)
    first.close()
    second = bus.receiver(name, session_id="one", prefetch_count=10)
    (left,) = second.receive_messages(1, max_wait_time=WAIT)
    assert (_bodies([left]), left.delivery_count) == ([b"b"], 0)  # closing a session is no failed delivery


def test_no_session_in_time(bus: Bus) -> None:
    name = bus.queue(requires_session=True)
    began = time.monotonic()
    with pytest.raises(OperationTimeoutError):
        bus.receiver(name, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=1)
    assert time.monotonic() - began > 0.9


def test_a_waiting_receiver_gets_the_session_that_comes(bus: Bus) -> None:
    from threading import Timer

    name = bus.queue(requires_session=True)
    timer = Timer(0.7, lambda: bus.send(name, *_of("late", b"a")))
    timer.start()
    receiver = bus.receiver(name, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=WAIT)
    assert receiver.session.session_id == "late"
    timer.join()


def test_state_and_renewal(bus: Bus) -> None:
    name = bus.queue(requires_session=True, lock_duration=timedelta(seconds=1))
    bus.send(name, *_of("one", b"a"))
    receiver = bus.receiver(name, session_id="one", prefetch_count=10)
    assert receiver.session.get_state() is None
    receiver.session.set_state(b"\x00half done")
    (got,) = receiver.receive_messages(1, max_wait_time=WAIT)
    until = time.monotonic() + 2
    while time.monotonic() < until:
        assert receiver.session.renew_lock() > datetime.now(UTC)
    receiver.complete_message(got)
    receiver.close()
    again = bus.receiver(name, session_id="one")
    assert again.session.get_state() == b"\x00half done"
    again.session.set_state(None)
    assert again.session.get_state() is None


def test_a_session_whose_lock_ends_goes_to_another(bus: Bus) -> None:
    name = bus.queue(requires_session=True, lock_duration=timedelta(seconds=1))
    bus.send(name, *_of("one", b"a"))
    slow = bus.receiver(name, session_id="one", prefetch_count=10)
    (got,) = slow.receive_messages(1, max_wait_time=WAIT)
    other = bus.receiver(name, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=WAIT, prefetch_count=10)
    (taken,) = other.receive_messages(1, max_wait_time=WAIT)
    assert taken.delivery_count == 1  # a lock that ended is a failed delivery
    slow.session._locked_until_utc = datetime.now(UTC) + timedelta(hours=1)  # else the client says so by itself
    with pytest.raises(ServiceBusError):
        slow.complete_message(got)
    with pytest.raises(SessionLockLostError):
        slow.session.renew_lock()
    other.complete_message(taken)


def test_what_is_abandoned_keeps_its_place(bus: Bus) -> None:
    name = bus.queue(requires_session=True)
    bus.send(name, _of("one", *[b"%d" % number for number in range(20)]))
    receiver = bus.receiver(name, session_id="one", prefetch_count=1)
    (head,) = receiver.receive_messages(1, max_wait_time=WAIT)
    receiver.abandon_message(head)
    receiver.close()
    again = bus.receiver(name, session_id="one", prefetch_count=20)
    found: list[Any] = []

    def all_here() -> bool:
        found.extend(again.receive_messages(20 - len(found), max_wait_time=2))
        return len(found) == 20

    assert wait_until(all_here, WAIT)
    assert _bodies(found) == [b"%d" % number for number in range(20)]
    assert [each.delivery_count for each in found] == [1] + [0] * 19


def test_a_dropped_connection_frees_the_session(bus: Bus) -> None:
    name = bus.queue(requires_session=True)
    bus.send(name, *_of("one", b"a"))
    lost = bus.receiver(name, session_id="one", prefetch_count=10)
    transport = lost._handler._connection._transport
    transport.sock.shutdown(socket.SHUT_RDWR)
    began = time.monotonic()
    receiver = bus.receiver(name, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=WAIT, prefetch_count=10)
    assert receiver.session.session_id == "one"
    assert time.monotonic() - began < 5
    transport.sock.close()


@pytest.mark.parametrize(("prefetch", "order"), [(0, [b"c", b"b"]), (10, [b"b", b"c"])])
def test_the_client_itself_reorders_a_session_without_prefetch(bus: Bus, prefetch: int, order: list[bytes]) -> None:
    """Why sessions need `prefetch_count`: the client's credit stays out behind a `receive` that got less than it asked
    for. What arrives on it outside of a `receive`, while the client reads for a settlement or its keep-alive, it gives
    back at once if it has no prefetch; and then what was sent behind that message is already on its way. No broker can
    mend this.
    """
    name = bus.queue(requires_session=True)
    bus.send(name, *_of("one", b"a"))
    receiver = bus.receiver(name, session_id="one", prefetch_count=prefetch)
    (got,) = receiver.receive_messages(10, max_wait_time=1)
    assert _bodies([got]) == [b"a"]
    bus.send(name, *_of("one", b"b", b"c"))
    receiver._handler._connection.listen(wait=2, batch=1)  # as a keep-alive does: it reads `b`, and no one receives
    found: list[Any] = []

    def both_here() -> bool:
        found.extend(receiver.receive_messages(2 - len(found), max_wait_time=2))
        return len(found) == 2

    assert wait_until(both_here, WAIT)
    assert _bodies(found) == order
    assert [each.delivery_count for each in found] == [0, 0]  # what is released is no failed delivery


def test_the_kinds_do_not_mix(bus: Bus) -> None:
    plain, ordered = bus.queue(), bus.queue(requires_session=True)
    with pytest.raises(ServiceBusError, match="requires sessions"):
        bus.receiver(ordered)
    with pytest.raises(ServiceBusError, match="does not support sessions"):
        bus.receiver(plain, session_id="one")
    with pytest.raises(ServiceBusError, match="SessionId was not set"):
        bus.send(ordered, ServiceBusMessage(b"a"))


def test_subscriptions_have_sessions_too_and_bury_what_has_none(bus: Bus) -> None:
    topic = bus.topic()
    bus.admin.create_subscription(topic, "s", requires_session=True)
    bus.send(topic, *_of("one", b"a"), ServiceBusMessage(b"none"))
    receiver = bus.receiver(topic, "s", session_id="one", prefetch_count=10)
    assert _bodies(receiver.receive_messages(1, max_wait_time=WAIT)) == [b"a"]
    (dead,) = bus.receiver(topic, "s", sub_queue="deadletter").receive_messages(1, max_wait_time=WAIT)
    assert dead.dead_letter_reason == "Session id is null"


def test_order_within_sessions_with_concurrent_receivers(bus: Bus) -> None:
    name = bus.queue(requires_session=True)
    sessions, each = 8, 25
    for number in range(each):
        bus.send(name, [ServiceBusMessage(b"%d" % number, session_id=f"s{n}") for n in range(sessions)])
    seen: dict[str, list[int]] = {f"s{n}": [] for n in range(sessions)}

    def receive() -> None:
        with bus.client.get_queue_receiver(
            name, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=WAIT, prefetch_count=each
        ) as receiver:
            while messages := receiver.receive_messages(each, max_wait_time=1):
                for message in messages:
                    seen[message.session_id].append(int(b"".join(message.body)))
                    receiver.complete_message(message)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(receive) for _ in range(sessions)]:
            done.result()
    assert seen == {f"s{n}": list(range(each)) for n in range(sessions)}
