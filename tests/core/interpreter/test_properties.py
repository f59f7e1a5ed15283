"""Random programs: every prefix of a history leads where the run was, with finished scopes passed over or run again.

A program is plain data (nested tuples), turned into generators by `interpret`, so that Hypothesis can shrink it.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dalsegno.core.commands import All, First, Flow, Map, Now, Patched, Receive, Scope, Shield, Sleep, Spawn, Uuid
from dalsegno.core.definitions import step, workflow
from dalsegno.core.errors import Cancelled, TimedOut
from dalsegno.core.policies import Completion
from tests.core.interpreter.drive import ALIVE, Drive


@step
def work(n: int) -> int:
    if n == 3:
        raise ValueError(n)
    return n


def interpret(program: Any) -> Flow[list[Any]]:
    """Run a program; the value says everything it saw."""
    seen: list[Any] = []
    tasks: list[Any] = []
    for kind, value in program:
        try:
            seen.append((yield from one(kind, value, tasks)))
        except (ValueError, TimedOut) as error:
            seen.append(type(error).__name__)
        except Cancelled:
            seen.append((yield from work(0)))
            raise
    return seen


def one(kind: str, value: Any, tasks: list[Any]) -> Flow[Any]:
    """Run one statement."""
    match kind:
        case "work":
            return (yield from work(value))
        case "sleep":
            yield from Sleep(value)
            return str((yield from Now()))
        case "hear":
            return (yield from Receive("ab"[value % 2], timeout=value or None))
        case "chance":
            return str((yield from Uuid()))
        case "patch":
            return (yield from Patched(f"change {value}"))
        case "all":
            return list((yield from All([interpret(each) for each in value])))
        case "first":
            won = yield from First(*[interpret(each) for each in value])
            return [won.key, won.value]
        case "map":
            made = yield from Map(interpret, value, concurrency=2, completion=Completion(min_successful=2))
            return [[outcome.status, outcome.value] for outcome in made]
        case "scope":
            return (yield from Scope(interpret(value)))
        case "shield":
            return (yield from Shield(interpret(value)))
        case "spawn":
            tasks.append((yield from Spawn(interpret(value))))
            return "spawned"
        case _:
            return (yield from tasks[value % len(tasks)]) if tasks else None


LEAVES = st.one_of(
    st.tuples(st.sampled_from(["work", "sleep", "hear", "patch", "await"]), st.integers(0, 3)),
    st.just(("chance", 0)),
)


def bodies(inside: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Statements with programs inside them."""
    programs = st.lists(inside, min_size=1, max_size=3)
    return st.one_of(
        st.tuples(st.sampled_from(["all", "first", "map"]), st.lists(programs, min_size=1, max_size=3)),
        st.tuples(st.sampled_from(["scope", "scope", "shield", "spawn"]), programs),
    )


PROGRAMS = st.lists(st.recursive(LEAVES, bodies, max_leaves=12), min_size=1, max_size=4)
EVENTS = st.lists(st.sampled_from(["step", "last step", "time", "a", "b", "a", "b", "cancel"]), max_size=25)


@workflow
def runs(program: Any) -> Flow[Any]:
    return (yield from interpret(program))


def play(program: Any, script: list[str]) -> Drive:
    """A run of the program to which the script happens, as far as the run lets it; `cancel` comes last."""
    run = Drive(runs, program, by_hand=["work"])
    for number, what in enumerate([*script, *["step", "time"] * 10]):
        if run.interpreter.closed:
            break
        steps = [w for w in run.interpreter.waiting.values() if w.kind == "step"]
        if what in ("step", "last step") and steps:
            run.run_step(steps[0 if what == "step" else -1])
            run.settle()
        elif what == "time":
            run.pass_time()
        elif what in ("a", "b"):
            run.signal(what, number)
        elif what == "cancel" and number > 10:
            run.cancel()
    return run


@settings(deadline=None)
@given(PROGRAMS, EVENTS)
def test_every_replay_leads_where_the_run_was(program: Any, script: list[str]):
    """Waiting commands, outcome, signals left over and time are equal after every event, however it was reached."""
    run = play(program, script)
    try:
        run.check()
        for cut in range(1, len(run.events), 5):
            again = run.fresh(runs)
            again.replay(run.events[:cut])
            for event in run.events[cut:]:
                again.apply(event)
            assert list(again.waiting) == list(run.interpreter.waiting)
    finally:
        while ALIVE:
            ALIVE.pop().evict()


@settings(deadline=None)
@given(PROGRAMS, EVENTS)
def test_eviction_leaves_nothing_behind(program: Any, script: list[str]):
    """Whatever stands where, it can be put away without a command being carried out."""
    run = play(program, script)
    before = len(run.events)
    assert run.interpreter.evict()
    assert len(run.events) == before
    while ALIVE:
        ALIVE.pop().evict()
