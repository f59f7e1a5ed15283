"""`ContinueAsNew`, `Patched` and `Scope`: histories that stay short, and code that changes."""

from __future__ import annotations

from functools import partial
from typing import Any

from dalsegno import (
    All,
    Branch,
    ContinueAsNew,
    First,
    Flow,
    Info,
    Patched,
    Receive,
    Scope,
    Sleep,
    Status,
    step,
    workflow,
)
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.events import PatchAdopted, RaceDecided, RunContinued, RunStarted, ScopeCompleted, TimerFired
from dalsegno.core.history import decode_event
from dalsegno.testing.simulation import Simulation

ran: list[str] = []


@step
def work(what: str) -> str:
    """A step."""
    ran.append(what)
    return what


def drive(simulation: Simulation, pieces: int) -> bool:
    """Let a simulation do so many pieces of work; false if there are not so many."""
    return simulation.run(lambda: simulation.pieces >= pieces)


def test_signals_are_carried_over_in_order_and_none_is_lost():
    """What was not received before continuing as new is received after it, whether it came before or meanwhile."""

    @workflow
    def drain(seen: list[int]) -> Flow[list[int]]:
        for _ in range(3):
            seen = [*seen, (yield from Receive("number", int))]
        if len(seen) < 30:
            yield ContinueAsNew(seen)
        return seen

    for seed in range(10):
        with Simulation([drain], seed=seed) as simulation:
            run = simulation.start(drain, [], id="d")
            for n in range(7):
                run.signal("number", n)
            for n in range(7, 30):
                simulation.at(n * 0.001, partial(run.signal, "number", n))
            assert run.result() == list(range(30))
            assert run.run_id == "d#10"


def test_a_new_generation_has_a_fresh_history_and_knows_where_it_came_from():
    """Each run's history is its own, and `Info` counts them; `result` is that of the whole chain."""

    @workflow
    def rounds(n: int, last: int) -> Flow[int]:
        yield Sleep(1)
        info = yield from Info()
        assert info.attempt == n
        if n < last:
            yield ContinueAsNew(n + 1, last=last)
        return n

    with Simulation([rounds]) as simulation:
        run = simulation.start(rounds, 1, 4, id="r")
        assert run.result() == 4
        started = run.history()[0]
        assert isinstance(started, RunStarted)
        assert (started.generation, started.origin) == (4, "continued from r#3")
        first = simulation.backend.find("r", 1)
        assert first is not None
        assert first.status is Status.CONTINUED
        assert isinstance(decode_event(simulation.backend.history(first.number)[-1]), RunContinued)
        assert len(run.history()) == 4


def test_starting_the_first_arguments_again_attaches_to_the_chain():
    """The id belongs to the chain: the same start answers its newest run."""

    @workflow
    def rounds(n: int) -> Flow[int]:
        yield Sleep(1)
        if n < 3:
            yield ContinueAsNew(n + 1)
        return n

    with Simulation([rounds]) as simulation:
        run = simulation.start(rounds, 1, id="r")
        assert run.result() == 3
        assert simulation.start(rounds, 1, id="r").result() == 3
        assert len(simulation.runs(status=Status.COMPLETED)) == 1


def test_continuing_survives_a_crash_at_every_piece():
    """Killed anywhere, a chain of generations has each round's work done once on record."""

    @workflow
    def rounds(n: int) -> Flow[int]:
        yield work(f"round {n}")
        if n < 3:
            yield ContinueAsNew(n + 1)
        return n

    for piece in range(1, 20):
        ran.clear()
        with Simulation([rounds]) as simulation:
            run = simulation.start(rounds, 1, id="r")
            if drive(simulation, piece):
                simulation.restart()
            assert run.result() == 3
            assert run.run_id == "r#3"
            assert len(ran) <= 4


def test_old_runs_take_the_old_branch_and_new_runs_the_new_one():
    """A run that has passed the place takes the old branch for ever; one that comes there first with new code, the
    new one, and that is recorded."""

    @workflow(name="job")
    def before() -> Flow[list[str]]:
        seen = [(yield work("old"))]
        yield Sleep(100)
        return [*seen, (yield work("end"))]

    @workflow(name="job")
    def after() -> Flow[list[Any]]:
        new = yield from Patched("better work")
        seen = [(yield work("new" if new else "old"))]
        yield Sleep(100)
        return [*seen, (yield work("end")), (yield from Patched("better work"))]

    store = MemoryBackend()
    old = Simulation([before], store=store)
    old.start(before, id="one")
    old.run(timeout=10)
    old.close()
    with Simulation([after], store=store, clock=old.clock) as simulation:
        second = simulation.start(after, id="two")
        simulation.at(50, simulation.restart)
        assert simulation.get("one").result() == ["old", "end", False]
        assert second.result() == ["new", "end", True]
        assert sum(isinstance(e, PatchAdopted) for e in second.history()) == 1
        assert not any(isinstance(e, PatchAdopted) for e in simulation.get("one").history())


def test_a_change_is_settled_before_anything_else_is_recorded():
    """When one branch asks about a change, its answer is the next event, so that any prefix tells which way it went."""

    @workflow
    def job() -> Flow[list[Any]]:
        def asking() -> Flow[bool]:
            yield Sleep(0)
            return (yield from Patched("change"))

        def racing() -> Flow[bool]:
            yield First(Sleep(0), Sleep(100))
            return (yield from Patched("other change"))

        branches: list[Branch[Any]] = [asking(), racing(), Sleep(0), Sleep(5)]
        return (yield from All(branches))

    for seed in range(10):
        with Simulation([job], seed=seed) as simulation:
            run = simulation.start(job)
            assert run.result()[:2] == [True, True]
            history = run.history()
            for at, event in enumerate(history):
                if isinstance(event, PatchAdopted):
                    assert isinstance(history[at - 1], TimerFired | RaceDecided)


def test_the_inside_of_a_finished_scope_is_not_replayed():
    """After a restart only the scope's result is there again: its code does not run, its steps even less."""
    entered: list[str] = []
    ran.clear()

    @workflow
    def job() -> Flow[list[str]]:
        def inside(name: str) -> Flow[str]:
            entered.append(name)
            yield work(name)
            yield Sleep(10)
            return name

        first = yield from Scope(inside("first"))
        return [first, (yield from Scope(inside("second")))]

    with Simulation([job]) as simulation:
        run = simulation.start(job)
        simulation.at(15, simulation.restart)
        assert run.result() == ["first", "second"]
        assert entered == ["first", "second", "second"]
        assert ran == ["first", "second"]
        assert sum(isinstance(e, ScopeCompleted) for e in run.history()) == 2


def test_signals_received_in_a_scope_stay_received():
    """What a finished scope has received is not received again after it, though a replay passes it over."""

    @workflow
    def job() -> Flow[list[int]]:
        def inside() -> Flow[int]:
            return (yield from Receive("n", int))

        first = yield from Scope(inside())
        yield Sleep(10)
        return [first, (yield from Receive("n", int))]

    with Simulation([job], cold=True) as simulation:
        run = simulation.start(job)
        run.signal("n", 1)
        run.signal("n", 2)
        assert run.result() == [1, 2]
