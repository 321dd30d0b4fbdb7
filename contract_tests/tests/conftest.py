"""The matrix of this project's own run is written beside the build, unless the command line says where."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Self

import pytest

from cloudevents_bridge_contract.emulators.servicebus.launcher import Missing, Running, started


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--contract-report") and not hasattr(config, "workerinput"):
        build = config.rootpath / "build" / "contract"
        config.option.contract_report = [f"json={build / 'matrix.json'}", f"md={build / 'matrix.md'}"]


class Bus:
    """Azure's own clients on the emulator, closed with the test."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self._open = ExitStack()

    def __enter__(self) -> Self:
        from azure.servicebus import ServiceBusClient
        from azure.servicebus.management import ServiceBusAdministrationClient

        from cloudevents_bridge_contract.emulators.servicebus.sdk import Plain

        connection = self.running.connection
        self.client: Any = self._open.enter_context(ServiceBusClient.from_connection_string(connection, retry_total=0))
        self.admin: Any = self._open.enter_context(
            ServiceBusAdministrationClient.from_connection_string(
                connection, transport=Plain(self.running.administration), retry_total=0
            )
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def queue(self, **options: Any) -> str:
        """A new queue."""
        name = f"q-{uuid.uuid4().hex[:8]}"
        self.admin.create_queue(name, **options)
        return name

    def topic(self, **options: Any) -> str:
        name = f"t-{uuid.uuid4().hex[:8]}"
        self.admin.create_topic(name, **options)
        return name

    def send(self, to: str, *messages: Any) -> None:
        """One after the other, to a queue or topic."""
        with self.client.get_queue_sender(to) as sender:
            for each in messages:
                sender.send_messages(each)

    def receiver(self, of: str, subscription: str | None = None, **options: Any) -> Any:
        """An open receiver of a queue or subscription."""
        if subscription is None:
            return self._open.enter_context(self.client.get_queue_receiver(of, **options))
        return self._open.enter_context(self.client.get_subscription_receiver(of, subscription, **options))


@pytest.fixture(scope="session")
def servicebus() -> Iterator[Running]:
    """The emulator of Service Bus, one for each process of the run."""
    try:
        with started(keys=["sender=one=Send", "listener=two=Listen"]) as running:
            yield running
    except Missing as missing:
        pytest.skip(f"not run ({missing})")


@pytest.fixture
def bus(servicebus: Running) -> Iterator[Bus]:
    with Bus(servicebus) as bus:
        yield bus
