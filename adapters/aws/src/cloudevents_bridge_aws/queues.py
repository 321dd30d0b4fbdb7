"""The control plane of SQS, a queue at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from cloudevents_bridge_aws import errors, settings
from cloudevents_bridge_aws.clients import Clients
from cloudevents_bridge_aws.names import Address, Names

T = TypeVar("T")
TIMEOUT = 10.0
_FIXED = frozenset({"FifoQueue"})
_USABLE = 10.0
_MISSING = frozenset({"NOT_FOUND"})


def missing(error: Exception) -> bool:
    """Whether an error says that something does not exist."""
    return errors.classify(error).code.value in _MISSING


class Queues:
    """Reads, makes and deletes queues. Attributes are those of SQS; absent ones are empty."""

    def __init__(self, clients: Clients, names: Names) -> None:
        self._clients, self._names = clients, names

    def read(self, queue: Address) -> Mapping[str, str] | None:
        """The attributes of a queue; None: there is none."""
        found: Mapping[str, str] | None = self._unless_missing(
            lambda: self._client(queue).get_queue_attributes(QueueUrl=self._names.url(queue), AttributeNames=["All"])[
                "Attributes"
            ]
        )
        return found

    def tags(self, queue: Address) -> Mapping[str, str]:
        url = self._names.url(queue)
        found: Mapping[str, Mapping[str, str]] | None = self._unless_missing(
            lambda: self._client(queue).list_queue_tags(QueueUrl=url)
        )
        return (found or {}).get("Tags", {})

    def make(self, queue: Address, attributes: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Create a queue, or change one that exists, and return when it is there for everybody."""
        given = {name: value for name, value in attributes.items() if value}
        try:
            self._client(queue).create_queue(QueueName=queue.name, Attributes=given, tags=tags)
        except Exception as error:
            if errors.classify(error).code.value != "ALREADY_EXISTS":
                raise
            self.change(queue, attributes)
        deadline = time.monotonic() + _USABLE
        while self.read(queue) is None and time.monotonic() < deadline:
            time.sleep(0.2)

    def change(self, queue: Address, attributes: Mapping[str, str]) -> None:
        changed = {name: value for name, value in attributes.items() if name not in _FIXED}
        self._client(queue).set_queue_attributes(QueueUrl=self._names.url(queue), Attributes=changed)

    def tag(self, queue: Address, tags: Mapping[str, str]) -> None:
        self._client(queue).tag_queue(QueueUrl=self._names.url(queue), Tags=tags)

    def empty(self, queue: Address) -> None:
        self._unless_missing(lambda: self._client(queue).purge_queue(QueueUrl=self._names.url(queue)))

    def delete(self, queue: Address, *, only_ours: bool = True) -> None:
        """Delete a queue, with what is in it. Silent when absent, and when it was made by others."""
        if only_ours and settings.TAG not in self.tags(queue):
            return
        self._unless_missing(lambda: self._client(queue).delete_queue(QueueUrl=self._names.url(queue)))

    def beginning_with(self, prefix: str, region: str, account: str) -> Iterator[Address]:
        client = self._clients.get("sqs", region, TIMEOUT)
        token: dict[str, Any] = {}
        while True:
            page = client.list_queues(QueueNamePrefix=prefix, MaxResults=1000, **token)
            for url in page.get("QueueUrls", ()):
                yield Address("sqs", region, account, url.rpartition("/")[2])
            if not page.get("NextToken"):
                return
            token = {"NextToken": page["NextToken"]}

    def _client(self, queue: Address) -> Any:
        return self._clients.get("sqs", queue.region, TIMEOUT)

    def _unless_missing(self, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except Exception as error:
            if missing(error):
                return None
            raise
