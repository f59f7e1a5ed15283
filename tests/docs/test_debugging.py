"""The story of docs/debugging.md happens as it is told."""

from __future__ import annotations

import pytest

from tests.docs.console import Call, calls, calls_of, told

PAGE = "debugging.md"


@pytest.fixture(scope="module")
def story() -> list[tuple[Call, str]]:
    """Every command with what it prints, typed one after another into one shell."""
    return told(PAGE)


@pytest.mark.parametrize("at", range(len(calls(PAGE))))
def test_the_commands_print_what_the_story_shows(at: int, story: list[tuple[Call, str]]):
    """A reader who pastes the commands sees the same."""
    call, printed = story[at]
    assert call.prints(printed), f"$ {call.command}\n--- stands there\n{call.shown}\n--- is printed\n{printed}"


def test_the_story_uses_the_debugger():
    """A failure is looked at in every way there is, mended, verified and forked."""
    words = [call.command.split()[:2] for call in calls(PAGE)]
    for command in ("why", "show", "step", "debug", "export", "where", "coverage", "verify", "fork", "diff", "check"):
        assert ["replay", command] in words


def test_what_is_typed_is_told_from_what_is_printed():
    """A prompt's line is typed; a here-document belongs to its command; what does not fit is noticed."""
    step, cat = calls_of("$ replay step x\n> x\n(0/3) p a\n7\n(0/3) q\n$ cat <<'END'\n$ text\nEND\n")
    assert step.typed == ["p a", "q"]
    assert step.prints("> x\n(0/3) 7\n(0/3) ")
    assert not step.prints("> x\n(0/3) 8\n(0/3) ")
    assert cat == Call("cat <<'END'\n$ text\nEND", "")
