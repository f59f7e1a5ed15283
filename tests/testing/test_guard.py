"""The determinism guard: what workflow code asks of the machine is caught at its line, and nobody else is disturbed."""

from __future__ import annotations

import asyncio
import copy
import datetime
import inspect
import logging
import os
import pathlib
import random
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime as moment
from random import randint as roll
from time import time as now
from typing import Any

import attrs
import pytest

from dalsegno import (
    All,
    BadOption,
    Engine,
    Flow,
    Map,
    Now,
    Random,
    SideEffect,
    Sleep,
    Spawn,
    UseError,
    Uuid,
    step,
    workflow,
)
from dalsegno.core.interpreter import fiber
from dalsegno.testing.guard import DeterminismWarning, Finding, NondeterministicCall, determinism_guard
from dalsegno.testing.simulation import Simulation
from tests.testing.roads import ROADS, calls, nap, workflow_of

STEADY = random.Random(7)


def watched(fn: Callable[..., Any], *arguments: Any) -> list[Finding]:
    """What a guard finds in one run of a workflow made of a function."""
    definition = workflow(fn)
    with determinism_guard("collect") as guard, Simulation([definition, noisy]) as simulation:
        simulation.start(definition, *arguments).result()
    return guard.findings


@step
def noisy() -> float:
    """A step may ask for anything."""
    open(os.devnull).close()
    return time.time() + random.random() + uuid.uuid4().int + len(os.environ)


CALLS: list[tuple[str, Callable[[], Any]]] = [
    ("clock", time.time),
    ("clock", lambda: time.monotonic_ns()),
    ("clock", lambda: now()),
    ("clock", lambda: datetime.datetime.now()),
    ("clock", lambda: moment.now(datetime.UTC)),
    ("clock", lambda: datetime.date.today()),
    ("sleep", lambda: time.sleep(0)),
    ("random", lambda: random.random()),
    ("random", lambda: random.choice("ab")),
    ("random", lambda: roll(1, 6)),
    ("random", lambda: random.Random()),
    ("random", lambda: secrets.token_hex(4)),
    ("random", lambda: os.urandom(4)),
    ("uuid", uuid.uuid4),
    ("uuid", lambda: uuid.uuid1()),
    ("environment", lambda: os.environ["PATH"]),
    ("environment", lambda: os.environ.get("PATH")),
    ("environment", lambda: os.getenv("PATH")),
    ("environment", lambda: list(os.environ)),
    ("environment", lambda: os.getpid()),
    ("files", lambda: open(os.devnull).close()),
    ("files", lambda: open(os.devnull).close()),
    ("files", lambda: os.listdir("/")),
    ("files", lambda: os.path.exists("/")),
    ("files", lambda: pathlib.Path(os.devnull).read_text()),
    ("files", lambda: tempfile.gettempdir()),
    ("network", lambda: socket.socket().close()),
    ("process", lambda: subprocess.run(["true"])),
    ("threads", lambda: threading.Thread(target=print, args=("",)).start()),
    ("threads", lambda: ThreadPoolExecutor(1).shutdown()),
    ("identity", lambda: hash("a")),
    ("identity", lambda: id(STEADY)),
]


@pytest.mark.parametrize(("rule", "call"), CALLS, ids=[f"{rule}-{n}" for n, (rule, _) in enumerate(CALLS)])
def test_a_call_is_caught_at_its_line(rule: str, call: Callable[[], Any]):
    """Whatever the name it goes by, the call is found, under its rule, at the line of this file that makes it."""

    def asks() -> Flow[None]:
        call()
        yield Sleep(1)

    found = watched(asks)
    assert rule in [one.rule for one in found]
    lines = {inspect.getsourcelines(asks)[1] + 1, call.__code__.co_firstlineno if hasattr(call, "__code__") else 0}
    assert {one.file for one in found} == {__file__}
    assert {one.line for one in found} <= lines
    assert all(one.instead in str(one) and f":{one.line}:" in str(one) for one in found)


@attrs.define
class Order:
    """Data made by a workflow, with a default that is drawn."""

    id: uuid.UUID = attrs.field(factory=uuid.uuid4)


class Basket:
    """An object with a property and an operator that look at the clock."""

    @property
    def age(self) -> float:
        return time.time()

    def __add__(self, other: int) -> float:
        return time.time() + other


@attrs.frozen
class Key:
    """Something to be kept in a dict, with a hash that was written for it."""

    name: str


class Named:
    """The same by hand."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __hash__(self) -> int:
        return hash(self.name)


def helper() -> Flow[float]:
    """A plain generator helper."""
    yield Sleep(1)
    return time.time()


def in_finally() -> Flow[None]:
    try:
        yield Sleep(1)
    finally:
        time.time()


def in_a_branch() -> Flow[Any]:
    return (yield All(helper(), helper()))


def in_a_mapped_function() -> Flow[Any]:
    def stamp(item: int) -> Flow[float]:
        yield Sleep(item)
        return time.time()

    return (yield Map(stamp, [1, 2]))


def in_a_task() -> Flow[Any]:
    task = yield from Spawn(helper())
    return (yield from task)


def in_a_helper() -> Flow[float]:
    return (yield from helper())


def in_a_data_class() -> Flow[str]:
    yield Sleep(1)
    return str(Order().id)


def in_a_property() -> Flow[float]:
    yield Sleep(1)
    return Basket().age


def in_an_operator() -> Flow[float]:
    yield Sleep(1)
    return Basket() + 1


def in_a_comprehension() -> Flow[list[float]]:
    yield Sleep(1)
    return [time.time() for _ in range(2)]


def in_a_sort_key() -> Flow[list[int]]:
    yield Sleep(1)
    return sorted([1, 2], key=lambda _: random.random())


async def in_a_coroutine() -> float:
    await Sleep(1)
    return time.time()


PLACES = [
    *(in_finally, in_a_branch, in_a_mapped_function, in_a_task, in_a_helper, in_a_data_class, in_a_property),
    *(in_an_operator, in_a_comprehension, in_a_sort_key, in_a_coroutine),
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_call_is_caught_wherever_it_stands(place: Callable[..., Any]):
    """In helpers, branches, tasks, clean-up, coroutines, data classes, properties and lambdas."""
    assert len(watched(place)) == 1


@pytest.mark.parametrize("road", ROADS)
def test_every_road_to_a_suspect_is_seen(road: str):
    """However roundabout a workflow comes to a suspect, the guard sees it called."""
    assert watched(workflow_of(ROADS[road]).fn)


@pytest.mark.parametrize("fn", [nap, lambda item: nap(item)], ids=["named", "lambda"])
def test_a_function_that_makes_branches_is_watched(fn: Callable[[int], Sleep]):
    """What `Map` calls for each item is workflow code too."""

    def maps() -> Flow[Any]:
        return (yield Map(fn, [1, 2]))

    assert [one.rule for one in watched(maps)] == ["clock"]


def test_a_helper_that_is_handed_a_clock_is_watched():
    """A suspect that goes from hand to hand is seen where it is called."""

    def asks() -> Flow[Any]:
        return (yield All(calls(time.time)))

    assert [one.rule for one in watched(asks)] == ["clock"]


def test_what_is_allowed_is_left_alone(caplog: pytest.LogCaptureFixture):
    """Steps, side effects, commands that answer from the history, seeded generators and logging are no findings."""

    def allowed() -> Flow[Any]:
        logging.getLogger("shop").warning("a line with the time in it")
        yield from noisy()
        yield from SideEffect(lambda: time.time())
        rng = yield from Random()
        drawn = rng.random() + rng.randint(1, 6) + random.Random(3).random() + STEADY.random()
        at = yield from Now()
        made = yield from Uuid()
        copied = copy.deepcopy({Key("a"): [Key("b")]}) | {Named("c"): 1}
        stamp = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(seconds=drawn)
        return str((at, made, stamp, copied, time.gmtime(0), uuid.UUID(int=3), os.path.join("a", "b")))

    assert watched(allowed) == []


def test_other_threads_and_engines_are_not_disturbed():
    """While a guard is on, code outside of workflows asks for what it likes, in any thread."""
    seen: list[float] = []
    with determinism_guard("raise") as guard:
        thread = threading.Thread(target=lambda: seen.append(time.time() + random.random()))
        thread.start()
        thread.join()
        seen.append(time.time() + uuid.uuid4().int)
    assert len(seen) == 2
    assert guard.findings == []


@workflow
def asks_twice() -> Flow[float]:
    """Asks for the time in a loop, so at one line."""
    total = 0.0
    for _ in range(2):
        total += time.time()
        yield Sleep(1)
    return total


@workflow
def hides() -> Flow[str]:
    """Catches whatever is raised."""
    try:
        time.time()
    except Exception:
        pass
    yield Sleep(1)
    return "hidden"


def test_raise_fails_the_run_at_the_line():
    """The error names workflow, call, line and remedy, as facts too."""
    with Simulation([asks_twice]) as simulation, pytest.raises(NondeterministicCall) as caught, determinism_guard():
        simulation.start(asks_twice).result()
    facts = vars(caught.value)
    assert (facts["workflow"], facts["call"], facts["rule"], facts["file"]) == (
        *("asks_twice", "time.time()", "clock", __file__),
    )
    assert "yield from Now()" in str(caught.value)


def test_raise_cannot_be_swallowed():
    """A workflow that catches the error, and a run whose result nobody asks for, still fail the `with` block."""
    with Simulation([hides]) as simulation, pytest.raises(NondeterministicCall, match="'hides'"), determinism_guard():
        assert simulation.start(hides).result() == "hidden"


def test_warn_names_the_line_once():
    """A warning is issued at the workflow's own line, once for each line."""
    with Simulation([asks_twice]) as simulation, warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        with determinism_guard("warn"):
            simulation.start(asks_twice).result()
    assert [(w.category, w.filename) for w in issued] == [(DeterminismWarning, __file__)]


def test_collect_counts():
    """A line that is met again is one finding with a count."""
    with Simulation([asks_twice]) as simulation, determinism_guard("collect") as guard:
        simulation.start(asks_twice).result()
    assert [(one.rule, one.count) for one in guard.findings] == [("clock", 2)]


def test_a_real_engine_is_watched_too():
    """Whatever thread moves a run."""
    with determinism_guard("collect") as guard, Engine("memory:", workflows=[hides]) as engine:
        engine.start(hides).result(timeout=30)
    assert [one.rule for one in guard.findings] == ["clock"]


def test_replays_are_watched_too():
    """A simulation that keeps nothing in memory runs the code again for every event; the guard sees it each time."""
    with determinism_guard("collect") as guard, Simulation([asks_twice], cold=True) as simulation:
        simulation.start(asks_twice).result()
    assert guard.findings[0].count > 2


def test_a_guard_inside_another_takes_its_place():
    """What the inner one finds, the outer one does not; when the inner one ends, the outer one looks again."""
    with Simulation([asks_twice, hides]) as simulation, determinism_guard("collect") as outer:
        simulation.start(hides).result()
        with determinism_guard("collect") as inner:
            simulation.start(asks_twice).result()
        simulation.start(hides).result()
    assert [(one.workflow, one.count) for one in outer.findings] == [("hides", 2)]
    assert [(one.workflow, one.count) for one in inner.findings] == [("asks_twice", 2)]
    assert fiber.watch is None


def test_guards_end_in_any_order():
    """The one that began first may end first; each finds nothing once it has ended, or while another one looks."""
    first, second = determinism_guard("collect"), determinism_guard("collect")
    with Simulation([hides]) as simulation:
        first.__enter__()
        second.__enter__()
        first.stop()
        simulation.start(hides).result()
        second.stop()
        simulation.start(hides).result()
    assert [len(each.findings) for each in (first, second)] == [0, 1]
    assert fiber.watch is None


def test_a_guard_is_on_once():
    """One that is on cannot be switched on again, but when it has ended; an unknown mode is refused."""
    guard = determinism_guard("collect")
    with guard, pytest.raises(UseError, match="on already"), guard:
        pass
    with guard:
        assert fiber.watch is not None
    with pytest.raises(BadOption, match="mode='shout'"):
        determinism_guard("shout")  # type: ignore[arg-type]


def tools_in_use() -> list[Any]:
    monitoring = getattr(sys, "monitoring", None)  # from 3.12 on
    return [monitoring.get_tool(number) for number in range(6)] if monitoring else []


def test_nothing_is_left_when_it_is_off():
    """No hook, no tool, no profile function, and generators that were watched are driven as before."""
    before = tools_in_use()
    with Simulation([asks_twice]) as simulation:
        with determinism_guard("collect") as guard:
            run = simulation.start(asks_twice)
            simulation.run(timeout=0.5)
        run.result()
    assert fiber.watch is None
    assert [one.count for one in guard.findings] == [1]
    assert tools_in_use() == before


def test_an_alien_await_is_explained_before_it_is_alien():
    """`asyncio.sleep` in a workflow is named for what it is."""

    async def naps() -> None:
        await asyncio.sleep(0)

    definition = workflow(naps)
    named = pytest.raises(NondeterministicCall, match="Sleep")
    with Simulation([definition]) as simulation, named, determinism_guard():
        simulation.start(definition).result()


# --- a simulation under guard ------------------------------------------------------------------------------------


def test_a_simulation_may_be_under_guard():
    """`Simulation(guard=…)` watches from its beginning to its end, and knows what was found."""
    with Simulation([asks_twice], guard="collect") as simulation:
        simulation.start(asks_twice).result()
        assert simulation.guard is not None
        assert [(one.rule, one.count) for one in simulation.guard.findings] == [("clock", 2)]
        assert fiber.watch is not None
    assert fiber.watch is None


def test_a_guarded_simulation_fails_the_run_and_cannot_be_deceived():
    """The run fails at its line; where the workflow swallowed that, closing the simulation tells."""
    with pytest.raises(NondeterministicCall, match="'asks_twice'"), Simulation([asks_twice], guard="raise") as one:
        one.start(asks_twice).result()
    other = Simulation([hides], guard="raise")
    assert other.start(hides).result() == "hidden"
    with pytest.raises(NondeterministicCall, match="'hides'"):
        other.close()
    assert fiber.watch is None


def test_each_simulation_has_its_own_guard():
    """Of two that are driven in turns, each guard finds what its own simulation did; one without has none."""
    with (
        determinism_guard("collect") as around,
        Simulation([asks_twice], guard="collect") as one,
        Simulation([hides], guard="collect") as other,
    ):
        first, second = one.start(asks_twice), other.start(hides)
        one.run(timeout=0.5)
        other.run(timeout=0.5)
        first.result()
        second.result()
        assert one.guard is not None
        assert other.guard is not None
        assert [(each.workflow, each.count) for each in one.guard.findings] == [("asks_twice", 2)]
        assert [(each.workflow, each.count) for each in other.guard.findings] == [("hides", 1)]
    assert around.findings == []


def test_a_guarded_simulation_that_crashes_leaves_no_guard():
    """After `crash`, and where opening failed, nothing is watched any more."""
    with Simulation([asks_twice], guard="collect") as first:
        first.crash()
        assert fiber.watch is None
    with pytest.raises(BadOption, match="mode='loud'"):
        Simulation(guard="loud")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Simulation(guard="warn", durable="no such option of works")
    assert fiber.watch is None
