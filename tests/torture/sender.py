"""A process that sends numbered signals beside the engine, and is killed like it.

It writes a line before each signal (`try`) and one after it was acknowledged (`ack`, or `closed`), so that it can go on
after a kill and the proof knows what was promised. What it sends to an inbox or to rounds carries a dedup key, and is
sent again when no answer was noted; what it sends to an impatient run does not, and is never sent again.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

from dalsegno import Client, Run, RunClosed


@attrs.define
class Letters:
    """What is known of one target: the numbers tried and acknowledged, and whether it has closed."""

    tried: list[int] = attrs.field(factory=list)
    acknowledged: list[int] = attrs.field(factory=list)
    closed: bool = False


def read_letters(notes: Path) -> dict[str, Letters]:
    """What senders have noted, by target."""
    found: dict[str, Letters] = {}
    text = notes.read_text("utf-8") if notes.exists() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():
        what, target, number = line.split()
        letters = found.setdefault(target, Letters())
        if what == "closed":
            letters.closed = True
        else:
            (letters.tried if what == "try" else letters.acknowledged).append(int(number))
    return found


def dedups(target: str) -> bool:
    """Whether this target gets each signal again until it is acknowledged."""
    return not target.startswith("impatient")


def to_send(target: str, letters: Letters, count: int) -> Iterator[int]:
    """The numbers that are still to be sent, and then the one that ends it."""
    if letters.closed or -1 in letters.acknowledged:
        return
    known = letters.acknowledged if dedups(target) else letters.tried
    yield from range(max(known, default=-1) + 1, count)
    if dedups(target):
        yield -1


def main() -> None:
    """`sender STORE NOTES SEED COUNT TARGET…`; begins when a line comes in."""
    store, notes, seed, count, *targets = sys.argv[1:]
    rng = random.Random(seed)
    known = read_letters(Path(notes))
    file = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    with Client(store) as client:
        print("ready", flush=True)
        sys.stdin.readline()
        left = {name: to_send(name, known.get(name, Letters()), int(count)) for name in targets}
        while left:
            target = rng.choice(sorted(left))
            number = next(left[target], None)
            if number is None or not send(client.get(target), target, number, file):
                del left[target]


def send(run: Run[object], target: str, number: int, file: int) -> bool:
    """Send one signal, with a note before and after it; false if the run takes no more."""
    os.write(file, f"try {target} {number}\n".encode())
    try:
        run.signal("number", number, dedup=f"number {number}" if dedups(target) else None)
    except RunClosed:
        os.write(file, f"closed {target} {number}\n".encode())
        return False
    os.write(file, f"ack {target} {number}\n".encode())
    return True


if __name__ == "__main__":
    main()
