"""A store that raises what no store may raise harms the write it does so for, and nothing else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from dalsegno import Engine, Flow, Receive, RunBlocked, Status, StoreError, step, workflow
from dalsegno.backends.lmdb import LmdbBackend
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.engine.breaches import SHOWN_MAX, StoreBroken, broken
from dalsegno.core.engine.committer import BATCH, Committer, Request
from dalsegno.core.engine.crew import Crew
from dalsegno.core.engine.edge import SystemClock
from dalsegno.core.errors import StoreDamaged
from dalsegno.core.events import SignalReceived, StepCompleted
from dalsegno.core.store import Message, NewRun, Transition
from dalsegno.testing import Simulation

POISON = b"poison"

ran: list[str] = []


@step
def work(what: str) -> str:
    """A step."""
    ran.append(what)
    return what


@workflow
def job(what: str) -> Flow[str]:
    """A step, a signal, and another step."""
    yield work(what)
    word = yield from Receive("word", str)
    return (yield from work(f"{what} {word}"))


@workflow
def brief(what: str) -> Flow[str]:
    """A step."""
    return (yield from work(what))


class DriverError(Exception):
    """What a driver raises, and a careless store lets through."""


def is_poison(what: NewRun | Transition | Message) -> bool:
    """Whether a write has something in it that the store below cannot take."""
    if isinstance(what, Message):
        return POISON in what.payload
    blocks = isinstance(what, Transition) and what.status is Status.BLOCKED
    return not blocks and any(POISON in event for event in what.events)


class Careless:
    """What both stores below have in common. `refuses` decides; with `applies`, what is poison to it is written first,
    and the exception raised after that."""

    applies = False
    refuses: Callable[[Any], bool] = staticmethod(is_poison)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.raised = 0

    def _look(self, what: Sequence[Any], call: Callable[[], Any]) -> Any:
        found = any(self.refuses(each) for each in what)
        answer = call() if self.applies or not found else None
        if found:
            self.raised += 1
            raise DriverError("value out of range")
        return answer

    def commit(self, transitions: Sequence[Transition]) -> Any:
        return self._look(transitions, lambda: super(Careless, self).commit(transitions))  # type: ignore[misc]

    def write(
        self, creations: Sequence[NewRun], transitions: Sequence[Transition], messages: Sequence[Message], at_us: int
    ) -> Any:
        both = [*creations, *transitions, *messages]
        return self._look(both, lambda: super(Careless, self).write(creations, transitions, messages, at_us))  # type: ignore[misc]


class CarelessMemory(Careless, MemoryBackend):
    """In memory."""


class CarelessLmdb(Careless, LmdbBackend):
    """On the disk."""


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A store of each kind that raises at what is poison."""
    opened: Any = CarelessMemory() if request.param == "memory" else CarelessLmdb.open(str(tmp_path / "store"))
    ran.clear()
    with opened:
        yield opened


def threads_alive() -> int:
    """How many threads of the crews there are."""
    return sum(each.name.startswith(("dalsegno-step", "dalsegno-durable")) for each in threading.enumerate())


def test_one_poison_among_a_hundred_blocks_its_run_only(store: Any, caplog: pytest.LogCaptureFixture):
    """The run whose outcome the store will not take is blocked, with the store and the exception in the sentence; the
    other ninety-nine end; with a store that takes it, so does that one."""
    with Engine(store, workflows=[brief]) as engine:
        words = ["poison" if n == 41 else f"word {n}" for n in range(100)]
        store.refuses = lambda what: isinstance(what, Transition) and is_poison(what)
        runs = [engine.start(brief, word, id=f"run {n}") for n, word in enumerate(words)]
        for n, run in enumerate(runs):
            if n != 41:
                assert run.result(timeout=60) == words[n]
        with pytest.raises(RunBlocked, match=rf"the store {type(store).__name__} cannot take .*DriverError: value out"):
            runs[41].result(timeout=60)
        assert not any(isinstance(event, StepCompleted) for event in runs[41].history())
        assert "DriverError" in caplog.text
        assert ran.count("poison") == 1
        assert engine.start(brief, "after").result(timeout=60) == "after"
    store.refuses = lambda what: False
    with Engine(store, workflows=[brief]) as engine:
        assert engine.get("run 41").result(timeout=60) == "poison"
    assert store.check() == []


def test_callers_of_a_poison_creation_or_message_are_told(store: Any):
    """`start` and `signal` raise a `StoreError` that names the store and carries the exception; others go through."""
    with Engine(store, workflows=[job]) as engine:
        fine = engine.start(job, "fine", id="fine")
        with pytest.raises(StoreBroken, match=r"cannot take the new run 'bad': it raised DriverError") as caught:
            engine.start(job, "poison", id="bad")
        assert isinstance(caught.value.__cause__, DriverError)
        assert caught.value.store == type(store).__name__
        with pytest.raises(StoreError, match="cannot take the signal 'word' for 'fine'"):
            fine.signal("word", "poison")
        fine.signal("word", "hello")
        assert fine.result(timeout=60) == "fine hello"
        assert sum(isinstance(event, SignalReceived) for event in fine.history()) == 1
        assert [run.id for run in engine.runs()] == ["fine"]


def test_a_poison_creation_harms_none_that_were_started_with_it(store: Any):
    """Of a hundred starts in one flush, ninety-nine are there."""
    with Engine(store, workflows=[brief]) as engine:
        with pytest.raises(StoreBroken):
            engine.start_many(brief, [(f"run {n}", ["poison" if n == 41 else "word"]) for n in range(100)])
        assert all(engine.get(f"run {n}").result(timeout=60) == "word" for n in range(100) if n != 41)
        assert len(engine.runs()) == 99


def test_what_was_applied_before_the_store_raised_is_found(store: Any):
    """A store that has done it and raises all the same: nothing is written twice, no caller is told otherwise."""
    store.applies = True
    with Engine(store, workflows=[job]) as engine:
        run = engine.start(job, "poison", id="a", on_conflict="reject")
        run.signal("word", "poison")
        assert run.result(timeout=60) == "poison poison"
        assert sum(isinstance(event, SignalReceived) for event in run.history()) == 1
        assert ran == ["poison", "poison poison"]
    assert store.raised >= 3


def test_a_store_that_raises_at_everything_is_tried_again(caplog: pytest.LogCaptureFixture):
    """Where nothing goes through, no run is blocked for it: it is the store that has failed, for as long as it does."""
    store = CarelessMemory()
    ran.clear()
    with Simulation([brief], store=store) as simulation:
        runs = [simulation.start(brief, f"word {n}", id=f"run {n}") for n in range(20)]
        store.refuses = lambda what: True
        simulation.run(timeout=5)
        store.refuses = lambda what: False
        assert "is blocked" not in caplog.text
        assert [run.result() for run in runs] == [f"word {n}" for n in range(20)]


def test_a_run_that_cannot_even_be_blocked_rests_and_comes_back():
    """It costs a try now and then, harms nobody, and ends when the store takes it."""
    store = CarelessMemory()
    with Simulation([brief], store=store) as simulation:
        first = simulation.start(brief, "word", id="first")
        number = first.record.number
        store.refuses = lambda what: isinstance(what, Transition) and what.run == number
        second = simulation.start(brief, "word", id="second")
        assert second.result() == "word"
        simulation.run(timeout=10)
        assert 10 <= store.raised <= 200
        assert first.status is Status.RUNNING
        store.refuses = lambda what: False
        assert first.result() == "word"


def test_a_checkpoint_of_idempotent_steps_that_is_poison_blocks_its_run():
    """Also one that the run did not wait for."""

    @step(idempotent=True)
    def count(n: int) -> str:
        return "poison" if n == 25 else "fine"

    @workflow
    def long() -> Flow[int]:
        for n in range(60):
            yield count(n)
        return 60

    store = CarelessMemory()
    with Engine(store, workflows=[long, brief]) as engine:
        run = engine.start(long, id="long")
        with pytest.raises(RunBlocked, match="DriverError"):
            run.result(timeout=60)
        assert sum(isinstance(event, StepCompleted) for event in run.history()) <= 25
        assert engine.start(brief, "word").result(timeout=60) == "word"
    store.refuses = lambda what: False
    with Engine(store, workflows=[long, brief]) as engine:
        assert engine.get("long").result(timeout=60) == 60


class Asked:
    """A caller that writes down what it hears."""

    def __init__(self, name: str) -> None:
        self.heard: list[Any] = []
        message = Message(workflow_id="nobody", kind="signal", name=name, payload=name.encode())
        self.request = Request(message, self.heard.append, self.heard.append)


def test_halving_finds_every_poison_in_few_writes():
    """Three in a thousand messages: they are told, the others are sent, in some two writes for each halving."""
    store = CarelessMemory()
    committer = Committer(store, SystemClock())
    asked = [Asked("poison" if n in (3, 4, 700) else "fine") for n in range(BATCH)]
    for each in asked:
        committer.submit(each.request)
    assert committer.lead()
    told = [n for n, each in enumerate(asked) if isinstance(each.heard[0], StoreBroken)]
    assert (told, {len(each.heard) for each in asked}, len(committer)) == ([3, 4, 700], {1}, 0)
    assert store.raised + committer.flushes < 80


def test_a_damaged_record_harms_none_beside_it():
    """`StoreDamaged` is about one record: who asked for it hears so as it was said, the others are written."""
    damage = StoreDamaged("this one")

    class Damaged(CarelessMemory):
        def write(self, *args: Any) -> Any:
            try:
                return super().write(*args)
            except DriverError:
                raise damage from None

    committer = Committer(Damaged(), SystemClock())
    asked = [Asked("poison" if n == 5 else "fine") for n in range(20)]
    for each in asked:
        committer.submit(each.request)
    committer.lead()
    assert [n for n, each in enumerate(asked) if each.heard == [damage]] == [5]
    assert committer.stalled is None


def test_an_interrupted_leader_loses_nobodys_writes():
    """Ctrl-C in the thread that commits for all: its signal's outcome is unknown, the others' transitions go again."""

    class Interrupts(CarelessMemory):
        calls = 0

        def write(self, *args: Any) -> Any:
            self.calls += 1
            if self.calls == 1:
                raise KeyboardInterrupt
            return super().write(*args)

    committer = Committer(Interrupts(), SystemClock())
    message = Asked("fine")
    created: list[Any] = []
    run = NewRun(workflow_id="a", workflow="b", events=(b"\xc0",), created_at_us=1, digest=b"d")
    for request in (message.request, Request(run, created.append, created.append)):
        committer.submit(request)
    with pytest.raises(KeyboardInterrupt):
        committer.lead()
    assert "interrupted" in str(message.heard[0])
    assert committer.lead()
    assert created[0].new


def test_a_crew_survives_whatever_its_queue_of_writes_raises(caplog: pytest.LogCaptureFixture):
    """A thread that meets an error between two jobs logs it, and takes the next job."""
    done = threading.Semaphore(0)

    def idle(waited: bool) -> float | None:
        raise DriverError("at rest")

    def work_on(n: int) -> None:
        done.release()
        if n == 1:
            raise SystemExit

    crew: Crew[int] = Crew("test", 1, work_on, idle, lambda job: True)
    with caplog.at_level(logging.ERROR):
        for n in range(3):
            crew.put([n], 10)
            assert done.acquire(timeout=60)
        crew.stop()
        assert crew.join_all(60)
    assert "failed at the queue of writes" in caplog.text


def test_a_long_exception_is_cut():
    """Drivers like to show the whole statement with its values."""
    assert len(str(broken(MemoryBackend(), DriverError("x" * 5000), "it"))) < SHOWN_MAX + 300
