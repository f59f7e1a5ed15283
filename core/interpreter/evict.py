"""Putting suspended generators away.

Closing a generator, or dropping the last reference to it, runs its `finally` and `with` blocks, in whatever thread
that happens in. Here it is a designed state instead. A generator that stands inside no such block is closed, which runs
nothing. In any other `Evicted` is raised; it is no `Exception`, so that ordinary handlers let it pass, and commands
that clean-up code yields are refused by raising it again. None of that is recorded: on the next replay the generator
stands where it stood. Whatever still yields after a hundred refusals is reported, to be kept alive for good.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dalsegno.core.interpreter.fiber import Fiber
from dalsegno.core.interpreter.frames import is_suspended_inside_try
from dalsegno.core.interpreter.mismatch import nodes

THROWS_MAX = 100  # more than any nest of clean-up blocks; a loop around a `yield` would go on for ever


class Evicted(BaseException):
    """Raised in a generator that is being put away from memory. Its run goes on later, from its history."""


def generators(root: Any) -> Iterator[Any]:
    """Every generator beneath a root, innermost branches last."""
    return (node.generator for node in nodes(root) if isinstance(node, Fiber))


def evict(suspended: list[Any]) -> list[Any]:
    """Put generators away, branches before what runs them; return those that could not be."""
    return [each for each in reversed(suspended) if not put_away(each)]


def put_away(generator: Any) -> bool:
    """Put one generator away; False if it insists on living on."""
    if not is_suspended_inside_try(generator):
        generator.close()
        return True
    for _ in range(THROWS_MAX):
        try:
            generator.throw(Evicted("put away from memory"))
        except BaseException:  # Evicted itself, StopIteration, or what clean-up code made of it: all the same now
            return True
    return False
