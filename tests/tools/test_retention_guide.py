"""The guide to retention says nothing that does not run."""

from __future__ import annotations

import re
import shlex
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import click
import pytest

from dalsegno import Retention
from dalsegno.core.engine import sweeping
from dalsegno.core.retention import RUNS_A_BATCH
from dalsegno.tools import operate, replay
from tests.tools.conftest import Cli

GUIDE = (Path(__file__).resolve().parents[2] / "docs/retention.md").read_text("utf-8")
COMMANDS = [line for block in re.findall(r"^```sh\n(.*?)^```", GUIDE, re.S | re.M) for line in block.splitlines()]


def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_replay: Cli):
    """The engine of the guide runs with its policy, and what it left behind can be pruned into its archive."""
    monkeypatch.chdir(tmp_path)
    module = ModuleType("guide_to_retention")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE, re.S | re.M)
    exec(compile("\n".join(blocks), "docs/retention.md", "exec"), vars(module))
    assert module.policy == Retention(continued=timedelta(days=7))
    run_replay("prune", "--store", "lmdb:./orders", "--completed", "0s", "--archive", "./archive")
    (file,) = tmp_path.glob("archive/*/fulfil/order-42.1.*.jsonl.*")
    shown = re.search(r"^archive/\S+$", GUIDE, re.M)
    assert shown is not None
    pattern = re.sub(r"[0-9a-f]", "x", re.sub(r"\d", "0", shown[0]))
    assert re.sub(r"[0-9a-f]", "x", re.sub(r"\d", "0", file.relative_to(tmp_path).as_posix())) == pattern
    assert "order-42" in run_replay("ls", "--store", "archive:./archive").stdout


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_are_understood(line: str):
    """Each command line that the guide shows has only options that there are."""
    program, name, *words = shlex.split(line)
    command = {"replay": replay.main, "dalsegno": operate.main}[program].commands[name]
    command.make_parser(click.Context(command)).parse_args(words)


def test_the_figures_are_those_of_the_code():
    """Times and sizes that the guide names are those that hold."""
    assert len(COMMANDS) >= 8
    policy = Retention()
    assert (policy.completed, policy.failed) == (7 * 86400, 30 * 86400)
    assert "| `completed` | 7 days |" in GUIDE
    assert "| `failed` | 30 days |" in GUIDE
    assert (sweeping.FIRST_AFTER_S, sweeping.EVERY_S[1], sweeping.REST) == (60, 3600, 4)
    assert "a minute after it has opened, then once an hour" in GUIDE
    assert f"a commit of {RUNS_A_BATCH} deletions" in GUIDE
