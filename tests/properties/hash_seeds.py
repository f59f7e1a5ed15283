"""Plays some programs and prints a digest of all their histories, to be compared between processes."""

from __future__ import annotations

import hashlib
import random
import sys
from typing import TypeVar

from dalsegno.testing.operations import Program, Script, Stimulus
from dalsegno.testing.performing import Performance
from dalsegno.testing.playing import Player
from dalsegno.testing.programs import Writer

T = TypeVar("T")

SCRIPT = Script((Stimulus(1.5, "signal", "a", 1), Stimulus(4.5, "signal", "b", 2), Stimulus(20.5, "cancel")))


class _Writer(Writer):
    """Writes programs without Hypothesis, which would draw others in another process."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(lambda strategy: None, 20, False)
        self._chance = chance

    def pick(self, *choices: T) -> T:
        return self._chance.choice(choices)

    def number(self, most: int = 9, least: int = 0) -> int:
        return self._chance.randint(least, most)


def written(count: int) -> list[Program]:
    """So many programs, the same in every process."""
    return [Program(_Writer(random.Random(seed)).block(3, most=5, least=2)) for seed in range(count)]


def digest_of(programs: list[Program]) -> str:
    """One digest of all histories."""
    found = hashlib.sha256()
    for seed, program in enumerate(programs):
        outcome = Player(Performance(program), SCRIPT, seed=seed).play()
        for name, history in outcome.histories.items():
            found.update(name.encode())
            for event in history:
                found.update(event)
    return found.hexdigest()


if __name__ == "__main__":
    print(digest_of(written(int(sys.argv[1]))))
