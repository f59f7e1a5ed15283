"""A look at where everything stands, for debuggers."""

from __future__ import annotations

from types import FrameType
from typing import Any

import attrs

from dalsegno.core.interpreter.asked import Waiting
from dalsegno.core.interpreter.fiber import Fiber
from dalsegno.core.interpreter.frames import frames


@attrs.frozen(slots=True)
class FiberView:
    """One fiber: its path ("" for the root), function, file and line, what it waits for, and the fibers beneath.

    `frames` are those of the generator and what it delegates to, outermost first; local variables are in them.
    """

    path: str
    function: str
    file: str
    line: int
    waits_for: str
    frames: tuple[FrameType, ...] = attrs.field(repr=False, default=())
    beneath: tuple[FiberView, ...] = ()


def view(root: Any) -> FiberView:
    """The tree of fibers beneath a root. Where the root has ended, its place is empty and its tasks are beneath."""
    tops = _beneath(root) if root is not None else ()
    if len(tops) == 1 and not tops[0].path:
        return tops[0]
    first = tops[0] if tops and not tops[0].path else FiberView("", "", "", 0, "nothing")
    return attrs.evolve(first, beneath=(*first.beneath, *(top for top in tops if top.path)))


def _of(fiber: Fiber) -> FiberView:
    held = tuple(frames(fiber.generator))
    file, line = (held[-1].f_code.co_filename, held[-1].f_lineno) if held else ("", 0)
    waits_for = "nothing" if fiber.node is None else _words(fiber.node)
    return FiberView(fiber.path, fiber.describe(), file, line, waits_for, held, _beneath(fiber))


def _words(node: Any) -> str:
    words: str = node.describe()
    return f"{words} (id {node.id})" if hasattr(node, "id") else words


def _beneath(node: Any) -> tuple[FiberView, ...]:
    found: list[FiberView] = []
    for part in node.parts():
        if isinstance(part, Fiber):
            found.append(_of(part))
        elif not isinstance(part, Waiting):
            found.extend(_beneath(part))
    return tuple(found)
