"""The least rights of a role, as commands of `az` that grant Azure's built-in roles on each entity.

Source: https://learn.microsoft.com/azure/service-bus-messaging/service-bus-managed-service-identity
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudevents_bridge.driver import Subscription, Topic
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge_azure.servicebus.names import subscription_name, topic_name
from cloudevents_bridge_azure.servicebus.options import Options

SENDER, RECEIVER, OWNER = (f"Azure Service Bus Data {each}" for each in ("Sender", "Receiver", "Owner"))
_NAMESPACES = "/subscriptions/$SUBSCRIPTION/resourceGroups/$GROUP/providers/Microsoft.ServiceBus/namespaces"
Places = Sequence[Topic | Subscription]


def policy(role: str, options: Options, wanted: Places) -> str:
    """Raises:
    UnsupportedError: for a role that is not known.
    """
    lines = _ROLES.get(role)
    if lines is None:
        raise UnsupportedError(f"there is no role {role!r} on {options.url}; the roles are {', '.join(sorted(_ROLES))}")
    head = [
        f"# {role}: set PRINCIPAL to an object id, SUBSCRIPTION and GROUP to those of the namespace",
        f"NAMESPACE={_NAMESPACES}/{options.host.partition('.')[0]}",
    ]
    return "\n".join([*head, *dict.fromkeys(lines(wanted)), ""])


def _publisher(wanted: Places) -> Iterator[str]:
    for place in wanted:
        if isinstance(place, Topic):
            yield _grant(SENDER, _topic(place))


def _consumer(wanted: Places) -> Iterator[str]:
    """Receiving, which is dead-lettering too."""
    for place in wanted:
        if isinstance(place, Subscription):
            yield _grant(RECEIVER, f"{_topic(place.topic)}/subscriptions/{subscription_name(place)}")


def _operator(wanted: Places) -> Iterator[str]:
    """Reading dead letters, and publishing them again."""
    for place in wanted:
        if isinstance(place, Subscription):
            yield _grant(RECEIVER, f"{_topic(place.topic)}/subscriptions/{subscription_name(place)}")
            yield _grant(SENDER, _topic(place.topic))


def _provisioner(wanted: Places) -> Iterator[str]:
    del wanted  # what does not exist yet has no scope of its own: this one is the namespace's
    yield _grant(OWNER, "")


_ROLES = {"publisher": _publisher, "consumer": _consumer, "operator": _operator, "provisioner": _provisioner}


def _topic(place: Topic) -> str:
    return f"/topics/{topic_name(place)}"


def _grant(role: str, scope: str) -> str:
    return f'az role assignment create --assignee "$PRINCIPAL" --role "{role}" --scope "$NAMESPACE{scope}"'
