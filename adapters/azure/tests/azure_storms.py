"""Events over connections that fail: Event Grid's, whose answers are reset, lost, cut, delayed and refused, and Service
Bus's, which are cut and held.

`python adapters/azure/tests/azure_storms.py 20000 --on servicebus` tries it at full size; the tests do so with fewer.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from time import sleep
from typing import Any

import pytest

from cloudevents_bridge import Subscription, Topic, connect
from cloudevents_bridge_contract import storm
from cloudevents_bridge_contract.emulators.eventgrid import launcher as eventgrid
from cloudevents_bridge_contract.emulators.faults import Answer, FaultyProxy
from cloudevents_bridge_contract.emulators.proxy import Proxy
from cloudevents_bridge_contract.emulators.servicebus import launcher as servicebus
from cloudevents_bridge_contract.emulators.servicebus.launcher import Running
from cloudevents_bridge_contract.eventgrid import KEY_VARIABLE

THROTTLED = Answer(
    429,
    {"Content-Type": "application/json", "Retry-After": "0.1"},
    b'{"error":{"code":"TooManyRequests","message":"slower"}}',
)
WAIT = 0.2
"""Seconds that a receive waits on the emulator of Event Grid."""
HELD = 1.5
"""Seconds for which connections are held: longer than the publishers that do not try again wait."""
PART = 20
"""Events in one publish to Event Grid: few, for many requests."""
KEYS = 10
PAUSE = 0.5
"""Seconds from one disturbance to the next."""


def url(running: Running, port: int) -> str:
    """Of the emulator of Service Bus, by way of `port`."""
    return f"azure-servicebus://faulty?endpoint=amqp://127.0.0.1:{port}&administration={running.administration}"


def on_servicebus(count: int, seed: int, *, keys: int = 0, deadline: float = 100.0) -> storm.Outcome:
    """Args:
    keys: ordering keys; 0: the topic is not ordered.
    """
    topic = _topic(1000, ordered=keys > 0)
    made, pick = Counter[str](), random.Random(seed)
    with ExitStack() as stack:
        running = stack.enter_context(servicebus.started())
        proxy = stack.enter_context(Proxy(running.server.port))
        with connect(url(running, running.server.port), topics=[topic]) as plain:
            plain.topology.apply()
        through = url(running, proxy.port)
        patient = stack.enter_context(connect(through, topics=[topic], retry=storm.PATIENT))
        hasty = stack.enter_context(connect(through, topics=[topic], retry=storm.HASTY, timeout=HELD - 0.5))

        def disturb() -> None:
            fault = "held" if pick.random() < 0.1 else "cut"
            made[fault] += 1
            if fault == "cut":
                proxy.cut()
                return
            with proxy.hold():
                sleep(HELD)

        stack.enter_context(storm.repeatedly(disturb, PAUSE))
        return storm.run(topic, patient, hasty, count, seed=seed, faults=made, keys=keys, deadline=deadline)


def on_eventgrid(count: int, seed: int, *, deadline: float = 100.0) -> storm.Outcome:
    topic = _topic(9)
    with eventgrid.started(f"--shortest-wait={WAIT}") as running:
        running.make_topic(topic.name)
        running.make_subscription(topic.name, "reader", receiveLockDurationInSeconds=3, maxDeliveryCount=10)
        port = int(running.url.rpartition(":")[2])
        given: Mapping[str, Any] = {"topics": [topic], "wait": WAIT}
        with (
            pytest.MonkeyPatch.context() as patch,
            FaultyProxy(port, chance=0.1, throttled=THROTTLED, seed=seed) as proxy,
        ):
            patch.setenv(KEY_VARIABLE, eventgrid.KEY)
            through = f"azure-eventgrid://emulator?endpoint=http://127.0.0.1:{proxy.port}"
            with (
                connect(through, retry=storm.PATIENT, **given) as patient,
                connect(through, retry=storm.HASTY, **given) as hasty,
            ):
                return storm.run(
                    topic, patient, hasty, count, seed=seed, faults=proxy.done, part=PART, deadline=deadline
                )


def on_sessions(count: int, seed: int) -> storm.Outcome:
    return on_servicebus(count, seed, keys=KEYS)


def _topic(max_attempts: int, *, ordered: bool = False) -> Topic:
    reader = Subscription("reader", lease=3.0, max_attempts=max_attempts)
    return Topic(f"faulty-{uuid.uuid4().hex[:8]}", ordered=ordered, subscriptions=[reader])


if __name__ == "__main__":
    raise SystemExit(
        storm.main(__doc__, {"servicebus": on_servicebus, "sessions": on_sessions, "eventgrid": on_eventgrid})
    )
