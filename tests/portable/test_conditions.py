"""A condition keeps its lock through an interrupt at any instant of a wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from cloudevents_bridge.conditions import Condition


def then_interrupted(step: Callable[..., Any]) -> Callable[..., Any]:
    def interrupted(*args: Any) -> None:
        step(*args)
        raise KeyboardInterrupt

    return interrupted


@pytest.mark.parametrize("step", ["_release_save", "_acquire_restore"])
def test_an_interrupted_wait_ends_with_the_lock_held(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    condition = Condition()
    monkeypatch.setattr(condition, step, then_interrupted(getattr(condition, step)))
    with pytest.raises(KeyboardInterrupt), condition.lock:
        condition.wait(0.001)
    another = threading.Thread(target=condition.lock.acquire, args=(True, 10.0))
    another.start()
    another.join()
    assert not condition.lock.acquire(blocking=False), "the interrupted thread still holds it"


def test_a_wait_tells_whether_it_was_notified() -> None:
    condition = Condition()

    def notify() -> None:
        with condition.lock:
            condition.notify_all()

    with condition.lock:
        assert not condition.wait(0.001)
        threading.Thread(target=notify).start()
        assert condition.wait(10.0)
