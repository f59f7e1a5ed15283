"""Engines as a whole: beside each other, after each other, and how they stop."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dalsegno import BadOption, Client, Engine, Flow, Receive, Status, StoreInUse, step, workflow
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.events import StepCompleted

executed: list[str] = []


@step
def double(n: int) -> int:
    """A step that an executor can find by its name."""
    executed.append(threading.current_thread().name)
    return 2 * n


@workflow
def compute(n: int) -> Flow[int]:
    """Two steps."""
    once: int = yield double(n)
    twice: int = yield double(once)
    return twice


@pytest.fixture(params=["memory", "lmdb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each kind."""
    return "memory:" if request.param == "memory" else f"lmdb:{tmp_path / 'store'}"


def test_an_engine_runs_many_workflows(url: str):
    """Three hundred runs on real threads end with their values, each step recorded once."""
    with Engine(url, workflows=[compute]) as engine:
        runs = engine.start_many(compute, [(f"c-{n}", (n,)) for n in range(300)])
        assert [run.result(timeout=60) for run in runs] == [4 * n for n in range(300)]
        assert all(sum(isinstance(e, StepCompleted) for e in run.history()) == 2 for run in runs)
        assert engine.backend.check() == []


def test_two_engines_in_one_process_do_not_meet(tmp_path: Path):
    """Each has its own store, definitions and threads."""

    @workflow(name="compute")
    def other(n: int) -> Flow[str]:
        return str((yield double(n)))

    with Engine("memory:", workflows=[compute]) as one, Engine(f"lmdb:{tmp_path}/s", workflows=[other]) as two:
        first, second = one.start(compute, 1, id="same"), two.start(other, 1, id="same")
        assert (first.result(timeout=30), second.result(timeout=30)) == (4, "2")
        assert len(one.runs()) == len(two.runs()) == 1


def test_a_second_engine_is_refused_where_one_is_alone(tmp_path: Path):
    """`StoreInUse` names the engine that is at it; when that closes, the store is free."""
    url = f"lmdb:{tmp_path}/store"
    with Engine(url, workflows=[compute], alone=True) as engine:
        for alone in (False, True):
            with pytest.raises(StoreInUse, match="has an engine already: process") as caught:
                Engine(url, workflows=[compute], alone=alone)
            assert caught.value.owner
        assert engine.start(compute, 1).result(timeout=30) == 4
    with Engine(url, workflows=[compute]) as engine:
        assert engine.start(compute, 2).result(timeout=30) == 8


def test_who_wants_a_store_alone_is_refused_while_others_share_it(tmp_path: Path):
    """An engine with `alone=True` does not start beside another, on disk or in memory; afterwards it does."""
    url, store = f"lmdb:{tmp_path}/store", MemoryBackend()
    for first, second in ((url, url), (store, store.another())):
        with Engine(first, workflows=[compute]) as engine:
            with pytest.raises(StoreInUse, match="without") as caught:
                Engine(second, workflows=[compute], alone=True)
            assert caught.value.owner
            assert engine.start(compute, 1).result(timeout=30) == 4
        with Engine(second, workflows=[compute], alone=True) as engine:
            assert engine.start(compute, 2).result(timeout=30) == 8


def test_two_engines_share_a_store(url: str):
    """Each works on what it starts, both hear of the other's runs, and what a third party starts is done once."""
    store = MemoryBackend() if url == "memory:" else None
    with (
        Engine(store or url, workflows=[compute]) as one,
        Engine(store.another() if store else url, workflows=[compute]) as two,
        Client(store.another() if store else url) as outside,
    ):
        runs = [engine.start(compute, n, id=f"{n}") for n in range(20) for engine in (one, two)]
        runs += [outside.start(compute, n, id=f"outside {n}") for n in range(40)]
        assert [run.result(timeout=60) for run in runs] == [4 * n for n in range(20) for _ in "ab"] + [
            4 * n for n in range(40)
        ]
        assert [two.get(run.id).result(timeout=60) for run in runs[::2]] == [run.result() for run in runs[::2]]
        assert all(sum(isinstance(e, StepCompleted) for e in run.history()) == 2 for run in runs)
        assert one.backend.check() == []


def test_stopping_waits_for_a_running_body_and_records_its_result(tmp_path: Path):
    """Within the grace period a body may finish; its result is durable, and the next engine goes on from there."""
    begun, may_end, ran = threading.Event(), threading.Event(), []

    @step
    def slow() -> str:
        ran.append("slow")
        begun.set()
        may_end.wait(30)
        return "finished"

    @workflow
    def patient() -> Flow[list[str]]:
        return [(yield slow()), (yield Receive("word"))]

    url = f"lmdb:{tmp_path}/store"
    engine = Engine(url, workflows=[patient], grace=30)
    run = engine.start(patient, id="p")
    assert begun.wait(30)
    closing = threading.Thread(target=engine.close)
    closing.start()
    may_end.set()
    closing.join(60)
    assert not closing.is_alive()
    with Engine(url, workflows=[patient]) as engine:
        run = engine.get("p")
        run.signal("word", "on")
        assert run.result(timeout=30) == ["finished", "on"]
        assert ran == ["slow"]


def test_a_body_that_outlasts_the_grace_period_is_left_and_runs_again(tmp_path: Path):
    """Closing does not wait for ever; what the body says afterwards goes nowhere."""
    begun, may_end, ran = threading.Event(), threading.Event(), []

    @step
    def stuck() -> int:
        ran.append(threading.current_thread())
        begun.set()
        if len(ran) == 1:
            may_end.wait(60)
        return len(ran)

    @workflow
    def patient() -> Flow[int]:
        return (yield from stuck())

    url = f"lmdb:{tmp_path}/store"
    engine = Engine(url, workflows=[patient], grace=0)
    engine.start(patient, id="p")
    assert begun.wait(30)
    engine.close()
    with Engine(url, workflows=[patient]) as engine:
        assert engine.get("p").result(timeout=30) == 2
        may_end.set()
        ran[0].join(30)
        assert engine.get("p").result(timeout=30) == 2


def test_unfinished_runs_go_on_when_an_engine_opens(url: str):
    """Waiting runs are there again in the next engine, on the same store."""

    @workflow
    def wait() -> Flow[str]:
        return (yield from Receive("word", str))

    store = MemoryBackend() if url == "memory:" else url
    with Engine(store, workflows=[wait]) as engine:
        for n in range(20):
            engine.start(wait, id=f"w-{n}")
    with Engine(store, workflows=[wait]) as engine:
        assert len(engine.runs(status=Status.RUNNING)) == 20
        for run in engine.runs():
            run.signal("word", run.id)
        assert sorted(run.result(timeout=30) for run in engine.runs()) == sorted(f"w-{n}" for n in range(20))


def test_bodies_run_on_the_executor_that_was_given():
    """With `executor=`, plain bodies run there."""
    executed.clear()
    with (
        ThreadPoolExecutor(2, thread_name_prefix="given") as executor,
        Engine("memory:", workflows=[compute], executor=executor) as engine,
    ):
        assert engine.start(compute, 3).result(timeout=30) == 12
    assert len(executed) == 2
    assert all(name.startswith("given") for name in executed)


def test_a_crew_needs_a_thread():
    """No crew at all is refused, and one crew alone where no other process can do the work of the other."""
    with pytest.raises(BadOption, match="one of the two crews needs a thread"):
        Engine("memory:", workflows=[compute], durable=0, step_threads=0)
    with pytest.raises(BadOption, match="leaves work to other workers"):
        Engine("memory:", workflows=[compute], step_threads=0)


def test_long_bodies_do_not_starve_workflows():
    """With the only step thread stuck in a body, runs that need no body still go on."""
    begun, may_end = threading.Event(), threading.Event()

    @step
    def stuck() -> None:
        begun.set()
        may_end.wait(60)

    @workflow
    def heavy() -> Flow[None]:
        yield stuck()

    @workflow
    def light() -> Flow[str]:
        return (yield from Receive("word", str))

    with Engine("memory:", workflows=[heavy, light], step_threads=1) as engine:
        busy = engine.start(heavy)
        assert begun.wait(30)
        run = engine.start(light)
        run.signal("word", "quick")
        assert run.result(timeout=30) == "quick"
        may_end.set()
        assert busy.result(timeout=30) is None
