"""What the engine is compared with: LMDB, a generator and msgpack by themselves, doing nothing an engine has to do.

Each probe answers figures of the same names as the scenario it stands beside.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import lmdb
import msgspec

from benchmarks.measuring import Figures, anonymous_bytes, probe

FLEET_STEPS = 20
"""Steps of each of the workflows that are in flight together."""

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder().decode
key = struct.Struct(">4sII").pack


def step(i: int) -> dict[str, Any]:
    """What every step returns, in every probe."""
    return {"i": i, "ok": True, "name": "step"}


def event(i: int) -> bytes:
    """A step's record with the fields that one has in a history."""
    return encode([21, time.time_ns() // 1000, str(i), "step", b"fingerpr", 42, 1, 7, encode(step(i))])


def many(n: int) -> Generator[int, dict[str, Any], int]:
    """The workflow of every probe, as a bare generator: it yields what its step is to be given."""
    done = 0
    for i in range(n):
        result = yield i
        done += result["ok"]
    return done


def log_in(folder: Path, **flags: bool) -> lmdb.Environment:
    """A log on the disk."""
    return lmdb.open(str(folder), map_size=1 << 30, lib_version=0, **flags)


def put_one_by_one(env: lmdb.Environment, n: int) -> float:
    """Records a second, each committed before the next."""
    begun = time.perf_counter()
    for i in range(n):
        with env.begin(write=True) as txn:
            txn.put(key(b"log ", 1, i), event(i))
    return n / (time.perf_counter() - begun)


@probe
def raw_puts(folder: Path, size: int) -> Figures:
    """One put per commit, flushed twice as LMDB does it."""
    rate = put_one_by_one(log_in(folder), size)
    return {"steps/s": rate, "workflows/s": rate}


@probe
def raw_puts_relaxed(folder: Path, size: int) -> Figures:
    """One put per commit, without the flush of the header page."""
    return {"steps/s": put_one_by_one(log_in(folder, metasync=False), size)}


@probe
def raw_group_commit(folder: Path, size: int) -> Figures:
    """Generators in lock step: each round runs one step of every workflow and commits all their records at once."""
    env = log_in(folder)
    begun = time.perf_counter()
    flows = [(i, flow, next(flow)) for i in range(size) for flow in [many(FLEET_STEPS)]]
    for at in range(FLEET_STEPS):
        ready, records = [], []
        for number, flow, asked in flows:
            result = step(asked)
            records.append((key(b"log ", number, at), event(asked)))
            try:
                ready.append((number, flow, flow.send(result)))
            except StopIteration:
                pass  # the last step of this one
        with env.begin(write=True) as txn:
            for where, record in records:
                txn.put(where, record)
        flows = ready
    return {"steps/s": size * FLEET_STEPS / (time.perf_counter() - begun)}


@probe
def bare_recovery(folder: Path, size: int) -> Figures:
    """Open a log, read it in one scan, decode and send every result into a generator; and what it takes on the disk."""
    env = log_in(folder)
    with env.begin(write=True) as txn:
        for i in range(size):
            txn.put(key(b"log ", 1, i), event(i))
    stat = env.stat()
    used = stat["psize"] * (stat["leaf_pages"] + stat["branch_pages"] + stat["overflow_pages"])
    env.close()
    begun = time.perf_counter()
    env = log_in(folder)
    flow = many(size + 1)
    asked = next(flow)
    with env.begin() as txn:
        for _, record in txn.cursor():
            asked = flow.send(decode(decode(record)[8]))
    step(asked)
    return {"ms": (time.perf_counter() - begun) * 1000, "bytes/step": used / size}


@probe
def bare_replay(folder: Path, size: int) -> Figures:
    """Decode records and send their results into a generator, again and again."""
    records = [event(i) for i in range(size)]
    rates = []
    for _ in range(5):
        begun = time.perf_counter()
        flow = many(size + 1)
        next(flow)
        for record in records:
            flow.send(decode(decode(record)[8]))
        rates.append(size / (time.perf_counter() - begun))
    return {"events/s": median(rates)}


@probe
def raw_reopen(folder: Path, size: int) -> Figures:
    """Open the store's own file with nothing but LMDB, read one record and commit one."""
    begun = time.perf_counter()
    env = log_in(folder / "store")
    with env.begin(write=True) as txn:
        first = next(iter(txn.cursor()))
        txn.put(*first)
    return {"s": time.perf_counter() - begun}


@probe
def bare_generators(folder: Path, size: int) -> Figures:
    """Suspended generators, kept in a list and nothing else."""

    def wait() -> Iterator[None]:
        yield

    before = anonymous_bytes()
    flows = [wait() for _ in range(size)]
    for flow in flows:
        next(flow)
    return {"bytes/run": (anonymous_bytes() - before) / size}


def start_ms(code: str) -> float:
    """How long an interpreter takes to start, run a statement and end."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (time.perf_counter() - begun) * 1000


@probe
def bare_interpreter(folder: Path, size: int) -> Figures:
    """An interpreter that starts and does nothing."""
    return {"ms": median(start_ms("pass") for _ in range(size))}
