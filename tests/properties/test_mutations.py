"""Code that no longer fits its history is found out, and code that fits is never suspected."""

from __future__ import annotations

from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st

from dalsegno.core.errors import HistoryMismatch
from dalsegno.core.events import CancelRequested, Event, RunCancelled, RunContinued, RunFailed, SignalReceived, fields
from dalsegno.core.history import decode_history
from dalsegno.core.interpreter import Interpreter
from dalsegno.core.values.codec import Codec
from dalsegno.testing.operations import Program, Script
from dalsegno.testing.performing import Performance
from dalsegno.testing.playing import Player
from dalsegno.testing.programs import programs, scripts, sequences
from dalsegno.testing.reference import expected
from tests.properties.mutations import edits

CODEC = Codec()


def first_history(program: Program, script: Script) -> list[Event]:
    """The history of the first run of a program."""
    return decode_history(Player(Performance(program), script).play().histories["program#1"])


def fits(program: Program, history: list[Event], *, skip_scopes: bool = True) -> bool:
    """Whether a history can be replayed with this code. Whatever is raised besides a mismatch is an error here."""
    interpreter = Interpreter(Performance(program).workflow, CODEC)
    try:
        interpreter.replay(history, skip_scopes=skip_scopes)
    except HistoryMismatch:
        return False
    finally:
        interpreter.evict()
    return True


def told(history: list[Event]) -> list[Any]:
    """A history without what an edit may shift (lines), and without how it failed, which may be said better later."""
    last = history[-1]
    events = history[:-1] if isinstance(last, RunFailed | RunCancelled) else history
    return [type(last), *({**fields(each), "line": 0} for each in events)]


def cancelled(history: list[Event]) -> bool:
    """Whether the run was cancelled: then nothing shows what it had been waiting for."""
    return any(isinstance(each, CancelRequested) for each in history)


def failed_with_mail(history: list[Event]) -> bool:
    """Whether signals came and the run failed: then nothing shows which of them it had received."""
    return isinstance(history[-1], RunFailed) and any(isinstance(each, SignalReceived) for each in history)


@given(sequences(), scripts(comparable=True), st.data())
def test_an_edit_of_a_sequence_is_flagged_if_it_changes_the_history(
    program: Program, script: Script, data: st.DataObject
):
    """One thing after another: an edit is a mismatch just when the edited program would have made another history."""
    edited = data.draw(st.sampled_from(list(edits(program))))
    history = first_history(program, script)
    if cancelled(history) or failed_with_mail(history):
        return
    changed = told(first_history(edited, script)) != told(history)
    event("flagged" if changed else "the same")
    assert fits(edited, history) is not changed


@given(programs(comparable=True), scripts(comparable=True), st.data())
def test_an_edit_that_is_not_flagged_cannot_be_seen(program: Program, script: Script, data: st.DataObject):
    """Branches and all: an edited program that fits the history comes to the same end by itself. (Looking into scopes
    that have ended, too, which a replay passes over otherwise.)"""
    edited = data.draw(st.sampled_from(list(edits(program))))
    history = first_history(program, script)
    said, said_now = expected(program, script), expected(edited, script)
    if isinstance(history[-1], RunContinued) or said is None or said_now is None or cancelled(history):
        return
    fit = fits(edited, history, skip_scopes=False)
    event("not flagged" if fit else "flagged")
    if fit:
        assert (said_now.status, said_now.value) == (said.status, said.value)


@given(programs(), scripts())
def test_the_same_program_is_never_flagged(program: Program, script: Script):
    """A program written again, word for word, fits the history of the first."""
    history = first_history(program, script)
    assert fits(Program(program.main), history)
    assert fits(Program(program.main), history, skip_scopes=False)
