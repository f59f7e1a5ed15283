"""What is measured of `replay`: jumping about in a long history, holding many histories against today's code, and
watching a store in which many runs wait.

It is what a person waits for: a jump with its point drawn, a verification with its findings, a look with its frame.
Beside them stands the bare work: `Interpreter.replay`, and a walk over LMDB's own keys.
"""

from __future__ import annotations

import gc
import io
import random
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measuring import Figures, probe
from benchmarks.scenarios import RESULT_WITHIN_S, many, store_in
from benchmarks.yardsticks import FLEET_STEPS, log_in
from dalsegno import Client, Engine, Flow, Map, step, workflow
from dalsegno.core.events import Event
from dalsegno.core.history import decode_history
from dalsegno.core.interpreter import Interpreter
from dalsegno.core.store import RunRecord
from dalsegno.core.values.codec import Codec
from dalsegno.tools.app import load_app
from dalsegno.tools.stepping import Session, answer
from dalsegno.tools.stores import all_runs, open_for_reading, raw_history
from dalsegno.tools.timeline import timeline
from dalsegno.tools.verifying import Verdict, verify_in_processes
from dalsegno.tools.walking import Walk, uncollected
from dalsegno.tools.watching import AGAIN, Watch

APP = "benchmarks.scenarios:many"
JUMPS = 200
SEED = 20
ON_ONE, ON_TWO = "on one process", "on two"


# --- jumping -------------------------------------------------------------------------------------------------------


@step
def half(i: int) -> int:
    return i


@workflow
def branching(n: int) -> Flow[int]:
    """All branches at once: at most events thousands of them stand somewhere."""

    def branch(i: int) -> Flow[int]:
        first = yield from half(i)
        second = yield from half(first)
        return second

    return len((yield from Map(branch, range(n))))


def recorded(definition: Any, argument: int) -> tuple[RunRecord, list[Event]]:
    """A run with its history."""
    with Engine("memory:", workflows=[definition]) as engine:
        run = engine.start(definition, argument, id="long")
        run.result(timeout=RESULT_WITHIN_S)
        return run.record, decode_history(engine.backend.history(run.record.number))


def jumping(definition: Any, argument: int) -> Figures:
    """To events drawn by chance, from the first jump after opening on: the command `g N` as a person types it, until
    its screen is filled. What is done while that person looks does not count: the next way point, and collecting."""
    record, events = recorded(definition, argument)
    chance, codec, took = random.Random(SEED), Codec(), list[float]()
    session = Session(record, Walk(events, definition, codec), timeline(events), codec)
    for _ in range(JUMPS):
        with redirect_stdout(io.StringIO()), uncollected():
            begun = time.perf_counter()
            answer(session, "g", str(chance.randrange(len(events) + 1)))
            took.append((time.perf_counter() - begun) * 1000)
        session.walk.rest()
    return {"median ms": median(took), "worst ms": max(took)}


def telling(definition: Any, argument: int) -> Figures:
    """The whole history, from its first event to the last."""
    _, events = recorded(definition, argument)
    took = list[float]()
    for _ in range(JUMPS // 10):
        begun = time.perf_counter()
        Interpreter(definition, Codec()).replay(events)
        took.append((time.perf_counter() - begun) * 1000)
    return {"median ms": median(took), "worst ms": max(took)}


@probe
def jumps(folder: Path, size: int) -> Figures:
    return jumping(many, size - 2)


@probe
def whole_replay(folder: Path, size: int) -> Figures:
    return telling(many, size - 2)


@probe
def jumps_among_branches(folder: Path, size: int) -> Figures:
    return jumping(branching, size // 2)


@probe
def whole_replay_of_branches(folder: Path, size: int) -> Figures:
    return telling(branching, size // 2)


# --- verifying -----------------------------------------------------------------------------------------------------


@probe
def record_histories(folder: Path, size: int) -> Figures:
    """A store with the histories of so many runs."""
    with Engine(store_in(folder, "relaxed"), workflows=[many]) as engine:
        for first in range(0, size, 1000):
            ids = range(first, min(first + 1000, size))
            for run in engine.start_many(many, [(f"run-{i}", (FLEET_STEPS,)) for i in ids]):
                run.result(timeout=RESULT_WITHIN_S)
    return {}


@probe
def verifying(folder: Path, size: int) -> Figures:
    """From an open store to all findings, the start of the processes included."""
    figures: Figures = {}
    with open_for_reading(f"lmdb:{folder / 'store'}") as store:
        for processes, where in ((1, ON_ONE), (2, ON_TWO)):
            begun = time.perf_counter()
            findings = list(verify_in_processes(store, list(all_runs(store)), load_app(APP), processes))
            took = time.perf_counter() - begun
            assert {finding.verdict for finding in findings} == {Verdict.FITS}
            figures |= rates(where, [finding.events for finding in findings], took)
            gc.collect()  # this process ends without a farewell, and would leave their semaphores behind
    return figures


@probe
def bare_replays(folder: Path, size: int) -> Figures:
    """The same histories, in memory as stored bytes, decoded and replayed one after another in this process."""
    with open_for_reading(f"lmdb:{folder / 'store'}") as store:
        stored = [raw_history(store, record) for record in all_runs(store)]
    begun = time.perf_counter()
    for records in stored:
        Interpreter(many, Codec()).replay(decode_history(records))
    took = time.perf_counter() - begun
    lengths = [len(records) for records in stored]
    return rates(ON_ONE, lengths, took) | rates(ON_TWO, lengths, took)


def rates(where: str, lengths: Sequence[int], took: float) -> Figures:
    """How many histories of these lengths a second, and how many of their events."""
    return {f"histories/s {where}": len(lengths) / took, f"events/s {where}": sum(lengths) / took}


# --- watching --------------------------------------------------------------------------------------------------------


@probe
def watching(folder: Path, size: int) -> Figures:
    """Looks at a store in which `size` runs wait: one that counts them all, one after one of them was sent a message,
    until all have been seen again, and one in a calm."""
    url = f"lmdb:{folder / 'store'}"
    with open_for_reading(url) as store, Client(url) as client:
        watch = Watch(store)
        first = look(watch, everything=True)
        client.get(f"waits-{size // 2}").signal("answer", 42)
        changed = [look(watch) for _ in range(-(-size // AGAIN))]
        return {"first ms": first, "ms": median(changed), "calm ms": median(look(watch) for _ in range(9))}


def look(watch: Watch, everything: bool = False) -> float:
    begun = time.perf_counter()
    watch.frame(time.time_ns() // 1000, everything=everything)
    return (time.perf_counter() - begun) * 1000


@probe
def raw_walk(folder: Path, size: int) -> Figures:
    """LMDB's cursor over every record of the same file, nothing decoded."""
    env, took = log_in(folder / "store"), list[float]()
    for _ in range(9):
        begun = time.perf_counter()
        with env.begin() as txn:
            assert sum(1 for _ in txn.cursor()) > size
        took.append((time.perf_counter() - begun) * 1000)
    return {"first ms": median(took), "ms": median(took), "calm ms": median(took)}
