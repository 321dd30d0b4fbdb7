"""The same, by the asyncio clients of the SDK."""

from __future__ import annotations

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.core.messaging import CloudEvent
from azure.eventgrid.aio import EventGridConsumerClient, EventGridPublisherClient
from eventgrid.running import CREDENTIAL

from cloudevents_bridge_contract.emulators.eventgrid.launcher import Running

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_publish_receive_and_settle(emulator: Running, topic: str) -> None:
    emulator.make_subscription(topic, "slow", deadLetterContainer="dead", timeScale=0.001)
    sender = EventGridPublisherClient(emulator.url, CREDENTIAL, namespace_topic=topic)
    receiver = EventGridConsumerClient(emulator.url, CREDENTIAL, namespace_topic=topic, subscription="slow")
    async with sender, receiver:
        await sender.send([CloudEvent(source="/shop", type="t", id=str(number), data=number) for number in range(3)])
        received = await receiver.receive(max_events=100, max_wait_time=10)
        assert [each.event.data for each in received] == [0, 1, 2]
        done, later, wrong = (each.broker_properties.lock_token for each in received)
        assert (await receiver.renew_locks(lock_tokens=[done])).succeeded_lock_tokens == [done]
        assert (await receiver.acknowledge(lock_tokens=[done])).succeeded_lock_tokens == [done]
        assert (await receiver.release(lock_tokens=[later], release_delay=10)).succeeded_lock_tokens == [later]
        assert (await receiver.reject(lock_tokens=[wrong])).succeeded_lock_tokens == [wrong]
        (again,) = await receiver.receive(max_events=100, max_wait_time=10)
        assert (again.event.id, again.broker_properties.delivery_count) == ("1", 2)
        (failed,) = (await receiver.acknowledge(lock_tokens=[done])).failed_lock_tokens
        assert failed.error.code == "TokenLost"
    assert [each["event"]["id"] for each in emulator.dead_letters(topic, "slow")] == ["2"]


async def test_what_is_not_there(emulator: Running, name: str) -> None:
    async with EventGridPublisherClient(emulator.url, CREDENTIAL, namespace_topic=name) as sender:
        with pytest.raises(ResourceNotFoundError):
            await sender.send(CloudEvent(source="/shop", type="t"))


async def test_custom_topic_takes_events(emulator: Running, name: str) -> None:
    emulator.make_custom(name)
    async with EventGridPublisherClient(emulator.custom_url(name), CREDENTIAL) as sender:
        await sender.send([CloudEvent(source="/shop", type="t", data={"id": 1})])
