"""The comparison with peers, as far as it goes without installing any: ours, on every store of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from benchmarks.contenders import Library, NotHere, environment
from benchmarks.peers import ratio

ROOT = Path(__file__).resolve().parent.parent.parent


def test_each_scenario_is_read_on_each_store(tmp_path: Path):
    """Every process does its work, recovery goes on in a copy of what the first one left, and everything is written."""
    file = tmp_path / "peers.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "peers.py"), "--quick", "--rounds", "1", "--peer", "none"]
    with TemporaryDirectory() as disk:  # pytest's folder is closed to the user that PostgreSQL runs as
        options = ["--dir", disk, "--venvs", str(tmp_path / "venvs"), "--json", str(file)]
        done = subprocess.run(
            [*command, *options, "--only", "concurrent", "--only", "recovery"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    written = json.loads(file.read_text())
    assert written["failures"] == {}
    assert set(written["readings"]) == {"concurrent", "recovery"}
    for readings in written["readings"].values():
        assert list(readings) == ["dalsegno, lmdb full", "dalsegno, lmdb relaxed", "dalsegno, postgresql"]
        assert all(len(values) == 1 and min(values) > 0 for values in readings.values())


def test_a_ratio_compares_readings_of_one_round():
    """A round that is slow for both moves nothing; less is better where it is a time."""
    assert ratio([100, 10, 100], [50, 5, 50], "steps/s") == 2
    assert ratio([100, 10, 100], [50, 5, 50], "ms") == 0.5


def test_a_peer_that_finds_no_python_is_said(tmp_path: Path):
    """A library for a Python that is not there yet is left out, with a reason."""
    with pytest.raises(NotHere, match=r"wants Python 9\.0"):
        environment(Library("of the future", "on_future.py", python=(9, 0)), tmp_path)
