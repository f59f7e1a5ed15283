"""Hypothesis strategies that write random workflow programs, and scripts of what happens to them meanwhile.

    @given(programs(), scripts())
    def test_something(program, script): ...

A program is data (`dalsegno.testing.operations`); `dalsegno.testing.performing` makes a workflow of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import strategies as st

from dalsegno.testing.operations import (
    Aside,
    Ask,
    Block,
    Break,
    Change,
    Child,
    Each,
    Fail,
    Guard,
    Kind,
    Mark,
    Nap,
    Op,
    Post,
    Program,
    Race,
    Read,
    Restart,
    Scoped,
    Script,
    Shielded,
    Show,
    Stimulus,
    Take,
    Together,
    Work,
)

T = TypeVar("T")


class Writer:
    """Writes programs from drawn choices. `budget` is how many operations it may still write.

    Everything is drawn by hand instead of being composed of strategies, so that an example prints as what it is.
    """

    def __init__(
        self, draw: Callable[[st.SearchStrategy[Any]], Any], budget: int, comparable: bool, once: bool = True
    ) -> None:
        self._draw, self._budget, self._comparable = draw, budget, comparable
        self._kinds: list[Kind] = ["plain", "idempotent", "once"] if once else ["plain", "idempotent"]
        self._leaves = [self.work, self.nap, self.read, self.take, self.post, self.show, self.flaky, self.mark]
        self._leaves += [self.work, self.nap, self.work, self.break_, self.fail]
        self._leaves += [] if comparable else [self.ask, self.change]
        self._nodes = [self.together, self.guard, self.race, self.each, self.aside, self.scoped, self.shielded]
        self._nodes += [self.child, self.rescue, self.select]

    def pick(self, *choices: T) -> T:
        """One of these, the first being the simplest."""
        chosen: T = self._draw(st.sampled_from(choices))
        return chosen

    def number(self, most: int = 9, least: int = 0) -> int:
        """A number."""
        return int(self._draw(st.integers(least, most)))

    def block(self, depth: int, most: int = 3, least: int = 0) -> Block:
        """Operations, one after another."""
        ops: list[Op] = []
        while len(ops) < most and self._budget > 0 and (len(ops) < least or self.pick(False, True, True)):
            ops.append(self.op(depth))
        return tuple(ops)

    def op(self, depth: int) -> Op:
        """Any operation; simple ones at the bottom."""
        self._budget -= 1
        if depth > 0 and self.pick(False, True):
            return self.pick(*self._nodes)(depth - 1)
        return self.pick(*self._leaves)()

    def leaf(self) -> Op:
        """An operation that holds no others."""
        return self.pick(*self._leaves)()

    def step(self) -> str:
        return self.pick("x", "y", "z")

    def signal(self) -> str:
        return self.pick("a", "b")

    def work(self) -> Op:
        return Work(self.step(), self.number(), 0, self.pick(*self._kinds))

    def flaky(self) -> Op:
        return Work(self.step(), self.number(), self.number(3, 1), self.pick("plain", "idempotent"))

    def seconds(self) -> int:
        """A time to wait. None at all is a race with whatever takes no time either, and no oracle can tell who wins."""
        return self.number(12, 1 if self._comparable else 0)

    def nap(self) -> Op:
        return Nap(self.seconds())

    def read(self) -> Op:
        if self._comparable:
            return Read(self.pick("round", "now"))
        return Read(self.pick("round", "now", "uuid", "random", "chance"))

    def take(self) -> Op:
        return Take(self.signal(), self.seconds() if self.pick(True, False) else None)

    def post(self) -> Op:
        return Post(self.pick("self", "nobody" if self._comparable else "parent"), self.signal(), self.number())

    def show(self) -> Op:
        return Show(self.pick("p", "q"), self.number())

    def mark(self) -> Op:
        return Mark()

    def break_(self) -> Op:
        return Break(self.step())

    def fail(self) -> Op:
        return Fail(self.step())

    def ask(self) -> Op:
        return Ask(self.number(), self.pick(False, True))

    def change(self) -> Op:
        return Change(self.pick("new", "newer"))

    def branches(self, depth: int, least: int = 0) -> tuple[Block, ...]:
        return tuple(self.block(depth) for _ in range(self.number(3, least)))

    def together(self, depth: int) -> Op:
        return Together(self.branches(depth))

    def race(self, depth: int) -> Op:
        return Race(self.branches(depth, least=1), self.pick(False, True))

    def each(self, depth: int) -> Op:
        return Each(self.branches(depth), self.pick(None, 1, 2))

    def select(self, depth: int) -> Op:
        return Each(self.branches(depth), self.pick(None, 1, 2), self.pick(None, 0, 1), self.pick(None, 0, 1, 2))

    def aside(self, depth: int) -> Op:
        return Aside(self.block(depth), self.block(depth), self.pick("await", "cancel", "leave"))

    def scoped(self, depth: int) -> Op:
        return Scoped(self.block(depth))

    def shielded(self, depth: int) -> Op:
        return Shielded(self.block(depth))

    def child(self, depth: int) -> Op:
        return Child(self.block(depth), self.pick("cancel", "abandon", "terminate"))

    def rescue(self, depth: int) -> Op:
        return Guard(self.block(depth), self.block(depth))

    def guard(self, depth: int) -> Op:
        rescue = self.pick(None, self.block)
        return Guard(self.block(depth), rescue and rescue(depth), self.block(depth), self.pick(False, True))


@st.composite
def programs(
    draw: Callable[[st.SearchStrategy[Any]], Any],
    *,
    comparable: bool = False,
    once: bool = True,
    budget: int = 20,
    depth: int = 3,
) -> Program:
    """Random programs of up to `budget` operations, nested up to `depth`.

    `comparable` leaves out what `run_reference` does not know: callbacks, patches, chance, and signals between runs.
    Without `once` there are no steps of that kind, so that crashes cannot be seen from inside.
    """
    writer = Writer(draw, budget, comparable, once)
    main = writer.block(depth, most=5, least=1)
    return Program((*main, Restart(writer.number(2, 1))) if writer.pick(False, False, False, True) else main)


@st.composite
def sequences(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Program:
    """Comparable programs that do one simple thing after another."""
    return Program(Writer(draw, 6, True).block(0, most=6, least=1))


@st.composite
def scripts(draw: Callable[[st.SearchStrategy[Any]], Any], *, comparable: bool = False) -> Script:
    """What may happen to a program. Stimuli come at half seconds, timers at whole ones: never both at once."""
    times = draw(st.lists(st.integers(0, 30), max_size=5, unique=True))
    writer = Writer(draw, 0, comparable)
    made = []
    for at in sorted(times):
        what = writer.pick("signal", "signal", "signal", "cancel", *([] if comparable else ["pause", "resume"]))
        signal, value = (writer.signal(), writer.number()) if what == "signal" else ("", 0)
        made.append(Stimulus(at + 0.5, what, signal, value))  # type: ignore[arg-type]  # the words above
    return Script(tuple(made))
