"""The same work on absurd. The place is the URL of a PostgreSQL database in which `absurdctl init` has put its schema.

One worker in the process that also spawns, with one connection: tasks are claimed twenty at a time and run one after
another.
"""

from __future__ import annotations

import time
from typing import Any

from absurd_sdk import Absurd
from same_work import Peer, clock, main

LEASE_S = 5
"""Of the process that dies: how long the next one has to wait, which is not counted. By default 120."""

BATCH = 20


class OnAbsurd(Peer):
    """Steps are checkpoints inside a task."""

    def open(self) -> None:
        self.app = Absurd(self.at, queue_name="default")
        self.app.create_queue()

        @self.app.register_task("many")
        def many(params: Any, context: Any) -> int:
            n: int = params["n"]
            for i in range(n):
                context.step("step", lambda i=i: self.bodies.run(i))
            return n

    def run(self, ids: list[str], steps: int) -> None:
        lease = LEASE_S if self.bodies.dies_at is not None else 600
        tasks = [self.app.spawn("many", {"n": steps}, idempotency_key=id) for id in ids]
        done = self.bodies.ran + len(ids) * steps
        while self.bodies.ran < done:
            self.app.work_batch(claim_timeout=lease, batch_size=BATCH)
        for task in tasks:
            assert self.app.fetch_task_result(task["task_id"]).state == "completed"

    def recover(self) -> None:
        begun = clock()
        self.open()
        opened = clock() - begun
        while True:
            self.since = clock() - opened
            self.app.work_batch(worker_id="another", claim_timeout=600)
            time.sleep(0.01)


if __name__ == "__main__":
    main(OnAbsurd)
