"""Working ahead: idempotent steps go on while a checkpoint is on its way, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dalsegno import CheckpointPolicy, Engine, Flow, Receive, Status, step, workflow
from dalsegno.core.events import RunCompleted, SignalReceived, StepCompleted
from dalsegno.testing import FaultPlan, Simulation
from dalsegno.testing.histories import check_store

POLICY = CheckpointPolicy(every_steps=3)
SEEDS = range(40)

ran: list[int] = []


@pytest.fixture(autouse=True)
def nothing_ran():
    """Begin with an empty ledger."""
    ran.clear()


@step(idempotent=True)
def cheap(n: int) -> int:
    """A step that may be repeated."""
    ran.append(n)
    return n


@step
def dear(n: int) -> int:
    """A step that may not."""
    ran.append(n)
    return n


@workflow
def climb(steps: int) -> Flow[int]:
    """Many cheap steps."""
    total = 0
    for n in range(steps):
        total += yield from cheap(n)
    return total


def opened(definition: object, seed: int, **options: object) -> Simulation:
    return Simulation([definition], seed=seed, checkpoint=POLICY, **options)  # type: ignore[arg-type, list-item]


def ahead_of_a_checkpoint(definition: object, *args: object) -> Iterator[Simulation]:
    """Simulations stopped where a body has run behind a checkpoint that the store has not answered yet."""
    for seed in SEEDS:
        ran.clear()
        with opened(definition, seed) as simulation:
            simulation.start(definition, *args, id="run")  # type: ignore[arg-type]

            def behind(simulation: Simulation = simulation) -> bool:
                live = simulation.works.loop.live.get(1)
                return live is not None and live.ahead is not None and len(ran) > 3

            if simulation.run(behind):
                yield simulation


def test_bodies_run_while_their_checkpoint_is_on_its_way():
    """With three results queued to be durable and none recorded, the fourth body runs."""
    seen = [(simulation.backend.head(1), len(ran)) for simulation in ahead_of_a_checkpoint(climb, 12)]
    assert (1, 4) in seen
    assert all(bodies - (head - 1) <= 2 * POLICY.every_steps for head, bodies in seen)


def test_nothing_goes_on_behind_the_second():
    """A second checkpoint waits for the first: never more than twice `every_steps` results are at risk."""
    for seed in SEEDS:
        ran.clear()
        with opened(climb, seed) as simulation:
            run = simulation.start(climb, 30)
            for bodies in range(1, 31):
                simulation.run(lambda bodies=bodies: len(ran) >= bodies)  # type: ignore[misc]
                assert len(ran) - (simulation.backend.head(1) - 1) <= 2 * POLICY.every_steps
            assert run.result() == sum(range(30))


def test_a_policy_of_one_works_nothing_ahead():
    """With `every_steps=1` no body runs before the result before it is durable."""

    @step(idempotent=True)
    def look(n: int) -> int:
        return simulation.backend.head(1) - 1

    @workflow
    def job() -> Flow[list[int]]:
        seen = []
        for n in range(6):
            seen.append((yield from look(n)))
        return seen

    for seed in SEEDS:
        with Simulation([job], seed=seed, checkpoint=CheckpointPolicy(every_steps=1)) as simulation:
            assert simulation.start(job).result() == [0, 1, 2, 3, 4, 5]


def test_other_steps_wait_for_the_checkpoint_and_what_gathered_behind_it():
    """The body of a step that is not idempotent begins when everything before it is in the store."""
    heads: list[int] = []

    @step
    def look() -> None:
        heads.append(simulation.backend.head(1))

    @workflow
    def job() -> Flow[None]:
        for n in range(5):
            yield cheap(n)
        yield look()

    for seed in SEEDS:
        with opened(job, seed) as simulation:
            simulation.start(job).result()
    assert heads == [6] * len(SEEDS)


def test_a_signal_is_recorded_behind_the_checkpoint_it_came_upon():
    """What arrives while a checkpoint is on its way is folded after it, once, and nothing is lost."""

    @workflow
    def job() -> Flow[str]:
        for n in range(9):
            yield cheap(n)
        return (yield from Receive("word", str))

    met = 0
    for simulation in ahead_of_a_checkpoint(job):
        met += 1
        run = simulation.get("run")
        run.signal("word", "now")
        assert run.result() == "now"
        events = run.history()
        assert sum(isinstance(event, StepCompleted) for event in events) == 9
        assert sum(isinstance(event, SignalReceived) for event in events) == 1
    assert met > 5


def test_a_run_that_ends_behind_a_checkpoint_closes_after_it():
    """The end of the code waits for the answer, and what comes meanwhile does not get in between."""
    met = 0
    for simulation in ahead_of_a_checkpoint(climb, 4):
        met += 1
        run = simulation.get("run")
        run.signal("unasked", 1)
        assert run.result() == 6
        events = run.history()
        assert isinstance(events[-1], RunCompleted)
        assert events[-1].unread == {"unasked": 1}
    assert met > 5


def test_termination_finds_the_checkpoint_in_the_history():
    """A run ended by force behind a checkpoint keeps what was in it."""
    for simulation in ahead_of_a_checkpoint(climb, 12):
        run = simulation.get("run")
        run.terminate("enough")
        simulation.run(lambda run=run: not run.status.open)  # type: ignore[misc]
        assert run.status is Status.TERMINATED
        assert sum(isinstance(event, StepCompleted) for event in run.history()) >= 3


def test_code_that_goes_astray_behind_a_checkpoint_blocks_the_run_after_it():
    """Blocked by what it yields behind a checkpoint, the run keeps the checkpoint and says why."""

    @workflow
    def job() -> Flow[None]:
        for n in range(4):
            yield cheap(n)
        yield [1]  # type: ignore[misc]

    met = 0
    for simulation in ahead_of_a_checkpoint(job):
        met += 1
        run = simulation.get("run")
        simulation.run(lambda run=run: run.status is Status.BLOCKED)  # type: ignore[misc]
        assert run.status is Status.BLOCKED
        assert sum(isinstance(event, StepCompleted) for event in run.history()) == 4
    assert met > 5


def test_a_full_store_keeps_checkpoints_in_their_order():
    """A checkpoint that finds the store full stays queued; what gathered behind it follows when there is room."""
    for simulation in ahead_of_a_checkpoint(climb, 12):
        assert simulation.get("run").result() == sum(range(12))
    for seed in SEEDS:
        ran.clear()
        plan = FaultPlan(seed, on=1.0, only=("store.full", "store.conflict", "store.unknown-after"))
        with opened(climb, seed, faults=plan) as simulation:
            run = simulation.start(climb, 20)
            assert run.result() == sum(range(20))
            assert ran == [*range(20)], f"seed {seed}"
            assert [event.id for event in run.history() if isinstance(event, StepCompleted)] == [
                str(n) for n in range(1, 21)
            ]


@workflow
def mixed() -> Flow[int]:
    """Runs of cheap steps with a dear one between them."""
    total = 0
    for n in range(2):
        total += yield from climb_inside(4)
        total += yield from dear(n)
    return total


def climb_inside(steps: int) -> Flow[int]:
    """Cheap steps of the workflow that calls it."""
    total = 0
    for n in range(steps):
        total += yield from cheap(n)
    return total


def test_nothing_that_goes_wrong_can_be_seen():
    """Crashes, lost answers, conflicts, evictions and full stores, at any moment: the same outcome, a sound history."""
    for seed in range(120):
        ran.clear()
        with opened(mixed, seed, faults=FaultPlan(seed, most=8)) as simulation:
            run = simulation.start(mixed)
            assert run.result() == 2 * sum(range(4)) + 1, f"seed {seed}"
            assert [e.id for e in run.history() if isinstance(e, StepCompleted)] == [str(n) for n in range(1, 11)]
            assert check_store(simulation.backend) == []
            assert simulation.backend.check() == []


def test_an_answer_that_comes_while_the_code_runs_is_taken():
    """The store answers in the very moment in which the workflow is resumed: the run goes on all the same."""

    @workflow
    def job() -> Flow[int]:
        total = 0
        for n in range(30):
            total += yield from cheap(n)
            simulation.works.committer.lead()  # as another thread would, while this one runs the code
        return total

    for seed in SEEDS:
        with opened(job, seed) as simulation:
            assert simulation.start(job).result() == sum(range(30))


def test_threads_that_flush_and_work_at_once_lose_no_answer():
    """Thousands of steps one after another, with one thread flushing while another works: the run ends."""
    with Engine("memory:", workflows=[climb], checkpoint=CheckpointPolicy(every_steps=7)) as engine:
        for start in range(3):
            assert engine.start(climb, 3000, id=f"run-{start}").result(timeout=60) == sum(range(3000))
