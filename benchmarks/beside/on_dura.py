"""The same work on dura. The place is the path of its SQLite file (it sets WAL; synchronous stays FULL).

Tasks are claimed and run one after another in one thread, as its own worker does: a second worker thread on the one
SQLite file makes it no faster.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from dura import DurableEngine
from dura.workers import process_task
from same_work import Peer, clock, main

LEASE_S = 1
"""Of the process that dies: how long the next one has to wait, which is not counted. By default 120."""

logging.disable(logging.WARNING)


class Dura(Peer):
    """Steps are checkpoints inside a task."""

    def open(self) -> None:
        self.engine = DurableEngine(self.at)
        assert self.engine._conn().execute("pragma synchronous").fetchone()[0] == 2  # FULL

    def many(self, engine: Any, task: Any) -> int:
        n: int = task.params["n"]
        for i in range(n):
            engine.checkpoint(
                task_id=task.task_id,
                step_name=f"step-{i}",
                fn=lambda i=i: self.bodies.run(i),
                owner_run_id=task.run_id,
            )
        return n

    def drain(self) -> bool:
        """Work until nothing is left to claim; whether there was anything."""
        worked = False
        lease = LEASE_S if self.bodies.dies_at is not None else 120
        while True:
            asked = clock()
            task = self.engine.claim_task(worker_id="worker", timeout_secs=lease)
            if task is None:
                return worked
            self.since, worked = asked, True
            process_task(self.engine, handlers={"many": self.many}, task=task)

    def run(self, ids: list[str], steps: int) -> None:
        tasks = [self.engine.spawn_task(name="many", params={"n": steps}, idempotency_key=id) for id in ids]
        self.drain()
        for task in tasks:
            assert self.engine.get_task(task.task_id).state == "completed"

    def recover(self) -> None:
        begun = clock()
        self.open()
        opened = clock() - begun
        while True:
            asked = clock()
            task = self.engine.claim_task(worker_id="another", timeout_secs=120)
            if task is not None:
                self.since = asked - opened
                process_task(self.engine, handlers={"many": self.many}, task=task)
            time.sleep(0.01)


if __name__ == "__main__":
    main(Dura)
