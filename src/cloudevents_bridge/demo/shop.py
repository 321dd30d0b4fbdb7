"""The shop's programs, as a user would write them: one publishes orders, four consume every one of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Protocol
from zlib import crc32

from cloudevents_bridge import (
    Broker,
    Capability,
    CloudEvent,
    Delivery,
    RetryPolicy,
    Router,
    Subscription,
    Topic,
    connect,
)
from cloudevents_bridge.demo.orders import Order, Refused

CREATED = "com.example.order.created"
SOON = RetryPolicy(initial=0.2, maximum=1.0)

ORDERS = Topic(
    "orders",
    ordered=True,
    subscriptions=[
        Subscription(name, max_attempts=4, redelivery=SOON)
        for name in ("inventory", "payment", "notification", "analytics")
    ],
)


def open_broker(url: str) -> Broker:
    """The shop's broker, whatever `bridge.toml` the working directory has.

    The orders of a customer come in order where the broker has that: none of the programs needs it.
    """
    config = Path(__file__).with_name("bridge.toml")
    with connect(url, config=config) as broker:
        ordered = Capability.ORDERING in broker.capabilities
    return connect(url, topics=[replace(ORDERS, ordered=ordered)], config=config)


def publish(broker: Broker, orders: Iterable[Order | Refused]) -> tuple[int, list[Refused]]:
    """Publish each order; return how many the broker accepted, and what was refused before it got there.

    Raises:
        PublishError: if the broker did not accept an event; its `failed` says which, and why.
    """
    refused: list[Refused] = []

    def events() -> Iterator[CloudEvent]:
        for order in orders:
            if isinstance(order, Refused):
                refused.append(order)
                continue
            yield CloudEvent(
                type=CREATED,
                source="/shop",
                id=order.id,
                time=order.placed,
                subject=order.id,
                partitionkey=order.customer.id,
                data=order,
            )

    return len(broker.publish_many(ORDERS.name, events())), refused


class PaymentError(Exception):
    """The payment provider did not take the payment."""


class Program(Protocol):
    """What consumes one subscription. A handler that raises gives the order back, to be tried again later."""

    router: Router

    def done(self) -> str:
        """What it has done so far, in a few words."""


class Inventory:
    """Takes the articles from the stock."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()
        self.router = Router()
        self.router.on(CREATED)(self.take)

    def take(self, order: Order) -> None:
        for item in order.items:
            self.taken[item.sku] += item.quantity

    def done(self) -> str:
        return f"{self.taken.total():,} pieces of {len(self.taken)} articles"


class Payment:
    """Charges the total. The provider is a moody one, and refuses one means of payment for ever."""

    def __init__(self) -> None:
        self.charged: dict[str, Decimal] = {}
        self.router = Router()
        self.router.on(CREATED)(self.charge)

    def charge(self, order: Order, delivery: Delivery) -> None:
        if order.payment.token == "tok_0000000000":  # noqa: S105  - this is the poison order
            raise PaymentError(f"{order.id}: the provider does not know {order.payment.method} {order.payment.token}")
        if delivery.attempt <= _bad_days(order.id):
            raise PaymentError(f"{order.id}: the provider did not answer (attempt {delivery.attempt})")
        self.charged[order.currency] = self.charged.get(order.currency, Decimal()) + order.total

    def done(self) -> str:
        return f"charged in {len(self.charged)} currencies, EUR {self.charged.get('EUR', Decimal()):,.2f}"


def _bad_days(order: str) -> int:
    """How often the payment of an order fails before it succeeds: the same in every run, mostly never."""
    draw = crc32(order.encode()) % 100
    return 2 if draw < 2 else 1 if draw < 6 else 0


class Notification:
    """Writes to the customer."""

    def __init__(self) -> None:
        self.written: Counter[str] = Counter()
        self.router = Router()
        self.router.on(CREATED)(self.write)

    def write(self, order: Order) -> None:
        self.written[order.customer.email] += 1

    def done(self) -> str:
        return f"wrote to {len(self.written)} customers"


class Analytics:
    """Counts where the orders go."""

    def __init__(self) -> None:
        self.countries: Counter[str] = Counter()
        self.router = Router()
        self.router.on(CREATED)(self.count)

    def count(self, order: Order) -> None:
        self.countries[order.ship_to.country] += 1

    def done(self) -> str:
        (top, orders), *_ = self.countries.most_common(1) or [("", 0)]
        return f"{len(self.countries)} countries, most orders to {top} ({orders})"


PROGRAMS: dict[str, type[Program]] = {
    "inventory": Inventory,
    "payment": Payment,
    "notification": Notification,
    "analytics": Analytics,
}


def by_hand(order: Order) -> None:
    """For `ceb run`: what is done about a payment that no attempt can help."""
    print(f"{order.id}: {order.customer.name} is asked to pay {order.currency} {order.total} by bank transfer")
