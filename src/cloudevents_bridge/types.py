"""Names for annotations."""

from cloudevents_bridge._members import Value
from cloudevents_bridge.delivery import RawMessage
from cloudevents_bridge.router import Action, Middleware
from cloudevents_bridge.stats import Stats
from cloudevents_bridge.subscriber import Decoder
from cloudevents_bridge.topics import Change
from cloudevents_bridge.topology import Topology

__all__ = ["Action", "Change", "Decoder", "Middleware", "RawMessage", "Stats", "Topology", "Value"]
