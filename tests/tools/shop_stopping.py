"""The shop's workflow as somebody debugs it: with a generator below and `breakpoint()` in the code."""

from __future__ import annotations

from dalsegno import Cancelled, Flow, Publish, Receive, Scope, workflow
from tests.tools.shop import Approval, Order, charge, ship

CLEANED: list[str] = []


def paid(order: Order) -> Flow[str]:
    receipt = yield from charge(order)
    yield from Publish("stage", "waiting")
    return receipt


def allowed(approval: Approval) -> bool:
    granted = approval.granted
    return granted


@workflow
def fulfil(order: Order, gift: bool = False) -> Flow[str]:
    yield from Publish("stage", "charging")
    try:
        receipt = yield from paid(order)
        approval = yield from Receive("approval", Approval)
        breakpoint()
        if not allowed(approval):
            return f"refused by {approval.by}"
        yield from ship(order)
    except Cancelled:
        CLEANED.append("cancelled")
        yield from Scope(ship(order))
        raise
    except BaseException as error:
        CLEANED.append(repr(error))
        raise
    return receipt
