"""Consuming by hand: receive, iterate, and settle each delivery yourself."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

from cloudevents_bridge import driver
from cloudevents_bridge.delivery import Delivery
from cloudevents_bridge.errors import BridgeError, ClosedError, InvalidArgumentError, SettleError
from cloudevents_bridge.fetcher import Fetcher
from cloudevents_bridge.inlet import Decoder, Inlet
from cloudevents_bridge.session import Closing, Opener, Session
from cloudevents_bridge.topics import Subscription

__all__ = ["Decoder", "Delivery", "Subscriber"]
ITERATION_WAIT = 20.0
"""Seconds that one receive of an iteration waits for an event."""
LONGEST_WAIT = threading.TIMEOUT_MAX / 2
"""Seconds that stand for "for ever"."""


class Subscriber(Closing):
    """Consumes one subscription; what it receives, the caller settles. Made by `Broker.subscriber`; thread-safe.

    It starts one thread at the first receive, and one more to keep leases when an iteration or a held retry needs it.
    After a fork the child's copy opens its own; deliveries stay the parent's.
    """

    topic: str
    subscription: str

    def __init__(
        self, opener: Opener, of: driver.Subscription, declared: Subscription, foreign: Sequence[Decoder] = ()
    ) -> None:
        self.topic = of.topic.name
        self.subscription = of.name
        self._opener = opener
        self._of = of
        self._declared = declared
        self._foreign = tuple(foreign)
        self._session: Session | None = None
        self._fetcher: Fetcher | None = None
        self._closed = False
        self._ended = False

    def receive(self, max_events: int = 10, *, wait: float = 20.0) -> list[Delivery]:
        """Up to `max_events` deliveries, as soon as there is one; an empty list after `wait` seconds without any.

        Their leases are not extended: settle them in time, or call `Delivery.extend`.

        Raises:
            NotFoundError: if the subscription does not exist.
            ClosedError: after `close`.
            BridgeError: what the broker said, after the retries of the policy.
        """
        return self._take(self._open(), *checked(max_events, wait), batch=True)

    def ack_many(self, deliveries: Iterable[Delivery]) -> None:
        """Ack deliveries of this subscriber in native batches. Those acked before are passed over.

        Raises:
            SettleError: if some could not be acked; `.failed` has each with its error. The others are acked.
        """
        claimed: list[Delivery] = []
        failed: list[tuple[Delivery, BridgeError]] = []
        for delivery in deliveries:
            try:
                if delivery._claim("acked"):
                    claimed.append(delivery)
            except BridgeError as error:
                failed.append((delivery, error))
        given = len(claimed) + len(failed)
        for inlet in {delivery._inlet: None for delivery in claimed}:
            failed += self._ack(inlet, [delivery for delivery in claimed if delivery._inlet is inlet])
        if failed:
            first = failed[0][1]
            raise SettleError(
                f"{len(failed)} of {given} deliveries of {self.topic}/{self.subscription} could "
                f"not be acked; the first: {first} (.failed holds each with its error)",
                code=first.code,
                retryable=all(error.retryable for _, error in failed),
                broker=first.broker,
                failed=failed,
            )

    def _ack(self, inlet: Inlet, deliveries: list[Delivery]) -> list[tuple[Delivery, BridgeError]]:
        try:
            outcomes = inlet.settle("ack", deliveries)
        except BaseException:
            for delivery in deliveries:
                delivery._unclaim()
            raise
        failed = [(each, error) for each, error in zip(deliveries, outcomes, strict=True) if error is not None]
        for delivery, _ in failed:
            delivery._unclaim()
        return failed

    def __iter__(self) -> Iterator[Delivery]:
        """Deliveries one by one, for ever: it ends on `close`. The lease of the one in hand is extended.

        Raises:
            BridgeError: as `receive`.
        """
        while not self.closed:
            try:
                fetcher = self._open()
                received = self._take(fetcher, 1, ITERATION_WAIT, batch=False)
            except ClosedError:
                if self._closed:
                    return
                raise
            for delivery in received:
                fetcher.keeper.keep(delivery)
                try:
                    yield delivery
                finally:
                    fetcher.keeper.drop(delivery)

    def _take(self, fetcher: Fetcher, most: int, wait: float, *, batch: bool) -> list[Delivery]:
        telemetry = self._opener.config.telemetry
        if telemetry is None:
            return fetcher.take(most, wait)
        with telemetry.receiving(self._of, batch=batch) as received:
            received.extend(fetcher.take(most, wait))
        return received

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self, *, timeout: float = 30.0) -> None:
        """Receive no more and give back what is not settled. A receive that waits returns an empty list."""
        fetcher = self._stop()
        with self._opener.lock:
            ended, self._ended = self._ended, True
        if not ended and fetcher is not None:
            fetcher.close(timeout)

    def _stop(self) -> Fetcher | None:
        """Receive no more. Gives what is to be closed, if this process has anything."""
        with self._opener.lock:
            self._closed = True
            fetcher = self._fetcher if self._session is self._opener.peek() else None
        if fetcher is not None:
            fetcher.stop()
        return fetcher

    def _open(self) -> Fetcher:
        session = self._opener.get()
        if session is self._session and not self._closed:
            assert self._fetcher is not None
            return self._fetcher
        with self._opener.lock:
            if self._closed:
                raise ClosedError(
                    f"the subscriber for {self.topic}/{self.subscription} on {session.broker} was closed: "
                    "ask the broker for another",
                    broker=session.broker,
                )
            if session is not self._session or self._fetcher is None:
                self._fetcher = Fetcher(Inlet(session, self._of, self._declared, self._foreign))
                self._session = session
            return self._fetcher


def checked(max_events: int, wait: float) -> tuple[int, float]:
    """What `receive` is called with.

    Raises:
        InvalidArgumentError: if it makes no sense.
    """
    if max_events < 1:
        raise InvalidArgumentError(f"max_events is {max_events!r}: it must be at least 1")
    if not wait >= 0:
        raise InvalidArgumentError(f"wait is {wait!r}: it must be 0 or more seconds")
    return max_events, min(wait, LONGEST_WAIT)
