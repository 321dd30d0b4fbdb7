"""The least rights of a role, as commands of `az` that assign Azure's own roles on each resource."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge_azure.eventgrid import publisher, subscriber
from cloudevents_bridge_azure.eventgrid.export import GROUP, namespace
from cloudevents_bridge_azure.eventgrid.names import source, topic_name
from cloudevents_bridge_azure.eventgrid.options import Options

Places = Sequence[Topic | Subscription]
PROVISIONER = "EventGrid Contributor"
LOOKER = "EventGrid Data Contributor"
"""For `plan`, which looks over the data plane."""


def policy(role: str, options: Options, wanted: Places) -> str:
    """Raises:
    UnsupportedError: for a role that is not known.
    """
    lines = _ROLES.get(role)
    if lines is None:
        known = ", ".join(sorted(_ROLES))
        raise UnsupportedError(f"there is no role {role!r} on {options.url}; the roles are {known}", broker=options.url)
    head = f"# {role}: set GROUP to the resource group of the namespace, and WHO to the object id of the identity"
    return "\n".join([head, *dict.fromkeys(lines(options, wanted)), ""])


def _publisher(options: Options, wanted: Places) -> Iterator[str]:
    for place in wanted:
        if isinstance(place, Topic):
            yield _sends(options, place)


def _consumer(options: Options, wanted: Places) -> Iterator[str]:
    """Consuming, and publishing to the dead letters: a delivery that is given up is copied there."""
    for place in wanted:
        if isinstance(place, Subscription):
            yield _receives(options, place)
            yield _sends(options, DeadLetters(place))


def _operator(options: Options, wanted: Places) -> Iterator[str]:
    """Reading dead letters, which keeps them by publishing anew; and replaying them."""
    for place in wanted:
        if isinstance(place, Subscription):
            yield _receives(options, DeadLetters(place))
            yield _sends(options, DeadLetters(place))
            yield _sends(options, place.topic)


def _provisioner(options: Options, wanted: Places) -> Iterator[str]:
    del wanted  # what does not exist yet is no scope: this one is the namespace's
    shown = f"az eventgrid namespace show --resource-group {GROUP} --name {namespace(options)}"
    yield _assign(PROVISIONER, shown)
    yield _assign(LOOKER, shown)


_ROLES = {"publisher": _publisher, "consumer": _consumer, "operator": _operator, "provisioner": _provisioner}


def _sends(options: Options, place: Topic | DeadLetters) -> str:
    where = f"--resource-group {GROUP} --namespace-name {namespace(options)}"
    return _assign(publisher.ROLE, f"az eventgrid namespace topic show {where} --name {topic_name(place)}")


def _receives(options: Options, place: Subscription | DeadLetters) -> str:
    topic, name = source(place)
    where = f"--resource-group {GROUP} --namespace-name {namespace(options)} --topic-name {topic}"
    return _assign(subscriber.ROLE, f"az eventgrid namespace topic event-subscription show {where} --name {name}")


def _assign(role: str, shown: str) -> str:
    scope = f'"$({shown} --query id --output tsv)"'
    return f'az role assignment create --assignee-object-id "$WHO" --role "{role}" --scope {scope}'
