"""Where the events of one subscription arrive: receiving, decoding and settling on one subscriber driver."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

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

Decoder: TypeAlias = Callable[[RawMessage], CloudEvent | None]
CRASHES = 3
"""A delivery that ended its consumers is dead-lettered after so many times `max_attempts`."""


class Holder(Protocol):
    """Who holds a delivery that is to be delivered again later."""

    def hold(self, delivery: Delivery, delay: float) -> bool:
        """Hold it for so many seconds. False: the broker is to do that."""


Poison: TypeAlias = tuple[Inbound, str, BaseException | None]
"""What cannot be handed out, with the reason."""


class Inlet:
    """One subscriber driver with what is needed to use it, in one process.

    Args:
        of_dead_letters: it consumes the dead letters of the subscription. They are not dead-lettered again.

    Attributes:
        guard: taken for an instant by each delivery that is settled.
        redelivery: the delays after failed runs.
        holder: who holds what is given back with a delay.
        lost: told of deliveries whose stream the broker took away.
        deferred: deliveries that are settled by hand are only marked; who runs them settles them in order.
    """

    def __init__(
        self,
        session: Session,
        of: driver.Subscription,
        declared: Subscription,
        foreign: Sequence[Decoder],
        *,
        of_dead_letters: bool = False,
    ) -> None:
        self.session = session
        self.of = of
        self.declared = declared
        self.redelivery = Backoff(declared.redelivery)
        self.guard = threading.Lock()
        self.of_dead_letters = of_dead_letters
        self.driver = session.connection.open_subscriber(driver.DeadLetters(of) if of_dead_letters else of)
        self.traits = self.driver.traits
        self._last_attempt = CRASHES * declared.max_attempts
        if self.traits.removes_after is not None:  # what is handed out then and not settled would be gone
            self._last_attempt = min(self._last_attempt, self.traits.removes_after - 1)
        self.holder: Holder | None = None
        self.lost: Callable[[Sequence[Delivery]], None] | None = None
        self.deferred = False
        self._foreign = foreign
        self._poison: list[Poison] = []
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
            self._receiving,
            lambda _: Received() if self._stopping.is_set() else self.driver.receive(most, wait),
            timeout=timeout,
            sleep=self._stopping.wait,
        )
        deliveries = self._arrived(received)
        if not deliveries:
            self.bury_poison()
        return deliveries

    def receive_once(self, most: int, wait: float) -> tuple[list[Delivery], list[Poison]]:
        """One native receive. What cannot be handed out is the caller's to `give_up`.

        Raises:
            BridgeError: what the receive failed with.
        """
        self.session.ensure(self.of)
        with wrapped(self.session.connection, self._receiving, self.session.broker):
            received = Received() if self._stopping.is_set() else self.driver.receive(most, wait)
        deliveries = self._arrived(received)
        poison, self._poison = self._poison, []
        return deliveries, poison

    def bury_poison(self) -> None:
        """Dead-letter what the last receive brought that cannot be handed out. The good ones go out first: with a
        dead-letter place that does not answer, each of these takes as long as the retries do.
        """
        poison, self._poison = self._poison, []
        for each in poison:
            self.give_up(each)

    def check(self) -> None:
        """Raise `ClosedError` if deliveries can no longer be settled here."""
        if not (self.session.left_behind or self._closed):
            return
        whose = f"the subscriber for {place_name(self.of)} on {self.session.broker}"
        if self.session.left_behind:
            raise ClosedError(f"{whose} received this before a fork: the delivery is the parent's to settle")
        raise ClosedError(f"{whose} was closed before this delivery was settled: the event is delivered again")

    def settle(
        self, verb: Verb, deliveries: Sequence[Delivery], *, seconds: float = 0.0, timeout: float | None = None
    ) -> list[BridgeError | None]:
        """Settle, or extend, in native batches with retries. Returns the error of each, or None.

        Args:
            timeout: seconds for all of it; None: as the session says.
        """
        telemetry = self.session.config.telemetry
        if telemetry is None or verb == "extend" or not deliveries:
            return self._settle_each(verb, deliveries, seconds, timeout)
        settle = partial(self._settle_each, verb, deliveries, seconds, timeout)
        return telemetry.settle(self.of, verb, deliveries, settle)

    def _settle_each(
        self, verb: Verb, deliveries: Sequence[Delivery], seconds: float, timeout: float | None
    ) -> list[BridgeError | None]:
        asked = clock.now()
        outcomes = self._settle(verb, [delivery._inbound for delivery in deliveries], seconds, timeout=timeout)
        errors = [
            self._error(verb, delivery, outcome) if isinstance(outcome, Fault) else None
            for delivery, outcome in zip(deliveries, outcomes, strict=True)
        ]
        if verb == "extend":
            for delivery, outcome in zip(deliveries, outcomes, strict=True):
                if isinstance(outcome, Done):
                    delivery._grant(outcome.lease, asked + outcome.lease)
        else:
            with self.guard:
                for delivery in deliveries:
                    self._out.pop(delivery, None)
        return errors

    def nack(self, delivery: Delivery, delay: float) -> None:
        """Give a delivery back for a time. Where the broker has no delay that long, it is held here."""
        if self.holder is not None and self.holder.hold(delivery, delay):
            return
        error = self.settle("nack", [delivery], seconds=min(delay, self.traits.nack_delay))[0]
        if error:
            raise error

    def bury(self, delivery: Delivery, reason: str, error: BaseException | None) -> None:
        """Move a delivery to the dead letters.

        Raises:
            BridgeError: what the broker said; the delivery stays with this consumer.
        """
        telemetry = self.session.config.telemetry
        if telemetry is None:
            failure = self._bury_one(delivery, reason, error)
        else:
            [failure] = telemetry.settle(self.of, "dead", [delivery], lambda: [self._bury_one(delivery, reason, error)])
        if failure is not None:
            raise failure

    def _bury_one(self, delivery: Delivery, reason: str, error: BaseException | None) -> BridgeError | None:
        outcome = self._bury(delivery._inbound, delivery.attempt, reason, error)
        if isinstance(outcome, Fault):
            return self._error("dead", delivery, outcome)
        with self.guard:
            self._out.pop(delivery, None)
        return None

    def outstanding(self) -> list[Delivery]:
        """What was received and is not settled."""
        with self.guard:
            return [delivery for delivery in self._out if delivery._word is None]

    def stop(self) -> None:
        """Receive no more, and try no more."""
        self._stopping.set()
        self.driver.stop()

    def close(self, *, timeout: float | None = None) -> None:
        """Give back what is not settled, within `timeout` seconds, and end."""
        waiting = [delivery for delivery in self.outstanding() if not delivery.lease_lost]
        if waiting:
            self.settle("release", waiting, timeout=timeout)
        self._closed = True
        self.driver.close()
        if self._dead_letters is not None:
            self._dead_letters.close()

    # -- taking

    @property
    def _receiving(self) -> str:
        return f"receive from {place_name(self.place)}"

    @property
    def place(self) -> driver.Subscription | driver.DeadLetters:
        """What is consumed."""
        return driver.DeadLetters(self.of) if self.of_dead_letters else self.of

    def _arrived(self, received: Received) -> list[Delivery]:
        arrived = clock.now()
        if received.lost:
            self._lose(received.lost)
        deliveries = [d for inbound in received.messages if (d := self._take(inbound, arrived)) is not None]
        with self.guard:
            self._out.update(dict.fromkeys(deliveries))
            if len(self._out) > self._prune_at:
                self._out = {d: None for d in self._out if not d.lease_lost}
                self._prune_at = 1000 + 2 * len(self._out)
        return deliveries

    def renew(self, delivery: Delivery) -> Delivery:
        """The delivery of one more run here."""
        again = delivery._renewed()
        with self.guard:
            self._out.pop(delivery, None)
            self._out[again] = None
        return again

    def _take(self, inbound: Inbound, arrived: float) -> Delivery | None:
        """The delivery of a native message; None if it is not for the caller."""
        if not self.of_dead_letters:
            target = inbound.attributes.get(TARGET)
            if target is not None and target != self.of.name:
                self._settle("ack", [inbound])
                return None
            attempt = inbound.attempt or 1
            if attempt > self._last_attempt:
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

    def give_up(self, poison: Poison) -> bool:
        """Dead-letter what cannot be handed out. False: it comes again when its lease ends, as a letter always does."""
        inbound, reason, error = poison
        if self.of_dead_letters:
            log.warning("a letter of %s cannot be handled, and stays there: %s", place_name(self.place), reason)
            return False
        outcome = self._bury(inbound, inbound.attempt or 1, reason, error)
        if isinstance(outcome, Fault):
            failure = to_error(outcome, f"dead-letter from {place_name(self.of)}", self.session.broker)
            log.error("a delivery that is to be dead-lettered (%s) comes back: %s", reason, failure)
            return False
        log.warning("a delivery of %s on %s was dead-lettered: %s", place_name(self.of), self.session.broker, reason)
        return True

    def _lose(self, streams: Iterable[str]) -> None:
        gone = set(streams)
        deliveries = [delivery for delivery in self.outstanding() if delivery._inbound.stream in gone]
        for delivery in deliveries:
            delivery._lose()
        if self.lost is not None:
            self.lost(deliveries)

    # -- settling

    def _settle(
        self,
        verb: Verb,
        messages: Sequence[Inbound],
        seconds: float = 0.0,
        reason: str = "",
        timeout: float | None = None,
    ) -> list[Done | Fault]:
        return settle(self.session, self.driver, verb, messages, seconds=seconds, reason=reason, timeout=timeout)

    def _error(self, verb: Verb, delivery: Delivery, fault: Fault) -> BridgeError:
        if fault.code == ErrorCode.LEASE_LOST:
            delivery._lose()
        subject = f"event {delivery.event.id} ({delivery.event.type})"
        return to_error(fault, f"{verb} on {place_name(self.place)}", self.session.broker, subject=subject)

    def _bury(self, inbound: Inbound, attempts: int, reason: str, error: BaseException | None) -> Done | Fault:
        if self.traits.dead:
            return self._settle("dead", [inbound], reason=write(self.of, attempts, reason, error))[0]
        try:
            with wrapped(self.session.connection, f"dead-letter from {place_name(self.of)}", self.session.broker):
                self._copy(inbound, attempts, reason, error)
        except BridgeError as failure:
            return fault_of(self.session.connection, failure)
        return Done() if self.deferred else self._settle("ack", [inbound])[0]

    def _copy(self, inbound: Inbound, attempts: int, reason: str, error: BaseException | None) -> None:
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
            text = write(self.of, attempts, reason, error, longest=longest)
            told = Outbound(inbound.body, {**attributes, DEAD_LETTER: text}, inbound.key, dedup)
            if dead_letters.size(told) <= dead_letters.traits.message_bytes:
                message = told
                break

        def attempt(left: float) -> None:
            outcome: Any = dead_letters.send([message], timeout=left)[0]
            if isinstance(outcome, Fault):
                raise to_error(outcome, doing, self.session.broker)

        self.session.call(doing, attempt)
