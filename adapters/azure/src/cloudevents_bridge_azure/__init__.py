"""Azure: Service Bus (`azure-servicebus://NAMESPACE-HOST`, in `servicebus`), namespaces of Event Grid
(`azure-eventgrid://NAMESPACE-HOST`, in `eventgrid`), and its custom topics with queues of Service Bus behind them
(`azure-eventgrid-topic://HOST?servicebus=NAMESPACE-HOST`, in `eventgrid.custom`).
"""

from __future__ import annotations

from cloudevents_bridge_azure.adapter import eventgrid_adapter, eventgrid_topic_adapter, servicebus_adapter

__all__ = ["eventgrid_adapter", "eventgrid_topic_adapter", "servicebus_adapter"]
