"""The broker: the connection that `connect` returns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from cloudevents_bridge import clock, driver
from cloudevents_bridge.adapters import check_options, load_adapter
from cloudevents_bridge.core.retry import Backoff
from cloudevents_bridge.dead_letters import DeadLetters
from cloudevents_bridge.driver import Capability
from cloudevents_bridge.errors import ConfigurationError, NotFoundError, PublishError, UnsupportedError
from cloudevents_bridge.event import CloudEvent
from cloudevents_bridge.faults import wrapped
from cloudevents_bridge.line import Line, merged
from cloudevents_bridge.outlet import Receipt
from cloudevents_bridge.publisher import Publisher
from cloudevents_bridge.session import DEFAULT_TIMEOUT, Closing, Declared, Opener, SessionConfig
from cloudevents_bridge.subscriber import Decoder, Subscriber
from cloudevents_bridge.telemetry import open_telemetry
from cloudevents_bridge.topics import RetryPolicy, Subscription, Topic, check_name
from cloudevents_bridge.topology import Topology
from cloudevents_bridge.worker import Worker

if TYPE_CHECKING:
    from cloudevents_bridge.config import Settings

C = TypeVar("C", Subscriber, Worker)
TAIL_EXPIRES = 3600.0
"""Seconds unused after which a broker removes the subscription of a tail that was killed."""


def connect(
    url: str | None = None,
    *,
    profile: str | None = None,
    config: str | PathLike[str] | None = None,
    topics: Iterable[Topic] = (),
    requires: Iterable[Capability | str] = (),
    create_missing: bool | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    telemetry: bool | None = None,
    **options: Any,
) -> Broker:
    """Connect to the broker of a URL or a profile. Does no I/O: the first call on the broker does.

    The broker is named by, in this order: `url`, `profile`, the variables CLOUDEVENTS_BRIDGE_URL and
    CLOUDEVENTS_BRIDGE_PROFILE, the `default` of `bridge.toml`. Arguments go before what the file says.

    Args:
        config: the path of the `bridge.toml`.
        topics: what the program declares. What `bridge.toml` says of the same topic goes over it, key by key, so that
            a profile can name what is native to its broker.
        requires: capabilities without which the program cannot work.
        create_missing: apply the declared topics and subscriptions on first use, then create undeclared ones when
            they are used. For development.
        retry: how failed requests are repeated.
        timeout: seconds a call may take with its retries, 30 if nobody says.
        telemetry: spans, metrics and trace context with OpenTelemetry. None: if opentelemetry-api is installed.
        options: the adapter's own.

    Raises:
        ConfigurationError: if no broker is named, a URL, profile, file or option is wrong, or telemetry is wanted and
            opentelemetry-api is not installed.
        UnsupportedError: if the broker lacks a capability that is required or declared.
    """
    from cloudevents_bridge.config import load  # a fifth of the whole import

    topics = tuple(topics)
    settings = load(url, profile=profile, config=config, topics=topics)
    return Broker(
        settings,
        requires=requires,
        create_missing=create_missing,
        retry=retry,
        timeout=timeout,
        telemetry=telemetry,
        **options,
    )


class Broker(Closing):
    """A connection to one broker, made by `connect`. Thread-safe; opened on first use, and again after a fork.

    Attributes:
        url: the broker's address.
        capabilities: what it can do beyond what every broker can.
        topology: creates, compares and deletes topics and subscriptions.
    """

    url: str
    capabilities: frozenset[Capability]
    topology: Topology

    def __init__(
        self,
        settings: Settings,
        *,
        requires: Iterable[Capability | str] = (),
        create_missing: bool | None = None,
        retry: RetryPolicy | None = None,
        timeout: float | None = None,
        telemetry: bool | None = None,
        **options: Any,
    ) -> None:
        self.url = settings.url.text
        if timeout is None:
            timeout = DEFAULT_TIMEOUT if settings.timeout is None else settings.timeout
        if not timeout > 0:
            raise ConfigurationError(f"timeout is {timeout!r}: it must be more than 0 seconds")
        adapter = load_adapter(settings.url.scheme)
        merged = {**settings.options, **options}
        check_options(adapter, settings.url, merged)
        self._declared = Declared(settings.topics)
        self._opener = Opener(
            lambda: adapter(settings.url, merged),
            SessionConfig(
                broker=self.url,
                declared=self._declared,
                backoff=Backoff(retry or settings.retry or RetryPolicy()),
                timeout=timeout,
                create_missing=settings.create_missing if create_missing is None else create_missing,
                telemetry=open_telemetry(
                    settings.telemetry if telemetry is None else telemetry,
                    getattr(adapter, "system", settings.url.scheme),
                ),
            ),
        )
        self.capabilities = self._opener.get().connection.capabilities
        self.topology = Topology(self._opener)
        self._lines: dict[str, Line] = {}
        self._consuming: list[Subscriber | Worker] = []
        self._dead_letters: dict[tuple[str, str], DeadLetters] = {}
        try:
            for capability in (*settings.requires, *requires):
                self._require(capability)
            self._opener.get().check(settings.topics)
        except BaseException:
            self._opener.close()
            raise

    @property
    def native(self) -> Any:
        """The SDK's own client, for what only this broker has."""
        return self._opener.get().connection.native

    def publish(self, topic: str, event: CloudEvent, *, delay: float = 0.0, timeout: float | None = None) -> Receipt:
        """Publish one event: `publisher(topic).publish`, which documents it."""
        return self.publisher(topic).publish(event, delay=delay, timeout=timeout)

    def publish_many(
        self, topic: str, events: Iterable[CloudEvent], *, delay: float = 0.0, timeout: float | None = None
    ) -> list[Receipt]:
        """Publish events in batches: `publisher(topic).publish_many`, which documents it."""
        return self.publisher(topic).publish_many(events, delay=delay, timeout=timeout)

    def publisher(
        self,
        topic: str,
        *,
        linger: float = 0.01,
        max_buffered: int = 10_000,
        on_full: Literal["block", "raise"] = "block",
    ) -> Publisher:
        """A publisher of a topic. Those of one topic share what is costly, which is closed with the broker.

        Args:
            linger: seconds that `submit` waits for more before it sends a batch that is not full.
            max_buffered: events submitted and not yet accepted, at most.
            on_full: what `submit` does then: wait, or raise RESOURCE_EXHAUSTED.
        """
        self._opener.get()
        line = self._lines.get(topic)
        if line is None:
            made = Line(self._opener, self._declared.topic(topic))
            with self._opener.lock:
                line = self._lines.setdefault(topic, made)
        return Publisher(line, linger=linger, max_buffered=max_buffered, on_full=on_full)

    def subscriber(self, topic: str, subscription: str, *, foreign: Sequence[Decoder] = ()) -> Subscriber:
        """A subscriber of a subscription, closed with the broker.

        Args:
            foreign: what to try, in order, with a message that is no CloudEvent. One that returns None passes it on;
                one that raises dead-letters it.
        """
        self._opener.get()
        place = self._declared.subscription(topic, subscription)
        return self._own(Subscriber(self._opener, place, self._declared.policy(topic, subscription), foreign))

    def worker(self, *, grace: float = 25.0) -> Worker:
        """A worker, which calls handlers and settles for them; closed with the broker.

        Args:
            grace: seconds that handlers have to end when it is stopped.
        """
        self._opener.get()

        def place(topic: str, subscription: str) -> tuple[driver.Subscription, Subscription]:
            declared = self._declared
            return declared.subscription(topic, subscription), declared.policy(topic, subscription)

        return self._own(Worker(self._opener, place, grace=grace))

    def dead_letters(self, topic: str, subscription: str) -> DeadLetters:
        """The dead letters of a subscription."""
        letters = self._dead_letters.get((topic, subscription))
        if letters is None:
            made = DeadLetters(self._opener, self._declared.subscription(topic, subscription))
            letters = self._dead_letters.setdefault((topic, subscription), made)
        return letters

    def ping(self, *, timeout: float = 5.0) -> None:
        """Reach the broker and authenticate, within `timeout` seconds. Needs no right on a topic.

        Raises:
            BridgeError: why that failed.
        """
        session = self._opener.get()
        session.call("ping", lambda left: session.connection.ping(timeout=left), timeout=timeout)

    def close(self, *, timeout: float = 30.0) -> None:
        """Close every worker and subscriber, flush and close every publisher, then the connection. Closing twice is
        harmless.

        Raises:
            PublishError: if submitted events were not accepted; `.failed` holds those of all publishers.
        """
        session = self._opener.peek()
        if session is None:
            self._opener.close()
            return
        deadline = clock.now() + timeout
        lost: PublishError | None = None

        def flush(line: Line) -> None:
            nonlocal lost
            try:
                line.close(max(deadline - clock.now(), 0.0))
            except PublishError as error:
                lost = merged(lost, error)

        # From the last to the first, and one that cannot be closed does not keep the others from it.
        with wrapped(session.connection, "close", self.url), ExitStack() as stack:
            stack.callback(self._opener.close)
            for line in list(self._lines.values()):  # which handlers that end publish to
                stack.callback(flush, line)
            for each in self._consuming:
                stack.callback(_close, each, deadline)
            for each in self._consuming:  # all, before one is waited for
                stack.callback(each.stop if isinstance(each, Worker) else each._stop)
        if lost is not None:
            raise lost

    def __repr__(self) -> str:
        return f"<Broker {self.url}>"

    def _own(self, consuming: C) -> C:
        with self._opener.lock:
            self._consuming = [each for each in self._consuming if not each.closed]
            self._consuming.append(consuming)
        return consuming

    def _require(self, capability: Capability | str) -> None:
        try:
            wanted = Capability(capability)
        except ValueError:
            known = ", ".join(sorted(Capability))
            raise ConfigurationError(f"{capability!r} is no capability; the capabilities are {known}") from None
        if wanted not in self.capabilities:
            have = ", ".join(sorted(self.capabilities)) or "none"
            raise UnsupportedError(
                f"{self.url} does not have the capability {wanted.value!r}, which the program requires (it has: "
                f"{have}): use another broker, or do without",
                broker=self.url,
            )

    @contextmanager
    def _tail(self, topic: str) -> Iterator[Subscriber]:
        """A subscriber of everything published from now on, on a subscription that goes with it."""
        session = self._opener.get()
        session.require(Capability.TAIL, "create a subscription and receive from it")
        name = f"ceb-tail-{os.urandom(4).hex()}"
        of = driver.Subscription(self._declared.topic(check_name("topic", topic)), name, expires=TAIL_EXPIRES)
        session.ensure(of.topic)
        changes = session.call(f"tail topic {topic}", lambda _: session.connection.topology.diff([of.topic]))
        if any(change.have is None and not change.setting for change in changes):
            raise NotFoundError(f"there is no topic {topic} on {self.url} to tail: create it with `ceb topology apply`")
        session.call(f"tail topic {topic}", lambda _: session.apply([of]))
        subscriber = self._own(Subscriber(self._opener, of, Subscription(name)))
        try:
            yield subscriber
        finally:
            subscriber.close()
            session.call("end the tail", lambda _: session.connection.topology.delete(of))


def _close(consuming: Subscriber | Worker, deadline: float) -> None:
    consuming.close(timeout=max(deadline - clock.now(), 0.0))
