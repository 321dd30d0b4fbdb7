"""The event loop that cases run in tasks on."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from cloudevents_bridge_contract.intasks import Loop


async def _answer() -> int:
    return 42


def test_what_is_begun_while_the_loop_is_ended_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(Loop()) as loop:
        assert loop.run(_answer()) == 42
        find = loop._get

        def find_and_be_ended() -> object:
            found = find()
            ending = threading.Thread(target=loop.close)
            ending.start()
            ending.join(0.5)
            return found

        monkeypatch.setattr(loop, "_get", find_and_be_ended)
        assert loop.begin(_answer()).result(10) == 42
