"""Callbacks and children: promises kept from outside."""

from __future__ import annotations

from typing import Any

import pytest

from dalsegno.core.commands import All, Callback, First, Flow, NewCallback, Publish, Sleep
from dalsegno.core.definitions import step, workflow
from dalsegno.core.errors import InvalidToken, UseError
from dalsegno.core.interpreter import parse_token, secret_of
from tests.core.interpreter.drive import Drive


@step
def work(n: int = 0) -> int:
    return n


@workflow
def asks(first: bool = False) -> Flow[Any]:
    callback = yield from NewCallback(str)
    yield from Publish("token", callback.token)
    if first:
        yield from work()
    return [(yield from callback), (yield from callback)]


def test_a_callback_is_completed_from_outside():
    """Its token is the same on every replay; the value can be awaited again."""
    run = Drive(asks)
    assert run.ids == ["1"]
    assert run.open("1").kind == "callback"
    assert run.complete_callback(run.state["token"], "yes").result() == ["yes", "yes"]


def test_a_callback_may_be_completed_before_anybody_waits():
    """The promise is kept until it is asked for."""
    run = Drive(asks, True, by_hand=["work"])
    run.complete_callback(run.state["token"], "early").complete("2")
    assert run.result() == ["early", "early"]


def test_a_callback_may_fail():
    """The error from outside is raised where the callback is awaited."""
    run = Drive(asks)
    with pytest.raises(PermissionError, match="never"):
        run.fail_callback(run.state["token"], PermissionError("never")).result()


def test_a_callback_may_lose_a_race_and_be_awaited_again():
    """The engine is asked again when somebody waits again."""

    @workflow
    def impatient() -> Flow[Any]:
        callback = yield from NewCallback(str)
        yield from Publish("token", callback.token)
        won = yield from First(callback, Sleep(5))
        return [won.key, *(yield from All(callback, callback))]

    run = Drive(impatient).pass_time()
    assert run.complete_callback(run.state["token"], "late").result() == [1, "late", "late"]


def test_tokens_are_bound_to_run_and_command():
    """The secret cannot be guessed from names, and no other run takes the token."""
    run = Drive(asks)
    token = parse_token(run.state["token"])
    assert (token.workflow_id, token.generation, token.id) == ("order-17", 1, "1")
    assert token.secret == run.interpreter.callback_secret("1") == secret_of(b"seed", "1")
    assert token.secret != run.interpreter.callback_secret("2")


@pytest.mark.parametrize("token", ["", "abc", "ä", "k6FhAaEx", None, 5])
def test_nonsense_is_no_token(token: Any):
    """Whatever is not a token is refused with one kind of error."""
    with pytest.raises(InvalidToken):
        Drive(asks).interpreter.check_token(token)


def test_a_changed_token_is_refused():
    """Flipping any character makes it another token."""
    run = Drive(asks)
    token = run.state["token"]
    for at in range(len(token)):
        changed = f"{token[:at]}{'A' if token[at] != 'A' else 'B'}{token[at + 1 :]}"
        with pytest.raises(InvalidToken):
            run.interpreter.check_token(changed)


def test_a_callback_of_another_run_is_refused():
    """It can only be awaited where it was made."""

    @workflow
    def odd() -> Flow[Any]:
        yield from Callback("token", "1")

    with pytest.raises(UseError, match="another run"):
        Drive(odd).result()


# --- children ------------------------------------------------------------------------------------------------------


@workflow
def parent() -> Flow[Any]:
    try:
        return (yield from asks())
    except ValueError as error:
        return str(error)


def test_a_child_returns_its_value():
    """`ChildStarted` names the run; its end answers the yield."""
    run = Drive(parent)
    assert run.open("1").child_id == "child-1"
    assert run.child_returns("1", 5).result() == 5


def test_a_child_may_fail():
    """Its error is raised in the parent."""
    assert Drive(parent).child_fails("1", ValueError("there")).result() == "there"
