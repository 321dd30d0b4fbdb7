"""SNS, SQS and STS as clients that answer from memory: what the adapter uses, for one consumer, and without leases."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

ACCOUNT = "123456789012"
REGION = "eu-west-1"
Call = Callable[..., dict[str, Any]]


def refusal(code: str, operation: str, status: int = 400) -> ClientError:
    """An error as boto3 raises it."""
    answer: Any = {"Error": {"Code": code, "Message": "why"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


class Aws:
    """One account. `client` is the adapter's option of that name.

    Attributes:
        calls: how often each operation was asked for.
        topics, queues: attributes, by ARN and by URL; tags beside them.
        subscriptions: (topic ARN, queue ARN, attributes), by ARN.
        fail: errors to raise, by operation.
        asked: each call with what was given, in order.
        configs: those of the clients that were made.
        waiting: messages that nobody has received, by queue URL.
        moves: tasks that move whole queues, the newest first.
        outcomes: what becomes of the newest one after it was looked at, one look after the other.
        polls: a poll of an empty queue ends when this is released, or once `over` is set.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.topics: dict[str, dict[str, str]] = {}
        self.queues: dict[str, dict[str, str]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.subscriptions: dict[str, tuple[str, str, dict[str, str]]] = {}
        self.fail: dict[str, Exception] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.configs: list[Any] = []
        self.waiting: defaultdict[str, deque[dict[str, Any]]] = defaultdict(deque)
        self.moves: deque[dict[str, Any]] = deque()
        self.outcomes: deque[dict[str, Any]] = deque()
        self.polls = threading.Semaphore(0)
        self.over = threading.Event()

    def client(self, service: str, region: str, config: Any) -> Any:
        self.configs.append(config)
        return _Client(self)

    def queue(self, name: str) -> dict[str, str]:
        return self.queues[url(name)]

    # -- SNS

    def create_topic(self, Name: str, Attributes: Any, Tags: Any) -> dict[str, Any]:
        arn = topic_arn(Name)
        if arn not in self.topics:
            self.topics[arn] = dict(Attributes)
            self.tags[arn] = {each["Key"]: each["Value"] for each in Tags}
        return {"TopicArn": arn}

    def get_topic_attributes(self, TopicArn: str) -> dict[str, Any]:
        return {"Attributes": self._topic(TopicArn, "GetTopicAttributes")}

    def set_topic_attributes(self, TopicArn: str, AttributeName: str, AttributeValue: str) -> dict[str, Any]:
        self._topic(TopicArn, "SetTopicAttributes")[AttributeName] = AttributeValue
        return {}

    def delete_topic(self, TopicArn: str) -> dict[str, Any]:
        self.topics.pop(TopicArn, None)
        gone = [arn for arn, (topic, _, _) in self.subscriptions.items() if topic == TopicArn]
        for arn in gone:
            del self.subscriptions[arn]
        return {}

    def list_tags_for_resource(self, ResourceArn: str) -> dict[str, Any]:
        self._topic(ResourceArn, "ListTagsForResource")
        return {"Tags": [{"Key": name, "Value": value} for name, value in self.tags.get(ResourceArn, {}).items()]}

    def tag_resource(self, ResourceArn: str, Tags: Any) -> dict[str, Any]:
        self.tags.setdefault(ResourceArn, {}).update({each["Key"]: each["Value"] for each in Tags})
        return {}

    def subscribe(self, TopicArn: str, Endpoint: str, Attributes: Any, **_: Any) -> dict[str, Any]:
        self._topic(TopicArn, "Subscribe")
        arn = f"{TopicArn}:{hashlib.sha256(Endpoint.encode()).hexdigest()[:8]}"
        self.subscriptions[arn] = (TopicArn, Endpoint, dict(Attributes))
        return {"SubscriptionArn": arn}

    def unsubscribe(self, SubscriptionArn: str) -> dict[str, Any]:
        self.subscriptions.pop(SubscriptionArn, None)
        return {}

    def list_subscriptions_by_topic(self, TopicArn: str, NextToken: str = "0") -> dict[str, Any]:
        self._topic(TopicArn, "ListSubscriptionsByTopic")
        found = [
            {"SubscriptionArn": arn, "Protocol": "sqs", "Endpoint": queue}
            for arn, (topic, queue, _) in self.subscriptions.items()
            if topic == TopicArn
        ]
        at = int(NextToken)  # one to a page, to try the pages
        return {"Subscriptions": found[at : at + 1], **({"NextToken": str(at + 1)} if at + 1 < len(found) else {})}

    def get_subscription_attributes(self, SubscriptionArn: str) -> dict[str, Any]:
        return {"Attributes": self.subscriptions[SubscriptionArn][2]}

    def set_subscription_attributes(self, SubscriptionArn: str, AttributeName: str, AttributeValue: str) -> Any:
        self.subscriptions[SubscriptionArn][2][AttributeName] = AttributeValue
        return {}

    # -- SQS

    def create_queue(self, QueueName: str, Attributes: Any, tags: Any) -> dict[str, Any]:
        self.queues.setdefault(url(QueueName), dict(Attributes))
        self.tags.setdefault(url(QueueName), dict(tags))
        return {"QueueUrl": url(QueueName)}

    def get_queue_attributes(self, QueueUrl: str, AttributeNames: Any) -> dict[str, Any]:
        return {"Attributes": self._queue(QueueUrl, "GetQueueAttributes")}

    def set_queue_attributes(self, QueueUrl: str, Attributes: Any) -> dict[str, Any]:
        self._queue(QueueUrl, "SetQueueAttributes").update(Attributes)
        return {}

    def list_queue_tags(self, QueueUrl: str) -> dict[str, Any]:
        self._queue(QueueUrl, "ListQueueTags")
        return {"Tags": self.tags.get(QueueUrl, {})}

    def tag_queue(self, QueueUrl: str, Tags: Any) -> dict[str, Any]:
        self.tags.setdefault(QueueUrl, {}).update(Tags)
        return {}

    def list_queues(self, QueueNamePrefix: str, **_: Any) -> dict[str, Any]:
        return {"QueueUrls": [each for each in self.queues if each.rpartition("/")[2].startswith(QueueNamePrefix)]}

    def delete_queue(self, QueueUrl: str) -> dict[str, Any]:
        self._queue(QueueUrl, "DeleteQueue")
        del self.queues[QueueUrl]
        return {}

    def start_message_move_task(self, SourceArn: str, DestinationArn: str, **_: Any) -> dict[str, Any]:
        self.moves.appendleft({"StartedTimestamp": len(self.moves), "Status": "RUNNING"})
        return {"TaskHandle": f"task {SourceArn} {DestinationArn}"}

    def list_message_move_tasks(self, SourceArn: str, MaxResults: int) -> dict[str, Any]:
        shown = list(self.moves)[:MaxResults]
        if self.moves and self.outcomes:
            self.moves[0] |= self.outcomes.popleft()
        return {"Results": shown}

    def cancel_message_move_task(self, TaskHandle: str) -> dict[str, Any]:
        return {"ApproximateNumberOfMessagesMoved": 0}

    # -- the data plane

    def publish_batch(self, TopicArn: str, PublishBatchRequestEntries: Any) -> dict[str, Any]:
        self._topic(TopicArn, "PublishBatch")
        for topic, queue, _ in self.subscriptions.values():
            if topic == TopicArn:
                self._put(url(queue.rpartition(":")[2]), PublishBatchRequestEntries, "Message")
        return {"Successful": [{"Id": each["Id"], "MessageId": "m"} for each in PublishBatchRequestEntries]}

    def send_message_batch(self, QueueUrl: str, Entries: Any) -> dict[str, Any]:
        self._queue(QueueUrl, "SendMessageBatch")
        self._put(QueueUrl, Entries, "MessageBody")
        return {"Successful": [{"Id": each["Id"], "MessageId": "m"} for each in Entries]}

    def receive_message(self, QueueUrl: str, MaxNumberOfMessages: int, WaitTimeSeconds: int, **_: Any) -> Any:
        self._queue(QueueUrl, "ReceiveMessage")
        waiting = self.waiting[QueueUrl]
        while WaitTimeSeconds and not waiting and not self.over.is_set():
            if self.polls.acquire(timeout=0.02):
                break
        return {"Messages": [waiting.popleft() for _ in range(min(MaxNumberOfMessages, len(waiting)))]}

    def delete_message_batch(self, QueueUrl: str, Entries: Any) -> dict[str, Any]:
        return {"Successful": [{"Id": each["Id"]} for each in Entries]}

    def change_message_visibility_batch(self, QueueUrl: str, Entries: Any) -> dict[str, Any]:
        return {"Successful": [{"Id": each["Id"]} for each in Entries]}

    def _put(self, at: str, entries: Any, body: str) -> None:
        for each in entries:
            system = {"ApproximateReceiveCount": "1"}
            if "MessageGroupId" in each:
                system["MessageGroupId"] = each["MessageGroupId"]
            self.waiting[at].append(
                {
                    "Body": each[body],
                    "MessageAttributes": each["MessageAttributes"],
                    "Attributes": system,
                    "ReceiptHandle": uuid.uuid4().hex,
                }
            )

    # -- STS

    def get_caller_identity(self) -> dict[str, Any]:
        return {"Account": ACCOUNT}

    # -- inside

    def _topic(self, arn: str, operation: str) -> dict[str, str]:
        if arn not in self.topics:
            raise refusal("NotFound", operation, 404)
        return self.topics[arn]

    def _queue(self, at: str, operation: str) -> dict[str, str]:
        if at not in self.queues:
            raise refusal("AWS.SimpleQueueService.NonExistentQueue", operation)
        return self.queues[at]


class _Client:
    """Counts each call, and fails it where a test says so."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def __getattr__(self, name: str) -> Call:
        call: Call = getattr(self._aws, name)

        def counted(**given: Any) -> dict[str, Any]:
            operation = "".join(part.capitalize() for part in name.split("_"))
            self._aws.calls[operation] += 1
            self._aws.asked.append((operation, given))
            if operation in self._aws.fail:
                raise self._aws.fail[operation]
            return call(**given)

        return counted


def url(queue: str) -> str:
    return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{queue}"


def topic_arn(name: str) -> str:
    return f"arn:aws:sns:{REGION}:{ACCOUNT}:{name}"


def queue_arn(name: str) -> str:
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
