"""Time: the wall clock may move and the machine may start anew."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from cloudevents_bridge.brokers.sqlite import clock
from cloudevents_bridge.driver import DeadLetters


@pytest.fixture(autouse=True)
def places(rig: Any) -> None:
    rig.make(rig.topic, rig.billing, rig.ordered, rig.lanes)


def reopen(rig: Any) -> None:
    rig.broker = rig.connect()


@pytest.mark.parametrize("jump", [3600.0, -3600.0, 1e9])
def test_the_wall_clock_does_not_matter(rig: Any, jump: float) -> None:
    rig.publish(rig.topic, "a", ttl=50.0)
    rig.publish(rig.topic, "later", delay=20.0)
    held = rig.take(rig.billing)
    rig.time.wall += jump
    reopen(rig)
    assert rig.take(rig.billing) == []
    assert rig.settle("ack", *held) == ["ok"]
    rig.time.pass_(19)
    assert rig.take(rig.billing) == []
    rig.time.pass_(2)
    assert rig.bodies(rig.take(rig.billing)) == ["later"]


def test_after_a_reboot_leases_are_void_and_delays_go_on(rig: Any) -> None:
    rig.publish(rig.topic, "leased", "nacked")
    rig.publish(rig.topic, "later", delay=100.0)
    leased, nacked = rig.take(rig.billing)
    rig.settle("nack", nacked, seconds=50.0)
    rig.time.pass_(1)
    rig.close()
    rig.time.reboot(down=5)
    reopen(rig)
    [again] = rig.take(rig.billing)
    assert (again.body, again.attempt) == (b"leased", 2)
    assert rig.settle("ack", leased) == ["LEASE_LOST"]
    assert rig.settle("ack", again) == ["ok"]
    rig.time.pass_(43)
    assert rig.take(rig.billing) == []
    rig.time.pass_(2)
    assert rig.bodies(rig.take(rig.billing)) == ["nacked"]
    rig.time.pass_(48)
    assert "later" not in rig.bodies(rig.take(rig.billing))
    rig.time.pass_(3)
    assert "later" in rig.bodies(rig.take(rig.billing))


def test_a_reboot_into_the_past_never_turns_time_back(rig: Any) -> None:
    rig.publish(rig.topic, "a")
    rig.settle("dead", *rig.take(rig.billing), reason="no")
    rig.publish(rig.topic, "b", ttl=1000.0)
    rig.close()
    rig.time.reboot(down=-1e8)
    reopen(rig)
    assert rig.bodies(rig.take(DeadLetters(rig.billing))) == ["a"]
    assert rig.bodies(rig.take(rig.billing)) == ["b"]


def test_an_order_survives_a_reboot(rig: Any) -> None:
    rig.publish(rig.ordered, "k0", "k1", key="k")
    rig.take(rig.lanes)
    rig.close()
    rig.time.reboot(down=1)
    reopen(rig)
    held = rig.take(rig.lanes)
    assert rig.bodies(held) == ["k0"]
    rig.settle("ack", *held)
    assert rig.bodies(rig.take(rig.lanes)) == ["k1"]


def test_two_boots_at_once_agree_on_the_time(rig: Any) -> None:
    """Containers with a kernel of their own each, on one file."""
    rig.publish(rig.topic, "a", "b")
    rig.subscriber(rig.billing).receive(1, 0.0)
    here = rig.broker
    rig.time.boot, up = "elsewhere", rig.time.up
    rig.time.up = 77.0
    there = rig.connect()
    there.ping(timeout=1.0)
    assert there._store.now() == pytest.approx(rig.time.up + here._store.now() - rig.time.up)
    assert up != rig.time.up


def test_the_clock_of_this_machine_runs() -> None:
    here = clock.system_clock()
    first = here.ticks()
    deadline = time.monotonic() + 5
    while here.ticks() == first:
        assert time.monotonic() < deadline
    assert here.boot == clock.system_clock().boot
    if sys.platform == "linux":
        assert len(here.boot) == 36


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError, ValueError])
def test_without_a_boot_id_the_wall_clock_serves(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fail(*_: object) -> str:
        raise error

    for name in ("Path", "_darwin_boot_id", "_windows_boot_id"):
        monkeypatch.setattr(clock, name, fail)
    here = clock.system_clock()
    assert (here.boot, here.ticks) == ("wall", time.time)
