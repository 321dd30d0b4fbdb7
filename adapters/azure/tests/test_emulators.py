"""Emulators in the background: that the environment of Azure's leads programs to them."""

from __future__ import annotations

import http.client
import json
import os
import uuid
from collections.abc import Iterator, Mapping

import pytest

from cloudevents_bridge import Broker, CloudEvent, Topic, connect
from cloudevents_bridge_contract.azure import ADMINISTRATION_VARIABLE, HOST_VARIABLE, ServiceBusRig
from cloudevents_bridge_contract.emulators.catalog import CLOUDS, CannotStartError
from cloudevents_bridge_contract.emulators.servicebus import launcher
from cloudevents_bridge_contract.eventgrid import EventGridTopicRig
from cloudevents_bridge_contract.rig import NotRun, Rig


@pytest.fixture(scope="module")
def environment() -> Iterator[Mapping[str, str]]:
    try:
        with CLOUDS["azure"]() as environment:
            yield environment
    except CannotStartError as missing:
        pytest.skip(f"not run: {missing}")


@pytest.fixture
def led(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """A process with this environment, and with no other of Azure's."""
    for name in [each for each in os.environ if each.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return environment


def _travels(broker: Broker, topic: Topic) -> None:
    sent = CloudEvent(type="t", source="/s")
    broker.publish(topic.name, sent)
    with broker.subscriber(topic.name, topic.subscriptions[0].name) as subscriber:
        [delivery] = subscriber.receive(1, wait=20)
        assert delivery.event.id == sent.id
        delivery.ack()


def _declared() -> Topic:
    return Topic(f"led-{uuid.uuid4().hex[:8]}", subscriptions=["reader"])


def test_programs_are_led_to_service_bus(led: Mapping[str, str]) -> None:
    topic = _declared()
    with connect(led["AZURE_SERVICEBUS_URL"], topics=[topic], create_missing=True) as broker:
        _travels(broker, topic)


def test_programs_of_the_sdk_are_led_to_service_bus(led: Mapping[str, str]) -> None:
    from azure.servicebus import ServiceBusClient, ServiceBusMessage

    topic = _declared()
    with connect(led["AZURE_SERVICEBUS_URL"], topics=[topic], create_missing=True) as broker:
        broker.topology.apply()
        access = led["AZURE_SERVICEBUS_CONNECTION_STRING"]
        with ServiceBusClient.from_connection_string(access) as client, client.get_topic_sender(topic.name) as sender:
            sender.send_messages(ServiceBusMessage(b"{}"))


def test_the_suite_goes_where_the_environment_says(led: Mapping[str, str]) -> None:
    """To an emulator like Microsoft's, which is known by its connection string and has its administration apart."""
    named = {
        HOST_VARIABLE: led["AZURE_SERVICEBUS_CONNECTION_STRING"].partition("//")[2].partition(";")[0],
        ADMINISTRATION_VARIABLE: led["AZURE_SERVICEBUS_URL"].rpartition("administration=")[2],
    }
    rig, topic = ServiceBusRig(named), _declared()
    with rig.start() as url, connect(url, topics=[topic]) as broker:
        rig.create(broker, topic)
        _travels(broker, topic)
        sent = CloudEvent(type="t", source="/s", data={"n": 1})
        rig.native_send(url, topic, rig.native_form(sent))
        with broker.subscriber(topic.name, "reader") as subscriber:
            [delivery] = subscriber.receive(1, wait=20)
            assert delivery.event.replace(time=None) == sent.replace(time=None)
            delivery.ack()
        rig.remove(broker, topic)


def test_programs_are_led_to_event_grid(led: Mapping[str, str]) -> None:
    topic = _declared()
    for path in (f"topics/{topic.name}", f"topics/{topic.name}/reader"):
        assert _admin(led, "PUT", path) == 200
    with connect(led["AZURE_EVENTGRID_URL"], topics=[topic]) as broker:
        _travels(broker, topic)


def test_custom_topics_deliver_to_its_queues(led: Mapping[str, str]) -> None:
    from azure.servicebus import ServiceBusClient
    from azure.servicebus.management import ServiceBusAdministrationClient

    from cloudevents_bridge_contract.emulators.servicebus.sdk import Plain

    name = f"led-{uuid.uuid4().hex[:8]}"
    access = led["AZURE_SERVICEBUS_CONNECTION_STRING"]
    administration = led["AZURE_SERVICEBUS_URL"].rpartition("administration=")[2]
    with ServiceBusAdministrationClient.from_connection_string(access, transport=Plain(administration)) as client:
        client.create_queue(name)
    destination = {"destination": {"endpointType": "ServiceBusQueue", "queue": name}}
    assert _admin(led, "PUT", f"custom/{name}") == 200
    assert _admin(led, "PUT", f"custom/{name}/reader", destination) == 200
    sent = CloudEvent(type="t", source="/s")
    head = {"Content-Type": "application/cloudevents-batch+json", "aeg-sas-key": led["AZURE_EVENTGRID_KEY"]}
    assert _post(led, "POST", f"/{name}/api/events?api-version=2018-01-01", b"[%b]" % sent.to_json(), head) == 200
    with ServiceBusClient.from_connection_string(access) as client, client.get_queue_receiver(name) as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=20)
        assert CloudEvent.from_json(b"".join(message.body)).id == sent.id


def test_programs_are_led_to_custom_topics(led: Mapping[str, str]) -> None:
    topic = _declared()
    queue = f"{topic.name}--reader"
    with connect(led["AZURE_EVENTGRID_TOPIC_URL"], topics=[topic]) as broker:
        broker.native.administration.create_queue(queue)
        destination = {"destination": {"endpointType": "ServiceBusQueue", "queue": queue}}
        assert _admin(led, "PUT", f"custom/{topic.name}") == 200
        assert _admin(led, "PUT", f"custom/{topic.name}/reader", destination) == 200
        _travels(broker, topic)


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CannotStartError) as caught, CLOUDS["azure"]():
        pass
    assert launcher.INSTALL in str(caught.value)


@pytest.mark.parametrize("rig", [ServiceBusRig({}), EventGridTopicRig()], ids=lambda rig: rig.name)
def test_cases_are_not_run_where_proton_is_missing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotRun, match="python-qpid-proton") as caught, rig.start():
        pass
    assert launcher.INSTALL in str(caught.value)


def _admin(led: Mapping[str, str], method: str, path: str, body: Mapping[str, object] | None = None) -> int:
    return _post(led, method, f"/admin/{path}", json.dumps(body or {}).encode(), {"Content-Type": "application/json"})


def _post(led: Mapping[str, str], method: str, path: str, body: bytes, head: Mapping[str, str]) -> int:
    connection = http.client.HTTPConnection(led["AZURE_EVENTGRID_ENDPOINT"].partition("://")[2], timeout=30)
    try:
        connection.request(method, path, body, dict(head))
        return connection.getresponse().status
    finally:
        connection.close()
