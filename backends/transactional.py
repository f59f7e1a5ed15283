"""What every part of the ordered layout's store begins with: a transaction."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager

from dalsegno.backends.heads import Heads
from dalsegno.backends.keyvalue import KeyValueTransaction
from dalsegno.core.store import Backend


class Transactional(Backend):
    """A store that hands out transactions on ordered keys."""

    heads: Heads | None = None
    """What is known from the last commit, in a store whose commits are numbered."""

    @abstractmethod
    def begin(self, write: bool) -> AbstractContextManager[KeyValueTransaction]:
        """Begin a transaction. A write transaction excludes every other one, in this process and in others.

        What is raised inside the block undoes the transaction and comes out of it; the store's own errors come out
        as `StoreError`s.
        """

    def begin_growing(self, new_work: bool) -> AbstractContextManager[KeyValueTransaction]:
        """Begin a write transaction that will make the store bigger, which one with a limit refuses with `StoreFull`
        while it is full. `new_work` (new runs and messages from outside) is refused before transitions are, so that
        the runs which are there already find room to end; claims and purges are never refused so."""
        return self.begin(True)

    def serial(self, txn: KeyValueTransaction) -> int:
        """The number of the commit that a write transaction would become: one more than that of the last, whoever made
        that. Asked only of a store that has set `heads`."""
        raise NotImplementedError
