"""The promises G1 to G7, each by name, on the stores of one machine: what is recorded is recorded once, and in order.

| promise | where it is tested                                                                                     |
|---------|--------------------------------------------------------------------------------------------------------|
| G1      | TestG1 here: every crash around a step, with a ledger of bodies; processes are killed in tests/torture |
| G2      | TestG2 here, on the zoo of values; tests/properties/test_values.py on random ones                      |
| G3      | TestG3 here: signals against close and continue as new, from threads and through crashes               |
| G4      | TestG4 here: clock jumps, restarts, fire and cancel in one moment                                      |
| G5, G6  | TestG5, TestG6 here, as far as one process goes; tests/torture/test_rivals.py with several             |
| G7      | TestG7 here, and all of test_exploring.py: every store call, four ways, and again during recovery      |
| G8      | test_promises_of_data.py; tests/properties/test_mutations.py and test_determinism.py on random programs |
| G9      | test_promises_of_data.py                                                                               |
| G10     | test_promises_of_values.py                                                                             |
| G11     | test_promises_of_retention.py; tests/torture/test_full_disk.py with real disks and processes            |
| G12-G13 | test_promises_of_data.py; tests/backends for the stores by themselves                                  |
| G14     | test_promises_of_retention.py; tests/core/test_retention.py against an oracle                           |
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dalsegno import (
    ContinueAsNew,
    Engine,
    First,
    Flow,
    Now,
    Publish,
    Receive,
    RunClosed,
    RunConflict,
    Sleep,
    Status,
    StoreInUse,
    step,
    workflow,
)
from dalsegno.backends.lmdb import LmdbBackend
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.events import RunCompleted, StepCompleted, TimerCancelled, TimerFired, TimerSet
from dalsegno.core.store import Applied, Backend, Refusal, Refused
from dalsegno.testing.exploring import explore_crashes
from dalsegno.testing.points import WAYS, Pin, Pinned
from dalsegno.testing.run_promises import begin
from dalsegno.testing.run_promises import step as transition
from dalsegno.testing.simulation import Simulation
from tests.core.values import zoo
from tests.testing import actors

Opener = Callable[[], Backend]


@pytest.fixture(params=["memory", "lmdb"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens empty stores of one kind."""
    opened: list[Backend] = []

    def new() -> Backend:
        folder = str(tmp_path / f"store-{len(opened)}")
        memory = request.param == "memory"
        opened.append(MemoryBackend() if memory else LmdbBackend.open(folder, durability="relaxed"))
        return opened[-1]

    yield new
    for store in opened:
        store.close()


def second_handle(store: Backend, folder: Path) -> Backend:
    """The same store once more, as another process would have it."""
    return store.another() if isinstance(store, MemoryBackend) else LmdbBackend.open(str(folder), durability="relaxed")


class TestG1:
    """A step body runs at least once; its outcome is recorded exactly once; once recorded it never runs again.
    `once=True`: at most once, and after a crash in between the workflow sees `StepOutcomeUnknown`."""

    def test_a_body_runs_and_is_recorded_whatever_breaks_around_it(self, new_store: Opener):
        """The witness raises for a body after its record and for a second record; here it sees every point break."""

        def check(run: Any) -> None:
            recorded = [event.id for event in run.history() if isinstance(event, StepCompleted)]
            assert len(recorded) == len(set(recorded)) == 4
            assert all(actors.EFFECTS[f"put {at}"] >= 1 for at in range(2))

        report = explore_crashes(
            actors.chain, 2, store=new_store, setup=actors.EFFECTS.clear, check=check, pairs=20, progress=False
        )
        assert report.complete

    @pytest.mark.parametrize("way", ["crash-before", "crash-after"])
    def test_a_once_step_runs_at_most_once(self, new_store: Opener, way: str):
        """Before its effect or after it, a crash leaves the step undone or done, and the workflow does not know."""
        pins = Pinned([Pin(way, "step.pay", 1)])  # type: ignore[arg-type]
        with Simulation([actors.payment], store=new_store(), faults=pins) as simulation:
            assert simulation.start(actors.payment, id="p").result() == "unknown"
        assert actors.EFFECTS["p#1/1"] == (way == "crash-after")

    def test_a_once_step_at_every_other_point(self, new_store: Opener):
        """Wherever else something breaks, the body runs at most once, and the run ends."""

        def check(run: Any) -> None:
            assert actors.EFFECTS["explored#1/1"] <= 1
            assert run.result() == "unknown" or actors.EFFECTS["explored#1/1"] == 1

        explore_crashes(
            actors.payment, store=new_store, setup=actors.EFFECTS.clear, check=check, pairs=30, progress=False
        )


@step
def echo(value: Any) -> Any:
    """Gives back what it was given."""
    return value


@step
def complain(value: Any) -> Any:
    """Raises with a value."""
    raise KeyError(value)


@workflow
def passes_on(values: list[Any], seen: Any = None) -> Flow[list[Any]]:
    """Passes values through steps and publishes what it sees."""
    kinds = []
    for value in values:
        back = yield from echo(value)
        kinds.append([type(back).__name__, repr(back)])
        try:
            yield from complain(value)
        except Exception as error:
            kinds.append([type(error).__name__, str(error), repr(error.args)])
    yield from Publish("kinds", kinds)
    return kinds


class TestG2:
    """What the workflow sees live and on replay is equal in value and type, errors included."""

    def test_a_zoo_of_values_is_the_same_live_and_replayed(self, new_store: Opener):
        """The workflow sees the same with everything in memory, and with every activation a cold replay."""
        animals = [each for each in zoo.EXAMPLES if "nan" not in repr(each)]
        seen = []
        for cold in (False, True):
            with Simulation([passes_on], store=new_store(), cold=cold) as simulation:
                seen.append(simulation.start(passes_on, animals).result())
        assert seen[0] == seen[1]
        assert len(seen[0]) == 2 * len(animals)


@workflow
def collector(got: list[int], rounds: int = 0) -> Flow[list[int]]:
    """Receives numbers until -1 comes; continues as new after every five."""
    for _ in range(5):
        number = yield from Receive("number", int)
        if number == -1:
            return [*got, rounds]
        got = [*got, number]
    yield from ContinueAsNew(got, rounds + 1)
    return []


@workflow
def takes_one() -> Flow[int]:
    """Ends with the first number."""
    return (yield from Receive("number", int))


class TestG3:
    """When `signal()` returned, the message is durable, and it enters the run's history exactly once, in the order
    accepted. No run closes or continues as new over an unseen message; what is left over is reported, or carried over.
    Dedup keys hold after close."""

    def test_signals_from_many_threads_survive_continuing_as_new(self, new_store: Opener):
        """Eight threads signal a run that continues as new all the while: all arrive, each thread's in its order."""
        with Engine(new_store(), workflows=[collector]) as engine:
            run = engine.start(collector, [], id="collector")

            def talk(thread: int) -> None:
                for n in range(20):
                    run.signal("number", thread * 100 + n)

            threads = [threading.Thread(target=talk, args=(thread,)) for thread in range(8)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            run.signal("number", -1)
            *got, rounds = run.result(timeout=60)
        assert rounds == 32
        assert sorted(got) == [thread * 100 + n for thread in range(8) for n in range(20)]
        for thread in range(8):
            assert [n for n in got if n // 100 == thread] == [thread * 100 + n for n in range(20)]

    def test_a_closing_run_sees_or_reports_every_signal(self, new_store: Opener):
        """Signals that race with the end are refused, received, or told as unread; none is lost in between."""
        with Engine(new_store(), workflows=[takes_one]) as engine:
            for attempt in range(20):
                run = engine.start(takes_one, id=f"one-{attempt}")
                accepted: list[int] = []

                def talk(run: Any = run, accepted: list[int] = accepted) -> None:
                    try:
                        for n in range(10):
                            run.signal("number", n)
                            accepted.append(n)
                    except RunClosed:
                        pass

                threads = [threading.Thread(target=talk) for _ in range(2)]
                for thread in threads:
                    thread.start()
                run.result(timeout=60)
                for thread in threads:
                    thread.join()
                last = run.history()[-1]
                assert isinstance(last, RunCompleted)
                assert 1 + last.unread.get("number", 0) == len(accepted)

    def test_signals_survive_crashes_at_every_point(self, new_store: Opener):
        """Wherever the store fails or the process dies, each number arrives once, in order, over generations."""

        def script(simulation: Simulation, run: Any) -> None:
            for n in [*range(7), -1]:
                simulation.at(10 * (n % 8), partial(run.signal, "number", n))

        def check(run: Any) -> None:
            assert run.result() == [*range(7), 1]

        explore_crashes(
            collector,
            [],
            store=new_store,
            script=script,
            check=check,
            pairs=20,
            compare=("outcome",),
            budget=6,
            progress=False,
        )

    def test_dedup_keys_hold_after_close(self, new_store: Opener):
        """A message said again is taken for what it is, also when the run has ended and would take no other."""
        with Simulation([takes_one], store=new_store()) as simulation:
            run = simulation.start(takes_one, id="one")
            run.signal("number", 1, dedup="first")
            assert run.result() == 1
            run.signal("number", 1, dedup="first")
            with pytest.raises(RunClosed):
                run.signal("number", 1, dedup="second")


@workflow
def naps(times: int) -> Flow[list[datetime]]:
    """Sleeps ten minutes at a time and notes when it is."""
    moments = []
    for _ in range(times):
        moments.append((yield from Now()))
        yield from Sleep(600)
        moments.append((yield from Now()))
    return moments


@workflow
def races_a_timer() -> Flow[str]:
    """A signal against a timer."""
    won = yield from First(word=Receive("word", str), late=Sleep(10))
    yield from Sleep(60)
    return str(won.key)


class TestG4:
    """A timer never fires early, fires once, never after a committed cancel; `Now()` never goes back; clock jumps lose
    nothing."""

    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize("jump", [3600, -3600])
    def test_clock_jumps_and_restarts_lose_no_timer(self, new_store: Opener, jump: int, seed: int):
        """Jumps of an hour either way at odd moments, and a restart after each: no timer early, none twice."""
        with Simulation([naps], store=new_store(), seed=seed) as simulation:
            run = simulation.start(naps, 5)
            for n in range(3):
                simulation.at(300 + 700 * n + seed * 100, lambda: simulation.clock.jump(jump))
                simulation.at(310 + 700 * n + seed * 100, simulation.restart)
            moments = run.result()
            assert moments == sorted(moments)
            deadlines = {event.id: event.deadline_us for event in run.history() if isinstance(event, TimerSet)}
            fired = [event for event in run.history() if isinstance(event, TimerFired)]
            assert [event.id for event in fired] == list(deadlines)
            assert all(event.at_us >= deadlines[event.id] for event in fired)

    @pytest.mark.parametrize("seed", range(10))
    def test_fire_and_cancel_in_one_moment(self, new_store: Opener, seed: int):
        """A signal in the very moment a timer is due: one of them wins, and the timer has one end in the history."""
        with Simulation([races_a_timer], store=new_store(), seed=seed) as simulation:
            run = simulation.start(races_a_timer)
            simulation.at(10, lambda: run.signal("word", "now"))
            won = run.result()
            assert won in ("word", "late")
            ends = [event.id for event in run.history() if isinstance(event, TimerFired | TimerCancelled)]
            assert len(ends) == len(set(ends)) == 2

    def test_a_restart_at_each_point(self, new_store: Opener):
        """A run that sleeps comes through with anything broken anywhere."""
        assert explore_crashes(naps, 2, store=new_store, compare=("history",), pairs=20, progress=False).complete


class TestG5:
    """A worker that lost its lease changes nothing. Only recording is fenced; step bodies may still be running."""

    def test_a_thawed_worker_records_nothing(self, new_store: Opener):
        """Another engine claims the run while a body runs; when the body is done, its outcome goes nowhere."""
        store = new_store()
        with Simulation([actors.chain], store=store) as simulation:
            simulation.takes(actors.put, 20)
            run = simulation.start(actors.chain, 1)
            simulation.run(timeout=10)
            store.join("another engine", 10_000_000, 0)
            assert store.claim([run.record.number], "another engine") == []
            simulation.works.lose_lease()
            (claimed,) = store.claim([run.record.number], "another engine")
            head = store.head(claimed.number)
            simulation.run(timeout=3600)
            assert actors.EFFECTS["put 0"] == 1
            assert store.head(claimed.number) == head
            assert store.record(claimed.number) == claimed

    def test_an_old_epoch_is_refused_in_the_store(self, new_store: Opener):
        """The comparison is made in the transaction that would write."""
        store = new_store()
        run = begin(store)
        (claimed,) = store.claim([run.number], "another engine")
        assert store.commit([transition(run, 1, b"late")]) == [Refused(Refusal.EPOCH)]
        assert store.commit([transition(claimed, 1, b"mine")]) == [Applied()]


class TestG6:
    """One live executor per run, inside a process and across them."""

    def test_a_store_has_one_engine_where_that_wants_to_be_alone(self, new_store: Opener, tmp_path: Path):
        """A second engine on the same store is refused, told who holds it, and welcome when the first has gone."""
        store = new_store()
        with second_handle(store, tmp_path / "store-0") as other:
            with Engine(store, workflows=[actors.race], alone=True), pytest.raises(StoreInUse) as caught:
                Engine(other, workflows=[actors.race])
            assert caught.value.owner
            store.close()
            with Engine(other, workflows=[actors.race]) as heir:
                assert heir.start(actors.race).result(timeout=60) == "work"

    def test_claims_from_many_threads_have_one_winner_each(self, new_store: Opener):
        """Each claim has an epoch of its own, and only the last one's holder may write."""
        store = new_store()
        run = begin(store)
        claims: list[Any] = []
        threads = [
            threading.Thread(target=lambda n=n: claims.extend(store.claim([run.number], f"engine {n}")))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(claim.epoch for claim in claims) == [run.epoch + 1 + n for n in range(8)]
        claims.sort(key=lambda claim: int(claim.epoch))
        verdicts = store.commit([transition(claim, 1, b"mine") for claim in claims])
        assert [isinstance(verdict, Applied) for verdict in verdicts] == [False] * 7 + [True]


class TestG7:
    """One activation, one atomic commit; a redone activation adopts its own children; another generation's is a
    conflict."""

    def test_children_are_adopted_wherever_it_breaks(self, new_store: Opener):
        """A parent with children and branches, broken at every point: each child exists once."""

        def check(run: Any) -> None:
            assert run.result()[:2] == ["fetch 0", "fetch 1"]

        budget = 6.0
        report = explore_crashes(actors.fan, 2, store=new_store, check=check, pairs=20, budget=budget, progress=False)
        assert report.complete or report.seconds >= budget

    @pytest.mark.parametrize("way", WAYS)
    def test_a_commit_that_fails_in_recovery_fails_no_run(self, new_store: Opener, way: str):
        """The second fault strikes the claim that recovers from the first."""
        pins = Pinned([Pin("crash-after", "store.commit", 1), Pin(way, "store.claim", 1)])  # type: ignore[arg-type]
        with Simulation([actors.fan, actors.chain], store=new_store(), faults=pins) as simulation:
            assert simulation.start(actors.fan, 2).result()[:2] == ["fetch 0", "fetch 1"]
            assert len(pins.struck) == 2

    def test_another_runs_child_is_a_conflict(self, new_store: Opener):
        """A child's id that is taken by a run of somebody else is an error in the workflow, not a child adopted."""

        @workflow
        def parent() -> Flow[str]:
            try:
                yield from actors.race.options(id="taken")()
            except RunConflict:
                return "conflict"
            return "adopted"

        with Simulation([parent, actors.race], store=new_store()) as simulation:
            simulation.start(actors.race, id="taken").result()
            assert simulation.start(parent).result() == "conflict"
            assert simulation.get("taken").status is Status.COMPLETED
            simulation.run(timeout=timedelta(days=1))
