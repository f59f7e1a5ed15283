"""The benchmark runs and fills its table. How fast anything is, is not asked here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), "--dir", str(folder), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)


def test_each_figure_stands_beside_its_yardstick(tmp_path: Path):
    """Two rounds of two scenarios give a table, and a file with every reading of both sides."""
    file = tmp_path / "bench.json"
    chosen = ("--only", "sequence", "--only", "recovery")
    done = bench(tmp_path, "--quick", "--runs", "2", "--json", str(file), *chosen)
    assert (done.returncode, done.stderr) == (0, "")
    assert "yardstick" in done.stdout
    rows = json.loads(file.read_text())["rows"]
    assert [row["scenario"] for row in rows] == ["sequence", "recovery", "recovery"]
    for row in rows:
        assert len(row["measured"]) == len(row["yardstick"]) == 2
        assert min(*row["measured"], *row["yardstick"]) > 0


def test_what_only_some_need_is_found_by_its_module(tmp_path: Path):
    """Scenarios of the debugger and of the simulation fill their rows, from processes that end with all of theirs."""
    file = tmp_path / "bench.json"
    chosen = ("--only", "verify", "--only", "simulation", "--only", "kills-adaptive")
    done = bench(tmp_path, "--quick", "--runs", "1", "--json", str(file), *chosen)
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(file.read_text())["rows"]
    assert [row["scenario"] for row in rows] == [*["kills-adaptive"] * 3, *["verify"] * 4, "simulation"]
    assert min(row["measured"][0] for row in rows[1:]) > 0  # in the first no body may have run again


def test_an_unknown_scenario_is_one_sentence(tmp_path: Path):
    """A name that is not there is answered with those that are."""
    done = bench(tmp_path, "--only", "speed")
    assert done.returncode == 2
    assert "speed: it is one of sequence," in done.stderr
