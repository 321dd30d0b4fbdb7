"""URLs, options and names."""

from __future__ import annotations

from typing import Any

import pytest

from cloudevents_bridge.driver import DeadLetters, Subscription, Topic, Url
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge_aws.names import Names, check
from cloudevents_bridge_aws.options import read

ORDERS = Topic("orders")
ORDERED = Topic("orders", ordered=True)


def _read(
    authority: str = "eu-west-1", query: dict[str, str] | None = None, fan_out: bool = True, **options: Any
) -> Any:
    scheme = "aws" if fan_out else "aws-sqs"
    return read(Url(f"{scheme}://{authority}", scheme, authority, "", query or {}), options, fan_out=fan_out)


def _names(**options: Any) -> Names:
    return Names(_read(**options), lambda: "123456789012")


def test_default_names() -> None:
    names = _names()
    billing = Subscription(ORDERS, "billing")
    assert names.topic(ORDERS).arn == "arn:aws:sns:eu-west-1:123456789012:orders"
    assert names.url(names.queue(billing)) == "https://sqs.eu-west-1.amazonaws.com/123456789012/orders--billing"
    assert names.queue(DeadLetters(billing)).name == "orders--billing--dlq"
    ordered = Subscription(ORDERED, "billing")
    assert names.topic(ORDERED).name == "orders.fifo"
    assert names.queue(ordered).name == "orders--billing.fifo"
    assert names.queue(DeadLetters(ordered)).name == "orders--billing--dlq.fifo"


def test_queues_alone() -> None:
    names = _names(fan_out=False)
    own = Subscription(ORDERS, "orders")
    assert names.queue(ORDERS) == names.queue(own)
    assert names.queue(DeadLetters(own)).name == "orders--dlq"
    check(own, fan_out=False)
    with pytest.raises(ConfigurationError, match="orders/orders"):
        check(Subscription(ORDERS, "billing"), fan_out=False)


def test_other_partitions() -> None:
    names = _names(authority="cn-north-1")
    assert names.topic(ORDERS).arn.startswith("arn:aws-cn:sns:cn-north-1:")
    assert names.url(names.queue(Subscription(ORDERS, "billing"))).startswith(
        "https://sqs.cn-north-1.amazonaws.com.cn/"
    )
    assert _names(authority="us-gov-west-1").topic(ORDERS).arn.startswith("arn:aws-us-gov:")


def test_native_names_in_another_account() -> None:
    names = _names()
    topic = Topic("orders", native={"name": "arn:aws:sns:us-east-1:999999999999:theirs"})
    url = "https://sqs.us-east-1.amazonaws.com/999999999999/theirs-billing"
    place = Subscription(topic, "billing", native={"queue": url})
    check(place, fan_out=True)
    assert names.topic(topic).region == "us-east-1"
    assert names.url(names.queue(place)) == url
    assert names.queue(DeadLetters(place)).name == "theirs-billing--dlq"


def test_mis_declared_order_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ordered = true"):
        check(Topic("orders", native={"name": "orders.fifo"}), fan_out=True)
    with pytest.raises(ConfigurationError, match="ordered = false"):
        check(Topic("orders", ordered=True, native={"name": "orders"}), fan_out=True)


@pytest.mark.parametrize(
    "native", [{"colour": "red"}, {"name": ""}, {"name": "arn:aws:sqs:eu-west-1:123456789012:q"}, {"deduplication": 7}]
)
def test_wrong_native_settings_are_refused(native: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        check(Topic("orders", native=native), fan_out=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"authority": ""},
        {"authority": "Europe"},
        {"account": "12"},
        {"mode": "batch"},
        {"endpoint": "localhost"},
        {"poll": 0},
        {"poll": 21},
        {"topic_bytes": 10},
        {"client": 7},
        {"tags": {"a": 1}},
        {"max_pool_connections": 0},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        _read(**wrong)
