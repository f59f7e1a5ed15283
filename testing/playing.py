"""Programs played through in simulations, with all that happens to them.

    performance = Performance(program)
    outcome = Player(performance, script, seed=3).play()

The player applies the script at its virtual times, crashes the simulation where it is told to and opens the next one on
the same store, and brings every run to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.engine.run import Run
from dalsegno.core.errors import InvalidToken, RunClosed
from dalsegno.core.store import Backend, Status
from dalsegno.testing import operations as p
from dalsegno.testing.clock import VirtualClock
from dalsegno.testing.performing import Broken, Performance, told
from dalsegno.testing.simulation import Simulation

PIECES_MAX = 20_000
"""More than any program needs; a simulation that does more goes round in circles."""


@attrs.frozen
class Outcome:
    """What came of a program: how it ended, what it left, and the histories of all runs it took."""

    status: Status
    value: Any
    error: str
    state: dict[str, Any]
    histories: dict[str, tuple[bytes, ...]] = attrs.field(repr=False)

    @property
    def seen(self) -> tuple[Any, ...]:
        """What can be seen from outside."""
        return (self.status, self.value, self.error, self.state)


class Player:
    """Plays one performance in simulations.

    `crashes`: after so many pieces, counted over all lives, the simulation is dropped and another one goes on.
    """

    def __init__(
        self,
        performance: Performance,
        script: p.Script = p.CALM,
        *,
        seed: int = 0,
        store: Backend | None = None,
        crashes: Sequence[int] = (),
        **options: Any,
    ) -> None:
        self.performance, self.script, self.seed = performance, script, seed
        self.store = store if store is not None else MemoryBackend()
        self.clock = VirtualClock()
        self.lives = self.pieces = 0
        self._crashes = sorted(crashes, reverse=True)
        self._options = options
        self.simulation = self._open()

    def _open(self) -> Simulation:
        self.lives += 1
        seed = self.seed + 1000 * (self.lives - 1)
        return Simulation(self.performance.workflows, seed=seed, store=self.store, clock=self.clock, **self._options)

    def crash(self) -> None:
        """Drop the simulation; the next one goes on with what is stored."""
        self.pieces += self.simulation.pieces
        self.simulation.crash()
        self.simulation = self._open()

    @property
    def run(self) -> Run[Any]:
        """The program's run."""
        return self.simulation.get("program")

    def play(self) -> Outcome:
        """Play to the end."""
        self.simulation.start(self.performance.workflow, id="program")
        begun = self.clock.steady_us()
        for stimulus in self.script.stimuli:
            due = begun + round(stimulus.at * 1e6)
            self.drive(lambda: self.run.ended, due)
            if self.run.ended:
                break
            self.clock.advance_us(max(0, due - self.clock.steady_us()))
            self.apply(stimulus)
        self.settle()
        return self.outcome()

    def drive(self, until: Callable[[], bool], due_us: int | None = None) -> bool:
        """Go on until `until()` holds, nothing more can happen, or it is `due_us`; crashing where that is asked for."""
        while True:
            timeout = None if due_us is None else max(0.0, (due_us - self.clock.steady_us()) / 1e6)
            held = self.simulation.run(lambda: self._crash_is_due() or until(), timeout=timeout)
            if not self._crash_is_due():
                return held
            self._crashes.pop()
            self.crash()

    def _crash_is_due(self) -> bool:
        pieces = self.pieces + self.simulation.pieces
        assert pieces < PIECES_MAX, "this simulation goes round in circles"
        return bool(self._crashes) and pieces >= self._crashes[-1]

    def apply(self, stimulus: p.Stimulus) -> None:
        """Do to the run what the script says."""
        try:
            self._do(stimulus)
        except RunClosed:
            pass  # it ended while the message met with faults on its way

    def _do(self, stimulus: p.Stimulus) -> None:
        match stimulus.what:
            case "signal":
                self.run.signal(stimulus.signal, stimulus.value, dedup=str(stimulus.at))
            case "cancel":
                self.run.cancel("by the script")
            case "pause":
                self.run.pause()
            case "resume":
                self.run.resume()

    def settle(self) -> None:
        """Bring everything to its end: heal faults, answer callbacks, then cancel, then terminate what still waits."""
        if "faults" in self._options:
            self.simulation.heal()
        for means in (Run.resume, Run.cancel, Run.terminate):
            while True:
                self.drive(lambda: False)
                if not self._answer_callbacks():
                    break
            for run in self._open_runs():
                means(run)
            self.drive(lambda: False)
        assert not self._open_runs(), "a run that does not end although it was terminated"

    def _open_runs(self) -> list[Run[Any]]:
        return self.simulation.runs(status=(Status.RUNNING, Status.PAUSED))

    def _answer_callbacks(self) -> bool:
        tokens, self.performance.ledger.tokens = self.performance.ledger.tokens, {}
        for token, op in tokens.items():
            try:
                if op.fails:
                    self.simulation.fail(token, Broken("callback"))
                else:
                    self.simulation.complete(token, op.value)
            except InvalidToken:
                pass  # the run has ended, or a body that ran twice handed the token out twice
        return bool(tokens)

    def outcome(self) -> Outcome:
        """What came of it."""
        run, value, error = self.run, None, ""
        try:
            value = run.outcome()
        except Exception as raised:
            error = told(raised)
        histories = {run.run_id: tuple(self.store.history(run.number)) for run in reversed(self.store.runs())}
        return Outcome(run.status, value, error, run.state, histories)
