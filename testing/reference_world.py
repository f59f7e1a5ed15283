"""The oracle's world: runs, fibers, time, and the simple things one can wait for."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

import attrs

CANCELLED = "Cancelled"

HABITS = ("first", "last", "any")
"""What is mostly taken of all that may come next: what came first, what came last, or anything."""


class Trouble(Exception):
    """An error, by the text a program's result shows of it."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@attrs.frozen
class Ending:
    """How a run ended."""

    status: str
    value: Any = None
    error: str = ""


class World:
    """Time, and everything that may happen at this moment in any order."""

    def __init__(self, order: int) -> None:
        self.now = 0.0
        self.runs: list[Run] = []
        self._chance = random.Random(order)
        self._habit = HABITS[order % len(HABITS)]
        self._next: list[tuple[Run, Callable[[], None]]] = []
        self._alarms: list[tuple[float, int, Run, Callable[[], None]]] = []
        self._count = itertools.count()

    def start(self, code: Callable[[Run], Any], **said: Any) -> Run:
        """Start a run, now."""
        run = Run(self, code, **said)
        self.runs.append(run)
        self.soon(run, run.begin)
        return run

    def soon(self, run: Run, what: Callable[[], None]) -> None:
        """Let something happen at this moment, in no certain order with other such things."""
        self._next.append((run, what))

    def later(self, run: Run, seconds: float, what: Callable[[], None]) -> None:
        """Let something happen in so many seconds."""
        heapq.heappush(self._alarms, (self.now + seconds, next(self._count), run, what))

    def live(self, enough: Callable[[], bool] = lambda: False, until: float | None = None) -> None:
        """Let everything happen that happens by itself."""
        while not enough():
            self._ring()
            if self._next:
                run, what = self._next.pop(self._drawn())
                if run.ending is None:
                    what()
                    run.settle()
                continue
            if not self._alarms or (until is not None and self._alarms[0][0] > until):
                break
            self.now = self._alarms[0][0]
        if until is not None and not enough():
            self.now = until

    def _ring(self) -> None:
        """Let every alarm that is due be one of the things that may come next."""
        while self._alarms and self._alarms[0][0] <= self.now:
            _, _, run, what = heapq.heappop(self._alarms)
            self.soon(run, what)

    def _drawn(self) -> int:
        if self._habit == "any" or self._chance.random() < 0.2:
            return self._chance.randrange(len(self._next))
        return 0 if self._habit == "first" else -1


class Run:
    """A run: its code, its mail, what it published, and how it ended."""

    def __init__(
        self,
        world: World,
        code: Callable[[Run], Any],
        generation: int = 1,
        told: Callable[[Ending], None] = lambda ending: None,
        signals: dict[str, deque[Any]] | None = None,
    ) -> None:
        self.world, self.code, self.generation, self.told = world, code, generation, told
        self.begun = world.now
        self.signals: dict[str, deque[Any]] = signals or {}
        self.receivers: dict[str, list[Any]] = {}
        self.state: dict[str, Any] = {}
        self.mail: deque[tuple[Any, ...]] = deque()
        self.ready: deque[Fiber] = deque()
        self.prompt: deque[Callable[[], None]] = deque()
        self.children: list[Any] = []
        self.cancel_asked = False
        self.ending: Ending | None = None
        self.next: Run | None = None
        self.result: tuple[bool, Any] | None = None
        self.root = Root(self)

    def begin(self) -> None:
        """Call the code."""
        self.root.fiber = Fiber(self, self.code(self), self.root, self.root, first=True)
        self.ready.append(self.root.fiber)

    def settle(self) -> None:
        """Let the code go on until all of it waits, and end if it has ended."""
        while self.ending is None and self.result is None and (self.ready or self.prompt):
            if self.ready:
                self.ready.popleft().advance()
            else:
                self.prompt.popleft()()
        if self.result is not None and self.ending is None:
            self._end(*self.result)

    def _end(self, ok: bool, value: Any) -> None:
        for message in self.mail:  # nothing closes over mail it has not seen
            if message[0] == "signal":
                self.signals.setdefault(message[1], deque()).append(message[2])
        if isinstance(value, Stop):
            self.ending = Ending("continued")
            self.leave_children()
            self.next = self.world.start(
                self.code, generation=self.generation + 1, told=self.told, signals=self.signals
            )
        elif ok:
            self.close(Ending("completed", value))
        else:
            cancelled = self.cancel_asked and value.text == CANCELLED
            self.close(Ending("cancelled" if cancelled else "failed", None, value.text))

    def close(self, ending: Ending) -> None:
        """End in this way, and tell whoever waits."""
        self.ending = ending
        self.leave_children()
        self.told(ending)

    def leave_children(self) -> None:
        """Tell open children that nobody waits any more."""
        for child in self.children:
            if not child.over and child.run is not None and child.policy != "abandon":
                child.run.post(("terminate" if child.policy == "terminate" else "cancel",))

    def post(self, message: tuple[Any, ...]) -> None:
        """Put something into the mail."""
        run = self
        while run.next is not None:
            run = run.next
        if run.ending is None:
            run.mail.append(message)
            self.world.soon(run, run.read)

    def read(self) -> None:
        """Take the first message, and do what it says."""
        if not self.mail:
            return
        what, *rest = self.mail.popleft()
        if what == "signal":
            name, value = rest
            if self.receivers.get(name):
                self.receivers[name][0].finish(True, value)
            else:
                self.signals.setdefault(name, deque()).append(value)
        elif what == "child":
            rest[0](*rest[1:])
        elif what == "terminate":
            self.close(Ending("terminated", None, "Terminated"))
        elif not self.cancel_asked:
            self.cancel_asked = True
            self.root.cancel()


class Fiber:
    """A flow of code that waits for one thing at a time. It is cancelled at most once."""

    shielded = False

    def __init__(self, run: Run, flow: Generator[Any, Any, Any], owner: Any, region: Region, first: bool = False):
        self.run, self.flow, self.owner, self.region = run, flow, owner, region
        self.node: Any = None
        self.answer: tuple[bool, Any] = (True, None)
        self.root = first
        self.began = self.running = self.answered = self.done = False
        self.cancelled = self.interrupted = self.pending = False

    def settle(self, ok: bool, value: Any) -> None:
        """What the fiber waited for has ended."""
        self.node = None
        if self.interrupted:
            self.interrupted = False
            ok, value = False, Trouble(CANCELLED)
        self.answer = (ok, value)
        if self.running:
            self.answered = True
        else:
            self.run.ready.append(self)

    def advance(self) -> None:
        """Go on until something has to be waited for."""
        self.began = self.running = True
        while not self.done and self.run.result is None:
            ok, value = self.answer
            try:
                wait = self.flow.send(value) if ok else self.flow.throw(value)
            except StopIteration as stop:
                return self._finish(True, stop.value)
            except Trouble as trouble:
                return self._finish(False, trouble)
            self.answered = False
            self._begin(wait)
            if not self.answered:
                break
        self.running = False

    def _begin(self, wait: Any) -> None:
        pending, self.pending = self.pending, False
        if pending:
            self.settle(False, Trouble(CANCELLED))
            return
        self.node = wait
        wait.begin(self)
        if self.pending and not self.answered and not self.node.shielded:
            self.pending = False  # it cancelled itself
            self._interrupt()

    def _finish(self, ok: bool, value: Any) -> None:
        self.done, self.running = True, False
        self.owner.settle(ok, value)

    def cancel(self) -> None:
        """Have the fiber cancelled where it waits, or at its next wait."""
        if self.cancelled or self.done:
            return
        self.cancelled = True
        if not self.began and not self.root:
            self.flow.close()
            self._finish(False, Trouble(CANCELLED))
        elif self.node is None or self.node.shielded:
            self.pending = True
        else:
            self._interrupt()

    def _interrupt(self) -> None:
        self.interrupted = True
        self.node.cancel()


class Region:
    """What owns spawned tasks: it is over when its branch and all of them are."""

    def __init__(self) -> None:
        self.tasks: list[Any] = []
        self.outcome: tuple[bool, Any] | None = None
        self.ended = False

    def branch_over(self, ok: bool, value: Any, stop: bool) -> None:
        """The branch has ended; tasks are waited for, and cancelled first if `stop`."""
        self.outcome = (ok, value)
        if stop:
            self.stop_tasks()
        self.conclude()

    def stop_tasks(self) -> None:
        """Cancel all tasks."""
        for task in list(self.tasks):
            task.seat.cancel()

    def conclude(self) -> None:
        """End if everything has."""
        if self.outcome is not None and not self.tasks and not self.ended:
            self.ended = True
            self.end(*self.outcome)

    def end(self, ok: bool, value: Any) -> None:
        """Everything has ended."""
        raise NotImplementedError


class Root(Region):
    """A run as a whole."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run
        self.fiber: Fiber | None = None

    def settle(self, ok: bool, value: Any) -> None:
        self.branch_over(ok, value, not ok or self.run.cancel_asked)

    def cancel(self) -> None:
        """The run is asked to end."""
        if self.outcome is not None:
            self.stop_tasks()
        elif self.fiber is not None:
            self.fiber.cancel()

    def end(self, ok: bool, value: Any) -> None:
        self.run.result = (ok, value)


class Wait:
    """Something to wait for. `site` is who waits: it has `run`, `region`, `node` and `settle`."""

    shielded = False

    def __init__(self) -> None:
        self.over = False
        self.site: Any = None

    @property
    def run_(self) -> Run:
        run: Run = self.site.run
        return run

    def begin(self, site: Any) -> None:
        """Begin to wait."""
        self.site = site
        self.start()

    def start(self) -> None:
        """Set in motion what ends it."""
        raise NotImplementedError

    def finish(self, ok: bool, value: Any) -> None:
        """It has ended, unless it was cancelled before."""
        if not self.over:
            self.over = True
            self.site.settle(ok, value)

    def cancel(self) -> None:
        """Nobody waits any more."""
        self.finish(False, Trouble(CANCELLED))


class Stop(Wait):
    """Continue as new: the run stops where it stands."""

    def start(self) -> None:
        self.run_.result = (True, self)
