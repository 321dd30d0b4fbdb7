"""The orders of the demo's shop: one JSON object per line, read strictly."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

FILE = Path(__file__).with_name("orders.ndjson")

Text = Annotated[str, Meta(min_length=1)]


class Item(msgspec.Struct, frozen=True):
    """So many of one article, at a price per piece in the order's currency."""

    sku: Annotated[str, Meta(pattern=r"^[A-Z0-9-]+$")]
    name: Text
    quantity: Annotated[int, Meta(ge=1)]
    unit_price: Decimal


class Customer(msgspec.Struct, frozen=True):
    """Who ordered."""

    id: Text
    name: Text
    email: Text


class Place(msgspec.Struct, frozen=True):
    """Where to. `country`: ISO 3166, two letters."""

    city: Text
    country: Annotated[str, Meta(pattern=r"^[A-Z]{2}$")]


class Payment(msgspec.Struct, frozen=True):
    """How it is paid. `token`: what the payment provider knows the customer's means by."""

    method: Text
    token: Text


class Order(msgspec.Struct, frozen=True):
    """One order, as the shop's web site wrote it. `currency`: ISO 4217."""

    id: Text
    placed: Annotated[datetime, Meta(tz=True)]
    customer: Customer
    ship_to: Place
    currency: Annotated[str, Meta(pattern=r"^[A-Z]{3}$")]
    items: Annotated[tuple[Item, ...], Meta(min_length=1)]
    total: Decimal
    payment: Payment
    note: str = ""

    def __post_init__(self) -> None:
        items = sum((item.quantity * item.unit_price for item in self.items), Decimal())
        if items != self.total:
            raise ValueError(f"the total is {self.total}, its items add up to {items}")


class Refused(NamedTuple):
    """A line that is no order: its number, from 1, and why."""

    line: int
    why: str


def read_orders(path: Path) -> Iterator[Order | Refused]:
    """The orders of a file, and the lines that are none, in the file's order.

    Raises:
        OSError: if the file cannot be read.
    """
    decoder = msgspec.json.Decoder(Order)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                if not line.strip():
                    raise ValueError("the line is empty")
                yield decoder.decode(line.decode().rstrip("\r\n"))
            except UnicodeDecodeError as error:
                yield Refused(number, f"the line is not UTF-8 (byte {error.start})")
            except ValueError as error:
                yield Refused(number, str(error))
