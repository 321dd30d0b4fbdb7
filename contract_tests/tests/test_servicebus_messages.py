"""The Service Bus emulator by Azure's own client: messages, their locks, and how they are settled."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cloudevents_bridge_contract.emulators.process import wait_until

pytest.importorskip("azure.servicebus", reason="not run (azure-servicebus is not installed)")
from azure.servicebus import ServiceBusMessage, ServiceBusReceiveMode, ServiceBusSubQueue
from azure.servicebus.exceptions import (
    MessageAlreadySettled,
    MessageLockLostError,
    MessageNotFoundError,
    ServiceBusError,
)

if TYPE_CHECKING:
    from conftest import Bus

WAIT = 10.0


def _body(message: Any) -> bytes:
    return b"".join(message.body)


def _all(receiver: Any, count: int) -> list[Any]:
    """So many messages, as they come."""
    found: list[Any] = []

    def all_here() -> bool:
        found.extend(receiver.receive_messages(count - len(found), max_wait_time=2))
        return len(found) >= count

    assert wait_until(all_here, WAIT)
    return found


def test_a_message_arrives_as_it_was_sent(bus: Bus) -> None:
    name = bus.queue()
    moment, number = datetime(2026, 5, 1, tzinfo=UTC), uuid.uuid4()
    sent = {"text": "grün", "int": 7, "real": 1.5, "yes": True, "when": moment, "id": number}
    message = ServiceBusMessage(
        bytes(range(256)),
        application_properties=sent,
        content_type="application/json",
        message_id="m-1",
        correlation_id="c-1",
        subject="s",
        to="t",
        reply_to="r",
        reply_to_session_id="rs",
    )
    before = datetime.now(UTC) - timedelta(seconds=1)
    bus.send(name, message)
    (got,) = bus.receiver(name).receive_messages(1, max_wait_time=WAIT)
    assert _body(got) == bytes(range(256))
    properties = {key.decode(): value for key, value in got.application_properties.items()}
    assert properties.pop("when") == int(moment.timestamp() * 1000)
    assert properties == {"text": "grün".encode(), "int": 7, "real": 1.5, "yes": True, "id": number}
    assert (got.content_type, got.message_id, got.correlation_id) == ("application/json", "m-1", "c-1")
    assert (got.subject, got.to, got.reply_to, got.reply_to_session_id) == ("s", "t", "r", "rs")
    assert got.delivery_count == 0
    assert got.sequence_number == 1
    assert before < got.enqueued_time_utc < datetime.now(UTC) + timedelta(seconds=1)
    assert got.locked_until_utc > datetime.now(UTC)
    assert isinstance(got.lock_token, uuid.UUID)


def test_a_large_message_and_an_empty_one(bus: Bus) -> None:
    name = bus.queue()
    bus.send(name, ServiceBusMessage(b"x" * 200_000), ServiceBusMessage(b""))
    assert [len(_body(each)) for each in _all(bus.receiver(name), 2)] == [200_000, 0]


def test_batches_of_both_kinds(bus: Bus) -> None:
    name = bus.queue()
    with bus.client.get_queue_sender(name) as sender:
        batch = sender.create_message_batch()
        assert batch.max_size_in_bytes == 256 * 1024
        for number in range(50):
            batch.add_message(ServiceBusMessage(b"%d" % number, application_properties={"n": number}))
        sender.send_messages(batch)
        sender.send_messages([ServiceBusMessage(b"%d" % number) for number in range(50, 60)])
    got = _all(bus.receiver(name), 60)
    assert [_body(each) for each in got] == [b"%d" % number for number in range(60)]
    assert got[7].application_properties == {b"n": 7}


def test_complete_takes_it_away_and_abandon_counts(bus: Bus) -> None:
    name = bus.queue()
    bus.send(name, ServiceBusMessage(b"a"))
    receiver = bus.receiver(name)
    for count in range(3):
        (got,) = receiver.receive_messages(1, max_wait_time=WAIT)
        assert got.delivery_count == count
        receiver.abandon_message(got)
    (got,) = receiver.receive_messages(1, max_wait_time=WAIT)
    receiver.complete_message(got)
    with pytest.raises(MessageAlreadySettled):
        receiver.complete_message(got)
    assert receiver.receive_messages(1, max_wait_time=0.3) == []
    assert bus.admin.get_queue_runtime_properties(name).total_message_count == 0


def test_too_many_deliveries_end_in_the_dead_letter_queue(bus: Bus) -> None:
    name = bus.queue(max_delivery_count=2)
    bus.send(name, ServiceBusMessage(b"a", message_id="m", application_properties={"k": "v"}))
    receiver = bus.receiver(name)
    for _ in range(2):
        (got,) = receiver.receive_messages(1, max_wait_time=WAIT)
        receiver.abandon_message(got)
    assert receiver.receive_messages(1, max_wait_time=0.3) == []
    (dead,) = bus.receiver(name, sub_queue=ServiceBusSubQueue.DEAD_LETTER).receive_messages(1, max_wait_time=WAIT)
    assert dead.dead_letter_reason == "MaxDeliveryCountExceeded"
    assert dead.dead_letter_error_description == "Message could not be consumed after 2 delivery attempts."
    assert (dead.message_id, _body(dead), dead.application_properties[b"k"]) == ("m", b"a", b"v")
    assert dead.delivery_count == 2


def test_dead_letter_with_reason_and_back_again(bus: Bus) -> None:
    name = bus.queue()
    bus.send(name, ServiceBusMessage(b"a"))
    receiver = bus.receiver(name)
    (got,) = receiver.receive_messages(1, max_wait_time=WAIT)
    receiver.dead_letter_message(got, reason="rotten", error_description="it smells")
    assert bus.admin.get_queue_runtime_properties(name).dead_letter_message_count == 1
    graves = bus.receiver(name, sub_queue=ServiceBusSubQueue.DEAD_LETTER)
    (peeked,) = graves.peek_messages()
    assert (peeked.dead_letter_reason, peeked.dead_letter_error_description) == ("rotten", "it smells")
    (dead,) = graves.receive_messages(1, max_wait_time=WAIT)
    assert dead.enqueued_sequence_number == got.sequence_number
    with pytest.raises(ServiceBusError, match="cannot be dead-lettered again"):
        graves.dead_letter_message(dead, reason="again")
    bus.receiver(name, sub_queue=ServiceBusSubQueue.DEAD_LETTER).complete_message(dead)  # the first one was shut down
    assert bus.admin.get_queue_runtime_properties(name).dead_letter_message_count == 0


def test_defer_and_receive_by_number(bus: Bus) -> None:
    name = bus.queue()
    bus.send(name, ServiceBusMessage(b"a"), ServiceBusMessage(b"b"))
    receiver = bus.receiver(name)
    first, second = _all(receiver, 2)
    receiver.defer_message(first)
    receiver.defer_message(second)
    assert receiver.receive_messages(1, max_wait_time=0.3) == []
    assert [each.state.name for each in receiver.peek_messages(5)] == []  # it peeks on behind what it received
    assert [each.state.name for each in receiver.peek_messages(5, sequence_number=1)] == ["DEFERRED", "DEFERRED"]
    numbers = [first.sequence_number, second.sequence_number]
    again = receiver.receive_deferred_messages(numbers)
    assert [_body(each) for each in again] == [b"a", b"b"]
    receiver.complete_message(again[0])
    receiver.abandon_message(again[1])
    with pytest.raises(MessageNotFoundError):
        receiver.receive_deferred_messages(numbers)
    (last,) = receiver.receive_deferred_messages([numbers[1]])
    receiver.dead_letter_message(last, reason="enough")
    assert bus.admin.get_queue_runtime_properties(name).total_message_count == 1


def test_renewing_keeps_and_not_renewing_loses_the_lock(bus: Bus) -> None:
    name = bus.queue(lock_duration=timedelta(seconds=1))
    bus.send(name, ServiceBusMessage(b"a"))
    receiver, other = bus.receiver(name), bus.receiver(name)
    (got,) = receiver.receive_messages(1, max_wait_time=WAIT)
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        assert receiver.renew_message_lock(got) > datetime.now(UTC)
        assert other.receive_messages(1, max_wait_time=0.2) == []
    (taken,) = other.receive_messages(1, max_wait_time=WAIT)
    assert taken.delivery_count == 1
    got._expiry = datetime.now(UTC) + timedelta(hours=1)  # else the client says so by itself
    with pytest.raises(MessageLockLostError):
        receiver.complete_message(got)
    with pytest.raises(MessageLockLostError):
        receiver.renew_message_lock(got)
    other.complete_message(taken)


def test_another_receiver_can_settle_by_the_lock_token(bus: Bus) -> None:
    name = bus.queue()
    bus.send(name, ServiceBusMessage(b"a"))
    (got,) = bus.receiver(name).receive_messages(1, max_wait_time=WAIT)
    bus.receiver(name).complete_message(got)
    assert bus.admin.get_queue_runtime_properties(name).total_message_count == 0


def test_receive_and_delete(bus: Bus) -> None:
    name = bus.queue()
    bus.send(name, ServiceBusMessage(b"a"), ServiceBusMessage(b"b"))
    receiver = bus.receiver(name, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE)
    assert [_body(each) for each in _all(receiver, 2)] == [b"a", b"b"]
    assert bus.admin.get_queue_runtime_properties(name).total_message_count == 0


def test_what_a_closed_receiver_did_not_hand_out_is_given_back_uncounted(bus: Bus) -> None:
    name = bus.queue()
    bus.send(name, *[ServiceBusMessage(b"%d" % number) for number in range(5)])
    receiver = bus.receiver(name, prefetch_count=5)
    (got,) = receiver.receive_messages(1, max_wait_time=WAIT)
    receiver.complete_message(got)
    receiver.close()
    rest = _all(bus.receiver(name), 4)
    assert [(_body(each), each.delivery_count) for each in rest] == [(b"%d" % number, 0) for number in range(1, 5)]


def test_schedule_and_cancel(bus: Bus) -> None:
    name = bus.queue()
    with bus.client.get_queue_sender(name) as sender:
        soon, late = datetime.now(UTC) + timedelta(seconds=1.5), datetime.now(UTC) + timedelta(hours=1)
        (number,) = sender.schedule_messages(ServiceBusMessage(b"never"), late)
        sender.schedule_messages([ServiceBusMessage(b"soon"), ServiceBusMessage(b"too")], soon)
        sender.send_messages(ServiceBusMessage(b"by annotation", scheduled_enqueue_time_utc=soon))
        receiver = bus.receiver(name)
        states = {each.state.name for each in receiver.peek_messages(10, sequence_number=1)}
        assert states == {"SCHEDULED"}
        assert bus.admin.get_queue_runtime_properties(name).scheduled_message_count == 4
        sender.cancel_scheduled_messages(number)
        with pytest.raises(MessageNotFoundError):
            sender.cancel_scheduled_messages(number)
    got = _all(receiver, 3)
    assert datetime.now(UTC) >= soon - timedelta(milliseconds=50)
    assert [_body(each) for each in got] == [b"soon", b"too", b"by annotation"]
    assert got[0].scheduled_enqueue_time_utc is not None


def test_peek_shows_and_leaves(bus: Bus) -> None:
    name = bus.queue()
    bus.send(name, *[ServiceBusMessage(b"%d" % number) for number in range(5)])
    receiver = bus.receiver(name)
    assert [_body(each) for each in receiver.peek_messages(3)] == [b"0", b"1", b"2"]
    assert [_body(each) for each in receiver.peek_messages(3)] == [b"3", b"4"]
    assert receiver.peek_messages(3) == []
    assert len(_all(receiver, 5)) == 5


def test_time_to_live(bus: Bus) -> None:
    drops, keeps = bus.queue(), bus.queue(dead_lettering_on_message_expiration=True)
    short = bus.queue(default_message_time_to_live=timedelta(seconds=1))
    for name in (drops, keeps):
        bus.send(name, ServiceBusMessage(b"a", time_to_live=timedelta(seconds=1)), ServiceBusMessage(b"b"))
    bus.send(short, ServiceBusMessage(b"a", time_to_live=timedelta(hours=1)))
    counts = bus.admin.get_queue_runtime_properties
    assert wait_until(lambda: counts(keeps).dead_letter_message_count == 1, WAIT)
    assert wait_until(lambda: counts(drops).total_message_count == 1, WAIT)
    assert wait_until(lambda: counts(short).total_message_count == 0, WAIT)
    (dead,) = bus.receiver(keeps, sub_queue=ServiceBusSubQueue.DEAD_LETTER).receive_messages(1, max_wait_time=WAIT)
    assert dead.dead_letter_reason == "TTLExpiredException"
    assert dead.time_to_live == timedelta(seconds=1) or dead.time_to_live is None
    assert _body(bus.receiver(drops).receive_messages(1, max_wait_time=WAIT)[0]) == b"b"


def test_duplicates_within_the_window_are_taken_and_dropped(bus: Bus) -> None:
    name = bus.queue(requires_duplicate_detection=True, duplicate_detection_history_time_window=timedelta(seconds=2))
    twice = [ServiceBusMessage(b"a", message_id="one"), ServiceBusMessage(b"b", message_id="one")]
    bus.send(name, *twice, ServiceBusMessage(b"c", message_id="two"))
    receiver = bus.receiver(name)
    first = _all(receiver, 2)
    assert [_body(each) for each in first] == [b"a", b"c"]

    def sent_again() -> bool:
        bus.send(name, ServiceBusMessage(b"d", message_id="one"))
        return bool(bus.admin.get_queue_runtime_properties(name).active_message_count == 3)

    assert wait_until(sent_again, WAIT, pause=0.3)


def test_forwarding_of_messages_and_of_dead_letters(bus: Bus) -> None:
    end, graves = bus.queue(), bus.queue()
    middle = bus.queue(forward_to=end)
    name = bus.queue(forward_dead_lettered_messages_to=graves)
    bus.send(middle, ServiceBusMessage(b"a"))
    assert _body(bus.receiver(end).receive_messages(1, max_wait_time=WAIT)[0]) == b"a"
    with pytest.raises(ServiceBusError, match="auto-forwarding"):
        bus.receiver(middle)
    bus.send(name, ServiceBusMessage(b"b"))
    receiver = bus.receiver(name)
    receiver.dead_letter_message(receiver.receive_messages(1, max_wait_time=WAIT)[0], reason="why")
    (dead,) = bus.receiver(graves).receive_messages(1, max_wait_time=WAIT)
    assert (dead.dead_letter_reason, dead.dead_letter_source) == ("why", name)


def test_forwarding_ends_after_four_hops(bus: Bus) -> None:
    names = [bus.queue()]
    for _ in range(5):
        names.append(bus.queue(forward_to=names[-1]))
    bus.send(names[4], ServiceBusMessage(b"a"))
    assert _body(bus.receiver(names[0]).receive_messages(1, max_wait_time=WAIT)[0]) == b"a"
    bus.send(names[5], ServiceBusMessage(b"b"))
    runtime = bus.admin.get_queue_runtime_properties(names[1])
    assert runtime.transfer_dead_letter_message_count == 1
    of_transfers = bus.receiver(names[1], sub_queue=ServiceBusSubQueue.TRANSFER_DEAD_LETTER)
    (dead,) = of_transfers.receive_messages(1, max_wait_time=WAIT)
    assert dead.dead_letter_reason == "MaxTransferHopCountExceeded"


def test_concurrent_receivers_lose_nothing_and_get_nothing_twice(bus: Bus) -> None:
    name = bus.queue()
    bus.send(name, *[[ServiceBusMessage(b"%d" % (start + n)) for n in range(100)] for start in range(0, 600, 100)])
    receivers = [bus.receiver(name, prefetch_count=20) for _ in range(3)]

    def receive(receiver: Any) -> list[int]:
        found: list[int] = []
        while messages := receiver.receive_messages(50, max_wait_time=1):
            for message in messages:
                receiver.complete_message(message)
                found.append(int(_body(message)))
        return found

    with ThreadPoolExecutor(3) as pool:
        shares = list(pool.map(receive, receivers))
    assert sorted(number for share in shares for number in share) == list(range(600))
    assert bus.admin.get_queue_runtime_properties(name).total_message_count == 0
