"""Topics and subscriptions as they are declared, as messages of Pub/Sub, and how they differ from what there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from cloudevents_bridge.driver import Change, DeadLetters, Subscription, Topic
from cloudevents_bridge_gcp import filters, native, pb
from cloudevents_bridge_gcp.names import subscription_name, topic_name
from cloudevents_bridge_gcp.options import Options

_DAY = 86_400


def topic(options: Options, place: Topic | DeadLetters) -> Any:
    """The topic that is wanted: the place itself, or the one that holds dead letters."""
    made = pb.Topic(name=topic_name(options.project, place))
    said = (place if isinstance(place, Topic) else place.of.topic).native
    if "kms_key" in said:
        made.kms_key_name = said["kms_key"]
    if "regions" in said:
        made.message_storage_policy.allowed_persistence_regions.extend(said["regions"])
    if isinstance(place, DeadLetters):
        return made
    made.labels.update(said.get("labels", {}))
    if "retention" in said:
        made.message_retention_duration.FromSeconds(int(said["retention"]))
    if "schema" in said:
        encoding = pb.Encoding[said.get("schema_encoding", "JSON")]
        made.schema_settings.CopyFrom(pb.SchemaSettings(schema=said["schema"], encoding=int(encoding)))
    return made


def subscription(options: Options, place: Subscription | DeadLetters) -> Any:
    """The subscription that is wanted: the place itself, or the one that dead letters are read from."""
    of = place.of if isinstance(place, DeadLetters) else place
    made = pb.Subscription(
        name=subscription_name(options.project, place),
        topic=topic_name(options.project, of.topic if isinstance(place, Subscription) else place),
        ack_deadline_seconds=native.lease(of, options.manners),
        expiration_policy=pb.ExpirationPolicy(),
    )
    made.message_retention_duration.FromSeconds(native.retention(of, options.manners))
    if of.expires is not None:
        made.expiration_policy.ttl.FromSeconds(max(_DAY, int(of.expires)))
    if isinstance(place, DeadLetters):
        return made
    said = of.native
    made.enable_message_ordering = of.topic.ordered
    made.filter = said.get("filter") or filters.translate(of, options.mode)
    made.labels.update(said.get("labels", {}))
    made.enable_exactly_once_delivery = said.get("exactly_once", False)
    made.retain_acked_messages = said.get("retain_acked", False)
    if "retry" in said:
        made.retry_policy.minimum_backoff.FromMilliseconds(round(1000 * said["retry"]["minimum"]))
        made.retry_policy.maximum_backoff.FromMilliseconds(round(1000 * said["retry"]["maximum"]))
    if has_dead_letters(of):
        made.dead_letter_policy.dead_letter_topic = topic_name(options.project, DeadLetters(of))
        made.dead_letter_policy.max_delivery_attempts = native.deliveries(of)
    return made


def has_dead_letters(of: Subscription) -> bool:
    """A subscription that goes by itself has no dead letters: they would stay behind."""
    return of.expires is None


class Setting(NamedTuple):
    """One thing to compare.

    Attributes:
        path: the field, as an update names it.
        show: its value as text.
        fixed: it cannot be changed.
        only: the key of `native` without which it is not compared: what a declaration does not say is left as it is.
    """

    name: str
    path: str
    show: Callable[[Any], str]
    fixed: bool = False
    only: str = ""


def _yes(field: str) -> Callable[[Any], str]:
    return lambda each: "yes" if getattr(each, field) else "no"


def _text(field: str) -> Callable[[Any], str]:
    return lambda each: getattr(each, field) or "none"


def _retention(each: Any) -> str:
    return f"{each.message_retention_duration.ToSeconds()} s"


def _expires(each: Any) -> str:
    if not each.HasField("expiration_policy"):
        return "after 31 days"
    ttl = each.expiration_policy.ttl.ToSeconds()
    return f"after {ttl} s" if ttl else "never"


def _labels(each: Any) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(each.labels.items())) or "none"


def _schema(each: Any) -> str:
    if not each.schema_settings.schema:
        return "none"
    return f"{each.schema_settings.schema} as {pb.Encoding(each.schema_settings.encoding).name}"


def _retry(each: Any) -> str:
    if not each.HasField("retry_policy"):
        return "at once"
    first, last = each.retry_policy.minimum_backoff, each.retry_policy.maximum_backoff
    return f"after {first.ToMilliseconds() / 1000:g} to {last.ToMilliseconds() / 1000:g} s"


_TOPIC = (
    Setting("labels", "labels", _labels, only="labels"),
    Setting("kms_key", "kms_key_name", _text("kms_key_name"), fixed=True, only="kms_key"),
    Setting("retention", "message_retention_duration", _retention, only="retention"),
    Setting(
        "regions",
        "message_storage_policy",
        lambda each: ", ".join(sorted(each.message_storage_policy.allowed_persistence_regions)) or "any",
        only="regions",
    ),
    Setting("schema", "schema_settings", _schema, only="schema"),
)
_CONSUMED = (
    Setting("topic", "topic", _text("topic"), fixed=True),
    Setting("lease", "ack_deadline_seconds", lambda each: f"{each.ack_deadline_seconds} s"),
    Setting("retention", "message_retention_duration", _retention),
    Setting("expires", "expiration_policy", _expires),
)
_SUBSCRIPTION = (
    *_CONSUMED,
    Setting("ordered", "enable_message_ordering", _yes("enable_message_ordering"), fixed=True),
    Setting("filter", "filter", _text("filter"), fixed=True),
    Setting(
        "dead_letters",
        "dead_letter_policy",
        lambda each: each.dead_letter_policy.dead_letter_topic or "none",
    ),
    Setting(
        "max_attempts",
        "dead_letter_policy",
        lambda each: f"{each.dead_letter_policy.max_delivery_attempts} deliveries",
    ),
    Setting("labels", "labels", _labels, only="labels"),
    Setting("exactly_once", "enable_exactly_once_delivery", _yes("enable_exactly_once_delivery"), only="exactly_once"),
    Setting("retain_acked", "retain_acked_messages", _yes("retain_acked_messages"), only="retain_acked"),
    Setting("retry", "retry_policy", _retry, only="retry"),
)


def differences(place: Topic | Subscription | DeadLetters, have: Any, want: Any) -> Iterator[Change]:
    """What differs between a topic, or a subscription, and the one that is wanted."""
    full = _with_other_labels(want, have)
    for setting in _settings(place, have):
        if setting.only and setting.only not in _native(place):
            continue
        shown, wanted = setting.show(have), setting.show(full)
        if shown != wanted:
            yield Change(place, setting.name, shown, wanted, conflict=setting.fixed)


def update(place: Topic | Subscription | DeadLetters, names: set[str], have: Any, want: Any) -> tuple[Any, list[str]]:
    """The message and the fields of the update that makes these settings as wanted."""
    paths = sorted({setting.path for setting in _settings(place, have) if setting.name in names})
    return _with_other_labels(want, have), paths


def _settings(place: Topic | Subscription | DeadLetters, have: Any) -> tuple[Setting, ...]:
    if isinstance(have, pb.Topic):
        return _TOPIC if isinstance(place, Topic) else ()
    return _SUBSCRIPTION if isinstance(place, Subscription) else _CONSUMED


def _native(place: Topic | Subscription | DeadLetters) -> Any:
    return place.of.native if isinstance(place, DeadLetters) else place.native


def _with_other_labels(want: Any, have: Any) -> Any:
    """Labels that others have put there stay."""
    made = type(want)()
    made.CopyFrom(want)
    for name, value in have.labels.items():
        if name not in made.labels:
            made.labels[name] = value
    return made
