"""The operations of an entity's `$management` node: from a request's body to a response's."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from proton import UNDESCRIBED, Array, Data, timestamp

from cloudevents_bridge_contract.emulators.servicebus import refusals
from cloudevents_bridge_contract.emulators.servicebus.message import Message
from cloudevents_bridge_contract.emulators.servicebus.namespace import Namespace
from cloudevents_bridge_contract.emulators.servicebus.queue import Stored
from cloudevents_bridge_contract.emulators.servicebus.refusals import Refusal

Body = Mapping[str, Any]
OF_A_SESSION = {
    "update-disposition",
    "renew-session-lock",
    "set-session-state",
    "get-session-state",
    "receive-by-sequence-number",
}
"""What only the holder of a session can do, where the request names one."""
_NOTHING_FOUND = 204
_RECEIVE_AND_DELETE = 0
_ALL_SESSIONS = 253_402_300_800_000  # ms: the year 10000, which asks for all
_RIGHTS = {"schedule-message": "Send", "cancel-scheduled-message": "Send"}


def right_for(operation: str) -> str:
    return _RIGHTS.get(operation.removeprefix("com.microsoft:"), "Listen")


def answer(namespace: Namespace, path: str, operation: str, body: Body, now: float) -> tuple[int, Any]:
    """Status and body of the response.

    Raises:
        Refusal: if the answer is no.
    """
    does = _OPERATIONS.get(operation.removeprefix("com.microsoft:"))
    if does is None:
        raise Refusal(refusals.NOT_IMPLEMENTED, f"The operation {operation} is not implemented.")
    return does(namespace, path, body, now)


def _renew_lock(namespace: Namespace, path: str, body: Body, now: float) -> tuple[int, Any]:
    queue = namespace.queue(path)
    ends = [queue.renew(token, now) for token in _tokens(body)]
    return 200, {"expirations": Array(UNDESCRIBED, Data.TIMESTAMP, *[timestamp(int(end * 1000)) for end in ends])}


def _settle(namespace: Namespace, path: str, body: Body, now: float) -> tuple[int, Any]:
    queue, how = namespace.queue(path), body["disposition-status"]
    changes = {str(name): value for name, value in (body.get("properties-to-modify") or {}).items()}
    session = body.get("session-id")
    if session is not None:
        queue.session_end(session, None, now)
    for token in _tokens(body):
        if how == "completed":
            queue.complete(token, now)
        elif how == "abandoned":
            queue.abandon(token, now, changes=changes)
        elif how == "defered":
            queue.defer(token, now, changes=changes)
        elif how == "suspended":
            reason, text = body.get("deadletter-reason"), body.get("deadletter-description")
            queue.dead_letter(token, now, reason or "", text or "", changes=changes)
        else:
            raise Refusal(refusals.ARGUMENT, f"There is no disposition status {how!r}.")
    return 200, None


def _peek(namespace: Namespace, path: str, body: Body, now: float) -> tuple[int, Any]:
    count = int(body["message-count"])
    found = namespace.peek(path, int(body["from-sequence-number"]), count, body.get("session-id"), now)
    return (200, {"messages": [{"message": each.encode()} for each in found]}) if found else (_NOTHING_FOUND, None)


def _schedule(namespace: Namespace, path: str, body: Body, now: float) -> tuple[int, Any]:
    messages = [Message.parse(bytes(_text_keys(each)["message"])) for each in body["messages"]]
    numbers = namespace.send(path, messages, now)
    return 200, {"sequence-numbers": Array(UNDESCRIBED, Data.LONG, *numbers)}


def _cancel(namespace: Namespace, path: str, body: Body, now: float) -> tuple[int, Any]:
    namespace.cancel(path, _numbers(body))
    return 200, None


def _receive(namespace: Namespace, path: str, body: Body, now: float) -> tuple[int, Any]:
    delete = int(body.get("receiver-settle-mode", 1)) == _RECEIVE_AND_DELETE
    found = namespace.queue(path).take_deferred(_numbers(body), now, body.get("session-id"), delete=delete)
    return 200, {"messages": [_with_token(each) for each in found]}


def _with_token(stored: Stored) -> Mapping[str, Any]:
    token = stored.token or uuid.uuid4()
    return {"message": stored.encode(), "lock-token": token}


def _renew_session(namespace: Namespace, path: str, body: Body, now: float) -> tuple[int, Any]:
    until = namespace.queue(path).renew_session(body["session-id"], now)
    return 200, {"expiration": timestamp(int(until * 1000))}


def _set_state(namespace: Namespace, path: str, body: Body, now: float) -> tuple[int, Any]:
    queue, session, state = namespace.queue(path), body["session-id"], body.get("session-state")
    queue.session_end(session, None, now)
    queue.state_times[session] = now
    if state is None:
        queue.session_states.pop(session, None)
    else:
        queue.session_states[session] = bytes(state)
    return 200, None


def _get_state(namespace: Namespace, path: str, body: Body, now: float) -> tuple[int, Any]:
    queue, session = namespace.queue(path), body["session-id"]
    queue.session_end(session, None, now)
    return 200, {"session-state": queue.session_states.get(session)}


def _list_sessions(namespace: Namespace, path: str, body: Body, now: float) -> tuple[int, Any]:
    queue = namespace.queue(path)
    since = int(body.get("last-updated-time", _ALL_SESSIONS))
    if since < _ALL_SESSIONS:
        names = sorted(name for name, moment in queue.state_times.items() if moment * 1000 > since)
    else:
        held = {stored.message.session for stored in queue.stored.values() if stored.message.session is not None}
        names = sorted({*held, *queue.session_states})
    skip, top = int(body.get("skip", 0)), int(body.get("top", 100))
    page = names[skip : skip + top]
    if not page:
        return _NOTHING_FOUND, None
    return 200, {"skip": skip + len(page), "sessions-ids": Array(UNDESCRIBED, Data.STRING, *page)}


_OPERATIONS: Mapping[str, Callable[[Namespace, str, Body, float], tuple[int, Any]]] = {
    "renew-lock": _renew_lock,
    "update-disposition": _settle,
    "peek-message": _peek,
    "schedule-message": _schedule,
    "cancel-scheduled-message": _cancel,
    "receive-by-sequence-number": _receive,
    "renew-session-lock": _renew_session,
    "set-session-state": _set_state,
    "get-session-state": _get_state,
    "get-message-sessions": _list_sessions,
}


def _text_keys(found: Mapping[Any, Any]) -> Mapping[str, Any]:
    return {str(name): value for name, value in found.items()}


def _numbers(body: Body) -> list[int]:
    found = body["sequence-numbers"]
    return [int(each) for each in _elements(found)]


def _tokens(body: Body) -> list[uuid.UUID]:
    found = _elements(body["lock-tokens"])
    return [each if isinstance(each, uuid.UUID) else uuid.UUID(str(each)) for each in found]


def _elements(found: Any) -> list[Any]:
    """Of an AMQP array or list."""
    return list(found.elements if isinstance(found, Array) else found)
