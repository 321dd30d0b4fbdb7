"""What the SQLite broker promises of deliveries: leases, attempts, order, delay, expiry, dead letters."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from cloudevents_bridge.brokers.sqlite.publisher import USUAL
from cloudevents_bridge.driver import DEAD_LETTER, DeadLetters, Done, Fault, Outbound, Subscription, Topic
from cloudevents_bridge.errors import ClosedError, ErrorCode, NotFoundError


@pytest.fixture(autouse=True)
def places(rig: Any) -> None:
    rig.make(rig.topic, rig.billing, rig.audit, rig.ordered, rig.lanes)


def test_each_subscription_gets_each_event_once_and_in_order(rig: Any) -> None:
    done = rig.publish(rig.topic, "a", "b", "c")
    assert [(each.id, each.sequence, each.reached) for each in done] == [("1", "1", 2), ("2", "2", 2), ("3", "3", 2)]
    for of in (rig.billing, rig.audit):
        messages = rig.take(of)
        assert rig.bodies(messages) == ["a", "b", "c"]
        assert [(m.attempt, m.lease, m.key, dict(m.attributes)) for m in messages] == [
            (1, 10.0, None, {"content-type": "application/cloudevents+json"})
        ] * 3
        assert rig.settle("ack", *messages) == ["ok"] * 3
        rig.time.pass_(100)
        assert rig.take(of) == []


def test_other_attributes_and_any_bytes_come_back(rig: Any) -> None:
    body = bytes(range(256))
    message = Outbound(body, {"content-type": "x/ü", "a": ""}, "ignored here")
    rig.publisher(rig.topic).send([message], timeout=5.0)
    [got] = rig.take(rig.billing)
    assert (got.body, dict(got.attributes), got.key) == (body, {"content-type": "x/ü", "a": ""}, None)
    assert rig.publisher(rig.topic).size(message) >= 256 + len("x/ü".encode())


@pytest.mark.parametrize("odd", [{"ttl": 50.0}, {"delay": 1e-6}, {"attributes": {"a": "b"}}, {"key": "k"}])
def test_one_odd_event_among_many_keeps_its_place_and_the_others_are_as_ever(rig: Any, odd: dict[str, Any]) -> None:
    plain = [Outbound(str(n).encode(), USUAL) for n in range(350)]
    batch = [*plain[:120], replace(plain[120], **odd), *plain[121:]]
    rig.publisher(rig.ordered).send(batch, timeout=5.0)
    rig.time.pass_(1)
    messages = rig.take(rig.lanes, 1000)
    assert rig.bodies(messages) == [str(n) for n in range(350)]
    usual = {"attributes": USUAL, "key": None}
    came = [{name: getattr(message, name) for name in usual} for message in messages]
    said = {name: odd.get(name, usual[name]) for name in usual}
    assert came == [usual] * 120 + [said] + [usual] * 229
    assert rig.rows("SELECT id & 1023 FROM events WHERE expires IS NOT NULL") == ([(121,)] if "ttl" in odd else [])
    assert rig.rows("SELECT count(DISTINCT due) FROM events") == [(2 if "delay" in odd else 1,)]


def test_events_published_before_a_subscription_are_not_for_it(rig: Any) -> None:
    rig.publish(rig.topic, "before")
    late = Subscription(rig.topic, "late")
    rig.make(late)
    rig.publish(rig.topic, "after")
    assert rig.bodies(rig.take(late)) == ["after"]


def test_a_topic_without_subscriptions_accepts_and_keeps_nothing(rig: Any) -> None:
    alone = Topic("alone")
    rig.make(alone)
    assert [(each.id, each.reached) for each in rig.publish(alone, "a", "b") + rig.publish(alone, "c")] == [
        ("1", 0),
        ("2", 0),
        ("3", 0),
    ]
    rig.make(Subscription(alone, "late"))
    assert rig.take(Subscription(alone, "late")) == []
    assert rig.rows("SELECT count(*) FROM events") == [(0,)]


def test_a_lease_ends_and_the_attempt_grows(rig: Any) -> None:
    rig.publish(rig.topic, "a")
    [first] = rig.take(rig.billing)
    rig.time.pass_(9.9)
    assert rig.take(rig.billing) == []
    rig.time.pass_(0.2)
    [second] = rig.take(rig.billing)
    assert (first.attempt, second.attempt) == (1, 2)
    assert rig.settle("ack", first) == ["LEASE_LOST"]
    assert rig.settle("ack", second) == ["ok"]


@pytest.mark.parametrize("verb", ["ack", "nack", "release", "extend", "dead"])
def test_a_lease_that_is_over_is_lost_even_if_nobody_took_it(rig: Any, verb: str) -> None:
    rig.publish(rig.topic, "a")
    held = rig.take(rig.billing)
    rig.time.pass_(10.1)
    assert rig.settle(verb, *held, seconds=10.0) == ["LEASE_LOST"]
    assert rig.bodies(rig.take(rig.billing)) == ["a"]


@pytest.mark.parametrize("first", ["ack", "nack", "release", "dead"])
@pytest.mark.parametrize("second", ["ack", "nack", "release", "extend", "dead"])
def test_what_is_settled_cannot_be_settled_again(rig: Any, first: str, second: str) -> None:
    rig.publish(rig.topic, "a")
    held = rig.take(rig.billing)
    assert rig.settle(first, *held, seconds=5.0) == ["ok"]
    assert rig.settle(second, *held, seconds=5.0) == ["LEASE_LOST"]


def test_one_bad_handle_among_good_ones(rig: Any) -> None:
    rig.publish(rig.topic, "a", "b", "c")
    a, b, c = rig.take(rig.billing)
    rig.settle("ack", b)
    assert rig.settle("ack", a, b, c, c) == ["ok", "LEASE_LOST", "ok", "LEASE_LOST"]
    rig.time.pass_(100)
    assert rig.take(rig.billing) == []


def test_a_faults_words(rig: Any) -> None:
    rig.publish(rig.topic, "a")
    held = rig.take(rig.billing)
    rig.settle("ack", *held)
    [fault] = rig.subscriber(rig.billing).settle("ack", held, timeout=5.0)
    assert isinstance(fault, Fault)
    assert (fault.retryable, fault.maybe_applied) == (False, False)
    assert "lease is over" in fault.message


def test_extend_keeps_it_away(rig: Any) -> None:
    rig.publish(rig.topic, "a")
    held = rig.take(rig.billing)
    for _ in range(3):
        rig.time.pass_(9)
        [done] = rig.subscriber(rig.billing).settle("extend", held, seconds=10.0, timeout=5.0)
        assert isinstance(done, Done)
        assert done.lease == 10.0
        assert rig.take(rig.billing) == []
    assert rig.settle("ack", *held) == ["ok"]


def test_nack_with_a_delay_comes_back_no_earlier(rig: Any) -> None:
    rig.publish(rig.topic, "a", "b")
    a, b = rig.take(rig.billing)
    rig.settle("nack", a, seconds=100.0)
    rig.settle("nack", b)
    again = rig.take(rig.billing)
    assert rig.bodies(again) == ["b"]
    assert again[0].attempt == 2
    rig.settle("ack", *again)
    rig.time.pass_(99)
    assert rig.take(rig.billing) == []
    rig.time.pass_(2)
    assert [(m.body, m.attempt) for m in rig.take(rig.billing)] == [(b"a", 2)]


def test_release_spends_no_attempt(rig: Any) -> None:
    rig.publish(rig.topic, "a")
    for _ in range(5):
        [held] = rig.take(rig.billing)
        assert held.attempt == 1
        assert rig.settle("release", held) == ["ok"]


def test_close_gives_back_what_is_not_settled(rig: Any) -> None:
    rig.publish(rig.topic, "a", "b")
    subscriber = rig.subscriber(rig.billing)
    a, _ = subscriber.receive(10, 0.0).messages
    subscriber.settle("ack", [a], timeout=5.0)
    subscriber.close()
    subscriber.close()
    assert [(m.body, m.attempt) for m in rig.take(rig.billing)] == [(b"b", 1)]


def test_what_a_receive_takes_while_it_is_closed_is_given_back(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.publish(rig.topic, "a")
    subscriber = rig.subscriber(rig.billing)
    take = subscriber._take

    def late(limit: int) -> Any:
        messages = take(limit)
        monkeypatch.setattr(subscriber, "_give_back", lambda: None)
        subscriber.close()
        monkeypatch.undo()
        return messages

    monkeypatch.setattr(subscriber, "_take", late)
    with pytest.raises(ClosedError):
        subscriber.receive(1, 5.0)
    assert [(m.body, m.attempt) for m in rig.take(rig.billing)] == [(b"a", 1)]


def test_what_is_never_settled_is_not_remembered(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("cloudevents_bridge.brokers.sqlite.subscriber.time.monotonic", lambda: now[0])
    rig.publish(rig.topic, *["x"] * 1000)
    subscriber = rig.subscriber(rig.billing)
    for _ in range(20):
        assert len(subscriber.receive(1000, 0.0).messages) == 1000
        rig.time.pass_(11)
        now[0] += 11
    assert len(subscriber._out) <= 4000


def test_delayed_publish(rig: Any) -> None:
    rig.publish(rig.topic, "later", delay=60.0)
    rig.publish(rig.topic, "now")
    assert rig.bodies(rig.take(rig.billing)) == ["now"]
    rig.time.pass_(59)
    assert rig.bodies(rig.take(rig.billing)) == ["now"]
    rig.time.pass_(2)
    for of in (rig.billing, rig.audit):
        assert "later" in rig.bodies(rig.take(of))


def test_an_expired_event_is_not_delivered(rig: Any) -> None:
    rig.publish(rig.topic, "short", ttl=5.0)
    rig.publish(rig.topic, "long", ttl=500.0)
    [short, _] = rig.take(rig.billing)
    rig.settle("nack", short, seconds=10.0)
    rig.time.pass_(6)
    assert rig.bodies(rig.take(rig.audit)) == ["long"]
    rig.time.pass_(5)
    assert rig.bodies(rig.take(rig.billing)) == ["long"]
    assert rig.take(rig.audit) == []


def test_events_past_their_retention_are_not_delivered(rig: Any) -> None:
    brief = Subscription(rig.topic, "brief", retention=100.0)
    rig.make(brief)
    rig.publish(rig.topic, "a")
    held = rig.take(brief)
    rig.settle("nack", *held, seconds=150.0)
    rig.publish(rig.topic, "b")
    rig.time.pass_(101)
    rig.publish(rig.topic, "c")
    assert rig.bodies(rig.take(brief)) == ["c"]
    rig.time.pass_(60)
    assert "a" not in rig.bodies(rig.take(brief))
    assert rig.bodies(rig.take(rig.billing)) == ["a", "b", "c"]


# -- order


def test_one_delivery_of_a_key_is_out_at_a_time(rig: Any) -> None:
    for n in range(3):
        rig.publish(rig.ordered, f"k{n}", key="k")
        rig.publish(rig.ordered, f"l{n}", key="l")
        rig.publish(rig.ordered, f"free{n}")
    held = rig.take(rig.lanes)
    assert rig.bodies(held) == ["k0", "l0", "free0", "free1", "free2"]
    assert [m.key for m in held] == ["k", "l", None, None, None]
    assert rig.take(rig.lanes) == []
    rig.settle("ack", held[0])
    held_k = rig.take(rig.lanes)
    assert rig.bodies(held_k) == ["k1"]
    rig.settle("ack", held[1], *held_k)
    assert sorted(rig.bodies(rig.take(rig.lanes))) == ["k2", "l1"]


def test_a_key_that_waits_holds_only_itself(rig: Any) -> None:
    rig.publish(rig.ordered, "k0", "k1", key="k")
    rig.publish(rig.ordered, "l0", "l1", key="l")
    k0, l0 = rig.take(rig.lanes)
    rig.settle("nack", k0, seconds=60.0)
    rig.settle("ack", l0)
    assert rig.bodies(rig.take(rig.lanes)) == ["l1"]
    rig.time.pass_(61)
    assert "k0" in rig.bodies(rig.take(rig.lanes))


@pytest.mark.parametrize("end", ["release", "nack", "expire"])
def test_a_key_starts_again_at_its_head(rig: Any, end: str) -> None:
    rig.publish(rig.ordered, "k0", "k1", key="k")
    held = rig.take(rig.lanes)
    if end == "expire":
        rig.time.pass_(11)
    else:
        rig.settle(end, *held)
    rig.publish(rig.ordered, "k2", key="k")
    again = rig.take(rig.lanes)
    assert rig.bodies(again) == ["k0"]
    rig.settle("ack", *again)
    assert rig.bodies(rig.take(rig.lanes)) == ["k1"]


def test_the_order_survives_a_restart(rig: Any) -> None:
    rig.publish(rig.ordered, *"abcdef", key="k")
    seen = []
    for _ in range(6):
        rig.broker.close()
        rig.broker = rig.connect()
        held = rig.take(rig.lanes)
        seen += rig.bodies(held)
        rig.settle("ack", *held)
    assert seen == list("abcdef")


def test_a_dead_head_lets_the_next_go(rig: Any) -> None:
    rig.publish(rig.ordered, "k0", "k1", key="k")
    rig.settle("dead", *rig.take(rig.lanes), reason="no")
    [k1] = rig.take(rig.lanes)
    assert (k1.body, k1.attempt) == (b"k1", 1)
    assert rig.bodies(rig.take(DeadLetters(rig.lanes))) == ["k0"]


def test_a_delayed_event_holds_its_key(rig: Any) -> None:
    rig.publish(rig.ordered, "k0", key="k", delay=60.0)
    rig.publish(rig.ordered, "k1", key="k")
    rig.publish(rig.ordered, "k2", key="k", delay=300.0)
    assert rig.take(rig.lanes) == []
    rig.time.pass_(61)
    held = rig.take(rig.lanes)
    assert rig.bodies(held) == ["k0"]
    rig.settle("ack", *held)
    held = rig.take(rig.lanes)
    assert rig.bodies(held) == ["k1"]
    rig.settle("ack", *held)
    assert rig.take(rig.lanes) == []
    rig.time.pass_(240)
    assert rig.bodies(rig.take(rig.lanes)) == ["k2"]


def test_an_expired_head_lets_the_next_go(rig: Any) -> None:
    rig.publish(rig.ordered, "k0", "k1", key="k", ttl=30.0)
    rig.publish(rig.ordered, "k2", key="k")
    rig.settle("nack", *rig.take(rig.lanes))
    rig.time.pass_(31)
    assert rig.bodies(rig.take(rig.lanes)) == ["k2"]


def test_keys_do_not_count_where_the_topic_is_not_ordered(rig: Any) -> None:
    rig.publish(rig.topic, "a", "b", key="k")
    assert [m.key for m in rig.take(rig.billing)] == [None, None]


# -- dead letters, direct


def test_a_dead_letter_is_kept_with_its_reason_until_it_is_acked(rig: Any) -> None:
    rig.publish(rig.topic, "a", "b", ttl=1000.0)
    a, b = rig.take(rig.billing)
    assert rig.settle("dead", a, reason='{"reason": "nö"}') == ["ok"]
    rig.settle("ack", b)
    dead = DeadLetters(rig.billing)
    rig.time.pass_(86_400 * 400)
    [letter] = rig.take(dead)
    assert (letter.body, letter.attempt, letter.key) == (b"a", 1, None)
    assert dict(letter.attributes) == {"content-type": "application/cloudevents+json", DEAD_LETTER: '{"reason": "nö"}'}
    assert rig.take(dead) == []
    rig.settle("release", letter)
    [letter] = rig.take(dead)
    assert rig.bodies(rig.take(rig.audit)) == []  # a thousand seconds were its time to live
    [fault] = rig.subscriber(dead).settle("dead", [letter], reason="again", timeout=5.0)
    assert fault.code == ErrorCode.FAILED_PRECONDITION
    assert rig.subscriber(dead).settle("ack", [letter], timeout=5.0) == [Done()]
    assert rig.take(dead) == []


def test_a_dead_letter_outlives_the_sweep(rig: Any) -> None:
    rig.publish(rig.topic, "poison")
    rig.settle("dead", *rig.take(rig.billing), reason="no")
    for _ in range(4):
        rig.publish(rig.topic, *map(str, range(1000)))
        for of in (rig.billing, rig.audit):
            while held := rig.take(of, 1000):
                rig.subscriber(of).settle("ack", held, timeout=5.0)
    assert rig.rows("SELECT count(*) FROM events")[0][0] < 1500
    [letter] = rig.take(DeadLetters(rig.billing))
    assert letter.body == b"poison"
    rig.settle("ack", letter)
    assert rig.rows("SELECT count(*) FROM events WHERE id & 0xFFFF = 1") == [(0,)]


def test_publishing_to_one_subscription_reaches_no_other(rig: Any) -> None:
    assert [each.reached for each in rig.publish(rig.billing, "only")] == [1]
    rig.publish(rig.topic, "all")
    assert rig.bodies(rig.take(rig.audit)) == ["all"]
    assert rig.bodies(rig.take(rig.billing)) == ["only", "all"]


def test_publishing_to_a_dead_letter_place(rig: Any) -> None:
    dead = DeadLetters(rig.billing)
    rig.publisher(dead).send([Outbound(b"a", {"x": "y", DEAD_LETTER: "why"})], timeout=5.0)
    assert rig.take(rig.billing) == rig.take(rig.audit) == []
    [letter] = rig.take(dead)
    assert dict(letter.attributes) == {"x": "y", DEAD_LETTER: "why"}


# -- deduplication


def test_a_duplicate_within_the_window_is_not_delivered_again(rig: Any) -> None:
    once = Topic("once", native={"deduplication": 60})
    of = Subscription(once, "reader")
    rig.make(once, of)
    publisher = rig.publisher(once)
    assert publisher.traits.dedup_window == 60.0
    [first] = rig.publish(once, "a", dedup="1")
    assert rig.publish(once, "b", "b", dedup="2")[0] != first
    rig.time.pass_(59)
    [second] = rig.publish(once, "a", dedup="1")
    assert second == first
    assert [rig.publish(once, "n")[0].reached, rig.publish(once, "n")[0].reached] == [1, 1]
    assert rig.bodies(rig.take(of)) == ["a", "b", "n", "n"]
    rig.time.pass_(2)
    rig.publish(once, "a", dedup="1")
    assert rig.bodies(rig.take(of)) == ["a"]
    rig.time.pass_(1000)
    for n in range(3):
        rig.publish(once, "x", "y", "z", dedup=str(n))
    assert rig.rows("SELECT count(*) FROM duplicates") == [(3,)]


def test_without_a_window_nothing_is_deduplicated(rig: Any) -> None:
    rig.publish(rig.topic, "a", dedup="1")
    rig.publish(rig.topic, "a", dedup="1")
    assert rig.bodies(rig.take(rig.billing)) == ["a", "a"]


# -- sizes


def test_a_receive_is_bounded_in_bytes(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudevents_bridge.brokers.sqlite.deliveries.BUDGET", 1000)
    rig.publish(rig.topic, *["x" * 400] * 7)
    counts = []
    while held := rig.take(rig.billing):
        counts.append(len(held))
        rig.settle("release" if len(counts) == 1 else "ack", *held)
    assert counts == [3, 3, 3, 1]


def test_many_that_are_passed_over_do_not_hide_what_comes_after(rig: Any) -> None:
    rig.publish(rig.ordered, *["k"] * 5000, key="k")
    rig.publish(rig.ordered, "other", key="l")
    [k] = rig.take(rig.lanes, 1)
    assert rig.bodies(rig.take(rig.lanes, 1)) == ["other"]
    rig.settle("ack", k)
    assert rig.bodies(rig.take(rig.lanes, 10)) == ["k"]


def test_empty_batches(rig: Any) -> None:
    assert rig.publish(rig.topic) == []
    assert rig.settle("ack") == []


# -- what is not there


def test_missing_places_are_not_found_on_use(rig: Any) -> None:
    nowhere = Topic("nowhere")
    publisher, subscriber = rig.publisher(nowhere), rig.subscriber(Subscription(rig.topic, "nobody"))
    with pytest.raises(NotFoundError, match=r"topic nowhere does not exist on sqlite:///events.db: .*create_missing"):
        publisher.send([], timeout=5.0)
    with pytest.raises(NotFoundError, match="subscription nobody of topic orders does not exist"):
        subscriber.receive(1, 0.0)
    with pytest.raises(NotFoundError, match="topic nowhere"):
        rig.subscriber(Subscription(nowhere, "nobody")).receive(1, 0.0)
