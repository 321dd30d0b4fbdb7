"""Topics, queues and subscriptions: what differs, making it so, removing. The only thing that creates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from cloudevents_bridge.driver import Change, DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import BridgeError, ErrorCode, UnsupportedError, make_error
from cloudevents_bridge.faults import place_name
from cloudevents_bridge_aws import policy, settings, terraform
from cloudevents_bridge_aws.clients import Clients
from cloudevents_bridge_aws.names import DLQ, FIFO, Address, Names, check, fifo
from cloudevents_bridge_aws.options import Options
from cloudevents_bridge_aws.queues import Queues
from cloudevents_bridge_aws.topics import Topics

Place = Topic | Subscription
_SUBSCRIBED = "topic"
_TAGS = "tags"
_SHOWN = {
    "VisibilityTimeout": "lease",
    "MessageRetentionPeriod": "retention",
    "RedrivePolicy": "redrive",
    "RedriveAllowPolicy": "redrive_allow",
    "Policy": "policy",
    "KmsMasterKeyId": "kms_key",
    "SqsManagedSseEnabled": "encryption",
    "MaximumMessageSize": "largest",
    "ContentBasedDeduplication": "content_based_deduplication",
    "RawMessageDelivery": "raw",
}
_UNSAID = {"KmsMasterKeyId", "Policy", "RedrivePolicy", "RedriveAllowPolicy"}
"""Attributes that AWS leaves out where they have no value. One of the others that is left out is not known there."""
_OTHERS = (
    f"which this library did not make (it has no tag {settings.TAG}): nothing was deleted; tag it, or delete it with "
    "AWS's own tools"
)
_FOREIGN = (
    "which is another account's: it stays, and only what was made for it in this account was deleted; delete it with "
    "the credentials of that account"
)


class Topology:
    """Compares, makes and deletes. What belongs to another account is used as it is, and never changed."""

    def __init__(self, clients: Clients, names: Names, options: Options) -> None:
        self._clients, self._names, self._options = clients, names, options
        self._queues = Queues(clients, names)
        self._topics = Topics(clients)

    def diff(self, wanted: Sequence[Place]) -> Sequence[Change]:
        changes: list[Change] = []
        seen: set[str] = set()
        for place in wanted:
            check(place, fan_out=self._options.fan_out)
            topic = place if isinstance(place, Topic) else place.topic
            if topic.name not in seen and (isinstance(place, Topic) or topic not in wanted):
                seen.add(topic.name)
                found = list(self._diff_topic(topic))
                # Of a topic that is only meant along, its being there counts.
                changes += found if isinstance(place, Topic) else [each for each in found if not each.setting]
            if isinstance(place, Subscription):
                self._refuse_filter(place)
                changes += self._diff_subscription(place)
        return changes

    def apply(self, changes: Sequence[Change]) -> None:
        for each in changes:
            if each.conflict:
                raise make_error(
                    ErrorCode.FAILED_PRECONDITION,
                    f"{place_name(each.place)} on {self._options.url} has {each.setting} {each.have}, and {each.want} "
                    "is wanted: this cannot be changed; delete it first, or declare it as it is",
                    broker=self._options.url,
                )
        for topic in {each.place.name: each.place for each in changes if isinstance(each.place, Topic)}.values():
            self._make_topic(topic, new=any(each.place == topic and not each.setting for each in changes))
        subscriptions = [_subscription(each.place) for each in changes if not isinstance(each.place, Topic)]
        for subscription in {(each.topic.name, each.name): each for each in subscriptions}.values():
            self._make_subscription(subscription)

    def delete(self, place: Topic | Subscription | DeadLetters) -> None:
        check(place, fan_out=self._options.fan_out)
        if isinstance(place, DeadLetters):
            self._queues.empty(self._names.queue(place))
        elif isinstance(place, Topic) and self._options.fan_out:
            self._delete_topic(place)
        else:
            self._delete_queue(place)

    def export(self, format: str, wanted: Sequence[Place]) -> str:
        if format != "terraform":
            raise UnsupportedError(
                f"the topology of {self._options.url} cannot be exported as {format!r}: on AWS there is 'terraform'",
                broker=self._options.url,
            )
        return terraform.write(self._checked(wanted), self._names, self._options)

    def policy(self, role: str, wanted: Sequence[Place]) -> str:
        return policy.write(role, self._checked(wanted), self._names, self._options)

    # -- what differs

    def _diff_topic(self, topic: Topic) -> Iterator[Change]:
        address = self._names.topic(topic) if self._options.fan_out else self._names.queue(topic)
        if self._foreign(address):
            return
        if not self._options.fan_out:
            if self._queues.read(address) is None:
                yield self._twin_of(topic, topic, address) or Change(topic, "", None, address.name)
            return
        have = self._topics.read(address)
        if have is None:
            yield self._twin_of(topic, topic, address) or Change(topic, "", None, address.name)
            return
        yield from _compared(topic, have, settings.topic(topic))
        yield from self._diff_tags(topic, topic, address)

    def _diff_subscription(self, subscription: Subscription) -> Iterator[Change]:
        queue, letters, topic = self._addresses(subscription)
        if not self._foreign(letters):
            have = self._queues.read(letters)
            place = DeadLetters(subscription)
            if have is None:
                yield Change(place, "", None, letters.name)
            else:
                wanted = settings.dead_letters(subscription, queue, topic, self._options)
                yield from self._compared(place, have, wanted, letters, topic)
        if not self._foreign(queue):
            have = self._queues.read(queue)
            if have is None:
                missing = Change(subscription, "", None, queue.name)
                yield self._twin_of(subscription, subscription.topic, queue) or missing
                return
            wanted = settings.queue(subscription, topic, letters, self._options)
            yield from self._compared(subscription, have, wanted, queue, topic)
            yield from self._diff_tags(subscription, subscription, queue)
        if topic is not None:
            found = self._topics.subscription(topic, queue)
            if found is None:
                yield Change(subscription, _SUBSCRIBED, "not subscribed", topic.name)
            else:
                yield from _compared(subscription, found[1], settings.subscription(letters), "subscription_")

    def _compared(
        self,
        place: Subscription | DeadLetters,
        have: Mapping[str, str],
        want: Mapping[str, str],
        queue: Address,
        topic: Address | None,
    ) -> Iterator[Change]:
        yield from _compared(place, have, {name: value for name, value in want.items() if name != "Policy"})
        if topic is not None and not settings.allows(have.get("Policy", ""), queue, topic):
            yield Change(place, "policy", "another", f"{topic.name} may send to {queue.name}")

    def _diff_tags(self, place: Place, tagged: Place, address: Address) -> Iterator[Change]:
        want = settings.tags(tagged, self._options)
        have = self._topics.tags(address) if address.service == "sns" else self._queues.tags(address)
        for name, value in want.items():
            if name != settings.TAG and have.get(name) != value:
                yield Change(place, f"{_TAGS}.{name}", have.get(name, "no value"), value)

    def _twin_of(self, place: Place, topic: Topic, address: Address) -> Change | None:
        """A conflict where the same name exists as the other kind, which a program would use by mistake."""
        name = address.name.removesuffix(FIFO) if fifo(topic) else address.name + FIFO
        twin = address._replace(name=name)
        exists = self._topics.read(twin) if address.service == "sns" else self._queues.read(twin)
        if exists is None:
            return None
        yes, no = ("yes", "no") if topic.ordered else ("no", "yes")
        return Change(place, "ordered", f"{no} ({twin.name})", yes, conflict=True)

    def _refuse_filter(self, subscription: Subscription) -> None:
        if subscription.filter is not None:
            raise UnsupportedError(
                f"{self._options.url} has no filters: leave out the filter of {place_name(subscription)}, and let a "
                "handler pass over what it does not want",
                broker=self._options.url,
            )

    # -- making it so

    def _make_topic(self, topic: Topic, *, new: bool) -> None:
        tags = settings.tags(topic, self._options)
        if not self._options.fan_out:
            if new:
                kind = {"FifoQueue": "true"} if fifo(topic) else {}
                self._queues.make(self._names.queue(topic), kind, tags)
            return
        address = self._names.topic(topic)
        attributes = settings.topic(topic)
        if new:
            self._topics.make(address, attributes, tags)
        else:
            self._topics.change(address, attributes)
            self._topics.tag(address, tags)

    def _make_subscription(self, subscription: Subscription) -> None:
        queue, letters, topic = self._addresses(subscription)
        tags = settings.tags(subscription, self._options)
        if not self._foreign(letters):
            self._make_queue(letters, settings.dead_letters(subscription, queue, topic, self._options), tags, topic)
        if not self._foreign(queue):
            self._make_queue(queue, settings.queue(subscription, topic, letters, self._options), tags, topic)
        if topic is not None:
            self._topics.subscribe(topic, queue, settings.subscription(letters))

    def _make_queue(
        self, queue: Address, attributes: Mapping[str, str], tags: Mapping[str, str], topic: Address | None
    ) -> None:
        have = self._queues.read(queue)
        wanted = dict(attributes)
        if topic is not None:
            wanted["Policy"] = settings.allowing((have or {}).get("Policy", ""), queue, topic)
        if have is None:
            self._queues.make(queue, wanted, tags)
        else:
            self._queues.change(queue, wanted)
            self._queues.tag(queue, tags)

    # -- removing

    def _delete_topic(self, topic: Topic) -> None:
        address = self._names.topic(topic)
        foreign = self._foreign(address)
        if not foreign and self._topics.read(address) is not None:
            self._refuse_others(topic, address, self._topics.tags(address))
        subscribed = {each.endpoint: each.arn for each in self._topics.subscribed(address) if each.protocol == "sqs"}
        queues = {arn: Address.of_arn(arn) for arn in subscribed}
        for queue in self._queues.beginning_with(f"{topic.name}--", self._options.region, self._clients.account()):
            if queue.name.endswith(FIFO) == fifo(topic):  # the others are those of a twin
                queues[queue.arn] = queue
        for queue in queues.values():
            if not self._foreign(queue) and self._is_of(queue, topic):
                arn = subscribed.get(queue.arn, "")
                if arn.startswith("arn:"):
                    self._topics.unsubscribe(address, arn)
                self._delete_with_letters(queue)
        if foreign:
            raise self._kept(topic, address, _FOREIGN)
        self._topics.delete(address)

    def _delete_queue(self, place: Place) -> None:
        queue = self._names.queue(place)
        if not self._foreign(queue) and self._queues.read(queue) is not None:
            self._refuse_others(place, queue, self._queues.tags(queue))
        if isinstance(place, Subscription) and self._options.fan_out:
            topic = self._names.topic(place.topic)
            found = self._topics.subscription(topic, queue)
            if found is not None:
                self._topics.unsubscribe(topic, found[0])
        if self._foreign(queue):
            raise self._kept(place, queue, _FOREIGN)
        self._delete_with_letters(queue)

    def _refuse_others(self, place: Place, address: Address, tags: Mapping[str, str]) -> None:
        """What was made by others is never deleted, nor anything that hangs on it."""
        if settings.TAG not in tags:
            raise self._kept(place, address, _OTHERS)

    def _kept(self, place: Place, address: Address, why: str) -> BridgeError:
        text = f"{place_name(place)} on {self._options.url} is {address.arn}, {why}"
        return make_error(ErrorCode.FAILED_PRECONDITION, text, broker=self._options.url)

    def _delete_with_letters(self, queue: Address) -> None:
        have = self._queues.read(queue) or {}
        redrive = json.loads(have.get("RedrivePolicy") or "{}")
        letters = redrive.get("deadLetterTargetArn")
        beside = queue._replace(name=queue.name.removesuffix(FIFO) + DLQ + (FIFO if queue.name.endswith(FIFO) else ""))
        self._queues.delete(queue)
        self._queues.delete(Address.of_arn(letters) if letters else beside)

    def _is_of(self, queue: Address, topic: Topic) -> bool:
        return self._queues.tags(queue).get(settings.TAG, "").partition("/")[0] == topic.name

    # -- inside

    def _addresses(self, subscription: Subscription) -> tuple[Address, Address, Address | None]:
        """The queue, that of the dead letters, and the topic where there is one."""
        queue = self._names.queue(subscription)
        letters = self._names.queue(DeadLetters(subscription))
        return queue, letters, self._names.topic(subscription.topic) if self._options.fan_out else None

    def _foreign(self, address: Address) -> bool:
        return address.account != self._clients.account()

    def _checked(self, wanted: Sequence[Place]) -> Sequence[Place]:
        for place in wanted:
            check(place, fan_out=self._options.fan_out)
        return wanted


def _subscription(place: Topic | Subscription | DeadLetters) -> Subscription:
    subscription = place.of if isinstance(place, DeadLetters) else place
    assert isinstance(subscription, Subscription)
    return subscription


def _compared(
    place: Topic | Subscription | DeadLetters, have: Mapping[str, str], want: Mapping[str, str], prefix: str = ""
) -> Iterator[Change]:
    """The attributes that differ. One that the service does not know is left alone."""
    for name, value in want.items():
        there = have.get(name)
        if there is None and name not in _UNSAID:
            continue
        if not settings.same(name, there or "", value):
            yield Change(place, prefix + _SHOWN.get(name, name), there or "none", value or "none")
