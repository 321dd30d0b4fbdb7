"""The least rights of a role, as commands of gcloud that grant them on each resource, and not on the project."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge_gcp import settings
from cloudevents_bridge_gcp.names import subscription_name, topic_name
from cloudevents_bridge_gcp.options import Options

MEMBER = '"$MEMBER"'
"""Who gets the rights: user:…, group:… or serviceAccount:…"""
PROVISIONS = (
    *(f"pubsub.topics.{each}" for each in ("create", "get", "update", "delete", "attachSubscription")),
    *(f"pubsub.subscriptions.{each}" for each in ("create", "get", "update", "delete", "list")),
)
"""What making, comparing and removing needs, and nothing of the events."""
Places = Sequence[Topic | Subscription]


def policy(role: str, options: Options, wanted: Places) -> str:
    """Raises:
    UnsupportedError: for a role that is not known.
    """
    lines = _ROLES.get(role)
    if lines is None:
        known = ", ".join(sorted(_ROLES))
        raise UnsupportedError(f"there is no role {role!r} on {options.url}; the roles are {known}")
    head = f"# {role}: set MEMBER to user:…, group:… or serviceAccount:…"
    return "\n".join([head, *dict.fromkeys(lines(options, wanted)), ""])


def _publisher(options: Options, wanted: Places) -> Iterator[str]:
    for place in wanted:
        if isinstance(place, Topic):
            yield _on_topic(topic_name(options.project, place), "publisher")


def _consumer(options: Options, wanted: Places) -> Iterator[str]:
    """Consuming, and publishing to the dead letters: a delivery that is given up is copied there."""
    for place in wanted:
        if isinstance(place, Subscription):
            yield _on_subscription(subscription_name(options.project, place), "subscriber")
            if settings.has_dead_letters(place):
                yield _on_topic(topic_name(options.project, DeadLetters(place)), "publisher")


def _operator(options: Options, wanted: Places) -> Iterator[str]:
    """Reading dead letters, and publishing them again."""
    for place in wanted:
        if isinstance(place, Subscription) and settings.has_dead_letters(place):
            yield _on_subscription(subscription_name(options.project, DeadLetters(place)), "subscriber")
            yield _on_topic(topic_name(options.project, place.topic), "publisher")


def _provisioner(options: Options, wanted: Places) -> Iterator[str]:
    del wanted  # what does not exist yet has no policy: this one is the project's
    role = "cloudeventsBridgeProvisioner"
    yield (
        f"gcloud iam roles create {role} --project={options.project} --title='cloudevents-bridge provisioner' "
        f"--permissions={','.join(PROVISIONS)}"
    )
    yield (
        f"gcloud projects add-iam-policy-binding {options.project} --member={MEMBER} "
        f"--role=projects/{options.project}/roles/{role}"
    )


_ROLES = {"publisher": _publisher, "consumer": _consumer, "operator": _operator, "provisioner": _provisioner}


def _on_topic(name: str, role: str) -> str:
    return f"gcloud pubsub topics add-iam-policy-binding {name} --member={MEMBER} --role=roles/pubsub.{role}"


def _on_subscription(name: str, role: str) -> str:
    return f"gcloud pubsub subscriptions add-iam-policy-binding {name} --member={MEMBER} --role=roles/pubsub.{role}"
