"""Azure for cloudevents-bridge. Event Grid is in `eventgrid`: `azure-eventgrid://NAMESPACE-HOST`."""

from __future__ import annotations

from cloudevents_bridge_azure.eventgrid.adapter import adapter as eventgrid_adapter

__all__ = ["eventgrid_adapter"]
