"""The ways to publish and to receive on SNS and SQS that are measured: this library's, and loops on boto3 by hand."""

from __future__ import annotations

import gc
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from aws_services import Place, Service
from botocore.config import Config

from cloudevents_bridge import CloudEvent, Delivery
from cloudevents_bridge.formats.json import CONTENT_TYPE

BATCH = 10
LEAN = Config(parameter_validation=False, retries={"total_max_attempts": 1, "mode": "standard"})
"""What the adapter's own clients have, too: botocore's check of what it is given costs a tenth of a request."""
ATTRIBUTES = {"content-type": {"DataType": "String", "StringValue": CONTENT_TYPE}}


class Cost(NamedTuple):
    """Of one measurement.

    Attributes:
        rate: events per second.
        cpu: microseconds of this process per event.
        requests: per 1,000 events.
    """

    rate: float
    cpu: float
    requests: float


class Ways:
    """What is measured on one service. A client by hand is made once, like ours."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.sns = service.client("sns", config=LEAN)
        self.sqs = service.client("sqs", config=LEAN)
        self.plain_sns = service.client("sns")
        self.plain_sqs = service.client("sqs")

    def measured(self, count: int, work: Callable[[], float | None]) -> Cost:
        """`work` may say when it had done its work, where it takes long to end."""
        gc.collect()
        before = self.service.requests.total()
        cpu, began = time.process_time(), time.perf_counter()
        done = work()
        took, used = (done or time.perf_counter()) - began, time.process_time() - cpu
        return Cost(count / took, used / count * 1e6, (self.service.requests.total() - before) / count * 1000)

    # -- publishing

    def ours_many(self, at: Place, events: Sequence[CloudEvent]) -> Cost:
        def work() -> None:
            at.broker.publish_many(at.name, events)

        return self.measured(len(events), work)

    def ours_single(self, at: Place, events: Sequence[CloudEvent]) -> Cost:
        def work() -> None:
            for event in events:
                at.broker.publish(at.name, event)

        return self.measured(len(events), work)

    def batches_by_hand(self, at: Place, events: Sequence[CloudEvent], client: Any) -> Cost:
        def work() -> None:
            for start in range(0, len(events), BATCH):
                entries = [
                    {"Id": str(n), "Message": event.to_json().decode(), "MessageAttributes": ATTRIBUTES}
                    for n, event in enumerate(events[start : start + BATCH])
                ]
                answer = client.publish_batch(TopicArn=at.arn, PublishBatchRequestEntries=entries)
                if answer.get("Failed"):
                    raise AssertionError(answer)

        return self.measured(len(events), work)

    def singles_by_hand(self, at: Place, events: Sequence[CloudEvent], client: Any) -> Cost:
        def work() -> None:
            for event in events:
                client.publish(TopicArn=at.arn, Message=event.to_json().decode(), MessageAttributes=ATTRIBUTES)

        return self.measured(len(events), work)

    # -- receiving

    def ours_receive(self, at: Place, count: int) -> Cost:
        def work() -> None:
            left = count
            with at.broker.subscriber(at.name, "reader") as subscriber:
                while left:
                    deliveries = subscriber.receive(100, wait=10)
                    for delivery in deliveries:
                        look(delivery.event.id)
                    subscriber.ack_many(deliveries)
                    left -= len(deliveries)

        return self.measured(count, work)

    def ours_worker(self, at: Place, count: int, **options: Any) -> Cost:
        done = threading.Event()
        left = count

        def seen(handled: int) -> None:
            nonlocal left
            left -= handled
            if left == 0:
                done.set()

        def one(event: CloudEvent) -> None:
            look(event.id)
            seen(1)

        def many(deliveries: list[Delivery]) -> None:
            for delivery in deliveries:
                look(delivery.event.id)
            seen(len(deliveries))

        def work() -> float:
            handler: Callable[..., None] = many if options else one
            with at.broker.worker().add(at.name, "reader", handler, **options):
                done.wait(300)
                return time.perf_counter()  # it ends when its last poll has ended

        return self.measured(count, work)

    def receive_by_hand(self, at: Place, count: int, client: Any) -> Cost:
        def work() -> None:
            left = count
            while left:
                answer = client.receive_message(
                    QueueUrl=at.url,
                    MaxNumberOfMessages=BATCH,
                    WaitTimeSeconds=10,
                    MessageAttributeNames=["All"],
                    MessageSystemAttributeNames=["ApproximateReceiveCount"],
                )
                messages = answer.get("Messages", ())
                for message in messages:
                    look(json.loads(message["Body"])["id"])
                if messages:
                    entries = [
                        {"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]} for n, each in enumerate(messages)
                    ]
                    client.delete_message_batch(QueueUrl=at.url, Entries=entries)
                left -= len(messages)

        return self.measured(count, work)


def look(id: str) -> str:
    """What every handler here does."""
    return id
