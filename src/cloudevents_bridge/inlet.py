"""Where the events of one subscription arrive: receiving, decoding and settling on one subscriber driver."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from cloudevents_bridge import clock, driver
from cloudevents_bridge.core.retry import Backoff
from cloudevents_bridge.delivery import Delivery, RawMessage, log
from cloudevents_bridge.driver import DEAD_LETTER, TARGET, Done, Fault, Inbound, Outbound, Received, Verb
from cloudevents_bridge.errors import BridgeError, ClosedError, DecodeError, ErrorCode
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.faults import fault_of, place_name, to_error, wrapped
from cloudevents_bridge.obituary import write
from cloudevents_bridge.session import Session
from cloudevents_bridge.settling import settle
from cloudevents_bridge.topics import Subscription

if TYPE_CHECKING:
    from cloudevents_bridge.keeper import Keeper

Decoder: TypeAlias = Callable[[RawMessage], CloudEvent | None]
CRASHES = 3
"""A delivery that ended its consumers is dead-lettered after so many times `max_attempts`."""


class Inlet:
    """One subscriber driver with what is needed to use it, in one process.

    Attributes:
        guard: taken for an instant by each delivery that is settled.
        redelivery: the delays after failed runs.
    """

    def __init__(
        self, session: Session, of: driver.Subscription, declared: Subscription, foreign: Sequence[Decoder]
    ) -> None:
        self.session = session
        self.of = of
        self.declared = declared
        self.redelivery = Backoff(declared.redelivery)
        self.guard = threading.Lock()
        self.driver = session.connection.open_subscriber(of)
        self.traits = self.driver.traits
        self.keeper: Keeper | None = None
        self._foreign = foreign
        self._poison: list[tuple[Inbound, str, BaseException | None]] = []
        self._out: dict[Delivery, None] = {}  # in the order they came
        self._stopping = threading.Event()
        self._prune_at = 1000
        self._dead_letters: driver.PublisherDriver | None = None
        self._closed = False

    def receive(self, most: int, wait: float) -> list[Delivery]:
        """One native receive, with retries. What cannot be decoded is dead-lettered on the way.

        Raises:
            BridgeError: what the receive failed with in the end.
        """
        self.session.ensure(self.of)
        timeout = max(wait, self.session.config.timeout)
        received = self.session.call(
            f"receive from {place_name(self.of)}",
            lambda _: Received() if self._stopping.is_set() else self.driver.receive(most, wait),
            timeout=timeout,
            sleep=self._stopping.wait,
        )
        arrived = clock.now()
        if received.lost:
            self._lose(received.lost)
        deliveries = [d for inbound in received.messages if (d := self._take(inbound, arrived)) is not None]
        with self.guard:
            self._out.update(dict.fromkeys(deliveries))
            if len(self._out) > self._prune_at:
                self._out = {d: None for d in self._out if not d.lease_lost}
                self._prune_at = 1000 + 2 * len(self._out)
        if not deliveries:
            self.bury_poison()
        return deliveries

    def bury_poison(self) -> None:
        """Dead-letter what the last receive brought that cannot be handed out. The good ones go out first: with a
        dead-letter place that does not answer, each of these takes as long as the retries do.
        """
        poison, self._poison = self._poison, []
        for inbound, reason, error in poison:
            self._give_up(inbound, reason, error)

    def check(self) -> None:
        """Raise `ClosedError` if deliveries can no longer be settled here."""
        whose = f"the subscriber for {place_name(self.of)} on {self.session.broker}"
        if self.session.left_behind:
            raise ClosedError(f"{whose} received this before a fork: the delivery is the parent's to settle")
        if self._closed:
            raise ClosedError(f"{whose} was closed before this delivery was settled: the event is delivered again")

    def settle(
        self, verb: Verb, deliveries: Sequence[Delivery], *, seconds: float = 0.0, reason: str = ""
    ) -> list[BridgeError | None]:
        """Settle, or extend, in native batches with retries. Returns the error of each, or None."""
        asked = clock.now()
        outcomes = self._settle(verb, [delivery._inbound for delivery in deliveries], seconds, reason)
        errors: list[BridgeError | None] = []
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            if isinstance(outcome, Fault):
                errors.append(self._error(verb, delivery, outcome))
                continue
            errors.append(None)
            if verb == "extend":
                delivery._lease, delivery._ends = outcome.lease, asked + outcome.lease
        if verb != "extend":
            with self.guard:
                for delivery in deliveries:
                    self._out.pop(delivery, None)
        return errors

    def nack(self, delivery: Delivery, delay: float) -> None:
        """Give a delivery back for a time. Where the broker has no delay that long, the lease is kept until then."""
        longest = self.traits.nack_delay
        if delay > longest and self.keeper is not None and self.keeper.hold(delivery, delay):
            return
        error = self.settle("nack", [delivery], seconds=min(delay, longest))[0]
        if error:
            raise error

    def bury(self, delivery: Delivery, reason: str, error: BaseException | None) -> None:
        """Move a delivery to the dead letters.

        Raises:
            BridgeError: what the broker said; the delivery stays with this consumer.
        """
        outcome = self._bury(delivery._inbound, reason, error)
        if isinstance(outcome, Fault):
            raise self._error("dead", delivery, outcome)
        with self.guard:
            self._out.pop(delivery, None)

    def outstanding(self) -> list[Delivery]:
        """What was received and is not settled."""
        with self.guard:
            return [delivery for delivery in self._out if delivery._word is None]

    def stop(self) -> None:
        """Receive no more, and try no more."""
        self._stopping.set()
        self.driver.stop()

    def close(self) -> None:
        """Give back what is not settled, and end."""
        waiting = [delivery for delivery in self.outstanding() if not delivery.lease_lost]
        if waiting:
            self.settle("release", waiting)
        self._closed = True
        self.driver.close()
        if self._dead_letters is not None:
            self._dead_letters.close()

    # -- taking

    def _take(self, inbound: Inbound, arrived: float) -> Delivery | None:
        """The delivery of a native message; None if it is not for the caller."""
        target = inbound.attributes.get(TARGET)
        if target is not None and target != self.of.name:
            self._settle("ack", [inbound])
            return None
        attempt = inbound.attempt or 1
        if attempt > CRASHES * self.declared.max_attempts:
            reason = f"the consumer ended without settling it {attempt - 1} times"
            self._poison.append((inbound, reason, None))
            return None
        try:
            event = self._decode(inbound)
        except Exception as error:  # noqa: BLE001 - a foreign decoder may raise anything
            self._poison.append((inbound, f"it cannot be decoded: {error}", error))
            return None
        return Delivery(self, inbound, event, arrived)

    def _decode(self, inbound: Inbound) -> CloudEvent:
        try:
            return self.session.connection.wire.decode(inbound.attributes, inbound.body)
        except DecodeError:
            raw = RawMessage(inbound.body, inbound.attributes, inbound.native)
            for decoder in self._foreign:
                event = decoder(raw)
                if isinstance(event, CloudEvent):
                    return event
                if event is not None:
                    raise DecodeError(f"a foreign decoder gave a {type(event).__name__}, not a CloudEvent") from None
            raise

    def _give_up(self, inbound: Inbound, reason: str, error: BaseException | None) -> None:
        outcome = self._bury(inbound, reason, error)
        if isinstance(outcome, Fault):
            failure = to_error(outcome, f"dead-letter from {place_name(self.of)}", self.session.broker)
            log.error("a delivery that is to be dead-lettered (%s) comes back: %s", reason, failure)
        else:
            log.warning(
                "a delivery of %s on %s was dead-lettered: %s", place_name(self.of), self.session.broker, reason
            )

    def _lose(self, streams: Iterable[str]) -> None:
        lost = set(streams)
        for delivery in self.outstanding():
            if delivery._inbound.stream in lost:
                delivery._lose()

    # -- settling

    def _settle(
        self, verb: Verb, messages: Sequence[Inbound], seconds: float = 0.0, reason: str = ""
    ) -> list[Done | Fault]:
        return settle(self.session, self.driver, verb, messages, seconds=seconds, reason=reason)

    def _error(self, verb: Verb, delivery: Delivery, fault: Fault) -> BridgeError:
        if fault.code == ErrorCode.LEASE_LOST:
            delivery._lose()
        subject = f"event {delivery.event.id} ({delivery.event.type})"
        return to_error(fault, f"{verb} on {place_name(self.of)}", self.session.broker, subject=subject)

    def _bury(self, inbound: Inbound, reason: str, error: BaseException | None) -> Done | Fault:
        if self.traits.dead:
            return self._settle("dead", [inbound], reason=write(self.of, inbound.attempt or 1, reason, error))[0]
        try:
            with wrapped(self.session.connection, f"dead-letter from {place_name(self.of)}", self.session.broker):
                self._copy(inbound, reason, error)
        except BridgeError as failure:
            return fault_of(self.session.connection, failure)
        return self._settle("ack", [inbound])[0]

    def _copy(self, inbound: Inbound, reason: str, error: BaseException | None) -> None:
        """Publish a copy to the dead-letter place. One that leaves no room for a reason is kept without."""
        if self._dead_letters is None:
            self._dead_letters = self.session.connection.open_publisher(driver.DeadLetters(self.of))
        doing = f"dead-letter from {place_name(self.of)}"
        dead_letters = self._dead_letters
        attributes = {k: v for k, v in inbound.attributes.items() if k not in (TARGET, DEAD_LETTER)}
        # A fresh deduplication id: with the event's own, one that dies a second time would be swallowed.
        dedup = uuid.uuid4().hex
        message = Outbound(inbound.body, attributes, inbound.key, dedup)
        for longest in (4096, 128):
            text = write(self.of, inbound.attempt or 1, reason, error, longest=longest)
            told = Outbound(inbound.body, {**attributes, DEAD_LETTER: text}, inbound.key, dedup)
            if dead_letters.size(told) <= dead_letters.traits.message_bytes:
                message = told
                break

        def attempt(left: float) -> None:
            outcome: Any = dead_letters.send([message], timeout=left)[0]
            if isinstance(outcome, Fault):
                raise to_error(outcome, doing, self.session.broker)

        self.session.call(doing, attempt)
