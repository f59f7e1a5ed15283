"""Several engines on one store, in one thread and in virtual time, to be frozen, killed, cut off and set off.

Each `Member` is the works of one process: it has its own handle on the store, its own clock (which may differ from the
others' by any amount) and its own scheduler. `Several` lets them do one piece of work after the other, in an order
drawn from its seed, and lets time pass for all of them when nobody has anything to do.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.definitions import Definition, StepDefinition
from dalsegno.core.engine.client import Client
from dalsegno.core.engine.leases import LOOK_S
from dalsegno.core.errors import StoreUnusable
from dalsegno.core.store import Backend
from dalsegno.testing.clock import EPOCH_US, VirtualClock
from dalsegno.testing.faults import Call, Crash, Mischief
from dalsegno.testing.faulty_store import FaultyStore
from dalsegno.testing.simulated_works import Duration, SimulatedWorks, Stage
from dalsegno.testing.witness import Witness

ROOM = 4
"""How many runs that nobody has begun a member takes at a time: few, so that all of them find something."""


class _Cut(Mischief):
    """A store that does not answer while `away`, and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.away, self.calls = False, Counter[str]()

    def call(self, method: str, writes: bool) -> Call | None:
        self.calls[method] += 1
        return "error-before" if self.away else None


class Member(SimulatedWorks):
    """The works of one process among several."""

    def __init__(self, store: Backend, stage: Stage, **options: Any) -> None:
        self.cut = _Cut()
        super().__init__(FaultyStore(store, self.cut, committed=self._committed), stage, options)  # type: ignore[arg-type]
        self.frozen = False
        self.commits = 0

    def _committed(self, transition: object) -> None:
        self.commits += 1

    def room(self) -> int:
        return max(0, ROOM - len(self.steps.jobs) - len(self.durable.jobs))  # type: ignore[attr-defined]

    @property
    def moves(self) -> bool:
        """Whether it does anything at all now."""
        return not self.frozen and not self.store.dead


class Several(Client):
    """Members on one memory store, and a client of it.

        with Several([fulfil], members=2, seed=7, skews=[0, 3600]) as several:
            run = several.start(fulfil, order)
            several.freeze(0)
            several.until(lambda: run.ended)

    `skews`: by how many seconds each member's wall clock is ahead. `fakes` and `takes` are what `Simulation` has.
    """

    def __init__(
        self,
        workflows: Iterable[Definition],
        *,
        members: int = 2,
        seed: int = 0,
        skews: Iterable[float] = (),
        fakes: Mapping[StepDefinition[..., Any], Callable[..., Any]] | None = None,
        takes: Mapping[StepDefinition[..., Any], float] | None = None,
        **options: Any,
    ) -> None:
        self._workflows, self._more = list(workflows), options
        self._rng, self._random = random.Random(seed), random.Random(seed + 1)
        self._fakes = {id(step.fn): fake for step, fake in (fakes or {}).items()}
        self._durations: dict[Any, tuple[Duration, float | None]] = {
            id(step.fn): (seconds, None) for step, seconds in (takes or {}).items()
        }
        self._table = MemoryBackend()
        self._clock = VirtualClock()
        super().__init__(self._table.another(), clock=self._clock, entropy=self._random.randbytes)
        self.members: list[Member] = []
        ahead = [*skews]
        for number in range(members):
            self.join(ahead[number] if number < len(ahead) else 0.0)

    def join(self, skew: float = 0.0) -> Member:
        """One more member, whose wall clock is so many seconds ahead of this client's."""
        clock = VirtualClock(EPOCH_US + round(skew * 1e6))
        clock.advance_us(self._clock.steady_us())
        stage = Stage(clock, random.Random(self._rng.random()), Witness(), fakes=self._fakes, durations=self._durations)
        member = Member(
            self._table.another(),
            stage,
            workflows=self._workflows,
            clock=clock,
            entropy=self._random.randbytes,
            **self._more,
        )
        member.open()
        self.members.append(member)
        return member

    # --- what can happen to them ----------------------------------------------------------------------------------

    def freeze(self, number: int) -> None:
        """Stop a process as SIGSTOP does: it keeps its lock, and its time goes on without it."""
        self.members[number].frozen = True

    def thaw(self, number: int) -> None:
        """Let it go on where it was."""
        self.members[number].frozen = False

    def kill(self, number: int, *, noticed: bool = True) -> None:
        """Kill a process; `noticed` at once, as on one machine, or only when its lease has run out."""
        member = self.members[number]
        member.store.dead = True
        if noticed:
            member.store.inner.close()

    def cut_off(self, number: int, away: bool = True) -> None:
        """Have the store not answer a member, or answer it again."""
        self.members[number].cut.away = away

    # --- driving ---------------------------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Virtual seconds since it all began."""
        return self._clock.steady_us() / 1e6

    def until(self, holds: Callable[[], bool], *, timeout: float = 600.0) -> bool:
        """Go on until something holds (true), or so many virtual seconds have passed (false)."""
        last = self.elapsed + timeout
        while not holds():
            if self.elapsed >= last:
                return False
            if not self._turn():
                self._pass(LOOK_S / 5)
        return True

    def run(self, seconds: float) -> None:
        """Go on for so many virtual seconds."""
        self.until(lambda: False, timeout=seconds)

    def _turn(self) -> bool:
        """One piece of work by somebody; false if nobody has any."""
        for member in self._rng.sample(self.members, len(self.members)):
            try:
                if member.moves and member.piece():
                    return True
            except Crash:
                pass
        return False

    def _pass(self, seconds: float) -> None:
        self._clock.advance(seconds)
        for member in self._rng.sample(self.members, len(self.members)):
            member.stage.clock.advance(seconds)
            if member.moves:
                member.tick()

    def close(self) -> None:
        """Put all of them away."""
        for member in self.members:
            try:
                member.bury()
            except StoreUnusable:
                pass  # its handle was closed when it was killed
        super().close()
