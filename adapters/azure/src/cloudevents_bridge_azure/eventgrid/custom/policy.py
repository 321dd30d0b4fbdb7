"""The least rights of a role, as commands of `az` that assign Azure's own roles on each topic and queue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudevents_bridge.driver import Subscription, Topic
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge_azure.eventgrid.custom import settings
from cloudevents_bridge_azure.eventgrid.custom.export import show_queue, show_topic
from cloudevents_bridge_azure.eventgrid.custom.options import TopicOptions
from cloudevents_bridge_azure.eventgrid.export import GROUP
from cloudevents_bridge_azure.eventgrid.policy import PROVISIONER
from cloudevents_bridge_azure.eventgrid.publisher import ROLE as SENDER
from cloudevents_bridge_azure.servicebus.policy import OWNER
from cloudevents_bridge_azure.servicebus.policy import RECEIVER as QUEUE_RECEIVER
from cloudevents_bridge_azure.servicebus.policy import SENDER as QUEUE_SENDER

Places = Sequence[Topic | Subscription]
STORAGE = "Storage Account Contributor"


def policy(role: str, options: TopicOptions, wanted: Places) -> str:
    """Raises:
    UnsupportedError: for a role that is not known.
    """
    lines = _ROLES.get(role)
    if lines is None:
        url, known = options.grid.url, ", ".join(sorted(_ROLES))
        raise UnsupportedError(f"there is no role {role!r} on {url}; the roles are {known}", broker=url)
    head = f"# {role}: set GROUP to the resource group, and WHO to the object id of the identity"
    return "\n".join([head, *dict.fromkeys(lines(options, wanted)), ""])


def _publisher(options: TopicOptions, wanted: Places) -> Iterator[str]:
    del options
    for place in wanted:
        if isinstance(place, Topic):
            yield _assign(SENDER, show_topic(place))


def _consumer(options: TopicOptions, wanted: Places) -> Iterator[str]:
    """Receiving, which with Service Bus is also moving to the dead letters."""
    for place in wanted:
        if isinstance(place, Subscription):
            yield _assign(QUEUE_RECEIVER, show_queue(options, place))


def _operator(options: TopicOptions, wanted: Places) -> Iterator[str]:
    """Reading dead letters, and replaying them into their queue."""
    for place in wanted:
        if isinstance(place, Subscription):
            yield _assign(QUEUE_RECEIVER, show_queue(options, place))
            yield _assign(QUEUE_SENDER, show_queue(options, place))


def _provisioner(options: TopicOptions, wanted: Places) -> Iterator[str]:
    """Making them; and `plan`, which looks for topics as a publisher does."""
    del options  # what does not exist yet is no scope: this one is the group's
    roles = [PROVISIONER, SENDER, OWNER]
    if any(isinstance(place, Subscription) and settings.container(place) for place in wanted):
        roles.append(STORAGE)
    for role in roles:
        yield _assign(role, f"az group show --name {GROUP} --query id --output tsv")


_ROLES = {"publisher": _publisher, "consumer": _consumer, "operator": _operator, "provisioner": _provisioner}


def _assign(role: str, shown: str) -> str:
    return f'az role assignment create --assignee-object-id "$WHO" --role "{role}" --scope "$({shown})"'
