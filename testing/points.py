"""Points of a run, and pins in them: how a crash is put at exactly one place, and found there again.

A run in a simulation passes the same points each time: calls to the store, and bodies of steps. A point is known by
its name and a number, `store.commit #7`: the seventh commit. A pin says what happens there: `crash-after
store.commit #7`. Several pins follow one another; after the first has struck, counting begins anew, so that
`crash-after store.commit #7, then error-before store.claim #1` is a failure in the recovery from a crash.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, Self, get_args

import attrs

from dalsegno.core.errors import BadOption
from dalsegno.testing.faults import Body, Call, Mischief

Way = Literal["error-before", "error-after", "crash-before", "crash-after"]
"""Nothing was done, and it is said; it was done, and is reported failed; the process dies before, or after."""

WAYS: tuple[Way, ...] = get_args(Way)

Kind = Literal["read", "write", "body", "only body"]
"""What a point is; an `only body` is an attempt that has no other after it."""

_WAYS_OF: dict[Kind, tuple[Way, ...]] = {
    "read": ("error-before", "crash-before"),
    "write": WAYS,
    "body": WAYS,
    "only body": ("crash-before", "crash-after"),
}

_ERRORS: tuple[Call, ...] = ("error", "full", "unknown-before")

_PIN = re.compile(r"([a-z]+-[a-z]+) ((?:store|step)\..+) #([1-9]\d*)")


@attrs.frozen
class Visit:
    """A point that a run came by: the how manieth of its name since the last pin struck (or since the beginning)."""

    name: str
    n: int
    kind: Kind

    def pins(self) -> list[Pin]:
        """Everything that can go wrong here. An error is said only where the engine or the policy bears it: an attempt
        that is the last one is not failed, for then the workflow would rightly end otherwise."""
        return [Pin(way, self.name, self.n) for way in _WAYS_OF[self.kind]]


@attrs.frozen
class Pin:
    """One thing that goes wrong at one point.

    >>> str(Pin("crash-after", "store.commit", 7))
    'crash-after store.commit #7'
    """

    way: Way = attrs.field(validator=attrs.validators.in_(WAYS))
    name: str
    n: int

    def __str__(self) -> str:
        return f"{self.way} {self.name} #{self.n}"

    @classmethod
    def parse(cls, words: str) -> Self:
        """The pin that prints these words. Raises `BadOption`."""
        found = _PIN.fullmatch(words.strip())
        if found is None or found[1] not in WAYS:
            raise BadOption(f"{words!r} names no point; one looks like 'crash-after store.commit #7'")
        return cls(found[1], found[2], int(found[3]))


def line_of(pins: Iterable[Pin]) -> str:
    """One line for pins that follow one another."""
    return ", then ".join(map(str, pins))


def parse_line(line: str) -> tuple[Pin, ...]:
    """The pins of such a line. Raises `BadOption`.

    >>> line_of(parse_line("crash-after store.commit #7, then error-before store.claim #1"))
    'crash-after store.commit #7, then error-before store.claim #1'
    """
    return tuple(Pin.parse(words) for words in line.split(", then "))


class Pinned(Mischief):
    """Mischief at a few points and nowhere else. `visits` are all points the run came by; `struck` says where in them
    the pins struck."""

    def __init__(self, pins: Sequence[Pin] = ()) -> None:
        self.visits: list[Visit] = []
        self.struck: list[int] = []
        self._left = list(pins)
        self._counts: Counter[str] = Counter()

    def call(self, method: str, writes: bool) -> Call | None:
        way = self._visit(f"store.{method}", "write" if writes else "read")
        if way == "error-before":
            # The three ways in which a store says that nothing was done take turns.
            return _ERRORS[len(self.visits) % 3] if writes else "error"
        return "unknown-after" if way == "error-after" else way

    def body(self, step: str, retries: bool, timeout: float | None) -> Body | None:
        return self._visit(f"step.{step}", "body" if retries else "only body")

    def _visit(self, name: str, kind: Kind) -> Way | None:
        self._counts[name] += 1
        visit = Visit(name, self._counts[name], kind)
        self.visits.append(visit)
        if not self._left or (self._left[0].name, self._left[0].n) != (visit.name, visit.n):
            return None
        self.struck.append(len(self.visits) - 1)
        self._counts.clear()
        return self._left.pop(0).way

    def heal(self) -> None:
        self._left = []
