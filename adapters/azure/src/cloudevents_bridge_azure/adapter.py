"""From a URL to a connection, for each scheme. Azure's SDKs are imported when a connection needs them, not before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from cloudevents_bridge.driver import Url
from cloudevents_bridge_azure.eventgrid import options as eventgrid
from cloudevents_bridge_azure.eventgrid.custom import options as custom
from cloudevents_bridge_azure.servicebus import options as servicebus

if TYPE_CHECKING:
    from cloudevents_bridge_azure.eventgrid.connection import Connection as EventGrid
    from cloudevents_bridge_azure.eventgrid.custom.connection import Connection as EventGridTopics
    from cloudevents_bridge_azure.servicebus.connection import Connection as ServiceBus

C = TypeVar("C")


class Adapter(Generic[C]):
    """What the entry point of a scheme names.

    Attributes:
        query, options: what its URLs and `connect` may carry.
        system: as telemetry names it.
    """

    def __init__(
        self,
        connect: Callable[[Url, Mapping[str, Any]], C],
        *,
        query: frozenset[str],
        options: frozenset[str],
        system: str,
    ) -> None:
        self.query, self.options, self.system = query, options, system
        self._connect = connect

    def __call__(self, url: Url, options: Mapping[str, Any]) -> C:
        """Raises:
        ConfigurationError: if the URL or an option is wrong.
        """
        return self._connect(url, options)


def _servicebus(url: Url, options: Mapping[str, Any]) -> ServiceBus:
    read = servicebus.read(url, options)
    from cloudevents_bridge_azure.servicebus.connection import Connection

    return Connection(read)


def _eventgrid(url: Url, options: Mapping[str, Any]) -> EventGrid:
    read = eventgrid.read(url, options)
    from cloudevents_bridge_azure.eventgrid.connection import Connection

    return Connection(read)


def _eventgrid_topic(url: Url, options: Mapping[str, Any]) -> EventGridTopics:
    read = custom.read(url, options)
    from cloudevents_bridge_azure.eventgrid.custom.connection import Connection

    return Connection(read)


servicebus_adapter = Adapter(_servicebus, query=servicebus.QUERY, options=servicebus.OPTIONS, system="servicebus")
eventgrid_adapter = Adapter(_eventgrid, query=eventgrid.QUERY, options=eventgrid.OPTIONS, system="eventgrid")
eventgrid_topic_adapter = Adapter(_eventgrid_topic, query=custom.QUERY, options=custom.OPTIONS, system="eventgrid")
