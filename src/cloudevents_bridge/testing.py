"""For the tests of applications: a broker in memory that can be looked into, moved in time and made to fail."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from msgspec.structs import replace

from cloudevents_bridge import clock, driver
from cloudevents_bridge.bindings import STRUCTURED
from cloudevents_bridge.broker import Broker, connect
from cloudevents_bridge.brokers.memory.clock import VirtualClock
from cloudevents_bridge.brokers.memory.feed import Feed
from cloudevents_bridge.brokers.memory.store import Call, Store
from cloudevents_bridge.dead_letters import DeadLetter
from cloudevents_bridge.delivery import Delivery, Reject
from cloudevents_bridge.errors import BridgeError, DecodeError, ErrorCode
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.handlers import InsideLoopError, Pipeline, run_here
from cloudevents_bridge.obituary import read
from cloudevents_bridge.router import Action, Router, pipeline
from cloudevents_bridge.session import Closing
from cloudevents_bridge.topics import RetryPolicy, Topic

if TYPE_CHECKING:
    from cloudevents_bridge.aio import AsyncBroker

__all__ = ["FakeBroker", "Outcome", "make_event"]

Handler = Router | Callable[..., object]
Operation = Literal["publish", "receive", "settle"]

_ANY: Any = ...
_AT_ONCE = RetryPolicy(initial=0.0, maximum=0.0)
_ACTIONS: Mapping[str, Action] = {"ack": "ack", "nack": "nack", "release": "nack", "dead": "dead_letter"}
_PASSING = frozenset({ErrorCode.UNAVAILABLE, ErrorCode.RESOURCE_EXHAUSTED, ErrorCode.DEADLINE_EXCEEDED})
_TIME = datetime(2020, 1, 1, tzinfo=UTC)
_NAMED = frozenset({"subject", "time", "datacontenttype", "dataschema", "partitionkey"})


class Outcome(NamedTuple):
    """How one run of a handler was settled.

    Attributes:
        delay: seconds until the next delivery, of a nack.
        reason: why it was dead-lettered.
        error: what the handler raised.
        event: what it was given.
    """

    action: Action
    delay: float | None
    reason: str | None
    error: BaseException | None
    event: CloudEvent


def make_event(
    type: str = "com.example.test",
    data: object = _ANY,
    *,
    source: str = "/test",
    id: str = "test-1",
    **attributes: Any,
) -> CloudEvent:
    """An event with a fixed id and time, so that a test can compare whole events.

    Args:
        attributes: other attributes by name; what is none of the specification's is an extension.
    """
    named = {name: attributes.pop(name) for name in list(attributes) if name in _NAMED}
    extensions = {**attributes.pop("extensions", {}), **attributes}
    made: dict[str, Any] = {"time": _TIME, **named, "extensions": extensions}
    if data is not _ANY:
        made["data"] = data
    return CloudEvent(type=type, source=source, id=id, **made)


class FakeBroker(Closing):
    """A broker in memory for tests. It creates what is missing, on every connection to its URL.

    Time stands still until `advance` moves it, or until nothing is left to do but to wait for a delay: delays and
    redelivery back-off never sleep. A subscription that is first used after events were published has them too.

    Args:
        topics: what the program declares in code; what its `bridge.toml` declares is known.

    Attributes:
        url: what the application under test connects to.
        broker: a connection of the test's own.
    """

    url: str
    broker: Broker

    def __init__(self, *, topics: Iterable[Topic] = ()) -> None:
        self.url = f"memory://fake-{os.urandom(6).hex()}"
        self._clock = VirtualClock()
        self.broker = connect(self.url, topics=topics, clock=self._clock, create_missing=False, retry=_AT_ONCE)
        self._store: Store = self.broker.native
        self._sent: list[tuple[float, str, driver.Outbound]] = []
        self._troubles: deque[tuple[Operation, driver.Fault, bool]] = deque()
        self._settled: list[Call] = []
        self._store.watcher = self
        self._aio: AsyncBroker | None = None

    @property
    def aio(self) -> AsyncBroker:
        """The same connection for asyncio."""
        if self._aio is None:
            from cloudevents_bridge.aio import AsyncBroker

            self._aio = AsyncBroker(self.broker)
        return self._aio

    def published(self, topic: str | None = None, *, type: str | None = None) -> list[CloudEvent]:
        """The events published so far, in order; of one topic and one type where they are given."""
        with self._store.lock:
            sent = list(self._sent)
        events = [STRUCTURED.decode(each.attributes, each.body) for _, to, each in sent if topic in (None, to)]
        return [event for event in events if type in (None, event.type)]

    def assert_published(
        self,
        topic: str,
        *,
        type: str | None = None,
        source: str | None = None,
        subject: str | None = None,
        data: object = _ANY,
        times: int = 1,
    ) -> CloudEvent:
        """Assert that such an event was published, exactly so many times, and return the first one.

        Args:
            data: a part of the data: of a mapping the keys named here, and so on inside; anything else is equal.

        Raises:
            AssertionError: it lists what was published instead.
        """
        wanted = {"type": type, "source": source, "subject": subject}
        events = self.published(topic)
        found = [
            event
            for event in events
            if all(value in (None, getattr(event, name)) for name, value in wanted.items())
            and (data is _ANY or (event.data_bytes is not None and _contains(event.data, data)))
        ]
        if len(found) != times or not found:
            asked = [f"{name}={value!r}" for name, value in wanted.items() if value is not None]
            asked += [] if data is _ANY else [f"data={data!r}"]
            raise AssertionError(
                f"{len(found)} events {', '.join(asked) or 'of any kind'} were published to {topic}, expected {times}; "
                f"published to it: {_listed(events)}"
            )
        return found[0]

    def assert_not_published(self, topic: str | None = None, *, type: str | None = None) -> None:
        """Assert that no such event was published.

        Raises:
            AssertionError: it lists them.
        """
        events = self.published(topic, type=type)
        if events:
            raise AssertionError(f"nothing should have been published to {topic or 'any topic'}: {_listed(events)}")

    def deliver(self, handler: Handler, event: CloudEvent, *, attempt: int = 1) -> Outcome:
        """Run a router, or a handler, on one event, apart from all topics, and say how the delivery was settled.

        Args:
            handler: its parameters are filled by their annotations: `CloudEvent` or none gets the event, `Delivery`
                the delivery, anything else the data as that type.
            attempt: which delivery of the event it is; from `max_attempts` (5) on, a failed run is its last.

        Raises:
            TypeError: if a parameter of the handler cannot be filled.
            BridgeError: FAILED_PRECONDITION if the handler is async and this thread's event loop is running: use
                `await asyncio.to_thread(fake.deliver, handler, event)`.
        """
        run = pipeline(handler, run_here)
        with FakeBroker() as alone:
            subscriber = alone.broker.subscriber("deliver", "here")
            attributes, body = STRUCTURED.encode(event)
            # Past the publisher, so that a handler can be given an event that expired long ago.
            alone.broker.native.send(subscriber._of, [driver.Outbound(body, attributes)])
            [delivery] = subscriber.receive(wait=0)
            inbound = replace(delivery._inbound, attempt=attempt)
            return alone._run(run, Delivery(delivery._inlet, inbound, event, clock.now()))

    def drain(self, topic: str, subscription: str, handler: Handler) -> list[Outcome]:
        """Run a router, or a handler, on what is in a subscription, until each event is acked or dead. Delays cost no
        time.

        Raises:
            AssertionError: if another consumer has deliveries in hand and settles none of them.
            TypeError: as `deliver`.
            BridgeError: as `deliver`.
        """
        run = pipeline(handler, run_here)
        place = self.broker._declared.subscription(topic, subscription)
        outcomes: list[Outcome] = []
        with self.broker.subscriber(topic, subscription) as subscriber:
            while True:
                received = subscriber.receive(1, wait=0)
                outcomes.extend(self._run(run, delivery) for delivery in received)
                if received:
                    continue
                with self._store.lock:
                    feed = self._store.feed(place)
                    left, leased, delay = feed.size, feed.leased, feed.next_delay()
                    now = self._clock.now()
                if not left:
                    return outcomes
                if delay is None:
                    raise AssertionError(
                        f"{leased} deliveries of {topic}/{subscription} are in the hands of another consumer: settle "
                        "them, or close its subscriber, before draining"
                    )
                self.advance(max(delay - now, 0.0))

    def dead_letters(self, topic: str, subscription: str) -> list[DeadLetter]:
        """The dead letters of a subscription."""
        return list(self.broker.dead_letters(topic, subscription).find())

    def fail_next(
        self,
        operation: Operation,
        error: str | BridgeError = "UNAVAILABLE",
        *,
        times: int = 1,
        accepted: bool = False,
    ) -> None:
        """Make the next operations fail, on any connection to this broker.

        Args:
            error: a code, or an error with all that it says. UNAVAILABLE, RESOURCE_EXHAUSTED and DEADLINE_EXCEEDED
                pass, so the library tries again.
            accepted: the operation takes effect and only its answer is lost.
        """
        if isinstance(error, BridgeError):
            fault = driver.Fault(error.code, error.retryable, accepted, error.retry_after, str(error))
        else:
            code = ErrorCode(error)
            fault = driver.Fault(code, code in _PASSING, accepted, message="the test asked for this failure")
        with self._store.lock:
            self._troubles.extend([(operation, fault, accepted)] * times)

    def advance(self, seconds: float) -> None:
        """Move the broker's time: delays that end are over, and so are leases."""
        self._clock.advance(seconds)
        self._store.wake()

    def close(self, *, timeout: float = 30.0) -> None:
        """Close the test's own connection."""
        self.broker.close(timeout=timeout)

    def _run(self, run: Pipeline, delivery: Delivery) -> Outcome:
        raised: BaseException | None = None
        first = len(self._settled)
        try:
            with delivery:
                self._call(run, delivery)
        except InsideLoopError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is its outcome
            raised = error
            if isinstance(error, Reject) and isinstance(cause := error.__cause__, DecodeError):
                raised = cause if error.reason == str(cause) else error
        settles = [call for call in self._settled[first:] if call.verb in _ACTIONS]
        if not settles:
            raise AssertionError(f"the delivery of event {delivery.event.id} could not be settled: {raised}")
        call = settles[-1]
        assert call.verb is not None
        action = _ACTIONS[call.verb]
        reason = read(call.reason).reason if action == "dead_letter" else None
        return Outcome(action, call.seconds if action == "nack" else None, reason, raised, delivery.event)

    def _call(self, run: Pipeline, delivery: Delivery) -> None:
        try:
            result = run(delivery)
            if result is not None:
                run_here(cast("Coroutine[Any, Any, object]", result))
        except InsideLoopError:  # it never ran
            delivery.give_back()
            raise

    # What the store tells, with its lock held.

    def begins(self, call: Call) -> tuple[driver.Fault, bool] | None:
        if call.operation == "settle" and call.verb != "extend":
            self._settled.append(call)
        for place, (operation, fault, accepted) in enumerate(self._troubles):
            if operation == call.operation:
                del self._troubles[place]
                return fault, accepted
        return None

    def accepted(self, topic: str, batch: Sequence[driver.Outbound]) -> None:
        now = self._clock.now()
        self._sent.extend((now, topic, message) for message in batch)

    def created(self, feed: Feed) -> None:
        for published, topic, message in self._sent:
            if topic == feed.of.topic.name:
                feed.put([message], published)


def _contains(have: object, want: object) -> bool:
    if isinstance(have, Mapping) and isinstance(want, Mapping):
        return all(name in have and _contains(have[name], value) for name, value in want.items())
    return have == want


def _listed(events: list[CloudEvent]) -> str:
    shown = [f"{event.type} {event.id}" for event in events[:10]]
    return ", ".join(shown + (["…"] if len(events) > 10 else [])) or "nothing"
