"""Azure's SDK as the driver uses it: its clients, and the few things that its public interface does not offer.

Those are in this file only, and tests fail where a version of the SDK does them in another way:

- A connection that hangs is cut: the SDK has no bound for the opening of a connection, nor for an answer that it cannot
  read.
- Credit is taken back, and the service's word for it waited for: what a `receive_messages` asked for and did not get
  stays out with the SDK, and what is delivered on it afterwards waits for a reader. When the SDK itself takes it back,
  to close, it waits for two moments of silence only: what is still on its way stays locked, and nobody has it.
- What came is handed out when nothing more comes for a moment: the SDK waits a fifth of a second.
- Opening goes from frame to frame: the SDK sleeps for a twentieth of a second after each, nine times.
- Its socket is closed: the SDK leaves it open where a connection has failed on the way.
- A receiver without prefetch has a thread that reads its connection every five seconds, beside whoever uses it. Made
  with prefetch and without keep-alive it has none; then the prefetch is turned off.
"""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import suppress
from time import monotonic
from typing import Any

from cloudevents_bridge_azure.servicebus.names import Entity
from cloudevents_bridge_azure.servicebus.options import Options

TICK = 0.02
"""Seconds of silence after which a receiver looks at its own clock."""
OPENING = 15.0
"""Seconds within which a link must be open."""
PREFETCH = 100
"""Messages of a session that are fetched ahead: at least as many as one receive asks for, or the SDK reorders them."""
DRAINING = 2.0
"""Seconds within which the service says that credit is used up. One that throttles may take far longer."""
_DELIVERY_COUNT = 5  # in a flow frame
_TURNED_OFF = 1
_CUT = "_ceb_cut"
_PATIENCE = 0.5  # seconds after which the SDK looks at its own clock
# What the SDK's own AMQP logs of a connection that ends is raised too, and told once.
logging.getLogger("azure.servicebus._pyamqp").setLevel(logging.CRITICAL)


class Client:
    """Makes senders and receivers of one namespace; opens nothing. Thread-safe."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._client: Any = None
        self._credential: Any = None

    @property
    def native(self) -> Any:
        """The `ServiceBusClient`."""
        with self._lock:
            if self._client is None:
                self._client = self._make()
            return self._client

    def sender(self, to: Entity) -> Any:
        client = self.native
        with self._lock:
            return _tidied(client.get_topic_sender(to.name, keep_alive=0, socket_timeout=1.0))

    def receiver(self, of: Entity) -> Any:
        """For messages without sessions."""
        return self._receiver(of, prefetch_count=_TURNED_OFF)

    def next_session(self, of: Entity, wait: float) -> Any:
        """For the next session that has messages, within `wait` seconds."""
        from azure.servicebus import NEXT_AVAILABLE_SESSION

        return self._receiver(of, prefetch_count=PREFETCH, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=wait)

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
            credential, self._credential = self._credential, None
        if client is not None:
            client.close()
        if credential is not None:
            credential.close()

    @property
    def credential(self) -> Any:
        """The key, the credential that was given, or the default one."""
        from azure.core.credentials import AzureNamedKeyCredential

        if self._options.key is not None:
            return AzureNamedKeyCredential(self._options.key.name, self._options.key.secret)
        if self._options.credential is not None:
            return self._options.credential
        if self._credential is None:
            from azure.identity import DefaultAzureCredential

            self._credential = DefaultAzureCredential()
        return self._credential

    def _make(self) -> Any:
        from azure.servicebus import ServiceBusClient

        plain = {"use_tls": False} if self._options.plaintext else {}
        return ServiceBusClient(self._options.address, self.credential, retry_total=0, try_timeout=OPENING, **plain)

    def _receiver(self, of: Entity, **options: Any) -> Any:
        client = self.native
        if of.dead:
            options["sub_queue"] = "deadletter"
        with self._lock:
            if of.subscription is None:
                return _tidied(client.get_queue_receiver(of.name, keep_alive=0, socket_timeout=TICK, **options))
            made = client.get_subscription_receiver(
                of.name, of.subscription, keep_alive=0, socket_timeout=TICK, **options
            )
            return _tidied(made)


def open_(handler: Any) -> None:
    """Open a sender or receiver. It cannot be bounded but by `cut`.

    Raises:
        ServiceBusError: what the service said.
    """
    handler.__enter__()
    if getattr(handler, "_prefetch_count", 0) == _TURNED_OFF:
        handler._prefetch_count = 0
        handler._further_pull_receive_timeout = TICK / 4


def cut(handler: Any) -> None:
    """Break the connection of a sender or receiver, from any thread: whoever waits for it gets an error."""
    if handler is None:
        return
    handler.__dict__[_CUT] = True  # one that has no socket yet
    sock = _socket(handler)
    if sock is not None:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _socket(handler: Any) -> Any:
    transport = getattr(getattr(getattr(handler, "_handler", None), "_connection", None), "_transport", None)
    return getattr(transport, "sock", None)


def _tidied(handler: Any) -> Any:
    """The same, opening without sleep, and closing its socket whatever happens."""
    from azure.servicebus.exceptions import ServiceBusConnectionError

    close, create = handler._close_handler, handler._create_handler

    def create_prompt(*arguments: Any) -> None:
        create(*arguments)
        ready = handler._handler.client_ready

        def soon_ready() -> bool:
            until = monotonic() + _PATIENCE
            while not ready():
                if handler.__dict__.get(_CUT):
                    # One of its own: of others the SDK logs the traceback, and this happens all the time.
                    raise ServiceBusConnectionError(message="the connection was cut while it was opened")
                if monotonic() > until:
                    return False
            return True

        handler._handler.client_ready = soon_ready

    def close_all() -> None:
        sock = _socket(handler)
        try:
            close()
        finally:
            if sock is not None:
                sock.close()

    handler._create_handler, handler._close_handler = create_prompt, close_all
    return handler


def take_back(receiver: Any) -> int:
    """Take back the credit that is out. Not for sessions.

    Returns:
        How many messages came on it before: the receiver has them, for whoever asks for so many.

    Raises:
        TimeoutError: if the service does not say in time that it knows. The receiver is no good any more.
    """
    handler = receiver._handler
    link = handler._link
    if link.current_link_credit > 0:
        _drain(handler, link)
    came: int = handler._received_messages.qsize()
    return came


def _drain(handler: Any, link: Any) -> None:
    """Have the service use the credit up, with messages or without (AMQP 1.0, part 2.6.7)."""
    limit = link.delivery_count + link.current_link_credit

    def used_up(frame: Any) -> None:
        link.delivery_count = frame[_DELIVERY_COUNT]
        link.current_link_credit = limit - link.delivery_count

    link._incoming_flow = used_up
    try:
        link.flow(link_credit=link.current_link_credit, drain=True)
        end = monotonic() + DRAINING
        while link.current_link_credit > 0 and monotonic() < end:
            handler._connection.listen(wait=TICK)
    finally:
        del link._incoming_flow
    if link.current_link_credit > 0:
        raise TimeoutError(f"the service did not use the credit up within {DRAINING:g} s")
