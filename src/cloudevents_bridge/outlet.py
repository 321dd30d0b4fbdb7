"""Where the events of one topic leave: encoding, and running an outbox against a publisher driver."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cloudevents_bridge import clock, driver
from cloudevents_bridge.core.outbox import Entry, Outbox, Resolved
from cloudevents_bridge.driver import Capability, Done, Fault, Outbound
from cloudevents_bridge.errors import BridgeError, ErrorCode, PublishError
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.faults import fault_of, place_name, to_error
from cloudevents_bridge.session import Session

log = logging.getLogger("cloudevents_bridge")
LOOK = 0.01
"""Seconds between two looks at what was submitted, while sends are in flight and more could be."""
MAX_SENDS = 8
"""Sends of one publisher in flight at once, at most, whatever the driver would take."""


class Receipt(NamedTuple):
    """The broker's word that it has accepted an event.

    Attributes:
        native_id: the broker's own id for it.
        sequence: its place in the broker's order, where the broker says.
    """

    event_id: str
    native_id: str
    sequence: str | None


class Outlet:
    """One publisher driver with what is needed to use it, in one process."""

    def __init__(self, session: Session, to: driver.Topic) -> None:
        self.session = session
        self.doing = f"publish to {place_name(to)}"
        self.ordered = to.ordered
        self._to = to
        self._driver = session.connection.open_publisher(to)
        self._size = self._driver.size
        self._encode = session.connection.wire.encode
        self._expires = Capability.EXPIRY in session.connection.capabilities
        traits = self._driver.traits
        self.batch_count = traits.batch_count
        self.sends = min(traits.sends, MAX_SENDS)
        self.window = 2 * traits.batch_count * self.sends
        self._pool: ThreadPoolExecutor | None = None
        self._unreached_said = False

    def outbox(self) -> Outbox:
        return Outbox(self._driver.traits, self.session.config.backoff.delay, ordered=self.ordered)

    def entry(self, event: CloudEvent, tag: Any, delay: float, deadline: float) -> Entry:
        """The event, encoded. One that this broker cannot carry is an entry with a refusal."""
        try:
            attributes, body = self._encode(event)
            members = event._state.members
            ttl = self._ttl(event) if self._expires and "expirytime" in event._state.extra else None
            message = Outbound(body, attributes, members.partitionkey, f"{members.source} {members.id}", delay, ttl)
            return Entry(message, self._size(message), tag, deadline)
        except Exception as error:  # noqa: BLE001 - the outcome of this event, not of the others
            code = error.code if isinstance(error, BridgeError) else ErrorCode.INTERNAL
            fault = Fault(code, retryable=False, maybe_applied=False, message=f"it cannot be encoded: {error}")
            refused = Outbound(b"", {}, event.partitionkey)
            return Entry(refused, 0, tag, deadline, refusal=fault, cause=error)

    def _ttl(self, event: CloudEvent) -> float | None:
        expiry = event.extensions["expirytime"]
        return max((expiry - datetime.now(UTC)).total_seconds(), 0.0) if isinstance(expiry, datetime) else None

    def try_at_once(self, entry: Entry) -> Sequence[Done | Fault] | None:
        """Send one event without an outbox, which it needs only if that fails. None: it cannot be sent at all."""
        if entry.refusal is not None or entry.size > self._driver.traits.message_bytes:
            return None
        self.session.ensure(self._to)
        return self._send([entry])

    def run(
        self,
        outbox: Outbox,
        finish: Callable[[list[Resolved]], None],
        pause: Callable[[float], Any],
        more: Callable[[], Any] = lambda: None,
    ) -> None:
        """Send until `more` adds nothing and nothing of the outbox is unresolved. `pause` waits some seconds."""
        self.session.ensure(self._to)
        in_flight: dict[Future[Sequence[Done | Fault]], list[Entry]] = {}
        while True:
            more()
            batch = outbox.next_batch(clock.now()) if len(in_flight) < self.sends else None
            if batch and self.sends == 1:
                outbox.settled(batch, self._send(batch), clock.now())
            elif batch:
                in_flight[self._submit(batch)] = batch
            elif in_flight:
                wake = outbox.wake_at()
                patience = None
                if len(in_flight) < self.sends:  # there is room for what is submitted meanwhile
                    patience = LOOK if wake is None else min(max(wake - clock.now(), 0.0), LOOK)
                for future in wait(in_flight, timeout=patience, return_when=FIRST_COMPLETED).done:
                    outbox.settled(in_flight.pop(future), future.result(), clock.now())
            elif (wake := outbox.wake_at()) is not None:
                pause(max(wake - clock.now(), 0.0))
            resolved = outbox.take()
            finish(resolved)
            if not (resolved or outbox.unresolved):
                return

    def _submit(self, batch: list[Entry]) -> Future[Sequence[Done | Fault]]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(MAX_SENDS, thread_name_prefix="ceb-send")
        try:
            return self._pool.submit(self._send, batch)
        except RuntimeError:  # the program ends, and no pool starts anything any more
            sent: Future[Sequence[Done | Fault]] = Future()
            sent.set_result(self._send(batch))
            return sent

    def _send(self, batch: list[Entry]) -> Sequence[Done | Fault]:
        try:
            outcomes = self._driver.send(
                [entry.message for entry in batch], timeout=max(batch[0].deadline - clock.now(), 0.001)
            )
        except Exception as error:  # noqa: BLE001 - every native error becomes the outcome of each event
            fault = fault_of(self.session.connection, error)
            for entry in batch:
                entry.cause = error
            return [fault] * len(batch)
        if len(outcomes) != len(batch):
            text = f"the driver gave {len(outcomes)} outcomes for {len(batch)} events"
            return [Fault(ErrorCode.INTERNAL, retryable=False, maybe_applied=True, message=text)] * len(batch)
        return outcomes

    def outcome(self, event: CloudEvent, entry: Entry, outcome: Done | Fault) -> Receipt | BridgeError:
        """What the caller is told of one event."""
        if isinstance(outcome, Done):
            if outcome.reached == 0 or self._unreached_said:
                self._notice(event, outcome.reached)
            # as Receipt(…), which goes by way of Python and takes twice as long
            return tuple.__new__(Receipt, (event._state.members.id, outcome.id, outcome.sequence))
        applied = entry.maybe_applied or outcome.maybe_applied
        subject = f"event {event.id} ({event.type})"
        return to_error(
            outcome, self.doing, self.session.broker, maybe_applied=applied, subject=subject, cause=entry.cause
        )

    def _notice(self, event: CloudEvent, reached: int | None) -> None:
        """Say, once, that events of this topic reach no subscription."""
        if reached == 0 and not self._unreached_said:
            log.warning(
                "event %s (%s) was accepted by %s on %s and reached no subscription: it will not be delivered. "
                "Declare the topic's subscriptions, or create them before publishing",
                event.id,
                event.type,
                place_name(self._to),
                self.session.broker,
            )
        self._unreached_said = reached == 0

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False)  # what may still be in flight was given up by whoever closes
        self._driver.close()


def publish_error(
    failed: list[tuple[CloudEvent, BridgeError]],
    total: int,
    topic: str,
    outcomes: list[Receipt | BridgeError] | None = None,
) -> PublishError:
    """One error for a call, or a flush, that holds the error of each event."""
    first = failed[0][1]
    return PublishError(
        f"{len(failed)} of {total} events for topic {topic} were not accepted; the first: {first} "
        "(.failed holds each event with its error)",
        code=first.code,
        retryable=all(error.retryable for _, error in failed),
        broker=first.broker,
        maybe_applied=any(error.maybe_applied for _, error in failed),
        outcomes=outcomes,
        failed=failed,
    )
