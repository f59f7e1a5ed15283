"""Workflows whose histories are kept. Do not change what they yield: that is what the histories beside them hold us to.

Between them they record every event there is. `record.py` makes the files of a release.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs

from dalsegno import (
    All,
    Callback,
    Cancelled,
    Checkpoint,
    Completion,
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
    Retry,
    RunConflict,
    Scope,
    Send,
    SendFailed,
    Shield,
    SideEffect,
    Sleep,
    SleepUntil,
    Spawn,
    TimedOut,
    Uuid,
    step,
    workflow,
)

TRIES: dict[str, int] = {}


@attrs.frozen
class Parcel:
    """A value of a class of ours."""

    weight: int
    at: datetime


@step(retry=Retry(max_attempts=3, initial=5, jitter=0))
def shaky(name: str) -> str:
    """Fails once, then succeeds."""
    TRIES[name] = TRIES.get(name, 0) + 1
    if TRIES[name] == 1:
        raise ConnectionError(f"{name}: not yet")
    return f"{name} after {TRIES[name]}"


@step(once=True)
def pay(amount: int) -> int:
    """Runs at most once."""
    return amount


@step
def double(n: int) -> int:
    """A plain step."""
    return 2 * n


@step
def refuse() -> None:
    """Fails for good."""
    raise ValueError("never")


@workflow
def steps() -> Flow[tuple[str, int, str]]:
    """Retries, at most once, a final failure, a value of a class."""
    first = yield from shaky("first")
    paid = yield from pay(5)
    try:
        yield from refuse()
    except ValueError as error:
        said = str(error)
    at = yield from Now()
    yield from Publish("parcel", Parcel(paid, at))
    yield from Checkpoint()
    return first, paid, said


@workflow
def waits() -> Flow[list[str]]:
    """Timers that fire, that are cancelled; signals that come, and that do not."""
    heard: list[str] = []
    yield from Sleep(timedelta(hours=1))
    yield from SleepUntil(datetime(2026, 1, 1, 3, tzinfo=UTC))
    heard.append((yield from Receive("word", str, timeout=timedelta(days=1))))
    try:
        yield from Receive("other", str, timeout=60)
    except TimedOut:
        heard.append("nothing")
    won = yield from First(quick=Sleep(1), slow=Sleep(1000))
    return [*heard, won.key]


@workflow
def child(n: int) -> Flow[int]:
    """A child that may fail."""
    if n < 0:
        raise ValueError(f"{n} is less than nothing")
    return (yield from double(n))


@workflow
def family() -> Flow[list[int]]:
    """Children that return, that fail, and one whose id is taken."""
    one, two = yield from All(child(1), child(2))
    try:
        yield from child(-1)
    except ValueError:
        pass
    try:
        yield from child.options(id="taken")(4)
    except RunConflict:
        pass
    outcomes = yield from Map(child, [5, -6], completion=Completion(tolerated_failures=1))
    return [one, two, sum(outcome.value or 0 for outcome in outcomes)]


@workflow
def marks() -> Flow[str]:
    """Side effects, scopes, tasks, callbacks, messages, changes, and what is answered from the history."""
    chosen = yield from SideEffect(lambda: 7)

    def inner() -> Flow[int]:
        doubled = yield from double(chosen)
        return doubled + (yield from Receive("number", int))

    scoped = yield from Scope(inner())
    task = yield from Spawn(double(scoped))
    kept: Callback[str] = yield from NewCallback(str)
    broken: Callback[str] = yield from NewCallback(str)
    yield from Publish("tokens", [kept.token, broken.token])
    said = yield from kept
    try:
        yield from broken
    except RuntimeError as error:
        said += str(error)
    yield from Send("listener", "word", said)
    try:
        yield from Send("nobody", "word", said)
    except SendFailed:
        pass
    if (yield from Patched("drawn")):
        rng = yield from Random()
        said += str(rng.randint(1, 6)) + str((yield from Uuid()))
    info = yield from Info()
    return f"{said} {info.attempt} {yield from task}"


@workflow
def counts(left: int) -> Flow[str]:
    """Continues as new, with a signal that is carried along."""
    yield from Sleep(10)
    if left:
        yield from ContinueAsNew(left - 1)
    return (yield from Receive("late", str))


@workflow
def listener() -> Flow[str]:
    """Receives one word."""
    return (yield from Receive("word", str))


@workflow
def tidies() -> Flow[str]:
    """Cleans up when it is cancelled."""
    try:
        yield from Receive("never")
    except Cancelled:
        yield from Shield(double(1))
        raise
    return "unreachable"


@workflow(timeout=60)
def overruns() -> Flow[None]:
    """Takes longer than it is given."""
    yield from Sleep(3600)


@workflow
def fails() -> Flow[None]:
    """Raises."""
    yield from double(1)
    raise LookupError("nothing there")
