"""A small app for the tests of the command line: what `--app tests.tools.shop` loads."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from dalsegno import Flow, Publish, Receive, Retry, Sleep, step, step_context, workflow


@dataclass(frozen=True)
class Order:
    id: int
    amount: int = 10


@dataclass(frozen=True)
class Approval:
    granted: bool
    by: str = ""


@step
def charge(order: Order) -> str:
    return f"receipt {order.id}: {order.amount}"


@step(retry=Retry(max_attempts=3, initial=0, jitter=0))
def ship(order: Order) -> str:
    if step_context().attempt == 1:
        raise ConnectionError(f"no van for order {order.id}")
    return "shipped"


@step
def count(shelf: str) -> int:
    raise ValueError(f"the shelf {shelf!r} is empty")


@workflow
def fulfil(order: Order, gift: bool = False) -> Flow[str]:
    yield from Publish("stage", "charging")
    receipt = yield from charge(order)
    yield from Publish("stage", "waiting")
    approval = yield from Receive("approval", Approval)
    if not approval.granted:
        return f"refused by {approval.by}"
    yield from ship(order)
    return receipt


@workflow
def stocktaking(shelf: str) -> Flow[int]:
    return (yield from count(shelf))


@workflow
def nap(rest: timedelta) -> Flow[str]:
    yield from Sleep(rest)
    return "rested"


@workflow
def quick(number: int) -> Flow[str]:
    return (yield from charge(Order(number)))


@workflow
def both(first: int, second: int) -> Flow[str]:
    one = yield from quick(first)
    other = yield from quick(second)
    return one + other


@workflow
def deliver(number: int) -> Flow[str]:
    return (yield from fulfil.options(id=f"order-{number}")(Order(number)))
