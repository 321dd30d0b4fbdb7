"""The queue of one subscription that is pulled from. Plain state: every call says what time it is."""

from __future__ import annotations

import base64
import heapq
import itertools
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from cloudevents_bridge_contract.emulators.eventgrid.events import Event

RELEASE_DELAYS = (0, 10, 60, 600, 3600)
BAD_TOKEN, TOKEN_LOST = "BadToken", "TokenLost"
_MESSAGES = {
    BAD_TOKEN: "The lock token is not formatted correctly.",
    TOKEN_LOST: "The lock token is not found: its lock has expired, or the event is settled.",
}


class Given(NamedTuple):
    token: str
    delivery: int
    event: Event


class Failed(NamedTuple):
    token: str
    code: str

    @property
    def message(self) -> str:
        return _MESSAGES[self.code]


class DeadLetter(NamedTuple):
    """An event that was given up on, and the words of the service for it."""

    event: Event
    reason: str
    attempts: int
    result: str
    published: datetime
    attempted: datetime | None


@dataclass(slots=True)
class _Held:
    event: Event
    expires: float
    published: datetime
    count: int = 0
    token: str = ""
    until: float = 0.0  # until when it is locked, or not to be given
    attempted: datetime | None = None


class Queue:
    """Events that wait, are locked, or are released with a delay; in the order in which they came.

    Args:
        lock: seconds that a lock lasts.
        max_count: deliveries, after which an event that comes back is a dead letter.
        ttl: seconds from publishing to expiry.
        bury: takes the dead letters.
    """

    def __init__(self, *, lock: float, max_count: int, ttl: float, bury: Callable[[DeadLetter], None]) -> None:
        self.lock, self.max_count, self.ttl, self._bury = lock, max_count, ttl, bury
        self._numbers = itertools.count()
        self._held: dict[int, _Held] = {}
        self._ready: list[int] = []
        self._due: list[tuple[float, int]] = []
        self._tokens: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    @property
    def locked(self) -> int:
        return len(self._tokens)

    def put(self, events: Iterable[Event], now: float) -> None:
        published = _now()
        for event in events:
            number = next(self._numbers)
            self._held[number] = _Held(event, now + self.ttl, published)
            heapq.heappush(self._ready, number)
            heapq.heappush(self._due, (now + self.ttl, number))

    def next_due(self) -> float | None:
        """When something happens by itself; None: never."""
        return self._due[0][0] if self._due else None

    def turn(self, now: float) -> None:
        """Let happen what is due by now: locks and delays end, events expire."""
        while self._due and self._due[0][0] <= now:
            number = heapq.heappop(self._due)[1]
            held = self._held.get(number)
            if held is None:
                continue
            if held.expires <= now:
                self._drop(number)
                self._give_up(held, "Time to live was exceeded.", "Event was not acknowledged.")
            elif held.until and held.until <= now:
                self._back(number, held, "Event was not acknowledged nor rejected.")

    def take(self, most: int, now: float) -> list[Given]:
        """Lock up to `most` events, the oldest first."""
        self.turn(now)
        given: list[Given] = []
        while self._ready and len(given) < most:
            number = heapq.heappop(self._ready)
            held = self._held.get(number)
            if held is None:
                continue
            held.count += 1
            held.attempted = _now()
            held.token = base64.b64encode(uuid.uuid4().bytes).decode()
            self._tokens[held.token] = number
            self._until(number, held, now + self.lock)
            given.append(Given(held.token, held.count, held.event))
        return given

    def acknowledge(self, tokens: Iterable[str], now: float) -> list[Failed]:
        return self._each(tokens, now, lambda number, held: self._drop(number))

    def reject(self, tokens: Iterable[str], now: float) -> list[Failed]:
        def reject(number: int, held: _Held) -> None:
            self._drop(number)
            self._give_up(held, "Event was rejected.", "Rejected")

        return self._each(tokens, now, reject)

    def release(self, tokens: Iterable[str], now: float, delay: float) -> list[Failed]:
        """Args:
        delay: seconds until they can be taken again.
        """

        def release(number: int, held: _Held) -> None:
            if held.count >= self.max_count or delay <= 0:
                self._back(number, held, "Released")
            else:
                del self._tokens[held.token]
                held.token = ""
                self._until(number, held, now + delay)

        return self._each(tokens, now, release)

    def renew(self, tokens: Iterable[str], now: float) -> list[Failed]:
        return self._each(tokens, now, lambda number, held: self._until(number, held, now + self.lock))

    def _each(self, tokens: Iterable[str], now: float, act: Callable[[int, _Held], None]) -> list[Failed]:
        self.turn(now)
        failed: list[Failed] = []
        for token in tokens:
            number = self._tokens.get(token)
            if number is None:
                failed.append(Failed(token, TOKEN_LOST if _is_token(token) else BAD_TOKEN))
            else:
                act(number, self._held[number])
        return failed

    def _back(self, number: int, held: _Held, result: str) -> None:
        """It is free again, unless it was delivered too often."""
        if held.count >= self.max_count:
            self._drop(number)
            self._give_up(held, "Maximum delivery attempts was exceeded.", result)
            return
        self._tokens.pop(held.token, None)
        held.token, held.until = "", 0.0
        heapq.heappush(self._ready, number)

    def _until(self, number: int, held: _Held, when: float) -> None:
        held.until = when
        heapq.heappush(self._due, (when, number))

    def _drop(self, number: int) -> None:
        self._tokens.pop(self._held.pop(number).token, None)

    def _give_up(self, held: _Held, reason: str, result: str) -> None:
        self._bury(DeadLetter(held.event, reason, held.count, result, held.published, held.attempted))


def _is_token(token: str) -> bool:
    try:
        return len(base64.b64decode(token, validate=True)) == 16
    except ValueError:
        return False


def _now() -> datetime:
    return datetime.now(UTC)
