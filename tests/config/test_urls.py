from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudevents_bridge.config import parse_url
from cloudevents_bridge.errors import ConfigurationError

SECRET = "hunter2"


def refused(text: object) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_url(text)
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


@pytest.mark.parametrize(
    ("text", "scheme", "authority", "path", "query"),
    [
        ("memory://", "memory", "", "", {}),
        ("memory://orders", "memory", "orders", "", {}),
        ("sqlite:///events.db", "sqlite", "", "/events.db", {}),
        ("sqlite:////var/lib/events.db", "sqlite", "", "//var/lib/events.db", {}),
        ("sqlite:///my%20file%231.db", "sqlite", "", "/my file#1.db", {}),
        ("sqlite:///my file.db", "sqlite", "", "/my file.db", {}),
        ("sqlite:///at@home.db", "sqlite", "", "/at@home.db", {}),
        ("AWS://eu-west-1?account=123456789012", "aws", "eu-west-1", "", {"account": "123456789012"}),
        ("nats://h1:4222,h2:4222/js?a=1&b=", "nats", "h1:4222,h2:4222", "/js", {"a": "1", "b": ""}),
        ("x://[::1]:5672", "x", "[::1]:5672", "", {}),
        ("azure-servicebus://ns.example.net?", "azure-servicebus", "ns.example.net", "", {}),
    ],
)
def test_accepted(text: str, scheme: str, authority: str, path: str, query: dict[str, str]) -> None:
    url = parse_url(text)
    assert (url.scheme, url.authority, url.path, dict(url.query)) == (scheme, authority, path, query)
    assert url.text == scheme + text[len(scheme) :]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "NoneType"),
        (b"memory://", "bytes"),
        ("", "empty"),
        (" memory://", "white space"),
        ("memory://\n", "white space"),
        ("memory://a\x00b", "control characters"),
        ("events.db", "'events.db' is no broker's URL"),
        ("sqlite:/events.db", "sqlite:///events.db"),
        ("/var/lib/events.db", "'/var/lib/events.db' is no"),
        ("://x", "is no broker's URL"),
        ("1a://x", "is no broker's URL"),
        ("sqlite:///a.db#1", "write # as %23"),
        ("memory://a b", "character between"),
        ("memory://a\\b", "character between"),
        ("sqlite:///a%zz", "write % as %25"),
        ("sqlite:///100%", "write % as %25"),
        ("sqlite:///a%ff", "UTF-8"),
        ("sqlite:///a%00", "control character"),
        ("aws://eu?account", "key=value"),
        ("aws://eu?=1", "key=value"),
        ("aws://eu?a=1&&b=1", "key=value"),
        ("aws://eu?account=1&account=2", "gives account twice"),
    ],
)
def test_refused(text: object, says: str) -> None:
    assert says in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        f"amqp://user:{SECRET}@host",
        f"amqp://{SECRET}@host/path",
        f"amqp://user:{SECRET}#rest@host",
        f"amqp://user:{SECRET}/rest@host",
        f"amqp://user:a?{SECRET}@host",
        f"amqp://user:%zz{SECRET}@host",
        f"amqp://user:{SECRET}@host\n",
        f" user:{SECRET}@host",
        f"user:{SECRET}@host",
        f"aws://eu?secret_access_key={SECRET}",
        f"aws://eu?AWS_SECRET={SECRET}",
        f"aws://eu?Password={SECRET}",
        f"aws://eu?sig={SECRET}",
        f"aws://eu?x-api-key={SECRET}",
        f"aws://eu?endpoint=http://me:{SECRET}@localhost",
        f"aws://eu?endpoint=http%3A%2F%2Fme%3A{SECRET}%40localhost",
        f"aws://eu?{SECRET}",
        f"aws://eu?a=1#{SECRET}",
        f"Endpoint=sb://ns.example.net/;SharedAccessKeyName=root;SharedAccessKey={SECRET}=",
        f"SharedAccessKey={SECRET};Endpoint=sb://ns.example.net/",
        f"sb://ns.example.net/;SharedAccessKey={SECRET}#",
    ],
)
def test_a_secret_is_refused_and_never_repeated(text: str) -> None:
    refused(text)


def test_the_offending_key_is_named() -> None:
    assert "client_secret" in refused(f"gcp://p?client_secret={SECRET}")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=60) | st.from_regex(r"[a-z]+://[!-~]*", fullmatch=True))
def test_any_text_is_an_address_or_one_error(text: str) -> None:
    try:
        url = parse_url(text)
    except ConfigurationError as error:
        message = str(error)
    else:
        message = ""
        assert parse_url(url.text) == url
    assert "\n" not in message
    assert message.isprintable()
