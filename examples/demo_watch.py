"""Watching the audit from outside: its worker process, its ledger, its histories, and the kill.

Everything here reads: the ledger as a file, the store through a `Client` beside the working engine. The two things it
does to the world are the signal `SIGKILL` to the worker and the signal `approval` to the run.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.progress import Progress
from rich.prompt import Confirm

from dalsegno import Client, Run, RunNotFound
from dalsegno.examples.audit import Approval, Audited
from dalsegno.examples.demo_proof import Kill, keys_recorded
from dalsegno.examples.demo_show import Moment
from dalsegno.examples.ledger import Entry, Reader

WORKER = "dalsegno.examples.demo_worker"
LOOK_EVERY = 0.005
PATIENCE = 300.0


class DemoFailed(Exception):
    """The demo could not be carried out; the message says what happened, and where the worker's own words are."""


@dataclass(frozen=True)
class Stage:
    """Where everything of one demo lives."""

    store: Path
    id: str
    url: str

    @property
    def folder(self) -> Path:
        return self.store.with_name(f"{self.store.name}-{self.id}")

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.jsonl"

    @property
    def log(self) -> Path:
        return self.folder / "worker.log"


class Worker:
    """The worker process, alive from entering to leaving."""

    def __init__(self, stage: Stage, root: Path) -> None:
        self._stage = stage
        arguments = {"store": stage.url, "id": stage.id, "root": root, "out": stage.folder, "ledger": stage.ledger}
        self._command = [sys.executable, "-m", WORKER]
        self._command += [f"--{name}={value}" for name, value in arguments.items()]

    def __enter__(self) -> Self:
        self.launched_at = time.time()
        with self._stage.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=log, stderr=log)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """End it: gently where all went well, by closing its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=0 if error else 20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL: no exception, no clean-up, no last words."""
        self._process.kill()
        self._process.wait()

    def check(self) -> None:
        """Raise `DemoFailed` if it ended by itself."""
        if (status := self._process.poll()) is not None:
            words = self._stage.log.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["nothing was said"]
            raise DemoFailed(f"the worker ended by itself with status {status}: {words[0]} (see {self._stage.log})")


@dataclass
class Demo:
    """One demo under way: what is seen of the worker from outside, and what is noted of it."""

    root: Path
    stage: Stage
    client: Client
    files: int
    bar: Progress
    began_at: float = field(default_factory=time.time)
    moments: list[Moment] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ledger = Reader(self.stage.ledger)
        self._seen: set[str] = set()
        self._task = self.bar.add_task("listing", total=self.files)

    def note(self, text: str) -> None:
        """Add to the progress history, and show it."""
        moment = Moment(self.elapsed, text)
        self.moments.append(moment)
        self.bar.console.print(f"[dim]{moment.at:6.2f} s[/]  {text}")

    def look(self, worker: Worker) -> list[Entry]:
        """Wait a moment, take in what is new in the ledger, and see to it that the worker is alive."""
        time.sleep(LOOK_EVERY)
        if self.elapsed > PATIENCE:
            raise DemoFailed(f"gave up after {PATIENCE:.0f} s (see {self.stage.log})")
        new = self._take_in()
        if not new:
            worker.check()
        return new

    def _take_in(self) -> list[Entry]:
        new = self.ledger.read()
        self._seen.update(entry.key for entry in new if entry.about.endswith(".py"))
        self.bar.update(self._task, completed=len(self._seen), description="measuring")
        return new

    @property
    def elapsed(self) -> float:
        return time.time() - self.began_at

    @property
    def measured(self) -> int:
        """How many different files had a body running for them."""
        return len(self._seen)

    def run(self) -> Run[Audited] | None:
        """The audit's run, once it is there."""
        try:
            run: Run[Audited] = self.client.get(self.stage.id)
        except RunNotFound:
            return None
        return run

    def histories(self) -> Iterator[tuple[Run[Any], list[Any]]]:
        """The audit and its children, each with its history."""
        if run := self.run():
            history: list[Any] = [*run.history()]
            yield run, history
            for event in history:
                if type(event).__name__ == "ChildStarted":
                    child: Run[Any] = self.client.get(event.workflow_id)
                    yield child, [*child.history()]

    def recorded(self) -> list[str]:
        """The keys of all steps whose outcome stands in a history."""
        return [key for run, history in self.histories() for key in keys_recorded(run.run_id, history)]

    def kill(self, worker: Worker, files: int) -> None:
        """Kill the worker once so many files have been begun, and take down how things stand."""
        while self.measured < files:
            self.look(worker)
        worker.kill()
        at = self.elapsed
        self._take_in()  # what was written between the last look and the kill
        kill = Kill(at, len(self.ledger.entries), frozenset(self.recorded()))
        self.kills.append(kill)
        flying = len(kill.in_flight(self.ledger.entries))
        self.note(f"[bold red]killed[/] at {self.measured:,} of {self.files:,} files, {flying} steps in flight")

    def wait_for_life(self, worker: Worker) -> None:
        """Wait until the restarted worker has begun a step, or waits for the approval."""
        while True:
            for entry in self.look(worker):
                if entry.pid == worker.pid:
                    took = entry.at - worker.launched_at
                    return self.note(
                        f"[bold green]recovered[/]: the next step began {1000 * took:.0f} ms after the start"
                    )
            if self.asks():
                return None

    def asks(self) -> bool:
        """Whether the audit waits for the approval. Raises `DemoFailed` where it has ended already."""
        run = self.run()
        if run is None:
            return False
        if run.status.name not in ("RUNNING", "PAUSED"):
            raise DemoFailed(f"the audit is {run.status.value}: {run.error}")
        return bool(run.state.get("stage") == "waiting for approval")

    def finish(self, worker: Worker, interactive: bool) -> Audited:
        """Answer the audit's question when it comes, and wait for the end."""
        while not self.asks():
            self.look(worker)
        run = self.run()
        assert run is not None
        self.note(f"measured, {run.state['findings']} findings; the audit waits for an approval")
        self.bar.stop()
        granted = not interactive or Confirm.ask("Publish the report?", console=self.bar.console, default=True)
        run.signal("approval", Approval(granted, by="a person" if interactive else "the demo"), dedup="answer")
        audited = run.result(timeout=60)
        self.note(f"{'published' if audited.published else 'not published'}: {audited.why}")
        self._take_in()
        return audited
