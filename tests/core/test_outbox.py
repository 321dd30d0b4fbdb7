"""Rules of the outbox that deserve an example of their own; the rest is in `test_outbox_model`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

import pytest
from simulated_outbox import backoff, fault

from cloudevents_bridge.core.outbox import Entry, Outbox
from cloudevents_bridge.driver import Done, Fault, Outbound, SendTraits
from cloudevents_bridge.errors import ErrorCode

BUSY = fault(ErrorCode.UNAVAILABLE, retryable=True, after=1.0)
DENIED = fault(ErrorCode.PERMISSION_DENIED)
TOO_LARGE = fault(ErrorCode.TOO_LARGE)
Keys = Literal["mixed", "one_key", "one_each"]


def outbox(
    *keys: str | None, manners: Keys = "mixed", ordered: bool = True, most: int = 10, deadline: float = 1e9
) -> tuple[Outbox, list[Entry]]:
    box = Outbox(SendTraits(most, 1000, 100, manners), backoff, ordered=ordered)
    entries = [Entry(Outbound(b"", {}, key), 1, place, deadline) for place, key in enumerate(keys)]
    for entry in entries:
        box.add(entry)
    return box, entries


def tags(batch: Sequence[Entry] | None) -> list[int]:
    return [entry.tag for entry in batch or ()]


def codes(box: Outbox) -> dict[int, str]:
    return {entry.tag: outcome.code if isinstance(outcome, Fault) else "done" for entry, outcome in box.take()}


def settle(box: Outbox, now: float, *outcomes: Done | Fault) -> list[int]:
    """Send the next batch, with these outcomes (one: for each of it). Returns what was in it."""
    batch = box.next_batch(now)
    assert batch is not None
    box.settled(batch, list(outcomes) * (len(batch) if len(outcomes) == 1 else 1), now)
    return tags(batch)


def test_an_event_is_not_blamed_for_a_later_one_of_its_key() -> None:
    box, _ = outbox("a", "a", "a", most=2)
    assert settle(box, 0.0, BUSY, DENIED) == [0, 1]
    assert codes(box) == {1: "PERMISSION_DENIED", 2: "FAILED_PRECONDITION"}
    assert box.next_batch(0.5) is None
    assert settle(box, 1.0, Done()) == [0]
    assert codes(box) == {0: "done"}


def test_bisecting_finds_each_culprit_and_sends_the_rest() -> None:
    box, entries = outbox(*[None] * 64, most=64)
    culprits = {5, 6, 40}
    sent: list[int] = []
    sends = 0
    while box.unresolved:
        batch = box.next_batch(0.0)
        assert batch
        bad = any(entry.tag in culprits for entry in batch)
        box.settled(batch, [TOO_LARGE if bad else Done()] * len(batch), 0.0)
        sends += 1
        sent += [] if bad else tags(batch)
    resolved = codes(box)
    assert {tag for tag, code in resolved.items() if code == "TOO_LARGE"} == culprits
    assert sorted(sent) == [tag for tag in range(64) if tag not in culprits]
    assert sends < 40
    assert all(entry.attempt <= 2 for entry in entries)


def test_bisecting_does_not_spend_the_attempts() -> None:
    box, entries = outbox(*[None] * 16)
    for _ in range(3):
        settle(box, 0.0, TOO_LARGE)
    assert {entry.attempt for entry in entries} == {1}


def test_a_good_event_cut_off_while_bisecting_is_late_and_not_too_large() -> None:
    box, _ = outbox(None, None, deadline=5.0)
    batch = box.next_batch(0.0)
    assert batch
    box.settled(batch, [TOO_LARGE] * 2, 6.0)
    assert set(codes(box).values()) == {"DEADLINE_EXCEEDED"}


def test_an_answer_lost_while_bisecting_is_not_forgotten() -> None:
    box, entries = outbox(None, None)
    lost = fault(ErrorCode.TOO_LARGE, maybe_applied=True)
    settle(box, 0.0, lost)
    assert all(entry.maybe_applied for entry in entries)


def test_a_lost_answer_is_remembered_over_later_refusals() -> None:
    box, [entry] = outbox("a")
    settle(box, 0.0, fault(ErrorCode.UNAVAILABLE, retryable=True, maybe_applied=True))
    settle(box, 1.0, DENIED)
    assert codes(box) == {0: "PERMISSION_DENIED"}
    assert entry.maybe_applied


def test_no_try_begins_after_the_deadline_however_late_the_shell_comes() -> None:
    box, _ = outbox(None, deadline=10.0)
    settle(box, 0.0, BUSY)
    assert box.next_batch(10.0) is None
    assert codes(box) == {0: "DEADLINE_EXCEEDED"}


def test_a_retry_that_would_be_too_late_is_not_waited_for() -> None:
    box, _ = outbox(None, deadline=0.9)
    settle(box, 0.0, BUSY)
    assert codes(box) == {0: "UNAVAILABLE"}


def test_what_waits_behind_a_send_expires_while_that_is_under_way() -> None:
    box, _ = outbox("a", "a", "a", manners="one_each", deadline=5.0)
    batch = box.next_batch(0.0)
    assert tags(batch) == [0]
    assert box.next_batch(6.0) is None
    assert codes(box) == {1: "DEADLINE_EXCEEDED", 2: "FAILED_PRECONDITION"}
    assert batch
    box.settled(batch, [Done()], 6.0)
    assert codes(box) == {0: "done"}
    assert not box.unresolved


def test_refused_keys_do_not_hide_what_can_be_sent() -> None:
    box = Outbox(SendTraits(10, 1000, 100, "one_key"), backoff, ordered=True)
    box.add(Entry(Outbound(b"", {}, "a"), 0, "bad", 1e9, refusal=DENIED))
    box.add(Entry(Outbound(b"", {}), 1, "good", 1e9))
    batch = box.next_batch(0.0)
    assert [entry.tag for entry in batch or ()] == ["good"]


@pytest.mark.parametrize("manners", ["mixed", "one_key", "one_each"])
def test_neither_keyed_nor_other_events_starve(manners: Keys) -> None:
    box, _ = outbox(manners=manners)
    waiting = {"keyed": 20, "other": 20}
    for _ in range(20):
        for key in ("a", None):
            for _ in range(10):  # more comes than goes
                box.add(Entry(Outbound(b"", {}, key), 1, None, 1e9))
        batch = box.next_batch(0.0)
        assert batch
        for entry in batch:
            waiting["other" if entry.message.key is None else "keyed"] -= 1
        box.settled(batch, [Done()] * len(batch), 0.0)
    assert waiting["keyed"] < 15
    assert waiting["other"] < 15


def test_a_key_costs_nothing_once_its_events_are_through() -> None:
    box, _ = outbox(*[f"key-{number}" for number in range(100)], most=1000)
    settle(box, 0.0, Done())
    assert not box._lanes


def test_ten_thousand_keys_expire_at_once_in_no_time() -> None:
    box, _ = outbox(*[f"key-{number}" for number in range(10_000)], most=1000, deadline=10.0)
    while batch := box.next_batch(0.0):
        box.settled(batch, [BUSY] * len(batch), 0.0)
    begun = time.process_time()
    assert box.next_batch(20.0) is None
    assert time.process_time() - begun < 1.0
    assert not box.unresolved


def test_keys_do_not_count_where_the_topic_is_not_ordered() -> None:
    box, _ = outbox("a", "b", "a", manners="one_each", ordered=False)
    assert settle(box, 0.0, DENIED, Done(), Done()) == [0, 1, 2]
    assert codes(box) == {0: "PERMISSION_DENIED", 1: "done", 2: "done"}


def test_a_single_event_over_the_batch_limit_goes_alone() -> None:
    box = Outbox(SendTraits(10, 50, 100), backoff, ordered=False)
    for place, size in enumerate((20, 80, 20, 20)):
        box.add(Entry(Outbound(b"", {}), size, place, 1e9))
    assert settle(box, 0.0, Done()) == [0]
    assert settle(box, 0.0, Done()) == [1]
    assert settle(box, 0.0, Done()) == [2, 3]


def test_limits_are_cut_exactly() -> None:
    box = Outbox(SendTraits(3, 30, 30), backoff, ordered=False)
    for place in range(7):
        box.add(Entry(Outbound(b"", {}), 10, place, 1e9))
    assert [settle(box, 0.0, Done()) for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6]]
    box.add(Entry(Outbound(b"", {}), 30, 7, 1e9))
    box.add(Entry(Outbound(b"", {}), 31, 8, 1e9))
    assert settle(box, 0.0, Done()) == [7]
    assert codes(box)[8] == "TOO_LARGE"


def test_a_broken_outcome_count_is_not_swallowed() -> None:
    box, _ = outbox(None, None)
    batch = box.next_batch(0.0)
    assert batch
    with pytest.raises(ValueError, match="zip"):
        box.settled(batch, [Done()], 0.0)
