"""Drivers that are broken on the way in."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import msgspec

from cloudevents_bridge.driver import (
    DEAD_LETTER,
    Connection,
    Received,
    SubscriberDriver,
    Subscription,
)
from cloudevents_bridge_contract.broken.base import Broken, NeverCloses
from cloudevents_bridge_contract.faulty import Of

replace = msgspec.structs.replace


class MangledBytes(Broken):
    """Reads every message as Latin-1."""

    caught_by = "envelope.text_data[astral]"

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        return replace(got, messages=[replace(m, body=m.body.decode("latin-1").encode("utf-8")) for m in got.messages])


class LosesTheContentType(Broken):
    """Drops the content type, so that nobody can tell the form."""

    caught_by = "publish.one_event_arrives_equal"

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        return replace(got, messages=[replace(m, attributes={"content-type": "text/plain"}) for m in got.messages])


class SharesOneQueue(Broken):
    """Every subscription of a topic consumes from the same queue."""

    caught_by = "consume.two_subscriptions_each_get_all"

    def open_subscriber(self, inner: Connection, of: Of) -> SubscriberDriver:
        return inner.open_subscriber(replace(of, name="alpha") if isinstance(of, Subscription) else of)


class SleepsThrough(Broken):
    """Looks for events when its wait is over, not when they come."""

    caught_by = "consume.wait_blocks_and_returns_soon"

    def __init__(self) -> None:
        super().__init__()
        self._never = threading.Event()

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        self._never.wait(min(wait, 2.0))
        return inner.receive(max_messages, 0.0)

    def stop(self, inner: SubscriberDriver) -> None:
        self._never.set()
        inner.stop()


class Spins(Broken):
    """Never waits."""

    caught_by = "consume.empty_wait_is_kept_without_spinning"

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        return inner.receive(max_messages, 0.0)


class NeverCounts(Broken):
    """Says of every delivery that it is the first."""

    caught_by = "consume.attempt_is_one_then_two"

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        return replace(got, messages=[replace(m, attempt=1) for m in got.messages])


class EatsGarbage(Broken):
    """Acks what it cannot read itself."""

    caught_by = "consume.undecodable_message_is_dead_lettered[1]"

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        bad = [m for m in got.messages if not m.body.startswith(b"{")]
        if bad:
            inner.settle("ack", bad, timeout=5)
        return replace(got, messages=[m for m in got.messages if m not in bad])


class LosesTheReason(Broken):
    """Keeps dead letters without their reason."""

    caught_by = "settle.dead_letter_after_max_attempts"

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        return replace(got, messages=[replace(m, attributes=_without(m.attributes, DEAD_LETTER)) for m in got.messages])


class DropsWhatNobodyWaitsFor(Broken):
    """Forgets what a short receive brought, until its lease ends."""

    caught_by = "traps.receive_given_up_at_any_instant_loses_nothing"

    def open_subscriber(self, inner: Connection, of: Of) -> SubscriberDriver:
        return NeverCloses(inner.open_subscriber(of))

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        return Received() if wait < 0.001 else got


def _without(attributes: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in attributes.items() if key != name}
