"""Every program that is one edit away from another: an operation added, dropped, swapped, renamed or changed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import attrs

from dalsegno.testing.operations import Ask, Block, Op, Program, Work

NEW = Work("new", 0)

OTHER = {"x": "y", "y": "z", "z": "x", "a": "b", "b": "a", "p": "q", "q": "p", "new": "newer", "newer": "new"}
"""What a name is changed into."""

KEPT = {"kind", "policy", "then", "stubborn", "named", "times", "to", "what", "fails"}
"""Fields that are no argument: changing them changes options, or makes another command of it."""


def edits(program: Program) -> Iterator[Program]:
    """Every program that is one edit away."""
    return (Program(block) for block in _blocks(program.main))


def _blocks(block: Block) -> Iterator[Block]:
    for at in range(len(block) + 1):
        yield (*block[:at], NEW, *block[at:])
    for at, op in enumerate(block):
        before, after = block[:at], block[at + 1 :]
        yield (*before, *after)
        yield from ((*before, edited, *after) for edited in _ops(op))
    for at, (left, right) in enumerate(pairwise(block)):
        if left != right:
            yield (*block[:at], right, left, *block[at + 2 :])


def _ops(op: Op) -> Iterator[Op]:
    for field in attrs.fields(type(op)) if not isinstance(op, Ask) else ():  # what it answers is said outside
        if field.name not in KEPT:
            edited = _branches if field.name == "branches" else _values
            for value in edited(getattr(op, field.name)):
                yield attrs.evolve(op, **{field.name: value})


def _branches(branches: tuple[Block, ...]) -> Iterator[tuple[Block, ...]]:
    for at, block in enumerate(branches):
        yield (*branches[:at], *branches[at + 1 :])
        yield from ((*branches[:at], edited, *branches[at + 1 :]) for edited in _blocks(block))
    yield (*branches, (NEW,))


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, str):
        yield OTHER[value]
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, tuple):
        yield from _blocks(value)
