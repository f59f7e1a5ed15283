"""`Patched`, `ContinueAsNew`, `SideEffect`, `Send`, `Checkpoint`, `Publish`, and what is answered from the history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from dalsegno.core.commands import (
    All,
    Checkpoint,
    ContinueAsNew,
    Flow,
    Info,
    Now,
    Patched,
    Publish,
    Random,
    Receive,
    Send,
    SideEffect,
    Sleep,
    Uuid,
)
from dalsegno.core.definitions import step, workflow
from dalsegno.core.errors import BadOption, EncodeError
from dalsegno.core.events import PatchAdopted, RunPaused, RunResumed
from dalsegno.core.interpreter import Continued
from tests.core.interpreter.drive import Drive


@step
def work(n: int = 0) -> int:
    return n


@step
def better(n: int = 0) -> int:
    return n


# --- Patched -------------------------------------------------------------------------------------------------------


@workflow(name="ships")
def before() -> Flow[Any]:
    yield from work(1)
    yield from work(2)
    return "old"


@workflow(name="ships")
def after() -> Flow[Any]:
    yield from work(1)
    if (yield from Patched("better")):
        yield from better(2)
        return "new" if (yield from Patched("better")) else "?"
    yield from work(2)
    return "old"


def test_new_runs_take_the_new_branch():
    """The adoption is recorded once, and every replay agrees."""
    run = Drive(after)
    assert run.result() == "new"
    assert sum(isinstance(event, PatchAdopted) for event in run.events) == 1


def test_runs_that_went_past_take_the_old_branch():
    """A history that goes on after the place was made by the old code."""
    run = Drive(before)
    run.definition = after
    assert run.replay().closed


def test_a_run_that_waits_at_the_place_takes_the_new_branch():
    """At the end of the history the code has not been further: the change can still be adopted."""
    run = Drive(before, by_hand=["work"]).complete("1")
    again = run.replay(after)
    assert [w.kind for w in again.take().issued] == ["patched"]


def test_pausing_does_not_count_as_going_past():
    """Events made without asking the code say nothing about it."""
    run = Drive(before, by_hand=["work"]).complete("1")
    run.record(RunPaused(run.now_us, "lunch"))
    run.record(RunResumed(run.now_us))
    again = run.replay(after)
    assert [w.kind for w in again.take().issued] == ["patched"]


def test_the_adopted_change_is_met_at_the_same_time():
    """What follows `Patched` sees the time and the order it saw live."""

    @workflow
    def timed() -> Flow[Any]:
        yield from work(1)
        yield from Patched("x")
        return (yield from Now())

    run = Drive(timed, by_hand=["work"])
    record = run.record

    def later(event: Any) -> None:
        run.now_us += 1
        record(type(event)(run.now_us, event.change) if isinstance(event, PatchAdopted) else event)

    run.record = later  # type: ignore[method-assign]
    run.complete("1").result()


def test_removing_a_change_later_is_fine():
    """Code that no longer asks passes over the record that it was adopted."""

    @workflow(name="ships")
    def cleaned() -> Flow[Any]:
        yield from work(1)
        yield from better(2)
        return "new"

    run = Drive(after)
    assert run.replay(cleaned).closed


def test_asking_in_several_places_at_once():
    """All who ask while the adoption is being recorded are answered by it."""

    def asks() -> Flow[bool]:
        return (yield from Patched("x"))

    @workflow
    def many() -> Flow[Any]:
        return (yield from All(asks(), Patched("x"), asks()))

    assert Drive(many).result() == (True, True, True)


# --- ContinueAsNew -------------------------------------------------------------------------------------------------


@workflow
def generations(n: int) -> Flow[Any]:
    yield from work(n)
    yield from ContinueAsNew(n + 1)


def test_continuing_as_new_ends_the_run():
    """The outcome carries the next arguments; whatever else is open is dropped."""
    run = Drive(generations, 3)
    assert isinstance(run.interpreter.outcome, Continued)
    assert run.result() == ((4,), {})


def test_continuing_from_a_branch():
    """Any fiber may do it, and signals not received yet are carried over."""

    def goes() -> Flow[Any]:
        yield from Receive("go")
        yield from ContinueAsNew("again")

    @workflow
    def both() -> Flow[Any]:
        yield from All(Receive("x"), goes())

    run = Drive(both).signal("spare", 1).signal("go")
    assert run.result() == (("again",), {})
    assert [signal.name for signal in run.interpreter.carried()] == ["spare"]


def test_signals_after_the_end_are_left_over():
    """A message that arrives between the end and its record goes to the next run."""

    @workflow
    def waits() -> Flow[Any]:
        yield from All(Receive("x"), ContinueAsNew())

    run = Drive(waits, by_hand=["work"])
    run.events.pop()
    again = run.fresh(waits)
    again.replay(run.events)
    assert again.outcome is not None
    run.interpreter = again
    run.signal("x", 1)
    assert [signal.name for signal in again.carried()] == ["x"]


# --- recorded at once ----------------------------------------------------------------------------------------------


def test_a_side_effect_is_recorded():
    """The function is called once, and the value is the recorded one ever after."""
    drawn = iter(range(100))

    @workflow
    def draws() -> Flow[Any]:
        first = yield from SideEffect(lambda: next(drawn))
        return [first, (yield from SideEffect(lambda: next(drawn)))]

    assert Drive(draws).result() == [0, 1]
    assert next(drawn) == 2


def test_a_failing_side_effect_raises():
    """Its exception is recorded, too."""

    @workflow
    def fails() -> Flow[Any]:
        yield from SideEffect(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        Drive(fails).result()


def test_send_and_checkpoint():
    """Both answer nothing; a target that is not there raises."""

    @workflow
    def sends() -> Flow[Any]:
        yield from Send("other-1", "hello", {"a": 1})
        yield from Checkpoint()
        try:
            yield from Send("gone", "hello")
        except LookupError:
            return "gone"

    assert Drive(sends, unreachable=["gone"]).result() == "gone"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Send("", "x"),
        lambda: Send("x", ""),
        lambda: Publish(cast(Any, 3), 4),
        lambda: Send(cast(Any, 5), "x"),
    ],
)
def test_nonsense_is_refused_at_its_line(make: Callable[[], Any]):
    """The line that makes it raises, and the workflow may catch it."""

    @workflow
    def odd() -> Flow[Any]:
        try:
            yield from make()
        except BadOption:
            return "refused"

    assert Drive(odd).result() == "refused"


# --- from the history ----------------------------------------------------------------------------------------------


def test_published_values_are_handed_out():
    """The latest value of each key; one that cannot be stored raises at its line."""

    @workflow
    def shows() -> Flow[Any]:
        yield from Publish("stage", 1)
        yield from Publish("stage", 2)
        try:
            yield from Publish("stage", object())
        except EncodeError:
            yield from Publish("error", True)
        yield from Sleep(1)
        yield from Publish("stage", 3)

    run = Drive(shows)
    assert run.state == {"stage": 2, "error": True}
    run.pass_time().result()
    assert run.state["stage"] == 3


def test_chance_is_the_same_on_every_replay():
    """UUIDs and random numbers come from the seed and the place, and differ from draw to draw."""

    def draws() -> Flow[Any]:
        return [str((yield from Uuid())), (yield from Random()).random(), str((yield from Uuid()))]

    @workflow
    def chance() -> Flow[Any]:
        a, b = yield from All(draws(), draws())
        c = yield from draws()
        yield from Sleep(1)
        return [*a, *b, *c]

    run = Drive(chance).pass_time()
    drawn = run.result()
    assert len(set(drawn)) == 9
    assert drawn[0][14] == "4"


def test_info_says_who_is_running():
    """Ids, and the length of the history so far."""

    @workflow
    def asks() -> Flow[Any]:
        yield from work(1)
        info = yield from Info()
        return [info.workflow_id, info.run_id, info.attempt, info.workflow, info.history_length]

    assert Drive(asks).result() == ["order-17", "order-17#1", 1, "asks", 2]


def test_uncounted_commands_shift_nothing():
    """Adding `Now`, `Uuid`, `Publish` and the like leaves every id as it was."""

    @workflow(name="ships")
    def more() -> Flow[Any]:
        yield from Now()
        yield from Uuid()
        yield from work(1)
        yield from Publish("a", 1)
        yield from Info()
        yield from work(2)
        yield from Random()
        return "old"

    assert Drive(before).replay(more).closed
