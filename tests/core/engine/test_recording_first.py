"""What is recorded before it is done, and what becomes of arrivals when that fails: where planted bugs got through."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from dalsegno import Client, Engine, First, Flow, Receive, Retry, RunBlocked, Send, Sleep, Spawn, Status, step, workflow
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.engine.recovery import DEATHS_MAX
from dalsegno.core.errors import StoreError, StoreFull
from dalsegno.core.events import StepCompleted, StepStarted
from dalsegno.core.history import decode_history
from dalsegno.core.store import Applied, Refusal, Refused, RunRecord, Transition, Verdict
from dalsegno.testing.histories import check_store
from dalsegno.testing.simulation import Simulation

SEEDS = range(10)


class Reluctant(MemoryBackend):
    """A memory store that fails now and then: `commits` and `finds` say what to do before the next calls."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.commits: Iterator[Callable[[Sequence[Transition]], list[Verdict]]] = iter(())
        self.finds: Iterator[None] = iter(())

    def commit(self, transitions: Sequence[Transition]) -> list[Verdict]:
        instead = next(self.commits, None)
        return super().commit(transitions) if instead is None else instead(transitions)

    def find(self, workflow_id: str, generation: int | None = None) -> RunRecord | None:
        for _ in self.finds if workflow_id == "other" else ():
            raise StoreError("it did not answer")
        return super().find(workflow_id, generation)


def full(transitions: Sequence[Transition]) -> list[Verdict]:
    """The store is full."""
    raise StoreFull("there is no room")


def refuse(transitions: Sequence[Transition]) -> list[Verdict]:
    """Somebody else was there first."""
    return [Refused(Refusal.HEAD) for _ in transitions]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("way", [full, refuse])
def test_a_body_begins_after_the_record_that_says_so(way: Callable[[Sequence[Transition]], list[Verdict]], seed: int):
    """A step that is run at most once finds its own start on record, whatever became of the first commits."""
    seen: list[list[str]] = []

    @step(once=True)
    def pay() -> None:
        seen.append([type(event).__name__ for event in decode_history(store.history(1))])

    @workflow
    def payment() -> Flow[None]:
        yield from Receive("now")
        yield from pay()

    with Reluctant() as store, Simulation([payment], store=store, seed=seed) as simulation:
        run = simulation.start(payment)
        simulation.run()
        run.signal("now")
        store.commits = iter([way] * 3)
        run.result()
    assert len(seen) == 1
    assert seen[0][-1] == StepStarted.__name__


def test_a_result_outlives_a_store_that_does_not_answer():
    """A step's result that arrives while the store cannot be read is folded when it can; its body ran once."""
    ran = []

    @step
    def work() -> int:
        ran.append(1)
        store.finds = iter([None] * 2)  # from here on, until the second question
        return 7

    @workflow
    def tell() -> Flow[int]:
        number = yield from work()
        yield from Send("other", "number", number)
        return number

    @workflow
    def listen() -> Flow[int]:
        return (yield from Receive("number", int))

    with Reluctant() as store, Simulation([tell, listen], store=store) as simulation:
        other = simulation.start(listen, id="other")
        run = simulation.start(tell)
        assert run.result() == 7
        assert other.result() == 7
    assert ran == [1]


def test_what_starts_during_recovery_is_claimed_once():
    """A child that a recovered run starts while others are still being claimed keeps the lease it was created with."""
    started = threading.Event()

    class Slow(MemoryBackend):
        """Lets the first page of runs get on before the second is read."""

        def active(self, after: int = 0, limit: int = 1000) -> list[int]:
            if after:
                started.wait(0.2)
            return super().active(after, limit)

    @workflow
    def child() -> Flow[int]:
        yield from Sleep(0)
        return 1

    @workflow
    def parent() -> Flow[int]:
        handle = yield from Spawn(child())
        yield from announce()
        return (yield from handle)

    @step
    def announce() -> None:
        started.set()

    with Slow() as store:
        Client(store).start(parent, id="p")
        with Engine(store, workflows=[parent, child]) as engine:
            assert engine.get("p").result(timeout=10) == 1
        assert {record.epoch for record in store.runs()} == {1}


def test_a_retry_takes_no_number_of_its_own():
    """The command after a step that was tried twice is the second one, live and on replay."""
    tries = []

    @step(retry=Retry(max_attempts=3, initial=1, jitter=0))
    def work() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("once")
        return len(tries)

    @workflow
    def both() -> Flow[list[int]]:
        first = yield from work()
        second = yield from work()
        return [first, second, (yield from Receive("now", int))]

    with Simulation([both]) as simulation:
        run = simulation.start(both)
        simulation.run()
        assert [event.id for event in run.history() if isinstance(event, StepCompleted)] == ["1", "2"]
        simulation.restart()
        run.signal("now", 9)
        assert run.result() == [2, 3, 9]


def test_a_timer_that_lost_leaves_the_store():
    """The timer of a race's loser is gone with the commit that decides the race, while the run goes on."""

    @workflow
    def race() -> Flow[str]:
        won = yield from First(said=Receive("now", str), late=Sleep(86_400))
        yield from Receive("end")
        return str(won.value)

    with Simulation([race]) as simulation:
        run = simulation.start(race)
        simulation.run(timeout=1)
        assert simulation.backend.next_deadline_us() is not None
        run.signal("now", "yes")
        simulation.run(timeout=1)
        assert simulation.backend.next_deadline_us() is None
        assert check_store(simulation.backend) == []
        run.signal("end")
        assert run.result() == "yes"


def test_what_a_step_returned_is_the_workflows_own():
    """A workflow gets a copy of what a step returned, on its first run as on every replay."""
    kept: list[int] = [1]

    @step
    def work() -> list[int]:
        return kept

    @workflow
    def change() -> Flow[list[int]]:
        mine = yield from work()
        mine.append(2)
        return mine

    with Simulation([change]) as simulation:
        assert simulation.start(change).result() == [1, 2]
    assert kept == [1]


def test_an_attempt_that_was_given_up_is_heard_no_more():
    """What the first attempt returns after its time-out, while the second one runs, is nobody's."""

    @step(timeout=10, retry=Retry(max_attempts=3, initial=1, jitter=0))
    def work() -> int:
        return simulation.witness.began_count("work")

    @workflow
    def late() -> Flow[int]:
        return (yield from work())

    begun: list[float] = []

    def takes(attempt: int) -> float:
        begun.append(simulation.elapsed)
        return 15.0 if attempt == 1 else 9.0

    with Simulation([late]) as simulation:
        simulation.takes(work, takes)
        simulation.start(late).result()
        assert (begun, simulation.elapsed) == ([0, 11], 20)


def test_a_paused_run_starts_no_children():
    """A child that is asked for while the run is paused is started when it is resumed."""

    @workflow
    def child() -> Flow[int]:
        yield from Sleep(0)
        return 1

    @workflow
    def parent() -> Flow[int]:
        yield from Receive("now")
        return (yield from child())

    with Simulation([parent, child]) as simulation:
        run = simulation.start(parent)
        run.pause()
        run.signal("now")
        simulation.run()
        assert [each.workflow for each in simulation.runs()] == ["parent"]
        assert run.status is Status.PAUSED
        run.resume()
        assert run.result() == 1


def test_a_run_whose_engines_died_too_often_is_not_tried_again():
    """A run that was active in so many deaths is set aside before its code is called, until it is resumed."""
    ran = []

    @workflow
    def killer() -> Flow[int]:
        ran.append(1)
        return (yield from Receive("now", int))

    with MemoryBackend() as store, Simulation([killer], store=store) as simulation:
        run = simulation.start(killer)
        number = run.record.number
        assert isinstance(store.commit([Transition(run=number, epoch=1, head=1, active=True)])[0], Applied)
        simulation.works.lose_lease()
        for death in range(DEATHS_MAX):
            store.claim([number], f"engine {death}")
        simulation.restart()
        with pytest.raises(RunBlocked, match="quarantined"):
            run.result()
        assert ran == []
        run.signal("now", 3)
        run.resume()
        assert run.result() == 3
