"""Sizes as the services count them, envelopes, accounts, regions and policies: on LocalStack, which has them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from cloudevents_bridge import Broker, CloudEvent, RetryPolicy, Subscription, Topic, connect
from cloudevents_bridge.driver import Done, Fault, Outbound, Url
from cloudevents_bridge.driver import Topic as Place
from cloudevents_bridge.errors import BridgeError, ErrorCode, EventTooLargeError, NotFoundError
from cloudevents_bridge_aws import connection, sns_envelope
from cloudevents_bridge_aws.options import read
from cloudevents_bridge_contract import NotRun, aws
from cloudevents_bridge_contract.emulators.localstack import localstack
from cloudevents_bridge_contract.emulators.process import wait_until

Opened = Callable[..., Broker]
OURS, THEIRS = "111111111111", "222222222222"
KIB_256, MIB = 262_144, 1_048_576
STRUCTURED = {"content-type": "application/cloudevents+json"}
BINARY = {"ce-id": "1", "ce-source": "/süß", "content-type": "text/plain", "ceb-dead-letter": "why"}
TOO_LARGE = "BatchRequestTooLong"
ONCE = RetryPolicy(attempts=1)


@pytest.fixture(autouse=True)
def endpoint(monkeypatch: pytest.MonkeyPatch) -> str:
    try:
        port = aws.running(localstack).port
    except NotRun as missing:
        pytest.skip(f"not run: {missing}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", OURS)  # LocalStack takes it for the account
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def opened(endpoint: str) -> Iterator[Opened]:
    """Connects to an account there."""
    made: list[Broker] = []

    def open_one(*topics: Topic, at: str = f"aws://{aws.REGION}", account: str = OURS, **options: Any) -> Broker:
        session = boto3.Session(account, "test", region_name=aws.REGION)
        url = f"{at}?endpoint={endpoint}"
        broker = connect(url, topics=topics, session=session, account=account, poll=1, retry=ONCE, **options)
        made.append(broker)
        return broker

    yield open_one
    for broker in made:
        broker.close()


def _name() -> str:
    return f"there-{uuid.uuid4().hex[:8]}"


def _event(**attributes: Any) -> CloudEvent:
    return CloudEvent(type="com.example.made", source="/shop", **attributes)


# -- sizes


def _driver(scheme: str, endpoint: str) -> connection.Connection:
    url = Url(f"{scheme}://{aws.REGION}", scheme, aws.REGION, "", {"account": OURS, "endpoint": endpoint})
    return connection.Connection(read(url, {"poll": 1}, fan_out=scheme == "aws"))


def _sized(publisher: Any, attributes: dict[str, str], total: int, count: int = 1) -> list[Outbound]:
    """Messages that are so many bytes together, as we count them."""
    small = Outbound(b"x", attributes)
    body = b"x" * (total - count * publisher.size(small) + 1)
    messages = [*[small] * (count - 1), Outbound(body, attributes)]
    assert sum(map(publisher.size, messages)) == total, "the test does not meet the limit"
    return messages


@pytest.mark.parametrize(("scheme", "limit"), [("aws", KIB_256), ("aws-sqs", MIB)], ids=["topic", "queue"])
@pytest.mark.parametrize("attributes", [STRUCTURED, BINARY], ids=["structured", "binary"])
@pytest.mark.parametrize("count", [1, 10])
def test_bytes_are_counted_as_the_service_counts_them(
    opened: Opened, endpoint: str, scheme: str, limit: int, attributes: dict[str, str], count: int
) -> None:
    """A request that is as large as we say the limit is, is taken, and with one byte more it is refused."""
    name = _name()
    opened(Topic(name, subscriptions=[name]), at=f"{scheme}://{aws.REGION}").topology.apply()
    publisher = _driver(scheme, endpoint).open_publisher(Place(name))
    assert publisher.traits.batch_bytes == limit
    taken = publisher.send(_sized(publisher, attributes, limit, count), timeout=10)
    assert all(isinstance(outcome, Done) for outcome in taken), taken
    with pytest.raises(ClientError, match=TOO_LARGE):
        publisher.send(_sized(publisher, attributes, limit + 1, count), timeout=10)


def test_queue_takes_messages_of_as_many_bytes_as_it_was_made_for(opened: Opened, endpoint: str) -> None:
    name = _name()
    opened(Topic(name, subscriptions=[name]), at=f"aws-sqs://{aws.REGION}", queue_bytes=KIB_256).topology.apply()
    publisher = _driver("aws-sqs", endpoint).open_publisher(Place(name))
    [fits] = publisher.send(_sized(publisher, BINARY, KIB_256), timeout=10)
    [over] = publisher.send(_sized(publisher, BINARY, KIB_256 + 1), timeout=10)
    assert (isinstance(fits, Done), isinstance(over, Fault)) == (True, True)


@pytest.mark.parametrize("body", [b"\x00", "\uffff".encode()], ids=["bytes", "characters that SQS refuses"])
def test_what_is_carried_as_base64_is_counted_as_that(opened: Opened, endpoint: str, body: bytes) -> None:
    name = _name()
    opened(Topic(name, subscriptions=[name]), at=f"aws-sqs://{aws.REGION}").topology.apply()
    publisher = _driver("aws-sqs", endpoint).open_publisher(Place(name))
    message = Outbound(body * ((MIB - 1000) // 4 * 3 // len(body)), STRUCTURED)
    pad = "x" * (MIB - publisher.size(message) - len("pad") - len("String"))
    [outcome] = publisher.send([Outbound(message.body, {**STRUCTURED, "pad": pad})], timeout=10)
    assert isinstance(outcome, Done)
    with pytest.raises(ClientError, match=TOO_LARGE):
        publisher.send([Outbound(message.body, {**STRUCTURED, "pad": pad + "x"})], timeout=10)


def test_topics_of_a_mebibyte_are_an_option(opened: Opened) -> None:
    name = _name()
    event = _event(id="1", data="")
    event = event.replace(data="x" * (KIB_256 + 1000))
    with pytest.raises(EventTooLargeError):
        opened(Topic(name)).publish(name, event)
    large = opened(Topic(name, subscriptions=["reader"]), topic_bytes=MIB)
    large.topology.apply()
    with pytest.raises(BridgeError) as refused:  # by the service, which has not followed; it was sent
        large.publish(name, event)
    assert refused.value.code is not ErrorCode.NOT_FOUND
    assert "sns:Publish" in str(refused.value)


# -- the envelope


def test_envelope_of_a_subscription_that_is_not_raw(opened: Opened) -> None:
    """It is unwrapped where the subscriber says whose it may be, and dies where it is another's."""
    name = _name()
    arn = f"arn:aws:sns:{aws.REGION}:{OURS}:{name}"
    broker = opened(Topic(name, subscriptions=["reader"]))
    broker.topology.apply()
    [subscription] = broker.native.sns.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"]
    broker.native.sns.set_subscription_attributes(
        SubscriptionArn=subscription["SubscriptionArn"], AttributeName="RawMessageDelivery", AttributeValue="false"
    )
    events = [_event(id="1", data={"text": "é <&>"}), _event(id="2", data=b"\x00\xff")]
    broker.publish_many(name, events)
    taken: list[CloudEvent] = []
    with broker.subscriber(name, "reader", foreign=[sns_envelope(topic_arn=arn)]) as subscriber:
        while len(taken) < 2:
            for delivery in subscriber.receive(10, wait=20):
                with delivery as event:
                    taken.append(event)
    assert sorted(taken, key=lambda event: event.id) == events
    broker.publish(name, events[0])
    with broker.subscriber(name, "reader", foreign=[sns_envelope(topic_arn=f"{arn}-2")]) as subscriber:
        assert subscriber.receive(1, wait=5) == []
    [letter] = broker.dead_letters(name, "reader").find()
    assert f"the SNS envelope is of {arn}, and only {arn}-2 is expected" in (letter.error or letter.reason)


def test_what_sns_cannot_deliver_is_a_dead_letter(opened: Opened) -> None:
    name = _name()
    broker = opened(Topic(name, subscriptions=["reader"]))
    broker.topology.apply()
    queue = broker.native.sqs.get_queue_url(QueueName=f"{name}--reader")["QueueUrl"]
    broker.native.sqs.delete_queue(QueueUrl=queue)
    broker.publish(name, sent := _event())
    found: list[CloudEvent | None] = []

    def there() -> bool:
        found[:] = [letter.event for letter in broker.dead_letters(name, "reader").find()]
        return bool(found)

    assert wait_until(there, 20)
    assert found == [sent]


# -- other accounts, other regions


def test_topic_and_queue_of_other_accounts(opened: Opened) -> None:
    """They publish to a topic of theirs, which is declared by its ARN here; and a queue of ours by its URL there."""
    name = _name()
    theirs = opened(Topic(name), account=THEIRS)
    theirs.topology.apply()
    shared = Topic(
        "orders", native={"name": f"arn:aws:sns:{aws.REGION}:{THEIRS}:{name}"}, subscriptions=[Subscription(name)]
    )
    ours = opened(shared)
    ours.topology.apply()
    for broker, topic in ((theirs, name), (ours, "orders")):
        broker.publish(topic, sent := _event())
        with ours.subscriber("orders", name) as subscriber:
            [delivery] = subscriber.receive(1, wait=20)
            assert delivery.event == sent
            delivery.ack()
    ours.publish("orders", sent := _event())
    url = f"https://sqs.{aws.REGION}.amazonaws.com/{OURS}/orders--{name}"
    by_url = Topic(name, subscriptions=[Subscription("reader", native={"queue": url})])
    with opened(by_url, account=THEIRS).subscriber(name, "reader") as subscriber:
        [delivery] = subscriber.receive(1, wait=20)
        assert delivery.event == sent
        delivery.ack()


def test_wrong_region_is_said(opened: Opened, endpoint: str) -> None:
    name = _name()
    opened(Topic(name, subscriptions=["reader"])).topology.apply()
    elsewhere = opened(Topic(name, subscriptions=["reader"]), at="aws://us-east-1")
    with pytest.raises(NotFoundError, match="none in the region and the account of the URL") as caught:
        elsewhere.publish(name, _event())
    assert "aws://us-east-1" in str(caught.value)
    assert "\n" not in str(caught.value)
    with elsewhere.subscriber(name, "reader") as subscriber, pytest.raises(NotFoundError, match="region"):
        subscriber.receive(1, wait=0)


# -- roles


@pytest.mark.parametrize("role", ["publisher", "consumer", "operator", "provisioner"])
@pytest.mark.parametrize("key", [f"arn:aws:kms:{aws.REGION}:{OURS}:key/1", "alias/orders"], ids=["key", "alias"])
def test_iam_takes_the_policies(opened: Opened, endpoint: str, role: Any, key: str) -> None:
    broker = opened(Topic("orders", native={"kms_key": key}, subscriptions=["billing"]))
    iam = boto3.Session(OURS, "test", region_name=aws.REGION).client("iam", endpoint_url=endpoint)
    made = iam.create_policy(PolicyName=_name(), PolicyDocument=broker.topology.policy(role))
    assert made["Policy"]["Arn"]
    with pytest.raises(ClientError, match="MalformedPolicyDocument"):
        iam.create_policy(PolicyName=_name(), PolicyDocument=json.dumps({"Version": "2012-10-17"}))
