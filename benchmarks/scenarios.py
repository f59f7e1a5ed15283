"""What is measured: the engine doing each piece of work.

Every probe uses the public interface only, on a store on the disk, and counts from the first call to the last result.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median
from threading import Event
from typing import Any

from benchmarks import yardsticks
from benchmarks.measuring import Figures, anonymous_bytes, disk_bytes, probe
from benchmarks.yardsticks import FLEET_STEPS, start_ms
from dalsegno import Engine, Flow, Receive, step, workflow
from dalsegno.core.history import decode_history
from dalsegno.core.interpreter import Interpreter
from dalsegno.core.values.codec import Codec

RESULT_WITHIN_S = 300


@step(name="step")
def plain(i: int) -> dict[str, Any]:
    return yardsticks.step(i)


@step(name="step", idempotent=True)
def repeatable(i: int) -> dict[str, Any]:
    return yardsticks.step(i)


@workflow
def many(n: int) -> Flow[int]:
    done = 0
    for i in range(n):
        result = yield from plain(i)
        done += result["ok"]
    return done


@workflow
def many_repeatable(n: int) -> Flow[int]:
    done = 0
    for i in range(n):
        result = yield from repeatable(i)
        done += result["ok"]
    return done


def store_in(folder: Path, durability: str = "full") -> str:
    """The URL of a store in a probe's folder."""
    return f"lmdb:{folder / 'store'}?durability={durability}"


# --- steps one after another ---------------------------------------------------------------------------------------


def in_sequence(definition: Any, folder: Path, size: int, durability: str = "full") -> Figures:
    with Engine(store_in(folder, durability), workflows=[definition]) as engine:
        begun = time.perf_counter()
        done = engine.start(definition, size, id="sequence").result(timeout=RESULT_WITHIN_S)
        took = time.perf_counter() - begun
    assert done == size
    return {"steps/s": size / took}


@probe
def sequence(folder: Path, size: int) -> Figures:
    return in_sequence(many, folder, size)


@probe
def sequence_relaxed(folder: Path, size: int) -> Figures:
    return in_sequence(many, folder, size, "relaxed")


@probe
def sequence_idempotent(folder: Path, size: int) -> Figures:
    return in_sequence(many_repeatable, folder, size)


# --- many workflows ------------------------------------------------------------------------------------------------


@probe
def fleet(folder: Path, size: int) -> Figures:
    """Workflows in flight together, from the first start to the last result."""
    with Engine(store_in(folder), workflows=[many]) as engine:
        begun = time.perf_counter()
        runs = engine.start_many(many, [(f"flow-{i}", (FLEET_STEPS,)) for i in range(size)])
        done = sum(run.result(timeout=RESULT_WITHIN_S) for run in runs)
        took = time.perf_counter() - begun
    assert done == size * FLEET_STEPS
    return {"steps/s": done / took}


@probe
def starts(folder: Path, size: int) -> Figures:
    """Workflows of one step; each is durable before the next is started."""
    with Engine(store_in(folder), workflows=[many]) as engine:
        begun = time.perf_counter()
        runs = [engine.start(many, 1, id=f"flow-{i}") for i in range(size)]
        done = sum(run.result(timeout=RESULT_WITHIN_S) for run in runs)
        took = time.perf_counter() - begun
    assert done == size
    return {"workflows/s": size / took}


@probe
def starts_in_bulk(folder: Path, size: int) -> Figures:
    """The same workflows, handed over together."""
    with Engine(store_in(folder), workflows=[many]) as engine:
        begun = time.perf_counter()
        runs = engine.start_many(many, [(f"flow-{i}", (1,)) for i in range(size)])
        done = sum(run.result(timeout=RESULT_WITHIN_S) for run in runs)
        took = time.perf_counter() - begun
    assert done == size
    return {"workflows/s": size / took}


# --- recovery ------------------------------------------------------------------------------------------------------


def long_history(folder: Path, size: int, durability: str, at_last: Any) -> None:
    """Work on a workflow of `size` steps and one more, in whose body `at_last()` is called."""

    @step(name="step")
    def body(i: int) -> dict[str, Any]:
        if i == size:
            at_last()
        return yardsticks.step(i)

    @workflow(name="many")
    def flow(n: int) -> Flow[int]:
        done = 0
        for i in range(n):
            result = yield from body(i)
            done += result["ok"]
        return done

    with Engine(store_in(folder, durability), workflows=[flow]) as engine:
        engine.start(flow, size + 1, id="long").result(timeout=RESULT_WITHIN_S)


@probe
def record_history(folder: Path, size: int) -> Figures:
    """Die in the body after `size` recorded steps."""
    long_history(folder, size, "relaxed", lambda: (print("{}", flush=True), os._exit(0)))
    return {}


@probe
def recovery(folder: Path, size: int) -> Figures:
    """From opening the store to the body that the last process died in; and what the history takes on the disk."""
    used = disk_bytes(folder)
    begun = time.perf_counter()
    reached = list[float]()
    long_history(folder, size, "full", lambda: reached.append(time.perf_counter() - begun))
    return {"ms": reached[0] * 1000, "bytes/step": used / size}


@probe
def replay(folder: Path, size: int) -> Figures:
    """Stored bytes to a workflow that stands where it stood, without store and engine."""
    with Engine("memory:", workflows=[many]) as engine:
        run = engine.start(many, size, id="long")
        run.result(timeout=RESULT_WITHIN_S)
        stored = engine.backend.history(run.record.number)
    rates = []
    for _ in range(5):
        begun = time.perf_counter()
        Interpreter(many, Codec()).replay(decode_history(stored))
        rates.append(len(stored) / (time.perf_counter() - begun))
    return {"events/s": median(rates)}


# --- runs that wait ------------------------------------------------------------------------------------------------


class Awake:
    """Counts the workflows whose generators are in memory."""

    count = 0

    def __init__(self) -> None:
        Awake.count += 1

    def __del__(self) -> None:
        Awake.count -= 1


@workflow
def waits() -> Flow[int]:
    awake = Awake()
    answer = yield from Receive("answer", int)
    del awake
    return answer


def put_away(engine: Engine, first: int, beyond: int) -> int:
    """Start runs that wait, see them all leave memory, and answer the process's own memory."""
    for at in range(first, beyond, 5000):
        engine.start_many(waits, [(f"waits-{i}", ()) for i in range(at, min(at + 5000, beyond))])
    pause = Event()
    while Awake.count:
        pause.wait(0.1)
    return anonymous_bytes()


@probe
def waiting(folder: Path, size: int) -> Figures:
    """What the process has grown by per waiting run, after a fifth of them has shown what it takes to handle them."""
    fifth = size // 5
    with Engine(store_in(folder, "relaxed"), workflows=[waits], put_away_after=0.2, live_max=1000) as engine:
        before = put_away(engine, 0, fifth)
        after = put_away(engine, fifth, size)
    return {"bytes/run": (after - before) / (size - fifth)}


@probe
def reopen(folder: Path, size: int) -> Figures:
    """From opening the store to the result of one of the waiting runs, which is sent what it waits for."""
    begun = time.perf_counter()
    with Engine(store_in(folder), workflows=[waits]) as engine:
        run = engine.get(f"waits-{size // 2}")
        run.signal("answer", 42)
        assert run.result(timeout=RESULT_WITHIN_S) == 42
        took = time.perf_counter() - begun
    return {"s": took}


# --- import --------------------------------------------------------------------------------------------------------


@probe
def import_time(folder: Path, size: int) -> Figures:
    """What importing the package adds to an interpreter's start."""
    bare, full = zip(*((start_ms("pass"), start_ms("import dalsegno")) for _ in range(size)), strict=True)
    return {"ms": median(full) - median(bare)}
