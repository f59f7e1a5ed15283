"""The proof of the demo: what the step bodies wrote into the ledger against what the histories say was recorded.

After each kill, with nobody running, the histories are read. A step is then *recorded* (its outcome stands in a
history), *in flight* (its body has run, or begun to, and nothing is recorded), or not begun. The promise: a recorded
step never runs again, and one in flight runs once more. So no ledger line after a kill may carry the key of a step
that was recorded at that kill, and a step may have one line more for each kill that found it in flight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dalsegno.examples.ledger import Entry

RECORDS_AN_OUTCOME = ("StepCompleted", "StepFailed")


@dataclass(frozen=True)
class Kill:
    """The state of affairs when the worker was dead: ledger lines by then, and the keys of recorded steps. `at` is in
    seconds since the demo began."""

    at: float
    lines: int
    recorded: frozenset[str] = field(repr=False)

    def in_flight(self, ledger: Sequence[Entry]) -> set[str]:
        """The keys of steps whose bodies had begun and whose outcome was not recorded."""
        return {entry.key for entry in ledger[: self.lines]} - self.recorded


@dataclass(frozen=True)
class Proof:
    """What the comparison came to. `bodies` ran for `steps` different steps; `repeated` had been in flight at a kill.

    The rest has to be empty: `again` (recorded, and run again), `unexplained` (repeated without having been in
    flight), `unseen` (recorded, and no body ran), `lost` (a body ran and nothing was recorded in the end), `twice` (two
    outcomes recorded).
    """

    bodies: int
    steps: int
    repeated: int
    again: tuple[str, ...]
    unexplained: tuple[str, ...]
    unseen: tuple[str, ...]
    lost: tuple[str, ...]
    twice: tuple[str, ...]

    @property
    def holds(self) -> bool:
        return not (self.again or self.unexplained or self.unseen or self.lost or self.twice)


def keys_recorded(run_id: str, history: Iterable[Any]) -> Iterator[str]:
    """The keys of the steps whose outcome stands in a history, as `step_context().idempotency_key` has them."""
    return (f"{run_id}/{event.id}" for event in history if type(event).__name__ in RECORDS_AN_OUTCOME)


def compare(ledger: Sequence[Entry], kills: Sequence[Kill], recorded: Sequence[str]) -> Proof:
    """Hold the ledger against what was recorded at each kill, and in the end.

    >>> one = Entry("run#0", "run#0/1", 1, "a.py", pid=7, at=0.0)
    >>> compare([one, one], [Kill(0.5, 1, frozenset())], ["run#0/1"]).holds       # was in flight: repeated
    True
    >>> compare([one, one], [Kill(0.5, 1, frozenset({"run#0/1"}))], ["run#0/1"]).again    # was recorded
    ('run#0/1',)
    """
    times = Counter(entry.key for entry in ledger)
    excused = Counter(key for kill in kills for key in kill.in_flight(ledger))
    again = {entry.key for kill in kills for entry in ledger[kill.lines :] if entry.key in kill.recorded}
    return Proof(
        bodies=len(ledger),
        steps=len(times),
        repeated=len(ledger) - len(times),
        again=tuple(sorted(again)),
        unexplained=tuple(sorted(key for key, count in times.items() if count > 1 + excused[key] and key not in again)),
        unseen=tuple(sorted(set(recorded) - times.keys())),
        lost=tuple(sorted(times.keys() - set(recorded))),
        twice=tuple(sorted(key for key, count in Counter(recorded).items() if count > 1)),
    )
