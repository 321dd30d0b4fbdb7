"""Consuming by hand: receive, iterate, and settle each delivery yourself."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from cloudevents_bridge import clock, driver
from cloudevents_bridge.delivery import Delivery, log
from cloudevents_bridge.errors import (
    BridgeError,
    ClosedError,
    ErrorCode,
    InvalidArgumentError,
    SettleError,
    make_error,
)
from cloudevents_bridge.inlet import Decoder, Inlet
from cloudevents_bridge.keeper import Keeper
from cloudevents_bridge.session import Closing, Opener, Session
from cloudevents_bridge.topics import Subscription

__all__ = ["Decoder", "Delivery", "Subscriber"]
ITERATION_WAIT = 20.0
"""Seconds that one receive of an iteration waits for an event."""
LONGEST_WAIT = threading.TIMEOUT_MAX / 2
"""Seconds that stand for "for ever"."""
POLL_GRACE = 0.05
"""Seconds that `receive(wait=0)` gives a broker whose own receive cannot be that short."""


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
        self._fetcher: _Fetcher | None = None
        self._closed = False

    def receive(self, max_events: int = 10, *, wait: float = 20.0) -> list[Delivery]:
        """Up to `max_events` deliveries, as soon as there is one; an empty list after `wait` seconds without any.

        Their leases are not extended: settle them in time, or call `Delivery.extend`.

        Raises:
            NotFoundError: if the subscription does not exist.
            ClosedError: after `close`.
            BridgeError: what the broker said, after the retries of the policy.
        """
        if max_events < 1:
            raise InvalidArgumentError(f"max_events is {max_events!r}: it must be at least 1")
        if not wait >= 0:
            raise InvalidArgumentError(f"wait is {wait!r}: it must be 0 or more seconds")
        return self._take(self._open(), max_events, min(wait, LONGEST_WAIT), batch=True)

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

    def _take(self, fetcher: _Fetcher, most: int, wait: float, *, batch: bool) -> list[Delivery]:
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
        with self._opener.lock:
            closed, self._closed = self._closed, True
            fetcher = self._fetcher
        if not closed and fetcher is not None and self._session is self._opener.peek():
            fetcher.close(timeout)

    def _open(self) -> _Fetcher:
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
                self._fetcher = _Fetcher(Inlet(session, self._of, self._declared, self._foreign))
                self._session = session
            return self._fetcher


class _Fetcher:
    """The one thread that receives for a subscriber. What it receives belongs to whoever asks next: a caller that
    stopped waiting loses nothing.
    """

    def __init__(self, inlet: Inlet) -> None:
        self.inlet = inlet
        self.keeper = inlet.holder = Keeper(inlet)
        self._lock = threading.RLock()  # entered itself: Ctrl-C on the way into a Condition leaves it locked
        self._changed = threading.Condition(self._lock)
        self._ready: deque[Delivery] = deque()
        self._wanted = 0
        self._until = 0.0
        self._waiters = 0
        self._receiving = False
        self._rounds = 0
        self._error: BridgeError | None = None
        self._closing = False
        self._thread: threading.Thread | None = None

    def take(self, most: int, wait: float) -> list[Delivery]:
        deadline = clock.now() + wait
        patience = wait
        if not wait:
            shortest = self.inlet.traits.wait[0]
            patience = POLL_GRACE if shortest else self.inlet.session.config.timeout
        give_up = clock.now() + patience
        with self._lock:
            if not wait and self._receiving and not self._ready:
                return []  # a receive is under way and has found nothing so far
            rounds = self._rounds
            self._waiters += 1
            try:
                while True:
                    if taken := self._pop(most):
                        return taken
                    if self._closing:
                        return []
                    if self._error is not None:
                        error, self._error = self._error, None
                        raise error
                    now = clock.now()
                    if now >= give_up or (now >= deadline and self._rounds > rounds):
                        return []
                    self._ask(most, deadline)
                    self._changed.wait(give_up - now)
            finally:
                self._waiters -= 1
                if not self._waiters:
                    self._wanted = 0

    def _pop(self, most: int) -> list[Delivery]:
        taken: list[Delivery] = []
        while self._ready and len(taken) < most:
            delivery = self._ready.popleft()
            if not delivery.lease_lost:
                taken.append(delivery)
        return taken

    def _ask(self, most: int, until: float) -> None:
        if self._thread is None:
            name = f"ceb-receive-{self.inlet.of.topic.name}/{self.inlet.of.name}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            thread.start()  # first: an interrupt in between must not leave a thread to join that never ran
            self._thread = thread
        if most > self._wanted or until > self._until:  # else callers that wait would wake each other for ever
            self._wanted = max(self._wanted, most)
            self._until = max(self._until, until)
            self._changed.notify_all()

    def _work(self) -> None:
        shortest, longest = self.inlet.traits.wait
        while True:
            with self._lock:
                self._changed.wait_for(lambda: self._wanted or self._closing)
                if self._closing:
                    return
                most = min(self._wanted, self.inlet.traits.batch_count)
                wait = min(max(self._until - clock.now(), shortest), longest)
                self._receiving = True
            received, error = self._receive(most, wait)
            with self._lock:  # after close, what came is given back there
                self._receiving = False
                self._rounds += 1
                self._ready.extend(received)
                if error is not None and self._waiters:
                    self._error = error
                if received or error is not None or clock.now() >= self._until:
                    self._wanted, self._until = 0, 0.0
                self._changed.notify_all()
            self.inlet.bury_poison()

    def _receive(self, most: int, wait: float) -> tuple[list[Delivery], BridgeError | None]:
        try:
            return self.inlet.receive(most, wait), None
        except BridgeError as error:
            return [], error
        except Exception as bug:  # noqa: BLE001 - whoever waits is told, and the thread goes on
            log.exception("receiving failed")
            told = make_error(ErrorCode.INTERNAL, f"receiving failed: {bug}", broker=self.inlet.session.broker)
            told.__cause__ = bug
            return [], told

    def close(self, timeout: float) -> None:
        with self._lock:
            self._closing = True
            self._changed.notify_all()
        self.inlet.stop()
        if self._thread is not None:
            self._thread.join(timeout)
        self.keeper.close()
        self.inlet.close()
