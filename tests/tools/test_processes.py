"""Every command once as it is installed: a process of its own, its exit code, and no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dalsegno import Engine
from dalsegno.tools import operate, replay
from tests.tools.test_talking import promised

ROOT = Path(__file__).parents[2]
APP = ["--app", "tests.tools.shop"]

REPLAY: dict[str, list[str]] = {
    "check": [],
    "coverage": APP,
    "debug": ["order-1", "--at", "1", *APP],
    "diff": ["order-1", "order-1"],
    "export": ["order-1", "-"],
    "fork": ["order-1", "--at", "2", "--id", "again"],
    "import": ["{exported}"],
    "lint": ["tests/tools/shop.py"],
    "ls": [],
    "prune": ["--dry-run", "--completed", "0s"],
    "show": ["order-1"],
    "stats": [],
    "step": ["order-1", *APP, "--json"],
    "top": ["--once"],
    "verify": ["--all", *APP],
    "where": APP,
    "why": ["order-3", *APP],
}
DALSEGNO: dict[str, list[str]] = {
    "cancel": ["order-3"],
    "compact": ["{folder}/small"],
    "complete": ["{token}", "5"],
    "demo": ["examples", "--kills", "0", "--store", "{folder}/demo"],
    "fail": ["{token}", "no"],
    "pause": ["order-3"],
    "queues": [],
    "resume": ["order-3"],
    "signal": ["order-3", "approval", '{"granted": true}', *APP],
    "start": ["nap", "5", *APP],
    "terminate": ["order-3"],
    "worker": APP,
}
NO_STORE = {"lint", "demo"}


def test_none_is_left_out():
    """A command that is new is run here, too."""
    assert sorted(REPLAY) == sorted(replay.main.commands)
    assert sorted(DALSEGNO) == sorted(operate.main.commands)


def called(program: str, command: str, words: list[str], url: str) -> list[str]:
    store = [] if command in NO_STORE else ["--store", url]
    return [str(Path(sys.executable).with_name(program)), command, *words, *store]


@pytest.mark.parametrize("command", sorted(set(REPLAY) - {"import"}))
def test_replay(command: str, url: str):
    """It does what it is there for, and says nothing on stderr that is an error."""
    line = called("replay", command, REPLAY[command], url)
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, input="q\n" * 9, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout or done.stderr
    assert "Traceback" not in done.stderr


def test_replay_import(url: str, tmp_path: Path):
    """What one process exports another imports, through a pipe."""
    line = called("replay", "export", REPLAY["export"], url)
    exported = subprocess.run(line, cwd=ROOT, capture_output=True, check=True, timeout=60).stdout
    (tmp_path / "order-1.jsonl").write_bytes(exported)
    line = called("replay", "import", [str(tmp_path / "order-1.jsonl")], f"lmdb:{tmp_path / 'other'}")
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == "1 run imported\n"


@pytest.mark.parametrize("command", sorted(set(DALSEGNO) - {"worker"}))
def test_dalsegno(command: str, url: str, tmp_path: Path):
    """It is taken, and the process ends with 0."""
    words = DALSEGNO[command]
    if "{token}" in words:
        with Engine(url, workflows=[promised]) as engine:
            run = engine.start(promised, id="p")
            while "token" not in run.state:
                pass
            words = [run.state["token"] if word == "{token}" else word for word in words]
    line = called("dalsegno", command, [word.replace("{folder}", str(tmp_path)) for word in words], url)
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout or done.stderr
    assert "Traceback" not in done.stderr


def test_dalsegno_worker(url: str):
    """It works until Ctrl-C, and then ends in good order."""
    line = called("dalsegno", "worker", DALSEGNO["worker"], url)
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True) as worker:
        assert worker.stderr is not None
        assert worker.stderr.readline().startswith("working on ")
        worker.send_signal(signal.SIGINT)
        said = worker.stderr.read()
        assert worker.wait(30) == 0
    assert "stopping: running steps get 10 s" in said
    assert "Traceback" not in said
