"""One namespace of Service Bus, as one process sees it."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

from cloudevents_bridge.bindings import Wire
from cloudevents_bridge.driver import Capability, DeadLetters, Fault, Subscription, Topic
from cloudevents_bridge.errors import ClosedError, UnsupportedError
from cloudevents_bridge.faults import place_name
from cloudevents_bridge_azure.servicebus import errors, settings, wire
from cloudevents_bridge_azure.servicebus.administration import Administration
from cloudevents_bridge_azure.servicebus.names import Entity, entity
from cloudevents_bridge_azure.servicebus.options import Options
from cloudevents_bridge_azure.servicebus.publisher import Publisher
from cloudevents_bridge_azure.servicebus.sdk import Client
from cloudevents_bridge_azure.servicebus.sessions import SessionSubscriber
from cloudevents_bridge_azure.servicebus.subscriber import Subscriber
from cloudevents_bridge_azure.servicebus.topology import Topology
from cloudevents_bridge_azure.servicebus.watch import Watch

_D = TypeVar("_D", bound="Publisher | Subscriber | SessionSubscriber")


class Native:
    """Azure's own clients, those that the library uses. They do not retry."""

    def __init__(self, client: Client, administration: Administration) -> None:
        self._client, self._administration = client, administration

    @property
    def client(self) -> Any:
        """The `ServiceBusClient`."""
        return self._client.native

    @property
    def administration(self) -> Any:
        """The `ServiceBusAdministrationClient`."""
        return self._administration.native


class Connection:
    """The driver's connection. A subscription is reached by its topic only, so a replay is marked for its one."""

    capabilities = frozenset(Capability)
    direct = False

    def __init__(self, options: Options) -> None:
        self._options = options
        self._client = Client(options)
        self._watch = Watch()
        self._lock = threading.Lock()
        self._opened: list[Publisher | Subscriber | SessionSubscriber] = []
        self._closed = False
        self.administration = Administration(options, self._client)
        self.topology = Topology(self.administration, options)
        self.native = Native(self._client, self.administration)
        self.wire: Wire = wire.WIRES[options.mode]

    def open_publisher(self, to: Topic | Subscription | DeadLetters) -> Publisher:
        if not isinstance(to, Topic):
            raise UnsupportedError(
                f"{place_name(to)} on {self._options.url} cannot be published to: Service Bus sends to topics only; "
                "publish to the topic"
            )
        settings.check(to)
        return self.publisher(entity(to), keyed=to.ordered, window=settings.window(to))

    def open_subscriber(self, of: Subscription | DeadLetters) -> Subscriber | SessionSubscriber:
        settings.check(of)
        subscription = of.of if isinstance(of, DeadLetters) else of
        return self.subscriber(
            entity(of),
            keyed=subscription.topic.ordered,
            lock=settings.lock(subscription),
            removes_after=settings.deliveries(subscription) if isinstance(of, Subscription) else None,
        )

    def publisher(self, to: Entity, *, keyed: bool, window: float) -> Publisher:
        """Sends to a topic or queue."""
        return self._keep(
            Publisher(
                self._client,
                self._watch,
                to,
                keyed=keyed,
                message_bytes=self._options.message_bytes,
                window=window,
            )
        )

    def subscriber(
        self, of: Entity, *, keyed: bool, lock: float, removes_after: int | None
    ) -> Subscriber | SessionSubscriber:
        """Receives from a subscription or queue."""
        made: Subscriber | SessionSubscriber
        kind = SessionSubscriber if keyed and not of.dead else Subscriber
        made = kind(self._client, self._watch, of, lock=lock, removes_after=removes_after)
        return self._keep(made)

    def classify(self, error: BaseException) -> Fault:
        return errors.classify(error)

    def ping(self, *, timeout: float) -> None:
        """Opening a link to what does not exist is refused by the service itself, and only to somebody it knows."""
        from cloudevents_bridge_azure.servicebus.links import Link

        link = Link(lambda: self._client.sender(Entity("ceb-ping")), self._watch)
        try:
            with link.turns, link.use(timeout):
                pass
        except errors.OpeningError as error:
            if errors.condition(error.__cause__ or error) not in ("amqp:not-found", "amqp:unauthorized-access"):
                raise
        finally:
            link.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, []
        for driver in opened:
            driver.close()
        self._client.close()
        self.administration.close()
        self._watch.close()

    def _keep(self, driver: _D) -> _D:
        """Their connections are closed with this one, where nobody does it before."""
        with self._lock:
            if self._closed:
                raise ClosedError(f"the connection to {self._options.url} was closed: connect again")
            self._opened = [each for each in self._opened if not each.closed]
            self._opened.append(driver)
        return driver
