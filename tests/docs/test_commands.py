"""Every command of both programs stands on a page, with a line to type."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import DOCS, PROGRAMS


def lines_to_type(program: str) -> set[str]:
    """The commands of a program that some page shows in a line to type."""
    shown = set[str]()
    for page in DOCS.rglob("*.md"):
        found = re.findall(rf"(?:^\$ |^|`){program} ([a-z]+)", page.read_text("utf-8"), re.M)
        shown.update(found)
    return shown


@pytest.mark.parametrize("program", list(PROGRAMS))
def test_each_command_has_an_example(program: str):
    """A command that no page shows at work is one that nobody finds."""
    commands = getattr(PROGRAMS[program], "commands", {})
    assert set(commands) - lines_to_type(program) == set()
    assert len(commands) > 5
