"""A program whose tests run under pytest-asyncio, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

PROGRAM = """
    import asyncio

    import pytest_asyncio

    import cloudevents_bridge as ceb
    from cloudevents_bridge import aio

    ORDERS = ceb.Topic("orders", subscriptions=["billing"])


    def order(id):
        return ceb.CloudEvent(type="com.example.order", source="/shop", id=id)


    @pytest_asyncio.fixture
    async def broker():
        async with aio.connect("memory://", topics=[ORDERS], create_missing=True) as broker:
            yield broker


    async def test_what_is_published_is_received(broker):
        await broker.publish("orders", order("1"))
        async with broker.subscriber("orders", "billing") as subscriber:
            [delivery] = await subscriber.receive(1, wait=10.0)
            assert delivery.event.id == "1"
            await delivery.ack()


    async def test_a_worker_beside_the_test(broker):
        handled = asyncio.Queue()

        async def handle(event: ceb.CloudEvent) -> None:
            await handled.put(event.id)

        async with broker.worker().add("orders", "billing", handle):
            await broker.publish("orders", order("2"))
            assert await asyncio.wait_for(handled.get(), 10.0) == "2"


    async def test_a_receive_that_is_cancelled(broker):
        async with broker.subscriber("orders", "billing") as subscriber:
            receive = asyncio.create_task(subscriber.receive(1, wait=60.0))
            await asyncio.sleep(0)
            receive.cancel()
            assert isinstance((await asyncio.gather(receive, return_exceptions=True))[0], asyncio.CancelledError)
            await broker.publish("orders", order("3"))
            [delivery] = await subscriber.receive(1, wait=10.0)
            await delivery.ack()
"""


def test_a_program_is_tested_under_pytest_asyncio(tmp_path: Path) -> None:
    (tmp_path / "test_program.py").write_text(textwrap.dedent(PROGRAM))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:anyio"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout
