"""How often a message was delivered, where Pub/Sub does not count."""

from __future__ import annotations

import threading
from collections import OrderedDict

MOST = 10_000


class Attempts:
    """Counts deliveries by message id, for one consumer in one process: Pub/Sub counts only on subscriptions with a
    dead-letter policy. The ids longest not seen are forgotten beyond `most`. Thread-safe.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def count(self, id: str) -> int:
        """One more delivery; gives its number, 1 = first."""
        with self._lock:
            number = self._seen[id] = self._seen.pop(id, 0) + 1
            if len(self._seen) > self._most:
                self._seen.popitem(last=False)
            return number

    def forget(self, id: str) -> None:
        """It was acked."""
        with self._lock:
            self._seen.pop(id, None)
