"""What a type checker knows about a workflow. Both checkers read this file; nothing runs it.

`assert_type` is an error where the type is another one, and an `ignore` is an error where there is nothing to ignore,
so the refusals at the end are kept as exactly as the types before them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random as SeededRandom
from typing import Any, assert_type
from uuid import UUID

from attrs import frozen

from dalsegno.core.commands import (
    All,
    BranchOutcome,
    Callback,
    Cancel,
    Checkpoint,
    ContinueAsNew,
    First,
    Flow,
    Info,
    Map,
    NewCallback,
    Now,
    Patched,
    Publish,
    Random,
    Receive,
    RunInfo,
    RunStep,
    Scope,
    Send,
    Shield,
    SideEffect,
    Sleep,
    SleepUntil,
    Spawn,
    StartChild,
    Task,
    Uuid,
    Winner,
)
from dalsegno.core.definitions import StepDefinition, WorkflowDefinition, step, workflow
from dalsegno.core.policies import Completion, Retry


@frozen
class Order:
    id: str
    cents: int


@frozen
class Receipt:
    number: int


@frozen
class Parcel:
    tracking: str


@frozen
class Approval:
    granted: bool


@step
def charge(order: Order) -> Receipt:
    return Receipt(order.cents)


@step(retry=Retry(max_attempts=5), timeout=30)
def count(order: Order, *, doubled: bool = False) -> int:
    return 2 if doubled else 1


@step
async def ship(order: Order, receipt: Receipt) -> Parcel:
    return Parcel(order.id)


@step(timeout=timedelta(seconds=5))
async def weigh(parcel: Parcel) -> float:
    return 1.5


def packed(order: Order) -> Flow[Parcel]:
    """A plain generator function: composes with `yield from` and needs no decorator."""
    receipt = yield from charge(order)
    return (yield from ship(order, receipt))


@workflow
def fulfil(order: Order) -> Flow[Parcel]:
    receipt = yield from charge(order)
    assert_type(receipt, Receipt)
    won = yield from First(decision=Receive("approval", Approval), late=Sleep(timedelta(days=3)))
    assert_type(won, Winner[Any])  # of several types, and `won.key` cannot tell a checker which
    if won.key == "late" or not won.value.granted:
        raise ValueError(order.id)
    return (yield from ship(order, receipt))


@workflow(timeout=60)
async def fulfil_async(order: Order) -> Parcel:
    receipt = await charge(order)
    assert_type(receipt, Receipt)
    assert_type(await All(charge(order), count(order)), tuple[Receipt, int])
    assert_type(await fulfil(order), Parcel)
    await Sleep(1)
    return await ship(order, receipt)


def definitions(order: Order) -> None:
    assert_type(charge(order), RunStep[Receipt])
    assert_type(ship(order, Receipt(1)), RunStep[Parcel])
    assert_type(charge.options(timeout=5)(order), RunStep[Receipt])
    assert_type(count(order, doubled=True), RunStep[int])
    assert_type(fulfil(order), StartChild[Parcel])
    assert_type(fulfil_async(order), StartChild[Parcel])
    assert_type(fulfil.options(id="child-1")(order), StartChild[Parcel])
    given: StepDefinition[[Order], Receipt] = charge
    started: WorkflowDefinition[[Order], Parcel] = fulfil
    del given, started


def steps_and_children(order: Order) -> Flow[None]:
    assert_type((yield from charge(order)), Receipt)
    assert_type((yield from count(order)), int)
    assert_type((yield from ship(order, Receipt(1))), Parcel)
    assert_type((yield from weigh(Parcel("x"))), float)
    assert_type((yield from packed(order)), Parcel)
    assert_type((yield from fulfil(order)), Parcel)
    assert_type((yield from fulfil_async(order)), Parcel)


def waiting() -> Flow[None]:
    assert_type((yield from Receive("approval", Approval)), Approval)
    assert_type((yield from Receive("approval", Approval, timeout=timedelta(days=1))), Approval)
    assert_type((yield from Receive("amounts", list[int])), list[int])
    assert_type((yield from Receive("maybe", int | None)), Any)
    assert_type((yield from Receive("anything")), Any)
    callback = yield from NewCallback(Approval)
    assert_type(callback, Callback[Approval])
    assert_type(callback.token, str)
    assert_type((yield from callback), Approval)
    yield from Sleep(5)
    yield from SleepUntil(datetime(2030, 1, 1, tzinfo=UTC))


def side_by_side(order: Order, orders: list[Order]) -> Flow[None]:
    assert_type((yield from All(charge(order))), tuple[Receipt])
    assert_type((yield from All(charge(order), count(order))), tuple[Receipt, int])
    assert_type((yield from All(charge(order), packed(order))), tuple[Receipt, Parcel])
    assert_type((yield from All(charge(order), fulfil(order), Sleep(1))), tuple[Receipt, Parcel, None])
    assert_type(
        (yield from All(charge(order), count(order), fulfil(order), packed(order), Receive("go", bool))),
        tuple[Receipt, int, Parcel, Parcel, bool],
    )
    assert_type((yield from All([charge(each) for each in orders])), list[Receipt])
    assert_type((yield from All()), tuple[()])


def over_many(orders: list[Order]) -> Flow[None]:
    assert_type((yield from Map(charge, orders)), list[Receipt])
    assert_type((yield from Map(ship_to_all, orders, concurrency=4)), list[Parcel])
    assert_type((yield from Map(fulfil, orders)), list[Parcel])
    assert_type((yield from Map(lambda each: count(each), orders)), list[int])
    outcomes = yield from Map(charge, orders, completion=Completion())
    assert_type(outcomes, list[BranchOutcome[Receipt]])
    assert_type(outcomes[0].value, Receipt | None)


def ship_to_all(order: Order) -> Flow[Parcel]:
    return (yield from packed(order))


def races(order: Order) -> Flow[None]:
    assert_type((yield from First(charge(order), count(order))), Winner[Receipt | int])
    assert_type((yield from First(a=charge(order), b=packed(order))), Winner[Any])
    won = yield from First(charge(order), charge(order))
    assert_type(won.value, Receipt)


def beside(order: Order) -> Flow[None]:
    task = yield from Spawn(charge(order))
    assert_type(task, Task[Receipt])
    assert_type((yield from task), Receipt)
    other = yield from Spawn(packed(order))
    assert_type(other, Task[Parcel])
    yield from Cancel(other)
    assert_type((yield from Scope(packed(order))), Parcel)
    assert_type((yield from Scope(charge(order))), Receipt)
    assert_type((yield from Shield(charge(order))), Receipt)


def the_rest() -> Flow[str]:
    assert_type((yield from SideEffect(lambda: 5)), int)
    assert_type((yield from Now()), datetime)
    assert_type((yield from Uuid()), UUID)
    assert_type((yield from Random()), SeededRandom)
    assert_type((yield from Patched("more-care")), bool)
    assert_type((yield from Info()), RunInfo)
    yield from Send("order-42", "approval", Approval(True))
    yield from Publish("stage", "packing")
    yield from Checkpoint()
    return (yield from ContinueAsNew(Order("x", 1)))


# --- refusals ------------------------------------------------------------------------------------------------------


def refused(order: Order) -> Flow[None]:
    charge("order-42")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    charge()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    fulfil(order, 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    receipt: Parcel = yield from charge(order)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del receipt


@workflow  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
def no_workflow(order: Order) -> int:
    return 5
