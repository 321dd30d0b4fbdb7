"""The admin API, the settings, and what the server makes of requests that no SDK sends."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.messaging import CloudEvent
from eventgrid.running import QUICK, consumer, publisher

from cloudevents_bridge_contract.emulators.eventgrid.launcher import KEY, AdminError, Running
from cloudevents_bridge_contract.emulators.eventgrid.problems import Problem
from cloudevents_bridge_contract.emulators.eventgrid.settings import pull_settings, seconds
from cloudevents_bridge_contract.emulators.process import wait_until


def test_topics_and_subscriptions_come_and_go(emulator: Running, topic: str) -> None:
    emulator.make_subscription(topic, "audit")
    emulator.make_topic(topic)
    assert emulator.admin("GET", f"topics/{topic}") == {"name": topic, "subscriptions": ["audit", "billing"]}
    emulator.admin("DELETE", f"topics/{topic}/audit")
    assert emulator.admin("GET", f"topics/{topic}")["subscriptions"] == ["billing"]
    emulator.admin("DELETE", f"topics/{topic}")
    for method in ("GET", "DELETE"):
        with pytest.raises(AdminError) as caught:
            emulator.admin(method, f"topics/{topic}")
        assert caught.value.status == 404


def test_topic_has_at_most_500_subscriptions(emulator: Running, topic: str) -> None:
    for number in range(499):
        emulator.make_subscription(topic, f"other-{number}")
    with pytest.raises(AdminError, match="500"):
        emulator.make_subscription(topic, "too-many")
    emulator.make_subscription(topic, "billing")


def test_state_of_a_subscription(emulator: Running, topic: str) -> None:
    with publisher(emulator, topic) as sender, consumer(emulator, topic, "billing") as receiver:
        sender.send([CloudEvent(source="/s", type="t") for _ in range(3)])
        receiver.receive(max_events=2, max_wait_time=10)
    expected = {"name": "billing", "provisioningState": "Succeeded", "events": 3, "locked": 2, "receivers": 0}
    assert emulator.admin("GET", f"topics/{topic}/billing") == expected


@pytest.mark.parametrize("name", ["ab", "a" * 51, "with space", "under_score"])
def test_names_are_checked(emulator: Running, name: str) -> None:
    with pytest.raises(AdminError, match="3 to 50"):
        emulator.make_topic(name.replace(" ", "%20"))


def test_dead_letters_lie_where_the_service_puts_them(emulator: Running, topic: str) -> None:
    emulator.make_subscription(topic, "other", **QUICK)
    with publisher(emulator, topic) as sender, consumer(emulator, topic, "billing") as receiver:
        sender.send([CloudEvent(source="/s", type="t", id=str(number)) for number in range(3)])
        received = receiver.receive(max_events=3, max_wait_time=10)
        receiver.reject(lock_tokens=[each.broker_properties.lock_token for each in received])
    assert [each["event"]["id"] for each in emulator.dead_letters(topic, "billing")] == ["0", "1", "2"]
    assert emulator.dead_letters(topic, "other") == []


@pytest.mark.parametrize(
    ("given", "strict"),
    [
        ({"receiveLockDurationInSeconds": 59}, True),
        ({"receiveLockDurationInSeconds": 301}, False),
        ({"receiveLockDurationInSeconds": 0}, False),
        ({"receiveLockDurationInSeconds": "soon"}, False),
        ({"maxDeliveryCount": 11}, False),
        ({"maxDeliveryCount": 0}, False),
        ({"eventTimeToLive": "P8D"}, False),
        ({"eventTimeToLive": "PT59S"}, True),
        ({"timeScale": 0.5}, True),
        ({"filtersConfiguration": []}, True),
        ({"filtersConfiguration": [1]}, False),
        ({"lock": 60}, False),
    ],
)
def test_settings_that_are_refused(given: dict[str, Any], strict: bool) -> None:
    if given == {"filtersConfiguration": []}:
        assert pull_settings(given, scale=1.0, strict=strict).lock == 60
        return
    with pytest.raises(Problem):
        pull_settings(given, scale=1.0, strict=strict)


def test_settings_have_the_services_defaults() -> None:
    settings = pull_settings({}, scale=0.1, strict=False)
    assert (settings.lock, settings.max_count, settings.ttl, settings.time_scale) == (60, 10, 7 * 86_400, 0.1)


@pytest.mark.parametrize(("text", "expected"), [("PT1M", 60), ("P1DT2H3M4.5S", 93_784.5), (7, 7)])
def test_durations(text: Any, expected: float) -> None:
    assert seconds(text) == expected


@pytest.fixture
def connection(emulator: Running) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(emulator.url.removeprefix("http://"), timeout=10)
    yield connection
    connection.close()


def test_chunked_body_on_a_connection_that_is_kept(
    emulator: Running, topic: str, connection: http.client.HTTPConnection
) -> None:
    event = json.dumps({"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}).encode()
    headers = {"Authorization": f"SharedAccessKey {KEY}", "Content-Type": "application/cloudevents+json"}
    for _ in range(2):
        path = f"/topics/{topic}:publish?api-version=2024-06-01"
        connection.request("POST", path, iter([event[:9], event[9:]]), headers, encode_chunked=True)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"{}")
    assert emulator.admin("GET", f"topics/{topic}/billing")["events"] == 2


def test_who_expects_to_be_asked_for_the_body_is_asked(emulator: Running, topic: str) -> None:
    event = b'{"specversion":"1.0","id":"1","source":"/s","type":"t"}'
    head = (
        f"POST /topics/{topic}:publish?api-version=2024-06-01 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        f"Authorization: SharedAccessKey {KEY}\r\nContent-Type: application/cloudevents+json\r\n"
        f"Content-Length: {len(event)}\r\n\r\n"
    )
    host, _, port = emulator.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(head.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(event)
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("name", ["Authorization", "aeg-sas-key", "aeg-sas-token"])
def test_credentials_beyond_ascii_are_only_wrong(
    emulator: Running, name: str, connection: http.client.HTTPConnection
) -> None:
    connection.request("POST", "/x/api/events", headers={name: "SharedAccessSignature é"})
    assert connection.getresponse().status == 401


def test_program_ends_when_it_is_told_to(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cloudevents_bridge_contract.emulators.eventgrid", "--port=0", "--key=c2VjcmV0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as program:
        assert program.stdout is not None
        said = program.stdout.readline()
        program.terminate()
        assert program.wait(20) == 0
    assert re.fullmatch(r"Event Grid on http://127.0.0.1:\d+, access key c2VjcmV0\n", said)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/topics/x:publish", 405),
        ("POST", "/admin/none", 404),
        ("POST", "/x/api/events", 401),
    ],
)
def test_what_nobody_asks(connection: http.client.HTTPConnection, method: str, path: str, status: int) -> None:
    key = {} if status == 401 else {"Authorization": f"SharedAccessKey {KEY}"}
    connection.request(method, path, headers=key)
    response = connection.getresponse()
    assert (response.status, "error" in json.loads(response.read())) == (status, True)


def test_removed_subscription_ends_who_waits_for_it(
    emulator: Running, topic: str, connection: http.client.HTTPConnection
) -> None:
    path = f"/topics/{topic}/eventsubscriptions/billing:receive?api-version=2024-06-01"
    connection.request("POST", path, headers={"Authorization": f"SharedAccessKey {KEY}"})
    assert wait_until(lambda: emulator.admin("GET", f"topics/{topic}/billing")["receivers"] == 1, 10)
    emulator.admin("DELETE", f"topics/{topic}/billing")
    assert connection.getresponse().read() == b'{"value":[]}'
