"""The workbench of one case: random topics, connections that are closed behind it, and waiting to a deadline."""

from __future__ import annotations

import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cloudevents_bridge import (
    BridgeError,
    Broker,
    Capability,
    CloudEvent,
    DeadLetter,
    Delivery,
    Publisher,
    RetryPolicy,
    Subscriber,
    Subscription,
    Topic,
    UnsupportedError,
    Worker,
    driver,
)
from cloudevents_bridge_contract import faulty
from cloudevents_bridge_contract.outcomes import NotRun, Unsupported
from cloudevents_bridge_contract.rig import Rig

T = TypeVar("T")

AT_ONCE = RetryPolicy(attempts=None, initial=0.0, maximum=0.0)
"""Redelivery without back-off, so that no case waits for one it does not test."""

ONCE = RetryPolicy(attempts=1)
"""No retry: the case sees what the first try brought."""
QUICK = RetryPolicy(attempts=5, initial=0.01, maximum=0.05)
"""Retries that are over before a lease is."""
LONG_STOP = 0.5
"""Seconds. A receive that takes this long to return after `stop` is helped to."""

NAMES = ("alpha", "bravo", "carol", "delta")


class Running:
    """A rig that was started, with the connection that makes and removes topics."""

    def __init__(self, rig: Rig, url: str) -> None:
        self.rig = rig
        self.url = url
        self.admin = rig.broker(url)

    @classmethod
    @contextmanager
    def started(cls, rig: Rig) -> Iterator[Running]:
        with _shut_off(), rig.running() as url:
            self = cls(rig, url)
            with self.admin:
                yield self


@contextmanager
def _shut_off() -> Iterator[None]:
    """Keep a `bridge.toml` that lies about, here and in the programs that cases start, out of the run."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        config = Path(folder) / "bridge.toml"
        config.touch()
        patch.setenv("CLOUDEVENTS_BRIDGE_CONFIG", str(config))
        yield


class Bench:
    """What a case works with: the public API, the rig, and helpers that wait to a deadline.

    Attributes:
        rig: the broker under test.
        url: where it is.
        lease: seconds, the shortest lease that the broker grants.
        duplicates: legal second deliveries seen so far.
    """

    def __init__(self, running: Running) -> None:
        self.rig = running.rig
        self.url = running.url
        self.lease = running.rig.lease
        self.capabilities = running.admin.capabilities
        self.mark = uuid.uuid4().hex[:8]
        self.source = f"/contract/{self.mark}"
        self.duplicates = 0
        self._admin = running.admin
        self._stack = ExitStack()
        self._gates: list[threading.Event] = []
        self._made: list[Topic] = []
        self._stops: list[Callable[[], object]] = []
        self._own: set[tuple[str, str]] = set()
        self._publishing: dict[str, Broker] = {}
        self._count = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for gate in self._gates:
            gate.set()
        self._hurry_polls()
        try:
            self._stack.close()
        except BridgeError:
            if kind is None:  # else what the case found counts more
                raise

    def at_end(self, call: Callable[[], object]) -> None:
        """Call it when the case ends; what was given last is called first."""
        self._stack.callback(call)

    def ends(self, worker: Worker) -> Worker:
        """Close a worker when the case ends."""
        self._stops.append(worker.stop)
        self.at_end(worker.close)
        return worker

    def _hurry_polls(self) -> None:
        """What the case left running gets an event, which ends the polls that cannot be cut short."""
        for stop in self._stops:
            stop()
        for topic in [each for each in self._made if each.subscriptions] if self._stops else ():
            traits = self.driver().open_subscriber(native_place(topic, 0)).traits
            if traits.stop_within >= LONG_STOP:
                with suppress(BridgeError):
                    self._publishing_to(topic).publish(topic.name, self.event(), timeout=LONG_STOP)

    def gate(self) -> threading.Event:
        """What handlers wait at until the case opens it. It opens when the case ends, before all else."""
        gate = threading.Event()
        self._gates.append(gate)
        return gate

    # what there is to work on

    def name(self, stem: str) -> str:
        """A portable name that no other case has."""
        return f"{self.rig.prefix}-{stem}-{uuid.uuid4().hex[:8]}"

    def many(self, wanted: int) -> int:
        """A number of events, within the cap of the run."""
        return min(wanted, self.rig.max_events or wanted)

    def declare(
        self,
        subscriptions: int = 1,
        *,
        name: str = "",
        ordered: bool = False,
        lease: float = 30.0,
        max_attempts: int = 5,
        redelivery: RetryPolicy = AT_ONCE,
        filter: str | None = None,
        native_for: Capability | None = None,
    ) -> Topic:
        """A topic that does not exist yet. The lease is long unless the case is about leases."""
        return Topic(
            name or self.name("topic"),
            ordered=ordered or self.rig.ordered,
            native=self.rig.topic_native.get(native_for, {}) if native_for else {},
            subscriptions=[
                Subscription(
                    each,
                    lease=max(lease, self.lease),
                    max_attempts=min(max_attempts, self.rig.most_attempts or max_attempts),
                    redelivery=redelivery,
                    filter=filter,
                )
                for each in NAMES[:subscriptions]
            ],
        )

    def like(self, topic: Topic, **changes: Any) -> Topic:
        """The topic, declared with other settings."""
        given = {"subscriptions": topic.subscriptions, "ordered": topic.ordered, "native": topic.native}
        return Topic(topic.name, **{**given, **changes})

    def topic(self, subscriptions: int = 1, **settings: Any) -> Topic:
        """A topic that exists, with so many subscriptions, until the case ends. Settings are those of `declare`."""
        return self.make(self.declare(subscriptions, **settings))

    def make(self, topic: Topic) -> Topic:
        """Make what was declared; where the broker lacks a capability it needs, see that this is refused."""
        for capability, needed in (
            (Capability.ORDERING, topic.ordered),
            (Capability.FILTER, any(s.filter for s in topic.subscriptions)),
        ):
            if needed:
                self.requires(capability, lambda: self._create_with(topic))
        if self.rig.existing is not None:
            lent = self._stack.enter_context(self.rig.existing.borrow(topic))
            if lent is None:
                raise NotRun(f"no existing topic serves as {topic}")
            return lent
        self._stack.callback(self.rig.remove, self._admin, topic)
        self.rig.create(self._admin, topic)
        self._made.append(topic)
        return topic

    def _create_with(self, topic: Topic) -> None:
        with self.rig.broker(self.url, topics=[topic]) as broker:
            self.rig.create(broker, topic)

    def requires(self, capability: Capability, attempt: Callable[[], object]) -> None:
        """Go on where the capability is declared; elsewhere the attempt must be refused, and the case ends there."""
        if capability in self.capabilities:
            return
        with pytest.raises(UnsupportedError) as caught:
            attempt()
        assert capability.value in str(caught.value), f"the error does not name the capability: {caught.value}"
        raise Unsupported(f"{capability.value} is not declared, and was refused")

    def event(self, **attributes: Any) -> CloudEvent:
        """An event of this case: its id is new, its source is the mark of the case."""
        with self._lock:
            self._count += 1
            number = self._count
        attributes = {
            "type": "com.example.contract",
            "source": self.source,
            "id": f"{self.mark}-{number}",
            "data": {"number": number},
        } | attributes
        return self.own(CloudEvent(**attributes))

    def own(self, event: CloudEvent) -> CloudEvent:
        """Take an event for one of this case's."""
        self._own.add((event.source, event.id))
        return event

    def events(self, count: int, **attributes: Any) -> list[CloudEvent]:
        return [self.event(**attributes) for _ in range(count)]

    # connections

    def broker(self, *topics: Topic, shim: faulty.Shim | None = None, **options: Any) -> Broker:
        """A connection of its own, closed with the case; with a shim, behind that."""
        if shim is None:
            return self._stack.enter_context(self.rig.broker(self.url, topics=topics, **options))
        name = f"case-{uuid.uuid4().hex}"
        shim.options = self.rig.options
        faulty.register(name, lambda: shim)
        self._stack.callback(faulty.unregister, name)
        return self._stack.enter_context(self.rig.connect(faulty.through(name, self.url), topics=topics, **options))

    def publishing(self, *topics: Topic, **options: Any) -> Broker:
        """A connection that publishes, where the rig wants it: perhaps in another process."""
        return self._stack.enter_context(self.rig.publishing_broker(self.url, topics=topics, **options))

    def publisher(self, topic: Topic, **options: Any) -> Publisher:
        return self._publishing_to(topic).publisher(topic.name, **options)

    def publish(self, topic: Topic, *events: CloudEvent, **options: Any) -> None:
        """Publish with `publish_many`; every event must be accepted."""
        receipts = self._publishing_to(topic).publish_many(topic.name, events, **options)
        assert [r.event_id for r in receipts] == [e.id for e in events], "the receipts are not those of the events"

    def _publishing_to(self, topic: Topic) -> Broker:
        if topic.name not in self._publishing:
            self._publishing[topic.name] = self.publishing(topic)
        return self._publishing[topic.name]

    def subscriber(self, topic: Topic, index: int = 0, *, broker: Broker | None = None, **options: Any) -> Subscriber:
        """A consumer of the topic's n-th subscription, on a connection of its own or on the one given."""
        broker = broker or self.broker(topic)
        return self._stack.enter_context(broker.subscriber(topic.name, topic.subscriptions[index].name, **options))

    # waiting to a deadline

    def eventually(self, check: Callable[[], T], what: str, *, patience: float | None = None) -> T:
        """The first true value that `check` gives; fails after the rig's patience."""
        deadline = time.monotonic() + (patience or self.rig.patience)
        while not (value := check()):
            assert time.monotonic() < deadline, f"it did not happen in time: {what}"
            time.sleep(0.01)
        return value

    def passes(self, seconds: float) -> None:
        """So much time passes, in which something that must not happen has its chance."""
        until = time.monotonic() + seconds
        self.eventually(lambda: time.monotonic() > until, "time passes", patience=seconds + self.rig.patience)

    def gather(
        self, subscriber: Subscriber, count: int, *, ack: bool = True, patience: float | None = None, batch: int = 100
    ) -> list[Delivery]:
        """Receive until so many events of this case are here, each once."""
        found: dict[tuple[str, str], Delivery] = {}
        deadline = time.monotonic() + (patience or self.rig.patience)
        while len(found) < count:
            left = deadline - time.monotonic()
            assert left > 0, f"only {len(found)} of {count} events arrived in time"
            most = min(batch, count - len(found))
            received = subscriber.receive(most, wait=min(left, 5.0))
            assert len(received) <= most, f"receive({most}) gave {len(received)} deliveries"
            news = [d for d in received if self._mine(d)]
            for delivery in news:
                self._once((delivery.event.source, delivery.event.id) in found, delivery)
                found.setdefault((delivery.event.source, delivery.event.id), delivery)
            if ack and news:
                subscriber.ack_many(news)
        return list(found.values())

    def each_once(self, arrived: Sequence[str], wanted: Iterable[str]) -> None:
        """What arrived is what was wanted, all of it, and once where duplicates are not legal."""
        assert sorted(set(arrived)) == sorted(wanted), "an event is missing, or nobody published it"
        again = len(arrived) - len(set(arrived))
        assert not again or self.rig.duplicates == "count", f"{again} events were delivered twice although all acked"
        self.duplicates += again

    def one(
        self, subscriber: Subscriber, event: CloudEvent | None = None, *, patience: float | None = None
    ) -> Delivery:
        """The next delivery, not settled; of that event, where one is given."""
        [delivery] = self.gather(subscriber, 1, ack=False, batch=1, patience=patience)
        if event is not None:
            assert delivery.event == event, f"{delivery.event!r} arrived, not {event!r}"
        return delivery

    def nothing(self, subscriber: Subscriber, seconds: float, why: str) -> None:
        """No event of this case arrives for so long; first deliveries count where duplicates are legal."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for delivery in subscriber.receive(10, wait=left):
                if not self._mine(delivery):
                    continue
                if self.rig.duplicates == "count" and delivery.attempt == 1:
                    self.duplicates += 1
                    delivery.ack()
                else:
                    raise AssertionError(f"{delivery.event!r} arrived, attempt {delivery.attempt}: {why}")

    def _mine(self, delivery: Delivery) -> bool:
        mine = (delivery.event.source, delivery.event.id) in self._own
        if not mine:
            assert self.rig.existing is not None, f"{delivery.event!r} arrived, which this case never published"
            delivery.ack()
        return mine

    def _once(self, again: bool, delivery: Delivery) -> None:
        if again:
            assert self.rig.duplicates == "count", f"{delivery.event!r} was delivered twice"
            self.duplicates += 1

    def letters(
        self,
        topic: Topic,
        count: int,
        index: int = 0,
        *,
        broker: Broker | None = None,
        receiving: Subscriber | None = None,
    ) -> list[DeadLetter]:
        """The dead letters of the topic's n-th subscription, once there are so many.

        Args:
            receiving: a consumer through whose hands they have to go first.
        """
        place = (broker or self.broker(topic)).dead_letters(topic.name, topic.subscriptions[index].name)
        found: list[DeadLetter] = []

        def enough() -> bool:
            if receiving is not None:
                self.nothing(receiving, 0.1, "it was to die")
            found[:] = place.find()
            return len(found) >= count

        self.eventually(enough, f"{count} dead letters of {topic.name}/{topic.subscriptions[index].name}")
        assert len(found) == count, f"{len(found)} dead letters where {count} died: {found}"
        return found

    # by the side door

    def driver(self) -> driver.Connection:
        """The driver's connection without the portable layer, for messages that the public API cannot make."""
        connection = faulty.open_driver(self.url, self.rig.options)
        self._stack.callback(connection.close)
        return connection

    def sizes(self, topic: Topic) -> Callable[[CloudEvent], int]:
        """How many bytes an event is on its way to the topic, as the driver counts them."""
        connection = self.driver()
        publisher = connection.open_publisher(native_place(topic))

        def size(event: CloudEvent) -> int:
            attributes, body = connection.wire.encode(event)
            dedup = f"{event.source} {event.id}"
            return publisher.size(driver.Outbound(body, attributes, event.partitionkey, dedup))

        return size

    def put(self, topic: Topic, body: bytes, attributes: Mapping[str, str] | None = None) -> None:
        """Put a message as it is into the topic."""
        [outcome] = (
            self.driver()
            .open_publisher(native_place(topic))
            .send([driver.Outbound(body, attributes or {})], timeout=self.rig.patience)
        )
        assert isinstance(outcome, driver.Done), outcome


def together(jobs: Iterable[Callable[[], T]]) -> list[T]:
    """Run the jobs at the same time, each in a thread; the first error comes out when all have ended."""
    listed = list(jobs)
    with ThreadPoolExecutor(len(listed)) as pool:
        return [future.result() for future in [pool.submit(job) for job in listed]]


def keys(deliveries: Iterable[Delivery | CloudEvent]) -> list[str]:
    """The ids, for comparing what arrived with what was sent."""
    return [d.id if isinstance(d, CloudEvent) else d.event.id for d in deliveries]


def native_place(topic: Topic, index: int | None = None) -> Any:
    """The topic as drivers know it, or its n-th subscription."""
    native = driver.Topic(topic.name, topic.ordered, topic.native)
    if index is None:
        return native
    declared = topic.subscriptions[index]
    return driver.Subscription(native, declared.name, lease=declared.lease, max_attempts=declared.max_attempts)
