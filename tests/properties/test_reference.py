"""The engine against the oracle, which knows nothing of histories, stores and replay."""

from __future__ import annotations

from hypothesis import event, given
from hypothesis import strategies as st

from dalsegno.testing.operations import Program, Script
from dalsegno.testing.performing import Performance
from dalsegno.testing.playing import Outcome, Player
from dalsegno.testing.programs import programs, scripts
from dalsegno.testing.reference import Expected, expected

SEEDS = st.integers(0, 2**16)


def shown(outcome: Outcome) -> Expected:
    """An outcome in the oracle's words."""
    return Expected(outcome.status.value, outcome.value, outcome.error, outcome.state)


@given(programs(comparable=True), scripts(comparable=True), SEEDS)
def test_the_engine_does_what_the_oracle_says(program: Program, script: Script, seed: int):
    """Status, value, error and published state of a program are those that follow from its text alone."""
    said = expected(program, script)
    event("differs by order" if said is None else said.status)
    if said is not None:
        assert shown(Player(Performance(program), script, seed=seed).play()) == said


@given(programs(comparable=True), scripts(comparable=True), st.lists(SEEDS, min_size=2, max_size=2, unique=True))
def test_chance_in_scheduling_does_not_show(program: Program, script: Script, seeds: list[int]):
    """What does not depend on an order comes out the same whatever the scheduler draws."""
    if expected(program, script) is not None:
        first, second = (Player(Performance(program), script, seed=seed).play() for seed in seeds)
        assert first.seen == second.seen
