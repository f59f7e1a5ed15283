"""Leaving memory at any point, and coming back by replay."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core.store import Status
from dalsegno.testing.operations import Program, Script
from dalsegno.testing.performing import Performance
from dalsegno.testing.playing import Player
from dalsegno.testing.programs import programs, scripts
from dalsegno.testing.reference import expected
from tests.properties.test_reference import shown

SEEDS = st.integers(0, 2**16)

WAYS: list[dict[str, Any]] = [{"cold": True}, {"live_max": 0}, {"put_away_after": 0}]
"""With every activation a replay; with all idle runs put away at each tick; with those that have been idle at all."""


@pytest.mark.parametrize("options", WAYS, ids=str)
@given(programs(comparable=True), scripts(comparable=True), SEEDS)
def test_runs_put_away_come_back_as_they_were(options: dict[str, Any], program: Program, script: Script, seed: int):
    """Whenever its code leaves memory, a program ends as it should."""
    said = expected(program, script)
    if said is not None:
        assert shown(Player(Performance(program), script, seed=seed, **options).play()) == said


@pytest.mark.parametrize("options", WAYS, ids=str)
@given(programs(), scripts(), SEEDS)
def test_no_body_runs_twice_because_code_left_memory(
    options: dict[str, Any], program: Program, script: Script, seed: int
):
    """Whatever a program does, putting it away blocks none of its runs and repeats no attempt of a step."""
    player = Player(Performance(program), script, seed=seed, **options)
    player.play()
    assert not [run for run in player.store.runs() if run.status.open or run.status is Status.BLOCKED]
    times = Counter((body.key, body.attempt) for body in player.performance.ledger.ran)
    assert max(times.values(), default=1) == 1
