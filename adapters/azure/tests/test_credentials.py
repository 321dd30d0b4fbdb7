"""An identity instead of a key: what its tokens are asked for, where they go, and that nobody logs them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest
from azure.core.credentials import AccessToken

import cloudevents_bridge as ceb
from cloudevents_bridge.config.urls import parse_url
from cloudevents_bridge_azure.servicebus import options, sdk
from cloudevents_bridge_contract.azure import CONNECTION_VARIABLE
from cloudevents_bridge_contract.emulators.eventgrid import launcher as eventgrid
from cloudevents_bridge_contract.emulators.servicebus import launcher as servicebus
from cloudevents_bridge_contract.eventgrid import KEY_VARIABLE

TOKEN = "t0ken-that-nobody-may-see"
GRID = "https://eventgrid.azure.net/.default"
BUS = "https://servicebus.azure.net//.default"  # as all of Microsoft's clients ask for it
ORDERS = ceb.Topic("orders", subscriptions=["billing"])


class Identity:
    """Any credential of azure.identity."""

    def __init__(self) -> None:
        self.scopes: set[str] = set()
        self.closed = False

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes.update(scopes)
        return AccessToken(TOKEN, int(time.time()) + 3600)

    def close(self) -> None:
        self.closed = True


class Urls(NamedTuple):
    """Of the emulators, by scheme."""

    azure_eventgrid: str
    azure_eventgrid_topic: str
    azure_servicebus: str


@pytest.fixture(scope="module")
def urls() -> Iterator[Urls]:
    with ExitStack() as stack:
        try:
            bus = stack.enter_context(servicebus.started())
        except servicebus.Missing as missing:
            pytest.skip(f"not run: {missing}")
        grid = stack.enter_context(
            eventgrid.started("--shortest-wait=0.2", f"--service-bus={bus.connection}", "--time-scale=0.02")
        )
        grid.make_topic("orders")
        grid.make_subscription("orders", "billing")
        grid.make_custom("orders")
        queues = f"amqp://{bus.server.address}"
        custom = f"endpoint={grid.url}&servicebus=ceb&servicebus_endpoint={queues}"
        made = Urls(
            f"azure-eventgrid://emulator?endpoint={grid.url}&wait=0.2",
            f"azure-eventgrid-topic://emulator?{custom}&servicebus_administration={bus.administration}",
            f"azure-servicebus://ceb?endpoint={queues}&administration={bus.administration}",
        )
        with ceb.connect(made.azure_servicebus, topics=[ORDERS]) as broker:
            broker.topology.apply()
            broker.native.administration.create_queue("orders--billing")
        grid.subscribe("orders", "billing", destination={"endpointType": "ServiceBusQueue", "queue": "orders--billing"})
        yield made


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv(CONNECTION_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("scheme", "scopes"),
    [("azure_eventgrid", {GRID}), ("azure_eventgrid_topic", {GRID, BUS}), ("azure_servicebus", {BUS})],
)
def test_an_identity_is_asked_for_the_service_and_its_token_is_not_logged(
    urls: Urls, scheme: str, scopes: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("azure").debug("what the SDK says is heard")
    identity = Identity()
    with ceb.connect(getattr(urls, scheme), topics=[ORDERS], credential=identity) as broker:
        assert identity.scopes == set(), "a token was asked for before anything was done"
        broker.publish("orders", ceb.CloudEvent(type="t", source="/s", id="1"))
        with broker.subscriber("orders", "billing") as subscriber:
            [delivery] = subscriber.receive(1, wait=20)
            delivery.ack()
        assert delivery.event.id == "1"
        assert identity.scopes == scopes
        assert TOKEN not in repr(broker)
    assert not identity.closed, "it is the program's, which may use it elsewhere"
    assert caplog.records
    assert [each for each in caplog.records if TOKEN in f"{each.getMessage()} {each.__dict__}"] == []


def test_the_administration_of_service_bus_asks_for_the_service_too(urls: Urls) -> None:
    identity = Identity()
    with ceb.connect(urls.azure_servicebus, topics=[ORDERS], credential=identity) as broker:
        broker.topology.apply()
    assert identity.scopes == {BUS}


def test_without_a_key_event_grid_asks_the_default_credential_and_closes_it(
    urls: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Identity] = []

    def make() -> Identity:
        made.append(Identity())
        return made[-1]

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", make)
    with ceb.connect(urls.azure_eventgrid, topics=[ORDERS]) as broker:
        broker.publish("orders", ceb.CloudEvent(type="t", source="/s", id="1"))
        broker.native.publisher("orders").close()
        assert [(each.scopes, each.closed) for each in made] == [({GRID}, False)]
    assert [each.closed for each in made] == [True]


def test_without_a_key_service_bus_asks_the_default_credential_and_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Identity] = []

    def make() -> Identity:
        made.append(Identity())
        return made[-1]

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", make)
    client = sdk.Client(options.read(parse_url("azure-servicebus://shop.servicebus.windows.net"), {}, {}))
    assert made == []
    assert client.credential is client.credential is made[0]
    client.close()
    assert [each.closed for each in made] == [True]
