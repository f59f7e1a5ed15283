"""What is yielded and is no command is explained: by which workflow, where, and what was likely meant."""

from __future__ import annotations

import asyncio
import gc
import inspect
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

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
    yield ALIENS[what][0]()


@pytest.mark.parametrize("what", ALIENS)
def test_the_likely_slip_is_named(what: str):
    """One sentence says what to write instead."""
    with pytest.raises(AlienYield) as caught:
        Drive(asks, what)
    message = str(caught.value)
    assert re.search(ALIENS[what][1], message, re.IGNORECASE), message
    assert "workflow 'asks' yielded" in message
    assert f"test_alien.py:{asks.fn.__code__.co_firstlineno + 2}" in message
    assert caught.value.line == asks.fn.__code__.co_firstlineno + 2


pause = asyncio.sleep
ANYIO: dict[str, Any] = {"__name__": "anyio.core"}
exec("import asyncio\nasync def sleep(n):\n    await asyncio.sleep(n)", ANYIO)


async def stands_in_time() -> None:
    async with asyncio.timeout(5):
        await work()


async def stands_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(coro())


async def takes_as_they_come() -> None:
    for each in asyncio.as_completed([coro(), coro()]):
        await each


async def gathers() -> None:
    await asyncio.gather(coro(), coro())


async def awaits_commands() -> None:
    await asyncio.wait_for(work(), 5)


ASYNC: dict[str, tuple[Callable[[], Any], str]] = {
    "gather of commands": (lambda: asyncio.gather(work(), work()), r"asyncio.gather.*`All\(a, b\)`"),
    "gather": (gathers, r"asyncio.gather.*`All\(a, b\)`"),
    "create_task": (lambda: asyncio.create_task(coro()), r"asyncio.create_task.*Spawn"),
    "ensure_future": (lambda: asyncio.ensure_future(coro()), r"asyncio.ensure_future.*Spawn"),
    "wait_for": (awaits_commands, r"asyncio.wait_for.*`Receive\(name, type, timeout=…\)`.*late=Sleep"),
    "wait_for of a coroutine": (lambda: asyncio.wait_for(coro(), 5), "asyncio.wait_for.*timeout="),
    "timeout": (stands_in_time, "asyncio.timeout.*timeout="),
    "to_thread": (lambda: asyncio.to_thread(len, ""), "asyncio.to_thread.*plain `@step`"),
    "sleep": (lambda: pause(1), r"asyncio.sleep.*`Sleep\(seconds\)`"),
    "sleep(0)": (lambda: asyncio.sleep(0), r"asyncio.sleep.*`Sleep\(seconds\)`"),
    "TaskGroup": (stands_in_a_group, "asyncio.TaskGroup.*All"),
    "wait": (lambda: asyncio.wait([cast("Any", coro())]), "asyncio.wait.*First"),
    "as_completed": (takes_as_they_come, "asyncio.as_completed.*First"),
    "Queue": (lambda: asyncio.Queue[int]().get(), "asyncio.Queue.*Receive"),
    "Event": (lambda: asyncio.Event().wait(), "asyncio.Event.*Receive"),
    "shield": (lambda: asyncio.shield(coro()), "asyncio.shield"),
    "get_running_loop": (lambda: cast("Any", asyncio.get_running_loop()), "something of asyncio"),
    "get_event_loop": (lambda: cast("Any", asyncio.get_event_loop()), "asyncio.get_event_loop"),
    "anyio": (lambda: ANYIO["sleep"](1), "anyio.sleep"),
}


@workflow
async def awaits(what: str) -> None:
    await ASYNC[what][0]()


def on_a_thread(call: Callable[[], Any]) -> Any:
    """Call this where the engine's threads would: on one without an event loop, which the main thread may be given."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


@pytest.mark.parametrize("what", ASYNC)
def test_what_is_of_asyncio_is_explained_by_its_name(what: str):
    """The message names what was called, the line of the workflow that did, and what is written instead; no coroutine
    is left over for Python to warn of."""

    def drive() -> str:
        with pytest.raises(AlienYield, match="async workflows await only commands") as caught:
            Drive(awaits, what)
        assert caught.value.source == __file__
        return f"{caught.value.line} {caught.value}"

    line, message = on_a_thread(drive).split(" ", 1)
    gc.collect()
    assert re.search(ASYNC[what][1], message, re.DOTALL), message
    own = (awaits.fn, ASYNC[what][0])
    ranges = [inspect.getsourcelines(fn) for fn in own]
    assert any(first <= int(line) < first + len(lines) for lines, first in ranges), message


@workflow
async def awaits_a_future() -> None:
    loop = asyncio.new_event_loop()
    try:
        await loop.create_future()
    finally:
        loop.close()


@workflow
async def awaits_a_gathering(loop: list[Any]) -> None:
    await asyncio.gather(*(MAIN[0].create_task(coro()) for _ in range(2)))


MAIN: list[Any] = []


def test_a_future_is_explained():
    """Also one of an event loop that a program has made on its own."""
    with pytest.raises(AlienYield, match=r"This is asyncio\.Future: async workflows await only commands"):
        Drive(awaits_a_future)


def test_tasks_of_a_loop_that_does_not_run_are_let_go_of():
    """On a main thread with a loop `gather` makes tasks, which would never run, and be complained of at the end."""
    MAIN[:] = [asyncio.new_event_loop()]
    try:
        with pytest.raises(AlienYield, match=r"This is asyncio.gather: .*All\(a, b\)"):
            Drive(awaits_a_gathering, [])
        gc.collect()
    finally:
        MAIN.pop().close()


def test_where_a_loop_runs_its_tasks_are_cancelled():
    """A workflow replayed inside of an async program would find that program's own loop."""

    async def program() -> None:
        MAIN[:] = [asyncio.get_running_loop()]
        with pytest.raises(AlienYield, match=r"This is asyncio.gather: .*All\(a, b\)"):
            Drive(awaits_a_gathering, [])
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)
        assert all(task.cancelled() for task in others)

    asyncio.run(program())
    MAIN.clear()


@step
def fails_so() -> None:
    raise RuntimeError("no running event loop")


@workflow
async def awaits_a_failing_step() -> None:
    await fails_so()


@workflow
async def brings_a_loop() -> None:
    async def main() -> None:
        raise RuntimeError("no running event loop")

    asyncio.run(main())


@pytest.mark.parametrize("definition", [awaits_a_failing_step, brings_a_loop])
def test_the_same_words_from_elsewhere_are_a_failure(definition: Any):
    """What a step raised, or code in a loop that the workflow ran itself, is not taken for a slip."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        on_a_thread(lambda: Drive(definition).result())


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
