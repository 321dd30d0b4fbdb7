"""Which delivery may start."""

from __future__ import annotations

from cloudevents_bridge.core.lanes import Entry, Lanes


def entry(name: str, *, suspect: bool = False) -> Entry:
    """`a1` is the first of key a; `1` has no key."""
    return Entry(object(), 100.0, 10.0, delivery=name, key=name[0] if name[0].isalpha() else None, suspect=suspect)


def lanes_of(*names: str) -> tuple[Lanes, dict[str, Entry]]:
    lanes, made = Lanes(), {name: entry(name) for name in names}
    for each in made.values():
        lanes.add(each)
    return lanes, made


def names(entries: list[Entry]) -> list[str]:
    return [each.delivery for each in entries]


def counts(lanes: Lanes) -> tuple[int, int, int]:
    return lanes.ready, lanes.blocked, lanes.parked


def test_without_keys_they_start_in_the_order_they_came() -> None:
    lanes, _ = lanes_of("1", "2", "3")
    assert names(lanes.start(2)) == ["1", "2"]
    assert names(lanes.start(2)) == ["3"]
    assert names(lanes.start(2)) == []


def test_of_a_key_one_is_under_way_and_the_next_starts_when_it_is_over() -> None:
    lanes, made = lanes_of("a1", "a2", "1", "b1")
    assert names(lanes.start(9)) == ["a1", "1", "b1"]
    assert counts(lanes) == (0, 1, 0)
    lanes.end(made["a1"], "settling")
    assert names(lanes.start(9)) == ["a2"]
    lanes.end(made["a2"], "settling")
    lanes.add(again := entry("a3"))
    assert lanes.start(9) == [again]


def test_what_is_held_keeps_its_lane_and_resumes_before_all_others() -> None:
    lanes, made = lanes_of("a1", "a2", "a3")
    lanes.start(9)
    lanes.hold(made["a1"])
    lanes.add(entry("1"))
    lanes.add(entry("a4"))
    assert counts(lanes) == (1, 3, 3)
    lanes.resume(made["a1"])
    assert counts(lanes) == (2, 3, 0)
    assert names(lanes.start(9)) == ["a1", "1"]


def test_dropping_the_head_takes_all_behind_it_in_order() -> None:
    lanes, made = lanes_of("a1", "a2", "a3", "b1")
    assert names(lanes.drop(made["a1"])) == ["a1", "a2", "a3"]
    assert counts(lanes) == (1, 0, 0)
    assert names(lanes.start(9)) == ["b1"]
    lanes.add(entry("a4"))
    assert names(lanes.start(9)) == ["a4"]


def test_dropping_one_that_waits_takes_those_behind_it_and_leaves_those_before() -> None:
    lanes, made = lanes_of("a1", "a2", "a3", "a4")
    lanes.start(9)
    assert names(lanes.drop(made["a3"])) == ["a3", "a4"]
    assert counts(lanes) == (0, 1, 0)
    lanes.end(made["a1"], "settling")
    assert names(lanes.start(9)) == ["a2"]


def test_dropping_one_that_runs_takes_those_behind_it_and_keeps_its_lane() -> None:
    lanes, made = lanes_of("a1", "a2")
    lanes.start(9)
    assert names(lanes.drop(made["a1"])) == ["a2"]
    lanes.add(entry("a3"))
    assert names(lanes.start(9)) == []
    lanes.end(made["a1"], "gone")
    assert names(lanes.start(9)) == ["a3"]


def test_dropping_one_that_is_held_frees_its_lane() -> None:
    lanes, made = lanes_of("a1", "a2", "1")
    lanes.start(9)
    lanes.hold(made["a1"])
    lanes.hold(made["1"])
    assert names(lanes.drop(made["a1"])) == ["a1", "a2"]
    assert names(lanes.drop(made["1"])) == ["1"]
    assert counts(lanes) == (0, 0, 0)
    lanes.add(entry("a3"))
    assert names(lanes.start(9)) == ["a3"]


def test_a_suspect_is_not_started_with_others() -> None:
    lanes, _ = lanes_of("1")
    lanes.add(suspect := entry("a1", suspect=True))
    lanes.add(entry("a2"))
    assert lanes.suspects == [suspect]
    assert names(lanes.start(9)) == ["1"]
    lanes.start_alone(suspect)
    assert lanes.suspects == []
    lanes.end(suspect, "settling")
    assert names(lanes.start(9)) == ["a2"]


def test_a_suspect_behind_another_becomes_next_as_a_suspect() -> None:
    lanes, made = lanes_of("a1")
    lanes.add(suspect := entry("a2", suspect=True))
    lanes.start(9)
    lanes.end(made["a1"], "settling")
    assert lanes.suspects == [suspect]
    assert names(lanes.drop(suspect)) == ["a2"]
    assert lanes.suspects == []
