"""Drivers that settle wrongly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from cloudevents_bridge.driver import (
    Connection,
    Done,
    Fault,
    Inbound,
    Received,
    SubscriberDriver,
    Verb,
)
from cloudevents_bridge.errors import ErrorCode
from cloudevents_bridge_contract.broken.base import Broken, NeverCloses
from cloudevents_bridge_contract.faulty import Of, Outcomes

replace = msgspec.structs.replace


class RefusesToExtend(Broken):
    """Declares that it extends leases, and refuses to."""

    caught_by = "consume.iteration_extends_the_one_in_hand"

    def settle(
        self,
        inner: SubscriberDriver,
        of: Of,
        verb: Verb,
        messages: Sequence[Inbound],
        *,
        seconds: float,
        reason: str,
        timeout: float,
    ) -> Outcomes:
        if verb == "extend":
            return [Fault(ErrorCode.UNSUPPORTED, retryable=False, maybe_applied=False)] * len(messages)
        return inner.settle(verb, messages, seconds=seconds, reason=reason, timeout=timeout)


class Settling(Broken):
    """A driver that is broken in one verb of `settle`."""

    verb: ClassVar[Verb]
    instead: ClassVar[Verb | None] = None

    def settle(
        self,
        inner: SubscriberDriver,
        of: Of,
        verb: Verb,
        messages: Sequence[Inbound],
        *,
        seconds: float,
        reason: str,
        timeout: float,
    ) -> Outcomes:
        if verb != self.verb:
            return inner.settle(verb, messages, seconds=seconds, reason=reason, timeout=timeout)
        if self.instead is None:
            return [Done(lease=seconds) for _ in messages]
        return inner.settle(self.instead, messages, seconds=0.0, reason="", timeout=timeout)


class AcksNothing(Settling):
    """Says that it acked."""

    caught_by = "settle.ack_is_final"
    verb = "ack"


class NackDrops(Settling):
    """Acks what was nacked."""

    caught_by = "settle.nack_comes_back"
    verb = "nack"
    instead = "ack"


class NackIgnoresDelay(Settling):
    """Gives back at once whatever delay was asked."""

    caught_by = "settle.nack_with_delay_comes_back_no_earlier"
    verb = "nack"
    instead = "nack"


class NeverExtends(Settling):
    """Says that it extended the lease."""

    caught_by = "settle.extend_keeps_it_away"
    verb = "extend"


class DeadLetterDrops(Settling):
    """Acks what shall be dead-lettered."""

    caught_by = "settle.explicit_dead_letter"
    verb = "dead"
    instead = "ack"


class LeasesAreShort(Broken):
    """Promises the declared lease and gives a quarter of it."""

    caught_by = "settle.unsettled_comes_back_after_the_lease"

    def open_subscriber(self, inner: Connection, of: Of) -> SubscriberDriver:
        return inner.open_subscriber(of)

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        if got.messages:
            inner.settle("extend", got.messages, seconds=got.messages[0].lease / 4, timeout=5)
        return got


class OneBadSpoilsAll(Broken):
    """Fails a whole settle for one stale receipt."""

    caught_by = "settle.one_bad_receipt_does_not_spoil_the_batch"

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        got = inner.receive(max_messages, wait)
        return replace(got, messages=[replace(m, lease=m.lease * 100) for m in got.messages])

    def settle(
        self,
        inner: SubscriberDriver,
        of: Of,
        verb: Verb,
        messages: Sequence[Inbound],
        *,
        seconds: float,
        reason: str,
        timeout: float,
    ) -> Outcomes:
        outcomes = inner.settle("extend", messages, seconds=1.0, timeout=timeout)
        if verb == "ack" and any(isinstance(o, Fault) for o in outcomes):
            return [Fault(ErrorCode.LEASE_LOST, retryable=False, maybe_applied=False)] * len(messages)
        return inner.settle(verb, messages, seconds=seconds, reason=reason, timeout=timeout)


class KeepsOnClose(Broken):
    """Gives nothing back when it is closed: what was received waits for its lease."""

    caught_by = "life.unsettled_deliveries_are_given_back_on_close"

    def open_subscriber(self, inner: Connection, of: Of) -> SubscriberDriver:
        return NeverCloses(inner.open_subscriber(of))

    def settle(
        self,
        inner: SubscriberDriver,
        of: Of,
        verb: Verb,
        messages: Sequence[Inbound],
        *,
        seconds: float,
        reason: str,
        timeout: float,
    ) -> Outcomes:
        if verb == "release":
            return [Done() for _ in messages]
        return inner.settle(verb, messages, seconds=seconds, reason=reason, timeout=timeout)

    def close(self, inner: Connection) -> None:
        return None
