from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, cast
from weakref import WeakSet

import pytest

from cloudevents_bridge import Broker, CloudEvent, Publisher, Receipt
from cloudevents_bridge.cli.bulk import publish_stream
from cloudevents_bridge.cli.making import template
from cloudevents_bridge.cli.shell import Shell
from cloudevents_bridge.errors import ErrorCode, make_error

Ceb = Callable[..., Any]

TYPE = ("--type", "com.example.order.created")


def received(broker: Broker, number: int = 1) -> list[CloudEvent]:
    with broker.subscriber("orders", "billing") as subscriber:
        found: list[CloudEvent] = []
        while len(found) < number:
            deliveries = subscriber.receive(number - len(found), wait=5)
            assert deliveries, f"only {len(found)} of {number} events arrived"
            subscriber.ack_many(deliveries)
            found += [each.event for each in deliveries]
        assert not subscriber.receive(1, wait=0)
        return found


def test_what_is_piped_in_is_the_data(ceb: Ceb, broker: Broker) -> None:
    result = ceb("publish", "orders", *TYPE, stdin='{"id":7}\n')
    [event] = received(broker)
    assert (event.type, event.source, event.data, event.datacontenttype) == (
        "com.example.order.created",
        "/ceb",
        {"id": 7},
        "application/json",
    )
    assert (result.code, result.err) == (0, "")
    assert result.out == f"published {event.id} to orders on {broker.url}\n"


def test_every_attribute(ceb: Ceb, broker: Broker) -> None:
    options = {
        "--source": "/shop",
        "--id": "a-1",
        "--subject": "s",
        "--key": "k",
        "--content-type": "application/x+json",
    }
    attributes = ["time=2026-01-31T12:00:00Z", "dataschema=https://example.com/s", "sampledrate=5", "mine=a=b"]
    words = [word for pair in options.items() for word in pair] + [w for a in attributes for w in ("-a", a)]
    assert ceb("publish", "orders", *TYPE, *words, "--data", "[1]").code == 0
    [event] = received(broker)
    assert event == CloudEvent.from_dict(
        {
            "specversion": "1.0",
            "type": "com.example.order.created",
            "source": "/shop",
            "id": "a-1",
            "subject": "s",
            "partitionkey": "k",
            "datacontenttype": "application/x+json",
            "time": "2026-01-31T12:00:00Z",
            "dataschema": "https://example.com/s",
            "sampledrate": 5,
            "mine": "a=b",
            "data": [1],
        }
    )


def test_kinds_of_data(ceb: Ceb, broker: Broker, tmp_path: Path) -> None:
    raw = bytes(range(256))
    (tmp_path / "raw").write_bytes(raw)
    for words, data, kind in (
        (("--data", "12345678901234567890123"), b"12345678901234567890123", "application/json"),
        (("--text", "two\nlines é"), "two\nlines é".encode(), "text/plain"),
        (("--file", "raw", "--content-type", "image/png"), raw, "image/png"),
        ((), None, None),
        (("--data", "null"), b"null", "application/json"),
    ):
        assert ceb("publish", "orders", *TYPE, *words).code == 0
        [event] = received(broker)
        assert (event.data_bytes, event.datacontenttype) == (data, kind)


def test_json_output_is_the_receipt(ceb: Ceb, broker: Broker) -> None:
    receipt = ceb("--json", "publish", "orders", *TYPE, "--id", "a-1").json
    assert receipt["event_id"] == "a-1"
    assert set(receipt) == {"event_id", "native_id", "sequence"}


def test_quiet(ceb: Ceb, broker: Broker) -> None:
    assert ceb("publish", "orders", *TYPE, "-q") == (0, "", "")


def test_delay(ceb: Ceb, broker: Broker) -> None:
    assert ceb("publish", "orders", *TYPE, "--delay", "1h").code == 0
    with broker.subscriber("orders", "billing") as subscriber:
        assert not subscriber.receive(1, wait=0)


def test_dry_run_sends_nothing(ceb: Ceb, broker: Broker) -> None:
    result = ceb("publish", "orders", *TYPE, "--data", "{}", "--dry-run")
    assert CloudEvent.from_json(result.out).data == {}
    assert "would publish to orders" in result.err
    result = ceb("publish", "orders", *TYPE, "--lines", "-", "--dry-run", stdin="1\n2\nx\n")
    assert [each["data"] for each in result.lines] == [1, 2]
    assert result.code == 1
    assert "line 3: the data is not JSON" in result.err
    assert "would publish 2, failed 1" in result.err
    with broker.subscriber("orders", "billing") as subscriber:
        assert not subscriber.receive(1, wait=0)


def test_lines(ceb: Ceb, broker: Broker) -> None:
    stdin = b'\xef\xbb\xbf{"id":1}\r\n\n{"id":\n\xff\n"last"'
    result = ceb("publish", "orders", *TYPE, "--lines", "-", stdin=stdin)
    assert result.code == 1
    assert result.out == ""
    *errors, summary = result.err.splitlines()
    assert [error.split(":")[0] for error in errors] == ["line 3", "line 4"]
    assert summary.startswith("published 2, failed 2, read 5 lines in ")
    assert sorted(event.data_bytes or b"" for event in received(broker, 2)) == [b'"last"', b'{"id":1}']


def test_lines_of_text_keep_their_order(ceb: Ceb, broker: Broker) -> None:
    words = [f"line {number} é" for number in range(2500)]
    result = ceb(
        "publish", "orders", *TYPE, "--lines", "-", "--content-type", "text/plain", "--json", stdin="\n".join(words)
    )
    assert (result.code, result.err) == (0, "")
    summary = result.json
    assert (summary["lines"], summary["published"], summary["failed"]) == (2500, 2500, 0)
    assert [event.data for event in received(broker, 2500)] == words


def test_events_are_published_as_they_were_received(ceb: Ceb, broker: Broker, tmp_path: Path) -> None:
    events = [
        CloudEvent(type="t", source="/s", data=b'{\n "a": 1.0,\r\n "b": "x\\ny"}', datacontenttype="application/json"),
        CloudEvent(type="t", source="/s", data=b"\x00\n\xff"),
        CloudEvent(type="t", source="/s", data="two\nlines \u2028", datacontenttype="text/plain"),
        CloudEvent(type="t", source="/s", partitionkey="k", extensions={"mine": True, "other": 3}),
    ]
    broker.publish_many("orders", events)
    shown = ceb("receive", "orders/stock", "--ack", "--json")
    assert shown.out.count("\n") == len(events)
    received(broker, len(events))
    (tmp_path / "file").write_text(shown.out, encoding="utf-8", newline="")
    result = ceb("publish", "orders", "--events", "file")
    assert (result.code, result.out) == (0, "")
    again = received(broker, len(events))
    assert again[1:] == events[1:]
    # white space between JSON's tokens is the one thing that a line cannot keep
    assert (again[0].data, again[0].id, again[0].time) == (events[0].data, events[0].id, events[0].time)


def test_events_that_are_none(ceb: Ceb, broker: Broker) -> None:
    good = CloudEvent(type="t", source="/s").to_json().decode()
    bad = ["[]", "nonsense", "{}", good.replace("1.0", "0.3"), '{"specversion":"1.0","id":"1","source":"/s"}']
    result = ceb("publish", "orders", "--events", "-", stdin="\n".join([good, *bad, good]))
    assert result.code == 1
    assert [line.split(":")[0] for line in result.err.splitlines()[:-1]] == [f"line {n}" for n in range(2, 7)]
    assert result.err.splitlines()[-1].startswith("published 2, failed 5, read 7 lines")


def test_an_oversize_event_does_not_stop_the_rest(ceb: Ceb, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloudevents_bridge.cli import bulk

    monkeypatch.setattr(bulk, "LONGEST", 100)
    result = ceb("publish", "orders", *TYPE, "--lines", "-", stdin=f'1\n"{"x" * 250}"\n2\n"{"y" * 90}"\n')
    assert result.code == 1
    assert "line 2: longer than 100 bytes" in result.err
    assert [event.data for event in received(broker, 3)] == [1, 2, "y" * 90]


def test_a_missing_topic_stops_a_stream_at_once(ceb: Ceb, broker: Broker) -> None:
    result = ceb("publish", "nothing-here", *TYPE, "--lines", "-", stdin="1\n" * 5000)
    assert result.code == 3
    assert result.err.startswith("error: publish to topic nothing-here")
    assert result.err.count("\n") == 1


def test_a_missing_topic(ceb: Ceb, broker: Broker) -> None:
    result = ceb("publish", "nothing-here", *TYPE)
    assert (result.code, result.out) == (3, "")
    assert "ceb topology apply" in result.err


def test_large_numbers_survive(ceb: Ceb, broker: Broker) -> None:
    payload = json.dumps({"n": 2**70})
    ceb("publish", "orders", *TYPE, "--lines", "-", stdin=payload)
    assert received(broker)[0].data_bytes == payload.encode()


def test_a_stream_takes_constant_memory() -> None:
    """Of the events and futures that went by, none is kept."""
    alive: WeakSet[Future[Receipt]] = WeakSet()
    most = 0

    class Sink:
        def submit(self, event: CloudEvent, *, delay: float) -> Future[Receipt]:
            nonlocal most
            future: Future[Receipt] = Future()
            alive.add(future)
            most = max(most, len(alive))
            if len(event.data_bytes or b"") > 1:
                future.set_exception(make_error(ErrorCode.TOO_LARGE, "too large"))
            else:
                future.set_result(Receipt(event.id, "", None))
            return future

        def flush(self, *, timeout: float) -> None:
            pass

        close = flush

    stream = io.BytesIO(b"1\n22\nx\n" * 3000)
    make = template(None, (), type="t", source="/s").make
    with redirect_stderr(io.StringIO()) as said:
        code = publish_stream(Shell(), stream, None, make, cast("Publisher", Sink()), 0.0)
    assert code == 1
    assert said.getvalue().count("too large") == 3000
    assert "published 3000, failed 6000, read 9000 lines" in said.getvalue()
    assert most < 10
