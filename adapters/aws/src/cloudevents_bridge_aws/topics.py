"""The control plane of SNS: topics, and what is subscribed to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from cloudevents_bridge_aws.clients import Clients
from cloudevents_bridge_aws.names import Address
from cloudevents_bridge_aws.queues import TIMEOUT, missing

_FIXED = frozenset({"FifoTopic"})


class Subscribed(NamedTuple):
    """One endpoint of a topic. `arn` is no ARN while the subscription is not confirmed."""

    arn: str
    protocol: str
    endpoint: str


class Topics:
    """Reads, makes and deletes topics and their subscriptions. Attributes are those of SNS."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def read(self, topic: Address) -> Mapping[str, str] | None:
        """The attributes of a topic; None: there is none."""
        try:
            found: Mapping[str, str] = self._client(topic).get_topic_attributes(TopicArn=topic.arn)["Attributes"]
        except Exception as error:
            if missing(error):
                return None
            raise
        return found

    def make(self, topic: Address, attributes: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Create a topic; one that exists is left as it is."""
        given = {name: value for name, value in attributes.items() if value}
        listed = [{"Key": name, "Value": value} for name, value in tags.items()]
        self._client(topic).create_topic(Name=topic.name, Attributes=given, Tags=listed)

    def change(self, topic: Address, attributes: Mapping[str, str]) -> None:
        for name, value in attributes.items():
            if name not in _FIXED:
                self._client(topic).set_topic_attributes(TopicArn=topic.arn, AttributeName=name, AttributeValue=value)

    def tags(self, topic: Address) -> Mapping[str, str]:
        found = self._client(topic).list_tags_for_resource(ResourceArn=topic.arn)
        return {tag["Key"]: tag["Value"] for tag in found.get("Tags", ())}

    def tag(self, topic: Address, tags: Mapping[str, str]) -> None:
        listed = [{"Key": name, "Value": value} for name, value in tags.items()]
        self._client(topic).tag_resource(ResourceArn=topic.arn, Tags=listed)

    def delete(self, topic: Address) -> None:
        """Delete a topic. Silent when absent, which SNS is by itself."""
        self._client(topic).delete_topic(TopicArn=topic.arn)

    def subscribed(self, topic: Address) -> Iterator[Subscribed]:
        """All that is subscribed to a topic; nothing if there is no topic."""
        token: dict[str, str] = {}
        while True:
            try:
                page = self._client(topic).list_subscriptions_by_topic(TopicArn=topic.arn, **token)
            except Exception as error:
                if missing(error):
                    return
                raise
            for each in page.get("Subscriptions", ()):
                yield Subscribed(each["SubscriptionArn"], each["Protocol"], each["Endpoint"])
            if not page.get("NextToken"):
                return
            token = {"NextToken": page["NextToken"]}

    def subscription(self, topic: Address, queue: Address) -> tuple[str, Mapping[str, str]] | None:
        """The ARN and the attributes of a queue's subscription; None: it is not subscribed."""
        for each in self.subscribed(topic):
            if each.endpoint == queue.arn and each.protocol == "sqs" and each.arn.startswith("arn:"):
                client = self._client(topic)
                return each.arn, client.get_subscription_attributes(SubscriptionArn=each.arn)["Attributes"]
        return None

    def subscribe(self, topic: Address, queue: Address, attributes: Mapping[str, str]) -> None:
        """Subscribe a queue, or change its subscription."""
        found = self.subscription(topic, queue)
        client: Any = self._client(topic)
        if found is None:
            client.subscribe(
                TopicArn=topic.arn,
                Protocol="sqs",
                Endpoint=queue.arn,
                Attributes=dict(attributes),
                ReturnSubscriptionArn=True,
            )
            return
        for name, value in attributes.items():
            client.set_subscription_attributes(SubscriptionArn=found[0], AttributeName=name, AttributeValue=value)

    def unsubscribe(self, topic: Address, arn: str) -> None:
        self._client(topic).unsubscribe(SubscriptionArn=arn)

    def _client(self, topic: Address) -> Any:
        return self._clients.get("sns", topic.region, TIMEOUT)
