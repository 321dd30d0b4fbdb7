"""The store of the Service Bus emulator, without sockets: SQL, rules, and queues over simulated time."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("proton", reason="not run (python-qpid-proton is not installed)")
import proton

from cloudevents_bridge_contract.emulators.servicebus import encoding, refusals, settings, sql
from cloudevents_bridge_contract.emulators.servicebus.message import Message
from cloudevents_bridge_contract.emulators.servicebus.namespace import Namespace
from cloudevents_bridge_contract.emulators.servicebus.refusals import Refusal
from cloudevents_bridge_contract.emulators.servicebus.rules import everything


def _message(body: bytes = b"x", **fields: Any) -> Message:
    return Message.parse(proton.Message(body=body, inferred=True, **fields).encode())


SEEN = _message(
    id="m-1",
    subject="first one",
    group_id="s-1",
    properties={"colour": "red", "size": 7, "price": 1.5, "on": True, "it's [x]": "odd"},
)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("colour = 'red'", True),
        ("user.colour = 'red' AND size = 7", True),
        ("colour <> 'red'", False),
        ("colour != 'blue'", True),
        ("size >= 7 AND size <= 7 AND NOT size < 7", True),
        ("size > 6.5", True),
        ("price * 2 = 3 AND size - 2 = 5 AND size % 4 = 3 AND size / 2 = 3", True),
        ("-size = -7", True),
        ("colour + '!' = 'red!'", True),
        ("on", True),
        ("on = TRUE AND NOT FALSE", True),
        ("size = '7'", False),
        ("missing = 1", None),
        ("NOT missing = 1", None),
        ("missing = 1 OR colour = 'red'", True),
        ("missing = 1 AND colour = 'blue'", False),
        ("missing IS NULL AND colour IS NOT NULL", True),
        ("EXISTS(colour) AND NOT EXISTS(user.missing)", True),
        ("colour IN ('blue', 'red')", True),
        ("colour NOT IN ('blue', 'red')", False),
        ("sys.Label LIKE 'first%'", True),
        ("sys.label LIKE '_irst one'", True),
        ("sys.MessageId NOT LIKE 'm%'", False),
        ("sys.SessionId = 's-1'", True),
        ("'10%' LIKE '10!%' ESCAPE '!'", True),
        ("'100' LIKE '10!%' ESCAPE '!'", False),
        ("[it's [x]]] = 'odd'", True),
        ("property('colour') = 'red' AND p('size') = 7", True),
        ("'it''s' = 'it''s'", True),
        ("(colour = 'blue' OR size = 7) AND @x = 1", True),
    ],
)
def test_conditions(text: str, taken: bool | None) -> None:
    assert sql.condition(text, {"@x": 1})(SEEN) is taken


@pytest.mark.parametrize(
    "text", ["", "colour =", "colour = 'red", "a b", "(a = 1", "LIKE 'x'", "a NOT = 1", "@y = 1", "a = ?"]
)
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(sql.SqlError):
        sql.condition(text, {})


def test_actions() -> None:
    changed = sql.action("SET colour = colour + 'dish'; REMOVE size; SET sys.Label = 'new'", {}).changed(SEEN)
    assert changed.user["colour"] == "reddish"
    assert "size" not in changed.user
    again = Message.parse(changed.encode(failures=0, ttl=None, annotations={}, state=0, enqueued=0.0))
    assert (again.system["label"], again.id, again.user["colour"]) == ("new", "m-1", "reddish")
    with pytest.raises(sql.SqlError):
        sql.action("SET colour", {})


def test_sections_are_carried_byte_for_byte() -> None:
    raw = proton.Message(body=b"\x00\xff" * 300, inferred=True, id="m", properties={"a": 1}).encode()
    found = dict(encoding.sections(raw))
    assert encoding.payload(found[encoding.DATA]) == b"\x00\xff" * 300
    kept = Message.parse(raw).encode(failures=3, ttl=1.0, annotations={}, state=0, enqueued=0.0)
    again = dict(encoding.sections(kept))
    for code in (encoding.PROPERTIES, encoding.APPLICATION, encoding.DATA):
        assert again[code] == found[code]
    read = proton.Message()
    read.decode(kept)
    assert (read.delivery_count, read.ttl) == (3, 1.0)


@pytest.mark.parametrize("raw", [b"{}", b"\x00", b"\x00\x53\x75\xa0\x05ab", b"\x00\x53\x75\x01"])
def test_what_is_no_message(raw: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        list(encoding.sections(raw))
    assert not encoding._looks_encoded(raw)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT1M", 60), ("P1DT2H3M4.5S", 93_784.5), ("PT0.5S", 0.5), (settings.FOREVER, None), ("P14D", 14 * 86_400)],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert settings.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "P", "PT", "1M", "P1Y"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        settings.seconds(text)


# -- queues over simulated time


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _namespace(**description: str) -> tuple[Namespace, Clock]:
    clock = Clock()
    namespace = Namespace(clock)
    namespace.add_queue("q", description)
    return namespace, clock


def test_a_lock_lasts_as_long_as_it_is_renewed() -> None:
    namespace, clock = _namespace(LockDuration="PT30S")
    namespace.send("q", [_message()], clock.now)
    queue = namespace.queue("q")
    stored = queue.take(clock.now)
    assert stored is not None
    assert stored.token is not None
    token = stored.token
    for _ in range(5):
        clock.now += 29
        queue.renew(token, clock.now)
        assert queue.take(clock.now) is None
    clock.now += 30
    with pytest.raises(Refusal) as lost:
        queue.complete(token, clock.now)
    assert lost.value.condition == refusals.LOCK_LOST
    again = queue.take(clock.now)
    assert again is not None
    assert again.failures == 1


def test_what_is_locked_does_not_expire_before_its_lock() -> None:
    namespace, clock = _namespace(LockDuration="PT1M")
    namespace.send("q", [_message(ttl=10)], clock.now)
    queue = namespace.queue("q")
    stored = queue.take(clock.now)
    assert stored is not None
    assert stored.token is not None
    clock.now += 20
    namespace.tick(clock.now)
    queue.renew(stored.token, clock.now)
    queue.abandon(stored.token, clock.now, changes={})
    assert queue.take(clock.now) is None
    assert queue.stored == {}


def test_a_scheduled_message_expires_from_when_it_is_due() -> None:
    namespace, clock = _namespace()
    at = proton.timestamp(int((clock.now + 100) * 1000))
    annotations = {proton.symbol("x-opt-scheduled-enqueue-time"): at}
    (number,) = namespace.send("q", [_message(ttl=10, annotations=annotations)], clock.now)
    assert number
    clock.now += 99
    namespace.tick(clock.now)
    assert namespace.queue("q").take(clock.now) is None
    clock.now += 1
    namespace.tick(clock.now)
    clock.now += 9
    assert namespace.queue("q").take(clock.now) is not None


def test_all_of_a_batch_or_nothing() -> None:
    namespace, clock = _namespace()
    with pytest.raises(Refusal) as refused:
        namespace.send("q", [_message(b"x" * 200_000), _message(b"y" * 100_000)], clock.now)
    assert refused.value.condition == refusals.TOO_LARGE
    assert namespace.queue("q").stored == {}


def test_a_session_is_one_owners_until_its_lock_ends() -> None:
    namespace, clock = _namespace(RequiresSession="true", LockDuration="PT30S")
    namespace.send("q", [_message(group_id=name) for name in ("a", "b", "a")], clock.now)
    queue, first, second = namespace.queue("q"), object(), object()
    assert queue.accept(first, None, clock.now) == "a"
    assert queue.accept(second, None, clock.now) == "b"
    assert queue.accept(object(), None, clock.now) is None
    taken = queue.take(clock.now, "a")
    assert taken is not None
    clock.now += 31
    with pytest.raises(Refusal) as lost:
        queue.session_end("a", first, clock.now)
    assert lost.value.condition == refusals.SESSION_LOCK_LOST
    assert queue.accept(second, "a", clock.now) == "a"
    again = queue.take(clock.now, "a")
    assert again is taken
    assert again.failures == 1
    queue.leave("a", first)  # who lost it cannot free it
    assert queue.session_end("a", second, clock.now) == clock.now + 30


def test_a_filter_that_cannot_be_evaluated_buries_the_message() -> None:
    namespace, clock = _namespace()
    topic = namespace.add_topic("t", {})
    condition = sql.condition("1 / size > 0", {})
    rule = everything()._replace(takes=lambda message: condition(message) is True)
    subscription = namespace.add_subscription(topic, "s", {}, rule)
    namespace.send("t", [_message(properties={"size": 0})], clock.now)
    (dead,) = subscription.dead.stored.values()
    assert dead.message.user["DeadLetterReason"] == "FilterEvaluationException"
    assert subscription.queue.stored == {}
