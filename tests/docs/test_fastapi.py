"""The example for FastAPI, under a real uvicorn and by itself."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

import cloudevents_bridge as ceb
from cloudevents_bridge.aio import AsyncBroker
from cloudevents_bridge.testing import FakeBroker

pytest.importorskip("fastapi", reason="fastapi is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "fastapi"
SOON = 20.0


class Server:
    """The example under uvicorn, in a process of its own, on a port that is free."""

    def __init__(self, folder: Path, loop: str) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("CLOUDEVENTS_BRIDGE_", "PYTEST_"))}
        command = [sys.executable, "-m", "uvicorn", "shop:app", "--host", "127.0.0.1", "--port", "0", "--loop", loop]
        self.process = subprocess.Popen(
            [*command, "--no-access-log"],
            cwd=folder,
            env=clean | {"PYTHONUNBUFFERED": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""
        assert self.process.stderr is not None
        while not (found := re.search(r"running on http://127\.0\.0\.1:(\d+)", self.said)):
            line = self.process.stderr.readline()
            assert line, f"it did not start: {self.said}"
            self.said += line
        self.port = int(found[1])

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SOON)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"content-type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def until(self, path: str, status: int) -> Any:
        deadline = time.monotonic() + SOON
        while (answer := self.ask("GET", path))[0] != status:
            assert time.monotonic() < deadline, answer
            time.sleep(0.02)
        return answer[1]

    def stop(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
        self.said += self.process.communicate(timeout=SOON)[1]


@contextmanager
def served(folder: Path, loop: str) -> Iterator[Server]:
    server = Server(folder, loop)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("shop.py", "bridge.toml"):
        shutil.copy(EXAMPLE / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize(("loop", "number"), [("asyncio", signal.SIGTERM), ("uvloop", signal.SIGINT)])
def test_it_works_under_uvicorn(folder: Path, loop: str, number: signal.Signals) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not installed")
    with served(folder, loop) as server:
        with ThreadPoolExecutor(10) as pool:
            placed = list(pool.map(lambda n: server.ask("POST", "/orders", {"id": n, "total": n + 0.5}), range(50)))
        assert [status for status, _ in placed] == [202] * 50
        assert len({answer["event"] for _, answer in placed}) == 50
        for n in range(50):
            assert server.until(f"/invoices/{n}", 200) == {"total": n + 0.5}
        assert server.until("/health", 200)["failed"] == 0
        assert server.ask("POST", "/orders", {"id": 7, "total": 0})[0] == 202
        deadline = time.monotonic() + SOON
        while server.until("/health", 200)["failed"] < 1:
            assert time.monotonic() < deadline
        server.stop(number)
    assert server.process.returncode in (0, -number), server.said
    assert "Application shutdown complete" in server.said
    assert "Traceback" not in server.said
    with ceb.connect(f"sqlite:///{folder}/shop.db") as broker:
        assert broker.subscriber("orders", "billing").receive(wait=0) == []
        [letter] = broker.dead_letters("orders", "billing").find()
        assert letter.reason == "nothing to bill"


@pytest.fixture
def shop() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("ceb_fastapi_shop", EXAMPLE / "shop.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_health_says_what_is_wrong(shop: types.ModuleType) -> None:
    async def ask(fake: FakeBroker) -> list[int]:
        answers = []
        worker = fake.aio.worker().add("orders", "billing", shop.router)
        answers.append(await _status(shop, fake.aio, worker))  # it does not work yet
        async with worker:
            deadline = time.monotonic() + SOON
            while not worker.stats.connected:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            answers.append(await _status(shop, fake.aio, worker))
        await fake.aio.close()
        answers.append(await _status(shop, fake.aio, worker))
        return answers

    with FakeBroker() as fake:
        assert asyncio.run(ask(fake)) == [503, 200, 503]


async def _status(shop: types.ModuleType, broker: AsyncBroker, worker: Any) -> int:
    try:
        await shop.health(broker, worker)
    except shop.HTTPException as error:
        return int(error.status_code)
    return 200


def test_an_order_that_cannot_be_published_is_a_503(shop: types.ModuleType) -> None:
    async def place(broker: AsyncBroker) -> None:
        await shop.place_order(shop.Order(id=1, total=2.0), broker)

    with FakeBroker() as fake:
        fake.fail_next("publish", "PERMISSION_DENIED")
        with pytest.raises(shop.HTTPException) as caught:
            asyncio.run(place(fake.aio))
        assert caught.value.status_code == 503
        asyncio.run(place(fake.aio))
        fake.assert_published("orders", data={"total": 2.0})


def test_its_handler_is_tested_without_a_server(shop: types.ModuleType) -> None:
    with FakeBroker() as fake:
        event = ceb.CloudEvent(type=shop.ORDER_CREATED, source="/shop", data={"id": 3, "total": 4.0})
        assert fake.deliver(shop.router, event).action == "ack"
        assert fake.deliver(shop.router, event.replace(data={"id": 3, "total": 0})).action == "dead_letter"
    assert shop.invoices[3] == 4.0


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_it_is_well_typed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "--config-file", ""]
    done = subprocess.run(
        [*command, str(EXAMPLE / "shop.py")], capture_output=True, text=True, timeout=110, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
