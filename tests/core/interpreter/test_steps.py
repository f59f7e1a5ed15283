"""Steps: one after another, failing, tried again, called in every style."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dalsegno.core.commands import Flow, Sleep
from dalsegno.core.definitions import step, workflow
from dalsegno.core.errors import EncodeError, RemoteError
from tests.core.interpreter.drive import Drive


@step
def double(n: int) -> int:
    return 2 * n


@step
def boom(what: str) -> int:
    raise ValueError(what)


@workflow
def sums(n: int) -> Flow[int]:
    total = 0
    for i in range(n):
        total += yield from double(i)
    return total


def helper(n: int) -> Flow[int]:
    return (yield from double(n)) + 1


@workflow
def nested(n: int) -> Flow[int]:
    first = yield from helper(n)
    second: int = yield double(first)
    return second


@workflow
async def awaiting(n: int) -> int:
    async def inner(m: int) -> int:
        return await double(m) + 1

    await Sleep(5)
    return await inner(n)


def test_steps_run_one_after_another():
    """Each step's result is sent in where it was yielded."""
    run = Drive(sums, 5)
    assert run.result() == 20
    assert run.ran == ["double"] * 5


def test_ids_count_the_yields_of_the_fiber():
    """Generators that are delegated to share the ordinals of their fiber."""
    run = Drive(nested, 4)
    assert run.result() == 18
    assert [getattr(event, "id", "") for event in run.events] == ["", "1", "2", ""]


def test_a_coroutine_is_driven_like_a_generator():
    """`async def` workflows await commands, through coroutines of their own."""
    run = Drive(awaiting, 4).pass_time()
    assert run.result() == 9


def test_lines_are_those_of_the_innermost_yield():
    """The line of a command is where the workflow's own code yields it."""
    run = Drive(nested, 1, by_hand=["double"])
    assert run.open("1").line == helper.__code__.co_firstlineno + 1
    run.complete("1", 2)
    assert run.open("2").line == nested.fn.__code__.co_firstlineno + 3


def test_lines_in_coroutines():
    """The same goes for `await`."""
    run = Drive(awaiting, 1, by_hand=["double"])
    assert run.open("1").line == awaiting.fn.__code__.co_firstlineno + 5
    run.pass_time()
    assert run.open("2").line == awaiting.fn.__code__.co_firstlineno + 3


@workflow
def careful() -> Flow[str]:
    try:
        yield from boom("first")
    except ValueError as error:
        caught = str(error)
    yield from boom("second")
    return caught


def test_a_failed_step_raises_at_its_yield():
    """The step's own exception comes back, can be caught, and otherwise ends the run."""
    run = Drive(careful)
    with pytest.raises(ValueError, match="second") as caught:
        run.result()
    assert any("order-17" in text and "event 2" in text for text in caught.value.__notes__)


@workflow
def exits() -> Flow[str]:
    try:
        yield from double(1)
    except RemoteError as error:
        return str(error)
    return "nothing"


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit(), StopIteration(4), KeyboardInterrupt()])
def test_what_may_not_be_thrown_into_a_generator_is_wrapped(error: BaseException):
    """A step's SystemExit or StopIteration is an ordinary failure to the workflow."""
    run = Drive(exits, by_hand=["double"]).fail("1", error)
    assert type(error).__name__ in run.result()


def test_attempts_leave_the_step_open():
    """Attempts that failed are counted; the outcome comes with a later one."""
    run = Drive(sums, 1, by_hand=["double"])
    run.fail_attempt("1", OSError("busy"), retry_in_s=5)
    waiting = run.open("1")
    assert (waiting.attempt, waiting.retry_at_us, waiting.started) == (1, run.now_us + 5_000_000, False)
    run.start_step("1")
    assert (waiting.attempt, waiting.retry_at_us, waiting.started) == (2, None, True)
    assert run.complete("1", 7).result() == 7


@workflow
def unstorable() -> Flow[str]:
    try:
        yield from double(threading.Lock())  # type: ignore[arg-type]
    except EncodeError:
        pass
    yield from double(3)
    return "went on"


def test_arguments_that_cannot_be_stored_fail_at_their_line():
    """`EncodeError` is raised at the yield, and nothing is recorded."""
    run = Drive(unstorable)
    assert run.result() == "went on"
    assert run.ran == ["double"]


@workflow
def returns_lock() -> Flow[Any]:
    yield from double(1)
    return threading.Lock()


def test_a_return_value_that_cannot_be_stored_fails_the_run():
    """The failure names the returned value."""
    with pytest.raises(EncodeError, match="the value returned by workflow 'returns_lock'"):
        Drive(returns_lock).result()


@workflow
def no_yield(n: int) -> Flow[int]:
    if n < 0:
        yield from double(n)
    return n


def test_a_workflow_may_return_at_once():
    """No command at all is fine."""
    assert Drive(no_yield, 5).result() == 5


def test_arguments_that_do_not_fit_the_function_fail_the_run():
    """A call with too many arguments is the run's failure, as it would be the caller's."""
    with pytest.raises(TypeError, match="positional argument"):
        Drive(no_yield, 1, 2).result()


@workflow
def raises_exit() -> Flow[None]:
    yield from double(1)
    raise SystemExit(4)


def test_a_workflow_that_exits_fails_its_run_only():
    """SystemExit in workflow code does not leave the interpreter."""
    with pytest.raises(RemoteError, match="SystemExit"):
        Drive(raises_exit).result()
