"""A layer between the portable layer and any driver, in which a case or a broken driver does its harm.

`faulty://NAME?over=URL` is the broker at URL, seen through the `Shim` registered as NAME.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from msgspec.structs import replace

from cloudevents_bridge.bindings import Wire
from cloudevents_bridge.driver import (
    Adapter,
    Capability,
    Change,
    Connection,
    DeadLetters,
    Done,
    Fault,
    Inbound,
    Outbound,
    PublisherDriver,
    Received,
    ReceiveTraits,
    SendTraits,
    SubscriberDriver,
    Subscription,
    Topic,
    TopologyDriver,
    Url,
    Verb,
)
from cloudevents_bridge.errors import ConfigurationError, ErrorCode

Outcomes = Sequence[Done | Fault]
To = Topic | Subscription | DeadLetters
Of = Subscription | DeadLetters


class InjectedError(Exception):
    """A native error made up by a shim; `classify` answers with its fault."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class Shim:
    """An honest layer that only counts. Override what shall go wrong; one object serves all connections made with it.

    Attributes:
        sends: each batch given to a publisher driver, in the order the calls began.
        settles: verb and count of each settle.
        receives: how many receives there were.
        control: the calls of the topology driver.
        connection: the driver's connection behind the layer, once one was made.
    """

    options: Mapping[str, Any] = {}

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sends: list[list[Outbound]] = []
        self.settles: list[tuple[Verb, int]] = []
        self.receives = 0
        self.control: list[str] = []
        self.connection: Connection | None = None

    def capabilities(self, declared: frozenset[Capability]) -> frozenset[Capability]:
        return declared

    def send_traits(self, traits: SendTraits) -> SendTraits:
        return traits

    def receive_traits(self, traits: ReceiveTraits) -> ReceiveTraits:
        return traits

    def open_publisher(self, inner: Connection, to: To) -> PublisherDriver:
        return inner.open_publisher(to)

    def open_subscriber(self, inner: Connection, of: Of) -> SubscriberDriver:
        return inner.open_subscriber(of)

    def size(self, inner: PublisherDriver, message: Outbound) -> int:
        return inner.size(message)

    def send(self, inner: PublisherDriver, to: To, batch: Sequence[Outbound], timeout: float) -> Outcomes:
        return inner.send(batch, timeout=timeout)

    def receive(self, inner: SubscriberDriver, of: Of, max_messages: int, wait: float) -> Received:
        return inner.receive(max_messages, wait)

    def settle(
        self,
        inner: SubscriberDriver,
        of: Of,
        verb: Verb,
        messages: Sequence[Inbound],
        *,
        seconds: float,
        reason: str,
        timeout: float,
    ) -> Outcomes:
        return inner.settle(verb, messages, seconds=seconds, reason=reason, timeout=timeout)

    def stop(self, inner: SubscriberDriver) -> None:
        inner.stop()

    def diff(self, inner: TopologyDriver, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        return inner.diff(wanted)

    def apply(self, inner: TopologyDriver, changes: Sequence[Change]) -> None:
        inner.apply(changes)

    def delete(self, inner: TopologyDriver, place: To) -> None:
        inner.delete(place)

    def close(self, inner: Connection) -> None:
        inner.close()


class NoDelay(Shim):
    """A broker that cannot delay what is given back: the portable layer holds it."""

    def receive_traits(self, traits: ReceiveTraits) -> ReceiveTraits:
        return replace(traits, nack_delay=0.0)


_shims: dict[str, Callable[[], Shim]] = {}


def register(name: str, make: Callable[[], Shim]) -> None:
    """Name a shim for URLs; `make` is called once per connection."""
    _shims[name] = make


def unregister(name: str) -> None:
    _shims.pop(name, None)


def through(name: str, url: str) -> str:
    """The URL of the broker at `url` behind the shim `name`."""
    return f"faulty://{name}?over={quote(url, safe='')}"


def native_url(url: str) -> Url:
    """A URL as an adapter takes it."""
    parts = urlsplit(url)
    return Url(url, parts.scheme, parts.netloc, parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)))


def open_driver(url: str, options: Mapping[str, Any] | None = None) -> Connection:
    """The driver's connection for a URL, without the portable layer.

    Raises:
        ConfigurationError: if no adapter is installed for the scheme.
    """
    address = native_url(url)
    for entry in entry_points(group="cloudevents_bridge.adapters", name=address.scheme):
        adapter: Adapter = entry.load()
        return adapter(address, options or {})
    raise ConfigurationError(f"no adapter is installed for {address.scheme}:// (in {url})")


class _Adapter:
    query = frozenset({"over"})
    options: frozenset[str] = frozenset()

    def __call__(self, url: Url, options: Mapping[str, Any]) -> Connection:
        if url.authority not in _shims:
            import cloudevents_bridge_contract.broken  # noqa: F401  registers the broken drivers by name
        if url.authority not in _shims:
            known = ", ".join(sorted(_shims))
            raise ConfigurationError(f"{url.text}: no faulty driver is called {url.authority!r}; there are {known}")
        if "over" not in url.query:
            raise ConfigurationError(f"{url.text}: say over which broker, with ?over=URL")
        shim = _shims[url.authority]()
        return _Connection(open_driver(url.query["over"], shim.options), shim)


adapter = _Adapter()


class _Publisher:
    def __init__(self, inner: PublisherDriver, shim: Shim, to: To) -> None:
        self._inner, self._shim, self._to = inner, shim, to
        self.traits = shim.send_traits(inner.traits)

    def size(self, message: Outbound) -> int:
        return self._shim.size(self._inner, message)

    def send(self, batch: Sequence[Outbound], *, timeout: float) -> Outcomes:
        with self._shim.lock:
            self._shim.sends.append(list(batch))
        return self._shim.send(self._inner, self._to, batch, timeout)

    def close(self) -> None:
        self._inner.close()


class _Subscriber:
    def __init__(self, inner: SubscriberDriver, shim: Shim, of: Of) -> None:
        self._inner, self._shim, self._of = inner, shim, of
        self.traits = shim.receive_traits(inner.traits)

    def receive(self, max_messages: int, wait: float) -> Received:
        with self._shim.lock:
            self._shim.receives += 1
        return self._shim.receive(self._inner, self._of, max_messages, wait)

    def settle(
        self, verb: Verb, messages: Sequence[Inbound], *, seconds: float = 0.0, reason: str = "", timeout: float
    ) -> Outcomes:
        with self._shim.lock:
            self._shim.settles.append((verb, len(messages)))
        return self._shim.settle(self._inner, self._of, verb, messages, seconds=seconds, reason=reason, timeout=timeout)

    def stop(self) -> None:
        self._shim.stop(self._inner)

    def close(self) -> None:
        self._inner.close()


class _Topology:
    def __init__(self, inner: TopologyDriver, shim: Shim) -> None:
        self._inner, self._shim = inner, shim

    def diff(self, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        self._shim.control.append("diff")
        return self._shim.diff(self._inner, wanted)

    def apply(self, changes: Sequence[Change]) -> None:
        self._shim.control.append("apply")
        self._shim.apply(self._inner, changes)

    def delete(self, place: To) -> None:
        self._shim.control.append("delete")
        self._shim.delete(self._inner, place)

    def export(self, format: str, wanted: Sequence[Topic | Subscription]) -> str:
        return self._inner.export(format, wanted)

    def policy(self, role: str, wanted: Sequence[Topic | Subscription]) -> str:
        return self._inner.policy(role, wanted)


class _Connection:
    wire: Wire

    def __init__(self, inner: Connection, shim: Shim) -> None:
        self._inner, self._shim = inner, shim
        shim.connection = inner
        self.capabilities = shim.capabilities(inner.capabilities)
        self.wire, self.direct, self.native = inner.wire, inner.direct, inner.native
        self.topology: TopologyDriver = _Topology(inner.topology, shim)

    def open_publisher(self, to: To) -> PublisherDriver:
        return _Publisher(self._shim.open_publisher(self._inner, to), self._shim, to)

    def open_subscriber(self, of: Of) -> SubscriberDriver:
        return _Subscriber(self._shim.open_subscriber(self._inner, of), self._shim, of)

    def classify(self, error: BaseException) -> Fault:
        return error.fault if isinstance(error, InjectedError) else self._inner.classify(error)

    def ping(self, *, timeout: float) -> None:
        self._inner.ping(timeout=timeout)

    def close(self) -> None:
        self._shim.close(self._inner)


def refused(code: ErrorCode, message: str = "", *, retryable: bool = False) -> Fault:
    """A fault that certainly was not applied."""
    return Fault(code, retryable=retryable, maybe_applied=False, message=message)


def one_by_one(inner: PublisherDriver, batch: Sequence[Outbound], timeout: float) -> Outcomes:
    """Send the messages of a batch in their order; what follows one that failed is not sent."""
    outcomes: list[Done | Fault] = []
    for message in batch:
        if outcomes and isinstance(outcomes[-1], Fault):
            outcomes.append(refused(ErrorCode.UNAVAILABLE, "not sent after one that failed", retryable=True))
        else:
            outcomes += inner.send([message], timeout=timeout)
    return outcomes


def unknown(message: str = "the answer was lost", *, retryable: bool = True) -> Fault:
    """A fault that may have been applied."""
    return Fault(ErrorCode.DEADLINE_EXCEEDED, retryable=retryable, maybe_applied=True, message=message)
