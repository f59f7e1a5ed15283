"""The oracle's simple things to wait for: steps, sleeps, signals, children."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dalsegno.testing.reference_world import Ending, Run, Trouble, Wait


class Attempt(Wait):
    """A step: attempts until one succeeds, three at most."""

    def __init__(self, value: Any, fails: int, broken: str = "") -> None:
        super().__init__()
        self.value, self.fails, self.broken = value, fails, broken
        self.tried = 0

    def start(self) -> None:
        self.run_.world.soon(self.run_, self.attempt)

    def attempt(self) -> None:
        """A body has run."""
        self.tried += 1
        if self.over:
            return
        if self.broken:
            self.finish(False, Trouble(self.broken))
        elif self.tried > self.fails:
            self.finish(True, self.value)
        elif self.tried == 3:
            self.finish(False, Trouble("ConnectionError"))
        else:
            self.run_.world.later(self.run_, 2.0 ** (self.tried - 1), self.start)


class Pause(Wait):
    """A sleep."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def start(self) -> None:
        self.run_.world.later(self.run_, self.seconds, lambda: self.finish(True, None))


class Receiving(Wait):
    """The next signal of a name, or none in time."""

    def __init__(self, signal: str, timeout: float | None) -> None:
        super().__init__()
        self.signal, self.timeout = signal, timeout

    def start(self) -> None:
        run = self.run_
        if run.signals.get(self.signal):
            self.finish(True, run.signals[self.signal].popleft())
            return
        run.receivers.setdefault(self.signal, []).append(self)
        if self.timeout is not None:
            run.world.later(run, self.timeout, lambda: self.finish(False, Trouble("TimedOut")))

    def finish(self, ok: bool, value: Any) -> None:
        receivers = self.run_.receivers.get(self.signal, [])
        if self in receivers:
            receivers.remove(self)
        super().finish(ok, value)


class Sending(Wait):
    """A signal to this run itself, or to nobody."""

    def __init__(self, signal: str, value: Any, in_vain: bool) -> None:
        super().__init__()
        self.signal, self.value, self.in_vain = signal, value, in_vain

    def start(self) -> None:
        self.run_.prompt.append(self.send)

    def send(self) -> None:
        """Send it, if that is still wanted."""
        if self.over:
            return
        if self.in_vain:
            self.finish(False, Trouble("SendFailed"))
        else:
            self.run_.post(("signal", self.signal, self.value))
            self.finish(True, None)


class Marking(Wait):
    """A checkpoint: over when what came before is durable."""

    def start(self) -> None:
        self.run_.world.soon(self.run_, lambda: self.finish(True, None))


class Apart(Wait):
    """A child run."""

    def __init__(self, code: Callable[[Run], Any], policy: str) -> None:
        super().__init__()
        self.code, self.policy = code, policy
        self.run: Run | None = None
        self.told_to_end = False

    def start(self) -> None:
        self.run_.prompt.append(self.create)

    def create(self) -> None:
        """Start it, if that is still wanted."""
        if not self.over:
            self.run = self.run_.world.start(self.code, told=self.ended)
            self.run_.children.append(self)

    def ended(self, ending: Ending) -> None:
        """The child has ended: the parent gets mail."""
        ok = ending.status == "completed"
        value = ending.value if ok else Trouble(ending.error)
        parent: Run = self.site.run
        if parent.ending is None:
            parent.post(("child", self.finish, ok, value))

    def cancel(self) -> None:
        if self.run is None or self.policy == "abandon":
            super().cancel()
        elif not self.told_to_end:
            self.told_to_end = True
            self.run.post(("cancel",))
