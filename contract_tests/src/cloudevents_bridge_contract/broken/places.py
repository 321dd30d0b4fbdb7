"""Drivers that are broken around topics, opening and closing."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import msgspec

from cloudevents_bridge.driver import (
    Capability,
    Change,
    Connection,
    PublisherDriver,
    SubscriberDriver,
    Subscription,
    Topic,
    TopologyDriver,
)
from cloudevents_bridge_contract.broken.base import Broken
from cloudevents_bridge_contract.faulty import Of, To

replace = msgspec.structs.replace


class DeclaresTooMuch(Broken):
    """Declares filters and delivers everything."""

    caught_by = "consume.filter"

    def capabilities(self, declared: frozenset[Capability]) -> frozenset[Capability]:
        return declared | {Capability.FILTER}

    def diff(self, inner: TopologyDriver, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        return inner.diff([replace(each, filter=None) if isinstance(each, Subscription) else each for each in wanted])


class AlwaysDiffers(Broken):
    """Finds a difference however often it is applied."""

    caught_by = "topology.second_apply_is_a_no_op"

    def diff(self, inner: TopologyDriver, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        return [*inner.diff(wanted), *(Change(place, "colour", "red", "blue") for place in wanted[:1])]

    def apply(self, inner: TopologyDriver, changes: Sequence[Change]) -> None:
        inner.apply([change for change in changes if change.setting != "colour"])


class NeverDiffers(Broken):
    """Does not see that a setting changed."""

    caught_by = "topology.difference_is_shown_and_applied"

    def diff(self, inner: TopologyDriver, wanted: Sequence[Topic | Subscription]) -> Sequence[Change]:
        return [change for change in inner.diff(wanted) if change.have is None]


class DeletesNothing(Broken):
    """Says that it deleted."""

    caught_by = "topology.delete_removes"

    def delete(self, inner: TopologyDriver, place: To) -> None:
        return None


class CreatesOnUse(Broken):
    """Makes a topic because somebody publishes to it."""

    caught_by = "topology.plan_apply_verify_delete"

    def open_publisher(self, inner: Connection, to: To) -> PublisherDriver:
        if isinstance(to, Topic):
            inner.topology.apply(inner.topology.diff([to]))
        return inner.open_publisher(to)


class LeavesThreads(Broken):
    """Starts a thread per subscriber, and forgets it."""

    caught_by = "life.closing_leaves_nothing"

    def open_subscriber(self, inner: Connection, of: Of) -> SubscriberDriver:
        threading.Thread(target=threading.Event().wait, args=(20,), daemon=True).start()
        return inner.open_subscriber(of)


class LeavesFiles(Broken):
    """Opens a file per publisher, and forgets it."""

    caught_by = "life.closing_leaves_nothing"

    def open_publisher(self, inner: Connection, to: To) -> PublisherDriver:
        os.open(os.devnull, os.O_RDONLY)
        return inner.open_publisher(to)


class ConnectsAtOnce(Broken):
    """Starts its threads when it is opened."""

    caught_by = "life.connecting_does_no_io"

    def __init__(self) -> None:
        super().__init__()
        threading.Thread(target=threading.Event().wait, args=(5,), daemon=True).start()
