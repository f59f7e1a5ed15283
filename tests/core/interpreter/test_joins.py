"""`All`, `Map` and `First`."""

from __future__ import annotations

from typing import Any

import pytest

from dalsegno.core.commands import All, First, Flow, Map, Now, Receive, Sleep, Uuid, Winner
from dalsegno.core.definitions import step, workflow
from dalsegno.core.errors import Cancelled, EncodeError, ToleranceExceeded
from dalsegno.core.policies import Completion
from tests.core.interpreter.drive import Drive


@step
def work(n: int = 0) -> int:
    return n


@step
def other(n: int = 0) -> int:
    return n


def twice(n: int) -> Flow[int]:
    first = yield from work(n)
    second = yield from work(n + 1)
    return first + second


@workflow
def all_kinds() -> Flow[Any]:
    return (yield from All(work(1), twice(10), All([work(3), other(4)]), All(), All([])))


def test_all_answers_in_the_order_of_its_branches():
    """A tuple for branches, a list for a list, whatever the order they ended in."""
    run = Drive(all_kinds, by_hand=["work", "other"])
    assert run.ids == ["1.1", "1.3.1", "1.3.2", "1.2.1"]
    run.complete("1.3.2", 4).complete("1.2.1", 10).complete("1.1", 1).complete("1.3.1", 3).complete("1.2.2", 11)
    assert run.result() == (1, 21, [3, 4], (), [])


def recover(log: list[str]) -> Flow[int]:
    try:
        yield from work()
    finally:
        log.append(str((yield from other())))
    return 0


@workflow
def failing() -> Flow[Any]:
    log: list[str] = []
    try:
        yield from All(work(1), recover(log), work(2))
    except ValueError as error:
        return [str(error), *log]


def test_the_first_failure_cancels_the_rest_and_waits_for_their_clean_up():
    """What clean-up yields runs to its end before the failure is raised."""
    run = Drive(failing, by_hand=["work", "other"]).fail("1.3", ValueError("no"))
    assert run.ids == ["1.2.2"]
    assert run.withdrawn == ["1.1", "1.2.1"]
    assert run.complete("1.2.2", "swept").result() == ["no", "swept"]


def test_a_branch_that_fails_at_once_keeps_the_rest_from_starting():
    """An argument that cannot be stored fails that branch, before its siblings were asked for."""

    @workflow
    def bad() -> Flow[Any]:
        yield from All(work(1), work(object()), work(2))  # type: ignore[arg-type]

    run = Drive(bad)
    assert run.ran == []
    with pytest.raises(EncodeError):
        run.result()


def test_commands_without_events_may_be_branches():
    """`Now` and `Uuid` answer at once, as branches too."""

    @workflow
    def quick() -> Flow[Any]:
        _, a, b = yield from All(Now(), Uuid(), Uuid())
        return a != b

    assert Drive(quick).result() is True


# --- Map -----------------------------------------------------------------------------------------------------------


@workflow
def mapped(n: int, concurrency: int | None) -> Flow[Any]:
    return (yield from Map(work, range(n), concurrency=concurrency))


def test_map_starts_as_many_as_it_may():
    """Places that become free are filled in the order of the items."""
    run = Drive(mapped, 4, 2, by_hand=["work"])
    assert run.ids == ["1.1", "1.2"]
    run.complete("1.2", "b")
    assert run.ids == ["1.1", "1.3"]
    run.complete("1.3", "c").complete("1.1", "a").complete("1.4", "d")
    assert run.result() == ["a", "b", "c", "d"]


def test_map_of_nothing_is_nothing():
    """Empty input answers an empty list."""
    assert Drive(mapped, 0, None).result() == []


def test_map_of_very_many_does_not_recurse():
    """Branches that end at once free their place without deepening the stack."""

    @workflow
    def many() -> Flow[Any]:
        moments = yield from Map(lambda _: Now(), range(20_000), concurrency=1)
        return len(moments)

    assert Drive(many).result() == 20_000


def test_map_of_generators():
    """The function may make generators."""

    @workflow
    def over() -> Flow[Any]:
        return (yield from Map(twice, [1, 2], concurrency=1))

    assert Drive(over).result() == [3, 5]


def test_the_function_of_a_map_may_fail():
    """Its exception is the failure of that branch."""

    def make(n: int) -> Any:
        if n == 2:
            raise KeyError(n)
        return work(n)

    @workflow
    def over() -> Flow[Any]:
        return (yield from Map(make, range(5), concurrency=1))

    run = Drive(over)
    with pytest.raises(KeyError):
        run.result()
    assert run.ran == ["work", "work"]


def outcomes_of(completion: Completion, items: int = 4) -> Any:
    @workflow
    def over() -> Flow[Any]:
        found = yield from Map(work, range(items), concurrency=2, completion=completion)
        return [(o.index, o.status, o.value, type(o.error).__name__) for o in found]

    return over


def test_a_completion_answers_outcomes():
    """With a policy any number may fail, unless it says otherwise."""
    run = Drive(outcomes_of(Completion(), 3), by_hand=["work"])
    run.fail("1.1", ValueError("x")).complete("1.2", 2).complete("1.3", 3)
    assert run.result() == [
        (0, "failed", None, "ValueError"),
        (1, "succeeded", 2, "NoneType"),
        (2, "succeeded", 3, "NoneType"),
    ]


def test_enough_successes_end_a_map_early():
    """The rest is cancelled, or was never started."""
    run = Drive(outcomes_of(Completion(min_successful=1)), by_hand=["work"]).complete("1.2", 2)
    assert [status for _, status, _, _ in run.result()] == ["cancelled", "succeeded", "not started", "not started"]


def test_no_success_needed_starts_nothing():
    """A policy that is satisfied from the start asks for nothing."""
    run = Drive(outcomes_of(Completion(min_successful=0)))
    assert {status for _, status, _, _ in run.result()} == {"not started"}
    assert run.ran == []


@pytest.mark.parametrize("completion", [Completion(tolerated_failures=1), Completion(tolerated_percentage=25)])
def test_more_failures_than_tolerated_end_a_map(completion: Completion):
    """`ToleranceExceeded` carries the outcomes, and the first failure as its cause."""
    seen: list[Any] = []

    @workflow
    def over() -> Flow[Any]:
        try:
            yield from Map(work, range(4), concurrency=3, completion=completion)
        except ToleranceExceeded as error:
            seen.append(error)
            return [o.status for o in error.outcomes]

    run = Drive(over, by_hand=["work"]).fail("1.1", ValueError("x")).fail("1.3", ValueError("y"))
    assert run.result() == ["failed", "cancelled", "failed", "cancelled"]
    assert seen[0].failed == 2
    assert str(seen[0].__cause__) == "x"


# --- First ---------------------------------------------------------------------------------------------------------


@workflow
def race() -> Flow[Winner[Any]]:
    return (yield from First(decision=Receive("approval"), late=Sleep(60), tried=work()))


def test_the_first_branch_to_end_wins():
    """The winner's key and value are answered, and the losers are withdrawn."""
    run = Drive(race, by_hand=["work"]).signal("approval", "yes")
    assert run.result() == Winner("decision", "yes")
    assert run.withdrawn == ["1.2", "1.3"]


def test_a_timer_may_win():
    """The decision is an event of its own."""
    run = Drive(race, by_hand=["work"]).pass_time()
    assert run.result() == Winner("late", None)
    assert [type(event).__name__ for event in run.events[-4:]] == [
        "TimerSet",
        "TimerFired",
        "RaceDecided",
        "RunCompleted",
    ]


def test_a_failure_may_win():
    """A branch that ends first by failing has won, and its error is raised."""
    run = Drive(race, by_hand=["work"]).fail("1.3", ValueError("lost"))
    with pytest.raises(ValueError, match="lost"):
        run.result()


def test_losers_clean_up_before_the_race_is_over():
    """`First` answers only when the clean-up of the losers is done."""

    @workflow
    def tidy() -> Flow[Any]:
        log: list[str] = []
        won = yield from First(work(1), recover(log))
        return [won.key, won.value, *log]

    run = Drive(tidy, by_hand=["work", "other"]).complete("1.1", "first")
    assert run.ids == ["1.2.2"]
    assert run.complete("1.2.2", "swept").result() == [0, "first", "swept"]


def test_a_branch_that_has_ended_keeps_the_rest_from_starting():
    """When a signal is there already, nothing else of the race is begun."""

    @workflow
    def ready() -> Flow[Any]:
        yield from work()
        return (yield from First(Receive("go"), work(1)))

    run = Drive(ready, by_hand=["work"]).signal("go", 1).complete("1")
    assert run.result() == Winner(0, 1)


def test_the_recorded_winner_counts_even_if_another_ended_too():
    """Both ended before the decision: on every replay the recorded one wins."""

    def branch(name: str) -> Flow[str]:
        yield from Receive(name)
        return name

    @workflow
    def close() -> Flow[Any]:
        return (yield from First(a=branch("a"), b=branch("b"))).key

    run = Drive(close)
    record, run.settle = run.settle, lambda: run  # type: ignore[method-assign]
    run.signal("b").signal("a")
    run.settle = record  # type: ignore[method-assign]
    assert run.settle().result() == "b"


def test_cancelling_a_branch_from_inside_counts_as_failing():
    """A branch that raises `Cancelled` by itself has ended like any other."""

    def gives_up() -> Flow[None]:
        yield from work()
        raise Cancelled("by myself")

    @workflow
    def odd() -> Flow[Any]:
        found = yield from Map(lambda _: gives_up(), range(1), completion=Completion())
        return found[0].status

    assert Drive(odd).result() == "failed"
