"""What becomes of deliveries, step by step. For all at once, in any order, see `test_inbox_model`."""

from __future__ import annotations

from typing import Any

from cloudevents_bridge.core.inbox import Inbox
from cloudevents_bridge.core.lanes import Entry
from cloudevents_bridge.driver import ReceiveTraits

LATER = 1.0
"""Seconds after which nothing lingers any more."""


def inbox_of(*, settle: Any = "each", nack_delay: float = 0.0, settle_count: int = 10, **settings: Any) -> Inbox:
    traits = ReceiveTraits(
        batch_count=10,
        settle_count=settle_count,
        receives=3,
        wait=(0.0, 20.0),
        stop_within=0.1,
        nack_delay=nack_delay,
        lease_total=1e9,
        removes_after=None,
        settle=settle,
        free_release=True,
        dead=settle == "each",
    )
    return Inbox(traits, **settings)


def deliver(inbox: Inbox, *names: str, now: float = 0.0, lease: float = 60.0, size: int = 1) -> list[Entry]:
    """`a1` is the first of key a; `1` has no key. Behind a colon stands the stream."""
    entries = []
    for name in names:
        name, _, stream = name.partition(":")
        key = name[0] if name[0].isalpha() else None
        made = Entry(object(), now + lease, lease, delivery=name, key=key, stream=stream or None, size=size)
        entries.append(made)
    inbox.receiving(len(entries))
    inbox.received(len(entries), entries, now)
    return entries


def names(entries: list[Entry]) -> list[str]:
    return [each.delivery for each in entries]


def runs(inbox: Inbox, now: float = 0.0) -> list[str]:
    """Start what can start."""
    started = []
    while entries := inbox.next_run(now):
        started += names(entries)
    return started


def end(inbox: Inbox, entry: Entry, what: str | float = "ack", now: float = 0.0) -> None:
    """Its run ends: "ack", "dead", or the seconds after which it shall run again."""
    if isinstance(what, float):
        inbox.retry(entry, what, now)
    else:
        inbox.done(entry, what, now)  # type: ignore[arg-type]
    inbox.ran([entry])


def settles(inbox: Inbox, now: float = LATER) -> list[tuple[str, float, list[str]]]:
    """Settle what is to be settled."""
    told: list[tuple[str, float, list[str]]] = []
    while (settlement := inbox.next_settlement(now)) is not None:
        told.append((settlement.verb, settlement.seconds, names(settlement.marks)))
        inbox.settled(settlement, now)
    return told


def hold(inbox: Inbox, name: str, delay: float, now: float = 0.0, size: int = 1) -> Entry:
    """One that came, ran, failed, and is held."""
    [entry] = deliver(inbox, name, now=now, size=size)
    assert inbox.next_run(now) == [entry]
    end(inbox, entry, delay, now)
    assert entry.state == "held"
    return entry


def empty(inbox: Inbox) -> bool:
    """Whether nothing is left of what came."""
    left = (inbox.in_memory, inbox.unsettled, inbox.running, inbox._size, inbox._holding.count, inbox._holding.size)
    return left == (0, 0, 0, 0, 0, 0) and not inbox.entries()


# -- what is held is bounded


def test_the_times_of_retries_that_were_given_back_are_forgotten() -> None:
    inbox = inbox_of(max_held=2)
    hold(inbox, "1", 5.0)  # the first to be due, so that the others' times stay behind it
    for n in range(2000):
        hold(inbox, f"a{n}", 1000.0)
        deliver(inbox, f"a{n}")
        assert names(inbox.entries())[1:] == [f"a{n}", f"a{n}"]
        settles(inbox)
    assert len(inbox._holding._times) < 300


def test_what_was_lost_while_it_waited_is_forgotten_behind_a_handler_that_hangs() -> None:
    inbox = inbox_of()
    deliver(inbox, "hangs")
    assert runs(inbox) == ["hangs"]
    for n in range(2000):
        [entry] = deliver(inbox, str(n))
        inbox.lose(entry, 0.0)
    assert inbox.in_memory == 1
    assert len(inbox._lanes._queue) < 300
