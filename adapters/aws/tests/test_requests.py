"""What is asked of AWS, and how often: counted on an account in memory, and on boto3 with canned answers."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError
from fake_aws import ACCOUNT, REGION, Aws, refusal, topic_arn, url

from cloudevents_bridge import Broker, CloudEvent, PublishError, RetryPolicy, Topic, connect
from cloudevents_bridge.driver import Done, Outbound
from cloudevents_bridge.driver import Subscription as Place
from cloudevents_bridge.driver import Topic as PlaceOf
from cloudevents_bridge.errors import BridgeError, ErrorCode, NotFoundError
from cloudevents_bridge_aws import connection as connections
from cloudevents_bridge_aws.options import POLL, read
from cloudevents_bridge_aws.subscriber import TOTAL

Opened = Callable[..., Broker]
ORDERS = Topic("orders", subscriptions=["billing"])
STEADY = {
    "Publish",
    "PublishBatch",
    "SendMessage",
    "SendMessageBatch",
    "ReceiveMessage",
    "DeleteMessageBatch",
    "ChangeMessageVisibilityBatch",
}


def _events(count: int, **attributes: Any) -> list[CloudEvent]:
    return [CloudEvent(type="com.example.made", source="/shop", id=str(n), data=n, **attributes) for n in range(count)]


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not done():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


def _driver(aws: Aws) -> connections.Connection:
    from cloudevents_bridge.driver import Url

    where = Url(f"aws://{REGION}", "aws", REGION, "", {"account": ACCOUNT})
    return connections.Connection(read(where, {"client": aws.client}, fan_out=True))


# -- the steady state


@pytest.mark.parametrize("scheme", ["aws", "aws-sqs"])
def test_steady_state_asks_for_nothing_else(aws: Aws, opened: Opened, scheme: str) -> None:
    """All that a program does, with a client that refuses whatever its rights do not hold."""
    own = "orders" if scheme == "aws-sqs" else "billing"
    topic = Topic("orders", subscriptions=[own])
    opened(topic, scheme=scheme).topology.apply()
    for operation in {*aws.calls, "GetCallerIdentity", "GetQueueUrl", "GetQueueAttributes"} - STEADY:
        aws.fail[operation] = refusal("AccessDenied", operation, 403)
    aws.calls.clear()
    broker = opened(topic, scheme=scheme)
    broker.publish("orders", _events(1)[0])
    broker.publish_many("orders", _events(25))
    seen: list[CloudEvent] = []
    with broker.subscriber("orders", own) as subscriber:
        first, second, *others = subscriber.receive(10, wait=1)
        first.nack(delay=5)
        second.extend(30)
        second.dead_letter("why not")
        subscriber.ack_many(others)
        seen += [each.event for each in (first, second, *others)]
    with broker.worker().add("orders", own, seen.append):
        _until(lambda: len(seen) == 26)
        aws.over.set()
    assert set(aws.calls) <= STEADY
    assert {"ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibilityBatch", "SendMessageBatch"} <= set(
        aws.calls
    )


def test_requests_are_full(aws: Aws, opened: Opened) -> None:
    broker = opened(ORDERS)
    broker.topology.apply()
    broker.publish_many("orders", _events(1000))
    assert aws.calls["PublishBatch"] == 100
    left = 1000
    with broker.subscriber("orders", "billing") as subscriber:
        while left:
            deliveries = subscriber.receive(100, wait=1)
            subscriber.ack_many(deliveries)
            left -= len(deliveries)
    assert aws.calls["ReceiveMessage"] <= 101
    assert aws.calls["DeleteMessageBatch"] <= 101


def test_idle_queue_costs_one_request_for_each_poll(aws: Aws, opened: Opened) -> None:
    """A poll asks for 20 seconds, and the next begins when it has ended: with eight handlers, too."""
    broker = opened(ORDERS)
    broker.topology.apply()
    with broker.worker().add("orders", "billing", lambda event: None, concurrency=8):
        for polls in range(2, 7):  # the first only looks
            _until(lambda polls=polls: aws.calls["ReceiveMessage"] >= polls)  # type: ignore[misc]
            time.sleep(0.05)  # long enough for another one that should not be
            assert aws.calls["ReceiveMessage"] == polls
            aws.polls.release()
        waits = [given["WaitTimeSeconds"] for name, given in aws.asked if name == "ReceiveMessage"]
        assert (waits[0], set(waits[1:])) == (0, {POLL})
        aws.over.set()
    assert POLL == 20


def test_caller_waits_as_long_as_it_says_where_sqs_waits_whole_seconds(aws: Aws, opened: Opened) -> None:
    """What the poll brings when the caller has gone belongs to the next one."""
    broker = opened(ORDERS)
    broker.topology.apply()
    subscriber = broker.subscriber("orders", "billing")
    assert subscriber.receive(1, wait=0.3) == [], "it waited for the poll, which does not end here"
    assert [given["WaitTimeSeconds"] for operation, given in aws.asked if operation == "ReceiveMessage"] == [1]
    broker.publish("orders", sent := CloudEvent(type="t", source="/s"))
    [delivery] = subscriber.receive(1, wait=20)
    assert (delivery.event.id, aws.calls["ReceiveMessage"]) == (sent.id, 1)
    delivery.ack()
    aws.over.set()


def test_account_is_asked_once_where_the_url_does_not_say_it(aws: Aws) -> None:
    with connect(f"aws://{REGION}", client=aws.client) as broker:
        aws.topics[topic_arn("orders")] = {}
        for _ in range(3):
            broker.publish("orders", _events(1)[0])
    assert aws.calls["GetCallerIdentity"] == 1


def test_pool_is_never_what_limits_a_program_of_many_subscribers(aws: Aws) -> None:
    """A pool that is full throws connections away, and each costs a handshake."""
    connection = _driver(aws)
    place = PlaceOf("orders")
    subscribers = [connection.open_subscriber(Place(place, f"s{n}")) for n in range(100)]
    with contextlib.suppress(ClientError):  # there is no such queue
        subscribers[0].receive(1, 0)
    [config] = aws.configs
    assert config.max_pool_connections >= sum(each.traits.receives for each in subscribers)


def test_pool_is_as_large_as_asked_and_holds_all_that_run_at_once(aws: Aws, opened: Opened) -> None:
    broker = opened(ORDERS)
    broker.topology.apply()
    connection = _driver(aws)
    place = PlaceOf("orders")
    publisher, subscriber = connection.open_publisher(place), connection.open_subscriber(Place(place, "billing"))
    assert all(each.max_pool_connections >= publisher.traits.sends for each in aws.configs)
    assert all(each.max_pool_connections >= subscriber.traits.receives for each in aws.configs)
    aws.configs.clear()
    opened(ORDERS, max_pool_connections=7).publish("orders", _events(1)[0])
    assert {each.max_pool_connections for each in aws.configs} == {7}


# -- leases


def test_no_lease_goes_beyond_twelve_hours(aws: Aws, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(ORDERS).topology.apply()
    now = 1000.0
    monkeypatch.setattr("cloudevents_bridge_aws.subscriber.time.monotonic", lambda: now)
    topic = PlaceOf("orders")
    connection = _driver(aws)
    connection.open_publisher(topic).send([Outbound(b"{}", {})], timeout=1)
    subscriber = connection.open_subscriber(Place(topic, "billing"))
    assert subscriber.traits.lease_total is not None
    assert subscriber.traits.lease_total < TOTAL
    [message] = subscriber.receive(1, 0).messages

    def granted(verb: Any, seconds: float) -> Any:
        aws.asked.clear()
        [outcome] = subscriber.settle(verb, [message], seconds=seconds, timeout=1)
        asked = [given["Entries"][0]["VisibilityTimeout"] for _, given in aws.asked]
        return outcome.lease if isinstance(outcome, Done) else outcome.code, asked

    assert granted("extend", 60.2) == (61.0, [61])
    now += TOTAL - 100
    assert granted("extend", 3600) == (40.0, [40])
    now += 41
    assert granted("extend", 3600) == (ErrorCode.LEASE_LOST, []), "an extension by nothing would give it back"
    assert granted("nack", 3600) == (0.0, [0])


# -- order


def test_what_a_fifo_queue_is_told(aws: Aws, opened: Opened) -> None:
    broker = opened(Topic("orders", ordered=True, subscriptions=["billing"]))
    broker.topology.apply()
    keys = ["a", "a", "b", "ß", None, None]
    events = [CloudEvent(type="t", source="/s", id=str(n), partitionkey=key) for n, key in enumerate(keys)]
    broker.publish_many("orders", events)
    batches = [given["PublishBatchRequestEntries"] for name, given in aws.asked if name == "PublishBatch"]
    groups = [each["MessageGroupId"] for batch in batches for each in batch]
    assert sorted(group for group in groups if len(group) == 1) == ["a", "a", "b"]
    assert len(set(groups)) == 5, "without a key each has a group of its own"
    assert all(len({each["MessageGroupId"] for each in batch}) == len(batch) for batch in batches)
    ids = {each["MessageDeduplicationId"] for batch in batches for each in batch}
    assert len(ids) == 6
    broker.publish("orders", events[0])
    assert aws.asked[-1][1]["PublishBatchRequestEntries"][0]["MessageDeduplicationId"] in ids


def test_letters_and_replays_have_ids_of_their_own(aws: Aws, opened: Opened) -> None:
    """With the event's own, a second one within five minutes would be accepted, and never arrive."""
    broker = opened(Topic("orders", ordered=True, subscriptions=["billing"]))
    broker.topology.apply()
    broker.publish("orders", CloudEvent(type="t", source="/s", id="1", partitionkey="a"))
    for _ in range(2):
        with broker.subscriber("orders", "billing") as subscriber:
            [delivery] = subscriber.receive(1, wait=1)
            delivery.dead_letter("why not")
        letters = broker.dead_letters("orders", "billing")
        for letter in letters.find():
            letters.replay([letter])
    sends = {"PublishBatch": "PublishBatchRequestEntries", "SendMessageBatch": "Entries"}
    entries = [each for name, given in aws.asked if name in sends for each in given[sends[name]]]
    assert {each["MessageGroupId"] for each in entries} == {"a"}
    assert len({each["MessageDeduplicationId"] for each in entries}) == len(entries) == 5


def test_delays_of_queues(aws: Aws, opened: Opened) -> None:
    broker = opened(Topic("orders", subscriptions=["orders"]), scheme="aws-sqs")
    broker.topology.apply()
    broker.publish("orders", _events(1)[0], delay=1.5)
    assert aws.asked[-1][1]["Entries"][0]["DelaySeconds"] == 2
    with pytest.raises(BridgeError, match="900"):
        broker.publish("orders", _events(1)[0], delay=901)
    with pytest.raises(BridgeError, match="delay") as caught:
        opened(ORDERS).publish("orders", _events(1)[0], delay=1)
    assert caught.value.code is ErrorCode.UNSUPPORTED


# -- outcomes


def test_each_event_has_its_own_outcome(aws: Aws, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(TopicArn: str, PublishBatchRequestEntries: Any) -> dict[str, Any]:
        codes = {"1": ("InvalidParameter", True), "2": ("InternalFailure", False)}
        answer: dict[str, Any] = {"Successful": [], "Failed": []}
        for each in PublishBatchRequestEntries:
            if each["Id"] in codes:
                code, ours = codes[each["Id"]]
                answer["Failed"].append({"Id": each["Id"], "Code": code, "Message": "why", "SenderFault": ours})
            elif each["Id"] != "3":
                answer["Successful"].append({"Id": each["Id"], "MessageId": f"m{each['Id']}"})
        return answer

    monkeypatch.setattr(aws, "publish_batch", half)
    with pytest.raises(PublishError) as caught:
        opened(ORDERS).publish_many("orders", _events(5))
    receipts = [getattr(each, "native_id", None) or getattr(each, "code", None) for each in caught.value.outcomes]
    assert receipts == ["m0", ErrorCode.INVALID_ARGUMENT, ErrorCode.UNAVAILABLE, ErrorCode.INTERNAL, "m4"]
    assert "may have been done" in str(caught.value.outcomes[3])


@pytest.mark.parametrize(
    ("verb", "operation"), [("ack", "delete_message_batch"), ("extend", "change_message_visibility_batch")]
)
def test_each_settling_has_its_own_outcome(
    aws: Aws, opened: Opened, monkeypatch: pytest.MonkeyPatch, verb: Any, operation: str
) -> None:
    opened(ORDERS).topology.apply()
    connection = _driver(aws)
    connection.open_publisher(PlaceOf("orders")).send([Outbound(b"{}", {})] * 4, timeout=1)
    subscriber = connection.open_subscriber(Place(PlaceOf("orders"), "billing"))
    messages = subscriber.receive(10, 0).messages

    def half(QueueUrl: str, Entries: Any) -> dict[str, Any]:
        codes = {"1": ("ReceiptHandleIsInvalid", True), "2": ("InternalError", False)}
        failed = [
            {"Id": each["Id"], "Code": codes[each["Id"]][0], "SenderFault": codes[each["Id"]][1]}
            for each in Entries
            if each["Id"] in codes
        ]
        return {"Successful": [{"Id": each["Id"]} for each in Entries if each["Id"] == "0"], "Failed": failed}

    monkeypatch.setattr(aws, operation, half)
    found = subscriber.settle(verb, messages, seconds=30, timeout=1)
    codes = [ErrorCode.LEASE_LOST, ErrorCode.UNAVAILABLE, ErrorCode.INTERNAL]
    assert [getattr(each, "code", None) for each in found] == [None, *codes]


@pytest.mark.parametrize("code", ["Throttling", "KMS.ThrottlingException", "InternalError"])
def test_throttles_are_repeated_here_and_only_here(aws: Aws, opened: Opened, code: str) -> None:
    aws.fail["PublishBatch"] = refusal(code, "PublishBatch")
    with pytest.raises(BridgeError, match="why"):
        opened(ORDERS, retry=RetryPolicy(attempts=3, initial=0.0)).publish("orders", _events(1)[0])
    assert aws.calls["PublishBatch"] == 3


@pytest.mark.parametrize("code", ["AuthorizationError", "KMS.DisabledException", "NotFound", "ExpiredToken"])
def test_refusals_are_not_repeated(aws: Aws, opened: Opened, code: str) -> None:
    aws.fail["PublishBatch"] = refusal(code, "PublishBatch")
    with pytest.raises(BridgeError, match="why") as caught:
        opened(ORDERS, retry=RetryPolicy(attempts=3, initial=0.0)).publish("orders", _events(1)[0])
    assert aws.calls["PublishBatch"] == 1
    assert "\n" not in str(caught.value)


def test_queue_that_is_missing_is_not_found_on_use(aws: Aws, opened: Opened) -> None:
    with opened(ORDERS).subscriber("orders", "billing") as subscriber, pytest.raises(BridgeError) as caught:
        subscriber.receive(1, wait=0)
    assert caught.value.code is ErrorCode.NOT_FOUND
    assert url("orders--billing") not in aws.queues


# -- boto3 itself


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> pytest.MonkeyPatch:
    """A machine without credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


@pytest.fixture
def somebody(nobody: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    nobody.setenv("AWS_ACCESS_KEY_ID", "test")
    nobody.setenv("AWS_SECRET_ACCESS_KEY", "test")
    return nobody


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body


def _canned(status: int, code: str, sent: list[str]) -> Callable[..., Any]:
    """boto3's clients, with this instead of the network."""
    import boto3

    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>why</Message></Error></ErrorResponse>".encode()

    def answer(request: Any, **_: Any) -> Any:
        sent.append(request.url)
        return AWSResponse(request.url, status, {}, _Raw(body))

    def client(service: str, region: str, config: Any) -> Any:
        made = boto3.Session().client(service, region_name=region, config=config)
        made.meta.events.register("before-send", answer)
        return made

    return client


@pytest.mark.usefixtures("somebody")
@pytest.mark.parametrize(
    ("status", "code"), [(500, "InternalError"), (503, "ServiceUnavailable"), (400, "Throttling"), (429, "Throttled")]
)
def test_boto3_repeats_nothing(status: int, code: str) -> None:
    sent: list[str] = []
    client = _canned(status, code, sent)
    with (
        connect(f"aws://{REGION}?account={ACCOUNT}", client=client, retry=RetryPolicy(attempts=1)) as broker,
        pytest.raises(BridgeError, match="why"),
    ):
        broker.publish("orders", _events(1)[0])
    assert len(sent) == 1


@pytest.mark.usefixtures("nobody")
def test_session_that_is_given_is_used() -> None:
    import boto3

    session = boto3.Session("OTHERS", "secret")
    sent: list[Any] = []

    def answer(request: Any, **_: Any) -> Any:
        sent.append(request)
        return AWSResponse(request.url, 404, {}, _Raw(b"<E><Error><Code>NotFound</Code></Error></E>"))

    session.events.register("before-send", answer)
    with connect(f"aws://{REGION}?account={ACCOUNT}", session=session) as broker:
        assert broker.native.session is session
        with pytest.raises(NotFoundError):
            broker.publish("orders", _events(1)[0])
    [request] = sent
    assert b"Credential=OTHERS/" in request.headers["Authorization"]


@pytest.mark.usefixtures("somebody")
def test_credentials_that_have_expired() -> None:
    with (
        connect(f"aws://{REGION}?account={ACCOUNT}", client=_canned(403, "ExpiredToken", [])) as broker,
        pytest.raises(BridgeError, match="log in again") as caught,
    ):
        broker.publish("orders", _events(1)[0])
    assert caught.value.code is ErrorCode.UNAUTHENTICATED
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("nobody")
def test_credentials_that_are_missing() -> None:
    with (
        connect(f"aws://{REGION}?account={ACCOUNT}") as broker,
        pytest.raises(BridgeError, match="aws sso login") as caught,
    ):
        broker.publish("orders", _events(1)[0])
    assert caught.value.code is ErrorCode.UNAUTHENTICATED
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("somebody")
def test_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    here = f"aws://{REGION}?account={ACCOUNT}&endpoint=http://127.0.0.1:{port}"
    with (
        connect(here, retry=RetryPolicy(attempts=1)) as broker,
        pytest.raises(BridgeError, match="network, the region and the endpoint") as caught,
    ):
        broker.publish("orders", _events(1)[0])
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert "\n" not in str(caught.value)


def test_profile_that_is_missing(nobody: pytest.MonkeyPatch) -> None:
    nobody.setenv("AWS_PROFILE", "nobody")
    with (
        connect(f"aws://{REGION}?account={ACCOUNT}") as broker,
        pytest.raises(BridgeError, match="AWS_PROFILE") as caught,
    ):
        broker.publish("orders", _events(1)[0])
    assert caught.value.code is ErrorCode.FAILED_PRECONDITION
