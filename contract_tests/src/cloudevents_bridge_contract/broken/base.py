"""What every broken driver is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from cloudevents_bridge.driver import Inbound, Received, SubscriberDriver, Verb
from cloudevents_bridge_contract.faulty import Outcomes, Shim


class Broken(Shim):
    """A driver with one fault.

    Attributes:
        caught_by: the case that must fail on it, with its parameters.
    """

    caught_by: ClassVar[str]


class NeverCloses:
    """A subscriber driver that gives nothing back when it is closed."""

    def __init__(self, inner: SubscriberDriver) -> None:
        self._inner = inner
        self.traits = inner.traits

    def receive(self, max_messages: int, wait: float) -> Received:
        return self._inner.receive(max_messages, wait)

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Outcomes:
        return self._inner.settle(verb, messages, seconds=seconds, reason=reason, timeout=timeout)

    def stop(self) -> None:
        self._inner.stop()

    def close(self) -> None:
        return None
