"""What one can say to a run: cancel, terminate, pause, resume, fork."""

from __future__ import annotations

import pytest

from dalsegno import (
    All,
    BadOption,
    Cancelled,
    Client,
    Flow,
    Publish,
    Receive,
    Retry,
    RunClosed,
    Shield,
    Sleep,
    Spawn,
    Status,
    Terminated,
    TimedOut,
    step,
    step_context,
    workflow,
)
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.events import CancelRequested, RunStarted
from dalsegno.testing import assert_replays, assert_sound
from dalsegno.testing.simulation import Simulation


def test_cancelling_raises_where_the_run_waits_and_its_clean_up_runs_to_its_end():
    """`Cancelled` carries the reason; what `finally` yields is carried out, waits included; the run is CANCELLED."""
    done: list[tuple[str, float]] = []

    @step
    def tidy(what: str) -> None:
        done.append((what, simulation.elapsed))

    @workflow
    def wait() -> Flow[None]:
        try:
            yield Receive("never")
        finally:
            yield tidy("first")
            yield Sleep(100)
            yield tidy("second")

    with Simulation([wait]) as simulation:
        run = simulation.start(wait)
        simulation.at(10, lambda: run.cancel("not needed"))
        simulation.at(20, lambda: run.cancel("not needed, I said"))
        with pytest.raises(Cancelled, match="not needed"):
            run.result()
        assert run.status is Status.CANCELLED
        assert run.error is not None
        assert (run.error.type, run.error.message) == ("dalsegno.core.errors:Cancelled", "not needed")
        assert done == [("first", 10), ("second", 110)]
        assert sum(isinstance(e, CancelRequested) for e in run.history()) == 1


def test_a_cancelled_run_may_still_complete():
    """A workflow that catches `Cancelled` and returns has completed."""

    @workflow
    def stubborn() -> Flow[str]:
        try:
            yield Sleep(1000)
        except Cancelled as error:
            return f"stopped: {error}"
        return "slept"

    with Simulation([stubborn]) as simulation:
        run = simulation.start(stubborn)
        simulation.at(10, lambda: run.cancel("late"))
        assert run.result() == "stopped: late"
        assert run.status is Status.COMPLETED
        assert simulation.elapsed == 10


def test_cancelling_reaches_a_step_that_waits_for_its_next_attempt():
    """During a back-off the step is given up at once, and no further attempt is made."""
    attempts: list[int] = []

    @step(retry=Retry(initial=1000, maximum=1000, jitter=0))
    def flaky() -> None:
        attempts.append(step_context().attempt)
        raise ConnectionError

    @workflow
    def insist() -> Flow[None]:
        yield flaky()

    with Simulation([insist]) as simulation:
        run = simulation.start(insist)
        simulation.at(10, run.cancel)
        with pytest.raises(Cancelled):
            run.result()
        assert simulation.elapsed == 10
        simulation.run()
        assert attempts == [1]
        assert simulation.backend.next_deadline_us() is None


def test_a_shielded_branch_is_not_cancelled():
    """What runs in a `Shield` ends as it would have; `Cancelled` is raised after it."""
    done: list[str] = []

    @step
    def note(what: str) -> None:
        done.append(what)

    @workflow
    def careful() -> Flow[None]:
        def inside() -> Flow[None]:
            yield Sleep(100)
            yield note("inside")

        yield Shield(inside())
        yield note("after")

    with Simulation([careful]) as simulation:
        run = simulation.start(careful)
        simulation.at(10, run.cancel)
        with pytest.raises(Cancelled):
            run.result()
        assert done == ["inside"]
        assert simulation.elapsed == 100


def test_terminating_asks_no_code():
    """A terminated run ends at once, without clean-up, and `result` says why."""
    done: list[str] = []

    @step
    def tidy() -> None:
        done.append("tidied")

    @workflow
    def wait() -> Flow[None]:
        try:
            yield All(Receive("never"), Sleep(1000))
        finally:
            yield tidy()

    with Simulation([wait]) as simulation:
        run = simulation.start(wait)
        simulation.at(10, lambda: run.terminate("enough"))
        with pytest.raises(Terminated, match="enough") as caught:
            run.result()
        assert caught.value.reason == "enough"
        assert (run.status, simulation.elapsed, done) == (Status.TERMINATED, 10, [])
        assert simulation.backend.next_deadline_us() is None


def test_a_parent_and_its_child_are_terminated_at_once():
    """Both end, although the news of the child's end waits in the parent's inbox behind the word to end."""

    @workflow
    def child() -> Flow[None]:
        yield Receive("never")

    @workflow
    def parent() -> Flow[None]:
        yield child()

    with Simulation([parent, child]) as simulation:
        run = simulation.start(parent)
        simulation.run()
        for each in simulation.runs():
            each.terminate()
        simulation.run()
        assert {each.status for each in simulation.runs()} == {Status.TERMINATED}
        assert run.status is Status.TERMINATED


def test_a_closed_run_takes_no_more_words():
    """Every word to a run that has ended is `RunClosed`, with the status it has."""

    @workflow
    def brief() -> Flow[int]:
        yield Sleep(1)
        return 1

    with Simulation([brief]) as simulation:
        run = simulation.start(brief)
        assert run.result() == 1
        for say in (lambda: run.signal("x"), run.cancel, run.terminate, run.pause, run.resume):
            with pytest.raises(RunClosed) as caught:
                say()
            assert caught.value.status is Status.COMPLETED
        with pytest.raises(BadOption):
            run.signal("")


def test_the_code_of_a_paused_run_stands_still_until_it_is_resumed():
    """What runs is recorded, all else waits: signals in the inbox, timers, what the code would do with an outcome. A
    restart changes nothing of it, and at the end of the pause all of it is taken in the order in which it came."""
    done: list[tuple[str, float]] = []

    @step
    def work(what: str) -> None:
        done.append((what, simulation.elapsed))

    @workflow
    def busy() -> Flow[list[str]]:
        napping = yield from Spawn(Sleep(20))
        yield work("first")
        yield Publish("first", "done")
        words = [(yield from Receive("word", str)), (yield from Receive("word", str))]
        yield from napping
        yield work("second")
        return words

    with Simulation([busy]) as simulation:
        simulation.takes(work, 10)
        run = simulation.start(busy)
        simulation.at(5, lambda: run.pause("for lunch"))
        simulation.at(6, run.pause)
        simulation.at(50, lambda: run.signal("word", "go"))
        simulation.at(51, lambda: run.signal("word", "on"))
        simulation.at(60, simulation.restart)
        simulation.run(timeout=70)
        assert (run.status, run.record.reason, run.state) == (Status.PAUSED, "for lunch", {})
        assert [message.name for message in simulation.backend.inbox(run.record.number)] == ["word", "word"]
        assert_sound(simulation.backend)
        simulation.at(100, run.resume)
        simulation.at(101, run.resume)
        assert run.result() == ["go", "on"]
        assert (run.state, done) == ({"first": "done"}, [("first", 10), ("second", 110)])
        kinds = [type(event).__name__ for event in run.history()]
        assert kinds[:6] == ["RunStarted", "TimerSet", "RunPaused", "StepCompleted", "RunResumed", "SignalReceived"]
        assert kinds.count("RunPaused") == kinds.count("RunResumed") == 1
        assert assert_replays(run, [busy]) == 1


@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.parametrize("step_too", [False, True])
def test_a_paused_run_neither_publishes_nor_ends(cold: bool, step_too: bool):
    """Signals that would move it, and lead it to its end, wait; how the run stands and what it shows stay."""

    ran: list[float] = []

    @step(retry=Retry(initial=1, jitter=0, retry_on=(OSError,)))
    def work(n: int) -> int:
        ran.append(simulation.elapsed)
        if step_context().attempt == 1:
            raise OSError("try again")
        return n

    @workflow
    def counts() -> Flow[int]:
        count = 0
        for _ in range(3):
            yield from Receive("tick")
            count += 1
            yield from Publish("count", count)
            if step_too:
                yield from work(count)
        return count

    with Simulation([counts], cold=cold) as simulation:
        run = simulation.start(counts)
        simulation.takes(work, 10)
        simulation.at(0, lambda: run.signal("tick"))
        simulation.at(5, lambda: run.pause("hold"))
        for at in (20, 30, 40):
            simulation.at(at, lambda: run.signal("tick"))
        simulation.run(timeout=100)
        assert (run.status, run.state) == (Status.PAUSED, {"count": 1})
        assert ran == ([10] if step_too else [])
        assert_sound(simulation.backend)
        simulation.at(200, run.resume)
        assert run.result() == 3
        assert simulation.backend.next_deadline_us() is None


def test_pauses_and_what_comes_between_them_keep_their_order():
    """Pause, signal, resume, pause: the run takes the signal, and is paused again; who pauses twice resumes once."""

    @workflow
    def listens() -> Flow[str]:
        first = yield from Receive("word", str)
        yield from Publish("first", first)
        return first + (yield from Receive("word", str))

    store = MemoryBackend()
    with Client(store) as client:
        run = client.start(listens, id="l")
        for say in (run.pause, run.pause, lambda: run.signal("word", "a"), run.resume, run.pause):
            say()
        run.signal("word", "b")
    with Simulation([listens], store=store) as simulation:
        simulation.run()
        handle = simulation.get("l")
        assert (handle.status, handle.state) == (Status.PAUSED, {"first": "a"})
        handle.resume()
        assert handle.result() == "ab"
        kinds = [type(event).__name__ for event in handle.history()]
        assert kinds == [
            *["RunStarted", "RunPaused", "RunResumed", "SignalReceived", "RunPaused", "RunResumed", "SignalReceived"],
            "RunCompleted",
        ]


def test_a_paused_run_runs_out_of_its_own_time():
    """The run's own time-out bounds the whole run, pauses and all."""

    @workflow(timeout=60)
    def waits() -> Flow[None]:
        yield Sleep(30)

    with Simulation([waits]) as simulation:
        run = simulation.start(waits)
        simulation.at(10, run.pause)
        with pytest.raises(TimedOut):
            run.result()
        assert (run.status, simulation.elapsed) == (Status.FAILED, 60)


def test_a_run_paused_before_anybody_worked_on_it_starts_nothing():
    """A pause that lies in the inbox when a run is first loaded, or loaded again, holds its steps back."""
    ran: list[int] = []

    @step
    def work(n: int) -> int:
        ran.append(n)
        return n

    @workflow
    def job() -> Flow[int]:
        return (yield from work(1)) + (yield from work(2))

    store = MemoryBackend()
    with Client(store) as client:
        client.start(job, id="job").pause("wait")
    for _ in range(2):
        with Simulation([job], store=store) as simulation:
            simulation.run(lambda: False)
            assert simulation.get("job").status is Status.PAUSED
            assert ran == []
    with Simulation([job], store=store) as simulation:
        run = simulation.get("job")
        run.resume()
        assert run.result() == 3
        assert ran == [1, 2]


def test_a_paused_run_can_be_cancelled_and_terminated():
    """Pausing keeps nobody from ending a run: a cancellation ends the pause, since clean-up has to run."""
    tidied = []

    @step
    def tidy() -> None:
        tidied.append(1)

    @workflow
    def wait() -> Flow[None]:
        try:
            yield Sleep(1000)
        finally:
            yield tidy()

    with Simulation([wait]) as simulation:
        cancelled, terminated = simulation.start(wait), simulation.start(wait)
        for run in (cancelled, terminated):
            run.pause()
        simulation.run(timeout=1)
        cancelled.cancel()
        terminated.terminate()
        simulation.run(timeout=1)
        assert (cancelled.status, terminated.status) == (Status.CANCELLED, Status.TERMINATED)
        assert tidied == [1]


def test_a_run_that_takes_longer_than_its_timeout_fails():
    """`TimedOut` is the run's end, at exactly its deadline, without asking its code; a restart does not prolong it."""

    @workflow(timeout=60)
    def slow() -> Flow[None]:
        yield Sleep(1000)

    with Simulation([slow]) as simulation:
        run = simulation.start(slow)
        simulation.at(30, simulation.restart)
        with pytest.raises(TimedOut, match="took longer than its timeout"):
            run.result()
        assert (run.status, simulation.elapsed) == (Status.FAILED, 60)
        assert simulation.backend.next_deadline_us() is None


def test_a_fork_goes_on_from_a_prefix_and_runs_no_recorded_step_again():
    """Steps in the prefix keep their results, timers in it keep their deadlines, and the original is not touched."""
    ran: list[tuple[str, str]] = []

    @step
    def work(what: str) -> str:
        ran.append((step_context().workflow_id, what))
        return what

    @workflow
    def busy() -> Flow[list[str]]:
        first = yield work("a")
        yield Sleep(60)
        return [first, (yield work("b"))]

    with Simulation([busy]) as simulation:
        run = simulation.start(busy, id="one", tags={"k": "v"})
        assert run.result() == ["a", "b"]
        before = run.history()
        twin = run.fork(3, id="two")
        assert twin.result() == ["a", "b"]
        assert ran == [("one", "a"), ("one", "b"), ("two", "b")]
        assert run.history() == before
        assert twin.tags == {"k": "v"}
        start = twin.history()[0]
        assert isinstance(start, RunStarted)
        assert start.origin == "forked from one#1 at 3"
        assert twin.history()[1:3] == before[1:3]


def test_a_fork_starts_its_own_children_and_leaves_the_others_alone():
    """A child that the prefix leaves open is started anew under the fork, which does not hear of the original's."""

    @workflow
    def child() -> Flow[str]:
        return (yield from Receive("word", str))

    @workflow
    def parent() -> Flow[str]:
        return (yield from child())

    with Simulation([parent, child]) as simulation:
        run = simulation.start(parent, id="one")
        simulation.run()
        twin = run.fork(2, id="two")
        simulation.run()
        assert sorted(each.id for each in simulation.runs(workflow=child)) == ["one/1", "two/1"]
        simulation.get("one/1").signal("word", "first")
        assert run.result() == "first"
        assert twin.status is Status.RUNNING
        simulation.get("two/1").signal("word", "second")
        assert twin.result() == "second"


@pytest.mark.parametrize("at", [0, -1, 6, 100])
def test_a_fork_keeps_at_least_the_start_and_not_the_end(at: int):
    """Only prefixes that leave the run open can be forked."""

    @workflow
    def brief() -> Flow[None]:
        yield Sleep(1)
        yield Sleep(1)

    with Simulation([brief]) as simulation:
        run = simulation.start(brief)
        run.result()
        with pytest.raises(BadOption, match="between 1 and 5"):
            run.fork(at)
