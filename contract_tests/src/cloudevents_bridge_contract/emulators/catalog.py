"""The emulators that anyone may start, by cloud, and the environment that leads programs to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from cloudevents_bridge_contract.emulators.process import Server

Environment: TypeAlias = Mapping[str, str]


class CannotStartError(RuntimeError):
    """An emulator is not on this machine, or does not start; the message says what to do."""


@contextmanager
def _gcp() -> Iterator[Environment]:
    from cloudevents_bridge_contract.emulators import pubsub

    try:
        emulator = pubsub.find()
    except pubsub.Missing as missing:
        raise CannotStartError(str(missing)) from missing
    with emulator.started() as server:
        yield {"PUBSUB_EMULATOR_HOST": server.address, "PUBSUB_PROJECT_ID": "local"}


@contextmanager
def _aws() -> Iterator[Environment]:
    with _emulator_of_aws() as server:
        yield {
            "AWS_ENDPOINT_URL": f"http://{server.address}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }


def _emulator_of_aws() -> Server:
    """LocalStack where it is installed, else MiniStack."""
    from cloudevents_bridge_contract.emulators.localstack import localstack
    from cloudevents_bridge_contract.emulators.ministack import ministack
    from cloudevents_bridge_contract.emulators.venvs import NotInstalledError

    try:
        return localstack()
    except NotInstalledError as missing:
        try:
            return ministack()
        except NotInstalledError as both:
            raise CannotStartError(f"{missing}; or {both}") from missing


@contextmanager
def _azure() -> Iterator[Environment]:
    """Service Bus, and Event Grid, which delivers to its queues."""
    from cloudevents_bridge_contract.emulators.eventgrid import launcher as eventgrid
    from cloudevents_bridge_contract.emulators.servicebus import launcher as servicebus

    try:
        servicebus.find()
    except servicebus.Missing as missing:
        raise CannotStartError(str(missing)) from missing
    with servicebus.started() as bus, eventgrid.started(f"--service-bus={bus.connection}") as grid:
        places = f"endpoint=amqp://{bus.server.address}&administration={bus.administration}"
        queues = f"servicebus_endpoint=amqp://{bus.server.address}&servicebus_administration={bus.administration}"
        yield {
            "AZURE_SERVICEBUS_CONNECTION_STRING": bus.connection,
            "AZURE_SERVICEBUS_URL": f"azure-servicebus://emulator?{places}",
            "AZURE_EVENTGRID_KEY": eventgrid.KEY,
            "AZURE_EVENTGRID_ENDPOINT": grid.url,
            "AZURE_EVENTGRID_URL": f"azure-eventgrid://emulator?endpoint={grid.url}",
            "AZURE_EVENTGRID_TOPIC_URL": f"azure-eventgrid-topic://emulator?endpoint={grid.url}"
            f"&servicebus=emulator&{queues}",
        }


CLOUDS: Mapping[str, Callable[[], AbstractContextManager[Environment]]] = {"aws": _aws, "azure": _azure, "gcp": _gcp}
"""Each starts what its cloud has, runs it until the block ends, and gives the environment."""
