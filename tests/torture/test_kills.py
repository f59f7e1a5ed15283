"""Workers and senders are killed and stopped at random moments, and everything still comes to its one right end."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from dalsegno import Client
from tests.torture.proof import prove
from tests.torture.stage import Process, Stage

ROUNDS = int(os.environ.get("TORTURE_ROUNDS", "6"))
SEEDS = range(int(os.environ.get("TORTURE_SEED", "1")), int(os.environ.get("TORTURE_SEED", "1")) + 1 + ROUNDS // 40)
SIGNALS = 60


class Ordeal:
    """What is done to the processes of one stage, at moments drawn from a seed."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage, self.rng = stage, random.Random(seed)
        self.done: Counter[str] = Counter()

    def moment(self, most: float = 0.15) -> float:
        """How long to wait."""
        return self.rng.uniform(0.0, most)

    def hurt(self, worker: Process, sender: Process) -> None:
        """Do one thing to each; the worker is dead afterwards."""
        self._stop_and_go(worker, "worker stopped")
        self._stop_and_go(sender, "sender stopped")
        if self.rng.random() < 0.5:
            sender.lives_for(self.moment(0.1))
            self.done["sender killed"] += sender.status is None
            sender.kill()
        if self.rng.random() < 0.3:
            worker.signal(signal.SIGSTOP)  # killed while it is stopped, perhaps in the middle of a commit
            self.done["worker killed while stopped"] += 1
        self.done["worker killed"] += 1
        worker.kill()

    def _stop_and_go(self, process: Process, what: str) -> None:
        process.lives_for(self.moment())
        if self.rng.random() < 0.5:
            self.done[what] += process.status is None
            process.signal(signal.SIGSTOP)
            process.lives_for(self.moment(0.2))
            process.signal(signal.SIGCONT)


@pytest.mark.timeout(120 + 5 * ROUNDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_doubled_under_kills(tmp_path: Path, seed: int):
    """After SIGKILL, SIGSTOP and SIGCONT at random moments every run ends right, and every promise is seen kept."""
    stage = Stage(tmp_path)
    ordeal = Ordeal(stage, seed)
    with Client(stage.url) as client:
        for number in range(ROUNDS):
            stage.plan(number, SIGNALS)
            with stage.worker() as worker, stage.sender(seed + number, SIGNALS) as sender:
                if ordeal.rng.random() < 0.8:  # else it may die while it starts
                    assert worker.wait_until_ready(), worker.last_words()
                    assert sender.wait_until_ready(), sender.last_words()
                stage.begin(client)
                sender.go()
                ordeal.hurt(worker, sender)
                stage.observe(client)
        stage.heal(client, signals=SIGNALS)
        figures = prove(stage, client)
    print(f"seed {seed}, {ROUNDS} rounds: {', '.join(f'{n} x {what}' for what, n in sorted(ordeal.done.items()))}")
    print(f"  {figures}")
    assert figures.bodies > 0
