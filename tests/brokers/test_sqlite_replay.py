"""A replay that is killed in the middle can be repeated: nothing is lost, and nothing reaches another subscription."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from cloudevents_bridge import Broker, CloudEvent, Subscription, Topic, connect

LETTERS = 200
REPLAY = """
    import sys
    import cloudevents_bridge as ceb

    with ceb.connect(sys.argv[1]) as broker:
        letters = broker.dead_letters("orders", "billing")
        ids = [letter.id for letter in letters.find()]
        print("begin", flush=True)
        letters.replay(ids, rate=100)
        print("end", flush=True)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/events.db"


def dead_letters(broker: Broker) -> None:
    events = [CloudEvent(type="com.example.order", source="/shop", id=str(n)) for n in range(LETTERS)]
    broker.publish_many("orders", events)
    with broker.subscriber("orders", "billing") as subscriber:
        for _ in range(LETTERS):
            for delivery in subscriber.receive(1, wait=5):
                delivery.dead_letter("the price is missing")


def left(broker: Broker, subscription: str) -> Counter[str]:
    """What a subscription has, acked."""
    found: Counter[str] = Counter()
    with broker.subscriber("orders", subscription) as subscriber:
        while deliveries := subscriber.receive(100, wait=0):
            found.update(delivery.event.id for delivery in deliveries)
            subscriber.ack_many(deliveries)
    return found


def listed(url: str) -> int:
    """How many dead letters there are, seen from beside."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
        return int(db.execute("SELECT count(*) FROM deliveries WHERE place < 0").fetchone()[0])


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 as POSIX has it")
@pytest.mark.parametrize("after", [5, 60])
def test_a_replay_that_is_killed_can_be_repeated(url: str, after: int) -> None:
    topics = [Topic("orders", subscriptions=[Subscription("billing", lease=2.0), "stock"])]
    with connect(url, topics=topics, create_missing=True) as broker:
        dead_letters(broker)
        left(broker, "stock")
        letters = broker.dead_letters("orders", "billing")
        ids = {letter.id for letter in letters.find()}
        assert len(ids) == LETTERS
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(REPLAY), url], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        deadline = time.monotonic() + 60
        while listed(url) > LETTERS - after:  # at some moment of two seconds: which one does not matter
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found = left(broker, "billing")
        assert 0 < len(found) < LETTERS
        deadline = time.monotonic() + 60
        while len(found) < LETTERS:  # what the killed one had in hand is listed again when its lease is over
            assert time.monotonic() < deadline
            rest = [letter.id for letter in letters.find()]
            assert set(rest) <= ids
            letters.replay(rest)
            found += left(broker, "billing")
        assert set(found) == {str(n) for n in range(LETTERS)}
        assert found.total() <= LETTERS + 1  # one was sent, perhaps, and not yet removed
        assert not list(letters.find())
        assert not left(broker, "stock")
