"""URLs, options and names: what is wrong is said before anything is connected."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from cloudevents_bridge import Topic, connect, driver
from cloudevents_bridge.config.urls import parse_url
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge_gcp import names, native
from cloudevents_bridge_gcp.options import EMULATOR, SERVICE, Options, read

PROJECT = "my-project"


def options(url: str = "gcp://my-project", environ: dict[str, str] | None = None, **given: Any) -> Options:
    return read(parse_url(url), given, environ or {})


def test_a_project_is_reached_at_the_service_with_credentials() -> None:
    made = options()
    assert (made.project, made.target, made.plaintext) == (PROJECT, "pubsub.googleapis.com:443", False)
    assert made.manners == SERVICE


@pytest.mark.parametrize(
    ("endpoint", "target", "plaintext"),
    [
        ("http://127.0.0.1:8085", "127.0.0.1:8085", True),
        ("http://[::1]:8085/", "[::1]:8085", True),
        ("https://europe-west1-pubsub.googleapis.com", "europe-west1-pubsub.googleapis.com:443", False),
        ("pubsub.example.com:8443", "pubsub.example.com:8443", False),
    ],
)
def test_endpoints(endpoint: str, target: str, plaintext: bool) -> None:
    assert options(endpoint=endpoint)[2:4] == (target, plaintext)
    assert options(f"gcp://my-project?endpoint={endpoint}")[2:4] == (target, plaintext)


def test_the_emulator_of_the_environment_is_obeyed_unless_an_endpoint_is_given() -> None:
    environ = {"PUBSUB_EMULATOR_HOST": "localhost:8085"}
    assert options(environ=environ)[2:4] == ("localhost:8085", True)
    assert options(environ=environ).manners == EMULATOR
    assert options(environ=environ, endpoint="https://other.example.com").target == "other.example.com:443"


@pytest.mark.parametrize(
    ("url", "given", "said"),
    [
        ("gcp://", {}, "names no project: write gcp://PROJECT"),
        ("gcp://my-project/orders", {}, "names no project"),
        ("gcp://My_Project", {}, "is no project"),
        ("gcp://my-project", {"endpoint": "ftp://x"}, "is no address"),
        ("gcp://my-project", {"endpoint": "http://x:y"}, "has the port 'y'"),
        ("gcp://my-project", {"endpoint": 8085}, "endpoint of gcp://my-project is 8085"),
        ("gcp://my-project?mode=json", {}, "mode is 'json'"),
        ("gcp://my-project", {"batch_bytes": 10_000_001}, "from 1 to 10000000"),
    ],
)
def test_what_is_wrong_is_named(url: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        options(url, **given)
    assert said in str(caught.value)


def test_unknown_options_and_keys_are_refused_with_the_known_ones() -> None:
    cases: list[tuple[str, dict[str, Any]]] = [("gcp://my-project?region=x", {}), ("gcp://my-project", {"region": "x"})]
    for url, given in cases:
        with pytest.raises(ConfigurationError, match="endpoint"):
            connect(url, **given)


TOPIC = driver.Topic("orders")
BILLING = driver.Subscription(TOPIC, "billing")


def test_names() -> None:
    dead = driver.DeadLetters(BILLING)
    assert names.topic_name(PROJECT, TOPIC) == "projects/my-project/topics/orders"
    assert names.subscription_name(PROJECT, BILLING) == "projects/my-project/subscriptions/orders--billing"
    assert names.topic_name(PROJECT, dead) == "projects/my-project/topics/orders--billing--dlq"
    assert names.subscription_name(PROJECT, dead) == "projects/my-project/subscriptions/orders--billing--dlq"


def test_native_names_win() -> None:
    topic = driver.Topic("orders", native={"name": "projects/other/topics/Orders.v2"})
    said = {"name": "bills", "dead_letter_topic": "lost", "dead_letter_subscription": "projects/x/subscriptions/found"}
    of = driver.Subscription(topic, "billing", native=said)
    assert names.topic_name(PROJECT, topic) == "projects/other/topics/Orders.v2"
    assert names.subscription_name(PROJECT, of) == "projects/my-project/subscriptions/bills"
    assert names.topic_name(PROJECT, driver.DeadLetters(of)) == "projects/my-project/topics/lost"
    assert names.subscription_name(PROJECT, driver.DeadLetters(of)) == "projects/x/subscriptions/found"
    other = driver.Subscription(topic, "other")
    assert names.subscription_name(PROJECT, other) == "projects/my-project/subscriptions/Orders.v2--other"


@pytest.mark.parametrize("name", ["google-orders", "projects/x/subscriptions/y", "a b"])
def test_a_name_that_the_service_refuses_is_refused_here(name: str) -> None:
    topic = driver.Topic(name, native={"name": name}) if "/" in name else driver.Topic(name)
    with pytest.raises(ConfigurationError, match=r"native|resource name"):
        names.topic_name(PROJECT, topic)


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (driver.Subscription(TOPIC, "billing", lease=601), "600 at most"),
        (driver.Subscription(TOPIC, "billing", max_attempts=100), "gives up after 100"),
        (driver.Subscription(TOPIC, "billing", native={"exactly-once": True}), "exactly_once"),
        (driver.Subscription(TOPIC, "billing", native={"exactly_once": "yes"}), "true or false"),
        (driver.Subscription(TOPIC, "billing", native={"retry": {"minimum": 1}}), "minimum and maximum"),
        (driver.Subscription(TOPIC, "billing", filter="type = 'a'", native={"filter": "x"}), "leave one"),
        (driver.Subscription(driver.Topic("orders", native={"kms": "x"}), "billing"), "kms_key"),
    ],
)
def test_declarations_that_pubsub_cannot_keep_are_refused_when_opening(of: driver.Subscription, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        native.check(of, SERVICE)
    assert said in str(caught.value)


def test_leases_and_attempts_become_legal_ones() -> None:
    short, exact = driver.Subscription(TOPIC, "one", lease=2.5), driver.Subscription(TOPIC, "two", lease=60.5)
    assert [native.lease(short, manners) for manners in (SERVICE, EMULATOR)] == [10, 3]
    assert native.lease(exact, SERVICE) == 61
    given = [driver.Subscription(TOPIC, "any", max_attempts=most) for most in (1, 5, 50)]
    assert [native.deliveries(each) for each in given] == [5, 17, 100]  # after the portable layer's 3 times as many


def test_a_native_setting_that_is_wrong_is_said_without_a_connection() -> None:
    topic = Topic("orders", subscriptions=["billing"], native={"retention": "14d"})
    with connect("gcp://my-project", topics=[topic]) as broker, pytest.raises(ConfigurationError, match="of seconds"):
        broker.subscriber("orders", "billing").receive(wait=0)


def test_the_sdk_is_imported_with_the_first_connection_and_not_before() -> None:
    program = """
import sys
import cloudevents_bridge.adapters as adapters
adapter = adapters.load_adapter("gcp")
assert {"endpoint", "mode"} == adapter.query
assert not {"grpc", "google.pubsub_v1", "google.auth"} & set(sys.modules), "the SDK was imported for nothing"
import cloudevents_bridge
with cloudevents_bridge.connect("gcp://my-project"):
    assert "grpc" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
