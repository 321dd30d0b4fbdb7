"""What tasks do is told of as what threads do, and belongs to the span of the task."""

from __future__ import annotations

import asyncio

import pytest
from recorded import Recorded, attributes, links, span_id

import cloudevents_bridge as ceb
from cloudevents_bridge.aio import AsyncBroker
from cloudevents_bridge.testing import make_event


def parents(recorded: Recorded, name: str) -> list[str]:
    """The spans under which there are spans of this name."""
    names = {span_id(span): span.name for span in recorded.spans()}
    return [names[span.parent.span_id] for span in recorded.spans(name) if span.parent is not None]


def test_calls_of_a_task_are_under_its_span(broker: ceb.Broker, recorded: Recorded) -> None:
    tasks = AsyncBroker(broker)

    async def job(name: str) -> None:
        with recorded.tracer.start_as_current_span(name):
            await asyncio.sleep(0)
            await tasks.publish("orders", make_event(id=f"{name}-published"))
            await (await tasks.publisher("orders").submit(make_event(id=f"{name}-submitted")))

    async def main() -> None:
        await asyncio.gather(job("one"), job("two"))

    asyncio.run(main())
    assert sorted(parents(recorded, "send orders")) == ["one", "one", "two", "two"]


def test_a_receive_of_a_task_is_linked_to_what_sent_its_events(broker: ceb.Broker, recorded: Recorded) -> None:
    tasks = AsyncBroker(broker)

    async def main() -> None:
        with recorded.tracer.start_as_current_span("job"):
            async with tasks.subscriber("orders", "billing") as subscriber:
                [delivery] = await subscriber.receive(wait=5)
                await delivery.ack()

    broker.publish("orders", make_event(id="1"))
    asyncio.run(main())
    [receive] = recorded.spans("receive orders")
    assert links(receive) == [span_id(recorded.span("send orders"))]
    assert attributes(receive)["messaging.batch.message_count"] == 1
    assert parents(recorded, "receive orders") == ["job"]


def test_a_receive_that_is_cancelled_has_no_span(broker: ceb.Broker, recorded: Recorded) -> None:
    async def main() -> None:
        async with asyncio.timeout(0.02):
            await AsyncBroker(broker).subscriber("orders", "billing").receive(wait=30)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert recorded.spans("receive orders") == []


def test_a_submit_that_waited_for_room_has_one_span(broker: ceb.Broker, recorded: Recorded) -> None:
    async def main() -> None:
        publisher = AsyncBroker(broker).publisher("orders", max_buffered=1)
        futures = [await publisher.submit(make_event(id=str(n))) for n in range(20)]
        await asyncio.gather(*futures)

    asyncio.run(main())
    assert len(recorded.spans("send orders")) == 20
