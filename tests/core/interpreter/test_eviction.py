"""Putting generators away: which can be dropped, what happens to those in `try`, and that nothing durable runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import pytest

from dalsegno.core.commands import All, Flow, Receive, Sleep, Spawn
from dalsegno.core.definitions import step, workflow
from dalsegno.core.errors import UseError
from dalsegno.core.interpreter.frames import is_suspended_inside_try
from tests.core.interpreter.drive import Drive

LOG: list[str] = []


@step
def work(n: int = 0) -> int:
    return n


def bare() -> Generator[Any, Any, Any]:
    yield 1


def in_try() -> Generator[Any, Any, Any]:
    try:
        yield 1
    finally:
        LOG.append("finally")


def in_with() -> Generator[Any, Any, Any]:
    with contextlib.nullcontext():
        yield 1


def in_except() -> Generator[Any, Any, Any]:
    try:
        raise ValueError
    except ValueError as error:
        yield error


def in_except_inside_try() -> Generator[Any, Any, Any]:
    try:
        try:
            raise ValueError
        except ValueError as error:
            yield error
    finally:
        LOG.append("outer")


def after_try() -> Generator[Any, Any, Any]:
    try:
        LOG.append("x")
    finally:
        LOG.append("y")
    yield 1


def in_else() -> Generator[Any, Any, Any]:
    try:
        pass
    except ValueError:
        pass
    else:
        yield 1


def in_loop() -> Generator[Any, Any, Any]:
    for n in range(3):
        yield n + 1


def delegates() -> Generator[Any, Any, Any]:
    yield from bare()


def delegates_to_try() -> Generator[Any, Any, Any]:
    yield from in_try()


def delegates_in_try() -> Generator[Any, Any, Any]:
    with contextlib.suppress(ValueError):
        yield from bare()


async def awaits() -> Any:
    await Sleep(1)


async def awaits_in_try() -> Any:
    try:
        await Sleep(1)
    finally:
        LOG.append("async")


STANDS: dict[Callable[[], Any], bool] = {
    bare: False,
    in_try: True,
    in_with: True,
    in_except: False,
    in_except_inside_try: True,
    after_try: False,
    in_else: False,
    in_loop: False,
    delegates: False,
    delegates_to_try: True,
    delegates_in_try: True,
    awaits: False,
    awaits_in_try: True,
}


@pytest.mark.parametrize("function", STANDS, ids=lambda function: function.__name__)
def test_standing_inside_try_is_seen(function: Callable[[], Any]):
    """Whether leaving a suspended generator runs a handler of its code; the compiler's own handlers do not count."""
    suspended = function()
    assert not is_suspended_inside_try(suspended)
    suspended.send(None)
    assert is_suspended_inside_try(suspended) is STANDS[function]
    suspended.close()


def tidy() -> Flow[Any]:
    try:
        yield from Receive("never")
    except Exception:
        LOG.append("Exception")
    finally:
        LOG.append("before")
        yield from work(1)
        LOG.append("after")


@workflow
def waits() -> Flow[Any]:
    yield from Spawn(tidy())
    return (yield from All(Sleep(5), Receive("go")))


def test_eviction_runs_no_durable_clean_up():
    """`finally` begins, the command it yields is refused, and the run goes on elsewhere as if nothing had been."""
    LOG.clear()
    run = Drive(waits)
    assert not run.interpreter.droppable()
    assert run.interpreter.evict()
    assert LOG == ["before"]
    assert list(run.replay().waiting) == ["2.1", "2.2", "1.1.1"]


def test_waiting_commands_keep_their_lines():
    """An engine may still ask what it was waiting for."""
    run = Drive(waits)
    run.interpreter.evict()
    assert [w.line > 0 for w in run.interpreter.waiting.values()] == [True, True, True]


def test_an_evicted_interpreter_is_of_no_use():
    """Whoever asks it to go on is told to replay."""
    run = Drive(waits)
    run.interpreter.evict()
    with pytest.raises(UseError, match="put away"):
        run.signal("go")


@workflow
def plain() -> Flow[Any]:
    return (yield from All(Sleep(5), Receive("go")))


def test_plain_generators_are_droppable():
    """Nothing of their code runs when they go."""
    run = Drive(plain)
    assert run.interpreter.droppable()
    assert run.interpreter.evict()


@workflow
def insists() -> Flow[Any]:
    rounds = 0
    while rounds < 200:
        try:
            yield from Sleep(5)
        except BaseException:
            rounds += 1


def test_the_stubborn_are_kept():
    """A generator that catches everything and yields again is given up on, and handed out to be kept alive."""
    run = Drive(insists)
    assert not run.interpreter.evict()
    assert len(run.interpreter.stubborn) == 1
    with contextlib.suppress(BaseException):
        for _ in range(200):
            run.interpreter.stubborn[0].throw(KeyError())
