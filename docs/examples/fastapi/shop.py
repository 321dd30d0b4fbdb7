"""A shop: a request publishes an event, a worker in the same process bills, and /health says whether both can.

Run it with `uvicorn shop:app`. Which broker it uses is said in `bridge.toml`, or by CLOUDEVENTS_BRIDGE_URL.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, TypedDict

from fastapi import Depends, FastAPI, HTTPException, Request, status
from pydantic import BaseModel

import cloudevents_bridge as ceb
from cloudevents_bridge.aio import AsyncBroker, AsyncWorker, connect

ORDER_CREATED = "com.example.order.created"


class Order(BaseModel):
    id: int
    total: float


invoices: dict[int, float] = {}
router = ceb.Router()


@router.on(ORDER_CREATED)
async def bill(order: Order) -> None:
    """Runs on the loop that serves the requests. May run twice for one order, and does no harm then."""
    if order.total <= 0:
        raise ceb.Reject("nothing to bill")
    invoices[order.id] = order.total


class State(TypedDict):
    broker: AsyncBroker
    worker: AsyncWorker


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    # Backwards at the end: no new requests, then the worker lets its handlers end, then the broker is closed.
    async with (
        connect() as broker,
        broker.worker(grace=10).add("orders", "billing", router, concurrency=20) as worker,
    ):
        yield {"broker": broker, "worker": worker}


def the_broker(request: Request) -> AsyncBroker:
    broker: AsyncBroker = request.state.broker
    return broker


def the_worker(request: Request) -> AsyncWorker:
    worker: AsyncWorker = request.state.worker
    return worker


app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=status.HTTP_202_ACCEPTED)
async def place_order(order: Order, broker: Annotated[AsyncBroker, Depends(the_broker)]) -> dict[str, str]:
    event = ceb.CloudEvent(type=ORDER_CREATED, source="/shop", subject=str(order.id), data=order)
    try:
        receipt = await broker.publish("orders", event, timeout=5)
    except ceb.BridgeError as error:
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, "the order could not be taken") from error
    return {"event": receipt.event_id}


@app.get("/invoices/{order_id}")
async def invoice(order_id: int) -> dict[str, float]:
    if order_id not in invoices:
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    return {"total": invoices[order_id]}


@app.get("/health")
async def health(
    broker: Annotated[AsyncBroker, Depends(the_broker)], worker: Annotated[AsyncWorker, Depends(the_worker)]
) -> dict[str, int]:
    """200 while the broker answers and the worker receives, and none of its handlers hangs."""
    try:
        await broker.ping(timeout=2)
    except ceb.BridgeError as error:
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, str(error)) from error
    stats = worker.stats
    if not stats.connected or stats.stalled:
        raise HTTPException(status.HTTP_503_SERVICE_UNAVAILABLE, f"the worker is not well: {stats}")
    return {"handled": stats.handled, "failed": stats.failed, "in_flight": stats.in_flight}
