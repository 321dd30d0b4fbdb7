"""The form that is sent to SNS: as boto3 would write it, and quoted once."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from fake_aws import ACCOUNT, REGION, topic_arn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudevents_bridge import BridgeError, CloudEvent, RetryPolicy, connect
from cloudevents_bridge_aws import form

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200) | st.text("+% &=a~/", max_size=20)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9.]{1,20}", fullmatch=True), _TEXTS, max_size=5))
def test_it_is_what_urlencode_makes(fields: dict[str, str]) -> None:
    assert form.encoded(fields) == urlencode(fields).encode()


@pytest.mark.parametrize(
    "value",
    ["", 'a "plain" {"json": [1, 2]}', "100% + 1 = 2 & more", "%25", "".join(map(chr, range(128))), "日本語 ñ 😀", 7],
)
def test_values(value: Any) -> None:
    assert form.encoded({"a": value, "b": value}) == urlencode({"a": value, "b": value}).encode()


class _Sent(Exception):
    pass


def _client(sent: list[Any], config: Any = None) -> Any:
    made = boto3.Session("test", "test", region_name=REGION).client("sns", config=config)

    def keep(request: Any, **_: Any) -> AWSResponse:
        sent.append(request)
        raise _Sent

    made.meta.events.register("before-send", keep)
    return made


def test_boto3_sends_the_same_and_signs_it() -> None:
    """With equal bytes and the same headers the signature is that of boto3."""
    ours: list[Any] = []
    theirs: list[Any] = []
    event = CloudEvent(type="t", source="/%C3%A9&+", id="1", data={"text": "a = b & c 😀"})
    with (
        connect(
            f"aws://{REGION}?account={ACCOUNT}",
            client=lambda _, __, config: _client(ours, config),
            retry=RetryPolicy(attempts=1),
        ) as broker,
        pytest.raises(BridgeError, match="_Sent"),
    ):
        broker.publish("orders", event)
    entry = {
        "Id": "0",
        "Message": event.to_json().decode(),
        "MessageAttributes": {
            "content-type": {"DataType": "String", "StringValue": "application/cloudevents+json"},
        },
    }
    with pytest.raises(_Sent):
        _client(theirs).publish_batch(TopicArn=topic_arn("orders"), PublishBatchRequestEntries=[entry])
    assert isinstance(ours[0].body, bytes), "boto3 would quote it, and once more to sign it"
    assert ours[0].body == theirs[0].body.encode()
    for name in ("Content-Type", "Content-Length"):
        assert ours[0].headers[name] == theirs[0].headers[name]
    signed = [
        each.headers["Authorization"].decode().partition("SignedHeaders=")[2].partition(",")[0]
        for each in (*ours, *theirs)
    ]
    assert signed[0] == signed[1]


def test_what_others_see_before_it_are_the_fields() -> None:
    """A handler of the program's own sees the fields, and what it changes is sent."""
    sent: list[Any] = []

    def client(service: str, region: str, config: Any) -> Any:
        made = _client(sent, config)
        made.meta.events.register("before-call.sns", lambda params, **_: params["body"].update(Extra="a b"))
        return made

    with (
        connect(f"aws://{REGION}?account={ACCOUNT}", client=client, retry=RetryPolicy(attempts=1)) as broker,
        pytest.raises(BridgeError, match="_Sent"),
    ):
        broker.publish("orders", CloudEvent(type="t", source="/s"))
    assert b"&Extra=a+b" in sent[0].body


def test_it_is_installed_once_and_only_where_it_can_be() -> None:
    client = _client([])
    before = len(client.meta.events._emitter._handlers.prefix_search("before-call"))
    form.install(client)
    form.install(client)
    assert len(client.meta.events._emitter._handlers.prefix_search("before-call")) == before + 1
    form.install(object())


def test_a_body_that_is_no_form_is_left_alone() -> None:
    """As it will be, once boto3 speaks JSON to SNS, as it does to SQS."""
    params: dict[str, Any] = {"body": b"{}"}
    form._write(params)
    assert params == {"body": b"{}"}
