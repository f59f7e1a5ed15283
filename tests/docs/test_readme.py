"""The first page shows what a newcomer will see."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.docs.pages import Reading, blocks, commands, same

PAGE = "../README.md"


def first(language: str) -> str:
    """The first block of a language."""
    return next(block.text for block in blocks(PAGE) if block.language == language)


def test_the_first_program_runs_as_it_is_pasted(tmp_path: Path):
    """Once it greets everybody; a second time nothing is left to do."""
    (tmp_path / "hello.py").write_text(first("python"))
    reading = Reading(PAGE, tmp_path)
    assert reading.call("python hello.py") == "Hello, Ada!\nHello, Bob!\nHello, Cyd!\n3 greeted\n"
    assert reading.call("python hello.py") == "3 greeted\n"


def test_the_crash_the_resume_and_the_history_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The commands below it print what stands there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    reading = Reading(PAGE, tmp_path)
    block = next(block for block in blocks(PAGE) if block.language == "console")
    for line, shown in commands(block):
        printed = reading.call(line)
        assert same(shown, printed), f"{line}\n  shows\n{shown}\n  and there is\n{printed}"


def test_it_is_short():
    """One sentence, a program of some ten lines, what it prints, the crash: all on the first screen."""
    lines = (Path(__file__).parents[2] / "README.md").read_text("utf-8").splitlines()
    assert lines[0] == "# dalsegno"
    assert lines[2].count(".") == 1
    assert lines.index("```console") < 30
    assert len([line for line in first("python").splitlines() if line]) <= 14
