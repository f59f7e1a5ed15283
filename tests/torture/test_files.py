"""What is done to a store behind its back: bytes flipped, the lock file replaced, processes forked with it open."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

from dalsegno import Client, Status
from tests.torture import cast
from tests.torture.proof import prove, wrong_results
from tests.torture.stage import Stage, until

SEED = int(os.environ.get("TORTURE_SEED", "1"))
SIGNALS = 40


def flip(data: Path, record: bytes, bit: int) -> int:
    """Flip one bit of a record wherever a copy of it lies; answers how many there were."""
    content, count, at = bytearray(data.read_bytes()), 0, -1
    while (at := content.find(record, at + 1)) >= 0:
        content[at + bit // 8] ^= 1 << bit % 8
        count += 1
    data.write_bytes(content)  # the file keeps its identity, as a disk that forgets would leave it
    return count


def test_a_flipped_byte_stops_one_run(tmp_path: Path):
    """A bit that flips in an event while nobody runs is found and named; that run is set aside, and all others end."""
    rng = random.Random(SEED)
    stage = Stage(tmp_path)
    stage.plan(0, SIGNALS)
    with Client(stage.url) as client:
        stage.begin(client)
        with stage.worker() as worker, stage.sender(SEED, SIGNALS) as sender:
            assert worker.wait_until_ready(), worker.last_words()
            sender.go()
            inbox = client.get("inbox-0")
            until(lambda: len(inbox.history()) > 8, worker.last_words)
            worker.kill()
            sender.kill()
        number, stored = inbox.record.number, client.backend.history(inbox.record.number)
    at = rng.randrange(1, len(stored))
    assert flip(stage.store / "data.mdb", stored[at], rng.randrange(8 * len(stored[at])))

    with Client(stage.url) as client:
        assert [(problem.run, problem.event) for problem in client.backend.check()] == [("inbox-0#1", at)]
        stage.targets.remove("inbox-0")
        with stage.worker() as worker, stage.sender(SEED, SIGNALS) as sender:
            sender.go()
            inbox = client.get("inbox-0")
            inbox.signal("number", 0)  # so that it is looked at
            until(lambda: inbox.status is Status.BLOCKED, worker.last_words)
            assert f"event {at}" in inbox.record.reason
            assert not sender.lives_for(60)
            until(lambda: len(client.runs(status=Status.RUNNING)) == 0, worker.last_words)
            inbox.terminate("its history is damaged")
            until(lambda: inbox.status is Status.TERMINATED, worker.last_words)
            assert worker.end() == 0, worker.last_words()
        assert client.backend.head(number) > len(stored)
        del stage.expected["inbox-0"]
        broken = {problem.run for problem in client.backend.check()}
        assert broken == {"inbox-0#1"}
        assert list(wrong_results(stage, client)) == []


def test_a_replaced_lock_file_stops_the_writing(tmp_path: Path):
    """A worker whose lock file is replaced writes nothing more and says why; the next one goes on from there."""
    stage = Stage(tmp_path)
    stage.plan(0, SIGNALS)
    with stage.worker() as worker:
        assert worker.wait_until_ready(), worker.last_words()
        with Client(stage.url) as client:
            stage.begin(client)
            until(lambda: client.get("chain-0").state.get("at", 0) > 2, worker.last_words)
        lock = stage.store / "lock.mdb"
        lock.rename(lock.with_name("old"))
        until(lambda: stage.has_said("was deleted or replaced"), worker.last_words)
        written = (stage.store / "data.mdb").read_bytes()
        assert worker.lives_for(0.3)
        assert (stage.store / "data.mdb").read_bytes() == written
    lock.with_name("old").unlink()
    with Client(stage.url) as client:
        stage.heal(client, signals=SIGNALS)
        print(f"replaced lock file: {prove(stage, client)}")


def test_steps_that_fork_do_no_harm(tmp_path: Path):
    """Children of steps are refused the store they inherited, while their parent writes to it and is killed."""
    rng = random.Random(SEED)
    stage = Stage(tmp_path)
    stage.plan(0, SIGNALS)
    stage.add(cast.forking, "forking", (stage.url, 10), ["refused"] * 10)
    with Client(stage.url) as client:
        stage.begin(client)
        for _ in range(3):
            with stage.worker() as worker:
                assert worker.wait_until_ready(), worker.last_words()
                worker.lives_for(rng.uniform(0.02, 0.2))
        stage.heal(client, signals=SIGNALS)
        print(f"forks: {prove(stage, client)}")


def test_a_child_that_lingers_holds_nothing(tmp_path: Path):
    """A worker is killed, a child it forked lives on with all it inherited, and the next worker gets the store."""
    stage = Stage(tmp_path)
    stage.plan(0, SIGNALS)
    stage.add(cast.survived, "survived", (), 0)
    with Client(stage.url) as client, stage.worker() as first:
        stage.begin(client)
        run = client.get("survived")
        until(lambda: "child" in run.state, first.last_words)
        child = stage.expected["survived"] = run.state["child"]
        first.kill_alone()
        with stage.worker() as second:
            assert second.wait_until_ready(), second.last_words()
            os.kill(child, 0)  # it is still there
            run.signal("go on")
            assert run.result(30) == child
        os.kill(child, signal.SIGKILL)
        stage.heal(client, signals=SIGNALS)
        print(f"a child that lingers: {prove(stage, client)}")
