"""What the AMQP front knows of a link."""

from __future__ import annotations

import uuid
from typing import Any, NamedTuple

from proton import Delivery, symbol

from cloudevents_bridge_contract.emulators.servicebus.queue import Queue

_TICKS_AT_EPOCH = 621_355_968_000_000_000  # of .NET, 100 ns each
_SESSION_FILTER, _LOCKED_UNTIL = symbol("com.microsoft:session-filter"), symbol("com.microsoft:locked-until-utc")
_PATIENCE = 65.0  # seconds that the service waits for a session where the client names no time


class Incoming(NamedTuple):
    """A link on which a client sends."""

    path: str


class Outgoing:
    """A link on which a client receives.

    Attributes:
        session: which it has; while it `waits`, which it wants, None for any.
        waits: it has none yet.
        deadline: when it has waited long enough.
    """

    def __init__(self, link: Any, queue: Queue, *, wants_session: bool, session: str | None) -> None:
        self.link, self.queue = link, queue
        self.session = None if session is None else str(session)
        self.waits = wants_session
        self.deadline = 0.0

    def set_deadline(self, now: float) -> None:
        named = {str(name): value for name, value in (self.link.remote_properties or {}).items()}
        patience = named.get("com.microsoft:timeout")
        self.deadline = now + (_PATIENCE if patience is None else float(patience) / 1000)

    def open_with(self, session: str, now: float) -> None:
        """It has got a session: the reply to its attach says which, and until when."""
        self.session, self.waits = session, False
        filters = self.link.source.filter
        filters.clear()
        filters.put_dict({_SESSION_FILTER: session})
        until = self.queue.session_end(session, self, now)
        self.link.properties = {_LOCKED_UNTIL: _TICKS_AT_EPOCH + int(until * 10_000_000)}
        self.link.open()

    def check(self, now: float) -> None:
        """Raises Refusal: its session is another's by now."""
        if self.session is not None:
            self.queue.session_end(self.session, self, now)

    def settle(self, token: uuid.UUID, delivery: Any, now: float) -> None:
        """Raises Refusal: the lock is lost."""
        self.check(now)
        remote, state = delivery.remote, delivery.remote_state
        if state == Delivery.ACCEPTED:
            self.queue.complete(token, now)
        elif state == Delivery.REJECTED:
            info = _text_keys(remote.condition.info if remote.condition else None)
            reason, text = info.pop("DeadLetterReason", None), info.pop("DeadLetterErrorDescription", None)
            self.queue.dead_letter(token, now, reason or "", text or "", changes=info)
        elif state == Delivery.MODIFIED:
            settled = self.queue.defer if remote.undeliverable else self.queue.abandon
            settled(token, now, changes=_text_keys(remote.annotations))
        else:
            self.queue.abandon(token, now, counted=False, changes={})


def _text_keys(found: Any) -> dict[str, Any]:
    return {str(name): value for name, value in (found or {}).items()}
