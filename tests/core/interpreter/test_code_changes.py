"""What people do to workflows with runs in flight: each change is reported where it begins, with a cause to act on.

Every case is a workflow as it was, the same after an edit, and what the report has to say: the event, a piece of both
sides, and a piece of the cause. `FREE` are the edits that histories bear, so that nobody is warned of them in vain.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from attrs import frozen

from dalsegno.core.commands import (
    All,
    ContinueAsNew,
    First,
    Flow,
    Map,
    Patched,
    Receive,
    Scope,
    Send,
    Sleep,
    SleepUntil,
    Spawn,
)
from dalsegno.core.definitions import WorkflowDefinition, step, workflow
from dalsegno.core.errors import HistoryMismatch
from dalsegno.core.policies import Retry
from tests.core.interpreter.drive import Drive


@step
def charge(n: int = 0) -> int:
    return n


@step
def ship(n: int = 0) -> int:
    return n


@step
def notify(n: int = 0) -> int:
    return n


@step(name="bill")
def charge_renamed(n: int = 0) -> int:
    return n


@step
def fails(n: int = 0) -> int:
    raise ValueError(f"{n} is too much")


@workflow(name="ship")
def ship_as_child(n: int = 0) -> Flow[int]:
    return (yield from ship(n))


@workflow
def dispatch(n: int = 0) -> Flow[int]:
    return (yield from ship(n))


Body = Callable[..., Flow[Any]]


@frozen
class Change:
    """An edit, and what the report of it says."""

    before: Body
    after: Body
    event: int
    recorded: str
    yielded: str
    cause: str
    play: Callable[[Drive], Any] = lambda run: run.pass_time()


CHANGES: dict[str, Change] = {}


def change(name: str, before: Body, after: Body, event: int, *said: str, play: Any = None) -> None:
    """Put an edit into the table."""
    CHANGES[name] = Change(before, after, event, *said, **({"play": play} if play else {}))  # type: ignore[arg-type]


def defined(body: Body) -> WorkflowDefinition[Any, Any]:
    """The workflow as it is registered."""
    return workflow(name="order")(body)


# --- the workflow as it was -------------------------------------------------------------------------------------------


def order() -> Flow[int]:
    yield from charge(1)
    yield from ship(2)
    yield from Sleep(60)
    yield from notify(3)
    return 0


def with_signal() -> Flow[Any]:
    yield from charge(1)
    answer = yield from Receive("approval")
    yield from ship(2)
    return answer


def with_timeout() -> Flow[Any]:
    answer = yield from Receive("approval", timeout=5)
    yield from ship(2)
    return answer


def pair() -> Flow[Any]:
    yield from All(charge(1), ship(2))
    yield from notify(3)


def mapped() -> Flow[Any]:
    yield from Map(charge, [1, 2, 3])
    yield from notify(3)


def raced() -> Flow[Any]:
    yield from First(paid=charge(1), late=Sleep(60))
    yield from notify(3)


def scoped() -> Flow[Any]:
    yield from Scope(inside())
    yield from notify(3)


def inside() -> Flow[Any]:
    yield from charge(1)
    yield from ship(2)


def looping() -> Flow[Any]:
    for number in range(3):
        yield from charge(number)


def looping_then_on() -> Flow[Any]:
    yield from looping()
    yield from ship(1)


def caught() -> Flow[Any]:
    try:
        yield from fails(1)
    except ValueError:
        yield from notify(2)
    return "refused"


def sending() -> Flow[Any]:
    yield from Send("stock-1", "take", 5)
    yield from ship(1)


def parent() -> Flow[Any]:
    yield from dispatch(1)
    yield from notify(2)


def child_is_done(run: Drive) -> None:
    run.child_returns("1", 1)


# --- steps added, removed, renamed, reordered -----------------------------------------------------------------------


def added() -> Flow[Any]:
    yield from charge(1)
    yield from notify(9)
    yield from ship(2)
    yield from Sleep(60)
    yield from notify(3)


change("a step added", order, added, 2, "step 'ship'", "step 'notify'", "still called elsewhere: something was added")


def removed() -> Flow[Any]:
    yield from charge(1)
    yield from Sleep(60)
    yield from notify(3)


change("a step removed", order, removed, 2, "step 'ship'", "sleep", "nothing in the code calls step 'ship' any more")


def renamed() -> Flow[Any]:
    yield from charge_renamed(1)
    yield from ship(2)


change("a step renamed", order, renamed, 1, "step 'charge'", "step 'bill'", '@step(name="charge") keeps the name')


def reordered() -> Flow[Any]:
    yield from ship(2)
    yield from charge(1)


change("steps reordered", order, reordered, 1, "step 'charge'", "step 'ship'", "still called elsewhere")


def other_arguments() -> Flow[Any]:
    yield from charge(1)
    yield from ship(20)


change("other arguments", order, other_arguments, 2, "step 'ship'", "with (20)", "called with other arguments")


def early_return() -> Flow[Any]:
    yield from charge(1)
    return 0


change("an early return", order, early_return, 2, "step 'ship'", "the workflow returned", "returns before step 'ship'")


def extra_at_the_end() -> Flow[Any]:
    yield from order()
    yield from notify(4)
    return 0


change("more at the end", order, extra_at_the_end, 6, "the end", "step 'notify'", "goes on where it had ended")


def another_result() -> Flow[Any]:
    yield from order()
    return 1


change("another value returned", order, another_result, 6, "the end", "returned 1", "ends with another value")


def to_a_step_child() -> Flow[Any]:
    yield from charge(1)
    yield from ship_as_child(2)


change("a step made a child", order, to_a_step_child, 2, "step 'ship'", "child 'ship'", "was made a child")


def into_a_child() -> Flow[Any]:
    yield from charge(1)
    yield from dispatch(2)


change(
    "moved into a child",
    order,
    into_a_child,
    2,
    "step 'ship'",
    "child 'dispatch'",
    "into the child workflow 'dispatch'",
)


def child_made_step() -> Flow[Any]:
    yield from ship(1)
    yield from notify(2)


change(
    "a child made a step",
    parent,
    child_made_step,
    1,
    "child 'dispatch'",
    "step 'ship'",
    "nothing in the code calls child 'dispatch'",
    play=child_is_done,
)


# --- time and signals ------------------------------------------------------------------------------------------------


def longer_sleep() -> Flow[Any]:
    yield from charge(1)
    yield from ship(2)
    yield from Sleep(90)


change("another duration", order, longer_sleep, 3, "sleep", "with (90.0)", "its duration was changed")


def sleeping_until() -> Flow[Any]:
    yield from charge(1)
    yield from ship(2)
    yield from SleepUntil(datetime(2030, 1, 1, tzinfo=UTC))


change("Sleep made SleepUntil", order, sleeping_until, 3, "sleep", "sleep until", "another branch is taken")


def other_timeout() -> Flow[Any]:
    yield from Receive("approval", timeout=6)


def signalled(run: Drive) -> None:
    run.signal("approval", True)


change(
    "another time-out",
    with_timeout,
    other_timeout,
    1,
    "receive 'approval'",
    "with (6.0)",
    "the time-out of the Receive was changed",
    play=signalled,
)


def other_signal_timed() -> Flow[Any]:
    yield from Receive("consent", timeout=5)


change(
    "a timed signal renamed",
    with_timeout,
    other_signal_timed,
    1,
    "receive 'approval'",
    "receive 'consent'",
    "the signal's name was changed",
    play=signalled,
)


def other_signal() -> Flow[Any]:
    yield from charge(1)
    yield from Receive("consent")
    yield from ship(2)


change(
    "a signal renamed",
    with_signal,
    other_signal,
    3,
    "step 'ship'",
    "receive 'consent'",
    "waits for signal 'consent', and nobody receives 'approval', which came",
    play=signalled,
)


def other_target() -> Flow[Any]:
    yield from Send("stock-2", "take", 5)
    yield from ship(1)


change("another target", sending, other_target, 1, "send 'take'", "'stock-2'", "the target or the payload")


def waits_before() -> Flow[Any]:
    yield from charge(1)
    yield from Receive("go")
    yield from ship(2)


change(
    "a Receive added", order, waits_before, 2, "step 'ship'", "receive 'go'", "step 'ship' is still called elsewhere"
)


# --- branches and loops ----------------------------------------------------------------------------------------------


def fewer_rounds() -> Flow[Any]:
    for number in range(2):
        yield from charge(number)


change("fewer rounds", looping, fewer_rounds, 3, "step 'charge'", "returned", "fewer rounds of a loop")


def more_rounds() -> Flow[Any]:
    for number in range(4):
        yield from charge(number)


change("more rounds", looping, more_rounds, 4, "the end", "step 'charge'", "round was added at the end")


def more_rounds_then_on() -> Flow[Any]:
    yield from more_rounds()
    yield from ship(1)


change("more rounds inside", looping_then_on, more_rounds_then_on, 4, "'ship'", "'charge'", "still called elsewhere")


def other_branch() -> Flow[Any]:
    amount = yield from charge(1)
    if amount > 5:
        yield from ship(2)
    else:
        yield from notify(2)


change("another branch", order, other_branch, 2, "step 'ship'", "step 'notify'", "another branch is taken")


def not_caught() -> Flow[Any]:
    yield from fails(1)
    yield from notify(2)


change("an error no longer caught", caught, not_caught, 2, "'notify'", "ValueError: 1 is", "is no longer caught")


def caught_otherwise() -> Flow[Any]:
    try:
        yield from fails(1)
    except ValueError:
        yield from ship(2)


change("another way to handle an error", caught, caught_otherwise, 2, "'notify'", "'ship'", "nothing in the code calls")


def failing() -> Flow[Any]:
    yield from fails(1)


def swallowing() -> Flow[Any]:
    try:
        yield from fails(1)
    except ValueError:
        return 0


change("an error swallowed", failing, swallowing, 2, "raised ValueError: 1 is", "returned", "an error is caught now")


# --- at once ---------------------------------------------------------------------------------------------------------


def wrapped() -> Flow[Any]:
    yield from charge(1)
    yield from All(ship(2), notify(9))


change("wrapped in All", order, wrapped, 2, "step 'ship'", "All (id 2", "put inside an All, where it has the id 2.1")


def unwrapped() -> Flow[Any]:
    yield from charge(1)
    yield from ship(2)


change("taken out of All", pair, unwrapped, 1, "id 1.1", "step 'charge' (id 1,", "what stood around step 'charge'")


def swapped() -> Flow[Any]:
    yield from All(ship(2), charge(1))


change("branches swapped", pair, swapped, 1, "step 'charge' (id 1.1", "step 'ship' (id 1.1", "is there as id 1.2")


def one_branch() -> Flow[Any]:
    yield from All(charge(1))
    yield from notify(3)


change("a branch removed", pair, one_branch, 2, "step 'ship' (id 1.2", "'notify'", "nothing in the code calls")


def three_branches() -> Flow[Any]:
    yield from All(charge(1), ship(2), notify(5))
    yield from notify(3)


change("a branch added", pair, three_branches, 3, "'notify' (id 2", "'notify' (id 1.3", "a branch or an item was added")


def all_made_first() -> Flow[Any]:
    yield from First(charge(1), ship(2))
    yield from notify(3)


change("All made First", pair, all_made_first, 3, "'notify'", "winner of a First", "an All made a First")


def first_made_all() -> Flow[Any]:
    yield from All(charge(1), Sleep(60))
    yield from notify(3)


change("First made All", raced, first_made_all, 3, "winner of a First", "All (id 1", "First was replaced by an All")


def race_renamed() -> Flow[Any]:
    yield from First(charged=charge(1), late=Sleep(60))
    yield from notify(3)


change("branches of a race renamed", raced, race_renamed, 3, "winner", "winner", "branches of the First were renamed")


def fewer_places() -> Flow[Any]:
    yield from Map(slowly, [1, 2, 3], concurrency=1)
    yield from notify(3)


def all_places() -> Flow[Any]:
    yield from Map(slowly, [1, 2, 3])
    yield from notify(3)


def slowly(number: int) -> Flow[Any]:
    yield from Sleep(number)
    yield from charge(number)


change("less concurrency", all_places, fewer_places, 2, "id 1.2.1", "id 1.1.1", "concurrency was lowered to 1")


def fewer_items() -> Flow[Any]:
    yield from Map(slowly, [1, 2])
    yield from notify(3)


change("fewer items", all_places, fewer_items, 3, "id 1.3.1", "sleep", "item 3 is recorded, and there are 2 now")


def more_items() -> Flow[Any]:
    yield from Map(charge, [1, 2, 3, 4])
    yield from notify(3)


change("more items", mapped, more_items, 4, "'notify'", "'charge' (id 1.4", "a branch or an item was added")


def spawned() -> Flow[Any]:
    yield from charge(1)
    task = yield from Spawn(ship(2))
    yield from Sleep(60)
    yield task


change("made a task", order, spawned, 2, "'ship' (id 2", "task 2", "put inside a task 2, where it has the id 2.1")


# --- scopes, changes, ends --------------------------------------------------------------------------------------------


def scope_added() -> Flow[Any]:
    yield from charge(1)
    yield from Scope(ship(2))
    yield from Sleep(60)


change("a scope added", order, scope_added, 2, "step 'ship' (id 2", "Scope (id 2", "put inside a Scope")


def scope_removed() -> Flow[Any]:
    yield from inside()
    yield from notify(3)


change("a scope removed", scoped, scope_removed, 3, "the end of a Scope", "step 'charge'", "the Scope that stood here")


def patched() -> Flow[Any]:
    if (yield from Patched("ship first")):
        yield from ship(2)
    else:
        yield from charge(1)
    yield from notify(3)


def patch_removed() -> Flow[Any]:
    yield from charge(1)
    yield from notify(3)


change(
    "a Patched removed", patched, patch_removed, 2, "'ship'", "'charge'", "took the new side of Patched('ship first')"
)


def patch_forgot_the_old() -> Flow[Any]:
    if (yield from Patched("ship first")):
        yield from ship(2)
    yield from Sleep(60)


change("the old side removed", order, patch_forgot_the_old, 1, "'charge'", "sleep", "nothing in the code calls")


def continuing() -> Flow[Any]:
    yield from charge(1)
    yield ContinueAsNew(7)


def continuing_otherwise() -> Flow[Any]:
    yield from charge(1)
    yield ContinueAsNew(8)


change("continued with other arguments", continuing, continuing_otherwise, 2, "continued as new", "(8,)", "other arg")


def continuing_early() -> Flow[Any]:
    yield ContinueAsNew(7)


change("continued earlier", continuing, continuing_early, 1, "'charge'", "continued as new", "continues as new earlier")


# --- the tests -------------------------------------------------------------------------------------------------------


def report_of(case: Change) -> HistoryMismatch:
    run = Drive(defined(case.before))
    case.play(run)
    with pytest.raises(HistoryMismatch) as caught:
        run.replay(defined(case.after))
    return caught.value


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_reported_so_that_one_can_act_on_it(name: str):
    """The report names the event at which the change shows, both sides, and its cause."""
    case = CHANGES[name]
    error = report_of(case)
    assert error.event_index == case.event, error
    assert case.recorded in error.recorded, error
    assert case.yielded in error.yielded, error
    assert case.cause in error.cause, error


def test_enough_kinds_of_change_are_tried():
    """There are at least twenty, and no two say the same of the same two sides."""
    said = [(str(report_of(case))) for case in CHANGES.values()]
    assert len(set(said)) == len(CHANGES) >= 20


def test_the_report_as_a_whole():
    """What left, both sides, the field, the cause, what to do about it, and the command to type."""
    error = report_of(CHANGES["a step renamed"])
    lines = str(error).splitlines()
    assert [line.split()[0] for line in lines] == ["workflow", "recorded", "yielded", "differs", "cause", "Runs"]
    assert lines[-1].endswith("See: replay show order-17 --around 1")
    assert "Patched" in lines[-1]


# --- what histories bear ---------------------------------------------------------------------------------------------


@step(name="charge", retry=Retry(max_attempts=9), timeout=5, idempotent=True)
def charge_with_options(n: int = 0) -> int:
    return n + 1


@step(name="charge", once=True)
def charge_once(n: int = 0) -> int:
    return n


def options_changed() -> Flow[Any]:
    yield from charge_with_options(1)
    yield from ship(2)
    yield from Sleep(60)
    yield from notify(3)
    return 0


def made_once() -> Flow[Any]:
    yield from charge_once(1)
    yield from ship(2)
    yield from Sleep(60)
    yield from notify(3)
    return 0


def more_places() -> Flow[Any]:
    yield from Map(charge, [1, 2, 3], concurrency=3)
    yield from notify(3)


def helper_taken_out() -> Flow[Any]:
    yield from inside()
    yield from Sleep(60)
    yield from notify(3)
    return 0


def kept_for_old_runs() -> Flow[Any]:
    if (yield from Patched("no shipping")):
        yield from charge(1)
    else:
        yield from inside()
    yield from Sleep(60)
    yield from notify(3)
    return 0


FREE: dict[str, tuple[Body, Body]] = {
    "a step's options and body": (order, options_changed),
    "a step made once=True": (order, made_once),
    "a step no longer once=True": (made_once, order),
    "the same concurrency, said": (mapped, more_places),
    "lines moved into a helper": (order, helper_taken_out),
    "a change behind Patched": (order, kept_for_old_runs),
}


@pytest.mark.parametrize("name", FREE)
def test_what_is_free_to_change_is_not_reported(name: str):
    """Edits that leave the commands as they were fit every history."""
    before, after = FREE[name]
    run = Drive(defined(before)).pass_time()
    assert run.replay(defined(after)).closed
