"""A queue (or subscription, or dead-letter queue): messages, their locks, sessions; told the time, and without I/O."""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from proton import timestamp

from cloudevents_bridge_contract.emulators.servicebus import refusals
from cloudevents_bridge_contract.emulators.servicebus.message import Message
from cloudevents_bridge_contract.emulators.servicebus.refusals import Refusal
from cloudevents_bridge_contract.emulators.servicebus.settings import Settings

ACTIVE, DEFERRED, SCHEDULED = 0, 1, 2


@dataclass(eq=False)
class Stored:
    """A message in a queue. `until`: when its lock ends; of a message of a session, the session's lock counts."""

    message: Message
    number: int
    enqueued: float
    expires: float | None = None
    failures: int = 0
    state: int = ACTIVE
    token: uuid.UUID | None = None
    until: float = 0.0
    was: int = 0  # its number before it was dead-lettered
    source: str | None = None  # where it was dead-lettered, once forwarded from there

    def encode(self) -> bytes:
        annotations: dict[str, Any] = {
            "x-opt-sequence-number": self.number,
            "x-opt-enqueue-sequence-number": self.was,
        }
        if self.token is not None:
            annotations["x-opt-locked-until"] = timestamp(int(self.until * 1000))
        if self.source is not None:
            annotations["x-opt-deadletter-source"] = self.source
        ttl = None if self.expires is None else max(0.0, self.expires - self.enqueued)
        return self.message.encode(
            failures=self.failures, ttl=ttl, annotations=annotations, state=self.state, enqueued=self.enqueued
        )


class SessionLock(NamedTuple):
    """Who holds a session. `owner`: compared by identity."""

    owner: object
    until: float


class Queue:
    """Messages in the order of their numbers. Every method may raise `Refusal`."""

    def __init__(self, path: str, settings: Settings, bury: Callable[[Queue, Stored, str, str], None]) -> None:
        """`bury`: takes what is dead-lettered here: queue, message, reason, description."""
        self.path, self.settings, self._bury = path, settings, bury
        self.stored: dict[int, Stored] = {}
        self.sessions: dict[str, SessionLock] = {}
        self.session_states: dict[str, bytes] = {}
        self.state_times: dict[str, float] = {}  # when each was set last
        self.changed = False  # something can be received that could not before
        self._ready: dict[str | None, list[int]] = {}  # per session: a heap of numbers, some of them out of date
        self._locked: dict[uuid.UUID, Stored] = {}
        self._ends: list[tuple[float, int]] = []  # a heap of when to look at which message again
        self._last = 0

    # -- in

    def put(
        self,
        message: Message,
        now: float,
        *,
        was: int = 0,
        failures: int = 0,
        source: str | None = None,
        expires: bool = True,
    ) -> int:
        """Returns the sequence number. `expires`: whether times to live count, which they do not among dead letters."""
        self._last += 1
        lives = [each for each in (message.ttl, self.settings.ttl) if each is not None]
        stored = Stored(message, self._last, now, failures=failures, was=was, source=source)
        if lives and expires:
            stored.expires = now + min(lives)
            heapq.heappush(self._ends, (stored.expires, stored.number))
        self.stored[stored.number] = stored
        self._make_ready(stored)
        return stored.number

    # -- out

    def take(self, now: float, session: str | None = None, *, delete: bool = False) -> Stored | None:
        """The next message, locked, or gone with `delete`; None: there is none."""
        ready = self._ready.get(self._lane(session), [])
        while ready:
            stored = self.stored.get(heapq.heappop(ready))
            if stored is None or stored.state != ACTIVE or stored.token is not None or self._expire(stored, now):
                continue
            self._lock(stored, now, session)
            if delete:
                self._forget(stored)
            return stored
        return None

    def take_deferred(self, numbers: list[int], now: float, session: str | None, *, delete: bool) -> list[Stored]:
        found = [self.stored.get(number) for number in numbers]
        chosen = [each for each in found if each is not None and each.state == DEFERRED and each.token is None]
        if len(chosen) != len(numbers) or any(self.settings.sessions and c.message.session != session for c in chosen):
            raise Refusal(refusals.MESSAGE_NOT_FOUND, "Failed to lock one or more specified messages.")
        for stored in chosen:
            self._lock(stored, now, session)
            if delete:
                self._forget(stored)
        return chosen

    def peek(self, first: int, count: int, session: str | None, now: float) -> list[Stored]:
        """Up to `count` from number `first` on, locked, deferred and expired ones among them as they are."""
        numbers = sorted(number for number in self.stored if number >= first)
        wanted = (self.stored[number] for number in numbers)
        return [each for each in wanted if session is None or each.message.session == session][:count]

    # -- locks of messages

    def renew(self, token: uuid.UUID, now: float) -> float:
        stored = self._held(token, now)
        stored.until = now + self.settings.lock
        heapq.heappush(self._ends, (stored.until, stored.number))
        return stored.until

    def complete(self, token: uuid.UUID, now: float) -> None:
        self._forget(self._held(token, now))

    def abandon(self, token: uuid.UUID, now: float, *, counted: bool = True, changes: dict[str, Any]) -> None:
        """`counted`: False for what a receiver releases untouched; `changes`: of application properties."""
        stored = self._held(token, now)
        self._change(stored, changes)
        self._unlock(stored, counted=counted)

    def defer(self, token: uuid.UUID, now: float, *, changes: dict[str, Any]) -> None:
        stored = self._held(token, now)
        self._change(stored, changes)
        stored.failures += 1
        stored.state = DEFERRED
        self._drop_lock(stored)

    def dead_letter(self, token: uuid.UUID, now: float, reason: str, text: str, *, changes: dict[str, Any]) -> None:
        stored = self._held(token, now)
        self._change(stored, changes)
        self._kill(stored, reason, text)

    # -- sessions

    def accept(self, owner: object, session: str | None, now: float) -> str | None:
        """Lock a session for a receiver: `session`, or the next that has messages. None: there is no such now."""
        self.tick(now)
        if session is None:
            session = next((each for each in self._waiting() if each not in self.sessions), None)
            if session is None:
                return None
        elif session in self.sessions:
            text = f"The requested session '{session}' cannot be accepted. It may be locked by another receiver."
            raise Refusal(refusals.SESSION_LOCKED, text)
        self.sessions[session] = SessionLock(owner, now + self.settings.lock)
        return session

    def session_end(self, session: str, owner: object | None, now: float) -> float:
        """Until when a session is locked. `owner`: None for whoever has it."""
        lock = self.sessions.get(session)
        if lock is None or lock.until <= now or (owner is not None and lock.owner is not owner):
            raise refusals.session_lock_lost(session)
        return lock.until

    def renew_session(self, session: str, now: float) -> float:
        self.session_end(session, None, now)
        until = now + self.settings.lock
        self.sessions[session] = self.sessions[session]._replace(until=until)
        return until

    def leave(self, session: str, owner: object) -> None:
        """A receiver closed: its messages are free again, and no delivery is counted."""
        lock = self.sessions.get(session)
        if lock is not None and lock.owner is owner:
            self._end_session(session, counted=False)

    # -- time

    def tick(self, now: float) -> None:
        """Let locks, sessions and messages expire."""
        for session in [name for name, lock in self.sessions.items() if lock.until <= now]:
            self._end_session(session, counted=True)
        while self._ends and self._ends[0][0] <= now:
            stored = self.stored.get(heapq.heappop(self._ends)[1])
            if stored is None:
                continue
            if stored.token is None:
                self._expire(stored, now)
            elif not self.settings.sessions and stored.until <= now:
                self._unlock(stored, counted=True)
                if stored.number in self.stored and stored.expires is not None:
                    heapq.heappush(self._ends, (stored.expires, stored.number))

    # -- within

    def _lane(self, session: str | None) -> str | None:
        return session if self.settings.sessions else None

    def _waiting(self) -> Iterator[str]:
        for session, ready in self._ready.items():
            if session is not None and any(self._is_ready(number) for number in ready):
                yield session

    def _is_ready(self, number: int) -> bool:
        stored = self.stored.get(number)
        return stored is not None and stored.state == ACTIVE and stored.token is None

    def _make_ready(self, stored: Stored) -> None:
        heapq.heappush(self._ready.setdefault(self._lane(stored.message.session), []), stored.number)
        self.changed = True

    def _lock(self, stored: Stored, now: float, session: str | None) -> None:
        stored.token = uuid.uuid4()
        stored.until = now + self.settings.lock
        if self.settings.sessions and session in self.sessions:
            stored.until = self.sessions[session].until
        else:
            heapq.heappush(self._ends, (stored.until, stored.number))
        self._locked[stored.token] = stored

    def _held(self, token: uuid.UUID, now: float) -> Stored:
        self.tick(now)
        stored = self._locked.get(token)
        if stored is None:
            raise refusals.lock_lost()
        return stored

    def _drop_lock(self, stored: Stored) -> None:
        if stored.token is not None:
            self._locked.pop(stored.token, None)
        stored.token = None

    def _unlock(self, stored: Stored, *, counted: bool) -> None:
        self._drop_lock(stored)
        if counted:
            stored.failures += 1
            if stored.failures >= self.settings.max_deliveries:
                times = self.settings.max_deliveries
                text = f"Message could not be consumed after {times} delivery attempts."
                self._kill(stored, "MaxDeliveryCountExceeded", text)
                return
        if stored.state == ACTIVE:
            self._make_ready(stored)

    def _end_session(self, session: str, *, counted: bool) -> None:
        del self.sessions[session]
        for stored in [each for each in self._locked.values() if each.message.session == session]:
            self._unlock(stored, counted=counted)
        self.changed = True

    def _expire(self, stored: Stored, now: float) -> bool:
        if stored.expires is None or stored.expires > now or stored.state != ACTIVE:
            return False
        if self.settings.keep_expired:
            self._kill(stored, "TTLExpiredException", "The message expired and was dead lettered.")
        else:
            self._forget(stored)
        return True

    def _kill(self, stored: Stored, reason: str, text: str) -> None:
        self._bury(self, stored, reason, text)  # first: what refuses it leaves it here
        self._forget(stored)

    def _forget(self, stored: Stored) -> None:
        if stored.token is not None:
            self._locked.pop(stored.token, None)
        self.stored.pop(stored.number, None)

    @staticmethod
    def _change(stored: Stored, changes: dict[str, Any]) -> None:
        if changes:
            stored.message = stored.message.with_user(**changes)
