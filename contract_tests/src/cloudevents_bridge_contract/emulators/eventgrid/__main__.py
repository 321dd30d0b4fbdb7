"""`python -m cloudevents_bridge_contract.emulators.eventgrid --port 4577`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from cloudevents_bridge_contract.emulators.eventgrid.auth import Access
from cloudevents_bridge_contract.emulators.eventgrid.grid import Grid
from cloudevents_bridge_contract.emulators.eventgrid.launcher import KEY
from cloudevents_bridge_contract.emulators.eventgrid.server import Emulator
from cloudevents_bridge_contract.emulators.eventgrid.targets import ServiceBusQueues


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="eventgrid", description="An emulator of Azure Event Grid.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4577)
    parser.add_argument("--key", default=KEY, help="the access key, in base64")
    parser.add_argument("--token", help="the bearer token that is accepted; without it every one is")
    parser.add_argument("--containers", type=Path, default=Path("containers"), help="the folder of the blob containers")
    parser.add_argument(
        "--time-scale", type=float, default=1.0, help="what release delays and retries are multiplied by"
    )
    parser.add_argument(
        "--shortest-wait", type=float, default=10.0, help="seconds that a receive may ask to wait, at least"
    )
    parser.add_argument("--strict", action="store_true", help="refuse times that the service refuses")
    parser.add_argument(
        "--service-bus", metavar="CONNECTION", help="connection string of the queues that topics deliver to"
    )
    given = parser.parse_args(arguments)
    queues = ServiceBusQueues(given.service_bus) if given.service_bus else None
    grid = Grid(
        given.containers,
        queues=queues,
        time_scale=given.time_scale,
        strict=given.strict,
        shortest_wait=given.shortest_wait,
    )
    with Emulator((given.host, given.port), grid, Access(given.key, given.token)) as emulator:
        end = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: end.set())
        threading.Thread(target=emulator.serve_forever, daemon=True).start()
        host, port = emulator.server_address[:2]
        print(f"Event Grid on http://{host!s}:{port}, access key {given.key}", flush=True)
        end.wait()
        emulator.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
