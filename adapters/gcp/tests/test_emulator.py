"""The emulator itself: what the shim is for, and that ours closes without leaving anything that eats messages."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api_core.exceptions import DeadlineExceeded, InternalServerError, ResourceExhausted
from google.pubsub_v1 import PublisherClient, SubscriberClient, types
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from pubsub_running import Running

from cloudevents_bridge_contract.emulators import pubsub
from cloudevents_bridge_contract.emulators.process import wait_until


def _clients(port: int) -> tuple[Any, PublisherClient, SubscriberClient]:
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_send_message_length", -1)])
    publisher = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
    return channel, publisher, SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))


def _eaten_by_a_cancelled_stream(port: int, name: str) -> int:
    """Subscribe by a stream, cancel it, publish a hundred: how many of them the next pull does not get."""
    topic, subscription = f"projects/p/topics/{name}", f"projects/p/subscriptions/{name}"
    channel, publisher, subscriber = _clients(port)
    with channel:
        publisher.create_topic(name=topic)
        subscriber.create_subscription(name=subscription, topic=topic, ack_deadline_seconds=60)
        requests: queue.Queue[types.StreamingPullRequest | None] = queue.Queue()
        requests.put(types.StreamingPullRequest(subscription=subscription, stream_ack_deadline_seconds=60))
        stream = subscriber.streaming_pull(requests=iter(requests.get, None))
        publisher.publish(topic=topic, messages=[{"data": b"first"}])
        first = next(iter(stream))
        subscriber.acknowledge(subscription=subscription, ack_ids=[m.ack_id for m in first.received_messages])
        stream.cancel()
        requests.put(None)
        wait_until(lambda: not stream.is_active(), 10)
        publisher.publish(topic=topic, messages=[{"data": b"%d" % n} for n in range(100)])
        got: set[str] = set()

        def all_here() -> bool:
            pulled = subscriber.pull(subscription=subscription, max_messages=100, timeout=2, retry=None)
            got.update(m.message.message_id for m in pulled.received_messages)
            return len(got) == 100

        wait_until(all_here, 5)
        return 100 - len(got)


def test_canary_a_cancelled_stream_eats_nothing(emulator: Running, name: str) -> None:
    assert _eaten_by_a_cancelled_stream(emulator.server.port, name) == 0


def _publish_too_much(port: int, name: str) -> None:
    channel, publisher, _ = _clients(port)
    with channel:
        topic = f"projects/p/topics/{name}"
        publisher.create_topic(name=topic)
        publisher.publish(topic=topic, messages=[{"data": b"x" * 11_000_001}], timeout=5, retry=None)


def test_canary_a_request_over_the_limit_is_answered(emulator: Running, name: str) -> None:
    with pytest.raises(ResourceExhausted, match="exceeds maximum size"):
        _publish_too_much(emulator.server.port, name)


def test_canary_without_the_shim_it_is_broken(found: pubsub.Emulator, name: str) -> None:
    """Else the shim is of no use any more, and is to be removed."""
    if found.compiler is None:
        pytest.skip(f"not run: version {found.version} gets no shim")
    with found.started(mended=False) as server, pytest.raises((DeadlineExceeded, InternalServerError)):
        _publish_too_much(server.port, name)


def test_what_is_missing_is_said_with_the_line_that_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pubsub, "_roots", lambda environ: iter([tmp_path]))
    with pytest.raises(pubsub.Missing, match="not installed; to get it: apt-get install"):
        pubsub.find({"PATH": ""})
    jars = tmp_path / "platform/pubsub-emulator/lib"
    jars.mkdir(parents=True)
    for version in ("0.8.9", "0.8.20"):
        (jars / f"cloud-pubsub-emulator-{version}-all.jar").touch()
    with pytest.raises(pubsub.Missing, match="Java runtime"):
        pubsub.find({"PATH": ""})
    tool = tmp_path / "bin" / "java"
    tool.parent.mkdir()
    tool.touch(mode=0o755)
    with pytest.raises(pubsub.Missing, match="needs javac"):
        pubsub.find({"PATH": str(tool.parent)})
    (jars / "cloud-pubsub-emulator-0.8.21-all.jar").touch()
    newer = pubsub.find({"PATH": "", "JAVA_HOME": str(tmp_path)})
    assert (newer.version, newer.compiler) == ("0.8.21", None)
