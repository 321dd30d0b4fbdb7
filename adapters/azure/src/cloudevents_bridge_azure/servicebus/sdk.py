"""Azure's SDK as the driver uses it: its clients, and the few things that its public interface does not offer.

Those are in this file only, and tests fail where a version of the SDK does them in another way:

- A connection that hangs is cut: the SDK has no bound for the opening of a connection, nor for an answer that it cannot
  read.
- Credit is taken back, and what comes on it meanwhile is handed out: what a `receive_messages` asked for and did not
  get stays out with the SDK, and what is delivered on it afterwards waits for a reader.
- A batch takes messages that are encoded: the SDK encodes each twice.
- What came is handed out when nothing more comes for a moment: the SDK waits a fifth of a second, also where something
  was fetched ahead, and reads frame by frame.
- A receive that waits can be ended: the SDK's ends with its time.
- Opening goes from frame to frame: the SDK sleeps for a twentieth of a second after each, nine times.
- Its socket is closed: the SDK leaves it open where a connection has failed on the way.
- A receiver without prefetch has a thread that reads its connection every five seconds, beside whoever uses it. Made
  with prefetch and without keep-alive it has none; then the prefetch is turned off.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any

from cloudevents_bridge_azure.servicebus import encoding
from cloudevents_bridge_azure.servicebus.names import Entity
from cloudevents_bridge_azure.servicebus.options import Options

TICK = 0.02
"""Seconds of silence after which a receiver looks at its own clock."""
OPENING = 15.0
"""Seconds within which a link must be open."""
PREFETCH = 100
"""Messages of a session that are fetched ahead: at least as many as one receive asks for, or the SDK reorders them."""
DRAINING = 2.0
"""Seconds within which the service must say that credit was taken back."""
_TURNED_OFF = 1
_DATA = 5  # of a message's sections
_DELIVERY_COUNT = 5  # of a flow's fields
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
    if hasattr(handler, "_prefetch_count"):
        handler._further_pull_receive_timeout = 0.0  # `drained` and `fetched` have the others, many at once
        if handler._prefetch_count == _TURNED_OFF:
            handler._prefetch_count = 0
            _hears_of_drained(handler._handler._link)


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


def batch(sender: Any, first: Any, others: Iterable[bytes]) -> Any:
    """A batch of a message, and of others that are encoded.

    Raises:
        MessageSizeExceededError: if they are more than the service takes in one.
    """
    from azure.servicebus.exceptions import MessageSizeExceededError

    made = sender.create_message_batch()
    made.add_message(first)
    size = made.size_in_bytes
    for each in others:
        size += len(each) + encoding.entry(len(each))
        made._message[_DATA].append(each)
    if size > made.max_size_in_bytes:
        raise MessageSizeExceededError(message=f"the batch has {size} bytes, and the limit is {made.max_size_in_bytes}")
    return made


def fetched(receiver: Any, most: int, wait: float) -> list[Any]:
    """Messages of a session: what was fetched ahead, else what comes within `wait` seconds and what follows at once."""
    handler = receiver._handler
    found: list[Any] = []
    if handler._received_messages.empty():
        found += receiver.receive_messages(most, max_wait_time=wait)
        if 0 < len(found) < most:
            handler._connection.listen(batch=most - len(found))
    return found + _read(receiver, min(handler._received_messages.qsize(), most - len(found)))


def received(receiver: Any, most: int, wait: float, enough: Callable[[], bool]) -> list[Any]:
    """The first of the messages that come within `wait` seconds. Not for sessions.

    Args:
        enough: asked with each tick: to wait no more.
    """
    handler = receiver._handler
    until = monotonic() + wait
    found = receiver.receive_messages(most, max_wait_time=TICK)
    while not (found or enough() or monotonic() > until):
        handler._connection.listen()
        found = _read(receiver, min(handler._received_messages.qsize(), most))
    return found  # type: ignore[no-any-return]


def drained(receiver: Any) -> list[Any]:
    """The messages that follow at once on the credit that is out, which is then taken back. Not for sessions.

    Raises:
        OperationTimeoutError: if the service does not say that it was.
    """
    from azure.servicebus.exceptions import OperationTimeoutError

    handler = receiver._handler
    link = handler._link
    if link.current_link_credit > 0:
        handler._connection.listen(batch=link.current_link_credit)  # until nothing comes for a tick
    if link.current_link_credit > 0:
        link.flow(link_credit=link.current_link_credit, drain=True)
        until = monotonic() + DRAINING
        while link.current_link_credit > 0:
            if monotonic() > until:
                raise OperationTimeoutError(message=f"credit was not taken back within {DRAINING:g} s")
            handler._connection.listen()  # its answer is the end of it: no silence to wait for
    return _read(receiver, handler._received_messages.qsize())


def _read(receiver: Any, count: int) -> list[Any]:
    """Messages that wait for a reader: for more than there are it would wait."""
    return receiver.receive_messages(count) if count else []


def _hears_of_drained(link: Any) -> None:
    """The service says how much credit it has used up (AMQP 1.0, part 2.6.7), which the SDK passes over."""

    def told(frame: Any) -> None:
        used = frame[_DELIVERY_COUNT] - link.delivery_count
        link.delivery_count += used
        link.current_link_credit -= used

    link._incoming_flow = told
