"""Crashes: at any piece of work, once or several times, and recovery on the same store."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dalsegno.core.events import StepAttemptFailed, StepCompleted, StepFailed
from dalsegno.core.history import decode_event
from dalsegno.core.store import Status
from dalsegno.testing.operations import Program, Script
from dalsegno.testing.performing import BodyRun, Performance
from dalsegno.testing.playing import Player
from dalsegno.testing.programs import programs, scripts
from dalsegno.testing.reference import expected
from tests.properties.test_reference import shown

SEEDS = st.integers(0, 2**16)


class Mortal(Player):
    """A player that notes at each crash which attempts were recorded, and how many bodies had run."""

    def crash(self) -> None:
        recorded = set()
        for run in self.store.runs():
            for stored in self.store.history(run.number):
                match decode_event(stored):
                    case StepAttemptFailed(id=id, attempt=attempt):
                        recorded.add((f"{run.run_id}/{id}", attempt))
                    case StepCompleted(id=id) | StepFailed(id=id):
                        recorded |= {(f"{run.run_id}/{id}", attempt) for attempt in range(1, 10)}
        self.marks = [*getattr(self, "marks", []), (len(self.performance.ledger.ran), recorded)]
        super().crash()

    def repeated(self) -> list[BodyRun]:
        """Attempts that ran although their outcome had been recorded before a crash."""
        ran = self.performance.ledger.ran
        return [
            body for at, recorded in getattr(self, "marks", []) for body in ran[at:]
            if (body.key, body.attempt) in recorded
        ]  # fmt: skip


def count_pieces(program: Program, script: Script, seed: int) -> int:
    """How many pieces of work a program takes without crashes."""
    player = Player(Performance(program), script, seed=seed)
    player.play()
    return player.simulation.pieces


def check_ledger(player: Mortal, crashes: int) -> None:
    """What the ledger must say after crashes: nothing recorded was repeated, nor anything `once`."""
    ran = player.performance.ledger.ran
    assert not player.repeated()
    times = Counter((body.key, body.attempt, body.kind) for body in ran)
    assert all(count == 1 for (_, _, kind), count in times.items() if kind == "once")
    assert max(times.values(), default=1) <= 1 + crashes


@given(programs(comparable=True, once=False), scripts(comparable=True), SEEDS, st.floats(0, 1))
def test_a_crash_at_any_piece_changes_nothing(program: Program, script: Script, seed: int, share: float):
    """Killed after any piece of work and opened again, a program ends as if nothing had happened."""
    said = expected(program, script)
    if said is not None:
        dies_at = round(share * count_pieces(program, script, seed))
        player = Mortal(Performance(program), script, seed=seed, crashes=[dies_at])
        assert shown(player.play()) == said
        check_ledger(player, crashes=1)


@given(programs(), scripts(), SEEDS, st.lists(st.integers(1, 120), max_size=6))
def test_any_program_survives_many_crashes(program: Program, script: Script, seed: int, crashes: list[int]):
    """However often it is killed, every run ends, none is blocked, and no recorded step runs again."""
    player = Mortal(Performance(program), script, seed=seed, crashes=crashes)
    player.play()
    check_ledger(player, crashes=len(crashes))
    assert not [run for run in player.store.runs() if run.status.open or run.status is Status.BLOCKED]
