"""Nodes of several branches: `All`, `Map` and `First`.

A node starts its branches in order, hears of each end (`branch_ended`), and ends itself only when every branch it
started has ended: cancelled ones get the time their clean-up takes. `busy` keeps a node from ending while it is still
starting or cancelling branches, since a branch may end the moment it is touched.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import Any

from dalsegno.core.commands import All, BranchOutcome, First, Map, Winner
from dalsegno.core.errors import Cancelled, ToleranceExceeded
from dalsegno.core.interpreter.asked import Waiting
from dalsegno.core.interpreter.fiber import Seat, discard, failure_of
from dalsegno.core.interpreter.machine import Machine, Site

STOPPED = "a branch beside this one ended it"


class Join(abc.ABC):
    """What the three have in common: seats, how many are open, and stopping them all."""

    shielded = False
    word = ""

    def __init__(self, site: Site, id: str) -> None:
        self.machine: Machine = site.machine
        self.site = site
        self.id = id
        self.seats: dict[int, Seat] = {}
        self.open = 0
        self.busy = False
        self.stopping = False
        self.cancelled: Cancelled | None = None
        self.failure: BaseException | None = None
        site.node = self

    def begin(self, index: int, branch: Any) -> None:
        """Start one branch."""
        seat = Seat(self, index, f"{self.id}.{index + 1}", self.site.region)
        self.seats[index] = seat
        self.open += 1
        seat.begin(branch)

    def begin_all(self, branches: Iterable[Any]) -> None:
        """Start branches in order, until one has ended the whole already."""
        self.busy = True
        for index, branch in enumerate(branches):
            if self.stopping:
                discard(branch)
            else:
                self.begin(index, branch)
        self.busy = False
        self.conclude()

    def branch_ended(self, seat: Seat) -> None:
        """A branch has ended."""
        self.open -= 1
        self.heard(seat)
        self.conclude()

    def stop(self, reason: str) -> None:
        """Cancel whatever is still open; nothing more is started."""
        self.stopping = True
        busy, self.busy = self.busy, True
        for seat in list(self.seats.values()):
            seat.cancel(reason)
        self.busy = busy

    def cancel(self, reason: str) -> None:
        """Cancel the whole."""
        if self.cancelled is None:
            self.cancelled = Cancelled(reason)
            self.stop(reason)
            self.conclude()

    def conclude(self) -> None:
        """End, if everything has."""
        if self.busy or self.open or not self.is_over():
            return
        self.busy = True
        if self.failure is not None:
            self.site.settle(False, self.failure)
        elif self.cancelled is not None:
            self.site.settle(False, self.cancelled)
        else:
            self.succeed()
        self.seats = {}  # errors of the losers lead, by their frames, back to here
        self.failure = self.cancelled = None

    @abc.abstractmethod
    def heard(self, seat: Seat) -> None:
        """What the end of a branch means."""

    def is_over(self) -> bool:
        """Whether the node may end, given that no branch is open."""
        return True

    @abc.abstractmethod
    def succeed(self) -> None:
        """Settle the site with the answer."""

    def place(self) -> tuple[str, int]:
        """The line at which the node was yielded."""
        return self.site.place()

    def parts(self) -> tuple[Any, ...]:
        """The fibers and nodes beneath that have not ended."""
        return tuple(seat.node for seat in self.seats.values() if seat.node is not None)

    def describe(self) -> str:
        """What it is, for people."""
        return self.word


class AllNode(Join):
    """`All`: every value, or the first failure once the others are cancelled and done."""

    word = "All"

    def __init__(self, site: Site, command: All[Any]) -> None:
        super().__init__(site, site.next_id())
        self.command = command
        self.begin_all(command.branches)

    def heard(self, seat: Seat) -> None:
        if not seat.ok and not self.stopping:
            self.failure = seat.value
            self.stop(STOPPED)

    def succeed(self) -> None:
        values = [self.seats[index].value for index in range(len(self.command.branches))]
        self.site.settle(True, values if self.command.as_list else tuple(values))


class FirstNode(Join):
    """`First`: the branch that ends first is proposed as winner; the recorded decision, not the proposal, counts."""

    word = "First"

    def __init__(self, site: Site, command: First[Any]) -> None:
        super().__init__(site, site.next_id())
        self.keys = tuple(command.branches)
        self.digest = self.machine.fingerprint(self.keys)
        self.command = command
        self.proposal: Waiting | None = None
        self.winner: Seat | None = None
        self.proposed = False
        self.begin_all(command.branches.values())

    def heard(self, seat: Seat) -> None:
        if not self.proposed and self.cancelled is None:
            self.proposed = self.stopping = True
            node = self.site.node
            proposal = self.machine.ask(self.site, self.command, self.id, "race", "", self.digest)
            self.site.node = node  # the site waits for this node; the proposal is the node's own affair
            proposal.propose_winner(seat.index)
            proposal.node = self
            self.proposal = proposal

    def has_ended(self, winner: int) -> bool:
        """Whether a branch can have won."""
        seat = self.seats.get(winner)
        return seat is not None and seat.ended

    def decide(self, winner: int) -> None:
        """The decision was recorded; the losers are cancelled."""
        self.proposal = None
        self.winner = self.seats[winner]
        self.stop(STOPPED)
        self.conclude()

    def cancel(self, reason: str) -> None:
        if self.proposal is not None:
            self.machine.drop(self.proposal)
            self.proposal = None
        super().cancel(reason)

    def is_over(self) -> bool:
        return self.winner is not None or self.cancelled is not None

    def succeed(self) -> None:
        winner = self.winner
        assert winner is not None
        if winner.ok:
            self.site.settle(True, Winner(self.keys[winner.index], winner.value))
        else:
            self.site.settle(False, winner.value)


class MapNode(Join):
    """`Map`: branches made by a function as places become free, and a policy that says when it is enough."""

    word = "Map"

    def __init__(self, site: Site, command: Map[Any]) -> None:
        super().__init__(site, site.next_id())
        self.command = command
        self.begun = self.succeeded = self.failed = 0
        self.filling = self.exceeded = False
        completion = command.completion
        if completion is not None and completion.satisfied(0):
            self.stopping = True
        self.fill()

    def fill(self) -> None:
        """Start branches while there are free places. Branches that end at once free theirs without recursion."""
        if self.filling:
            return
        self.filling = True
        items, places = self.command.items, self.command.concurrency or len(self.command.items)
        while not self.stopping and self.begun < len(items) and self.open < places:
            index, self.begun = self.begun, self.begun + 1
            self.begin(index, items[index])
        self.filling = False
        self.conclude()

    def begin(self, index: int, branch: Any) -> None:
        """Call the function with the item, and start what it makes. What it raises is the branch's failure."""
        try:
            made = self.command.fn(branch)
        except Exception as raised:
            error = failure_of(raised)
            seat = Seat(self, index, f"{self.id}.{index + 1}", self.site.region)
            self.seats[index] = seat
            self.open += 1
            seat.settle(False, error)
        else:
            super().begin(index, made)

    def branch_ended(self, seat: Seat) -> None:
        self.open -= 1
        self.heard(seat)
        self.fill()

    def heard(self, seat: Seat) -> None:
        completion = self.command.completion
        if seat.ok:
            self.succeeded += 1
            if completion is not None and completion.satisfied(self.succeeded) and not self.stopping:
                self.stop(STOPPED)
        elif not self._was_cancelled(seat):
            self.failed += 1
            if self.stopping:
                return
            if completion is None:
                self.failure = seat.value
                self.stop(STOPPED)
            elif not completion.bears(self.failed, len(self.command.items)):
                self.exceeded = True  # what to raise is known when all have ended
                self.stop(STOPPED)

    def is_over(self) -> bool:
        return not self.filling and (self.stopping or self.begun == len(self.command.items))

    def conclude(self) -> None:
        if self.exceeded and not self.busy and not self.open:
            outcomes = self._outcomes()
            message = f"{self.failed} of {len(outcomes)} branches of a Map failed, which is more than it tolerates"
            self.failure = ToleranceExceeded(message, failed=self.failed, outcomes=outcomes)
            self.failure.__cause__ = next((outcome.error for outcome in outcomes if outcome.status == "failed"), None)
        super().conclude()

    def succeed(self) -> None:
        if self.command.completion is not None:
            self.site.settle(True, self._outcomes())
        else:
            self.site.settle(True, [self.seats[index].value for index in range(self.begun)])

    def _outcomes(self) -> list[BranchOutcome[Any]]:
        return [self._outcome(index) for index in range(len(self.command.items))]

    def _outcome(self, index: int) -> BranchOutcome[Any]:
        seat = self.seats.get(index)
        if seat is None:
            return BranchOutcome(index, "not started")
        if seat.ok:
            return BranchOutcome(index, "succeeded", seat.value)
        if self._was_cancelled(seat):
            return BranchOutcome(index, "cancelled")
        return BranchOutcome(index, "failed", None, seat.value)

    @staticmethod
    def _was_cancelled(seat: Seat) -> bool:
        return seat.stopped and isinstance(seat.value, Cancelled)
