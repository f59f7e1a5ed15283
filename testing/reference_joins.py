"""The oracle's branches: several things at once, races, tasks and scopes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

from dalsegno.testing.reference_world import CANCELLED, Fiber, Region, Run, Trouble, Wait


class Seat:
    """The place of one branch."""

    def __init__(self, owner: Any, index: int, run: Run, region: Region) -> None:
        self.owner, self.index, self.run, self.region = owner, index, run, region
        self.node: Any = None
        self.ended = self.stopped = self.ok = False
        self.value: Any = None

    def begin(self, branch: Any) -> None:
        """Begin: a flow waits for its turn, a single thing begins at once."""
        if isinstance(branch, Generator):
            self.node = Fiber(self.run, branch, self, self.region)
            self.run.ready.append(self.node)
        else:
            self.node = branch
            branch.begin(self)

    def cancel(self) -> None:
        """Cancel it, if it has not ended."""
        if not self.ended:
            self.stopped = True
            self.node.cancel()

    def settle(self, ok: bool, value: Any) -> None:
        self.node = None
        self.ended, self.ok, self.value = True, ok, value
        self.owner.branch_ended(self)

    @property
    def was_cancelled(self) -> bool:
        return self.stopped and not self.ok and self.value.text == CANCELLED


class Unreached(Wait):
    """Something that is answered at once."""

    def start(self) -> None:
        self.finish(True, None)


class Several(Wait):
    """All branches; the first failure stops the others. `shielded`: no cancellation from outside comes in."""

    def __init__(
        self,
        items: Sequence[Any],
        make: Callable[[Any], Any] = lambda item: item,
        places: int | None = None,
        shielded: bool = False,
    ) -> None:
        super().__init__()
        self.items, self.make, self.places = list(items), make, places or len(items)
        self.shielded = shielded
        self.seats: list[Seat] = []
        self.failure: Trouble | None = None
        self.stopping = self.busy = False

    def start(self) -> None:
        self.fill()

    @property
    def open(self) -> int:
        return sum(not seat.ended for seat in self.seats)

    def fill(self) -> None:
        """Begin branches as long as there are free places."""
        if self.busy:
            return
        self.busy = True
        while not self.stopping and len(self.seats) < len(self.items) and self.open < self.places:
            seat = Seat(self, len(self.seats), self.site.run, self.site.region)
            self.seats.append(seat)
            seat.begin(self.make(self.items[seat.index]))
        self.busy = False
        self.conclude()

    def stop(self) -> None:
        """Cancel what is open, and begin nothing more."""
        self.stopping = True
        busy, self.busy = self.busy, True
        for seat in list(self.seats):
            seat.cancel()
        self.busy = busy

    def branch_ended(self, seat: Seat) -> None:
        """Hear of a branch's end."""
        self.hear(seat)
        self.fill()

    def hear(self, seat: Seat) -> None:
        """What the end of a branch means."""
        if not seat.ok and not self.stopping:
            self.failure = seat.value
            self.stop()

    def conclude(self) -> None:
        """End if everything has."""
        if self.busy or self.open or self.over or not (self.stopping or len(self.seats) == len(self.items)):
            return
        if self.failure is not None:
            self.finish(False, self.failure)
        else:
            self.answer()

    def answer(self) -> None:
        """Everything went well, or was cancelled from outside."""
        if self.cancelled:
            self.finish(False, Trouble(CANCELLED))
        else:
            values = [seat.value for seat in self.seats]
            self.finish(True, values[0] if self.shielded else values)

    cancelled = False

    def cancel(self) -> None:
        if not self.cancelled and not self.shielded:
            self.cancelled = True
            self.stop()
            self.conclude()


class Some(Several):
    """Branches of which some may fail, or only some are needed."""

    def __init__(
        self,
        items: Sequence[Any],
        make: Callable[[Any], Any],
        places: int | None,
        tolerated: int | None,
        enough: int | None,
    ) -> None:
        super().__init__(items, make, places)
        self.tolerated, self.enough = tolerated, enough
        self.good = self.bad = 0

    def start(self) -> None:
        self.stopping = self.enough == 0
        super().start()

    def hear(self, seat: Seat) -> None:
        if seat.ok:
            self.good += 1
            if self.enough is not None and self.good >= self.enough and not self.stopping:
                self.stop()
        elif not seat.was_cancelled:
            self.bad += 1
            if not self.stopping and self.tolerated is not None and self.bad > self.tolerated:
                self.failure = Trouble("ToleranceExceeded")
                self.stop()

    def answer(self) -> None:
        if self.cancelled:
            self.finish(False, Trouble(CANCELLED))
            return
        self.finish(True, [self.told(index) for index in range(len(self.items))])

    def told(self, index: int) -> list[Any]:
        """One branch's outcome."""
        if index >= len(self.seats):
            return ["not started", None]
        seat = self.seats[index]
        if seat.ok:
            return ["succeeded", seat.value]
        return ["cancelled", None] if seat.was_cancelled else ["failed", seat.value.text]


class RaceOf(Several):
    """The first branch that ends, one way or the other."""

    winner: Seat | None = None
    proposed = False

    def hear(self, seat: Seat) -> None:
        if not self.proposed and not self.cancelled:
            self.proposed = self.stopping = True
            self.site.run.prompt.append(lambda: self.decide(seat))

    def decide(self, seat: Seat) -> None:
        """The decision stands, unless the whole was cancelled before."""
        if not self.cancelled:
            self.winner = seat
            self.stop()
            self.conclude()

    def conclude(self) -> None:
        if self.winner is not None or self.cancelled:
            super().conclude()

    def answer(self) -> None:
        if self.cancelled:
            self.finish(False, Trouble(CANCELLED))
        elif self.winner is not None:
            ok, value = self.winner.ok, self.winner.value
            self.finish(ok, (self.winner.index, value) if ok else value)


class Task:
    """A spawned branch."""

    def __init__(self, run: Run, region: Region) -> None:
        self.region = region
        self.seat = Seat(self, 0, run, region)
        self.watchers: list[Watch] = []
        region.tasks.append(self)

    def branch_ended(self, seat: Seat) -> None:
        """Tell everybody who waits."""
        watchers, self.watchers = self.watchers, []
        for watcher in sorted(watchers, key=lambda each: each.for_end):
            watcher.finish(*watcher.answer())
        self.region.tasks.remove(self)
        self.region.conclude()

    def awaited(self) -> Wait:
        """Wait for its value."""
        return Watch(self, False)

    def cancelled(self) -> Wait:
        """Cancel it and wait for its end."""
        return Watch(self, True)


class Watch(Wait):
    """Waiting for a task's value, or for the end of one that is cancelled."""

    def __init__(self, task: Task, for_end: bool) -> None:
        super().__init__()
        self.task, self.for_end = task, for_end

    def answer(self) -> tuple[bool, Any]:
        """What there is to say once the task has ended."""
        return (True, None) if self.for_end else (self.task.seat.ok, self.task.seat.value)

    def start(self) -> None:
        if self.task.seat.ended:
            self.finish(*self.answer())
            return
        self.task.watchers.append(self)
        if self.for_end:
            self.task.seat.cancel()

    def cancel(self) -> None:
        if self in self.task.watchers:
            self.task.watchers.remove(self)
        super().cancel()


class Fork(Wait):
    """Spawn a branch; answers with its task."""

    def __init__(self, branch: Any) -> None:
        super().__init__()
        self.branch = branch

    def start(self) -> None:
        task = Task(self.site.run, self.site.region)
        task.seat.begin(self.branch)
        self.finish(True, task)


class Under(Wait, Region):
    """A scope: its branch and the tasks spawned inside."""

    def __init__(self, branch: Any) -> None:
        Wait.__init__(self)
        Region.__init__(self)
        self.branch = branch
        self.cancelled = self.proposed = False
        self.seat: Seat | None = None

    def start(self) -> None:
        self.seat = Seat(self, 0, self.site.run, self)
        self.seat.begin(self.branch)

    def branch_ended(self, seat: Seat) -> None:
        """The branch has ended; its tasks come next."""
        self.branch_over(seat.ok, seat.value, not seat.ok or self.cancelled)

    def end(self, ok: bool, value: Any) -> None:
        if self.cancelled:
            self.finish(False, Trouble(CANCELLED))
        else:
            self.proposed = True
            self.site.run.prompt.append(lambda: self.finish(ok, value))

    def cancel(self) -> None:
        if self.cancelled:
            return
        self.cancelled = True
        if self.proposed:
            self.finish(False, Trouble(CANCELLED))
        elif self.outcome is not None:
            self.stop_tasks()
        elif self.seat is not None:
            self.seat.cancel()
