"""Replay: every prefix of every history leads to where the live run was."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core.events import CLOSING, Event
from dalsegno.core.history import decode_history
from dalsegno.core.interpreter import Continued, Interpreter
from dalsegno.core.values.codec import Codec
from dalsegno.testing.operations import Program, Script
from dalsegno.testing.performing import Performance
from dalsegno.testing.playing import Player
from dalsegno.testing.programs import programs, scripts

SEEDS = st.integers(0, 2**16)
CODEC = Codec()


def play(program: Program, script: Script, seed: int) -> tuple[Performance, list[list[Event]]]:
    """A program, and the histories of all runs it took."""
    performance = Performance(program)
    outcome = Player(performance, script, seed=seed).play()
    return performance, [decode_history(history) for history in outcome.histories.values()]


def fresh(performance: Performance, events: list[Event]) -> Interpreter:
    """An interpreter for the run that this is the history of."""
    started: Any = events[0]
    definitions = {definition.name: definition for definition in (performance.workflow, performance.part)}
    return Interpreter(definitions[started.workflow], CODEC)


def standing(interpreter: Interpreter) -> tuple[Any, ...]:
    """Where a run stands: what it waits for, what was buffered, and how its code ended."""
    waiting = [
        (w.id, w.kind, w.name, w.digest, w.payload, w.line, w.attempt, w.started, w.deadline_us, w.retry_at_us)
        for w in sorted(interpreter.waiting.values(), key=lambda w: w.id)
    ]
    outcome = interpreter.outcome
    return (
        waiting if outcome is None else (),
        outcome.payload if isinstance(outcome, Continued) else outcome and outcome,
        interpreter.carried(),
        interpreter.now_us,
        interpreter.count,
        interpreter.cancel_requested,
    )


@given(programs(), scripts(), SEEDS)
def test_every_prefix_replays_to_where_the_live_run_was(program: Program, script: Script, seed: int):
    """Replaying the first n events in one go ends where folding them one by one, as an engine does, had ended."""
    performance, histories = play(program, script, seed)
    for events in histories:
        live = fresh(performance, events)
        live.replay(events[:1])
        for length in range(1, len(events) + 1):
            if length > 1:
                live.take()
                live.apply(events[length - 1])
            again = fresh(performance, events)
            again.replay(events[:length])
            assert standing(again) == standing(live), (length, events[length - 1])
            again.evict()
        live.evict()


@given(programs(), scripts(), SEEDS)
def test_a_whole_history_tells_how_it_ended(program: Program, script: Script, seed: int):
    """Every history replays to its closing event, and code that has ended asks for nothing more."""
    performance, histories = play(program, script, seed)
    for events in histories:
        again = fresh(performance, events)
        again.replay(events)
        assert type(events[-1]) in CLOSING
        assert again.closed
        assert again.outcome is None or not again.take().issued
        again.evict()


@given(programs(), scripts(), SEEDS)
def test_replaying_runs_no_body(program: Program, script: Script, seed: int):
    """A replay adds nothing to the ledger of bodies, and reads nothing from outside a second time."""
    performance, histories = play(program, script, seed)
    before, chance = list(performance.ledger.ran), performance.ledger.chance()
    for events in histories:
        again = fresh(performance, events)
        again.replay(events)
        again.evict()
    assert performance.ledger.ran == before
    assert performance.ledger.chance() == chance + 1
