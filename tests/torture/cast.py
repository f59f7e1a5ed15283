"""The workflows that are tortured: between them they use every kind of command, and each ends in a value that is known
beforehand, whatever happens on the way. Step bodies add a line to a ledger, which knows nothing of the engine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading

from dalsegno import (
    All,
    Checkpoint,
    Client,
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
    StepOutcomeUnknown,
    TimedOut,
    step,
    step_context,
    workflow,
)
from dalsegno.core.errors import StoreUnusable
from dalsegno.examples.ledger import note

LEDGER = "DALSEGNO_TORTURE_LEDGER"
"""The variable that names the ledger's file."""

PATIENT = Retry(max_attempts=4, initial=0.01, maximum=0.02, jitter=0.5)

TAKES_S = 0.002
"""A body works for so long after it has written its line: long enough to be killed in between."""

UNKNOWN = "unknown"
"""Stands in a result for a step that is run at most once and of which nobody knows."""


def _note(about: str) -> str:
    note(os.environ[LEDGER], about)
    threading.Event().wait(TAKES_S)
    return about


@step(retry=PATIENT)
def put(what: str) -> str:
    """Has an effect each time it runs."""
    return _note(what)


@step(idempotent=True, retry=PATIENT)
def look(what: str) -> str:
    """Its result may wait to be durable."""
    return _note(what)


@step(once=True, queue="till")
def pay(what: str) -> str:
    """Must never happen twice."""
    return _note(what)


@step(retry=PATIENT)
def stumble(what: str) -> str:
    """Fails in its first two attempts."""
    _note(what)
    if step_context().attempt < 3:
        raise ConnectionError(what)
    return what


@step(retry=PATIENT)
async def fetch(what: str) -> str:
    """An async body."""
    note(os.environ[LEDGER], what)
    await asyncio.sleep(0)
    return what


@step(retry=PATIENT)
def forks(store: str) -> str:
    """Forks, as a careless library may; answers what the child met when it used its parent's store."""
    _note("forks")
    if store not in INHERITED:
        raise ConnectionError("this engine went on with a run before its opening was over")
    child = os.fork()
    if child:
        return "refused" if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0 else "allowed"
    status = 1
    try:
        INHERITED[store].get("anything")
    except StoreUnusable:
        status = 0
    finally:
        os._exit(status)


@step
def lingers() -> int:
    """Forks a child that outlives this process, with everything it inherited still open; answers its process id."""
    _note("lingers")
    child = os.fork()
    if child:
        return child
    while True:
        signal.pause()


INHERITED: dict[str, Client] = {}
"""Clients that a forked child finds open, by the store's URL."""


@workflow
def chain(length: int) -> Flow[list[str]]:
    """Steps of every kind, one after another."""
    kinds = (put, look, stumble, put.options(queue="post", key=str(length % 2)), fetch)
    done = []
    for at in range(length):
        try:
            done.append((yield from (pay if at % 6 == 5 else kinds[at % 6])(f"{at}")))
        except StepOutcomeUnknown:
            done.append(UNKNOWN)
        yield from Publish("at", at)
    return done


@workflow
def leaf(at: int) -> Flow[int]:
    """A child: two steps with a checkpoint between them."""
    yield from look(f"leaf {at}")
    yield from Checkpoint()
    yield from put(f"leaf {at}")
    return at


@workflow
def family(width: int) -> Flow[list[int]]:
    """Children and branches side by side, a race against a timer far off, and a scope."""

    def branch(at: int) -> Flow[int]:
        yield from fetch(f"branch {at}")
        yield from Sleep(0.01 * at)
        yield from put(f"branch {at}")
        return at

    def race() -> Flow[int]:
        won = yield from First(work=put("raced"), late=Sleep(86_400))
        return {"work": 1}.get(str(won.key), 0)

    both = yield from All(Map(branch, range(width), concurrency=2), Map(leaf, range(width), concurrency=2))
    return [*both[0], *both[1], (yield from Scope(race()))]


@workflow
def naps(times: int) -> Flow[int]:
    """Timers that fire and time-outs that pass."""
    for at in range(times):
        yield from Sleep(0.03)
        yield from put(f"nap {at}")
        try:
            yield from Receive("never", timeout=0.02)
        except TimedOut:
            continue
        return -1
    return times


@workflow
def inbox() -> Flow[list[int]]:
    """Takes numbers until the one below zero."""
    got: list[int] = []
    while (number := (yield from Receive("number", int))) >= 0:
        got.append(number)
        if number % 8 == 0:
            yield from look(f"{number}")
    return got


@workflow
def rounds(got: list[int]) -> Flow[list[int]]:
    """The same, continuing as new after every third number."""
    for _ in range(3):
        number = yield from Receive("number", int)
        if number < 0:
            return got
        got = [*got, number]
    yield from put(f"after {got[-1]}")
    yield from ContinueAsNew(got)
    raise AssertionError("continuing as new returned")


@workflow
def postman(target: str, count: int) -> Flow[str]:
    """Sends numbers to another run, and the end."""
    for number in [*range(count), -1]:
        yield from look(f"{number}")
        yield from Send(target, "number", number)
    return "sent"


@workflow
def impatient(steps: int) -> Flow[str]:
    """Ends without reading what is sent to it all the while."""
    for at in range(steps):
        yield from put(f"{at}")
    return "gone"


@workflow
def forking(store: str, times: int) -> Flow[list[str]]:
    """Steps that fork, with ordinary ones around them."""
    met = []
    for at in range(times):
        yield from put(f"before {at}")
        met.append((yield from forks(store)))
    return met


@workflow
def survived() -> Flow[int]:
    """Leaves a child process behind, and works on."""
    child = yield from lingers()
    yield from Publish("child", child)
    yield from put("after")
    yield from Receive("go on")
    return child


@workflow
def bulky(pieces: int, size: int) -> Flow[int]:
    """Keeps large values, so that a small disk is soon full."""
    for at in range(pieces):
        yield from put(f"{at:0{size}}")
    return pieces
