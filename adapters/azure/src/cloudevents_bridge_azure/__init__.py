"""Azure: `azure-servicebus://NAMESPACE-HOST`, topics and subscriptions of Service Bus."""

from __future__ import annotations

from cloudevents_bridge_azure.adapter import servicebus_adapter

__all__ = ["servicebus_adapter"]
