"""`Spawn`, awaiting tasks, `Cancel`, and what becomes of tasks at the end."""

from __future__ import annotations

from typing import Any

import pytest

from dalsegno.core.commands import All, Cancel, First, Flow, Receive, Sleep, Spawn, Task
from dalsegno.core.definitions import step, workflow
from dalsegno.core.errors import Cancelled, UseError
from dalsegno.core.events import RunCompleted
from tests.core.interpreter.drive import Drive


@step
def work(n: int = 0) -> int:
    return n


def patient(log: list[str]) -> Flow[str]:
    try:
        yield from Receive("never")
    finally:
        log.append("left")
        yield from work(9)
        log.append("cleaned")
    return "?"


@workflow
def beside() -> Flow[Any]:
    task = yield from Spawn(work(1))
    mine = yield from work(2)
    return [mine, (yield from task), (yield from task)]


def test_a_task_runs_beside_its_spawner():
    """Its branch has ids of its own, awaiting it takes none, and it can be awaited again."""
    run = Drive(beside, by_hand=["work"])
    assert run.ids == ["1.1", "2"]
    assert run.complete("2", "mine").complete("1.1", "its").result() == ["mine", "its", "its"]


def test_a_failed_task_raises_where_it_is_awaited():
    """Awaiting brings the task's error."""
    run = Drive(beside, by_hand=["work"]).fail("1.1", ValueError("its own")).complete("2", 1)
    with pytest.raises(ValueError, match="its own"):
        run.result()


def test_cancelling_a_task_waits_for_its_clean_up():
    """`Cancel` answers when the task has ended; awaiting it then raises `Cancelled`."""
    log: list[str] = []

    @workflow
    def stop() -> Flow[Any]:
        log.clear()
        task = yield from Spawn(patient(log))
        yield from work(1)
        yield from Cancel(task)
        yield from Cancel(task)
        try:
            yield from task
        except Cancelled:
            return list(log)

    run = Drive(stop, by_hand=["work"]).complete("2")
    assert run.ids == ["1.1.2"]
    assert run.complete("1.1.2").result() == ["left", "cleaned"]


def test_the_end_waits_for_open_tasks():
    """A run whose root has returned is over when its tasks are."""

    @workflow
    def leaves() -> Flow[str]:
        yield from Spawn(work(1))
        return "done"

    run = Drive(leaves, by_hand=["work"])
    assert run.interpreter.outcome is None
    assert run.complete("1.1").result() == "done"


def test_a_failure_nobody_awaited_is_named():
    """The closing event names tasks that failed unseen."""

    @workflow
    def leaves() -> Flow[str]:
        yield from Spawn(work(1))
        seen = yield from Spawn(work(2))
        try:
            yield from seen
        except ValueError:
            pass
        return "done"

    run = Drive(leaves, by_hand=["work"]).fail("2.1", ValueError("seen")).fail("1.1", ValueError("unseen"))
    assert run.result() == "done"
    closing = run.events[-1]
    assert isinstance(closing, RunCompleted)
    assert closing.unawaited == ("1 work: ValueError: unseen",)


def test_a_failing_root_has_its_tasks_cancelled():
    """No task outlives a run that failed; their clean-up is waited for."""

    @workflow
    def fails() -> Flow[None]:
        yield from Spawn(patient([]))
        yield from work(1)
        raise ValueError("root")

    run = Drive(fails, by_hand=["work"]).complete("2")
    assert run.ids == ["1.1.2"]
    with pytest.raises(ValueError, match="root"):
        run.complete("1.1.2").result()


def test_losing_a_race_leaves_the_task_alone():
    """Awaiting is given up, the task goes on and can be awaited later."""

    @workflow
    def impatient() -> Flow[Any]:
        task = yield from Spawn(work(1))
        won = yield from First(task, Sleep(5))
        return [won.key, (yield from task)]

    run = Drive(impatient, by_hand=["work"]).pass_time()
    assert run.ids == ["1.1"]
    assert run.complete("1.1", 7).result() == [1, 7]


def test_a_task_that_waits_for_itself_is_told():
    """That would be for ever, so the yield raises."""
    held: list[Task[Any]] = []

    def narcissus() -> Flow[Any]:
        yield from work(0)
        return (yield from All(held[0]))

    @workflow
    def odd() -> Flow[Any]:
        held.clear()
        held.append((yield from Spawn(narcissus())))
        return (yield from held[0])

    with pytest.raises(UseError, match="waits for itself"):
        Drive(odd).result()


def test_a_task_may_cancel_itself():
    """`Cancelled` is raised at that very yield."""
    held: list[Task[Any]] = []

    def quits() -> Flow[str]:
        yield from work(0)
        try:
            yield from Cancel(held[0])
        except Cancelled:
            return "quit"
        return "went on"

    @workflow
    def odd() -> Flow[Any]:
        held.clear()
        held.append((yield from Spawn(quits())))
        return (yield from held[0])

    assert Drive(odd).result() == "quit"


def test_a_task_of_another_run_is_refused():
    """A `Task` means something only in the run that spawned it."""

    @workflow
    def odd() -> Flow[Any]:
        yield from Task("77")

    with pytest.raises(UseError, match="not spawned in this run"):
        Drive(odd).result()


def test_tasks_may_spawn_tasks():
    """Ids nest: the branch of task 1 is fiber 1.1, what it spawns first is 1.1.1."""

    def outer() -> Flow[Any]:
        inner = yield from Spawn(work(5))
        return (yield from inner)

    @workflow
    def root() -> Flow[Any]:
        task = yield from Spawn(outer())
        return (yield from task)

    run = Drive(root, by_hand=["work"])
    assert run.ids == ["1.1.1.1"]
    assert run.complete("1.1.1.1", 5).result() == 5
