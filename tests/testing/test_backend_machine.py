"""The machine that compares stores with a model: it finds planted faults, and the guide that teaches it is true.

The faults are those a store of one's own is likely to have: a comparison forgotten, an order not kept, something left
behind. Each is a memory store with one method done wrong.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from dalsegno.backends import layout
from dalsegno.backends.memory import MemoryBackend
from dalsegno.backends.records import seal
from dalsegno.core.store import Message, Status, Transition
from dalsegno.testing.backend_machine import BackendMachine

ROOT = Path(__file__).resolve().parents[2]

# No shrinking, since only whether it is found matters, and always the same examples.
SEARCH = settings(
    stateful_step_count=30,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Careless(MemoryBackend):
    """A store that sees other transitions and messages than it is given."""

    def seen(self, t: Transition) -> Transition:
        return t

    def heard(self, message: Message) -> Message:
        return message

    def commit(self, transitions):
        return super().commit([self.seen(t) for t in transitions])

    def write(self, creations, transitions, messages, at_us):
        seen, heard = [self.seen(t) for t in transitions], [self.heard(one) for one in messages]
        return super().write(creations, seen, heard, at_us)


class EpochNotCompared(Careless):
    def seen(self, t):
        return attrs.evolve(t, epoch=getattr(self.record(t.run), "epoch", 0))


class HeadNotCompared(Careless):
    def seen(self, t):
        return attrs.evolve(t, head=self.head(t.run))


class ClosesWithoutLookingAtTheInbox(Careless):
    def seen(self, t):
        return attrs.evolve(t, seen=2**40)


class KeepsTimersThatWereCleared(Careless):
    def seen(self, t):
        return attrs.evolve(t, timers_cleared=())


class SetsItsTimersBeforeItClearsThem(Careless):
    def seen(self, t):
        return attrs.evolve(t, timers_set=tuple({*t.timers_set} - {*t.timers_cleared}))


class WithdrawsWhatHasBegun(Careless):
    def seen(self, t):
        return attrs.evolve(t, tasks_withdrawn=(), tasks_dropped=(*t.tasks_dropped, *t.tasks_withdrawn))


class TakesWithoutLimits(MemoryBackend):
    def declare(self, queues):
        super().declare([attrs.evolve(queue, concurrency=None) for queue in queues])


class IgnoresDeduplication(Careless):
    def heard(self, message):
        return attrs.evolve(message, dedup=None)


class SendsToTheNewestGeneration(Careless):
    def heard(self, message):
        return attrs.evolve(message, generation=None)


class NumbersMessagesFromOneAgain(Careless):
    def write(self, creations, transitions, messages, at_us):
        return super().write([attrs.evolve(one, messages_above=0) for one in creations], transitions, messages, at_us)


class ForgetsKeysWithAnyPurge(MemoryBackend):
    def purge(self, runs):
        purged = super().purge(runs)
        with self.begin(True) as txn:
            for key, _ in list(txn.scan(layout.DEDUP, layout.after(layout.DEDUP)) if purged else ()):
                txn.delete(key)
            txn.commit()
        return purged


class ReleasesForAnybody(MemoryBackend):
    def release(self, runs, owner):
        for run in runs:
            super().release([run], getattr(self.record(run), "owner", owner))


class CountsPausedRunsAsActive(MemoryBackend):
    def active(self, after=0, limit=1000):
        return sorted(one.number for one in self.runs() if one.active and one.number > after)[:limit]


class TimersInTheOrderOfRuns(MemoryBackend):
    def due(self, now_us, limit=1000):
        return sorted(super().due(now_us, limit), key=lambda timer: timer.run)


class PagesOfTheStatusOverlap(MemoryBackend):
    def runs(self, *, status=(), before=None, **others):
        return super().runs(status=status, before=before + 1 if before and status else before, **others)


class CreatesOneByOne(MemoryBackend):
    def create(self, runs):
        return [created for run in runs for created in super(CreatesOneByOne, self).create([run])]


class ChangesUnnoticed(MemoryBackend):
    def changes(self):
        return len(self.runs())


class ForgetsWhenClosed(MemoryBackend):
    survives_reopen = True


class MiscountsBlockedRuns(MemoryBackend):
    def stats(self):
        stats = super().stats()
        return {**stats, "running": stats["running"] + stats["blocked"], Status.BLOCKED.value: 0}


FAULTS = [
    kind for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, MemoryBackend) and kind not in (MemoryBackend, Careless)
]  # fmt: skip


def search(kind: type[MemoryBackend], examples: int) -> None:
    """Look for a difference between such a store and the model."""

    class Machine(BackendMachine):
        def open_backend(self):
            return kind.open()

    run_state_machine_as_test(Machine, settings=settings(SEARCH, max_examples=examples))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_found(fault: type[MemoryBackend]):
    """A store with one thing wrong differs from the model before long."""
    with pytest.raises(AssertionError):
        search(fault, 3_000)  # it ends with the first difference


class LeavesGaps(MemoryBackend):
    """Gives numbers like a sequence of a database, of which some are lost."""

    def write(self, *arguments):
        with self.begin(True) as txn:
            for key in (layout.NEXT_RUN_KEY, layout.NEXT_SEQ_KEY):
                last = layout.number((txn.get(key) or b"\0" * 12)[:8])
                txn.put(key, seal(key, (last + 3).to_bytes(8, "big")))
            txn.commit()
        return super().write(*arguments)


def test_a_store_chooses_its_numbers():
    """Gaps between the numbers of runs and messages are no difference."""
    search(LeavesGaps, 50)


# --- the guide -----------------------------------------------------------------------------------------------------

GREET_IN_IT = """
from dalsegno import Engine
from dalsegno.examples.hello import greet, greet_all

for _ in range(2):
    with Engine("onefile:./orders", workflows=[greet_all], steps=[greet]) as engine:
        print(engine.start(greet_all, ["Ada"], id="hello").result(timeout=20))
"""


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that docs/stores.md shows, installed as it says."""
    folder = tmp_path_factory.mktemp("guide")
    blocks = re.findall(
        r"^```(\w+)\n(.*?)^```$", (ROOT / "docs/stores.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    for language, text in blocks:
        if language == "python" and text.startswith("# "):
            name = text.split("\n")[0].removeprefix("# ")
            with (folder / name).open("a", encoding="utf-8") as file:
                file.write(text)
        elif language == "toml":
            ((_, table),) = tomllib.loads(text)["project"]["entry-points"].items()
            (folder / "file_store-1.dist-info").mkdir()
            (folder / "file_store-1.dist-info/METADATA").write_text("Name: file_store\nVersion: 1\n")
            points = [f"{scheme} = {target}" for scheme, target in table.items()]
            (folder / "file_store-1.dist-info/entry_points.txt").write_text("\n".join(["[dalsegno.backends]", *points]))
    return folder


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What Python says, started in a folder and finding it first."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110)


def test_the_store_of_the_guide_proves_itself(guide: Path):
    """The example of docs/stores.md passes the tests that stand there beside it."""
    done = python(guide, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_file_store.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d\d passed", done.stdout, re.MULTILINE)


def test_the_store_of_the_guide_runs_a_workflow(guide: Path):
    """Registered as the guide says, it is found by its URL, and what was recorded in it is found again."""
    done = python(guide, "-c", GREET_IN_IT)
    assert (done.stdout, done.stderr) == ("Hello, Ada!\n1\n1\n", "")
    assert "greet_all" in python(guide, "-m", "dalsegno.tools.replay", "ls", "--store", "onefile:./orders").stdout
    typo = python(guide, "-m", "dalsegno.tools.replay", "ls", "--store", "onefile:./ordres")
    assert (typo.returncode, typo.stderr) == (3, "error: ./ordres is not there, so there is nothing to read\n")
    assert not [file for file in guide.iterdir() if file.name.startswith("ordres")]


def test_the_store_of_the_guide_is_typed(guide: Path):
    """The example passes the checker as strictly as the library itself."""
    config = str(ROOT / "pyproject.toml")
    done = python(ROOT, "-m", "mypy", "--strict", "--config-file", config, str(guide / "file_store.py"))
    assert done.returncode == 0, done.stdout
