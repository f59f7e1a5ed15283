"""What a type checker knows about a run started from outside, in the words of the README."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_type

from dalsegno import Engine, Flow, Receive, Run, step, workflow


@step
def charge(order: str) -> int:
    return len(order)


@workflow
def fulfil(order: str, copies: int = 1) -> Flow[int]:
    yield from Receive("approval", bool)
    return (yield from charge(order))


@workflow
async def fulfil_async(order: str) -> str:
    await charge(order)
    return order


def started() -> None:
    with Engine("memory:", workflows=[fulfil, fulfil_async], steps=[charge]) as engine:
        run = engine.start(fulfil, "order-42", id="order-42")
        assert_type(run, Run[int])
        assert_type(run.result(timeout=60), int)
        assert_type(run.id, str)
        assert_type(engine.start(fulfil_async, "order-43"), Run[str])
        assert_type(engine.start(fulfil, "order-44", copies=2, tags={"shop": "west"}), Run[int])
        assert_type(engine.start_many(fulfil, [("order-45", ("order-45",))]), list[Run[int]])
        assert_type(engine.get("order-42"), Run[Any])
        state: Mapping[str, Any] = run.state
        run.signal("approval", True)
        del state


async def awaited(run: Run[int]) -> None:
    assert_type(await run, int)
