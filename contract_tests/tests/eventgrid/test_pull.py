"""The queue of a subscription in simulated time."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from cloudevents_bridge_contract.emulators.eventgrid import grid
from cloudevents_bridge_contract.emulators.eventgrid.dead_letters import DeadLetters
from cloudevents_bridge_contract.emulators.eventgrid.events import Event
from cloudevents_bridge_contract.emulators.eventgrid.pull import DeadLetter, Given, Queue
from cloudevents_bridge_contract.emulators.eventgrid.settings import pull_settings
from cloudevents_bridge_contract.emulators.process import wait_until


class Held:
    """A queue with events named by number, and what it buried."""

    def __init__(self, events: int = 1, *, max_count: int = 10, ttl: float = 1000) -> None:
        self.buried: list[DeadLetter] = []
        self.queue = Queue(lock=60, max_count=max_count, ttl=ttl, bury=self.buried.append)
        self.queue.put([Event(msgspec.Raw(b"%d" % n), {"id": n}) for n in range(events)], 0)

    def take(self, now: float, most: int = 10) -> dict[int, str]:
        return {each.event.fields["id"]: each.token for each in self.queue.take(most, now)}


def test_lock_ends_at_its_time_and_not_before() -> None:
    held = Held()
    first = held.take(0)
    assert held.take(59.9) == {}
    second = held.take(60)
    assert second.keys() == first.keys()
    assert held.queue.acknowledge([first[0]], 60)[0].code == "TokenLost"
    assert held.queue.acknowledge([second[0]], 119.9) == []
    assert len(held.queue) == 0


def test_renewed_lock_counts_from_the_renewal() -> None:
    held = Held()
    token = held.take(0)[0]
    assert held.queue.renew([token], 50) == []
    assert held.take(109.9) == {}
    assert held.take(110).keys() == {0}
    assert held.queue.renew([token], 110)[0].code == "TokenLost"


def test_released_event_keeps_its_place_in_the_order() -> None:
    held = Held(3)
    tokens = held.take(0, 2)
    held.queue.release([tokens[1]], 1, 0)
    held.queue.release([tokens[0]], 1, 10)
    assert list(held.take(2)) == [1, 2]
    assert held.take(10.9) == {}
    assert list(held.take(11)) == [0]


@pytest.mark.parametrize("how", ["release", "expire"])
def test_last_delivery_that_comes_back_is_buried(how: str) -> None:
    held = Held(max_count=2)
    token = held.take(0)[0]
    held.queue.release([token], 1, 0)
    token = held.take(2)[0]
    assert held.buried == []
    if how == "release":
        held.queue.release([token], 3, 10)
    else:
        held.queue.turn(62)
    assert [(each.attempts, each.reason) for each in held.buried] == [(2, "Maximum delivery attempts was exceeded.")]
    assert len(held.queue) == held.queue.locked == 0


def test_event_expires_also_while_it_is_locked() -> None:
    held = Held(2, ttl=30)
    tokens = held.take(0, 1)
    held.queue.turn(29.9)
    assert held.buried == []
    held.queue.turn(30)
    assert [each.attempts for each in held.buried] == [1, 0]
    assert held.queue.acknowledge(tokens.values(), 30)[0].code == "TokenLost"


def test_token_that_is_none_is_said() -> None:
    held = Held()
    assert [each.code for each in held.queue.reject(["", "AAAA", "not base64!"], 0)] == ["BadToken"] * 3


def test_what_is_due_next() -> None:
    held = Held(ttl=1000)
    assert held.queue.next_due() == 1000
    held.take(5)
    assert held.queue.next_due() == 65


def test_receive_is_woken_by_what_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "_LOOK", 60.0)
    subscription = grid.PullSubscription(pull_settings({}, scale=1, strict=True), DeadLetters(tmp_path))
    got: list[Given] = []
    thread = threading.Thread(target=lambda: got.extend(subscription.receive(10, 60, lambda: False)), daemon=True)
    thread.start()
    assert wait_until(lambda: subscription.counts()["receivers"] == 1, 10)
    subscription.put([Event(msgspec.Raw(b"{}"), {})])
    thread.join(10)
    assert [each.delivery for each in got] == [1]
