"""URLs, options, names and settings: what is wrong is said before anything is connected, and no secret is shown."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from cloudevents_bridge import driver
from cloudevents_bridge.config.urls import parse_url
from cloudevents_bridge.errors import ConfigurationError, UnsupportedError
from cloudevents_bridge_azure.servicebus import export, filters, names, policy, settings
from cloudevents_bridge_azure.servicebus.options import Key, Options, read

URL = "azure-servicebus://shop.servicebus.windows.net"
STRING = "Endpoint=sb://shop.servicebus.windows.net/;SharedAccessKeyName=app;SharedAccessKey=c2VjcmV0PT0="
ORDERS = driver.Topic("orders")


def _options(url: str = URL, environ: dict[str, str] | None = None, **given: Any) -> Options:
    return read(parse_url(url), given, environ or {})


def test_a_namespace_is_reached_with_the_default_credential() -> None:
    made = _options()
    assert (made.address, made.plaintext, made.key, made.credential) == (
        "shop.servicebus.windows.net",
        False,
        None,
        None,
    )


def test_the_connection_string_counts_for_its_own_namespace_and_is_never_shown() -> None:
    environ = {"AZURE_SERVICEBUS_CONNECTION_STRING": STRING}
    made = _options(environ=environ)
    assert made.key == Key("app", "c2VjcmV0PT0=")
    assert "c2VjcmV0" not in repr(made) + repr(made.key) + str(made)
    assert _options("azure-servicebus://other.servicebus.windows.net", environ).key is None
    assert _options(environ=environ, credential=(given := object())).key is None
    assert _options(environ=environ, credential=given).credential is given


def test_an_emulator_is_spoken_to_without_tls() -> None:
    made = _options("azure-servicebus://local?endpoint=amqp://127.0.0.1:5672&administration=http://127.0.0.1:5300")
    assert made[2:5] == ("127.0.0.1:5672", True, "http://127.0.0.1:5300")
    assert made.key == Key("RootManageSharedAccessKey", "SAS_KEY_VALUE")
    string = "Endpoint=sb://127.0.0.1:5672;SharedAccessKeyName=a;SharedAccessKey=b;UseDevelopmentEmulator=true"
    made = _options("azure-servicebus://127.0.0.1:5672", {"AZURE_SERVICEBUS_CONNECTION_STRING": string})
    assert made[2:4] == ("127.0.0.1:5672", True)


@pytest.mark.parametrize(
    ("url", "given", "said"),
    [
        ("azure-servicebus://", {}, "names no namespace: write azure-servicebus://NAMESPACE"),
        (f"{URL}/orders", {}, "names no namespace"),
        (f"{URL}?endpoint=https://x", {}, "endpoint of .* write amqp://127.0.0.1:PORT"),
        (URL, {"administration": 5300}, "administration of .* is 5300"),
        (f"{URL}?mode=json", {}, "mode is 'json'"),
        (f"{URL}?message_bytes=12", {}, "message_bytes is '12'"),
        (URL, {"message_bytes": True}, "message_bytes is True"),
    ],
)
def test_what_is_wrong_is_said(url: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        _options(url, **given)


@pytest.mark.parametrize(
    "string", ["SharedAccessKey=top-secret", "Endpoint=sb://shop.servicebus.windows.net/;x=top-secret"]
)
def test_a_broken_connection_string_is_refused_without_showing_it(string: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _options(environ={"AZURE_SERVICEBUS_CONNECTION_STRING": string})
    assert "top-secret" not in str(caught.value)


def test_the_sdk_is_not_imported_before_a_connection_is_made() -> None:
    program = "import sys, cloudevents_bridge_azure; assert not [m for m in sys.modules if m.startswith('azure.')]"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_names() -> None:
    billing = driver.Subscription(ORDERS, "billing")
    assert names.entity(ORDERS).path == "orders"
    assert names.entity(billing).path == "orders/Subscriptions/billing"
    assert names.entity(driver.DeadLetters(billing)).path == "orders/Subscriptions/billing/$DeadLetterQueue"
    assert names.Entity("inbox", dead=True).path == "inbox/$DeadLetterQueue"
    renamed = driver.Subscription(driver.Topic("orders", native={"name": "v2/orders"}), "billing", native={"name": "b"})
    assert names.entity(renamed).path == "v2/orders/Subscriptions/b"
    with pytest.raises(ConfigurationError, match=r"'a\$b' is no name of a topic"):
        names.entity(driver.Topic("orders", native={"name": "a$b"}))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (
            driver.Topic("orders", native={"nmae": "x"}),
            "'nmae': on Service Bus there are deduplication, megabytes, name",
        ),
        (driver.Topic("orders", native={"deduplication": -1}), "deduplication of topic orders is -1"),
        (driver.Subscription(ORDERS, "billing", lease=301), "lease of subscription orders/billing is 301 seconds"),
        (driver.Subscription(ORDERS, "billing", max_attempts=2000), "max_attempts of subscription orders/billing"),
        (
            driver.Subscription(ORDERS, "billing", filter="a = 'b'", native={"filter": "1=1"}),
            "has a filter, and another",
        ),
    ],
)
def test_what_service_bus_cannot_do_is_refused(place: driver.Topic | driver.Subscription, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        settings.check(place)


@pytest.mark.parametrize(
    ("filter", "native"),
    [
        ("type = 'a'", "user.cloudEvents_type = 'a'"),
        ("type LIKE 'com.example.%'", "user.cloudEvents_type LIKE 'com.example.%'"),
        ("type LIKE 'a\\%b%'", "user.cloudEvents_type LIKE 'a\\%b%' ESCAPE '\\'"),
        ('subject != "it\'s"', "user.cloudEvents_subject <> 'it''s'"),
        ("NOT (type IN ('a', 'b') OR EXISTS subject)", None),
        ("datacontenttype = 'application/json'", "sys.ContentType = 'application/json'"),
    ],
)
def test_filters(filter: str, native: str | None) -> None:
    made = filters.translate(driver.Subscription(ORDERS, "billing", filter=filter), "binary")
    wanted = native or "NOT ( user.cloudEvents_type IN ( 'a' , 'b' ) OR EXISTS(user.cloudEvents_subject) )"
    assert made == wanted


@pytest.mark.parametrize("filter", ["type = 'a' + 'b'", "Type = 'a'", "LENGTH(type) > 3", "type = 'a' ; DROP"])
def test_filters_that_are_not_translated_are_refused(filter: str) -> None:
    with pytest.raises(UnsupportedError, match="orders/billing cannot be one of Service Bus"):
        filters.translate(driver.Subscription(ORDERS, "billing", filter=filter), "binary")


def test_structured_events_cannot_be_filtered() -> None:
    with pytest.raises(UnsupportedError, match="use mode=binary"):
        filters.translate(driver.Subscription(ORDERS, "billing", filter="type = 'a'"), "structured")


def test_each_role_gets_what_it_needs_and_no_more() -> None:
    wanted: list[driver.Topic | driver.Subscription] = [ORDERS, driver.Subscription(ORDERS, "billing")]
    said = {
        role: policy.policy(role, _options(), wanted) for role in ("publisher", "consumer", "operator", "provisioner")
    }
    assert 'Sender" --scope "$NAMESPACE/topics/orders"' in said["publisher"]
    assert "Receiver" not in said["publisher"]
    assert 'Receiver" --scope "$NAMESPACE/topics/orders/subscriptions/billing"' in said["consumer"]
    assert "Sender" not in said["consumer"]
    assert "Sender" in said["operator"]
    assert "Receiver" in said["operator"]
    assert 'Owner" --scope "$NAMESPACE"' in said["provisioner"]
    assert "namespaces/shop\n" in said["publisher"]
    with pytest.raises(UnsupportedError, match="the roles are consumer, operator, provisioner, publisher"):
        policy.policy("king", _options(), wanted)


def test_exports_say_every_setting() -> None:
    topic = driver.Topic("orders", ordered=True, native={"deduplication": 60})
    wanted: list[driver.Topic | driver.Subscription] = [
        topic,
        driver.Subscription(topic, "billing", lease=30, filter="type = 'a'"),
    ]
    commands = export.export("commands", _options(), wanted)
    assert "az servicebus topic create" in commands
    assert "--duplicate-detection-history-time-window PT60S" in commands
    assert "--lock-duration PT30S --enable-session true --default-message-time-to-live PT1209600S" in commands
    with pytest.raises(UnsupportedError, match="use 'bicep' or 'commands'"):
        export.export("terraform", _options(), wanted)
