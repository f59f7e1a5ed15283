"""Walking through a history: standing at any event, what is seen there, and how fast one gets about."""

from __future__ import annotations

from typing import Any

import pytest

from dalsegno import All, Flow, Publish, Scope, step, workflow
from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.errors import BadOption
from dalsegno.core.events import Event, RunStarted, ScopeCompleted, StepCompleted
from dalsegno.core.interpreter import Interpreter
from dalsegno.core.store import open_store
from dalsegno.core.values.codec import Codec
from dalsegno.tools.stores import find_run, read_run
from dalsegno.tools.walking import FIBERS_MAX, WAY_POINTS, Walk
from tests.tools import shop, shop_changed

CODEC = Codec()


@step
def add(number: int) -> int:
    return number


@workflow
def totals(count: int) -> Flow[int]:
    total = 0
    for number in range(count):
        got = yield from add(number)
        total += got
    return total


def pair(start: int) -> Flow[int]:
    first = yield from add(start)
    second = yield from add(first + 1)
    return first + second


@workflow
def nested(start: int) -> Flow[int]:
    yield from Publish("stage", "pair")
    sum_of_pair = yield from pair(start)
    both = yield from All(pair(10), pair(20))
    inside = yield from Scope(pair(30))
    return sum_of_pair + sum(both) + inside


def history(definition: WorkflowDefinition[Any, Any], *arguments: Any, steps: int = 10_000) -> list[Event]:
    """What would be recorded if each step answered its argument at once."""
    events: list[Event] = [RunStarted(0, definition.name, "a", 1, CODEC.encode_call(arguments, {}), b"seed")]
    interpreter = Interpreter(definition, CODEC)
    interpreter.replay(events)
    while interpreter.outcome is None and len(events) <= steps:
        asked = next(iter(interpreter.waiting.values()))
        now = len(events) * 1000
        command: Any = asked.command
        event: Event = StepCompleted(
            now, asked.id, asked.name, asked.digest, asked.line, 1, 5, CODEC.encode(command.args[0])
        ) if asked.kind == "step" else scope_end(asked, now)  # fmt: skip
        events.append(event)
        interpreter.apply(event)
    return events


def scope_end(asked: Any, now: int) -> Event:
    """The event that a scope's proposal asks for."""
    return ScopeCompleted(now, asked.id, asked.line, asked.result, asked.error, asked.consumed)


def local(walk: Walk, at: int, name: str) -> tuple[str, str]:
    """A variable of the innermost generator there, and how it changed."""
    point = walk.at(at)
    stand = next(one for one in point.root.all() if point.answers is None or one.path == point.answers.fiber)
    return next((one.value, one.change) for one in stand.levels[-1].locals if one.name == name)


def test_locals_at_every_event():
    """At event N the answers before it have been given; what changed since the event before is marked."""
    walk = Walk(history(totals, 5, steps=5), totals, CODEC)
    assert [local(walk, at, "total") for at in (1, 2, 3, 4)] == [
        ("0", "new"), ("0", ""), ("1", "changed"), ("3", "changed")
    ]  # fmt: skip
    assert local(walk, 2, "got") == ("0", "new")
    answers = walk.at(1).answers
    assert answers is not None
    assert "RunStep(step='add', args=(0,)" in answers.command
    assert walk.at(3).now_us == 2000


def test_the_same_whatever_the_way():
    """A point is the same reached forwards, backwards, or by a jump."""
    events = history(totals, 3000, steps=3000)
    forwards = Walk(events, totals, CODEC)
    ahead = [forwards.at(at) for at in range(0, 2001, 50)]
    backwards = Walk(events, totals, CODEC)
    back = [backwards.at(at) for at in range(2000, -1, -50)]
    assert ahead == back[::-1]
    jumps = Walk(events, totals, CODEC)
    for at in (2000, 50, 1950, 1000, 950, 0):
        assert jumps.at(at) == forwards.at(at)
        jumps.rest()


def test_generators_below_and_fibers_beside():
    """Every generator of the chain is there with its variables, and every fiber with what it waits for."""
    events = history(nested, 1)
    walk = Walk(events, nested, CODEC)
    first = walk.at(2)
    assert [level.function for level in first.root.levels] == ["nested", "pair"]
    assert {one.name: one.value for one in first.root.levels[1].locals} == {"start": "1", "first": "1"}
    assert CODEC.decode(first.published["stage"]) == "pair"
    assert first.file == __file__
    assert first.function == "pair"
    beside = walk.at(3)
    assert [one.path for one in beside.root.beneath] == ["3.1", "3.2"]
    assert all("step 'add'" not in one.waits_for or "id 3." in one.waits_for for one in beside.root.beneath)
    assert beside.answers is not None
    assert beside.answers.fiber == beside.answers.id.rpartition(".")[0]


def test_the_inside_of_a_scope_is_walked_through():
    """A scope whose end is recorded is walked through all the same, unless its inside was pruned."""
    events = history(nested, 1)
    ends = [index for index, event in enumerate(events) if type(event).__name__ == "ScopeCompleted"]
    walk = Walk(events, nested, CODEC)
    inside = walk.at(ends[0] - 1)
    assert inside.answers is not None
    assert inside.answers.fiber.startswith(events[ends[0]].id)  # type: ignore[attr-defined]
    kept = [event for event in events if not getattr(event, "id", "").startswith(f"{events[ends[0]].id}.")]  # type: ignore[attr-defined]
    pruned = Walk(kept, nested, CODEC)
    assert pruned.skips
    assert pruned.last == len(kept)
    assert not pruned.problem


def test_the_end_and_beyond():
    """After the last event the walk stands at the end; there is nothing to stand at beyond, and nothing before 0."""
    events = history(totals, 3)
    walk = Walk(events, totals, CODEC)
    assert walk.at(len(events)).outcome == "Finished"
    assert walk.at(0).root.levels == ()
    for at in (-1, len(events) + 1):
        with pytest.raises(BadOption, match="numbered 0 to"):
            walk.at(at)


def test_code_that_left_the_history(made: Any):
    """Changed code is walked as far as it fits; the walk says why it ends there."""
    with open_store(f"lmdb:{made}") as store:
        kept = read_run(store, find_run(store, "order-1"))
    walk = Walk(kept.events, shop_changed.fulfil, CODEC)
    assert walk.last == 1
    assert "reserve" in walk.problem
    with pytest.raises(BadOption, match="the code goes no further"):
        walk.at(2)


def test_recorded_runs_are_walked_to_their_end(made: Any):
    """Histories that an engine made fit from the first event to the last, signals and children included."""
    with open_store(f"lmdb:{made}") as store:
        for name, definition in (("order-1", shop.fulfil), ("both-1", shop.both), ("nap-1", shop.nap)):
            walk = Walk(read_run(store, find_run(store, name)).events, definition, CODEC)
            points = [walk.at(at) for at in range(walk.last + 1)]
            assert not walk.problem
            assert points[-1].event is None
            assert all(point.line for point in points[1:] if not point.outcome)


def test_going_to_a_condition():
    """The first event at which something is true of the local variables."""
    walk = Walk(history(totals, 1000, steps=1000), totals, CODEC)
    assert walk.forward(0, lambda at, names: names.get("total", 0) > 100) == 16
    assert walk.forward(500, lambda at, names: names.get("total", 0) > 10) == 500
    assert walk.forward(0, lambda at, names: names.get("total", 0) < 0) is None


def fill(walk: Walk) -> None:
    """Let a walk rest until every way point is in its place."""
    while not walk.rested:
        walk.rest()


def test_a_jump_replays_a_small_part_of_the_history(monkeypatch: pytest.MonkeyPatch):
    """Once the way points are in place, a jump anywhere in ten thousand events goes forward from a near one."""
    events = history(totals, 10_000)
    walk = Walk(events, totals, CODEC)
    walk.at(10_000)
    fill(walk)
    folded: list[int] = []
    replay, apply = Interpreter.replay, Interpreter.apply

    def replaying(self: Interpreter, events: Any, upto: int, **options: Any) -> None:
        folded.append(upto)
        replay(self, events, upto, **options)

    def applying(self: Interpreter, event: Event) -> None:
        folded.append(1)
        apply(self, event)

    monkeypatch.setattr(Interpreter, "replay", replaying)
    monkeypatch.setattr(Interpreter, "apply", applying)
    for at in (9_990, 5_000, 4_999, 4_900, 9_000, 123, 8_888, 8_000, 1, 10_000):
        folded.clear()
        assert walk.at(at).at == at
        assert sum(folded) <= 2 * (len(events) // WAY_POINTS + 1), at
        fill(walk)


@workflow
def wide(count: int) -> Flow[int]:
    return len((yield from All([pair(number) for number in range(count)])))


def test_of_many_fibers_those_near_the_event_are_told():
    """Beneath one fiber at most fifty are described, around the one that hears of the event; the others are counted."""
    events = history(wide, 300, steps=700)
    walk = Walk(events, wide, CODEC)
    for at in (1, 150, 299, 450, 600):
        root = walk.at(at).root
        answers = walk.at(at).answers
        assert answers is not None
        assert answers.fiber in [one.path for one in root.beneath]
        assert len(root.beneath) == min(FIBERS_MAX, len(root.beneath) + root.left_out)
    assert walk.at(1).root.left_out == 250
    assert walk.at(599).root.left_out == 0
    assert not walk.at(601).root.beneath


def test_way_points_are_put_back():
    """Whatever has gone forward is replaced while nobody waits, and there are never many."""
    walk = Walk(history(totals, 4000, steps=4000), totals, CODEC)
    for at in range(3999, 0, -333):
        walk.at(at)
        walk.rest()
    while not walk.rested:
        walk.rest()
    assert len(walk._walkers) <= 17
    walk.close()


def test_a_breakpoint_in_the_code_is_silent_here(monkeypatch: pytest.MonkeyPatch):
    """Walking replays prefixes over and over; `breakpoint()` stops at none of them."""
    called: list[int] = []
    monkeypatch.setattr("sys.breakpointhook", lambda *_: called.append(1))
    walk = Walk(history(stopping, steps=1), stopping, CODEC)
    walk.at(1)
    assert called == [1]  # by the history being made


@workflow
def stopping() -> Flow[int]:
    breakpoint()
    return (yield from add(1))
