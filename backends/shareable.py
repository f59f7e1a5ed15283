"""The ordered layout for stores that several engines share: leases as records.

A lease is one small record; `claim`, which every ordered store has, looks for it in the transaction that claims. What
a store knows besides of who is alive (a lock that goes with its process) it tells by `has_ended`, and nobody need wait
for that lease to run out.
"""

from __future__ import annotations

from abc import abstractmethod
from operator import attrgetter
from typing import ClassVar

import attrs

from dalsegno.backends import layout, records
from dalsegno.backends.ordered import OrderedStore
from dalsegno.backends.records import intact
from dalsegno.backends.transitions import Batch
from dalsegno.core.store import Lease


class ShareableStore(OrderedStore):
    """An ordered store on which several engines can work at the same time. A subclass gives `enter` as well."""

    several: ClassVar[bool] = True

    @abstractmethod
    def enter(self, owner: str) -> None:
        """Somebody is about to join; he may have joined before. Raises `StoreInUse` while another holds the store. A
        store that can tell when a process ends begins to watch this one here."""

    def depart(self, owner: str) -> None:
        """The lease of this owner has gone."""

    def has_ended(self, owner: str) -> bool:
        """Whether the process of an owner who has a lease is known to have ended."""
        return False

    def join(self, owner: str, length_us: int, now_us: int) -> None:
        self.enter(owner)
        self._lend(owner, length_us, now_us)

    def renew(self, owner: str, now_us: int) -> bool:
        with self.begin(False) as txn:
            lease = Batch(txn).lease(owner)
        return lease is not None and self._lend(owner, lease.length_us, now_us, anew=False)

    def _lend(self, owner: str, length_us: int, now_us: int, anew: bool = True) -> bool:
        with self.begin(True) as txn:
            batch = Batch(txn)
            if not anew and batch.lease(owner) is None:
                return False
            batch.lend(owner, length_us, now_us)
            if anew:
                batch.tasks.end_leaseless(owner)
            batch.finish()
            txn.commit()
        return True

    def leave(self, owner: str) -> bool:
        with self.begin(True) as txn:
            batch = Batch(txn)
            there = batch.lease(owner) is not None
            if there:
                batch.end_lease(owner)
                batch.finish()
                txn.commit()
        if there:
            self.depart(owner)
        return there

    def leases(self) -> list[Lease]:
        with self.begin(False) as txn:
            found = [
                records.unpack_lease(value[: -records.CHECKSUM_BYTES])
                for key, value in txn.scan(layout.LEASE, layout.after(layout.LEASE))
                if intact(key, value)
            ]
        found.sort(key=attrgetter("owner"))
        return [attrs.evolve(lease, ended=True) if self.has_ended(lease.owner) else lease for lease in found]

    def expire(self, lease: Lease) -> bool:
        with self.begin(True) as txn:
            batch = Batch(txn)
            there = batch.lease(lease.owner)
            if there is None or there.number != lease.number:
                return False
            batch.end_lease(lease.owner)
            batch.finish()
            txn.commit()
        self.depart(lease.owner)
        return True
