"""ARCHITECTURE.md names what there is."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT

TOLD = ["core", "core/engine", "core/interpreter", "backends", "backends/postgresql"]


@pytest.mark.parametrize("folder", TOLD)
def test_every_module_has_its_place(folder: str):
    """Whoever looks for a module, or for what it is there for, finds it on the map."""
    words = set(re.findall(r"\w+", (ROOT / "ARCHITECTURE.md").read_text("utf-8")))
    modules = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"}
    assert modules - words == set()


def test_nothing_is_told_of_that_has_gone():
    """Each module that a table of parts names is there."""
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    parts = text[text.index("### Parts of the interpreter") : text.index("## Decisions worth knowing")]
    rows = [row.split("|")[1] for row in parts.splitlines() if row.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    there = {path.stem for folder in TOLD for path in (ROOT / folder).glob("*.py")}
    assert named - there == set()
