"""Faults: the places where a run can be made to go wrong, and the plan that says which of them do, and when.

A fault comes from a *site*, a named place with one sentence that says what happens there. A `FaultPlan` is a seed and
a few numbers. For one run it switches every site on or off with one coin, and a site that is on fires with another,
each time the run comes by: so each seed misbehaves in its own few ways, often, instead of in all ways, seldom. (The
idea is FoundationDB's; its name there is buggify.) Every site draws from a stream of its own, so that a site added
later does not change what a seed means to the others.

What the engine promises under all of them: nothing accepted is lost, nothing recorded is done again, nothing is
recorded twice (safety), and once the faults have healed, every run goes on to its end (liveness).

`Mischief` is what the store and the simulation ask whenever they come by a place. `Faults` answers by a plan's coins;
`dalsegno.testing.exploring` has another one, which counts and strikes at exactly one place.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import attrs

from dalsegno.core.errors import BadOption

Call = Literal[
    "full", "error", "unknown-before", "unknown-after", "crash-before", "crash-after", "slow", "stuck", "error-before"
]
"""What can become of a call to the store."""

Body = Literal["error-before", "error-after", "crash-before", "crash-after", "timeout", "slow"]
"""What can become of a step's body."""


class Crash(BaseException):
    """The simulated process dies here. No `Exception`, so that nothing on the way takes it for an ordinary failure."""


@attrs.frozen
class Site:
    """A place where a fault can be: its name, one sentence that says what happens, and how often it fires when on."""

    name: str
    sentence: str
    chance: float


_SITES = [
    Site("store.full", "A write raises StoreFull; nothing of it was applied.", 0.1),
    Site("store.error", "A call, reading or writing, raises StoreError; nothing of it was applied.", 0.05),
    Site("store.unknown-before", "A write raises UnknownOutcome; nothing of it was applied.", 0.1),
    Site("store.unknown-after", "A write raises UnknownOutcome although all of it was applied.", 0.1),
    Site("store.crash-before", "The process dies just before a call to the store.", 0.02),
    Site("store.crash-after", "The process dies just after a call to the store took effect.", 0.02),
    Site("store.slow", "A call to the store takes up to ten seconds.", 0.1),
    Site("store.stuck", "A call to the store takes ten minutes and is then reported failed; it may be done.", 0.02),
    Site("store.conflict", "A transition is refused, as if another writer had been there first.", 0.1),
    Site("news.lost", "A commit does not say which runs its messages went to; polling has to find out.", 0.3),
    Site("news.late", "The store says that nothing has changed although something has.", 0.5),
    Site("timers.late", "The store does not name the timers that are due yet.", 0.5),
    Site("timers.twice", "The store names timers twice, and once more after they were recorded.", 0.5),
    Site("mail.twice", "The store announces messages again that were announced before.", 0.5),
    Site("sends.twice", "A message with a dedup key is sent a second time.", 0.5),
    Site("lease.lost", "Another engine claims a run that this one works on, and then does nothing with it.", 0.02),
    Site("step.error-before", "An attempt, not the last, fails with ConnectionError before its body ran.", 0.2),
    Site("step.error-after", "An attempt, not the last, fails with ConnectionError after its body ran.", 0.2),
    Site("step.crash-before", "The process dies just before a step's body.", 0.05),
    Site("step.crash-after", "The process dies between a step's effect and its record.", 0.05),
    Site("step.timeout", "An attempt, not the last, takes longer than its time-out.", 0.2),
    Site("step.slow", "A step without a time-out takes up to an hour.", 0.2),
    Site("clock.jump", "The wall clock is set up to an hour forwards or backwards.", 0.05),
    Site("worker.crash", "The process dies between two pieces of work.", 0.02),
    Site("worker.evict", "Every run that waits is put out of memory, and is replayed when something arrives.", 0.3),
    Site("worker.freeze", "The worker does nothing for up to an hour, then goes on as if no time had passed.", 0.03),
]

SITES: Mapping[str, Site] = {site.name: site for site in _SITES}


def _known(instance: Any, attribute: Any, names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in SITES]
    if unknown:
        raise BadOption(f"no fault site is called {unknown[0]!r}; there are: {', '.join(SITES)}")


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


def _share(instance: Any, attribute: Any, value: float) -> None:
    if not 0 <= value <= 1:
        raise BadOption(f"FaultPlan({attribute.name}={value!r}): a probability, from 0 to 1")


@attrs.frozen
class FaultPlan:
    """Which faults a run meets: a function of these few values, and of nothing else.

    `on`: with what probability a site is switched on for a whole run. `only`: the sites that may be (none named: all).
    `chances`: with what probability a site that is on fires, by name, where it is not to be the site's own. `most`: so
    many faults a run meets at most, so that it ends.

    >>> plan = FaultPlan(7, only=("store.full", "clock.jump"), on=1.0)
    >>> print(plan)
    faults seed=7 on=1.0 only=clock.jump,store.full
    >>> FaultPlan.parse(str(plan)) == plan
    True
    >>> plan.switched_on()
    {'store.full': 0.1, 'clock.jump': 0.05}
    """

    seed: int = 0
    on: float = attrs.field(default=0.25, validator=_share, kw_only=True)
    only: tuple[str, ...] = attrs.field(default=(), converter=_sorted, validator=_known, kw_only=True)
    chances: Mapping[str, float] = attrs.field(factory=dict, kw_only=True)
    most: int = attrs.field(default=50, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _known(self, None, tuple(self.chances))
        if wrong := [c for c in self.chances.values() if not 0 <= c <= 1]:
            raise BadOption(f"FaultPlan(chances=…): {wrong[0]!r} is no probability, from 0 to 1")

    @staticmethod
    def sites() -> list[Site]:
        """Every site there is, in the order of a plan's coins."""
        return list(SITES.values())

    def switched_on(self) -> dict[str, float]:
        """The sites that are on in this plan's run, each with the probability that it fires."""
        found: dict[str, float] = {}
        for site in SITES.values():
            coin = random.Random(f"{self.seed} {site.name}").random()
            if coin < self.on and (not self.only or site.name in self.only):
                found[site.name] = self.chances.get(site.name, site.chance)
        return found

    def __str__(self) -> str:
        words = ["faults", f"seed={self.seed}"]
        words += [f"on={self.on}"] if self.on != 0.25 else []
        words += [f"most={self.most}"] if self.most != 50 else []
        words += [f"only={','.join(self.only)}"] if self.only else []
        words += [f"{name}={chance}" for name, chance in sorted(self.chances.items())]
        return " ".join(words)

    @classmethod
    def parse(cls, line: str) -> Self:
        """The plan that printed this line. Raises `BadOption` for a line that no plan prints."""
        first, *words = line.split() or [""]
        if first != "faults" or any("=" not in word for word in words):
            raise BadOption(f"{line!r} is no fault plan; one looks like: {cls(7, only=('store.full',))}")
        said = dict(word.split("=", 1) for word in words)
        only = tuple(name for name in said.pop("only", "").split(",") if name)
        try:
            seed, most = int(said.pop("seed", "0")), int(said.pop("most", "50"))
            on = float(said.pop("on", "0.25"))
            chances = {name: float(chance) for name, chance in said.items()}
        except ValueError as error:
            raise BadOption(f"{line!r} is no fault plan: {error}") from None
        return cls(seed, on=on, only=only, chances=chances, most=most)


class Mischief:
    """What is asked wherever something could go wrong. This one lets everything pass."""

    def call(self, method: str, writes: bool) -> Call | None:
        """What becomes of this call to the store."""
        return None

    def body(self, step: str, retries: bool, timeout: float | None) -> Body | None:
        """What becomes of this attempt of a step. `retries`: it may fail, for there is another attempt."""
        return None

    def fires(self, site: str) -> bool:
        """Whether this site fires now."""
        return False

    def amount(self, site: str) -> float:
        """How much of it, from 0 to 1."""
        return 0.5

    def heal(self) -> None:
        """Do nothing bad from now on."""


class Faults(Mischief):
    """The coins of one run of a plan. `fired` counts what happened, by site."""

    def __init__(self, plan: FaultPlan) -> None:
        self.plan = plan
        self.fired: Counter[str] = Counter()
        self._on = plan.switched_on()
        self._coins = {name: random.Random(f"{plan.seed} {name} fires") for name in self._on}
        self._left = plan.most

    def __repr__(self) -> str:
        return f"<Faults of {self.plan}; fired: {dict(self.fired)}>"

    def fires(self, site: str) -> bool:
        chance = self._on.get(site)
        if chance is None or self._left <= 0 or self._coins[site].random() >= chance:
            return False
        self.fired[site] += 1
        self._left -= 1
        return True

    def amount(self, site: str) -> float:
        return self._coins[site].random()

    def heal(self) -> None:
        self._on = {}

    def call(self, method: str, writes: bool) -> Call | None:
        if not self._on:
            return None
        for way in _CALLS_WRITING if writes else _CALLS_READING:
            if self.fires(f"store.{way}"):
                return way
        return None

    def body(self, step: str, retries: bool, timeout: float | None) -> Body | None:
        if not self._on:
            return None
        for way in _BODIES:
            harmless = way.startswith("crash") or (way == "slow" and timeout is None)
            harmless = harmless or (retries and (way.startswith("error") or (way == "timeout" and timeout is not None)))
            if harmless and self.fires(f"step.{way}"):
                return way
        return None


_CALLS_READING: tuple[Call, ...] = ("error", "crash-before", "crash-after", "slow", "stuck")
_CALLS_WRITING: tuple[Call, ...] = ("full", "unknown-before", "unknown-after", *_CALLS_READING)
_BODIES: tuple[Body, ...] = ("error-before", "error-after", "crash-before", "crash-after", "timeout", "slow")
