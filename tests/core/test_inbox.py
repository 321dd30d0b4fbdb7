"""What becomes of deliveries, step by step. For all at once, in any order, see `test_inbox_model`."""

from __future__ import annotations

from typing import Any

import pytest

from cloudevents_bridge.core.inbox import LINGER, LINGER_IN_ORDER, Inbox
from cloudevents_bridge.core.lanes import Entry
from cloudevents_bridge.driver import ReceiveTraits

LATER = 1.0
"""Seconds after which nothing lingers any more."""


def inbox_of(
    *,
    settle: Any = "each",
    nack_delay: float = 0.0,
    settle_count: int = 10,
    free: bool = True,
    key_batches: bool = False,
    **settings: Any,
) -> Inbox:
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
        free_release=free,
        dead=settle == "each",
        key_batches=key_batches,
    )
    return Inbox(traits, **settings)


def deliver(
    inbox: Inbox, *names: str, now: float = 0.0, lease: float = 60.0, size: int = 1, suspect: bool = False
) -> list[Entry]:
    """`a1` is the first of key a; `1` has no key. Behind a colon stands the stream."""
    entries = []
    for name in names:
        name, _, stream = name.partition(":")
        key = name[0] if name[0].isalpha() else None
        made = Entry(object(), now + lease, lease, delivery=name, key=key, stream=stream or None, size=size)
        made.suspect = suspect
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


def test_what_has_no_room_any_more_goes_back_for_the_rest_of_its_delay() -> None:
    inbox = inbox_of(nack_delay=43_200.0, max_held=2)
    hold(inbox, "a1", 3.0)
    deliver(inbox, "a2", "a3", now=1.0)
    assert settles(inbox, 2.0) == [("nack", 2.0, ["a1"]), ("release", 0.0, ["a2", "a3"])]
    assert empty(inbox)


@pytest.mark.parametrize("size", [10, 60])
def test_what_waits_behind_a_held_one_is_bounded_in_bytes(size: int) -> None:
    inbox = inbox_of(max_bytes=100)
    hold(inbox, "a1", 1000.0)
    most = 0
    for n in range(2, 200):
        now = n / 10
        if inbox.wanted(now):
            deliver(inbox, f"a{n}", now=now, size=size)
        most = max(most, inbox._size)
        settles(inbox, now)
    assert 100 <= most <= 100 + size


def test_what_is_settled_late_is_bounded_in_bytes() -> None:
    inbox = inbox_of(max_bytes=100, settle_count=1000)
    for n in range(100):
        if not inbox.wanted(n / 10):
            break
        [entry] = deliver(inbox, str(n), now=n / 10, size=30)
        assert inbox.next_run(n / 10) == [entry]
        end(inbox, entry, "ack", n / 10)
    assert inbox._size == 120
    settles(inbox, 20.0)
    assert inbox.wanted(20.0)


def test_where_an_ack_covers_a_prefix_no_more_is_fetched_while_too_much_is_held() -> None:
    inbox = inbox_of(settle="prefix", max_held=2)
    held = hold(inbox, "a1:s", 3.0)
    behind = deliver(inbox, "a2:s", "a3:s")
    assert not inbox.wanted(1.0)
    assert not settles(inbox)
    for each in (held, *behind):
        assert inbox.next_run(3.0) == [each]
        end(inbox, each, "ack", 3.0)
    assert inbox.wanted(3.0)


def test_where_an_ack_covers_a_prefix_bytes_that_are_held_are_bounded_too() -> None:
    inbox = inbox_of(settle="prefix", max_bytes=100)
    hold(inbox, "a1:s", 3.0, size=60)
    assert inbox.wanted(1.0)
    deliver(inbox, "a2:s", size=60)
    assert not inbox.wanted(1.0)


def test_what_was_asked_for_counts_as_bytes_in_memory() -> None:
    inbox = inbox_of(concurrency=100, max_bytes=1000)
    for n in range(50):
        [entry] = deliver(inbox, str(n), size=50)
        inbox.next_run(0.0)
        end(inbox, entry, "ack")
        settles(inbox)
    deliver(inbox, *(str(n) for n in range(10)), size=50)
    asked = inbox.wanted(1.0)
    inbox.receiving(asked)
    assert 50 * (10 + asked) == 1000
    assert inbox.wanted(1.0) <= 1


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


# -- where an ack covers a prefix


def test_what_was_done_and_lost_before_its_turn_comes_again_with_all_after_it() -> None:
    inbox = inbox_of(settle="prefix", concurrency=4)
    first, second, third, last = deliver(inbox, "1:s", "2:s", "3:s", "4:s")
    assert runs(inbox) == ["1", "2", "3", "4"]
    end(inbox, second)
    end(inbox, third)
    inbox.lose(second, 0.0)
    assert settles(inbox) == [("release", 0.0, ["3"])]
    end(inbox, last)
    end(inbox, first)
    assert settles(inbox) == [("ack", 0.0, ["1"])]
    assert empty(inbox)


def test_streams_that_are_done_are_forgotten() -> None:
    inbox = inbox_of(settle="prefix")
    for n in range(100):
        [entry] = deliver(inbox, f"1:{n}")
        runs(inbox)
        end(inbox, entry, "ack" if n % 2 else "dead")
        settles(inbox)
        [entry] = deliver(inbox, f"2:{n}")
        inbox.lose(entry, LATER)
    assert empty(inbox)
    assert inbox._marks is not None
    assert not inbox._marks._streams
    assert not inbox._marks._done


def test_what_could_not_be_dead_lettered_is_tried_again_after_its_delay() -> None:
    inbox = inbox_of(settle="prefix", concurrency=2)
    dies, done = deliver(inbox, "1:s", "2:s")
    assert runs(inbox) == ["1", "2"]
    end(inbox, dies, "dead")
    end(inbox, done)
    for now in (1.0, 5.0):
        settlement = inbox.next_settlement(now)
        assert settlement is not None
        assert (settlement.verb, settlement.marks) == ("dead", [dies])
        inbox.settled(settlement, now, [(dies, 4.0)])
        assert inbox.next_settlement(now + 3.9) is None
        assert inbox.settle_at() == now + 4.0
    assert settles(inbox, 9.0) == [("dead", 0.0, ["1"]), ("ack", 0.0, ["2"])]
    assert empty(inbox)


def test_what_could_not_be_dead_lettered_is_given_back_at_the_end() -> None:
    inbox = inbox_of(settle="prefix", concurrency=3)
    tried, trying, done = deliver(inbox, "1:s", "2:s", "3:s")
    assert runs(inbox) == ["1", "2", "3"]
    end(inbox, tried, "dead")
    settlement = inbox.next_settlement(1.0)
    assert settlement is not None
    inbox.settled(settlement, 1.0, [(tried, 4.0)])
    end(inbox, done)
    end(inbox, trying, "dead")
    settlement = inbox.next_settlement(1.0)
    assert settlement is not None
    inbox.stop(1.0)
    assert settles(inbox) == [("release", 0.0, ["1", "3"])]
    inbox.settled(settlement, 1.0, [(trying, 4.0)])
    assert not settles(inbox)
    assert empty(inbox)


# -- leases


def test_what_is_lost_while_it_waits_to_be_settled_is_not_settled() -> None:
    inbox = inbox_of(concurrency=2, nack_delay=10.0)
    for settle in ("ack", "dead", 2.0):
        kept, lost = deliver(inbox, "1", "2")
        assert runs(inbox) == ["1", "2"]
        end(inbox, kept, settle)
        end(inbox, lost, settle)
        inbox.lose(lost, 0.0)
        [(_, _, marks)] = settles(inbox)
        assert marks == ["1"]
    assert empty(inbox)


@pytest.mark.parametrize("free", [True, False])
def test_other_suspects_are_given_back_where_that_spends_no_attempt(free: bool) -> None:
    """Else those that were killed with another come again and again, until it seems that they had killed."""
    inbox = inbox_of(free=free, concurrency=4)
    first, second, third = deliver(inbox, "1", "2", "3", suspect=True)
    if free:
        assert inbox.next_run(0.0) == []
        given_back = inbox.next_settlement(0.0)
        assert given_back is not None
        assert (given_back.verb, given_back.entries) == ("release", [second, third])
        return
    for suspect in (first, second, third):
        assert inbox.next_run(0.0) == [suspect]
        assert inbox.next_run(0.0) == [], "another runs beside it"
        assert inbox.wanted(0.0) == 0
        inbox.done(suspect, "ack", 0.0)
        inbox.ran([suspect])
        settlement = inbox.next_settlement(0.0)
        assert settlement is not None
        assert (settlement.verb, settlement.entries) == ("ack", [suspect])
        inbox.settled(settlement, 0.0)


@pytest.mark.parametrize("by_hand", [False, True])
def test_suspects_that_live_do_not_let_receives_grow(by_hand: bool) -> None:
    inbox = inbox_of(free=False, concurrency=4)
    for suspect in (True, True, True, False):
        assert inbox.wanted(0.0) == 1
        [entry] = deliver(inbox, "1", suspect=suspect)
        assert inbox.next_run(0.0) == [entry]
        if by_hand:
            inbox.settled_by_hand(entry, 0.0)
        else:
            inbox.done(entry, "ack", 0.0)
        inbox.ran([entry])
        while (settlement := inbox.next_settlement(LATER)) is not None:
            inbox.settled(settlement, 0.0)
    assert inbox.wanted(0.0) == 2


def test_while_many_cannot_be_run_nothing_more_is_fetched() -> None:
    """And they are held, although the broker has such a delay: to give them back would spend attempts."""
    inbox = inbox_of(nack_delay=900.0, free=False)
    for number in range(10):
        assert inbox.wanted(0.0) > 0, "it stopped too early"
        [entry] = deliver(inbox, str(number))
        assert inbox.next_run(0.0) == [entry]
        inbox.retry(entry, 5.0 + number, 0.0, unrun=True)
        inbox.ran([entry])
        assert entry.state == "held"
    assert inbox.wanted(4.9) == 0
    assert inbox.run_at() == 5.0
    [entry] = inbox.next_run(5.0)
    inbox.done(entry, "ack", 5.0)
    inbox.ran([entry])
    assert inbox.next_settlement(5.0 + LATER) is not None
    assert inbox.wanted(5.0) > 0


@pytest.mark.parametrize(("key_batches", "linger"), [(False, LINGER), (True, LINGER_IN_ORDER)])
def test_an_ack_waits_for_company_while_others_run_and_no_longer(key_batches: bool, linger: float) -> None:
    """Where it keeps back those behind it at the broker, it does not wait as long."""
    inbox = inbox_of(concurrency=2, key_batches=key_batches)
    first, second = deliver(inbox, "1", "2")
    runs(inbox)
    end(inbox, first, now=1.0)
    assert inbox.next_settlement(1.0 + 0.9 * linger) is None
    assert inbox.settle_at() == 1.0 + linger
    end(inbox, second, now=1.0)
    assert inbox.settle_at() == 1.0
    assert settles(inbox, 1.0) == [("ack", 0.0, ["1", "2"])]
