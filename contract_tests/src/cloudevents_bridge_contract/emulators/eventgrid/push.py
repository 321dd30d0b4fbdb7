"""The deliveries of one subscription that is pushed to: attempts, the retry schedule, and dead letters."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cloudevents_bridge_contract.emulators.eventgrid import dead_letters, targets
from cloudevents_bridge_contract.emulators.eventgrid.events import Event
from cloudevents_bridge_contract.emulators.eventgrid.settings import PushSettings

RETRIES = (10, 30, 60, 300, 600, 1800, 3600)
"""Seconds before the second and each further attempt; the last is repeated."""


@dataclass(slots=True)
class Parcel:
    """An event and how its delivery goes."""

    event: Event
    deadline: float
    published: datetime = field(default_factory=lambda: datetime.now(UTC))
    attempts: int = 0
    message_id: str = field(default_factory=lambda: str(uuid.uuid4()))


class Pusher:
    """Threads of one subscription, which attempt deliveries when they are due.

    Args:
        send: attempts one; raises `Undelivered`.
        bury: takes the blob of a dead letter.
    """

    THREADS = 4

    def __init__(
        self, name: str, settings: PushSettings, send: Callable[[Parcel], None], bury: Callable[[bytes], None]
    ) -> None:
        self._settings, self._send, self._bury = settings, send, bury
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Parcel]] = []
        self._numbers = itertools.count()
        self._open = True
        self._busy = 0
        for _ in range(self.THREADS):
            threading.Thread(target=self._run, name=f"push-{name}", daemon=True).start()

    def put(self, events: Iterable[Event]) -> None:
        now = time.monotonic()
        with self._changed:
            for event in events:
                self._plan(now, Parcel(event, now + self._settings.ttl))

    @property
    def waiting(self) -> int:
        """Events that are not delivered yet."""
        with self._changed:
            return len(self._due) + self._busy

    def close(self) -> None:
        with self._changed:
            self._open = False
            self._due.clear()
            self._changed.notify_all()

    def _plan(self, when: float, parcel: Parcel) -> None:
        heapq.heappush(self._due, (when, next(self._numbers), parcel))
        self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                parcel = self._next()
                if parcel is None:
                    return
                self._busy += 1
            try:
                self._attempt(parcel)
            finally:
                with self._changed:
                    self._busy -= 1

    def _next(self) -> Parcel | None:
        """The next parcel when it is due; None: closed."""
        while self._open:
            now = time.monotonic()
            if self._due and self._due[0][0] <= now:
                return heapq.heappop(self._due)[2]
            self._changed.wait(self._due[0][0] - now if self._due else None)
        return None

    def _attempt(self, parcel: Parcel) -> None:
        tried = datetime.now(UTC)
        parcel.attempts += 1
        try:
            self._send(parcel)
        except targets.Undelivered as undelivered:
            self._failed(parcel, undelivered, tried)

    def _failed(self, parcel: Parcel, undelivered: targets.Undelivered, tried: datetime) -> None:
        wait = RETRIES[min(parcel.attempts, len(RETRIES)) - 1] * self._settings.time_scale
        when = time.monotonic() + wait
        if undelivered.final:
            reason = f"UndeliverableDueToHttp{undelivered.outcome}"
        elif parcel.attempts >= self._settings.max_attempts:
            reason = "MaxDeliveryAttemptsExceeded"
        elif when > parcel.deadline:
            reason = "TimeToLiveExceeded"
        else:
            with self._changed:
                if self._open:
                    self._plan(when, parcel)
            return
        self._bury(
            dead_letters.pushed(
                parcel.event.fields, reason, parcel.attempts, undelivered.outcome, parcel.published, tried
            )
        )
