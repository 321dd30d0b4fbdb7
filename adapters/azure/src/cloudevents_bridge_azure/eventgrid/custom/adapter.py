"""From a URL to a connection. Azure's SDKs are imported when the first connection is made, and not before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cloudevents_bridge.driver import Url
from cloudevents_bridge_azure.eventgrid.custom import options as options_

if TYPE_CHECKING:
    from cloudevents_bridge_azure.eventgrid.custom.connection import Connection


class Adapter:
    """What the entry point of the scheme `azure-eventgrid-topic` names. `system`: as telemetry names it."""

    query = options_.QUERY
    options = options_.OPTIONS
    system = "eventgrid"

    def __call__(self, url: Url, options: Mapping[str, Any]) -> Connection:
        """Raises:
        ConfigurationError: if the URL or an option is wrong.
        """
        read = options_.read(url, options)

        from cloudevents_bridge_azure.eventgrid.custom.connection import Connection

        return Connection(read)


adapter = Adapter()
