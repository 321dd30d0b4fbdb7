"""From CloudEvents SQL to Pub/Sub's own filters."""

from __future__ import annotations

import pytest

from cloudevents_bridge import driver
from cloudevents_bridge.errors import UnsupportedError
from cloudevents_bridge_gcp.filters import translate


def of(filter: str) -> driver.Subscription:
    return driver.Subscription(driver.Topic("orders"), "billing", filter=filter)


@pytest.mark.parametrize(
    ("filter", "native"),
    [
        ("type = 'a'", 'attributes."ce-type" = "a"'),
        ('type != "a"', 'attributes."ce-type" != "a"'),
        ("source <> 'it\\'s \"so\"'", 'attributes."ce-source" != "it\'s \\"so\\""'),
        ("type LIKE 'com.example.%'", 'hasPrefix(attributes."ce-type", "com.example.")'),
        ("type LIKE 'com.example'", 'attributes."ce-type" = "com.example"'),
        ("type LIKE 'a\\%b%'", 'hasPrefix(attributes."ce-type", "a%b")'),
        ("type LIKE '%'", 'attributes:"ce-type"'),
        ("type NOT LIKE 'a%'", 'NOT hasPrefix(attributes."ce-type", "a")'),
        ("EXISTS myext", 'attributes:"ce-myext"'),
        ("type in ('a', 'b')", '(attributes."ce-type" = "a" OR attributes."ce-type" = "b")'),
        ("datacontenttype = 'text/plain'", 'attributes."content-type" = "text/plain"'),
        (
            "type = 'a' AND (source = 'b' OR NOT subject = 'c')",
            '(attributes."ce-type" = "a" AND (attributes."ce-source" = "b" OR NOT attributes."ce-subject" = "c"))',
        ),
    ],
)
def test_what_can_be_said(filter: str, native: str) -> None:
    assert translate(of(filter), "binary") == native


@pytest.mark.parametrize(
    ("filter", "why"),
    [
        ("type LIKE '%created'", "beginning of an attribute only"),
        ("type LIKE 'a_c'", "beginning of an attribute only"),
        ("size > 5", "is not understood"),
        ("sampledrate = 5", "is no string"),
        ("LENGTH(type) = 'a'", "is no attribute"),
        ("type", "no =, !=, LIKE or IN"),
        ("type = 'a' source", "is too much"),
        ("(type = 'a'", "')' is missing"),
        ("", "it ends where the name of an attribute is expected"),
        (f"type = '{'a' * 250}'", "256 is the most"),
    ],
)
def test_what_cannot_is_refused(filter: str, why: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        translate(of(filter), "binary")
    assert why in str(caught.value)
    assert "orders/billing" in str(caught.value)


def test_structured_events_have_no_attributes_to_filter_by() -> None:
    with pytest.raises(UnsupportedError, match="mode=structured"):
        translate(of("type = 'a'"), "structured")
