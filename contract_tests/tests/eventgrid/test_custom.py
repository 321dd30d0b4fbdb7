"""Custom topics: published to by Microsoft's own client, pushing to an endpoint of ours."""

from __future__ import annotations

import http.server
import json
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from azure.core.credentials import AzureKeyCredential, AzureSasCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.core.messaging import CloudEvent
from azure.eventgrid import EventGridEvent, EventGridPublisherClient, generate_sas
from azure.servicebus.exceptions import MessageSizeExceededError, MessagingEntityNotFoundError, ServiceBusError
from eventgrid.running import CREDENTIAL, Token, custom

from cloudevents_bridge_contract.emulators.eventgrid.auth import Access
from cloudevents_bridge_contract.emulators.eventgrid.grid import Grid
from cloudevents_bridge_contract.emulators.eventgrid.launcher import KEY, AdminError, Running
from cloudevents_bridge_contract.emulators.eventgrid.server import Emulator
from cloudevents_bridge_contract.emulators.eventgrid.targets import Outgoing, ServiceBusQueues, Undelivered, message
from cloudevents_bridge_contract.emulators.process import wait_until


class Seen(NamedTuple):
    method: str
    headers: Mapping[str, str]
    body: Any


class Endpoint:
    """A webhook.

    Attributes:
        seen: requests, as they came.
        statuses: of the answers to notifications; the last one is repeated.
        origin: what it allows; None: it says nothing.
        echoes: whether it repeats the validation code; None: it says nothing.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/hook?code=s"
        self.seen: list[Seen] = []
        self.statuses = [200]
        self.origin: str | None = "eventgrid.azure.net"
        self.echoes: bool | None = True

    @property
    def events(self) -> list[Seen]:
        return [each for each in self.seen if each.headers.get("aeg-event-type") == "Notification"]

    def answer(self, seen: Seen) -> tuple[int, dict[str, str], bytes]:
        self.seen.append(seen)
        if seen.method == "OPTIONS":
            return 200, {"WebHook-Allowed-Origin": self.origin} if self.origin else {}, b""
        if seen.headers.get("aeg-event-type") == "SubscriptionValidation":
            code = seen.body[0]["data"]["validationCode"] if self.echoes else "wrong"
            return 200, {}, b"" if self.echoes is None else json.dumps({"validationResponse": code}).encode()
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0], {}, b""


@contextmanager
def _listening() -> Iterator[Endpoint]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, extra, said = listening.answer(Seen(self.command, headers, json.loads(body) if body else None))
            self.send_response(status)
            for name, value in {**extra, "Content-Length": str(len(said))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        do_OPTIONS = do_POST  # noqa: N815 - the name is the library's

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        listening = Endpoint(server.server_address[1])
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield listening
        server.shutdown()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with _listening() as endpoint:
        yield endpoint


def _event(**options: Any) -> CloudEvent[Any]:
    return CloudEvent(source="/shop", type="order.created", data={"id": 7}, id="e-7", **options)


def _hook(endpoint: Endpoint, **options: Any) -> dict[str, Any]:
    return {"endpointType": "WebHook", "endpointUrl": endpoint.url, **options}


def test_event_is_pushed(emulator: Running, name: str, endpoint: Endpoint) -> None:
    emulator.make_custom(name)
    assert emulator.subscribe(name, "billing", destination=_hook(endpoint))["provisioningState"] == "Succeeded"
    handshake = endpoint.seen[0]
    assert (handshake.method, handshake.headers["webhook-request-origin"]) == ("OPTIONS", "eventgrid.azure.net")
    with custom(emulator, name) as sender:
        sender.send([_event()])
    assert wait_until(lambda: bool(endpoint.events), 20)
    (seen,) = endpoint.events
    assert (seen.body["id"], seen.body["data"]) == ("e-7", {"id": 7})
    assert seen.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert (seen.headers["aeg-subscription-name"], seen.headers["aeg-delivery-count"]) == ("BILLING", "0")


def test_what_fails_is_pushed_again(emulator: Running, name: str, endpoint: Endpoint) -> None:
    endpoint.statuses = [503, 500, 200]
    emulator.make_custom(name)
    emulator.subscribe(name, "billing", destination=_hook(endpoint), timeScale=0.01)
    began = time.monotonic()
    with custom(emulator, name) as sender:
        sender.send(_event())
    assert wait_until(lambda: len(endpoint.events) == 3, 20)
    assert [each.headers["aeg-delivery-count"] for each in endpoint.events] == ["0", "1", "2"]
    assert time.monotonic() - began >= 0.4  # 10 s and 30 s, a hundred times as fast
    assert wait_until(lambda: emulator.admin("GET", f"custom/{name}/billing")["events"] == 0, 20)


def _letter(emulator: Running, name: str) -> dict[str, Any]:
    def letters() -> Any:
        return emulator.dead_letters(name, "billing", kind="custom")

    assert wait_until(lambda: bool(letters()), 20)
    ((letter,),) = letters()
    return dict(letter)


def test_too_many_attempts_end_in_the_container(emulator: Running, name: str, endpoint: Endpoint) -> None:
    endpoint.statuses = [503]
    emulator.make_custom(name)
    emulator.subscribe(
        name,
        "billing",
        destination=_hook(endpoint),
        timeScale=0.001,
        deadLetterContainer="dead",
        retryPolicy={"maxDeliveryAttempts": 3},
    )
    with custom(emulator, name) as sender:
        sender.send(_event())
    letter = _letter(emulator, name)
    assert (letter["id"], letter["data"], letter["deliveryattempts"]) == ("e-7", {"id": 7}, 3)
    assert letter["deadletterreason"] == "MaxDeliveryAttemptsExceeded"
    assert letter["lastdeliveryoutcome"] == "ServiceUnavailable"
    assert len(endpoint.events) == 3


@pytest.mark.parametrize(("status", "outcome"), [(400, "BadRequest"), (413, "RequestEntityTooLarge")])
def test_what_will_never_succeed_is_not_repeated(
    emulator: Running, name: str, endpoint: Endpoint, status: int, outcome: str
) -> None:
    endpoint.statuses = [status]
    emulator.make_custom(name)
    emulator.subscribe(name, "billing", destination=_hook(endpoint), timeScale=0.001, deadLetterContainer="dead")
    with custom(emulator, name) as sender:
        sender.send(_event())
    letter = _letter(emulator, name)
    assert (letter["deliveryattempts"], letter["lastdeliveryoutcome"]) == (1, outcome)
    assert letter["deadletterreason"] == f"UndeliverableDueToHttp{outcome}"


def test_time_to_live_ends_the_attempts(emulator: Running, name: str, endpoint: Endpoint) -> None:
    endpoint.statuses = [503]
    emulator.make_custom(name)
    emulator.subscribe(
        name,
        "billing",
        destination=_hook(endpoint),
        timeScale=0.01,
        deadLetterContainer="dead",
        retryPolicy={"eventTimeToLiveInMinutes": 0.005},
    )
    with custom(emulator, name) as sender:
        sender.send(_event())
    assert _letter(emulator, name)["deadletterreason"] == "TimeToLiveExceeded"


@pytest.mark.parametrize("origin", ["https://else.example", ""])
def test_endpoint_that_allows_another_origin_gets_no_subscription(
    emulator: Running, name: str, endpoint: Endpoint, origin: str
) -> None:
    endpoint.origin = origin or "https://x.example, *"
    emulator.make_custom(name)
    with pytest.raises(AdminError, match="failed: the answer to OPTIONS") as caught:
        emulator.subscribe(name, "billing", destination=_hook(endpoint))
    assert caught.value.code == "Url validation"
    with pytest.raises(AdminError, match="does not exist"):
        emulator.admin("GET", f"custom/{name}/billing")


def test_endpoint_that_says_nothing_is_validated_by_the_callback(
    emulator: Running, name: str, endpoint: Endpoint
) -> None:
    endpoint.origin = None
    emulator.make_custom(name)
    made = emulator.subscribe(name, "billing", destination=_hook(endpoint))
    assert made["provisioningState"] == "AwaitingManualAction"
    with custom(emulator, name) as sender:
        sender.send(_event())
        with urllib.request.urlopen(endpoint.seen[0].headers["webhook-request-callback"], timeout=10) as answer:
            assert answer.status == 200
        sender.send(_event(subject="later"))
    assert wait_until(lambda: bool(endpoint.events), 20)
    assert endpoint.events[0].body["subject"] == "later"


def test_endpoint_that_is_not_there_gets_no_subscription(emulator: Running, name: str) -> None:
    emulator.make_custom(name)
    with _listening() as endpoint:
        pass
    with pytest.raises(AdminError, match="Refused"):
        emulator.subscribe(name, "billing", destination=_hook(endpoint))


@pytest.mark.parametrize("echoes", [True, False, None])
def test_validation_code_of_event_grids_own_schema(
    emulator: Running, name: str, endpoint: Endpoint, echoes: bool | None
) -> None:
    endpoint.echoes = echoes
    emulator.make_custom(name, inputSchema="EventGridSchema")
    if echoes is False:
        with pytest.raises(AdminError, match="validationResponse"):
            emulator.subscribe(name, "billing", destination=_hook(endpoint))
        return
    made = emulator.subscribe(name, "billing", destination=_hook(endpoint))
    assert made["provisioningState"] == ("Succeeded" if echoes else "AwaitingManualAction")
    if echoes is None:
        urllib.request.urlopen(endpoint.seen[0].body[0]["data"]["validationUrl"], timeout=10).close()
    with custom(emulator, name) as sender:
        sender.send(EventGridEvent(subject="s", event_type="t", data={"a": 1}, data_version="1.0"))
    assert wait_until(lambda: bool(endpoint.events), 20)
    assert endpoint.events[0].body[0]["data"] == {"a": 1}
    assert endpoint.events[0].headers["aeg-data-version"] == "1.0"


def test_filters_and_delivery_attributes(emulator: Running, name: str, endpoint: Endpoint) -> None:
    emulator.make_custom(name)
    mappings = [
        {"name": "x-team", "type": "Static", "value": "shop"},
        {"name": "x-order", "type": "Dynamic", "sourceField": "data.id"},
        {"name": "x-none", "type": "Dynamic", "sourceField": "data.none"},
    ]
    emulator.subscribe(
        name,
        "billing",
        destination=_hook(endpoint, deliveryAttributeMappings=mappings),
        filter={"subjectBeginsWith": "/yes"},
    )
    with custom(emulator, name) as sender:
        sender.send([_event(subject="/no"), _event(subject="/yes/1")])
    assert wait_until(lambda: bool(endpoint.events), 20)
    (seen,) = endpoint.events
    assert (seen.body["subject"], seen.headers["x-team"], seen.headers["x-order"]) == ("/yes/1", "shop", "7")
    assert "x-none" not in seen.headers


class Queues:
    """Stands for Service Bus: refuses so many times, then keeps what is delivered."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.got = refusals, []  # type: int, list[tuple[str, Outgoing]]

    def deliver(self, queue: str, event: Outgoing) -> None:
        if self.refusals:
            self.refusals -= 1
            raise Undelivered("ServiceUnavailable")
        self.got.append((queue, event))


def test_event_is_delivered_to_a_queue(tmp_path: Path) -> None:
    queues = Queues(refusals=1)
    with Emulator(("127.0.0.1", 0), Grid(tmp_path, queues=queues, time_scale=0.001), Access(KEY)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running = Running(f"127.0.0.1:{server.server_address[1]}")
        running.make_custom("orders")
        session = {"name": "SessionId", "type": "Dynamic", "sourceField": "partitionkey"}
        destination = {
            "endpointType": "ServiceBusQueue",
            "queue": "orders--billing",
            "deliveryAttributeMappings": [session],
        }
        running.subscribe("orders", "billing", destination=destination)
        with custom(running, "orders") as sender:
            sender.send(_event(extensions={"partitionkey": "k1"}))
        assert wait_until(lambda: bool(queues.got), 20)
        server.shutdown()
    ((queue, outgoing),) = queues.got
    assert queue == "orders--billing"
    assert json.loads(outgoing.body)["id"] == "e-7"
    sent = message(outgoing)
    assert b"".join(sent.body) == outgoing.body
    assert (sent.session_id, sent.message_id) == ("k1", outgoing.message_id)
    assert sent.content_type == "application/cloudevents+json; charset=utf-8"
    assert sent.application_properties == {
        "aeg-subscription-name": "BILLING",
        "aeg-delivery-count": "1",
        "aeg-event-type": "Notification",
        "aeg-metadata-version": "1.0",
        "aeg-output-event-id": "e-7",
    }


class ServiceBusClient:
    """Stands for that of azure-servicebus: what was sent, and what happens instead."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []
        self.opened: list[str] = []
        self.trouble: list[Exception] = []

    def from_connection_string(self, connection: str, **options: Any) -> ServiceBusClient:
        assert (connection, options) == ("Endpoint=sb://x", {"retry_total": 0})
        return self

    def get_queue_sender(self, queue: str) -> Any:
        self.opened.append(queue)
        return SimpleNamespace(send_messages=lambda sent: self._send(queue, sent), close=lambda: None)

    def _send(self, queue: str, sent: Any) -> None:
        if self.trouble:
            raise self.trouble.pop()
        self.sent.append((queue, sent))


def test_queues_are_reached_by_azure_servicebus(monkeypatch: pytest.MonkeyPatch) -> None:
    client = ServiceBusClient()
    monkeypatch.setattr("azure.servicebus.ServiceBusClient", client)
    queues = ServiceBusQueues("Endpoint=sb://x")
    event = Outgoing(b"{}", "application/json", {}, "1")
    for _ in range(2):
        queues.deliver("q", event)
    assert ([queue for queue, _ in client.sent], client.opened) == (["q", "q"], ["q"])
    for trouble, outcome, final, opened in (
        (MessageSizeExceededError(message="big"), "PayloadTooLarge", True, 1),
        (MessagingEntityNotFoundError(message="none"), "NotFound", False, 2),
        (ServiceBusError(message="down"), "ServiceUnavailable", False, 3),
    ):
        client.trouble.append(trouble)
        with pytest.raises(Undelivered) as caught:
            queues.deliver("q", event)
        assert (caught.value.outcome, caught.value.final) == (outcome, final)
        queues.deliver("q", event)
        assert len(client.opened) == opened


def test_where_the_sdk_takes_that_it_shall_not_retry(emulator: Running, name: str) -> None:
    """For custom topics the constructor drops `retry_total`; it has to be given in each call."""
    emulator.make_custom(name)
    for once, options in (("constructor", {"retry_backoff_factor": 0.01}), ("call", {"retry_total": 0})):
        emulator.fail("send", 503, "Busy", times=10)
        before = emulator.requests().get("send", 0)
        sender = EventGridPublisherClient(emulator.custom_url(name), CREDENTIAL, retry_total=0)
        with sender, pytest.raises(HttpResponseError):
            sender.send(_event(), **options)
        assert emulator.requests()["send"] - before == (1 if once == "call" else 4)
    emulator.fail("send", 503, "Busy", times=0)


def test_partition_key_yields_to_the_session_id() -> None:
    sent = message(Outgoing(b"{}", "application/json", {"PartitionKey": "p", "x": "y"}, "1"))
    assert (sent.partition_key, sent.application_properties) == ("p", {"x": "y"})
    sent = message(Outgoing(b"{}", "application/json", {"PartitionKey": "p", "SessionId": "s"}, "1"))
    assert (sent.session_id, sent.partition_key) == ("s", None)


def test_queue_without_a_service_bus_ends_in_the_container(emulator: Running, name: str) -> None:
    emulator.make_custom(name)
    emulator.subscribe(
        name,
        "billing",
        destination={"endpointType": "ServiceBusQueue", "queue": "q"},
        timeScale=0.001,
        deadLetterContainer="dead",
        retryPolicy={"maxDeliveryAttempts": 1},
    )
    with custom(emulator, name) as sender:
        sender.send(_event())
    assert _letter(emulator, name)["lastdeliveryoutcome"] == "NotFound"


def test_keys_signatures_and_tokens(emulator: Running, name: str) -> None:
    emulator.make_custom(name)
    soon, past = (datetime.now(UTC) + timedelta(hours=hours) for hours in (1, -1))
    url = emulator.custom_url(name)
    with custom(emulator, name, AzureSasCredential(generate_sas(url, KEY, soon))) as sender:
        sender.send(_event())
    with custom(emulator, name, Token("any")) as sender:
        sender.send(_event(), enforce_https=False)
    wrong = AzureKeyCredential("d3Jvbmc=")
    for credential in (
        wrong,
        AzureSasCredential(generate_sas(url, KEY, past)),
        AzureSasCredential(generate_sas(url, "d3Jvbmc=", soon)),
    ):
        with custom(emulator, name, credential) as sender, pytest.raises(ClientAuthenticationError):
            sender.send(_event())


def test_what_is_refused(emulator: Running, name: str) -> None:
    with custom(emulator, name) as sender, pytest.raises(ResourceNotFoundError):
        sender.send(_event())
    emulator.make_custom(name)
    with custom(emulator, name) as sender:
        for events, status in (
            ([CloudEvent(source="/s", type="t", data="x" * 600_000) for _ in range(2)], 413),
            ([CloudEvent(source="/s", type="t", data=None) for _ in range(5_001)], 413),
            ([EventGridEvent(subject="s", event_type="t", data={}, data_version="1")], 400),
        ):
            with pytest.raises(HttpResponseError) as caught:
                sender.send(events, retry_total=0)
            assert caught.value.status_code == status
            assert caught.value.error is not None


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"destination": {"endpointType": "EventHub"}},
        {"destination": {"endpointType": "WebHook"}},
        {"destination": {"endpointType": "ServiceBusQueue", "queue": "q"}, "retryPolicy": {"maxDeliveryAttempts": 31}},
        {"destination": {"endpointType": "ServiceBusQueue", "queue": "q"}, "unknown": 1},
        {"destination": {"endpointType": "ServiceBusQueue", "queue": "q"}, "deadLetterContainer": "../x"},
        {
            "destination": {
                "endpointType": "ServiceBusQueue",
                "queue": "q",
                "deliveryAttributeMappings": [{"name": "x"}],
            }
        },
    ],
)
def test_settings_that_are_refused(emulator: Running, name: str, settings: dict[str, Any]) -> None:
    emulator.make_custom(name)
    with pytest.raises(AdminError) as caught:
        emulator.subscribe(name, "billing", **settings)
    assert caught.value.status == 400
