"""Handling an event once: a run claims the event's key before it begins, and says when it is done."""

from __future__ import annotations

import functools
import hashlib
import inspect
import logging
import math
import uuid
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from cloudevents_bridge import clock
from cloudevents_bridge.delivery import Delivery, Postponed
from cloudevents_bridge.errors import InvalidArgumentError
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.middleware.renewing import Renewer
from cloudevents_bridge.middleware.store import Claim, Store

log = logging.getLogger("cloudevents_bridge")
TTL = 86_400.0
"""Seconds that an event is remembered as done."""
SHORTEST = 1.0
"""Seconds of a claim, at least."""
WITHOUT_LEASE = 60.0
"""Seconds of a claim for an event that is handled by itself, which has no lease."""
SOON = 0.1
"""Seconds until an event that another run has comes again; twice as many each time, at most what its claim lasts."""
LATER = (1.0, 30.0)
"""Seconds until an event comes again while the store cannot be used: twice as many each time, and at most."""


class Run(NamedTuple):
    """One run that has claimed its event."""

    delivery: Delivery
    key: str
    token: str


def idempotent(store: Store, *, key: Callable[[CloudEvent], str] | None = None, ttl: float = TTL) -> Idempotent:
    """Middleware that runs the handler once for an event, however often it is delivered.

    A run claims the event first. While it runs, another delivery of the event is given back, and comes again soon, then
    later; once it is done, the others are acked without running. A run that fails releases its claim.
    The claim of one that crashed ends with the lease of its delivery; while a handler runs, it is renewed as the lease
    is extended. What crashes between the end of the handler and the store's word that it is done is run again.

    Subscriptions are independent: each handles the event once.

    Args:
        store: where to remember: `MemoryStore`, `SQLiteStore`, or your own on any database with conditional writes.
        key: what makes two events the same, where that is not their `source` and `id`.
        ttl: seconds after which an event that is done is forgotten.

    Raises:
        InvalidArgumentError: if `ttl` is not more than 0.
    """
    if not ttl > 0:
        raise InvalidArgumentError(f"ttl is {ttl!r}: it must be more than 0 seconds")
    return Idempotent(store, key, ttl)


class Idempotent:
    """What `idempotent` makes: middleware of a router; for a handler of batches, use `batch`."""

    def __init__(self, store: Store, key: Callable[[CloudEvent], str] | None, ttl: float) -> None:
        self._store = store
        self._key = key
        self._ttl = ttl
        self._renewer: Renewer[Run] = Renewer(self._renew)

    def __call__(self, delivery: Delivery, call_next: Callable[[Delivery], None]) -> None:
        run = self._begin(delivery)
        if run is None:
            return
        try:
            call_next(delivery)
        except BaseException:
            self._end(run, done=False)
            raise
        self._end(run, done=delivery._word in (None, "acked"))

    def batch(self, handler: Callable[[list[Delivery]], object]) -> Callable[[list[Delivery]], None]:
        """Decorate a handler of batches. It gets the deliveries that are to be run: those that are done are acked,
        those that another run has are given back. Each delivery is then done or released by itself: done if the
        handler acked it, or returned without settling it.

        Raises:
            TypeError: if the handler is `async def`.
        """
        if inspect.iscoroutinefunction(handler):
            raise TypeError(f"{handler.__qualname__} is `async def`: a handler of batches is a plain function")

        @functools.wraps(handler)
        def handle(deliveries: list[Delivery]) -> None:
            runs = [run for delivery in deliveries if (run := self._sort_out(delivery)) is not None]
            if not runs:
                return
            try:
                handler([run.delivery for run in runs])
            except BaseException:
                for run in runs:
                    self._end(run, done=run.delivery._word == "acked")
                raise
            for run in runs:
                self._end(run, done=run.delivery._word in (None, "acked"))

        return handle

    def _sort_out(self, delivery: Delivery) -> Run | None:
        """Begin, or settle what is not to be run."""
        try:
            run = self._begin(delivery)
            if run is None:
                delivery.ack()
            return run
        except Exception as error:  # noqa: BLE001 - one event's trouble is not the others'
            delivery.__exit__(type(error), error, error.__traceback__)
            if not isinstance(error, Postponed):
                log.warning("event %s (%s) is given back: %s", delivery.event.id, delivery.event.type, error)
            return None

    def _begin(self, delivery: Delivery) -> Run | None:
        """Claim the event. None: it is done.

        Raises:
            Postponed: if another run has it, or the store cannot be used.
        """
        run = Run(delivery, self._key_of(delivery), uuid.uuid4().hex)
        lease = _lease(delivery)
        claim = self._claim(run, lease)
        if claim.state == "done":
            log.debug("event %s (%s) was handled before", delivery.event.id, delivery.event.type)
            return None
        if claim.state == "busy":
            most = lease if claim.remaining is None else claim.remaining
            raise Postponed(_delay(delivery, SOON, most), "another run is handling the event")
        self._renewer.keep(run, lease)
        return run

    def _claim(self, run: Run, lease: float) -> Claim:
        try:
            return self._store.claim(run.key, run.token, lease=lease)
        except Exception as error:
            event = run.delivery.event
            log.warning("event %s (%s) is given back, it cannot be claimed: %s", event.id, event.type, error)
            # not the event's fault, so it must not end as a dead letter while the store is down
            delay = _delay(run.delivery, *LATER)
            raise Postponed(delay, f"the store of idempotent handling cannot be used: {error}") from error

    def _renew(self, run: Run) -> float | None:
        if run.delivery.lease_lost:
            return None  # the event is another consumer's by now, and so may its claim be
        lease = _lease(run.delivery)
        return lease if self._store.renew(run.key, run.token, lease=lease) else None

    def _end(self, run: Run, *, done: bool) -> None:
        self._renewer.drop(run)
        event = run.delivery.event
        try:
            if not done:
                self._store.release(run.key, run.token)
            elif not self._store.complete(run.key, run.token, ttl=self._ttl):
                log.warning(
                    "event %s (%s) was handled, and another run had claimed it meanwhile: it may be handled twice",
                    *(event.id, event.type),
                )
        except Exception as error:  # noqa: BLE001 - the run went as it went
            what = "remembered as done" if done else "released"
            log.warning("event %s (%s) was handled and cannot be %s: %s", event.id, event.type, what, error)

    def _key_of(self, delivery: Delivery) -> str:
        event = delivery.event
        parts: list[object] = [event.source, event.id] if self._key is None else [self._key(event)]
        if not all(isinstance(part, str) and part for part in parts):
            raise InvalidArgumentError(
                f"the key of event {event.id} ({event.type}) is {parts[0]!r}: it must be a string that is not empty"
            )
        # a digest, since keys of stores are short and may not hold everything that a source may
        digest = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
        return f"{delivery.topic}.{delivery.subscription}.{digest}" if delivery.topic else digest


def _delay(delivery: Delivery, first: float, most: float) -> float:
    """Seconds until an event that was not run comes again."""
    return float(min(first * 2 ** min(delivery.attempt - 1 + delivery._unrun, 20), most))


def _lease(delivery: Delivery) -> float:
    """Seconds that a claim shall last: until the delivery's lease ends, as far as it is extended now."""
    left = delivery._ends - clock.now()
    return WITHOUT_LEASE if left == math.inf else max(left, SHORTEST)
