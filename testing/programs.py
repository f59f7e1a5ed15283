"""Random workflow programs as data: what they are made of, and the Hypothesis strategies that write them.

A `Program` is a block of operations, each a small attrs class that says what a workflow does at that point; a `Script`
is what its surroundings do to it meanwhile. Both are plain values: they have readable reprs, shrink well, can be stored
as arguments of a workflow, and can be read by anything, for instance by the oracle in `dalsegno.testing.reference`.
`dalsegno.testing.playing` makes workflows of them and plays them.

Every operation answers with plain data, a block with the list of its answers; so whatever an engine gets wrong on the
way shows in the program's result.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs
from hypothesis import strategies as st

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


# --- strategies ----------------------------------------------------------------------------------------------------

STEPS = st.sampled_from(["x", "y", "z"])
SIGNALS = st.sampled_from(["a", "b"])
VALUES = st.integers(0, 9)
SECONDS = st.integers(0, 12)


def blocks(ops: st.SearchStrategy[Op], *, least: int = 0, most: int = 3) -> st.SearchStrategy[Block]:
    """Blocks of such operations."""
    return st.lists(ops, min_size=least, max_size=most).map(tuple)


def _leaves(comparable: bool) -> st.SearchStrategy[Op]:
    kinds: list[Kind] = ["plain", "plain", "idempotent", "once"]
    questions: list[Question] = ["now", "round"] if comparable else ["now", "round", "uuid", "random", "chance"]
    targets: list[Literal["self", "parent", "nobody"]] = ["self", "nobody"] if comparable else ["self", "parent"]
    leaves: list[st.SearchStrategy[Op]] = [
        st.builds(Work, STEPS, VALUES, st.just(0), st.sampled_from(kinds)),
        st.builds(Work, STEPS, VALUES, st.integers(1, 3), st.sampled_from(kinds[:-1])),
        st.builds(Nap, SECONDS),
        st.builds(Take, SIGNALS, st.none() | SECONDS),
        st.builds(Post, st.sampled_from(targets), SIGNALS, VALUES),
        st.builds(Show, st.sampled_from(["p", "q"]), VALUES),
        st.builds(Read, st.sampled_from(questions)),
        st.builds(Mark),
        st.builds(Break, STEPS),
        st.builds(Fail, STEPS),
    ]
    if not comparable:
        leaves += [st.builds(Ask, VALUES, st.booleans()), st.builds(Change, st.sampled_from(["new", "newer"]))]
    return st.one_of(leaves)


def _nested(inner: st.SearchStrategy[Op]) -> st.SearchStrategy[Op]:
    block = blocks(inner)
    branches = st.lists(block, max_size=3).map(tuple)
    some = st.lists(block, min_size=1, max_size=3).map(tuple)
    return st.one_of(
        st.builds(Together, branches),
        st.builds(Each, branches, st.none() | st.integers(1, 2), st.none() | st.integers(0, 1), st.none()),
        st.builds(Each, branches, st.none() | st.integers(1, 2), st.none(), st.integers(0, 2)),
        st.builds(Race, some, st.booleans()),
        st.builds(Aside, block, block, st.sampled_from(["await", "cancel", "leave"])),
        st.builds(Scoped, block),
        st.builds(Shielded, block),
        st.builds(Guard, block, st.none() | block, block, st.booleans()),
        st.builds(Guard, block, block),
        st.builds(Child, block, st.sampled_from(["cancel", "abandon", "terminate"])),
    )


def programs(*, comparable: bool = False, max_leaves: int = 12) -> st.SearchStrategy[Program]:
    """Random programs. `comparable` leaves out what `run_reference` does not know: callbacks, patches, chance, and
    signals between runs."""
    ops = st.recursive(_leaves(comparable), _nested, max_leaves=max_leaves)
    main = blocks(ops, least=1, most=5)
    again = st.builds(Restart, st.integers(1, 2))
    return st.one_of(main, main, st.tuples(main, again).map(lambda pair: (*pair[0], pair[1]))).map(Program)


def sequences() -> st.SearchStrategy[Program]:
    """Programs that do one thing after another."""
    return blocks(_leaves(False), least=1, most=6).map(Program)


def scripts(*, comparable: bool = False) -> st.SearchStrategy[Script]:
    """What may happen to a program. Stimuli come at half seconds, timers at whole ones: never both at once."""
    whats = ["signal"] * 6 + ["cancel"] + ([] if comparable else ["pause", "resume"])
    stimulus = st.builds(
        Stimulus,
        st.integers(0, 30).map(lambda at: at + 0.5),
        st.sampled_from(whats),  # type: ignore[arg-type]  # the words above
        SIGNALS,
        VALUES,
    )
    ordered = st.lists(stimulus, max_size=5, unique_by=lambda s: s.at).map(lambda s: sorted(s, key=lambda x: x.at))
    return ordered.map(lambda stimuli: Script(tuple(stimuli)))
