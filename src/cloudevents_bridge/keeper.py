"""The thread that keeps leases: of the delivery in hand of an iteration, and of what is given back with a delay that
the broker cannot make itself.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cloudevents_bridge import clock
from cloudevents_bridge.conditions import Condition
from cloudevents_bridge.core.leases import Held, Leases
from cloudevents_bridge.delivery import Delivery, log
from cloudevents_bridge.driver import Capability

if TYPE_CHECKING:
    from cloudevents_bridge.inlet import Inlet

MAX_HELD = 1000
"""Deliveries held for a later retry, at most; beyond, they are given back with the longest delay the broker has."""


class Keeper:
    """Keeps leases for one subscriber. It starts its thread when there is something to keep."""

    def __init__(self, inlet: Inlet) -> None:
        self._inlet = inlet
        self._leases = Leases()
        self._changed = Condition()
        self._lock = self._changed.lock
        self._thread: threading.Thread | None = None
        self._closing = False
        self._extends = Capability.EXTEND in inlet.session.connection.capabilities

    def keep(self, delivery: Delivery) -> None:
        """Extend the lease until `drop`."""
        if self._extends:
            self._add(delivery, None)

    def hold(self, delivery: Delivery, delay: float) -> bool:
        """Keep the lease for `delay` seconds, or as long as the broker lets a delivery be kept, then give the delivery
        back as failed. False: the broker has a delay that long, or there is no room, or no time.
        """
        if self._inlet.traits.delays(delay):
            return False
        now = clock.now()
        until = now + delay
        if self._extends:
            until = min(until, now + self._inlet.traits.lease_total / 2)
        else:
            until = min(until, delivery._ends - delivery._lease / 2)
        with self._lock:
            return until > now and len(self._leases) < MAX_HELD and self._add(delivery, until)

    def drop(self, delivery: Delivery) -> None:
        """Stop extending it. What is held for a retry stays held."""
        with self._lock:
            self._leases.drop(delivery)

    def close(self) -> None:
        """End, and give back what is held."""
        with self._lock:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        if held := self._leases.to_give_back():
            self._give_back(held)

    def _add(self, delivery: Delivery, until: float | None) -> bool:
        with self._lock:
            if self._closing:
                return False
            self._leases.keep(delivery, delivery._ends, delivery._lease, until)
            if self._thread is None:
                name = f"ceb-lease-{self._inlet.of.topic.name}/{self._inlet.of.name}"
                self._thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return True

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._closing:
                    return
                due = self._leases.due(clock.now())
                if not (due.extend or due.give_back):
                    wake = self._leases.wake_at()
                    self._changed.wait(None if wake is None else max(wake - clock.now(), 0.0))
                    continue
            if due.give_back:
                self._give_back([held.item for held in due.give_back])
            if due.extend:
                self._extend(due.extend)

    def _extend(self, due: list[Held]) -> None:
        held = [each for each in due if each.until is not None or each.item._word is None]
        with self._lock:
            for each in due:
                if each not in held:
                    self._leases.lose(each)  # it was settled, and is another consumer's to have
        for lease in sorted({each.item._inbound.lease for each in held}):
            group = [each for each in held if each.item._inbound.lease == lease]
            errors = self._inlet.settle("extend", [each.item for each in group], seconds=lease)
            with self._lock:
                for each, error in zip(group, errors, strict=True):
                    if error is None:
                        self._leases.extended(each, each.item._ends, each.item._lease)
                    else:
                        self._leases.lose(each)
                        log.warning("%s", error)

    def _give_back(self, deliveries: list[Delivery]) -> None:
        for error in self._inlet.settle("nack", deliveries):
            if error is not None:
                log.warning("%s", error)
