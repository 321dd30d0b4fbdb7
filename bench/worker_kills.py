"""Kill worker processes at random moments, as `kill -9` does, while others of the same subscription go on.

- A publisher notes the ids of the events that it has a receipt for. None of them may be lost.
- A handler notes when it begins with an event and when it is done. An event that no handler was done with and that does
  not come again was wrongly acknowledged: there may be none.
- Of each ordering key no event may begin before the one before it was done. An event may be done twice: its process was
  killed between the handler's last word and the ack.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import time
import traceback
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from common import machine, make_event, workdir

from cloudevents_bridge import Broker, Delivery, Subscription, Topic, connect

LEASE = 1.0
KEYS = 100
BACKLOG = 3000
"""Events with a receipt that no handler was done with, beyond which the publisher waits."""
TOPIC = Topic("kills", ordered=True, subscriptions=[Subscription("one", lease=LEASE, max_attempts=100_000)])


class Seen(NamedTuple):
    """What was noted of one event: when handlers began with it and when they were done, in seconds."""

    began: list[float]
    done: list[float]


def open_broker(directory: Path) -> Broker:
    """The broker that all processes share."""
    return connect(f"sqlite:///{directory}/events.db", topics=[TOPIC])


def note(file: int, text: str) -> None:
    """Append lines to a file: what is written there survives the process."""
    os.write(file, text.encode())


def publish(directory: Path, _: str) -> None:
    """Publish for ever, many at once, a few events ahead of the handlers, and note what has a receipt."""
    receipts = os.open(directory / "receipts", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    draw = random.Random(0)
    pattern = make_event(0)
    published = 0
    with open_broker(directory) as broker:
        while True:
            keys = [draw.randrange(KEYS) for _ in range(draw.choice([1, 10, 200]))]
            events = [
                pattern.replace(id=f"{published + n:08}", partitionkey=f"key-{key}") for n, key in enumerate(keys)
            ]
            published += len(events)
            broker.publish_many("kills", events)
            note(receipts, "".join(f"{event.id} {event.partitionkey}\n" for event in events))
            while published - handled(directory) > BACKLOG:
                time.sleep(0.01)


def handled(directory: Path) -> int:
    """About how many events handlers were done with."""
    line = len("done 00000000 000000.000000\n")
    return sum(path.stat().st_size for path in directory.glob("handled-*")) // (2 * line)


def work(directory: Path, name: str) -> None:
    """Handle events for ever. What is noted as done is acknowledged afterwards."""
    notes = os.open(directory / f"handled-{name}", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    draw = random.Random(name)

    def handle(delivery: Delivery) -> None:
        note(notes, f"begn {delivery.event.id} {time.monotonic():013.6f}\n")
        if draw.random() < 0.2:
            time.sleep(draw.uniform(0.0, 0.01))
        note(notes, f"done {delivery.event.id} {time.monotonic():013.6f}\n")

    with open_broker(directory) as broker:
        broker.worker().add("kills", "one", handle, concurrency=draw.choice([1, 4])).run(signals=False)


def start(role: str, directory: Path, name: str) -> int:
    """Fork a process for a role: a fork is there in a millisecond, which makes room for a thousand of them."""
    if child := os.fork():
        return child
    try:
        (publish if role == "publish" else work)(directory, name)
    except BaseException:  # noqa: BLE001  - only a kill ends it in order
        traceback.print_exc()
    finally:
        os._exit(1)


def read_receipts(directory: Path) -> dict[str, str]:
    """The events with a receipt, in the order they were published, each with its key. A line cut off says nothing."""
    lines = (directory / "receipts").read_text().split("\n")[:-1]
    return dict(line.split() for line in lines)


def read_handled(directory: Path) -> dict[str, Seen]:
    """What handlers noted."""
    seen: dict[str, Seen] = defaultdict(lambda: Seen([], []))
    for path in directory.glob("handled-*"):
        for line in path.read_text().split("\n")[:-1]:
            word, id, at = line.split()
            (seen[id].done if word == "done" else seen[id].began).append(float(at))
    return seen


def rest(directory: Path, seen: dict[str, Seen]) -> int:
    """Consume what is left until nothing has come for a while, and note it as handled here. Returns how much came."""
    came = 0
    with open_broker(directory) as broker, broker.subscriber("kills", "one") as subscriber:
        until = time.monotonic() + LEASE + 3
        while time.monotonic() < until:
            deliveries = subscriber.receive(500, wait=0.5)
            for delivery in deliveries:
                now = time.monotonic()
                seen[delivery.event.id].began.append(now)
                seen[delivery.event.id].done.append(now)
            subscriber.ack_many(deliveries)
            came += len(deliveries)
            if deliveries:
                until = time.monotonic() + LEASE + 3
        dead = list(broker.dead_letters("kills", "one").find())
    if dead:
        raise AssertionError(f"{len(dead)} events were dead-lettered, the first: {dead[0]}")
    return came


def overtaken(receipts: dict[str, str], seen: dict[str, Seen]) -> int:
    """How many events began before the one before them, of the same key, was done."""
    before: dict[str, str] = {}
    found = 0
    for id, key in receipts.items():
        if key in before and seen[id].began and seen[before[key]].done:
            found += min(seen[id].began) < min(seen[before[key]].done)
        before[key] = id
    return found


def kill_many(directory: Path, kills: int, workers: int, life: float, draw: random.Random) -> int:
    """Kill workers at random moments, each time replaced. Returns how many processes ended by themselves."""
    ended = 0
    publisher = start("publish", directory, "publisher")
    children = [start("work", directory, str(number)) for number in range(workers)]
    try:
        for made in range(workers, workers + kills):
            time.sleep(draw.uniform(0, 2 * life / workers))
            slot = draw.randrange(workers)
            os.kill(children[slot], signal.SIGKILL)
            _, status = os.waitpid(children[slot], 0)
            ended += not os.WIFSIGNALED(status)
            children[slot] = start("work", directory, str(made))
        ended += os.waitpid(publisher, os.WNOHANG) != (0, 0)
    finally:
        for child in [*children, publisher]:
            try:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            except (ProcessLookupError, ChildProcessError):
                continue  # it ended by itself, which was counted
    return ended


def main() -> int:
    """Kill, count, and exit 1 if anything is lost, acknowledged before it was done, or overtaken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--life", type=float, default=0.4, help="seconds a worker lives, on average")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"{machine()}; seed {seed}")
    began = time.monotonic()
    with workdir() as directory:
        with open_broker(directory) as broker:
            broker.topology.apply()
        ended = kill_many(directory, arguments.kills, arguments.workers, arguments.life, random.Random(seed))
        receipts, seen = read_receipts(directory), read_handled(directory)
        left = rest(directory, seen)
    lost = [id for id in receipts if id not in seen]
    wrong = [id for id in receipts if id in seen and not seen[id].done]
    again = sum(len(each.done) > 1 for each in seen.values())
    unordered = overtaken(receipts, seen)
    done = sum(bool(each.done) for each in seen.values())
    print(f"{arguments.kills:,} kills of {arguments.workers} workers in {time.monotonic() - began:.0f} s")
    print(f"{len(receipts):>9,} events with a receipt, {len(lost):,} of them lost")
    print(f"{done:>9,} handled, {left:,} of them after the last kill")
    print(f"{len(wrong):>9,} acknowledged before a handler was done")
    print(f"{unordered:>9,} begun before the one before them, of the same key, was done")
    print(f"{again:>9,} handled twice, because the ack was not there yet: allowed")
    print(f"{ended:>9,} processes ended by themselves")
    return int(bool(lost or wrong or unordered or ended))


if __name__ == "__main__":
    raise SystemExit(main())
