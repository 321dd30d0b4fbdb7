"""Names, options, wire form, limits and what is written for other tools: no request is made."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest

import cloudevents_bridge as ceb
from cloudevents_bridge.bindings import STRUCTURED
from cloudevents_bridge.config.urls import parse_url
from cloudevents_bridge.driver import DEAD_LETTER, TARGET, DeadLetters, Outbound, Subscription, Topic
from cloudevents_bridge.errors import ConfigurationError, InvalidArgumentError, UnsupportedError
from cloudevents_bridge_azure.eventgrid import names, options, settings, wire
from cloudevents_bridge_azure.eventgrid.connection import Connection
from cloudevents_bridge_azure.eventgrid.subscriber import rounded

HOST = "acme.westeurope-1.eventgrid.azure.net"
ORDERS = Topic("orders")
BILLING = Subscription(ORDERS, "billing")


def _read(text: str, environ: dict[str, str] | None = None, **given: Any) -> options.Options:
    return options.read(parse_url(text), given, environ or {})


def _connection(text: str = f"azure-eventgrid://{HOST}") -> Connection:
    return Connection(_read(text))


# -- options


def test_options_of_a_namespace() -> None:
    read = _read(f"azure-eventgrid://{HOST}", {"AZURE_EVENTGRID_KEY": "s3cret"})
    assert (read.endpoint, read.key, read.wait, read.local) == (f"https://{HOST}", "s3cret", 10.0, False)
    assert "s3cret" not in repr(read)


def test_emulator_by_its_endpoint() -> None:
    read = _read("azure-eventgrid://local?endpoint=http://127.0.0.1:4577/&wait=0.5")
    assert (read.endpoint, read.wait, read.local) == ("http://127.0.0.1:4577", 0.5, True)


@pytest.mark.parametrize(
    ("text", "given", "said"),
    [
        ("azure-eventgrid://acme", {}, "names no namespace"),
        (f"azure-eventgrid://{HOST}/orders", {}, "names no namespace"),
        (f"azure-eventgrid://{HOST}", {"endpoint": "ftp://x"}, "endpoint is 'ftp://x'"),
        (f"azure-eventgrid://{HOST}", {"wait": 121}, "wait is 121"),
        (f"azure-eventgrid://{HOST}", {"wait": "soon"}, "wait is 'soon'"),
        (f"azure-eventgrid://{HOST}", {"wait": 0}, "wait is 0"),
        (f"azure-eventgrid://{HOST}", {"credential": "s3cret"}, "credential is a str"),
    ],
)
def test_what_is_wrong_is_said(text: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        _read(text, **given)
    assert "s3cret" not in str(caught.value)


def test_connecting_imports_no_sdk() -> None:
    code = (
        f"import sys, cloudevents_bridge as ceb; b = ceb.connect('azure-eventgrid://{HOST}'); b.close(); "
        "sys.exit('azure.core' in sys.modules or 'requests' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- names


def test_names() -> None:
    assert names.topic_name(ORDERS) == "orders"
    assert names.source(BILLING) == ("orders", "billing")
    assert names.topic_name(DeadLetters(BILLING)) == "orders--billing--dlq"
    assert names.source(DeadLetters(BILLING)) == ("orders--billing--dlq", "dlq")


def test_long_names_are_cut_and_stay_apart() -> None:
    topic = Topic("a" * 34)
    made = {names.topic_name(DeadLetters(Subscription(topic, "b" * 33 + end))) for end in "xyz"}
    assert len(made) == 3
    assert {len(each) for each in made} == {50}
    assert all(each.startswith("a" * 30) and each.endswith("--dlq") for each in made)


def test_native_names() -> None:
    topic = Topic("orders", native={"name": "Orders-V2"})
    of = Subscription(
        topic, "billing", native={"name": "Bill", "dead_letter_topic": "dead", "dead_letter_subscription": "read"}
    )
    assert names.source(of) == ("Orders-V2", "Bill")
    assert names.source(DeadLetters(of)) == ("dead", "read")
    with pytest.raises(ConfigurationError, match="'no_name' is no name"):
        names.topic_name(Topic("orders", native={"name": "no_name"}))


# -- wire


def test_an_event_is_sent_as_it_is() -> None:
    event = ceb.CloudEvent(type="t", source="/s", data={"n": 7})
    attributes, body = wire.WIRE.encode(event)
    assert wire.pack(body, attributes) is body
    assert wire.unpack(body) == (STRUCTURED.structured, body)


def test_marks_travel_as_extensions_and_come_out_again() -> None:
    body = ceb.CloudEvent(type="t", source="/s", data={"cebtarget": 1}).to_json()
    marks = {TARGET: "billing", DEAD_LETTER: '{"reason":"\u00fc\\n"}'}
    sent = wire.pack(body, {"content-type": "application/cloudevents+json", **marks})
    assert msgspec.json.decode(sent)["cebtarget"] == "billing"
    attributes, found = wire.unpack(sent)
    assert found == body
    assert attributes == {"content-type": "application/cloudevents+json", **marks}


@pytest.mark.parametrize(
    ("body", "attributes"),
    [
        (bytes(range(256)), {"content-type": "application/cloudevents+json", "odd": "\u00fc'\""}),
        (b"", {}),
        (b'{"specversion":"1.0","id":"7"}', {"content-type": "application/cloudevents+json"}),
        (b"data", {"ce-id": "7", "ce-specversion": "1.0", "ce-type": "t", "ce-source": "/s"}),
    ],
)
def test_what_is_no_event_is_wrapped_in_one(body: bytes, attributes: dict[str, str]) -> None:
    sent = wire.pack(body, {**attributes, TARGET: "billing"})
    assert ceb.CloudEvent.from_json(sent).type == wire.MESSAGE_TYPE
    found, unwrapped = wire.unpack(sent)
    assert (unwrapped, found) == (body, {**attributes, TARGET: "billing"})


def test_what_looks_like_ours_and_is_not_stays_as_it_came() -> None:
    for raw in (b'{"cebmessage":"{}","id":"7"}', b'{"cebmessage":7,"data_base64":"!"}', b'"ceb', b'["ceb"]'):
        assert wire.unpack(raw)[1] == raw


def test_extensions_that_event_grid_refuses_are_refused_before() -> None:
    for name in ("a" * 21, "cebtarget"):
        with pytest.raises(InvalidArgumentError, match=name):
            wire.WIRE.encode(ceb.CloudEvent(type="t", source="/s", extensions={name: "x"}))
    wire.WIRE.encode(ceb.CloudEvent(type="t", source="/s", extensions={"a" * 20: "x"}))


# -- limits and settings


def test_delays_are_rounded_up_to_those_there_are() -> None:
    assert [rounded(each) for each in (0, 0.1, 10, 10.1, 60, 61, 600, 3600, 9999)] == [
        0, 10, 10, 60, 60, 600, 600, 3600, 3600,
    ]  # fmt: skip


def test_leases() -> None:
    for lease, made in ((1.5, 60), (60.0, 60), (60.1, 61), (300.0, 300)):
        assert settings.lease(Subscription(ORDERS, "billing", lease=lease), local=False) == made
    assert settings.lease(Subscription(ORDERS, "billing", lease=1.5), local=True) == 2
    connection = _connection()
    for wrong, said in (
        (Subscription(ORDERS, "billing", lease=301), "301 seconds"),
        (Subscription(ORDERS, "billing", max_attempts=10), "max_attempts"),
        (Subscription(ORDERS, "billing", native={"queue": "x"}), "native setting 'queue'"),
        (Subscription(Topic("orders", native={"name": ""}), "billing"), "native setting name"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            connection.open_subscriber(wrong)


def test_sizes_are_exact() -> None:
    publisher = _connection().open_publisher(ORDERS)
    bodies = [b"{%s}" % (b"x" * n) for n in (10, 200)]
    batch = b"[" + b",".join(bodies) + b"]"
    sizes = [publisher.size(Outbound(body, STRUCTURED.structured)) for body in bodies]
    assert sum(sizes) - publisher.traits.batch_bytes == len(batch) - 1024 * 1024


# -- for other tools


def test_topology_is_written() -> None:
    orders = ceb.Topic("orders", subscriptions=[ceb.Subscription("billing", lease=90, max_attempts=3)])
    with ceb.connect(f"azure-eventgrid://{HOST}", topics=[orders]) as broker:
        commands = broker.topology.export("commands").splitlines()
        with pytest.raises(UnsupportedError, match="terraform"):
            broker.topology.export("terraform")
    where = '--resource-group "$GROUP" --namespace-name acme'
    assert commands[1].startswith(f"az eventgrid namespace topic create {where} --name orders ")
    assert commands[2].startswith(f"az eventgrid namespace topic create {where} --name orders--billing--dlq ")
    assert '"receiveLockDurationInSeconds":90,"maxDeliveryCount":10,"eventTimeToLive":"P7D"' in commands[3]
    assert "--topic-name orders--billing--dlq --name dlq " in commands[4]
    assert len(commands) == 5


def test_nothing_is_made() -> None:
    connection = _connection()
    with pytest.raises(UnsupportedError, match="topology export bicep"):
        connection.topology.apply([])
    with pytest.raises(UnsupportedError, match="topology export bicep"):
        connection.topology.delete(ORDERS)
    connection.close()


def test_filters_of_the_declaration_are_passed_on() -> None:
    filters = {"includedEventTypes": ["it's", "${x}"]}
    of = Subscription(ORDERS, "billing", native={"filters": filters})
    topology = _connection().topology
    assert """ --filters-configuration '{"includedEventTypes":["it'"'"'s","${x}"]}'""" in topology.export(
        "commands", [of]
    )


@pytest.mark.parametrize(
    ("role", "assigned"),
    [
        ("publisher", ["EventGrid Data Sender"]),
        ("consumer", ["EventGrid Data Receiver", "EventGrid Data Sender"]),
        ("operator", ["EventGrid Data Receiver", "EventGrid Data Sender", "EventGrid Data Sender"]),
        ("provisioner", ["EventGrid Contributor", "EventGrid Data Contributor"]),
    ],
)
def test_least_roles(role: str, assigned: list[str]) -> None:
    lines = _connection().topology.policy(role, [ORDERS, BILLING]).splitlines()[1:]
    assert [line.partition('--role "')[2].partition('"')[0] for line in lines] == assigned
    with pytest.raises(UnsupportedError, match="consumer, operator"):
        _connection().topology.policy("owner", [])
