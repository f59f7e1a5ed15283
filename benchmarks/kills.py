"""Checkpoint policies under fire: a worker process is killed at random, and the work repeated is held against the
flushes made; beside them, what Young's model foretells.

    python -m benchmarks.kills URL FOLDER POLICY     a worker, until it is killed

The work is one run of idempotent steps, each a wait of two milliseconds. Kills are drawn, with a seed, from an
exponential distribution with a mean of one second at work: starting a process anew is not counted, since no policy
changes it. A body writes a byte when it begins and the worker one for each flush, by `write(2)`, which SIGKILL cannot
take back.

The model (J. W. Young, CACM 17(9), 1974; J. T. Daly, FGCS 22(3), 2006): with W seconds of work, an interval t, a flush
that costs C and a mean time M between failures, the time at work is T = W (1 + C/t) / (1 - t/2M); there are T/M
failures, each of which repeats half an interval; t is optimal at sqrt(2 C M). C is measured beside it, on the same
disk, with LMDB alone. What the model does not know: here steps go on while a flush is on its way, so that a flush
costs the run less than C, and a kill takes what was on its way as well.
"""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.measuring import PROBES, ROOT, Figures
from benchmarks.yardsticks import log_in, put_one_by_one
from dalsegno import CheckpointPolicy, Client, Flow, Observer, Status, Worker, step, workflow

BODY_S = 0.002
MEAN_S = 1.0
SEED = 1974
LOOK_S = 0.002
PUTS = 200

POLICIES: dict[str, CheckpointPolicy] = {
    "every_1": CheckpointPolicy(every_steps=1),
    "every_10": CheckpointPolicy(every_steps=10),
    "every_100": CheckpointPolicy(every_steps=100),
    "adaptive": CheckpointPolicy.adaptive(),
}


class Bytes:
    """A file whose length counts something, whoever dies."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def add(self) -> None:
        os.write(self._file, b".")


class Flushes(Observer):
    """Counts the flushes of a worker."""

    def __init__(self, counted: Bytes) -> None:
        self._counted = counted

    def flushed(self, writes: int, size: int, seconds: float) -> None:
        self._counted.add()


counted: dict[str, Bytes] = {}


@step(idempotent=True)
def wait(i: int) -> int:
    """Two milliseconds of waiting for somebody else."""
    counted["bodies"].add()
    time.sleep(BODY_S)
    return i


@workflow
def climb(steps: int) -> Flow[int]:
    """One step after another."""
    for i in range(steps):
        yield wait(i)
    return steps


def begin(url: str, folder: Path, policy: str) -> subprocess.Popen[bytes]:
    """A worker, once it works."""
    command = [sys.executable, "-m", "benchmarks.kills", url, str(folder), policy]
    worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"ready\n"
    return worker


def lived(client: Client, worker: subprocess.Popen[bytes], span_s: float) -> float:
    """Let a worker live for so long, or until the work is done; how long that was. It is dead afterwards."""
    begun = time.perf_counter()
    with worker:
        while (alive := time.perf_counter() - begun) < span_s and client.runs(status=Status.RUNNING, limit=1):
            time.sleep(min(LOOK_S, span_s - alive))
        alive = time.perf_counter() - begun
        worker.send_signal(signal.SIGKILL)
    return alive


def under_fire(policy: str, folder: Path, size: int) -> Figures:
    """The same kills for every policy, until all steps are done."""
    url, chance, at_work = f"lmdb:{folder / 'store'}", random.Random(SEED), 0.0
    with Client(url) as client:
        run = client.start(climb, size, id="climb")
        while run.status is Status.RUNNING:
            at_work += lived(client, begin(url, folder, policy), chance.expovariate(1 / MEAN_S))
        assert run.result() == size
    bodies, flushes = ((folder / name).stat().st_size for name in ("bodies", "flushes"))
    return {"repeated": (bodies - size) / size * 100, "flushes": flushes, "s": at_work}


def foretold(policy: str, folder: Path, size: int) -> Figures:
    """What the model says."""
    cost_s = 1 / put_one_by_one(log_in(folder), PUTS)
    work_s = size * BODY_S
    chosen = POLICIES[policy]
    interval_s = math.sqrt(2 * cost_s * MEAN_S) if chosen.measured else chosen.every_steps * BODY_S
    total_s = work_s * (1 + cost_s / interval_s) / (1 - interval_s / (2 * MEAN_S))
    failures = total_s / MEAN_S
    repeated_s = failures * interval_s / 2
    flushes = (work_s + repeated_s) / interval_s
    return {"repeated": repeated_s / work_s * 100, "flushes": flushes, "s": total_s}


for _name in POLICIES:
    PROBES[f"under_fire_{_name}"] = partial(under_fire, _name)
    PROBES[f"foretold_{_name}"] = partial(foretold, _name)


def main(arguments: Sequence[str]) -> None:
    """Be a worker."""
    url, folder, policy = arguments
    for name in ("bodies", "flushes"):
        counted[name] = Bytes(Path(folder, name))
    observers = [Flushes(counted["flushes"])]
    options = {"step_threads": 2, "checkpoint": POLICIES[policy], "observers": observers}
    with Worker(url, workflows=[climb], steps=[wait], **options):  # type: ignore[arg-type]
        print("ready", flush=True)
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
