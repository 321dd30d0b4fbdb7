from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloudevents_bridge.demo.orders import FILE, Order, Refused, read_orders

GOOD: dict[str, Any] = {
    "id": "ord-1",
    "placed": "2025-10-03T09:04:27+09:00",
    "customer": {"id": "c-1", "name": "渡辺 さくら", "email": "c1@example.org"},
    "ship_to": {"city": "京都市", "country": "JP"},
    "currency": "JPY",
    "items": [{"sku": "TEA-SEN-100", "name": "Sencha, 100 g", "quantity": 2, "unit_price": "1920"}],
    "total": "3840",
    "payment": {"method": "card", "token": "tok_1"},
}


def read(tmp_path: Path, *lines: bytes) -> Iterator[Order | Refused]:
    path = tmp_path / "orders.ndjson"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return read_orders(path)


def test_the_shipped_file_holds_a_few_hundred_orders_and_some_lines_that_are_none() -> None:
    read = list(read_orders(FILE))
    orders = [each for each in read if isinstance(each, Order)]
    refused = [each for each in read if isinstance(each, Refused)]
    assert len(read) == len(FILE.read_bytes().splitlines())
    assert len(orders) > 300
    assert len({order.id for order in orders}) == len(orders)
    assert len({order.currency for order in orders}) > 10
    assert any(not order.customer.name.isascii() for order in orders)
    assert len({why for _, why in refused}) == len(refused) >= 8
    assert sum(order.payment.token == "tok_0000000000" for order in orders) == 1


def test_an_order_is_read(tmp_path: Path) -> None:
    (order,) = read(tmp_path, msgspec.json.encode(GOOD))
    assert isinstance(order, Order)
    assert msgspec.json.decode(msgspec.json.encode(order)) == GOOD | {"note": ""}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"", "the line is empty"),
        (b"  \r", "the line is empty"),
        (msgspec.json.encode(GOOD)[:100], "Input data was truncated"),
        (b"Order 17, two cups", "JSON is malformed"),
        (b"[]", "Expected `object`, got `array`"),
        (msgspec.json.encode(GOOD).replace(b"Sencha", b"Th\xe9"), "the line is not UTF-8 (byte "),
        (msgspec.json.encode(GOOD | {"customer": {"id": "c-1"}}), "missing required field `name` - at `$.customer`"),
        (msgspec.json.encode(GOOD | {"items": []}), "Expected `array` of length >= 1 - at `$.items`"),
        (msgspec.json.encode(GOOD | {"total": "3841"}), "the total is 3841, its items add up to 3840"),
        (msgspec.json.encode(GOOD | {"placed": "2025-10-03T09:04:27"}), "$.placed"),
        (msgspec.json.encode(GOOD | {"currency": "yen"}), "$.currency"),
        (msgspec.json.encode(GOOD).replace(b'"quantity":2', b'"quantity":-2'), "Expected `int` >= 1"),
    ],
)
def test_a_line_that_is_no_order_is_refused_with_its_number_and_why(tmp_path: Path, line: bytes, why: str) -> None:
    good = msgspec.json.encode(GOOD)
    first, refused, last = read(tmp_path, good, line, good)
    assert isinstance(first, Order)
    assert isinstance(last, Order)
    assert isinstance(refused, Refused)
    assert refused.line == 2
    assert why in refused.why
