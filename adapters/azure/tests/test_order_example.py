"""The order example on our emulators, by its URL alone."""

from __future__ import annotations

import pytest

from cloudevents_bridge import connect
from cloudevents_bridge.demo.shop import ORDERS
from cloudevents_bridge_contract import order_example
from cloudevents_bridge_contract.emulators.servicebus.launcher import Missing, find, started
from cloudevents_bridge_contract.eventgrid import EventGridRig, EventGridTopicRig
from cloudevents_bridge_contract.rig import NotRun


def test_the_order_example_runs_on_service_bus() -> None:
    try:
        find()
    except Missing as missing:
        pytest.skip(f"not run: {missing}")
    with started() as emulator:
        places = f"endpoint=amqp://{emulator.server.address}&administration={emulator.administration}"
        order_example.check(f"azure-servicebus://shop?{places}")


@pytest.mark.parametrize("kind", [EventGridRig, EventGridTopicRig])
def test_the_order_example_runs_on_event_grid(kind: type[EventGridRig | EventGridTopicRig]) -> None:
    rig = kind()
    try:
        with rig.start() as url:
            url += "".join(f"&{name}={value}" for name, value in rig.options.items())
            with connect(url) as broker:
                rig.create(broker, ORDERS)  # as `az` does on the service
            order_example.check(url)
    except NotRun as reason:
        pytest.skip(f"not run ({reason})")
