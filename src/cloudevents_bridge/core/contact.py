"""What a failed receive means: when to try again, and when to give up. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cloudevents_bridge.errors import BridgeError

PATIENCE = 600.0
"""Seconds for which a failure that will not pass by itself is tried again, where receiving has worked before."""


class Missed(NamedTuple):
    """What to do after a failed receive.

    Attributes:
        delay: seconds until the next one.
        news: whether the one before did not fail.
        give_up: whether to end the worker instead.
    """

    delay: float
    news: bool
    give_up: bool


class Contact:
    """Whether the broker answers.

    A failure that may pass is tried again for ever. One that will not pass by itself (a missing subscription, or
    credentials that are refused) ends the worker at once if nothing was ever received from there, else after ten
    minutes.

    Args:
        jitter: seconds to wait after so many failures in a row.

    Attributes:
        connected: whether the last receive worked.
        ever: whether one ever did.
    """

    def __init__(self, jitter: Callable[[int], float]) -> None:
        self._jitter = jitter
        self._failures = 0
        self._refused_since: float | None = None
        self.connected = False
        self.ever = False

    def reached(self) -> bool:
        """A receive worked. Returns whether this is news after one that failed."""
        news = self._failures > 0
        self._failures, self._refused_since = 0, None
        self.connected = self.ever = True
        return news

    def missed(self, error: BridgeError, now: float) -> Missed:
        """A receive failed."""
        self.connected = False
        self._failures += 1
        give_up = False
        if error.retryable:
            self._refused_since = None
        else:
            since = self._refused_since = now if self._refused_since is None else self._refused_since
            give_up = not self.ever or now - since >= PATIENCE
        return Missed(max(self._jitter(self._failures), error.retry_after or 0.0), self._failures == 1, give_up)
