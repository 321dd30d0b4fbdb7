"""Both emulators together: what a custom topic is sent comes out of a queue, by Microsoft's own clients alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.credentials import AzureKeyCredential
from azure.core.messaging import CloudEvent
from azure.eventgrid import EventGridPublisherClient

from cloudevents_bridge_contract.emulators.eventgrid.launcher import KEY, Running, started
from cloudevents_bridge_contract.emulators.process import wait_until

if TYPE_CHECKING:
    from conftest import Bus


@pytest.fixture
def grid(bus: Bus) -> Iterator[Running]:
    """An emulator of Event Grid that delivers to the queues of that of Service Bus, with quick retries."""
    with started(f"--service-bus={bus.running.connection}", "--time-scale=0.01") as running:
        yield running


def _send(grid: Running, *events: CloudEvent[Any]) -> None:
    with EventGridPublisherClient(grid.custom_url("orders"), AzureKeyCredential(KEY)) as client:
        client.send(list(events))


def _take(bus: Bus, queue: str) -> Any:
    """The next message, completed."""
    with bus.client.get_queue_receiver(queue, prefetch_count=1) as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=10)
        receiver.complete_message(message)
    return message


def _destination(queue: str, **more: Any) -> dict[str, Any]:
    return {"endpointType": "ServiceBusQueue", "queue": queue, **more}


def test_an_event_goes_through_to_each_queue_that_wants_it(bus: Bus, grid: Running) -> None:
    all_, some = bus.queue(), bus.queue()
    grid.make_custom("orders")
    grid.subscribe("orders", "billing", destination=_destination(all_))
    grid.subscribe("orders", "audit", destination=_destination(some), filter={"includedEventTypes": ["b"]})
    _send(grid, CloudEvent("/shop", "a", data={"n": 1}, id="1"), CloudEvent("/shop", "b", data={"n": 2}, id="2"))
    found = {json.loads(b"".join(_take(bus, all_).body))["id"] for _ in range(2)}
    message = _take(bus, some)
    event = json.loads(b"".join(message.body))
    assert found == {"1", "2"}
    assert (event["id"], event["type"], event["data"]) == ("2", "b", {"n": 2})
    assert message.content_type == "application/cloudevents+json; charset=utf-8"
    assert message.application_properties[b"aeg-subscription-name"] == b"AUDIT"
    assert message.application_properties[b"aeg-delivery-count"] == b"0"


def test_a_queue_that_is_made_later_gets_what_waited_for_it(bus: Bus, grid: Running) -> None:
    grid.make_custom("orders")
    grid.subscribe("orders", "billing", destination=_destination("later"))
    _send(grid, CloudEvent("/shop", "a", id="1"))
    assert wait_until(lambda: grid.admin("GET", "custom/orders/billing")["events"] == 1, 10)
    bus.admin.create_queue("later")
    message = _take(bus, "later")
    assert json.loads(b"".join(message.body))["id"] == "1"


def test_a_session_comes_from_the_event(bus: Bus, grid: Running) -> None:
    queue = bus.queue(requires_session=True)
    grid.make_custom("orders")
    mapping = {"name": "SessionId", "type": "Dynamic", "sourceField": "subject"}
    grid.subscribe("orders", "billing", destination=_destination(queue, deliveryAttributeMappings=[mapping]))
    _send(grid, CloudEvent("/shop", "a", id="1", subject="order-7"))
    with bus.client.get_queue_receiver(queue, session_id="order-7", prefetch_count=1) as receiver:
        (message,) = receiver.receive_messages(1, max_wait_time=10)
        receiver.complete_message(message)
    assert message.session_id == "order-7"
