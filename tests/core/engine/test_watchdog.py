"""Workflow code that never yields is interrupted, its run is blocked, and the others go on."""

from __future__ import annotations

import gc
import inspect
import sys
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from dalsegno import Engine, Flow, Now, Receive, Run, RunBlocked, SideEffect, Status, StoreError, step, workflow
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.engine import watchdog
from dalsegno.core.engine.edge import SystemClock
from dalsegno.core.engine.live import LiveRun
from dalsegno.core.engine.watchdog import (
    Interrupted,
    Overrun,
    Watchdog,
    is_debugged,
    lands_well,
    overran,
    workflow_code,
)
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
    monkeypatch.setattr(watchdog, "STRIKE_EVERY_US", 20_000)
    monkeypatch.setattr(watchdog, "PATIENCE_US", 500_000)
    monkeypatch.setattr(watchdog, "GIVE_UP_US", 500_000)
    MAY_END.clear()
    yield
    MAY_END.set()


def steps_recorded(run: Run[Any]) -> int:
    """How many outcomes of steps stand in a run's history."""
    return sum(isinstance(event, StepCompleted) for event in run.history())


def test_an_endless_loop_is_interrupted_and_others_go_on():
    """Five loops on a crew of two threads: each run is blocked with its line and the time, what its step came to is
    kept, a hundred others end; with mended code the blocked ones go on."""
    store = MemoryBackend()
    with Engine(store, workflows=[good, endless], watchdog=0.2, durable=2, step_threads=2) as engine:
        bad = [engine.start(endless, n, id=f"bad {n}") for n in range(5)]
        assert [engine.start(good, n).result(timeout=60) for n in range(100)] == [n + 2 for n in range(100)]
        first = inspect.getsourcelines(endless.fn)[1]
        for run in bad:
            with pytest.raises(
                RunBlocked, match=rf"ran for \d[\d.]* m?s without a yield, at .*{Path(__file__).name}:"
            ) as caught:
                run.result(timeout=60)
            line = int(str(caught.value).partition(f"{Path(__file__).name}:")[2].split()[0])
            assert first < line < first + len(inspect.getsourcelines(endless.fn)[0])
            assert steps_recorded(run) == 1
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
        assert steps_recorded(run) == 1
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
    assert workflow_code(inspect.currentframe()) == []
    assert workflow_code(None) == []


def test_what_comes_late_hits_nobody():
    """An interruption that was not yet raised when the code was left is called back: the thread that was struck waits
    for whoever strikes, and nothing is raised afterwards."""
    run, dog, struck = LiveRun(1), Watchdog(SystemClock(), 0.0, lambda *about: None), threading.Event()

    def move(run: LiveRun) -> bool:
        def strike() -> None:
            with dog._striking:
                run.note.strikes, run.note.where = 1, "somewhere"
                struck.set()
                MAY_END.wait(0.05)  # the code is left meanwhile
                watchdog._raise_in(me, Interrupted)

        me, other = threading.get_ident(), threading.Thread(target=strike)
        other.start()
        try:
            with pytest.raises(Overrun, match="somewhere"):
                run.watched(lambda: cast("None", struck.wait(60)))
        finally:
            other.join()
        return sum(range(100_000)) > 0

    assert dog.over(move, run)
    assert [note.inside for note in dog._notes.values()] == [None]
    assert run.note is None


class Loud:
    """Takes long to be let go of."""

    def __del__(self) -> None:
        for _ in range(50):
            pass


@workflow
def loud() -> Flow[None]:
    """Stands in a finalizer half of the time, where Python swallows what is raised."""
    yield work(1)
    while not MAY_END.is_set():
        for n in range(100):
            assert n >= 0
        Loud()


@workflow
def collecting() -> Flow[None]:
    """Stands in a callback of the garbage collector half of the time."""
    yield work(1)

    def slow(*_: object) -> None:
        for n in range(25):
            assert n >= 0

    gc.callbacks.append(slow)
    try:
        while not MAY_END.is_set():
            for n in range(100):
                assert n >= 0
            gc.collect(0)
    finally:
        gc.callbacks.remove(slow)


@pytest.mark.parametrize("code", [loud, collecting], ids=lambda code: code.name)
def test_what_python_would_swallow_is_raised_elsewhere(code):
    """Code that is in callbacks of Python's own half of the time ends all the same, without "Exception ignored in"."""
    with Engine("memory:", workflows=[good, code], watchdog=0.1, durable=1, step_threads=1) as engine:
        run = engine.start(code)
        with pytest.raises(RunBlocked, match="without a yield, at"):
            run.result(timeout=60)
        assert steps_recorded(run) == 1
        assert engine.start(good, 1).result(timeout=60) == 3


class Hides:
    """Is never let go of, unless by force."""

    def __del__(self) -> None:
        while not MAY_END.is_set():
            pass


@workflow
def hides() -> Flow[None]:
    """Stands where Python swallows what is raised, and after that in a loop of its own."""
    yield work(1)
    Hides()
    while not MAY_END.is_set():
        pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_that_was_swallowed_is_followed_by_another(caplog: pytest.LogCaptureFixture):
    """Code that never leaves a finalizer is struck there in the end, which Python only reports; then it is struck once
    more. Its thread is not given up."""
    with Engine("memory:", workflows=[hides], watchdog=0.1, durable=1, step_threads=1) as engine:
        run = engine.start(hides)
        with pytest.raises(RunBlocked, match="without a yield, at"):
            run.result(timeout=60)
        assert steps_recorded(run) == 1
    assert "cannot be interrupted" not in caplog.text


@workflow
def insists() -> Flow[int]:
    """Catches the interruption, and yields again as if nothing had been."""
    n = yield from work(1)
    try:
        while not MAY_END.is_set():
            n += 1
    except BaseException:
        yield work(100)
    return n


def test_code_that_went_on_all_the_same_is_blocked_with_its_facts():
    """What it asked for after it was struck is not recorded, what it was told before is."""
    store = MemoryBackend()
    with Engine(store, workflows=[insists], watchdog=0.1) as engine:
        run = engine.start(insists, id="i")
        with pytest.raises(RunBlocked, match="without a yield, at"):
            run.result(timeout=60)
        assert [type(event).__name__ for event in run.history()] == ["RunStarted", "StepCompleted"]
    MAY_END.set()
    with Engine(store, workflows=[insists]) as engine:
        assert engine.get("i").result(timeout=60) == 2


@workflow
def spins() -> Flow[None]:
    """Yields for ever what needs no answer from outside."""
    yield work(1)
    while not MAY_END.is_set():
        yield Now()


def test_code_that_yields_without_ever_waiting_is_blocked():
    """A loop around `Now` keeps a thread as well as one without a yield."""
    with Engine("memory:", workflows=[spins], watchdog=0.1, durable=1, step_threads=1) as engine:
        run = engine.start(spins)
        with pytest.raises(RunBlocked, match="without a yield, at"):
            run.result(timeout=60)
        assert steps_recorded(run) == 1


def looks_for_ever() -> None:
    """No cheap look."""
    while not MAY_END.is_set():
        pass


@workflow
def looks() -> Flow[None]:
    """Asks for a side effect that never ends."""
    yield work(1)
    yield SideEffect(looks_for_ever)


def test_a_side_effect_without_an_end_is_interrupted():
    """It is code of the workflow's as well: the run is blocked, with the line."""
    with Engine("memory:", workflows=[looks], watchdog=0.1, durable=1, step_threads=1) as engine:
        run = engine.start(looks)
        with pytest.raises(RunBlocked, match=f"without a yield, at .*{Path(__file__).name}.* in looks_for_ever"):
            run.result(timeout=60)
        assert [type(event).__name__ for event in run.history()] == ["RunStarted", "StepCompleted"]


def test_a_run_whose_thread_is_given_up_is_set_aside_when_the_store_takes_it():
    """A store that fails just then is asked again with the next look."""

    class Moody(MemoryBackend):
        failures = 0

        def commit(self, transitions: Any) -> Any:
            if any(each.status is Status.BLOCKED for each in transitions) and self.failures < 3:
                self.failures += 1
                raise StoreError("not now")
            return super().commit(transitions)

    store = Moody()
    with Engine(store, workflows=[good, stuck], watchdog=0.1, durable=1, step_threads=1) as engine:
        run = engine.start(stuck)
        with pytest.raises(RunBlocked, match="without a yield, at"):
            run.result(timeout=60)
        assert (store.failures, steps_recorded(run)) == (3, 1)


def test_a_line_is_struck_where_it_does_no_harm():
    """Not in a library, which may just have taken a lock; not in a finalizer, nor in a callback of the collector."""

    def stack() -> list[Any]:
        return [sys._getframe(1), sys._getframe(2)]

    class Finalized:
        def __del__(self) -> None:
            seen.append(lands_well(stack()))

    def collected(*_: object) -> None:
        seen.append(lands_well(stack()))

    seen: list[bool] = []
    assert lands_well(stack())
    Finalized()
    gc.callbacks.append(collected)
    try:
        gc.collect(0)
    finally:
        gc.callbacks.remove(collected)
    there: dict[str, Any] = {"looks": lambda: lands_well([sys._getframe(1)])}
    exec(compile("found = looks()", inspect.__file__, "exec"), there)
    assert [*seen, there["found"], lands_well([])] == [False] * (len(seen) + 2)
    assert len(seen) >= 2


@pytest.mark.parametrize(
    ("took_us", "words"), [(200_000, "200 ms"), (1_500_000, "1.5 s"), (31_234_567, "31.2 s"), (1_500, "1.5 ms")]
)
def test_the_time_is_told_so_that_it_is_never_nothing(took_us: int, words: str):
    """Below a second it is told in milliseconds."""
    assert f"its code ran for {words} without a yield" in overran(took_us, [])
