"""The same topology for other tools: commands of gcloud, and Terraform."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge_gcp import pb, settings
from cloudevents_bridge_gcp.names import short
from cloudevents_bridge_gcp.options import Options

Places = Sequence[Topic | Subscription]


def export(format: str, options: Options, wanted: Places) -> str:
    """Raises:
    UnsupportedError: for a format that is not of Google Cloud.
    """
    if format == "commands":
        return "\n".join([*_commands(options, wanted), ""])
    if format == "terraform":
        return "\n\n".join([*_terraform(options, wanted), ""])
    raise UnsupportedError(
        f"the topology of {options.url} cannot be exported as {format!r}, which is not for Google Cloud: use "
        "'terraform' or 'commands'"
    )


def agent(options: Options) -> str:
    """Pub/Sub's own identity in the project, for a shell."""
    number = f"$(gcloud projects describe {options.project} --format='value(projectNumber)')"
    return f"serviceAccount:service-{number}@gcp-sa-pubsub.iam.gserviceaccount.com"


def grants(options: Options, of: Subscription) -> list[str]:
    """The commands that let Pub/Sub itself move messages of a subscription to its dead letters."""
    want = settings.subscription(options, of)
    who = f'--member="{agent(options)}"'
    dead = want.dead_letter_policy.dead_letter_topic
    return [
        f"gcloud pubsub topics add-iam-policy-binding {dead} {who} --role=roles/pubsub.publisher",
        f"gcloud pubsub subscriptions add-iam-policy-binding {want.name} {who} --role=roles/pubsub.subscriber",
    ]


def places(wanted: Places) -> Iterator[Topic | DeadLetters | Subscription]:
    """What is to be made, in the order in which it can be."""
    for place in wanted:
        if isinstance(place, Subscription) and settings.has_dead_letters(place):
            yield DeadLetters(place)
        yield place


def _commands(options: Options, wanted: Places) -> Iterator[str]:
    for place in places(wanted):
        if not isinstance(place, Subscription):
            yield _line("topics", settings.topic(options, place), _topic_flags)
        if not isinstance(place, Topic):
            yield _line("subscriptions", settings.subscription(options, place), _subscription_flags)
        if isinstance(place, Subscription) and settings.has_dead_letters(place):
            yield from grants(options, place)


def _line(kind: str, made: Any, flags: Any) -> str:
    given = " ".join(f"--{name}" if value is True else f"--{name}={shlex.quote(value)}" for name, value in flags(made))
    return f"gcloud pubsub {kind} create {made.name} {given}".rstrip()


def _labels(made: Any) -> Iterator[tuple[str, str | bool]]:
    if made.labels:
        yield "labels", ",".join(f"{name}={value}" for name, value in sorted(made.labels.items()))


def _topic_flags(made: Any) -> Iterator[tuple[str, str | bool]]:
    if made.message_retention_duration.seconds:
        yield "message-retention-duration", f"{made.message_retention_duration.seconds}s"
    if made.kms_key_name:
        yield "topic-encryption-key", made.kms_key_name
    if made.message_storage_policy.allowed_persistence_regions:
        yield (
            "message-storage-policy-allowed-regions",
            ",".join(made.message_storage_policy.allowed_persistence_regions),
        )
    if made.schema_settings.schema:
        yield "schema", made.schema_settings.schema
        yield "message-encoding", pb.Encoding(made.schema_settings.encoding).name.lower()
    yield from _labels(made)


def _subscription_flags(made: Any) -> Iterator[tuple[str, str | bool]]:
    yield "topic", made.topic
    yield "ack-deadline", str(made.ack_deadline_seconds)
    yield "message-retention-duration", f"{made.message_retention_duration.seconds}s"
    ttl = made.expiration_policy.ttl.seconds
    yield "expiration-period", f"{ttl}s" if ttl else "never"
    if made.dead_letter_policy.dead_letter_topic:
        yield "dead-letter-topic", made.dead_letter_policy.dead_letter_topic
        yield "max-delivery-attempts", str(made.dead_letter_policy.max_delivery_attempts)
    for name, flag in (
        ("enable-message-ordering", made.enable_message_ordering),
        ("enable-exactly-once-delivery", made.enable_exactly_once_delivery),
        ("retain-acked-messages", made.retain_acked_messages),
    ):
        if flag:
            yield name, True
    if made.filter:
        yield "message-filter", made.filter
    if made.HasField("retry_policy"):
        yield "min-retry-delay", _seconds(made.retry_policy.minimum_backoff)
        yield "max-retry-delay", _seconds(made.retry_policy.maximum_backoff)
    yield from _labels(made)


def _terraform(options: Options, wanted: Places) -> Iterator[str]:
    made: dict[str, str] = {}
    for place in places(wanted):
        if not isinstance(place, Subscription):
            topic = settings.topic(options, place)
            made[topic.name] = f"google_pubsub_topic.{_identifier(topic.name)}"
            yield _resource("google_pubsub_topic", topic.name, _topic_block(options, topic))
        if not isinstance(place, Topic):
            subscription = settings.subscription(options, place)
            yield _resource(
                "google_pubsub_subscription", subscription.name, _subscription_block(options, subscription, made)
            )
        if isinstance(place, Subscription) and settings.has_dead_letters(place):
            yield _members(settings.subscription(options, place))
    if any(isinstance(place, Subscription) for place in wanted):
        yield f'data "google_project" "this" {{\n  project_id = {_text(options.project)}\n}}'


def _topic_block(options: Options, made: Any) -> Iterator[str]:
    yield f"project = {_text(options.project)}"
    yield f"name = {_text(short(made.name))}"
    if made.message_retention_duration.seconds:
        yield f"message_retention_duration = {_text(f'{made.message_retention_duration.seconds}s')}"
    if made.kms_key_name:
        yield f"kms_key_name = {_text(made.kms_key_name)}"
    if made.message_storage_policy.allowed_persistence_regions:
        regions = ", ".join(map(_text, made.message_storage_policy.allowed_persistence_regions))
        yield f"message_storage_policy {{ allowed_persistence_regions = [{regions}] }}"
    if made.schema_settings.schema:
        encoding = pb.Encoding(made.schema_settings.encoding).name
        yield "schema_settings {"
        yield f"  schema = {_text(made.schema_settings.schema)}"
        yield f"  encoding = {_text(encoding)}"
        yield "}"
    yield from _label_block(made)


def _subscription_block(options: Options, made: Any, topics: dict[str, str]) -> Iterator[str]:
    def topic(name: str) -> str:
        return f"{topics[name]}.id" if name in topics else _text(name)

    yield f"project = {_text(options.project)}"
    yield f"name = {_text(short(made.name))}"
    yield f"topic = {topic(made.topic)}"
    yield f"ack_deadline_seconds = {made.ack_deadline_seconds}"
    yield f"message_retention_duration = {_text(f'{made.message_retention_duration.seconds}s')}"
    ttl = made.expiration_policy.ttl.seconds
    yield f"expiration_policy {{ ttl = {_text(f'{ttl}s' if ttl else '')} }}"
    if made.dead_letter_policy.dead_letter_topic:
        yield "dead_letter_policy {"
        yield f"  dead_letter_topic = {topic(made.dead_letter_policy.dead_letter_topic)}"
        yield f"  max_delivery_attempts = {made.dead_letter_policy.max_delivery_attempts}"
        yield "}"
    for name in ("enable_message_ordering", "enable_exactly_once_delivery", "retain_acked_messages"):
        if getattr(made, name):
            yield f"{name} = true"
    if made.filter:
        yield f"filter = {_text(made.filter)}"
    if made.HasField("retry_policy"):
        yield "retry_policy {"
        yield f"  minimum_backoff = {_text(_seconds(made.retry_policy.minimum_backoff))}"
        yield f"  maximum_backoff = {_text(_seconds(made.retry_policy.maximum_backoff))}"
        yield "}"
    yield from _label_block(made)


def _members(made: Any) -> str:
    """Pub/Sub's own right to move messages to the dead letters."""
    agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
    dead = made.dead_letter_policy.dead_letter_topic
    return "\n\n".join(
        [
            _resource(
                "google_pubsub_topic_iam_member",
                dead,
                [f"topic = {_text(dead)}", 'role = "roles/pubsub.publisher"', f'member = "{agent}"'],
            ),
            _resource(
                "google_pubsub_subscription_iam_member",
                made.name,
                [f"subscription = {_text(made.name)}", 'role = "roles/pubsub.subscriber"', f'member = "{agent}"'],
            ),
        ]
    )


def _label_block(made: Any) -> Iterator[str]:
    if made.labels:
        yield "labels = {"
        for name, value in sorted(made.labels.items()):
            yield f"  {_text(name)} = {_text(value)}"
        yield "}"


def _resource(kind: str, name: str, block: Iterator[str] | Sequence[str]) -> str:
    return "\n".join([f'resource "{kind}" "{_identifier(name)}" {{', *(f"  {line}" for line in block), "}"])


def _identifier(name: str) -> str:
    return "".join(each if each.isalnum() else "_" for each in short(name))


def _text(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("${", "$${").replace("%{", "%%{") + '"'


def _seconds(duration: Any) -> str:
    return f"{duration.ToMilliseconds() / 1000:g}s"
