"""The planted bugs still apply to the code as it is; `make mutants` plants each and sees it found."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants.planting import ROOT, Copy, Mutant, load

MUTANTS = load()
SAMPLE = "epoch-not-compared"


def test_there_are_enough():
    """At least 25 bugs are planted, each once, in engine, stores, interpreter and codec."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 25
    places = {mutant.file.rpartition("/")[0] for mutant in MUTANTS}
    assert {"backends", "core/engine", "core/interpreter", "core/values"} <= places


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_each_still_applies(mutant: Mutant):
    """The text a bug replaces stands in its file just once, the file with the bug compiles (SQL is left to the server),
    and its test is there."""
    sound = (ROOT / mutant.file).read_text("utf-8")
    planted = mutant.planted(sound)
    assert planted != sound
    if mutant.file.endswith(".py"):
        assert ast.dump(ast.parse(planted)) != ast.dump(ast.parse(sound))
    path, _, test = mutant.caught_by.partition("::")
    assert (ROOT / path).exists()
    promised = "".join(each.read_text("utf-8") for each in (ROOT / "testing").glob("*.py"))
    function = test.rpartition("::")[2]
    assert not function or f"def {function}(" in (ROOT / path).read_text("utf-8") + promised


def test_a_sample_is_found_and_shipped_code_is_left_alone(tmp_path: Path):
    """One bug, planted in a copy of the tree, is found by its test there, and is gone from the copy afterwards."""
    mutant = next(mutant for mutant in MUTANTS if mutant.name == SAMPLE)
    shipped = (ROOT / mutant.file).read_bytes()
    copy = Copy(tmp_path / "copy")
    assert copy.run([mutant.caught_by]).returncode == 0
    outcome = copy.examine(mutant)
    assert outcome.verdict == "caught", outcome.by
    assert (ROOT / mutant.file).read_bytes() == shipped == (copy.root / mutant.file).read_bytes()


def test_a_survivor_is_told(tmp_path: Path):
    """A bug that its test does not find has survived, and one whose text is gone does not apply."""
    copy = Copy(tmp_path / "copy")
    harmless = Mutant(
        name="harmless",
        why="It hurts nobody.",
        file="core/policies.py",
        old='"""Policies: how often to try,',
        new='"""Policies: how often one tries,',
        caught_by="tests/backends/test_memory.py::test_a_memory_store_takes_no_name",
    )
    assert copy.examine(harmless).verdict == "survived"
    gone = Mutant(name="gone", why="", file="core/policies.py", old="what stands nowhere", new="", caught_by="")
    assert copy.examine(gone).verdict == "does not apply"
