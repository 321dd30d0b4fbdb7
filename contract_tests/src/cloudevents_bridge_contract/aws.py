"""The rigs of AWS: standard and FIFO, on LocalStack, on MiniStack, or wherever the environment says.

They use, in this order: the real account whose URL is in CEB_CONTRACT_AWS_URL (`aws://eu-west-1`); the emulator at
CEB_CONTRACT_AWS_ENDPOINT; an emulator on this machine, started once per process. Where there is none of them the cases
are not run.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

from cloudevents_bridge import Capability, CloudEvent, Topic
from cloudevents_bridge_contract.emulators import localstack as localstack_
from cloudevents_bridge_contract.emulators import ministack as ministack_
from cloudevents_bridge_contract.emulators.process import HOST, Server
from cloudevents_bridge_contract.emulators.proxy import Proxy
from cloudevents_bridge_contract.emulators.venvs import NotInstalledError
from cloudevents_bridge_contract.rig import NativeMessage, NotRun, Rig

URL_VARIABLE = "CEB_CONTRACT_AWS_URL"
ENDPOINT_VARIABLE = "CEB_CONTRACT_AWS_ENDPOINT"
REGION = "eu-west-1"
_STEADY = frozenset(
    {
        "Publish",
        "PublishBatch",
        "SendMessageBatch",
        "ReceiveMessage",
        "DeleteMessageBatch",
        "ChangeMessageVisibilityBatch",
    }
)
_servers: dict[Callable[[], Server], Server] = {}
_lock = threading.Lock()
requests: Counter[str] = Counter()
"""The requests of this process, by operation."""


def running(make: Callable[[], Server]) -> Server:
    """The emulator of this process, started on first use.

    Raises:
        NotRun: if it is not on this machine.
    """
    with _lock:
        if make not in _servers:
            try:
                _servers[make] = make().start()
            except NotInstalledError as error:
                raise NotRun(str(error)) from None
            atexit.register(_servers[make].stop)
        return _servers[make]


def counting_client(service: str, region: str, config: Any) -> Any:
    """A client as the adapter makes it, which counts its requests."""
    client = _session().client(service, region_name=region, config=config)
    client.meta.events.register("before-call", _count)
    return client


def _count(model: Any, **_: Any) -> None:
    requests[model.name] += 1


_sessions: dict[int, Any] = {}


def _session() -> Any:
    import boto3

    return _sessions.setdefault(os.getpid(), boto3.Session())


class AwsRig(Rig):
    """SNS and SQS.

    Args:
        name: the column.
        make: the emulator that is started where the environment names none.
    """

    lease = 2.0  # LocalStack is up to a second late
    wakeup = 2.0
    patience = 15.0
    delay_step = 2.0  # a second, and that again
    topic_native: Mapping[Capability, Mapping[str, Any]] = {Capability.DEDUPLICATION: {"deduplication": 300}}
    scheme = "aws"

    def __init__(self, name: str, make: Callable[[], Server], kind: str, quirks: Mapping[str, str]) -> None:
        self.name = name
        self.kind = kind
        self.quirks = {case: f"emulator: {reason}" for case, reason in quirks.items()}
        # The last poll of a subscriber that is closed is waited for: 20 seconds would make the suite long.
        self.options: Mapping[str, Any] = {"client": counting_client, "poll": 1}
        self._make = make
        self._proxy: Proxy | None = None

    @contextmanager
    def start(self) -> Iterator[str]:
        if url := os.environ.get(URL_VARIABLE):
            self.kind, self.quirks, self.duplicates = "live", {}, "count"
            yield url
            return
        host, port = self._server(os.environ.get(ENDPOINT_VARIABLE))
        with pytest.MonkeyPatch.context() as patch, Proxy(port, host) as self._proxy:
            endpoint = f"http://127.0.0.1:{self._proxy.port}"
            for name, value in {
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            }.items():
                patch.setenv(name, value)
            patch.delenv("AWS_PROFILE", raising=False)
            yield f"{self.scheme}://{REGION}?account=000000000000&endpoint={endpoint}"

    def _server(self, endpoint: str | None) -> tuple[str, int]:
        if endpoint is None:
            return HOST, running(self._make).port
        where = urlsplit(endpoint)
        if where.scheme != "http" or where.hostname is None:
            raise NotRun(f"{ENDPOINT_VARIABLE} is {endpoint!r}: write http://HOST:PORT")
        self.kind = f"emulator at {where.netloc}"
        return where.hostname, where.port or 80

    def break_connections(self) -> None:
        self._behind("connections that can be cut").cut()

    @contextmanager
    def stuck(self) -> Iterator[None]:
        with self._behind("a broker that can be held").hold():
            yield

    def _behind(self, what: str) -> Proxy:
        if self._proxy is None:
            raise NotRun(f"a real account has no {what}")
        return self._proxy

    def control_plane_calls(self, url: str) -> int:
        return sum(count for name, count in requests.items() if name not in _STEADY)

    def denied(self, url: str, topic: Topic) -> AbstractContextManager[tuple[str, str]]:
        raise NotRun("emulator: policies are not enforced")

    def native_send(self, url: str, topic: Topic, message: NativeMessage) -> None:
        sns = _session().client("sns", region_name=REGION)
        arn = f"arn:aws:sns:{REGION}:000000000000:{topic.name}" + (".fifo" if topic.ordered else "")
        attributes = {name: {"DataType": "String", "StringValue": text} for name, text in message.attributes.items()}
        fifo = {"MessageGroupId": "one", "MessageDeduplicationId": "one"} if topic.ordered else {}
        sns.publish(TopicArn=arn, Message=message.body.decode(), MessageAttributes=attributes, **fifo)

    def native_receive(self, url: str, topic: Topic) -> NativeMessage:
        sqs = _session().client("sqs", region_name=REGION)
        name = f"{topic.name}--{topic.subscriptions[0].name}" + (".fifo" if topic.ordered else "")
        queue = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        [message] = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=10, MessageAttributeNames=["All"])["Messages"]
        attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
        return NativeMessage(message["Body"].encode(), attributes)

    def native_form(self, event: CloudEvent) -> NativeMessage:
        form: dict[str, Any] = {"specversion": "1.0", "id": event.id, "source": event.source, "type": event.type}
        form |= {name: value for name, value in (("subject", event.subject), *event.extensions.items()) if value}
        if isinstance(event.data, bytes):
            form |= {"data_base64": base64.b64encode(event.data).decode()}
        else:
            form |= {"datacontenttype": "application/json", "data": event.data}
        body = json.dumps(form, ensure_ascii=False, separators=(",", ":")).encode()
        return NativeMessage(body, {"content-type": "application/cloudevents+json"})

    def binary_form(self, event: CloudEvent) -> NativeMessage:
        attributes = {"ce-specversion": "1.0", "ce-id": event.id, "ce-source": event.source, "ce-type": event.type}
        named = (("subject", event.subject), *event.extensions.items())
        attributes |= {f"ce-{name}": str(value) for name, value in named if value}
        body = json.dumps(event.data, ensure_ascii=False, separators=(",", ":")).encode()
        return NativeMessage(body, {**attributes, "content-type": "application/json"})


class FifoRig(AwsRig):
    """The same, with every topic of the suite ordered."""

    ordered = True

    def __init__(self, name: str, make: Callable[[], Server], kind: str, quirks: Mapping[str, str]) -> None:
        super().__init__(name, make, kind, quirks)
        self.quirks = {**self.quirks, "order.key_is_ignored_where_nothing_is_ordered": "every topic here is ordered"}


class QueueRig(AwsRig):
    """Queues without topics."""

    scheme = "aws-sqs"


_LOCALSTACK: Mapping[str, str] = {
    "order.lost_lease_of_the_head_drops_its_key": "what is given back comes although its head is out; MiniStack has it",
}
_MINISTACK: Mapping[str, str] = {}


def localstack(*, max_events: int | None = None) -> AwsRig:
    return _capped(AwsRig("aws-localstack", localstack_.localstack, localstack_.KIND, _LOCALSTACK), max_events)


def localstack_fifo(*, max_events: int | None = None) -> FifoRig:
    return _capped(FifoRig("aws-fifo-localstack", localstack_.localstack, localstack_.KIND, _LOCALSTACK), max_events)


def ministack() -> AwsRig:
    return _exact(AwsRig("aws-ministack", ministack_.ministack, ministack_.KIND, _MINISTACK))


def ministack_fifo() -> FifoRig:
    return _exact(FifoRig("aws-fifo-ministack", ministack_.ministack, ministack_.KIND, _MINISTACK))


_R = TypeVar("_R", bound=AwsRig)


def _exact(rig: _R) -> _R:
    """Leases end when they say: the shortest that there is will do."""
    rig.lease = rig.delay_step = 1.0
    return rig


def _capped(rig: _R, max_events: int | None) -> _R:
    rig.max_events = max_events
    return rig
