"""Engines on PostgreSQL: work, messages from other processes, crashes of processes and of the server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from dalsegno import All, Client, ContinueAsNew, Engine, First, Flow, Publish, Receive, Sleep, step, workflow
from dalsegno.core.store import Backend, open_store
from dalsegno.examples import hello
from dalsegno.testing import explore_crashes
from dalsegno.testing.histories import check_store
from tests.examples.test_hello import run_hello
from tests.postgresql_server import OwnServer, Server


@step
def double(number: int) -> int:
    """A step like any other."""
    return number * 2


@workflow
def doubled(number: int) -> Flow[int]:
    """A child."""
    return (yield from double(number))


@workflow
def everything(number: int) -> Flow[list[int]]:
    """A little of all that reaches the store: children, timers, a race, a signal, published values, a new beginning."""
    parts = yield from All(doubled(number), double(number), Sleep(0.01))
    yield from Publish("parts", list(parts[:2]))
    won = yield from First(told=Receive("go", int), late=Sleep(timedelta(days=3)))
    if number < 3:
        yield from ContinueAsNew(number + won.value)
    return [*parts[:2], won.value]


@pytest.fixture
def url(postgresql: Server) -> str:
    """Where a store may be made."""
    return postgresql.schema()


def test_a_workflow_runs_on_it(url: str, capfd: pytest.CaptureFixture[str]):
    """An engine finds the store by its URL, and another engine on the same store finds the result."""
    for greeted in (["Hello, Ada!", "Hello, Bob!"], []):
        with Engine(url, workflows=[hello.greet_all], steps=[hello.greet]) as engine:
            assert engine.start(hello.greet_all, ["Ada", "Bob"], id="hello").result(timeout=20) == 2
        assert capfd.readouterr().out.splitlines() == greeted


def test_all_that_a_workflow_does_reaches_the_store(url: str):
    """Children, timers, races, signals from a client elsewhere, published values and generations, many at once."""
    with Engine(url, workflows=[everything, doubled]) as engine, Client(url) as client:
        runs = engine.start_many(everything, [(f"run-{index}", (1,)) for index in range(20)])
        for index in range(20):
            client.get(f"run-{index}").signal("go", 5)
            client.get(f"run-{index}").signal("go", 7)
        assert [run.result(timeout=30) for run in runs] == [[12, 12, 7]] * 20
        assert runs[3].state["parts"] == [12, 12]
    with open_store(url) as store:
        assert store.check() == []
        assert check_store(store) == []
        assert store.news() == []
        assert store.next_deadline_us() is None


def test_a_workflow_survives_a_crash_on_it(url: str, tmp_path: Path):
    """What was greeted before the crash is not greeted again, and no engine's lock outlives its process."""
    store = ("--store", url)
    assert run_hello(tmp_path, "--crash", *store) == (1, ["Hello, Ada!"])
    assert run_hello(tmp_path, *store) == (0, ["Hello, Bob!", "Hello, Cyd!", "3 greeted"])


KILLED = """
import os, sys, signal
from dalsegno import Engine, step, workflow

ledger = open(sys.argv[2], "a", buffering=1)

@step
def work(number):
    ledger.write(f"{number}\\n")
    if number == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return number

@workflow
def many(count):
    total = 0
    for number in range(count):
        total += yield from work(number)
    return total

with Engine(sys.argv[1], workflows=[many]) as engine:
    print(engine.start(many, 30, id="many").result(timeout=60))
"""


def test_a_killed_process_repeats_at_most_the_step_it_died_in(url: str, tmp_path: Path):
    """After SIGKILL in a step another process goes on there; every other body has run once."""
    ledger = tmp_path / "ledger"
    for last, status in (("7", -signal.SIGKILL), ("-1", 0)):
        command = [sys.executable, "-c", KILLED, url, str(ledger), last]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == status, done.stderr
    assert json.loads(done.stdout) == sum(range(30))
    assert [int(line) for line in ledger.read_text().split()] == [*range(8), 7, *range(8, 30)]


def test_a_server_that_crashes_under_an_engine_loses_nothing():
    """The server dies at once and comes back while workflows run: each body's outcome is recorded once, and the engine
    goes on without being started anew."""
    ran = list[int]()
    reached, restarted = threading.Event(), threading.Event()

    @step
    def work(number: int) -> int:
        ran.append(number)
        if number == 12:
            reached.set()
            restarted.wait(60)
        return number

    @workflow
    def many(count: int) -> Flow[int]:
        total = 0
        for number in range(count):
            total += yield from work(number)
        return total

    # Not in pytest's own folder: that is closed to the user which the server runs as.
    server = OwnServer(Path(tempfile.gettempdir(), f"dalsegno-pg-{os.getpid()}-engine"))
    server.initialise()
    server.start()
    try:
        with Engine(server.with_options(schema="orders", reconnect=30), workflows=[many]) as engine:
            run = engine.start(many, 30, id="many")
            assert reached.wait(60)
            server.stop()  # as a crash: nobody is said goodbye to
            server.start()
            restarted.set()
            assert run.result(timeout=60) == sum(range(30))
        assert ran == list(range(30))
    finally:
        server.remove()


def test_it_comes_out_the_same_wherever_it_is_broken(postgresql: Server):
    """Errors and crashes at each call to the store end as the undisturbed run did."""

    def store() -> Backend:
        return open_store(postgresql.schema())

    report = explore_crashes(
        everything,
        3,
        workflows=[doubled],
        script=lambda simulation, run: simulation.at(1.0, lambda: run.signal("go", 5)),
        store=store,
        compare=("outcome", "state"),  # the signal comes at a time, which a crash makes another place in the history
        pairs=0,
        budget=4,
        progress=False,
    )
    assert report.tried
