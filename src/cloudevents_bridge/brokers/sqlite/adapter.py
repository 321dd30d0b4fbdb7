"""From a URL to a connection."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from cloudevents_bridge.bindings import Wire
from cloudevents_bridge.brokers.sqlite import errors
from cloudevents_bridge.brokers.sqlite.publisher import Publisher
from cloudevents_bridge.brokers.sqlite.store import Store
from cloudevents_bridge.brokers.sqlite.subscriber import Subscriber
from cloudevents_bridge.brokers.sqlite.topology import Topology, check, deduplication
from cloudevents_bridge.driver import Capability, DeadLetters, Fault, Subscription, Topic, Url
from cloudevents_bridge.errors import ConfigurationError, ErrorCode

_CAPABILITIES = frozenset(Capability) - {Capability.FILTER}


class Connection:
    """One SQLite file, as one process sees it. `native` is its path."""

    capabilities = _CAPABILITIES
    direct = True

    def __init__(self, store: Store) -> None:
        self._store = store
        self.topology = Topology(store)
        self.native = store.path

    @cached_property
    def wire(self) -> Wire:
        from cloudevents_bridge.bindings import STRUCTURED

        return STRUCTURED

    def open_publisher(self, to: Topic | Subscription | DeadLetters) -> Publisher:
        check(to)
        subscription = to.of if isinstance(to, DeadLetters) else to
        topic = subscription if isinstance(subscription, Topic) else subscription.topic
        return Publisher(self._store, to, deduplication(topic))

    def open_subscriber(self, of: Subscription | DeadLetters) -> Subscriber:
        check(of)
        return Subscriber(self._store, of)

    def classify(self, error: BaseException) -> Fault:
        return errors.classify(error, str(self._store.path))

    def ping(self, *, timeout: float) -> None:
        del timeout  # a read waits for no writer
        if self._store.read("PRAGMA user_version") == []:
            raise self._store.fail(ErrorCode.INTERNAL, f"{self._store.path} gives no schema version")

    def close(self) -> None:
        self._store.close()


class Adapter:
    """What the entry point of the scheme `sqlite` names."""

    query = frozenset({"synchronous"})
    options: frozenset[str] = frozenset()

    def __call__(self, url: Url, options: Mapping[str, Any]) -> Connection:
        if options:
            raise ConfigurationError(f"option {next(iter(options))!r} is unknown: {url.text} takes none")
        return Connection(Store(_path(url), url.text, synchronous=_synchronous(url)))


def _path(url: Url) -> Path:
    if url.authority:
        raise ConfigurationError(
            f"{url.text} has a host, {url.authority!r}: write sqlite:///{url.authority}{url.path} for a file in the "
            "working directory, or sqlite:////absolute/path.db"
        )
    text = url.path.removeprefix("/")
    if not text or text.endswith("/") or "\0" in text:
        raise ConfigurationError(
            f"{url.text} names no file: write sqlite:///events.db for a file in the working directory, "
            "or sqlite:////absolute/path.db"
        )
    if text == ":memory:":
        raise ConfigurationError(f"{url.text} would keep nothing: use memory:// for events that live in one process")
    return Path(text).absolute()


def _synchronous(url: Url) -> str:
    value = url.query.get("synchronous", "full")
    if value not in ("full", "normal"):
        raise ConfigurationError(
            f"synchronous in {url.text} is {value!r}: use full (an event is on disk before publish returns) or normal "
            "(it survives a crash of the program, but not of the machine)"
        )
    return value.upper()


adapter = Adapter()
