"""When there is telemetry, and that there is nothing of it otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from recorded import Recorded
from scripted import until

import cloudevents_bridge as ceb
from cloudevents_bridge.errors import ConfigurationError
from cloudevents_bridge.testing import make_event


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if opentelemetry-api was not installed."""
    for name in list(sys.modules):
        if name.split(".")[0] == "opentelemetry":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "cloudevents_bridge.telemetry.otel", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)


def test_it_is_on_where_the_api_is_installed(recorded: Recorded) -> None:
    for wanted, told in [(None, 1), (True, 1), (False, 0)]:
        recorded.clear()
        with ceb.connect("memory://", telemetry=wanted, create_missing=True) as broker:
            broker.publish("orders", make_event())
        assert len(recorded.spans()) == told


@pytest.mark.parametrize(("profile", "argument", "told"), [("true", None, 1), ("false", None, 0), ("false", True, 1)])
def test_the_profile_says_and_the_argument_goes_before_it(
    recorded: Recorded, tmp_path: Path, profile: str, argument: bool | None, told: int
) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text(f'[profiles.p]\nurl = "memory://"\ntelemetry = {profile}\ncreate_missing = true\n', "utf-8")
    with ceb.connect(profile="p", config=path, telemetry=argument) as broker:
        broker.publish("orders", make_event())
    assert len(recorded.spans()) == told


@pytest.mark.usefixtures("without")
def test_without_the_api_it_is_off_and_says_so_where_it_is_wanted() -> None:
    with ceb.connect("memory://", create_missing=True) as broker:
        assert broker._opener.config.telemetry is None
        broker.publish("orders", make_event())
    with pytest.raises(ConfigurationError, match=r"pip install 'cloudevents-bridge\[otel\]'"):
        ceb.connect("memory://", telemetry=True)


def test_where_it_is_off_nothing_of_it_is_imported() -> None:
    program = (
        "import sys, cloudevents_bridge as ceb\n"
        "with ceb.connect('memory://', telemetry=False, create_missing=True) as broker:\n"
        "    broker.publish('orders', ceb.CloudEvent(type='t', source='/s'))\n"
        "    broker.worker().add('orders', 'billing', print).run(until_idle=0)\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'cloudevents_bridge.telemetry.'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"


def test_without_a_provider_events_are_published_as_they_are() -> None:
    with ceb.connect("memory://", telemetry=True, create_missing=True) as broker:
        with broker.subscriber("orders", "billing") as subscriber:
            subscriber.receive(wait=0)
            broker.publish("orders", make_event())
            broker.publish_many("orders", [make_event()])
            assert [delivery.event for delivery in subscriber.receive(wait=5)] == [make_event()] * 2
        worked: list[ceb.CloudEvent] = []
        with broker.worker().add("orders", "billing", worked.append):
            until(lambda: len(worked) == 2)
        assert worked == [make_event()] * 2


def test_an_adapter_may_say_what_the_conventions_call_it(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    from cloudevents_bridge.brokers.memory import adapter

    monkeypatch.setattr(type(adapter), "system", "aws_sqs", raising=False)
    with ceb.connect("memory://", create_missing=True) as broker:
        broker.publish("orders", make_event())
    assert (recorded.span("send orders").attributes or {})["messaging.system"] == "aws_sqs"


def test_a_provider_that_is_set_up_later_is_told_from_then_on() -> None:
    """In a process of its own, since a provider is set once."""
    program = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import cloudevents_bridge as ceb

with ceb.connect("memory://", create_missing=True) as broker:
    broker.publish("orders", ceb.CloudEvent(type="t", source="/s"))
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    broker.publish("orders", ceb.CloudEvent(type="t", source="/s"))
    print([span.name for span in exporter.get_finished_spans()])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "['send orders']"
