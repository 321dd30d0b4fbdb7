"""The AMQP 1.0 front: links of clients, what they send, what is sent to them, and how they settle it.

One thread, Proton's reactor, does all of it. What a client wrote before another connected is therefore read first, and
a session whose receiver has closed is free for the next one.
"""

from __future__ import annotations

import logging
import threading
import uuid
from typing import Any

from proton import Condition, Delivery, Endpoint, Handler, Link, Terminus, symbol

from cloudevents_bridge_contract.emulators.servicebus import encoding, refusals
from cloudevents_bridge_contract.emulators.servicebus.links import Incoming, Outgoing
from cloudevents_bridge_contract.emulators.servicebus.message import Message
from cloudevents_bridge_contract.emulators.servicebus.namespace import Namespace
from cloudevents_bridge_contract.emulators.servicebus.nodes import Nodes
from cloudevents_bridge_contract.emulators.servicebus.refusals import Refusal
from cloudevents_bridge_contract.emulators.servicebus.settings import MAX_BYTES
from cloudevents_bridge_contract.emulators.servicebus.tokens import Key

_TICK = 0.02  # seconds until what is due by time alone is noticed
_CREDIT = 500
_SESSION_FILTER = "com.microsoft:session-filter"
_log = logging.getLogger(__name__)


class Front(Handler):  # type: ignore[misc]
    """Serves a namespace at an address. `lock`: held whenever the namespace is touched."""

    def __init__(self, namespace: Namespace, address: str, lock: threading.RLock, keys: dict[str, Key]) -> None:
        self._namespace, self._address, self._lock = namespace, address, lock
        self._nodes = Nodes(namespace, keys)
        self._outgoing: list[Outgoing] = []

    # -- connections

    def on_reactor_init(self, event: Any) -> None:
        self._container = event.container
        self._container.listen(self._address)
        self._container.schedule(_TICK, self)

    def on_timer_task(self, event: Any) -> None:
        with self._lock:
            self._namespace.tick(self._namespace.clock())
            self._pump()
        self._container.schedule(_TICK, self)

    def on_connection_bound(self, event: Any) -> None:
        event.transport.sasl().allowed_mechs("ANONYMOUS MSSBCBS")
        event.transport.require_auth(False)
        event.transport.idle_timeout = 120

    def on_connection_remote_open(self, event: Any) -> None:
        event.connection.container = "servicebus-emulator"
        event.connection.open()

    def on_session_remote_open(self, event: Any) -> None:
        event.session.open()

    def on_session_remote_close(self, event: Any) -> None:
        event.session.close()

    def on_connection_remote_close(self, event: Any) -> None:
        event.connection.close()

    def on_transport_closed(self, event: Any) -> None:
        with self._lock:
            for each in [each for each in self._outgoing if each.link.transport in (None, event.transport)]:
                self._leave(each)
            self._pump()

    # -- links

    def on_link_remote_open(self, event: Any) -> None:
        link = event.link
        if link.state & Endpoint.LOCAL_ACTIVE:
            return
        terminus = link.remote_source if link.is_sender else link.remote_target
        path = _path_of(terminus.address)
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        link.snd_settle_mode, link.rcv_settle_mode = link.remote_snd_settle_mode, link.remote_rcv_settle_mode
        with self._lock:
            try:
                if path == "$cbs" or path.endswith("/$management"):
                    self._nodes.attach(link, path)
                elif link.is_sender:
                    self._attach_receiver(link, path)
                else:
                    self._attach_sender(link, path)
            except Refusal as refusal:
                _refuse(link, refusal)
            self._pump()

    def on_link_remote_close(self, event: Any) -> None:
        with self._lock:
            for each in [each for each in self._outgoing if each.link == event.link]:
                self._leave(each)
            event.link.close()
            self._pump()

    on_link_remote_detach = on_link_remote_close

    def on_link_flow(self, event: Any) -> None:
        if event.link.is_sender:
            with self._lock:
                self._pump()

    def _attach_sender(self, link: Any, path: str) -> None:
        """A client's sender, which is a receiver here."""
        self._nodes.require(link.connection, "Send", path, self._namespace.clock())
        entity = self._namespace.holder(path)
        if "/subscriptions/" in path.lower():
            raise Refusal(refusals.NOT_ALLOWED, "Messages are sent to a topic, and not to its subscriptions.")
        if not entity.settings.sends:
            raise Refusal(refusals.DISABLED, f"Messaging entity '{path}' is currently disabled.")
        link.max_message_size = entity.settings.max_bytes
        link.incoming = Incoming(path)
        link.open()
        link.flow(_CREDIT)

    def _attach_receiver(self, link: Any, path: str) -> None:
        """A client's receiver, which is a sender here. One that wants a session waits until it gets it."""
        self._nodes.require(link.connection, "Listen", path, self._namespace.clock())
        queue = self._namespace.queue(path)
        if not queue.settings.receives:
            raise Refusal(refusals.DISABLED, f"Messaging entity '{path}' is currently disabled.")
        if queue.settings.forward is not None:
            text = "Cannot create a message receiver on an entity with auto-forwarding enabled."
            raise Refusal(refusals.NOT_ALLOWED, text)
        link.max_message_size = MAX_BYTES
        filters = _filters(link)
        wants_session = _SESSION_FILTER in filters
        if queue.settings.sessions is not wants_session:
            kind = "requires sessions" if queue.settings.sessions else "does not support sessions"
            raise Refusal(refusals.NOT_ALLOWED, f"The entity '{path}' {kind}; the receiver is of the other kind.")
        outgoing = Outgoing(link, queue, wants_session=wants_session, session=filters.get(_SESSION_FILTER))
        outgoing.set_deadline(self._namespace.clock())
        self._outgoing.append(outgoing)
        if not wants_session:
            link.open()

    def _leave(self, outgoing: Outgoing) -> None:
        self._outgoing.remove(outgoing)
        if outgoing.session is not None and not outgoing.waits:
            outgoing.queue.leave(outgoing.session, outgoing)

    # -- what is carried

    def on_delivery(self, event: Any) -> None:
        delivery, link = event.delivery, event.link
        with self._lock:
            if link.is_receiver:
                if delivery.readable and not delivery.partial:
                    self._take(delivery, link)
            elif delivery.updated:
                self._settled(delivery, link)
            self._pump()

    def _take(self, delivery: Any, link: Any) -> None:
        raw = link.recv(delivery.pending) or b""
        link.advance()
        incoming = getattr(link, "incoming", None)
        try:
            if incoming is None:
                self._nodes.request(link, raw, self._namespace.clock())
            else:
                messages = [Message.parse(each) for each in encoding.batched(raw) or [raw]]
                self._namespace.send(incoming.path, messages, self._namespace.clock())
            delivery.update(Delivery.ACCEPTED)
        except Refusal as refusal:
            _reject(delivery, refusal)
        except Exception as error:  # noqa: BLE001 - one client's nonsense does not end the server
            _log.exception("a message could not be taken")
            _reject(delivery, Refusal(refusals.INTERNAL, str(error)))
        delivery.settle()
        if link.credit < _CREDIT // 2:
            link.flow(_CREDIT - link.credit)

    def _settled(self, delivery: Any, link: Any) -> None:
        outgoing = next((each for each in self._outgoing if each.link == link), None)
        token = getattr(delivery, "token", None)
        if outgoing is None or token is None or not (delivery.remote_state or delivery.settled):
            return
        try:
            outgoing.settle(token, delivery, self._namespace.clock())
            delivery.update(delivery.remote_state)
        except Refusal as refusal:
            _reject(delivery, refusal)
        delivery.settle()

    # -- what is due

    def _pump(self) -> None:
        """Give sessions and messages to whoever waits for them."""
        now = self._namespace.clock()
        for outgoing in list(self._outgoing):
            try:
                if self._namespace.queue(outgoing.queue.path) is not outgoing.queue:
                    raise refusals.no_entity(outgoing.queue.path)
                if outgoing.waits and not self._grant(outgoing, now):
                    continue
                outgoing.check(now)
                while outgoing.link.credit > 0 and self._send(outgoing, now):
                    pass
                if outgoing.link.drain_mode and outgoing.link.credit > 0:
                    outgoing.link.drained()
            except Refusal as refusal:
                self._leave(outgoing)
                _refuse(outgoing.link, refusal)

    def _grant(self, outgoing: Outgoing, now: float) -> bool:
        if not outgoing.link.state & Endpoint.REMOTE_ACTIVE:
            return False
        session = outgoing.queue.accept(outgoing, outgoing.session, now)
        if session is None:
            if now > outgoing.deadline:
                raise Refusal(refusals.TIMEOUT, "The operation did not complete within the allotted timeout.")
            return False
        outgoing.open_with(session, now)
        return True

    def _send(self, outgoing: Outgoing, now: float) -> bool:
        link = outgoing.link
        at_most_once = link.remote_snd_settle_mode == Link.SND_SETTLED
        stored = outgoing.queue.take(now, outgoing.session, delete=at_most_once)
        if stored is None:
            return False
        token = stored.token or uuid.uuid4()
        delivery = link.delivery(token.bytes_le)  # the lock token, as clients read it
        link.send(stored.encode())
        if at_most_once:
            delivery.settle()
        else:
            delivery.token = token
        link.advance()
        return True


def _path_of(address: str | None) -> str:
    if address and "://" in address:
        return address.split("://", 1)[1].partition("/")[2]
    return address or ""


def _filters(link: Any) -> dict[str, Any]:
    data = link.remote_source.filter
    data.rewind()
    found = data.get_dict() if data.next() else {}
    return {str(name): value for name, value in (found or {}).items()}


def _reject(delivery: Any, refusal: Refusal) -> None:
    delivery.local.condition = _condition(refusal)
    delivery.update(Delivery.REJECTED)


def _condition(refusal: Refusal) -> Condition:
    """With an info: an error of two fields, as Proton writes it without one, hangs Azure's client for good."""
    return Condition(symbol(refusal.condition), refusal.text, {symbol("tracking-id"): str(uuid.uuid4())})


def _refuse(link: Any, refusal: Refusal) -> None:
    """An attach without source and target, then the reason."""
    if not link.state & Endpoint.LOCAL_ACTIVE:
        link.source.type = link.target.type = Terminus.UNSPECIFIED
        link.open()
    link.condition = _condition(refusal)
    link.close()
