"""`explore_crashes`: a workflow is broken at every point where it can be, and has to come out the same each time.

First it runs undisturbed, and every point it passes is noted: each call to the store, each body of a step. Then it runs
again for each point and each of four ways to fail there: an error before (nothing was done, and the caller is told), an
error after (it was done, and is reported failed), a crash before, and a crash after. When every single fault is tried,
pairs are sampled: a second fault at a point that comes after the first, half of them within the first few, where the
engine is recovering. Each of these runs has to end as the undisturbed one did, publish the same, hold the same answers
in its histories, and no body may begin whose outcome was recorded.

A simulation is deterministic, so a point is found again by its name and number, and a failure by one line.
"""

from __future__ import annotations

import logging
import multiprocessing
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, Self

from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.definitions import Definition, WorkflowDefinition
from dalsegno.core.engine.run import Run
from dalsegno.core.errors import BadOption
from dalsegno.core.store import Backend
from dalsegno.core.values.codec import Codec
from dalsegno.testing.points import Pin, parse_line
from dalsegno.testing.reporting import Bar, CrashFound, Report, Tried, compare_histories, found
from dalsegno.testing.simulation import AnyStep, Duration
from dalsegno.testing.trial import ASPECTS, Play, Script, Trial, differs

BUDGET_S = 60.0
PAIRS = 100
RECOVERY = 12
"""So many points after a fault count as the recovery from it."""

__all__ = ["CrashFound", "Report", "explore_crashes"]


def explore_crashes(
    workflow: WorkflowDefinition[..., Any],
    *args: Any,
    workflows: Iterable[Definition] = (),
    script: Script | None = None,
    setup: Callable[[], tuple[Any, ...] | None] | None = None,
    check: Callable[[Run[Any]], object] | None = None,
    store: Callable[[], Backend] = MemoryBackend,
    fakes: Mapping[AnyStep, Callable[..., Any]] | None = None,
    takes: Mapping[AnyStep, Duration] | None = None,
    compare: Collection[str] = ASPECTS,
    seed: int = 0,
    pairs: int = PAIRS,
    budget: float = BUDGET_S,
    processes: int = 1,
    only: str | None = None,
    progress: bool = True,
) -> Report:
    """Run a workflow with every single fault, and with pairs of them, and compare each run with the undisturbed one.

    `script(simulation, run)` is called after each start, and says with `simulation.at(…)` what comes from outside:
    signals, cancels. `setup()` is called before each run to put the world in order; a tuple that it returns replaces
    `args`. `check(run)` is called after each run that has ended, undisturbed or not, and raises if something is wrong.
    `store` opens an empty store for each run. `fakes` and `takes` are those of `Simulation`; definitions of the
    workflow's own module are served besides `workflows`. `compare` names what has to be the same, of "outcome",
    "state" and "history": a workflow whose branches race takes fewer.

    Tries at most `pairs` pairs, stops after `budget` seconds, and works in so many `processes`. `only` is the line
    of a failure, and tries just that. Answers a `Report`; raises `CrashFound` (an AssertionError), which tells the line
    and shows both histories.

    >>> from dalsegno import Flow, step, workflow
    >>> @step
    ... def charge(amount: int) -> str:
    ...     return f"charged {amount}"
    >>> @workflow
    ... def pay() -> Flow[str]:
    ...     return (yield from charge(5))
    >>> report = explore_crashes(pay, pairs=5, progress=False)
    >>> report.complete, report.tried > 20
    (True, True)
    """
    if unknown := set(compare) - set(ASPECTS):
        raise BadOption(f"compare={sorted(unknown)}: takes {', '.join(ASPECTS)}")
    play = Play(
        workflow=workflow,
        args=args,
        workflows=tuple(workflows),
        script=script,
        setup=setup,
        check=check,
        store=store,
        fakes=fakes or {},
        takes=takes or {},
        seed=seed,
        compare=tuple(compare),
    )
    with quiet():
        exploration = Exploration(play, pairs=pairs, budget=budget, processes=processes, progress=progress)
        return exploration.one(only) if only is not None else exploration.all()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the engine from logging thousands of failures that are its daily bread here."""
    log = logging.getLogger("dalsegno.engine")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


class Bench:
    """Where trials are made: the play, and its undisturbed trial to compare with. One in every process."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.undisturbed = play.perform()

    def sound(self) -> Tried | None:
        """What is wrong without any fault, if anything: it fails by itself, or when every activation is a replay."""
        if self.undisturbed.problem is not None:
            return self._tried((), self.undisturbed, f"undisturbed, {self.undisturbed.problem}")
        cold = self.play.perform(cold=True)
        wrong = differs(self.undisturbed, cold, self.play.compare)
        return None if wrong is None else self._tried((), cold, f"replayed at every activation, {wrong}")

    def attempt(self, pins: Sequence[Pin]) -> Tried:
        """One disturbed run."""
        trial = self.play.perform(pins)
        problem = differs(self.undisturbed, trial, self.play.compare)
        if problem is None and len(trial.struck) < len(pins):
            problem = f"it never came by {pins[len(trial.struck)]}: a step, script or setup is not deterministic"
        return self._tried(tuple(pins), trial, problem)

    def _tried(self, pins: tuple[Pin, ...], trial: Trial, problem: str | None) -> Tried:
        shown = "" if problem is None else compare_histories(self.undisturbed.histories, trial.histories, Codec())
        return Tried(
            pins=pins,
            struck=len(trial.struck),
            problem=problem,
            comparison=shown,
            repeats=trial.repeats,
            visits=tuple(trial.after()) if len(pins) == 1 else (),
            unknown=trial.unknown,
        )


class Exploration:
    """One call of `explore_crashes`."""

    def __init__(self, play: Play, *, pairs: int, budget: float, processes: int, progress: bool) -> None:
        self._play, self._pairs, self._budget = play, pairs, budget
        self._processes, self._progress = processes, progress
        self._begun = time.monotonic()
        self._chance = random.Random(play.seed)
        self._report = Report(workflow=play.workflow.name, seed=play.seed)
        self._bench = Bench(play)
        self._report.points = Counter(visit.name for visit in self._bench.undisturbed.visits)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._begun

    def one(self, line: str) -> Report:
        """Try one line only."""
        pins, self._report.only = parse_line(line), line
        tried = self._bench.attempt(pins)
        if tried.struck < len(pins):
            raise BadOption(f"only={line!r}: this run never comes by {pins[tried.struck]}")
        self._take(tried)
        return self._ended()

    def all(self) -> Report:
        """Try every single fault, then pairs."""
        wrong = self._bench.sound()
        if wrong is not None:
            raise found(wrong, self._ended())
        singles = [(pin,) for visit in self._bench.undisturbed.visits for pin in visit.pins()]
        bar = Bar(f"explore_crashes({self._play.workflow.name})", len(singles) + self._pairs, shown=self._progress)
        with closing(bar), Attempts(self._bench, self._processes) as attempts:
            done = self._take_all(attempts(singles), bar)
            self._report.complete = len(done) == len(singles)
            if self._report.complete:
                self._take_all(attempts(self._second_faults(done)), bar)
        return self._ended()

    def _take_all(self, attempts: Iterator[Tried], bar: Bar) -> list[Tried]:
        """Count runs in as they come, until the budget is used up."""
        done: list[Tried] = []
        while self._elapsed < self._budget and (tried := next(attempts, None)) is not None:
            self._take(tried)
            bar.step(self._elapsed)
            done.append(tried)
        return done

    def _take(self, tried: Tried) -> None:
        self._report.add(tried)
        if tried.problem is not None:
            raise found(tried, self._ended())

    def _ended(self) -> Report:
        self._report.seconds = self._elapsed
        return self._report

    def _second_faults(self, done: Sequence[Tried]) -> list[tuple[Pin, Pin]]:
        """Pairs: a first fault and one of the points that came after it, half of them in the recovery."""
        first = [tried for tried in done if tried.visits]
        chosen: dict[tuple[Pin, Pin], None] = {}
        for _ in range(self._pairs * 2):
            if first and len(chosen) < self._pairs:
                tried = self._chance.choice(first)
                near = tried.visits[:RECOVERY] if self._chance.random() < 0.5 else tried.visits
                second = self._chance.choice(self._chance.choice(near).pins())
                chosen[(tried.pins[0], second)] = None
        return list(chosen)


class Attempts:
    """Makes trials, in this process or in several, and gives them back in order."""

    def __init__(self, bench: Bench, processes: int) -> None:
        self._bench, self._processes = bench, processes
        self._pool: Any = None

    def __enter__(self) -> Self:
        if self._processes > 1:
            # A forked process has the play already, lambdas and all; a spawned one has to import it.
            forks = "fork" in multiprocessing.get_all_start_methods()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads: the children start none
                context = multiprocessing.get_context("fork" if forks else "spawn")
                self._pool = context.Pool(self._processes, _settle, (self._bench.play,))
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool.join()

    def __call__(self, lines: Sequence[Sequence[Pin]]) -> Iterator[Tried]:
        if self._pool is None:
            return map(self._bench.attempt, lines)
        return iter(self._pool.imap(_attempt, lines, chunksize=4))


_HERE: list[Bench] = []
"""The bench of this process, where it is one of several."""


def _settle(play: Play) -> None:
    _HERE[:] = [Bench(play)]


def _attempt(pins: Sequence[Pin]) -> Tried:
    return _HERE[0].attempt(pins)
