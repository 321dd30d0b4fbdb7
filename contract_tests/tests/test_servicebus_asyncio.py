"""The Service Bus emulator by Azure's own clients for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cloudevents_bridge_contract.emulators.servicebus.launcher import Running

pytest.importorskip("azure.servicebus", reason="not run (azure-servicebus is not installed)")
from azure.core.exceptions import ResourceNotFoundError
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.aio.management import ServiceBusAdministrationClient
from azure.servicebus.exceptions import MessagingEntityNotFoundError, SessionCannotBeLockedError
from azure.servicebus.management import SqlRuleFilter

from cloudevents_bridge_contract.emulators.servicebus.sdk import PlainAio

WAIT = 10.0


def _with_clients(running: Running, does: Callable[[Any, Any], Awaitable[None]]) -> None:
    async def run() -> None:
        client = ServiceBusClient.from_connection_string(running.connection, retry_total=0)
        admin = ServiceBusAdministrationClient.from_connection_string(
            running.connection, transport=PlainAio(running.administration)
        )
        async with client, admin:
            await does(client, admin)

    asyncio.run(run())


def _bodies(messages: list[Any]) -> list[bytes]:
    return [b"".join(each.body) for each in messages]


def test_every_way_to_settle(servicebus: Running) -> None:
    async def does(client: Any, admin: Any) -> None:
        await admin.create_queue("aio-settle")
        sender, receiver = client.get_queue_sender("aio-settle"), client.get_queue_receiver("aio-settle")
        async with sender, receiver:
            await sender.send_messages([ServiceBusMessage(name) for name in (b"a", b"b", b"c", b"d")])
            found = await receiver.receive_messages(4, max_wait_time=WAIT)
            assert _bodies(found) == [b"a", b"b", b"c", b"d"]
            assert await receiver.renew_message_lock(found[0]) > datetime.now(UTC)
            await receiver.complete_message(found[0])
            await receiver.abandon_message(found[1])
            await receiver.defer_message(found[2])
            await receiver.dead_letter_message(found[3], reason="why")
            (again,) = await receiver.receive_messages(1, max_wait_time=WAIT)
            assert (_bodies([again]), again.delivery_count) == ([b"b"], 1)
            (deferred,) = await receiver.receive_deferred_messages(found[2].sequence_number)
            await receiver.complete_message(deferred)
        async with client.get_queue_receiver("aio-settle", sub_queue="deadletter") as graves:
            (dead,) = await graves.receive_messages(1, max_wait_time=WAIT)
            assert dead.dead_letter_reason == "why"

    _with_clients(servicebus, does)


def test_batches_schedules_and_peeks(servicebus: Running) -> None:
    async def does(client: Any, admin: Any) -> None:
        await admin.create_queue("aio-batch")
        sender, receiver = client.get_queue_sender("aio-batch"), client.get_queue_receiver("aio-batch")
        async with sender, receiver:
            batch = await sender.create_message_batch()
            for number in range(20):
                batch.add_message(ServiceBusMessage(b"%d" % number))
            await sender.send_messages(batch)
            later = datetime.now(UTC) + timedelta(hours=1)
            (number,) = await sender.schedule_messages(ServiceBusMessage(b"later"), later)
            assert len(await receiver.peek_messages(50)) == 21
            await sender.cancel_scheduled_messages(number)
            assert len(await receiver.receive_messages(20, max_wait_time=WAIT)) == 20

    _with_clients(servicebus, does)


def test_sessions(servicebus: Running) -> None:
    async def does(client: Any, admin: Any) -> None:
        await admin.create_queue("aio-sessions", requires_session=True)
        async with client.get_queue_sender("aio-sessions") as sender:
            await sender.send_messages([ServiceBusMessage(b"%d" % n, session_id="one") for n in range(5)])
        async with client.get_queue_receiver("aio-sessions", session_id="one", prefetch_count=10) as receiver:
            await receiver.session.set_state(b"s")
            assert await receiver.session.get_state() == b"s"
            assert await receiver.session.renew_lock() > datetime.now(UTC)
            found = await receiver.receive_messages(5, max_wait_time=WAIT)
            assert _bodies(found) == [b"%d" % n for n in range(5)]
            for each in found:
                await receiver.complete_message(each)
            with pytest.raises(SessionCannotBeLockedError):
                async with client.get_queue_receiver("aio-sessions", session_id="one"):
                    pass

    _with_clients(servicebus, does)


def test_topics_and_administration(servicebus: Running) -> None:
    async def does(client: Any, admin: Any) -> None:
        await admin.create_topic("aio-topic")
        await admin.create_subscription("aio-topic", "s")
        await admin.delete_rule("aio-topic", "s", "$Default")
        await admin.create_rule("aio-topic", "s", "red", filter=SqlRuleFilter("colour = 'red'"))
        assert [each.name async for each in admin.list_rules("aio-topic", "s")] == ["red"]
        async with client.get_topic_sender("aio-topic") as sender:
            for colour in ("red", "blue"):
                message = ServiceBusMessage(colour.encode(), application_properties={"colour": colour})
                await sender.send_messages(message)
        async with client.get_subscription_receiver("aio-topic", "s") as receiver:
            assert _bodies(await receiver.receive_messages(5, max_wait_time=1)) == [b"red"]
        await admin.delete_topic("aio-topic")
        with pytest.raises(ResourceNotFoundError):
            await admin.get_topic("aio-topic")
        with pytest.raises(MessagingEntityNotFoundError):
            async with client.get_subscription_receiver("aio-topic", "s"):
                pass

    _with_clients(servicebus, does)
