"""The shop a week later: `fulfil` looks for the van before it charges, and `nap` is gone."""

from __future__ import annotations

from dalsegno import Flow, Publish, Receive, step, workflow
from tests.tools.shop import Approval, Order, both, quick, stocktaking

__all__ = ["both", "fulfil", "quick", "stocktaking"]


@step
def reserve(order: Order) -> str:
    return "reserved"


@workflow
def fulfil(order: Order, gift: bool = False) -> Flow[str]:
    yield from Publish("stage", "reserving")
    yield from reserve(order)
    approval = yield from Receive("approval", Approval)
    return approval.by
