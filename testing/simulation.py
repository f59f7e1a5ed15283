"""The real engine on a virtual clock and a seeded scheduler, in one thread.

What a worker's threads would do, `Simulation` does one piece at a time, in an order drawn from its seed: advance a run,
run a body, flush. When nothing is left to do, time skips to whatever comes next: a timer, a body's end or its time-out,
a line of the script. A workflow that sleeps for a month takes milliseconds, and the same seed gives the same histories,
byte for byte.

The process of a simulation can die (`restart`, or a fault that is a crash): what it had in memory is gone, the store,
the clock, the script and the handles stay, and the engine is opened anew.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, Self

from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.definitions import Definition, StepDefinition, listed
from dalsegno.core.engine.clockwork import AFTER_FIRING_S, TICK_S
from dalsegno.core.engine.recovery import DEATHS_MAX
from dalsegno.core.engine.run import Run
from dalsegno.core.engine.sweeping import Sweeper
from dalsegno.core.engine.worker import retention_or_none
from dalsegno.core.engine.works import CommonOptions
from dalsegno.core.errors import BadOption, StoreError, TimedOut
from dalsegno.core.options import flag, given_or_default, instance, only
from dalsegno.core.policies import Retention, seconds
from dalsegno.core.store import Backend, Status
from dalsegno.testing.careful import FRUITLESS_MAX, CarefulEngine
from dalsegno.testing.clock import VirtualClock
from dalsegno.testing.faults import Crash, FaultPlan, Faults, Mischief
from dalsegno.testing.faulty_store import FaultyStore
from dalsegno.testing.guard import Mode, determinism_guard
from dalsegno.testing.simulated_works import STUBBORN, Agenda, Duration, SimulatedWorks, Stage
from dalsegno.testing.witness import Witness

AnyStep = StepDefinition[..., Any] | str
"""A step by its definition or by its name."""

JUMP_S = FREEZE_S = 3600.0

__all__ = ["STUBBORN", "AnyStep", "Duration", "Simulation"]


class Simulation(CarefulEngine):
    """An engine for tests: `Simulation([fulfil], seed=7)`, then everything `Engine` offers.

    `result()` and `run()` drive it; nothing moves in between. `fakes` replaces step functions, by definition or name;
    `at` writes a script against virtual time; `takes` says how long a step takes; `restart` kills the process.

    `store` defaults to a fresh memory store; give one to go on where another simulation stopped. With `cold`, nothing
    stays in memory: whatever arrives for a run is met by a replay of its history. `faults` takes a `FaultPlan`;
    `heal()` ends them. `witness` knows which bodies ran. `guard` puts all of it under a determinism guard, "raise",
    "warn" or "collect", until it is closed: `simulation.guard.findings` says what that found, and a workflow that asked
    the machine for something fails, with "raise" (closing raises `NondeterministicCall` should the workflow have
    swallowed it). It looks while this simulation is driven, in place of any other guard. `retention` sweeps as time
    passes.

    >>> from datetime import timedelta
    >>> from dalsegno import Receive, Sleep, step, workflow
    >>> @step
    ... def charge(amount: int) -> str:
    ...     raise NotImplementedError("would cost money")
    >>> @workflow
    ... def patience():
    ...     yield Sleep(timedelta(days=30))
    ...     amount = yield Receive("amount", int)
    ...     return (yield charge(amount))
    >>> with Simulation([patience], fakes={charge: lambda amount: f"charged {amount}"}) as simulation:
    ...     run = simulation.start(patience)
    ...     simulation.at(timedelta(days=10), simulation.restart)
    ...     simulation.at(timedelta(days=40), lambda: run.signal("amount", 5))
    ...     run.result()
    'charged 5'
    """

    works: SimulatedWorks

    def __init__(
        self,
        workflows: Iterable[Definition] = (),
        *,
        seed: int = 0,
        store: Backend | None = None,
        clock: VirtualClock | None = None,
        cold: bool = False,
        fakes: Mapping[AnyStep, Callable[..., Any]] | None = None,
        faults: FaultPlan | Mischief | None = None,
        guard: Mode | None = None,
        retention: Retention | None = None,
        **options: Any,
    ) -> None:
        only("Simulation", options, sorted(CommonOptions.__optional_keys__ - {"clock"}))
        self.seed, self._retention = instance("seed", seed, int, "a whole number"), retention_or_none(retention)
        self.clock = given_or_default("clock", clock, VirtualClock, "a VirtualClock")
        if isinstance(faults, FaultPlan):
            self.faults: Mischief = Faults(faults)
        else:
            self.faults = given_or_default("faults", faults, Mischief, "a FaultPlan, like FaultPlan(seed=7)")
        flag("cold", cold)
        self.witness = Witness()
        entropy = random.Random(seed + 1)
        self._stage = Stage(self.clock, random.Random(seed), self.witness, cold)
        self._options: CommonOptions = {
            "workflows": listed(workflows, "workflows"),
            "clock": self.clock,
            "entropy": entropy.randbytes,
            **options,  # type: ignore[typeddict-item]  # checked by Works, which takes them
        }
        takes = "an opened store, like store=MemoryBackend()"
        self._store: Backend = MemoryBackend() if store is None else instance("store", store, Backend, takes)  # type: ignore[type-abstract]
        self.careful = faults is not None
        self._script = Agenda()
        self._begun_us = self.clock.steady_us()
        self._pieces_before = self._fruitless = 0
        if not isinstance(fakes, Mapping | None):
            raise BadOption(f"fakes={fakes!r}: takes steps and functions, like fakes={{charge: lambda amount: 'paid'}}")
        for given, fake in (fakes or {}).items():
            self.fake(given, fake)
        self.guard = determinism_guard(guard) if guard is not None else None
        if self.guard is not None:
            self.guard.__enter__()
        try:
            self._open()
        except BaseException:
            if self.guard is not None:
                self.guard.stop()
            raise

    # --- what a test says before or while it runs ----------------------------------------------------------------

    def fake(self, step: AnyStep, function: Callable[..., Any]) -> None:
        """Have `function` called in place of a step's own from now on. It may be `async def` or not, whichever the step
        is; `step_context()` works in it."""
        function = function.fn if isinstance(function, Definition) else function
        if not callable(function):
            raise BadOption(f"the fake of {step!r} has to be a function, not {function!r}")
        self._stage.fakes[_key(step)] = function

    def takes(self, step: AnyStep, duration: Duration, *, heartbeat: float | timedelta | None = None) -> None:
        """Say how long a step takes, in virtual time: a number of seconds, a timedelta, or a function of the attempt's
        number. `float("inf")` never comes back. With `heartbeat`, the body says so often that it is alive.

        The step's function is called when that time has passed. (A fake may also move `simulation.clock` itself; the
        whole world then waits for it.)
        """
        beat = None if heartbeat is None else seconds(heartbeat)
        self._stage.durations[_key(step)] = (duration, beat)

    def at(self, when: float | timedelta, do: Callable[[], object]) -> None:
        """Have `do()` called when so much virtual time has passed since the simulation began, or at once if it has."""
        self._script.add(self._begun_us + round(seconds(when) * 1e6), do)

    @property
    def elapsed(self) -> float:
        """Virtual seconds since the simulation began."""
        return (self.clock.steady_us() - self._begun_us) / 1e6

    @property
    def pieces(self) -> int:
        """How many pieces of work were done, over all lives: what a crash test counts."""
        return self._pieces_before + self.works.pieces

    @property
    def backend(self) -> Backend:
        """The store itself: what a test reads meets no faults."""
        return self._store

    # --- life and death --------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Kill the process and open the engine anew on the same store. Clock, script and handles stay."""
        self._check_open()
        self.works.bury()
        self._pieces_before += self.works.pieces
        self._open()

    def _open(self) -> None:
        while True:
            self.witness.life += 1
            store = FaultyStore(
                self._store,
                self.faults,
                clock=self.clock,
                committed=self.witness.committed if self.careful else None,
                held_as="a simulation",
            )
            self.works = SimulatedWorks(store, self._stage, self._options)
            self._serve(self.works)
            if self._retention is not None:
                self.works.clockwork.sweeper = Sweeper(store, self.clock, self._retention)
            try:
                self.works.open()
                return
            except Crash:
                self.works.bury()
            except StoreError:
                if not self.careful:
                    raise
                self.works.bury()
                self.clock.advance(1)

    def heal(self) -> None:
        """End all faults: nothing bad happens from now on, the engine is opened anew, and runs that were suspected of
        killing it are let go on. Every run that can finish now does when it is driven: that is what to test."""
        self.faults.heal()
        self.restart()
        for run in self.runs(status=(Status.RUNNING, Status.BLOCKED)):
            # One short of it, for a suspect is claimed only when its turn comes, and that counts, too.
            if run.record.deaths >= DEATHS_MAX - 1 or run.record.reason.startswith("quarantined"):
                run.resume()

    def close(self) -> None:
        """End the simulation as a good shutdown would: nothing more is started, what is done is recorded."""
        self._stop()
        if self.guard is not None:
            self.guard.__exit__(None, None, None)

    def _stop(self) -> None:
        if not self._closed:
            self._closed = True
            self.faults.heal()
            self.works.stop()
        if self.guard is not None:
            self.guard.stop()

    def crash(self) -> Backend:
        """Stop as a killed process does: nothing more is recorded. Answers the store, for the next simulation."""
        self._closed = True
        self.works.bury()
        if self.guard is not None:
            self.guard.stop()
        return self._store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None:
            self.close()
        else:
            self._stop()  # what went wrong is told already

    # --- driving ---------------------------------------------------------------------------------------------------

    def run(self, until: Callable[[], bool] = lambda: False, *, timeout: float | timedelta | None = None) -> bool:
        """Go on until `until()` holds (true), nothing more can happen by itself, or `timeout` virtual seconds have
        passed (false)."""
        self._check_open()
        last_us = None if timeout is None else self.clock.steady_us() + round(seconds(timeout) * 1e6)
        while not until():
            if not self._go_on(last_us):
                return until()
        return True

    def _go_on(self, last_us: int | None) -> bool:
        """Do one thing, or let time pass; false if there is nothing to do, or no time left to do it in."""
        if self.guard is not None:
            self.guard.lead()
        due = self._script.pop_due(self.clock.steady_us())
        if due is not None:
            due()
            return True
        try:
            if self.careful:
                self._misbehave()
            if self.works.piece():
                self._fruitless = 0
                return True
            self.works.tick()
            if self.works.piece():
                self._fruitless = 0
                return True
            return self._skip(last_us)
        except Crash:
            self.restart()
            return True

    def _skip(self, last_us: int | None) -> bool:
        """Let time pass until something happens by itself."""
        works, clock = self.works, self.clock
        waits = [*works.waits_us()]
        if self._script.next_us is not None:
            waits.append(self._script.next_us - clock.steady_us())
        deadline_us = self._store.next_deadline_us()
        if deadline_us is not None:
            waits.append(deadline_us - clock.now_us())
        troubled = works.committer.stalled is not None or bool(works.loop.troubled)
        if troubled or works.ticks_again:
            waits.append(round(TICK_S * 1e6))
        if not waits:
            return False
        wait_us = max(0, min(waits))
        if wait_us == 0 or troubled:
            # Time has come and still nothing can be done (a timer is late, the store is not there): as the worker's
            # clockwork does, look again in a moment, but not for ever.
            self._fruitless += 1
            wait_us = max(wait_us, round(AFTER_FIRING_S * 1e6)) if self._fruitless > 1 else wait_us
            if self._fruitless > FRUITLESS_MAX:
                return False
        if last_us is not None and clock.steady_us() + wait_us > last_us:
            clock.advance_us(max(0, last_us - clock.steady_us()))
            return False
        clock.advance_us(wait_us)
        if deadline_us is not None:
            works.loop.expect_timer(deadline_us)
        if works.loop.deferred:
            works.upkeep.flush_old()
        return True

    def _misbehave(self) -> None:
        """What can go wrong between two pieces of work."""
        faults, works, loop = self.faults, self.works, self.works.loop
        if faults.fires("worker.crash"):
            raise Crash("injected: the process dies between two pieces of work")
        if loop.idle and faults.fires("worker.evict"):
            self.works.upkeep.put_away(list(loop.idle.values()), STUBBORN)
        if faults.fires("worker.freeze"):
            self.clock.advance(FREEZE_S * faults.amount("worker.freeze"))
        if faults.fires("clock.jump"):
            self.clock.jump(JUMP_S * (2 * faults.amount("clock.jump") - 1))
        if loop.live and faults.fires("lease.lost"):
            numbers = sorted(loop.live)
            lost = numbers[int(faults.amount("lease.lost") * len(numbers))]
            works.lose_lease()
            self._store.claim([lost], "another engine (injected)")

    def wait_for_end(self, run: Run[Any], timeout: float | timedelta | None) -> bool:
        """Drive the simulation until the run has ended. If nothing moves any more, faults are healed first."""
        if self.run(lambda: run.ended, timeout=timeout):
            return True
        if timeout is not None:
            return False
        if self.careful:
            self.heal()
            if self.run(lambda: run.ended):
                return True
        raise TimedOut(
            f"run {run.id!r} cannot end by itself: it is {run.status.value}, {self.waits_for(run)}, and nothing is "
            "left to happen. Script what it waits for with simulation.at(…)",
            workflow_id=run.id,
        )

    def waits_for(self, run: Run[Any]) -> str:
        """What a run waits for, in words, for an error's message."""
        live = self.works.loop.live.get(run.record.number)
        if live is None or live.interpreter is None:
            return "it is in nobody's memory"
        waiting = ", ".join(f"{each.kind} {each.name}".strip() for each in live.interpreter.waiting.values())
        return f"it waits for {waiting or 'nothing'}"

    def call_at_end(self, run: Run[Any], ended: Future[None]) -> bool:
        """Awaiting a run drives the simulation, too."""
        if self.wait_for_end(run, None):
            ended.set_result(None)
        return True


def _key(step: AnyStep) -> Any:
    return id(step.fn) if isinstance(step, Definition) else step
