"""`Publish`: what a run shows of itself."""

from __future__ import annotations

from dalsegno import ContinueAsNew, Flow, Publish, Scope, Sleep, step, workflow
from dalsegno.testing.simulation import Simulation


@step
def work() -> str:
    """A step."""
    return "done"


def test_what_is_published_can_be_read_while_it_runs_and_after():
    """`run.state` holds the latest value of each key as it was when last recorded, also after the run has closed."""

    @workflow
    def show() -> Flow[None]:
        yield Publish("stage", "first")
        yield Publish("share", 0.5)
        yield Sleep(10)
        yield Publish("stage", "second")

    with Simulation([show]) as simulation:
        run = simulation.start(show)
        simulation.run(timeout=5)
        assert run.state == {"stage": "first", "share": 0.5}
        assert run.result() is None
        assert run.state == {"stage": "second", "share": 0.5}


def test_a_replay_does_not_publish_again_what_a_scope_has_replaced():
    """What was published before a scope and again inside it stays as the scope left it, though a replay passes over the
    scope."""

    @workflow
    def show() -> Flow[None]:
        def inside() -> Flow[None]:
            yield work()
            yield Publish("stage", "inside")

        yield Publish("stage", "before")
        yield Scope(inside())
        yield Sleep(10)
        yield work()

    with Simulation([show], cold=True) as simulation:
        run = simulation.start(show)
        simulation.at(5, simulation.restart)
        assert run.result() is None
        assert run.state == {"stage": "inside"}


def test_what_a_run_publishes_at_its_very_beginning_survives_a_crash_before_it_was_recorded():
    """A run that is only just created publishes when it comes to life in another process."""

    @workflow
    def show() -> Flow[None]:
        yield Publish("stage", "first")
        yield Sleep(10)

    with Simulation([show]) as simulation:
        run = simulation.start(show)
        simulation.restart()
        simulation.run(timeout=1)
        assert run.state == {"stage": "first"}


def test_each_generation_shows_its_own_state():
    """A run that continues as new begins with nothing published, and a fork with what its part of the history says."""

    @workflow
    def show(round: int = 0) -> Flow[int]:
        yield Publish(f"round {round}", True)
        yield Sleep(10)
        if round == 0:
            yield ContinueAsNew(1)
        return round

    with Simulation([show]) as simulation:
        run = simulation.start(show)
        assert run.result() == 1
        assert run.state == {"round 1": True}
        twin = run.fork(2)
        simulation.run(timeout=0)
        assert twin.state == {"round 1": True}
