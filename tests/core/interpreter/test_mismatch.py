"""Code that no longer fits its history is found at the first event that says so, and the message tells."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import pytest

from dalsegno.core.commands import All, Checkpoint, First, Flow, Receive, Send, Sleep
from dalsegno.core.definitions import WorkflowDefinition, step, workflow
from dalsegno.core.errors import HistoryMismatch
from dalsegno.core.events import (
    CallbackCompleted,
    ChildCompleted,
    Event,
    RaceDecided,
    RunCompleted,
    RunFailed,
    RunStarted,
    RunTerminated,
    SignalReceived,
    StepCompleted,
    StepFailed,
    TimerCancelled,
    TimerFired,
)
from dalsegno.core.interpreter import Interpreter
from tests.core.interpreter.drive import CODEC, Drive


@step
def charge(n: int = 0) -> int:
    return n


@step
def ship(n: int = 0) -> int:
    return n


@step(name="refund")
def charge_renamed(n: int = 0) -> int:
    return n


def made_of(*commands: Callable[[], Any], result: Any = "done", **options: Any) -> WorkflowDefinition[[], Any]:
    """A workflow that yields these commands."""

    def body() -> Flow[Any]:
        for make in commands:
            yield from make()
        return result

    return workflow(name="order", **options)(body)


def c(n: int = 1) -> Any:
    return lambda: charge(n)


def s(n: int = 1) -> Any:
    return lambda: ship(n)


def nap(seconds: float = 5) -> Any:
    return lambda: Sleep(seconds)


RECORDED = (c(), s(), nap(), c(2))

CHANGED: dict[str, tuple[tuple[Any, ...], int, str]] = {
    "added": ((c(), c(9), s(), nap(), c(2)), 2, "name"),
    "added a sleep": ((c(), nap(1), s(), nap(), c(2)), 2, "kind"),
    "removed": ((c(), nap(), c(2)), 2, "kind"),
    "renamed": ((lambda: charge_renamed(1), s(), nap(), c(2)), 1, "name"),
    "reordered": ((s(), c(), nap(), c(2)), 1, "name"),
    "other arguments": ((c(), s(7), nap(), c(2)), 2, "arguments"),
    "other time": ((c(), s(), nap(6), c(2)), 3, "arguments"),
    "returned early": ((c(), s()), 3, "the code had ended"),
    "goes on": ((*RECORDED, s(3)), 6, "how the code ends"),
    "made a branch": ((c(), lambda: All(ship(1)), nap(), c(2)), 2, "no command 2 is open"),
}


@pytest.mark.parametrize("change", CHANGED)
def test_a_change_is_found_where_it_begins(change: str):
    """The error names the event, both sides and the first thing that differs."""
    commands, index, differs = CHANGED[change]
    run = Drive(made_of(*RECORDED)).pass_time()
    assert run.result() == "done"
    with pytest.raises(HistoryMismatch) as caught:
        run.replay(made_of(*commands))
    assert (caught.value.event_index, caught.value.differs) == (index, differs)
    assert caught.value.workflow_id == "order-17"


def test_the_message_shows_both_sides():
    """In the words of the workflow, with line and the command to type next."""
    run = Drive(made_of(*RECORDED)).pass_time()
    with pytest.raises(HistoryMismatch) as caught:
        run.replay(made_of(c(), s(7), nap(), c(2)))
    error = caught.value
    line = made_of.__code__.co_firstlineno + 5
    assert str(error) == (
        "workflow 'order-17' left its recorded path at event 2\n"
        f"  recorded  step 'ship' (id 2, line {line})\n"
        f"  yielded   step 'ship' (id 2, test_mismatch.py:{line}) with (7)\n"
        "  differs   arguments\n"
        "  cause     the same step, called with other arguments: an edit, or in them a clock, chance, the environment, "
        "the order of a set\n"
        "Runs in flight need the path they took: keep it beside the new one with Patched, or leave them the old code. "
        "See: replay show order-17 --around 2"
    )
    assert (error.line_then, error.line_now) == (line, line)
    assert error.source.endswith("test_mismatch.py")
    assert error.recorded.startswith("step 'ship'")


def test_a_node_in_place_of_a_command_is_named():
    """The message says that an `All` stands where the step was."""
    run = Drive(made_of(*RECORDED)).pass_time()
    with pytest.raises(HistoryMismatch, match=r"yielded   All \(id 2, "):
        run.replay(made_of(c(), lambda: All(ship(1)), nap()))


def test_the_error_is_repeated():
    """After a mismatch nothing else can be had from the interpreter."""
    run = Drive(made_of(c()))
    again = run.fresh(made_of(s()))
    with pytest.raises(HistoryMismatch) as first:
        again.replay(run.events)
    with pytest.raises(HistoryMismatch) as second:
        again.apply(SignalReceived(1, 1, "x", b""))
    assert first.value is second.value


def test_another_value_returned_is_a_mismatch():
    """The end is compared by what was returned."""
    run = Drive(made_of(c()))
    with pytest.raises(HistoryMismatch, match="returned 'other'"):
        run.replay(made_of(c(), result="other"))


def test_arguments_may_be_ignored_or_warned_of():
    """`arguments=` says what a difference in nothing but arguments means."""
    run = Drive(made_of(*RECORDED)).pass_time()
    changed = (c(), s(7), nap(6), c(2))
    assert run.replay(made_of(*changed, result="x", arguments="ignore")).closed
    warned = run.replay(made_of(*changed, result="x", arguments="warn"))
    assert warned.closed
    assert [text.splitlines()[3].strip() for text in warned.warnings] == [
        "differs   arguments",
        "differs   arguments",
        "differs   the value returned",
    ]


def test_names_are_compared_all_the_same():
    """Ignoring arguments does not ignore another step."""
    run = Drive(made_of(c()))
    with pytest.raises(HistoryMismatch):
        run.replay(made_of(s(), arguments="ignore"))


@pytest.mark.parametrize(
    "commands",
    [
        (lambda: Receive("b", timeout=5),),
        (lambda: Receive("a", timeout=6),),
        (lambda: Sleep(5),),
    ],
)
def test_a_changed_time_out_is_found(commands: Any):
    """The timer of a `Receive` carries its name and time-out."""
    run = Drive(made_of(lambda: Receive("a", timeout=5))).signal("a")
    with pytest.raises(HistoryMismatch):
        run.replay(made_of(*commands))


def test_a_changed_target_of_a_signal_is_found():
    """`Send` is compared by target and payload."""
    run = Drive(made_of(lambda: Send("a", "x", 1)))
    for other in (("b", "x", 1), ("a", "x", 2), ("a", "y", 1)):
        with pytest.raises(HistoryMismatch):
            run.replay(made_of(partial(Send, *other)))


def test_renamed_branches_of_a_race_are_found():
    """The recorded winner is a position, so the branches have to be the same."""
    run = Drive(made_of(lambda: First(a=charge(1), b=Sleep(5))))
    with pytest.raises(HistoryMismatch):
        run.replay(made_of(lambda: First(b=charge(1), a=Sleep(5))))


def test_a_winner_that_has_not_ended_is_found():
    """The recorded decision has to be possible."""
    run = Drive(made_of(lambda: First(Sleep(5), charge(1)), c()))
    events = [attrs.evolve(e, winner=0) if isinstance(e, RaceDecided) else e for e in run.events]
    again = run.fresh(run.definition)
    with pytest.raises(HistoryMismatch, match="branch 0 won, and has not ended"):
        again.replay(events)


# --- histories that cannot be ------------------------------------------------------------------------------------


def prefix() -> tuple[Drive, int]:
    """A run that waits for a sleep, and the time."""
    run = Drive(made_of(*RECORDED))
    return run, run.now_us


IMPOSSIBLE: dict[str, Callable[[int], Event]] = {
    "a second start": lambda at: RunStarted(at, "order", "order-17", 1, CODEC.encode_call((), {}), b""),
    "an unknown id": lambda at: StepCompleted(at, "9", "charge", b"", 1, 1, 1, CODEC.encode(1)),
    "an answered id": lambda at: StepFailed(at, "1", "charge", b"", 1, 1, 1, CODEC.encode(1)),
    "a timer nobody set": lambda at: TimerFired(at, "1"),
    "a timer that still counts": lambda at: TimerCancelled(at, "3"),
    "an end that is none": lambda at: RunCompleted(at, CODEC.encode("done")),
    "a failure that is none": lambda at: RunFailed(at, CODEC.encode_error(ValueError())),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_cannot_have_happened_is_refused(what: str):
    """An event that fits nothing that is open is a mismatch, live as on replay."""
    run, at = prefix()
    with pytest.raises(HistoryMismatch):
        run.interpreter.apply(IMPOSSIBLE[what](at))


def test_a_history_begins_with_its_start():
    """Anything else first is refused."""
    with pytest.raises(HistoryMismatch, match="begins with RunStarted"):
        Interpreter(made_of(c()), CODEC).apply(SignalReceived(1, 1, "x", b""))


def test_nothing_follows_a_closing_event():
    """A closed history that goes on is refused."""
    run = Drive(made_of(c()))
    with pytest.raises(HistoryMismatch, match="goes on after"):
        run.interpreter.apply(SignalReceived(1, 1, "x", b""))


def test_messages_may_come_late():
    """Whoever answered a child or callback cannot know that nobody waits any more."""
    run, at = prefix()
    run.record(ChildCompleted(at, 1, "77", CODEC.encode(1)))
    run.record(CallbackCompleted(at, 2, "78", CODEC.encode(1)))
    run.check()


def test_a_run_ended_from_outside_is_closed():
    """Its code is not asked."""
    run, at = prefix()
    run.record(RunTerminated(at, "because"))
    assert run.check().interpreter.closed
    assert run.interpreter.outcome is None


def test_equal_programs_are_never_flagged():
    """The same commands made elsewhere, at other lines, fit the history."""

    def otherwise() -> Flow[Any]:
        yield charge(1)
        yield from ship(1)
        yield Sleep(5.0)
        yield charge(2)
        return "done"

    run = Drive(made_of(*RECORDED)).pass_time()
    assert run.replay(workflow(name="order")(otherwise)).closed


def test_checkpoints_are_found_by_id():
    """An event without fingerprint still has to meet its kind of command."""
    run = Drive(made_of(Checkpoint))
    with pytest.raises(HistoryMismatch, match="recorded  checkpoint"):
        run.replay(made_of(c()))
