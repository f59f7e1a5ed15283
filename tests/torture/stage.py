"""The stage of a torture: one store, its workers and senders as processes, and the means to hurt and to heal them."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dalsegno import Client, Status, StoreError
from dalsegno.core.events import Event
from dalsegno.testing.histories import all_records, read_history
from tests.torture import cast

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
POLL_S = 0.02
JUST_US = 20_000
OPEN = [Status.RUNNING, Status.PAUSED, Status.BLOCKED]


class Process:
    """A process with all its children, which no test leaves behind."""

    def __init__(self, stage: Stage, command: Sequence[str]) -> None:
        self._log = stage.log
        environment = {**os.environ, cast.LEDGER: str(stage.ledger), "PYTHONPATH": str(ROOT)}
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.kill()

    def wait_until_ready(self) -> bool:
        """Wait until it says so; false if it died before."""
        assert self._popen.stdout is not None
        readable, _, _ = select.select([self._popen.stdout], [], [], PATIENCE_S)
        assert readable, f"not ready after {PATIENCE_S} s; {self.last_words()}"
        return self._popen.stdout.readline() == b"ready\n"

    def is_ready(self) -> bool:
        """Whether it has said so, or has died before."""
        assert self._popen.stdout is not None
        return bool(select.select([self._popen.stdout], [], [], 0)[0])

    def go(self) -> None:
        """Have it begin."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(b"go\n")
        self._popen.stdin.flush()

    def lives_for(self, seconds: float) -> bool:
        """Let time pass; false if it ended meanwhile."""
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    @property
    def id(self) -> str:
        """Its process id."""
        return str(self._popen.pid)

    @property
    def status(self) -> int | None:
        """Its exit status, None while it lives."""
        return self._popen.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and its children."""
        try:
            os.killpg(self._popen.pid, number)
        except ProcessLookupError:
            pass  # it has ended by itself

    def kill(self) -> None:
        """SIGKILL, and wait for the end. What is left of it is nobody's."""
        self.signal(signal.SIGKILL)
        self._popen.wait()
        for stream in (self._popen.stdin, self._popen.stdout):
            if stream is not None:
                stream.close()

    def kill_alone(self) -> None:
        """SIGKILL to the process itself, and not to children it has left."""
        self._popen.kill()
        self._popen.wait()

    def end(self) -> int:
        """Let it stop in good order; answers its status."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        return self._popen.wait(PATIENCE_S)

    def limit_files(self, size: int) -> None:
        """Let none of its files grow beyond so many bytes."""
        resource.prlimit(self._popen.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def last_words(self) -> str:
        """The end of the log."""
        return "log: " + "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-30:])


class Stage:
    """One store and all around it."""

    def __init__(self, folder: Path, *, store: Path | None = None, options: str = "") -> None:
        self.folder = folder
        self.store = store or folder / "store"
        self.url = f"lmdb:{self.store}{options}"
        self.ledger = folder / "ledger.jsonl"
        self.notes = folder / "sent.txt"
        self.log = folder / "log.txt"
        self.log.touch()
        self.targets: list[str] = []
        self.expected: dict[str, Any] = {}
        self.resumed = 0
        self.thawed: list[tuple[str, int]] = []
        self.seen: dict[str, list[Event]] = {}
        self._to_start: list[tuple[Any, str, tuple[Any, ...]]] = []

    # --- processes -------------------------------------------------------------------------------------------------

    def worker(self, *, under: Sequence[str] = (), how: str = "") -> Process:
        """A worker on the store, `under` a program that runs it. A "rival" waits while another has the store; one
        "beside" others shares it."""
        command = [*under, sys.executable, "-m", "tests.torture.worker", self.url]
        return Process(self, [*command, how] if how else command)

    def sender(self, seed: int, count: int) -> Process:
        """A process that sends `count` signals to every target, from where the last one stopped."""
        command = [sys.executable, "-m", "tests.torture.sender", self.url, str(self.notes), str(seed), str(count)]
        return Process(self, [*command, *self.targets])

    def has_said(self, words: str) -> bool:
        """Whether a process has logged this."""
        return words in self.log.read_text("utf-8", "replace")

    def thaw(self, process: Process) -> None:
        """Let a stopped process go on."""
        self.thawed.append((process.id, time.time_ns() // 1000))
        process.signal(signal.SIGCONT)

    def has_just_thawed(self, process: str, at_us: int) -> bool:
        """Whether a process may not have known at that moment that it had been frozen."""
        return any(process == one and 0 <= at_us - since_us < JUST_US for one, since_us in self.thawed)

    # --- work ------------------------------------------------------------------------------------------------------

    def plan(self, number: int, signals: int, *, length: int = 5) -> None:
        """Note one run of each kind, and what has to come of it. `signals` are what senders will send."""
        steps, width, count = 6 * length, 2 + length // 2, 2 * length
        numbers = list(range(signals))
        planned: list[tuple[Any, str, tuple[Any, ...], Any]] = [
            (cast.chain, "chain", (steps,), [f"{at}" for at in range(steps)]),
            (cast.family, "family", (width,), [*range(width), *range(width), 1]),
            (cast.naps, "naps", (count,), count),
            (cast.impatient, "impatient", (steps,), "gone"),
            (cast.inbox, "inbox", (), numbers),
            (cast.rounds, "rounds", ([],), numbers),
            (cast.inbox, "letters", (), list(range(count))),
            (cast.postman, "postman", (f"letters-{number}", count), "sent"),
        ]
        for workflow, kind, args, expected in planned:
            self.add(workflow, f"{kind}-{number}", args, expected)
        self.targets += [f"{kind}-{number}" for kind in ("impatient", "inbox", "rounds")]

    def add(self, workflow: Any, id: str, args: tuple[Any, ...], expected: Any) -> None:
        """Note one run that is to be started."""
        self.expected[id] = expected
        self._to_start.append((workflow, id, args))

    def begin(self, client: Client) -> None:
        """Start what is planned, again and again while the store does not take it."""
        planned, self._to_start = self._to_start, []
        for workflow, id, args in planned:
            start = partial(client.start, workflow, *args, id=id)
            until(partial(_done, start), f"{id} cannot be started")

    def observe(self, client: Client) -> None:
        """Read every history as it is just now, to be compared at the end."""
        for record in all_records(client.backend):
            self.seen[record.run_id] = read_history(client.backend, record)

    def wait_for_ends(self, worker: Process, client: Client) -> None:
        """Wait until every run has ended. One that was set aside because the process died so often is resumed."""

        def ended() -> bool:
            assert worker.lives_for(POLL_S), f"the worker ended by itself; {worker.last_words()}"
            for run in client.runs(status=Status.BLOCKED):
                if run.record.reason.startswith("quarantined"):
                    self.resumed += 1
                    run.resume()
                    until(lambda: run.status is not Status.BLOCKED, f"{run.id} was resumed in vain")  # noqa: B023
            return not client.runs(status=OPEN, limit=1)

        until(
            ended,
            lambda: f"these did not end: {[(r, r.record) for r in client.runs(status=OPEN)]}; {worker.last_words()}",
        )

    def heal(self, client: Client, *, signals: int = 0) -> None:
        """Let an undisturbed worker and sender bring everything to its end."""
        with self.worker() as worker:
            assert worker.wait_until_ready(), worker.last_words()
            if signals:
                with self.sender(0, signals) as sender:
                    sender.go()
                    assert not sender.lives_for(PATIENCE_S), "the sender did not end"
                    assert sender.status == 0, sender.last_words()
            self.wait_for_ends(worker, client)
            assert worker.end() == 0, worker.last_words()


def _done(act: Callable[[], object]) -> bool:
    try:
        act()
    except StoreError:
        return False
    return True


def until(holds: Callable[[], bool], otherwise: str | Callable[[], str]) -> None:
    """Wait until something holds; fail with what is said otherwise."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, otherwise if isinstance(otherwise, str) else otherwise()
        select.select([], [], [], POLL_S)
