"""Receiving and settling where the topic is ordered: an ordering key is a session, held by one receiver at a time."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from time import monotonic
from typing import Any

from msgspec.structs import replace

from cloudevents_bridge.driver import Done, Fault, Inbound, Received, ReceiveTraits, Verb
from cloudevents_bridge.errors import ClosedError, ErrorCode
from cloudevents_bridge_azure.servicebus import errors, sdk
from cloudevents_bridge_azure.servicebus.names import Entity
from cloudevents_bridge_azure.servicebus.sdk import Client
from cloudevents_bridge_azure.servicebus.session import Session, is_no_session
from cloudevents_bridge_azure.servicebus.subscriber import LONGEST_WAIT, SETTLE_COUNT
from cloudevents_bridge_azure.servicebus.watch import Watch

HELD = 8
"""Keys in hand at once, each a session with a connection of its own."""
LOOK = 0.2
"""Seconds within which a session that is held must show a message, or others may have it."""
SHORT = 0.5
"""Seconds that a receive waits for a further session, while some are held: one of those may have more."""
LONG = 20.0
"""The same while none is held; it is cut short where that changes."""
KEPT = 1.0
"""Seconds that a session of which nothing is out is kept for the next receive."""
_GONE = Fault(ErrorCode.LEASE_LOST, False, False, None, "the lock of its session is over")


class SessionSubscriber:
    """Receives from one entity with sessions.

    Args:
        lock: seconds for which the entity locks a session.
        removes_after: deliveries after which Service Bus itself moves a message to the dead letters.
    """

    def __init__(self, client: Client, watch: Watch, of: Entity, *, lock: float, removes_after: int | None) -> None:
        self.traits = ReceiveTraits(
            batch_count=sdk.PREFETCH,
            settle_count=SETTLE_COUNT,
            receives=HELD,
            wait=(0.0, LONGEST_WAIT),
            stop_within=1.0,
            nack_delay=0.0,
            lease_total=math.inf,
            removes_after=removes_after,
            settle="each",
            free_release=False,
            dead=True,
            key_batches=True,
        )
        self._client, self._watch, self._of = client, watch, of
        self._seconds = lock
        self._changed = threading.Condition()
        self._held: list[Session] = []
        self._accepting: list[Any] = []
        self._lost: list[str] = []
        self._number = count()
        self._stopped = False
        self.closed = False

    def receive(self, max_messages: int, wait: float) -> Received:
        end = monotonic() + wait
        most = min(max_messages, sdk.PREFETCH)
        first = True
        tried: set[Session] = set()
        while True:
            self._find_expired()
            with self._changed:
                if self._lost:
                    lost, self._lost = self._lost, []
                    return Received(lost=lost)
                if self._stopped:
                    return Received()
                left = end - monotonic()
                if left <= 0 and not first:
                    return Received()
                session = self._next(tried)
                if session is not None:
                    session.busy = True
                    tried.add(session)
                elif sum(not each.free for each in self._held) + len(self._accepting) >= HELD:
                    self._changed.wait(max(left, 0.0))
                    first = False
                    continue
            first = False
            if session is None:
                session = self._accept(max(left, LOOK))
                tried.clear()
            if session is not None and (found := self._take(session, most)):
                with self._changed:
                    lost, self._lost = self._lost, []
                return Received(found, lost)

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Sequence[Done | Fault]:
        if self.closed:
            raise ClosedError(f"this subscriber of {self._of.path} was closed")
        outcomes: dict[int, Done | Fault] = {}
        groups: dict[Session, list[int]] = {}
        for place, each in enumerate(messages):
            groups.setdefault(each.handle, []).append(place)
        for session, places in groups.items():
            found = self._settle(session, verb, [messages[place] for place in places], reason, timeout)
            outcomes.update(zip(places, found, strict=True))
        return [outcomes[place] for place in range(len(messages))]

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            self._wake()

    def close(self) -> None:
        self.stop()
        with self._changed:
            self.closed = True
            held, self._held = self._held, []
        _close_all(held)

    # -- receiving

    def _next(self, tried: set[Session]) -> Session | None:
        """One that is held and may have more: nothing of its key is out."""
        for each in self._held:
            if not (each.busy or each.spoiled) and (not each.out or (each.free and each not in tried)):
                return each
        return None

    def _accept(self, wait: float) -> Session | None:
        """The next session that has messages, or nothing."""
        with self._changed:
            longest = SHORT if self._held else LONG
            receiver = self._client.next_session(self._of, min(wait, longest))
            self._accepting.append(receiver)
        try:
            with self._watch.limit(min(wait, longest) + sdk.OPENING, lambda: sdk.cut(receiver)):
                sdk.open_(receiver)
            session = Session(receiver, self._watch, self._seconds, next(self._number))
        except Exception as error:
            with suppress(Exception):
                receiver.close()
            with self._changed:
                woken = receiver not in self._accepting
                if not woken:
                    self._accepting.remove(receiver)
            if woken or is_no_session(error):
                return None
            raise errors.OpeningError from error
        with self._changed:
            woken = receiver not in self._accepting
            if not woken:
                self._accepting.remove(receiver)
                self._wake()
            before = next((each for each in self._held if each.id == session.id), None)
        if before is not None:  # its lock has ended, or we would not have got it
            self._lose(before)
            before.close()
        with self._changed:
            if not (woken or self._stopped):
                self._held.append(session)
                return session
        session.close()
        return None

    def _take(self, session: Session, most: int) -> list[Inbound]:
        """What a session has now. One that has nothing is let go."""
        found: list[Inbound] = []
        try:
            found = session.receive(most, sdk.TICK if session.out else LOOK)
        except Exception as error:
            self._lose(session)
            if errors.classify(error).code is not ErrorCode.LEASE_LOST:
                raise
        if found and self._stopped and len(session.out) == len(found):  # too late: given back unseen, it costs nothing
            found = []
            session.out.clear()
        with self._changed:
            session.busy = False
            done = not (found or session.out)
            if done:
                self._forget(session)
        if done:
            session.close()
        return found

    # -- settling

    def _settle(
        self, session: Session, verb: Verb, messages: Sequence[Inbound], reason: str, timeout: float
    ) -> list[Done | Fault]:
        if session.lost:
            return [_GONE] * len(messages)
        outcomes: list[Done | Fault] = []
        try:
            session.settle(verb, messages, outcomes, reason=reason, timeout=timeout)
        except Exception as error:  # noqa: BLE001 - whatever it is, the session is not ours any more
            self._lose(session)
            failed = errors.classify(error)
            maybe = failed.maybe_applied and verb != "extend"
            outcomes.append(replace(_GONE, maybe_applied=maybe, message=f"{_GONE.message}: {failed.message}"))
            outcomes += [_GONE] * (len(messages) - len(outcomes))
            session.close()
            return outcomes
        if not session.out and verb != "extend":
            self._idle(session)
        return outcomes

    def _idle(self, session: Session) -> None:
        """Nothing is out of it any more: the next receive may have it, or others, if there is none soon."""
        with self._changed:
            if session not in self._held or session.busy or session.out:
                return
            if session.spoiled:
                self._forget(session)
            else:
                session.idle_since = monotonic()
                self._let_go_in(KEPT, session)
            self._changed.notify_all()
            self._wake()
        if session.spoiled:
            session.close()

    def _let_go_in(self, seconds: float, session: Session) -> None:
        if not session.watched:
            session.watched = True
            self._watch.set(seconds, lambda: self._let_go(session))

    def _let_go(self, session: Session) -> None:
        """Of what nobody has used for a while others may have the rest."""
        with self._changed:
            session.watched = False
            if session not in self._held or session.busy or session.out:
                return
            left = session.idle_since + KEPT - monotonic()
            if left > 0:
                self._let_go_in(left, session)
                return
            self._forget(session)
        threading.Thread(target=session.close, name="ceb-servicebus-close", daemon=True).start()

    # -- within

    def _find_expired(self) -> None:
        """Sessions of which something was never settled, nor the lock renewed."""
        with self._changed:
            expired = [each for each in self._held if not each.busy and each.expired]
        for each in expired:
            self._lose(each)
            each.close()

    def _lose(self, session: Session) -> None:
        with self._changed:
            session.lost = True
            self._forget(session)
            if session.out:
                self._lost.append(session.stream)
            self._changed.notify_all()
            self._wake()

    def _forget(self, session: Session) -> None:
        if session in self._held:
            self._held.remove(session)
        self._changed.notify_all()

    def _wake(self) -> None:
        """Whoever waits for a further session looks again at those that are held."""
        for receiver in self._accepting:
            sdk.cut(receiver)
        self._accepting.clear()


def _close_all(sessions: list[Session]) -> None:
    threads = [threading.Thread(target=each.close, name="ceb-servicebus-close") for each in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
