"""SNS and SQS for a measurement: answers from this process, or an emulator; either way the requests are counted."""

from __future__ import annotations

import json
import time
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config

from cloudevents_bridge import Broker, CloudEvent, Topic, connect
from cloudevents_bridge.formats.json import CONTENT_TYPE

REGION = "eu-west-1"
ACCOUNT = "000000000000"
_XML = "<{0}Response xmlns='http://sns.amazonaws.com/doc/2010-03-31/'><{0}Result>{1}</{0}Result>{2}</{0}Response>"
_METADATA = "<ResponseMetadata><RequestId>5f2c8b1e-1111-2222-3333-444455556666</RequestId></ResponseMetadata>"
_MEMBER = "<member><MessageId>0bfb0b8e-1111-2222-3333-444455556666</MessageId><Id>{0}</Id></member>"
_DIGEST = "d41d8cd98f00b204e9800998ecf8427e"


class Place:
    """A topic with one subscription: its names on either side."""

    def __init__(self, broker: Broker, endpoint: str) -> None:
        name = f"bench-{uuid.uuid4().hex[:8]}"
        self.broker = broker
        self.topic = Topic(name, subscriptions=["reader"])
        self.name = name
        self.arn = f"arn:aws:sns:{REGION}:{ACCOUNT}:{name}"
        self.queue = f"{name}--reader"
        self.url = f"{endpoint}/{ACCOUNT}/{self.queue}"


class Service(ABC):
    """Where the requests go. `requests`: how many of each operation there were."""

    name: str

    def __init__(self, endpoint: str | None) -> None:
        self.requests: Counter[str] = Counter()
        self.endpoint = endpoint
        self._session = boto3.Session("test", "test", region_name=REGION)
        at = f"&endpoint={endpoint}" if endpoint else ""
        self.broker = connect(f"aws://{REGION}?account={ACCOUNT}{at}", client=self.client, telemetry=False)

    def client(self, service: str, region: str = REGION, config: Config | None = None) -> Any:
        made = self._session.client(service, region_name=region, config=config, endpoint_url=self.endpoint)
        self.count(made)
        return made

    def count(self, client: Any) -> None:
        client.meta.events.register("before-send", self._counted)

    @abstractmethod
    def place(self) -> Any:
        """A context manager with a `Place` that nothing else uses."""

    @abstractmethod
    def fill(self, at: Place, events: Sequence[CloudEvent]) -> None:
        """Have these events wait at the subscription."""

    def close(self) -> None:
        self.broker.close()

    def _counted(self, request: AWSRequest, event_name: str, **_: Any) -> AWSResponse | None:
        self.requests[event_name.rpartition(".")[2]] += 1
        return None


class Emulated(Service):
    """An emulator that listens somewhere."""

    def __init__(self, name: str, address: str) -> None:
        super().__init__(f"http://{address}")
        self.name = name

    @contextmanager
    def place(self) -> Iterator[Place]:
        made = Place(self.broker, str(self.endpoint))
        self.broker.topology.apply(made.topic)
        yield made
        self.broker.topology.delete(made.topic)

    def fill(self, at: Place, events: Sequence[CloudEvent]) -> None:
        self.broker.publish_many(at.name, events)


class Canned(Service):
    """boto3's clients, which sign and encode a request and decode an answer that was there before it was asked for."""

    def __init__(self, name: str) -> None:
        super().__init__(None)
        self.name = name
        self._waiting: Iterator[str] = iter(())

    @contextmanager
    def place(self) -> Iterator[Place]:
        yield Place(self.broker, f"https://sqs.{REGION}.amazonaws.com")

    def fill(self, at: Place, events: Sequence[CloudEvent]) -> None:
        self._waiting = iter([_message(event) for event in events])

    def _counted(self, request: AWSRequest, event_name: str, **_: Any) -> AWSResponse:
        operation = event_name.rpartition(".")[2]
        self.requests[operation] += 1
        return AWSResponse(request.url, 200, {}, _Raw(self._answer(operation, request.body).encode()))

    def _answer(self, operation: str, body: str | bytes) -> str:
        if operation == "Publish":
            return _XML.format(operation, "<MessageId>0bfb0b8e-1111-2222-3333-444455556666</MessageId>", _METADATA)
        if operation == "PublishBatch":
            done = "".join(map(_MEMBER.format, range(_text(body).count(".Id="))))
            return _XML.format(operation, f"<Failed/><Successful>{done}</Successful>", _METADATA)
        if operation == "ReceiveMessage":
            asked = json.loads(body)
            messages = [text for _, text in zip(range(asked["MaxNumberOfMessages"]), self._waiting, strict=False)]
            if not messages:
                time.sleep(0.01)  # the measurement is over: nobody waits for this
            return f'{{"Messages":[{",".join(messages)}]}}'
        done = ",".join(f'{{"Id":"{number}"}}' for number in range(_text(body).count('"ReceiptHandle"')))
        return f'{{"Successful":[{done}],"Failed":[]}}'


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self._body


def _message(event: CloudEvent) -> str:
    """As SQS has it in its answer."""
    return json.dumps(
        {
            "MessageId": str(uuid.uuid4()),
            "ReceiptHandle": "AQEB" + uuid.uuid4().hex * 6,
            "MD5OfBody": _DIGEST,
            "Body": event.to_json().decode(),
            "Attributes": {"ApproximateReceiveCount": "1"},
            "MD5OfMessageAttributes": _DIGEST,
            "MessageAttributes": {"content-type": {"StringValue": CONTENT_TYPE, "DataType": "String"}},
        }
    )


def _text(body: str | bytes) -> str:
    return body if isinstance(body, str) else body.decode()
