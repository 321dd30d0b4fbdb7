"""Publishing: one event and its receipt, many with the outcome of each, or a stream batched in the background."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Literal, cast

from cloudevents_bridge import clock
from cloudevents_bridge.buffer import Account, Buffer
from cloudevents_bridge.core.outbox import NOT_SENT, Resolved
from cloudevents_bridge.driver import Capability, Done, Fault
from cloudevents_bridge.errors import BridgeError, ClosedError, InvalidArgumentError
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.line import Line
from cloudevents_bridge.outlet import Outlet, Receipt, publish_error
from cloudevents_bridge.session import Closing

__all__ = ["Publisher", "Receipt"]


class Publisher(Closing):
    """Publishes to one topic. Made by `Broker.publisher`; thread-safe, and cheap enough to be made for each request:
    publishers of one topic share the connection, the buffer and its threads, which are closed with the broker.

    No thread is started until `submit` is called, then one, and up to eight more on brokers that take several sends at
    once. After a fork the child's copy has an empty buffer and a connection of its own.
    """

    topic: str

    def __init__(
        self,
        line: Line,
        *,
        linger: float = 0.01,
        max_buffered: int = 10_000,
        on_full: Literal["block", "raise"] = "block",
    ) -> None:
        if not linger >= 0:
            raise InvalidArgumentError(f"linger is {linger!r}: it must be 0 or more seconds")
        if max_buffered < 1:
            raise InvalidArgumentError(f"max_buffered is {max_buffered!r}: it must be at least 1")
        if on_full not in ("block", "raise"):
            raise InvalidArgumentError(f"on_full is {on_full!r}: it must be 'block' or 'raise'")
        self.topic = line.topic
        self._line = line
        self._options = (float(linger), max_buffered, on_full)
        self._submitted: tuple[Buffer, Account] | None = None
        self._closed = False

    def publish(self, event: CloudEvent, *, delay: float = 0.0, timeout: float | None = None) -> Receipt:
        """Publish one event and wait until the broker has accepted it.

        Args:
            delay: seconds before it is delivered first; needs `Capability.DELAY`.
            timeout: seconds for the call with its retries; None: as configured.

        Raises:
            EventTooLargeError: if the event, encoded, is over the broker's limit.
            UnsupportedError: if `delay` is not 0 and the broker has no such capability.
            BridgeError: if it was not accepted; with `.maybe_applied` it is not known whether it was.
        """
        _checked(event, "publish")
        telemetry = self._line.opener.config.telemetry
        if telemetry is None:
            outcome = self._publish_one(event, delay, timeout)
        else:
            outcome = telemetry.send(self.topic, event, lambda event: self._publish_one(event, delay, timeout))
        if isinstance(outcome, BridgeError):
            raise outcome
        return outcome

    def publish_many(
        self, events: Iterable[CloudEvent], *, delay: float = 0.0, timeout: float | None = None
    ) -> list[Receipt]:
        """Publish events in native batches, in order per ordering key; the receipts are in the order of the events.

        Args:
            delay: seconds before they are delivered first; needs `Capability.DELAY`.
            timeout: seconds for the whole call with its retries; None: as configured.

        Raises:
            PublishError: if any was not accepted. `.outcomes` has the receipt or the error of each.
            InvalidArgumentError: if an item is no CloudEvent; then nothing was sent.
        """
        items: list[object] = list(events)
        for place, item in enumerate(items):
            if not isinstance(item, CloudEvent):
                raise _no_event(item, f"publish_many: item {place}")
        taken = cast("list[CloudEvent]", items)
        if not taken:
            self._open()
            return []
        telemetry = self._line.opener.config.telemetry
        if telemetry is None:
            outcomes = self._publish(taken, delay, timeout)
        else:
            outcomes = telemetry.send_many(self.topic, taken, lambda events: self._publish(events, delay, timeout))
        if failed := [(taken[place], each) for place, each in enumerate(outcomes) if isinstance(each, BridgeError)]:
            raise publish_error(failed, len(taken), self.topic, outcomes)
        return cast("list[Receipt]", outcomes)

    def submit(self, event: CloudEvent, *, delay: float = 0.0) -> Future[Receipt]:
        """Hand over one event to be batched and published in the background.

        Args:
            delay: seconds before it is delivered first; needs `Capability.DELAY`.

        Returns:
            The future of its receipt. Cancelling it before it is sent takes the event back.

        Raises:
            BridgeError: RESOURCE_EXHAUSTED if the buffer is full and the publisher was opened with on_full="raise".
        """
        _checked(event, "submit")
        telemetry = self._line.opener.config.telemetry
        if telemetry is None:
            return self._enter(event, event, delay)
        return telemetry.submit(self.topic, event, lambda carrying: self._enter(event, carrying, delay))

    def _submit(self, event: CloudEvent, delay: float, told: Callable[[], object]) -> Future[Receipt] | None:
        """`submit` that does not wait. None: there is no room; `told` is called when to try again."""
        _checked(event, "submit")
        self._open()
        with self._line.buffer(self._options).room(told) as there_is:
            return self.submit(event, delay=delay) if there_is else None

    def _enter(self, event: CloudEvent, sent: CloudEvent, delay: float) -> Future[Receipt]:
        """Submit an event. `sent`: the same, as it is to be sent."""
        self._check_delay(self._open(), delay)
        buffer = self._line.buffer(self._options)
        submitted = self._submitted
        if submitted is None or submitted[0] is not buffer:
            with self._line.opener.lock:
                submitted = self._submitted
                if submitted is None or submitted[0] is not buffer:
                    submitted = self._submitted = (buffer, Account())
        return buffer.submit(event, delay, submitted[1], sent)

    def flush(self, *, timeout: float = 30.0) -> None:
        """Wait until everything submitted here so far is accepted or has failed.

        Raises:
            PublishError: for the events submitted since the last flush that failed.
            DeadlineExceededError: if `timeout` seconds were not enough; what waits stays buffered.
        """
        self._open()
        if mine := self._mine():
            buffer, account = mine
            buffer.flush(timeout, account)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self, *, timeout: float = 30.0) -> None:
        """Flush within `timeout` seconds and end. Closing twice is harmless.

        Raises:
            PublishError: if submitted events failed, or were not accepted in time; `.failed` holds them.
        """
        closed, self._closed = self._closed, True
        if not closed and (mine := self._mine()):
            buffer, account = mine
            buffer.settle_up(timeout, account)

    def _mine(self) -> tuple[Buffer, Account] | None:
        """Where this publisher has submitted, in this process."""
        submitted = self._submitted
        return submitted if submitted and submitted[0].session is self._line.opener.peek() else None

    def _open(self) -> Outlet:
        outlet = self._line.outlet()
        if self._closed:
            raise ClosedError(
                f"the publisher for topic {self.topic} on {outlet.session.broker} was closed: ask the "
                "broker for another",
                broker=outlet.session.broker,
            )
        return outlet

    def _begin(self, delay: float, timeout: float | None) -> tuple[Outlet, float]:
        """The outlet, and the deadline of the call, when what was submitted before has gone out before."""
        outlet = self._open()
        self._check_delay(outlet, delay)
        deadline = clock.now() + (outlet.session.config.timeout if timeout is None else timeout)
        if outlet.ordered:
            for buffer in self._line.buffers():
                buffer.wait_sent(deadline - clock.now())
        return outlet, deadline

    def _publish_one(self, event: CloudEvent, delay: float, timeout: float | None) -> Receipt | BridgeError:
        outlet, deadline = self._begin(delay, timeout)
        entry = outlet.entry(event, 0, delay, deadline)
        begun = clock.now()
        tried = outlet.try_at_once(entry) if begun < deadline else None
        if tried is not None and tried[0].__class__ is Done:
            return outlet.outcome(event, entry, tried[0])
        outbox = outlet.outbox()
        outbox.add(entry)
        if tried is not None and (batch := outbox.next_batch(begun)):  # as the outbox would have sent it
            outbox.settled(batch, tried, clock.now())
        told: list[Receipt | BridgeError] = []
        outlet.run(outbox, lambda resolved: told.extend(outlet.outcome(event, *each) for each in resolved), time.sleep)
        return told[0]

    def _publish(
        self, events: Sequence[CloudEvent], delay: float, timeout: float | None
    ) -> list[Receipt | BridgeError]:
        outlet, deadline = self._begin(delay, timeout)
        outbox = outlet.outbox()
        waiting = enumerate(events)
        failed_keys: set[str | None] = set()
        outcomes: list[Receipt | BridgeError | None] = [None] * len(events)

        def more() -> None:
            # Events are encoded as they are sent: a million of them take no more memory than a few batches.
            for place, event in islice(waiting, max(outlet.window - outbox.unresolved, 0)):
                entry = outlet.entry(event, place, delay, deadline)
                if failed_keys and event.partitionkey in failed_keys:
                    entry.refusal = NOT_SENT
                outbox.add(entry)

        def finish(resolved: list[Resolved]) -> None:
            for entry, outcome in resolved:
                event = events[entry.tag]
                if outlet.ordered and isinstance(outcome, Fault) and event.partitionkey is not None:
                    failed_keys.add(event.partitionkey)
                outcomes[entry.tag] = outlet.outcome(event, entry, outcome)

        outlet.run(outbox, finish, time.sleep, more)
        assert None not in outcomes
        return cast("list[Receipt | BridgeError]", outcomes)

    def _check_delay(self, outlet: Outlet, delay: float) -> None:
        if not 0 <= delay < math.inf:
            raise InvalidArgumentError(
                f"delay is {delay!r}: it must be 0 or more seconds", broker=outlet.session.broker
            )
        if delay:
            outlet.session.require(Capability.DELAY, "publish when the time has come, or use a broker that has it")


def _checked(event: CloudEvent, where: str) -> CloudEvent:
    if not isinstance(event, CloudEvent):
        raise _no_event(event, where)
    return event


def _no_event(item: object, where: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{where} is a {type(item).__name__}, not a CloudEvent: "
        "make one with CloudEvent(type=…, source=…, data=…), or with CloudEvent.from_sdk from a CNCF SDK object"
    )
