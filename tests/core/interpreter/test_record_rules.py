"""What is recorded rules over what happens anew: decisions, the order of equal commands, the time."""

from __future__ import annotations

from typing import Any

from dalsegno.core.commands import All, First, Flow, Now, Receive, Winner
from dalsegno.core.definitions import step, workflow
from dalsegno.core.interpreter import Finished
from tests.core.interpreter.drive import CODEC, SECOND, Drive, fresh


@step
def work(n: int = 0) -> int:
    return n


@workflow
def race() -> Flow[Winner[Any]]:
    return (yield from First(work(1), work(2)))


@workflow
def alike() -> Flow[list[list[int]]]:
    def twice() -> Flow[list[int]]:
        first = yield from work()
        return [first, (yield from work())]

    return (yield from All([twice(), twice()]))


@workflow
def times() -> Flow[list[float]]:
    seen = []
    for _ in range(3):
        seen.append((yield from Now()).timestamp())
        yield from Receive("tick")
    return seen


def test_the_recorded_decision_counts():
    """Of two branches that had both ended, the one recorded as winner has won, not the one that ended first."""
    first = Drive(race, by_hand=["work"]).complete("1.1", 10)
    second = Drive(race, by_hand=["work"]).complete("1.2", 20)
    interpreter = fresh(race)
    interpreter.replay([*first.events[:2], *second.events[1:]])
    assert isinstance(interpreter.outcome, Finished)
    assert CODEC.decode(interpreter.outcome.payload) == Winner(1, 20)


def test_equal_commands_of_two_branches_keep_their_results():
    """Branches that do the same thing in turns get each their own results, on every replay."""
    run = Drive(alike, by_hand=["work"])
    for id, value in (("1.1.1", 1), ("1.2.1", 2), ("1.1.2", 3), ("1.2.2", 4)):
        run.complete(id, value)
    assert run.result() == [[1, 3], [2, 4]]


def test_now_stands_still_while_the_clock_is_behind():
    """After the clock was set back by an hour `Now` answers what it answered last, and then goes on."""
    run = Drive(times)
    for hours in (-1, 2, 0):
        run.now_us += hours * 3600 * SECOND
        run.signal("tick")
    seen = run.result()
    assert [at - seen[0] for at in seen] == [0, 0, 3600]
