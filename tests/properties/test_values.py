"""Values of every kind on every way into a workflow and out of it: live and replayed, equal in value and type."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from dalsegno import Flow, Receive, SideEffect, step, workflow
from dalsegno.core.history import decode_history
from dalsegno.core.interpreter import Finished, Interpreter
from dalsegno.testing.simulation import Simulation
from tests.core.values.zoo import EXAMPLES, same, zoo


class Laden(Exception):
    """An error that carries a value."""

    def __init__(self, load: Any) -> None:
        super().__init__("laden")
        self.load = load


class Journey:
    """Workflows that pass a value along every way there is, and note what came out at each end."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.seen: list[tuple[str, Any]] = []

        @step
        def give_back(load: Any) -> Any:
            self.see("argument of a step", load)
            return load

        @step
        def raise_with(load: Any) -> None:
            raise Laden(load)

        @workflow
        def child(load: Any) -> Flow[Any]:
            self.see("argument of a child", load)
            yield from ()
            return load

        @workflow
        def travel(load: Any) -> Flow[Any]:
            self.see("argument of a workflow", load)
            self.see("result of a step", (yield give_back(load)))
            self.see("result of a child", (yield child(load)))
            self.see("payload of a signal", (yield Receive("load")))
            self.see("side effect", (yield SideEffect(lambda: self.value)))
            try:
                yield raise_with(load)
            except Laden as error:
                self.see("attribute of an error", error.load)
            return load

        self.give_back, self.child, self.travel = give_back, child, travel

    def see(self, where: str, value: Any) -> None:
        """Note a value."""
        self.seen.append((where, value))


def check(value: Any) -> None:
    """Send a value on its journey, live and in a replay."""
    journey = Journey(value)
    with Simulation([journey.travel, journey.child]) as simulation:
        run = simulation.start(journey.travel, value, id="journey")
        run.signal("load", value)
        result = run.result()
        history = simulation.backend.history(run.record.number)
    assert same(result, value)
    for where, seen in journey.seen:
        assert same(seen, value), where
    live = [(where, seen) for where, seen in journey.seen if where not in ("argument of a step", "argument of a child")]
    journey.seen = []
    again = Interpreter(journey.travel, simulation.codec)
    again.replay(decode_history(history))
    assert isinstance(again.outcome, Finished)
    assert same(simulation.codec.decode(again.outcome.payload), value)
    assert [where for where, _ in journey.seen] == [where for where, _ in live]
    assert all(same(seen, value) for _, seen in journey.seen)


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: f"{type(value).__name__}"[:20])
def test_each_example_of_the_zoo_is_the_same_live_and_replayed(value: Any):
    """Every example, as argument, result, payload and attribute, comes out equal in value and type, twice."""
    check(value)


@given(zoo())
def test_any_animal_is_the_same_live_and_replayed(value: Any):
    """Any nesting of values comes out equal in value and type on every way, live and replayed."""
    check(value)


@given(zoo(), zoo())
def test_changing_what_was_received_changes_nothing_elsewhere(value: Any, other: Any):
    """A workflow and its steps never share an object: each gets a copy of its own."""
    held: list[Any] = []

    @step
    def keep(load: Any) -> Any:
        held.append(load)
        return load

    @workflow
    def hand_over() -> Flow[Any]:
        load = [value, other]
        back = yield keep(load)
        held.extend([load, back])
        return back

    with Simulation([hand_over]) as simulation:
        result = simulation.start(hand_over).result()
    assert len({id(one) for one in [*held, result]}) == 4
