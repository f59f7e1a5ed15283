"""Workflow code that never yields is interrupted, its run is blocked, and the others go on."""

from __future__ import annotations

import inspect
import sys
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from dalsegno import Engine, Flow, Receive, RunBlocked, Status, step, workflow
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.engine import watchdog
from dalsegno.core.engine.live import LiveRun
from dalsegno.core.engine.watchdog import Watchdog, is_debugged, workflow_code
from dalsegno.core.events import StepCompleted

MAY_END = threading.Event()


@step
def work(n: int) -> int:
    """A step."""
    return n + 1


@workflow
def good(n: int) -> Flow[int]:
    """Two steps."""
    n = yield work(n)
    n = yield work(n)
    return n


@workflow
def endless(n: int) -> Flow[int]:
    """Never yields again after its step."""
    n = yield work(n)
    while not MAY_END.is_set():
        n += 1
    return n


@workflow
def deaf() -> Flow[None]:
    """Catches what would end it."""
    yield work(1)
    while not MAY_END.is_set():
        try:
            while not MAY_END.is_set():
                pass
        except BaseException:
            continue


@workflow
def stuck() -> Flow[None]:
    """Waits in C, where nothing can be raised."""
    yield work(1)
    MAY_END.wait()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch):
    """Everything that waits ends with the test, and the watchdog strikes again soon."""
    monkeypatch.setattr(watchdog, "STRIKE_EVERY_US", 50_000)
    MAY_END.clear()
    yield
    MAY_END.set()


# An interruption may land in a callback of Python's own, which only reports it; the next one follows.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_endless_loop_is_interrupted_and_others_go_on():
    """Five loops on a crew of two threads: each run is blocked with its line and the seconds, what its step came to is
    kept once or not at all, as after a crash, a hundred others end; with mended code the blocked ones go on."""
    store = MemoryBackend()
    with Engine(store, workflows=[good, endless], watchdog=0.2, durable=2, step_threads=2) as engine:
        bad = [engine.start(endless, n, id=f"bad {n}") for n in range(5)]
        assert [engine.start(good, n).result(timeout=60) for n in range(100)] == [n + 2 for n in range(100)]
        first = inspect.getsourcelines(endless.fn)[1]
        for run in bad:
            with pytest.raises(
                RunBlocked, match=rf"ran for \d+ s without a yield, at .*{Path(__file__).name}:"
            ) as caught:
                run.result(timeout=60)
            line = int(str(caught.value).partition(f"{Path(__file__).name}:")[2].split()[0])
            assert first < line < first + len(inspect.getsourcelines(endless.fn)[0])
            assert sum(isinstance(event, StepCompleted) for event in run.history()) <= 1
    MAY_END.set()
    with Engine(store, workflows=[good, endless], watchdog=0.2) as engine:
        assert [engine.get(run.id).result(timeout=60) for run in bad] == [n + 1 for n in range(5)]


@pytest.mark.parametrize("code", [deaf, stuck], ids=lambda code: code.name)
def test_a_thread_that_cannot_be_interrupted_is_replaced(code):
    """Code that catches everything, or waits in C, costs its thread; its run is set aside, and others go on."""
    with Engine("memory:", workflows=[good, code], watchdog=0.1, durable=1, step_threads=1) as engine:
        run = engine.start(code)
        with pytest.raises(RunBlocked, match="without a yield, at"):
            run.result(timeout=60)
        assert engine.start(good, 1).result(timeout=60) == 3
        head = engine.backend.head(run.record.number)
        MAY_END.set()
        assert engine.start(good, 2).result(timeout=60) == 4
        assert engine.backend.head(run.record.number) == head
        assert run.status is Status.BLOCKED
        assert engine.backend.check() == []


def test_without_a_watchdog_code_may_take_its_time():
    """With `watchdog=None` nothing is interrupted."""

    @workflow
    def slow() -> Flow[str]:
        yield work(1)
        MAY_END.wait(0.5)
        return "done"

    with Engine("memory:", workflows=[slow], watchdog=None) as engine:
        assert engine.start(slow).result(timeout=60) == "done"


def test_code_that_waits_for_a_signal_is_not_watched():
    """Only code that runs is: a run may wait for as long as it likes."""

    @workflow
    def patient() -> Flow[str]:
        return (yield from Receive("word", str))

    with Engine("memory:", workflows=[patient], watchdog=0.05) as engine:
        run = engine.start(patient)
        assert not MAY_END.wait(0.3)
        run.signal("word", "here")
        assert run.result(timeout=60) == "here"


def test_code_in_a_debugger_is_left_alone():
    """A frame that is traced, or pdb's own, says that somebody is looking."""

    def looks() -> bool:
        frame = inspect.currentframe()
        assert frame is not None
        return is_debugged([frame])

    def trace(*_: object) -> Any:
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        traced = looks()
    finally:
        sys.settrace(before)
    assert traced
    there: dict[str, Any] = {"looks": lambda: is_debugged([sys._getframe(1)])}
    exec(compile("found = looks()", "/lib/pdb.py", "exec"), there)
    assert there["found"]
    assert looks() is (before is not None)


def test_the_engines_own_code_is_never_interrupted():
    """A stack without the interpreter below it is not a workflow's."""
    frame = inspect.currentframe()
    assert frame is not None
    assert workflow_code(frame) is None


def test_what_comes_late_hits_nobody():
    """An interruption that was not yet raised when the activation ended is called back."""
    store, given_up = MemoryBackend(), []
    with Engine(store, workflows=[good]) as engine:
        dog = Watchdog(engine._around.clock, 0.0, lambda *about: given_up.append(about))

        def move(run):
            note = dog._notes[threading.get_ident()]
            note.strikes, note.where = 1, "somewhere"
            return True

        with pytest.raises(watchdog.Overrun, match="somewhere"):
            dog.over(move, cast("LiveRun", None))
    assert dog._notes == {}
    assert given_up == []
