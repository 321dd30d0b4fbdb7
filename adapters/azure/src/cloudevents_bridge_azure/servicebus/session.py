"""One session of Service Bus that this subscriber holds: its receiver, and what is out of it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from cloudevents_bridge.driver import Done, Fault, Inbound, Verb
from cloudevents_bridge.errors import ErrorCode
from cloudevents_bridge_azure.servicebus import errors, sdk, settling, wire
from cloudevents_bridge_azure.servicebus.watch import Watch


class Session:
    """Messages of one session. Its receiver alone can settle them.

    Args:
        receiver: open.
        lock: seconds for which the entity locks a session.

    Attributes:
        stream: tells this holding of the session from another one.
        lock: held by whoever uses the receiver.
        out: messages handed out and not settled.
        free: it is one of events without an ordering key: none of them waits for another.
        busy: somebody is receiving from it.
        spoiled: something was given back: what is in the SDK's buffer comes before it, and must not.
        lost: another may have the session.
        idle_since: when the last of what was out of it was settled.
        watched: an alarm is set for letting it go.
    """

    def __init__(self, receiver: Any, watch: Watch, lock: float, number: int) -> None:
        self.id: str = receiver.session.session_id
        self.stream = f"{number}:{self.id}"
        self.free = wire.key_of(self.id) is None
        self.lock = threading.Lock()
        self.out: set[int] = set()
        self.busy = True
        self.spoiled = False
        self.lost = False
        self.idle_since = 0.0
        self.watched = False
        self._receiver = receiver
        self._watch = watch
        self._seconds = lock
        self._until = 0.0
        self._granted(receiver.session.locked_until_utc)

    def receive(self, most: int, wait: float) -> list[Inbound]:
        """What there is, in order; an empty list: nothing within `wait` seconds. What was received is out.

        Raises:
            Exception: one of the SDK; then the session is lost.
        """
        with self.lock, self._watch.limit(wait + sdk.OPENING, self.cut):
            if self._until - monotonic() < self._seconds / 2:
                self._granted(self._receiver.session.renew_lock(timeout=sdk.OPENING))
            messages = sdk.fetched(self._receiver, most, wait)
            lease = max(self._until - monotonic(), 0.0)
            key = wire.key_of(self.id)
            found: list[Inbound] = []
            for each in messages:
                body, attributes = wire.decode(each, letter=False)
                found.append(Inbound(body, attributes, self, lease, wire.attempt(each), key, self.stream, each))
            self.out.update(id(each.native) for each in found)
            return found

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], outcomes: list[Done | Fault], *, reason: str, timeout: float
    ) -> None:
        """Add an outcome for each.

        Raises:
            Exception: one of the SDK that the receiver does not survive; there is no outcome for the rest.
        """
        renewed: list[Done] = []

        def extend(message: Any) -> Done:
            if not renewed:  # of all that are out, once
                self._granted(self._receiver.session.renew_lock(timeout=timeout))
                renewed.append(Done(lease=max(self._until - monotonic(), 0.0)))
            return renewed[0]

        with self.lock, self._watch.limit(timeout, self.cut):
            before = len(outcomes)
            if verb in ("nack", "release") and not self.free:
                self.spoiled = True
            settling.settle(self._receiver, verb, messages, outcomes, reason=reason, extend=extend)
            if verb != "extend":
                done = zip(messages, outcomes[before:], strict=True)
                self.out.difference_update(id(each.native) for each, outcome in done if _is_over(outcome))

    @property
    def expired(self) -> bool:
        """The lock has ended."""
        return monotonic() > self._until

    def cut(self) -> None:
        """From any thread: whoever uses it gets an error."""
        sdk.cut(self._receiver)

    def close(self) -> None:
        """Others may have the session, and what was not settled."""
        with self.lock, self._watch.limit(2.0, self.cut), suppress(Exception):
            self._receiver.close()

    def _granted(self, until: Any) -> None:
        self._until = monotonic() + settling.left(until, self._seconds)


def _is_over(outcome: Done | Fault) -> bool:
    return isinstance(outcome, Done) or outcome.code is ErrorCode.LEASE_LOST


def is_no_session(error: BaseException) -> bool:
    """Whether no session had messages in time."""
    return type(error).__name__ == "OperationTimeoutError" or errors.condition(error) == "com.microsoft:timeout"
