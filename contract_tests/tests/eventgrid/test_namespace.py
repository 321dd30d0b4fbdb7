"""A namespace topic, driven by Microsoft's own clients: publish, receive, and what settles."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.core.messaging import CloudEvent
from azure.core.rest import HttpRequest
from azure.eventgrid import EventGridConsumerClient
from eventgrid.running import CREDENTIAL, QUICK, Token, consumer, publisher

from cloudevents_bridge_contract.emulators.eventgrid.launcher import Running, started
from cloudevents_bridge_contract.emulators.process import wait_until


def _event(number: int = 7, **options: Any) -> CloudEvent[Any]:
    return CloudEvent(source="/shop", type="order.created", data={"id": number}, id=f"e-{number}", **options)


def _raw(client: Any, path: str, content: bytes, media: str = "application/json", **params: Any) -> Any:
    """One request of ours over the SDK's client, which authenticates it."""
    request = HttpRequest(
        "POST", path, params={"api-version": "2024-06-01", **params}, headers={"content-type": media}, content=content
    )
    return client.send_request(request)


def test_event_goes_through_and_is_acknowledged(emulator: Running, topic: str) -> None:
    with publisher(emulator, topic) as sender, consumer(emulator, topic, "billing") as receiver:
        sender.send(_event(subject="o/7", extensions={"partitionkey": "k"}))
        (received,) = receiver.receive(max_events=10, max_wait_time=10)
        assert (received.event.id, received.event.data, received.event.subject) == ("e-7", {"id": 7}, "o/7")
        assert received.event.extensions == {"partitionkey": "k"}
        assert received.broker_properties.delivery_count == 1
        token = received.broker_properties.lock_token
        assert receiver.acknowledge(lock_tokens=[token]).succeeded_lock_tokens == [token]
    assert emulator.admin("GET", f"topics/{topic}/billing")["events"] == 0


def test_bytes_are_data_base64(emulator: Running, topic: str) -> None:
    with publisher(emulator, topic) as sender, consumer(emulator, topic, "billing") as receiver:
        sender.send(CloudEvent(source="/shop", type="order.created", data=b"\x00\xff"))
        (received,) = receiver.receive(max_wait_time=10)
        assert received.event.data == b"\x00\xff"


def test_every_subscription_gets_every_event_in_order(emulator: Running, topic: str) -> None:
    emulator.make_subscription(topic, "audit")
    with publisher(emulator, topic) as sender:
        sender.send([_event(number) for number in range(150)])
    for name in ("billing", "audit"):
        with consumer(emulator, topic, name) as receiver:
            got = [receiver.receive(max_events=100, max_wait_time=10) for _ in range(2)]
        assert [len(each) for each in got] == [100, 50]
        assert [each.event.data["id"] for batch in got for each in batch] == list(range(150))


@pytest.mark.parametrize("media", ["application/cloudevents+json", "application/cloudevents-batch+json"])
def test_raw_bytes_stay_as_they_are(emulator: Running, topic: str, media: str) -> None:
    sent = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n":1234567890123456789.10,"n":1}}'
    with publisher(emulator, topic) as sender, consumer(emulator, topic, "billing") as receiver:
        body = b"[" + sent + b"]" if "batch" in media else sent
        answer = _raw(sender, f"/topics/{topic}:publish", body, media + "; charset=utf-8")
        assert (answer.status_code, answer.json()) == (200, {})
        answer = _raw(receiver, f"/topics/{topic}/eventsubscriptions/billing:receive", b"", maxEvents=1)
        assert sent in answer.read()


def test_binary_mode(emulator: Running, topic: str) -> None:
    with publisher(emulator, topic) as sender, consumer(emulator, topic, "billing") as receiver:
        headers = {
            "ce-specversion": "1.0",
            "ce-id": "1",
            "ce-source": "/s",
            "ce-type": "t%20u",
            "content-type": "text/plain",
        }
        request = HttpRequest(
            "POST", f"/topics/{topic}:publish", params={"api-version": "2024-06-01"}, headers=headers, content=b"hello"
        )
        assert sender.send_request(request).status_code == 200
        (received,) = receiver.receive(max_wait_time=10)
    assert (received.event.type, received.event.data, received.event.datacontenttype) == ("t u", b"hello", "text/plain")


def test_waiting_receive_wakes_at_once(emulator: Running, topic: str) -> None:
    got: list[Any] = []

    def receive() -> None:
        with consumer(emulator, topic, "billing") as receiver:
            got.extend(receiver.receive(max_events=5, max_wait_time=60))

    thread = threading.Thread(target=receive)
    thread.start()
    assert wait_until(lambda: emulator.admin("GET", f"topics/{topic}/billing")["receivers"] == 1, 10)
    began = time.monotonic()
    with publisher(emulator, topic) as sender:
        sender.send(_event())
    thread.join(20)
    assert len(got) == 1
    assert time.monotonic() - began < 15  # of the sixty seconds that it would have waited


def test_lock_that_expires_gives_the_event_again_and_loses_the_token(emulator: Running, topic: str) -> None:
    emulator.make_subscription(topic, "brief", receiveLockDurationInSeconds=0.3)
    with publisher(emulator, topic) as sender, consumer(emulator, topic, "brief") as receiver:
        sender.send(_event())
        (first,) = receiver.receive(max_wait_time=10)
        (second,) = receiver.receive(max_wait_time=10)
        assert second.broker_properties.delivery_count == 2
        lost = first.broker_properties.lock_token
        result = receiver.acknowledge(lock_tokens=[lost, "no token"])
    assert result.succeeded_lock_tokens == []
    failed = [(each.lock_token, each.error.code) for each in result.failed_lock_tokens]
    assert failed == [(lost, "TokenLost"), ("no token", "BadToken")]


def test_lock_is_renewed(emulator: Running, topic: str) -> None:
    with publisher(emulator, topic) as sender, consumer(emulator, topic, "billing") as receiver:
        sender.send(_event())
        (received,) = receiver.receive(max_wait_time=10)
        token = received.broker_properties.lock_token
        assert receiver.renew_locks(lock_tokens=[token]).succeeded_lock_tokens == [token]
        receiver.acknowledge(lock_tokens=[token])
        (failed,) = receiver.renew_locks(lock_tokens=[token]).failed_lock_tokens
    assert failed.error.code == "TokenLost"


def test_released_event_comes_back_after_the_delay(emulator: Running, topic: str) -> None:
    emulator.make_subscription(topic, "slow", receiveLockDurationInSeconds=60, timeScale=0.1)
    with publisher(emulator, topic) as sender, consumer(emulator, topic, "slow") as receiver:
        sender.send([_event(1), _event(2)])
        first, second = receiver.receive(max_events=2, max_wait_time=10)
        began = time.monotonic()
        receiver.release(lock_tokens=[first.broker_properties.lock_token], release_delay=10)
        receiver.release(lock_tokens=[second.broker_properties.lock_token])
        (again,) = receiver.receive(max_events=2, max_wait_time=10)
        assert (again.event.id, again.broker_properties.delivery_count) == ("e-2", 2)
        (again,) = receiver.receive(max_events=2, max_wait_time=10)
        assert again.event.id == "e-1"
        assert 1.0 <= time.monotonic() - began < 9.0  # ten seconds, ten times as fast


def test_rejected_event_is_a_dead_letter(emulator: Running, topic: str) -> None:
    with publisher(emulator, topic) as sender, consumer(emulator, topic, "billing") as receiver:
        sender.send(_event())
        (received,) = receiver.receive(max_wait_time=10)
        receiver.reject(lock_tokens=[received.broker_properties.lock_token])
    (letter,) = emulator.dead_letters(topic, "billing")
    assert letter["event"]["id"] == "e-7"
    assert (letter["deadletterProperties"]["deadletterreason"], letter["deadletterProperties"]["deliveryattempts"]) == (
        "Event was rejected.",
        1,
    )
    assert emulator.admin("GET", f"topics/{topic}/billing")["events"] == 0


def test_event_delivered_too_often_is_a_dead_letter(emulator: Running, topic: str) -> None:
    emulator.make_subscription(topic, "twice", **QUICK, maxDeliveryCount=2)
    with publisher(emulator, topic) as sender, consumer(emulator, topic, "twice") as receiver:
        sender.send(_event())
        for _ in range(2):
            (received,) = receiver.receive(max_wait_time=10)
            receiver.release(lock_tokens=[received.broker_properties.lock_token])
    (letter,) = emulator.dead_letters(topic, "twice")
    assert letter["deadletterProperties"]["deadletterreason"] == "Maximum delivery attempts was exceeded."


def test_event_that_expires_is_a_dead_letter(emulator: Running, topic: str) -> None:
    emulator.make_subscription(topic, "brief", **QUICK, eventTimeToLive="PT0.2S")
    with publisher(emulator, topic) as sender:
        sender.send(_event())
    path = f"topics/{topic}/brief"
    assert wait_until(lambda: emulator.admin("GET", path)["events"] == 0, 10)
    (letter,) = emulator.dead_letters(topic, "brief")
    assert letter["deadletterProperties"]["deadletterreason"] == "Time to live was exceeded."


def test_without_a_container_what_is_given_up_on_is_dropped(emulator: Running, topic: str) -> None:
    emulator.make_subscription(topic, "careless")
    with publisher(emulator, topic) as sender, consumer(emulator, topic, "careless") as receiver:
        sender.send(_event())
        (received,) = receiver.receive(max_wait_time=10)
        receiver.reject(lock_tokens=[received.broker_properties.lock_token])
    assert emulator.dead_letters(topic, "careless") == []


def test_filters(emulator: Running, topic: str) -> None:
    filters = {"filters": [{"operatorType": "NumberGreaterThan", "key": "data.id", "value": 3}]}
    emulator.make_subscription(topic, "some", filtersConfiguration=filters)
    with publisher(emulator, topic) as sender, consumer(emulator, topic, "some") as receiver:
        sender.send([_event(number) for number in range(6)])
        got = receiver.receive(max_events=10, max_wait_time=10)
    assert [each.event.data["id"] for each in got] == [4, 5]


@pytest.mark.parametrize(("most", "wait"), [(0, 10), (101, 10), (1, 9), (1, 121)])
def test_bounds_of_receive(emulator: Running, topic: str, most: int, wait: int) -> None:
    with consumer(emulator, topic, "billing") as receiver, pytest.raises(HttpResponseError) as caught:
        receiver.receive(max_events=most, max_wait_time=wait)
    assert caught.value.status_code == 400
    assert caught.value.error is not None
    assert caught.value.error.code == "BadRequest"


def test_release_delay_is_one_of_five(emulator: Running, topic: str) -> None:
    with consumer(emulator, topic, "billing") as receiver, pytest.raises(HttpResponseError) as caught:
        receiver.release(lock_tokens=["x"], release_delay=11)
    assert caught.value.status_code == 400


def test_what_is_not_there(emulator: Running, topic: str, name: str) -> None:
    with publisher(emulator, name) as sender, pytest.raises(ResourceNotFoundError):
        sender.send(_event())
    with consumer(emulator, topic, "nobody") as receiver, pytest.raises(ResourceNotFoundError):
        receiver.receive(max_wait_time=10)


def test_wrong_key(emulator: Running, topic: str) -> None:
    from azure.core.credentials import AzureKeyCredential

    with publisher(emulator, topic, AzureKeyCredential("d3Jvbmc=")) as sender, pytest.raises(ClientAuthenticationError):
        sender.send(_event())


def test_tokens() -> None:
    with started("--token=right") as running:
        running.make_topic("orders")
        with publisher(running, "orders", Token("right")) as sender:
            sender.send(_event(), enforce_https=False)
        with publisher(running, "orders", Token("wrong")) as sender, pytest.raises(ClientAuthenticationError):
            sender.send(_event(), enforce_https=False)


def test_request_is_at_most_one_megabyte(emulator: Running, topic: str) -> None:
    frame = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":"%s"}'
    room = 1024 * 1024 - len(frame % b"")
    with publisher(emulator, topic) as sender:
        path, media = f"/topics/{topic}:publish", "application/cloudevents+json"
        assert _raw(sender, path, frame % (b"x" * room), media).status_code == 200
        answer = _raw(sender, path, frame % (b"x" * (room + 1)), media)
    assert answer.status_code == 413
    assert answer.headers["x-ms-error-code"] == answer.json()["error"]["code"] == "PayloadTooLarge"


def test_request_has_at_most_a_thousand_events(emulator: Running, topic: str) -> None:
    with publisher(emulator, topic) as sender:
        sender.send([_event(number) for number in range(1000)])
        with pytest.raises(HttpResponseError) as caught:
            sender.send([_event(number) for number in range(1001)])
    assert caught.value.status_code == 413


BROKEN = [
    {"id": "1", "source": "/s", "specversion": "1.0"},
    {"id": "", "source": "/s", "type": "t", "specversion": "1.0"},
    {"id": "1", "source": "/s", "type": "t", "specversion": "0.3"},
    {"id": "1", "source": "/s", "type": "t", "specversion": "1.0", "Upper": "x"},
    {"id": "1", "source": "/s", "type": "t", "specversion": "1.0", "ext": {"a": 1}},
    {"id": "1", "source": "/s", "type": "t", "specversion": "1.0", "data": 1, "data_base64": "AA=="},
    {"id": 1, "source": "/s", "type": "t", "specversion": "1.0"},
]


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_no_event_is_refused_with_its_batch(emulator: Running, topic: str, broken: dict[str, Any]) -> None:
    good = {"id": "1", "source": "/s", "type": "t", "specversion": "1.0"}
    with publisher(emulator, topic) as sender:
        body = json.dumps([good, broken]).encode()
        answer = _raw(sender, f"/topics/{topic}:publish", body, "application/cloudevents-batch+json")
    assert answer.status_code == 400
    assert emulator.admin("GET", f"topics/{topic}/billing")["events"] == 0


@pytest.mark.parametrize(
    ("body", "media"),
    [(b"[", "application/cloudevents-batch+json"), (b"[]", "application/cloudevents-batch+json"), (b"x", "text/plain")],
)
def test_what_is_no_batch_is_refused(emulator: Running, topic: str, body: bytes, media: str) -> None:
    with publisher(emulator, topic) as sender:
        assert _raw(sender, f"/topics/{topic}:publish", body, media).status_code == 400


def test_version_is_required(emulator: Running, topic: str) -> None:
    client = EventGridConsumerClient(
        emulator.url, CREDENTIAL, namespace_topic=topic, subscription="billing", api_version="2020-01-01", retry_total=0
    )
    with client, pytest.raises(HttpResponseError) as caught:
        client.receive(max_wait_time=10)
    assert caught.value.status_code == 400


def test_connection_that_is_closed_while_it_waits_takes_nothing(emulator: Running, topic: str) -> None:
    with consumer(emulator, topic, "billing") as receiver, pytest.raises(Exception, match=r"[Tt]imed out"):
        receiver.receive(max_wait_time=60, read_timeout=0.2)
    with publisher(emulator, topic) as sender, consumer(emulator, topic, "billing") as receiver:
        sender.send(_event())
        (received,) = receiver.receive(max_wait_time=10)
    assert received.broker_properties.delivery_count == 1


def test_faults_and_counts() -> None:
    with started() as running, publisher(running, "orders") as sender:
        running.make_topic("orders")
        running.fail("publish", 503, "ServerBusy", times=2, retry_after=1)
        for _ in range(2):
            with pytest.raises(HttpResponseError) as caught:
                sender.send(_event())
            assert caught.value.status_code == 503
            response: Any = caught.value.response
            assert response.headers["Retry-After"] == "1"
        sender.send(_event())
        assert running.requests() == {"publish": 3}


def test_many_consumers_get_each_event_once(emulator: Running, topic: str) -> None:
    emulator.make_subscription(topic, "many")
    got: list[int] = []

    def consume() -> None:
        with consumer(emulator, topic, "many") as receiver:
            while (state := emulator.admin("GET", f"topics/{topic}/many"))["events"] > state["locked"]:
                received = receiver.receive(max_events=30, max_wait_time=10)
                if received:
                    receiver.acknowledge(lock_tokens=[each.broker_properties.lock_token for each in received])
                    got.extend(each.event.data["id"] for each in received)

    with publisher(emulator, topic) as sender:
        sender.send([_event(number) for number in range(1000)])
    threads = [threading.Thread(target=consume, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(got) == list(range(1000))


def test_shorter_waits_where_told_to(emulator: Running, topic: str) -> None:
    def status(client: Any, name: str, wait: str) -> int:
        answer = _raw(
            client, f"/topics/{name}/eventsubscriptions/billing:receive", b"", maxEvents="1", maxWaitTime=wait
        )
        return int(answer.status_code)

    with consumer(emulator, topic, "billing") as receiver:
        assert [status(receiver, topic, wait) for wait in ("9", "9.9", "0", "x", "121")] == [400] * 5
    with started("--shortest-wait=0.2") as quick:
        quick.make_topic("orders")
        quick.make_subscription("orders", "billing")
        with consumer(quick, "orders", "billing") as receiver:
            assert [status(receiver, "orders", wait) for wait in ("0.1", "0.", ".5", "-1", "0.2.3")] == [400] * 5
            began = time.monotonic()
            assert status(receiver, "orders", "0.2") == 200
            assert 0.2 <= time.monotonic() - began < 9
