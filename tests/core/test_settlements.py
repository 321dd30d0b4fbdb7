"""Which deliveries are settled in one request, and when."""

from __future__ import annotations

from cloudevents_bridge.core.lanes import Entry
from cloudevents_bridge.core.settlements import Settlements, Verb, Watermarks


def entry(name: str, stream: str | None = None) -> Entry:
    return Entry(object(), 100.0, 10.0, delivery=name, stream=stream)


def names(entries: list[Entry]) -> list[str]:
    return [each.delivery for each in entries]


def add(settlements: Settlements, name: str, verb: Verb = "ack", seconds: float = 0.0, now: float = 0.0) -> None:
    made = entry(name)
    settlements.add([made], made, verb, seconds, now)


def test_one_waits_for_company_and_not_for_long() -> None:
    settlements = Settlements(10, 0, 0.5)
    add(settlements, "1", now=1.0)
    add(settlements, "2", now=1.4)
    assert settlements.next(1.49) is None
    assert settlements.wake_at() == 1.5
    settlement = settlements.next(1.5)
    assert settlement is not None
    assert (settlement.verb, names(settlement.entries)) == ("ack", ["1", "2"])
    assert settlements.wake_at() is None
    assert not settlements


def test_a_full_one_waits_for_nobody() -> None:
    settlements = Settlements(2, 0, 0.5)
    for name in "12345":
        add(settlements, name)
    taken = [settlements.next(0.0), settlements.next(0.0), settlements.next(0.0)]
    assert [each and names(each.entries) for each in taken] == [["1", "2"], ["3", "4"], None]
    assert settlements


def test_handles_are_counted_in_bytes_too() -> None:
    settlements = Settlements(10, 100, 0.5)
    for name, size in {"1": 60, "2": 40, "3": 1, "4": 120, "5": 0, "6": 99}.items():
        made = entry(name)
        made.handle_size = size
        settlements.add([made], made, "ack", 0.0, 0.0)
    taken = []
    while (settlement := settlements.next(0.0, hurry=True)) is not None:
        taken.append((names(settlement.entries), settlement.size))
    assert taken == [(["1", "2"], 100), (["3"], 1), (["4"], 120), (["5", "6"], 99)]


def test_in_a_hurry_nothing_waits() -> None:
    settlements = Settlements(10, 0, 0.5)
    add(settlements, "1", now=1.0)
    assert settlements.wake_at(hurry=True) == 1.0
    assert settlements.next(1.0, hurry=True) is not None


def test_what_differs_in_verb_or_delay_goes_apart_the_oldest_first() -> None:
    settlements = Settlements(10, 0, 0.5)
    add(settlements, "1", "nack", 3.0, now=1.0)
    add(settlements, "2", "ack", now=1.1)
    add(settlements, "3", "nack", 4.0, now=1.2)
    add(settlements, "4", "nack", 3.0, now=1.3)
    told = []
    while (settlement := settlements.next(9.0)) is not None:
        told.append((settlement.verb, settlement.seconds, names(settlement.entries)))
    assert told == [("nack", 3.0, ["1", "4"]), ("ack", 0.0, ["2"]), ("nack", 4.0, ["3"])]


def test_an_ack_covers_what_is_done_from_the_beginning_of_its_stream() -> None:
    marks, made = Watermarks(), [entry(str(n), "one") for n in range(4)]
    other = entry("other", "two")
    for each in (*made, other):
        marks.add(each)
    assert marks.done(made[2]) == []
    assert names(marks.done(other)) == ["other"]
    assert marks.done(made[1]) == []
    assert names(marks.done(made[0])) == ["0", "1", "2"]
    assert names(marks.done(made[3])) == ["3"]


def test_what_is_not_done_here_takes_what_follows_it_along() -> None:
    marks, made = Watermarks(), [entry(str(n), "one") for n in range(4)]
    for each in made:
        marks.add(each)
    marks.done(made[2])
    assert marks.rewind(made[1]) == [(made[1], False), (made[2], True), (made[3], False)]
    assert marks.rewind(made[3]) == []
    assert names(marks.done(made[0])) == ["0"]
    again = entry("again", "one")
    marks.add(again)
    assert names(marks.done(again)) == ["again"]
