"""One message: the bytes that a sender sent, and what the broker itself reads of them and writes to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from proton import Message as ProtonMessage
from proton import int32, symbol, timestamp

from cloudevents_bridge_contract.emulators.servicebus import encoding

_NOTHING = b"\x00\x53\x77\x40"  # a body that is the value null
_SCHEDULED = "x-opt-scheduled-enqueue-time"
REASON, DESCRIPTION = "DeadLetterReason", "DeadLetterErrorDescription"
_SYSTEM = {  # the names of SQL rules: attributes of Proton's message
    "messageid": "id",
    "correlationid": "correlation_id",
    "label": "subject",
    "subject": "subject",
    "to": "address",
    "replyto": "reply_to",
    "sessionid": "group_id",
    "replytosessionid": "reply_to_group_id",
    "contenttype": "content_type",
}


@dataclass(frozen=True)
class Message:
    """A message as it was sent. `ttl`: seconds; `at`: the moment for which it is scheduled, in seconds, 0: at once."""

    annotations: Mapping[str, Any]
    properties: bytes  # the encoded section
    application: bytes
    body: bytes  # all sections behind these
    durable: bool
    ttl: float | None
    at: float
    system: Mapping[str, Any]  # by the lower-case name that SQL rules use
    user: Mapping[str, Any]
    size: int
    hops: int = field(default=0)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Raises ValueError if it is no AMQP message."""
        parts = {encoding.HEADER: b"", encoding.ANNOTATIONS: b"", encoding.PROPERTIES: b"", encoding.APPLICATION: b""}
        body = b""
        for code, section in encoding.sections(raw):
            if code in parts:
                parts[code] = section
            elif code != encoding.DELIVERY:
                body += section
        read = ProtonMessage()
        read.decode(b"".join(parts.values()) + _NOTHING)
        annotations = {str(name): value for name, value in (read.annotations or {}).items()}
        return cls(
            annotations=annotations,
            properties=parts[encoding.PROPERTIES],
            application=parts[encoding.APPLICATION],
            body=body,
            durable=bool(read.durable),
            ttl=read.ttl or None,
            at=annotations.get(_SCHEDULED, 0) / 1000,
            system={name: getattr(read, attribute) for name, attribute in _SYSTEM.items()},
            user=dict(read.properties or {}),
            size=len(raw),
        )

    @property
    def id(self) -> Any:
        return self.system["messageid"]

    @property
    def session(self) -> str | None:
        found = self.system["sessionid"]
        return None if found is None else str(found)

    def with_user(self, **changed: Any) -> Self:
        """With other application properties; None removes one."""
        user = {**self.user, **changed}
        user = {name: value for name, value in user.items() if value is not None}
        return replace(self, user=user, application=_section(encoding.APPLICATION, properties=user))

    def with_system(self, name: str, value: Any) -> Self:
        """With another system property, by the name that SQL rules use.

        Raises:
            KeyError: if there is no such property, or it cannot be changed.
        """
        if name == "messageid":
            raise KeyError(name)
        read = ProtonMessage()
        read.decode(self.properties + _NOTHING)
        setattr(read, _SYSTEM[name], value)
        encoded = b"".join(section for code, section in _encoded(read) if code == encoding.PROPERTIES)
        return replace(self, system={**self.system, name: value}, properties=encoded)

    def encode(
        self, *, failures: int, ttl: float | None, annotations: Mapping[str, Any], state: int, enqueued: float
    ) -> bytes:
        """For a receiver. `failures`: earlier deliveries; `annotations`: the broker's own; `enqueued`: a moment."""
        all_of_them = {symbol(name): value for name, value in {**self.annotations, **annotations}.items()}
        all_of_them[symbol("x-opt-enqueued-time")] = timestamp(int(enqueued * 1000))
        all_of_them[symbol("x-opt-message-state")] = int32(state)
        return (
            encoding.header(durable=self.durable, ttl=None if ttl is None else int(ttl * 1000), failures=failures)
            + _section(encoding.ANNOTATIONS, annotations=all_of_them)
            + self.properties
            + self.application
            + self.body
        )


def _section(code: int, **fields: Any) -> bytes:
    return b"".join(section for each, section in _encoded(ProtonMessage(**fields)) if each == code)


def _encoded(message: ProtonMessage) -> list[tuple[int, bytes]]:
    return list(encoding.sections(message.encode()))
