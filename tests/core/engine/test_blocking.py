"""Runs that cannot go on as they are: blocked, never failed, and going on with mended code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dalsegno import Flow, Receive, RunBlocked, Sleep, Status, step, workflow
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.store import Message
from dalsegno.testing.simulation import Simulation

ran: list[str] = []


@step
def work(what: str) -> str:
    """A step."""
    ran.append(what)
    return what


@step
def other(what: str) -> str:
    """Another step."""
    ran.append(what)
    return what


@pytest.fixture(autouse=True)
def nothing_ran():
    """Begin with an empty ledger."""
    ran.clear()


def version(*lines: Callable[[], Any]) -> WorkflowDefinition[[], Any]:
    """A workflow `job` that yields these commands one after another, with a wait in the middle."""

    @workflow(name="job")
    def job() -> Flow[list[Any]]:
        seen = []
        for line in lines:
            seen.append((yield line()))
        return seen

    return job


GOOD = version(lambda: work("a"), lambda: Receive("go"), lambda: work("b"))

CHANGED = {
    "added": version(lambda: work("new"), lambda: work("a"), lambda: Receive("go"), lambda: work("b")),
    "dropped": version(lambda: Receive("go"), lambda: work("b")),
    "renamed": version(lambda: other("a"), lambda: Receive("go"), lambda: work("b")),
    "other arguments": version(lambda: work("z"), lambda: Receive("go"), lambda: work("b")),
    "other kind": version(lambda: Sleep(5), lambda: Receive("go"), lambda: work("b")),
    "ended early": version(),
    "raises": version(lambda: 1 / 0),
}


@pytest.mark.parametrize("change", CHANGED)
def test_changed_code_blocks_the_run_and_mended_code_lets_it_go_on(change: str):
    """Code that does not fit the history blocks the run with the reason; nothing is run; the old code finishes it."""
    store = MemoryBackend()
    with Simulation([GOOD], store=store) as simulation:
        simulation.start(GOOD, id="j")
        simulation.run()
    with Simulation([CHANGED[change]], store=store) as simulation:
        run = simulation.get("j")
        run.signal("go", 1)
        with pytest.raises(RunBlocked) as caught:
            run.result()
        assert caught.value.workflow_id == "j"
        assert "'j'" in caught.value.reason
        assert run.status is Status.BLOCKED
        assert ran == ["a"]
    with Simulation([GOOD], store=store) as simulation:
        assert simulation.get("j").result() == ["a", 1, "b"]
        assert ran == ["a", "b"]


def test_resume_tries_a_blocked_run_again():
    """`resume` has the run looked at with the code the engine has now; without mended code it stays blocked."""
    store = MemoryBackend()
    with Simulation([GOOD], store=store) as simulation:
        simulation.start(GOOD, id="j")
        simulation.run()
    with Simulation([CHANGED["renamed"]], store=store) as simulation:
        run = simulation.get("j")
        run.signal("go", 1)
        simulation.run()
        events = len(run.history())
        for _ in range(3):
            run.resume()
            simulation.run()
        assert simulation.get("j").status is Status.BLOCKED
        assert len(run.history()) == events
        run.terminate("give up")
        simulation.run()
        assert run.status is Status.TERMINATED


ALIEN: dict[str, tuple[Callable[[], Any], str]] = {
    "generator": (lambda: (n for n in range(3)), "Did you mean `yield from`"),
    "list": (lambda: [work("a"), work("b")], "are written All"),
    "nothing": (lambda: None, "bare `yield`"),
    "uncalled step": (lambda: work, "Did you forget to call it"),
    "function": (lambda: print, "making it a @step"),
    "class": (lambda: Sleep, "This is the class"),
}


@pytest.mark.parametrize("name", ALIEN)
def test_an_alien_yield_blocks_the_run_and_is_explained(name: str):
    """What is no command is never waited for: the run is blocked, with the line and what was likely meant."""
    thing, said = ALIEN[name]
    job = version(lambda: work("a"), thing)
    store = MemoryBackend()
    with Simulation([job], store=store) as simulation:
        run = simulation.start(job, id="j")
        with pytest.raises(RunBlocked) as caught:
            run.result()
        assert said in caught.value.reason
        assert "test_blocking.py" in caught.value.reason
    mended = version(lambda: work("a"), lambda: work("b"))
    with Simulation([mended], store=store) as simulation:
        assert simulation.get("j").result() == ["a", "b"]
        assert ran == ["a", "b"]


def test_a_payload_that_cannot_be_read_blocks_only_its_own_run():
    """A signal with rubbish in it blocks the run that received it; a hundred others go on."""
    with Simulation([GOOD]) as simulation:
        runs = simulation.start_many(GOOD, [(f"j-{n}", ()) for n in range(101)])
        simulation.send(Message(workflow_id="j-50", kind="signal", name="go", payload=b"\xc1 rubbish"))
        for run in runs[:50] + runs[51:]:
            run.signal("go", run.id)
        for run in runs[:50] + runs[51:]:
            assert run.result() == ["a", run.id, "b"]
        with pytest.raises(RunBlocked, match="j-50"):
            runs[50].result()


def test_what_has_happened_while_a_run_was_blocked_is_there_when_it_goes_on():
    """Signals and deadlines that came in the meantime are not lost."""

    @workflow(name="job")
    def sleeper() -> Flow[list[Any]]:
        yield work("a")
        yield Sleep(100)
        return [(yield Receive("go"))]

    store = MemoryBackend()
    first = Simulation([sleeper], store=store)
    first.start(sleeper, id="j")
    first.run(timeout=10)
    first.close()
    with Simulation([CHANGED["dropped"]], store=store, clock=first.clock) as simulation:
        run = simulation.get("j")
        simulation.run(timeout=200)
        assert run.status is Status.BLOCKED
        run.signal("go", 7)
        simulation.run()
    with Simulation([sleeper], store=store, clock=first.clock) as simulation:
        assert simulation.get("j").result() == [7]
        assert ran == ["a"]


def test_a_parent_waits_for_a_blocked_child():
    """A blocked child neither fails nor ends; its parent waits until it goes on."""

    @workflow
    def parent() -> Flow[Any]:
        return (yield GOOD())

    store = MemoryBackend()
    bad = CHANGED["renamed"]
    with Simulation([parent, GOOD], store=store) as simulation:
        simulation.start(parent, id="p")
        simulation.run()
    with Simulation([parent, bad], store=store) as simulation:
        simulation.get("p/1").signal("go", 1)
        simulation.run()
        assert simulation.get("p/1").status is Status.BLOCKED
        assert simulation.get("p").status is Status.RUNNING
    with Simulation([parent, GOOD], store=store) as simulation:
        assert simulation.get("p").result() == ["a", 1, "b"]
