"""Put, and get with acknowledgement, of small events: this library, SQLite by hand, and other queues, side by side."""

from __future__ import annotations

import argparse
import gc
import time
from contextlib import closing
from pathlib import Path

from common import SIZE, machine, make_events, median, rate, table, workdir
from contenders import ALL, Bare, BareSingle, Contender, Sqlite, SqliteSingle


def measure(kind: type[Contender], directory: Path, count: int) -> tuple[float, float]:
    """Events per second put, and got with acknowledgement, on a queue of its own."""
    directory.mkdir()
    with closing(kind(directory)) as contender:
        prepared = contender.prepare(make_events(count))
        gc.collect()
        began = time.perf_counter()
        contender.put(prepared)
        put = time.perf_counter()
        contender.take(count)
        return count / (put - began), count / (time.perf_counter() - put)


def main() -> None:
    """Print the table and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of events")
    parser.add_argument("--only", default="", help="part of a name")
    arguments = parser.parse_args()
    kinds = [kind for kind in ALL if arguments.only in kind.name]
    puts: dict[type[Contender], list[float]] = {kind: [] for kind in kinds}
    takes: dict[type[Contender], list[float]] = {kind: [] for kind in kinds}
    with workdir() as directory:
        for number in range(arguments.rounds):
            for kind in kinds:
                place = directory / f"{kind.__name__}-{number}"
                put, take = measure(kind, place, max(100, int(kind.events * arguments.scale)))
                puts[kind].append(put)
                takes[kind].append(take)
    rows = [[kind.name, rate(median(puts[kind])), rate(median(takes[kind])), kind.durability] for kind in kinds]
    print(f"{machine()}; events of {SIZE} bytes, one subscription, {arguments.rounds} rounds in turn, medians\n")
    print(table(["", "put/s", "get + ack/s", "an event it has taken is"], rows))
    for ours, bare in ((Sqlite, Bare), (SqliteSingle, BareSingle)):
        if ours in puts and bare in puts:
            ratios = [b / a for a, b in zip(puts[ours], puts[bare], strict=True)]
            span = f"{median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"\n{ours.name}: {bare.name} is {span}")


if __name__ == "__main__":
    main()
