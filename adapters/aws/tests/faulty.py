"""Events over connections that reset, lose, cut and delay answers, and a service that fails and throttles.

`python adapters/aws/tests/faulty.py 20000` tries it at full size; the tests do so with fewer.
"""

from __future__ import annotations

import os
import uuid

from cloudevents_bridge import Subscription, Topic, connect
from cloudevents_bridge_contract import storm
from cloudevents_bridge_contract.emulators.faults import Answer, FaultyProxy
from cloudevents_bridge_contract.emulators.ministack import ministack

URL = "aws://eu-west-1?account=000000000000&endpoint=http://127.0.0.1:"
THROTTLED = Answer(
    400,
    {"x-amzn-query-error": "RequestThrottled;Sender", "Content-Type": "application/x-amz-json-1.0"},
    b"<ErrorResponse><Error><Code>Throttling</Code><Message>slower</Message></Error></ErrorResponse>",
)


def run(port: int, count: int, *, seed: int, chance: float = 0.1, deadline: float = 100.0) -> storm.Outcome:
    """Publish `count` events and handle them, on the emulator at `port`."""
    topic = Topic(
        f"faulty-{uuid.uuid4().hex[:8]}", subscriptions=[Subscription("reader", lease=3.0, max_attempts=1000)]
    )
    with (
        connect(f"{URL}{port}", topics=[topic]) as plain,
        FaultyProxy(port, chance=chance, throttled=THROTTLED, seed=seed) as proxy,
        connect(f"{URL}{proxy.port}", topics=[topic], retry=storm.PATIENT, poll=1) as patient,
        connect(f"{URL}{proxy.port}", topics=[topic], retry=storm.HASTY) as hasty,
    ):
        plain.topology.apply()
        outcome = storm.run(topic, patient, hasty, count, seed=seed, faults=proxy.done, deadline=deadline)
        plain.topology.delete()
    return outcome


def main() -> int:
    def on_ministack(count: int, seed: int) -> storm.Outcome:
        with ministack() as server:
            return run(server.port, count, seed=seed, deadline=300)

    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    return storm.main(__doc__, {"ministack": on_ministack})


if __name__ == "__main__":
    raise SystemExit(main())
