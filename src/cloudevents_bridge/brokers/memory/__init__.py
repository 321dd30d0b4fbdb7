"""The broker in memory, `memory://`: for tests, examples and a process that talks to itself.

`memory://` is private to its connection. `memory://NAME` is shared by the connections of a process while any of them
is open, and gone with the last. It promises what every broker does but to survive the process; it has no filters.
A topic's `native={"deduplication": SECONDS}` has it drop what was sent twice within that time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from cloudevents_bridge.brokers.memory.clock import Clock, Pause, RealClock, VirtualClock
from cloudevents_bridge.brokers.memory.drivers import MemoryConnection, Publisher, Subscriber, size
from cloudevents_bridge.brokers.memory.feed import Entry, Feed
from cloudevents_bridge.brokers.memory.store import Call, ClosedError, Store, TroubleError, Watcher, classify
from cloudevents_bridge.brokers.memory.topology import MemoryTopology
from cloudevents_bridge.driver import Url
from cloudevents_bridge.errors import ConfigurationError

__all__ = [
    "adapter",
    "MemoryAdapter",
    "MemoryConnection",
    "MemoryTopology",
    "Publisher",
    "Subscriber",
    "Store",
    "Watcher",
    "Call",
    "Entry",
    "Feed",
    "Clock",
    "Pause",
    "RealClock",
    "VirtualClock",
    "ClosedError",
    "TroubleError",
    "classify",
    "size",
]


class MemoryAdapter:
    """The `Adapter` of `memory://`, and the stores that are open under a name.

    The option `clock` replaces the machine's clock, as `cloudevents_bridge.testing` does; one clock serves one store.
    """

    query: frozenset[str] = frozenset()
    options: frozenset[str] = frozenset({"clock"})

    def __init__(self) -> None:
        self._forget()

    def __call__(self, url: Url, options: Mapping[str, Any]) -> MemoryConnection:
        if url.path.strip("/"):
            raise ConfigurationError(f"{url.text} has a path: write memory:// or memory://NAME")
        clock: Clock | None = options.get("clock")
        self._leave_parent()
        with self._lock:
            store = self._stores.get(url.authority) if url.authority else None
            if store is None:
                store = Store(url.text, clock or RealClock())
                if url.authority:
                    self._stores[url.authority] = store
            elif clock is not None and clock is not store.clock:
                raise ConfigurationError(f"{url.text} is open already, with a clock of its own: leave out clock=")
            store.users += 1
        return MemoryConnection(store, lambda: self._leave(url.authority, store))

    def _leave(self, name: str, store: Store) -> None:
        self._leave_parent()
        with self._lock:
            store.users -= 1
            if not store.users and self._stores.get(name) is store:
                del self._stores[name]

    def _leave_parent(self) -> None:
        # After a fork the names, and a lock that another thread may have held, are the parent's.
        if self._pid != os.getpid():
            self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._stores: dict[str, Store] = {}


adapter = MemoryAdapter()
