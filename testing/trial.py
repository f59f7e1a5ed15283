"""A trial: one run of a workflow, disturbed or not, and what came of it in a form that can be compared.

Two trials agree when the run ended the same way with the same value, published the same, and when the histories of it
and of all runs it started hold the same answers to the same commands. Times, numbers of attempts, arguments and results
of single steps may differ, as may the order in which things that run side by side were done.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs

from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.definitions import Definition, WorkflowDefinition, collect
from dalsegno.core.engine.run import Run
from dalsegno.core.errors import DataError, WorkflowError
from dalsegno.core.events import (
    Event,
    RaceDecided,
    RunCompleted,
    SignalReceived,
    StepAttemptFailed,
    StepFailed,
)
from dalsegno.core.history import decode_history
from dalsegno.core.interpreter import Interpreter
from dalsegno.core.store import Backend, Status
from dalsegno.testing.points import Pin, Pinned, Visit
from dalsegno.testing.simulation import AnyStep, Duration, Simulation
from dalsegno.testing.witness import PromiseBroken, Repeat

PIECES_MAX = 100_000
"""A trial that takes more pieces of work than this goes round in circles."""

ID = "explored"
"""The workflow id of the run that is explored."""

ASPECTS = ("outcome", "state", "history")

Script = Callable[[Simulation, Run[Any]], object]


@attrs.frozen(kw_only=True)
class Play:
    """What is played in each trial: the arguments of `explore_crashes`, which explains them."""

    workflow: WorkflowDefinition[..., Any]
    args: tuple[Any, ...] = ()
    workflows: tuple[Definition, ...] = ()
    script: Script | None = None
    setup: Callable[[], tuple[Any, ...] | None] | None = None
    check: Callable[[Run[Any]], object] | None = None
    store: Callable[[], Backend] = MemoryBackend
    fakes: Mapping[AnyStep, Callable[..., Any]] = attrs.field(factory=dict)
    takes: Mapping[AnyStep, Duration] = attrs.field(factory=dict)
    seed: int = 0
    compare: Collection[str] = ASPECTS

    def definitions(self) -> list[Definition]:
        """The workflow, those given, and those of its module whose names are not taken."""
        named = {each.name: each for each in (self.workflow, *self.workflows)}
        module = sys.modules.get(self.workflow.fn.__module__)
        for each in collect(module) if module is not None else ():
            named.setdefault(each.name, each)
        return list(named.values())

    def perform(self, pins: Sequence[Pin] = (), *, cold: bool = False) -> Trial:
        """Play once, with these pins."""
        replaced = self.setup() if self.setup is not None else None
        args = self.args if replaced is None else tuple(replaced)
        pinned, store = Pinned(pins), self.store()
        trial = Trial()
        try:
            with Simulation(
                self.definitions(), seed=self.seed, store=store, fakes=self.fakes, faults=pinned, cold=cold
            ) as simulation:
                for step, duration in self.takes.items():
                    simulation.takes(step, duration)
                try:
                    self._drive(simulation, args, trial)
                except (AssertionError, PromiseBroken) as error:
                    trial.problem = f"{type(error).__name__}: {error}" if str(error) else _where(error)
                trial.repeats, trial.histories = simulation.witness.repeats(), _histories(simulation)
                trial.visits, trial.struck = pinned.visits[:], pinned.struck  # without those of the closing
        finally:
            store.close()
        return trial

    def _drive(self, simulation: Simulation, args: tuple[Any, ...], trial: Trial) -> None:
        run = simulation.start(self.workflow, *args, id=ID)
        if self.script is not None:
            self.script(simulation, run)
        simulation.run(lambda: run.ended or simulation.pieces > PIECES_MAX)
        trial.outcome = _outcome(run)
        if not run.ended:
            circles = simulation.pieces > PIECES_MAX
            trial.problem = "it goes round in circles" if circles else f"it does not end; {simulation.waits_for(run)}"
            return
        simulation.run(lambda: simulation.pieces > PIECES_MAX)  # what it left behind goes on to its end, too
        trial.state = {key: repr(value) for key, value in run.state.items()}
        trial.unknown = any(_tells_unknown(simulation, each) for each in simulation.runs())
        for each in simulation.runs():
            trial.problem = trial.problem or _replays(simulation, each)
        if self.check is not None and trial.problem is None:
            self.check(run)


@attrs.define
class Trial:
    """What came of a trial. `problem` is what is wrong with it by itself; `unknown`: a `once=True` step was reported
    as possibly done, so that the workflow may rightly have ended otherwise."""

    outcome: str = "not started"
    state: dict[str, str] = attrs.field(factory=dict)
    histories: dict[str, list[Event]] = attrs.field(factory=dict)
    repeats: Counter[Repeat] = attrs.field(factory=Counter)
    visits: list[Visit] = attrs.field(factory=list)
    struck: list[int] = attrs.field(factory=list)
    problem: str | None = None
    unknown: bool = False

    def after(self) -> list[Visit]:
        """The points that came after the last pin struck."""
        return self.visits[self.struck[-1] + 1 :] if self.struck else self.visits


def differs(undisturbed: Trial, trial: Trial, aspects: Iterable[str]) -> str | None:
    """What is wrong with a trial, as a sentence; None if it is as it should be."""
    if trial.problem is not None:
        return trial.problem
    if trial.unknown:
        return None
    if "outcome" in aspects and trial.outcome != undisturbed.outcome:
        return f"it ended otherwise: {trial.outcome}, and undisturbed: {undisturbed.outcome}"
    if "state" in aspects and trial.state != undisturbed.state:
        keys = sorted(undisturbed.state.keys() | trial.state.keys())
        key = next(key for key in keys if undisturbed.state.get(key) != trial.state.get(key))
        return f"it published {key}={trial.state.get(key)}, and undisturbed {key}={undisturbed.state.get(key)}"
    if "history" in aspects:
        return _history_differs(undisturbed.histories, trial.histories)
    return None


def _history_differs(undisturbed: Mapping[str, list[Event]], disturbed: Mapping[str, list[Event]]) -> str | None:
    left, right = _by_id(undisturbed), _by_id(disturbed)
    for id in sorted(left.keys() | right.keys()):
        missing, added = sorted((left[id] - right[id]).elements()), sorted((right[id] - left[id]).elements())
        if missing or added:
            return f"the history of {id!r} has {added or 'nothing'} where undisturbed it has {missing or 'nothing'}"
    return None


def _by_id(histories: Mapping[str, list[Event]]) -> defaultdict[str, Counter[str]]:
    """What has to be the same, by workflow id: a signal may reach one generation or the next."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for run_id, events in histories.items():
        found[run_id.rsplit("#", 1)[0]].update(filter(None, map(essence, events)))
    return found


def essence(event: Any) -> str | None:
    """What of an event has to be the same in every trial; None: the event need not be there."""
    if isinstance(event, StepAttemptFailed):
        return None
    words = [type(event).__name__, getattr(event, "id", ""), getattr(event, "name", "")]
    if isinstance(event, RaceDecided):
        words.append(str(event.winner))
    if isinstance(event, SignalReceived):
        words.append(event.payload.hex())
    return " ".join(filter(None, words))


def _histories(simulation: Simulation) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for run in simulation.runs():
        generations = [simulation.backend.find(run.id, n + 1) for n in range(run.record.generation)]
        for record in filter(None, generations):
            found[record.run_id] = decode_history(simulation.backend.history(record.number))
    return found


def _outcome(run: Run[Any]) -> str:
    record = run.record
    if record.status.open:
        return f"{record.status.value}{': ' if record.reason else ''}{record.reason}"
    last = run.history()[-1]
    if isinstance(last, RunCompleted):
        return f"completed: {run.outcome()!r}"
    error = run.error
    return f"{record.status.value}: {error.type}: {error.message}" if error else record.status.value


def _tells_unknown(simulation: Simulation, run: Run[Any]) -> bool:
    failed = [event for event in run.history() if isinstance(event, StepFailed)]
    return any(simulation.codec.describe_error(event.error).type.endswith("StepOutcomeUnknown") for event in failed)


def _replays(simulation: Simulation, run: Run[Any]) -> str | None:
    """Whether a fresh replay of a closed run's history ends where the run ended."""
    definition = simulation.works.around.workflows.get(run.workflow)
    if run.status in (Status.TERMINATED, Status.BLOCKED) or run.status.open or definition is None:
        return None
    interpreter = Interpreter(definition, simulation.codec)
    try:
        interpreter.replay(run.history())
    except (WorkflowError, DataError) as error:
        return f"the history of {run.run_id} does not replay: {error}"
    return None


def _where(error: BaseException) -> str:
    """An assertion without words is known by its place."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    place = f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}" if at is not None else "somewhere"
    return f"{type(error).__name__} at {place}"
