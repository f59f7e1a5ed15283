"""The soak in its short form: some simulated hours, and some seconds for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import soak
from benchmarks.mixture import Traffic
from dalsegno import Client, Status

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_simulated_hour_is_flat(tmp_path: Path):
    """Retention takes as many runs as come, and nothing grows, over a good many crashes."""
    file = tmp_path / "soak.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "soak.py"), "--simulated-day", "--hours", "1"]
    done = subprocess.run(
        [*command, "--json", str(file)], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    written = json.loads(file.read_text())
    assert written["runs"] == 61 * Traffic.RUNS
    assert all(verdict["flat"] for verdict in written["verdicts"].values())
    assert min(written["values"]["runs in the store"][-60:]) > 50


def test_what_grows_is_called_so(monkeypatch: pytest.MonkeyPatch):
    """Without retention the store grows, and the exit status says it."""
    monkeypatch.setattr(soak, "day_retention", lambda end_s: None)
    monkeypatch.setattr(soak, "READINGS", 24)
    done = CliRunner().invoke(soak.main, ["--simulated-day", "--hours", "1"])
    assert done.exit_code == 1
    rows = {line.split("│")[1].strip(): line.split("│")[-2].strip() for line in done.output.splitlines() if "│" in line}
    assert rows["runs in the store"] == rows["their histories"] == "no"
    assert rows["threads"] == rows["open files"] == "yes"


def test_the_real_engine_does_the_same_work(tmp_path: Path):
    """A second at full speed on LMDB leaves as many runs as were counted, each ended as its workflow says."""
    shares = list[float]()
    log = soak.real(f"lmdb:{tmp_path / 'store'}", 1.0, shares.append)
    assert shares == sorted(shares)
    assert len(log.at_s) == len(shares) > 1
    assert {len(values) for values in log.values.values()} == {len(log.at_s)}
    with Client(f"lmdb:{tmp_path / 'store'}") as client:
        stats = client.backend.stats()
    waiting = stats[Status.RUNNING.value]  # those that only wait, when the engine was closed
    rounds = log.done // Traffic.RUNS
    assert stats["runs"] == log.done
    assert waiting <= 2 * rounds
    assert stats[Status.FAILED.value] == 3 * rounds
    assert stats[Status.CANCELLED.value] == 2 * rounds
    assert stats[Status.CONTINUED.value] == 4 * rounds
