"""Workflows that the tests of `dalsegno.testing` play with: small, and between them using every kind of command."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from dalsegno import (
    All,
    Checkpoint,
    ContinueAsNew,
    First,
    Flow,
    Map,
    Publish,
    Receive,
    Retry,
    Scope,
    Send,
    Sleep,
    Spawn,
    StepOutcomeUnknown,
    TimedOut,
    step,
    step_context,
    workflow,
)
from dalsegno.core.definitions import Definition

EFFECTS: Counter[str] = Counter()
"""What step bodies did to the world: how often, by what they did."""

PATIENT = Retry(max_attempts=5, jitter=0)


@step(retry=PATIENT, timeout=30)
def put(what: str) -> str:
    """Has an effect each time it runs."""
    EFFECTS[what] += 1
    return what


@step(retry=PATIENT, idempotent=True)
def look(what: str) -> str:
    """Changes nothing, so its result may wait to be durable."""
    return what.upper()


@step(once=True)
def pay(what: str) -> str:
    """Must not happen twice."""
    EFFECTS[step_context().idempotency_key] += 1
    return what


@step(retry=PATIENT)
async def fetch(what: str) -> str:
    """An async body."""
    EFFECTS[what] += 1
    return what


@workflow
def chain(length: int) -> Flow[list[str]]:
    """One step after another, of both kinds, with sleeps in between."""
    done = []
    for at in range(length):
        done.append((yield from put(f"put {at}")))
        done.append((yield from look(f"look {at}")))
        yield from Publish("at", at)
        yield from Sleep(timedelta(hours=1))
    return done


@workflow
def fan(width: int) -> Flow[list[str]]:
    """Children and branches side by side."""

    def branch(at: int) -> Flow[str]:
        yield from put(f"branch {at}")
        yield from Sleep(at)
        return (yield from fetch(f"fetch {at}"))

    both = yield from All(Map(branch, range(width), concurrency=2), Map(chain, [1, 2], concurrency=2))
    task = yield from Spawn(chain(1))
    yield from Checkpoint()
    return [*both[0], str(both[1]), str((yield from task))]


@workflow
def correspondence() -> Flow[list[str]]:
    """Waits for three signals, each with a time-out far off, and tells how they came."""
    heard = []
    for _ in range(3):
        heard.append((yield from Receive("word", str, timeout=timedelta(days=30))))
        yield from put(heard[-1])
    return heard


@workflow
def generations(left: int, sum_: int = 0) -> Flow[int]:
    """Continues as new until nothing is left; signals may come at any time and are all counted."""
    try:
        got = yield from Receive("number", int, timeout=10)
    except TimedOut:
        return sum_
    yield from put(f"generation {left}")
    yield from ContinueAsNew(left - 1, sum_ + got)
    raise AssertionError("continuing as new returned")


@workflow
def sender(target: str) -> Flow[str]:
    """Sends words to another run."""
    for word in ("one", "two", "three"):
        yield from look(word)
        yield from Send(target, "word", word)
    return "sent"


@workflow
def payment() -> Flow[str]:
    """Pays at most once, and says whether it knows."""
    try:
        yield from pay("now")
    except StepOutcomeUnknown:
        yield from put("asked the bank")
        return "unknown"
    return "paid"


@workflow
def race() -> Flow[str]:
    """A step against a timer, inside a scope."""

    def body() -> Flow[str]:
        won = yield from First(work=put("raced"), late=Sleep(timedelta(days=365)))
        return str(won.key)

    return (yield from Scope(body()))


ALL: list[Definition] = [chain, fan, correspondence, generations, sender, payment, race]
