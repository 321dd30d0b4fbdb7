"""The two nodes of AMQP that answer requests: `$cbs`, which takes tokens, and an entity's `$management`."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Any

from proton import Message, int32, symbol

from cloudevents_bridge_contract.emulators.servicebus import management, refusals, tokens
from cloudevents_bridge_contract.emulators.servicebus.links import Outgoing
from cloudevents_bridge_contract.emulators.servicebus.namespace import Namespace
from cloudevents_bridge_contract.emulators.servicebus.refusals import Refusal
from cloudevents_bridge_contract.emulators.servicebus.tokens import Claim, Key

_CREDIT = 500
_MANAGEMENT = "/$management"
_log = logging.getLogger(__name__)


class Nodes:
    """`keys`: the shared access keys by name."""

    def __init__(self, namespace: Namespace, keys: Mapping[str, Key]) -> None:
        self._namespace, self._keys = namespace, keys

    def attach(self, link: Any, path: str) -> None:
        link.open()
        link.node = path
        if not link.is_sender:
            link.flow(_CREDIT)
            return
        replies = _kept(link.connection, "replies", dict)
        replies[path] = link
        if link.remote_target.address:
            replies[link.remote_target.address] = link

    def require(self, connection: Any, right: str, path: str, now: float) -> None:
        """Raises Refusal: no token of this connection allows that."""
        if not any(claim.allows(right, path, now) for claim in _kept(connection, "claims", list)):
            raise Refusal(refusals.UNAUTHORIZED, f"Unauthorized access. '{right}' claim(s) are required: {path}.")

    def request(self, link: Any, raw: bytes, now: float) -> None:
        """Answer one request."""
        asked = Message()
        asked.decode(raw)
        properties = _text_keys(asked.properties)
        answer = Message(correlation_id=asked.id)
        if link.node == "$cbs":
            answer.properties = self._put_token(link.connection, asked, now)
        else:
            self._manage(link, asked, properties, answer, now)
        replies = _kept(link.connection, "replies", dict)
        back = replies.get(asked.reply_to or "") or replies.get(link.node)
        if back is None:
            raise Refusal(refusals.NOT_ALLOWED, "There is no link for the answer.")
        delivery = back.delivery(uuid.uuid4().bytes)
        back.send(answer.encode())
        back.advance()
        delivery.settle()

    def _put_token(self, connection: Any, asked: Message, now: float) -> dict[str, Any]:
        try:
            claim = tokens.claim(str(asked.body), self._keys, now)  # Azure's client calls every token a `jwt`
        except Refusal as refusal:
            return {"status-code": int32(refusal.status), "status-description": refusal.text}
        claims: list[Claim] = _kept(connection, "claims", list)
        claims.append(claim)
        return {"status-code": int32(202), "status-description": "Accepted"}

    def _manage(self, link: Any, asked: Message, properties: Mapping[str, Any], answer: Message, now: float) -> None:
        path, operation = link.node.removesuffix(_MANAGEMENT), str(properties.get("operation"))
        try:
            self.require(link.connection, management.right_for(operation), path, now)
            body = _text_keys(asked.body)
            if (
                operation.removeprefix("com.microsoft:") in management.OF_A_SESSION
                and body.get("session-id") is not None
            ):
                self._check_holds(link.connection, path, body["session-id"])
            status, answer.body = management.answer(self._namespace, path, operation, body, now)
            answer.properties = {"statusCode": int32(status), "statusDescription": "OK"}
        except Refusal as refusal:
            answer.properties = _trouble(refusal)
        except Exception as error:  # noqa: BLE001 - one client's nonsense does not end the server
            _log.exception("a request could not be answered")
            answer.properties = _trouble(Refusal(refusals.INTERNAL, repr(error)))

    def _check_holds(self, connection: Any, path: str, session: str) -> None:
        """Raises Refusal: the session is another connection's, or nobody's."""
        lock = self._namespace.queue(path).sessions.get(session)
        if lock is None or not isinstance(lock.owner, Outgoing) or lock.owner.link.connection != connection:
            raise refusals.session_lock_lost(session)


def _kept(connection: Any, name: str, kind: type) -> Any:
    """What is kept for a connection, at the connection itself: Proton's objects are made anew at each event."""
    if getattr(connection, name, None) is None:
        setattr(connection, name, kind())
    return getattr(connection, name)


def _trouble(refusal: Refusal) -> dict[str, Any]:
    return {
        "statusCode": int32(refusal.status),
        "statusDescription": refusal.text,
        "errorCondition": symbol(refusal.condition),
    }


def _text_keys(found: Any) -> dict[str, Any]:
    return {str(name): value for name, value in (found or {}).items()}
