"""What exists in a memory broker against what is wanted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from cloudevents_bridge.brokers.memory.store import Place, Store, dead_letters_of
from cloudevents_bridge.driver import Change, DeadLetters, Subscription, Topic
from cloudevents_bridge.errors import ConfigurationError, ErrorCode, UnsupportedError, make_error
from cloudevents_bridge.faults import place_name

_SETTINGS = ("lease", "max_attempts", "retention", "expires")


class MemoryTopology:
    """`TopologyDriver` on a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def diff(self, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        with self._store.lock:
            return [change for place in wanted for change in self._compare(place)]

    def apply(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.conflict:
                raise self._conflict(change)
        with self._store.lock:
            for change in changes:
                self._apply(change)

    def delete(self, place: Topic | Subscription | DeadLetters) -> None:
        with self._store.lock:
            self._store.delete(place)

    def export(self, format: str, wanted: Sequence[Topic | Subscription]) -> str:
        raise UnsupportedError(
            f"{self._store.url} has nothing to export as {format}: it lives in this process; call topology.apply(), "
            "or open with create_missing=True",
            broker=self._store.url,
        )

    def policy(self, role: str, wanted: Sequence[Topic | Subscription]) -> str:
        raise UnsupportedError(
            f"{self._store.url} has no rights to give to a {role}: whoever is in the process may do everything; "
            "ask a cloud broker's profile for its policy",
            broker=self._store.url,
        )

    def _compare(self, place: Topic | Subscription) -> Iterator[Change]:
        check_native(place)
        if isinstance(place, Topic):
            yield from self._compare_topic(place)
            return
        if place.filter is not None:
            raise UnsupportedError(
                f"{self._store.url} has no filters: leave out the filter of {place_name(place)}, "
                "and let a handler pass over what it does not want",
                broker=self._store.url,
            )
        found = self._store.find(place)
        if found is None:
            yield Change(place, "", None, ", ".join(f"{name} {_text(getattr(place, name))}" for name in _SETTINGS))
            return
        have = found.of
        for name in _SETTINGS:
            if getattr(have, name) != getattr(place, name):
                yield Change(place, name, _text(getattr(have, name)), _text(getattr(place, name)))
        if self._store.find(DeadLetters(place)) is None:
            yield Change(DeadLetters(place), "", None, "present")

    def _compare_topic(self, place: Topic) -> Iterator[Change]:
        window = float(place.native.get("deduplication", 0.0))
        stored = self._store.topics.get(place.name)
        if stored is None:
            order = "ordered" if place.ordered else "unordered"
            yield Change(place, "", None, f"{order}, deduplication {_text(window)}" if window else order)
            return
        if stored.ordered != place.ordered:
            yield Change(place, "ordered", _text(stored.ordered), _text(place.ordered), conflict=True)
        if stored.window != window:
            yield Change(place, "deduplication", _text(stored.window), _text(window))

    def _apply(self, change: Change) -> None:
        place = change.place
        if isinstance(place, Topic):
            stored = self._store.create_topic(place)
            if stored.ordered != place.ordered:
                raise self._conflict(Change(place, "ordered", _text(stored.ordered), _text(place.ordered)))
            stored.window = float(place.native.get("deduplication", 0.0))
            return
        of = place.of if isinstance(place, DeadLetters) else place
        feed = self._store.create_subscription(of)
        if isinstance(place, Subscription):
            names = [change.setting] if change.setting else _SETTINGS
            feed.of = replace(feed.of, **{name: getattr(place, name) for name in names})
            dead = self._store.feed(DeadLetters(of))
            dead.of = dead_letters_of(feed.of)

    def _conflict(self, change: Change) -> Exception:
        return make_error(
            ErrorCode.FAILED_PRECONDITION,
            f"{place_name(change.place)} on {self._store.url} has {change.setting} {change.have}, and {change.want} is "
            "wanted: this cannot be changed; delete it first, or declare it as it is",
            broker=self._store.url,
        )


def check_native(place: Place) -> None:
    """Refuse native settings that a memory broker does not have.

    Raises:
        ConfigurationError: it names the setting and lists the known ones.
    """
    if isinstance(place, DeadLetters):
        return
    known = ("deduplication",) if isinstance(place, Topic) else ()
    native: Mapping[str, Any] = place.native
    for key, value in native.items():
        if key not in known:
            listed = f"known: {', '.join(known)}" if known else "it has none"
            raise ConfigurationError(f"{place_name(place)} has a native setting {key!r} of another broker; {listed}")
        fine = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not fine or value < 0:
            raise ConfigurationError(
                f"native setting {key} of {place_name(place)} is {value!r}: give seconds, a number of at least 0"
            )


def _text(value: object) -> str:
    if value is None:
        return "never"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
