"""What is yielded and is no command is explained: by which workflow, where, and what was likely meant."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from dalsegno.core.commands import All, Flow, Map, Sleep, Spawn
from dalsegno.core.definitions import step, workflow
from dalsegno.core.errors import AlienYield
from tests.core.interpreter.drive import Drive, fresh, started


@step
def work(n: int = 0) -> int:
    return n


def gen() -> Flow[int]:
    return (yield from work())


async def coro() -> int:
    return await work()


UNCALLED: Any = work


def make_list(n: int) -> Any:
    return [n]


ALIENS: dict[str, tuple[Callable[[], Any], str]] = {
    "generator": (gen, "did you mean `yield from`"),
    "coroutine": (coro, "did you mean `await`"),
    "list": (lambda: [work(), work()], r"All\(\["),
    "tuple": (lambda: (work(), work()), r"All\(\["),
    "step": (lambda: work, r"forget to call it\? `work\("),
    "workflow": (lambda: globals()["asks"], r"forget to call it\? `asks\("),
    "generator function": (lambda: gen, r"`yield from gen\("),
    "function": (lambda: len, "making it a @step"),
    "command class": (lambda: Sleep, r"did you mean Sleep\("),
    "nothing": (lambda: None, "bare `yield`"),
    "number": (lambda: 5, "calls of steps"),
}


@workflow
def asks(what: str) -> Flow[Any]:
    thing = ALIENS[what][0]()
    try:
        yield thing
    finally:
        if hasattr(thing, "close"):
            thing.close()


@pytest.mark.parametrize("what", ALIENS)
def test_the_likely_slip_is_named(what: str):
    """One sentence says what to write instead."""
    with pytest.raises(AlienYield) as caught:
        Drive(asks, what)
    message = str(caught.value)
    assert re.search(ALIENS[what][1], message, re.IGNORECASE), message
    assert "workflow 'asks' yielded" in message
    assert f"test_alien.py:{asks.fn.__code__.co_firstlineno + 4}" in message
    assert caught.value.line == asks.fn.__code__.co_firstlineno + 4


@workflow
async def awaits_a_future() -> None:
    loop = asyncio.new_event_loop()
    try:
        await loop.create_future()
    finally:
        loop.close()


@workflow
async def awaits_asyncio() -> None:
    await asyncio.sleep(0)


@workflow
async def awaits_a_thread() -> None:
    await asyncio.to_thread(len, "")


@pytest.mark.parametrize("definition", [awaits_a_future, awaits_asyncio, awaits_a_thread])
def test_asyncio_is_for_steps(definition: Any):
    """An async workflow that awaits anything but commands is told so."""
    with pytest.raises(AlienYield, match="async workflows await only commands"):
        Drive(definition)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (lambda: All(*[work(), 5]), "branch 1 of All is 5"),
        (lambda: Map(make_list, [1]), "branch 0 of Map is "),
        (lambda: Spawn(UNCALLED), "branch 0 of task 1"),
    ],
)
def test_an_alien_branch_is_explained(command: Any, words: str):
    """A branch that is neither command nor generator is named by its place."""

    @workflow
    def odd() -> Flow[Any]:
        yield from command()

    with pytest.raises(AlienYield, match=words):
        Drive(odd)


def test_the_error_is_repeated():
    """An interpreter that met something alien is of no further use."""
    interpreter, event = fresh(asks), started(asks, "number")
    with pytest.raises(AlienYield) as first:
        interpreter.replay([event])
    with pytest.raises(AlienYield) as second:
        interpreter.apply(event)
    assert first.value is second.value
