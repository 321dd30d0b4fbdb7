"""A broker on a bad day: what its driver is asked fails now and then, before or after it took effect, or later."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from cloudevents_bridge.driver import (
    Fault,
    Inbound,
    Outbound,
    PublisherDriver,
    Received,
    ReceiveTraits,
    SendTraits,
    SubscriberDriver,
    Verb,
)
from cloudevents_bridge.errors import ErrorCode
from cloudevents_bridge_contract.faulty import InjectedError, Of, Outcomes, Shim, To, refused, unknown

M = TypeVar("M", Inbound, Outbound)

KINDS = ("refused", "throttled", "partial", "lost answer", "zombie", "slow")
THROTTLED = Fault(
    ErrorCode.RESOURCE_EXHAUSTED, retryable=True, maybe_applied=False, retry_after=0.01, message="slow down"
)


class Troubled(Shim):
    """Any driver, with trouble in between.

    - refused: the call fails and has no effect.
    - throttled: the same, with a time to wait.
    - partial: some messages of the call fail and have no effect.
    - lost answer: the call has its effect, and fails.
    - zombie: the call fails, and has its effect a while later.
    - slow: the call takes its time.

    Args:
        rate: share of the calls that meet with trouble, each kind as likely as the others.
        seed: of the chances.
        batch: messages in one call, at most: with small ones there are more calls to fail.

    Attributes:
        injected: operation and kind to how often.
    """

    def __init__(self, rate: float, seed: int, *, batch: int = 1000) -> None:
        super().__init__()
        self._batch = batch
        self.injected: Counter[tuple[str, str]] = Counter()
        self._rate = rate
        self._random = random.Random(seed)
        self._zombies: list[threading.Thread] = []

    def send_traits(self, traits: SendTraits) -> SendTraits:
        return replace(traits, batch_count=min(traits.batch_count, self._batch))

    def receive_traits(self, traits: ReceiveTraits) -> ReceiveTraits:
        count, settles = min(traits.batch_count, self._batch), min(traits.settle_count, self._batch)
        return replace(traits, batch_count=count, settle_count=settles)

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        return self._call("send", batch, lambda messages: inner.send(messages, timeout=timeout), KINDS)

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        kind = self._draw("receive", ("refused", "throttled", "lost answer", "slow"))
        self._before(kind)
        received = inner.receive(max_messages, wait)
        if kind == "lost answer":
            raise InjectedError(unknown())  # what it took comes again when its leases end
        return received

    def settle(
        self,
        inner: SubscriberDriver,
        of: Of,
        verb: Verb,
        messages: Sequence[Inbound],
        *,
        seconds: float,
        reason: str,
        timeout: float,
    ) -> Outcomes:
        def settle(chosen: Sequence[Inbound]) -> Outcomes:
            return inner.settle(verb, chosen, seconds=seconds, reason=reason, timeout=timeout)

        return self._call(verb, messages, settle, KINDS)

    def end(self) -> None:
        """Wait for what takes effect later."""
        for zombie in self._zombies:
            zombie.join()

    def _call(
        self, operation: str, messages: Sequence[M], do: Callable[[Sequence[M]], Outcomes], kinds: Sequence[str]
    ) -> Outcomes:
        kind = self._draw(operation, kinds)
        self._before(kind)
        if kind == "partial":
            return self._in_part(messages, do)
        if kind == "zombie":
            self._later(lambda: do(messages))
            raise InjectedError(unknown("the request timed out"))
        outcomes = do(messages)
        if kind == "lost answer":
            raise InjectedError(unknown())
        return outcomes

    def _draw(self, operation: str, kinds: Sequence[str]) -> str:
        with self.lock:
            if self._random.random() >= self._rate:
                return ""
            kind = self._random.choice(kinds)
            self.injected[operation, kind] += 1
            return kind

    def _before(self, kind: str) -> None:
        if kind == "slow":
            time.sleep(0.02)
        elif kind == "refused":
            raise InjectedError(refused(ErrorCode.UNAVAILABLE, "busy", retryable=True))
        elif kind == "throttled":
            raise InjectedError(THROTTLED)

    def _in_part(self, messages: Sequence[M], do: Callable[[Sequence[M]], Outcomes]) -> Outcomes:
        """Half of the messages fail; of each ordering key none that stands behind one that does is done."""
        with self.lock:
            good = [self._random.random() < 0.5 for _ in messages]
        failed: set[str] = set()
        for place, message in enumerate(messages):
            if message.key is not None and message.key in failed:
                good[place] = False
            if not good[place] and message.key is not None:
                failed.add(message.key)
        chosen = [message for message, fine in zip(messages, good, strict=True) if fine]
        said = iter(do(chosen) if chosen else ())
        busy = refused(ErrorCode.UNAVAILABLE, "busy", retryable=True)
        return [next(said) if fine else busy for fine in good]

    def _later(self, do: Callable[[], object]) -> None:
        with self.lock:
            delay = self._random.uniform(0.02, 0.2)

        def apply() -> None:
            time.sleep(delay)
            do()

        zombie = threading.Thread(target=apply, daemon=True)
        self._zombies = [*(each for each in self._zombies if each.is_alive()), zombie]
        zombie.start()
