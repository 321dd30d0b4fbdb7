"""Kill publishers and consumers at random moments, as `kill -9` does, and look for what they were promised.

- A publisher notes the ids of the events that it has a receipt for. None of them may be lost.
- A consumer notes the ids of the events that it has acknowledged. None of them may be delivered again.
- Now and then all processes are held in the middle of what they do and the broker's files are copied, as a power cut
  would leave them. The copy must open, be sound and hold every event that has a receipt.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import time
import traceback
from pathlib import Path

from common import machine, make_event, workdir

from cloudevents_bridge import BridgeError, Broker, Subscription, Topic, connect

SLOTS = ["publish", "publish", "consume", "consume"]
LEASE = 2.0
TOPIC = Topic("kills", subscriptions=[Subscription("one", lease=LEASE, max_attempts=100_000)])


def open_broker(directory: Path) -> Broker:
    """The broker that all processes share."""
    return connect(f"sqlite:///{directory}/events.db", topics=[TOPIC])


def note(file: int, ids: list[str]) -> None:
    """Append ids to a file: what is written there survives the process."""
    os.write(file, "".join(f"{each}\n" for each in ids).encode())


def publish(directory: Path, name: str) -> None:
    """Publish for ever, one by one or many at once, and note what has a receipt."""
    receipts = os.open(directory / f"receipts-{name}", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    draw = random.Random(name)
    pattern = make_event(0)
    number = 0
    with open_broker(directory) as broker:
        while True:
            (count,) = draw.choices([1, 20, 300], [90, 5, 1])
            events = [pattern.replace(id=f"{name}-{number + each}") for each in range(count)]
            number += count
            got = [broker.publish("kills", events[0])] if count == 1 else broker.publish_many("kills", events)
            note(receipts, [receipt.event_id for receipt in got])


def consume(directory: Path, name: str) -> None:
    """Consume for ever. What is noted as seen is acknowledged afterwards, what is noted as acknowledged has been."""
    seen = os.open(directory / f"seen-{name}", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    acked = os.open(directory / f"acked-{name}", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    draw = random.Random(name)
    with open_broker(directory) as broker, broker.subscriber("kills", "one") as subscriber:
        while True:
            deliveries = subscriber.receive(draw.choice([1, 10, 200]), wait=1)
            ids = [delivery.event.id for delivery in deliveries]
            note(seen, ids)
            subscriber.ack_many(deliveries)
            note(acked, ids)


def start(role: str, directory: Path, name: str) -> int:
    """Fork a process for a role: a fork is there in a millisecond, which makes room for a thousand of them."""
    if child := os.fork():
        return child
    try:
        (publish if role == "publish" else consume)(directory, name)
    except BaseException:  # noqa: BLE001  - only a kill ends it in order
        traceback.print_exc()
    finally:
        os._exit(1)


def read_ids(directory: Path, kind: str) -> set[str]:
    """All that was noted; a line cut off by the kill says nothing."""
    ids: set[str] = set()
    for path in directory.glob(f"{kind}-*"):
        ids.update(line for line in path.read_text().split("\n")[:-1] if line)
    return ids


def rest(directory: Path, missing: set[str], seconds: float) -> set[str]:
    """Consume what is left until nothing is missing, or nothing has come for `seconds`; return what came."""
    came: set[str] = set()
    with open_broker(directory) as broker, broker.subscriber("kills", "one") as subscriber:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            deliveries = subscriber.receive(500, wait=0.5)
            subscriber.ack_many(deliveries)
            came.update(delivery.event.id for delivery in deliveries)
            if deliveries:
                until = time.monotonic() + seconds
            elif missing <= came:
                break
        came.update(letter.event.id for letter in broker.dead_letters("kills", "one").find() if letter.event)
    return came


def integrity(file: Path) -> str:
    """What SQLite says of the file: `ok`, or what is wrong."""
    with contextlib.closing(sqlite3.connect(file)) as db:
        return str(db.execute("PRAGMA integrity_check").fetchone()[0])


def copy_held(directory: Path, children: list[int], target: Path) -> str:
    """Hold all processes where they are, copy all files, let them go on; return what is wrong with the copy."""
    for child in children:
        os.kill(child, signal.SIGSTOP)
    try:
        shutil.copytree(directory, target, ignore=shutil.ignore_patterns("copy*"))
    finally:
        for child in children:
            os.kill(child, signal.SIGCONT)
    return examine(target, read_ids(target, "receipts"))


def copy_live(directory: Path, target: Path) -> str:
    """Copy the broker's files while all go on, as `cp` would; return what is wrong with the copy.

    SQLite does not promise that such a copy is sound: this says how often it is.
    """
    promised = read_ids(directory, "receipts")
    target.mkdir()
    for name in ("events.db", "events.db-wal"):
        shutil.copy(directory / name, target / name)
    for path in directory.glob("seen-*"):
        shutil.copy(path, target / path.name)
    return examine(target, promised)


def examine(target: Path, promised: set[str]) -> str:
    """What is wrong with a copy that should hold the promised events or have them noted as seen."""
    missing = promised - read_ids(target, "seen")
    try:
        missing -= rest(target, missing, LEASE + 2)
        state = integrity(target / "events.db")
    except (BridgeError, sqlite3.Error) as error:
        return str(error)
    finally:
        shutil.rmtree(target)
    return "" if state == "ok" and not missing else f"{state}, {len(missing)} lost"


def main() -> int:
    """Kill, count, and exit 1 if anything is lost, delivered after its ack, or damaged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--life", type=float, default=0.25, help="seconds a process lives, at most")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    print(f"{machine()}; seed {seed}")
    began = time.monotonic()
    with workdir() as directory:
        with open_broker(directory) as broker:
            broker.topology.apply()
        held: list[str] = []
        live: list[str] = []
        made = len(SLOTS)
        children = [start(role, directory, str(slot)) for slot, role in enumerate(SLOTS)]
        every = max(1, arguments.kills // max(1, arguments.copies))
        ended = 0
        try:
            for kill in range(1, arguments.kills + 1):
                time.sleep(draw.uniform(0, 2 * arguments.life / len(SLOTS)))
                slot = draw.randrange(len(SLOTS))
                if arguments.copies and kill % every == 0:
                    held.append(copy_held(directory, children, directory / "copy"))
                    live.append(copy_live(directory, directory / "copy"))
                os.kill(children[slot], signal.SIGKILL)
                _, status = os.waitpid(children[slot], 0)
                ended += not os.WIFSIGNALED(status)
                children[slot] = start(SLOTS[slot], directory, str(made))
                made += 1
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        promised, seen, acked = (read_ids(directory, kind) for kind in ("receipts", "seen", "acked"))
        came = rest(directory, promised - seen, LEASE + 3)
        lost, again = promised - seen - came, acked & came
        state = integrity(directory / "events.db")
    bad, spoilt = [each for each in held if each], [each for each in live if each]
    print(f"{arguments.kills} kills in {time.monotonic() - began:.0f} s")
    print(f"{len(promised):>9,} events with a receipt, {len(lost):,} of them lost")
    print(f"{len(acked):>9,} acknowledged, {len(again):,} of them delivered again")
    print(f"{len((seen | came) - promised):>9,} delivered although the receipt was lost: allowed")
    print(f"{len(held):>9,} copies with all held in the middle of writing, {len(bad)} of them bad {bad or ''}")
    print(f"{len(live):>9,} copies with `cp` while all go on, {len(spoilt)} of them bad: no promise {spoilt or ''}")
    print(f"{ended:>9,} processes ended by themselves; the file at the end: {state}")
    return int(bool(lost or again or bad or ended) or state != "ok")


if __name__ == "__main__":
    raise SystemExit(main())
