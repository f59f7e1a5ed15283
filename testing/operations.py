"""Workflow programs as data: what they are made of.

A `Program` is a block of operations, each a small attrs class that says what a workflow does at that point; a `Script`
is what its surroundings do to it meanwhile. Both are plain values: they have readable reprs, shrink well, can be stored
as arguments of a workflow, and can be read by anything, for instance by the oracle in `dalsegno.testing.reference`.
`dalsegno.testing.programs` writes random ones, `performing` makes workflows of them, and `playing` plays them.

Every operation answers with plain data, a block with the list of its answers; so whatever an engine gets wrong on the
way shows in the program's result.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

Kind: TypeAlias = Literal["plain", "idempotent", "once"]
Policy: TypeAlias = Literal["cancel", "abandon", "terminate"]
Question: TypeAlias = Literal["now", "uuid", "random", "round", "chance"]


@attrs.frozen
class Op:
    """One operation of a program."""


Block: TypeAlias = tuple[Op, ...]


@attrs.frozen
class Work(Op):
    """A step. It answers `[name, value]`, after failing transiently in its first `fails` attempts (of three)."""

    name: str
    value: int = 0
    fails: int = 0
    kind: Kind = "plain"


@attrs.frozen
class Break(Op):
    """A step that fails for good."""

    name: str


@attrs.frozen
class Nap(Op):
    """A sleep."""

    seconds: int


@attrs.frozen
class Take(Op):
    """A receive; answers the payload."""

    signal: str
    timeout: int | None = None


@attrs.frozen
class Post(Op):
    """A signal to this run itself, to the run that started it (itself, if none did), or to nobody."""

    to: Literal["self", "parent", "nobody"]
    signal: str
    value: int = 0


@attrs.frozen
class Ask(Op):
    """A callback: the token is handed out by a step, and answered from outside when nothing else can happen."""

    value: int = 0
    fails: bool = False


@attrs.frozen
class Child(Op):
    """A child run of its own; answers what its block answers."""

    body: Block
    policy: Policy = "cancel"


@attrs.frozen
class Together(Op):
    """`All`."""

    branches: tuple[Block, ...]


@attrs.frozen
class Each(Op):
    """`Map`. With `tolerated` or `enough`, a completion policy, and the answers are outcomes."""

    branches: tuple[Block, ...]
    concurrency: int | None = None
    tolerated: int | None = None
    enough: int | None = None


@attrs.frozen
class Race(Op):
    """`First`; answers `[key, value]`."""

    branches: tuple[Block, ...]
    named: bool = False


@attrs.frozen
class Aside(Op):
    """`Spawn`, then `meanwhile`, and then the task is awaited, cancelled, or left to itself."""

    body: Block
    meanwhile: Block = ()
    then: Literal["await", "cancel", "leave"] = "await"


@attrs.frozen
class Scoped(Op):
    """`Scope`."""

    body: Block


@attrs.frozen
class Shielded(Op):
    """`Shield`."""

    body: Block


@attrs.frozen
class Guard(Op):
    """`try`: with `rescue`, errors (and with `stubborn` cancellations, too) are caught; `finally_` always runs."""

    body: Block
    rescue: Block | None = None
    finally_: Block = ()
    stubborn: bool = False


@attrs.frozen
class Read(Op):
    """A question that is answered from the history, or by a side effect (`chance`)."""

    what: Question


@attrs.frozen
class Show(Op):
    """`Publish`."""

    key: str
    value: int


@attrs.frozen
class Change(Op):
    """`Patched`."""

    name: str


@attrs.frozen
class Mark(Op):
    """`Checkpoint`."""


@attrs.frozen
class Fail(Op):
    """The workflow's own code raises."""

    word: str


@attrs.frozen
class Restart(Op):
    """`ContinueAsNew`, in a run's first `times` rounds; nothing after that."""

    times: int = 1


@attrs.frozen
class Program:
    """A workflow, as data."""

    main: Block


@attrs.frozen
class Stimulus:
    """Something that is done to the run, so many seconds after it started."""

    at: float
    what: Literal["signal", "cancel", "pause", "resume"]
    signal: str = ""
    value: int = 0


@attrs.frozen
class Script:
    """What the surroundings do, in the order of time."""

    stimuli: tuple[Stimulus, ...] = ()


CALM = Script()
"""Surroundings that do nothing."""
