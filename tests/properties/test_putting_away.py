"""Leaving memory at any point, and coming back by replay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.testing.playing import Performance, Player
from dalsegno.testing.programs import Program, Script, programs, scripts
from dalsegno.testing.reference import expected
from tests.properties.test_reference import shown

SEEDS = st.integers(0, 2**16)


@given(programs(), scripts(), SEEDS)
def test_a_cold_engine_writes_the_same_histories(program: Program, script: Script, seed: int):
    """With every activation a replay, the histories are those of an engine that keeps its runs, byte for byte."""
    warm, cold = Performance(program), Performance(program)
    assert Player(cold, script, seed=seed, cold=True).play() == Player(warm, script, seed=seed).play()
    assert cold.ledger.ran == warm.ledger.ran


@pytest.mark.parametrize("options", [{"live_max": 0}, {"put_away_after": 0}], ids=str)
@given(programs(comparable=True), scripts(comparable=True), SEEDS)
def test_runs_put_away_come_back_as_they_were(options: dict[str, Any], program: Program, script: Script, seed: int):
    """Whenever the clockwork puts runs away, programs end as they should."""
    said = expected(program, script)
    if said is not None:
        assert shown(Player(Performance(program), script, seed=seed, **options).play()) == said
