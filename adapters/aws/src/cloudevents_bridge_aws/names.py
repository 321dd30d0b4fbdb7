"""Portable names as ARNs and queue URLs. Topic `orders`, queue `orders--billing`, dead letters `orders--billing--dlq`,
each with `.fifo` where the topic is ordered. What a declaration names natively, perhaps in another account, goes first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge.faults import place_name
from cloudevents_bridge_aws.options import Options, partition, suffix

FIFO = ".fifo"
DLQ = "--dlq"
_TOPIC_NATIVE = frozenset({"name", "kms_key", "tags", "deduplication"})
_SUBSCRIPTION_NATIVE = frozenset({"queue", "dead_letter_queue", "kms_key", "tags"})
_QUEUE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
_TOPIC_NAME = re.compile(r"[A-Za-z0-9_-]{1,256}|[A-Za-z0-9_-]{1,251}\.fifo")
_QUEUE_PATH = re.compile(r"(?:/queue/[a-z0-9-]+)?/(\d{12})/([A-Za-z0-9_.-]+)")
_QUEUE_HOST = re.compile(r"(?:sqs(?:-fips)?\.([a-z0-9-]+)\.amazonaws\..*|([a-z0-9-]+)\.queue\.amazonaws\..*)")


class Address(NamedTuple):
    """Where a topic or queue is."""

    service: str
    region: str
    account: str
    name: str

    @property
    def arn(self) -> str:
        return f"arn:{partition(self.region)}:{self.service}:{self.region}:{self.account}:{self.name}"

    @classmethod
    def of_arn(cls, arn: str) -> Address:
        _, _, service, region, account, name = arn.split(":")
        return cls(service, region, account, name)


class Names:
    """Finds the addresses of places. Pure but for `account`, which may ask AWS once who we are.

    Args:
        account: the account of places that are declared without one.
    """

    def __init__(self, options: Options, account: Callable[[], str]) -> None:
        self._options = options
        self._account = account

    def topic(self, topic: Topic) -> Address:
        """The SNS topic."""
        return self._address("sns", topic.native.get("name"), topic.name + fifo_suffix(topic))

    def queue(self, place: Topic | Subscription | DeadLetters) -> Address:
        """The queue of a subscription or of its dead letters; where topics are queues, of a topic too."""
        if isinstance(place, DeadLetters):
            named = place.of.native.get("dead_letter_queue")
            end = fifo_suffix(place.of.topic)
            # Beside a queue that has a name of its own, not under the portable one, which another may have.
            live = self.queue(place.of)
            own = live._replace(name=live.name.removesuffix(FIFO) + DLQ + end)
            return own if named is None else self._address("sqs", named, "")
        if isinstance(place, Topic):
            return self._address("sqs", place.native.get("name"), place.name + fifo_suffix(place))
        if not self._options.fan_out:
            return self.queue(place.topic)
        default = f"{place.topic.name}--{place.name}{fifo_suffix(place.topic)}"
        return self._address("sqs", place.native.get("queue"), default)

    def url(self, queue: Address) -> str:
        """The URL of a queue."""
        base = self._options.endpoint or f"https://sqs.{queue.region}.{suffix(queue.region)}"
        return f"{base}/{queue.account}/{queue.name}"

    def _address(self, service: str, named: str | None, default: str) -> Address:
        if named is not None and named.startswith("arn:"):
            return Address.of_arn(named)
        if named is not None and "://" in named:
            return _of_url(named, self._options.region)
        return Address(service, self._options.region, self._account(), named or default)


def fifo(topic: Topic) -> bool:
    """Whether it is a FIFO topic: ordered, or with deduplication."""
    return topic.ordered or bool(topic.native.get("deduplication"))


def fifo_suffix(topic: Topic) -> str:
    return FIFO if fifo(topic) else ""


def check(place: Topic | Subscription | DeadLetters, *, fan_out: bool) -> None:
    """Raises:
    ConfigurationError: if a native setting is unknown or wrong, or a subscription cannot be.
    """
    subscription = place.of if isinstance(place, DeadLetters) else place
    topic = subscription if isinstance(subscription, Topic) else subscription.topic
    known = _TOPIC_NATIVE
    _check_keys(topic, topic.native, known)
    _check_address(topic, "name", topic.native.get("name"), "sns" if fan_out else "sqs", fifo(topic))
    window = topic.native.get("deduplication", 0)
    if type(window) is bool or window not in (0, 300):
        raise ConfigurationError(
            f"native setting deduplication of topic {topic.name} is {window!r}: it must be 300 (seconds, which is what "
            "AWS has) or 0"
        )
    if isinstance(subscription, Topic):
        return
    _check_keys(subscription, subscription.native, _SUBSCRIPTION_NATIVE)
    for key in ("queue", "dead_letter_queue"):
        _check_address(subscription, key, subscription.native.get(key), "sqs", fifo(topic))
    if not fan_out and subscription.name != topic.name:
        raise ConfigurationError(
            f"{place_name(subscription)} cannot be: on aws-sqs:// a topic is a queue, and its one subscription has its "
            f"name ({topic.name}/{topic.name}); for several use aws://"
        )
    if not fan_out and "queue" in subscription.native:
        raise ConfigurationError(f"name the queue of {place_name(subscription)} as native `name` of its topic")


def _check_keys(place: Topic | Subscription, native: Mapping[str, Any], known: frozenset[str]) -> None:
    for key, value in native.items():
        if key not in known:
            raise ConfigurationError(
                f"{place_name(place)} has the native setting {key!r}; on AWS there are {', '.join(sorted(known))}"
            )
        if key == "tags":
            fine = isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair)
        else:
            fine = key == "deduplication" or (isinstance(value, str) and value != "")
        if not fine:
            kind = "a mapping of strings to strings" if key == "tags" else "text"
            raise ConfigurationError(f"native setting {key} of {place_name(place)} is {value!r}: it must be {kind}")


def _check_address(place: Topic | Subscription, key: str, value: str | None, service: str, fifo: bool) -> None:
    if value is None:
        return
    pattern = _TOPIC_NAME if service == "sns" else _QUEUE_NAME
    name: str | None = value
    if value.startswith("arn:"):
        parts = value.split(":")
        name = parts[5] if len(parts) == 6 and parts[2] == service and all(parts[3:5]) else None
    elif "://" in value:
        found = _QUEUE_PATH.fullmatch(urlsplit(value).path) if service == "sqs" else None
        name = found[2] if found else None
    if name is None or not pattern.fullmatch(name):
        forms = "a name or an ARN" if service == "sns" else "a name, an ARN or a queue URL"
        raise ConfigurationError(f"native setting {key} of {place_name(place)} is {value!r}: it must be {forms}")
    if name.endswith(FIFO) != fifo:
        # SNS takes ordering keys on standard topics too, and orders nothing there.
        raise ConfigurationError(
            f"{place_name(place)} is declared {'' if fifo else 'not '}ordered, and {value} is "
            f"{'no' if fifo else 'a'} FIFO {'topic' if service == 'sns' else 'queue'}: say ordered = "
            f"{'false' if fifo else 'true'}, or name another"
        )


def _of_url(url: str, region: str) -> Address:
    parts = urlsplit(url)
    path = _QUEUE_PATH.fullmatch(parts.path)
    assert path is not None  # checked when opening
    host = _QUEUE_HOST.fullmatch(parts.netloc)
    return Address("sqs", (host[1] or host[2]) if host else region, path[1], path[2])
