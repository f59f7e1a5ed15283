"""The seals, as they are typed, and with the worker that runs the steps killed on the way."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dalsegno import Client, Queue
from dalsegno.examples import seals
from dalsegno.testing import Simulation


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A large package and a small one, which comes after it."""
    for name, count in (("big", 24), ("small", 3)):
        (tmp_path / "library" / name).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "library" / name / f"m{number:02}.py").write_text(f"NUMBER = {number}\n" * 50)
    return tmp_path / "library"


def expected(library: Path, package: str) -> str:
    """The sums of a package, made here."""
    files = sorted((library / package).glob("*.py"))
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file}\n" for file in files)


def seal(library: Path, store: Path) -> subprocess.CompletedProcess[str]:
    """The example, as it is typed."""
    call = [sys.executable, "-m", "dalsegno.examples", "seals", "small", "big", "--folder", str(library)]
    places = ["--store", f"lmdb:{store}", "--into", str(store.parent / "sums")]
    return subprocess.run([*call, *places], capture_output=True, text=True, check=False, timeout=120)


def test_a_library_is_sealed(library: Path, tmp_path: Path):
    """Two processes seal it, and tell how it went; its limits stand in the store; a second call seals it anew."""
    for _ in range(2):
        done = seal(library, tmp_path / "store")
        assert (done.returncode, done.stderr) == (0, "")
        counts, fair = done.stdout.splitlines()
        assert counts == f"big 24, small 3: 27 files, in {tmp_path}/sums"
        told = re.fullmatch(r"the first package was done after (\d+) files; as they came, .* after 24", fair)
        assert told is not None
        assert 3 <= int(told[1]) <= 27
    assert {name: (tmp_path / "sums" / f"{name}.sha256").read_text() for name in ("big", "small")} == {
        name: expected(library, name) for name in ("big", "small")
    }
    with Client(f"lmdb:{tmp_path}/store") as client:
        limits = {state.name: state.limits for state in client.backend.queues()}
    assert limits["read"] == Queue("read", concurrency=4, per_key=2)


def test_the_packages_take_turns(library: Path, tmp_path: Path):
    """The small package, whose three files came after the 24 of the large one, is read in the first turns."""
    with Simulation([seals.seal_library], queues=seals.QUEUES) as simulation:
        run = simulation.start(seals.seal_library, str(library), ["big", "small"], str(tmp_path / "sums"))
        assert set(run.result()) == {"big", "small"}
        assert seals.read_before(run) <= 8


def test_a_worker_is_killed(library: Path, tmp_path: Path):
    """What the killed worker had taken is done by the one that comes after it, and everything is sealed once."""
    store, into = f"lmdb:{tmp_path}/store", str(tmp_path / "sums")
    with Client(store) as client:
        with seals.workers(store, "workflows", "steps") as (_, steps):
            run = client.start(seals.seal_library, str(library), ["big", "small"], into)
            while not any(state.at_work for state in client.backend.queues() if state.name == "read"):
                pass
            steps.kill()
            steps.wait(30)
            with seals.workers(store, "steps"):
                sealed = run.result(timeout=60)
        names = [getattr(event, "name", "") for event in run.history() if type(event).__name__ == "StepCompleted"]
    assert sealed == {name: hashlib.sha256(expected(library, name).encode()).hexdigest() for name in ("big", "small")}
    assert (names.count("checksum"), names.count("seal")) == (27, 2)
