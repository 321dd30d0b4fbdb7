"""What the suite must be told about a broker: how to reach it, what to expect of it, how to break it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, NamedTuple

from cloudevents_bridge import Broker, Capability, Topic, connect
from cloudevents_bridge_contract.existing import Pool
from cloudevents_bridge_contract.outcomes import NotRun, Unsupported

__all__ = ["NativeMessage", "NotRun", "Rig", "Unsupported"]


class NativeMessage(NamedTuple):
    """A message as the broker's own client sees it."""

    body: bytes
    attributes: Mapping[str, str]


class Rig:
    """One broker under test. Subclass it, give `name`, `kind` and `start`; the rest has defaults.

    A hook that is left alone makes the cases that need it end as `not run`, with its reason.

    Attributes:
        name: the column of the matrix.
        kind: what the broker was: "embedded", "emulator NAME VERSION", "fake" or "live".
        quirks: case ("settle.ack_is_final") to the reason why it proves nothing on this broker: it is not run.
        options: options of the adapter, given to every `connect`.
        topic_native: capability to the `native` settings that a topic needs for it.
        lease: seconds, the shortest lease that the broker grants.
        wakeup: seconds within which a waiting consumer sees an event.
        delay_step: seconds to whose next multiple the broker rounds a delay up; 0: it keeps it as asked.
        patience: seconds after which something that must happen has not happened.
        duplicates: whether a second delivery of an acked event fails a case, or is legal and counted.
        crosses_processes: whether another process reaches the same broker under the same URL.
        threads_to_send, threads_to_receive: threads of the adapter's own SDK, per broker and per subscriber.
        most_attempts: the most `max_attempts` that the broker takes; None: any.
        max_events: cap on the events of one case; None: as the contract says.
        prefix: start of the names of topics; short, in the form of portable names.
        ordered: whether every topic of the suite is an ordered one, where those are of a kind of their own.
        existing: topics that exist already, to use instead of creating some.
        in_tasks: whether the API is that for asyncio, behind that for threads.
        twin: the name of a rig whose outcomes must be the same, case by case.
    """

    name: str = "unnamed"
    kind: str = "live"
    quirks: Mapping[str, str] = {}
    options: Mapping[str, Any] = {}
    topic_native: Mapping[Capability, Mapping[str, Any]] = {}
    lease: float = 1.0
    wakeup: float = 1.0
    delay_step: float = 0.0
    patience: float = 10.0
    duplicates: Literal["fail", "count"] = "fail"
    crosses_processes: bool = True
    threads_to_send: int = 0
    threads_to_receive: int = 0
    most_attempts: int | None = None
    max_events: int | None = None
    prefix: str = "ceb"
    ordered: bool = False
    existing: Pool | None = None
    in_tasks: bool = False
    twin: str = ""

    def start(self) -> AbstractContextManager[str]:
        """Start the broker, or find it; give its URL. Called once per class of cases and process."""
        raise NotImplementedError(f"{type(self).__name__}.start gives the URL of the broker under test")

    def connect(self, url: str, **connect_options: Any) -> Broker:
        """`connect`, or what speaks the same API."""
        return connect(url, **connect_options)

    def broker(self, url: str, **connect_options: Any) -> Broker:
        """The connection that consumes and administers."""
        return self.connect(url, **{**self.options, **connect_options})

    def publishing_broker(self, url: str, **connect_options: Any) -> Broker:
        """The connection that publishes: the same API, perhaps spoken from another process."""
        return self.broker(url, **connect_options)

    def create(self, broker: Broker, topic: Topic) -> None:
        """Make the topic with its subscriptions; return when both are usable."""
        broker.topology.apply(topic)

    def remove(self, broker: Broker, topic: Topic) -> None:
        """Remove the topic and all that belongs to it."""
        broker.topology.delete(topic)

    def list_topics(self, url: str) -> Iterable[str]:
        """The names of all topics, for `ceb contract --sweep`."""
        raise NotImplementedError("this rig cannot list topics (Rig.list_topics): remove what is left by hand")

    def break_connections(self) -> None:
        """Cut every connection to the broker, or restart it; it is reachable again soon after."""
        raise NotRun("the rig has no way to break connections")

    def stuck(self) -> AbstractContextManager[None]:
        """While it is open the broker answers no publish."""
        raise NotRun("the rig has no way to make the broker stop answering")

    def denied(self, url: str, topic: Topic) -> AbstractContextManager[tuple[str, str]]:
        """A URL without the right to publish to the topic, and the action that an error must name."""
        raise NotRun("the rig has no identity without rights")

    def control_plane_calls(self, url: str) -> int:
        """How often this broker was asked to create, change, delete or describe anything so far."""
        raise NotRun("the rig does not count control-plane calls")

    def native_send(self, url: str, topic: Topic, message: NativeMessage) -> None:
        """Put a message into the topic with the broker's own client, not with the adapter."""
        raise NotRun("the rig has no native client to write with")

    def native_receive(self, url: str, topic: Topic) -> NativeMessage:
        """The next message of the topic's first subscription, read with the broker's own client."""
        raise NotRun("the rig has no native client to read with")

    def native_form(self, event: Any) -> NativeMessage:
        """The documented native form of an event, written down by hand: not with the adapter's own codec."""
        raise NotRun("the rig does not spell out the native form")

    def binary_form(self, event: Any) -> NativeMessage:
        """An event in this broker's binary form (attributes beside the data), written down by hand."""
        raise NotRun("the rig does not spell out the binary form")

    @contextmanager
    def running(self) -> Iterator[str]:
        """`start`, for the suite: a place for what a variant of a rig needs beside the broker."""
        with self.start() as url:
            yield url
