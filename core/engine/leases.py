"""Leases: how several engines on one store know who of them is alive.

Each engine that shares a store has a lease in it, and gives it a new number every third of its length. The others look
at the numbers. One that stands still is an engine that has died, is frozen, or is cut off from the store.

**No two clocks are compared.** An engine counts for how long it has seen a number stand still, by its own steady clock,
and each look counts for a third of the lease at most: whoever was frozen himself, or on a machine that slept, has to
look on for a whole lease before he may say anything of others. So neither skew between machines nor a clock that is set
takes a run from an engine that is alive. (Kleppmann, "How to do distributed locking", 2016, on why a lease by the
clock alone does not fence; here epochs fence, and leases only say when to look.)

**Nobody guesses about his own.** Whoever could not renew in time reads whether his lease is still there. While it is,
no run of his can have been claimed, however long he slept; until he knows, no further body starts. If it has gone, he
joins anew and keeps those runs that still have his name and his epoch.

Where the store sees that a process has ended, its lease is ended at the next look.
"""

from __future__ import annotations

import logging
from math import inf

import attrs

from dalsegno.core.engine.surroundings import Surroundings
from dalsegno.core.store import Lease

LENGTH_S = 10.0
"""How long a frozen engine keeps its runs. A tenth of a second of silence is common (a collection of garbage, a slow
disk), some seconds happen under load; each take-over costs a replay, and the bodies that were at work run once more."""

RENEWALS = 3
"""In one lease: one or two may fail without harm."""

LOOK_S = 0.25
"""How often the leases of others are looked at: one short read."""

log = logging.getLogger("dalsegno.engine")


@attrs.define
class Silence:
    """For how long the number of somebody's lease has stood still before our eyes."""

    lease: Lease
    us: int = 0


class Leases:
    """The lease of this engine, and what it knows of the others'. Used by the clockwork's thread; `valid` by any."""

    def __init__(self, around: Surroundings, length_us: int, alone: bool) -> None:
        self._around, self._length_us, self.alone = around, length_us, alone
        self.others: dict[str, Silence] = {}
        self._valid_until_us: float = 0
        self._renew_us = self._looked_us = 0

    def begin(self) -> None:
        """Become an engine of the store. Raises `StoreInUse`."""
        backend, owner = self._around.backend, self._around.owner
        if self.alone:
            backend.hold(owner)
            for lease in backend.leases():  # left by processes that have died: nobody else is here now
                backend.expire(lease)
            self._valid_until_us = inf
            return
        self._join()
        self.look()

    def end(self) -> None:
        """Leave the store."""
        if not self.alone:
            self._around.backend.leave(self._around.owner)

    def valid(self) -> bool:
        """Whether nobody can have taken our runs yet."""
        return self._around.clock.steady_us() < self._valid_until_us

    def keep(self) -> bool:
        """Renew our lease when it is time. False if it was lost, and has just begun anew: others may have our runs."""
        now_us = self._around.clock.steady_us()
        if self.alone or now_us < self._renew_us:
            return True
        if self._around.backend.renew(self._around.owner, self._around.clock.now_us()):
            self._from(now_us)
            return True
        log.warning("this engine's lease has run out before it was renewed; it begins anew")
        self._join()
        return False

    def _join(self) -> None:
        now_us = self._around.clock.steady_us()
        self._around.backend.join(self._around.owner, self._length_us, self._around.clock.now_us())
        self._from(now_us)

    def _from(self, now_us: int) -> None:
        """Our lease runs from when we began to ask for it, not from when the store had answered."""
        self._valid_until_us = now_us + self._length_us
        self._renew_us = now_us + self._length_us // RENEWALS

    def look(self) -> list[str]:
        """Look at the leases of the others; answers who has gone since the last look."""
        if self.alone:
            return []
        now_us, me = self._around.clock.steady_us(), self._around.owner
        passed_us, self._looked_us = now_us - self._looked_us, now_us
        leases = {lease.owner: lease for lease in self._around.backend.leases() if lease.owner != me}
        gone = [owner for owner in self.others if owner not in leases]
        for owner, lease in leases.items():
            seen = self.others.get(owner)
            if seen is None or seen.lease.number != lease.number:
                seen = self.others[owner] = Silence(lease)
            else:
                seen.us += min(passed_us, lease.length_us // RENEWALS)
            if (lease.ended or seen.us > lease.length_us) and self._around.backend.expire(lease):
                log.info("engine %s %s; its runs are taken over", owner, "has died" if lease.ended else "is silent")
                gone.append(owner)
        for owner in gone:
            self.others.pop(owner, None)
        return gone

    def look_when_due(self) -> list[str]:
        """The same, if the last look was a while ago."""
        if self.alone or self._around.clock.steady_us() - self._looked_us < LOOK_S * 1e6:
            return []
        return self.look()

    def lives(self, owner: str) -> bool:
        """Whether a run of this owner is to be left alone. Whoever is said to live is looked at until he has gone."""
        if not owner or owner == self._around.owner or self.alone:
            return False
        if owner not in self.others:
            leases = self._around.backend.leases()
            self.others.update({one.owner: Silence(one) for one in leases if one.owner == owner})
        return owner in self.others
