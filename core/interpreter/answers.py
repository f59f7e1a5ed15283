"""Which event may answer which command, as data.

A replay looks up the command that an event names by its id, and this table says whether the two belong together. Tools
draw it, and a test walks every cell.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from dalsegno.core.events import (
    CallbackCompleted,
    CallbackFailed,
    CheckpointTaken,
    ChildCompleted,
    ChildFailed,
    ChildNotStarted,
    ChildStarted,
    Event,
    PatchAdopted,
    RaceDecided,
    ScopeCompleted,
    SideEffectRecorded,
    SignalNotSent,
    SignalReceived,
    SignalSent,
    StepAttemptFailed,
    StepCompleted,
    StepFailed,
    StepStarted,
    TimerFired,
    TimerSet,
)


@attrs.frozen(slots=True)
class Answer:
    """The kinds of command an event may speak of, and whether it ends their wait."""

    kinds: frozenset[str]
    ends: bool


def _answer(*kinds: str, ends: bool = True) -> Answer:
    return Answer(frozenset(kinds), ends)


ANSWERS: Mapping[type[Event], Answer] = {
    StepStarted: _answer("step", ends=False),
    StepAttemptFailed: _answer("step", ends=False),
    StepCompleted: _answer("step"),
    StepFailed: _answer("step"),
    TimerSet: _answer("sleep", "sleep until", "receive", "step", ends=False),
    TimerFired: _answer("sleep", "sleep until", "receive", "step"),
    SignalReceived: _answer("receive"),
    SignalSent: _answer("send"),
    SignalNotSent: _answer("send"),
    ChildStarted: _answer("child", ends=False),
    ChildNotStarted: _answer("child"),
    ChildCompleted: _answer("child"),
    ChildFailed: _answer("child"),
    CallbackCompleted: _answer("callback"),
    CallbackFailed: _answer("callback"),
    SideEffectRecorded: _answer("side effect"),
    RaceDecided: _answer("race"),
    ScopeCompleted: _answer("scope"),
    CheckpointTaken: _answer("checkpoint"),
    PatchAdopted: _answer("patched"),
}
"""The table. Events that are not in it answer no command: they speak of the run itself."""

AT_ANY_TIME = frozenset({ChildCompleted, ChildFailed, CallbackCompleted, CallbackFailed})
"""Messages from outside arrive when they arrive: nobody need be waiting for them (any more, or yet)."""
