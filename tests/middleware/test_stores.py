"""What every store of idempotent handling does, proved on those that come along and on one that has nothing but
conditional writes of single items, as cloud databases have them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cloudevents_bridge import clock
from cloudevents_bridge.brokers.sqlite.clock import Clock
from cloudevents_bridge.errors import InvalidArgumentError
from cloudevents_bridge.middleware import Claim, MemoryStore, SQLiteStore, Store

KEY = "orders.billing.0123456789abcdef"


class Time:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Item(NamedTuple):
    token: str
    done: bool
    ends: float


class ConditionalStore:
    """A store on a table that can only put or delete one item under a condition on what is there, as DynamoDB does."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._items: dict[str, Item] = {}
        self._lock = threading.Lock()

    def write(self, key: str, item: Item | None, condition: Callable[[Item | None], bool]) -> Item | None:
        """The one operation: write if the condition holds. Returns the item that broke it."""
        with self._lock:
            old = self._items.get(key)
            if not condition(old):
                return old
            if item is None:
                self._items.pop(key, None)
            else:
                self._items[key] = item
            return None

    def claim(self, key: str, token: str, *, lease: float) -> Claim:
        now = self._now()
        old = self.write(
            key,
            Item(token, False, now + lease),
            lambda old: old is None or old.ends <= now or (old.token == token and not old.done),
        )
        if old is None:
            return Claim("claimed")
        return Claim("done") if old.done else Claim("busy", old.ends - now)

    def renew(self, key: str, token: str, *, lease: float) -> bool:
        item = Item(token, False, self._now() + lease)
        broken: list[bool] = []

        def mine(old: Item | None) -> bool:
            broken.append(old is None or old.token != token or old.done)
            return not broken[-1]

        self.write(key, item, mine)
        return not broken[-1]

    def complete(self, key: str, token: str, *, ttl: float) -> bool:
        now = self._now()
        item = Item(token, True, now + ttl)
        return self.write(key, item, lambda old: old is None or old.ends <= now or old.token == token) is None

    def release(self, key: str, token: str) -> None:
        self.write(key, None, lambda old: old is not None and old.token == token and not old.done)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(clock, "now", time)
    return time


@pytest.fixture(params=["memory", "sqlite", "conditional"])
def store(request: pytest.FixtureRequest, time: Time, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
    elif request.param == "conditional":
        yield ConditionalStore(time)
    else:
        made = SQLiteStore(tmp_path / "done.db")
        made._clock = Clock("boot", time, time)
        yield made
        made.close()


def states(store: Store, *keys: str) -> list[str]:
    return [store.claim(key, "asking", lease=0.0).state for key in keys]


class TestEveryStore:
    def test_one_run_has_it_and_the_others_are_told_for_how_long(self, store: Store, time: Time) -> None:
        assert store.claim(KEY, "one", lease=60.0) == Claim("claimed")
        time.now += 20
        assert store.claim(KEY, "two", lease=60.0) == Claim("busy", 40.0)
        assert store.claim("another", "two", lease=60.0) == Claim("claimed")

    def test_asking_again_after_a_lost_answer_is_the_same_claim(self, store: Store, time: Time) -> None:
        store.claim(KEY, "one", lease=60.0)
        time.now += 20
        assert store.claim(KEY, "one", lease=60.0) == Claim("claimed")
        time.now += 50
        assert store.claim(KEY, "two", lease=60.0).state == "busy"

    def test_what_is_done_stays_done_for_its_time(self, store: Store, time: Time) -> None:
        store.claim(KEY, "one", lease=60.0)
        assert store.complete(KEY, "one", ttl=1000.0)
        time.now += 999
        assert states(store, KEY) == ["done"]
        assert store.claim(KEY, "one", lease=60.0).state == "done"
        time.now += 1
        assert states(store, KEY) == ["claimed"]

    def test_completing_again_after_a_lost_answer(self, store: Store, time: Time) -> None:
        store.claim(KEY, "one", lease=60.0)
        assert store.complete(KEY, "one", ttl=1000.0)
        assert store.complete(KEY, "one", ttl=1000.0)

    def test_what_is_released_is_anybodys(self, store: Store) -> None:
        store.claim(KEY, "one", lease=60.0)
        store.release(KEY, "one")
        store.release(KEY, "one")
        assert store.claim(KEY, "two", lease=60.0).state == "claimed"

    def test_a_claim_ends_by_itself(self, store: Store, time: Time) -> None:
        store.claim(KEY, "crashed", lease=60.0)
        time.now += 60
        assert store.claim(KEY, "two", lease=60.0).state == "claimed"

    def test_a_claim_is_renewed(self, store: Store, time: Time) -> None:
        store.claim(KEY, "one", lease=60.0)
        for _ in range(3):
            time.now += 50
            assert store.renew(KEY, "one", lease=60.0)
            assert store.claim(KEY, "two", lease=60.0).state == "busy"

    def test_a_stale_run_touches_nothing_of_the_next(self, store: Store, time: Time) -> None:
        store.claim(KEY, "stale", lease=60.0)
        time.now += 60
        store.claim(KEY, "two", lease=60.0)
        assert not store.renew(KEY, "stale", lease=600.0)
        assert not store.complete(KEY, "stale", ttl=1000.0)
        store.release(KEY, "stale")
        assert store.claim(KEY, "three", lease=60.0) == Claim("busy", 60.0)
        assert store.complete(KEY, "two", ttl=1000.0)
        assert not store.complete(KEY, "stale", ttl=1000.0)
        store.release(KEY, "stale")
        assert not store.renew(KEY, "stale", lease=60.0)
        assert states(store, KEY) == ["done"]

    def test_a_run_that_took_too_long_is_done_if_nobody_else_has_it(self, store: Store, time: Time) -> None:
        store.claim(KEY, "late", lease=60.0)
        time.now += 600
        assert store.complete(KEY, "late", ttl=1000.0)
        store.claim("other", "late", lease=60.0)
        time.now += 60
        store.claim("other", "two", lease=60.0)
        store.release("other", "two")
        assert store.complete("other", "late", ttl=1000.0)
        assert states(store, KEY, "other") == ["done", "done"]

    def test_done_is_neither_renewed_nor_released(self, store: Store, time: Time) -> None:
        store.claim(KEY, "one", lease=60.0)
        store.complete(KEY, "one", ttl=1000.0)
        assert not store.renew(KEY, "one", lease=5000.0)
        store.release(KEY, "one")
        assert states(store, KEY) == ["done"]

    def test_of_many_threads_one_gets_each_key(self, store: Store) -> None:
        claimed: list[str] = []
        start = threading.Barrier(6)

        def take(token: str) -> None:
            start.wait()
            keys = [f"key-{number}" for number in range(60)]
            claimed.extend(key for key in keys if store.claim(key, token, lease=60.0).state == "claimed")

        threads = [threading.Thread(target=take, args=(str(number),)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(claimed) == sorted(f"key-{number}" for number in range(60))


class TestMemory:
    def test_what_it_remembers_is_bounded(self, time: Time) -> None:
        store = MemoryStore(most=10)
        for number in range(100):
            store.claim(str(number), "one", lease=60.0)
            store.complete(str(number), "one", ttl=1000.0)
        assert len(store._done) <= 11
        assert states(store, "99", "0") == ["done", "claimed"]

    def test_what_has_ended_is_swept(self, time: Time) -> None:
        store = MemoryStore()
        for number in range(5000):
            time.now += 1
            store.claim(f"crashed-{number}", "one", lease=60.0)
            store.claim(f"done-{number}", "one", lease=60.0)
            store.complete(f"done-{number}", "one", ttl=100.0)
        assert len(store._done) <= 101
        assert len(store._claims) <= 1200

    def test_nothing_to_remember_is_refused(self) -> None:
        with pytest.raises(InvalidArgumentError, match="most is 0"):
            MemoryStore(most=0)
