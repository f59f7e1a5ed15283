"""A mix of everything that an engine does, for the soak: steps, retries, failures, signals, time-outs, children,
timers, cancellations, chains that continue as new, and runs that only wait.

`Traffic` starts it, the same for a simulated engine and a real one. Every wait in it is a multiple of `pause`, so that
a day of one and a few minutes of the other are the same work.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from dalsegno import (
    All,
    ContinueAsNew,
    Engine,
    Flow,
    Map,
    Publish,
    Receive,
    Retry,
    Run,
    RunClosed,
    Sleep,
    TimedOut,
    step,
    step_context,
    workflow,
)
from dalsegno.core.definitions import Definition

EVERY_THIRD = 3
"""So many orders meet a service that refuses them once."""

LINKS = 5
"""Generations of a chain, before it ends."""

SLEEPS = 100
"""How many pauses a run waits that only waits."""


class Refused(Exception):
    """A service does not answer, this time."""


class Declined(Exception):
    """A service answers no, for good."""


@step
def charge(order: int) -> dict[str, Any]:
    """A step whose result is durable before anything else happens."""
    return {"order": order, "receipt": f"receipt {order}", "lines": list(range(10))}


@step(idempotent=True)
def price(order: int, line: int) -> int:
    """A step that may be done again, and whose result may wait."""
    return order * line


@step(retry=Retry(max_attempts=5, initial=0.01, maximum=0.01, retry_on=(Refused,)))
def book(order: int) -> str:
    """A step that is tried again."""
    if order % EVERY_THIRD == 0 and step_context().attempt == 1:
        raise Refused(f"order {order} is not taken at once")
    return f"booked {order}"


@step
def decline(order: int) -> None:
    """A step that fails for good."""
    raise Declined(f"order {order} is one that nobody wants, and this is a message of some length to say so")


@step
async def refund(order: int) -> str:
    """What a cancelled run does before it ends."""
    return f"refunded {order}"


@workflow
def fulfil(order: int, pause: float) -> Flow[str]:
    """Steps of each kind, a person's word or a time-out, and branches."""
    receipt = yield from charge(order)
    yield from Publish("receipt", receipt)
    yield from book(order)
    total = sum((yield from Map(lambda line: price(order, line), receipt["lines"], concurrency=4)))
    try:
        word = yield from Receive("approval", str, timeout=pause)
    except TimedOut:
        word = "nobody answered"
    return f"{total}, {word}"


@workflow
def basket(order: int, pause: float) -> Flow[list[str]]:
    """Children, whose outcomes are waited for."""
    return list((yield from All([fulfil(order + i, pause) for i in range(3)])))


@workflow
def doomed(order: int) -> Flow[None]:
    """A run that fails."""
    yield from charge(order)
    yield from decline(order)


@workflow
def reluctant(order: int, pause: float) -> Flow[str]:
    """A run that is cancelled, and cleans up."""
    try:
        yield from Sleep(pause * SLEEPS)
    finally:
        yield from refund(order)
    return "not cancelled"


@workflow
def chain(order: int, link: int, pause: float) -> Flow[int]:
    """A run that goes on as a new one, again and again."""
    yield from charge(order)
    yield from Sleep(pause)
    if link < LINKS:
        yield from ContinueAsNew(order, link + 1, pause)
    return link


@workflow
def waiter(pause: float) -> Flow[str]:
    """A run that is put away, and ends long after."""
    yield from Sleep(pause * SLEEPS)
    return "slept"


WORKFLOWS: list[Definition] = [fulfil, basket, doomed, reluctant, chain, waiter]


class Traffic:
    """Starts rounds of work, each the same but for its numbers: 20 runs at the top, 30 in all with their children and
    the links of their chain; two of them only wait, and outlive their round."""

    RUNS = 20 + 2 * 3 + LINKS - 1

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.rounds = 0

    def round(self, engine: Engine) -> list[Run[Any]]:
        """Start one, and answer those of its runs that end soon."""
        first, self.rounds = self.rounds * 100, self.rounds + 1
        pause = self.pause
        orders: list[Run[Any]] = engine.start_many(
            fulfil, [(f"fulfil-{first + i}", (first + i, pause)) for i in range(10)]
        )
        for run in orders[::2]:
            with suppress(RunClosed):  # nobody waits longer than a pause
                run.signal("approval", "Ada says yes", dedup=f"approval of {run.id}")
        orders += engine.start_many(basket, [(f"basket-{first + i}", (first + 10 * i, pause)) for i in range(2)])
        orders += engine.start_many(doomed, [(f"doomed-{first + i}", (first + i,)) for i in range(3)])
        orders += engine.start_many(chain, [(f"chain-{first}", (first, 1, pause))])
        tired = engine.start_many(reluctant, [(f"reluctant-{first + i}", (first + i, pause)) for i in range(2)])
        engine.start_many(waiter, [(f"waiter-{first + i}", (pause,)) for i in range(2)])
        for run in tired:
            run.cancel("nobody wants it any more")
        return [*orders, *tired]
