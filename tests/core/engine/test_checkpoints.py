"""Checkpoints: how many results of idempotent steps a crash may cost."""

from __future__ import annotations

import pytest

from dalsegno import Checkpoint, CheckpointPolicy, Flow, step, workflow
from dalsegno.testing.simulation import Simulation

ran: list[int] = []


@step(idempotent=True)
def cheap(n: int) -> int:
    """A step that may be repeated."""
    ran.append(n)
    return n


@step
def dear(n: int) -> int:
    """A step whose result is durable at once."""
    ran.append(n)
    return n


def drive(simulation: Simulation, pieces: int) -> bool:
    """Let a simulation do so many pieces of work; false if there are not so many."""
    return simulation.run(lambda: simulation.pieces >= pieces)


@pytest.fixture(autouse=True)
def nothing_ran():
    """Begin with an empty ledger."""
    ran.clear()


@workflow
def climb(steps: int) -> Flow[int]:
    """Many cheap steps."""
    total = 0
    for n in range(steps):
        total += yield cheap(n)
    return total


@pytest.mark.parametrize("every", [1, 3, 10])
def test_a_crash_costs_at_most_as_many_results_as_the_policy_says(every: int):
    """Killed after 25 bodies, fewer than `every_steps` + 1 of them run again, and the result is the same."""
    with Simulation([climb], checkpoint=CheckpointPolicy(every_steps=every)) as simulation:
        run = simulation.start(climb, 40)
        simulation.run(lambda: len(ran) == 25)
        simulation.restart()
        assert run.result() == sum(range(40))
        assert 40 <= len(ran) <= 40 + (every if every == 1 else 2 * every)


def test_idempotent_steps_share_flushes():
    """A hundred cheap steps take about a tenth of the flushes that a hundred dear ones take."""

    @workflow
    def march(steps: int) -> Flow[int]:
        total = 0
        for n in range(steps):
            total += yield dear(n)
        return total

    flushes = []
    for definition in (climb, march):
        with Simulation([definition]) as simulation:
            assert simulation.start(definition, 100).result() == sum(range(100))
            flushes.append(simulation.works.committer.flushes)
    assert flushes[0] <= 15
    assert flushes[1] >= 100


def test_nothing_waits_longer_than_the_policy_says():
    """Results that have waited for `every` are recorded, though more steps are running."""

    @step(idempotent=True)
    def slow(n: int) -> int:
        return n

    @workflow
    def job() -> Flow[int]:
        first = yield from cheap(1)
        return first + (yield from slow(2))

    policy = CheckpointPolicy(every_steps=100, every=60, long_step=10_000)
    with Simulation([job], checkpoint=policy) as simulation:
        simulation.takes(slow, 1000)
        run = simulation.start(job)
        simulation.at(50, simulation.restart)
        simulation.at(120, simulation.restart)
        assert run.result() == 3
        assert ran == [1, 1]


def test_other_steps_do_not_begin_before_everything_earlier_is_durable():
    """When the body of a step that is not idempotent runs, the results before it are in the store."""
    seen: list[int] = []

    @step
    def look() -> None:
        seen.append(simulation.backend.head(1))

    @workflow
    def job() -> Flow[None]:
        yield cheap(1)
        yield cheap(2)
        yield look()

    with Simulation([job]) as simulation:
        simulation.start(job).result()
        assert seen == [3]


def test_a_long_step_is_preceded_by_a_checkpoint():
    """Before a body declared long, what was waiting is recorded, so that its hours do not put it at risk."""

    @step(idempotent=True, long=True)
    def train() -> str:
        return "model"

    @workflow
    def job() -> Flow[str]:
        yield cheap(1)
        return (yield from train())

    with Simulation([job]) as simulation:
        simulation.takes(train, 10_000)
        run = simulation.start(job)
        simulation.at(1, simulation.restart)
        assert run.result() == "model"
        assert ran == [1]


def test_checkpoint_makes_everything_so_far_durable():
    """When `Checkpoint` returns, no crash costs what came before it."""

    @workflow
    def job() -> Flow[int]:
        yield cheap(1)
        yield cheap(2)
        yield Checkpoint()
        return (yield from cheap(3))

    for piece in range(1, 16):
        ran.clear()
        with Simulation([job], checkpoint=CheckpointPolicy(every_steps=1000)) as simulation:
            run = simulation.start(job)
            drive(simulation, piece)
            third = 3 in ran
            simulation.restart()
            assert run.result() == 3
            if third:
                assert (ran.count(1), ran.count(2)) == (1, 1)


def test_the_adaptive_policy_remembers_failures():
    """After each crash the time between failures is the run's age by its lives, though work was recorded meanwhile: the
    store counts take-overs. A run that has not failed is taken to go on so."""

    @step(idempotent=True)
    def tick(n: int) -> int:
        return n

    @workflow
    def job(steps: int) -> Flow[int]:
        for n in range(steps):
            yield tick(n)
        return steps

    found: list[float] = []
    with Simulation([job], checkpoint=CheckpointPolicy.adaptive()) as simulation:

        def look() -> None:
            (live,) = simulation.works.loop.live.values()
            cost_s = simulation.works.committer.cost_us / 1e6
            found.append(simulation.works.loop.pacing.optimum_s(live) ** 2 / (2 * cost_s))

        simulation.takes(tick, 1)
        run = simulation.start(job, 700)
        for crash in range(1, 4):
            simulation.at(crash * 200 - 0.5, look)
            simulation.at(crash * 200, simulation.restart)
        assert run.result() == 700
    assert found == pytest.approx([199, 199, 199], abs=2)


def test_the_adaptive_policy_lets_more_wait_than_the_fixed_one():
    """Where flushes are cheap and failures rare, its interval is longer than ten short steps."""
    flushes = []
    for policy in (CheckpointPolicy(), CheckpointPolicy.adaptive()):
        with Simulation([climb], checkpoint=policy) as simulation:
            simulation.takes(cheap, 0.001)
            assert simulation.start(climb, 200).result() == sum(range(200))
            flushes.append(simulation.works.committer.flushes)
    assert flushes[0] >= 20
    assert flushes[1] <= 5


def test_the_adaptive_policy_flushes_at_its_own_interval():
    """With `adaptive()` results are recorded after the Young/Daly interval, long before `every`."""

    @step(idempotent=True)
    def slow(n: int) -> int:
        return n

    @workflow
    def job() -> Flow[int]:
        first = yield from cheap(1)
        return first + (yield from slow(2))

    with Simulation([job], checkpoint=CheckpointPolicy.adaptive()) as simulation:
        simulation.takes(slow, 9)
        run = simulation.start(job)
        simulation.at(8, simulation.restart)
        assert run.result() == 3
        assert ran == [1]
