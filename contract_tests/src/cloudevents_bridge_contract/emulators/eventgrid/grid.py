"""What the emulator holds: topics that are pulled from, topics that push, and their subscriptions."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cloudevents_bridge_contract.emulators.eventgrid import dead_letters, handshake, targets
from cloudevents_bridge_contract.emulators.eventgrid.dead_letters import DeadLetters
from cloudevents_bridge_contract.emulators.eventgrid.events import Event
from cloudevents_bridge_contract.emulators.eventgrid.pull import DeadLetter, Failed, Given, Queue
from cloudevents_bridge_contract.emulators.eventgrid.push import Parcel, Pusher
from cloudevents_bridge_contract.emulators.eventgrid.settings import PullSettings, PushSettings

CLOUD_EVENTS, EVENT_GRID = "CloudEventSchemaV1_0", "EventGridSchema"
_LOOK = 0.25  # seconds between two looks whether who waits is still there


class PullSubscription:
    """A queue with a lock, for the threads of the server."""

    def __init__(self, settings: PullSettings, letters: DeadLetters) -> None:
        self.settings, self.letters = settings, letters
        self._changed = threading.Condition()
        self._open = True
        self._receivers = 0
        self._queue = Queue(lock=settings.lock, max_count=settings.max_count, ttl=settings.ttl, bury=self._bury)

    def put(self, events: Sequence[Event]) -> None:
        wanted = [event for event in events if self.settings.matches(event.fields)]
        with self._changed:
            self._queue.put(wanted, time.monotonic())
            self._changed.notify_all()

    def receive(self, most: int, wait: float, gone: Callable[[], bool]) -> list[Given]:
        """Up to `most` events, at once when there is one; none after `wait` seconds, or if who asked is gone."""
        with self._changed:
            self._receivers += 1
            try:
                return self._wait(most, time.monotonic() + wait, gone)
            finally:
                self._receivers -= 1

    def settle(self, verb: str, tokens: Sequence[str], delay: float = 0.0) -> list[Failed]:
        """Args:
        verb: acknowledge, release, reject or renewLock.
        delay: the service's seconds, for release.
        """
        with self._changed:
            now = time.monotonic()
            if verb == "release":
                failed = self._queue.release(tokens, now, delay * self.settings.time_scale)
            else:
                act = {"acknowledge": self._queue.acknowledge, "reject": self._queue.reject}
                failed = act.get(verb, self._queue.renew)(tokens, now)
            self._changed.notify_all()
        return failed

    def counts(self) -> dict[str, int]:
        with self._changed:
            self._queue.turn(time.monotonic())
            return {"events": len(self._queue), "locked": self._queue.locked, "receivers": self._receivers}

    def close(self) -> None:
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def _wait(self, most: int, deadline: float, gone: Callable[[], bool]) -> list[Given]:
        while self._open:
            now = time.monotonic()
            self._queue.turn(now)
            if gone():
                break
            if given := self._queue.take(most, now):
                return given
            if now >= deadline:
                break
            due = self._queue.next_due()
            self._changed.wait(min(deadline, now + _LOOK, due if due is not None else deadline) - now)
        return []

    def _bury(self, letter: DeadLetter) -> None:
        if self.settings.container:
            self.letters.write(dead_letters.pulled(letter))


class PushSubscription:
    """What one subscription of a custom topic pushes.

    Attributes:
        state: Succeeded, or AwaitingManualAction until the validation URL is called.
    """

    def __init__(
        self, topic: CustomTopic, name: str, settings: PushSettings, letters: DeadLetters, queues: targets.Queues
    ) -> None:
        self.settings, self.letters = settings, letters
        self.code = str(uuid.uuid4()).upper()
        self.state = "AwaitingManualAction"
        self._topic, self._name, self._queues = topic, name, queues
        self._pusher = Pusher(name, settings, self._send, self._bury)

    def validate(self, callback: str) -> None:
        """Raises:
        Problem: 400 where the endpoint refuses.
        """
        url = self.settings.target
        if self.settings.kind == "ServiceBusQueue":
            proven = True
            if isinstance(self._queues, targets.ServiceBusQueues):
                self._queues.open(url)
        elif self._topic.schema == CLOUD_EVENTS:
            proven = handshake.by_options(url, callback)
        else:
            proven = handshake.by_code(self._topic.name, self._name, url, callback, self.code)
        if proven:
            self.state = "Succeeded"

    def put(self, events: Iterable[Event]) -> None:
        if self.state == "Succeeded":
            self._pusher.put(event for event in events if self.settings.matches(event.fields))

    def counts(self) -> dict[str, int]:
        return {"events": self._pusher.waiting}

    def close(self) -> None:
        self._pusher.close()

    def _send(self, parcel: Parcel) -> None:
        cloud = self._topic.schema == CLOUD_EVENTS
        fields = parcel.event.fields
        headers = {
            "aeg-subscription-name": self._name.upper(),
            "aeg-delivery-count": str(parcel.attempts - 1),
            "aeg-event-type": "Notification",
            "aeg-metadata-version": "1.0" if cloud else "1",
            "aeg-output-event-id": str(fields.get("id")),
            **({} if cloud else {"aeg-data-version": str(fields.get("dataVersion"))}),
        }
        for name, (value, source) in self.settings.attributes.items():
            chosen = value if value is not None else _field(fields, source)
            if chosen is not None:
                headers[name] = chosen
        body = bytes(parcel.event.raw)
        media = "application/cloudevents+json; charset=utf-8" if cloud else "application/json; charset=utf-8"
        outgoing = targets.Outgoing(body if cloud else b"[" + body + b"]", media, headers, parcel.message_id)
        if self.settings.kind == "WebHook":
            targets.post(self.settings.target, outgoing)
        else:
            self._queues.deliver(self.settings.target, outgoing._replace(body=body))

    def _bury(self, blob: bytes) -> None:
        if self.settings.container:
            self.letters.write(blob)


class PullTopic:
    def __init__(self, name: str) -> None:
        self.name = name
        self.subscriptions: dict[str, PullSubscription] = {}


class CustomTopic:
    def __init__(self, name: str, schema: str) -> None:
        self.name, self.schema = name, schema
        self.subscriptions: dict[str, PushSubscription] = {}


class Grid:
    """One namespace and the custom topics beside it.

    Args:
        folder: holds the blob containers.
        queues: delivers to queues of Service Bus.
        time_scale: of subscriptions that have none of their own.
        strict: whether times below the service's minimum are refused.
        shortest_wait: seconds that a receive may wait, at least; 10 on the service.
    """

    NAMESPACE = "emulator"

    def __init__(
        self,
        folder: Path,
        *,
        queues: targets.Queues | None = None,
        time_scale: float = 1.0,
        strict: bool = False,
        shortest_wait: float = 10.0,
    ) -> None:
        self.folder, self.queues = folder, queues or targets.NoQueues()
        self.time_scale, self.strict, self.shortest_wait = time_scale, strict, shortest_wait
        self.topics: dict[str, PullTopic] = {}
        self.custom: dict[str, CustomTopic] = {}

    def letters(self, container: str, topic: str, subscription: str, *, pulled: bool) -> DeadLetters:
        place = self.folder / (container or "none")
        return DeadLetters((place / self.NAMESPACE if pulled else place) / topic / subscription)


def _field(fields: Mapping[str, Any], source: str) -> str | None:
    value: Any = fields
    for name in source.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return None if value is None or isinstance(value, Mapping | list) else str(value)
