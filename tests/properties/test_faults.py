"""Random programs under random faults, and what their histories must look like whatever happened."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core.policies import CheckpointPolicy
from dalsegno.core.store import Status
from dalsegno.testing.faults import FaultPlan
from dalsegno.testing.histories import check_store
from dalsegno.testing.operations import Program, Script
from dalsegno.testing.performing import Performance
from dalsegno.testing.playing import Player
from dalsegno.testing.programs import programs, scripts
from dalsegno.testing.reference import expected
from tests.properties.test_reference import shown

SEEDS = st.integers(0, 2**16)

OUT_OF_TIME = (
    "mail.twice",
    "sends.twice",
    "step.crash-after",
    "step.crash-before",
    "store.conflict",
    "store.crash-after",
    "store.crash-before",
    "timers.twice",
    "worker.crash",
    "worker.evict",
)
"""Faults that take no virtual time, so that everything still happens when the oracle says."""


def few(seed: int) -> CheckpointPolicy:
    """A policy under which short programs, too, work ahead of their checkpoints."""
    return CheckpointPolicy(every_steps=1 + seed % 4)


@given(programs(comparable=True, once=False), scripts(comparable=True), SEEDS)
def test_faults_that_take_no_time_cannot_be_seen(program: Program, script: Script, seed: int):
    """Crashes, conflicts, evictions and doubled messages, at any point and several times, change no outcome."""
    said = expected(program, script)
    if said is not None:
        plan = FaultPlan(seed, on=0.5, only=OUT_OF_TIME, most=4)
        assert shown(Player(Performance(program), script, seed=seed, faults=plan, checkpoint=few(seed)).play()) == said


@given(programs(), scripts(), SEEDS)
def test_every_run_ends_once_its_faults_have_healed(program: Program, script: Script, seed: int):
    """Whatever went wrong meanwhile, no promise is broken (the witness looks on), and afterwards every run ends."""
    player = Player(Performance(program), script, seed=seed, faults=FaultPlan(seed), checkpoint=few(seed))
    player.play()
    assert not [run for run in player.store.runs() if run.status.open or run.status is Status.BLOCKED]
    assert check_store(player.store) == []


@given(programs(), scripts(), SEEDS)
def test_histories_keep_every_rule(program: Program, script: Script, seed: int):
    """Nothing is lost, doubled, early or out of order in any history, or between any two."""
    player = Player(Performance(program), script, seed=seed, checkpoint=few(seed))
    player.play()
    assert check_store(player.store, steady_clock=True) == []
    assert player.store.check() == []
