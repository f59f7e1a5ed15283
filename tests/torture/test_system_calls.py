"""The n-th system call of a writer kills it or fails, for every n: nothing acknowledged is lost, nothing is torn."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from dalsegno import Client
from dalsegno.backends.lmdb import LmdbBackend
from tests.torture import scribe
from tests.torture.means import injecting, was_injected, without_strace
from tests.torture.proof import prove
from tests.torture.stage import ROOT, Process, Stage, until

pytestmark = pytest.mark.skipif(without_strace() != "", reason=without_strace() or "strace works")

LONG = "TORTURE_ROUNDS" in os.environ
SEED = int(os.environ.get("TORTURE_SEED", "1"))
CALLS = ("pwrite64", "writev", "fdatasync")
WAYS = ("signal=KILL", "error=EIO", "error=ENOSPC")
MOST = 40
SIGNALS = 10


def points() -> list[tuple[str, str, range]]:
    """Each call and way with all its moments; in the short form with one moment each."""
    rng = random.Random(SEED)
    first = [(call, way, rng.randint(1, 6)) for call, way in itertools.product(CALLS, WAYS)]
    return [(call, way, range(1, MOST) if LONG else range(when, when + 1)) for call, way, when in first]


def inscribe(folder: Path, call: str, way: str, when: int) -> tuple[int, bool]:
    """Have the scribe write with one call tampered with; answers the last entry acknowledged, and whether it struck."""
    notes = folder / "strace"
    done = subprocess.run(
        [*injecting(call, way, f"{when}", notes), sys.executable, "-m", "tests.torture.scribe", str(folder / "store")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    numbers = [int(line) for line in done.stdout.splitlines()]
    assert numbers == list(range(len(numbers)))
    if way != "signal=KILL" or not was_injected(notes):
        assert (done.returncode, len(numbers)) == (0, scribe.ENTRIES + 1), done.stderr
    return len(numbers) - 1, was_injected(notes)


def examine(store: LmdbBackend, acknowledged: int) -> int:
    """See that all entries acknowledged are there, and at most one more, each whole; answers the last."""
    assert store.check() == []
    run, reader = store.find("scribe"), store.find("reader")
    if run is None or reader is None:
        assert (run, reader, acknowledged) == (None, None, -1)
        return -1
    last = store.head(run.number) - 1
    assert acknowledged <= last <= acknowledged + 1
    numbers = range(1, last + 1)
    assert store.history(run.number) == [b"started", *map(scribe.event, numbers)]
    assert [message.payload for message in store.inbox(reader.number)] == [b"%d" % number for number in numbers]
    assert [timer.deadline_us for timer in store.due(2**60)] == list(numbers)
    assert store.published(run.number) == ({"at": b"%d" % last} if last else {})
    return last


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("call", "way", "moments"), points(), ids=lambda value: "" if type(value) is range else value)
def test_a_writer_dies_or_fails_at_any_system_call(tmp_path: Path, call: str, way: str, moments: range):
    """At each moment: no acknowledged commit is lost, none is half there, and writing goes on."""
    struck = 0
    for when in moments:
        folder = tmp_path / str(when)
        folder.mkdir()
        acknowledged, hit = inscribe(folder, call, way, when)
        with LmdbBackend.open(str(folder / "store")) as store:
            last = examine(store, acknowledged)
            scribe.persist(store, last + 1)
            assert examine(store, last + 1) == last + 1
        struck += hit
        if not hit:
            break
    print(f"{call}:{way}: struck at {struck} moments")
    assert struck or not LONG


def written(data: Path) -> int:
    """The number of the last commit in the file, whether or not readers have been told of it."""
    content = data.read_bytes()[: 2 * 4096]
    return max(int.from_bytes(content[page + 144 : page + 152], "little") for page in (0, 4096))


def test_an_heir_sees_the_last_commit_of_the_dead(tmp_path: Path):
    """A commit that was written but not announced to readers when its process died is seen by the next engine."""
    rehearsal, stage = tmp_path / "rehearsal", Stage(tmp_path)
    rehearsal.mkdir()
    LmdbBackend.open(str(rehearsal / "store")).close()
    inscribe(rehearsal, "pwrite64", "delay_enter=0", 1)
    calls = [line for line in (rehearsal / "strace").read_text("utf-8").splitlines() if "pwrite64(" in line]
    last = max(at for at, line in enumerate(calls, 1) if ", 120, " in line)  # the header page, which ends a commit
    with LmdbBackend.open(str(stage.store)) as store:  # as long as it is open the lock file stays as the dead left it
        tracer = injecting("pwrite64", "delay_exit=60000000", f"{last}", tmp_path / "strace")
        with Process(stage, [*tracer, sys.executable, "-m", "tests.torture.scribe", str(stage.store)]) as process:

            def is_stuck() -> bool:
                return written(stage.store / "data.mdb") > int(str(store.changes()))

            until(lambda: is_stuck() and process.lives_for(0.3) and is_stuck(), process.last_words)
        run = store.find("scribe")
        assert run is not None
        assert store.head(run.number) == scribe.ENTRIES
        store.hold("heir")
        assert store.head(run.number) == scribe.ENTRIES + 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("call", "way"), list(itertools.product(CALLS, WAYS) if LONG else zip(CALLS, WAYS, strict=True))
)
def test_a_worker_meets_it_in_the_middle_of_work(tmp_path: Path, call: str, way: str):
    """An engine whose calls fail again and again goes on by itself, one that is killed by the next; nothing is lost."""
    rng = random.Random(f"{SEED} {call} {way}")
    first, every = rng.randint(3, 12), rng.randint(15, 40)
    stage = Stage(tmp_path)
    stage.plan(0, SIGNALS, length=3)
    notes = tmp_path / "strace"
    tracer = injecting(call, way, f"{first}+{every}", notes)
    with Client(stage.url) as client:
        stage.begin(client)
        with stage.sender(SEED, SIGNALS) as sender, stage.worker(under=tracer) as worker:
            sender.go()
            if worker.wait_until_ready() and way != "signal=KILL":
                assert not sender.lives_for(60), "the sender did not end"
                stage.wait_for_ends(worker, client)
                assert worker.end() == 0, worker.last_words()
            else:
                worker.lives_for(10)
        stage.heal(client, signals=SIGNALS)
        figures = prove(stage, client)
    print(f"{call}:{way} from {first} every {every}, struck: {was_injected(notes)}\n  {figures}")
