"""What is measured of `dalsegno.testing`: random programs in simulation, beside an oracle that works them out;
and what the determinism guard costs.

The programs are those that our own property tests draw, with the same seed each time; writing them is not measured.
"""

from __future__ import annotations

import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks.measuring import Figures, probe
from benchmarks.scenarios import many
from dalsegno.testing.guard import determinism_guard
from dalsegno.testing.operations import Program, Script
from dalsegno.testing.performing import Performance
from dalsegno.testing.playing import Player
from dalsegno.testing.programs import programs, scripts
from dalsegno.testing.reference import run_reference
from dalsegno.testing.simulation import Simulation

SEED = 7

Written = list[tuple[Program, Script]]


def written(size: int) -> Written:
    """So many programs, with what happens to each meanwhile."""
    found: Written = []

    @seed(SEED)
    @settings(
        max_examples=size,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs(comparable=True), scripts(comparable=True))
    def write(program: Program, script: Script) -> None:
        found.append((program, script))

    write()
    return found


@probe
def simulating(folder: Path, size: int) -> Figures:
    """Each program in a simulation of its own, from opening the engine to the outcome, on one core."""
    plays = written(size)
    begun = time.process_time()
    for at, (program, script) in enumerate(plays):
        Player(Performance(program), script, seed=at).play()
    return {"programs/min": 60 * len(plays) / (time.process_time() - begun)}


@probe
def referring(folder: Path, size: int) -> Figures:
    """The oracle on the same programs."""
    plays = written(size)
    begun = time.process_time()
    for program, script in plays:
        run_reference(program, script)
    return {"programs/min": 60 * len(plays) / (time.process_time() - begun)}


# --- the determinism guard -------------------------------------------------------------------------------------------


def simulated_steps(size: int) -> Figures:
    """Steps that do nothing, one after another in a simulation: what a guard costs is dearest here."""
    with Simulation([many]) as simulation:
        begun = time.process_time()
        assert simulation.start(many, size).result() == size
        return {"steps/s": size / (time.process_time() - begun)}


@probe
def steps_under_guard(folder: Path, size: int) -> Figures:
    with determinism_guard("raise"):
        return simulated_steps(size)


@probe
def steps_without_guard(folder: Path, size: int) -> Figures:
    return simulated_steps(size)
