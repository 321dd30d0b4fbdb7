"""The store for one process."""

from __future__ import annotations

import threading

from cloudevents_bridge import clock
from cloudevents_bridge.errors import InvalidArgumentError
from cloudevents_bridge.middleware.store import Claim

SWEEP_AT = 1000
"""Claims from which on those that ended by themselves are looked for."""


class MemoryStore:
    """Remembers in this process, and forgets when it ends: for tests, and for handlers that may run again after that.

    Args:
        most: events remembered as done, at most; beyond, the oldest are forgotten first.

    Raises:
        InvalidArgumentError: if `most` is less than 1.
    """

    def __init__(self, *, most: int = 100_000) -> None:
        if most < 1:
            raise InvalidArgumentError(f"most is {most!r}: it must be at least 1")
        self._most = most
        self._lock = threading.Lock()
        self._claims: dict[str, tuple[str, float]] = {}
        self._done: dict[str, tuple[str, float]] = {}  # in the order of completion
        self._sweep_at = SWEEP_AT

    def claim(self, key: str, token: str, *, lease: float) -> Claim:
        now = clock.now()
        with self._lock:
            self._sweep(now)
            if key in self._done:
                if self._done[key][1] > now:
                    return Claim("done")
                del self._done[key]
            if (claimed := self._claims.get(key)) is not None and claimed[0] != token and claimed[1] > now:
                return Claim("busy", claimed[1] - now)
            self._claims[key] = token, now + lease
            return Claim("claimed")

    def renew(self, key: str, token: str, *, lease: float) -> bool:
        with self._lock:
            mine = self._claims.get(key, ("", 0.0))[0] == token
            if mine:
                self._claims[key] = token, clock.now() + lease
            return mine

    def complete(self, key: str, token: str, *, ttl: float) -> bool:
        now = clock.now()
        with self._lock:
            done, claimed = self._done.get(key, ("", 0.0)), self._claims.get(key, ("", 0.0))
            if (done[0] != token and done[1] > now) or (claimed[0] != token and claimed[1] > now):
                return False
            self._claims.pop(key, None)
            self._done.pop(key, None)
            self._done[key] = token, now + ttl
            return True

    def release(self, key: str, token: str) -> None:
        with self._lock:
            if self._claims.get(key, ("", 0.0))[0] == token:
                del self._claims[key]

    def _sweep(self, now: float) -> None:
        while self._done:
            oldest = next(iter(self._done))
            if len(self._done) <= self._most and self._done[oldest][1] > now:
                break
            del self._done[oldest]
        if len(self._claims) > self._sweep_at:
            self._claims = {key: claim for key, claim in self._claims.items() if claim[1] > now}
            self._sweep_at = SWEEP_AT + 2 * len(self._claims)
