"""The seam. A driver blocks, makes one native request per call, holds no policy and buffers nothing.

SDK retries are off: the portable layer retries, in one place. An exception applies to every message of the call and
goes through `Connection.classify`; one message's failure is a `Fault` at its index. Connecting and `open_*` do no I/O.
Nothing is called after a fork: the child connects anew. Durations are seconds, sizes bytes; attributes are strings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal, Protocol, TypeAlias

from msgspec import Struct, field

from cloudevents_bridge.bindings import Wire
from cloudevents_bridge.errors import ErrorCode

Verb: TypeAlias = Literal["ack", "nack", "release", "extend", "dead"]

TARGET = "ceb-target"
"""Attribute: the one subscription a replayed event is for, on brokers that reach a subscription by its topic only."""

DEAD_LETTER = "ceb-dead-letter"
"""Attribute of a delivery from a dead-letter place: the `reason` given to `settle("dead", …)`, verbatim."""


class Capability(StrEnum):
    """What may not exist on every broker. Declared means it works; undeclared means `UnsupportedError`."""

    ORDERING = "ordering"
    DELAY = "delay"
    EXPIRY = "expiry"
    DEDUPLICATION = "deduplication"
    FILTER = "filter"
    EXTEND = "extend"
    REPLAY = "replay"
    TAIL = "tail"
    TOPOLOGY = "topology"


class Url(Struct, frozen=True):
    """A broker's address, `scheme://authority/path?query`, checked and free of credentials."""

    text: str
    scheme: str
    authority: str
    path: str
    query: Mapping[str, str]


class Topic(Struct, frozen=True):
    """The place that events are published to."""

    name: str
    ordered: bool = False
    native: Mapping[str, Any] = field(default_factory=dict)


class Subscription(Struct, frozen=True):
    """The place that events are consumed from. `expires`: removed when unused for so long; None: never."""

    topic: Topic
    name: str
    lease: float = 60.0
    max_attempts: int = 5
    retention: float = 1_209_600.0
    filter: str | None = None
    expires: float | None = None
    native: Mapping[str, Any] = field(default_factory=dict)


class DeadLetters(Struct, frozen=True):
    """The dead-letter place of a subscription, opened like any other."""

    of: Subscription


class Outbound(Struct, frozen=True, gc=False):
    """One event, encoded, on its way to the broker.

    Attributes:
        key: the ordering key. It counts where the topic is ordered and is ignored elsewhere.
        dedup: the same on each retry of a send, fresh on a replay.
        delay: seconds until it may be delivered first. Above 0 only with `Capability.DELAY`.
        ttl: seconds after which it need not be delivered any more.
    """

    body: bytes
    attributes: Mapping[str, str]
    key: str | None = None
    dedup: str | None = None
    delay: float = 0.0
    ttl: float | None = None


class Inbound(Struct, frozen=True, eq=False):
    """One delivery as the broker handed it out.

    Attributes:
        handle: the driver's own (receipt, lock and receiver, offset); opaque to the portable layer.
        lease: seconds surely left when `receive` returned; the legal minimum if unknown.
        attempt: 1 = first, an upper bound; None: the broker does not count.
        key: the ordering key, where the topic is ordered.
        stream: session, partition or shard: kept, lost and ordered as one.
    """

    body: bytes
    attributes: Mapping[str, str]
    handle: Any
    lease: float
    attempt: int | None
    key: str | None = None
    stream: str | None = None
    native: Any = None


class Received(Struct, frozen=True):
    """What one receive brought. `lost`: streams taken away; receive returns at once to say so."""

    messages: Sequence[Inbound] = ()
    lost: Sequence[str] = ()


class Done(Struct, frozen=True, gc=False):
    """Success for one message.

    Attributes:
        id: send: the broker's id for it.
        sequence: send: its place in the broker's order, where it has one.
        lease: extend: seconds granted, often not those asked for.
        reached: send: how many subscriptions it was put into; None where the broker does not say.
    """

    id: str = ""
    sequence: str | None = None
    lease: float = 0.0
    reached: int | None = None


class Fault(Struct, frozen=True, gc=False):
    """Failure of one message, or of a whole call. `maybe_applied`: it may have happened, a retry may duplicate."""

    code: ErrorCode
    retryable: bool
    maybe_applied: bool
    retry_after: float | None = None
    message: str = ""


class SendTraits(Struct, frozen=True):
    """What a publisher driver takes.

    Attributes:
        batch_count: messages in one send, at most.
        batch_bytes: sum of `size` in one send, at most. It may shrink: TOO_LARGE for a batch makes the core bisect it.
        message_bytes: `size` of one message, at most.
        keys: what one batch may hold. mixed: anything, accepted or refused as one, or in order per key.
            one_key: a single ordering key, or none. one_each: no ordering key twice.
        sends: how many sends are worth having in flight at once.
        dedup_window: seconds within which a second send of the same `dedup` is accepted and not delivered again.
    """

    batch_count: int
    batch_bytes: int
    message_bytes: int
    keys: Literal["mixed", "one_key", "one_each"] = "mixed"
    sends: int = 1
    dedup_window: float = 0.0


class ReceiveTraits(Struct, frozen=True):
    """What a subscriber driver offers.

    Attributes:
        batch_count, settle_count: messages in one receive and one settle, at most.
        settle_bytes: sum of the handles' lengths in one settle, at most; 0: no limit.
        receives: receives that may block at once; with sessions: keys in hand.
        wait: shortest and longest native wait; the shell makes the rest.
        stop_within: a blocked receive returns this soon after `stop()`.
        nack_delay: longest native delay of a nack, rounded up to a legal one; 0: none.
        nack_least: shortest native delay of a nack, beside none. A shorter one is held by the portable layer where
            there is room, and rounded up where there is none.
        lease_total: longest a delivery can be kept by extending.
        removes_after: deliveries after which the broker itself removes it; None: never.
        settle: each delivery by itself, or prefix: an ack covers all before it in its stream.
        free_release: release spends no attempt.
        dead: settle takes the verb "dead", which moves to the dead-letter place and never drops.
        key_batches: one receive may bring several deliveries of a key, in order. The next one brings none of it while
            one of these is out.
    """

    batch_count: int
    settle_count: int
    receives: int
    wait: tuple[float, float]
    stop_within: float
    nack_delay: float
    lease_total: float
    removes_after: int | None
    settle: Literal["each", "prefix"]
    free_release: bool
    dead: bool
    key_batches: bool = False
    settle_bytes: int = 0
    nack_least: float = 0.0

    def delays(self, seconds: float) -> bool:
        """Whether the broker itself has a delay of a nack that is about so long."""
        return seconds <= self.nack_delay and (seconds <= 0 or seconds >= self.nack_least)


class PublisherDriver(Protocol):
    """Any thread may call any method at any time."""

    traits: SendTraits

    def size(self, message: Outbound) -> int:
        """Exact native bytes of the message with its overhead. Pure: no I/O."""

    def send(self, batch: Sequence[Outbound], *, timeout: float) -> Sequence[Done | Fault]:
        """Send one batch, in order; one outcome per message. Ends within about `timeout`, and never while the request
        may still be running. The portable layer has cut the batch to the traits, and retries.
        """

    def close(self) -> None:
        """Idempotent."""


class SubscriberDriver(Protocol):
    """receive: at most `traits.receives` threads. settle, stop: any thread; neither waits for a receive."""

    traits: ReceiveTraits

    def receive(self, max_messages: int, wait: float) -> Received:
        """Block until there is a message, `wait` is over, a stream is lost or `stop()`. What it took and cannot return
        it gives back.
        """

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Sequence[Done | Fault]:
        """One verb, one delay or lease in `seconds`; one outcome per message. A delivery whose lease is lost gives
        LEASE_LOST. "dead" only where `traits.dead`.
        """

    def stop(self) -> None:
        """No more messages: a blocked receive returns. Idempotent; settle works until `close`."""

    def close(self) -> None:
        """Ends receiving and settling; gives back what was received and not settled where that is one request."""


class Change(Struct, frozen=True):
    """One difference between what is wanted and what exists.

    Attributes:
        setting: which setting of the place; empty: the place itself.
        have, want: the values as text; `have` None: it does not exist.
        conflict: immutable, or a twin of another kind exists: `apply` refuses.
    """

    place: Topic | Subscription | DeadLetters
    setting: str
    have: str | None
    want: str
    conflict: bool = False


class TopologyDriver(Protocol):
    """The only thing that creates. Any thread, one call at a time.

    One that cannot compare everything says so in an attribute `unseen`, a sentence for people.
    """

    def diff(self, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        """What `apply` would change; nothing is written. Where the broker shows only a part, the part; where it shows
        nothing, `UnsupportedError`.
        """

    def apply(self, changes: Sequence[Change]) -> None:
        """Make it so: idempotent, safe beside another process, returns when usable. Called with `Capability.TOPOLOGY`
        only.
        """

    def delete(self, place: Topic | Subscription | DeadLetters) -> None:
        """Remove the place and all that is in it: a topic with its subscriptions, a subscription with its dead-letter
        place. Silent when absent. Called with `Capability.TOPOLOGY` only.
        """

    def export(self, format: str, wanted: Sequence[Topic | Subscription]) -> str:
        """The same topology for another tool. Raises `UnsupportedError` for a format the broker has no use for."""

    def policy(self, role: str, wanted: Sequence[Topic | Subscription]) -> str:
        """The least rights of a role, in the broker's own words. Raises `UnsupportedError` where it has none."""


class Connection(Protocol):
    """One broker, as one process sees it. Any thread may call any method.

    Attributes:
        wire: how an event is laid out for this broker, and read back.
        direct: `open_publisher(Subscription)` reaches that subscription only.
    """

    capabilities: frozenset[Capability]
    wire: Wire
    direct: bool
    topology: TopologyDriver
    native: Any

    def open_publisher(self, to: Topic | Subscription | DeadLetters) -> PublisherDriver: ...
    def open_subscriber(self, of: Subscription | DeadLetters) -> SubscriberDriver: ...
    def classify(self, error: BaseException) -> Fault:
        """What a native error means. Pure, a literal table; what is unknown is not retried."""

    def ping(self, *, timeout: float) -> None:
        """Reach the broker and authenticate; needs no right on a topic."""

    def close(self) -> None:
        """Idempotent."""


class Adapter(Protocol):
    """What an entry point of the group `cloudevents_bridge.adapters` names; the entry's name is the URL scheme.

    Attributes:
        query: the keys that its URLs may carry.
        options: the keyword options that `connect(**options)` may carry, `endpoint` among them where it has one.
    """

    query: frozenset[str]
    options: frozenset[str]

    def __call__(self, url: Url, options: Mapping[str, Any]) -> Connection:
        """Connect, without I/O. Raises `ConfigurationError` for a URL or an option that is wrong."""
