"""Two workers want one store. One has it; when that one is killed the other goes on, and at no moment do both."""

from __future__ import annotations

import os
import random
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from dalsegno import Client
from tests.torture.proof import prove
from tests.torture.stage import Stage

ROUNDS = int(os.environ.get("TORTURE_ROUNDS", "4"))
SEED = int(os.environ.get("TORTURE_SEED", "1"))
SIGNALS = 10


@pytest.mark.timeout(120 + 5 * ROUNDS)
def test_of_two_workers_one_works(tmp_path: Path):
    """One that is stopped keeps the store from its rival; one that is killed leaves it, work and all, to its rival."""
    stage, rng = Stage(tmp_path), random.Random(SEED)
    stopped = 0
    with Client(stage.url) as client, ExitStack() as processes:
        working = processes.enter_context(stage.worker())
        for number in range(ROUNDS):
            with stage.sender(SEED + number, SIGNALS) as sender:
                assert working.wait_until_ready(), working.last_words()
                stage.plan(number, SIGNALS)
                rival = processes.enter_context(stage.worker(how="rival"))
                stage.begin(client)
                sender.go()
                working.lives_for(rng.uniform(0, 0.2))
                if rng.random() < 0.5:
                    working.signal(signal.SIGSTOP)
                    rival.lives_for(rng.uniform(0, 0.3))
                    stopped += 1
                assert not rival.is_ready(), "two engines on one store"
                working.kill()
                stage.observe(client)
            working = rival
        working.kill()
        stage.heal(client, signals=SIGNALS)
        figures = prove(stage, client)
    print(f"{ROUNDS} rivals took over, {stopped} from a stopped worker\n  {figures}")
    assert figures.bodies > 0
