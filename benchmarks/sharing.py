"""Two worker processes on one store: how much more they do than one, and how soon one goes on for the other.

python -m benchmarks.sharing URL LEDGER      a worker, until it is killed
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks.measuring import ROOT, Figures, probe
from dalsegno import Client, Flow, Status, Worker, step, workflow

STEPS_EACH = 20
BODY_S = 0.001
LEASE_S = 2.0
WITHIN_S = 300.0


@step
def spin(i: int) -> int:
    """A millisecond of work in Python."""
    until = time.thread_time() + BODY_S
    while time.thread_time() < until:
        pass
    return i


@step
async def hang(i: int) -> int:
    """Says that it runs, and does until its process ends."""
    with open(os.environ["LEDGER"], "ab", buffering=0) as ledger:
        ledger.write(b"%d\n" % os.getpid())
    await asyncio.sleep(WITHIN_S)
    return i


@workflow
def spins(n: int) -> Flow[int]:
    """Short steps."""
    for i in range(n):
        yield spin(i)
    return n


@workflow
def hangs(i: int) -> Flow[int]:
    """A step that is at work whenever somebody looks."""
    return (yield from hang(i))


class Workers:
    """Worker processes on a store, killed at the end."""

    def __init__(self, folder: Path) -> None:
        self.url, self.ledger = f"lmdb:{folder / 'store'}", folder / "ledger"
        self.ledger.touch()
        self._stack = ExitStack()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self) -> subprocess.Popen[bytes]:
        """One more, once it works."""
        command = [sys.executable, "-m", "benchmarks.sharing", self.url]
        environment = {**os.environ, "LEDGER": str(self.ledger)}
        worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        self._stack.callback(worker.wait)
        self._stack.callback(worker.kill)
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        return worker

    def at_work(self, worker: subprocess.Popen[bytes]) -> int:
        """How many bodies a worker has begun."""
        return self.ledger.read_bytes().count(b"%d\n" % worker.pid)


def until(holds: Callable[[], bool]) -> None:
    """Wait for something."""
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def work(folder: Path, size: int, workers: int) -> Figures:
    with Workers(folder) as crowd, Client(crowd.url) as client:
        for _ in range(workers):
            crowd.begin()
        begun = time.perf_counter()
        client.start_many(spins, [(f"spins-{i}", (STEPS_EACH,)) for i in range(size)])
        until(lambda: not client.runs(status=Status.RUNNING, limit=1))
        took = time.perf_counter() - begun
    return {"steps/s": size * STEPS_EACH / took}


@probe
def two_workers(folder: Path, size: int) -> Figures:
    return work(folder, size, 2)


@probe
def one_worker(folder: Path, size: int) -> Figures:
    return work(folder, size, 1)


def taken_over(folder: Path, size: int, number: signal.Signals) -> float:
    """Seconds from the end of a worker until all its bodies have begun at another."""
    with Workers(folder) as crowd, Client(crowd.url) as client:
        first = crowd.begin()
        client.start_many(hangs, [(f"hangs-{i}", (i,)) for i in range(size)])
        until(lambda: crowd.at_work(first) == size)
        second = crowd.begin()
        first.send_signal(number)
        begun = time.perf_counter()
        until(lambda: crowd.at_work(second) == size)
        return time.perf_counter() - begun


@probe
def takeover(folder: Path, size: int) -> Figures:
    (folder / "killed").mkdir()
    (folder / "frozen").mkdir()
    killed = taken_over(folder / "killed", size, signal.SIGKILL)
    frozen = taken_over(folder / "frozen", size, signal.SIGSTOP)
    return {"s after SIGKILL": killed, "s beyond the lease": frozen - LEASE_S}


@probe
def fresh_start(folder: Path, size: int) -> Figures:
    """The same bodies begun for the first time, by a worker that is there."""
    with Workers(folder) as crowd, Client(crowd.url) as client:
        worker = crowd.begin()
        begun = time.perf_counter()
        client.start_many(hangs, [(f"hangs-{i}", (i,)) for i in range(size)])
        until(lambda: crowd.at_work(worker) == size)
        took = time.perf_counter() - begun
    return {"s after SIGKILL": took, "s beyond the lease": took}


def main() -> None:
    """Be a worker."""
    with Worker(sys.argv[1], workflows=[spins, hangs], steps=[spin, hang], step_threads=4, lease=LEASE_S):
        print("ready", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
