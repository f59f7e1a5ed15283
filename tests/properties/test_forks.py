"""Forks: a run from any prefix of another's history comes to the same end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dalsegno.testing.operations import CALM, Program
from dalsegno.testing.performing import Performance
from dalsegno.testing.playing import Player
from dalsegno.testing.programs import programs
from dalsegno.testing.reference import expected

SEEDS = st.integers(0, 2**16)


@given(programs(comparable=True, once=False), SEEDS, st.integers(0, 60))
def test_a_fork_at_any_moment_ends_as_its_original_does(program: Program, seed: int, pieces: int):
    """Forked off at any moment, with timers and children set up anew, a run comes to the same end, and publishes the
    same. (What the original has sent itself and not received yet is not in the history: such programs are left out.)"""
    said = expected(program, CALM)
    if said is None or "Post(" in repr(program) or "Restart(" in repr(program):
        return
    player = Player(Performance(program), seed=seed)
    run = player.simulation.start(player.performance.workflow, id="program")
    player.simulation.run(lambda: player.simulation.pieces >= pieces)
    if not run.status.open:
        return
    twin = run.fork(len(run.history()), id="twin")
    player.settle()
    for each in (run, twin):
        error = each.error
        assert (each.status.value, each.state) == (said.status, said.state), each.id
        assert (each.outcome() if error is None else None) == said.value, each.id
