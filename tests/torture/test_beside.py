"""Two workers share one store. They are killed and frozen beyond their leases, one while the other goes on."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from dalsegno import Client
from tests.torture.proof import prove
from tests.torture.stage import Process, Stage
from tests.torture.worker import LEASE_S

ROUNDS = int(os.environ.get("TORTURE_ROUNDS", "5"))
SEED = int(os.environ.get("TORTURE_SEED", "1"))
SIGNALS = 10


@pytest.mark.timeout(120 + 5 * ROUNDS)
def test_of_two_workers_one_goes_on(tmp_path: Path):
    """Whoever is killed, frozen for longer than his lease and thawed, or asked to stop: his runs go on at the other,
    nothing is lost or recorded twice, and what he says when he is thawed changes nothing."""
    stage, rng, done = Stage(tmp_path), random.Random(SEED), Counter[str]()
    with Client(stage.url) as client, ExitStack() as processes:
        workers = [processes.enter_context(stage.worker(how="beside")) for _ in range(2)]
        for worker in workers:
            assert worker.wait_until_ready(), worker.last_words()
        for number in range(ROUNDS):
            with stage.sender(SEED + number, SIGNALS) as sender:
                stage.plan(number, SIGNALS)
                stage.begin(client)
                sender.go()
                victim = workers[rng.randrange(2)]
                done[_hurt(stage, victim, rng)] += 1
                if victim.status is not None:
                    workers[workers.index(victim)] = new = processes.enter_context(stage.worker(how="beside"))
                    assert new.wait_until_ready(), new.last_words()
                stage.observe(client)
        for worker in workers:
            worker.kill()
        stage.heal(client, signals=SIGNALS)
        figures = prove(stage, client)
    print(f"{ROUNDS} rounds: {', '.join(f'{n} x {what}' for what, n in sorted(done.items()))}\n  {figures}")
    assert figures.bodies > 0


def _hurt(stage: Stage, worker: Process, rng: random.Random) -> str:
    worker.lives_for(rng.uniform(0, 0.3))
    what = rng.choice(["killed", "frozen", "stopped"])
    if what == "killed":
        worker.kill()
    elif what == "stopped":
        assert worker.end() == 0, worker.last_words()
    else:
        worker.signal(signal.SIGSTOP)
        worker.lives_for(LEASE_S * rng.uniform(0.5, 3))
        stage.thaw(worker)
        worker.lives_for(rng.uniform(0, 0.3))
    return what
