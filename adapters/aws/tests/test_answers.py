"""The answers of SQS and SNS, read at once: what boto3 itself makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config
from fake_aws import ACCOUNT, REGION, topic_arn, url

from cloudevents_bridge import Topic, connect
from cloudevents_bridge_aws import answers

QUEUE = url("orders--billing")
MESSAGES = [
    {
        "MessageId": "m",
        "ReceiptHandle": "r",
        "MD5OfBody": "d",
        "Body": '{"text": "null \\u00e9 😀"}',
        "Attributes": {"ApproximateReceiveCount": "3", "MessageGroupId": "g"},
        "MessageAttributes": {
            "content-type": {"DataType": "String", "StringValue": "text/plain"},
            "raw": {"DataType": "Binary", "BinaryValue": "AP8="},
            "empty": {"DataType": "Binary", "BinaryValue": ""},
        },
    },
    {"MessageId": "n", "ReceiptHandle": "s", "Body": ""},
]
DONE = {
    "Successful": [{"Id": "0", "MessageId": "m", "MD5OfMessageBody": "d", "SequenceNumber": "7"}],
    "Failed": [{"Id": "1", "SenderFault": True, "Code": "ReceiptHandleIsInvalid", "Message": "why"}],
}
SETTLED = {"Successful": [{"Id": "0"}], "Failed": DONE["Failed"]}
ENTRY = {"Id": "0", "ReceiptHandle": "r"}
CALLS: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "receive": ({"Messages": MESSAGES}, lambda sqs: sqs.receive_message(QueueUrl=QUEUE)),
    "nothing": ({}, lambda sqs: sqs.receive_message(QueueUrl=QUEUE)),
    "null": ({"Messages": None}, lambda sqs: sqs.receive_message(QueueUrl=QUEUE)),
    "send": (
        DONE,
        lambda sqs: sqs.send_message_batch(QueueUrl=QUEUE, Entries=[{"Id": "0", "MessageBody": "m"}]),
    ),
    "delete": (SETTLED, lambda sqs: sqs.delete_message_batch(QueueUrl=QUEUE, Entries=[ENTRY])),
    "extend": (
        SETTLED,
        lambda sqs: sqs.change_message_visibility_batch(QueueUrl=QUEUE, Entries=[{**ENTRY, "VisibilityTimeout": 1}]),
    ),
}


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body


def _client(body: bytes, status: int = 200, config: Any = None, service: str = "sqs") -> Any:
    """boto3's own, whose requests all have that answer."""
    made = boto3.Session("test", "test", region_name=REGION).client(service, config=config)
    headers = {"x-amzn-requestid": "1", "content-type": "application/x-amz-json-1.0"}

    def answer(request: AWSRequest, **_: Any) -> AWSResponse:
        return AWSResponse(request.url, status, headers, _Raw(body))

    made.meta.events.register("before-send", answer)
    return made


def _both(call: Callable[[Any], Any], body: bytes, status: int = 200, service: str = "sqs") -> tuple[Any, Any]:
    """What comes of it by boto3 alone, and with ours."""
    ours, theirs = (_client(body, status, Config(retries={"total_max_attempts": 1}), service) for _ in range(2))
    answers.install(ours, service)
    return _outcome(call, theirs), _outcome(call, ours)


def _outcome(call: Callable[[Any], Any], client: Any) -> Any:
    try:
        return call(client)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is to be the same
        return type(error).__name__, getattr(error, "response", None)


@pytest.mark.parametrize("which", CALLS)
def test_it_is_what_boto3_makes_of_it(which: str) -> None:
    answer, call = CALLS[which]
    theirs, ours = _both(call, json.dumps(answer).encode())
    assert ours == theirs
    assert ours["ResponseMetadata"]["RequestId"] == "1"


_HEAD = "<PublishBatchResponse xmlns='http://sns.amazonaws.com/doc/2010-03-31/'>"
_TAIL = "<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></PublishBatchResponse>"
_SENT = "<member><MessageId>m</MessageId><Id>0</Id><SequenceNumber>7</SequenceNumber></member>"
_FAILED = (
    "<member><Id>{0}</Id><Code>InvalidParameter</Code><Message>a &lt; b &amp; é 😀</Message>"
    "<SenderFault>{1}</SenderFault></member>"
)


def _publish(sns: Any) -> Any:
    entry = {"Id": "0", "Message": "m"}
    return sns.publish_batch(TopicArn=topic_arn("orders"), PublishBatchRequestEntries=[entry])


@pytest.mark.parametrize(
    "result",
    [
        f"<Failed/><Successful>{_SENT}{_SENT}</Successful>",
        f"<Successful>{_SENT}</Successful><Failed>{_FAILED.format(1, 'true')}{_FAILED.format(2, 'false')}</Failed>",
        f"\n  <Successful/>\n  <Failed>\n    {_FAILED.format(1, 'true')}\n  </Failed>\n",
        "<Successful><member><MessageId/><Id>0</Id></member></Successful>",
        "<Successful/><Failed/>",
        "",
    ],
)
def test_that_of_sns_is_what_boto3_makes_of_it(result: str) -> None:
    body = f"{_HEAD}<PublishBatchResult>{result}</PublishBatchResult>{_TAIL}".encode()
    theirs, ours = _both(_publish, body, service="sns")
    assert ours == theirs
    assert ours["ResponseMetadata"]["RequestId"] == "1"


@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize(
    "body", ["", "<PublishBatchResult>", "<a><PublishBatchResult><b></PublishBatchResult></a>", f"{_HEAD}{_TAIL}", "{}"]
)
def test_what_is_no_answer_of_sns_is_boto3s_to_complain_of(body: str, status: int) -> None:
    theirs, ours = _both(_publish, body.encode(), status, service="sns")
    assert ours == theirs


@pytest.mark.parametrize("status", [400, 403, 500])
def test_an_error_is_boto3s_to_read(status: int) -> None:
    body = b'{"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "why", "Messages": []}'
    theirs, ours = _both(CALLS["receive"][1], body, status)
    assert theirs[1]["Error"]["Message"] == "why"
    assert ours == theirs


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"Messages": [', b"[]"])
def test_what_is_no_answer_is_boto3s_to_complain_of(body: bytes) -> None:
    theirs, ours = _both(CALLS["receive"][1], body)
    assert ours == theirs


def test_the_adapters_clients_read_them_this_way() -> None:
    """What a handler of the program's own sees before is the body; after it there is nothing left for boto3 to walk."""
    seen: list[bytes] = []

    def client(_: str, __: str, config: Any) -> Any:
        made = _client(json.dumps({"Messages": MESSAGES[1:]}).encode(), config=config)
        made.meta.events.register("before-parse.sqs", lambda response_dict, **_: seen.append(response_dict["body"]))
        return made

    topic = Topic("orders", subscriptions=["billing"])
    where = f"aws://{REGION}?account={ACCOUNT}"
    with connect(where, topics=[topic], client=client) as broker:
        answer = broker.native.sqs.receive_message(QueueUrl=QUEUE)
    assert answer["Messages"] == MESSAGES[1:]
    assert [json.loads(body) for body in seen] == [{"Messages": MESSAGES[1:]}]


def test_it_is_installed_once_and_only_where_it_can_be() -> None:
    client = _client(b"{}")
    answers.install(client, "sqs")
    handlers = client.meta.events._emitter._handlers
    before = len(handlers.prefix_search("before-parse"))
    answers.install(client, "sqs")
    assert len(handlers.prefix_search("before-parse")) == before
    answers.install(object(), "sqs")
