"""`python -m cloudevents_bridge_contract.emulators.servicebus`: serve an empty namespace until ended."""

from __future__ import annotations

import argparse
import logging
import threading

from proton.reactor import Container

from cloudevents_bridge_contract.emulators.process import HOST
from cloudevents_bridge_contract.emulators.servicebus.amqp import Front
from cloudevents_bridge_contract.emulators.servicebus.namespace import Namespace
from cloudevents_bridge_contract.emulators.servicebus.tokens import ALL, Key
from cloudevents_bridge_contract.emulators.servicebus.web import Web


def main() -> None:
    parser = argparse.ArgumentParser(prog="servicebus", description="An emulator of Azure Service Bus, for tests.")
    parser.add_argument("--port", type=int, default=5672, help="of AMQP, without TLS (%(default)s)")
    parser.add_argument("--admin-port", type=int, default=5300, help="of the administration API, HTTP (%(default)s)")
    parser.add_argument(
        "--key",
        action="append",
        type=_key,
        metavar="NAME=SECRET[=RIGHT,…]",
        help="a shared access key; RIGHT: Manage, Send, Listen, all of them if none is named",
    )
    parser.add_argument("--queue", action="append", default=[], metavar="NAME", help="a queue to begin with")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    namespace, lock = Namespace(), threading.RLock()
    for name in given.queue:
        namespace.add_queue(name, {})
    keys = dict(given.key or [("RootManageSharedAccessKey", Key("SAS_KEY_VALUE"))])
    http = Web(namespace, (HOST, given.admin_port), lock, keys)
    threading.Thread(target=http.serve_forever, name="administration", daemon=True).start()
    print(
        f"Endpoint=sb://{HOST}:{given.port};SharedAccessKeyName=NAME;SharedAccessKey=SECRET;UseDevelopmentEmulator=true"
    )
    Container(Front(namespace, f"{HOST}:{given.port}", lock, keys)).run()


def _key(text: str) -> tuple[str, Key]:
    name, secret, rights = [*text.split("="), "", ""][:3]
    return name, Key(secret, frozenset(rights.split(",")) if rights else ALL)


if __name__ == "__main__":
    main()
